//! A change that is undone unless somebody confirms it: the promise is on disk before the
//! policy is exchanged, so that neither a dead daemon nor a reboot breaks it.

use dataplane::clock::{Nanos, monotonic, wall_us};
use serde::{Deserialize, Serialize};

use super::record::{PolicyRef, Who, sum_of};

/// What the clocks show, and which boot the monotonic one counts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Microseconds since 1970.
    pub wall_us: u64,
    /// As [`monotonic`].
    pub monotonic: Nanos,
    /// The kernel's name for this boot; empty if it does not tell.
    pub boot: String,
}

impl Moment {
    /// Now.
    pub fn now() -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { wall_us: wall_us(), monotonic: monotonic(), boot: boot.trim().to_owned() }
    }
}

/// A change that waits for its confirmation.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// When it was made, in microseconds since 1970.
    pub began_us: u64,
    /// When it is undone.
    pub deadline_us: u64,
    /// The same by the clock that nobody sets, on the boot it was made in.
    pub deadline_ns: u64,
    /// That boot.
    pub boot: String,
    /// Who made it.
    pub who: Who,
    /// What waits.
    pub policy: PolicyRef,
    /// What comes back.
    pub previous: PolicyRef,
    /// Of this as JSON with an empty sum.
    pub sum: String,
}

impl Pending {
    /// A change at `now` that waits for `window`.
    pub fn new(
        now: &Moment,
        window: Nanos,
        who: Who,
        policy: PolicyRef,
        previous: PolicyRef,
    ) -> Self {
        let pending = Self {
            began_us: now.wall_us,
            deadline_us: now.wall_us.saturating_add(window.0 / 1_000),
            deadline_ns: (now.monotonic + window).0,
            boot: now.boot.clone(),
            who,
            policy,
            previous,
            sum: String::new(),
        };
        Self { sum: pending.computed(), ..pending }
    }

    fn computed(&self) -> String {
        let bare = Self { sum: String::new(), ..self.clone() };
        sum_of(&serde_json::to_vec(&bare).unwrap_or_default())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads one; `None` when it is not what was written.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let pending: Self = serde_json::from_slice(bytes).ok()?;
        (pending.computed() == pending.sum).then_some(pending)
    }

    /// How long it may still wait; zero when its time has come. After a reboot the wall clock
    /// decides; one that shows a time before the change knows nothing, and the time has come.
    pub fn left(&self, now: &Moment) -> Nanos {
        if !self.boot.is_empty() && self.boot == now.boot {
            return Nanos(self.deadline_ns).saturating_sub(now.monotonic);
        }
        if now.wall_us < self.began_us {
            return Nanos(0);
        }
        Nanos(self.deadline_us.saturating_sub(now.wall_us).saturating_mul(1_000))
    }
}
