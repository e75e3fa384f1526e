//! What was replaced while workers may still read it: kept until they do not, so that it
//! is never a worker that frees a million elements.
//!
//! Filled and emptied by control threads, under the lock of whoever replaces. Bounded:
//! beyond [`MOST`] the eldest is let go, which workers have long left.

use std::sync::Arc;

/// Replaced ones at a time.
const MOST: usize = 4096;

#[derive(Debug)]
pub(super) struct Retired<T>(Vec<Arc<T>>);

impl<T> Default for Retired<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Retired<T> {
    /// Keeps it as long as anybody else does.
    pub(super) fn keep(&mut self, old: Arc<T>) {
        self.free();
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(old);
        self.free();
    }

    /// Frees what nobody else has.
    pub(super) fn free(&mut self) {
        self.0.retain(|old| Arc::strong_count(old) > 1);
    }
}
