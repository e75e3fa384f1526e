//! The memory of unfinished datagrams: chunks of one size, taken at the start.
//!
//! A fragment's bytes lie in a chain of chunks; its first chunk's number is the
//! fragment's own, and that chunk's slot describes it.

use std::ops::{Index, IndexMut};

use super::whole::Whole;

/// Bytes of a chunk: a fragment from an Ethernet takes one.
pub const CHUNK: usize = 2048;
/// No chunk, no datagram.
pub(super) const NONE: u16 = u16::MAX;

/// A fragment (in its first chunk's slot) and the chain of chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    /// The fragment's next chunk, or the next free one.
    pub(super) chunk: u16,
    /// The next fragment of the datagram.
    pub(super) next: u16,
    pub(super) offset: u16,
    /// Bytes of data.
    pub(super) len: u16,
    /// Whether it continues the run of the one before it.
    pub(super) joined: bool,
}

impl Slot {
    /// Where its data ends in the datagram.
    pub(super) fn end(&self) -> u32 {
        u32::from(self.offset) + u32::from(self.len)
    }
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Chunks {
    memory: Box<[u8]>,
    slots: Box<[Slot]>,
    free_chunk: u16,
    free: usize,
}

impl Index<u16> for Chunks {
    type Output = Slot;
    fn index(&self, number: u16) -> &Slot {
        &self.slots[usize::from(number)]
    }
}

impl IndexMut<u16> for Chunks {
    fn index_mut(&mut self, number: u16) -> &mut Slot {
        &mut self.slots[usize::from(number)]
    }
}

impl Chunks {
    /// So many free chunks, at most 65534.
    pub(super) fn new(count: usize) -> Self {
        let after = |index: usize| if index + 1 < count { index as u16 + 1 } else { NONE };
        let slot =
            |index| Slot { chunk: after(index), next: NONE, offset: 0, len: 0, joined: false };
        Self {
            memory: vec![0; count * CHUNK].into_boxed_slice(),
            slots: (0..count).map(slot).collect(),
            free_chunk: if count == 0 { NONE } else { 0 },
            free: count,
        }
    }
    /// Free chunks.
    pub(super) fn free(&self) -> usize {
        self.free
    }
    /// All chunks.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.slots.len()
    }

    /// Appends the first `length` bytes of a fragment's chain; false: too long.
    pub(super) fn read(&self, number: u16, length: usize, whole: &mut Whole) -> bool {
        let (mut chunk, mut rest) = (number, length);
        while rest > 0 {
            let start = usize::from(chunk) * CHUNK;
            let size = rest.min(CHUNK);
            if !whole.push(&self.memory[start..start + size]) {
                return false;
            }
            rest -= size;
            chunk = self.slots[usize::from(chunk)].chunk;
        }
        true
    }

    /// Copies bytes into free chunks, of which there are enough.
    pub(super) fn write(&mut self, bytes: &[u8]) -> u16 {
        let first = self.free_chunk;
        let mut last = first;
        for part in bytes.chunks(CHUNK) {
            last = self.free_chunk;
            self.free_chunk = self.slots[usize::from(last)].chunk;
            self.free -= 1;
            let start = usize::from(last) * CHUNK;
            self.memory[start..start + part.len()].copy_from_slice(part);
        }
        self.slots[usize::from(last)].chunk = NONE;
        first
    }

    /// Frees all fragments of a list.
    pub(super) fn release(&mut self, head: u16) {
        let mut piece = head;
        while piece != NONE {
            let next = self.slots[usize::from(piece)].next;
            let mut chunk = piece;
            while chunk != NONE {
                let after =
                    std::mem::replace(&mut self.slots[usize::from(chunk)].chunk, self.free_chunk);
                self.free_chunk = chunk;
                self.free += 1;
                chunk = after;
            }
            piece = next;
        }
    }
}
