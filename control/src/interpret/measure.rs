//! Matches on time, chance and amounts, with the oracle's own amounts.

use std::collections::HashMap;

use dataplane::clock::Nanos;
use dataplane::policy::matches::Neg;
use dataplane::policy::measure::estimator::{EstimatorParameters, RateCompare, RateTest};
use dataplane::policy::measure::{ClusterMatch, MeasureMatch, TimeMatch};

use super::buckets::Place;
use super::matching::{At, Compared};
use super::{Actual, Subject};
use crate::model::{MeasureSpec, MetaSpec};

/// Every amount that was met so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Measures {
    /// Packets that met a `--mode nth`.
    met: HashMap<Place, u64>,
    /// Bytes that a quota has left.
    left: HashMap<Place, u64>,
    estimators: HashMap<Box<str>, Estimator>,
}

impl Measures {
    pub(super) fn compare(
        &mut self,
        at: At,
        place: Place,
        wanted: &MeasureSpec,
        subject: &mut Subject<'_>,
    ) -> Compared {
        match wanted {
            MeasureSpec::Nth { negated, every, packet } => {
                let met = self.met.entry(place).or_default();
                let taken = *met % u64::from(*every) == u64::from(*packet);
                *met += 1;
                at.need(taken != *negated, "--every", Actual::Absent)
            }
            MeasureSpec::Quota { negated, bytes } => {
                let length = u64::from(subject.packet.length);
                let left = self.left.entry(place).or_insert(*bytes);
                let fits = length <= *left;
                *left = if fits { *left - length } else { 0 };
                at.need(fits != *negated, "--quota", Actual::Absent)
            }
            MeasureSpec::Nfacct(_) => Ok(()),
            MeasureSpec::Rateest { test, first, second } => {
                let mut rates = |name: &str| {
                    let known = self.estimators.get_mut(name);
                    known.map_or((0, 0), |known| known.rates(subject.now))
                };
                let (first, second) = (rates(first), second.as_deref().map(rates));
                at.need(rate_holds(test, first, second), "--rateest", Actual::Absent)
            }
        }
    }

    /// What RATEEST sees go by.
    pub(super) fn observe(&mut self, target: &MetaSpec, subject: &Subject<'_>) {
        let MetaSpec::Rateest { name, parameters } = target else { return };
        let now = subject.now;
        let fresh = || Estimator { begun: now, ..Estimator::new(*parameters) };
        let known = self.estimators.entry(name.clone()).or_insert_with(fresh);
        known.rates(now);
        known.fresh.0 += u64::from(subject.packet.length);
        known.fresh.1 += 1;
    }
}

/// One estimator; intervals are closed one by one.
#[derive(Clone, Debug)]
struct Estimator {
    parameters: EstimatorParameters,
    begun: Nanos,
    closed: u64,
    /// Bytes and packets of the interval.
    fresh: (u64, u64),
    /// Averages, in 1/256 per second.
    average: (u64, u64),
}

impl Estimator {
    fn new(parameters: EstimatorParameters) -> Self {
        Self { parameters, begun: Nanos(0), closed: 0, fresh: (0, 0), average: (0, 0) }
    }

    fn rates(&mut self, now: Nanos) -> (u64, u64) {
        let EstimatorParameters { interval_log, ewma_log } = self.parameters;
        let interval = 250_000_000_u64 << interval_log;
        let ended = now.saturating_sub(self.begun).0 / interval;
        while self.closed < ended {
            self.closed += 1;
            let (bytes, packets) = std::mem::take(&mut self.fresh);
            let step = |average: u64, new: u64| {
                let rate = new * 1024 / (1 << interval_log);
                average - average / (1 << ewma_log) + rate / (1 << ewma_log)
            };
            let next = (step(self.average.0, bytes), step(self.average.1, packets));
            if next == self.average && (bytes, packets) == (0, 0) {
                // Nothing changes any more, however long it goes on.
                self.closed = ended;
            }
            self.average = next;
        }
        (self.average.0 / 256, self.average.1 / 256)
    }
}

fn rate_holds(test: &RateTest, first: (u64, u64), second: Option<(u64, u64)>) -> bool {
    let lacking = |given: u32, rate: u64| match test.delta {
        true => u64::from(given).saturating_sub(rate),
        false => rate & 0xffff_ffff,
    };
    let one = |sides: Option<[u32; 2]>, first: u64, second: Option<u64>| {
        let Some([left, right]) = sides else { return true };
        let left = lacking(left, first);
        let right = second.map_or(u64::from(right), |rate| lacking(right, rate));
        match test.compare {
            RateCompare::Equal => left == right,
            RateCompare::Less => left < right,
            RateCompare::Greater => left > right,
        }
    };
    let bytes = one(test.bytes, first.0, second.map(|second| second.0));
    let packets = one(test.packets, first.1, second.map(|second| second.1));
    (bytes && packets) != test.negated
}

/// Those without state.
pub(super) fn compare(at: At, wanted: &MeasureMatch, subject: &Subject<'_>) -> Compared {
    match wanted {
        MeasureMatch::Time(time) => time_holds(at, time, subject),
        MeasureMatch::Random(Neg { negated, value }) => {
            let below = subject.dice.throw() % (1 << 31) < *value;
            at.need(below != *negated, "--probability", Actual::Absent)
        }
        MeasureMatch::Cpu(Neg { negated, value }) => {
            at.need((subject.cpu == *value) != *negated, "--cpu", Actual::Number(subject.cpu))
        }
        MeasureMatch::Cluster(cluster) => cluster_holds(at, cluster, subject),
        MeasureMatch::Nth(_)
        | MeasureMatch::Quota(_)
        | MeasureMatch::Nfacct(_)
        | MeasureMatch::Rateest(_) => unreachable!("the model keeps what owns state apart"),
    }
}

/// Dates first, then the time of day, then the day: of the week, and of the month.
fn time_holds(at: At, time: &TimeMatch, subject: &Subject<'_>) -> Compared {
    let west_s = if time.kernel_tz { i64::from(subject.minutes_west) * 60 } else { 0 };
    let mut now_s = (subject.now + subject.utc_offset).as_secs() as i64 - west_s;
    at.need(now_s >= i64::from(time.date_start_s), "--datestart", Actual::Absent)?;
    at.need(now_s <= i64::from(time.date_stop_s), "--datestop", Actual::Absent)?;
    let second = now_s.rem_euclid(86_400) as u32;
    let early = second < time.day_start_s;
    let late = second > time.day_stop_s;
    if time.day_start_s < time.day_stop_s {
        at.need(!early, "--timestart", Actual::Absent)?;
        at.need(!late, "--timestop", Actual::Absent)?;
    } else {
        at.need(!early || !late, "--timestart", Actual::Absent)?;
        if time.contiguous && !late {
            now_s -= 86_400;
        }
    }
    let (weekday, monthday) = calendar(now_s.div_euclid(86_400));
    at.need(time.weekdays >> weekday & 1 == 1, "--weekdays", Actual::Number(weekday))?;
    let any = (1..32).all(|day| time.monthdays >> day & 1 == 1);
    at.need(any || time.monthdays >> monthday & 1 == 1, "--monthdays", Actual::Number(monthday))
}

/// Day of the week (Monday is 1) and of the month, of a day since 1970 began: counted
/// year by year and month by month.
fn calendar(day: i64) -> (u32, u32) {
    let weekday = ((day + 3).rem_euclid(7) + 1) as u32;
    let mut left = day;
    let mut year = 1970;
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while left < 0 {
        year -= 1;
        left += 365 + i64::from(leap(year));
    }
    while left >= 365 + i64::from(leap(year)) {
        left -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
    }
    (weekday, left as u32 + 1)
}

fn cluster_holds(at: At, wanted: &ClusterMatch, subject: &Subject<'_>) -> Compared {
    let Some(conn) = &subject.tracked.connection else {
        return at.fail("connection", Actual::Absent);
    };
    let owner = conn.master_source.unwrap_or(conn.original.src);
    let bytes = match conn.original.family {
        dataplane::packet::Family::V4 => (owner as u32).to_be_bytes().to_vec(),
        // The kernel takes the size in bytes for one in words: it looks at a quarter.
        dataplane::packet::Family::V6 => owner.to_be_bytes()[..4].to_vec(),
    };
    let node = u64::from(jhash(&bytes, wanted.seed)) * u64::from(wanted.nodes) / (1 << 32);
    let meant = wanted.mask >> node & 1 == 1;
    at.need(meant != wanted.negated, "--cluster-local-nodemask", Actual::Number(node as u32 + 1))
}

/// Bob Jenkins' lookup3 over whole words in this machine's byte order, as published.
pub(super) fn jhash(bytes: &[u8], seed: u32) -> u32 {
    let words: Vec<u32> = bytes
        .chunks(4)
        .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    let start = 0xdead_beef_u32.wrapping_add(bytes.len() as u32).wrapping_add(seed);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = &words[..];
    while rest.len() > 3 {
        a = a.wrapping_add(rest[0]);
        b = b.wrapping_add(rest[1]);
        c = c.wrapping_add(rest[2]);
        a = a.wrapping_sub(c) ^ c.rotate_left(4);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(6);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(8);
        b = b.wrapping_add(a);
        a = a.wrapping_sub(c) ^ c.rotate_left(16);
        c = c.wrapping_add(b);
        b = b.wrapping_sub(a) ^ a.rotate_left(19);
        a = a.wrapping_add(c);
        c = c.wrapping_sub(b) ^ b.rotate_left(4);
        b = b.wrapping_add(a);
        rest = &rest[3..];
    }
    a = a.wrapping_add(*rest.first().unwrap_or(&0));
    b = b.wrapping_add(*rest.get(1).unwrap_or(&0));
    c = c.wrapping_add(*rest.get(2).unwrap_or(&0));
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}
