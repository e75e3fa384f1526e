//! The tap: what a live trace or a capture takes of the packets that pass.
//!
//! The control thread publishes one [`Tap`]; workers look at it once a turn, and while it is
//! off pay a branch a burst. While it is on, each frame is held against its [`Filter`]; one
//! that matches is decided by itself, on the full road, and what it met is left as a
//! [`Record`] in a bounded ring. All others are decided as ever, in the order in which they
//! came: what is taken changes no verdict, no counter and no byte.
//!
//! Concurrency: the ring and the counts are shared by all workers, which never wait; a record
//! without room, or beyond the rate, is counted and lost. Limits: so many records, until
//! a moment that workers compare themselves, so that nothing has to live on to end it.

mod decide;
mod filter;
mod headers;
mod record;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

use crate::clock::Nanos;
use crate::logbook::{Gate, Rate};
use crate::packet::PortId;
pub(crate) use decide::decide;
pub use filter::{Filter, Side, TERMS_MAX, Term, What};
pub use headers::{Headers, Ip};
use record::Tracer;
pub use record::{FRAME_BYTES, Record, STEPS_MAX};

/// What is wanted of a tap.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Which packets.
    pub filter: Filter,
    /// So many records at most.
    pub count: u64,
    /// Until then.
    pub until: Nanos,
    /// So many a second; `None` is no limit.
    pub rate: Option<Rate>,
    /// Bytes of each frame that are kept, [`FRAME_BYTES`] at most.
    pub snaplen: usize,
    /// Records that may wait to be taken.
    pub room: usize,
}

/// How often something happened, over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that matched while records were left to make.
    pub matched: u64,
    /// Records made.
    pub taken: u64,
    /// Matched, but beyond the rate: they took their usual road.
    pub limited: u64,
    /// Records lost because nobody took them in time.
    pub lost: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Tap {
    terms: Terms,
    on: AtomicBool,
    gate: Gate,
    ring: ArrayQueue<Record>,
    matched: AtomicU64,
    taken: AtomicU64,
    limited: AtomicU64,
    lost: AtomicU64,
}

impl Tap {
    /// One that takes what it was asked for.
    pub fn open(terms: Terms) -> Self {
        let ring = ArrayQueue::new(terms.room.max(1));
        Self {
            on: AtomicBool::new(true),
            gate: Gate::default(),
            ring,
            matched: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            terms,
        }
    }

    /// One that takes nothing.
    pub fn closed() -> Self {
        let filter = Filter::default();
        let (count, until, rate, snaplen, room) = (0, Nanos(0), None, 0, 1);
        let tap = Self::open(Terms { filter, count, until, rate, snaplen, room });
        tap.close();
        tap
    }

    /// Ends it, now.
    pub fn close(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    /// Whether anything may still be taken at `now`.
    #[inline]
    pub fn is_on(&self, now: Nanos) -> bool {
        self.on.load(Ordering::Relaxed)
            && now < self.terms.until
            && self.taken.load(Ordering::Relaxed) < self.terms.count
    }

    /// Whether workers need to look at bursts at all.
    pub(crate) fn may_be_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Whether a frame is to be taken; `input`: the port it came in by, `None` for this
    /// machine's own. Counts it if so.
    #[inline]
    pub(crate) fn admits(&self, frame: &[u8], input: Option<PortId>, now: Nanos) -> bool {
        if !self.terms.filter.matches(frame, input) || !self.is_on(now) {
            return false;
        }
        self.matched.fetch_add(1, Ordering::Relaxed);
        if self.terms.rate.is_some_and(|rate| !self.gate.admits(now, &rate)) {
            self.limited.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let admitted = self.taken.fetch_add(1, Ordering::Relaxed) < self.terms.count;
        if !admitted {
            self.taken.fetch_sub(1, Ordering::Relaxed);
        }
        admitted
    }

    /// Bytes of a frame that are kept.
    pub(crate) fn snaplen(&self) -> usize {
        self.terms.snaplen.min(FRAME_BYTES)
    }

    /// Leaves a record, or counts that there was no room.
    pub(crate) fn leave(&self, record: Record) {
        if self.ring.push(record).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The next record.
    pub fn take(&self) -> Option<Record> {
        self.ring.pop()
    }

    /// What happened until now.
    pub fn counts(&self) -> Counts {
        Counts {
            matched: self.matched.load(Ordering::Relaxed),
            taken: self.taken.load(Ordering::Relaxed),
            limited: self.limited.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }

    /// What was wanted.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }
}
