//! IPv4 headers with options.

use super::{Error, be16, be32, checksum, put16, put32};
use crate::packet::Fragment;

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Don't-fragment bit of the fragment word.
pub const DF: u16 = 0x4000;
/// More-fragments bit of the fragment word.
pub const MF: u16 = 0x2000;
/// Offset bits of the fragment word, in units of 8 bytes.
pub const OFFSET_MASK: u16 = 0x1fff;

/// An IPv4 packet; bytes beyond its total length are padding.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B>(B);

impl<B: AsRef<[u8]>> Packet<B> {
    /// Checks version, header length and total length. Not the checksum: see
    /// [`Packet::checksum_ok`].
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Version`], [`Error::HeaderLength`], [`Error::Length`].
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, Error> {
        let packet = Self::new_header(bytes)?;
        let (header, total) = (packet.header_len(), packet.total_len());
        if total < header || total > packet.0.as_ref().len() {
            return Err(Error::Length);
        }
        Ok(packet)
    }
    /// As [`Packet::new_checked`], for a header whose packet may be cut short,
    /// as in the quotation of an ICMP error. The total length is not checked.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Version`], [`Error::HeaderLength`].
    #[inline]
    pub fn new_header(bytes: B) -> Result<Self, Error> {
        let packet = bytes.as_ref();
        if packet.len() < HEADER {
            return Err(Error::Truncated);
        }
        if packet[0] >> 4 != 4 {
            return Err(Error::Version);
        }
        let header = usize::from(packet[0] & 15) * 4;
        if header < HEADER {
            return Err(Error::HeaderLength);
        }
        if header > packet.len() {
            return Err(Error::Truncated);
        }
        Ok(Self(bytes))
    }
    /// Header bytes, options included: 20-60.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[0] & 15) * 4
    }
    /// The total length field, in bytes.
    #[inline]
    pub fn total_len(&self) -> usize {
        usize::from(be16(self.0.as_ref(), 2))
    }
    /// The TOS byte.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.0.as_ref()[1]
    }
    /// The identification.
    pub fn id(&self) -> u16 {
        be16(self.0.as_ref(), 4)
    }
    /// Flags and offset as one word.
    #[inline]
    pub fn fragment_word(&self) -> u16 {
        be16(self.0.as_ref(), 6)
    }
    /// Whether the packet must not be fragmented.
    pub fn dont_fragment(&self) -> bool {
        self.fragment_word() & DF != 0
    }
    /// Fragment position.
    #[inline]
    pub fn fragment(&self) -> Fragment {
        let word = self.fragment_word();
        let (offset, more) = ((word & OFFSET_MASK) * 8, word & MF != 0);
        match (offset, more) {
            (0, false) => Fragment::Whole,
            (0, true) => Fragment::First,
            (offset, more) => Fragment::Later { offset, more },
        }
    }
    /// Time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.0.as_ref()[8]
    }
    /// Layer 4 protocol.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.0.as_ref()[9]
    }
    /// The header checksum field.
    pub fn checksum(&self) -> u16 {
        be16(self.0.as_ref(), 10)
    }
    /// Source address.
    #[inline]
    pub fn src(&self) -> u32 {
        be32(self.0.as_ref(), 12)
    }
    /// Destination address.
    #[inline]
    pub fn dst(&self) -> u32 {
        be32(self.0.as_ref(), 16)
    }
    /// Option bytes.
    pub fn options(&self) -> &[u8] {
        &self.0.as_ref()[HEADER..self.header_len()]
    }
    /// Whether the header checksum verifies.
    #[inline]
    pub fn checksum_ok(&self) -> bool {
        let header = &self.0.as_ref()[..self.header_len()];
        match header.first_chunk() {
            Some(plain) if header.len() == HEADER => checksum::plain_header_ok(plain),
            _ => checksum::internet(header) == 0,
        }
    }
    /// Payload bytes that are present, padding excluded.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.0.as_ref();
        &bytes[self.header_len()..self.total_len().clamp(self.header_len(), bytes.len())]
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Packet<B> {
    /// Sets the total length; the checksum is left to [`Packet::fill_checksum`].
    pub fn set_total_len(&mut self, bytes: u16) {
        put16(self.0.as_mut(), 2, bytes);
    }
    /// Sets the fragment word; the checksum is left to [`Packet::fill_checksum`].
    pub fn set_fragment_word(&mut self, word: u16) {
        put16(self.0.as_mut(), 6, word);
    }
    /// Sets the TOS byte, updating the checksum.
    pub fn set_tos(&mut self, tos: u8) {
        let old = be16(self.0.as_ref(), 0);
        self.0.as_mut()[1] = tos;
        self.patch16(old, be16(self.0.as_ref(), 0));
    }
    /// Sets the TTL, updating the checksum.
    #[inline]
    pub fn set_ttl(&mut self, ttl: u8) {
        let old = be16(self.0.as_ref(), 8);
        self.0.as_mut()[8] = ttl;
        self.patch16(old, be16(self.0.as_ref(), 8));
    }
    /// Lowers the TTL by one, updating the checksum. The caller has seen that it is above zero.
    #[inline]
    pub fn decrement_ttl(&mut self) {
        self.set_ttl(self.ttl().wrapping_sub(1));
    }
    /// Sets the source address, updating the header checksum only.
    pub fn set_src(&mut self, address: u32) {
        self.set_address(12, address);
    }
    /// Sets the destination address, updating the header checksum only.
    pub fn set_dst(&mut self, address: u32) {
        self.set_address(16, address);
    }
    /// Computes the header checksum afresh.
    pub fn fill_checksum(&mut self) {
        let header = self.header_len();
        put16(self.0.as_mut(), 10, 0);
        let sum = checksum::internet(&self.0.as_ref()[..header]);
        put16(self.0.as_mut(), 10, sum);
    }

    fn set_address(&mut self, at: usize, address: u32) {
        let sum = checksum::update32(self.checksum(), be32(self.0.as_ref(), at), address);
        put32(self.0.as_mut(), at, address);
        put16(self.0.as_mut(), 10, sum);
    }

    #[inline]
    fn patch16(&mut self, old: u16, new: u16) {
        let sum = checksum::update16(self.checksum(), old, new);
        put16(self.0.as_mut(), 10, sum);
    }
}
