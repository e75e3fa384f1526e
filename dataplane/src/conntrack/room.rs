//! Room in the table: how many there are, what is collected, and what goes early.

use std::sync::atomic::Ordering;

use super::Conntrack;
use super::config::Setting;
use super::record::Contents;
use super::sctp::SctpConn;
use super::status::ASSURED;
use super::tcp::TcpConn;
use crate::clock::Nanos;
use crate::wire::proto;

/// Records that the sweep looks at together: what it will touch in the index comes
/// from memory at once.
const AT_ONCE: usize = 32;
/// Large pages that a call of the sweep has come before they are needed, at most.
const PREPARED: usize = 8;

/// A counter's place.
#[derive(Clone, Copy)]
pub(super) enum Count {
    Invalid,
    Insert,
    InsertFailed,
    Drop,
    EarlyDrop,
    IcmpError,
    ClashResolved,
    NoRoom,
}

/// What happened in the table since it was made (`conntrack -S`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that were INVALID.
    pub invalid: u64,
    /// Connections confirmed.
    pub insert: u64,
    /// Connections lost to a clash or for want of room at confirmation.
    pub insert_failed: u64,
    /// Packets dropped because no connection could be made for them.
    pub drop: u64,
    /// Connections evicted to make room.
    pub early_drop: u64,
    /// ICMP errors that were INVALID.
    pub icmp_error: u64,
    /// Clashes that ended with both packets in the winner's connection.
    pub clash_resolve: u64,
    /// Confirmations that found all their buckets full.
    pub chain_toolong: u64,
}

impl Conntrack {
    /// Collects expired connections among the next `budget` records and
    /// returns how many. Under pressure it also evicts what may be evicted.
    pub fn sweep(&self, now: Nanos, budget: usize) -> usize {
        self.store.events.set_clock(now);
        let len = self.store.len();
        let budget = budget.min(len);
        let start = self.cursor.0.fetch_add(budget as u32, Ordering::Relaxed) as usize;
        let limit = self.settings.get(Setting::Max);
        let mut collected = 0;
        self.prepare(PREPARED);
        let used = self.store.used();
        for first in (start..start + budget).step_by(AT_ONCE) {
            let some = first..(first + AT_ONCE).min(start + budget);
            let some = some.map(|at| at % len).filter(|&at| at < used);
            self.store.fetch_expired(some.clone(), now);
            collected += some.filter(|&at| self.collect(at, now, limit)).count();
        }
        if start % len + budget >= len {
            // Once a round.
            self.sweep_expectations(now);
        }
        self.quotas.update(self.store.live().into(), limit);
        if u64::from(self.store.live()) * 100 < limit * 95 {
            self.pressed.store(false, Ordering::Relaxed);
        }
        collected
    }

    /// Has up to `large_pages` more of the pages that new connections will use there, on
    /// a thread that may wait for them. False: all are. [`Conntrack::sweep`] does this, too.
    pub fn prepare(&self, large_pages: usize) -> bool {
        self.store.prepare(large_pages)
    }

    /// Looks at one record; true when it ended.
    fn collect(&self, at: usize, now: Nanos, limit: u64) -> bool {
        let crowded = self.pressed.load(Ordering::Relaxed)
            && u64::from(self.store.live()) * 100 >= limit * 95;
        let ended = self.store.collect(at, now, crowded, |contents| {
            contents.status & ASSURED == 0 || is_closing(contents)
        });
        self.count(Count::EarlyDrop, u64::from(ended == Some(true)));
        ended.is_some()
    }

    /// Most connections at once.
    pub fn capacity(&self) -> u64 {
        self.settings.get(Setting::Max)
    }

    /// Places for records: what [`Conntrack::sweep`] and
    /// [`Conntrack::rows_from`] go over.
    pub fn places(&self) -> usize {
        self.store.len()
    }

    /// Connections in the table, unconfirmed and not yet collected ones included.
    pub fn len(&self) -> usize {
        self.store.live() as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        let get = |count: Count| self.counts.get(count as usize);
        Counters {
            invalid: get(Count::Invalid),
            insert: get(Count::Insert),
            insert_failed: get(Count::InsertFailed),
            drop: get(Count::Drop),
            early_drop: get(Count::EarlyDrop),
            icmp_error: get(Count::IcmpError),
            clash_resolve: get(Count::ClashResolved),
            chain_toolong: get(Count::NoRoom),
        }
    }

    pub(super) fn count(&self, count: Count, amount: u64) {
        if amount > 0 {
            self.counts.add(count as usize, amount);
        }
    }
}

/// Whether a connection is on its way out, and may go early even when ASSURED.
fn is_closing(contents: &Contents) -> bool {
    match contents.original.proto {
        proto::TCP => TcpConn::unpack(&contents.proto).state().is_closing(),
        proto::SCTP => SctpConn::unpack(&contents.proto).state().is_closing(),
        _ => false,
    }
}
