//! One frame's bytes with the room behind them, so that it may grow in place.

use std::ops::{Deref, DerefMut};

/// A frame from its Ethernet header on, in somebody else's buffer. It reads as
/// its own bytes; [`FrameBuf::replace`] changes its length.
#[derive(Debug)]
pub struct FrameBuf<'f> {
    buf: &'f mut [u8],
    len: usize,
    joined: usize,
}

impl<'f> FrameBuf<'f> {
    /// A frame of `len` bytes at the start of `buf`; what follows is room to grow.
    pub fn new(buf: &'f mut [u8], len: usize) -> Self {
        debug_assert!(len <= buf.len(), "a frame lies inside its buffer");
        let len = len.min(buf.len());
        Self { buf, len, joined: 0 }
    }

    /// A frame that cannot grow.
    pub fn exact(buf: &'f mut [u8]) -> Self {
        let len = buf.len();
        Self { buf, len, joined: 0 }
    }

    /// The same frame for a shorter time. When that may have changed the length,
    /// or joined bytes, hand both back with [`FrameBuf::resume`].
    pub fn reborrow(&mut self) -> FrameBuf<'_> {
        FrameBuf { buf: self.buf, len: self.len, joined: self.joined }
    }

    /// Takes the length and the [`joined`](FrameBuf::joined) bytes that a
    /// [`FrameBuf::reborrow`] ended with.
    pub fn resume(&mut self, len: usize, joined: usize) {
        debug_assert!(len <= self.buf.len(), "a frame lies inside its buffer");
        self.len = len.min(self.buf.len());
        self.joined = joined;
    }

    /// Notes that the kernel joins the first `end` bytes to write there: a datagram
    /// that came in fragments no longer leaves in those pieces.
    pub fn join(&mut self, end: usize) {
        self.joined = self.joined.max(end);
    }

    /// Notes that the kernel joins the frame for good.
    pub fn join_all(&mut self) {
        self.joined = usize::MAX;
    }

    /// How many bytes were joined since they came.
    pub fn joined(&self) -> usize {
        self.joined
    }

    /// Bytes by which it may still grow.
    pub fn room(&self) -> usize {
        self.buf.len() - self.len
    }

    /// Puts `with` in the place of the `old` bytes at `at` and moves what follows.
    /// False, and nothing changed, when that lies outside the frame or does not fit.
    pub fn replace(&mut self, at: usize, old: usize, with: &[u8]) -> bool {
        let Some(end) = at.checked_add(old).filter(|&end| end <= self.len) else { return false };
        let len = self.len - old + with.len();
        if len > self.buf.len() {
            return false;
        }
        self.buf.copy_within(end..self.len, at + with.len());
        self.buf[at..at + with.len()].copy_from_slice(with);
        self.len = len;
        true
    }
}

impl Deref for FrameBuf<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.buf[..self.len]
    }
}

impl DerefMut for FrameBuf<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.buf[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_replaced_in_place() {
        let mut buf = *b"abcdef....";
        let mut frame = FrameBuf::new(&mut buf, 6);
        assert_eq!(frame.room(), 4);
        assert!(frame.replace(1, 2, b"XYZW"));
        assert_eq!(&*frame, b"aXYZWdef");
        assert!(frame.replace(1, 4, b""));
        assert_eq!(&*frame, b"adef");
        assert!(frame.replace(4, 0, b"ghijkl"));
        assert_eq!((&*frame, frame.room()), (&b"adefghijkl"[..], 0));
        assert!(!frame.replace(0, 0, b"m"), "no room");
        assert!(!frame.replace(9, 2, b""), "beyond the end");
        assert!(!frame.replace(usize::MAX, 2, b""), "beyond the end");
        assert_eq!(&*frame, b"adefghijkl");
    }
}
