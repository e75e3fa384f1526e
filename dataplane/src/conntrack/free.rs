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

/// How far ahead of its use a record is named.
const AHEAD: u64 = 4;

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

/// A record that was free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) record: u32,
    /// One that will be taken soon, perhaps.
    pub(super) soon: u32,
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
    pub(super) fn take(&self) -> Option<Taken> {
        if self.fresh.0.load(Ordering::Relaxed) < self.records {
            let record = self.fresh.0.fetch_add(1, Ordering::Relaxed);
            if record < self.records {
                return Some(Taken { record, soon: record + AHEAD as u32 });
            }
        }
        let mut at = self.head.0.load(Ordering::Relaxed);
        let mut attempt = 0;
        loop {
            let slot = self.slot(at);
            let found = slot.load(Ordering::Acquire);
            let ahead = turn_of(found).wrapping_sub(self.empty(at).wrapping_add(1)) as i32;
            if ahead < 0 {
                // With the one in `give`: what was given back before anything that this
                // thread has seen is seen, too. An empty ring was empty.
                fence(Ordering::SeqCst);
                let now = self.head.0.load(Ordering::Relaxed);
                if now == at {
                    if self.tail.0.load(Ordering::Relaxed) == at {
                        return None;
                    }
                    // Somebody is about to give one back here.
                    relax(attempt);
                    attempt += 1;
                }
                at = now;
                continue;
            }
            let next = at + 1;
            // Where the place is ahead, the head has moved: the exchange fails.
            match self.head.0.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let turn = self.empty(at).wrapping_add(2);
                    slot.store(word(turn, 0), Ordering::Release);
                    let soon = self.slot(at + AHEAD).load(Ordering::Relaxed) as u32;
                    return Some(Taken { record: found as u32, soon });
                }
                Err(now) => at = now,
            }
        }
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
