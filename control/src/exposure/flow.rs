//! Beginnings of connections as sets: what they are behind a translation, and what they came for.

use crate::region::{Effort, Ranges, Region};

/// Most flows that are joined with each other.
const JOINED: usize = 400;

/// What a destination was before it was translated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Via {
    /// Addresses.
    pub(super) dst: Ranges,
    /// Ports, or ICMP codes.
    pub(super) dport: Ranges,
}

/// Beginnings of connections. Sources, interfaces and protocols are what they were.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    /// Where they arrive.
    pub(super) region: Region,
    /// What they came for, if that was translated.
    pub(super) via: Option<Via>,
}

impl Flow {
    fn meets(&self, other: &Self) -> bool {
        let via = match (&self.via, &other.via) {
            (None, None) => true,
            (Some(one), Some(two)) => one.dst.meets(&two.dst) && one.dport.meets(&two.dport),
            _ => false,
        };
        via && self.region.meets(&other.region)
    }

    /// What lies in both.
    pub(super) fn and(&self, other: &Self) -> Option<Self> {
        if !self.meets(other) {
            return None;
        }
        let via = self
            .via
            .as_ref()
            .zip(other.via.as_ref())
            .map(|(one, two)| Via { dst: one.dst.and(&two.dst), dport: one.dport.and(&two.dport) });
        Some(Self { region: self.region.and(&other.region)?, via })
    }

    /// What lies in it and not in `other`.
    pub(super) fn minus(&self, other: &Self) -> Vec<Self> {
        if !self.meets(other) {
            return vec![self.clone()];
        }
        let apart = self.region.minus(&other.region);
        let mut pieces: Vec<Self> =
            apart.into_iter().map(|region| Self { region, via: self.via.clone() }).collect();
        let (Some(mine), Some(theirs)) = (&self.via, &other.via) else { return pieces };
        let Some(region) = self.region.and(&other.region) else { return pieces };
        let outside = mine.dst.minus(&theirs.dst);
        if !outside.is_empty() {
            let via = Via { dst: outside, dport: mine.dport.clone() };
            pieces.push(Self { region: region.clone(), via: Some(via) });
        }
        let outside = mine.dport.minus(&theirs.dport);
        if !outside.is_empty() {
            let via = Via { dst: mine.dst.and(&theirs.dst), dport: outside };
            pieces.push(Self { region, via: Some(via) });
        }
        pieces
    }

    /// Both in one, if they differ in one thing only.
    fn joined(&self, other: &Self) -> Option<Self> {
        let (one, two) = (&self.region, &other.region);
        let union =
            |a: &Ranges, b: &Ranges| Ranges::union([a.ranges(), b.ranges()].concat().to_vec());
        let all = Self {
            region: Region {
                src: union(&one.src, &two.src),
                dst: union(&one.dst, &two.dst),
                sport: union(&one.sport, &two.sport),
                dport: union(&one.dport, &two.dport),
                proto: one.proto.or(two.proto),
                flags: one.flags.or(two.flags),
                classes: std::array::from_fn(|at| one.classes[at] | two.classes[at]),
                atoms: one.atoms.clone(),
            },
            via: self.via.as_ref().zip(other.via.as_ref()).map(|(one, two)| Via {
                dst: union(&one.dst, &two.dst),
                dport: union(&one.dport, &two.dport),
            }),
        };
        if self.via.is_some() != other.via.is_some() {
            return None;
        }
        let joined = &all.region;
        let other_values = [
            joined.src != one.src || joined.src != two.src,
            joined.dst != one.dst || joined.dst != two.dst,
            joined.sport != one.sport || joined.sport != two.sport,
            joined.dport != one.dport || joined.dport != two.dport,
            joined.proto != one.proto || joined.proto != two.proto,
            joined.flags != one.flags || joined.flags != two.flags,
            self.via.as_ref().map(|it| &it.dst) != other.via.as_ref().map(|it| &it.dst),
            self.via.as_ref().map(|it| &it.dport) != other.via.as_ref().map(|it| &it.dport),
        ];
        let classes = one.classes.iter().zip(two.classes).filter(|(one, two)| **one != *two);
        let values = other_values.into_iter().filter(|it| *it).count() + classes.count();
        match (values, one.atoms == two.atoms) {
            (0 | 1, true) => Some(all),
            (0, false) => without_opposites(all, &two.atoms),
            _ => None,
        }
    }
}

/// Where one holds if a match does and the other if it does not, the match does not matter.
fn without_opposites(mut all: Flow, theirs: &[(crate::region::Atom, bool)]) -> Option<Flow> {
    let mine = &all.region.atoms;
    let same = mine.len() == theirs.len() && mine.iter().zip(theirs).all(|(a, b)| a.0 == b.0);
    let mut differ = mine.iter().zip(theirs).enumerate().filter(|(_, (a, b))| a.1 != b.1);
    let (Some((at, _)), None, true) = (differ.next(), differ.next(), same) else { return None };
    all.region.atoms.remove(at);
    Some(all)
}

/// The same flows in fewer pieces.
pub(super) fn join(mut flows: Vec<Flow>) -> Vec<Flow> {
    if flows.len() > JOINED {
        return flows;
    }
    let mut at = 0;
    while at < flows.len() {
        let other = (at + 1..flows.len())
            .find_map(|other| flows[at].joined(&flows[other]).map(|all| (other, all)));
        match other {
            Some((other, all)) => {
                flows.swap_remove(other);
                flows[at] = all;
                at = 0;
            }
            None => at += 1,
        }
    }
    flows
}

/// What of some flows is not in others. `None`: the effort was not enough.
pub(super) fn difference(
    flows: &[Flow],
    others: &[&Flow],
    effort: &mut Effort,
) -> Option<Vec<Flow>> {
    let mut found = Vec::new();
    for flow in flows {
        let mut open = vec![flow.clone()];
        for other in others {
            if !effort.spend(open.len() + 1) {
                return None;
            }
            if open.iter().any(|it| it.meets(other)) {
                open = open.iter().flat_map(|it| it.minus(other)).collect();
            }
        }
        found.extend(open);
    }
    Some(found)
}
