//! ARP for IPv4 over Ethernet, as a read-only view.

use super::{Error, be16, be32};
use crate::packet::Mac;

/// Bytes of an Ethernet/IPv4 ARP packet.
pub const LEN: usize = 28;

/// An ARP packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B>(B);

impl<B: AsRef<[u8]>> Packet<B> {
    /// Checks length, hardware and protocol types.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::Version`] when it is not Ethernet and IPv4.
    pub fn new_checked(bytes: B) -> Result<Self, Error> {
        let packet = bytes.as_ref();
        if packet.len() < LEN {
            return Err(Error::Truncated);
        }
        if be16(packet, 0) != 1 || be16(packet, 2) != 0x0800 || packet[4..6] != [6, 4] {
            return Err(Error::Version);
        }
        Ok(Self(bytes))
    }
    /// 1 request, 2 reply.
    pub fn operation(&self) -> u16 {
        be16(self.0.as_ref(), 6)
    }
    /// Sender's link-layer address.
    pub fn sender_mac(&self) -> Mac {
        self.mac(8)
    }
    /// Sender's IPv4 address.
    pub fn sender_ip(&self) -> u32 {
        be32(self.0.as_ref(), 14)
    }
    /// Target's link-layer address.
    pub fn target_mac(&self) -> Mac {
        self.mac(18)
    }
    /// Target's IPv4 address.
    pub fn target_ip(&self) -> u32 {
        be32(self.0.as_ref(), 24)
    }

    fn mac(&self, at: usize) -> Mac {
        let mut address = [0; 6];
        address.copy_from_slice(&self.0.as_ref()[at..at + 6]);
        Mac(address)
    }
}
