//! Ethernet II headers with 802.1Q and 802.1ad (QinQ) tags.

use super::{Error, be16, ethertype, put16};
use crate::packet::{Mac, PktType};

/// Bytes of an untagged header.
pub const HEADER: usize = 14;
/// Bytes of one VLAN tag.
pub const TAG: usize = 4;
/// Tags that [`Packet::payload`] looks through.
pub const MAX_TAGS: usize = 2;

/// One VLAN tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The EtherType that announced the tag.
    pub tpid: u16,
    /// Priority, drop eligibility and VLAN id.
    pub tci: u16,
}

impl Tag {
    /// The VLAN id, 0-4095.
    pub const fn vid(self) -> u16 {
        self.tci & 0x0fff
    }
    /// The priority code point, 0-7.
    pub const fn priority(self) -> u8 {
        (self.tci >> 13) as u8
    }
}

/// A frame with its tags located.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B> {
    bytes: B,
    tags: u8,
}

/// Whether an EtherType announces a tag.
pub const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ethertype::VLAN | ethertype::QINQ)
}

impl<B: AsRef<[u8]>> Packet<B> {
    /// Checks that the header and up to [`MAX_TAGS`] tags are present.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, Error> {
        let frame = bytes.as_ref();
        if frame.len() < HEADER {
            return Err(Error::Truncated);
        }
        let mut tags = 0;
        while (tags as usize) < MAX_TAGS && is_tag(be16(frame, 12 + tags as usize * TAG)) {
            tags += 1;
            if frame.len() < HEADER + tags as usize * TAG {
                return Err(Error::Truncated);
            }
        }
        Ok(Self { bytes, tags })
    }
    /// Destination address.
    pub fn dst(&self) -> Mac {
        mac(self.bytes.as_ref(), 0)
    }
    /// Source address.
    pub fn src(&self) -> Mac {
        mac(self.bytes.as_ref(), 6)
    }
    /// Number of tags, at most [`MAX_TAGS`].
    pub fn tag_count(&self) -> usize {
        self.tags as usize
    }
    /// Tags, outermost first.
    pub fn tags(&self) -> impl Iterator<Item = Tag> + '_ {
        let frame = self.bytes.as_ref();
        (0..self.tags as usize)
            .map(move |i| Tag { tpid: be16(frame, 12 + i * TAG), tci: be16(frame, 14 + i * TAG) })
    }
    /// The EtherType behind the tags (a length below 0x600 for 802.3 frames).
    pub fn ethertype(&self) -> u16 {
        be16(self.bytes.as_ref(), self.header_len() - 2)
    }
    /// Bytes before the payload.
    pub fn header_len(&self) -> usize {
        HEADER + self.tags as usize * TAG
    }
    /// What follows the header, padding included.
    pub fn payload(&self) -> &[u8] {
        &self.bytes.as_ref()[self.header_len()..]
    }
    /// How the frame is addressed, seen from a port with address `local`.
    #[inline]
    pub fn pkt_type(&self, local: Mac) -> PktType {
        classify(self.dst(), local)
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Packet<B> {
    /// Sets the destination address.
    pub fn set_dst(&mut self, address: Mac) {
        self.bytes.as_mut()[..6].copy_from_slice(&address.0);
    }
    /// Sets the source address.
    pub fn set_src(&mut self, address: Mac) {
        self.bytes.as_mut()[6..12].copy_from_slice(&address.0);
    }
    /// Sets the EtherType behind the tags.
    pub fn set_ethertype(&mut self, ethertype: u16) {
        let at = self.header_len() - 2;
        put16(self.bytes.as_mut(), at, ethertype);
    }
}

/// How a frame to `dst` is addressed, seen from a port with address `local`.
#[inline]
pub fn classify(dst: Mac, local: Mac) -> PktType {
    if dst == local {
        PktType::Host
    } else if dst.0 == [0xff; 6] {
        PktType::Broadcast
    } else if dst.0[0] & 1 == 1 {
        PktType::Multicast
    } else {
        PktType::OtherHost
    }
}

fn mac(frame: &[u8], at: usize) -> Mac {
    let mut address = [0; 6];
    address.copy_from_slice(&frame[at..at + 6]);
    Mac(address)
}
