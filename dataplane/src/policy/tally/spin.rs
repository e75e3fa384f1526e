//! A lock for a few dozen instructions.
//!
//! Concurrency: whoever wants it spins; nobody sleeps, so a worker loses the time of
//! another's lookup at most. Listings hold it for a page of a table at a time.

use std::sync::{Mutex, MutexGuard, TryLockError};

#[derive(Debug, Default)]
pub(super) struct Spin<T>(Mutex<T>);

impl<T> Spin<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        loop {
            match self.0.try_lock() {
                Ok(guard) => return guard,
                // Nothing panics half-way through a change.
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
    }
}
