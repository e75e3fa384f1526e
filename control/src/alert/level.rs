//! When a value is too high, and when it no longer is: levels to enter and to leave, and how
//! long a value must stay there. Time is an argument.

use dataplane::clock::Nanos;

/// Where it begins and ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    /// It begins at this or above.
    pub enter: f64,
    /// It ends below this, which is not above `enter`.
    pub leave: f64,
    /// For how long the value must have been there for it to begin.
    pub hold_in: Nanos,
    /// And to end.
    pub hold_out: Nanos,
}

/// Whether a value is too high.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    active: bool,
    /// Since when the value is beyond the bound to cross next.
    since: Option<Nanos>,
}

impl Level {
    /// As it was before a restart.
    pub fn begin(active: bool) -> Self {
        Self { active, since: None }
    }

    /// Whether it is too high.
    pub fn is_active(self) -> bool {
        self.active
    }

    /// Takes in a value; what it has become, if it has changed.
    pub fn see(&mut self, value: f64, bounds: &Bounds, now: Nanos) -> Option<bool> {
        let (beyond, hold) = match self.active {
            false => (value >= bounds.enter, bounds.hold_in),
            true => (value < bounds.leave, bounds.hold_out),
        };
        if !beyond {
            self.since = None;
            return None;
        }
        let since = *self.since.get_or_insert(now);
        if now.saturating_sub(since) < hold {
            return None;
        }
        self.active = !self.active;
        self.since = None;
        Some(self.active)
    }
}

/// The rate at which a counter goes up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    last: Option<(Nanos, u64)>,
}

impl Rate {
    /// Events a second since the last time; nothing the first time, or when the counter has
    /// begun anew.
    pub fn see(&mut self, count: u64, now: Nanos) -> Option<f64> {
        let last = self.last.replace((now, count));
        let (then, before) = last?;
        let passed = now.saturating_sub(then);
        if passed == Nanos(0) || count < before {
            return None;
        }
        Some((count - before) as f64 * 1e9 / passed.0 as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        enter: 80.0,
        leave: 70.0,
        hold_in: Nanos::from_secs(2),
        hold_out: Nanos::from_secs(5),
    };

    #[test]
    fn it_takes_time_to_begin_and_to_end_and_what_wavers_does_neither() {
        let mut level = Level::default();
        let mut turns = Vec::new();
        let values = [
            // A peak is none.
            90, 90, 60, 90, 90, // It begins at 5 s.
            90, 75, 75, 75, 75, // Between the bounds nothing happens.
            60, 60, 60, 75, 60, 60, 60, 60, 60, // A fall that does not last; it ends at 19 s.
            60, 60,
        ];
        for (second, value) in values.into_iter().enumerate() {
            let now = Nanos::from_secs(second as u64);
            turns.extend(level.see(f64::from(value), &BOUNDS, now).map(|turn| (second, turn)));
        }
        assert_eq!(turns, [(5, true), (19, false)]);
        assert!(!level.is_active());
    }

    #[test]
    fn without_a_hold_it_is_at_once() {
        let bounds = Bounds { hold_in: Nanos(0), hold_out: Nanos(0), ..BOUNDS };
        let mut level = Level::begin(true);
        assert_eq!(level.see(10.0, &bounds, Nanos(5)), Some(false));
        assert_eq!(level.see(80.0, &bounds, Nanos(5)), Some(true));
    }

    #[test]
    fn rates_need_two_looks_and_no_counter_that_begins_anew() {
        let mut rate = Rate::default();
        assert_eq!(rate.see(100, Nanos::from_secs(1)), None);
        assert_eq!(rate.see(150, Nanos::from_millis(1500)), Some(100.0));
        assert_eq!(rate.see(150, Nanos::from_millis(1500)), None, "no time has passed");
        assert_eq!(rate.see(3, Nanos::from_secs(3)), None);
        assert_eq!(rate.see(5, Nanos::from_secs(4)), Some(2.0));
    }
}
