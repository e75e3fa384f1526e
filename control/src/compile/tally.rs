//! Tables of hashlimit, recent and connlimit: made once, kept over policy swaps.

mod saved;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::packet::Family;
use dataplane::policy::Match;
use dataplane::policy::tally::recent::{DEFAULT_ENTRIES, wide_mask};
use dataplane::policy::tally::{
    ConnMatch, ConnTable, HashMatch, HashSettings, HashTable, RecentMatch, RecentRule, RecentTable,
    TallyMatch,
};

use super::StateError;
use super::pieces::{Left, Piece};
use crate::model::{Chain, MatchBody, Ruleset, TallySpec};

/// What rules share by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Tallies {
    /// Lists of `-m recent`, of both families.
    recents: HashMap<Box<str>, Arc<RecentTable>>,
    /// How many times each of them must keep for an address.
    times: HashMap<Box<str>, u32>,
    /// The first mask that a rule of each family gives them.
    masks: HashMap<(Family, Box<str>), u128>,
    /// Tables of `-m hashlimit`.
    hashes: HashMap<HashName, Arc<HashTable>>,
    /// What each of them is made with.
    settings: HashMap<HashName, HashSettings>,
}

type HashName = (Family, Box<str>);

/// Chains in the order in which iptables-legacy hands them to the kernel, where the first
/// rule that names a table makes it.
fn in_order(table: &crate::model::Table) -> Vec<&Chain> {
    let mut chains: Vec<&Chain> = table.chains.iter().collect();
    // Built-in ones stand first, by hook, in the model already.
    chains.sort_by_key(|chain| {
        (chain.policy.is_none(), chain.policy.is_none().then_some(&chain.name))
    });
    chains
}

impl Tallies {
    /// Looks ahead at what all rules together want of what they share.
    pub(super) fn survey(&mut self, rules: &Ruleset) {
        let family = rules.family;
        let rules = rules.tables.iter().flat_map(in_order).flat_map(|chain| &chain.rules);
        for spec in rules.flat_map(|rule| &rule.matches) {
            let MatchBody::Tally(spec) = &spec.body else { continue };
            match spec {
                TallySpec::Recent { name, rule } => {
                    let times = self.times.entry(name.clone()).or_default();
                    *times = rule.times().max(*times);
                    let mask = wide_mask(rule.mask, family);
                    self.masks.entry((family, name.clone())).or_insert(mask);
                }
                TallySpec::Conn { .. } => {}
                TallySpec::Hash { name, settings, .. } => {
                    self.settings.entry((family, name.clone())).or_insert(*settings);
                }
            }
        }
    }

    /// The match. What it shares by name comes from `previous`, from what this policy has
    /// made already, or is made now; what it owns alone is `kept` from the same rule of
    /// the policy before, if that had it.
    pub(super) fn resolve(
        &mut self,
        spec: &TallySpec,
        family: Family,
        previous: &Self,
        kept: Option<&Match>,
    ) -> Result<Match, StateError> {
        Ok(Match::Tally(match spec {
            TallySpec::Recent { name, rule } => {
                let table = self.recent(name, family, rule, previous)?;
                TallyMatch::Recent(RecentMatch { rule: *rule, table })
            }
            TallySpec::Hash { name, above, settings } => {
                let table = self.hash((family, name.clone()), settings, previous)?;
                TallyMatch::Hash(HashMatch { above: *above, table })
            }
            TallySpec::Conn { rule } => {
                let table = match kept {
                    Some(Match::Tally(TallyMatch::Conn(kept))) => Arc::clone(&kept.table),
                    _ => Arc::new(ConnTable::new(rule.len)),
                };
                TallyMatch::Conn(ConnMatch { rule: *rule, table })
            }
        }))
    }

    /// The list of that name. One that keeps too few times is begun anew, as in the
    /// kernel, and so is one with another mask; one that keeps more than it must stays.
    fn recent(
        &mut self,
        name: &str,
        family: Family,
        rule: &RecentRule,
        previous: &Self,
    ) -> Result<Arc<RecentTable>, StateError> {
        let of = |family| self.masks.get(&(family, name.into())).copied();
        let own = wide_mask(rule.mask, family);
        let mask = of(Family::V4).or_else(|| of(Family::V6)).unwrap_or(own);
        if of(Family::V6).is_some_and(|other| other != mask) {
            return Err(StateError::RecentMasks { name: name.into() });
        }
        if let Some(table) = self.recents.get(name) {
            return Ok(Arc::clone(table));
        }
        let times = self.times.get(name).copied().unwrap_or_default().max(rule.times());
        let fits = |table: &&Arc<RecentTable>| table.times() >= times && table.mask() == mask;
        let table = match previous.recents.get(name).filter(fits) {
            Some(table) => Arc::clone(table),
            None => Arc::new(RecentTable::new(DEFAULT_ENTRIES, times, mask)),
        };
        self.recents.insert(name.into(), Arc::clone(&table));
        Ok(table)
    }

    /// The table of that name. One with other settings than the policy before said is
    /// begun anew.
    fn hash(
        &mut self,
        key: HashName,
        own: &HashSettings,
        previous: &Self,
    ) -> Result<Arc<HashTable>, StateError> {
        let settings = *self.settings.get(&key).unwrap_or(own);
        let kind = |settings: &HashSettings| (settings.rate.unit, settings.rate.window_s.is_some());
        if kind(&settings) != kind(own) {
            return Err(StateError::HashUnits { name: key.1 });
        }
        let same = |table: &&Arc<HashTable>| table.settings == settings;
        let known = self.hashes.get(&key).or_else(|| previous.hashes.get(&key).filter(same));
        let made = || Arc::new(HashTable::new(settings, key.0));
        let table = known.map_or_else(made, Arc::clone);
        self.hashes.insert(key, Arc::clone(&table));
        Ok(table)
    }

    /// The lists of `-m recent` by name.
    pub(super) fn recents(&self) -> &HashMap<Box<str>, Arc<RecentTable>> {
        &self.recents
    }

    /// What there is to keep.
    pub(super) fn export(&self, now: Nanos) -> Vec<Piece> {
        let recents = self.recents.iter().filter(|(_, table)| !table.is_empty());
        let recents = recents.map(|(name, table)| saved::recent(name, table, now));
        let hashes = self.hashes.iter().filter(|(_, table)| !table.is_empty());
        let hashes = hashes.map(|((family, name), table)| saved::hash(*family, name, table, now));
        recents.chain(hashes).collect()
    }

    /// Takes back what was kept, if anything here is of that kind and name.
    pub(super) fn import(&self, piece: &Piece, elapsed: Nanos, now: Nanos) -> Result<(), Left> {
        match piece.kind.as_str() {
            saved::RECENT => {
                let table = self.recents.get(piece.name.as_str());
                saved::put_recent(piece, table.ok_or(Left::Unclaimed)?, elapsed, now)
            }
            kind => {
                let families = [Family::V4, Family::V6];
                let family = families.into_iter().find(|&family| saved::hash_kind(family) == kind);
                let table = family
                    .and_then(|family| self.hashes.get(&(family, piece.name.as_str().into())));
                saved::put_hash(piece, table.ok_or(Left::Unclaimed)?, elapsed, now)
            }
        }
    }

    /// Empties what both families share.
    pub(super) fn clear(&self) {
        self.recents.values().for_each(|table| table.flush());
        self.hashes.values().for_each(|table| table.flush());
    }
}
