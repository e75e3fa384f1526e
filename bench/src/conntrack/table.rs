//! A table under measurement: bursts through it, what they took, and the oracle.

use std::collections::HashMap;
use std::sync::Barrier;

use dataplane::clock::Nanos;
use dataplane::conntrack::{
    Config, Conntrack, CtState, Direction, Subject, Terms, Tracking, table_bytes,
};
use dataplane::verdict::DropReason;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::flows::{BURST, Made, Maker, Role, STRANGERS, Traffic};
use crate::clock::Stopwatch;
use crate::sets::Rng;

pub(super) type Error = Box<dyn std::error::Error>;

/// Flows that the oracle remembers, about.
const REMEMBERED: usize = 20_000;
/// Bytes of a page.
const PAGE: u64 = 4096;

/// One combination of options.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) traffic: Traffic,
    pub(super) threads: usize,
    pub(super) stages: u8,
    pub(super) entries: usize,
    pub(super) rounds: usize,
    pub(super) lookups: usize,
    pub(super) seed: u64,
}

impl Setup {
    /// What tells a line of this setup from others.
    pub(super) fn about(&self, op: &str) -> Value {
        let Self { traffic, threads, stages, entries, rounds, seed, .. } = *self;
        json!({
            "op": op, "traffic": traffic.name(), "threads": threads, "stages": stages,
            "entries": entries, "rounds": rounds, "seed": seed,
        })
    }

    /// The flows of one of the threads.
    pub(super) fn share(&self, thread: usize) -> std::ops::Range<u64> {
        let at = |thread: usize| (self.entries * thread / self.threads) as u64;
        at(thread)..at(thread + 1)
    }
}

/// What was measured: time and number of operations by round, and each burst.
#[derive(Debug)]
pub(super) struct Samples {
    /// Nanoseconds of all threads together, and operations.
    rounds: Vec<(u64, u64)>,
    pub(super) bursts: Histogram<u64>,
}

impl Samples {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self { rounds: Vec::new(), bursts: Histogram::new_with_max(1 << 40, 3)? })
    }
    pub(super) fn add(&mut self, ns: u64, ops: u64) {
        self.rounds.push((ns, ops));
    }
    /// Least, median and most of the rounds.
    pub(super) fn ns_per_op(&self) -> [f64; 3] {
        let mut all: Vec<f64> =
            self.rounds.iter().map(|&(ns, ops)| ns as f64 / ops.max(1) as f64).collect();
        all.sort_by(f64::total_cmp);
        match all[..] {
            [] => [0.0; 3],
            [low, ..] => [low, all[all.len() / 2], all[all.len() - 1]],
        }
    }
}

/// A table and what should be in it.
pub(super) struct Bed {
    pub(super) table: Conntrack,
    pub(super) maker: Maker,
    pub(super) stages: u8,
    /// Connections by flow, of a sample.
    oracle: HashMap<u64, u64>,
    /// Of making the table.
    pub(super) create_ms: f64,
    /// Of having its pages there, which the daemon does beside the workers.
    prepare_ms: f64,
    resident_before: u64,
    pub(super) now: Nanos,
}

impl Bed {
    /// A table for at most `max` connections.
    pub(super) fn new(setup: &Setup, max: usize) -> Result<Self, Error> {
        let mut config = Config::new([7; 16]);
        config.set("max", max as u64)?;
        // Checksums have a bench of their own.
        config.set("checksum", 0)?;
        // Established flows stay, however time passes.
        config.set("udp_timeout_stream", 432_000)?;
        let maker = Maker::new(setup.traffic)?;
        let resident_before = resident()?;
        let clock = Stopwatch::start();
        let table = Conntrack::new(config)?;
        let create_ms = clock.elapsed_ns() as f64 / 1e6;
        while table.prepare(64) {}
        let prepare_ms = clock.elapsed_ns() as f64 / 1e6 - create_ms;
        let (stages, oracle) = (setup.stages, HashMap::new());
        let now = Nanos::from_secs(10_000);
        Ok(Self { table, maker, stages, oracle, create_ms, prepare_ms, resident_before, now })
    }

    /// A table of established flows, in both directions, checked.
    pub(super) fn established(setup: &Setup, max: usize) -> Result<Self, Error> {
        let mut bed = Self::new(setup, max)?;
        let every = (setup.entries / REMEMBERED).max(1) as u64;
        for first in (0..setup.entries as u64).step_by(BURST) {
            let flows = first..(first + BURST as u64).min(setup.entries as u64);
            let mut seen = Vec::new();
            let make = |role| flows.clone().map(|flow| bed.maker.make(flow, role)).collect();
            let [goes, answers]: [Vec<Made>; 2] = [Role::Goes, Role::Answers].map(make);
            burst(&bed.table, &goes, bed.stages, bed.now, &mut seen);
            for (flow, outcome) in flows.clone().zip(&seen) {
                let id = outcome.as_ref().ok().and_then(|tracking| tracking.conn);
                let id = id.ok_or_else(|| format!("flow {flow} was refused: {outcome:?}"))?;
                if flow % every == 0 {
                    bed.oracle.insert(flow, id.number());
                }
            }
            // Later, so that UDP's flows are streams.
            let later = bed.now + Nanos::from_secs(3);
            burst(&bed.table, &answers, bed.stages, later, &mut seen);
            burst(&bed.table, &goes, bed.stages, later, &mut seen);
        }
        bed.now = bed.now + Nanos::from_secs(4);
        bed.check(setup.entries)?;
        Ok(bed)
    }

    /// Whether the table holds `entries` connections and answers as the oracle says.
    pub(super) fn check(&self, entries: usize) -> Result<(), Error> {
        if self.table.len() != entries {
            return Err(format!("{} connections, not {entries}", self.table.len()).into());
        }
        for (&flow, &number) in &self.oracle {
            for direction in [Direction::Original, Direction::Reply] {
                let made = self.maker.in_flow(flow, direction);
                let tracking = self.table.track(&made.parsed, made.frame(), false, self.now);
                let right = tracking.is_ok_and(|it| {
                    it.state == CtState::Established
                        && it.direction == direction
                        && it.conn.is_some_and(|id| id.number() == number)
                });
                if !right {
                    return Err(format!("flow {flow} {direction:?}: {tracking:?}").into());
                }
            }
            let stranger = self.maker.make(flow + STRANGERS, Role::Goes);
            let tracking = self.table.track(&stranger.parsed, stranger.frame(), false, self.now);
            let Ok(tracking) = tracking else { continue };
            if tracking.state != CtState::New || !tracking.unconfirmed {
                return Err(format!("a stranger is {tracking:?}").into());
            }
            self.table.discard(tracking);
        }
        Ok(())
    }

    /// Memory a connection: as the table says, and as the process has grown.
    pub(super) fn memory(&self, entries: usize) -> Result<Value, Error> {
        let grown = resident()?.saturating_sub(self.resident_before);
        let max = self.table.capacity() as usize;
        Ok(json!({
            "create_ms": super::round(self.create_ms),
            "prepare_ms": super::round(self.prepare_ms),
            "stated_bytes_per_conn": table_bytes(max) / max as u64,
            "resident_bytes_per_conn": grown / entries.max(1) as u64,
        }))
    }
}

/// Bytes of memory that this process has.
fn resident() -> Result<u64, Error> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split_whitespace().nth(1).ok_or("statm")?.parse()?;
    Ok(pages * PAGE)
}

/// What tracking said of a packet.
pub(super) type Outcome = Result<Tracking, DropReason>;

/// Tracks and confirms a burst; returns what that took, in nanoseconds.
pub(super) fn burst(
    table: &Conntrack,
    packets: &[Made],
    stages: u8,
    now: Nanos,
    seen: &mut Vec<Outcome>,
) -> u64 {
    seen.clear();
    let clock = Stopwatch::start();
    let mut subjects: [Option<Subject>; BURST] = [None; BURST];
    for (made, place) in packets.iter().zip(&mut subjects) {
        let subject = table.subject(&made.parsed, made.frame(), 0);
        if stages > 0 {
            table.prefetch(&subject);
        }
        *place = Some(subject);
    }
    if stages > 1 {
        table.prefetch_records(subjects.iter().flatten(), false);
    }
    let terms = Terms::default();
    for (made, subject) in packets.iter().zip(subjects.iter().flatten()) {
        let Made { parsed, .. } = made;
        let outcome = table.track_subject(subject, parsed, made.frame(), false, &terms, now);
        seen.push(outcome.and_then(|mut tracking| {
            table.confirm(&mut tracking, now)?;
            Ok(tracking)
        }));
    }
    clock.elapsed_ns()
}

/// What one thread did in a round.
pub(super) struct Work {
    pub(super) ns: u64,
    pub(super) ops: u64,
    pub(super) bursts: Vec<u64>,
}

/// Has all threads do their work at once, and adds what it took.
pub(super) fn on_threads(
    threads: usize,
    samples: &mut Samples,
    work: impl Fn(usize) -> Result<Work, String> + Sync,
) -> Result<(), Error> {
    let barrier = Barrier::new(threads);
    let all: Vec<Result<Work, String>> = std::thread::scope(|scope| {
        let (work, barrier) = (&work, &barrier);
        let start = |thread| {
            scope.spawn(move || {
                barrier.wait();
                work(thread)
            })
        };
        let started: Vec<_> = (0..threads).map(start).collect();
        let join = |it: std::thread::ScopedJoinHandle<'_, _>| {
            it.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()))
        };
        started.into_iter().map(join).collect()
    });
    let (mut ns, mut ops) = (0, 0);
    for one in all {
        let one = one?;
        (ns, ops) = (ns + one.ns, ops + one.ops);
        one.bursts.iter().try_for_each(|&ns| samples.bursts.record(ns))?;
    }
    samples.add(ns, ops);
    Ok(())
}

/// Random flows of `from`, in random directions; `one_way` fixes the direction.
pub(super) fn random_packets(
    maker: &Maker,
    from: &std::ops::Range<u64>,
    one_way: Option<Direction>,
    rng: &mut Rng,
    packets: &mut Vec<Made>,
) {
    packets.clear();
    for _ in 0..BURST {
        let bits = rng.bits();
        let flow = from.start + (bits >> 1) % (from.end - from.start).max(1);
        let way = one_way.unwrap_or(match bits & 1 {
            0 => Direction::Original,
            _ => Direction::Reply,
        });
        packets.push(maker.in_flow(flow, way));
    }
}
