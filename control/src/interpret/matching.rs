//! One rule against one packet, in the order in which iptables compares, and
//! which comparison failed first.

use dataplane::conntrack::Direction;
use dataplane::packet::Family;
use dataplane::policy::Match;
use dataplane::policy::matches::{
    AddressMask, ConnbytesMatch, ConnbytesUnit, ConnlabelMatch, ConntrackMatch, HopCompare,
    IcmpMatch, IpRangeMatch, MultiportMatch, MultiportSide, Neg, Range, TcpMatch, UdpMatch,
    ctstate,
};

use super::packet::Proto;
use super::{Subject, Tracked};
use super::{measure, payload, place, protocol};
use crate::model;

/// Which part of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// `-s`.
    Source,
    /// `-d`.
    Destination,
    /// `-i`.
    Input,
    /// `-o`.
    Output,
    /// `-p`.
    Protocol,
    /// `-f`.
    Fragment,
    /// The match extension at this index of the rule.
    Match(usize),
}

/// What the packet had instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actual {
    /// Nothing to compare with (no such header, no connection).
    Absent,
    /// A number.
    Number(u32),
    /// A number that is customarily written in hexadecimal.
    Bits(u32),
    /// Packets or bytes.
    Count(u64),
    /// An address.
    Address(u128),
    /// A link-layer address.
    Mac([u8; 6]),
    /// The connection-state class.
    State(&'static str),
    /// The packet's interface on that side.
    Interface,
    /// Something that cannot be read, of which a `!` has made a match: the packet is
    /// dropped, but the rest of the rule is compared, and the rule counts.
    Inverted,
}

/// Why a rule did not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The first part that failed.
    pub selector: Selector,
    /// The option within it, as in `--dport`.
    pub option: &'static str,
    /// The packet's value.
    pub actual: Actual,
    /// The comparison met a malformed header, and the packet is dropped for it.
    pub hotdrop: bool,
}

pub(super) type Compared = Result<(), Mismatch>;

/// Compares under one selector; remembers the option's name for the reason.
#[derive(Clone, Copy)]
pub(super) struct At(pub(super) Selector);

impl At {
    #[inline]
    pub(super) fn fail(self, option: &'static str, actual: Actual) -> Compared {
        Err(Mismatch { selector: self.0, option, actual, hotdrop: false })
    }
    pub(super) fn hotdrop(self, option: &'static str) -> Compared {
        Err(Mismatch { selector: self.0, option, actual: Actual::Absent, hotdrop: true })
    }
    /// A hotdrop that `!` turns into a match.
    pub(super) fn unread(self, option: &'static str, negated: bool) -> Compared {
        let actual = if negated { Actual::Inverted } else { Actual::Absent };
        Err(Mismatch { selector: self.0, option, actual, hotdrop: true })
    }
    #[inline]
    pub(super) fn need(self, holds: bool, option: &'static str, actual: Actual) -> Compared {
        if holds { Ok(()) } else { self.fail(option, actual) }
    }
    /// A possibly negated, possibly missing operand.
    #[inline]
    pub(super) fn operand<T>(
        self,
        operand: &Option<Neg<T>>,
        equal: impl FnOnce(&T) -> bool,
        option: &'static str,
        actual: Actual,
    ) -> Compared {
        match operand {
            None => Ok(()),
            Some(neg) => self.need(equal(&neg.value) != neg.negated, option, actual),
        }
    }
}

fn within<T: PartialOrd>(range: &Range<T>, x: &T) -> bool {
    range.low <= *x && *x <= range.high
}

fn covers(side: &AddressMask, address: u128) -> bool {
    (address ^ side.address) & side.mask == 0
}

fn named(interface: &model::Interface, name: &str) -> bool {
    if interface.prefix { name.starts_with(&interface.name) } else { name == interface.name }
}

/// `-s -d -i -o -p -f`, in that order.
#[inline]
pub(super) fn base(rule: &model::Rule, subject: &Subject<'_>) -> Compared {
    let packet = &subject.packet;
    let (src, dst) = (packet.src, packet.dst);
    At(Selector::Source).operand(&rule.src, |s| covers(s, src), "-s", Actual::Address(src))?;
    At(Selector::Destination).operand(&rule.dst, |d| covers(d, dst), "-d", Actual::Address(dst))?;
    if let Some((interface, negated)) = &rule.input {
        let holds = named(interface, subject.input) != *negated;
        At(Selector::Input).need(holds, "-i", Actual::Interface)?;
    }
    if let Some((interface, negated)) = &rule.output {
        let holds = named(interface, subject.output) != *negated;
        At(Selector::Output).need(holds, "-o", Actual::Interface)?;
    }
    if let Some(wanted) = rule.proto {
        let at = At(Selector::Protocol);
        match packet.proto {
            Proto::CutOff => return at.hotdrop("-p"),
            Proto::Known(proto) => {
                let holds = (proto == wanted.value) != wanted.negated;
                at.need(holds, "-p", Actual::Number(u32::from(proto)))?;
            }
        }
    }
    if let Some(later) = rule.fragment {
        let holds = (packet.fragment_offset > 0) == later;
        let offset = Actual::Number(u32::from(packet.fragment_offset));
        At(Selector::Fragment).need(holds, "-f", offset)?;
    }
    Ok(())
}

/// One static match extension.
pub(super) fn extension(index: usize, body: &Match, subject: &mut Subject<'_>) -> Compared {
    let at = At(Selector::Match(index));
    let packet = &subject.packet;
    match body {
        Match::Tcp(tcp) => tcp_match(at, tcp, subject),
        Match::Udp(udp) => udp_match(at, udp, subject),
        Match::Icmp(icmp) => icmp_match(at, icmp, subject),
        Match::Multiport(multiport) => multiport_match(at, multiport, subject),
        Match::IpRange(ranges) => ip_range_match(at, ranges, subject),
        Match::Conntrack(conntrack) => conntrack_match(at, conntrack, &subject.tracked),
        Match::Mark(mark) => {
            let (value, mask) = mark.value;
            let holds = (subject.mark & mask == value) != mark.negated;
            at.need(holds, "--mark", Actual::Bits(subject.mark))
        }
        Match::Connmark(mark) => {
            let Some(conn) = &subject.tracked.connection else {
                return at.fail("--mark", Actual::Absent);
            };
            let (value, mask) = mark.value;
            let holds = (conn.mark & mask == value) != mark.negated;
            at.need(holds, "--mark", Actual::Bits(conn.mark))
        }
        Match::MacSource(mac) => {
            if !subject.has_link_header {
                return at.fail("--mac-source", Actual::Absent);
            }
            let holds = (packet.source_mac == mac.value) != mac.negated;
            at.need(holds, "--mac-source", Actual::Mac(packet.source_mac))
        }
        Match::Length(_) | Match::Hops(_) | Match::Dscp(_) | Match::Tos(_) | Match::PktType(_) => {
            header_match(at, body, subject)
        }
        Match::Helper(helper) => helper_match(at, helper, &subject.tracked),
        Match::Connbytes(connbytes) => connbytes_match(at, connbytes, &subject.tracked),
        Match::Connlabel(connlabel) => connlabel_match(at, connlabel, &mut subject.tracked),
        Match::Protocol(wanted) => protocol::compare(at, wanted, subject),
        Match::Payload(wanted) => payload::compare(at, wanted, subject),
        Match::Place(wanted) => place::compare(at, wanted, subject),
        Match::Measure(wanted) => measure::compare(at, wanted, subject),
        Match::Limit(_) | Match::Tally(_) | Match::Set(_) => {
            unreachable!("the model keeps what owns state apart")
        }
    }
}

/// Matches on the IP header, and on how the frame was addressed.
fn header_match(at: At, body: &Match, subject: &Subject<'_>) -> Compared {
    let packet = &subject.packet;
    match body {
        Match::Length(length) => {
            let Neg { negated, value: Range { low, high } } = *length;
            let inside = u32::from(low) <= packet.length && packet.length <= u32::from(high);
            at.need(inside != negated, "--length", Actual::Number(packet.length))
        }
        Match::Hops(hops) => {
            let (holds, option) = match (*hops, packet.family) {
                (HopCompare::Equal(n), Family::V4) => (packet.ttl == n, "--ttl-eq"),
                (HopCompare::NotEqual(n), Family::V4) => (packet.ttl != n, "! --ttl-eq"),
                (HopCompare::Less(n), Family::V4) => (packet.ttl < n, "--ttl-lt"),
                (HopCompare::Greater(n), Family::V4) => (packet.ttl > n, "--ttl-gt"),
                (HopCompare::Equal(n), Family::V6) => (packet.ttl == n, "--hl-eq"),
                (HopCompare::NotEqual(n), Family::V6) => (packet.ttl != n, "! --hl-eq"),
                (HopCompare::Less(n), Family::V6) => (packet.ttl < n, "--hl-lt"),
                (HopCompare::Greater(n), Family::V6) => (packet.ttl > n, "--hl-gt"),
            };
            at.need(holds, option, Actual::Number(u32::from(packet.ttl)))
        }
        Match::Dscp(dscp) => {
            let actual = packet.tos >> 2;
            let holds = (actual == dscp.value) != dscp.negated;
            at.need(holds, "--dscp", Actual::Bits(u32::from(actual)))
        }
        Match::Tos(tos) => {
            let (value, mask) = tos.value;
            let holds = (packet.tos & mask == value) != tos.negated;
            at.need(holds, "--tos", Actual::Bits(u32::from(packet.tos)))
        }
        Match::PktType(kind) => {
            let holds = (packet.pkt_type == kind.value) != kind.negated;
            let name = Actual::State(match packet.pkt_type {
                dataplane::packet::PktType::Host => "unicast",
                dataplane::packet::PktType::Broadcast => "broadcast",
                dataplane::packet::PktType::Multicast => "multicast",
                dataplane::packet::PktType::OtherHost => "otherhost",
            });
            at.need(holds, "--pkt-type", name)
        }
        _ => unreachable!("the caller names the five"),
    }
}

/// Later fragments have no ports; one that overlaps the header is dropped (IPv4:
/// IPv6 counts the offset in bytes there, so its test for "1" never holds).
fn first_fragment(at: At, subject: &Subject<'_>, drops: bool) -> Compared {
    let packet = &subject.packet;
    match packet.fragment_offset {
        0 => Ok(()),
        8 if drops && packet.family == Family::V4 => at.hotdrop("fragment at offset 8"),
        _ => at.fail("later fragment", Actual::Absent),
    }
}

type Ports = Option<Neg<Range<u16>>>;

fn ports(at: At, (sport, dport): (u16, u16), wanted: (&Ports, &Ports)) -> Compared {
    let number = |port: u16| Actual::Number(u32::from(port));
    at.operand(wanted.0, |range| within(range, &sport), "--sport", number(sport))?;
    at.operand(wanted.1, |range| within(range, &dport), "--dport", number(dport))
}

fn tcp_match(at: At, tcp: &TcpMatch, subject: &Subject<'_>) -> Compared {
    first_fragment(at, subject, true)?;
    let header = &subject.packet.layer4[..];
    let (Some(found), 20..) = (subject.packet.ports(), header.len()) else {
        return at.hotdrop("TCP header");
    };
    ports(at, found, (&tcp.sport, &tcp.dport))?;
    let flags = header[13];
    let equal = |&(mask, wanted): &(u8, u8)| flags & mask == wanted;
    at.operand(&tcp.flags, equal, "--tcp-flags", Actual::Bits(u32::from(flags)))?;
    let Some(wanted) = tcp.option else { return Ok(()) };
    let end = usize::from(header[12] >> 4) * 4;
    if end < 20 {
        return at.hotdrop("TCP header length");
    }
    let Some(options) = header.get(20..end) else { return at.hotdrop("TCP options") };
    let found = has_option(options, wanted.value);
    at.need(found != wanted.negated, "--tcp-option", Actual::Absent)
}

fn has_option(options: &[u8], wanted: u8) -> bool {
    let mut at = 0;
    while at < options.len() {
        if options[at] == wanted {
            return true;
        }
        at += match options[at] {
            0 | 1 => 1,
            _ => usize::from(*options.get(at + 1).unwrap_or(&1)).max(1),
        };
    }
    false
}

fn udp_match(at: At, udp: &UdpMatch, subject: &Subject<'_>) -> Compared {
    first_fragment(at, subject, false)?;
    let (Some(found), 8..) = (subject.packet.ports(), subject.packet.layer4.len()) else {
        return at.hotdrop("UDP header");
    };
    ports(at, found, (&udp.sport, &udp.dport))
}

fn icmp_match(at: At, icmp: &IcmpMatch, subject: &Subject<'_>) -> Compared {
    first_fragment(at, subject, false)?;
    let header = &subject.packet.layer4[..];
    if header.len() < 8 {
        return at.hotdrop("ICMP header");
    }
    let (kind, codes) = icmp.kind.value;
    let any = !icmp.v6 && kind == 255;
    let equal = any || (header[0] == kind && within(&codes, &header[1]));
    let actual = Actual::Bits(u32::from(header[0]) << 8 | u32::from(header[1]));
    at.need(equal != icmp.kind.negated, "--icmp-type", actual)
}

fn multiport_match(at: At, multiport: &MultiportMatch, subject: &Subject<'_>) -> Compared {
    first_fragment(at, subject, false)?;
    let Some((sport, dport)) = subject.packet.ports() else { return at.hotdrop("ports") };
    let listed = |port: u16| multiport.ports.value.iter().any(|range| within(range, &port));
    let (found, option, port) = match multiport.side {
        MultiportSide::Source => (listed(sport), "--sports", sport),
        MultiportSide::Destination => (listed(dport), "--dports", dport),
        MultiportSide::Either => (listed(sport) || listed(dport), "--ports", dport),
    };
    at.need(found != multiport.ports.negated, option, Actual::Number(u32::from(port)))
}

fn ip_range_match(at: At, ranges: &IpRangeMatch, subject: &Subject<'_>) -> Compared {
    let (src, dst) = (subject.packet.src, subject.packet.dst);
    at.operand(&ranges.src, |range| within(range, &src), "--src-range", Actual::Address(src))?;
    at.operand(&ranges.dst, |range| within(range, &dst), "--dst-range", Actual::Address(dst))
}

/// Without a connection only `--ctstate` is looked at: if that holds the match
/// holds, whatever else it asks for; and a match without it fails.
fn conntrack_match(at: At, wanted: &ConntrackMatch, tracked: &Tracked) -> Compared {
    let mut state = tracked.state.bit();
    if let Some(conn) = &tracked.connection {
        state |= if conn.source_translated { ctstate::SNAT } else { 0 };
        state |= if conn.destination_translated { ctstate::DNAT } else { 0 };
    }
    let name = Actual::State(tracked.state.name());
    at.operand(&wanted.state, |set| set & state != 0, "--ctstate", name)?;
    let Some(conn) = &tracked.connection else {
        return at.need(wanted.state.is_some(), "connection", Actual::Absent);
    };
    if let Some(original) = wanted.direction_original {
        let actual = Actual::State(if tracked.original { "ORIGINAL" } else { "REPLY" });
        at.need(tracked.original == original, "--ctdir", actual)?;
    }
    let address = |side: &Option<Neg<AddressMask>>, actual: u128, option| {
        at.operand(side, |mask| covers(mask, actual), option, Actual::Address(actual))
    };
    address(&wanted.orig_src, conn.original.src, "--ctorigsrc")?;
    address(&wanted.orig_dst, conn.original.dst, "--ctorigdst")?;
    address(&wanted.repl_src, conn.reply.src, "--ctreplsrc")?;
    address(&wanted.repl_dst, conn.reply.dst, "--ctrepldst")?;
    let proto = conn.original.proto;
    at.operand(&wanted.proto, |p| *p == proto, "--ctproto", Actual::Number(u32::from(proto)))?;
    let port = |side: &Option<Neg<Range<u16>>>, actual: u16, option| {
        let number = Actual::Number(u32::from(actual));
        at.operand(side, |range| within(range, &actual), option, number)
    };
    port(&wanted.orig_sport, conn.original.sport, "--ctorigsrcport")?;
    port(&wanted.orig_dport, conn.original.dport, "--ctorigdstport")?;
    port(&wanted.repl_sport, conn.reply.sport, "--ctreplsrcport")?;
    port(&wanted.repl_dport, conn.reply.dport, "--ctrepldstport")?;
    let status = Actual::Bits(conn.status);
    at.operand(&wanted.status, |set| set & conn.status != 0, "--ctstatus", status)?;
    let left = conn.expires_s;
    at.operand(&wanted.expire_s, |range| within(range, &left), "--ctexpire", Actual::Number(left))
}

/// As many bytes are compared as the helper's own name has.
fn helper_match(at: At, wanted: &Neg<Box<str>>, tracked: &Tracked) -> Compared {
    let helper = tracked.connection.as_ref().and_then(|conn| conn.master_helper);
    let named = |name: &str| wanted.value.is_empty() || wanted.value.starts_with(name);
    let holds = helper.is_some_and(|helper| named(helper.name()));
    let actual = helper.map_or(Actual::Absent, |helper| Actual::State(helper.name()));
    at.need(holds != wanted.negated, "--helper", actual)
}

fn connbytes_match(at: At, wanted: &ConnbytesMatch, tracked: &Tracked) -> Compared {
    const OPTION: &str = "--connbytes";
    let Some([there, back]) = tracked.connection.as_ref().and_then(|conn| conn.counted) else {
        return at.fail(OPTION, Actual::Absent);
    };
    let (packets, bytes) = match wanted.direction {
        Some(Direction::Original) => there,
        Some(Direction::Reply) => back,
        None => (there.0.wrapping_add(back.0), there.1.wrapping_add(back.1)),
    };
    let counted = match wanted.unit {
        ConnbytesUnit::Packets => packets,
        ConnbytesUnit::Bytes => bytes,
        ConnbytesUnit::Average if packets == 0 => 0,
        ConnbytesUnit::Average => bytes / packets,
    };
    let holds = within(&wanted.range.value, &counted) != wanted.range.negated;
    at.need(holds, OPTION, Actual::Count(counted))
}

/// `--set` labels the connection and then holds.
fn connlabel_match(at: At, wanted: &ConnlabelMatch, tracked: &mut Tracked) -> Compared {
    let bit = 1_u128 << wanted.label.value;
    let labels = tracked.connection.as_mut().and_then(|conn| conn.labels.as_mut());
    let held = labels.is_some_and(|labels| {
        *labels |= if wanted.set { bit } else { 0 };
        *labels & bit != 0
    });
    at.need(held != wanted.label.negated, "--label", Actual::Absent)
}
