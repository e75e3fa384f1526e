//! The index of a hash type: slots that name rows, by open addressing.
//!
//! A row that goes leaves a mark behind unless nothing follows, so that walks go on.
//! Marks count: who writes makes a new index when too many slots are worn
//! ([`Table::is_worn`]). Until then walks are bounded by the longest way that any row was
//! ever put from its place, so that packets that come and go cannot make them long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::slab::Slab;

const EMPTY: u64 = 0;
/// A row was here; walks go on.
const GONE: u64 = u32::MAX as u64;
/// Slots of the smallest index.
pub(super) const SMALLEST: usize = 64;

/// What lookups go through.
#[derive(Debug)]
pub(super) struct Table {
    /// Powers of two many: a row's number plus one, and half of its hash above.
    index: Box<[AtomicU64]>,
    /// Slots that say [`GONE`]. Only who writes looks at it.
    gone: AtomicU32,
    /// How far from its place a row may be.
    farthest: AtomicU32,
    pub(super) slab: Arc<Slab>,
}

impl Table {
    pub(super) fn new(slots: usize, slab: Arc<Slab>) -> Self {
        let index = (0..slots.next_power_of_two().max(SMALLEST)).map(|_| AtomicU64::new(EMPTY));
        let (gone, farthest) = Default::default();
        Self { index: index.collect(), gone, farthest, slab }
    }

    pub(super) fn slots(&self) -> usize {
        self.index.len()
    }

    fn mask(&self) -> usize {
        self.index.len() - 1
    }

    /// Calls `found` for every row whose hash may be this one, until it gives something.
    #[inline]
    pub(super) fn walk<R>(
        &self,
        hash: u64,
        mut found: impl FnMut(u32, usize) -> Option<R>,
    ) -> Option<R> {
        let tag = hash >> 32;
        let mut at = hash as usize & self.mask();
        for _ in 0..=self.farthest.load(Ordering::Acquire) {
            let word = self.index[at].load(Ordering::Acquire);
            if word == EMPTY {
                return None;
            }
            if word >> 32 == tag && word as u32 != u32::MAX {
                let result = found((word as u32).wrapping_sub(1), at);
                if result.is_some() {
                    return result;
                }
            }
            at = (at + 1) & self.mask();
        }
        None
    }

    /// Puts a row that is not there into the first slot that is free.
    pub(super) fn insert(&self, hash: u64, row: u32) {
        let mut at = hash as usize & self.mask();
        let mut way = 0;
        let mut word = self.index[at].load(Ordering::Relaxed);
        while !matches!(word, EMPTY | GONE) {
            at = (at + 1) & self.mask();
            way += 1;
            word = self.index[at].load(Ordering::Relaxed);
        }
        if word == GONE {
            self.gone.fetch_sub(1, Ordering::Relaxed);
        }
        self.farthest.fetch_max(way, Ordering::Release);
        self.index[at].store(hash >> 32 << 32 | u64::from(row + 1), Ordering::Release);
    }

    /// Empties a slot. Where nothing follows, nothing needs to go on from here either.
    pub(super) fn remove(&self, mut at: usize) {
        self.index[at].store(GONE, Ordering::Release);
        self.gone.fetch_add(1, Ordering::Relaxed);
        let next = self.index[(at + 1) & self.mask()].load(Ordering::Relaxed);
        while next == EMPTY && self.index[at].load(Ordering::Relaxed) == GONE {
            self.index[at].store(EMPTY, Ordering::Release);
            self.gone.fetch_sub(1, Ordering::Relaxed);
            at = at.wrapping_sub(1) & self.mask();
        }
    }

    /// Whether so many live rows and what is gone leave too few empty slots.
    pub(super) fn is_worn(&self, live: usize) -> bool {
        let gone = self.gone.load(Ordering::Relaxed) as usize;
        gone > 0 && (live + gone) * 8 > self.slots() * 5
    }

    /// Another index over the same rows, without marks. Rows of one hash stay in order:
    /// the first interface of a network is asked first.
    pub(super) fn rebuilt(&self, slots: usize, hash: impl Fn(u32) -> Option<u64>) -> Self {
        let table = Self::new(slots, Arc::clone(&self.slab));
        let word = |at: usize| self.index[at & self.mask()].load(Ordering::Relaxed);
        let start = (0..self.slots()).find(|at| word(*at) == EMPTY).unwrap_or_default();
        for at in start..start + self.slots() {
            let word = word(at);
            if word == EMPTY || word == GONE {
                continue;
            }
            let row = (word as u32).wrapping_sub(1);
            if let Some(hash) = hash(row) {
                table.insert(hash, row);
            }
        }
        table
    }

    #[cfg(test)]
    pub(super) fn gone(&self) -> u32 {
        self.gone.load(Ordering::Relaxed)
    }

    /// Slots that the longest walk there can be looks at: to an empty one, or as far as
    /// a row may be.
    #[cfg(test)]
    pub(super) fn longest_walk(&self) -> usize {
        let (mut longest, mut run) = (0, 0);
        for at in 0..2 * self.slots() {
            run += 1;
            longest = longest.max(run);
            if self.index[at & self.mask()].load(Ordering::Relaxed) == EMPTY {
                run = 0;
            }
        }
        longest.min(self.farthest.load(Ordering::Relaxed) as usize + 1)
    }
}
