//! What a classifier can say of a rule, and what is left for afterwards.
//!
//! A match may be moved into the index (that is: be looked at before the matches
//! written ahead of it) only while nothing ahead of it has an effect. So
//! indexing stops at the first match that spends credit or may drop the packet.

use classifier::{Address, ClassSet, Masked, PortRange, Rule};
use dataplane::packet::{Family, L4Class, PortId};
use dataplane::policy::matches::{
    AddressMask, ConntrackMatch, IcmpMatch, IpRangeMatch, MultiportMatch, MultiportSide, Neg,
    Range, TcpMatch,
};
use dataplane::policy::protocol::ProtocolMatch;
use dataplane::policy::{BaseMatch, Match, NO_INTERFACE, state_class};

use crate::model;

/// Layer 4 protocols whose ports `-m multiport` may look at.
const PORT_PROTOCOLS: [u8; 5] = [6, 17, 33, 132, 136];
const UDP_PROTOCOLS: [u8; 2] = [17, 136];
const STATES: u64 = state_class::INVALID
    | state_class::NEW
    | state_class::ESTABLISHED
    | state_class::RELATED
    | state_class::UNTRACKED;

/// A rule's matches, divided.
pub(super) struct Parts<A> {
    pub(super) indexed: Rule<A>,
    pub(super) check_base: bool,
    pub(super) residual: Vec<Match>,
}

/// The base selectors with interface names replaced by port sets.
pub(super) fn base<A: Address>(rule: &model::Rule, ports: &[String]) -> BaseMatch<A> {
    let address = |side: &Option<Neg<AddressMask>>| match side {
        None => (Masked::default(), false),
        Some(Neg { negated, value }) => {
            (Masked::new(A::from_u128(value.address), A::from_u128(value.mask)), *negated)
        }
    };
    BaseMatch {
        src: address(&rule.src),
        dst: address(&rule.dst),
        iif: interfaces(rule.input.as_ref(), ports),
        oif: interfaces(rule.output.as_ref(), ports),
        proto: rule.proto.map(|proto| (proto.value, proto.negated)),
        fragment: rule.fragment,
    }
}

/// What every Linux machine calls its loopback interface.
const LOOPBACK_NAME: &str = "lo";

/// The ports that a name means; a packet without an interface has the empty name.
fn interfaces(selector: Option<&(model::Interface, bool)>, ports: &[String]) -> ClassSet {
    let Some((interface, negated)) = selector else { return ClassSet::ANY };
    let matches = |name: &str| match interface.prefix {
        true => name.starts_with(&interface.name),
        false => name == interface.name,
    };
    let mut set = if matches("") { NO_INTERFACE } else { 0 };
    let mut known = NO_INTERFACE;
    let ports = ports.iter().enumerate().map(|(index, name)| (PortId(index as u8), name.as_str()));
    for (port, name) in ports.chain([(PortId::LOOPBACK, LOOPBACK_NAME)]) {
        let bit = port.bit();
        known |= bit;
        if matches(name) {
            set |= bit;
        }
    }
    let set = if *negated { known & !set } else { set };
    if set == known { ClassSet::ANY } else { ClassSet(set) }
}

/// Divides the rule into an index entry and the rest.
pub(super) fn split<A: Address>(
    family: Family,
    base: &BaseMatch<A>,
    matches: &[Match],
) -> Parts<A> {
    let mut index = Index { rule: Rule::default(), possible: true };
    let check_base = !index.base(base);
    let mut residual = Vec::new();
    let mut open = true;
    for body in matches {
        let exact = open && index.add(family, base.proto, body);
        open &= !body.has_effect();
        if !exact {
            residual.reserve_exact(1);
            residual.push(body.clone());
        }
    }
    Parts { indexed: index.finish(), check_base, residual }
}

type Ports = Option<Neg<Range<u16>>>;

struct Index<A> {
    rule: Rule<A>,
    /// False once two conditions contradict each other.
    possible: bool,
}

impl<A: Address> Index<A> {
    fn finish(self) -> Rule<A> {
        match self.possible {
            true => self.rule,
            false => Rule { iif: ClassSet::NONE, ..Rule::default() },
        }
    }

    /// Returns whether the index now says exactly what `base` says.
    fn base(&mut self, base: &BaseMatch<A>) -> bool {
        let mut exact = true;
        for (side, source) in [(base.src, true), (base.dst, false)] {
            match side {
                (masked, false) => self.address(source, masked),
                (masked, true) if masked.mask() == A::default() => self.possible = false,
                (_, true) => exact = false,
            }
        }
        self.rule.iif = base.iif;
        self.rule.oif = base.oif;
        match base.proto {
            Some((proto, false)) => self.rule.proto = Masked::new(proto, 0xff),
            Some((_, true)) => exact = false,
            None => {}
        }
        match base.fragment {
            Some(true) => self.l4(L4Class::LaterFragment.bit()),
            Some(false) => self.l4(L4Class::Whole.bit() | L4Class::Odd.bit()),
            None => {}
        }
        exact
    }

    /// Narrows the index by one match; returns whether nothing is left of it.
    fn add(&mut self, family: Family, proto: Option<(u8, bool)>, body: &Match) -> bool {
        let is = |wanted: &[u8]| matches!(proto, Some((p, false)) if wanted.contains(&p));
        match body {
            Match::Tcp(tcp) => is(&[6]) && self.tcp(tcp),
            Match::Udp(udp) => is(&UDP_PROTOCOLS) && self.ports_of(udp.sport, udp.dport),
            Match::Icmp(icmp) => is(&[if icmp.v6 { 58 } else { 1 }]) && self.icmp(icmp),
            Match::Multiport(multiport) => is(&PORT_PROTOCOLS) && self.multiport(multiport),
            Match::IpRange(ranges) => self.ip_ranges(family, ranges),
            Match::Conntrack(conntrack) => self.conntrack(conntrack),
            Match::Protocol(ProtocolMatch::Sctp(sctp)) => {
                is(&[132]) && self.ports_of(sctp.sport, sctp.dport) && sctp.chunks.is_none()
            }
            Match::Protocol(ProtocolMatch::Dccp(dccp)) => {
                is(&[33])
                    && self.ports_of(dccp.sport, dccp.dport)
                    && dccp.types.is_none()
                    && dccp.option.is_none()
            }
            Match::Connmark(_)
            | Match::Helper(_)
            | Match::Connbytes(_)
            | Match::Connlabel(_)
            | Match::Mark(_)
            | Match::MacSource(_)
            | Match::Length(_)
            | Match::Hops(_)
            | Match::Dscp(_)
            | Match::Tos(_)
            | Match::PktType(_)
            | Match::Limit(_)
            | Match::Protocol(_)
            | Match::Payload(_)
            | Match::Place(_)
            | Match::Measure(_)
            | Match::Tally(_)
            | Match::Set(_) => false,
        }
    }

    fn tcp(&mut self, tcp: &TcpMatch) -> bool {
        self.l4(L4Class::Whole.bit());
        let ports = self.port(true, tcp.sport) & self.port(false, tcp.dport);
        let flags = match tcp.flags {
            None => true,
            Some(Neg { negated: true, .. }) => false,
            Some(Neg { value: (mask, wanted), .. }) => {
                self.possible &= wanted & !mask == 0;
                self.tcp_flags(Masked::new(wanted, mask));
                true
            }
        };
        ports && flags && tcp.option.is_none()
    }

    /// Both ports of a header that is whole.
    fn ports_of(&mut self, source: Ports, destination: Ports) -> bool {
        self.l4(L4Class::Whole.bit());
        self.port(true, source) & self.port(false, destination)
    }

    fn icmp(&mut self, icmp: &IcmpMatch) -> bool {
        self.l4(L4Class::Whole.bit());
        let (kind, codes) = icmp.kind.value;
        let any = !icmp.v6 && kind == 0xff;
        if icmp.kind.negated {
            self.possible &= !any;
            return any;
        }
        if !any {
            self.range(true, u16::from(kind), u16::from(kind));
            self.range(false, u16::from(codes.low), u16::from(codes.high));
        }
        true
    }

    fn multiport(&mut self, multiport: &MultiportMatch) -> bool {
        self.l4(L4Class::Whole.bit());
        let ports = &multiport.ports.value;
        let low = ports.iter().map(|range| range.low).min();
        let high = ports.iter().map(|range| range.high).max();
        let source = match multiport.side {
            MultiportSide::Source => true,
            MultiportSide::Destination => false,
            MultiportSide::Either => return false,
        };
        let (Some(low), Some(high), false) = (low, high, multiport.ports.negated) else {
            return false;
        };
        self.range(source, low, high);
        ports.len() == 1
    }

    fn ip_ranges(&mut self, family: Family, ranges: &IpRangeMatch) -> bool {
        self.ip_range(family, true, ranges.src) & self.ip_range(family, false, ranges.dst)
    }

    /// Indexes the longest prefix that covers the range.
    fn ip_range(&mut self, family: Family, source: bool, range: Option<Neg<Range<u128>>>) -> bool {
        let Some(range) = range else { return true };
        let Neg { negated: false, value: Range { low, high } } = range else { return false };
        if low > high {
            self.possible = false;
            return true;
        }
        let all = match family {
            Family::V4 => u128::from(u32::MAX),
            Family::V6 => u128::MAX,
        };
        let differing = low ^ high;
        let host = match differing {
            0 => 0,
            _ => u128::MAX >> differing.leading_zeros(),
        };
        self.address(source, Masked::new(A::from_u128(low), A::from_u128(all & !host)));
        low & host == 0 && high & host == host & all
    }

    fn conntrack(&mut self, conntrack: &ConntrackMatch) -> bool {
        let Some(Neg { negated, value }) = conntrack.state else { return false };
        let pseudo = value & !STATES != 0;
        let only_state =
            ConntrackMatch { state: None, ..conntrack.clone() } == ConntrackMatch::default();
        if pseudo && !negated {
            return false;
        }
        let states = if negated { STATES & !value } else { STATES & value };
        if states != STATES {
            self.rule.state.0 &= states;
        }
        only_state && !pseudo
    }

    fn port(&mut self, source: bool, port: Ports) -> bool {
        match port {
            None => true,
            Some(Neg { negated: true, .. }) => false,
            Some(Neg { value, .. }) => {
                self.range(source, value.low, value.high);
                true
            }
        }
    }

    fn range(&mut self, source: bool, low: u16, high: u16) {
        let field = if source { &mut self.rule.sport } else { &mut self.rule.dport };
        *field = PortRange { low: field.low.max(low), high: field.high.min(high) };
        self.possible &= field.low <= field.high;
    }

    fn l4(&mut self, classes: u64) {
        self.rule.l4.0 &= classes;
        self.possible &= self.rule.l4.0 != 0;
    }

    fn address(&mut self, source: bool, with: Masked<A>) {
        let field = if source { &mut self.rule.src } else { &mut self.rule.dst };
        let common = field.mask() & with.mask();
        self.possible &= field.value() & common == with.value() & common;
        *field = Masked::new(field.value() | with.value(), field.mask() | with.mask());
    }

    fn tcp_flags(&mut self, with: Masked<u8>) {
        let field = self.rule.flags;
        let common = field.mask() & with.mask();
        self.possible &= field.value() & common == with.value() & common;
        self.rule.flags = Masked::new(field.value() | with.value(), field.mask() | with.mask());
    }
}
