//! GRE headers: version 0, and version 1 as PPTP uses it.

use super::{Error, be16, be32};

/// Bytes that every GRE header has.
pub const HEADER: usize = 4;

/// A GRE packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B>(B);

impl<B: AsRef<[u8]>> Packet<B> {
    /// Checks the version and that the optional fields its flags announce are present.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::Version`] above 1.
    pub fn new_checked(bytes: B) -> Result<Self, Error> {
        let packet = bytes.as_ref();
        if packet.len() < HEADER {
            return Err(Error::Truncated);
        }
        if packet[1] & 7 > 1 {
            return Err(Error::Version);
        }
        let packet = Self(bytes);
        if packet.header_len() > packet.0.as_ref().len() {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }
    /// 0, or 1 for PPTP.
    pub fn version(&self) -> u8 {
        self.0.as_ref()[1] & 7
    }
    /// EtherType of the payload.
    pub fn protocol(&self) -> u16 {
        be16(self.0.as_ref(), 2)
    }
    /// Header bytes, optional fields included.
    pub fn header_len(&self) -> usize {
        let packet = self.0.as_ref();
        let words = (packet[0] & 0x80 != 0) as usize
            + (packet[0] & 0x20 != 0) as usize
            + (packet[0] & 0x10 != 0) as usize
            + (self.version() == 1 && packet[1] & 0x80 != 0) as usize;
        HEADER + 4 * words
    }
    /// The key, when present. For PPTP: payload length << 16 | call id.
    pub fn key(&self) -> Option<u32> {
        let packet = self.0.as_ref();
        let at = if packet[0] & 0x80 != 0 { 8 } else { 4 };
        (packet[0] & 0x20 != 0).then(|| be32(packet, at))
    }
    /// The call id of PPTP's enhanced GRE.
    pub fn call_id(&self) -> Option<u16> {
        self.key().filter(|_| self.version() == 1).map(|key| key as u16)
    }
    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[self.header_len()..]
    }
}
