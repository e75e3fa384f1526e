//! The ways that the packets of a region take through one table, by reading every rule.
//!
//! A [`Side`] is one family of a compiled policy, read once; [`Ways`] follows regions through
//! it. Two sides that were read with the same [`Atoms`] and ports may be compared: a question
//! that both ask, after the same changes to the packet, has one answer. Work and results are bounded.

use std::collections::HashMap;
use std::rc::Rc;

use classifier::Address;
use dataplane::packet::Family;
use dataplane::policy::matches::Match;
use dataplane::policy::target::{HeaderTarget, RejectWith};
use dataplane::policy::{ChainId, ChainPolicy, FamilyPolicy, Hook, TABLES, TableId, Target};

use super::{Atoms, Effort, Reading, Region, Space};
use crate::iptables::{TableNames, rule_text};
use crate::model::{Chain, MatchBody, Rule, Ruleset, TargetSpec};

/// Most leaves of one question.
const MOST_LEAVES: usize = 20_000;

/// What becomes of a packet in a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// It goes on.
    Accept,
    /// It is dropped.
    Drop,
    /// It is dropped and answered, as this says.
    Reject(String),
    /// Its connection is translated, as this says.
    Translate(String),
    /// What becomes of it was not followed, because of this.
    Unknown(&'static str),
}

impl Fate {
    /// Of a REJECT.
    pub fn reject(with: RejectWith) -> Self {
        Self::Reject(format!("{with:?}"))
    }
}

/// Who decides: a rule by its chain and index, or the policy of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Decider {
    /// The chain.
    pub chain: ChainId,
    /// The rule; `None` for the chain's policy.
    pub rule: Option<u32>,
}

/// Packets with one fate.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// Which.
    pub region: Region,
    /// What becomes of them.
    pub fate: Fate,
    /// Who says so; `None`: there is no such chain, and that accepts.
    pub decider: Option<Decider>,
    /// What was done to them on the way: a number for each list of changes, 0 for none.
    pub changes: u32,
    /// What of their fields is not known any more.
    pub lost: Lost,
}

impl Leaf {
    /// What they bring into the next table.
    pub fn carried(&self) -> Carried {
        Carried { changes: self.changes, lost: self.lost }
    }
}

/// What packets bring from the tables before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Carried {
    /// What was done to them: a list of changes.
    pub changes: u32,
    /// What of their fields is not known any more.
    pub lost: Lost,
}

impl Carried {
    /// Nothing was done yet.
    pub const NOTHING: Self = Self { changes: 0, lost: Lost::Nothing };
}

/// What a rule does with what it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing that a verdict depends on.
    Nothing,
    /// It ends the way.
    End(Fate),
    /// RETURN.
    Return,
    /// A jump.
    Jump(ChainId),
    /// A goto.
    Goto(ChainId),
    /// It changes the packet.
    Change {
        /// In words.
        how: String,
        /// What of a region's fields is not known any more.
        lost: Lost,
    },
}

/// What a change leaves of what is known of a packet's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lost {
    /// Everything.
    Nothing,
    /// All but its connection's state.
    State,
    /// Nothing.
    All,
}

/// One rule, read.
#[derive(Clone, Debug)]
pub struct ReadRule {
    /// What it matches.
    pub regions: Vec<Region>,
    /// What it does with that.
    pub step: Step,
}

impl ReadRule {
    /// Whether a packet's fields are not known any more behind it.
    pub fn loses_fields(&self) -> bool {
        matches!(self.step, Step::Change { lost: Lost::All, .. })
    }
}

/// One family of a policy, read.
#[derive(Debug)]
pub struct Side {
    /// Rules by chain.
    pub chains: Vec<Vec<ReadRule>>,
    /// The end of each chain, for built-in ones.
    pub policies: Vec<Option<Fate>>,
    hooks: [[Option<ChainId>; TABLES]; 5],
    states: u64,
}

impl Side {
    /// Reads a compiled policy. `texts` are its rules as printed, by chain; `apart` says of rules
    /// whose questions have answers of this policy alone, which policy it is.
    pub fn read<A: Address>(
        policy: &FamilyPolicy<A>,
        rules: &Ruleset,
        texts: &[Vec<String>],
        space: &Space,
        atoms: &mut Atoms,
        apart: &dyn Fn(&Rule) -> Option<u32>,
    ) -> Self {
        let written = rules.tables.iter().flat_map(|table| table.chains.iter());
        let mut reading = Reading::new(space, atoms);
        let family = rules.family;
        let chains = policy.chains.iter().zip(written).zip(texts);
        let chains = chains.map(|((chain, written), texts)| {
            let mut seen: HashMap<&str, u32> = HashMap::new();
            let rules = chain.rules.iter().zip(&written.rules).zip(texts);
            let read = rules.map(|((rule, spec), text)| {
                let nth = seen.entry(text).or_default();
                *nth += 1;
                reading.at(format!("{} {} {nth} {text}", chain.table.name(), chain.name));
                let mut regions = reading.rule(rule);
                reading.told(&mut regions, apart(spec), || asked(spec, family));
                ReadRule { regions, step: step(&rule.target, &spec.target) }
            });
            read.collect()
        });
        let chains: Vec<Vec<ReadRule>> = chains.collect();
        let end = |policy| match policy {
            ChainPolicy::Accept => Fate::Accept,
            ChainPolicy::Drop => Fate::Drop,
        };
        let policies = policy.chains.iter().map(|chain| chain.policy.map(|it| end(it.0)));
        Self { chains, policies: policies.collect(), hooks: policy.hooks, states: space.classes[2] }
    }

    /// The chain at a hook; `None` where everything is accepted.
    pub fn entry(&self, table: TableId, hook: Hook) -> Option<ChainId> {
        self.hooks[hook as usize][table as usize]
    }

    /// Chains that packets may come to from one, itself included.
    pub fn reached(&self, from: ChainId) -> Vec<ChainId> {
        let mut found = vec![from];
        let mut at = 0;
        while let Some(chain) = found.get(at).copied() {
            for rule in &self.chains[chain.0 as usize] {
                if let Step::Jump(to) | Step::Goto(to) = rule.step
                    && !found.contains(&to)
                {
                    found.push(to);
                }
            }
            at += 1;
        }
        found
    }
}

/// The matches of a rule that regions have no field for, as written.
fn asked(rule: &Rule, family: Family) -> String {
    let has_field = |body: &MatchBody| match body {
        MatchBody::Comment(_) | MatchBody::Empty(_) => true,
        MatchBody::Plain(body) | MatchBody::State(body) => matches!(
            body,
            Match::Tcp(_)
                | Match::Udp(_)
                | Match::Icmp(_)
                | Match::Multiport(_)
                | Match::IpRange(_)
        ),
        _ => false,
    };
    let matches = rule.matches.iter().filter(|it| !has_field(&it.body)).cloned().collect();
    let only = Rule {
        src: None,
        dst: None,
        input: None,
        output: None,
        proto: None,
        fragment: None,
        matches,
        target: TargetSpec::None,
        ..rule.clone()
    };
    rule_text(&only, family, &TableNames::well_known()).trim().to_owned()
}

fn step(target: &Target, spec: &TargetSpec) -> Step {
    let lost = match target {
        Target::Header(HeaderTarget::Prefix(_)) => Lost::All,
        Target::Ct(_) => Lost::State,
        _ => Lost::Nothing,
    };
    match target {
        Target::Accept => Step::End(Fate::Accept),
        Target::Drop => Step::End(Fate::Drop),
        Target::Reject(with) => Step::End(Fate::reject(*with)),
        Target::Nat(nat) => Step::End(Fate::Translate(format!("{nat:?}"))),
        Target::Synproxy(_) => Step::End(Fate::Unknown("SYNPROXY")),
        Target::Return => Step::Return,
        Target::Jump(to) => Step::Jump(*to),
        Target::Goto(to) => Step::Goto(*to),
        Target::Count | Target::Log(_) => Step::Nothing,
        _ if matches!(spec, TargetSpec::Report(_)) => Step::Nothing,
        _ => Step::Change { how: format!("{spec:?}"), lost },
    }
}

/// Chains to come back to.
#[derive(Debug)]
struct Callers {
    chain: ChainId,
    at: u32,
    above: Option<Rc<Callers>>,
}

#[derive(Clone, Debug)]
struct Way {
    region: Region,
    chain: ChainId,
    at: u32,
    callers: Option<Rc<Callers>>,
    changes: u32,
    lost: Lost,
}

/// Follows regions.
#[derive(Debug, Default)]
pub struct Ways {
    /// Lists of changes: the one before, and what came.
    lists: Vec<(u32, String)>,
    known: HashMap<(u32, String), u32>,
}

impl Ways {
    /// The list of changes that is `before` and then `how`.
    pub fn changed(&mut self, before: u32, how: &str) -> u32 {
        let key = (before, how.to_owned());
        if let Some(known) = self.known.get(&key) {
            return *known;
        }
        self.lists.push(key.clone());
        let number = self.lists.len() as u32;
        self.known.insert(key, number);
        number
    }

    /// A list of changes in words, first to last.
    pub fn told(&self, mut list: u32) -> Vec<String> {
        let mut words = Vec::new();
        while let Some((before, how)) = (list as usize).checked_sub(1).map(|at| &self.lists[at]) {
            words.push(how.clone());
            list = *before;
        }
        words.reverse();
        words
    }

    /// What becomes of the packets of a region in a table at a hook. `None`: the effort was not
    /// enough.
    pub fn follow(
        &mut self,
        side: &Side,
        place: (TableId, Hook),
        region: Region,
        atoms: &mut Atoms,
        effort: &mut Effort,
    ) -> Option<Vec<Leaf>> {
        self.follow_on(side, place, (region, Carried::NOTHING), atoms, effort)
    }

    /// The same of packets that other tables have seen before.
    pub fn follow_on(
        &mut self,
        side: &Side,
        (table, hook): (TableId, Hook),
        (region, Carried { changes, lost }): (Region, Carried),
        atoms: &mut Atoms,
        effort: &mut Effort,
    ) -> Option<Vec<Leaf>> {
        let Some(entry) = side.entry(table, hook) else {
            return Some(vec![Leaf { region, fate: Fate::Accept, decider: None, changes, lost }]);
        };
        let first = Way { region, chain: entry, at: 0, callers: None, changes, lost };
        let mut walk = Walk { side, entry, ways: self, atoms, stack: vec![first], leaves: vec![] };
        while let Some(way) = walk.stack.pop() {
            if !walk.go(way, effort) || walk.leaves.len() + walk.stack.len() > MOST_LEAVES {
                return None;
            }
        }
        Some(walk.leaves)
    }
}

struct Walk<'w> {
    side: &'w Side,
    entry: ChainId,
    ways: &'w mut Ways,
    atoms: &'w mut Atoms,
    stack: Vec<Way>,
    leaves: Vec<Leaf>,
}

impl Walk<'_> {
    /// Follows one way to the next rule that matches some of it. False: no effort is left.
    fn go(&mut self, mut way: Way, effort: &mut Effort) -> bool {
        let side = self.side;
        loop {
            let Some(rule) = side.chains[way.chain.0 as usize].get(way.at as usize) else {
                match self.back(way) {
                    Some(on) => way = on,
                    None => return true,
                }
                continue;
            };
            if !effort.spend(1 + rule.regions.len()) {
                return false;
            }
            let idle = rule.step == Step::Nothing;
            if idle || !rule.regions.iter().any(|it| might_meet(it, &way)) {
                way.at += 1;
                continue;
            }
            let asks_state = rule.regions.iter().any(|it| it.classes[2] != side.states);
            if way.lost == Lost::All || way.lost == Lost::State && asks_state {
                self.end(way, Fate::Unknown("a rewritten header or state"));
                return true;
            }
            let regions: Vec<Region> =
                rule.regions.iter().map(|it| self.renamed(it, way.changes)).collect();
            let (hits, rest) = split(way.region.clone(), &regions);
            if hits.is_empty() {
                way.at += 1;
                continue;
            }
            if !effort.spend(hits.len() + rest.len()) {
                return false;
            }
            let aside = |region| Way { region, at: way.at + 1, ..way.clone() };
            self.stack.extend(rest.into_iter().map(aside));
            for region in hits {
                self.take(Way { region, ..way.clone() }, &rule.step);
            }
            return true;
        }
    }

    /// Atoms as they are after changes.
    fn renamed(&mut self, region: &Region, changes: u32) -> Region {
        let mut region = region.clone();
        if changes != 0 && !region.atoms.is_empty() {
            for (atom, _) in &mut region.atoms {
                *atom = self.atoms.after(*atom, changes);
            }
            region.atoms.sort_unstable();
        }
        region
    }

    /// What a rule does with what it matches.
    fn take(&mut self, mut way: Way, step: &Step) {
        match step {
            Step::Nothing => way.at += 1,
            Step::End(fate) => return self.end(way, fate.clone()),
            Step::Return => match self.back(way) {
                Some(on) => way = on,
                None => return,
            },
            Step::Jump(to) => {
                let back = Callers { chain: way.chain, at: way.at + 1, above: way.callers };
                way = Way { callers: Some(Rc::new(back)), chain: *to, at: 0, ..way };
            }
            Step::Goto(to) => (way.chain, way.at) = (*to, 0),
            Step::Change { how, lost } => {
                way.changes = self.ways.changed(way.changes, how);
                way.lost = way.lost.max(*lost);
                way.at += 1;
            }
        }
        self.stack.push(way);
    }

    /// At the end of a chain: to its caller, or to the policy.
    fn back(&mut self, mut way: Way) -> Option<Way> {
        if let Some(caller) = way.callers.clone() {
            (way.chain, way.at) = (caller.chain, caller.at);
            way.callers.clone_from(&caller.above);
            return Some(way);
        }
        let fate = self.side.policies[self.entry.0 as usize].clone().unwrap_or(Fate::Accept);
        let Way { region, changes, lost, .. } = way;
        let decider = Some(Decider { chain: self.entry, rule: None });
        self.leaves.push(Leaf { region, fate, decider, changes, lost });
        None
    }

    fn end(&mut self, way: Way, fate: Fate) {
        let decider = Some(Decider { chain: way.chain, rule: Some(way.at) });
        let Way { region, changes, lost, .. } = way;
        self.leaves.push(Leaf { region, fate, decider, changes, lost });
    }
}

/// Whether a rule may match some of a way, whatever is not known any more.
fn might_meet(region: &Region, way: &Way) -> bool {
    match (way.lost, way.changes) {
        (Lost::Nothing, 0) => region.meets(&way.region),
        (Lost::All, _) => true,
        (lost, _) => {
            let mut region = Region { atoms: Vec::new(), ..region.clone() };
            if lost == Lost::State {
                region.classes[2] = u64::MAX;
            }
            region.meets(&way.region)
        }
    }
}

/// What of a region lies in others, and what does not.
fn split(region: Region, others: &[Region]) -> (Vec<Region>, Vec<Region>) {
    let (mut hits, mut rest) = (Vec::new(), vec![region]);
    for other in others {
        let pieces = std::mem::take(&mut rest);
        for piece in pieces {
            match piece.and(other) {
                Some(both) => {
                    hits.push(both);
                    rest.extend(piece.minus(other));
                }
                None => rest.push(piece),
            }
        }
    }
    (hits, rest)
}

/// The chains of a ruleset in the order of its compiled form, each with its table.
pub fn written(rules: &Ruleset) -> impl Iterator<Item = (TableId, &Chain)> {
    rules.tables.iter().flat_map(|table| table.chains.iter().map(|chain| (table.id, chain)))
}
