//! What the sink makes of the frames: each sequence number once, and how long it took.

use hdrhistogram::Histogram;

use super::frames::{HEADERS, STAMP};
use crate::lab::Outcome;

/// Marks the frames of this generator.
const MARK: [u8; 2] = [0x50, 0x43];
/// Sequence numbers that can be told apart: 32 MiB of bits.
const NUMBERS_MAX: u64 = 1 << 28;
/// Latencies are recorded up to a minute, in nanoseconds, to three digits.
const LATENCY_MAX: u64 = 60_000_000_000;

/// Writes mark, number and time into a frame's payload.
pub(super) fn stamp(frame: &mut [u8], number: u64, now: u64) {
    let place = &mut frame[HEADERS..HEADERS + STAMP];
    place[..2].copy_from_slice(&MARK);
    place[2..10].copy_from_slice(&number.to_be_bytes());
    place[10..].copy_from_slice(&now.to_be_bytes());
}

/// Reads them again; `None` for frames that are not the generator's.
fn read(frame: &[u8]) -> Option<(u64, u64)> {
    let place = frame.get(HEADERS..HEADERS + STAMP)?;
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&place[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    (place[..2] == MARK).then(|| (word(2), word(10)))
}

/// What arrived, by sequence number.
#[derive(Debug)]
pub(super) struct Tally {
    /// The first number of this run.
    first: u64,
    seen: Vec<u64>,
    pub(super) received: u64,
    pub(super) duplicates: u64,
    /// Behind one with a higher number.
    pub(super) reordered: u64,
    /// Not of this run, or not the generator's.
    pub(super) foreign: u64,
    highest: u64,
    pub(super) latency: Histogram<u64>,
}

impl Tally {
    /// For numbers from `first`.
    pub(super) fn new(first: u64) -> Outcome<Self> {
        Ok(Self {
            first,
            seen: Vec::new(),
            received: 0,
            duplicates: 0,
            reordered: 0,
            foreign: 0,
            highest: 0,
            latency: Histogram::new_with_bounds(1, LATENCY_MAX, 3)?,
        })
    }

    /// Takes note of a frame that arrived at `now`.
    pub(super) fn note(&mut self, frame: &[u8], now: u64) {
        let known = read(frame).and_then(|(number, then)| {
            let number = number.checked_sub(self.first).filter(|number| *number < NUMBERS_MAX)?;
            Some((number, then))
        });
        let Some((number, then)) = known else {
            self.foreign += 1;
            return;
        };
        let (word, bit) = (number as usize / 64, 1 << (number % 64));
        if word >= self.seen.len() {
            self.seen.resize((word + 1).next_power_of_two(), 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        self.seen[word] |= bit;
        self.received += 1;
        if number < self.highest {
            self.reordered += 1;
        }
        self.highest = self.highest.max(number);
        self.latency.saturating_record(now.saturating_sub(then).max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_counts_once() {
        let mut tally = Tally::new(100).expect("a histogram");
        let mut frame = vec![0; 60];
        for (number, sent, arrived) in
            [(100, 10, 30), (102, 10, 40), (101, 10, 50), (101, 10, 60), (99, 1, 2)]
        {
            stamp(&mut frame, number, sent);
            tally.note(&frame, arrived);
        }
        tally.note(&[0; 60], 1);
        tally.note(&[0; 20], 1);
        let Tally { received, duplicates, reordered, foreign, .. } = tally;
        assert_eq!((received, duplicates, reordered, foreign), (3, 1, 1, 3));
        assert_eq!((tally.latency.min(), tally.latency.max()), (20, 40));
    }
}
