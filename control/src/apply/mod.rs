//! Replacing the running policy: all or nothing, while traffic flows.
//!
//! Life cycle of a change: compile -> self-check -> snapshot -> publish -> every
//! worker adopts -> counters of unchanged rules move over -> the old snapshot is
//! freed. Until `publish` nothing is visible to anybody; a failure on the way
//! leaves the old policy running.
//!
//! Concurrency: one change at a time ([`ApplyError::Busy`] for others, at once);
//! readers ([`PolicyStore::read`]) wait for a pointer exchange at most. Counters
//! stay exact across a change: the old snapshot keeps counting until the last
//! worker has left it, and its counts are read where they belong until then.

mod ahead;
mod identity;
mod tracks;
mod written;

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic, wall_us};
use dataplane::logbook::LogBook;
use dataplane::packet::Family;
use dataplane::policy::CounterId;
use dataplane::policy::tally::RecentTable;
use dataplane::publish::{Publisher, Subscription};
use dataplane::sets::Registry;
use dataplane::snapshot::Snapshot;
use thiserror::Error;

use crate::api::protocol::AccountEntry;
use crate::aside::aside;
use crate::audit::trend::Trend;
use crate::compile::{self, CounterMap, DynamicState, Imported, Limits, Piece, SavedLimit};
use crate::model::{Ruleset, expiry};
use crate::selfcheck::{self, Budget, SelfCheckError};

pub use ahead::Ahead;
use identity::Identity;
pub use identity::RuleKey;
use tracks::Tracks;
pub use tracks::{KIND as TRACKS, Track};
use written::{strip_counters, written_counters};

/// Why a change was refused. The old policy runs on.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// Another change is in progress.
    #[error("another change is in progress; try again when it is done")]
    Busy,
    /// A worker has not yet left the policy before the current one.
    #[error("a worker still runs the policy before generation {generation}; try again")]
    Draining {
        /// The current generation.
        generation: u64,
    },
    /// It does not compile, or the self-check failed.
    #[error(transparent)]
    Check(#[from] SelfCheckError),
}

/// A change: a family that is `None` keeps its policy.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// IPv4.
    pub v4: Option<Ruleset>,
    /// IPv6.
    pub v6: Option<Ruleset>,
    /// Whether the counters written in the files are taken (`iptables-restore
    /// -c`); otherwise unchanged rules keep theirs and new ones start at zero.
    pub written_counters: bool,
    /// The sets as they will be, if not those in force: an overlay of these. Whoever
    /// installs the change puts it in force afterwards.
    pub sets: Option<Arc<Registry>>,
}

/// What a change took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Model to compiled form.
    pub compile: Nanos,
    /// Compiled form against `interpret`.
    pub selfcheck: Nanos,
    /// The exchange.
    pub publish: Nanos,
    /// Until the last worker had adopted it.
    pub adopt: Nanos,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Generation of the new policy.
    pub generation: u64,
    /// IPv4 rules in it.
    pub rules_v4: usize,
    /// IPv6 rules in it.
    pub rules_v6: usize,
    /// Whether every worker runs it.
    pub adopted: bool,
    /// What it took.
    pub timing: Timing,
}

/// How long to wait for the workers: a turn takes microseconds to milliseconds.
const ADOPTION_TIMEOUT: Nanos = Nanos::from_secs(5);
/// How often to look.
const ADOPTION_POLL: Duration = Duration::from_micros(100);

/// The running policy's control side.
#[derive(Debug)]
struct Running {
    v4: Ruleset,
    v6: Ruleset,
    counters: CounterMap,
    dynamic: DynamicState,
    identities: Vec<Identity>,
    snapshot: Arc<Snapshot>,
    /// When a rule of it expires next, in seconds since 1970.
    expires_s: Option<u64>,
}

/// The snapshot before the running one, as long as a worker may still count in it.
#[derive(Debug)]
struct Draining {
    snapshot: Arc<Snapshot>,
    /// For each counter of the running policy, the one it continues.
    continues: Vec<Option<CounterId>>,
}

#[derive(Debug)]
struct State {
    publisher: Publisher<Snapshot>,
    running: Arc<Running>,
    /// What the counters were before the running snapshot began to count.
    base: Vec<(u64, u64)>,
    draining: Option<Draining>,
}

/// Owner of the running policy. See the head of this file.
#[derive(Debug)]
pub struct PolicyStore {
    ports: Vec<String>,
    workers: usize,
    limits: Limits,
    change: Mutex<()>,
    state: Mutex<State>,
    ahead: OnceLock<Arc<dyn Ahead>>,
    tracks: Mutex<Tracks>,
    denials: Mutex<Trend>,
    /// Its first policy began with the counters of its text.
    written: bool,
    /// Seconds since 1970.
    clock: fn() -> u64,
}

impl PolicyStore {
    /// Compiles the first policy (an absent family is empty: everything is
    /// accepted) for `workers` workers over `ports`.
    pub fn open(change: Change, ports: Vec<String>, workers: usize) -> Result<Self, ApplyError> {
        Self::open_with(change, ports, workers, Arc::default())
    }

    /// The same, with the sets that rules may name, now and later.
    ///
    /// # Errors
    /// As [`PolicyStore::open`].
    pub fn open_with(
        change: Change,
        ports: Vec<String>,
        workers: usize,
        sets: Arc<Registry>,
    ) -> Result<Self, ApplyError> {
        let limits = Limits::default();
        let written = change.written_counters;
        let first = DynamicState::with_sets(sets);
        let clock: fn() -> u64 = wall_s;
        let before = Before::Nothing(&first);
        let (running, _) = prepare(change, before, &ports, workers, limits, clock())?;
        running.dynamic.begin(monotonic());
        running.dynamic.expect_packets();
        let base = match written {
            true => written_counters(&running),
            false => vec![(0, 0); running.identities.len()],
        };
        let publisher = Publisher::new(Arc::clone(&running.snapshot));
        let state = State { publisher, running: Arc::new(running), base, draining: None };
        let (change, state, ahead) = (Mutex::new(()), Mutex::new(state), OnceLock::new());
        let (tracks, denials) = (Mutex::default(), Mutex::default());
        Ok(Self { ports, workers, limits, change, state, ahead, tracks, denials, written, clock })
    }

    /// A view for one more worker.
    pub fn subscribe(&self) -> Subscription<Snapshot> {
        self.state().publisher.subscribe()
    }

    /// Which rules of the policy in force report.
    pub fn log_book(&self) -> Arc<LogBook> {
        Arc::clone(&self.state().running.snapshot.log)
    }

    /// Installs a change and waits (bounded) until every worker runs it.
    pub fn install(&self, change: Change) -> Result<Installed, ApplyError> {
        self.install_within(change, ADOPTION_TIMEOUT)
    }

    fn install_within(&self, change: Change, patience: Nanos) -> Result<Installed, ApplyError> {
        let _turn = match self.change.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::WouldBlock) => return Err(ApplyError::Busy),
            // A change that panicked left the old policy in place.
            Err(TryLockError::Poisoned(turn)) => turn.into_inner(),
        };
        self.settle();
        let current = {
            let state = self.state();
            if state.draining.is_some() {
                let generation = state.running.snapshot.generation;
                return Err(ApplyError::Draining { generation });
            }
            Arc::clone(&state.running)
        };
        let written = change.written_counters;
        let (running, mut timing) = aside(|| self.prepare(change, &current))?;
        running.dynamic.expect_packets();
        let continues = if written {
            vec![None; running.identities.len()]
        } else {
            identity::continued(&current.identities, &running.identities)
        };
        let rules_v4 = running.v4.rule_count();
        let rules_v6 = running.v6.rule_count();
        let generation = running.snapshot.generation;
        drop(current);

        self.ahead(|ahead| ahead.leave());
        let start = monotonic();
        running.dynamic.begin(start);
        let old = self.publish(running, continues, written);
        if written {
            self.recount();
        }
        self.ahead(|ahead| ahead.enter(&self.current()));
        let published = monotonic();
        timing.publish = published - start;
        // A long policy takes milliseconds to free: not while the state is locked. It also
        // holds the old snapshot, which must be the workers' alone for `settle`.
        aside(|| drop(old));
        while !self.settle() && monotonic() - published < patience {
            std::thread::sleep(ADOPTION_POLL);
        }
        timing.adopt = monotonic() - published;
        let adopted = self.state().draining.is_none();
        Ok(Installed { generation, rules_v4, rules_v6, adopted, timing })
    }

    /// Returns the policy before, to be freed outside the lock.
    fn publish(
        &self,
        running: Running,
        continues: Vec<Option<CounterId>>,
        written: bool,
    ) -> Arc<Running> {
        let mut state = self.state();
        let base = if written {
            written_counters(&running)
        } else {
            let before = |old: &Option<CounterId>| old.map(|old| state.base[old.0 as usize]);
            continues.iter().map(|old| before(old).unwrap_or_default()).collect()
        };
        let snapshot = state.publisher.publish(Arc::clone(&running.snapshot));
        state.draining = Some(Draining { snapshot, continues });
        let old = std::mem::replace(&mut state.running, Arc::new(running));
        state.base = base;
        old
    }

    /// Whether [`PolicyStore::install`] would accept a change, by compiling and checking it.
    ///
    /// # Errors
    /// As there, but that it may be somebody else's turn.
    pub fn rehearse(&self, change: Change) -> Result<(), ApplyError> {
        let current = Arc::clone(&self.state().running);
        aside(|| self.prepare(change, &current).map(drop))
    }

    fn prepare(&self, change: Change, current: &Running) -> Result<(Running, Timing), ApplyError> {
        let before = Before::Policy(current);
        prepare(change, before, &self.ports, self.workers, self.limits, (self.clock)())
    }

    /// When a rule of the policy in force expires next, in seconds since 1970. From then on
    /// any change, an empty one too, takes it out of force.
    pub fn next_expiry(&self) -> Option<u64> {
        self.state().running.expires_s
    }

    /// Moves the counts of a snapshot that no worker holds any more, and frees
    /// it. Returns whether nothing is left to move. For the housekeeping thread.
    pub fn settle(&self) -> bool {
        let mut guard = self.state();
        let state = &mut *guard;
        if let Some(draining) = &state.draining {
            // The publisher's list of retired values, and this one.
            if Arc::strong_count(&draining.snapshot) > 2 {
                return false;
            }
            // The last holder's counts happened before it let go (Release).
            fence(Ordering::Acquire);
            for (base, old) in state.base.iter_mut().zip(&draining.continues) {
                if let Some(old) = old {
                    *base = sum(*base, draining.snapshot.count(*old));
                }
            }
            state.draining = None;
        }
        state.publisher.reclaim();
        true
    }

    /// The running policy with its counters.
    pub fn read<T>(&self, view: impl FnOnce(&PolicyView<'_>) -> T) -> T {
        self.ahead(|ahead| ahead.fold());
        let state = self.state();
        let running = Arc::clone(&state.running);
        let count = |id: CounterId| {
            let index = id.0 as usize;
            let live = sum(state.base[index], running.snapshot.count(id));
            let draining = state.draining.as_ref();
            let late = draining.and_then(|old| Some(old.snapshot.count(old.continues[index]?)));
            sum(live, late.unwrap_or_default())
        };
        let counts = (0..running.identities.len()).map(|id| count(CounterId(id as u32))).collect();
        drop(state);
        view(&PolicyView { running: &running, counts })
    }

    /// The running policy's `limit` buckets, as they are now.
    pub fn export_limits(&self, now: Nanos) -> Vec<SavedLimit> {
        let running = Arc::clone(&self.state().running);
        running.dynamic.export(now)
    }

    /// Makes the running policy's buckets what they were `elapsed` ago; returns how many.
    pub fn import_limits(&self, saved: &[SavedLimit], elapsed: Nanos, now: Nanos) -> usize {
        let running = Arc::clone(&self.state().running);
        running.dynamic.import(saved, elapsed, now)
    }

    /// What `-m nfacct` has counted, by name; `reset`: begins again from zero.
    pub fn accounts(&self, reset: bool) -> Vec<AccountEntry> {
        let running = Arc::clone(&self.state().running);
        running.dynamic.accounts(reset)
    }

    /// What the running policy's rules share by name, and amounts that they own, as they are now.
    pub fn export_pieces(&self, now: Nanos) -> Vec<Piece> {
        let running = Arc::clone(&self.state().running);
        running.dynamic.export_pieces(now)
    }

    /// Makes what the running policy's rules share, and what they own, what it was
    /// `elapsed` ago.
    pub fn import_pieces(&self, pieces: &[Piece], elapsed: Nanos, now: Nanos) -> Imported {
        let running = Arc::clone(&self.state().running);
        running.dynamic.import_pieces(pieces, elapsed, now)
    }

    /// The running policy's lists of `-m recent`, by name.
    pub fn recent_lists(&self) -> Vec<(Box<str>, Arc<RecentTable>)> {
        let running = Arc::clone(&self.state().running);
        running.dynamic.recent_lists()
    }

    /// Generation of the running policy.
    pub fn generation(&self) -> u64 {
        self.state().running.snapshot.generation
    }

    /// Replaced snapshots that a worker still holds.
    pub fn retired(&self) -> usize {
        usize::from(!self.settle())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics half-way through a change of the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A consistent picture of the running policy.
#[derive(Debug)]
pub struct PolicyView<'a> {
    running: &'a Running,
    counts: Vec<(u64, u64)>,
}

impl PolicyView<'_> {
    /// Its generation.
    pub fn generation(&self) -> u64 {
        self.running.snapshot.generation
    }
    /// The rules of a family, without counters.
    pub fn rules(&self, family: Family) -> &Ruleset {
        match family {
            Family::V4 => &self.running.v4,
            Family::V6 => &self.running.v6,
        }
    }
    /// Which rule counts where.
    pub fn counters(&self) -> &CounterMap {
        &self.running.counters
    }
    /// Packets and bytes of a counter.
    pub fn count(&self, id: CounterId) -> (u64, u64) {
        self.counts[id.0 as usize]
    }
    /// The compiled policy.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.running.snapshot
    }
    /// The rules of a family with their counters.
    pub fn counted(&self, family: Family) -> Ruleset {
        let mut rules = self.rules(family).clone();
        strip_counters(&mut rules);
        self.running.counters.apply(&mut rules, |id| self.count(id));
        rules
    }
}

/// What a policy follows.
#[derive(Clone, Copy)]
enum Before<'b> {
    /// None, but there are sets.
    Nothing(&'b DynamicState),
    Policy(&'b Running),
}

fn wall_s() -> u64 {
    wall_us() / 1_000_000
}

/// Everything up to, and without, publishing.
fn prepare(
    change: Change,
    before: Before<'_>,
    ports: &[String],
    workers: usize,
    limits: Limits,
    now_s: u64,
) -> Result<(Running, Timing), ApplyError> {
    let keep = |new: Option<Ruleset>, old: Option<&Ruleset>, family| {
        new.or_else(|| old.cloned()).unwrap_or_else(|| Ruleset::empty(family))
    };
    let (current, previous) = match before {
        Before::Nothing(state) => (None, state),
        Before::Policy(running) => (Some(running), &running.dynamic),
    };
    let v4 = keep(change.v4, current.map(|running| &running.v4), Family::V4);
    let v6 = keep(change.v6, current.map(|running| &running.v6), Family::V6);

    let start = monotonic();
    let (now4, now6) = (expiry::in_force(&v4, now_s), expiry::in_force(&v6, now_s));
    let (live4, live6) = (now4.as_ref().unwrap_or(&v4), now6.as_ref().unwrap_or(&v6));
    let input = compile::Input { v4: live4, v6: live6, ports, limits };
    let sets = change.sets.unwrap_or_else(|| Arc::clone(previous.sets()));
    let mut compiled = compile::compile_over(
        input,
        previous,
        sets,
        current.map(|running| &running.snapshot.policy),
    )
    .map_err(SelfCheckError::from)?;
    let compiled_at = monotonic();
    selfcheck::check_before_service(input, &compiled, Budget::SWAP)?;
    let checked_at = monotonic();
    compiled.dynamic.settle_sets(Arc::clone(previous.sets()));
    let identities = identity::of(&v4, &v6, &compiled.counters);
    let generation = current.map_or(1, |running| running.snapshot.generation + 1);
    let snapshot = Arc::new(Snapshot::new(generation, compiled.policy, workers));
    let timing = Timing {
        compile: compiled_at - start,
        selfcheck: checked_at - compiled_at,
        ..Timing::default()
    };
    let (counters, dynamic) = (compiled.counters, compiled.dynamic);
    let next = [&v4, &v6].into_iter().filter_map(|rules| expiry::next(rules, now_s));
    let expires_s = next.min();
    Ok((Running { v4, v6, counters, dynamic, identities, snapshot, expires_s }, timing))
}

fn sum(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0.wrapping_add(b.0), a.1.wrapping_add(b.1))
}

#[cfg(test)]
mod tests;
