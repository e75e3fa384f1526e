//! SCTP common headers and chunks.

use super::{Error, be16, be32, checksum, put16};

/// Bytes of the common header.
pub const HEADER: usize = 12;

/// An SCTP packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B>(B);

impl<B: AsRef<[u8]>> Packet<B> {
    /// Checks that the common header is present.
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
    /// Verification tag.
    pub fn tag(&self) -> u32 {
        be32(self.0.as_ref(), 4)
    }
    /// Whether the CRC32c verifies.
    pub fn checksum_ok(&self) -> bool {
        let packet = self.0.as_ref();
        checksum::sctp(packet) == be32(packet, 8).swap_bytes()
    }
    /// Chunks as (type, flags, whole chunk), up to the first malformed one.
    pub fn chunks(&self) -> Chunks<'_> {
        Chunks { rest: &self.0.as_ref()[HEADER..] }
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Packet<B> {
    /// Sets the source port.
    pub fn set_sport(&mut self, port: u16) {
        put16(self.0.as_mut(), 0, port);
    }
    /// Sets the destination port.
    pub fn set_dport(&mut self, port: u16) {
        put16(self.0.as_mut(), 2, port);
    }
    /// Computes the CRC32c afresh.
    pub fn fill_checksum(&mut self) {
        let crc = checksum::sctp(self.0.as_ref());
        self.0.as_mut()[8..12].copy_from_slice(&crc.to_le_bytes());
    }
}

/// One SCTP chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Chunk type.
    pub kind: u8,
    /// Chunk flags.
    pub flags: u8,
    /// Value, without the four header bytes and padding.
    pub value: &'a [u8],
}

/// Iterator over chunks.
#[derive(Clone, Copy, Debug)]
pub struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Chunk<'a>;

    fn next(&mut self) -> Option<Chunk<'a>> {
        let header = self.rest.get(..4)?;
        let size = usize::from(be16(header, 2));
        if size < 4 || size > self.rest.len() {
            self.rest = &[];
            return None;
        }
        let chunk = Chunk { kind: header[0], flags: header[1], value: &self.rest[4..size] };
        self.rest = &self.rest[size.next_multiple_of(4).min(self.rest.len())..];
        Some(chunk)
    }
}
