//! The burst engine: the packet's road as one readable function.
//!
//! Driven identically by AF_XDP, pcap, memory and fault-injecting ports. It
//! does no I/O, reads no clock, and allocates nothing per packet.

use crate::packet::PortId;
use crate::verdict::Disposition;

/// Frames in one burst at most.
pub const BURST: usize = 64;

/// One frame on its way through the engine: bytes in somebody else's buffer.
#[derive(Debug)]
pub struct Slot<'f> {
    /// The whole buffer, headroom and tailroom included.
    pub buf: &'f mut [u8],
    /// Where the Ethernet header starts in `buf`. The engine may move it.
    pub start: usize,
    /// Frame length in bytes, Ethernet header included. The engine may change it.
    pub len: usize,
    /// The port it arrived on.
    pub port: PortId,
    /// What the engine decided.
    pub disposition: Disposition,
}

impl Slot<'_> {
    /// The frame from its Ethernet header on.
    pub fn frame(&self) -> &[u8] {
        &self.buf[self.start..self.start + self.len]
    }
    /// The frame, writable.
    pub fn frame_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.start + self.len]
    }
}
