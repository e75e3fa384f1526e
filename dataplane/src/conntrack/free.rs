//! Free records, first in, first out, so that a record rests as long as possible before
//! it is used again. Records that were never used come first, in order: their memory
//! was never touched either.
//!
//! A ring of words: 32 bits of turn above the record. In lap `n` around the ring a
//! place is empty at turn `2n` and holds a record at turn `2n + 1`, so that zeroed
//! memory is an empty ring. Whoever moves `head` or `tail` past a place has it to
//! itself until it stores the next turn there.

use super::memory::{Line, Zeroed};
use super::sync::{AtomicU32, AtomicU64, Ordering, fence, relax};

/// All free records of a table.
pub(super) struct Ring {
    slots: Zeroed<AtomicU64>,
    /// Places in a lap, a power of two, as a shift.
    lap: u32,
    records: u32,
    /// Records below this were used before.
    fresh: Line<AtomicU32>,
    head: Line<AtomicU64>,
    tail: Line<AtomicU64>,
}

const fn word(turn: u32, record: u32) -> u64 {
    (turn as u64) << 32 | record as u64
}

const fn turn_of(word: u64) -> u32 {
    (word >> 32) as u32
}

impl Ring {
    /// Bytes that the free list of `records` takes.
    #[cfg(not(loom))]
    pub(super) const fn bytes(records: usize) -> u64 {
        (records.next_power_of_two() * size_of::<AtomicU64>()) as u64
    }

    /// Records `0..records`, all free.
    pub(super) fn full(records: u32) -> Self {
        let places = (records as usize).next_power_of_two();
        Self {
            slots: Zeroed::new(places),
            lap: places.trailing_zeros(),
            records,
            fresh: Line(AtomicU32::new(0)),
            head: Line(AtomicU64::new(0)),
            tail: Line(AtomicU64::new(0)),
        }
    }

    fn slot(&self, at: u64) -> &AtomicU64 {
        &self.slots[(at & ((1 << self.lap) - 1)) as usize]
    }

    /// The turn of an empty place at `at`.
    fn empty(&self, at: u64) -> u32 {
        ((at >> self.lap) as u32).wrapping_mul(2)
    }

    /// Records that were used at some time: all below.
    #[cfg(not(loom))]
    pub(super) fn used(&self) -> u32 {
        self.fresh.0.load(Ordering::Relaxed).min(self.records)
    }

    /// The record that has been free for the longest time.
    pub(super) fn take(&self) -> Option<u32> {
        let mut one = [0];
        (self.take_some(&mut one) == 1).then_some(one[0])
    }

    /// As many records as are wanted and at hand, those first that have been free for the
    /// longest time; none only if none is free.
    pub(super) fn take_some(&self, wanted: &mut [u32]) -> usize {
        let most = wanted.len() as u32;
        if self.fresh.0.load(Ordering::Relaxed) < self.records {
            let first = self.fresh.0.fetch_add(most, Ordering::Relaxed);
            let taken = self.records.saturating_sub(first).min(most);
            if taken > 0 {
                wanted.iter_mut().zip(first..first + taken).for_each(|(out, it)| *out = it);
                return taken as usize;
            }
        }
        let mut at = self.head.0.load(Ordering::Relaxed);
        let mut attempt = 0;
        loop {
            let found = self.slot(at).load(Ordering::Acquire);
            let ahead = turn_of(found).wrapping_sub(self.empty(at).wrapping_add(1)) as i32;
            if ahead < 0 {
                // With the one in `give`: what was given back before anything that this
                // thread has seen is seen, too. An empty ring was empty.
                fence(Ordering::SeqCst);
                let now = self.head.0.load(Ordering::Relaxed);
                if now == at {
                    if self.tail.0.load(Ordering::Relaxed) == at {
                        return 0;
                    }
                    // Somebody is about to give one back here.
                    relax(attempt);
                    attempt += 1;
                }
                at = now;
                continue;
            }
            // Where the place is ahead, the head has moved: the exchange fails.
            let full = self.full_from(at, found as u32, wanted);
            let next = at + full as u64;
            match self.head.0.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    for at in at..next {
                        let turn = self.empty(at).wrapping_add(2);
                        self.slot(at).store(word(turn, 0), Ordering::Release);
                    }
                    return full;
                }
                Err(now) => at = now,
            }
        }
    }

    /// `first`, which lies at `at`, and the records behind it, as many as are wanted and
    /// there: nobody but who moves the head past them takes them away.
    fn full_from(&self, at: u64, first: u32, wanted: &mut [u32]) -> usize {
        let places = (1_u64 << self.lap).min(wanted.len() as u64);
        let full = |at: u64| {
            let found = self.slot(at).load(Ordering::Acquire);
            (turn_of(found) == self.empty(at).wrapping_add(1)).then_some(found as u32)
        };
        let rest = (at + 1..at + places).map_while(full);
        let there = std::iter::once(first).chain(rest);
        there.zip(wanted).map(|(record, out)| *out = record).count()
    }

    /// Gives a record back. There is a place for each.
    pub(super) fn give(&self, record: u32) {
        // The place is this thread's alone from here on: nobody else gets this number.
        let at = self.tail.0.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let slot = self.slot(at);
        let mut attempt = 0;
        // Who took the record that was here a lap ago has yet to say so.
        while turn_of(slot.load(Ordering::Acquire)) != self.empty(at) {
            relax(attempt);
            attempt += 1;
        }
        slot.store(word(self.empty(at).wrapping_add(1), record), Ordering::Release);
    }
}
