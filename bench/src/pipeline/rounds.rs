//! Timed rounds: all workers begin each part of a round together, first without the
//! engine, then with it. Between rounds the connection table is made what it was.

use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};

use dataplane::conntrack::Conntrack;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::drive::{Clock, Lane, Took, Trace};
use super::report::Round;
use super::world::Bed;
use super::{Args, Error, Point, Scenario};
use crate::clock::Stopwatch;

/// Longer than anything unanswered lasts, shorter than what was answered does.
const UNANSWERED_NS: u64 = 121_000_000_000;
const UNANSWERED_UDP_NS: u64 = 31_000_000_000;
/// Rounds at least, the first of which warms up.
const LEAST: usize = 4;

/// The rounds of one point.
pub(super) struct Race<'b> {
    args: &'b Args,
    point: &'b Point,
    bed: &'b Bed,
    barrier: Barrier,
    shared: Mutex<Shared>,
    watch: Stopwatch,
}

/// What the workers share between rounds.
struct Shared {
    clock: Clock,
    took: Vec<(Took, Took)>,
    rounds: Vec<Round>,
    over: bool,
    failed: Option<Error>,
}

impl<'b> Race<'b> {
    /// Nothing has run yet; `clock` is where its time begins.
    pub(super) fn new(args: &'b Args, point: &'b Point, bed: &'b Bed, clock: Clock) -> Self {
        let (took, rounds) = (Vec::new(), Vec::new());
        let shared = Shared { clock, took, rounds, over: false, failed: None };
        let (barrier, watch) = (Barrier::new(args.workers), Stopwatch::start());
        Self { args, point, bed, barrier, shared: Mutex::new(shared), watch }
    }

    /// Runs them all; each worker has its trace.
    pub(super) fn run(self, traces: &[Trace]) -> Result<Vec<Round>, Error> {
        if self.point.scenario == Scenario::First {
            empty(&self.bed.conntrack, &mut self.shared().clock)?;
        }
        std::thread::scope(|scope| {
            for (number, trace) in traces.iter().enumerate() {
                let race = &self;
                scope.spawn(move || race.worker(number, trace));
            }
        });
        let shared = self.shared.into_inner().unwrap_or_else(PoisonError::into_inner);
        match shared.failed {
            Some(error) => Err(error),
            None => Ok(shared.rounds),
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn worker(&self, number: usize, trace: &Trace) {
        let mut cpus = CpuSet::new();
        cpus.set(number % CpuSet::MAX_CPU);
        // Best effort: where there are fewer cores, workers share them.
        let _ = sched_setaffinity(None, &cpus);
        let mut lane = Lane::new(self.bed, number, self.args.buffers, self.args.stride)
            .with_plans(!self.args.no_plans);
        let packets = match self.point.scenario {
            Scenario::First => trace.len(),
            _ if self.args.new_rate > 0.0 => trace.len(),
            _ => self.args.packets.max(trace.len()),
        };
        for round in 0..=self.args.rounds {
            let mut clock = self.shared().clock;
            self.barrier.wait();
            let copy = lane.pass(trace, packets, &mut clock, false);
            self.barrier.wait();
            let work = lane.pass(trace, packets, &mut clock, true);
            self.shared().took.push((copy, work));
            self.barrier.wait();
            if number == 0 {
                self.between(round, clock);
            }
            self.barrier.wait();
            if self.shared().over {
                return;
            }
        }
    }

    /// Takes a round's figures, and makes the table what it was.
    fn between(&self, round: usize, mut clock: Clock) {
        let mut shared = self.shared();
        let took = std::mem::take(&mut shared.took);
        if round > 0 {
            shared.rounds.push(Round::of(&took));
        }
        let astray: usize = took.iter().map(|(_, work)| work.astray).sum();
        let outcome = match (astray, self.point.scenario) {
            (1.., _) => Err(format!("{astray} packets went astray").into()),
            (_, Scenario::First) => empty(&self.bed.conntrack, &mut clock),
            _ if self.args.new_rate > 0.0 => {
                self.settle(&mut clock);
                Ok(())
            }
            _ => Ok(()),
        };
        shared.failed = outcome.err();
        let limit = (self.args.secs * 1e9) as u64;
        let late = round + 1 >= LEAST && self.watch.elapsed_ns() > limit;
        shared.over = late || shared.failed.is_some();
        shared.clock = clock;
    }

    /// Lets what nobody answered expire, and collects it.
    fn settle(&self, clock: &mut Clock) {
        let long = self.point.proto == super::frames::TCP;
        let now = clock.time.pass(if long { UNANSWERED_NS } else { UNANSWERED_UDP_NS });
        self.bed.conntrack.sweep(now, self.bed.conntrack.places());
    }
}

/// Collects every connection.
pub(super) fn empty(conntrack: &Conntrack, clock: &mut Clock) -> Result<(), Error> {
    for _ in 0..4 {
        let now = clock.time.pass(1_000_000_000_000);
        conntrack.sweep(now, conntrack.places());
    }
    conntrack.is_empty().then_some(()).ok_or_else(|| "connections do not expire".into())
}
