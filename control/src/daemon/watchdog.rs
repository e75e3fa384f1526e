//! Noticing a worker that does not turn any more.
//!
//! The BPF programs have done what holds without a daemon for such a worker since it
//! missed the limit. This is the other half: it is said, shown, and after
//! [`PATIENCE`] limits the process ends, so that the service manager starts a new
//! one. When this process itself stood still (SIGSTOP, a suspended machine), nobody
//! is blamed. When housekeeping is stuck, the service manager's watchdog notices.

use dataplane::clock::Nanos;
use dataplane::stats::Stage;

use super::{Daemon, DaemonError};

/// A worker may be stuck for so many limits before the process ends.
pub(super) const PATIENCE: u64 = 10;

/// What is known of one worker at one look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) turns: u64,
    pub(super) stage: Stage,
}

/// What there is to do about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alarm {
    /// It has been still for longer than the limit, for the first time.
    Stuck { worker: usize, stage: Stage, still: Nanos },
    /// It turns again, after so long.
    Turns { worker: usize, still: Nanos },
    /// It has been stuck for too long.
    Hopeless { worker: usize, still: Nanos },
    /// Nobody looked for so long: the whole process stood still.
    Away { gap: Nanos },
}

#[derive(Clone, Debug)]
struct Watched {
    turns: u64,
    moved: Nanos,
    stuck: bool,
}

/// Watches all workers.
#[derive(Debug)]
pub(super) struct Watchdog {
    limit: Nanos,
    looked: Nanos,
    workers: Vec<Watched>,
}

impl Watchdog {
    /// With a limit of zero nothing is ever noticed.
    pub(super) fn new(limit: Nanos, workers: usize, now: Nanos) -> Self {
        let watched = Watched { turns: u64::MAX, moved: now, stuck: false };
        Self { limit, looked: now, workers: vec![watched; workers] }
    }

    /// Looks at every worker; returns what is new, by worker.
    pub(super) fn look(
        &mut self,
        now: Nanos,
        look: impl Fn(usize) -> Look,
        mut alarm: impl FnMut(Alarm),
    ) {
        let limit = self.limit;
        if limit == Nanos(0) {
            return;
        }
        let gap = now.saturating_sub(std::mem::replace(&mut self.looked, now));
        if gap > limit {
            alarm(Alarm::Away { gap });
        }
        // Half a limit is long for housekeeping: the workers may have had no time either.
        let excused = gap.0 > limit.0 / 2;
        for (worker, watched) in self.workers.iter_mut().enumerate() {
            let Look { turns, stage } = look(worker);
            let still = now.saturating_sub(watched.moved);
            if turns != watched.turns {
                let stuck = watched.stuck;
                *watched = Watched { turns, moved: now, stuck: false };
                if stuck {
                    alarm(Alarm::Turns { worker, still });
                }
            } else if excused {
                watched.moved = now;
            } else if still.0 > limit.0.saturating_mul(PATIENCE) {
                alarm(Alarm::Hopeless { worker, still });
            } else if still > limit && !watched.stuck {
                watched.stuck = true;
                alarm(Alarm::Stuck { worker, stage, still });
            }
        }
    }
}

impl Daemon {
    /// Says what is new about the workers.
    ///
    /// # Errors
    /// [`DaemonError::WorkerStuck`] when there is no more hope for one.
    pub(super) fn watch_workers(&self, dog: &mut Watchdog, now: Nanos) -> Result<(), DaemonError> {
        let sights = self.fleet.sights();
        let look = |worker: usize| {
            let stats = &sights[worker].stats;
            Look { turns: stats.turns.get(), stage: stats.stage() }
        };
        let mut hopeless = Ok(());
        dog.look(now, look, |alarm| match alarm {
            Alarm::Stuck { worker, stage, still } => {
                sights[worker].set_still_since(Some(now.saturating_sub(still)));
                let core = sights[worker].core.map_or_else(|| "?".to_owned(), |it| it.to_string());
                tracing::error!(
                    "worker {worker} (core {core}) has not turned for {} ms, {}: its traffic is {}; \
                     the process ends when that has lasted {} ms",
                    millis(still),
                    stage.name(),
                    self.config.failure.word(),
                    millis(self.config.failure.watchdog) * PATIENCE,
                );
            }
            Alarm::Turns { worker, still } => {
                sights[worker].set_still_since(None);
                tracing::warn!("worker {worker} turns again after {} ms", millis(still));
            }
            Alarm::Away { gap } => {
                let word = self.config.failure.word();
                tracing::warn!(
                    "the process stood still for {} ms: meanwhile traffic was {word}",
                    millis(gap)
                );
            }
            Alarm::Hopeless { worker, still } => {
                hopeless = Err(DaemonError::WorkerStuck { worker, still_ms: millis(still) });
            }
        });
        hopeless
    }
}

fn millis(time: Nanos) -> u64 {
    time.0 / Nanos::MILLISECOND.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Nanos = Nanos::from_millis(100);

    /// Looks every 10 ms from `from` to `to`, in milliseconds since the start.
    fn watch(dog: &mut Watchdog, from: u64, to: u64, turns: impl Fn(u64) -> u64) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        for at in (from..to).step_by(10) {
            let look = |_| Look { turns: turns(at), stage: Stage::Deciding };
            dog.look(Nanos::from_millis(at), look, |alarm| alarms.push(alarm));
        }
        alarms
    }

    #[test]
    fn a_worker_that_stands_still_is_named_once_and_ends_the_process_after_ten_limits() {
        let mut dog = Watchdog::new(LIMIT, 1, Nanos(0));
        assert_eq!(watch(&mut dog, 10, 500, |at| at), []);
        let alarms = watch(&mut dog, 500, 1490, |_| 490);
        let still = Nanos::from_millis(110);
        assert_eq!(alarms, [Alarm::Stuck { worker: 0, stage: Stage::Deciding, still }]);
        let alarms = watch(&mut dog, 1490, 1510, |_| 490);
        assert_eq!(alarms, [Alarm::Hopeless { worker: 0, still: Nanos::from_millis(1010) }]);
    }

    #[test]
    fn a_worker_that_comes_back_is_said_to() {
        let mut dog = Watchdog::new(LIMIT, 1, Nanos(0));
        watch(&mut dog, 10, 200, |_| 7);
        let alarms = watch(&mut dog, 200, 260, |at| at);
        assert!(matches!(alarms[..], [Alarm::Turns { worker: 0, .. }]), "{alarms:?}");
    }

    #[test]
    fn nobody_is_blamed_when_the_process_stood_still() {
        let mut dog = Watchdog::new(LIMIT, 1, Nanos(0));
        watch(&mut dog, 10, 100, |_| 7);
        let alarms = watch(&mut dog, 3100, 3150, |_| 7);
        assert_eq!(alarms, [Alarm::Away { gap: Nanos::from_millis(3010) }]);
    }

    #[test]
    fn without_a_limit_nothing_is_noticed() {
        let mut dog = Watchdog::new(Nanos(0), 1, Nanos(0));
        assert_eq!(watch(&mut dog, 10, 60_000, |_| 7), []);
    }
}
