//! The snapshot: a policy with its generation and one block of counters per worker.

use std::sync::Arc;

use crate::conntrack::Extensions;
use crate::logbook::LogBook;
use crate::plan::Serial;
use crate::policy::{CounterId, Policy};
use crate::stats::RuleCounters;

/// What workers adopt at a burst boundary. Immutable but for the counters,
/// each block of which has one writer.
#[derive(Debug)]
pub struct Snapshot {
    /// Rises by one with every publication.
    pub generation: u64,
    /// No other snapshot of this process has it.
    pub serial: Serial,
    /// The compiled policy.
    pub policy: Policy,
    /// What its rules need every new connection to carry.
    pub extensions: Extensions,
    /// Whether any rule takes copies of packets.
    pub tees: bool,
    /// Its rules that report.
    pub log: Arc<LogBook>,
    counters: Box<[RuleCounters]>,
}

impl Snapshot {
    /// Wraps a policy for `workers` workers, all counters zero. There is one block more, for
    /// what is [counted elsewhere](Self::elsewhere).
    pub fn new(generation: u64, policy: Policy, workers: usize) -> Self {
        let len = policy.counters as usize;
        let counters = (0..=workers).map(|_| RuleCounters::new(len)).collect();
        let (extensions, tees) = (policy.extensions(), policy.tees());
        let log = Arc::new(LogBook::new(generation, &policy, workers));
        let serial = Serial::default();
        Self { generation, serial, policy, extensions, tees, log, counters }
    }
    /// The counter block that worker `worker` writes.
    #[inline]
    pub fn counters(&self, worker: usize) -> &RuleCounters {
        &self.counters[worker]
    }
    /// The counter block for packets that meet a rule before any worker sees them; it has
    /// one writer, too.
    pub fn elsewhere(&self) -> &RuleCounters {
        &self.counters[self.counters.len() - 1]
    }
    /// Packets and bytes of a counter over all workers, and elsewhere.
    pub fn count(&self, counter: CounterId) -> (u64, u64) {
        self.counters
            .iter()
            .map(|block| block.get(counter))
            .fold((0, 0), |sum, pair| (sum.0.wrapping_add(pair.0), sum.1.wrapping_add(pair.1)))
    }
}
