//! The arithmetic of `-m hashlimit`: credits by the tick, in 64 bits, for packets and for
//! bytes, and the plain count of `--hashlimit-rate-match`.

use super::HZ;

/// `avg` of packets counts in units of 1/1000000 s.
pub const SCALE: u64 = 1_000_000;
/// Credits of packets earned in one tick: the largest power of two with which a day's
/// credits fit 64 bits.
const CREDITS_PER_TICK: u64 = 1 << (u64::MAX / (HZ * 86_400)).ilog2();
/// Credits of bytes earned in one tick; a second's fit 32 bits.
const BYTE_CREDITS_PER_TICK: u64 = 1 << (u32::MAX as u64 / HZ).ilog2();
/// A full bucket of bytes.
const BYTE_CREDITS: u64 = BYTE_CREDITS_PER_TICK * HZ;
/// Bytes are counted in pieces of 16.
pub const BYTE_SHIFT: u32 = 4;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Packets.
    Packets,
    /// Bytes.
    Bytes,
}

/// How much, as the kernel stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Packets or bytes.
    pub unit: Unit,
    /// Packets: the interval between two, in 1/1000000 s. Bytes: see [`cost_of_bytes`].
    pub avg: u64,
    /// Packets: as many at once. Bytes: how many times a bucket is filled anew at once.
    pub burst: u64,
    /// `--hashlimit-rate-match` in windows of so many seconds.
    pub window_s: Option<u32>,
}

/// A bucket; what it holds depends on the [`Rate`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Tick of the last refill, or the window's first.
    pub since: u64,
    /// Credit, or what was counted in the window.
    pub credit: u64,
    /// Bytes: refills that are left. Windows: whether the last one was too full.
    pub left: u64,
}

/// The kernel refuses the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel's arithmetic does not hold this rate with this burst")]
pub struct RateOverflow;

/// What iptables stores for so many bytes a second.
pub fn cost_of_bytes(bytes: u32) -> u64 {
    u64::from(u32::MAX / ((bytes >> BYTE_SHIFT) + 1))
}

/// How many bytes a second that means.
pub fn bytes_of_cost(avg: u64) -> u64 {
    let pieces = u64::from(u32::MAX).checked_div(avg).unwrap_or(u64::from(u32::MAX));
    pieces.saturating_sub(1) << BYTE_SHIFT
}

fn credits(user: u64) -> u64 {
    user.wrapping_mul(HZ * CREDITS_PER_TICK / SCALE)
}

impl Rate {
    /// Whether the kernel takes it.
    ///
    /// # Errors
    /// [`RateOverflow`] when not.
    pub fn check(&self) -> Result<(), RateOverflow> {
        let holds = match (self.window_s, self.unit) {
            (Some(window), _) => window != 0 && self.avg != 0 && self.avg <= u64::from(u32::MAX),
            (None, Unit::Bytes) => self.cost() != 0,
            (None, Unit::Packets) => {
                self.burst != 0 && credits(self.avg.wrapping_mul(self.burst)) >= self.cost()
            }
        };
        if holds { Ok(()) } else { Err(RateOverflow) }
    }

    /// What one packet, or 16 bytes, cost.
    pub fn cost(&self) -> u64 {
        match self.unit {
            Unit::Packets => credits(self.avg),
            Unit::Bytes => u64::from(((self.avg as u32 as u64 * BYTE_CREDITS) >> 32) as u32),
        }
    }

    /// The most that a bucket holds.
    pub fn cap(&self) -> u64 {
        match self.unit {
            Unit::Packets => credits(self.avg.wrapping_mul(self.burst)),
            Unit::Bytes => BYTE_CREDITS,
        }
    }

    /// Packets or bytes that one window allows, without and with the burst.
    pub fn of_window(&self) -> (u64, u64) {
        match self.unit {
            Unit::Packets => {
                let rate = u64::from(SCALE.checked_div(self.avg).unwrap_or(0) as u32);
                (rate, self.burst.wrapping_add(rate))
            }
            Unit::Bytes => {
                let rate = bytes_of_cost(self.avg);
                (rate, if self.burst == 0 { rate } else { self.burst.wrapping_mul(rate) })
            }
        }
    }

    /// A bucket that was not spent from.
    pub fn full(&self, tick: u64) -> Bucket {
        match (self.window_s, self.unit) {
            (Some(_), _) => Bucket { since: tick, credit: 0, left: 0 },
            (None, Unit::Packets) => Bucket { since: tick, credit: self.cap(), left: 0 },
            (None, Unit::Bytes) => Bucket { since: tick, credit: BYTE_CREDITS, left: self.burst },
        }
    }

    /// Adds what was earned until `tick`.
    pub fn refill(&self, bucket: &mut Bucket, tick: u64) {
        // A worker whose clock lags behind earns nothing.
        let passed = tick.saturating_sub(bucket.since);
        if passed == 0 {
            return;
        }
        if let Some(window_s) = self.window_s {
            let window = u64::from(window_s) * HZ;
            if passed >= window {
                let (rate, _) = self.of_window();
                let counted = bucket.credit.wrapping_mul(window);
                let left = u64::from(counted > passed.wrapping_mul(rate));
                *bucket = Bucket { since: tick, credit: 0, left };
            }
            return;
        }
        bucket.since = tick;
        match self.unit {
            Unit::Packets => {
                let earned = passed.wrapping_mul(CREDITS_PER_TICK);
                bucket.credit = bucket.credit.wrapping_add(earned).min(self.cap());
            }
            Unit::Bytes => {
                let before = bucket.credit;
                let sum = before.wrapping_add(passed.wrapping_mul(BYTE_CREDITS_PER_TICK));
                let overflown = before >= sum;
                bucket.credit = if overflown { BYTE_CREDITS } else { sum.min(BYTE_CREDITS) };
            }
        }
    }

    /// Spends for a packet of `length` bytes; whether it is within the limit.
    pub fn take(&self, bucket: &mut Bucket, length: u32) -> bool {
        if self.window_s.is_some() {
            let counted = match self.unit {
                Unit::Packets => 1,
                Unit::Bytes => u64::from(length),
            };
            bucket.credit = bucket.credit.wrapping_add(counted);
            return bucket.left == 0 && bucket.credit <= self.of_window().1;
        }
        let cost = match self.unit {
            Unit::Packets => self.cost(),
            Unit::Bytes => {
                let pieces = u64::from(length >> BYTE_SHIFT) + 1;
                let cost = (pieces * self.cost()).min(BYTE_CREDITS);
                if bucket.credit < cost && bucket.left > 0 {
                    *bucket = Bucket { credit: BYTE_CREDITS, left: bucket.left - 1, ..*bucket };
                }
                cost
            }
        };
        match bucket.credit.checked_sub(cost) {
            Some(rest) => {
                bucket.credit = rest;
                true
            }
            None => false,
        }
    }
}
