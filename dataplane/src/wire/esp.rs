//! ESP headers (RFC 4303): the two fields that are not encrypted.

use super::{Error, be32};

/// Bytes of the header.
pub const HEADER: usize = 8;

/// An ESP packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B>(B);

impl<B: AsRef<[u8]>> Packet<B> {
    /// Checks that the header is present.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    pub fn new_checked(bytes: B) -> Result<Self, Error> {
        if bytes.as_ref().len() < HEADER { Err(Error::Truncated) } else { Ok(Self(bytes)) }
    }
    /// Security parameters index.
    pub fn spi(&self) -> u32 {
        be32(self.0.as_ref(), 0)
    }
    /// Sequence number.
    pub fn seq(&self) -> u32 {
        be32(self.0.as_ref(), 4)
    }
}
