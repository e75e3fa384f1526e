//! Matches in normal form.

use dataplane::packet::{Family, PktType};
use dataplane::policy::matches::{
    AddressMask, ConnbytesMatch, ConnlabelMatch, ConntrackMatch, HopCompare, IcmpMatch,
    IpRangeMatch, Match, MultiportMatch, MultiportSide, Neg, Range, TcpMatch, UdpMatch,
};

use super::{bang, measure, payload, place, protocol, push, quoted, sets, tally};
use crate::iptables::Names;
use crate::iptables::address::{format_address, format_mask, full_mask};
use crate::iptables::matches::{
    CONNBYTES_DIRECTIONS, CONNBYTES_UNITS, FLAG_NAMES, RATE_UNITS, STATE_NAMES, STATUS_NAMES,
};
use crate::model::{LimitSpec, MatchBody};

/// Burst that is not printed.
const DEFAULT_BURST: u32 = 5;

pub(super) fn body(out: &mut String, body: &MatchBody, family: Family, names: &dyn Names) {
    match body {
        MatchBody::Plain(plain) => plain_match(out, plain, family, names),
        MatchBody::State(Match::Conntrack(found)) => {
            out.push_str(" -m state");
            states(out, "--state", found.state);
        }
        MatchBody::State(other) => plain_match(out, other, family, names),
        MatchBody::Comment(text) => {
            out.push_str(" -m comment --comment");
            quoted(out, text);
        }
        MatchBody::Limit(spec) => limit(out, *spec),
        MatchBody::Measure(spec) => measure::spec(out, spec, family),
        MatchBody::Tally(spec) => tally::spec(out, spec, family),
        MatchBody::Set(spec) => sets::spec(out, spec),
        MatchBody::Empty(name) => push(out, format_args!(" -m {name}")),
    }
}

fn plain_match(out: &mut String, found: &Match, family: Family, names: &dyn Names) {
    match found {
        Match::Tcp(tcp) => tcp_match(out, tcp),
        Match::Udp(UdpMatch { sport, dport }) => {
            out.push_str(" -m udp");
            ports(out, "--sport", *sport);
            ports(out, "--dport", *dport);
        }
        Match::Icmp(icmp) => icmp_match(out, icmp),
        Match::Multiport(multiport) => multiport_match(out, multiport),
        Match::IpRange(IpRangeMatch { src, dst }) => {
            out.push_str(" -m iprange");
            address_range(out, "--src-range", *src, family);
            address_range(out, "--dst-range", *dst, family);
        }
        Match::Conntrack(conntrack) => conntrack_match(out, conntrack, family),
        Match::Mark(mark) => marks(out, "mark", *mark),
        Match::Connmark(mark) => marks(out, "connmark", *mark),
        Match::MacSource(mac) => {
            let bytes: Vec<String> = mac.value.iter().map(|byte| format!("{byte:02x}")).collect();
            let mac_text = bytes.join(":");
            push(out, format_args!(" -m mac {}--mac-source {mac_text}", bang(mac.negated)));
        }
        Match::Length(length) => {
            out.push_str(" -m length");
            range(out, "--length", *length);
        }
        Match::Hops(compare) => hops(out, *compare, family),
        Match::Dscp(dscp) => {
            push(out, format_args!(" -m dscp {}--dscp 0x{:02x}", bang(dscp.negated), dscp.value));
        }
        Match::Tos(Neg { negated, value: (value, mask) }) => {
            let bang = bang(*negated);
            push(out, format_args!(" -m tos {bang}--tos 0x{value:02x}/0x{mask:02x}"));
        }
        Match::PktType(kind) => {
            let name = match kind.value {
                PktType::Host => "unicast",
                PktType::Broadcast => "broadcast",
                PktType::Multicast => "multicast",
                PktType::OtherHost => "otherhost",
            };
            push(out, format_args!(" -m pkttype {}--pkt-type {name}", bang(kind.negated)));
        }
        Match::Helper(Neg { negated, value }) => {
            push(out, format_args!(" -m helper {}--helper", bang(*negated)));
            quoted(out, value);
        }
        Match::Connbytes(connbytes) => connbytes_match(out, connbytes),
        Match::Connlabel(ConnlabelMatch { label: Neg { negated, value }, set }) => {
            // Always in quotes, unlike other operands.
            let label = names.label_name(*value).map_or(value.to_string(), str::to_string);
            let set = if *set { " --set" } else { "" };
            push(out, format_args!(" -m connlabel {}--label \"{label}\"{set}", bang(*negated)));
        }
        Match::Protocol(found) => protocol::body(out, found, family),
        Match::Payload(found) => payload::body(out, found, family),
        Match::Place(found) => place::body(out, found, family),
        Match::Measure(found) => measure::body(out, found, family),
        // A model holds what owns state as written; these exist after compiling only.
        Match::Tally(_) | Match::Set(_) => {}
        // A model holds limits as `MatchBody::Limit`; cells exist after compiling only.
        Match::Limit(_) => out.push_str(" -m limit"),
    }
}

fn tcp_match(out: &mut String, tcp: &TcpMatch) {
    out.push_str(" -m tcp");
    ports(out, "--sport", tcp.sport);
    ports(out, "--dport", tcp.dport);
    if let Some(option) = tcp.option {
        push(out, format_args!(" {}--tcp-option {}", bang(option.negated), option.value));
    }
    if let Some(Neg { negated, value: (mask, comp) }) = tcp.flags {
        let (mask, comp) = (flag_set(mask), flag_set(comp));
        push(out, format_args!(" {}--tcp-flags {mask} {comp}", bang(negated)));
    }
}

fn flag_set(set: u8) -> String {
    let names: Vec<&str> =
        FLAG_NAMES.iter().filter(|(_, bit)| set & bit != 0).map(|(name, _)| *name).collect();
    if names.is_empty() { "NONE".to_string() } else { names.join(",") }
}

fn icmp_match(out: &mut String, icmp: &IcmpMatch) {
    let (module, option) = if icmp.v6 { ("icmp6", "icmpv6-type") } else { ("icmp", "icmp-type") };
    let (kind, codes) = icmp.kind.value;
    push(out, format_args!(" -m {module} {}--{option} ", bang(icmp.kind.negated)));
    if !icmp.v6 && kind == 255 {
        out.push_str("any");
    } else if codes.low == 0 && codes.high == 255 {
        push(out, format_args!("{kind}"));
    } else {
        push(out, format_args!("{kind}/{}", codes.low));
    }
}

fn multiport_match(out: &mut String, found: &MultiportMatch) {
    let option = match found.side {
        MultiportSide::Source => "--sports",
        MultiportSide::Destination => "--dports",
        MultiportSide::Either => "--ports",
    };
    let list: Vec<String> = found.ports.value.iter().map(|ports| range_text(*ports)).collect();
    let list = list.join(",");
    push(out, format_args!(" -m multiport {}{option} {list}", bang(found.ports.negated)));
}

fn conntrack_match(out: &mut String, found: &ConntrackMatch, family: Family) {
    out.push_str(" -m conntrack");
    states(out, "--ctstate", found.state);
    if let Some(proto) = found.proto {
        push(out, format_args!(" {}--ctproto {}", bang(proto.negated), proto.value));
    }
    address(out, "--ctorigsrc", found.orig_src, family);
    address(out, "--ctorigdst", found.orig_dst, family);
    address(out, "--ctreplsrc", found.repl_src, family);
    address(out, "--ctrepldst", found.repl_dst, family);
    for (option, port) in [
        ("--ctorigsrcport", found.orig_sport),
        ("--ctorigdstport", found.orig_dport),
        ("--ctreplsrcport", found.repl_sport),
        ("--ctrepldstport", found.repl_dport),
    ] {
        ports(out, option, port);
    }
    if let Some(status) = found.status {
        let names: Vec<&str> = STATUS_NAMES
            .iter()
            .filter(|(_, bit)| status.value & bit != 0)
            .map(|(name, _)| *name)
            .collect();
        let names = if names.is_empty() { "NONE".to_string() } else { names.join(",") };
        push(out, format_args!(" {}--ctstatus {names}", bang(status.negated)));
    }
    if let Some(expire) = found.expire_s {
        range(out, "--ctexpire", expire);
    }
    if let Some(original) = found.direction_original {
        out.push_str(if original { " --ctdir ORIGINAL" } else { " --ctdir REPLY" });
    }
}

fn states(out: &mut String, option: &str, states: Option<Neg<u64>>) {
    let Some(Neg { negated, value }) = states else { return };
    let names: Vec<&str> =
        STATE_NAMES.iter().filter(|(_, bit)| value & bit != 0).map(|(name, _)| *name).collect();
    push(out, format_args!(" {}{option} {}", bang(negated), names.join(",")));
}

fn address(out: &mut String, option: &str, found: Option<Neg<AddressMask>>, family: Family) {
    let Some(Neg { negated, value }) = found else { return };
    let address = format_address(value.address, family);
    push(out, format_args!(" {}{option} {address}", bang(negated)));
    // Unlike -s and -d, a full mask is left out here.
    if value.mask != full_mask(family) {
        out.push_str(&format_mask(value.mask, family));
    }
}

fn address_range(out: &mut String, option: &str, found: Option<Neg<Range<u128>>>, family: Family) {
    let Some(Neg { negated, value }) = found else { return };
    let (low, high) = (format_address(value.low, family), format_address(value.high, family));
    push(out, format_args!(" {}{option} {low}-{high}", bang(negated)));
}

fn marks(out: &mut String, module: &str, mark: Neg<(u32, u32)>) {
    let (value, mask) = mark.value;
    push(out, format_args!(" -m {module} {}--mark 0x{value:x}", bang(mark.negated)));
    if mask != u32::MAX {
        push(out, format_args!("/0x{mask:x}"));
    }
}

fn hops(out: &mut String, compare: HopCompare, family: Family) {
    let module = match family {
        Family::V4 => "ttl",
        Family::V6 => "hl",
    };
    let (bang, how, hops) = match compare {
        HopCompare::Equal(hops) => ("", "eq", hops),
        HopCompare::NotEqual(hops) => ("! ", "eq", hops),
        HopCompare::Less(hops) => ("", "lt", hops),
        HopCompare::Greater(hops) => ("", "gt", hops),
    };
    push(out, format_args!(" -m {module} {bang}--{module}-{how} {hops}"));
}

fn ports(out: &mut String, option: &str, ports: Option<Neg<Range<u16>>>) {
    if let Some(ports) = ports {
        range(out, option, ports);
    }
}

pub(super) fn range<T: PartialEq + Copy + std::fmt::Display>(
    out: &mut String,
    option: &str,
    found: Neg<Range<T>>,
) {
    push(out, format_args!(" {}{option} {}", bang(found.negated), range_text(found.value)));
}

fn range_text<T: PartialEq + Copy + std::fmt::Display>(range: Range<T>) -> String {
    if range.low == range.high {
        range.low.to_string()
    } else {
        format!("{}:{}", range.low, range.high)
    }
}

/// The rate in the longest unit that says it exactly enough, as the tools choose it.
fn limit(out: &mut String, spec: LimitSpec) {
    let avg = spec.avg.max(1);
    let mut chosen = RATE_UNITS[0];
    for unit in &RATE_UNITS[1..] {
        if avg > unit.1 || unit.1 / avg < unit.1 % avg {
            break;
        }
        chosen = *unit;
    }
    push(out, format_args!(" -m limit --limit {}/{}", chosen.1 / avg, chosen.0));
    if spec.burst != DEFAULT_BURST {
        push(out, format_args!(" --limit-burst {}", spec.burst));
    }
}

fn connbytes_match(out: &mut String, connbytes: &ConnbytesMatch) {
    let Neg { negated, value: Range { low, high } } = connbytes.range;
    push(out, format_args!(" -m connbytes {}--connbytes {low}", bang(negated)));
    if high != u64::MAX {
        push(out, format_args!(":{high}"));
    }
    let unit = CONNBYTES_UNITS.iter().find(|(_, unit)| *unit == connbytes.unit);
    let direction = CONNBYTES_DIRECTIONS.iter().find(|(_, way)| *way == connbytes.direction);
    if let (Some((unit, _)), Some((direction, _))) = (unit, direction) {
        push(out, format_args!(" --connbytes-mode {unit} --connbytes-dir {direction}"));
    }
}
