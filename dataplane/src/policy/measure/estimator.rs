//! Rates as `-j RATEEST` measures them and `-m rateest` compares them.
//!
//! Life cycle: one [`Estimator`] for each name, made by the policy compiler and shared by
//! every snapshot that names it. The kernel has a timer for each; here whoever comes by
//! first makes up for the intervals that have ended. Concurrency: counts are atomic; of
//! several workers that see an interval end, one closes it. Intervals are counted from
//! the first packet that is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Nanos;

/// Length of the shortest interval.
const QUARTER: Nanos = Nanos::from_millis(250);
/// Idle intervals that are made up for one by one; more are taken together.
const STEPS: u64 = 1024;

/// `--rateest-interval` and `--rateest-ewmalog` as the kernel stores them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EstimatorParameters {
    /// Interval: 250 ms times two to this power, 0 to 5.
    pub interval_log: u8,
    /// How much of a new interval the average takes over: one part of two to this power, 1 to 30.
    pub ewma_log: u8,
}

/// Bytes and packets, and their moving averages.
#[derive(Debug)]
pub struct Estimator {
    parameters: EstimatorParameters,
    bytes: AtomicU64,
    packets: AtomicU64,
    /// End of the last interval that is in the averages; zero before the first packet.
    closed: AtomicU64,
    last_bytes: AtomicU64,
    last_packets: AtomicU64,
    /// Averages per second, times 256.
    average_bytes: AtomicU64,
    average_packets: AtomicU64,
}

/// An estimator outside its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EstimatorState {
    /// Average bytes per second, times 256.
    pub average_bytes: u64,
    /// Average packets per second, times 256.
    pub average_packets: u64,
    /// How long the present interval has lasted.
    pub age: Nanos,
    /// Bytes in it so far.
    pub bytes: u64,
    /// Packets in it so far.
    pub packets: u64,
}

impl Estimator {
    /// One that has seen nothing.
    pub fn new(parameters: EstimatorParameters) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            parameters,
            bytes: zero(),
            packets: zero(),
            closed: zero(),
            last_bytes: zero(),
            last_packets: zero(),
            average_bytes: zero(),
            average_packets: zero(),
        }
    }

    /// What it was made with.
    pub fn parameters(&self) -> EstimatorParameters {
        self.parameters
    }

    /// One more packet.
    pub fn add(&self, length: u64, now: Nanos) {
        if self.closed.load(Ordering::Relaxed) == 0 {
            let begun = (now.0.max(1), Ordering::Relaxed, Ordering::Relaxed);
            // Whoever else is first has begun just now.
            let _ = self.closed.compare_exchange(0, begun.0, begun.1, begun.2);
        }
        self.close(now);
        self.bytes.fetch_add(length, Ordering::Relaxed);
        self.packets.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes and packets per second.
    pub fn rates(&self, now: Nanos) -> (u64, u64) {
        self.close(now);
        let read = |average: &AtomicU64| average.load(Ordering::Relaxed) >> 8;
        (read(&self.average_bytes), read(&self.average_packets))
    }

    /// For the state file; `None` before the first packet.
    pub fn export(&self, now: Nanos) -> Option<EstimatorState> {
        self.close(now);
        let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let closed = read(&self.closed);
        // A worker may close an interval meanwhile; what it takes is not counted twice.
        let (last_bytes, last_packets) = (read(&self.last_bytes), read(&self.last_packets));
        (closed != 0).then(|| EstimatorState {
            average_bytes: read(&self.average_bytes),
            average_packets: read(&self.average_packets),
            age: now.saturating_sub(Nanos(closed)),
            bytes: read(&self.bytes).saturating_sub(last_bytes),
            packets: read(&self.packets).saturating_sub(last_packets),
        })
    }

    /// Goes on from what [`Estimator::export`] gave `elapsed` ago. Before the first packet.
    pub fn import(&self, state: EstimatorState, elapsed: Nanos, now: Nanos) {
        let age = state.age.0.saturating_add(elapsed.0);
        let ended = age / self.interval();
        for (new, count, last, from, average) in [
            (state.bytes, &self.bytes, &self.last_bytes, state.average_bytes, &self.average_bytes),
            (
                state.packets,
                &self.packets,
                &self.last_packets,
                state.average_packets,
                &self.average_packets,
            ),
        ] {
            let (open, faded) = match ended.checked_sub(1) {
                Some(idle) => (0, self.faded(self.averaged(from, new), idle)),
                None => (new, from),
            };
            count.store(open, Ordering::Relaxed);
            last.store(0, Ordering::Relaxed);
            average.store(faded, Ordering::Relaxed);
        }
        let began = now.0.saturating_sub(age % self.interval()).max(1);
        self.closed.store(began, Ordering::Relaxed);
    }

    fn interval(&self) -> u64 {
        QUARTER.0 << self.parameters.interval_log.min(5)
    }

    /// Takes every interval that has ended into the averages.
    fn close(&self, now: Nanos) {
        let closed = self.closed.load(Ordering::Relaxed);
        let ended = now.0.saturating_sub(closed) / self.interval();
        if closed == 0 || ended == 0 {
            return;
        }
        let next = closed + ended * self.interval();
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        if self.closed.compare_exchange(closed, next, success, failure).is_err() {
            return;
        }
        for (count, last, average) in [
            (&self.bytes, &self.last_bytes, &self.average_bytes),
            (&self.packets, &self.last_packets, &self.average_packets),
        ] {
            let count = count.load(Ordering::Relaxed);
            let new = count.wrapping_sub(last.swap(count, Ordering::Relaxed));
            let first = self.averaged(average.load(Ordering::Relaxed), new);
            average.store(self.faded(first, ended - 1), Ordering::Relaxed);
        }
    }

    /// The average after an interval with `new` packets or bytes.
    fn averaged(&self, average: u64, new: u64) -> u64 {
        let EstimatorParameters { interval_log, ewma_log } = self.parameters;
        let rate = new << (10 - interval_log.min(5));
        let kept = average - (average >> ewma_log);
        kept.wrapping_add(rate >> ewma_log)
    }

    /// The average after so many intervals with nothing.
    fn faded(&self, mut average: u64, intervals: u64) -> u64 {
        let ewma_log = self.parameters.ewma_log;
        for _ in 0..intervals.min(STEPS) {
            if average >> ewma_log == 0 {
                return average;
            }
            average -= average >> ewma_log;
        }
        let rest = intervals.saturating_sub(STEPS);
        if rest == 0 {
            return average;
        }
        let kept = 1.0 - 1.0 / (1_u64 << ewma_log) as f64;
        let faded = average as f64 * kept.powf(rest as f64);
        (faded as u64).max(average.min((1 << ewma_log) - 1))
    }
}

/// How the two sides compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateCompare {
    /// `--rateest-eq`.
    Equal,
    /// `--rateest-lt`.
    Less,
    /// `--rateest-gt`.
    Greater,
}

/// What `-m rateest` asks of one or two estimators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateTest {
    /// `--rateest-delta`: not the rates, but what they lack of the given ones.
    pub delta: bool,
    /// `!` before the comparison.
    pub negated: bool,
    /// Comparison.
    pub compare: RateCompare,
    /// Bytes per second on both sides, if they are compared.
    pub bytes: Option<[u32; 2]>,
    /// Packets per second on both sides, if they are compared.
    pub packets: Option<[u32; 2]>,
}

/// `-m rateest`.
#[derive(Clone, Debug)]
pub struct RateestMatch {
    /// What is compared.
    pub test: RateTest,
    /// `--rateest`, `--rateest1`.
    pub first: Arc<Estimator>,
    /// `--rateest2`; with none, the second side is a number.
    pub second: Option<Arc<Estimator>>,
}

impl RateTest {
    /// Whether it holds for the first side's rates, and the second's if it has some.
    pub fn holds(&self, first: (u64, u64), second: Option<(u64, u64)>) -> bool {
        let side = |given: u32, rate: u64| match self.delta {
            true => u64::from(given).saturating_sub(rate) as u32,
            false => rate as u32,
        };
        let compare = |given: Option<[u32; 2]>, first: u64, second: Option<u64>| {
            let Some([left, right]) = given else { return true };
            let (left, right) = (side(left, first), second.map_or(right, |rate| side(right, rate)));
            match self.compare {
                RateCompare::Equal => left == right,
                RateCompare::Less => left < right,
                RateCompare::Greater => left > right,
            }
        };
        let bytes = compare(self.bytes, first.0, second.map(|rates| rates.0));
        let packets = compare(self.packets, first.1, second.map(|rates| rates.1));
        (bytes && packets) != self.negated
    }
}

impl RateestMatch {
    /// Whether it holds at `now`.
    pub fn matches(&self, now: Nanos) -> bool {
        let second = self.second.as_ref().map(|second| second.rates(now));
        self.test.holds(self.first.rates(now), second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimator(interval_log: u8, ewma_log: u8) -> Estimator {
        Estimator::new(EstimatorParameters { interval_log, ewma_log })
    }

    #[test]
    fn a_steady_rate_is_approached_and_silence_forgotten() {
        let estimator = estimator(0, 1);
        let start = Nanos::from_secs(50);
        for ms in 0..10_000 {
            estimator.add(100, start + Nanos::from_millis(ms));
        }
        let now = start + Nanos::from_secs(10);
        let (bytes, packets) = estimator.rates(now);
        assert!((99_000..=100_000).contains(&bytes), "{bytes}");
        assert!((990..=1_000).contains(&packets), "{packets}");
        assert_eq!(estimator.rates(now + QUARTER).0, bytes / 2);
        assert_eq!(estimator.rates(now + Nanos::from_secs(3_600)), (0, 0));
    }

    #[test]
    fn the_first_interval_counts_by_its_share() {
        let estimator = estimator(0, 2);
        estimator.add(1_000, Nanos::from_secs(1));
        assert_eq!(estimator.rates(Nanos::from_millis(1_249)), (0, 0));
        // 1000 bytes in a quarter of a second, a quarter of which is taken over.
        assert_eq!(estimator.rates(Nanos::from_millis(1_250)), (1_000, 1));
    }

    #[test]
    fn long_silence_is_the_same_in_one_step_or_many() {
        let (average_bytes, average_packets) = (1 << 40, 1 << 30);
        let (age, bytes, packets) = (Nanos(0), 0, 0);
        let state = EstimatorState { average_bytes, average_packets, age, bytes, packets };
        let (one, many) = (estimator(0, 10), estimator(0, 10));
        let elapsed = Nanos::from_secs(1_000);
        let start = Nanos::from_secs(5);
        one.import(state, elapsed, start);
        many.import(state, Nanos(0), start);
        (1..=1_000).for_each(|s| many.close(start + Nanos::from_secs(s)));
        let (one, many) = (one.export(start).unwrap(), many.export(start + elapsed).unwrap());
        assert!(one.average_bytes.abs_diff(many.average_bytes) <= 1 << 11, "{one:?} {many:?}");
    }

    #[test]
    fn an_estimator_goes_on_elsewhere_as_if_nothing_had_happened() {
        let start = Nanos::from_secs(50);
        for elapsed in [0, 100, 250, 5_000].map(Nanos::from_millis) {
            let (here, there) = (estimator(0, 3), estimator(0, 3));
            assert_eq!(here.export(start), None);
            for ms in 0..1_100 {
                here.add(100, start + Nanos::from_millis(ms));
            }
            let saved = start + Nanos::from_millis(1_100);
            let state = here.export(saved).unwrap();
            assert_eq!((state.age, state.packets), (Nanos::from_millis(100), 100));
            // Another machine's clock began elsewhere.
            let (now, other) = (saved + elapsed, Nanos::from_secs(7));
            there.import(state, elapsed, other);
            for ms in [0, 149, 150, 400, 10_000].map(Nanos::from_millis) {
                assert_eq!(there.rates(other + ms), here.rates(now + ms), "{elapsed:?} {ms:?}");
            }
        }
        let bad = EstimatorState {
            average_bytes: u64::MAX,
            average_packets: u64::MAX,
            age: Nanos(u64::MAX),
            bytes: u64::MAX,
            packets: u64::MAX,
        };
        let there = estimator(5, 1);
        there.import(bad, Nanos(u64::MAX), Nanos(0));
        there.rates(Nanos(u64::MAX));
    }

    #[test]
    fn comparisons() {
        let plain = RateTest {
            delta: false,
            negated: false,
            compare: RateCompare::Greater,
            bytes: Some([0, 100]),
            packets: None,
        };
        assert!(plain.holds((101, 0), None) && !plain.holds((100, 0), None));
        assert!(plain.holds((101, 0), Some((100, 0))) && !plain.holds((101, 0), Some((101, 0))));
        let delta = RateTest { delta: true, bytes: Some([1_000, 500]), ..plain };
        // 1000 - 400 against 500 - 100; what is above its number lacks nothing.
        assert!(delta.holds((400, 0), Some((100, 0))));
        assert!(!delta.holds((2_000, 0), Some((400, 0))));
        let both = RateTest { packets: Some([0, 5]), ..plain };
        assert!(!both.holds((101, 5), None) && both.holds((101, 6), None));
        assert!(RateTest { negated: true, ..both }.holds((101, 5), None));
    }
}
