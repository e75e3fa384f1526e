//! What every new connection changes, kept apart for each thread: how many are alive,
//! and what happened in the table.
//!
//! A line that all workers write passes from core to core with every connection. So a
//! thread has a lane of its own. In it rest credits: connections that are counted in
//! already and not there yet. They come and go in blocks, and are called back when the
//! table is full, so that its limit is exact; in small tables there are none.

use super::memory::Line;
use super::sync::{AtomicU32, AtomicU64, Ordering};

/// Lanes. Threads beyond them share.
#[cfg(not(loom))]
pub(super) const LANES: usize = 16;
#[cfg(loom)]
pub(super) const LANES: usize = 2;

/// Credits that are counted in at once, at most.
const BLOCK_MOST: usize = 64;
/// Blocks that a lane keeps of what it gives back.
const KEPT: u32 = 2;

/// This thread's lane.
#[cfg(not(loom))]
#[inline]
pub(super) fn lane() -> usize {
    use std::cell::Cell;
    use std::sync::atomic::AtomicUsize;

    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LANE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    LANE.with(|lane| match lane.get() {
        usize::MAX => {
            lane.set(NEXT.fetch_add(1, Ordering::Relaxed) % LANES);
            lane.get()
        }
        known => known,
    })
}

/// The model says which thread it is.
#[cfg(loom)]
pub(super) fn lane() -> usize {
    modelled::LANE.with(|lane| lane.get())
}

#[cfg(loom)]
pub(super) mod modelled {
    loom::thread_local! {
        pub(in super::super) static LANE: std::cell::Cell<usize> = std::cell::Cell::new(0);
    }
}

/// How many connections are alive.
pub(super) struct Live {
    /// Those, and all credits.
    taken: Line<AtomicU32>,
    credits: [Line<AtomicU32>; LANES],
    block: u32,
}

impl Live {
    /// None, in a table of this capacity.
    pub(super) fn new(capacity: usize) -> Self {
        Self::with_blocks((capacity / 4096).min(BLOCK_MOST) as u32)
    }

    /// None, and credits that come in such blocks.
    pub(super) fn with_blocks(block: u32) -> Self {
        let zero = || Line(AtomicU32::new(0));
        Self { taken: zero(), credits: std::array::from_fn(|_| zero()), block }
    }

    /// How many; exact while nobody changes it.
    pub(super) fn get(&self) -> u32 {
        let taken = self.taken.0.load(Ordering::Relaxed);
        let credits = self.credits.iter().map(|credits| credits.0.load(Ordering::Relaxed));
        taken.saturating_sub(credits.sum())
    }

    /// The same or a little more, less than a hundredth of `limit`, without a look at
    /// lanes that others write.
    #[inline]
    pub(super) fn at_most(&self, limit: u32) -> u32 {
        let off = LANES as u32 * KEPT * self.block;
        if off == 0 || limit / 100 > off {
            self.taken.0.load(Ordering::Relaxed)
        } else {
            self.get()
        }
    }

    /// Counts one in. False: that is more than `limit`, unless somebody left meanwhile.
    pub(super) fn enter(&self, limit: u32) -> bool {
        if self.block == 0 {
            return self.taken.0.fetch_add(1, Ordering::Relaxed) < limit;
        }
        let mine = &self.credits[lane()].0;
        let taken = self.taken.0.load(Ordering::Relaxed);
        // A limit that was lowered holds for credits, too.
        if taken <= limit && spend(mine) {
            return true;
        }
        let block = |taken: u32| taken.checked_add(self.block).filter(|next| *next <= limit);
        if self.taken.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, block).is_ok() {
            mine.fetch_add(self.block - 1, Ordering::Relaxed);
            return true;
        }
        self.recall();
        self.taken.0.fetch_add(1, Ordering::Relaxed) < limit
    }

    /// Counts one out.
    pub(super) fn leave(&self) {
        let mine = &self.credits[lane()].0;
        if mine.load(Ordering::Relaxed) < self.block * KEPT {
            mine.fetch_add(1, Ordering::Relaxed);
        } else {
            self.taken.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes back what [`Live::enter`] said is too many. It leaves no credit: nobody may
    /// spend what was never there.
    pub(super) fn withdraw(&self) {
        self.taken.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Takes all credits back.
    fn recall(&self) {
        for credits in &self.credits {
            if credits.0.load(Ordering::Relaxed) > 0 {
                let back = credits.0.swap(0, Ordering::Relaxed);
                self.taken.0.fetch_sub(back, Ordering::Relaxed);
            }
        }
    }
}

fn spend(credits: &AtomicU32) -> bool {
    let one = |credits: u32| credits.checked_sub(1);
    credits.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one).is_ok()
}

/// Eight counters, in each lane.
pub(super) struct Tally([Line<[AtomicU64; 8]>; LANES]);

impl Tally {
    pub(super) fn new() -> Self {
        let lane = |_| Line(std::array::from_fn(|_| AtomicU64::new(0)));
        Self(std::array::from_fn(lane))
    }

    pub(super) fn add(&self, counter: usize, amount: u64) {
        self.0[lane()].0[counter].fetch_add(amount, Ordering::Relaxed);
    }

    pub(super) fn get(&self, counter: usize) -> u64 {
        self.0.iter().map(|lane| lane.0[counter].load(Ordering::Relaxed)).sum()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Threads of real lanes: never more than the limit, all of it to be had, and exact
    /// when they rest.
    #[test]
    fn a_limit_is_exact_whoever_holds_credits() {
        for (block, limit) in [(0, 5), (4, 64), (16, 1000), (64, 129), (64, 300_000)] {
            let live = Live::with_blocks(block);
            let entered: u32 = std::thread::scope(|scope| {
                let work = |share: u32| {
                    let live = &live;
                    move || {
                        let entered = (0..share).filter(|_| {
                            live.enter(limit) || {
                                live.withdraw();
                                false
                            }
                        });
                        let entered = entered.count() as u32;
                        let left = entered / 3;
                        (0..left).for_each(|_| live.leave());
                        entered - left
                    }
                };
                let threads = [limit, limit / 2, limit].map(|share| scope.spawn(work(share)));
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(live.get(), entered, "blocks of {block} at {limit}");
            assert!(entered <= limit);
            assert!(live.at_most(limit) >= entered);
            assert!(live.at_most(limit) - entered <= limit / 100);
            // What the others' lanes rest on is to be had.
            for _ in entered..limit {
                assert!(live.enter(limit));
            }
            assert!(!live.enter(limit));
            live.withdraw();
            assert_eq!(live.get(), limit);
            // A lower limit holds for credits, too.
            live.leave();
            assert!(!live.enter(limit - 1));
        }
    }
}
