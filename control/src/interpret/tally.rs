//! hashlimit, recent and connlimit, with the oracle's own tables.

mod conn;
mod hash;

use std::collections::HashMap;

use dataplane::policy::Hook;
use dataplane::policy::tally::{HashSettings, RecentAction, RecentRule};

use super::Subject;
use super::buckets::Place;
use super::matching::{Actual, At, Compared};
use crate::model::{MatchBody, Ruleset, TallySpec};

/// Nanoseconds of one tick of the kernel's clock.
const TICK: u64 = 4_000_000;
/// Addresses that one list of `-m recent` remembers.
const ADDRESSES: usize = 100;
/// Times of one address that can ever count.
const TIMES: usize = 1 << 15;

/// Every table that was met so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Tallies {
    recents: HashMap<Box<str>, RecentList>,
    /// Of the first rule that names a list.
    masks: HashMap<Box<str>, u128>,
    hashes: HashMap<Box<str>, hash::Table>,
    conns: HashMap<Place, conn::Lists>,
}

/// Addresses, the one that was not seen longest first.
#[derive(Clone, Debug, Default)]
struct RecentList {
    entries: Vec<RecentEntry>,
    made: u64,
}

#[derive(Clone, Debug)]
struct RecentEntry {
    /// How many were made before it.
    number: u64,
    address: u128,
    ttl: u8,
    /// In ticks.
    times: Vec<u64>,
}

impl Tallies {
    /// Those of a ruleset. A table of hashlimit has the settings of the first rule that
    /// names it: in the order of tables, built-in chains before the others, those by name.
    pub(super) fn of(rules: &Ruleset) -> Self {
        let mut first: HashMap<Box<str>, HashSettings> = HashMap::new();
        let mut masks = HashMap::new();
        for table in &rules.tables {
            let mut own: Vec<_> = table.chains.iter().filter(|c| c.policy.is_none()).collect();
            own.sort_by(|a, b| a.name.cmp(&b.name));
            let chains = table.chains.iter().filter(|c| c.policy.is_some()).chain(own);
            for spec in chains.flat_map(|chain| &chain.rules).flat_map(|rule| &rule.matches) {
                match &spec.body {
                    MatchBody::Tally(TallySpec::Hash { name, settings, .. }) => {
                        first.entry(name.clone()).or_insert(*settings);
                    }
                    MatchBody::Tally(TallySpec::Recent { name, rule }) => {
                        masks.entry(name.clone()).or_insert(rule.mask);
                    }
                    _ => {}
                }
            }
        }
        let hashes = first.into_iter().map(|(name, settings)| (name, hash::Table::new(settings)));
        Self { hashes: hashes.collect(), masks, ..Self::default() }
    }

    pub(super) fn compare(
        &mut self,
        at: At,
        place: Place,
        wanted: &TallySpec,
        subject: &mut Subject<'_>,
    ) -> Compared {
        match wanted {
            TallySpec::Recent { name, rule } => {
                let list = self.recents.entry(name.clone()).or_default();
                let mask = *self.masks.get(name).unwrap_or(&rule.mask);
                let found = list.ask(&RecentRule { mask, ..*rule }, subject);
                let option = match rule.action {
                    RecentAction::Set => "--set",
                    RecentAction::Check => "--rcheck",
                    RecentAction::Update => "--update",
                    RecentAction::Remove => "--remove",
                };
                at.need(found != rule.negated, option, Actual::Absent)
            }
            TallySpec::Hash { name, above, settings } => {
                let table = self.hashes.entry(name.clone());
                let table = table.or_insert_with(|| hash::Table::new(*settings));
                let option = if *above { "--hashlimit-above" } else { "--hashlimit-upto" };
                match table.take(subject) {
                    hash::Found::Within => at.need(!above, option, Actual::Absent),
                    hash::Found::Above => at.need(*above, option, Actual::Absent),
                    hash::Found::Dropped(what) => at.hotdrop(what),
                }
            }
            TallySpec::Conn { rule } => {
                let option = if rule.above { "--connlimit-above" } else { "--connlimit-upto" };
                match self.conns.entry(place).or_default().count(rule, subject) {
                    Some(count @ 1..) => {
                        let holds = (count as u64 > u64::from(rule.limit)) == rule.above;
                        at.need(holds, option, Actual::Count(count as u64))
                    }
                    Some(0) => at.hotdrop("list of connections, which is empty"),
                    None => at.hotdrop("connection's ends"),
                }
            }
        }
    }
}

impl RecentList {
    /// Whether the rule holds, but for its `!`; does what it does.
    fn ask(&mut self, rule: &RecentRule, subject: &Subject<'_>) -> bool {
        let packet = &subject.packet;
        let now = subject.now.0 / TICK;
        let address = rule.mask & if rule.destination { packet.dst } else { packet.src };
        let goes_out = matches!(subject.hook, Hook::Forward | Hook::Output | Hook::Postrouting);
        let on_its_way = goes_out && subject.owner.is_none();
        let ttl = if on_its_way { packet.ttl.wrapping_add(1) } else { packet.ttl };
        let same = |entry: &&RecentEntry| {
            entry.address == address
                && (!rule.same_ttl || ttl == 0 || entry.ttl == 0 || entry.ttl == ttl)
        };
        let first = self.entries.iter().filter(same).min_by_key(|entry| entry.number);
        let Some(number) = first.map(|entry| entry.number) else {
            if rule.action == RecentAction::Set {
                if self.entries.len() == ADDRESSES {
                    self.entries.remove(0);
                }
                self.made += 1;
                let times = vec![now];
                self.entries.push(RecentEntry { number: self.made, address, ttl, times });
                return true;
            }
            return false;
        };
        let place = self.entries.iter().position(|entry| entry.number == number).unwrap_or(0);
        let long_ago = now as i64 - i64::from(rule.seconds.wrapping_mul(250));
        let holds = match rule.action {
            RecentAction::Set => true,
            RecentAction::Remove => {
                self.entries.remove(place);
                return true;
            }
            RecentAction::Check | RecentAction::Update => {
                let times = &self.entries[place].times;
                let lately = |time: &&u64| rule.seconds == 0 || **time as i64 >= long_ago;
                times.iter().filter(lately).count() >= rule.hits.max(1) as usize
            }
        };
        let refresh = rule.action == RecentAction::Set
            || (rule.action == RecentAction::Update && holds != rule.negated);
        if rule.reap && !(refresh && place == 0) {
            let oldest = &self.entries[0];
            if oldest.times.last().is_some_and(|&last| (last as i64) < long_ago) {
                self.entries.remove(0);
            }
        }
        if refresh {
            self.refresh(number, ttl, now);
        }
        holds
    }

    fn refresh(&mut self, number: u64, ttl: u8, now: u64) {
        let place = self.entries.iter().position(|entry| entry.number == number);
        let Some(place) = place else { return };
        let mut entry = self.entries.remove(place);
        entry.ttl = ttl;
        if entry.times.len() == TIMES {
            entry.times.remove(0);
        }
        entry.times.push(now);
        self.entries.push(entry);
    }
}
