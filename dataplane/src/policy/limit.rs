//! `-m limit`: a token bucket with the kernel's credit granularity.
//!
//! Life cycle: made by the policy compiler, shared by every snapshot in which
//! the rule survives. Concurrency: any worker may spend; one atomic word holds
//! credit and time of the last refill, so that a packet spends at most once.
//! Limits: 32-bit credits that wrap as the kernel's do.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Nanos;

/// Ticks per second of the kernel whose arithmetic this follows.
const HZ: u32 = 250;
/// Nanoseconds in one tick.
const TICK_NS: u64 = 1_000_000_000 / HZ as u64;
/// Credits earned in one tick: the largest power of two for which a day's
/// credits still fit in 32 bits.
const CREDITS_PER_TICK: u32 = {
    let most = u32::MAX / (HZ * 60 * 60 * 24);
    1 << most.ilog2()
};
/// `avg` counts in units of 1/10000 s.
const SCALE: u32 = 10_000;
/// Never used: full, whatever the time. No used bucket can look like this,
/// because a spent one holds less than its cap and an idle one less than its cost.
const FULL: u64 = u64::MAX;
/// A clock this many ticks behind the last refill belongs to a worker that
/// lags, not to a counter that wrapped.
const LAG_TICKS: u32 = HZ * 60;

/// The kernel refuses this pair of average and burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limit overflows: average {avg} (1/10000 s), burst {burst}; try a lower burst")]
pub struct LimitOverflow {
    /// Average interval between packets, in 1/10000 s.
    pub avg: u32,
    /// Burst, in packets.
    pub burst: u32,
}

/// One bucket, shared by all workers and kept across policy swaps.
#[derive(Debug)]
pub struct LimitCell {
    /// Tick of the last refill in the high half, credit in the low half.
    state: AtomicU64,
    cap: u32,
    cost: u32,
}

impl LimitCell {
    /// A full bucket. `avg` is the interval between packets in 1/10000 s, as
    /// iptables computes it; `burst` is in packets.
    ///
    /// # Errors
    /// [`LimitOverflow`] where the kernel would refuse the rule.
    pub fn new(avg: u32, burst: u32) -> Result<Self, LimitOverflow> {
        let cost = credits(avg);
        let cap = credits(avg.wrapping_mul(burst));
        if burst == 0 || cap < cost {
            return Err(LimitOverflow { avg, burst });
        }
        Ok(Self { state: AtomicU64::new(FULL), cap, cost })
    }

    /// Spends one packet's credit if there is enough.
    pub fn take(&self, now: Nanos) -> bool {
        let tick = (now.0 / TICK_NS) as u32;
        let mut old = self.state.load(Ordering::Relaxed);
        loop {
            let (next, granted) = self.step(old, tick);
            if next == old {
                return granted;
            }
            match self.state.compare_exchange_weak(old, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return granted,
                Err(seen) => old = seen,
            }
        }
    }

    /// What is left in the bucket and how long nothing was put into it; `None` when it is full.
    pub fn export(&self, now: Nanos) -> Option<(u32, Nanos)> {
        let state = self.state.load(Ordering::Relaxed);
        let (last, credit) = (state != FULL).then(|| unpack(state))?;
        let idle = ((now.0 / TICK_NS) as u32).wrapping_sub(last);
        // A worker may be ahead of us by a moment.
        let idle = if idle > u32::MAX - LAG_TICKS { 0 } else { idle };
        Some((credit, Nanos(u64::from(idle) * TICK_NS)))
    }

    /// How many packets it would let through now, and when it is full.
    pub fn packets(&self, now: Nanos) -> (u32, u32) {
        let state = self.state.load(Ordering::Relaxed);
        let most = self.cap / self.cost.max(1);
        if state == FULL {
            return (most, most);
        }
        let (last, credit) = unpack(state);
        let passed = ((now.0 / TICK_NS) as u32).wrapping_sub(last);
        let passed = if passed > u32::MAX - LAG_TICKS { 0 } else { passed };
        let earned = passed.saturating_mul(CREDITS_PER_TICK);
        let credit = credit.saturating_add(earned).min(self.cap);
        (credit / self.cost.max(1), most)
    }

    /// Makes the bucket what [`LimitCell::export`] found, `idle` having gone on since.
    pub fn import(&self, credit: u32, idle: Nanos, now: Nanos) {
        let ticks = idle.0 / TICK_NS;
        let earned = ticks.saturating_mul(u64::from(CREDITS_PER_TICK));
        let credit = (u64::from(credit) + earned).min(u64::from(self.cap)) as u32;
        self.state.store(pack((now.0 / TICK_NS) as u32, credit), Ordering::Relaxed);
    }

    /// The state after one packet at `tick`, and whether the packet is within the limit.
    fn step(&self, old: u64, tick: u32) -> (u64, bool) {
        let (last, credit) = if old == FULL { (tick, self.cap) } else { unpack(old) };
        let lagging = last.wrapping_sub(tick) < LAG_TICKS;
        let refilled_at = if lagging { last } else { tick };
        let earned = refilled_at.wrapping_sub(last).wrapping_mul(CREDITS_PER_TICK);
        let credit = credit.wrapping_add(earned).min(self.cap);
        match credit.checked_sub(self.cost) {
            Some(rest) => (pack(refilled_at, rest), true),
            None => (pack(refilled_at, credit), false),
        }
    }
}

/// Credits for an interval in 1/10000 s. Divides first where multiplying
/// would overflow, as the kernel does, at the price of precision.
fn credits(interval: u32) -> u32 {
    if interval > u32::MAX / (HZ * CREDITS_PER_TICK) {
        (interval / SCALE).wrapping_mul(HZ * CREDITS_PER_TICK)
    } else {
        interval * (HZ * CREDITS_PER_TICK) / SCALE
    }
}

fn pack(tick: u32, credit: u32) -> u64 {
    u64::from(tick) << 32 | u64::from(credit)
}

fn unpack(state: u64) -> (u32, u32) {
    ((state >> 32) as u32, state as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PER_SECOND: u32 = SCALE;
    const PER_HOUR: u32 = SCALE * 3600;

    #[test]
    fn a_spent_bucket_is_as_spent_elsewhere_and_refills_on_the_way() {
        let cell = LimitCell::new(PER_SECOND, 5).unwrap();
        let now = Nanos::from_secs(100);
        assert_eq!(cell.export(now), None, "full");
        assert_eq!(granted(&cell, now, 9), 5);
        let later = now + Nanos::from_secs(1);
        let (credit, idle) = cell.export(later).unwrap();
        assert_eq!((credit, idle), (0, Nanos::SECOND));
        let elsewhere = Nanos::from_secs(7);
        let other = LimitCell::new(PER_SECOND, 5).unwrap();
        other.import(credit, idle + Nanos::from_secs(2), elsewhere);
        assert_eq!(granted(&other, elsewhere, 9), 3);
        other.import(credit, Nanos(u64::MAX), elsewhere);
        assert_eq!(granted(&other, elsewhere, 9), 5, "never more than it holds");
    }

    fn granted(cell: &LimitCell, at: Nanos, packets: u32) -> u32 {
        (0..packets).map(|_| u32::from(cell.take(at))).sum()
    }

    #[test]
    fn starts_full_and_refills_by_ticks() {
        let cell = LimitCell::new(PER_SECOND, 5).unwrap();
        let start = Nanos::from_secs(1_700_000_000);
        assert_eq!(granted(&cell, start, 20), 5);
        assert_eq!(granted(&cell, start + Nanos::from_millis(996), 1), 0);
        assert_eq!(granted(&cell, start + Nanos::from_millis(1000), 2), 1);
        assert_eq!(granted(&cell, start + Nanos::from_secs(3), 9), 2);
        assert_eq!(granted(&cell, start + Nanos::from_secs(3600), 9), 5, "capped at the burst");
    }

    #[test]
    fn default_three_per_hour() {
        let cell = LimitCell::new(PER_HOUR / 3, 5).unwrap();
        let start = Nanos::from_secs(10);
        assert_eq!(granted(&cell, start, 9), 5);
        assert_eq!(granted(&cell, start + Nanos::from_secs(1199), 9), 0);
        assert_eq!(granted(&cell, start + Nanos::from_secs(1201), 9), 1);
    }

    #[test]
    fn credit_granularity_is_the_kernels() {
        assert_eq!(CREDITS_PER_TICK, 128);
        assert_eq!(credits(1), 3);
        assert_eq!(credits(PER_SECOND), 32_000);
        // A day per packet divides first.
        assert_eq!(credits(SCALE * 86_400 + 9_999), 86_400 * 32_000);
    }

    #[test]
    fn refuses_what_the_kernel_refuses() {
        assert!(LimitCell::new(PER_SECOND, 0).is_err());
        assert!(LimitCell::new(PER_HOUR * 24, 5).is_err(), "5 days of credit do not fit");
        assert!(LimitCell::new(PER_HOUR * 24, 1).is_ok());
    }

    #[test]
    fn a_lagging_clock_neither_earns_nor_loses() {
        let cell = LimitCell::new(PER_SECOND, 2).unwrap();
        assert_eq!(granted(&cell, Nanos::from_secs(100), 2), 2);
        assert_eq!(granted(&cell, Nanos::from_millis(99_990), 5), 0);
        assert_eq!(granted(&cell, Nanos::from_secs(101), 5), 1);
    }

    #[test]
    fn workers_never_overspend() {
        let cell = LimitCell::new(PER_SECOND, 1000).unwrap();
        let total: u32 = std::thread::scope(|scope| {
            let spend = || granted(&cell, Nanos::from_secs(7), 800);
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(spend)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(total, 1000);
    }
}
