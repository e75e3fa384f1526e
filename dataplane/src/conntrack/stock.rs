//! Free records by the handful: each thread has a few of them at hand, so that the ring
//! they come from passes from core to core once for several connections.
//!
//! A table has more spare records than all stocks together hold: while fewer connections
//! are alive than it may have, the ring is never empty for want of what lies in stocks.

use std::sync::atomic::{AtomicU32, Ordering};

use super::free::Ring;
use super::lanes::{LANES, lane};
use super::memory::Line;

/// Records in a stock: with the lock and two marks, a line.
const ROOM: u32 = 13;
/// How far ahead of its use a record is named.
const AHEAD: u32 = 4;
/// Records that are taken from the ring at once.
const HANDFUL: usize = (ROOM - AHEAD) as usize;

/// A record that was free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) record: u32,
    /// One that will be taken soon, perhaps.
    pub(super) soon: u32,
}

/// What a lane has at hand: the oldest at `first`.
struct Stock {
    lock: AtomicU32,
    first: AtomicU32,
    count: AtomicU32,
    records: [AtomicU32; ROOM as usize],
}

/// All free records of a table.
pub(super) struct FreeList {
    ring: Ring,
    stocks: [Line<Stock>; LANES],
}

impl FreeList {
    /// Records that the stocks of all lanes keep from the ring, at most.
    pub(super) const STOCKED: usize = LANES * ROOM as usize;

    /// Bytes that the free list of `records` takes.
    pub(super) const fn bytes(records: usize) -> u64 {
        Ring::bytes(records) + size_of::<[Line<Stock>; LANES]>() as u64
    }

    /// Records `0..records`, all free.
    pub(super) fn full(records: u32) -> Self {
        let stocks = std::array::from_fn(|_| Line(Stock::new()));
        Self { ring: Ring::full(records), stocks }
    }

    /// Records that were used at some time: all below, and a few that will be next.
    pub(super) fn used(&self) -> u32 {
        self.ring.used()
    }

    /// One of the records that have been free for the longest time.
    pub(super) fn take(&self) -> Option<Taken> {
        let stock = &self.stocks[lane()].0;
        if stock.lock.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            // Somebody shares the lane.
            return self.ring.take().map(|record| Taken { record, soon: record });
        }
        let taken = stock.take(&self.ring);
        stock.lock.store(0, Ordering::Release);
        taken
    }

    /// Gives a record back.
    pub(super) fn give(&self, record: u32) {
        self.ring.give(record);
    }
}

impl Stock {
    fn new() -> Self {
        let zero = || AtomicU32::new(0);
        let records = std::array::from_fn(|_| zero());
        Self { lock: zero(), first: zero(), count: zero(), records }
    }

    fn record(&self, at: u32) -> &AtomicU32 {
        &self.records[(at % ROOM) as usize]
    }

    /// Takes the oldest; whoever calls has the lock.
    fn take(&self, ring: &Ring) -> Option<Taken> {
        let first = self.first.load(Ordering::Relaxed);
        let mut count = self.count.load(Ordering::Relaxed);
        if count <= AHEAD {
            let mut some = [0; HANDFUL];
            let got = ring.take_some(&mut some);
            for record in &some[..got] {
                self.record(first + count).store(*record, Ordering::Relaxed);
                count += 1;
            }
        }
        let record = self.record(first).load(Ordering::Relaxed);
        self.count.store(count.checked_sub(1)?, Ordering::Relaxed);
        self.first.store((first + 1) % ROOM, Ordering::Relaxed);
        let soon = self.record(first + AHEAD.min(count - 1)).load(Ordering::Relaxed);
        Some(Taken { record, soon })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use super::*;

    /// Each record has one holder, whoever takes and gives, and all come back.
    #[test]
    fn every_record_has_one_holder_and_comes_back() {
        let records = FreeList::STOCKED as u32 + 200;
        let free = FreeList::full(records);
        let held: Vec<AtomicU32> = (0..records).map(|_| AtomicU32::new(0)).collect();
        let passed = Mutex::new(VecDeque::new());
        let work = |turns: u32| {
            for turn in 0..turns {
                if let Some(Taken { record, soon }) = free.take() {
                    assert_eq!(held[record as usize].fetch_add(1, Ordering::Relaxed), 0);
                    assert!(soon < records);
                    passed.lock().unwrap().push_back(record);
                }
                // Others than those who took them give most of them back.
                let back = passed.lock().unwrap().pop_front().filter(|_| turn % 3 > 0);
                if let Some(record) = back {
                    held[record as usize].fetch_sub(1, Ordering::Relaxed);
                    free.give(record);
                }
            }
        };
        std::thread::scope(|scope| {
            for turns in [20_000, 20_000, 20_000] {
                scope.spawn(move || work(turns));
            }
        });
        let mut out = held.iter().filter(|held| held.load(Ordering::Relaxed) == 1).count();
        assert!(held.iter().all(|held| held.load(Ordering::Relaxed) <= 1));
        // What one thread can get now is all but what rests in other lanes.
        while free.take().is_some() {
            out += 1;
        }
        assert!(out + FreeList::STOCKED >= records as usize);
    }

    /// While nothing comes back, records are handed out in order, each named ahead.
    #[test]
    fn records_are_named_before_they_are_taken() {
        let free = FreeList::full(100);
        let taken: Vec<Taken> = std::iter::from_fn(|| free.take()).collect();
        let records: Vec<u32> = taken.iter().map(|taken| taken.record).collect();
        assert_eq!(records, Vec::from_iter(0..100));
        for (at, taken) in taken.iter().enumerate().take(96) {
            assert_eq!(taken.soon as usize, at + 4);
        }
        assert_eq!(free.take(), None);
        free.give(7);
        assert_eq!(free.take().map(|taken| taken.record), Some(7));
    }
}
