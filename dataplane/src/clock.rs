//! Time as a value. The only place in the workspace that reads a clock.

use std::ops::{Add, Sub};

/// Nanoseconds since an arbitrary epoch: boot for the daemon, the capture's
/// own epoch for replay. Never negative, never wraps in practice (584 years).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// One second.
    pub const SECOND: Self = Self(1_000_000_000);
    /// One millisecond.
    pub const MILLISECOND: Self = Self(1_000_000);

    /// A whole number of seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1_000_000_000)
    }
    /// A whole number of milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }
    /// Whole seconds, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }
    /// The difference, zero when `earlier` is later.
    pub const fn saturating_sub(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Nanos {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        // A capture may claim any time: its end of time is the end.
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub for Nanos {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

/// What [`monotonic`] is ahead of the kernel's clock: "an hour ago" is representable
/// right after boot.
const AHEAD: Nanos = Nanos::from_secs(3600);

/// Monotonic time since boot, for the daemon's loops.
pub fn monotonic() -> Nanos {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Nanos::from_secs(now.tv_sec as u64) + Nanos(now.tv_nsec as u64) + AHEAD
}

/// What the kernel's `CLOCK_MONOTONIC` showed, in nanoseconds, when [`monotonic`] gave `now`.
pub const fn of_kernel(now: Nanos) -> u64 {
    now.saturating_sub(AHEAD).0
}

/// Microseconds since 1970, for people who read logs. Never used for decisions.
pub fn wall_us() -> u64 {
    #[allow(clippy::disallowed_methods, reason = "this is the one clock")]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}

/// What to add to [`monotonic`] for the time since 1970, as it is now.
pub fn utc_offset() -> Nanos {
    Nanos(wall_us() * 1_000).saturating_sub(monotonic())
}
