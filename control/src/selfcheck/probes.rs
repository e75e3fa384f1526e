//! Boundary packets: for a rule, packets on and one step beyond each of its edges.
//!
//! A rule in a user chain is met only by packets that got through the jumps
//! before it, so what the rule leaves open is taken from the rules that jump there.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::conntrack::CtState;
use dataplane::packet::{Family, PortId};
use dataplane::policy::matches::{MultiportSide, Neg, Range};
use dataplane::policy::{Hook, Match};
use dataplane::wire::build::{L4, Packet, Tcp};

use crate::model::{Chain, MatchBody, Rule, Table, TargetSpec};

/// A packet described by the fields that rules look at; `None` is "whatever".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Fields {
    pub(super) src: Option<u128>,
    pub(super) dst: Option<u128>,
    pub(super) proto: Option<u8>,
    /// Port, or ICMP type.
    pub(super) sport: Option<u16>,
    /// Port, or ICMP code.
    pub(super) dport: Option<u16>,
    pub(super) flags: Option<u8>,
    pub(super) input: Option<u8>,
    pub(super) output: Option<u8>,
    pub(super) state: Option<CtState>,
    pub(super) later_fragment: bool,
    pub(super) mark: Option<u32>,
}

impl Fields {
    /// Takes what is still open from `outer`.
    fn or(self, outer: Self) -> Self {
        Self {
            src: self.src.or(outer.src),
            dst: self.dst.or(outer.dst),
            proto: self.proto.or(outer.proto),
            sport: self.sport.or(outer.sport),
            dport: self.dport.or(outer.dport),
            flags: self.flags.or(outer.flags),
            input: self.input.or(outer.input),
            output: self.output.or(outer.output),
            state: self.state.or(outer.state),
            later_fragment: self.later_fragment || outer.later_fragment,
            mark: self.mark.or(outer.mark),
        }
    }

    /// The frame.
    pub(super) fn frame(&self, family: Family) -> Vec<u8> {
        let address = |bits: Option<u128>, default: u32| -> IpAddr {
            let bits = bits.unwrap_or(default_address(family, default));
            match family {
                Family::V4 => Ipv4Addr::from_bits(bits as u32).into(),
                Family::V6 => Ipv6Addr::from_bits(bits).into(),
            }
        };
        let (sport, dport) = (self.sport.unwrap_or(PORT), self.dport.unwrap_or(PORT));
        let l4 = match self.proto.unwrap_or(17) {
            6 => L4::Tcp(Tcp::new(sport, dport, self.flags.unwrap_or(0x10))),
            17 => L4::Udp { sport, dport, length: None, lite: false },
            136 => L4::Udp { sport, dport, length: None, lite: true },
            1 | 58 => {
                let code = self.dport.unwrap_or(0) as u8;
                L4::Icmp { kind: self.sport.unwrap_or(8) as u8, code, word: 1 }
            }
            132 => L4::Sctp { sport, dport, tag: 1 },
            other => L4::Raw(other),
        };
        let (src, dst) = (address(self.src, SRC), address(self.dst, DST));
        let proto = self.proto.unwrap_or(17);
        // The builder gives an ICMP header its family's number: undo that for the other's.
        let l4 = match (family, proto) {
            (Family::V4, 58) | (Family::V6, 1) => L4::Raw(proto),
            _ => l4,
        };
        let packet = Packet::between(src, dst, l4).payload_len(64);
        match self.later_fragment {
            true => packet.fragment(16, 24, false).build(),
            false => packet.build(),
        }
    }
}

/// Where probes come from and go to if no rule says: the low bits in IPv6.
pub(super) const SRC: u32 = 0xc612_0101;
pub(super) const DST: u32 = 0xc612_0201;
/// And both their ports.
pub(super) const PORT: u16 = 40_000;
const V6_BASE: u128 = 0x2001_0db8 << 96;

pub(super) fn default_address(family: Family, low: u32) -> u128 {
    match family {
        Family::V4 => u128::from(low),
        Family::V6 => V6_BASE | u128::from(low),
    }
}

/// One way to each chain: the fields that its jumps ask for.
pub(super) fn approaches<'m>(
    table: &'m Table,
    entry: &'m Chain,
    ports: &[String],
) -> Vec<(&'m Chain, Fields)> {
    let chains: HashMap<&str, &Chain> =
        table.chains.iter().map(|chain| (chain.name.as_str(), chain)).collect();
    let mut seen = HashSet::from([entry.name.as_str()]);
    let mut queue = VecDeque::from([(entry, Fields::default())]);
    let mut found = Vec::new();
    while let Some((chain, outer)) = queue.pop_front() {
        found.push((chain, outer));
        for rule in &chain.rules {
            let (TargetSpec::Jump(name) | TargetSpec::Goto(name)) = &rule.target else { continue };
            let Some(callee) = chains.get(name.as_str()) else { continue };
            if seen.insert(name) {
                queue.push_back((callee, corner(rule, false, ports).or(outer)));
            }
        }
    }
    found
}

/// The packets of one rule: its two corners, and each edge of each field crossed.
pub(super) fn of_rule(rule: &Rule, outer: Fields, ports: &[String], family: Family) -> Vec<Fields> {
    let (low, high) = (corner(rule, false, ports), corner(rule, true, ports));
    let low_in = low.or(outer);
    let mut probes = vec![low_in, high.or(outer)];
    let width = if family == Family::V4 { u128::from(u32::MAX) } else { u128::MAX };
    let address = |value: Option<u128>, up: bool| {
        value.map(|bits| if up { bits.wrapping_add(1) } else { bits.wrapping_sub(1) } & width)
    };
    let port = |value: Option<u16>, up: bool| {
        value.and_then(|port| if up { port.checked_add(1) } else { port.checked_sub(1) })
    };
    let mut cross = |change: &dyn Fn(&mut Fields)| {
        let mut probe = low_in;
        change(&mut probe);
        if !probes.contains(&probe) {
            probes.push(probe);
        }
    };
    for up in [false, true] {
        let edge = if up { high } else { low };
        cross(&|probe| probe.src = address(edge.src, up).or(probe.src));
        cross(&|probe| probe.dst = address(edge.dst, up).or(probe.dst));
        cross(&|probe| probe.sport = port(edge.sport, up).or(probe.sport));
        cross(&|probe| probe.dport = port(edge.dport, up).or(probe.dport));
    }
    if let Some(flags) = low.flags {
        (0..8).for_each(|bit| cross(&|probe| probe.flags = Some(flags ^ 1 << bit)));
    }
    if let Some(proto) = low.proto {
        cross(&|probe| probe.proto = Some(if proto == 6 { 17 } else { 6 }));
    }
    if rule.input.is_some() || rule.output.is_some() {
        for port in 0..ports.len().min(8) as u8 {
            cross(&|probe| probe.input = Some(port));
            cross(&|probe| probe.output = Some(port));
        }
    }
    if low.state.is_some() {
        use CtState::{Established, Invalid, New, Related, Untracked};
        for state in [New, Established, Related, Invalid, Untracked] {
            cross(&|probe| probe.state = Some(state));
        }
    }
    if low.mark.is_some() {
        cross(&|probe| probe.mark = Some(0));
    }
    if rule.matches.iter().any(|spec| matches!(spec.body, MatchBody::Set(_))) {
        // The other way round: sets hold where probes come from.
        cross(&|probe| {
            let [src, dst] = [SRC, DST].map(|low| Some(default_address(family, low)));
            (probe.src, probe.dst) = (probe.dst.or(dst), probe.src.or(src));
        });
    }
    cross(&|probe| probe.later_fragment = !probe.later_fragment);
    probes
}

/// Values that satisfy the rule's static selectors: the lowest or the highest.
fn corner(rule: &Rule, high: bool, ports: &[String]) -> Fields {
    let pick = |range: Range<u16>| if high { range.high } else { range.low };
    let mut fields = Fields {
        proto: rule.proto.filter(|proto| !proto.negated).map(|proto| proto.value),
        later_fragment: rule.fragment == Some(true),
        input: port_for(rule.input.as_ref(), ports, high),
        output: port_for(rule.output.as_ref(), ports, high),
        ..Fields::default()
    };
    for (side, field) in [(&rule.src, &mut fields.src), (&rule.dst, &mut fields.dst)] {
        if let Some(Neg { value, .. }) = side {
            *field = Some(value.address | if high { !value.mask } else { 0 });
        }
    }
    for spec in &rule.matches {
        let (MatchBody::Plain(body) | MatchBody::State(body)) = &spec.body else { continue };
        match body {
            Match::Tcp(tcp) => {
                fields.sport = tcp.sport.map(|port| pick(port.value)).or(fields.sport);
                fields.dport = tcp.dport.map(|port| pick(port.value)).or(fields.dport);
                fields.flags = tcp.flags.map(|flags| flags.value.1).or(fields.flags);
            }
            Match::Udp(udp) => {
                fields.sport = udp.sport.map(|port| pick(port.value)).or(fields.sport);
                fields.dport = udp.dport.map(|port| pick(port.value)).or(fields.dport);
            }
            Match::Icmp(icmp) => {
                let (kind, codes) = icmp.kind.value;
                fields.sport = Some(kind.into());
                fields.dport = Some(if high { codes.high } else { codes.low }.into());
            }
            Match::Multiport(multiport) => {
                let listed = &multiport.ports.value;
                let range = if high { listed.last() } else { listed.first() };
                let field = match multiport.side {
                    MultiportSide::Source => &mut fields.sport,
                    MultiportSide::Destination | MultiportSide::Either => &mut fields.dport,
                };
                *field = range.map(|range| pick(*range)).or(*field);
            }
            Match::IpRange(ranges) => {
                let pick = |range: Range<u128>| if high { range.high } else { range.low };
                fields.src = ranges.src.map(|range| pick(range.value)).or(fields.src);
                fields.dst = ranges.dst.map(|range| pick(range.value)).or(fields.dst);
            }
            Match::Conntrack(conntrack) => {
                let wanted = conntrack.state.map(|state| state.value);
                let states = [
                    CtState::New,
                    CtState::Established,
                    CtState::Related,
                    CtState::Invalid,
                    CtState::Untracked,
                ];
                let holds = |state: &CtState| wanted.is_some_and(|set| set & state.bit() != 0);
                fields.state = states.into_iter().find(holds).or(fields.state);
            }
            Match::Mark(mark) => fields.mark = Some(mark.value.0),
            _ => {}
        }
    }
    fields
}

/// A port that the interface selector names (negated or not: the crossed
/// probes go to the others).
fn port_for(
    selector: Option<&(crate::model::Interface, bool)>,
    ports: &[String],
    last: bool,
) -> Option<u8> {
    let (interface, _) = selector?;
    let named = |name: &String| match interface.prefix {
        true => name.starts_with(&interface.name),
        false => *name == interface.name,
    };
    let found = if last { ports.iter().rposition(named) } else { ports.iter().position(named) };
    found.map(|index| index as u8)
}

/// The interfaces a packet has at `hook`; the loopback interface where there
/// are no ports (a policy that is only checked).
pub(super) fn interfaces(
    fields: &Fields,
    hook: Hook,
    ports: &[String],
) -> (Option<PortId>, Option<PortId>) {
    let port = |index: Option<u8>| {
        let port = PortId(index.unwrap_or(0));
        Some(if port.index() < ports.len() { port } else { PortId::LOOPBACK })
    };
    let (input, output) = (port(fields.input), port(fields.output));
    match hook {
        Hook::Prerouting | Hook::Input => (input, None),
        Hook::Forward => (input, output),
        Hook::Output | Hook::Postrouting => (None, output),
    }
}
