//! Dynamic state that rules own, and how it outlives the policy.
//!
//! A cell is known by what its rule says and where it stands: family, table,
//! chain, the rule's own words, and which of several identical rules it is. The
//! compiler hands the cells of unchanged rules from one policy to the next, so
//! that a reload does not refill a spent bucket.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::packet::Family;
use dataplane::policy::Match;
use dataplane::policy::TableId;
use dataplane::policy::limit::LimitCell;
use dataplane::policy::tally::RecentTable;
use dataplane::sets::Registry;

use super::StateError;
use super::measure::{self, Measures};
use super::meta::{self, Metas};
use super::pieces::{Imported, Left, MAX_NAME, MAX_PIECE, Piece};
use super::sets::Sets;
use super::tally::Tallies;
use crate::api::protocol::AccountEntry;
use crate::model::{self, MatchBody};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RuleKey {
    family: Family,
    table: TableId,
    chain: String,
    text: String,
}

/// The cells of one policy.
#[derive(Debug, Default)]
pub struct DynamicState {
    /// Matches with the state that they own, of each rule that has some, by occurrence.
    rules: HashMap<RuleKey, Vec<Vec<Match>>>,
    /// What rules share by name.
    pub(super) measures: Measures,
    pub(super) tallies: Tallies,
    pub(super) metas: Metas,
    pub(super) sets: Sets,
}

impl DynamicState {
    /// No cells, and the sets that rules may name. Every policy that is compiled with it
    /// as its predecessor finds the same sets.
    pub fn with_sets(registry: Arc<Registry>) -> Self {
        Self { sets: Sets::of(registry), ..Self::default() }
    }
    /// From now on rules name the sets of `registry`, which holds those of this policy.
    pub fn settle_sets(&mut self, registry: Arc<Registry>) {
        self.sets.settle(registry);
    }
    /// The sets that rules may name.
    pub fn sets(&self) -> &Arc<Registry> {
        self.sets.registry()
    }
    /// Makes room in sets for what the policy's packets will add to them. A policy that
    /// [`super::compile`] made has it; one for service is to have it once nothing can
    /// refuse it any more.
    pub fn expect_packets(&self) {
        self.sets.expect_packets();
    }
    /// The same sets, all of them empty, and no cells: for a policy that is tried and not
    /// put into service.
    pub fn twin(&self) -> Self {
        match self.sets.registry().emptied() {
            Ok(sets) => Self::with_sets(Arc::new(sets)),
            Err(_) => Self::default(),
        }
    }
    /// Number of cells.
    pub fn len(&self) -> usize {
        self.rules.values().flatten().map(Vec::len).sum()
    }
    /// Whether no rule owns a cell.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && !self.sets.are_used()
    }

    /// Empties the tables that both families share.
    pub(crate) fn clear_shared(&self) {
        self.tallies.clear();
    }

    /// The rule's matches that own state, in written order: those of the same rule in
    /// `previous`, or fresh ones.
    pub(super) fn adopt(
        &mut self,
        previous: &Self,
        family: Family,
        table: TableId,
        chain: &str,
        rule: &model::Rule,
    ) -> Result<Vec<Match>, StateError> {
        let key = RuleKey { family, table, chain: chain.to_owned(), text: words(rule) };
        let occurrence = self.rules.get(&key).map_or(0, Vec::len);
        let kept = previous.rules.get(&key).and_then(|known| known.get(occurrence));
        let kept = kept.map(Vec::as_slice).unwrap_or_default();
        let adopted = self.make(previous, family, rule, kept)?;
        self.rules.entry(key).or_default().push(adopted.clone());
        Ok(adopted)
    }
}

impl DynamicState {
    /// `kept`: what the same rule had before. What has a name is shared by its name.
    fn make(
        &mut self,
        previous: &Self,
        family: Family,
        rule: &model::Rule,
        kept: &[Match],
    ) -> Result<Vec<Match>, StateError> {
        let mut made = Vec::new();
        for spec in &rule.matches {
            let kept = kept.get(made.len());
            made.push(match &spec.body {
                MatchBody::Limit(limit) => match kept {
                    Some(Match::Limit(cell)) => Match::Limit(Arc::clone(cell)),
                    _ => Match::Limit(Arc::new(LimitCell::new(limit.avg, limit.burst)?)),
                },
                MatchBody::Measure(spec) => {
                    self.measures.resolve(spec, &previous.measures, kept)?
                }
                MatchBody::Tally(spec) => {
                    self.tallies.resolve(spec, family, &previous.tallies, kept)?
                }
                MatchBody::Set(spec) => self.sets.resolve(spec, family)?,
                MatchBody::Plain(_)
                | MatchBody::State(_)
                | MatchBody::Comment(_)
                | MatchBody::Empty(_) => continue,
            });
        }
        Ok(made)
    }

    /// The policy is in force from now on: idle timers run.
    pub fn begin(&self, now: Nanos) {
        self.metas.begin(now);
    }

    /// What `-m nfacct` has counted, by name; `reset`: begins again from zero.
    pub fn accounts(&self, reset: bool) -> Vec<AccountEntry> {
        self.measures.accounts(reset)
    }

    /// Every bucket that is not full, for the state file.
    pub fn export(&self, now: Nanos) -> Vec<SavedLimit> {
        let mut saved = Vec::new();
        for (key, occurrences) in &self.rules {
            for (occurrence, cells) in occurrences.iter().enumerate() {
                for (cell, limit) in cells.iter().enumerate() {
                    let Match::Limit(limit) = limit else { continue };
                    let Some((credit, idle)) = limit.export(now) else { continue };
                    let (occurrence, cell) = (occurrence as u32, cell as u32);
                    saved.push(SavedLimit { rule: key.name(), occurrence, cell, credit, idle });
                }
            }
        }
        saved
    }

    /// What rules share by name, and amounts that they own, for the state file. A piece
    /// that is too long is left out.
    pub fn export_pieces(&self, now: Nanos) -> Vec<Piece> {
        let mut pieces = self.tallies.export(now);
        pieces.extend(self.measures.export(now));
        pieces.extend(self.metas.export(now));
        for (key, occurrences) in &self.rules {
            let mut rule = None;
            for (occurrence, cells) in occurrences.iter().enumerate() {
                for (cell, found) in cells.iter().enumerate() {
                    let name = || {
                        let rule = rule.get_or_insert_with(|| key.name());
                        format!("{occurrence} {cell} {rule}")
                    };
                    pieces.extend(measure::saved::own(name, found));
                }
            }
        }
        let fits = |piece: &Piece| piece.bytes.len() <= MAX_PIECE && piece.name.len() <= MAX_NAME;
        pieces.retain(fits);
        pieces
    }

    /// The lists of `-m recent`, by name.
    pub fn recent_lists(&self) -> Vec<(Box<str>, Arc<RecentTable>)> {
        let lists = self.tallies.recents().iter();
        let mut lists: Vec<_> =
            lists.map(|(name, table)| (name.clone(), Arc::clone(table))).collect();
        lists.sort_by(|a, b| a.0.cmp(&b.0));
        lists
    }

    /// Takes back what was shared by a name that still is, or owned by a rule that still
    /// stands, as it was `elapsed` ago. Before the first packet.
    pub fn import_pieces(&self, pieces: &[Piece], elapsed: Nanos, now: Nanos) -> Imported {
        let known = self.by_name();
        let mut imported = Imported::default();
        for piece in pieces {
            let outcome = match piece.kind.as_str() {
                measure::saved::QUOTA | measure::saved::NTH => {
                    let found = owner(&known, &piece.name).ok_or(Left::Unclaimed);
                    found.and_then(|found| measure::saved::put_own(piece, found))
                }
                measure::saved::ACCOUNT | measure::saved::ESTIMATOR => {
                    self.measures.import(piece, elapsed, now)
                }
                meta::IDLE_TIMER => self.metas.import(piece, elapsed, now),
                _ => self.tallies.import(piece, elapsed, now),
            };
            imported.note(piece, outcome);
        }
        imported
    }

    fn by_name(&self) -> ByName<'_> {
        self.rules.iter().map(|(key, cells)| (key.name(), &**cells)).collect()
    }

    /// Makes the buckets of rules that still stand what they were `elapsed` ago.
    /// Returns how many.
    pub fn import(&self, saved: &[SavedLimit], elapsed: Nanos, now: Nanos) -> usize {
        let known = self.by_name();
        let found = saved.iter().filter(|limit| {
            let cells = known.get(&limit.rule).and_then(|all| all.get(limit.occurrence as usize));
            let cell = cells.and_then(|cells| cells.get(limit.cell as usize));
            let Some(Match::Limit(cell)) = cell else { return false };
            cell.import(limit.credit, limit.idle + elapsed, now);
            true
        });
        found.count()
    }
}

/// The matches of each rule, by the rule's whole key.
type ByName<'a> = HashMap<String, &'a [Vec<Match>]>;

/// The match that a piece of this name belongs to: occurrence, number, rule.
fn owner<'a>(known: &ByName<'a>, name: &str) -> Option<&'a Match> {
    let (occurrence, rest) = name.split_once(' ')?;
    let (cell, rule) = rest.split_once(' ')?;
    let cells = known.get(rule)?.get(occurrence.parse::<usize>().ok()?)?;
    cells.get(cell.parse::<usize>().ok()?)
}

/// One bucket outside its policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedLimit {
    /// The rule that owns it: family, table, chain and what it says.
    pub rule: String,
    /// Which of several such rules.
    pub occurrence: u32,
    /// Which of the rule's limits.
    pub cell: u32,
    /// Credit at the last packet.
    pub credit: u32,
    /// Time since the last packet.
    pub idle: Nanos,
}

impl RuleKey {
    /// The whole key as one text.
    fn name(&self) -> String {
        format!("{:?} {} {} {}", self.family, self.table.name(), self.chain, self.text)
    }
}

fn words(rule: &model::Rule) -> String {
    let mut text = String::new();
    let written = write_words(rule, &mut text);
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
    text
}

/// What the rule says, without its place and its counters.
pub(crate) fn write_words(rule: &model::Rule, out: &mut impl fmt::Write) -> fmt::Result {
    write!(
        out,
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        rule.src, rule.dst, rule.input, rule.output, rule.proto, rule.fragment, rule.target
    )?;
    for spec in &rule.matches {
        write!(out, " {:?}", spec.body)?;
    }
    Ok(())
}
