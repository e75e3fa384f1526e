//! What the service manager (systemd) is told: readiness, reloads, the end, a line of
//! status, and that the daemon is alive.
//!
//! The watchdog is fed from housekeeping, and only while everything that must keep going
//! does: the main thread by being here, every worker and the control thread by their
//! beats. A daemon that was not started by a service manager tells nobody.

use dataplane::clock::{Nanos, monotonic, of_kernel};
use sd_notify::NotifyState;

use super::health::Health;

/// How often the line of status is renewed.
const STATUS_EVERY: Nanos = Nanos::from_secs(10);

/// Frames flow and the control socket answers.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The policy or the configuration is being read again; [`ready`] follows.
pub(super) fn reloading() {
    let now = i128::from(of_kernel(monotonic()) / 1000);
    tell(&[
        NotifyState::Reloading,
        NotifyState::MonotonicUsec(now),
        NotifyState::Status("reloading"),
    ]);
}

/// The daemon is about to end.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// A manager that does not listen is no reason to stop.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("the service manager was not told: {error}");
    }
}

/// The duties that come round: the watchdog and the status.
#[derive(Debug)]
pub(super) struct Duties {
    health: Health,
    /// Half of the watchdog's time, when there is one.
    ping_every: Option<Nanos>,
    /// When it was last fed.
    pinged: Option<Nanos>,
    next_ping: Nanos,
    next_status: Nanos,
    /// What was last complained about.
    complaint: Option<String>,
}

impl Duties {
    /// Takes the watchdog's time from the environment, as systemd gives it.
    pub(super) fn new(health: Health, now: Nanos) -> Self {
        let limit = sd_notify::watchdog_enabled().map(|limit| limit.as_nanos());
        Self::with_limit(health, now, limit.and_then(|limit| u64::try_from(limit).ok()).map(Nanos))
    }

    fn with_limit(health: Health, now: Nanos, limit: Option<Nanos>) -> Self {
        Self {
            health,
            ping_every: limit.map(|limit| Nanos((limit.0 / 2).max(1))),
            pinged: None,
            next_ping: now,
            next_status: now + STATUS_EVERY,
            complaint: None,
        }
    }

    /// Does what is due. `status` makes the line of status.
    pub(super) fn turn(&mut self, now: Nanos, status: impl FnOnce() -> String) {
        if self.ping_due(now) {
            tell(&[NotifyState::Watchdog]);
        }
        if now >= self.next_status {
            self.next_status = now + STATUS_EVERY;
            tell(&[NotifyState::Status(&status())]);
        }
    }

    /// Whether the watchdog is to be fed now: its time has come, and everything has moved
    /// since it was last fed. What stands still is complained about once, and asked again
    /// soon, as the watchdog's time is short by then.
    fn ping_due(&mut self, now: Nanos) -> bool {
        let Some(every) = self.ping_every else { return false };
        if now < self.next_ping {
            return false;
        }
        self.health.look(now);
        // The first time comes before anything had a chance to move.
        let still = self.pinged.and_then(|pinged| self.health.still(pinged).next());
        let still = still.map(|(name, _)| name.to_owned());
        if still.is_some() {
            self.next_ping = now + Nanos((every.0 / 8).max(1));
            if still != self.complaint {
                let name = still.as_deref().unwrap_or_default();
                tracing::error!("{name} stands still: the watchdog is not fed");
            }
            self.complaint = still;
            return false;
        }
        self.complaint = None;
        self.pinged = Some(now);
        self.next_ping = now + every;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn the_watchdog_is_fed_while_everything_moves() {
        let at = Nanos::from_secs;
        let counters = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
        let mut health = Health::default();
        for counter in &counters {
            let counter = Arc::clone(counter);
            health.watch("worker", at(100), move || counter.load(Ordering::Relaxed));
        }
        let mut duties = Duties::with_limit(health, at(100), Some(at(10)));
        let work = |index: usize| counters[index].fetch_add(1, Ordering::Relaxed);
        assert!(duties.ping_due(at(100)), "at once");
        assert!(!duties.ping_due(at(104)), "not before half of the time");
        work(0);
        work(1);
        assert!(duties.ping_due(at(105)));
        work(0);
        assert!(!duties.ping_due(at(110)), "one stands still");
        assert!(duties.complaint.is_some());
        assert!(!duties.ping_due(at(113)), "still");
        work(1);
        assert!(duties.ping_due(at(114)), "it moved: fed at the next look");
        assert!(duties.complaint.is_none());
    }

    #[test]
    fn without_a_watchdog_there_is_nothing_to_feed() {
        let mut duties = Duties::with_limit(Health::default(), Nanos(5), None);
        assert!(!duties.ping_due(Nanos::from_secs(1000)));
    }
}
