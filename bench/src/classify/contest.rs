//! One filter set, one trace: all contenders in turn, round by round.

use std::hint::black_box;
use std::path::Path;

use classifier::cover::Level;
use classifier::strategy::Strategy;
use classifier::{Classifier, Key, Rule};

use super::files::{self, Text};
use super::goals::{BENCH, Line};
use super::peers::{Measured, Peers, Task};
use super::traces::{BATCH, NONE, Trace};
use crate::clock::Stopwatch;

/// A slice of measurement, as the peers take it.
const SLICE_NS: u64 = 20_000_000;

/// Batches between two looks at the clock.
const BATCHES_A_LOOK: usize = 64;

/// Writes the first match of each key of a batch, or [`NONE`].
type Ask<A> = fn(&Strategy<A>, &[Key<A>], &mut [u32]);

/// A way of asking Portcullis' classifier.
struct Ours<'b, A> {
    name: &'static str,
    ask: Ask<A>,
    classifier: &'b Strategy<A>,
}

fn one_by_one<A: Text>(classifier: &Strategy<A>, keys: &[Key<A>], answers: &mut [u32]) {
    for (key, answer) in keys.iter().zip(answers) {
        *answer = classifier.first_at_or_after(key, 0).unwrap_or(NONE);
    }
}

/// What all contenders of one set share.
pub(super) struct Contest<'a, A> {
    pub(super) set: &'a str,
    pub(super) kind: &'a str,
    pub(super) rules: &'a [Rule<A>],
    pub(super) built: &'a Built<A>,
    pub(super) peers: &'a Peers,
    /// Where the rules are written for the peers, and a trace may be.
    pub(super) directory: &'a Path,
    pub(super) rounds: usize,
    pub(super) seconds: f64,
}

/// Portcullis' structure for a set, and what building it took.
pub(super) struct Built<A> {
    classifier: Strategy<A>,
    /// The same without SIMD, where there is SIMD to be without.
    scalar: Option<Strategy<A>>,
    build_ms: f64,
    memory_mib: f64,
    /// What was chosen.
    pub(super) explanation: String,
}

impl<A: Text> Built<A> {
    /// Builds `times` times; the median counts.
    pub(super) fn new(rules: &[Rule<A>], seed: u64, times: usize) -> Self {
        let mut taken = Vec::with_capacity(times);
        let mut build = || {
            let own = rules.to_vec();
            let watch = Stopwatch::start();
            let classifier = Strategy::build_seeded(own, seed);
            taken.push(watch.elapsed_ns() as f64 / 1e6);
            classifier
        };
        for _ in 1..times {
            black_box(build());
        }
        let classifier = build();
        let scalar = match Strategy::build_seeded(rules.to_vec(), seed) {
            Strategy::Cover(mut tables) => {
                tables.set_level(Level::Scalar);
                Some(Strategy::Cover(tables))
            }
            _ => None,
        };
        let explained = classifier.explain();
        Self {
            scalar,
            build_ms: median(&mut taken),
            memory_mib: explained.bytes as f64 / f64::from(1 << 20),
            explanation: explained.to_string(),
            classifier,
        }
    }

    /// All the ways there are to ask.
    fn ways(&self) -> Vec<Ours<'_, A>> {
        let way = |name, ask: Ask<A>, classifier| Ours { name, ask, classifier };
        let mut ways = vec![
            way("portcullis", one_by_one, &self.classifier),
            way("portcullis-batch", Strategy::first_batch, &self.classifier),
        ];
        ways.extend(
            self.scalar
                .iter()
                .map(|scalar| way("portcullis-scalar", Strategy::first_batch, scalar)),
        );
        ways
    }
}

/// The middle value; of an even number the lower middle.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

impl<A: Text> Contest<'_, A> {
    /// Checks every answer, then measures; one line a contender.
    ///
    /// # Errors
    /// A wrong answer of Portcullis'; files that cannot be written; a peer that fails.
    pub(super) fn run(
        &self,
        trace_name: &str,
        trace: &Trace<A>,
    ) -> Result<Vec<Line>, Box<dyn std::error::Error>> {
        let rules_file = self.directory.join("rules");
        let trace_file = self.directory.join("trace");
        std::fs::write(&rules_file, files::rules(self.rules))?;
        std::fs::write(&trace_file, files::trace(&trace.keys))?;
        let task = Task {
            rules: &rules_file,
            trace: &trace_file,
            family: A::FAMILY,
            seconds: self.seconds,
        };
        for way in self.built.ways() {
            self.check(&way, trace)?;
        }
        let mut lines: Vec<Line> = Vec::new();
        for _ in 0..self.rounds {
            for way in self.built.ways() {
                self.record(&mut lines, trace_name, self.measure(&way, trace));
            }
            for measured in self.peers.round(&task)? {
                self.record(&mut lines, trace_name, measured);
            }
        }
        Ok(lines)
    }

    fn check(&self, way: &Ours<'_, A>, trace: &Trace<A>) -> Result<(), Box<dyn std::error::Error>> {
        let mut answers = [NONE; BATCH];
        let batches = trace.keys.chunks(BATCH).zip(trace.expected.chunks(BATCH));
        for (batch, (keys, expected)) in batches.enumerate() {
            let answers = &mut answers[..keys.len()];
            (way.ask)(way.classifier, keys, answers);
            if let Some(at) = answers.iter().zip(expected).position(|(a, e)| a != e) {
                let (key, number) = (&keys[at], batch * BATCH + at);
                return Err(format!(
                    "{} {}: {} says {} for key {number} ({key:?}), a linear search {}",
                    self.set,
                    A::FAMILY,
                    way.name,
                    answers[at],
                    expected[at]
                )
                .into());
            }
        }
        Ok(())
    }

    fn measure(&self, way: &Ours<'_, A>, trace: &Trace<A>) -> Measured {
        let mut answers = vec![NONE; trace.keys.len()];
        let budget = (self.seconds * 1e9) as u64;
        let (mut slices, mut total, mut at) = (Vec::new(), 0, 0);
        while total < budget {
            let (mut packets, watch) = (0, Stopwatch::start());
            let elapsed = loop {
                for _ in 0..BATCHES_A_LOOK {
                    let batch = at..at + BATCH;
                    let (keys, answers) = (&trace.keys[batch.clone()], &mut answers[batch]);
                    (way.ask)(way.classifier, black_box(keys), answers);
                    at = if at + BATCH == trace.keys.len() { 0 } else { at + BATCH };
                }
                packets += BATCHES_A_LOOK * BATCH;
                let elapsed = watch.elapsed_ns();
                if elapsed >= SLICE_NS {
                    break elapsed;
                }
            };
            total += elapsed;
            slices.push(elapsed as f64 / packets as f64);
        }
        black_box(&answers);
        Measured {
            contender: way.name.to_owned(),
            median_ns: median(&mut slices),
            best_ns: slices[0],
            build_ms: self.built.build_ms,
            memory_mib: self.built.memory_mib,
            verified: trace.keys.len() as u64,
            bad: 0,
        }
    }

    /// Adds a round to the contender's line.
    fn record(&self, lines: &mut Vec<Line>, trace: &str, measured: Measured) {
        let known = lines.iter_mut().find(|line| line.contender == measured.contender);
        if let Some(line) = known {
            line.rounds_ns.push(rounded(measured.median_ns));
            line.best_ns = line.best_ns.min(rounded(measured.best_ns));
            line.wrong += measured.bad;
            return;
        }
        lines.push(Line {
            bench: BENCH.to_owned(),
            set: self.set.to_owned(),
            kind: self.kind.to_owned(),
            family: A::FAMILY.to_owned(),
            rules: self.rules.len(),
            trace: trace.to_owned(),
            contender: measured.contender,
            rounds_ns: vec![rounded(measured.median_ns)],
            best_ns: rounded(measured.best_ns),
            build_ms: rounded(measured.build_ms),
            memory_mib: rounded(measured.memory_mib),
            checked: measured.verified,
            wrong: measured.bad,
        });
    }
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
