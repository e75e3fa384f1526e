//! What keeps the table fit: evicting and collecting connections, and asking memory
//! ahead for what packets, first packets and the sweep will touch.

use std::sync::PoisonError;

use super::ConnId;
use super::record::Contents;
use super::status::{ASSURED, CONFIRMED, DYING, SEEN_REPLY};
use super::store::Store;
use super::tuple::{Direction, Key};
use crate::clock::Nanos;
use crate::prefetch::fetch;

/// Buckets that one early drop looks at.
const EVICTION_RANGE: usize = 8;

/// What an early drop achieved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Evicted {
    /// Expired connections collected on the way.
    pub(super) expired: u32,
    /// Connections evicted before their time.
    pub(super) early: u32,
}

/// Whose pages are there, up to which byte.
pub(super) enum Prepared {
    Index(usize),
    Records(usize),
    All,
}

impl Store {
    /// Asks memory for the first bucket of `hash`.
    #[inline]
    pub(super) fn fetch(&self, hash: u64) {
        self.index.fetch(hash);
    }

    /// Asks memory for both buckets of `hash`.
    #[inline]
    pub(super) fn fetch_both(&self, hash: u64) {
        self.index.fetch(hash);
        self.index.fetch_second(hash);
    }

    /// Asks memory for what a lookup of `key` reads after its first bucket, which should
    /// have been asked for before: the record, or else the second bucket.
    #[inline]
    pub(super) fn fetch_record(&self, key: &Key, words: bool) {
        let Some(entry) = self.index.foresee(key.hash) else {
            return self.index.fetch_second(key.hash);
        };
        self.records.fetch(entry.record as usize, key);
        if words {
            self.words.get(entry.record as usize).into_iter().for_each(fetch);
        }
    }

    /// Evicts every connection that nobody answered from the first of a few
    /// buckets that has one. If none has, it is the turn of those that were
    /// answered but are not ASSURED. (The kernel makes no such difference.)
    pub(super) fn evict(&self, hash: u64, now: Nanos) -> Evicted {
        let mut evicted = Evicted::default();
        for nth in 0..EVICTION_RANGE {
            self.index.visit_bucket(hash, nth, |entry| self.records.fetch_head(entry.record));
        }
        for kept in [ASSURED | SEEN_REPLY, ASSURED] {
            let mut left = false;
            for nth in 0..EVICTION_RANGE {
                left |= self.evict_bucket(hash, nth, kept, now, &mut evicted);
                if evicted.early > 0 {
                    return evicted;
                }
            }
            if !left {
                break;
            }
        }
        evicted
    }

    /// The same in one bucket, sparing connections with a `kept` status bit. Whether
    /// there are some that are not ASSURED.
    fn evict_bucket(
        &self,
        hash: u64,
        nth: usize,
        kept: u32,
        now: Nanos,
        evicted: &mut Evicted,
    ) -> bool {
        let mut left = false;
        self.index.visit_bucket(hash, nth, |entry| {
            let record = self.records.at(entry.record as usize);
            let id = ConnId::new(entry.record, record.generation());
            let may = |status: u32, _| status & (CONFIRMED | kept) == CONFIRMED;
            // A look first: in a table full of what must stay, that is all there is to do.
            let status = record.status();
            left |= status & ASSURED == 0;
            if record.deadline() <= now.0 && self.expire(id, now) {
                evicted.expired += 1;
            } else if may(status, 0) && self.kill_if(id, may) {
                evicted.early += 1;
            }
        });
        left
    }

    /// Looks at record number `at`: ends it when expired or, if the table is
    /// `crowded`, when it is `droppable`. `Some`: it ended, true if before its time.
    pub(super) fn collect(
        &self,
        at: usize,
        now: Nanos,
        crowded: bool,
        droppable: impl FnOnce(&Contents) -> bool,
    ) -> Option<bool> {
        let record = self.records.at(at);
        let status = record.status();
        if status & (CONFIRMED | DYING) != CONFIRMED {
            return None;
        }
        let id = ConnId::new(at as u32, record.generation());
        if record.deadline() <= now.0 && self.expire(id, now) {
            return Some(false);
        }
        if !crowded {
            return None;
        }
        let contents = record.contents(Some(id.generation()))?;
        (droppable(&contents) && self.kill(id)).then_some(true)
    }

    /// Asks memory for the buckets that [`Store::collect`] of these records will clear.
    pub(super) fn fetch_expired(&self, places: impl Iterator<Item = usize>, now: Nanos) {
        for record in places.map(|at| self.records.at(at)) {
            let confirmed = record.status() & (CONFIRMED | DYING) == CONFIRMED;
            if confirmed && record.deadline() <= now.0 {
                for way in [Direction::Original, Direction::Reply] {
                    self.index.fetch(record.tuple(way).key(self.hash_key()).hash);
                }
            }
        }
    }

    /// See [`super::Conntrack::prepare`].
    pub(super) fn prepare(&self, budget: usize) -> bool {
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..budget {
            *prepared = match *prepared {
                Prepared::Index(from) => match self.index.populate(from) {
                    Some(next) => Prepared::Index(next),
                    None => Prepared::Records(0),
                },
                Prepared::Records(from) => match self.records.populate(from) {
                    Some(next) => Prepared::Records(next),
                    None => Prepared::All,
                },
                Prepared::All => return false,
            }
        }
        true
    }
}
