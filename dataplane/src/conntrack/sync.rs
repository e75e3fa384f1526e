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

/// Indices of free records, first in, first out, so that a record rests as
/// long as possible before it is used again.
#[cfg(not(loom))]
pub(super) struct FreeList(crossbeam_queue::ArrayQueue<u32>);

#[cfg(not(loom))]
impl FreeList {
    pub(super) fn full(len: u32) -> Self {
        let queue = crossbeam_queue::ArrayQueue::new(len as usize);
        for index in 0..len {
            let _ = queue.push(index);
        }
        Self(queue)
    }
    pub(super) fn take(&self) -> Option<u32> {
        self.0.pop()
    }
    pub(super) fn give(&self, index: u32) {
        let refused = self.0.push(index);
        debug_assert!(refused.is_ok(), "a record was freed twice");
    }
}

#[cfg(loom)]
pub(super) struct FreeList(loom::sync::Mutex<std::collections::VecDeque<u32>>);

#[cfg(loom)]
impl FreeList {
    pub(super) fn full(len: u32) -> Self {
        Self(loom::sync::Mutex::new((0..len).collect()))
    }
    pub(super) fn take(&self) -> Option<u32> {
        self.0.lock().unwrap().pop_front()
    }
    pub(super) fn give(&self, index: u32) {
        let mut queue = self.0.lock().unwrap();
        assert!(!queue.contains(&index), "a record was freed twice");
        queue.push_back(index);
    }
}
