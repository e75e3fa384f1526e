//! Real time, for the one partner that cannot be simulated: the kernel.

#![allow(clippy::disallowed_methods, reason = "the kernel's conntrack runs on real time")]

use std::time::{Duration, Instant};

/// Waits.
pub fn pause_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Nanoseconds since some moment of this process.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Starts at zero.
    pub fn start() -> Self {
        Self(Instant::now())
    }
    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
