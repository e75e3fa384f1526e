//! One connection's record: plain atomics in two cache lines, of which UDP's packets
//! touch one. What only some connections need lies elsewhere, and takes no memory
//! before the first of them: IPv6 addresses, and the extras ([`super::extra`]).
//!
//! Life: free -> embryonic (one owner, in no bucket) -> confirmed (in the
//! index) -> dying (out of the index) -> free. `generation` rises when a record
//! leaves the free list, so a handle from an earlier life never locks, changes
//! or reads a later one; until then a dying record can still be read by the
//! packet that killed it.
//!
//! Concurrency: every change happens inside [`Place::lock`], a compare-and-swap
//! on `meta` that fails for another generation. Readers take no lock. Lookups
//! compare the key and then check that the generation did not move; readers of
//! several fields check that the version did not move either (a seqlock).

use super::extra::{Extra, Extras};
use super::memory::{Line, Zero, Zeroed};
use super::sync::{AtomicU32, AtomicU64, Ordering, fence, relax};
use super::tuple::{Direction, Key, Tuple};
use crate::prefetch::fetch;

/// Words of protocol state in a record.
pub(super) const PROTO_WORDS: usize = 8;

/// A connection's storage.
#[repr(C, align(64))]
pub(super) struct Record {
    /// Generation in the high half, version in the low half; an odd version is a held lock.
    meta: AtomicU64,
    deadline: AtomicU64,
    status: AtomicU32,
    mark: AtomicU32,
    /// Per direction: head and IPv4 pair of the [`Key`].
    keys: [[AtomicU64; 2]; 2],
    /// Small protocol facts outside TCP (the UDP stream's start, GRE's timeouts).
    aux: AtomicU64,
    proto: [AtomicU64; PROTO_WORDS],
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Record>() == 128);

/// Per direction: the IPv6 addresses of the [`Key`].
type Wide = Line<[[AtomicU64; 4]; 2]>;

/// A status bit of the record's own: its extras were written in this life. Without it
/// they are all zero, whatever an earlier life has left there.
const EXTRAS: u32 = 1 << 30;

/// All records, free or not.
pub(super) struct Records {
    hot: Zeroed<Record>,
    wide: Zeroed<Wide>,
    extra: Zeroed<Line<Extra>>,
}

impl Records {
    /// Bytes that a record takes at most.
    pub(super) const BYTES: usize =
        size_of::<Record>() + size_of::<Wide>() + size_of::<Line<Extra>>();

    pub(super) fn new(len: usize) -> Self {
        Self { hot: Zeroed::new(len), wide: Zeroed::new(len), extra: Zeroed::new(len) }
    }

    pub(super) fn len(&self) -> usize {
        self.hot.len()
    }

    #[inline]
    pub(super) fn at(&self, at: usize) -> Place<'_> {
        Place { hot: &self.hot[at], all: self, at }
    }

    /// Asks memory for what tells whether a connection may go.
    #[inline]
    pub(super) fn fetch_head(&self, record: u32) {
        self.hot.get(record as usize).into_iter().for_each(fetch);
    }

    /// Asks memory for what a packet of `key` reads of a record.
    #[inline]
    pub(super) fn fetch(&self, at: usize, key: &Key) {
        let Some(hot) = self.hot.get(at) else { return };
        fetch(hot);
        if key.has_state() {
            fetch(&hot.proto);
        }
        if Key::is_wide(key.head) {
            fetch(&self.wide[at]);
        }
    }

    /// The same of IPv4; `stateful`: for a protocol with state.
    #[inline]
    pub(super) fn fetch_narrow(&self, at: usize, stateful: bool) {
        let Some(hot) = self.hot.get(at) else { return };
        fetch(hot);
        if stateful {
            fetch(&hot.proto);
        }
    }

    /// Has the next pages of what every connection needs there; see [`Zeroed::populate`].
    pub(super) fn populate(&self, from: usize) -> Option<usize> {
        self.hot.populate(from)
    }
}

/// A record, and what belongs to it elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Place<'t> {
    hot: &'t Record,
    all: &'t Records,
    at: usize,
}

/// A record, but for its extras, at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) generation: u32,
    pub(super) deadline: u64,
    pub(super) status: u32,
    pub(super) mark: u32,
    pub(super) aux: u64,
    pub(super) proto: [u64; PROTO_WORDS],
    pub(super) original: Tuple,
    pub(super) reply: Tuple,
}

impl Contents {
    /// The protocol's state, for protocols that have one.
    pub(super) const fn state(&self) -> u8 {
        state_of(self.proto[0])
    }
}

/// TCP's and SCTP's state have one place.
const fn state_of(word: u64) -> u8 {
    (word >> 32) as u8
}

const fn generation_of(meta: u64) -> u32 {
    (meta >> 32) as u32
}

const fn join(generation: u32, version: u32) -> u64 {
    (generation as u64) << 32 | version as u64
}

impl Record {
    /// All zero.
    pub(super) fn zero() -> Self {
        let pair = || [AtomicU64::zero(), AtomicU64::zero()];
        Self {
            meta: AtomicU64::zero(),
            deadline: AtomicU64::zero(),
            status: AtomicU32::zero(),
            mark: AtomicU32::zero(),
            keys: [pair(), pair()],
            aux: AtomicU64::zero(),
            proto: Zero::zero(),
        }
    }
}

impl<'t> Place<'t> {
    fn wide(self) -> &'t [[AtomicU64; 4]; 2] {
        &self.all.wide[self.at].0
    }

    fn extra(self) -> &'t Extra {
        &self.all.extra[self.at].0
    }

    /// The present generation.
    pub(super) fn generation(self) -> u32 {
        generation_of(self.hot.meta.load(Ordering::Acquire))
    }

    /// Enters the record for writing; `None` when it has another generation.
    #[inline]
    pub(super) fn lock(self, generation: u32) -> Option<Locked<'t>> {
        self.enter(|found| (found == generation).then_some(generation))
    }

    /// Enters a record that came from the free list, in its next generation.
    pub(super) fn begin_life(self) -> Locked<'t> {
        loop {
            if let Some(locked) = self.enter(|found| Some(found.wrapping_add(1))) {
                return locked;
            }
        }
    }

    #[inline]
    fn enter(self, next: impl Fn(u32) -> Option<u32>) -> Option<Locked<'t>> {
        let mut attempt = 0;
        loop {
            let meta = self.hot.meta.load(Ordering::Relaxed);
            let generation = next(generation_of(meta))?;
            let version = meta as u32;
            if version & 1 == 0 {
                let taken = version.wrapping_add(1);
                let swap = self.hot.meta.compare_exchange(
                    meta,
                    join(generation, taken),
                    Ordering::Acquire,
                    Ordering::Relaxed,
                );
                if swap.is_ok() {
                    // Keeps the writes that follow behind the odd version.
                    fence(Ordering::Release);
                    return Some(Locked { place: self, generation, version: taken });
                }
            }
            relax(attempt);
            attempt += 1;
        }
    }

    /// Whether this direction's key is `key`, and of which generation and
    /// status the record that says so is. Never waits for a writer.
    #[inline]
    pub(super) fn matches(self, direction: Direction, key: &Key) -> Option<(u32, u32)> {
        let wide = || {
            let words = self.wide()[direction.index()].iter().zip(key.wide);
            words.into_iter().all(|(word, wanted)| word.load(Ordering::Relaxed) == wanted)
        };
        self.matches_narrow(direction, (key.head, key.pair), || !Key::is_wide(key.head) || wide())
    }

    /// The same of a head and a pair, if the rest is as it should be, too.
    #[inline]
    pub(super) fn matches_narrow(
        self,
        direction: Direction,
        (head, pair): (u64, u64),
        rest: impl Fn() -> bool,
    ) -> Option<(u32, u32)> {
        let words = &self.hot.keys[direction.index()];
        loop {
            let before = self.hot.meta.load(Ordering::Acquire);
            let equal = words[0].load(Ordering::Relaxed) == head
                && words[1].load(Ordering::Relaxed) == pair
                && rest();
            if !equal {
                return None;
            }
            let status = self.hot.status.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            let generation = generation_of(before);
            // Only a reuse of the record moves the generation: the loop is bounded
            // by other threads' progress, not by their locks.
            if generation == generation_of(self.hot.meta.load(Ordering::Relaxed)) {
                return Some((generation, status));
            }
        }
    }

    /// Time at which it expires (an interval while embryonic), in nanoseconds.
    pub(super) fn deadline(self) -> u64 {
        self.hot.deadline.load(Ordering::Relaxed)
    }

    /// Status bits, for callers that check the generation themselves.
    pub(super) fn status(self) -> u32 {
        self.hot.status.load(Ordering::Relaxed) & !EXTRAS
    }

    /// One field of the record in `generation`; `None` when it has moved on.
    pub(super) fn peek<T>(self, generation: u32, read: impl Fn(Self) -> T) -> Option<T> {
        if self.generation() != generation {
            return None;
        }
        let value = read(self);
        fence(Ordering::Acquire);
        (generation_of(self.hot.meta.load(Ordering::Relaxed)) == generation).then_some(value)
    }

    /// The mark, for use in [`Record::peek`].
    pub(super) fn mark(self) -> u32 {
        self.hot.mark.load(Ordering::Relaxed)
    }

    /// A consistent copy of all but the extras; `None` when `generation` is over.
    pub(super) fn contents(self, generation: Option<u32>) -> Option<Contents> {
        self.consistent(generation, Self::copy)
    }

    /// The port whose address it took, for use in [`Record::peek`].
    pub(super) fn masquerade_port(self) -> Option<u8> {
        // Nobody sees the bit and not what was written before it.
        let written = self.hot.status.load(Ordering::Acquire) & EXTRAS != 0;
        if written { self.extra().masquerade_port() } else { None }
    }

    /// A consistent copy of the extras and the status; `None` when `generation` is over.
    pub(super) fn extras(self, generation: u32) -> Option<(u32, Extras)> {
        self.consistent(Some(generation), |record, _| (record.status(), record.load_extras()))
    }

    /// A consistent copy of everything.
    pub(super) fn whole(self) -> Option<(Contents, Extras)> {
        self.consistent(None, |record, generation| (record.copy(generation), record.load_extras()))
    }

    /// What `read` finds while nobody writes.
    fn consistent<T>(self, generation: Option<u32>, read: impl Fn(Self, u32) -> T) -> Option<T> {
        let mut attempt = 0;
        loop {
            let before = self.hot.meta.load(Ordering::Acquire);
            if generation.is_some_and(|wanted| wanted != generation_of(before)) {
                return None;
            }
            if before & 1 == 0 {
                let found = read(self, generation_of(before));
                fence(Ordering::Acquire);
                if self.hot.meta.load(Ordering::Relaxed) == before {
                    return Some(found);
                }
            }
            relax(attempt);
            attempt += 1;
        }
    }

    /// For callers who see to it that they do not change, or check that.
    fn load_extras(self) -> Extras {
        match self.hot.status.load(Ordering::Relaxed) & EXTRAS {
            0 => Extras::default(),
            _ => self.extra().load(),
        }
    }

    fn copy(self, generation: u32) -> Contents {
        Contents {
            generation,
            deadline: self.deadline(),
            status: self.status(),
            mark: self.mark(),
            aux: self.hot.aux.load(Ordering::Relaxed),
            proto: std::array::from_fn(|at| self.hot.proto[at].load(Ordering::Relaxed)),
            original: self.tuple(Direction::Original),
            reply: self.tuple(Direction::Reply),
        }
    }

    /// A direction's key, whose hash is known, for callers that see to it that it does not
    /// change.
    #[inline]
    pub(super) fn key(self, direction: Direction, hash: u64) -> Key {
        let at = direction.index();
        let [head, pair] = [0, 1].map(|word| self.hot.keys[at][word].load(Ordering::Relaxed));
        let wide = if Key::is_wide(head) {
            std::array::from_fn(|word| self.wide()[at][word].load(Ordering::Relaxed))
        } else {
            [0; 4]
        };
        Key { head, pair, wide, hash }
    }

    /// A direction's tuple, for callers that see to it that it does not change.
    pub(super) fn tuple(self, direction: Direction) -> Tuple {
        self.key(direction, 0).tuple()
    }
}

/// The right to change a record, for as long as it is held.
pub(super) struct Locked<'r> {
    place: Place<'r>,
    generation: u32,
    version: u32,
}

impl Locked<'_> {
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }
    pub(super) fn status(&self) -> u32 {
        self.place.status()
    }
    pub(super) fn set_status(&self, status: u32) {
        let own = self.place.hot.status.load(Ordering::Relaxed) & EXTRAS;
        self.place.hot.status.store(status | own, Ordering::Relaxed);
    }
    pub(super) fn add_status(&self, bits: u32) {
        self.set_status(self.status() | bits);
    }
    /// Adds bits behind all that was written before: whoever sees them sees that, too.
    pub(super) fn release_status(&self, bits: u32) {
        let status = self.place.hot.status.load(Ordering::Relaxed);
        self.place.hot.status.store(status | bits, Ordering::Release);
    }
    pub(super) fn deadline(&self) -> u64 {
        self.place.deadline()
    }
    pub(super) fn set_deadline(&self, deadline: u64) {
        self.place.hot.deadline.store(deadline, Ordering::Relaxed);
    }
    pub(super) fn mark(&self) -> u32 {
        self.place.mark()
    }
    pub(super) fn set_mark(&self, mark: u32) {
        self.place.hot.mark.store(mark, Ordering::Relaxed);
    }
    pub(super) fn aux(&self) -> u64 {
        self.place.hot.aux.load(Ordering::Relaxed)
    }
    pub(super) fn set_aux(&self, aux: u64) {
        self.place.hot.aux.store(aux, Ordering::Relaxed);
    }
    pub(super) fn proto(&self) -> [u64; PROTO_WORDS] {
        std::array::from_fn(|at| self.place.hot.proto[at].load(Ordering::Relaxed))
    }
    pub(super) fn set_proto(&self, words: &[u64; PROTO_WORDS]) {
        for (cell, &word) in self.place.hot.proto.iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
    }
    /// The protocol's state, for protocols that have one.
    pub(super) fn state(&self) -> u8 {
        state_of(self.place.hot.proto[0].load(Ordering::Relaxed))
    }
    /// Status and extras of a new life.
    pub(super) fn clear(&self) {
        self.place.hot.status.store(0, Ordering::Relaxed);
    }
    pub(super) fn extras(&self) -> Extras {
        self.place.load_extras()
    }
    pub(super) fn store_extras(&self, extras: &Extras) {
        self.place.extra().store(extras);
        self.own_extras();
    }
    pub(super) fn update_extras(&self, change: impl FnOnce(&mut Extras)) {
        let mut extras = self.extras();
        change(&mut extras);
        self.store_extras(&extras);
    }
    /// Counts a packet.
    pub(super) fn account(&self, direction: Direction, bytes: u64) {
        if self.place.hot.status.load(Ordering::Relaxed) & EXTRAS == 0 {
            self.store_extras(&Extras::default());
        }
        self.place.extra().account(direction, bytes);
    }
    /// What was written there is this life's.
    fn own_extras(&self) {
        let status = self.place.hot.status.load(Ordering::Relaxed);
        self.place.hot.status.store(status | EXTRAS, Ordering::Release);
    }
    pub(super) fn tuple(&self, direction: Direction) -> Tuple {
        self.place.tuple(direction)
    }
    /// A direction's key, whose hash is known.
    #[inline]
    pub(super) fn key(&self, direction: Direction, hash: u64) -> Key {
        self.place.key(direction, hash)
    }
    /// Stores a direction's key. Only while no bucket refers to the record.
    pub(super) fn set_key(&self, direction: Direction, key: &Key) {
        let at = direction.index();
        self.place.hot.keys[at][0].store(key.head, Ordering::Relaxed);
        self.place.hot.keys[at][1].store(key.pair, Ordering::Relaxed);
        if Key::is_wide(key.head) {
            for (cell, word) in self.place.wide()[at].iter().zip(key.wide) {
                cell.store(word, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        let free = join(self.generation, self.version.wrapping_add(1));
        self.place.hot.meta.store(free, Ordering::Release);
    }
}
