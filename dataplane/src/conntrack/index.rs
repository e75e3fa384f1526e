//! The index: cache-line buckets that lead from a hash to records.
//!
//! A slot is one word: 32 bits of tag, a record index and a direction. An entry
//! has two candidate buckets, and a small overflow area for the case that both
//! are full. Entries are never moved, so a reader that scans the candidates in
//! any order cannot miss one that was there before it started. That is the
//! proof that nothing gets lost; the price is a load factor of 1/2 at most, at
//! which, while entries come and go, both buckets are full for one in a billion
//! inserts (simulated: at 5/8, it is one in 30,000). An insert that finds no room
//! at all fails, and its new connection with it.
//!
//! Most entries are in their first bucket, which is preferred until it is more than
//! half full: a lookup touches one line of the index, not two.
//!
//! Uniqueness: inserters of one tuple meet on the lock of its first bucket, which readers
//! and removers do not take. It is a bit of the bucket's first slot: an insert writes to
//! that line anyway, and no other line passes from core to core for it.

use super::memory::{Line, Zeroed};
use super::sync::{AtomicU32, AtomicU64, Ordering, relax};
use super::tuple::Direction;
use crate::prefetch::fetch;

/// Slots in a bucket: one cache line.
#[cfg(not(loom))]
pub(super) const SLOTS: usize = 8;
#[cfg(loom)]
pub(super) const SLOTS: usize = 1;

/// Entries that a bucket takes before the other one is looked at.
const PREFERRED: usize = 5;

#[cfg(not(loom))]
const OVERFLOW: usize = 64;
#[cfg(loom)]
const OVERFLOW: usize = 2;

/// In the first slot of a bucket: somebody inserts an entry whose first bucket this is.
/// Record numbers take no more than the 31 bits below.
const LOCK: u64 = 1 << 31;

type Bucket = Line<[AtomicU64; SLOTS]>;

#[cfg(not(loom))]
const _: () = assert!(size_of::<Bucket>() == 64);

/// What a slot refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Record index.
    pub(super) record: u32,
    /// Which of the record's tuples.
    pub(super) direction: Direction,
}

impl Entry {
    const fn slot(self, hash: u64) -> u64 {
        (tag(hash) as u64) << 32 | ((self.record + 1) << 1 | self.direction as u32) as u64
    }
    const fn of(slot: u64) -> Option<Self> {
        let low = (slot & !LOCK) as u32;
        if low == 0 {
            return None;
        }
        let direction = if low & 1 == 0 { Direction::Original } else { Direction::Reply };
        Some(Self { record: (low >> 1) - 1, direction })
    }
}

/// Bits from the middle: the two buckets are chosen by the ends.
const fn tag(hash: u64) -> u32 {
    (hash >> 16) as u32
}

/// Scales 32 bits of hash to `0..len`.
const fn scale(bits: u32, len: usize) -> usize {
    ((bits as u64 * len as u64) >> 32) as usize
}

/// All buckets.
pub(super) struct Index {
    buckets: Zeroed<Bucket>,
    overflow: Box<[AtomicU64]>,
    /// Overflow slots in use or about to be; almost always zero.
    overflowed: AtomicU32,
}

impl Index {
    const fn buckets(entries: usize) -> usize {
        let buckets = entries * 2 / SLOTS + 1;
        if buckets < 2 { 2 } else { buckets }
    }

    /// Bytes that buckets for `entries` take.
    pub(super) const fn bytes(entries: usize) -> u64 {
        (Self::buckets(entries) * size_of::<Bucket>()) as u64
    }

    /// Room for `entries` (two a connection).
    pub(super) fn new(entries: usize) -> Self {
        let buckets = Self::buckets(entries);
        let slot = || AtomicU64::new(0);
        Self {
            buckets: Zeroed::new(buckets),
            overflow: (0..OVERFLOW).map(|_| slot()).collect(),
            overflowed: AtomicU32::new(0),
        }
    }

    fn homes(&self, hash: u64) -> [usize; 2] {
        let len = self.buckets.len();
        [scale((hash >> 32) as u32, len), scale(hash as u32, len)]
    }

    /// Asks memory for the bucket that a lookup of `hash` reads first, and mostly alone.
    #[inline]
    pub(super) fn fetch(&self, hash: u64) {
        fetch(&self.buckets[self.homes(hash)[0]]);
    }

    /// The same for the other one.
    #[inline]
    pub(super) fn fetch_second(&self, hash: u64) {
        fetch(&self.buckets[self.homes(hash)[1]]);
    }

    /// The first entry that the first bucket has under `hash`'s tag.
    #[inline]
    pub(super) fn foresee(&self, hash: u64) -> Option<Entry> {
        self.foresee_in(hash, 0)
    }

    /// The same of the second one.
    #[inline]
    pub(super) fn foresee_second(&self, hash: u64) -> Option<Entry> {
        self.foresee_in(hash, 1)
    }

    #[inline(always)]
    fn foresee_in(&self, hash: u64, home: usize) -> Option<Entry> {
        let bucket = &self.buckets[self.homes(hash)[home]].0;
        let candidates = tagged(bucket, tag(hash));
        let slot = bucket.get(candidates.trailing_zeros() as usize)?;
        Entry::of(slot.load(Ordering::Relaxed))
    }

    /// Has the next pages there before they are written; see [`Zeroed::populate`].
    pub(super) fn populate(&self, from: usize) -> Option<usize> {
        self.buckets.populate(from)
    }

    /// Visits the entries that carry `hash`'s tag until `visit` returns something.
    #[inline]
    pub(super) fn scan<R>(
        &self,
        hash: u64,
        mut visit: impl FnMut(Entry) -> Option<R>,
    ) -> Option<R> {
        let wanted = tag(hash);
        let mut probe = |slot: &AtomicU64| {
            let slot = slot.load(Ordering::Acquire);
            if (slot >> 32) as u32 != wanted {
                return None;
            }
            visit(Entry::of(slot)?)
        };
        for home in self.homes(hash) {
            let bucket = &self.buckets[home].0;
            let mut candidates = tagged(bucket, wanted);
            while candidates != 0 {
                let found = probe(&bucket[candidates.trailing_zeros() as usize]);
                if found.is_some() {
                    return found;
                }
                candidates &= candidates - 1;
            }
        }
        if self.overflowed.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.overflow.iter().find_map(probe)
    }

    /// Visits every entry of the `nth` bucket from `hash`'s first on.
    pub(super) fn visit_bucket(&self, hash: u64, nth: usize, mut visit: impl FnMut(Entry)) {
        let at = (self.homes(hash)[0] + nth) % self.buckets.len();
        for slot in &self.buckets[at].0 {
            if let Some(entry) = Entry::of(slot.load(Ordering::Acquire)) {
                visit(entry);
            }
        }
    }

    /// Adds an entry; false when neither bucket nor the overflow area has room.
    /// The caller [excludes](Index::exclude) others and has looked for duplicates.
    pub(super) fn insert(&self, hash: u64, entry: Entry) -> bool {
        let slot = entry.slot(hash);
        let [mut first, mut second] = self.homes(hash);
        let free = self.free_slots(first);
        if free <= SLOTS.saturating_sub(PREFERRED) && self.free_slots(second) > free {
            (first, second) = (second, first);
        }
        if fill(&self.buckets[first].0, slot) || fill(&self.buckets[second].0, slot) {
            return true;
        }
        // Announced before it is there, so that no reader skips the area.
        self.overflowed.fetch_add(1, Ordering::AcqRel);
        let stored = fill(&self.overflow, slot);
        if !stored {
            self.overflowed.fetch_sub(1, Ordering::AcqRel);
        }
        stored
    }

    fn free_slots(&self, bucket: usize) -> usize {
        let is_free = |slot: &&AtomicU64| slot.load(Ordering::Relaxed) & !LOCK == 0;
        self.buckets[bucket].0.iter().filter(is_free).count()
    }

    /// Takes an entry out, if it is there. Only the entry's one remover calls this.
    pub(super) fn remove(&self, hash: u64, entry: Entry) {
        let slot = entry.slot(hash);
        let [first, second] = self.homes(hash);
        if clear(&self.buckets[first].0, slot) || clear(&self.buckets[second].0, slot) {
            return;
        }
        if clear(&self.overflow, slot) {
            self.overflowed.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Holds off other inserters of either hash until dropped.
    pub(super) fn exclude(&self, hashes: [u64; 2]) -> Excluded<'_> {
        let [a, b] = hashes.map(|hash| self.homes(hash)[0]);
        let lock = |bucket: usize| {
            let word = &self.buckets[bucket].0[0];
            let mut attempt = 0;
            while word.fetch_or(LOCK, Ordering::Acquire) & LOCK != 0 {
                relax(attempt);
                attempt += 1;
            }
            word
        };
        let first = lock(a.min(b));
        Excluded { first, second: (a != b).then(|| lock(a.max(b))) }
    }

    /// Entries in all slots, for invariant checks in tests.
    #[cfg(test)]
    pub(super) fn entries(&self) -> Vec<Entry> {
        let buckets = self.buckets.iter().flat_map(|bucket| bucket.0.iter());
        buckets
            .chain(self.overflow.iter())
            .filter_map(|slot| Entry::of(slot.load(Ordering::Acquire)))
            .collect()
    }
}

/// Bit per slot that carries the tag: in which of them an entry is, is nothing that a
/// branch could foresee.
#[inline]
fn tagged(bucket: &[AtomicU64; SLOTS], tag: u32) -> u32 {
    let (mut bits, wanted) = (0, u64::from(tag) << 32);
    for slot in bucket.iter().rev() {
        let differs = slot.load(Ordering::Relaxed) ^ wanted;
        bits = bits + bits + u32::from(differs <= u64::from(u32::MAX));
    }
    bits
}

fn fill(slots: &[AtomicU64], value: u64) -> bool {
    slots.iter().any(|slot| replace(slot, 0, value))
}

fn clear(slots: &[AtomicU64], value: u64) -> bool {
    slots.iter().any(|slot| replace(slot, value, 0))
}

/// Puts one value in the place of another, if that is there, and leaves the lock as it is.
fn replace(slot: &AtomicU64, from: u64, to: u64) -> bool {
    let mut word = slot.load(Ordering::Relaxed);
    while word & !LOCK == from {
        let next = to | word & LOCK;
        match slot.compare_exchange(word, next, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return true,
            Err(now) => word = now,
        }
    }
    false
}

/// Buckets whose locks are held.
pub(super) struct Excluded<'i> {
    first: &'i AtomicU64,
    second: Option<&'i AtomicU64>,
}

impl Drop for Excluded<'_> {
    fn drop(&mut self) {
        if let Some(second) = self.second {
            second.fetch_and(!LOCK, Ordering::Release);
        }
        self.first.fetch_and(!LOCK, Ordering::Release);
    }
}
