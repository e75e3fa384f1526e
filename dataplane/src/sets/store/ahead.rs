//! Memory that a growing set is about to need, made ready by who may wait for it.
//!
//! A large page is zeroed when it is first written, which takes longer than the addition
//! that happens to write it may. So housekeeping looks ahead: well before an index is
//! half full, or the last rows are used, the next ones are there down to their last page.
//! Where growth outruns it, whoever adds makes them, as without it.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::memory::{touch, zeroed};
use super::Store;

/// Words of what is worth it; less comes in small pages.
const WORTH: usize = 1 << 16;
/// Words that are made ready at once: 4 MiB, about a millisecond.
const STEP: usize = 1 << 19;

/// Words, of which the first are there.
#[derive(Debug)]
struct Batch {
    words: Box<[AtomicU64]>,
    ready: usize,
}

/// What is being made for a set.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    index: Making,
    chunk: Making,
}

/// One thing that is being made. Who makes it takes it out meanwhile, so that nobody who
/// only looks for it waits.
#[derive(Debug, Default)]
struct Making(Mutex<Option<Batch>>);

impl Making {
    fn lock(&self) -> MutexGuard<'_, Option<Batch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes another piece of so many words ready; zero: nothing is wanted. Whether all
    /// of it is.
    fn work(&self, words: usize) -> bool {
        // Let go of what is not wanted any more only after the lock: that takes its time.
        let kept = self.lock().take();
        if words == 0 {
            return false;
        }
        let kept = kept.filter(|batch| batch.words.len() == words);
        let mut batch = kept.unwrap_or_else(|| Batch { words: zeroed(words), ready: 0 });
        let next = batch.words.len().min(batch.ready + STEP);
        touch(&batch.words[batch.ready..next]);
        batch.ready = next;
        *self.lock() = Some(batch);
        next == words
    }

    fn take(&self, words: usize) -> Option<Box<[AtomicU64]>> {
        let mut kept = self.lock();
        kept.take_if(|batch| batch.words.len() == words).map(|batch| batch.words)
    }
}

impl Store {
    /// Makes some of what the set will need soon ready, if anything.
    pub(in crate::sets) fn foresee(&self) {
        self.ahead.index.work(self.next_index());
        let (fresh, slab) = {
            let writer = self.writer();
            (writer.fresh, std::sync::Arc::clone(&self.table().slab))
        };
        let next = slab.next_chunk(fresh).filter(|(_, words)| *words >= WORTH);
        let (chunk, words) = next.unwrap_or_default();
        if self.ahead.chunk.work(words)
            && let Some(words) = self.ahead.chunk.take(words)
        {
            slab.supply(chunk, words);
        }
    }

    /// Slots of the index that replaces the present one soon; zero: none does.
    fn next_index(&self) -> usize {
        let table = self.table();
        let (live, slots) = (self.live() as usize, table.index.len());
        if table.before.is_some() {
            return 0;
        }
        let grows = live * 16 > slots * 5 && self.maxelem as usize * 2 > slots;
        let next = match grows {
            true => slots * 2,
            false if table.index.is_worn(live + slots / 16) => slots,
            false => 0,
        };
        if next < WORTH { 0 } else { next }
    }

    /// Zeroed slots for an index: those that were foreseen, or new ones.
    pub(super) fn slots(&self, count: usize) -> Box<[AtomicU64]> {
        self.ahead.index.take(count).unwrap_or_else(|| zeroed(count))
    }

    /// Where the slots that were foreseen lie, and how many are ready.
    #[cfg(test)]
    pub(in crate::sets) fn foreseen(&self) -> Option<(*const AtomicU64, usize)> {
        self.ahead.index.lock().as_ref().map(|batch| (batch.words.as_ptr(), batch.ready))
    }
}
