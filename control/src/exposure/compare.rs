//! What is exposed by one policy and not by another, and what is so by another rule.

use std::collections::{BTreeMap, HashSet};

use dataplane::policy::TableId;
use serde::Serialize;

use super::flow::{Flow, difference, join};
use super::report::{Exposure, RuleRef, Service, Teller};
use super::roads::By;
use super::{Followed, Reader, Road};

/// Flows that are looked at for one difference at most.
const PIECES: usize = 5_000;

/// Flows that one policy treats in another way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Where to.
    pub road: Road,
    /// Rules of the old policy, filter's first; none where it is not reachable.
    pub before: Vec<RuleRef>,
    /// Rules of the new one.
    pub after: Vec<RuleRef>,
    /// What.
    pub services: Vec<Service>,
    /// The flows themselves.
    #[serde(skip)]
    pub(super) raw: Vec<Flow>,
}

impl Difference {
    /// Whether the rules have other owners, tickets or dates.
    pub fn other_owner(&self) -> bool {
        let about = |rules: &[RuleRef]| -> Vec<_> {
            let of = |it: &RuleRef| {
                [it.owner.clone(), it.ticket.clone(), it.review.clone(), it.expires.clone()]
            };
            rules.iter().map(of).collect()
        };
        about(&self.before) != about(&self.after)
    }
}

/// What is different.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Reachable now, and not before.
    pub newly_exposed: Vec<Difference>,
    /// Reachable before, and not now.
    pub no_longer_exposed: Vec<Difference>,
    /// Reachable by another rule, or by one that is another's.
    pub changed: Vec<Difference>,
    /// Whether that is all.
    pub complete: bool,
}

impl Changes {
    pub(super) fn unfinished() -> Self {
        Self::default()
    }

    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.newly_exposed.is_empty()
            && self.no_longer_exposed.is_empty()
            && self.changed.is_empty()
    }
}

/// Two policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// What the old one lets in.
    pub old: Exposure,
    /// What the new one does.
    pub new: Exposure,
    /// What is different.
    pub changes: Changes,
}

/// One group of flows with what is said of its rules.
struct Group<'f> {
    road: Road,
    rules: Vec<RuleRef>,
    label: Vec<String>,
    flows: &'f [Flow],
}

fn groups<'f>(teller: &Teller<'_, '_>, followed: &'f Followed<'_>) -> Vec<Group<'f>> {
    let of = |((road, by), flows): (&(Road, By), &'f Vec<Flow>)| {
        let filter = by.filter.map(|it| teller.rule(TableId::Filter, it));
        let nat = by.nat.map(|it| teller.rule(TableId::Nat, it));
        let rules: Vec<RuleRef> = filter.into_iter().chain(nat).collect();
        let label = rules.iter().map(|it| format!("{} {}", it.table, it.text)).collect();
        Group { road: *road, rules, label, flows }
    };
    followed.found.through.iter().map(of).collect()
}

/// What is different between two policies.
pub(super) fn changes(sides: [&Followed<'_>; 2], reader: &mut Reader<'_>) -> Changes {
    let mut effort = reader.effort;
    let tellers = sides.map(|followed| Teller { reader, followed });
    let groups = [groups(&tellers[0], sides[0]), groups(&tellers[1], sides[1])];
    let mut complete =
        sides.iter().all(|it| it.found.unfinished.is_empty() && it.found.unknown.is_empty());
    let mut only = |at: usize| -> Vec<Difference> {
        let mut found = Vec::new();
        for group in &groups[at] {
            let others = groups[1 - at].iter().filter(|it| it.road == group.road);
            let others: Vec<&Flow> = others.flat_map(|it| it.flows).collect();
            let same: HashSet<&Flow> = others.iter().copied().collect();
            let mine: Vec<Flow> =
                group.flows.iter().filter(|it| !same.contains(it)).cloned().collect();
            match difference(&mine, &others, &mut effort) {
                Some(left) if left.len() <= PIECES => {
                    let rules = group.rules.clone();
                    found.extend(told(&tellers[at], (group.road, at, rules), left));
                }
                _ => complete = false,
            }
        }
        found
    };
    let (no_longer_exposed, newly_exposed) = (only(0), only(1));
    let mut changed = BTreeMap::new();
    for (one, old) in groups[0].iter().enumerate() {
        for (two, new) in groups[1].iter().enumerate() {
            if old.road != new.road || old.label == new.label {
                continue;
            }
            if !effort.spend(old.flows.len() * new.flows.len()) {
                complete = false;
                continue;
            }
            let pairs =
                old.flows.iter().flat_map(|it| new.flows.iter().map(move |other| (it, other)));
            let both: Vec<Flow> = pairs.filter_map(|(it, other)| it.and(other)).collect();
            if !both.is_empty() {
                changed.insert((one, two), both);
            }
        }
    }
    let changed = changed.into_iter().flat_map(|((one, two), flows)| {
        let (old, new) = (&groups[0][one], &groups[1][two]);
        let mut found = told(&tellers[1], (new.road, 1, new.rules.clone()), flows);
        found.iter_mut().for_each(|it| it.before.clone_from(&old.rules));
        found
    });
    let changed = changed.collect();
    reader.effort = effort;
    Changes { newly_exposed, no_longer_exposed, changed, complete }
}

fn told(
    teller: &Teller<'_, '_>,
    (road, at, rules): (Road, usize, Vec<RuleRef>),
    flows: Vec<Flow>,
) -> Option<Difference> {
    if flows.is_empty() {
        return None;
    }
    let raw = join(flows);
    let services = raw.iter().map(|it| teller.service(it, road)).collect();
    let (before, after) = if at == 0 { (rules, Vec::new()) } else { (Vec::new(), rules) };
    Some(Difference { road, before, after, services, raw })
}
