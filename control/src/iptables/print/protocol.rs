//! Matches on other transports and extension headers, in normal form.

use std::fmt::Display;

use dataplane::packet::Family;
use dataplane::policy::matches::{AddressMask, Neg, Range};
use dataplane::policy::protocol::{
    AhMatch, DccpMatch, EcnMatch, FragMatch, IpcompMatch, Ipv6HeaderMatch, OptionsMatch,
    ProtocolMatch, RtMatch, SctpChunks, SctpMatch, SrhCompare, SrhMatch,
};

use super::matches::range;
use super::{bang, push};
use crate::iptables::address::{format_address, format_mask};
use crate::iptables::matches::{CHUNK_NAMES, CHUNK_SCOPES, DCCP_TYPES, HEADER_NAMES};

pub(super) fn body(out: &mut String, found: &ProtocolMatch, _family: Family) {
    match found {
        ProtocolMatch::Sctp(sctp) => sctp_match(out, sctp),
        ProtocolMatch::Dccp(dccp) => dccp_match(out, dccp),
        ProtocolMatch::Ah(AhMatch { spi, length, reserved }) => {
            out.push_str(" -m ah");
            optional(out, "--ahspi", spi);
            number(out, "--ahlen", length);
            word(out, "--ahres", *reserved);
        }
        ProtocolMatch::Esp(spi) => {
            out.push_str(" -m esp");
            optional(out, "--espspi", spi);
        }
        ProtocolMatch::Ipcomp(IpcompMatch { cpi, reserved }) => {
            out.push_str(" -m ipcomp");
            range(out, "--ipcompspi", *cpi);
            word(out, "--compres", *reserved);
        }
        ProtocolMatch::TcpMss(mss) => {
            out.push_str(" -m tcpmss");
            range(out, "--mss", *mss);
        }
        ProtocolMatch::Ecn(EcnMatch { ece, cwr, ect }) => {
            out.push_str(" -m ecn");
            for (option, wanted) in [("--ecn-tcp-ece", ece), ("--ecn-tcp-cwr", cwr)] {
                if let Some(wanted) = wanted {
                    push(out, format_args!(" {}{option}", bang(!wanted)));
                }
            }
            number(out, "--ecn-ip-ect", ect);
        }
        ProtocolMatch::Eui64 => out.push_str(" -m eui64"),
        ProtocolMatch::Ipv6Header(wanted) => ipv6_header(out, *wanted),
        ProtocolMatch::Rt(rt) => rt_match(out, rt),
        ProtocolMatch::Options(options) => options_match(out, options),
        ProtocolMatch::Frag(FragMatch { id, length, reserved, first, more }) => {
            out.push_str(" -m frag");
            optional(out, "--fragid", id);
            number(out, "--fraglen", length);
            word(out, "--fragres", *reserved);
            word(out, "--fragfirst", *first);
            word(out, "--fragmore", *more == Some(true));
            word(out, "--fraglast", *more == Some(false));
        }
        ProtocolMatch::Mh(kinds) => {
            out.push_str(" -m mh");
            optional(out, "--mh-type", kinds);
        }
        ProtocolMatch::Srh(srh) => srh_match(out, srh),
    }
}

fn word(out: &mut String, option: &str, given: bool) {
    if given {
        push(out, format_args!(" {option}"));
    }
}

fn number<T: Display>(out: &mut String, option: &str, found: &Option<Neg<T>>) {
    if let Some(Neg { negated, value }) = found {
        push(out, format_args!(" {}{option} {value}", bang(*negated)));
    }
}

fn optional<T: Copy + PartialEq + Display>(
    out: &mut String,
    option: &str,
    found: &Option<Neg<Range<T>>>,
) {
    if let Some(found) = found {
        range(out, option, *found);
    }
}

fn sctp_match(out: &mut String, SctpMatch { sport, dport, chunks }: &SctpMatch) {
    out.push_str(" -m sctp");
    optional(out, "--sport", sport);
    optional(out, "--dport", dport);
    if let Some(Neg { negated, value }) = chunks {
        let scope = CHUNK_SCOPES.iter().find(|(_, scope)| *scope == value.scope);
        let scope = scope.map_or("", |(name, _)| name);
        let list = chunk_list(value);
        push(out, format_args!(" {}--chunk-types {scope} {list}", bang(*negated)));
    }
}

fn chunk_list(chunks: &SctpChunks) -> String {
    match chunks.types {
        [u64::MAX, u64::MAX, u64::MAX, u64::MAX] => return "ALL".to_owned(),
        [0, 0, 0, 0] => return "NONE".to_owned(),
        _ => {}
    }
    let mut list = Vec::new();
    for (name, kind, letters) in CHUNK_NAMES.iter().filter(|(_, kind, _)| chunks.names(*kind)) {
        let mut text = (*name).to_owned();
        if let Some(asked) = chunks.flags.iter().find(|asked| asked.kind == *kind) {
            text.push(':');
            let bits = letters.chars().enumerate().map(|(place, letter)| (0x80 >> place, letter));
            for (bit, letter) in bits.filter(|(bit, _)| asked.mask & bit != 0) {
                let set = asked.set & bit != 0;
                text.push(if set { letter } else { letter.to_ascii_lowercase() });
            }
        }
        list.push(text);
    }
    list.join(",")
}

fn dccp_match(out: &mut String, DccpMatch { sport, dport, types, option }: &DccpMatch) {
    out.push_str(" -m dccp");
    optional(out, "--sport", sport);
    optional(out, "--dport", dport);
    if let Some(Neg { negated, value }) = types {
        let names = DCCP_TYPES.iter().enumerate().filter(|(bit, _)| value >> bit & 1 != 0);
        let names: Vec<&str> = names.map(|(_, name)| *name).collect();
        push(out, format_args!(" {}--dccp-types {}", bang(*negated), names.join(",")));
    }
    number(out, "--dccp-option", option);
}

fn ipv6_header(out: &mut String, Ipv6HeaderMatch { headers, soft }: Ipv6HeaderMatch) {
    let named = HEADER_NAMES.iter().filter(|(_, _, _, bit)| headers.value & bit != 0);
    let names: Vec<&str> = named.map(|(name, _, _, _)| *name).collect();
    let list = names.join(",");
    push(out, format_args!(" -m ipv6header {}--header {list}", bang(headers.negated)));
    word(out, "--soft", soft);
}

fn rt_match(out: &mut String, rt: &RtMatch) {
    out.push_str(" -m rt");
    number(out, "--rt-type", &rt.kind);
    optional(out, "--rt-segsleft", &rt.segments_left);
    number(out, "--rt-len", &rt.length);
    word(out, "--rt-0-res", rt.reserved);
    if !rt.addresses.is_empty() {
        let list = rt.addresses.iter().map(|address| format_address(*address, Family::V6));
        let list: Vec<String> = list.collect();
        push(out, format_args!(" --rt-0-addrs {}", list.join(",")));
    }
    word(out, "--rt-0-not-strict", rt.not_strict);
}

fn options_match(out: &mut String, found: &OptionsMatch) {
    let name = if found.destination { "dst" } else { "hbh" };
    push(out, format_args!(" -m {name}"));
    number(out, &format!("--{name}-len"), &found.length);
    if !found.options.is_empty() {
        let list = found.options.iter().map(|(kind, length)| match length {
            None => kind.to_string(),
            Some(length) => format!("{kind}:{length}"),
        });
        let list: Vec<String> = list.collect();
        push(out, format_args!(" --{name}-opts {}", list.join(",")));
    }
}

fn srh_match(out: &mut String, srh: &SrhMatch) {
    out.push_str(" -m srh");
    number(out, "--srh-next-hdr", &srh.next_header);
    compare(out, "--srh-hdr-len", &srh.length);
    compare(out, "--srh-segs-left", &srh.segments_left);
    compare(out, "--srh-last-entry", &srh.last_entry);
    number(out, "--srh-tag", &srh.tag);
    segment(out, "--srh-psid", &srh.previous);
    segment(out, "--srh-nsid", &srh.next);
    segment(out, "--srh-lsid", &srh.last);
}

fn compare(
    out: &mut String,
    option: &str,
    SrhCompare { value, equal, greater, less }: &SrhCompare,
) {
    for (how, negated) in [("eq", equal), ("gt", greater), ("lt", less)] {
        if let Some(negated) = negated {
            push(out, format_args!(" {}{option}-{how} {value}", bang(*negated)));
        }
    }
}

fn segment(out: &mut String, option: &str, found: &Option<Neg<AddressMask>>) {
    if let Some(Neg { negated, value }) = found {
        let address = format_address(value.address, Family::V6);
        let mask = format_mask(value.mask, Family::V6);
        push(out, format_args!(" {}{option} {address}{mask}", bang(*negated)));
    }
}
