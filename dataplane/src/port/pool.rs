//! The frame pool: one memory area per worker, cut into chunks, and the tokens
//! ([`Frame`]) that own them.
//!
//! Every chunk is in exactly one place: on the free list, with whoever holds its
//! [`Frame`], or lent to a kernel ring. A `Frame` cannot be copied and cannot be
//! made outside this file except through [`Pool::adopt`], which is unsafe; so a
//! token is proof of exclusive access to its chunk, and handing out `&mut [u8]`
//! for it is sound. Debug builds check each move; totals are always kept.
//!
//! A pool belongs to one thread. It is created with all its memory and never grows.

#![allow(unsafe_code, reason = "frames give out disjoint mutable parts of one mapping")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::prefetch::{LINE, fetch};

/// Bytes in a chunk: one frame with its headroom and tailroom.
pub const CHUNK: usize = 4096;
/// Bytes kept free before a frame that is made here, as the kernel keeps them
/// before one that it receives (`XDP_PACKET_HEADROOM`).
pub const HEADROOM: usize = 256;
/// The longest frame that fits a chunk, in bytes.
pub const MAX_FRAME: usize = CHUNK - HEADROOM;

/// Why a pool could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// The kernel gave no memory.
    #[error("cannot map {bytes} bytes of frame memory: {source}")]
    Map {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Zero chunks, or more than a pool can number.
    #[error("a pool of {chunks} chunks: 1 to {max} are possible", max = Pool::MAX_CHUNKS)]
    Size {
        /// Chunks asked for.
        chunks: usize,
    },
}

/// A frame: exclusive ownership of one chunk, and where the bytes lie in it.
///
/// Dropping one without giving it back loses its chunk until the pool goes;
/// [`Pool::held`] shows such leaks.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a dropped frame is lost to its pool"]
pub struct Frame {
    pool: u32,
    chunk: u32,
    start: u16,
    len: u16,
}

impl Frame {
    /// Offset of the frame's first byte in its chunk.
    #[inline]
    pub fn start(&self) -> usize {
        self.start as usize
    }
    /// Length in bytes, Ethernet header included.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "a frame is never asked whether it is empty")]
    pub fn len(&self) -> usize {
        self.len as usize
    }
    /// Moves the frame's ends inside its chunk.
    ///
    /// # Panics
    /// When the new extent does not fit the chunk.
    #[inline]
    pub fn set_extent(&mut self, start: usize, len: usize) {
        assert!(start <= CHUNK && len <= CHUNK - start, "frame {start}+{len} leaves its chunk");
        self.start = start as u16;
        self.len = len as u16;
    }
}

/// The bytes of a pool. Shared while the free list is used ([`Pool::split`]).
#[derive(Debug)]
pub struct Memory {
    id: u32,
    map: Arc<MmapRaw>,
    huge: bool,
}

/// Keeps a pool's memory mapped, to register it with the kernel from another thread.
/// Gives no access to its bytes.
#[derive(Clone, Debug)]
pub struct Area(Arc<MmapRaw>);

impl Area {
    /// Address of the area, page aligned.
    pub fn address(&self) -> u64 {
        self.0.as_mut_ptr() as u64
    }
    /// Its length in bytes.
    pub fn size(&self) -> usize {
        self.0.len()
    }
    /// Chunks in it.
    pub fn chunks(&self) -> usize {
        self.size() / CHUNK
    }
    /// Who keeps it mapped.
    #[cfg(test)]
    pub(super) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl Memory {
    /// The frame's bytes.
    #[inline]
    pub fn bytes<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        let chunk = self.chunk_start(frame);
        // SAFETY: `chunk` starts a chunk inside the mapping, which `self` keeps
        // alive, and the borrowed token excludes writers of that chunk.
        let chunk = unsafe { std::slice::from_raw_parts(chunk, CHUNK) };
        &chunk[frame.start()..frame.start() + frame.len()]
    }
    /// The frame's bytes, writable.
    #[inline]
    pub fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let (start, len) = (frame.start(), frame.len());
        &mut self.buffer(frame)[start..start + len]
    }
    /// The frame's whole chunk, headroom and tailroom included.
    #[inline]
    pub fn buffer<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        let chunk = self.chunk_start(frame);
        // SAFETY: `chunk` starts a chunk inside the mapping, which `self` keeps
        // alive, and the token, borrowed mutably, is the only one for that chunk.
        unsafe { std::slice::from_raw_parts_mut(chunk, CHUNK) }
    }
    /// Has a frame's headers brought into this core's caches: who received it wrote them
    /// on another core, or past all caches. Changes nothing.
    #[inline]
    pub fn prefetch(&self, frame: &Frame) {
        self.bytes(frame).iter().step_by(LINE).take(2).for_each(fetch);
    }
    fn chunk_start(&self, frame: &Frame) -> *mut u8 {
        assert_eq!(frame.pool, self.id, "a frame of another pool");
        // Tokens are minted only for chunks inside the mapping.
        self.map.as_mut_ptr().wrapping_add(frame.chunk as usize * CHUNK)
    }
    /// Length of the whole area in bytes.
    pub fn size(&self) -> usize {
        self.map.len()
    }
    /// The area, to be registered with the kernel.
    pub fn area(&self) -> Area {
        Area(Arc::clone(&self.map))
    }
    /// Whether explicit huge pages back the area.
    pub fn is_huge(&self) -> bool {
        self.huge
    }
}

/// Where a chunk is; kept by debug builds only.
#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Free,
    Held,
    Lent,
}

/// The free chunks of a pool.
#[derive(Debug)]
pub struct FreeList {
    id: u32,
    free: Vec<u32>,
    lent: usize,
    #[cfg(debug_assertions)]
    places: Vec<Place>,
}

impl FreeList {
    /// Takes a chunk: an empty frame behind the usual headroom.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        let chunk = self.free.pop()?;
        self.moved(chunk, Move::Take);
        Some(Frame { pool: self.id, chunk, start: HEADROOM as u16, len: 0 })
    }
    /// Gives a frame's chunk back.
    #[inline]
    pub fn put(&mut self, frame: Frame) {
        assert_eq!(frame.pool, self.id, "a frame of another pool");
        self.moved(frame.chunk, Move::Put);
        // Capacity for every chunk was reserved: this never allocates.
        self.free.push(frame.chunk);
    }
    /// Checks, in debug builds, that a chunk is where the move says it was.
    #[cfg(debug_assertions)]
    fn moved(&mut self, chunk: u32, step: Move) {
        let (from, to) = match step {
            Move::Take => (Place::Free, Place::Held),
            Move::Put => (Place::Held, Place::Free),
            Move::Lend => (Place::Held, Place::Lent),
            Move::Adopt => (Place::Lent, Place::Held),
        };
        let place = &mut self.places[chunk as usize];
        assert_eq!(*place, from, "chunk {chunk} cannot make the move {step:?}");
        *place = to;
    }
    #[cfg(not(debug_assertions))]
    #[inline]
    fn moved(&mut self, _chunk: u32, _step: Move) {}
}

/// A chunk's change of place.
#[derive(Clone, Copy, Debug)]
enum Move {
    Take,
    Put,
    Lend,
    Adopt,
}

/// A worker's frames. See the head of this file.
#[derive(Debug)]
pub struct Pool {
    memory: Memory,
    free: FreeList,
}

impl Pool {
    /// The most chunks a pool can have: 4 GiB of frames.
    pub const MAX_CHUNKS: usize = 1 << 20;

    /// A pool of `chunks` frames. With `huge`, explicit huge pages are tried
    /// first; without any reserved, the mapping falls back to ordinary pages.
    ///
    /// # Errors
    /// [`PoolError`] when the size is out of range or the kernel has no memory.
    pub fn new(chunks: usize, huge: bool) -> Result<Self, PoolError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if chunks == 0 || chunks > Self::MAX_CHUNKS {
            return Err(PoolError::Size { chunks });
        }
        let (map, huge) = map_area(chunks * CHUNK, huge)?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        // Low chunks first, so that a lightly used pool stays in few pages.
        let free = FreeList {
            id,
            free: (0..chunks as u32).rev().collect(),
            lent: 0,
            #[cfg(debug_assertions)]
            places: vec![Place::Free; chunks],
        };
        Ok(Self { memory: Memory { id, map: Arc::new(map), huge }, free })
    }

    /// The memory and the free list apart, so that frames can be made while
    /// others are being looked at.
    #[inline]
    pub fn split(&mut self) -> (&Memory, &mut FreeList) {
        (&self.memory, &mut self.free)
    }
    /// The bytes of this pool.
    #[inline]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }
    /// Takes a chunk: an empty frame behind the usual headroom.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        self.free.take()
    }
    /// Gives a frame's chunk back.
    #[inline]
    pub fn put(&mut self, frame: Frame) {
        self.free.put(frame);
    }
    /// A new frame holding a copy of `bytes`; `None` when there is no free
    /// chunk or the bytes do not fit one.
    pub fn copy_in(&mut self, bytes: &[u8]) -> Option<Frame> {
        copy_in(&self.memory, &mut self.free, bytes)
    }
    /// Gives a frame to the kernel; returns the address of its first byte
    /// relative to the area, and its length.
    #[inline]
    pub fn lend(&mut self, frame: Frame) -> (u64, u32) {
        assert_eq!(frame.pool, self.free.id, "a frame of another pool");
        self.free.moved(frame.chunk, Move::Lend);
        self.free.lent += 1;
        (frame.chunk as u64 * CHUNK as u64 + frame.start as u64, frame.len as u32)
    }
    /// Takes a frame back from the kernel. `None` when the kernel wrote an
    /// address that cannot be a frame's; the chunk is then lost.
    ///
    /// # Safety
    /// The kernel must have returned this chunk, once, after [`Pool::lend`].
    #[inline]
    pub unsafe fn adopt(&mut self, address: u64, len: u32) -> Option<Frame> {
        let (chunk, start) = (address / CHUNK as u64, address as usize % CHUNK);
        let inside = (chunk as usize) < self.total() && len as usize <= CHUNK - start;
        if !inside {
            return None;
        }
        self.free.moved(chunk as u32, Move::Adopt);
        self.free.lent -= 1;
        Some(Frame {
            pool: self.free.id,
            chunk: chunk as u32,
            start: start as u16,
            len: len as u16,
        })
    }
    /// Chunks in all.
    pub fn total(&self) -> usize {
        self.memory.size() / CHUNK
    }
    /// Chunks on the free list.
    pub fn free(&self) -> usize {
        self.free.free.len()
    }
    /// Chunks lent to the kernel.
    pub fn lent(&self) -> usize {
        self.free.lent
    }
    /// Chunks whose [`Frame`] somebody holds.
    pub fn held(&self) -> usize {
        self.total() - self.free() - self.lent()
    }
    /// Distinguishes this pool from every other of the process.
    pub fn id(&self) -> u32 {
        self.memory.id
    }
}

/// Copies `bytes` to a new frame of a split pool; `None` when there is no free
/// chunk or the bytes do not fit one.
pub fn copy_in(memory: &Memory, free: &mut FreeList, bytes: &[u8]) -> Option<Frame> {
    if bytes.len() > MAX_FRAME {
        return None;
    }
    let mut frame = free.take()?;
    frame.set_extent(HEADROOM, bytes.len());
    memory.bytes_mut(&mut frame).copy_from_slice(bytes);
    Some(frame)
}

/// Maps `bytes` of zeroed memory; the flag says whether huge pages were had.
fn map_area(bytes: usize, huge: bool) -> Result<(MmapRaw, bool), PoolError> {
    const HUGE_PAGE: usize = 2 << 20;
    if huge
        && bytes.is_multiple_of(HUGE_PAGE)
        && let Ok(map) = MmapOptions::new().len(bytes).populate().huge(Some(21)).map_anon()
    {
        return Ok((map.into(), true));
    }
    let map = MmapOptions::new()
        .len(bytes)
        .map_anon()
        .map_err(|source| PoolError::Map { bytes, source })?;
    if huge {
        // Second best: transparent huge pages. A refusal costs speed only.
        let _refused = map.advise(Advice::HugePage);
    }
    Ok((map.into(), false))
}
