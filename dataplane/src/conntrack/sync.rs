//! The atomics and the free list that the concurrent core uses, exchanged for
//! their modelled twins under `--cfg loom`.

#[cfg(not(loom))]
pub(super) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Called between attempts to take a short lock that another thread holds.
#[cfg(not(loom))]
pub(super) fn relax(attempt: u32) {
    // Holders keep a lock for nanoseconds, unless the system preempted them;
    // then this core's time is best given away.
    const SPINS: u32 = 512;
    if attempt < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
}

#[cfg(loom)]
pub(super) fn relax(_attempt: u32) {
    loom::thread::yield_now();
}

#[cfg(not(loom))]
pub(super) use super::stock::{FreeList, Taken};

/// A record that was free, and the same again.
#[cfg(loom)]
pub(super) struct Taken {
    pub(super) record: u32,
    pub(super) soon: u32,
}

/// A free list that is one step for the models of the rest; [`super::free::Ring`] has
/// models of its own.
#[cfg(loom)]
pub(super) struct FreeList(loom::sync::Mutex<std::collections::VecDeque<u32>>);

#[cfg(loom)]
impl FreeList {
    pub(super) fn full(len: u32) -> Self {
        Self(loom::sync::Mutex::new((0..len).collect()))
    }
    pub(super) const fn bytes(_: usize) -> u64 {
        0
    }
    pub(super) fn take(&self) -> Option<Taken> {
        self.0.lock().unwrap().pop_front().map(|record| Taken { record, soon: record })
    }
    pub(super) fn used(&self) -> u32 {
        u32::MAX
    }
    pub(super) fn give(&self, index: u32) {
        let mut queue = self.0.lock().unwrap();
        assert!(!queue.contains(&index), "a record was freed twice");
        queue.push_back(index);
    }
}
