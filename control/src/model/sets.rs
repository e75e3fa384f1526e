//! `-m set` and `-j SET` as written: sets by name.

use dataplane::sets::{CountTest, SetName, Sides};

use super::{MatchBody, Ruleset, Span, TargetSpec};

/// A set and the sides of the packet that are looked at: `NAME src,dst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NamedSet {
    /// Its name.
    pub name: SetName,
    /// Which sides.
    pub sides: Sides,
}

/// `-m set --match-set`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SetSpec {
    /// `--match-set`.
    pub set: NamedSet,
    /// `! --match-set`.
    pub negated: bool,
    /// `--return-nomatch`.
    pub return_nomatch: bool,
    /// `! --update-counters`.
    pub keep_counters: bool,
    /// `! --update-subcounters`.
    pub keep_subcounters: bool,
    /// `--packets-eq`, `--packets-lt`, `--packets-gt`.
    pub packets: Option<CountTest>,
    /// `--bytes-eq`, `--bytes-lt`, `--bytes-gt`.
    pub bytes: Option<CountTest>,
}

/// `--map-set` with what is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MapSpec {
    /// From which set.
    pub set: NamedSet,
    /// `--map-mark`.
    pub mark: bool,
    /// `--map-prio`.
    pub priority: bool,
    /// `--map-queue`: says which queue of the card is used, and nothing here.
    pub queue: bool,
}

/// `-j SET`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SetTargetSpec {
    /// `--add-set`.
    pub add: Option<NamedSet>,
    /// `--exist`.
    pub exist: bool,
    /// `--timeout`, in seconds.
    pub timeout_s: Option<u32>,
    /// `--del-set`.
    pub del: Option<NamedSet>,
    /// `--map-set`.
    pub map: Option<MapSpec>,
}

impl SetTargetSpec {
    /// The sets that it names.
    pub fn sets(&self) -> impl Iterator<Item = NamedSet> {
        [self.add, self.del, self.map.map(|map| map.set)].into_iter().flatten()
    }
}

/// A set that a rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeededSet {
    /// Which, and how many sides are asked for.
    pub set: NamedSet,
    /// Where.
    pub span: Span,
}

/// Every mention of a set, in file order.
pub fn needed(rules: &Ruleset) -> Vec<NeededSet> {
    let mut found = Vec::new();
    let chains = rules.tables.iter().flat_map(|table| &table.chains);
    for rule in chains.flat_map(|chain| &chain.rules) {
        found.extend(rule.matches.iter().filter_map(|spec| match &spec.body {
            MatchBody::Set(wanted) => Some(NeededSet { set: wanted.set, span: spec.span }),
            _ => None,
        }));
        if let TargetSpec::Set(target) = &rule.target {
            let span = rule.target_span;
            found.extend(target.sets().map(|set| NeededSet { set, span }));
        }
    }
    found
}
