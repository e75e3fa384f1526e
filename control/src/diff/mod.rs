//! What changes between two policies: the text, and what becomes of packets.
//!
//! [`compare`] takes two policies of one family and finds the regions of packet space, table by
//! table and hook by hook, whose fate differs. Packets that match no rule that is only in one of them
//! (chain by chain, in order) take the same way through both, so only what such rules match is
//! followed, with [`crate::region`]. What is found of headers, interfaces and states is exact: no
//! region is missing and none is too large. Matches without a field (sets, limits, marks, ...) are
//! unknowns: the same question has the same answer in both policies, and changes that hang on one
//! name it. Each change has a witness: a packet that the interpreter has walked through both.
//!
//! Work is bounded; what was not finished is named. Counters, logs and comments change no fate.

#[cfg(test)]
mod corpus_tests;
mod files;
mod report;
#[cfg(test)]
mod tests;
mod witness;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use classifier::Address;
use dataplane::packet::Family;
use dataplane::policy::{FamilyPolicy, Hook, TableId};
use dataplane::sets::Registry;
use similar::{Algorithm, DiffTag, capture_diff_slices};

use crate::compile::{self, CompileError, DynamicState};
use crate::interpret::ORDER;
use crate::iptables::{TableNames, rule_text};
use crate::model::{MatchBody, Ruleset};
use crate::region::{
    Atoms, Decider, Effort, Fate, Leaf, Region, Side, Space, Speaker, Ways, at_table, ports, real,
    space, written,
};

pub use files::{FileError, PolicyFiles, changed_sets, textual};
pub use report::{Change, Report, Said, Table, Verdict, Witness, render};

/// One policy of one family.
#[derive(Clone, Copy, Debug)]
pub struct Policy<'p> {
    /// Its rules.
    pub rules: &'p Ruleset,
    /// The sets that they name.
    pub sets: &'p Arc<Registry>,
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Pairs of regions compared.
    pub effort: u64,
    /// Packets tried for one witness.
    pub tries: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { effort: 200_000_000, tries: 24 }
    }
}

/// Regions with one change: who decides before and after.
type Groups = BTreeMap<Key, Vec<Region>>;

/// What regions of one change have in common: fate, decider and changes on both sides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key([(Fate, Option<Decider>, u32); 2]);

/// Compares what becomes of packets of one family. `changed_sets` are sets that are not the same
/// in both. `told` hears how much of the effort is spent, in percent.
///
/// # Errors
/// A policy that does not compile.
pub fn compare(
    old: Policy<'_>,
    new: Policy<'_>,
    changed_sets: &BTreeSet<String>,
    bounds: Bounds,
    told: &mut dyn FnMut(u64),
) -> Result<Report, CompileError> {
    let Some(ports) = ports([old.rules, new.rules]) else {
        let family = family_name(old.rules.family);
        let unfinished = vec!["all: more interfaces are named than can be told apart".to_owned()];
        return Ok(Report { family, unfinished, ..Report::default() });
    };
    let family = old.rules.family;
    let one = compiled(old, &ports)?;
    let two = compiled(new, &ports)?;
    Ok(match family {
        Family::V4 => families(
            [old, new],
            [&one.policy.v4, &two.policy.v4],
            &ports,
            changed_sets,
            bounds,
            told,
        ),
        Family::V6 => families(
            [old, new],
            [&one.policy.v6, &two.policy.v6],
            &ports,
            changed_sets,
            bounds,
            told,
        ),
    })
}

fn compiled(policy: Policy<'_>, ports: &[String]) -> Result<compile::Compiled, CompileError> {
    let (none_v4, none_v6) = (Ruleset::empty(Family::V4), Ruleset::empty(Family::V6));
    let (v4, v6) = match policy.rules.family {
        Family::V4 => (policy.rules, &none_v6),
        Family::V6 => (&none_v4, policy.rules),
    };
    let input = compile::Input { v4, v6, ports, limits: compile::Limits::default() };
    compile::compile(input, &DynamicState::with_sets(Arc::clone(policy.sets)))
}

/// Each rule as printed, chain by chain.
fn texts(rules: &Ruleset) -> Vec<Vec<String>> {
    let names = TableNames::well_known();
    let of = |rule| rule_text(rule, rules.family, &names);
    written(rules).map(|(_, chain)| chain.rules.iter().map(of).collect()).collect()
}

fn families<A: Address>(
    policies: [Policy<'_>; 2],
    compiled: [&FamilyPolicy<A>; 2],
    ports: &[String],
    changed_sets: &BTreeSet<String>,
    bounds: Bounds,
    told: &mut dyn FnMut(u64),
) -> Report {
    let family = policies[0].rules.family;
    let space = space(family, ports.len());
    let mut atoms = Atoms::default();
    let texts = policies.map(|it| texts(it.rules));
    let sides = [0, 1].map(|at| {
        let apart = |rule: &crate::model::Rule| {
            let asks = rule.matches.iter().any(|it| {
                matches!(&it.body, MatchBody::Set(set) if changed_sets.contains(set.set.name.as_str()))
            });
            asks.then_some(at as u32)
        };
        Side::read(compiled[at], policies[at].rules, &texts[at], &space, &mut atoms, &apart)
    });
    let changed = Changed::of(policies, &sides, &texts, changed_sets);
    let mut search = Search {
        space,
        sides,
        atoms,
        ways: Ways::default(),
        effort: Effort(bounds.effort),
        given: bounds.effort,
        told,
    };
    let mut report = Report { family: family_name(family), ..Report::default() };
    for (hook, tables) in ORDER {
        for &table in tables {
            let place = format!("{} {}", table.name(), hook.chain_name());
            let (groups, whole) = search.table(table, hook, &changed, policies);
            if !whole {
                report.unfinished.push(place);
            }
            let given = at_table(table, hook, &search.space);
            let speaker = Speaker { space: &search.space, ports, given: &given };
            let told = Teller { policies, texts: &texts, speaker, search: &search, bounds };
            for (key, regions) in groups {
                match key.0.iter().find_map(|(fate, ..)| unknown(fate)) {
                    Some(why) => report.unknown.push(told.unknown(table, hook, why, &regions)),
                    None => report.changes.push(told.change(table, hook, &key, regions)),
                }
            }
        }
    }
    report.complete = report.unfinished.is_empty() && report.unknown.is_empty();
    report
}

fn unknown(fate: &Fate) -> Option<&'static str> {
    match fate {
        Fate::Unknown(why) => Some(why),
        _ => None,
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// What rules that are only in one policy match, by table and chain.
struct Changed {
    regions: HashMap<(TableId, String), Vec<Region>>,
}

impl Changed {
    fn of(
        policies: [Policy<'_>; 2],
        sides: &[Side; 2],
        texts: &[Vec<Vec<String>>; 2],
        changed_sets: &BTreeSet<String>,
    ) -> Self {
        let index = |at: usize| -> HashMap<(TableId, &str), usize> {
            let chains = written(policies[at].rules).enumerate();
            chains.map(|(id, (table, chain))| ((table, chain.name.as_str()), id)).collect()
        };
        let (old, new) = (index(0), index(1));
        let mut regions: HashMap<(TableId, String), Vec<Region>> = HashMap::new();
        let keys: BTreeSet<_> = old.keys().chain(new.keys()).copied().collect();
        for key in keys {
            let (one, two) = (old.get(&key), new.get(&key));
            let lines = |at: usize, id: Option<&usize>| -> &[String] {
                id.map_or(&[], |id| &texts[at][*id])
            };
            let (before, after) = (lines(0, one), lines(1, two));
            let found = regions.entry((key.0, key.1.to_owned())).or_default();
            let mut take = |at: usize, id: Option<&usize>, range: std::ops::Range<usize>| {
                let Some(id) = id else { return };
                let rules = sides[at].chains[*id].iter().skip(range.start).take(range.len());
                found.extend(rules.flat_map(|rule| rule.regions.iter().cloned()));
            };
            for op in capture_diff_slices(Algorithm::Patience, before, after) {
                if op.tag() != DiffTag::Equal {
                    take(0, one, op.old_range());
                    take(1, two, op.new_range());
                }
            }
            // Rules that say the same of sets that do not hold the same.
            if !changed_sets.is_empty() {
                for (at, id) in [(0, one), (1, two)] {
                    let Some(id) = id else { continue };
                    let Some((_, chain)) = written(policies[at].rules).nth(*id) else { continue };
                    for (rule, spec) in chain.rules.iter().enumerate() {
                        let names = |it: &crate::model::MatchSpec| {
                            matches!(&it.body, MatchBody::Set(set)
                                if changed_sets.contains(set.set.name.as_str()))
                        };
                        if spec.matches.iter().any(names) {
                            take(at, Some(id), rule..rule + 1);
                        }
                    }
                }
            }
        }
        Self { regions }
    }
}

struct Search<'t> {
    space: Space,
    sides: [Side; 2],
    atoms: Atoms,
    ways: Ways,
    effort: Effort,
    given: u64,
    told: &'t mut dyn FnMut(u64),
}

impl Search<'_> {
    /// What changes in a table at a hook; and whether all of it was looked at.
    fn table(
        &mut self,
        table: TableId,
        hook: Hook,
        changed: &Changed,
        policies: [Policy<'_>; 2],
    ) -> (Groups, bool) {
        let mut groups = Groups::new();
        let (candidates, mut whole) = self.candidates(table, hook, changed, policies);
        for region in candidates {
            (self.told)(100 - self.effort.0 * 100 / self.given.max(1));
            whole &= self.follow(table, hook, region, &mut groups).is_some();
        }
        (groups, whole)
    }

    /// Where something may change: regions that do not meet.
    fn candidates(
        &mut self,
        table: TableId,
        hook: Hook,
        changed: &Changed,
        policies: [Policy<'_>; 2],
    ) -> (Vec<Region>, bool) {
        let given = at_table(table, hook, &self.space);
        let entries = [0, 1].map(|at| self.sides[at].entry(table, hook));
        let ends = [0, 1].map(|at| match entries[at] {
            Some(id) => self.sides[at].policies[id.0 as usize].clone(),
            None => Some(Fate::Accept),
        });
        let mut names = BTreeSet::new();
        let mut everything = ends[0] != ends[1];
        for at in [0, 1] {
            let Some(entry) = entries[at] else { continue };
            let chains: Vec<_> = written(policies[at].rules).collect();
            for id in self.sides[at].reached(entry) {
                names.insert(chains[id.0 as usize].1.name.clone());
                let rules = &self.sides[at].chains[id.0 as usize];
                everything |= rules.iter().any(|rule| rule.loses_fields());
            }
        }
        let mut found: Vec<Region> = Vec::new();
        for name in names {
            found.extend(changed.regions.get(&(table, name)).into_iter().flatten().cloned());
        }
        if found.is_empty() && ends[0] == ends[1] {
            return (found, true);
        }
        if everything {
            found = vec![Region::all(&self.space)];
        }
        self.apart(found, &given)
    }

    /// What there is of regions at a hook, cut so that none meets another.
    fn apart(&mut self, regions: Vec<Region>, given: &Region) -> (Vec<Region>, bool) {
        let real = real(&self.space);
        let mut done: Vec<Region> = Vec::new();
        for region in regions {
            let region = Region { atoms: Vec::new(), ..region };
            let mut open: Vec<Region> = real
                .iter()
                .filter_map(|it| it.and(given))
                .filter_map(|it| region_at(&region, &it))
                .collect();
            for known in 0..done.len() {
                let known = &done[known];
                if !self.effort.spend(open.len() + 1) {
                    return (done, false);
                }
                if open.iter().any(|it| it.meets(known)) {
                    open = open.iter().flat_map(|it| it.minus(known)).collect();
                }
            }
            done.extend(open);
        }
        (done, true)
    }

    fn follow(
        &mut self,
        table: TableId,
        hook: Hook,
        region: Region,
        groups: &mut Groups,
    ) -> Option<()> {
        let place = (table, hook);
        let Self { sides, atoms, ways, effort, .. } = self;
        for before in ways.follow(&sides[0], place, region, atoms, effort)? {
            let after = ways.follow(&sides[1], place, before.region.clone(), atoms, effort)?;
            for after in after {
                let same = before.fate == after.fate && before.changes == after.changes;
                let unknown = unknown(&before.fate).is_some();
                if !same || unknown {
                    let Leaf { region, fate, decider, changes, .. } = after;
                    let one = (before.fate.clone(), before.decider, before.changes);
                    let key = Key([one, (fate, decider, changes)]);
                    groups.entry(key).or_default().push(region);
                }
            }
        }
        Some(())
    }
}

/// What a rule's region is at a hook. In raw a rule may ask for what NOTRACK has made of the
/// state, so that its state says nothing.
fn region_at(region: &Region, given: &Region) -> Option<Region> {
    let mut region = region.clone();
    if region.classes[2] & given.classes[2] == 0 {
        region.classes[2] = given.classes[2];
    }
    region.and(given)
}

/// Puts what was found into words.
struct Teller<'t, 's> {
    policies: [Policy<'t>; 2],
    texts: &'t [Vec<Vec<String>>; 2],
    speaker: Speaker<'t>,
    search: &'t Search<'s>,
    bounds: Bounds,
}

impl Teller<'_, '_> {
    fn said(&self, at: usize, (fate, decider, changes): &(Fate, Option<Decider>, u32)) -> Said {
        let chains: Vec<_> = written(self.policies[at].rules).collect();
        let mut said = Said { changes: self.search.ways.told(*changes), ..Said::of(fate) };
        let Some(decider) = decider else { return said };
        let chain = chains[decider.chain.0 as usize].1;
        said.chain = Some(chain.name.clone());
        if let Some(index) = decider.rule {
            let text = &self.texts[at][decider.chain.0 as usize][index as usize];
            said.rule = Some(index + 1);
            said.line = Some(chain.rules[index as usize].span.line);
            said.text = Some(format!("-A {}{text}", chain.name));
        }
        said
    }

    fn change(&self, table: TableId, hook: Hook, key: &Key, regions: Vec<Region>) -> Change {
        let unknowns: BTreeSet<String> = regions.iter().flat_map(|it| self.asked(it)).collect();
        let witness =
            witness::find(self.policies, (table, hook), &regions, key, &self.speaker, self.bounds);
        Change {
            table: table.name(),
            hook: hook.chain_name(),
            before: self.said(0, &key.0[0]),
            after: self.said(1, &key.0[1]),
            regions: regions.iter().take(report::SHOWN).map(|it| self.region(it)).collect(),
            region_count: regions.len(),
            unknowns: unknowns.into_iter().collect(),
            witness,
            raw: regions,
        }
    }

    fn asked(&self, region: &Region) -> Vec<String> {
        region.atoms.iter().map(|(atom, _)| self.search.atoms.words(*atom).to_owned()).collect()
    }

    fn region(&self, region: &Region) -> String {
        let mut words = self.speaker.words(region);
        for (atom, holds) in &region.atoms {
            let when = if *holds { "if" } else { "unless" };
            words.push_str(&format!(" {when} {}", self.search.atoms.words(*atom)));
        }
        words
    }

    fn unknown(&self, table: TableId, hook: Hook, why: &str, regions: &[Region]) -> String {
        let first = regions.first().map(|it| self.region(it)).unwrap_or_default();
        let (table, hook, count) = (table.name(), hook.chain_name(), regions.len());
        format!("{table} {hook}: {count} regions behind {why}, the first: {first}")
    }
}
