//! The region that a compiled rule matches.
//!
//! Addresses, ports, protocols, flags, interfaces and states have fields; every other match
//! becomes an atom. Two matches are the same atom when they ask the same and nothing
//! that rules between them do can have changed the answer: whoever reads rules in order tells
//! [`Reading::changed`] of each that may. A match that counts, draws or spends is an atom of its own.

use std::collections::HashMap;

use classifier::{Address, ClassSet, Masked, PortRange, Rule};
use dataplane::packet::L4Class;
use dataplane::policy::matches::{
    ConntrackMatch, IcmpMatch, IpRangeMatch, MultiportMatch, MultiportSide, Neg, Range, TcpMatch,
};
use dataplane::policy::{BaseMatch, CompiledRule, Match};
use dataplane::sets::SetMatch;

use super::{Atom, Bytes, Ranges, Region, Space};

/// Atoms by what they ask, and when.
#[derive(Debug, Default)]
pub struct Atoms {
    known: HashMap<(u32, String), Atom>,
    count: u32,
    words: HashMap<Atom, String>,
    /// Atoms that ask what another asks, later.
    same: HashMap<Atom, Atom>,
}

impl Atoms {
    /// An atom that is like no other.
    fn fresh(&mut self) -> Atom {
        self.count += 1;
        Atom(self.count - 1)
    }

    /// What an atom is after something that may have changed it: another one, always the same for
    /// the same `change`.
    pub(super) fn after(&mut self, atom: Atom, change: u32) -> Atom {
        let after = self.named(change, format!("after {}", atom.0));
        self.same.insert(after, atom);
        after
    }

    /// Says what an atom asks, unless that is known.
    pub(super) fn describe(&mut self, atom: Atom, words: impl FnOnce() -> String) {
        self.words.entry(atom).or_insert_with(words);
    }

    /// What an atom asks, as it is written in a rule.
    pub fn words(&self, atom: Atom) -> &str {
        let mut atom = atom;
        while let Some(earlier) = self.same.get(&atom) {
            atom = *earlier;
        }
        self.words.get(&atom).map_or("a match", String::as_str)
    }

    fn named(&mut self, epoch: u32, name: String) -> Atom {
        if let Some(atom) = self.known.get(&(epoch, name.clone())) {
            return *atom;
        }
        let atom = self.fresh();
        self.known.insert((epoch, name), atom);
        atom
    }
}

/// Reads rules as regions, in the order that packets meet them.
#[derive(Debug)]
pub struct Reading<'a> {
    space: &'a Space,
    atoms: &'a mut Atoms,
    epoch: u32,
    place: Option<String>,
}

impl<'a> Reading<'a> {
    /// Of rules that packets of `space` meet.
    pub fn new(space: &'a Space, atoms: &'a mut Atoms) -> Self {
        Self { space, atoms, epoch: 0, place: None }
    }

    /// A rule may have changed what atoms ask about (a mark, a header, a set).
    pub fn changed(&mut self) {
        self.epoch += 1;
    }

    /// What the next rule is called: matches that count, draw or spend are then those of that
    /// name, wherever it is read again.
    pub fn at(&mut self, place: String) {
        self.place = Some(place);
    }

    /// Puts the atoms of a rule just read into words, and makes them those of one policy alone
    /// where `apart` says which.
    pub(super) fn told(
        &mut self,
        regions: &mut [Region],
        apart: Option<u32>,
        words: impl Fn() -> String,
    ) {
        for region in regions {
            for (atom, _) in &mut region.atoms {
                self.atoms.describe(*atom, &words);
                if let Some(which) = apart {
                    *atom = self.atoms.after(*atom, u32::MAX - which);
                }
            }
            region.atoms.sort_unstable();
        }
    }

    /// The atom of a match that has an answer of its own.
    fn own(&mut self, body: &Match) -> Atom {
        let Some(place) = &self.place else { return self.atoms.fresh() };
        let name = format!("{place} {:?}", std::mem::discriminant(body));
        self.atoms.named(0, name)
    }

    /// What the rule matches: disjoint or not, their union is meant. Empty: nothing.
    pub fn rule<A: Address>(&mut self, rule: &CompiledRule<A>) -> Vec<Region> {
        let mut region = Region::all(self.space);
        self.indexed(&mut region, &rule.indexed);
        if rule.check_base {
            self.base(&mut region, &rule.base);
        }
        let mut regions = vec![region];
        for body in &rule.residual {
            regions = self.narrow(regions, body);
        }
        regions.retain(|region| !region.is_empty());
        regions
    }

    fn addresses<A: Address>(&mut self, side: Masked<A>) -> Result<Ranges, Atom> {
        let (value, mask) = (side.value().to_u128(), side.mask().to_u128());
        Ranges::masked(value, mask, self.space.address_bits())
            .ok_or_else(|| self.atoms.named(0, format!("address {value:x}/{mask:x}")))
    }

    fn address<A: Address>(
        &mut self,
        region: &mut Region,
        source: bool,
        side: Masked<A>,
        negated: bool,
    ) {
        let set = if source { &mut region.src } else { &mut region.dst };
        let outcome = match self.addresses(side) {
            Ok(ranges) if negated => Ok(set.minus(&ranges)),
            Ok(ranges) => Ok(set.and(&ranges)),
            Err(_) => {
                let side = format!("{source} {side:?}");
                Err(self.atoms.named(0, side))
            }
        };
        match outcome {
            Ok(ranges) => *set = ranges,
            Err(atom) => {
                if !region.suppose(atom, !negated) {
                    region.src = Ranges::empty();
                }
            }
        }
    }

    fn indexed<A: Address>(&mut self, region: &mut Region, rule: &Rule<A>) {
        self.address(region, true, rule.src, false);
        self.address(region, false, rule.dst, false);
        let range = |ports: PortRange| Ranges::of(ports.low.into(), ports.high.into());
        region.sport = region.sport.and(&range(rule.sport));
        region.dport = region.dport.and(&range(rule.dport));
        region.proto = region.proto.and(Bytes::of(|it| rule.proto.matches(it)));
        region.flags = region.flags.and(Bytes::of(|it| rule.flags.matches(it)));
        let sets = [rule.iif, rule.oif, rule.state, rule.l4];
        for (bits, ClassSet(set)) in region.classes.iter_mut().zip(sets) {
            *bits &= set;
        }
    }

    fn base<A: Address>(&mut self, region: &mut Region, base: &BaseMatch<A>) {
        self.address(region, true, base.src.0, base.src.1);
        self.address(region, false, base.dst.0, base.dst.1);
        region.classes[0] &= base.iif.0;
        region.classes[1] &= base.oif.0;
        if let Some((proto, negated)) = base.proto {
            region.proto = region.proto.and(Bytes::of(|it| (it == proto) != negated));
        }
        if let Some(later) = base.fragment {
            let bit = L4Class::LaterFragment.bit();
            region.classes[3] &= if later { bit } else { !bit };
        }
    }

    /// What is left of regions under one more match.
    fn narrow(&mut self, mut regions: Vec<Region>, body: &Match) -> Vec<Region> {
        let whole = |region: &mut Region| region.classes[3] &= !L4Class::LaterFragment.bit();
        match body {
            Match::Tcp(tcp) if tcp.option.is_none() => {
                regions.iter_mut().for_each(whole);
                each(regions, |region| tcp_fields(region, tcp))
            }
            Match::Udp(udp) => {
                regions.iter_mut().for_each(whole);
                each(regions, |region| both_ports(region, udp.sport, udp.dport))
            }
            Match::Icmp(icmp) => {
                regions.iter_mut().for_each(whole);
                regions.iter().flat_map(|region| icmp_fields(region, icmp)).collect()
            }
            Match::Multiport(multiport) => {
                regions.iter_mut().for_each(whole);
                regions.iter().flat_map(|region| multiports(region, multiport)).collect()
            }
            Match::IpRange(ranges) => each(regions, |region| ip_ranges(region, ranges)),
            Match::Conntrack(conntrack) => self.conntrack(regions, conntrack),
            _ => self.supposed(regions, body),
        }
    }

    /// States have a field. What else is asked holds for packets without a connection if
    /// their state is asked for too, and only then: these are two questions.
    fn conntrack(&mut self, mut regions: Vec<Region>, conntrack: &ConntrackMatch) -> Vec<Region> {
        let Some(Neg { negated, value }) = conntrack.state.filter(|it| plain_states(it.value))
        else {
            return self.supposed(regions, &Match::Conntrack(conntrack.clone()));
        };
        let set = if negated { !value } else { value };
        regions.iter_mut().for_each(|region| region.classes[2] &= set);
        let rest = ConntrackMatch { state: Some(Neg::plain(u64::MAX)), ..conntrack.clone() };
        let only = ConntrackMatch { state: rest.state, ..ConntrackMatch::default() };
        match rest == only {
            true => regions,
            false => self.supposed(regions, &Match::Conntrack(rest)),
        }
    }

    /// The match is an atom, which holds.
    fn supposed(&mut self, regions: Vec<Region>, body: &Match) -> Vec<Region> {
        let atom = match body {
            // What they say depends on when they are asked.
            Match::Limit(_) | Match::Tally(_) | Match::Measure(_) => self.own(body),
            _ if body.has_effect() => self.own(body),
            Match::Set(set) => {
                let SetMatch { sides, negated, return_nomatch, packets, bytes, .. } = set;
                let which = set.slot.name();
                let asked = (sides, negated, return_nomatch, packets, bytes);
                self.atoms.named(self.epoch, format!("set {which} {asked:?}"))
            }
            _ => self.atoms.named(self.epoch, format!("{body:?}")),
        };
        let hold = |mut region: Region| region.suppose(atom, true).then_some(region);
        regions.into_iter().filter_map(hold).collect()
    }
}

/// Whether a set of `--ctstate` names states alone, which packets have one of.
fn plain_states(states: u64) -> bool {
    use dataplane::policy::matches::ctstate::{DNAT, SNAT};
    states & (SNAT | DNAT) == 0
}

fn each(mut regions: Vec<Region>, mut change: impl FnMut(&mut Region)) -> Vec<Region> {
    regions.iter_mut().for_each(&mut change);
    regions
}

fn range<T: Into<u128> + Copy>(range: Range<T>) -> Ranges {
    Ranges::of(range.low.into(), range.high.into())
}

fn narrow_to(set: &mut Ranges, wanted: Option<Neg<Ranges>>) {
    match wanted {
        None => {}
        Some(Neg { negated: true, value }) => *set = set.minus(&value),
        Some(Neg { negated: false, value }) => *set = set.and(&value),
    }
}

fn neg<T, U>(from: Option<Neg<T>>, by: impl Fn(T) -> U) -> Option<Neg<U>> {
    from.map(|Neg { negated, value }| Neg { negated, value: by(value) })
}

fn both_ports(region: &mut Region, source: Option<Neg<Range<u16>>>, dest: Option<Neg<Range<u16>>>) {
    narrow_to(&mut region.sport, neg(source, range));
    narrow_to(&mut region.dport, neg(dest, range));
}

fn tcp_fields(region: &mut Region, tcp: &TcpMatch) {
    both_ports(region, tcp.sport, tcp.dport);
    if let Some(Neg { negated, value: (mask, wanted) }) = tcp.flags {
        region.flags = region.flags.and(Bytes::of(|it| (it & mask == wanted) != negated));
    }
}

fn ip_ranges(region: &mut Region, ranges: &IpRangeMatch) {
    narrow_to(&mut region.src, neg(ranges.src, range));
    narrow_to(&mut region.dst, neg(ranges.dst, range));
}

/// A type and its codes; what is not both is two regions.
fn icmp_fields(region: &Region, icmp: &IcmpMatch) -> Vec<Region> {
    let (kind, codes) = icmp.kind.value;
    if !icmp.v6 && kind == u8::MAX {
        return if icmp.kind.negated { Vec::new() } else { vec![region.clone()] };
    }
    let kinds = Ranges::of(kind.into(), kind.into());
    let (mut inside, mut other) = (region.clone(), region.clone());
    inside.sport = region.sport.and(&kinds);
    if !icmp.kind.negated {
        inside.dport = region.dport.and(&range(codes));
        return vec![inside];
    }
    inside.dport = region.dport.minus(&range(codes));
    other.sport = region.sport.minus(&kinds);
    vec![inside, other]
}

/// `--ports` is one side or the other.
fn multiports(region: &Region, multiport: &MultiportMatch) -> Vec<Region> {
    let ports = multiport.ports.value.iter();
    let set = Ranges::union(ports.map(|it| (it.low.into(), it.high.into())).collect());
    let wanted = || Some(Neg { negated: multiport.ports.negated, value: set.clone() });
    let (mut one, mut two) = (region.clone(), region.clone());
    match (multiport.side, multiport.ports.negated) {
        (MultiportSide::Source, _) => narrow_to(&mut one.sport, wanted()),
        (MultiportSide::Destination, _) => narrow_to(&mut one.dport, wanted()),
        (MultiportSide::Either, true) => {
            narrow_to(&mut one.sport, wanted());
            narrow_to(&mut one.dport, wanted());
        }
        (MultiportSide::Either, false) => {
            narrow_to(&mut one.sport, wanted());
            narrow_to(&mut two.dport, wanted());
            return vec![one, two];
        }
    }
    vec![one]
}
