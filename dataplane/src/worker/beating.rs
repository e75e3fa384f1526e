//! The worker's beat, and what becomes of frames that waited while it did not turn.
//!
//! After a silence longer than the limit the BPF programs send nothing to the
//! worker any more, so what it then finds in its rings is older than the silence:
//! it is dropped, because a packet that comes minutes late does more harm than one
//! that is lost.

use super::{Pipeline, Worker};
use crate::clock::{self, Nanos};
use crate::port::Port;
use crate::port::afxdp::Beat;
use crate::verdict::DropReason;

/// Bursts that are dropped as stale at most: rings of the largest size on many ports.
const STALE_BURSTS: usize = 65_536;
/// Turns that empty the rings at the end at most.
const LAST_TURNS: usize = 256;

impl<P: Port, L: Pipeline> Worker<P, L> {
    /// Says by `beat` that it turns.
    #[must_use]
    pub fn with_beat(mut self, beat: Option<Beat>) -> Self {
        self.beat = beat;
        self
    }

    /// Says that it turns; after a silence, first drops what waited.
    pub(super) fn strike(&mut self, now: Nanos) {
        if self.beat.as_ref().is_some_and(|beat| beat.was_missed(now)) {
            self.drop_stale(now);
        }
        if let Some(beat) = &mut self.beat {
            beat.strike(now);
        }
    }

    fn drop_stale(&mut self, now: Nanos) {
        for _ in 0..STALE_BURSTS {
            self.receive(now);
            if let Some(host) = &mut self.host {
                host.receive(&mut self.pool, now, false, &mut self.burst, &mut self.arrived_on);
            }
            if self.burst.is_empty() {
                break;
            }
            self.arrived_on.clear();
            while let Some(frame) = self.burst.pop() {
                self.discard(frame, DropReason::Stale);
            }
        }
    }

    /// Leaves the traffic to what is configured for the time without a daemon, and
    /// decides what has arrived before.
    pub(super) fn finish(&mut self) {
        let Some(mut beat) = self.beat.take() else { return };
        beat.end();
        for _ in 0..LAST_TURNS {
            if self.turn(clock::monotonic()) == 0 {
                break;
            }
        }
    }
}
