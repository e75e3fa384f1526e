//! Evaluates one match against one packet, module by module as the kernel does.
//!
//! What a module answers about a packet that it cannot read is part of its
//! meaning: most drop the packet outright ([`Outcome::Hotdrop`]), and only when
//! a rule with that match is reached.

use classifier::{Address, Key};

use super::matches::{
    ConnbytesMatch, ConnbytesUnit, ConnlabelMatch, ConntrackMatch, HopCompare, IcmpMatch,
    IpRangeMatch, Match, MultiportMatch, MultiportSide, Neg, Range, TcpMatch, UdpMatch, ctstate,
};
use super::scene::{Owner, Scene, Sender};
use super::{BaseMatch, Hook, NO_INTERFACE};
use crate::clock::Nanos;
use crate::conntrack::{ConnView, Conntrack, CtState, Direction, Template, Tracking, status};
use crate::fib::{Network, Realms};
use crate::frame::FrameBuf;
use crate::packet::{Family, Fragment, Parsed, PortId};

/// What a match says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The packet satisfies it.
    Yes,
    /// It does not.
    No,
    /// The packet must be dropped, whatever the rest of the rule says.
    Hotdrop,
    /// The same, but the rule is read on, counts and is carried out if the rest of it
    /// holds: a `!` has made a match of the header that could not be read.
    YesHotdrop,
}

impl From<bool> for Outcome {
    #[inline]
    fn from(matched: bool) -> Self {
        if matched { Self::Yes } else { Self::No }
    }
}

/// A packet as rules see it, and change it, at one hook.
pub struct PacketView<'a> {
    /// Parsed facts about `frame`, kept true by targets that change it.
    pub parsed: &'a mut Parsed,
    /// The frame from its Ethernet header on.
    pub frame: FrameBuf<'a>,
    /// Whether the Ethernet header came from the wire (not for our own packets).
    pub has_link_header: bool,
    /// Input port, where the hook has one.
    pub input: Option<PortId>,
    /// Output port, where the hook has one.
    pub output: Option<PortId>,
    /// The packet's mark.
    pub mark: u32,
    /// What tracking said of the packet. NOTRACK says it before tracking.
    pub tracking: Tracking,
    /// What CT in the raw table wants of the packet's tracking.
    pub template: Template,
    /// Where its connection is to be looked up.
    pub conntrack: &'a Conntrack,
    /// Where routes are to be looked up.
    pub network: &'a Network,
    /// MTU in bytes of the packet's way out, once it is routed.
    pub way_mtu: u32,
    /// What its route, and the way back to its source, say of it.
    pub realms: Realms,
    /// When.
    pub now: Nanos,
    /// At which hook.
    pub hook: Hook,
    /// What else may be asked.
    pub scene: Scene<'a>,
    /// Who sends it, where that is known.
    pub owner: Option<Owner>,
    /// Whose socket it came from; says more than `owner` does.
    pub sender: Sender,
    /// What CLASSIFY says of it.
    pub priority: u32,
    /// Whether TRACE wants to hear what it meets.
    pub traced: bool,
}

/// The key of a packet on its way from `input` to `output`.
#[inline]
pub(crate) fn key<A: Address>(
    parsed: &Parsed,
    input: Option<PortId>,
    output: Option<PortId>,
    state: CtState,
) -> Key<A> {
    Key {
        src: A::from_u128(parsed.src),
        dst: A::from_u128(parsed.dst),
        sport: parsed.sport,
        dport: parsed.dport,
        proto: parsed.proto,
        flags: parsed.tcp_flags,
        iif: input.map_or(NO_INTERFACE, PortId::bit),
        oif: output.map_or(NO_INTERFACE, PortId::bit),
        state: state.bit(),
        l4: parsed.l4_class.bit(),
    }
}

impl PacketView<'_> {
    /// The key that rules are indexed by. Everything in it is constant for one hook.
    #[inline]
    pub fn key<A: Address>(&self) -> Key<A> {
        key(self.parsed, self.input, self.output, self.tracking.state)
    }
    fn connection(&self) -> Option<ConnView> {
        self.conntrack.view(self.tracking.conn?)
    }
    pub(super) fn l4(&self) -> &[u8] {
        self.parsed.l4_bytes(&self.frame)
    }
    fn is_later_fragment(&self) -> bool {
        matches!(self.parsed.fragment, Fragment::Later { .. })
    }
}

impl<A: Address> BaseMatch<A> {
    /// What the base selectors say of the packet behind `key`. A protocol asked
    /// of an IPv6 header chain that cannot be read drops the packet.
    pub fn evaluate(&self, key: &Key<A>, parsed: &Parsed) -> Outcome {
        let later = matches!(parsed.fragment, Fragment::Later { .. });
        let ends = self.src.0.matches(key.src) != self.src.1
            && self.dst.0.matches(key.dst) != self.dst.1
            && self.iif.matches(key.iif)
            && self.oif.matches(key.oif);
        match self.proto {
            Some(_) if ends && parsed.broken_chain() => Outcome::Hotdrop,
            proto => (ends
                && proto.is_none_or(|(proto, negated)| (key.proto == proto) != negated)
                && self.fragment.is_none_or(|wanted| wanted == later))
            .into(),
        }
    }
}

impl Match {
    /// What the match says of the packet. A dynamic match changes its state here.
    pub fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        let parsed = &*packet.parsed;
        match self {
            Self::Tcp(tcp) => tcp.evaluate(packet),
            Self::Udp(udp) => udp.evaluate(packet),
            Self::Icmp(icmp) => icmp.evaluate(packet),
            Self::Multiport(multiport) => multiport.evaluate(packet),
            Self::IpRange(range) => range.matches(parsed).into(),
            Self::Conntrack(conntrack) => conntrack.matches(packet).into(),
            Self::Mark(mark) => masked(mark, packet.mark).into(),
            Self::Connmark(mark) => match packet.connection() {
                Some(connection) => masked(mark, connection.mark).into(),
                None => Outcome::No,
            },
            Self::MacSource(mac) => {
                (packet.has_link_header && mac.apply(packet.frame[6..12] == mac.value)).into()
            }
            Self::Length(length) => length.apply(length.value.contains(parsed.l3_len)).into(),
            Self::Hops(compare) => compare.matches(parsed.ttl).into(),
            Self::Dscp(dscp) => dscp.apply(parsed.tos >> 2 == dscp.value).into(),
            Self::Tos(tos) => tos.apply(parsed.tos & tos.value.1 == tos.value.0).into(),
            Self::PktType(kind) => kind.apply(kind.value == parsed.pkt_type).into(),
            Self::Helper(helper) => helper_matches(helper, packet).into(),
            Self::Connbytes(connbytes) => connbytes.matches(packet).into(),
            Self::Connlabel(connlabel) => connlabel.matches(packet).into(),
            Self::Limit(cell) => cell.take(packet.now).into(),
            Self::Protocol(found) => found.evaluate(packet),
            Self::Payload(found) => found.evaluate(packet),
            Self::Place(found) => found.evaluate(packet),
            Self::Measure(found) => found.evaluate(packet),
            Self::Tally(found) => found.evaluate(packet),
            Self::Set(found) => found.evaluate(packet),
        }
    }
}

/// The kernel compares as many bytes as its helper's name has.
fn helper_matches(wanted: &Neg<Box<str>>, packet: &PacketView<'_>) -> bool {
    let helper = packet.tracking.conn.and_then(|conn| packet.conntrack.master_helper(conn));
    let named = |name: &str| wanted.value.is_empty() || wanted.value.starts_with(name);
    wanted.apply(helper.is_some_and(|helper| named(helper.name())))
}

fn masked(mark: &Neg<(u32, u32)>, value: u32) -> bool {
    mark.apply(value & mark.value.1 == mark.value.0)
}

fn in_range(range: &Option<Neg<Range<u16>>>, port: u16) -> bool {
    range.as_ref().is_none_or(|range| range.apply(range.value.contains(port)))
}

/// Source and destination port, from at least four bytes.
fn ports(l4: &[u8]) -> (u16, u16) {
    (u16::from_be_bytes([l4[0], l4[1]]), u16::from_be_bytes([l4[2], l4[3]]))
}

impl TcpMatch {
    const HEADER: usize = 20;

    fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        if let Fragment::Later { offset, .. } = packet.parsed.fragment {
            // Eight bytes in, a fragment could overwrite the flags. (The kernel
            // looks at the offset in units of 8 bytes for IPv4 only.)
            let evil = offset == 8 && packet.parsed.family == Family::V4;
            return if evil { Outcome::Hotdrop } else { Outcome::No };
        }
        let l4 = packet.l4();
        if l4.len() < Self::HEADER {
            return Outcome::Hotdrop;
        }
        let (sport, dport) = ports(l4);
        let flags = |flags: Neg<(u8, u8)>| flags.apply(l4[13] & flags.value.0 == flags.value.1);
        if !in_range(&self.sport, sport)
            || !in_range(&self.dport, dport)
            || !self.flags.is_none_or(flags)
        {
            return Outcome::No;
        }
        self.option.map_or(Outcome::Yes, |option| find_option(option, l4))
    }
}

/// Searches the options of a TCP header that is at least 20 bytes long.
fn find_option(option: Neg<u8>, l4: &[u8]) -> Outcome {
    let header = usize::from(l4[12] >> 4) * 4;
    if header < TcpMatch::HEADER {
        return Outcome::Hotdrop;
    }
    let Some(options) = l4.get(TcpMatch::HEADER..header) else { return Outcome::Hotdrop };
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        if kind == option.value {
            return option.apply(true).into();
        }
        // End-of-list and no-operation are one byte; a zero length counts as one.
        let length = if kind < 2 { 1 } else { options.get(at + 1).map_or(1, |&len| len.max(1)) };
        at += usize::from(length);
    }
    option.apply(false).into()
}

impl UdpMatch {
    fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        if packet.is_later_fragment() {
            return Outcome::No;
        }
        let l4 = packet.l4();
        if l4.len() < 8 {
            return Outcome::Hotdrop;
        }
        let (sport, dport) = ports(l4);
        (in_range(&self.sport, sport) && in_range(&self.dport, dport)).into()
    }
}

impl IcmpMatch {
    /// The type that stands for every type (IPv4 only).
    const ANY: u8 = 255;

    fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        if packet.is_later_fragment() {
            return Outcome::No;
        }
        let l4 = packet.l4();
        if l4.len() < 8 {
            return Outcome::Hotdrop;
        }
        let (kind, codes) = &self.kind.value;
        let any = !self.v6 && *kind == Self::ANY;
        self.kind.apply(any || (l4[0] == *kind && codes.contains(l4[1]))).into()
    }
}

impl MultiportMatch {
    fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        if packet.is_later_fragment() {
            return Outcome::No;
        }
        let l4 = packet.l4();
        if l4.len() < 4 {
            return Outcome::Hotdrop;
        }
        let (sport, dport) = ports(l4);
        let listed = self.ports.value.iter().any(|range| match self.side {
            MultiportSide::Source => range.contains(sport),
            MultiportSide::Destination => range.contains(dport),
            MultiportSide::Either => range.contains(sport) || range.contains(dport),
        });
        self.ports.apply(listed).into()
    }
}

impl IpRangeMatch {
    fn matches(&self, parsed: &Parsed) -> bool {
        let within = |range: &Option<Neg<Range<u128>>>, address| {
            range.as_ref().is_none_or(|range| range.apply(range.value.contains(address)))
        };
        within(&self.src, parsed.src) && within(&self.dst, parsed.dst)
    }
}

impl HopCompare {
    fn matches(self, hops: u8) -> bool {
        match self {
            Self::Equal(value) => hops == value,
            Self::NotEqual(value) => hops != value,
            Self::Less(value) => hops < value,
            Self::Greater(value) => hops > value,
        }
    }
}

impl ConntrackMatch {
    fn matches(&self, packet: &PacketView<'_>) -> bool {
        let Some(connection) = packet.connection() else {
            // Without a connection only the state decides, and a rule that
            // does not ask for one never matches.
            let bit = packet.tracking.state.bit();
            return self.state.is_some_and(|state| state.apply(state.value & bit != 0));
        };
        self.state_matches(packet.tracking, &connection)
            && self.tuples_match(&connection)
            && self.status.is_none_or(|status| status.apply(status.value & connection.status != 0))
            && self.expire_s.is_none_or(|range| {
                let left = connection.expires_in(packet.now).as_secs();
                range.apply(range.value.contains(left.min(u64::from(u32::MAX)) as u32))
            })
    }

    fn state_matches(&self, tracking: Tracking, connection: &ConnView) -> bool {
        let mut bits = tracking.state.bit();
        if connection.status & status::SRC_NAT != 0 {
            bits |= ctstate::SNAT;
        }
        if connection.status & status::DST_NAT != 0 {
            bits |= ctstate::DNAT;
        }
        let original = tracking.direction == Direction::Original;
        self.state.is_none_or(|state| state.apply(state.value & bits != 0))
            && self.direction_original.is_none_or(|wanted| wanted == original)
    }

    fn tuples_match(&self, connection: &ConnView) -> bool {
        let (original, reply) = (&connection.original, &connection.reply);
        let address = |wanted: &Option<Neg<super::matches::AddressMask>>, address: u128| {
            wanted.as_ref().is_none_or(|wanted| wanted.apply(wanted.value.contains(address)))
        };
        self.proto.is_none_or(|proto| proto.apply(proto.value == original.proto))
            && address(&self.orig_src, original.src)
            && address(&self.orig_dst, original.dst)
            && address(&self.repl_src, reply.src)
            && address(&self.repl_dst, reply.dst)
            && in_range(&self.orig_sport, original.sport)
            && in_range(&self.orig_dport, original.dport)
            && in_range(&self.repl_sport, reply.sport)
            && in_range(&self.repl_dport, reply.dport)
    }
}

impl ConnbytesMatch {
    fn matches(&self, packet: &PacketView<'_>) -> bool {
        let counted = packet.tracking.conn.and_then(|conn| packet.conntrack.accounting(conn));
        let Some([there, back]) = counted else { return false };
        let (packets, bytes) = match self.direction {
            Some(Direction::Original) => (there.packets, there.bytes),
            Some(Direction::Reply) => (back.packets, back.bytes),
            None => {
                (there.packets.wrapping_add(back.packets), there.bytes.wrapping_add(back.bytes))
            }
        };
        self.range.apply(self.range.value.contains(match self.unit {
            ConnbytesUnit::Packets => packets,
            ConnbytesUnit::Bytes => bytes,
            ConnbytesUnit::Average => bytes.checked_div(packets).unwrap_or(0),
        }))
    }
}

impl ConnlabelMatch {
    fn matches(&self, packet: &PacketView<'_>) -> bool {
        let (conn, table) = (packet.tracking.conn, packet.conntrack);
        let labels = conn.and_then(|conn| Some((conn, table.labels(conn)?)));
        let Some((conn, labels)) = labels else { return self.label.apply(false) };
        let bit = self.label.value;
        let held = labels >> u32::from(bit) & 1 != 0;
        self.label.apply(held || (self.set && table.set_label(conn, bit)))
    }
}
