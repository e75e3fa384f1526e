//! The only reader of a clock in this crate.

#![allow(clippy::disallowed_methods, reason = "benchmarks measure real time")]

use std::time::Instant;

/// Measures elapsed time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }
    /// Nanoseconds since the start.
    pub(crate) fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
