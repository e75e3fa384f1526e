//! The four rings that a socket shares with the kernel.
//!
//! Indices are free-running u32 counters that wrap; an entry's place is its
//! index modulo the size, a power of two. The producer's index is written with
//! release after the entries and read with acquire before them; the consumer's
//! index likewise the other way round. Each side keeps a copy of the other's
//! index and looks again only when that says the ring is full or empty.
//!
//! Nothing here asks the kernel anything: the tests run over plain memory.

#![allow(unsafe_code, reason = "rings are memory shared with the kernel")]

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::MmapRaw;

/// Where a ring's parts lie in its mapping, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) producer: usize,
    pub(super) consumer: usize,
    pub(super) flags: usize,
    pub(super) entries: usize,
}

impl Layout {
    /// Bytes to map for `size` entries of type `T`.
    pub(super) fn bytes<T>(&self, size: u32) -> usize {
        self.entries + size as usize * size_of::<T>()
    }
}

/// The kernel described a ring that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel describes a ring that does not fit its mapping")]
pub struct RingLayoutError;

/// A type of which every bit pattern is a value: safe to read from a ring.
pub(super) trait Entry: Copy {}
impl Entry for u64 {}
impl Entry for libc::xdp_desc {}

/// What both ends have in common. The layout was checked against the mapping.
#[derive(Debug)]
struct Shared<T> {
    map: MmapRaw,
    layout: Layout,
    size: u32,
    entry: PhantomData<fn() -> T>,
}

impl<T: Entry> Shared<T> {
    fn new(map: MmapRaw, layout: Layout, size: u32) -> Result<Self, RingLayoutError> {
        let word = |at: usize| at.is_multiple_of(4) && at + 4 <= map.len();
        let words = word(layout.producer) && word(layout.consumer) && word(layout.flags);
        let entries =
            layout.entries.is_multiple_of(align_of::<T>()) && layout.bytes::<T>(size) <= map.len();
        if !words || !entries || !size.is_power_of_two() || size > 1 << 30 {
            return Err(RingLayoutError);
        }
        Ok(Self { map, layout, size, entry: PhantomData })
    }
    fn word(&self, at: usize) -> &AtomicU32 {
        // Inside the mapping, as `new` checked.
        let word = self.map.as_mut_ptr().wrapping_add(at).cast::<u32>();
        // SAFETY: aligned and inside a mapping that `self` keeps alive; both
        // sides only ever access this word atomically.
        unsafe { AtomicU32::from_ptr(word) }
    }
    fn entry(&self, index: u32) -> *mut T {
        let place = (index & (self.size - 1)) as usize;
        self.map.as_mut_ptr().wrapping_add(self.layout.entries).cast::<T>().wrapping_add(place)
    }
}

/// The end that writes entries: fill and transmit rings.
#[derive(Debug)]
pub(super) struct Producer<T> {
    shared: Shared<T>,
    /// Index of the next entry to write.
    next: u32,
    /// The consumer's index when last looked at.
    consumed: u32,
}

impl<T: Entry> Producer<T> {
    /// Takes the producing end of a ring in `map`.
    pub(super) fn new(map: MmapRaw, layout: Layout, size: u32) -> Result<Self, RingLayoutError> {
        let shared = Shared::<T>::new(map, layout, size)?;
        let next = shared.word(layout.producer).load(Ordering::Relaxed);
        let consumed = shared.word(layout.consumer).load(Ordering::Acquire);
        Ok(Self { shared, next, consumed })
    }
    /// Entries that can be written now, at least `wanted` if there are so many.
    #[inline]
    pub(super) fn space(&mut self, wanted: u32) -> u32 {
        if self.shared.size - self.used() < wanted {
            self.look();
        }
        self.shared.size - self.used()
    }
    /// Entries that can be written now.
    pub(super) fn room(&mut self) -> u32 {
        self.space(self.shared.size)
    }
    /// Entries not yet consumed, as last looked at. A consumer index that is
    /// ahead of ours counts as a full ring: nothing is overwritten.
    #[inline]
    fn used(&self) -> u32 {
        self.next.wrapping_sub(self.consumed).min(self.shared.size)
    }
    fn look(&mut self) {
        self.consumed = self.shared.word(self.shared.layout.consumer).load(Ordering::Acquire);
    }
    /// Writes an entry; the other side does not see it before [`Producer::publish`].
    /// False when the ring is full.
    #[inline]
    pub(super) fn push(&mut self, value: T) -> bool {
        if self.space(1) == 0 {
            return false;
        }
        let entry = self.shared.entry(self.next);
        // SAFETY: the entry lies in the mapping, and the consumer is done with
        // it and will not look at it before the index is published.
        unsafe { entry.write(value) };
        self.next = self.next.wrapping_add(1);
        true
    }
    /// Shows everything written to the other side.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.shared.word(self.shared.layout.producer).store(self.next, Ordering::Release);
    }
    /// Entries that the other side has not yet consumed.
    #[inline]
    pub(super) fn pending(&mut self) -> u32 {
        if self.used() > 0 {
            self.look();
        }
        self.used()
    }
    /// Whether the kernel wants a system call to notice entries.
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        let flags = self.shared.word(self.shared.layout.flags).load(Ordering::Relaxed);
        flags & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// The end that reads entries: receive and completion rings.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    shared: Shared<T>,
    /// Index of the next entry to read.
    next: u32,
    /// The producer's index when last looked at.
    produced: u32,
}

impl<T: Entry> Consumer<T> {
    /// Takes the consuming end of a ring in `map`.
    pub(super) fn new(map: MmapRaw, layout: Layout, size: u32) -> Result<Self, RingLayoutError> {
        let shared = Shared::<T>::new(map, layout, size)?;
        let next = shared.word(layout.consumer).load(Ordering::Relaxed);
        Ok(Self { shared, next, produced: next })
    }
    /// Entries that can be read now.
    #[inline]
    pub(super) fn available(&mut self) -> u32 {
        if self.produced == self.next {
            let producer = self.shared.word(self.shared.layout.producer);
            self.produced = producer.load(Ordering::Acquire);
        }
        self.produced.wrapping_sub(self.next).min(self.shared.size)
    }
    /// Reads an entry; its place is not given back before [`Consumer::release`].
    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        if self.available() == 0 {
            return None;
        }
        let entry = self.shared.entry(self.next);
        // SAFETY: the entry lies in the mapping, the producer has published it
        // and will not write it again before our index moves; any bits are a `T`.
        let value = unsafe { entry.read() };
        self.next = self.next.wrapping_add(1);
        Some(value)
    }
    /// Gives the places of everything read back to the other side.
    #[inline]
    pub(super) fn release(&mut self) {
        self.shared.word(self.shared.layout.consumer).store(self.next, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::MmapMut;

    const LAYOUT: Layout = Layout { producer: 0, consumer: 64, flags: 128, entries: 192 };
    const SIZE: u32 = 8;

    /// Both ends of one ring over the same plain memory, indices at `start`.
    struct Pair {
        producer: Producer<u64>,
        consumer: Consumer<u64>,
        file: std::fs::File,
    }

    fn map(file: &std::fs::File) -> MmapRaw {
        MmapRaw::map_raw(file).expect("a file of one page maps")
    }

    fn pair(start: u32) -> Pair {
        let path = std::env::temp_dir().join(format!("ring-{}-{start}", std::process::id()));
        let mut options = std::fs::File::options();
        let file = options.read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.expect("a temporary file");
        std::fs::remove_file(&path).expect("it can be removed");
        file.set_len(4096).expect("it can grow");
        let shared = Shared::<u64>::new(map(&file), LAYOUT, SIZE).expect("the layout fits");
        shared.word(LAYOUT.producer).store(start, Ordering::Relaxed);
        shared.word(LAYOUT.consumer).store(start, Ordering::Relaxed);
        Pair {
            producer: Producer::new(map(&file), LAYOUT, SIZE).expect("the layout fits"),
            consumer: Consumer::new(map(&file), LAYOUT, SIZE).expect("the layout fits"),
            file,
        }
    }

    fn raw(pair: &Pair) -> Shared<u64> {
        Shared::new(map(&pair.file), LAYOUT, SIZE).expect("the layout fits")
    }

    #[test]
    fn entries_cross_in_order_also_where_the_indices_wrap() {
        for start in [0, 5, u32::MAX - 20, u32::MAX - 7, u32::MAX] {
            let mut ring = pair(start);
            let (mut sent, mut seen) = (0u64, 0u64);
            for round in 0..100u64 {
                for _ in 0..=round % 8 {
                    if ring.producer.push(sent) {
                        sent += 1;
                    }
                }
                ring.producer.publish();
                for _ in 0..=round % 5 {
                    let Some(value) = ring.consumer.pop() else { break };
                    assert_eq!(value, seen, "start {start}");
                    seen += 1;
                }
                ring.consumer.release();
                assert_eq!(u64::from(ring.producer.pending()), sent - seen);
            }
            assert!(seen > 200, "{seen} entries crossed from {start}");
        }
    }

    #[test]
    fn a_full_ring_refuses_until_entries_are_released() {
        let mut ring = pair(u32::MAX - 3);
        for value in 0..u64::from(SIZE) {
            assert!(ring.producer.push(value));
        }
        assert!(!ring.producer.push(99));
        ring.producer.publish();
        assert_eq!(ring.producer.space(1), 0);
        assert_eq!(ring.consumer.pop(), Some(0));
        assert!(!ring.producer.push(99), "read but not released");
        ring.consumer.release();
        assert!(ring.producer.push(8));
        assert!(!ring.producer.push(99));
    }

    #[test]
    fn entries_are_invisible_until_published() {
        let mut ring = pair(0);
        assert!(ring.producer.push(7));
        assert_eq!(ring.consumer.pop(), None);
        ring.producer.publish();
        assert_eq!(ring.consumer.pop(), Some(7));
    }

    #[test]
    fn indices_that_make_no_sense_read_and_write_nothing_outside() {
        let mut ring = pair(0);
        raw(&ring).word(LAYOUT.consumer).store(1000, Ordering::Relaxed);
        ring.producer.look();
        assert_eq!(ring.producer.space(1), 0, "a consumer ahead of us: full");
        raw(&ring).word(LAYOUT.producer).store(u32::MAX, Ordering::Relaxed);
        assert_eq!(ring.consumer.available(), SIZE, "never more than the ring holds");
    }

    #[test]
    fn the_wakeup_flag_is_read() {
        let ring = pair(0);
        assert!(!ring.producer.needs_wakeup());
        raw(&ring).word(LAYOUT.flags).store(libc::XDP_RING_NEED_WAKEUP, Ordering::Relaxed);
        assert!(ring.producer.needs_wakeup());
    }

    #[test]
    fn layouts_that_do_not_fit_are_refused() {
        let new = |layout, size| {
            let map = MmapMut::map_anon(4096).expect("a page").into();
            Producer::<u64>::new(map, layout, size).map(|_| ())
        };
        assert_eq!(new(LAYOUT, 256), Ok(()));
        assert_eq!(new(LAYOUT, 512), Err(RingLayoutError), "entries beyond the mapping");
        assert_eq!(new(LAYOUT, 100), Err(RingLayoutError), "no power of two");
        assert_eq!(new(LAYOUT, 0), Err(RingLayoutError), "no entries");
        assert_eq!(new(Layout { producer: 2, ..LAYOUT }, 8), Err(RingLayoutError));
        assert_eq!(new(Layout { consumer: 4096, ..LAYOUT }, 8), Err(RingLayoutError));
        assert_eq!(new(Layout { entries: 196, ..LAYOUT }, 8), Err(RingLayoutError));
    }

    #[test]
    fn two_threads_pass_many_entries() {
        let ring = pair(u32::MAX - 500);
        let (mut producer, mut consumer) = (ring.producer, ring.consumer);
        const COUNT: u64 = 100_000;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut sent = 0;
                while sent < COUNT {
                    if producer.push(sent) {
                        sent += 1;
                        producer.publish();
                    } else {
                        std::thread::yield_now();
                    }
                }
            });
            let mut seen = 0;
            while seen < COUNT {
                match consumer.pop() {
                    Some(value) => {
                        assert_eq!(value, seen);
                        seen += 1;
                        consumer.release();
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
    }
}
