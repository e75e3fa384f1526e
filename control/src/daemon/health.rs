//! What must keep going while the daemon runs, and since when each has stood still.
//!
//! A beat is a counter that its owner raises as it works: a worker's turns, the
//! control thread's rounds. Whoever watches looks every now and then and asks for
//! those that have not moved. Nothing here writes to what it watches.

use std::fmt;

use dataplane::clock::Nanos;

/// Something that must keep going.
struct Beat {
    name: String,
    read: Box<dyn Fn() -> u64 + Send>,
    last: u64,
    moved: Nanos,
}

/// Everything that must keep going.
#[derive(Default)]
pub(super) struct Health {
    beats: Vec<Beat>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.beats.iter().map(|beat| &beat.name)).finish()
    }
}

impl Health {
    /// Watches one more counter, which counts as having moved `now`.
    pub(super) fn watch(
        &mut self,
        name: impl Into<String>,
        now: Nanos,
        read: impl Fn() -> u64 + Send + 'static,
    ) {
        let last = read();
        self.beats.push(Beat { name: name.into(), read: Box::new(read), last, moved: now });
    }

    /// Reads every counter.
    pub(super) fn look(&mut self, now: Nanos) {
        for beat in &mut self.beats {
            let count = (beat.read)();
            if count != beat.last {
                beat.last = count;
                beat.moved = now;
            }
        }
    }

    /// What had not moved after `since` when last looked at, with when it last had.
    pub(super) fn still(&self, since: Nanos) -> impl Iterator<Item = (&str, Nanos)> {
        let still = self.beats.iter().filter(move |beat| beat.moved <= since);
        still.map(|beat| (beat.name.as_str(), beat.moved))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn what_stands_still_is_named_until_it_moves() {
        let second = Nanos::from_secs;
        let counters = [Arc::new(AtomicU64::new(7)), Arc::new(AtomicU64::new(7))];
        let mut health = Health::default();
        for (index, counter) in counters.iter().enumerate() {
            let counter = Arc::clone(counter);
            health.watch(format!("worker {index}"), second(1), move || {
                counter.load(Ordering::Relaxed)
            });
        }
        let still = |health: &Health, since| -> Vec<(String, Nanos)> {
            health.still(since).map(|(name, moved)| (name.to_owned(), moved)).collect()
        };
        assert!(still(&health, Nanos(0)).is_empty(), "they began to count at 1 s");
        counters[0].store(8, Ordering::Relaxed);
        health.look(second(2));
        assert_eq!(still(&health, second(1)), [("worker 1".to_owned(), second(1))]);
        // A counter that went round has moved, too.
        counters[1].store(0, Ordering::Relaxed);
        health.look(second(3));
        assert_eq!(still(&health, second(2)), [("worker 0".to_owned(), second(2))]);
        assert!(still(&health, second(1)).is_empty());
    }
}
