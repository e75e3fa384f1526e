//! Beats: where each worker says that it turns, and the BPF programs read it.
//!
//! An array map holds one word a worker, the kernel's clock at its last turn. It is
//! mapped into this process, so a beat is a store and no system call. A slot that
//! falls behind by more than the limit means that the daemon is away (stuck,
//! stopped, gone), and the programs do what is configured for that.
//!
//! Concurrency: one writer a slot; the kernel reads whole aligned words.

#![allow(unsafe_code, reason = "the kernel reads the same memory")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use crate::clock::{Nanos, of_kernel};

/// Slots of the map: as many workers as there can be.
const SLOTS: usize = 256;

/// The mapped array.
#[derive(Clone, Debug)]
pub(super) struct Beats {
    map: Arc<MmapRaw>,
    limit: Nanos,
}

impl Beats {
    /// Maps the array behind `map`; `limit` is what the programs were loaded with.
    pub(super) fn map(map: impl AsFd, limit: Nanos) -> io::Result<Self> {
        let fd = map.as_fd().as_raw_fd();
        let map = MmapOptions::new().len(SLOTS * size_of::<u64>()).map_raw(fd)?;
        Ok(Self { map: Arc::new(map), limit })
    }

    /// The slot of one worker.
    pub(super) fn of_worker(&self, worker: usize) -> Beat {
        assert!(worker < SLOTS, "{worker}: there are {SLOTS} slots");
        Beat { beats: self.clone(), slot: worker, last: Nanos::default() }
    }
}

/// One worker's slot.
#[derive(Debug)]
pub struct Beat {
    beats: Beats,
    slot: usize,
    last: Nanos,
}

impl Beat {
    /// A slot that no program reads.
    #[cfg(test)]
    pub(crate) fn unheard(limit: Nanos) -> Self {
        let map = memmap2::MmapMut::map_anon(SLOTS * size_of::<u64>()).expect("a page");
        Beats { map: Arc::new(map.into()), limit }.of_worker(0)
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: the mapping is page-aligned and has `SLOTS` words, of which `slot`
        // is one.
        let word = unsafe { self.beats.map.as_mut_ptr().cast::<u64>().add(self.slot) };
        // SAFETY: aligned, and valid as long as `self`, which holds the mapping; in
        // this process nobody else touches the word, and the kernel only reads it.
        unsafe { AtomicU64::from_ptr(word) }
    }

    /// Says that the worker turns at `now`.
    pub fn strike(&mut self, now: Nanos) {
        self.last = now;
        self.word().store(of_kernel(now), Ordering::Relaxed);
    }

    /// Says that the worker turns no more: what is configured for that holds at once.
    pub fn end(&mut self) {
        self.last = Nanos::default();
        self.word().store(0, Ordering::Relaxed);
    }

    /// Whether at `now` the programs have taken the worker for away since its last beat.
    pub fn was_missed(&self, now: Nanos) -> bool {
        self.beats.limit > Nanos(0)
            && self.last > Nanos(0)
            && now.saturating_sub(self.last) > self.beats.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_the_kernels_clock_and_is_missed_beyond_the_limit() {
        let mut beat = Beat::unheard(Nanos::from_millis(1000));
        let start = Nanos::from_secs(7200);
        assert!(!beat.was_missed(start), "none was due yet");
        beat.strike(start);
        assert_eq!(beat.word().load(Ordering::Relaxed), 3600 * 1_000_000_000);
        assert!(!beat.was_missed(start + Nanos::from_millis(1000)));
        assert!(beat.was_missed(start + Nanos::from_millis(1001)));
        beat.end();
        assert_eq!(beat.word().load(Ordering::Relaxed), 0);
        assert!(!beat.was_missed(start + Nanos::from_secs(9)), "it has ended");
    }

    #[test]
    fn without_a_limit_none_is_missed() {
        let mut beat = Beat::unheard(Nanos(0));
        beat.strike(Nanos::from_secs(7200));
        assert!(!beat.was_missed(Nanos::from_secs(9000)));
    }
}
