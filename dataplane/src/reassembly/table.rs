//! Unfinished datagrams of one family, in memory that was taken at the start.
//!
//! A datagram's fragments form a list by offset, in runs: those that followed one
//! another on arrival. Only what lies inside one run counts as a duplicate, as in the
//! kernel. Datagrams are found by a keyed hash and end in the order of their age.

use std::hash::{BuildHasher, RandomState};

use super::chunks::{CHUNK, Chunks, NONE, Slot};
use super::piece::{Key, congestion};
use super::whole::Whole;
use super::{Collected, Piece, Settings, User};
use crate::clock::Nanos;
use crate::packet::{Family, PortId};
use crate::verdict::DropReason;
use crate::wire::{ethernet, ipv4, ipv6, put16};

/// Fragments of one datagram at most.
pub const PIECES_MAX: usize = 256;
/// Sources whose fragments are counted one by one; others share a count.
const SOURCES: usize = 4096;

/// An unfinished datagram.
#[derive(Clone, Copy, Debug)]
struct Queue {
    /// `None`: not in use.
    key: Option<Key>,
    /// In the hash bucket, or in the list of free ones.
    next: u16,
    older: u16,
    newer: u16,
    head: u16,
    tail: u16,
    pieces: u16,
    /// Bytes of data that have arrived, and that the datagram has as far as known.
    meat: u32,
    len: u32,
    last_in: bool,
    /// Where the first fragment's data starts in its frame, and its named byte.
    first: Option<(u16, u16)>,
    ecn: u8,
    max_size: u32,
    max_df_size: u32,
    /// Fragments of the source when it last added one.
    passed: u32,
    expires: Nanos,
    input: Option<PortId>,
}

impl Queue {
    const FREE: Self = Self {
        key: None,
        next: NONE,
        older: NONE,
        newer: NONE,
        head: NONE,
        tail: NONE,
        pieces: 0,
        meat: 0,
        len: 0,
        last_in: false,
        first: None,
        ecn: 0,
        max_size: 0,
        max_df_size: 0,
        passed: 0,
        expires: Nanos(0),
        input: None,
    };

    fn complete(&self) -> bool {
        self.first.is_some() && self.last_in && self.meat == self.len
    }
}

/// A datagram whose time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Its family.
    pub family: Family,
    /// Fragments that were kept of it.
    pub pieces: u32,
    /// Whether the first one was among them.
    pub first: bool,
    /// Who collected it.
    pub user: User,
}

/// Where a fragment goes.
enum Place {
    /// Behind this fragment (`NONE`: first), continuing its run or not.
    Behind(u16, bool),
    Duplicate,
    Overlap,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Table {
    settings: Settings,
    hasher: RandomState,
    chunks: Chunks,
    queues: Box<[Queue]>,
    buckets: Box<[u16]>,
    sources: Box<[u32]>,
    free_queue: u16,
    oldest: u16,
    newest: u16,
    len: usize,
}

impl Table {
    /// An empty table. At most 65534 chunks are used.
    pub fn new(settings: Settings) -> Self {
        let count = (settings.high_thresh / CHUNK).min(usize::from(NONE) - 1);
        let after = |index: usize| if index + 1 < count { index as u16 + 1 } else { NONE };
        let first = if count == 0 { NONE } else { 0 };
        let queue = |index| Queue { next: after(index), ..Queue::FREE };
        Self {
            settings,
            hasher: RandomState::new(),
            chunks: Chunks::new(count),
            queues: (0..count).map(queue).collect(),
            buckets: vec![NONE; count.next_power_of_two()].into_boxed_slice(),
            sources: vec![0; SOURCES].into_boxed_slice(),
            free_queue: first,
            oldest: NONE,
            newest: NONE,
            len: 0,
        }
    }

    /// Takes other settings; with another amount of memory it starts anew, empty.
    pub fn adopt(&mut self, settings: Settings) {
        if settings.high_thresh == self.settings.high_thresh {
            self.settings = settings;
        } else {
            *self = Self::new(settings);
        }
    }

    /// Unfinished datagrams.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the oldest datagram's time is up.
    #[inline]
    pub fn due(&self, now: Nanos) -> bool {
        self.oldest != NONE && self.queues[usize::from(self.oldest)].expires <= now
    }

    /// Ends the oldest datagram if its time is up; its first fragment, if it is
    /// there, is written to `first` as it came.
    pub fn expire(&mut self, now: Nanos, first: &mut Whole) -> Option<Expired> {
        if !self.due(now) {
            return None;
        }
        let at = self.oldest;
        let queue = self.queues[usize::from(at)];
        let key = queue.key?;
        first.len = 0;
        if let Some((data, _)) = queue.first {
            let length = usize::from(data) + usize::from(self.chunks[queue.head].len);
            self.chunks.read(queue.head, length, first);
            first.input = queue.input;
        }
        self.end(at);
        Some(Expired {
            family: key.family,
            pieces: queue.pieces.into(),
            first: queue.first.is_some(),
            user: key.user(),
        })
    }

    /// Adds a fragment; a completed datagram is written to `whole`.
    pub(super) fn add(&mut self, piece: &Piece<'_>, now: Nanos, whole: &mut Whole) -> Collected {
        let Some(at) = self.find(&piece.key).or_else(|| self.open(piece.key, now)) else {
            return Collected::Refused { reason: DropReason::ReassemblyFull, others: 0 };
        };
        self.restart_if_passed(at, piece, now);
        let collected = self.add_to(at, piece);
        let queue = &self.queues[usize::from(at)];
        match collected {
            Collected::Kept if queue.complete() => self.finish(at, piece.input, whole),
            _ => {
                if queue.key.is_some() && queue.pieces == 0 {
                    self.end(at);
                }
                collected
            }
        }
    }

    /// Too many fragments of the same source since its last one: the
    /// identification may have wrapped around, and it starts anew.
    fn restart_if_passed(&mut self, at: u16, piece: &Piece<'_>, now: Nanos) {
        let max = self.settings.max_dist;
        if max == 0 {
            return;
        }
        let slot = self.hasher.hash_one(piece.key.source()) as usize % SOURCES;
        self.sources[slot] = self.sources[slot].wrapping_add(1);
        let (seen, queue) = (self.sources[slot], &mut self.queues[usize::from(at)]);
        let distance = seen.wrapping_sub(std::mem::replace(&mut queue.passed, seen));
        if queue.pieces > 0 && distance > max {
            let (key, passed) = (queue.key, queue.passed);
            self.chunks.release(self.queues[usize::from(at)].head);
            self.unlink_age(at);
            let queue = &mut self.queues[usize::from(at)];
            let next = queue.next;
            *queue = Queue { key, next, passed, ..Queue::FREE };
            self.link_age(at, now);
        }
    }

    fn add_to(&mut self, at: u16, piece: &Piece<'_>) -> Collected {
        let queue = &mut self.queues[usize::from(at)];
        let others = u32::from(queue.pieces);
        let alone = Collected::Refused { reason: DropReason::Fragment, others: 0 };
        let v4 = piece.family() == Family::V4;
        let start = u32::from(piece.offset);
        let mut end = start + (piece.frame.len() - piece.data) as u32;
        if !v4 && end > u32::from(u16::MAX) {
            return alone;
        }
        let contradicts = if piece.more {
            if !v4 && end & 7 != 0 {
                self.end(at);
                return Collected::Passed(others);
            }
            end &= !7;
            let contradicts = end > queue.len && queue.last_in;
            queue.len = if contradicts { queue.len } else { queue.len.max(end) };
            contradicts
        } else if end < queue.len || queue.last_in && end != queue.len {
            true
        } else {
            (queue.last_in, queue.len) = (true, end);
            false
        };
        if contradicts || end == start {
            if !v4 {
                return alone;
            }
            self.end(at);
            return Collected::Refused { reason: DropReason::Fragment, others };
        }
        match self.place(at, start, end) {
            Place::Duplicate => {
                Collected::Refused { reason: DropReason::ReassemblyDuplicate, others: 0 }
            }
            Place::Overlap => {
                self.end(at);
                Collected::Refused { reason: DropReason::ReassemblyOverlap, others }
            }
            Place::Behind(before, joined) => {
                match self.keep(at, piece, (end - start) as u16, before, joined) {
                    true => Collected::Kept,
                    false => Collected::Refused { reason: DropReason::ReassemblyFull, others: 0 },
                }
            }
        }
    }

    fn place(&self, at: u16, start: u32, end: u32) -> Place {
        let queue = &self.queues[usize::from(at)];
        if queue.tail != NONE {
            let tail = self.chunks[queue.tail].end();
            if tail < end {
                return match start < tail {
                    true => Place::Overlap,
                    false => Place::Behind(queue.tail, start == tail),
                };
            }
        }
        let (mut before, mut run) = (NONE, queue.head);
        while run != NONE {
            let from = u32::from(self.chunks[run].offset);
            let mut last = run;
            let mut next = self.chunks[last].next;
            while next != NONE && self.chunks[next].joined {
                (last, next) = (next, self.chunks[next].next);
            }
            let to = self.chunks[last].end();
            if end <= from {
                break;
            }
            if start < to {
                let inside = start >= from && end <= to;
                return if inside { Place::Duplicate } else { Place::Overlap };
            }
            (before, run) = (last, next);
        }
        Place::Behind(before, false)
    }

    /// Copies a fragment in; false when there is no room.
    fn keep(&mut self, at: u16, piece: &Piece<'_>, len: u16, before: u16, joined: bool) -> bool {
        let first = piece.offset == 0;
        let bytes = match first {
            true => &piece.frame[..piece.data + usize::from(len)],
            false => &piece.frame[piece.data..piece.data + usize::from(len)],
        };
        let pieces = usize::from(self.queues[usize::from(at)].pieces);
        if bytes.len().div_ceil(CHUNK) > self.chunks.free() || pieces == PIECES_MAX {
            return false;
        }
        let number = self.chunks.write(bytes);
        let next = match before {
            NONE => self.queues[usize::from(at)].head,
            before => self.chunks[before].next,
        };
        let slot = &mut self.chunks[number];
        *slot = Slot { chunk: slot.chunk, next, offset: piece.offset, len, joined };
        let queue = &mut self.queues[usize::from(at)];
        match before {
            NONE => queue.head = number,
            before => self.chunks[before].next = number,
        }
        if next == NONE {
            queue.tail = number;
        }
        if first {
            queue.first = Some((piece.data as u16, piece.named_at as u16));
            queue.input = piece.input;
        }
        queue.pieces += 1;
        queue.meat += u32::from(len);
        queue.ecn |= piece.ecn;
        let header = piece.data - ethernet::HEADER;
        let size = (header + usize::from(len)) as u32;
        queue.max_size = queue.max_size.max(size);
        if piece.dont_fragment {
            queue.max_df_size = queue.max_df_size.max(size);
        }
        true
    }

    /// Puts a datagram together; its fragments are free afterwards.
    fn finish(&mut self, at: u16, input: Option<PortId>, whole: &mut Whole) -> Collected {
        let queue = self.queues[usize::from(at)];
        let others = u32::from(queue.pieces) - 1;
        let built = self.assemble(&queue, whole);
        whole.input = input;
        self.end(at);
        match built {
            Ok(()) => Collected::Complete,
            Err(reason) => Collected::Refused { reason, others },
        }
    }

    fn assemble(&self, queue: &Queue, whole: &mut Whole) -> Result<(), DropReason> {
        let oversize = DropReason::ReassemblyOversize;
        let congestion = congestion(queue.ecn).ok_or(DropReason::Fragment)?;
        let (Some((data, named_at)), Some(key)) = (queue.first, queue.key) else {
            return Err(DropReason::Fragment);
        };
        let (data, named_at) = (usize::from(data), usize::from(named_at));
        whole.len = 0;
        whole.regroup.sizes.clear();
        let mut number = queue.head;
        while number != NONE {
            let slot = self.chunks[number];
            let head = if number == queue.head { data } else { 0 };
            let size = usize::from(slot.len);
            if !self.chunks.read(number, head + size, whole) {
                return Err(oversize);
            }
            whole.regroup.sizes.push(slot.len);
            if head > 0 && key.family == Family::V6 {
                // The fragment header goes; what it named follows at once.
                whole.buffer[named_at] = whole.buffer[data - 8];
                whole.buffer.copy_within(data..data + size, data - 8);
                whole.len -= 8;
            }
            number = slot.next;
        }
        whole.regroup.max_size = queue.max_size;
        whole.regroup.id = key.id();
        whole.regroup.header_joined = key.joins_header(&whole.regroup.sizes, queue.len);
        let length = whole.len - ethernet::HEADER;
        let ip = &mut whole.buffer[ethernet::HEADER..whole.len];
        match key.family {
            Family::V4 => {
                let dont = queue.max_df_size == queue.max_size;
                ip[1] |= congestion;
                put16(ip, 2, u16::try_from(length).map_err(|_| oversize)?);
                put16(ip, 6, if dont { ipv4::DF } else { 0 });
                if let Ok(mut ip) = ipv4::Packet::new_header(ip) {
                    ip.fill_checksum();
                }
            }
            Family::V6 => {
                ip[1] |= congestion << 4;
                put16(ip, 4, u16::try_from(length - ipv6::HEADER).map_err(|_| oversize)?);
            }
        }
        Ok(())
    }

    fn bucket(&self, key: &Key) -> usize {
        self.hasher.hash_one(key) as usize & (self.buckets.len() - 1)
    }

    fn find(&self, key: &Key) -> Option<u16> {
        let mut at = *self.buckets.get(self.bucket(key))?;
        while at != NONE {
            let queue = &self.queues[usize::from(at)];
            if queue.key.as_ref() == Some(key) {
                return Some(at);
            }
            at = queue.next;
        }
        None
    }

    fn open(&mut self, key: Key, now: Nanos) -> Option<u16> {
        let at = self.free_queue;
        if at == NONE || self.chunks.free() == 0 {
            return None;
        }
        let bucket = self.bucket(&key);
        self.free_queue = self.queues[usize::from(at)].next;
        let next = std::mem::replace(&mut self.buckets[bucket], at);
        self.queues[usize::from(at)] = Queue { key: Some(key), next, ..Queue::FREE };
        self.link_age(at, now);
        self.len += 1;
        Some(at)
    }

    /// Forgets a datagram and all that was kept of it.
    fn end(&mut self, at: u16) {
        let Some(key) = self.queues[usize::from(at)].key else { return };
        self.chunks.release(self.queues[usize::from(at)].head);
        self.unlink_age(at);
        let (bucket, next) = (self.bucket(&key), self.queues[usize::from(at)].next);
        let mut before = self.buckets[bucket];
        if before == at {
            self.buckets[bucket] = next;
        } else {
            while self.queues[usize::from(before)].next != at {
                before = self.queues[usize::from(before)].next;
            }
            self.queues[usize::from(before)].next = next;
        }
        self.queues[usize::from(at)] = Queue { next: self.free_queue, ..Queue::FREE };
        self.free_queue = at;
        self.len -= 1;
    }

    fn link_age(&mut self, at: u16, now: Nanos) {
        let newest = std::mem::replace(&mut self.newest, at);
        let queue = &mut self.queues[usize::from(at)];
        queue.expires = now + self.settings.timeout;
        (queue.older, queue.newer) = (newest, NONE);
        match newest {
            NONE => self.oldest = at,
            newest => self.queues[usize::from(newest)].newer = at,
        }
    }

    fn unlink_age(&mut self, at: u16) {
        let Queue { older, newer, .. } = self.queues[usize::from(at)];
        match older {
            NONE => self.oldest = newer,
            older => self.queues[usize::from(older)].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.queues[usize::from(newer)].older = older,
        }
    }

    /// Checks that every chunk is in exactly one place.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut chunks = 0;
        for queue in self.queues.iter().filter(|queue| queue.key.is_some()) {
            let (mut piece, mut pieces) = (queue.head, 0);
            while piece != NONE {
                let mut chunk = piece;
                while chunk != NONE {
                    chunks += 1;
                    chunk = self.chunks[chunk].chunk;
                }
                (pieces, piece) = (pieces + 1, self.chunks[piece].next);
            }
            assert_eq!(pieces, queue.pieces);
        }
        assert_eq!(chunks + self.chunks.free(), self.chunks.count());
        let used = self.queues.iter().filter(|queue| queue.key.is_some()).count();
        assert_eq!(used, self.len);
    }
}
