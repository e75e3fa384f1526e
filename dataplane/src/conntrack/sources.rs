//! Who has which source: confirmed connections whose source translation is
//! decided, by their original source address, port and protocol, newest first.
//! The choice of a translation asks here for a mapping to use again.
//!
//! Lists are threaded through two words a record; a short lock chosen by hash
//! guards each. It is the innermost lock: nobody takes a record's or the index's
//! while holding one. A record is in a list from before it is CONFIRMED until
//! after it is DYING, and is not used again in between, so that whoever walks a
//! list under its lock may read the records' tuples.

use super::memory::Zeroed;
use super::sync::{AtomicU32, Ordering, relax};
use crate::prefetch::fetch;

#[cfg(not(loom))]
const STRIPES: usize = 1024;
#[cfg(loom)]
const STRIPES: usize = 1;

/// Connections of one source that are looked at, at most.
const WALK: usize = 256;

/// A record's neighbours in its list, by index plus one; zero for none.
pub(super) struct Link {
    next: AtomicU32,
    previous: AtomicU32,
}

/// All lists.
pub(super) struct Sources {
    heads: Zeroed<AtomicU32>,
    links: Zeroed<Link>,
    stripes: Box<[AtomicU32]>,
}

impl Sources {
    /// A list's head and a record's neighbours.
    pub(super) const BYTES_PER_RECORD: usize = size_of::<AtomicU32>() + size_of::<Link>();

    /// For records `0..len`.
    pub(super) fn new(len: usize) -> Self {
        let heads = if cfg!(loom) { 1 } else { len };
        Self {
            heads: Zeroed::new(heads),
            links: Zeroed::new(len),
            stripes: (0..STRIPES).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Asks memory for where the list of `hash` begins.
    #[inline]
    pub(super) fn fetch(&self, hash: u64) {
        fetch(&self.heads[self.place(hash)]);
    }

    /// Enters a record in the list of `hash`, in front.
    pub(super) fn insert(&self, hash: u64, record: u32) {
        let (_held, head) = self.list(hash);
        let first = head.load(Ordering::Relaxed);
        let link = &self.links[record as usize];
        link.next.store(first, Ordering::Relaxed);
        link.previous.store(0, Ordering::Relaxed);
        if let Some(first) = self.link(first) {
            first.previous.store(record + 1, Ordering::Relaxed);
        }
        head.store(record + 1, Ordering::Relaxed);
    }

    /// Takes a record out of the list of `hash`, where it is.
    pub(super) fn remove(&self, hash: u64, record: u32) {
        let (_held, head) = self.list(hash);
        let link = &self.links[record as usize];
        let next = link.next.load(Ordering::Relaxed);
        let previous = link.previous.load(Ordering::Relaxed);
        match self.link(previous) {
            Some(before) => before.next.store(next, Ordering::Relaxed),
            None => head.store(next, Ordering::Relaxed),
        }
        if let Some(after) = self.link(next) {
            after.previous.store(previous, Ordering::Relaxed);
        }
    }

    /// Visits the records in the list of `hash`, newest first, until `visit`
    /// returns something. No record of the list is used again meanwhile.
    pub(super) fn find<R>(&self, hash: u64, mut visit: impl FnMut(u32) -> Option<R>) -> Option<R> {
        let (_held, head) = self.list(hash);
        let mut at = head.load(Ordering::Relaxed);
        for _ in 0..WALK {
            let link = self.link(at)?;
            let found = visit(at - 1);
            if found.is_some() {
                return found;
            }
            at = link.next.load(Ordering::Relaxed);
        }
        None
    }

    fn link(&self, number: u32) -> Option<&Link> {
        Some(&self.links[number.checked_sub(1)? as usize])
    }

    fn place(&self, hash: u64) -> usize {
        (((hash >> 32) * self.heads.len() as u64) >> 32) as usize
    }

    /// The list's head, with its lock held.
    fn list(&self, hash: u64) -> (Held<'_>, &AtomicU32) {
        let at = self.place(hash);
        let stripe = &self.stripes[at % STRIPES];
        let mut attempt = 0;
        while stripe.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
            relax(attempt);
            attempt += 1;
        }
        (Held(stripe), &self.heads[at])
    }
}

impl Link {
    /// No neighbours.
    pub(super) fn zero() -> Self {
        Self { next: AtomicU32::new(0), previous: AtomicU32::new(0) }
    }
}

/// A held lock.
struct Held<'s>(&'s AtomicU32);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}
