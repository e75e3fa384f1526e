//! UDP and UDP-Lite headers.

use super::{Error, be16, put16};

/// Bytes of the header.
pub const HEADER: usize = 8;

/// A UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B>(B);

impl<B: AsRef<[u8]>> Packet<B> {
    /// Checks that the header is present. The length field is not judged: see
    /// [`Packet::length_ok`].
    ///
    /// # Errors
    /// [`Error::Truncated`].
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, Error> {
        if bytes.as_ref().len() < HEADER { Err(Error::Truncated) } else { Ok(Self(bytes)) }
    }
    /// Source port.
    pub fn sport(&self) -> u16 {
        be16(self.0.as_ref(), 0)
    }
    /// Destination port.
    pub fn dport(&self) -> u16 {
        be16(self.0.as_ref(), 2)
    }
    /// The length field (UDP) or checksum coverage (UDP-Lite), in bytes.
    pub fn length(&self) -> u16 {
        be16(self.0.as_ref(), 4)
    }
    /// The checksum field; zero means none over IPv4.
    pub fn checksum(&self) -> u16 {
        be16(self.0.as_ref(), 6)
    }
    /// Whether the length field covers the header and stays inside the bytes.
    pub fn length_ok(&self) -> bool {
        (HEADER..=self.0.as_ref().len()).contains(&usize::from(self.length()))
    }
    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER..]
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Packet<B> {
    /// Sets the source port; the checksum is the caller's.
    pub fn set_sport(&mut self, port: u16) {
        put16(self.0.as_mut(), 0, port);
    }
    /// Sets the destination port; the checksum is the caller's.
    pub fn set_dport(&mut self, port: u16) {
        put16(self.0.as_mut(), 2, port);
    }
    /// Sets the checksum field.
    pub fn set_checksum(&mut self, sum: u16) {
        put16(self.0.as_mut(), 6, sum);
    }
}
