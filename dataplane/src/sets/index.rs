//! The index of a hash type: slots that name rows, by open addressing.
//!
//! A slot holds a row's number and the 32 bits of its hash; the upper ones say where its
//! place is, so that another index is filled in order and without a look at any row. That
//! is done in pieces: meanwhile lookups ask both ([`Table::walk`]), new rows go into the
//! new one, and rows that go leave both.
//!
//! A row that goes leaves a mark behind unless nothing follows, so that walks go on.
//! Marks count: who writes makes a new index when too many slots are worn
//! ([`Index::is_worn`]). Until then walks are bounded by the longest way that any row was
//! ever put from its place, so that packets that come and go cannot make them long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::memory::{touch, zeroed};
use super::slab::Slab;

const EMPTY: u64 = 0;
/// A row was here; walks go on.
const GONE: u64 = u32::MAX as u64;
/// Slots of the smallest index.
pub(super) const SMALLEST: usize = 64;
/// Slots of the largest: as many as hashes can tell apart.
const LARGEST: usize = 1 << 32;

/// Slots by hash.
#[derive(Debug)]
pub(super) struct Index {
    /// Powers of two many: a row's number plus one, and its hash above.
    slots: Box<[AtomicU64]>,
    /// Bits of a hash that do not say where its place is.
    shift: u32,
    /// Slots that say [`GONE`]. Only who writes looks at it.
    gone: AtomicU32,
    /// How far from its place a row may be.
    farthest: AtomicU32,
}

impl Index {
    pub(super) fn new(slots: usize) -> Self {
        Self::over(zeroed(Self::size(slots)))
    }

    /// Slots of an index that is to have so many.
    pub(super) fn size(slots: usize) -> usize {
        slots.next_power_of_two().clamp(SMALLEST, LARGEST)
    }

    /// Of as many zeroed slots as [`Index::size`] says of any number.
    pub(super) fn over(slots: Box<[AtomicU64]>) -> Self {
        let (gone, farthest) = Default::default();
        let shift = 32 - slots.len().ilog2();
        Self { slots, shift, gone, farthest }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    #[inline]
    fn place(&self, hash: u32) -> usize {
        (u64::from(hash) >> self.shift) as usize
    }

    /// Has all its memory there: who puts rows into it waits for none.
    pub(super) fn touch(&self) {
        touch(&self.slots);
    }

    /// Calls `found` for every row of this hash, until it gives something.
    #[inline]
    fn walk<R>(&self, hash: u32, mut found: impl FnMut(u32, usize) -> Option<R>) -> Option<R> {
        let mut at = self.place(hash);
        for _ in 0..=self.farthest.load(Ordering::Acquire) {
            let word = self.slots[at].load(Ordering::Acquire);
            if word == EMPTY {
                return None;
            }
            if (word >> 32) as u32 == hash && word as u32 != u32::MAX {
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
    fn insert(&self, hash: u32, row: u32) {
        let mut at = self.place(hash);
        let mut way = 0;
        let mut word = self.slots[at].load(Ordering::Relaxed);
        while !matches!(word, EMPTY | GONE) {
            at = (at + 1) & self.mask();
            way += 1;
            word = self.slots[at].load(Ordering::Relaxed);
        }
        if word == GONE {
            self.gone.fetch_sub(1, Ordering::Relaxed);
        }
        if way > self.farthest.load(Ordering::Relaxed) {
            self.farthest.store(way, Ordering::Release);
        }
        self.slots[at].store(u64::from(hash) << 32 | u64::from(row + 1), Ordering::Release);
    }

    /// Takes a row out, if it is there. Where nothing follows, nothing needs to go on from
    /// its slot either.
    fn remove(&self, hash: u32, row: u32) -> bool {
        let slot = self.walk(hash, |found, slot| (found == row).then_some(slot));
        let Some(mut at) = slot else { return false };
        self.slots[at].store(GONE, Ordering::Release);
        self.gone.fetch_add(1, Ordering::Relaxed);
        let next = self.slots[(at + 1) & self.mask()].load(Ordering::Relaxed);
        while next == EMPTY && self.slots[at].load(Ordering::Relaxed) == GONE {
            self.slots[at].store(EMPTY, Ordering::Release);
            self.gone.fetch_sub(1, Ordering::Relaxed);
            at = at.wrapping_sub(1) & self.mask();
        }
        true
    }

    /// Whether so many live rows and what is gone leave too few empty slots.
    pub(super) fn is_worn(&self, live: usize) -> bool {
        let gone = self.gone.load(Ordering::Relaxed) as usize;
        gone > 0 && (live + gone) * 8 > self.len() * 5
    }

    /// A slot where no walk goes on.
    fn first_empty(&self) -> usize {
        let empty = |slot: &AtomicU64| slot.load(Ordering::Relaxed) == EMPTY;
        self.slots.iter().position(empty).unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn gone(&self) -> u32 {
        self.gone.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn first_slot(&self) -> *const AtomicU64 {
        self.slots.as_ptr()
    }

    /// Slots that the longest walk there can be looks at: to an empty one, or as far as
    /// a row may be.
    #[cfg(test)]
    pub(super) fn longest_walk(&self) -> usize {
        let (mut longest, mut run) = (0, 0);
        for at in 0..2 * self.len() {
            run += 1;
            longest = longest.max(run);
            if self.slots[at & self.mask()].load(Ordering::Relaxed) == EMPTY {
                run = 0;
            }
        }
        longest.min(self.farthest.load(Ordering::Relaxed) as usize + 1)
    }
}

/// What lookups go through.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) index: Arc<Index>,
    /// What the index takes over, piece by piece.
    pub(super) before: Option<Arc<Index>>,
    pub(super) slab: Arc<Slab>,
}

/// How far an index has been taken over. Only who writes has it.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// The slot it began at.
    start: usize,
    /// Slots so far.
    slots: usize,
}

impl Table {
    /// Over no rows.
    pub(super) fn new(slots: usize, slab: Arc<Slab>) -> Self {
        Self { index: Arc::new(Index::new(slots)), before: None, slab }
    }

    /// Another index over the same rows, into which all of them are yet to be [carried].
    ///
    /// [carried]: Table::carry
    pub(super) fn begin(&self, index: Index) -> (Self, Carried) {
        let before = &self.index;
        let carried = Carried { start: before.first_empty(), slots: 0 };
        let index = Arc::new(index);
        let slab = Arc::clone(&self.slab);
        (Self { index, before: Some(Arc::clone(before)), slab }, carried)
    }

    /// Takes over the rows of some more slots; whether that was all. Rows of one hash stay
    /// in order: the first interface of a network is asked first.
    pub(super) fn carry(&self, carried: &mut Carried, slots: usize) -> bool {
        let Some(before) = &self.before else { return true };
        let end = carried.slots.saturating_add(slots).min(before.len());
        for step in carried.slots..end {
            let word = before.slots[(carried.start + step) & before.mask()].load(Ordering::Relaxed);
            if word != EMPTY && word != GONE {
                self.index.insert((word >> 32) as u32, (word as u32).wrapping_sub(1));
            }
        }
        carried.slots = end;
        end == before.len()
    }

    /// The same without the index before.
    pub(super) fn settled(&self) -> Self {
        Self { index: Arc::clone(&self.index), before: None, slab: Arc::clone(&self.slab) }
    }

    /// Calls `found` for every row of this hash, until it gives something; for a row that
    /// is being carried, maybe twice.
    #[inline]
    pub(super) fn walk<R>(&self, hash: u32, mut found: impl FnMut(u32) -> Option<R>) -> Option<R> {
        let result = self.index.walk(hash, |row, _| found(row));
        match (&self.before, &result) {
            (Some(before), None) => before.walk(hash, |row, _| found(row)),
            _ => result,
        }
    }

    /// Whether no row is of this hash, as far as one look tells. Many of these do not wait
    /// for each other.
    #[inline]
    pub(super) fn is_vacant(&self, hash: u32) -> bool {
        let word = self.index.slots[self.index.place(hash)].load(Ordering::Acquire);
        word == EMPTY && self.before.is_none()
    }

    /// Puts a row that is not there.
    pub(super) fn insert(&self, hash: u32, row: u32) {
        self.index.insert(hash, row);
    }

    /// Takes a row out; whether it was there.
    pub(super) fn remove(&self, hash: u32, row: u32) -> bool {
        let carried = self.index.remove(hash, row);
        let before = self.before.as_ref().is_some_and(|before| before.remove(hash, row));
        carried || before
    }

    /// Bytes of its indexes.
    pub(super) fn bytes(&self) -> u64 {
        let slots = self.index.len() + self.before.as_ref().map_or(0, |before| before.len());
        8 * slots as u64
    }
}
