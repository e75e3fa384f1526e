//! Publication of immutable values to workers, and reclamation after quiescence.
//!
//! Life cycle: [`Publisher::publish`] exchanges one pointer; each worker's
//! [`Subscription`] notices at its next burst and lets go of the old value; the
//! publisher keeps every retired value until it is the last owner, and frees
//! it in [`Publisher::reclaim`], on the control thread, never on a worker.
//!
//! The exchange itself is `arc-swap`'s; a worker pays one atomic load a burst.

use std::sync::Arc;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;

/// The control side. One per published kind of value.
#[derive(Debug)]
pub struct Publisher<T> {
    current: Arc<ArcSwap<T>>,
    retired: Vec<Arc<T>>,
}

/// A worker's view; `refresh` once per burst.
#[derive(Clone, Debug)]
pub struct Subscription<T> {
    cache: Cache<Arc<ArcSwap<T>>, Arc<T>>,
}

impl<T> Publisher<T> {
    /// Starts with `first` as the current value.
    pub fn new(first: Arc<T>) -> Self {
        Self { current: Arc::new(ArcSwap::new(first)), retired: Vec::new() }
    }
    /// A view for one more worker.
    pub fn subscribe(&self) -> Subscription<T> {
        Subscription { cache: Cache::new(Arc::clone(&self.current)) }
    }
    /// The current value.
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }
    /// Makes `next` current and returns what it replaced, which stays alive
    /// (and counting) until every worker has passed a burst boundary.
    pub fn publish(&mut self, next: Arc<T>) -> Arc<T> {
        let old = self.current.swap(next);
        self.retired.push(Arc::clone(&old));
        self.reclaim();
        old
    }
    /// Frees retired values that no worker holds any more; returns how many remain.
    pub fn reclaim(&mut self) -> usize {
        self.retired.retain(|value| Arc::strong_count(value) > 1);
        self.retired.len()
    }
}

impl<T> Subscription<T> {
    /// The value to use for this burst. Releases the previous one if it was replaced.
    #[inline]
    pub fn refresh(&mut self) -> &Arc<T> {
        self.cache.load()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_value_lives_until_the_last_worker_moves_on() {
        let mut publisher = Publisher::new(Arc::new(1));
        let mut worker = publisher.subscribe();
        assert_eq!(**worker.refresh(), 1);
        drop(publisher.publish(Arc::new(2)));
        assert_eq!(publisher.reclaim(), 1, "the worker still holds the old value");
        assert_eq!(**worker.refresh(), 2);
        assert_eq!(publisher.reclaim(), 0);
    }
}
