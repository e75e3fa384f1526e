//! The log book of a policy: which rules report, how often each of them still may, and
//! the names that records need long after the packet is gone.
//!
//! A snapshot has one; a record on its way to the log thread holds on to it. The gates of
//! a rule are shared by all workers: in a flood they only read them. What a gate keeps
//! back and what is lost on the way is counted by worker, one writer a cell, so that
//! counts are exact.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Nanos;
use crate::effects::Report;
use crate::packet::Family;
use crate::policy::report::{AuditKind, NflogTarget, ReportTarget};
use crate::policy::target::LogTarget;
use crate::policy::{ChainId, CounterId, FamilyPolicy, Policy, TableId, Target};
use crate::stats::Cell;

/// Tries to take a token while other workers do the same.
const TRIES: usize = 4;

/// How many records a rule may cause: `burst` at once, then one every `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    interval: Nanos,
    patience: Nanos,
}

impl Rate {
    /// `per_second` records a second after a burst; `None` for no limit at all.
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        let interval = Nanos(Nanos::SECOND.0.checked_div(u64::from(per_second))?);
        let patience = Nanos(interval.0 * u64::from(burst.max(1) - 1));
        Some(Self { interval, patience })
    }
}

/// When the next record is due: a token bucket as one number.
#[derive(Debug, Default)]
pub struct Gate(AtomicU64);

impl Gate {
    /// Whether a record may pass now. Takes the token.
    #[inline]
    pub fn admits(&self, now: Nanos, rate: &Rate) -> bool {
        let mut due = self.0.load(Ordering::Relaxed);
        for _ in 0..TRIES {
            if due > now.0.saturating_add(rate.patience.0) {
                return false;
            }
            let next = due.max(now.0).saturating_add(rate.interval.0);
            match self.0.compare_exchange_weak(due, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => due = other,
            }
        }
        false
    }
}

/// What a rule reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reports {
    /// LOG.
    Log(LogTarget),
    /// NFLOG.
    Nflog(NflogTarget),
    /// AUDIT.
    Audit(AuditKind),
}

impl Reports {
    fn of(target: &Target) -> Option<Self> {
        match target {
            Target::Log(log) => Some(Self::Log(log.clone())),
            Target::Report(ReportTarget::Nflog(nflog)) => Some(Self::Nflog(nflog.clone())),
            Target::Report(ReportTarget::Audit(kind)) => Some(Self::Audit(*kind)),
            _ => None,
        }
    }

    /// The same, borrowed as records have it.
    pub fn report(&self) -> Report<'_> {
        match self {
            Self::Log(log) => Report::Log(log),
            Self::Nflog(nflog) => Report::Nflog(nflog),
            Self::Audit(kind) => Report::Audit(*kind),
        }
    }
}

/// A rule that reports.
#[derive(Debug)]
pub struct Reporter {
    /// Family.
    pub family: Family,
    /// Its chain.
    pub chain: ChainId,
    /// Its number in the chain, from 1.
    pub number: u32,
    /// Its line in the file, from 1; 0 when there is none.
    pub line: u32,
    /// What it reports.
    pub reports: Reports,
    gate: Gate,
}

/// The tables and names of a family's chains.
type Chains = Box<[(TableId, Box<str>)]>;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct LogBook {
    /// The policy's generation.
    pub generation: u64,
    chains: [Chains; 2],
    reporters: Box<[Reporter]>,
    /// By counter: one more than the index of its reporter, or zero.
    by_counter: Box<[u32]>,
    /// By worker and reporter.
    missing: Box<[Box<[Missing]>]>,
}

/// What of a reporter one worker did not hand on.
#[derive(Debug, Default)]
struct Missing {
    suppressed: Cell,
    lost: Cell,
}

impl LogBook {
    /// The book of a policy that `workers` workers run.
    pub fn new(generation: u64, policy: &Policy, workers: usize) -> Self {
        let mut book = Self {
            generation,
            chains: [names(&policy.v4), names(&policy.v6)],
            reporters: Box::default(),
            by_counter: vec![0; policy.counters as usize].into(),
            missing: Box::default(),
        };
        let mut reporters = Vec::new();
        book.enter(Family::V4, &policy.v4, &mut reporters);
        book.enter(Family::V6, &policy.v6, &mut reporters);
        let cells = |_| reporters.iter().map(|_| Missing::default()).collect();
        book.missing = (0..workers).map(cells).collect();
        book.reporters = reporters.into();
        book
    }

    /// The book of a FORWARD chain of table filter, in both families, whose IPv4 rules
    /// report this and count from zero on. For tests and benchmarks.
    pub fn of_reports(reports: impl IntoIterator<Item = Reports>, workers: usize) -> Self {
        let chain = || Box::from([(TableId::Filter, Box::from("FORWARD"))]);
        let reporter = |(reports, number)| {
            let (family, chain, gate) = (Family::V4, ChainId(0), Gate::default());
            Reporter { family, chain, number, line: 0, reports, gate }
        };
        let reporters: Box<[_]> = reports.into_iter().zip(1..).map(reporter).collect();
        let cells = |_| reporters.iter().map(|_| Missing::default()).collect();
        Self {
            generation: 1,
            chains: [chain(), chain()],
            by_counter: (1..=reporters.len() as u32).collect(),
            missing: (0..workers).map(cells).collect(),
            reporters,
        }
    }

    fn enter<A>(
        &mut self,
        family: Family,
        policy: &FamilyPolicy<A>,
        reporters: &mut Vec<Reporter>,
    ) {
        for (chain, number, rule) in policy.chains.iter().zip(0..).flat_map(|(chain, id)| {
            chain.rules.iter().zip(1..).map(move |(rule, number)| (ChainId(id), number, rule))
        }) {
            let Some(reports) = Reports::of(&rule.target) else { continue };
            let gate = Gate::default();
            let line = rule.written.line;
            reporters.push(Reporter { family, chain, number, line, reports, gate });
            if let Some(slot) = self.by_counter.get_mut(rule.counter.0 as usize) {
                *slot = reporters.len() as u32;
            }
        }
    }

    /// The rules that report, in no particular order.
    pub fn reporters(&self) -> &[Reporter] {
        &self.reporters
    }

    /// The index of the reporter that counts there.
    #[inline]
    pub fn reporter_at(&self, counter: CounterId) -> Option<u32> {
        self.by_counter.get(counter.0 as usize)?.checked_sub(1)
    }

    /// The line of the reporter that counts there, if there is a file.
    pub fn line(&self, counter: CounterId) -> Option<u32> {
        let line = self.reporters.get(self.reporter_at(counter)? as usize)?.line;
        (line > 0).then_some(line)
    }

    /// A chain's table and name.
    pub fn chain(&self, family: Family, chain: ChainId) -> (TableId, &str) {
        let chains = &self.chains[usize::from(family == Family::V6)];
        chains.get(chain.0 as usize).map_or((TableId::Filter, ""), |(table, name)| (*table, name))
    }

    /// Whether reporter `index` may report once more. If not, `worker` counts it.
    #[inline]
    pub fn admits(&self, index: u32, worker: usize, now: Nanos, rate: &Rate) -> bool {
        let Some(reporter) = self.reporters.get(index as usize) else { return true };
        let admitted = reporter.gate.admits(now, rate);
        if !admitted && let Some(cells) = self.missing.get(worker) {
            cells[index as usize].suppressed.add(1);
        }
        admitted
    }

    /// A record of reporter `index` is lost between `worker` and the log thread.
    #[inline]
    pub fn lose(&self, index: u32, worker: usize) {
        let cells = self.missing.get(worker).and_then(|cells| cells.get(index as usize));
        if let Some(cells) = cells {
            cells.lost.add(1);
        }
    }

    /// What reporter `index` did not report, over all workers.
    pub fn suppressed(&self, index: u32) -> u64 {
        self.missing.iter().map(|cells| cells[index as usize].suppressed.get()).sum()
    }

    /// What of reporter `index` was lost on the way, over all workers.
    pub fn lost(&self, index: u32) -> u64 {
        self.missing.iter().map(|cells| cells[index as usize].lost.get()).sum()
    }
}

fn names<A>(policy: &FamilyPolicy<A>) -> Chains {
    policy.chains.iter().map(|chain| (chain.table, chain.name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_lets_the_burst_and_then_the_rate_pass() {
        let rate = Rate::new(10, 5).unwrap();
        let gate = Gate::default();
        let start = Nanos::from_secs(1000);
        let at = |now: Nanos| (0..100).filter(|_| gate.admits(now, &rate)).count();
        assert_eq!(at(start), 5);
        assert_eq!(at(start + Nanos::MILLISECOND), 0);
        assert_eq!(at(start + Nanos(100_000_000)), 1);
        assert_eq!(at(start + Nanos(550_000_000)), 4);
        assert_eq!(at(start + Nanos::from_secs(100)), 5, "never more than the burst");
    }

    #[test]
    fn no_rate_is_no_limit_and_a_burst_is_at_least_one() {
        assert_eq!(Rate::new(0, 5), None);
        let rate = Rate::new(1, 0).unwrap();
        let gate = Gate::default();
        assert!(gate.admits(Nanos(0), &rate));
        assert!(!gate.admits(Nanos(1), &rate));
        assert!(gate.admits(Nanos::SECOND, &rate));
    }
}
