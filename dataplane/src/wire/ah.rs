//! Authentication headers (RFC 4302).

use super::{Error, be32};

/// Bytes of the fixed header.
pub const HEADER: usize = 12;

/// An AH packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B>(B);

impl<B: AsRef<[u8]>> Packet<B> {
    /// Checks that the header, integrity value included, is present.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::HeaderLength`].
    pub fn new_checked(bytes: B) -> Result<Self, Error> {
        let packet = bytes.as_ref();
        if packet.len() < HEADER {
            return Err(Error::Truncated);
        }
        let header = (usize::from(packet[1]) + 2) * 4;
        if header < HEADER {
            return Err(Error::HeaderLength);
        }
        if header > packet.len() {
            return Err(Error::Truncated);
        }
        Ok(Self(bytes))
    }
    /// Protocol of what follows.
    pub fn next_header(&self) -> u8 {
        self.0.as_ref()[0]
    }
    /// Header bytes, integrity value included.
    pub fn header_len(&self) -> usize {
        (usize::from(self.0.as_ref()[1]) + 2) * 4
    }
    /// Security parameters index.
    pub fn spi(&self) -> u32 {
        be32(self.0.as_ref(), 4)
    }
    /// Sequence number.
    pub fn seq(&self) -> u32 {
        be32(self.0.as_ref(), 8)
    }
    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[self.header_len()..]
    }
}
