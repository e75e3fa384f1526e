//! Targets in normal form.

use dataplane::packet::Family;
use dataplane::policy::matches::Range;
use dataplane::policy::target::{
    ConnmarkTarget, CtTarget, EcnTarget, HeaderTarget, HopChange, LogTarget, NatRange, NatTarget,
    RejectWith, SynproxyTarget, TcpMss, ZoneId, ZoneScope,
};

use super::{meta, push, quoted, report, sets};
use crate::iptables::address::{format_address, format_mask};
use crate::iptables::targets::{EVENT_NAMES, EXPECT_EVENT_NAMES, REJECT_V4, REJECT_V6};
use crate::model::TargetSpec;

/// Level that is not printed.
const DEFAULT_LEVEL: u8 = 4;

pub(super) fn target(out: &mut String, target: &TargetSpec, family: Family) {
    match target {
        TargetSpec::None => {}
        TargetSpec::Accept => out.push_str(" -j ACCEPT"),
        TargetSpec::Drop => out.push_str(" -j DROP"),
        TargetSpec::Return => out.push_str(" -j RETURN"),
        TargetSpec::Jump(chain) => push(out, format_args!(" -j {chain}")),
        TargetSpec::Goto(chain) => push(out, format_args!(" -g {chain}")),
        TargetSpec::Reject(with) => reject(out, *with),
        TargetSpec::Log(log) => log_target(out, log),
        TargetSpec::Mark(mark) => {
            let (value, mask) = (mark.toggle, mark.clear);
            push(out, format_args!(" -j MARK --set-xmark 0x{value:x}/0x{mask:x}"));
        }
        TargetSpec::Header(header) => header_target(out, *header, family),
        TargetSpec::Ct(ct) => ct_target(out, ct),
        TargetSpec::Synproxy(synproxy) => synproxy_target(out, synproxy),
        TargetSpec::Nat(nat) => nat_target(out, nat, family),
        TargetSpec::Connmark(connmark) => connmark_target(out, *connmark),
        TargetSpec::Report(found) => report::target(out, found),
        TargetSpec::Meta(spec) => meta::target(out, spec, family),
        TargetSpec::Set(spec) => sets::target(out, spec),
    }
}

fn header_target(out: &mut String, header: HeaderTarget, family: Family) {
    match header {
        HeaderTarget::Hops(change) => {
            let (name, option) = match family {
                Family::V4 => ("TTL", "ttl"),
                Family::V6 => ("HL", "hl"),
            };
            let (what, value) = match change {
                HopChange::Set(value) => ("set", value),
                HopChange::Increment(value) => ("inc", value),
                HopChange::Decrement(value) => ("dec", value),
            };
            push(out, format_args!(" -j {name} --{option}-{what} {value}"));
        }
        HeaderTarget::Tos { clear, toggle } => {
            push(out, format_args!(" -j TOS --set-tos 0x{toggle:02x}/0x{clear:02x}"));
        }
        HeaderTarget::Dscp(dscp) => push(out, format_args!(" -j DSCP --set-dscp 0x{dscp:02x}")),
        HeaderTarget::Ecn(ecn) => ecn_target(out, ecn),
        HeaderTarget::StripOptions(kinds) => {
            out.push_str(" -j TCPOPTSTRIP");
            let kinds: Vec<String> = kinds.iter().map(|kind| kind.to_string()).collect();
            if !kinds.is_empty() {
                push(out, format_args!(" --strip-options {}", kinds.join(",")));
            }
        }
        HeaderTarget::FillChecksum => out.push_str(" -j CHECKSUM --checksum-fill"),
        HeaderTarget::Prefix(prefix) => {
            let text = |(address, length)| format!("{}/{length}", format_address(address, family));
            let (name, from, to) = (prefix.name(), text(prefix.from), text(prefix.to));
            push(out, format_args!(" -j {name} --src-pfx {from} --dst-pfx {to}"));
        }
        HeaderTarget::TcpMss(TcpMss::Set(mss)) => {
            push(out, format_args!(" -j TCPMSS --set-mss {mss}"));
        }
        HeaderTarget::TcpMss(TcpMss::ClampToPmtu) => {
            out.push_str(" -j TCPMSS --clamp-mss-to-pmtu");
        }
    }
}

fn ecn_target(out: &mut String, ecn: EcnTarget) {
    out.push_str(" -j ECN");
    if ecn == (EcnTarget { ece: Some(false), cwr: Some(false), ect: None }) {
        return out.push_str(" --ecn-tcp-remove");
    }
    for (option, value) in [
        ("--ecn-tcp-ece", ecn.ece.map(u8::from)),
        ("--ecn-tcp-cwr", ecn.cwr.map(u8::from)),
        ("--ecn-ip-ect", ecn.ect),
    ] {
        if let Some(value) = value {
            push(out, format_args!(" {option} {value}"));
        }
    }
}

fn reject(out: &mut String, with: RejectWith) {
    let known = REJECT_V4.iter().chain(REJECT_V6).find(|(_, _, meaning)| *meaning == with);
    let name = known.map_or("tcp-reset", |(name, _, _)| *name);
    push(out, format_args!(" -j REJECT --reject-with {name}"));
}

fn log_target(out: &mut String, log: &LogTarget) {
    out.push_str(" -j LOG");
    if !log.prefix.is_empty() {
        out.push_str(" --log-prefix");
        quoted(out, &log.prefix);
    }
    if log.level != DEFAULT_LEVEL {
        push(out, format_args!(" --log-level {}", log.level));
    }
    for (option, set) in [
        (" --log-tcp-sequence", log.tcp_sequence),
        (" --log-tcp-options", log.tcp_options),
        (" --log-ip-options", log.ip_options),
        (" --log-uid", log.uid),
        (" --log-macdecode", log.mac_decode),
    ] {
        if set {
            out.push_str(option);
        }
    }
}

fn connmark_target(out: &mut String, connmark: ConnmarkTarget) {
    match connmark {
        ConnmarkTarget::Set { clear, toggle } => {
            push(out, format_args!(" -j CONNMARK --set-xmark 0x{toggle:x}/0x{clear:x}"));
        }
        ConnmarkTarget::Save { nfmask, ctmask } => {
            let masks = format!("--nfmask 0x{nfmask:x} --ctmask 0x{ctmask:x}");
            push(out, format_args!(" -j CONNMARK --save-mark {masks}"));
        }
        ConnmarkTarget::Restore { nfmask, ctmask } => {
            let masks = format!("--nfmask 0x{nfmask:x} --ctmask 0x{ctmask:x}");
            push(out, format_args!(" -j CONNMARK --restore-mark {masks}"));
        }
    }
}

fn nat_target(out: &mut String, nat: &NatTarget, family: Family) {
    push(out, format_args!(" -j {}", nat.name()));
    let (option, range) = match nat {
        NatTarget::Snat(range) => (" --to-source ", range),
        NatTarget::Dnat(range) => (" --to-destination ", range),
        NatTarget::Masquerade(range) | NatTarget::Redirect(range) => (" --to-ports ", range),
        NatTarget::Netmap(to) => {
            let (address, mask) =
                (format_address(to.address, family), format_mask(to.mask, family));
            push(out, format_args!(" --to {address}{mask}"));
            return;
        }
    };
    if range.addresses.is_some() || range.ports.is_some() {
        out.push_str(option);
        nat_addresses(out, range, family);
        let colon = matches!(nat, NatTarget::Snat(_) | NatTarget::Dnat(_));
        nat_ports(out, range, if colon { ":" } else { "" });
    }
    for (option, set) in [
        (" --random", range.random),
        (" --random-fully", range.random_fully),
        (" --persistent", range.persistent),
    ] {
        if set {
            out.push_str(option);
        }
    }
}

fn nat_addresses(out: &mut String, range: &NatRange, family: Family) {
    let Some(Range { low, high }) = range.addresses else { return };
    let brackets = family == Family::V6 && range.ports.is_some();
    out.push_str(if brackets { "[" } else { "" });
    out.push_str(&format_address(low, family));
    if high != low {
        push(out, format_args!("-{}", format_address(high, family)));
    }
    out.push_str(if brackets { "]" } else { "" });
}

fn nat_ports(out: &mut String, range: &NatRange, before: &str) {
    let Some(Range { low, high }) = range.ports else { return };
    push(out, format_args!("{before}{low}"));
    if high != low {
        push(out, format_args!("-{high}"));
    }
    if let Some(base) = range.base_port {
        push(out, format_args!("/{base}"));
    }
}

fn ct_target(out: &mut String, ct: &CtTarget) {
    push(out, format_args!(" -j {}", ct.name()));
    out.push_str(if ct.notrack && !ct.alias { " --notrack" } else { "" });
    if let Some(helper) = ct.helper {
        push(out, format_args!(" --helper {}", helper.name()));
    }
    if let Some(timeout) = &ct.timeout {
        push(out, format_args!(" --timeout {timeout}"));
    }
    events(out, " --ctevents ", ct.events, &EVENT_NAMES);
    events(out, " --expevents ", ct.expect_events, &EXPECT_EVENT_NAMES);
    let Some((scope, zone)) = ct.zone else { return };
    out.push_str(match scope {
        ZoneScope::Both => " --zone ",
        ZoneScope::Original => " --zone-orig ",
        ZoneScope::Reply => " --zone-reply ",
    });
    match zone {
        ZoneId::Fixed(id) => push(out, format_args!("{id}")),
        ZoneId::Mark => out.push_str("mark"),
    }
}

fn events(out: &mut String, option: &str, set: Option<u32>, names: &[&str]) {
    let Some(set) = set else { return };
    let named = names.iter().enumerate().filter(|(bit, _)| set >> bit & 1 != 0);
    let named: Vec<&str> = named.map(|(_, name)| *name).collect();
    push(out, format_args!("{option}{}", named.join(",")));
}

fn synproxy_target(out: &mut String, synproxy: &SynproxyTarget) {
    out.push_str(" -j SYNPROXY");
    out.push_str(if synproxy.sack_perm { " --sack-perm" } else { "" });
    out.push_str(if synproxy.timestamp { " --timestamp" } else { "" });
    if let Some(shift) = synproxy.wscale {
        push(out, format_args!(" --wscale {shift}"));
    }
    if let Some(mss) = synproxy.mss {
        push(out, format_args!(" --mss {mss}"));
    }
    out.push_str(if synproxy.ecn { " --ecn" } else { "" });
}
