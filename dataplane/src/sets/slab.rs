//! Where entries lie: rows of atomic words that never move, in chunks each as large as
//! all before it together.
//!
//! A row is a state word, the key, and what the set's extensions keep. A state is a
//! version and flags; the key changes only while the state says that nothing is there,
//! and every change makes a new version, so that a reader who finds the same state
//! before and after has read one key. Extensions are words of their own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::element::{Extras, SkbInfo};
use super::key::{Key, WORDS};
use super::memory::{touch, zeroed};
use super::spec::CreateSpec;
use crate::clock::Nanos;

/// Flags of a state.
pub(super) const LIVE: u64 = 1;
/// An exception.
pub(super) const NOMATCH: u64 = 2;
/// `bitmap:ip,mac`: its link-layer address is known.
pub(super) const FILLED: u64 = 4;
/// Its comment is kept beside the rows.
pub(super) const COMMENTED: u64 = 8;
pub(super) const FLAGS: u64 = 15;
const VERSION: u64 = 16;

/// Where a row's words are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    key_words: usize,
    timeout: Option<usize>,
    counters: Option<usize>,
    skb: Option<usize>,
    words: usize,
}

impl Layout {
    pub(super) fn new(spec: &CreateSpec, key_words: usize) -> Self {
        let mut words = 1 + key_words;
        let mut take = |wanted: bool, count: usize| {
            let at = words;
            words += if wanted { count } else { 0 };
            wanted.then_some(at)
        };
        let timeout = take(spec.timeout.is_some(), 1);
        let counters = take(spec.counters, 2);
        let skb = take(spec.skbinfo, 2);
        Self { key_words, timeout, counters, skb, words }
    }

    /// Bytes of a row.
    pub(super) fn row_bytes(&self) -> u64 {
        8 * self.words as u64
    }
}

/// Rows of the first chunk, as a power of two.
const FIRST_SHIFT: u32 = 6;

type Chunk = OnceLock<Box<[AtomicU64]>>;

/// Rows, in chunks that are made when they are first needed.
#[derive(Debug)]
pub(super) struct Slab {
    layout: Layout,
    /// Rows there may be.
    most: u32,
    /// Rows that were prepared, from the first to the last such.
    high: AtomicU32,
    chunks: Box<[Chunk]>,
}

/// Chunk and place in it of a row.
#[inline]
fn place(row: u32) -> (usize, usize) {
    let chunk = ((row >> FIRST_SHIFT) + 1).ilog2();
    (chunk as usize, (row - first_row(chunk)) as usize)
}

/// The first row of a chunk.
#[inline]
fn first_row(chunk: u32) -> u32 {
    ((1 << chunk) - 1) << FIRST_SHIFT
}

impl Slab {
    /// Room for at most `most` rows; none is made yet.
    pub(super) fn new(layout: Layout, most: u32) -> Self {
        let most = most.max(1);
        let chunks = place(most - 1).0 + 1;
        let (high, chunks) = (AtomicU32::new(0), (0..chunks).map(|_| Chunk::new()).collect());
        Self { layout, most, high, chunks }
    }

    /// Words of a chunk.
    fn chunk_words(&self, chunk: usize) -> usize {
        let rows = (1_u64 << (chunk as u32 + FIRST_SHIFT))
            .min(u64::from(self.most - first_row(chunk as u32)));
        rows as usize * self.layout.words
    }

    /// Makes the row's chunk if that is not there yet.
    pub(super) fn prepare(&self, row: u32) {
        if row >= self.most {
            return;
        }
        if row >= self.high.load(Ordering::Relaxed) {
            self.high.fetch_max(row + 1, Ordering::Relaxed);
        }
        let (chunk, _) = place(row);
        self.chunks[chunk].get_or_init(|| zeroed(self.chunk_words(chunk)));
    }

    /// Makes all rows below `rows`, down to the last page: who uses them waits for nothing.
    pub(super) fn prepare_to(&self, rows: u32) {
        let rows = rows.min(self.most);
        let Some(last) = rows.checked_sub(1) else { return };
        self.high.fetch_max(rows, Ordering::Relaxed);
        for (at, chunk) in self.chunks.iter().enumerate().take(place(last).0 + 1) {
            touch(chunk.get_or_init(|| zeroed(self.chunk_words(at))));
        }
    }

    /// The chunk behind the one that `fresh`, the first row that was never used, is in the
    /// second half of, unless there is none or it was made, and its words.
    pub(super) fn next_chunk(&self, fresh: u32) -> Option<(usize, usize)> {
        let (chunk, at) = place(fresh.min(self.most - 1));
        let next = self.chunks.get(chunk + 1).filter(|next| next.get().is_none());
        let late = at * 2 * self.layout.words >= self.chunk_words(chunk);
        (late && next.is_some()).then(|| (chunk + 1, self.chunk_words(chunk + 1)))
    }

    /// Zeroed words for a chunk that [`Slab::next_chunk`] named, unless somebody was first.
    pub(super) fn supply(&self, chunk: usize, words: Box<[AtomicU64]>) {
        debug_assert_eq!(words.len(), self.chunk_words(chunk), "another chunk's");
        let _another_was_first = self.chunks[chunk].set(words);
    }

    /// The row; `None` if its chunk was never made.
    #[inline]
    pub(super) fn row(&self, row: u32) -> Option<Row<'_>> {
        let (chunk, at) = place(row);
        let at = at * self.layout.words;
        let words = self.chunks.get(chunk)?.get()?.get(at..at + self.layout.words)?;
        Some(Row { words, layout: &self.layout })
    }

    /// Bytes that are in use.
    pub(super) fn bytes(&self) -> u64 {
        let rows = u64::from(self.high.load(Ordering::Relaxed));
        rows * self.layout.row_bytes() + size_of_val(&*self.chunks) as u64
    }
}

/// What a packet asks of an entry besides its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) now: Nanos,
    /// Bytes that the packet counts for.
    pub(super) bytes: u64,
    /// Whether entries count it.
    pub(super) update: bool,
    /// What counters must be.
    pub(super) packets: Option<CountTest>,
    pub(super) octets: Option<CountTest>,
}

/// `--packets-eq` and its kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CountTest {
    /// `-eq`.
    Equal(u64),
    /// `! -eq`.
    NotEqual(u64),
    /// `-lt`.
    Less(u64),
    /// `-gt`.
    Greater(u64),
}

impl CountTest {
    fn holds(self, count: u64) -> bool {
        match self {
            Self::Equal(value) => count == value,
            Self::NotEqual(value) => count != value,
            Self::Less(value) => count < value,
            Self::Greater(value) => count > value,
        }
    }
}

/// `skbinfo` of an entry: zeros where nothing was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) mark: u32,
    pub(super) mask: u32,
    pub(super) priority: u32,
    pub(super) queue: u16,
}

impl Mapped {
    pub(super) fn of(skb: Option<SkbInfo>) -> Self {
        let skb = skb.unwrap_or_default();
        let (mark, mask) = skb.mark.unwrap_or_default();
        let (priority, queue) = (skb.priority.unwrap_or_default(), skb.queue.unwrap_or_default());
        Self { mark, mask, priority, queue }
    }

    fn listed(self) -> SkbInfo {
        SkbInfo {
            mark: (self.mark != 0 || self.mask != 0).then_some((self.mark, self.mask)),
            priority: (self.priority != 0).then_some(self.priority),
            queue: (self.queue != 0).then_some(self.queue),
        }
    }
}

/// One entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'s> {
    words: &'s [AtomicU64],
    layout: &'s Layout,
}

impl Row<'_> {
    #[inline]
    pub(super) fn state(&self) -> u64 {
        self.words[0].load(Ordering::Acquire)
    }

    /// State and key as they were at one instant; `None` if nothing is there.
    #[inline]
    pub(super) fn read(&self) -> Option<(u64, Key)> {
        loop {
            let state = self.state();
            if state & LIVE == 0 {
                return None;
            }
            let mut key = [0; WORDS];
            for (word, stored) in key.iter_mut().zip(&self.words[1..=self.layout.key_words]) {
                *word = stored.load(Ordering::Relaxed);
            }
            fence(Ordering::Acquire);
            if self.words[0].load(Ordering::Relaxed) == state {
                return Some((state, key));
            }
        }
    }

    /// Says that something else is here from now on. Only under the writer's lock.
    pub(super) fn set_state(&self, flags: u64) {
        let next = (self.words[0].load(Ordering::Relaxed) & !FLAGS) + VERSION;
        self.words[0].store(next | flags, Ordering::Release);
    }

    /// Writes the key of a row that is not live. Only under the writer's lock.
    pub(super) fn set_key(&self, key: &Key) {
        fence(Ordering::Release);
        for (word, stored) in key.iter().zip(&self.words[1..=self.layout.key_words]) {
            stored.store(*word, Ordering::Relaxed);
        }
    }

    /// A word for the writer's use while the row is not live.
    pub(super) fn spare(&self) -> u64 {
        self.words[1].load(Ordering::Relaxed)
    }

    /// Sets it; who reads it as a key sees that the row is not live any more.
    pub(super) fn set_spare(&self, value: u64) {
        fence(Ordering::Release);
        self.words[1].store(value, Ordering::Relaxed);
    }

    fn word(&self, at: Option<usize>, plus: usize) -> Option<&AtomicU64> {
        at.map(|at| &self.words[at + plus])
    }

    /// Whether its time is over.
    #[inline]
    pub(super) fn expired(&self, now: Nanos) -> bool {
        self.word(self.layout.timeout, 0).is_some_and(|word| {
            let deadline = word.load(Ordering::Relaxed);
            deadline != 0 && deadline < now.0
        })
    }

    /// When its time is over, if ever.
    pub(super) fn deadline(&self) -> Option<Nanos> {
        let deadline = self.word(self.layout.timeout, 0)?.load(Ordering::Relaxed);
        (deadline != 0).then_some(Nanos(deadline))
    }

    /// Seconds without a deadline: for entries whose time does not run yet.
    pub(super) fn hold_timeout(&self, timeout_s: u32) {
        if let Some(word) = self.word(self.layout.timeout, 0) {
            word.store(u64::from(timeout_s), Ordering::Relaxed);
        }
    }

    pub(super) fn held_timeout(&self) -> u32 {
        self.word(self.layout.timeout, 0).map_or(0, |word| word.load(Ordering::Relaxed) as u32)
    }

    /// Starts its time; 0 is for ever.
    pub(super) fn start_timeout(&self, timeout_s: u32, now: Nanos) {
        if let Some(word) = self.word(self.layout.timeout, 0) {
            let deadline = match timeout_s {
                0 => 0,
                seconds => (now + Nanos::from_secs(u64::from(seconds))).0.max(1),
            };
            word.store(deadline, Ordering::Relaxed);
        }
    }

    /// Forgets what an earlier entry left.
    pub(super) fn clear(&self) {
        for word in &self.words[1 + self.layout.key_words..] {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Everything but the timeout, as far as it was said; `skbinfo` in any case.
    pub(super) fn init(&self, extras: &Extras) {
        let counters = self.layout.counters;
        for (plus, value) in [extras.bytes, extras.packets].into_iter().enumerate() {
            if let (Some(word), Some(value)) = (self.word(counters, plus), value) {
                word.store(value, Ordering::Relaxed);
            }
        }
        if let (Some(one), Some(two)) =
            (self.word(self.layout.skb, 0), self.word(self.layout.skb, 1))
        {
            let skb = Mapped::of(extras.skb);
            one.store(u64::from(skb.mark) << 32 | u64::from(skb.mask), Ordering::Relaxed);
            two.store(u64::from(skb.priority) << 16 | u64::from(skb.queue), Ordering::Relaxed);
        }
    }

    /// Whether it matches once its key does: counts the packet, and looks at the counters.
    #[inline]
    pub(super) fn answers(&self, ask: &Ask, mapped: &mut Mapped) -> bool {
        if self.expired(ask.now) {
            return false;
        }
        if let (Some(bytes), Some(packets)) =
            (self.word(self.layout.counters, 0), self.word(self.layout.counters, 1))
        {
            if ask.update {
                bytes.fetch_add(ask.bytes, Ordering::Relaxed);
                packets.fetch_add(1, Ordering::Relaxed);
            }
            let holds = |test: Option<CountTest>, word: &AtomicU64| {
                test.is_none_or(|test| test.holds(word.load(Ordering::Relaxed)))
            };
            if !holds(ask.packets, packets) || !holds(ask.octets, bytes) {
                return false;
            }
        }
        if let Some(skb) = self.mapped() {
            *mapped = skb;
        }
        true
    }

    fn mapped(&self) -> Option<Mapped> {
        let one = self.word(self.layout.skb, 0)?.load(Ordering::Relaxed);
        let two = self.word(self.layout.skb, 1)?.load(Ordering::Relaxed);
        Some(Mapped {
            mark: (one >> 32) as u32,
            mask: one as u32,
            priority: (two >> 16) as u32,
            queue: two as u16,
        })
    }

    /// What it carries, for a listing.
    pub(super) fn extras(&self, state: u64, running: bool, now: Nanos) -> Extras {
        let deadline = |word: &AtomicU64| match word.load(Ordering::Relaxed) {
            seconds if !running => seconds as u32,
            0 => 0,
            deadline => (Nanos(deadline).saturating_sub(now).as_secs() as u32).max(1),
        };
        let count = |plus| {
            let word = self.word(self.layout.counters, plus);
            word.map(|word| word.load(Ordering::Relaxed))
        };
        Extras {
            timeout_s: self.word(self.layout.timeout, 0).map(deadline),
            packets: count(1),
            bytes: count(0),
            skb: self.mapped().map(Mapped::listed),
            nomatch: state & NOMATCH != 0,
            comment: None,
        }
    }
}
