//! TCP headers and their options.

use super::{Error, be16, be32, put16, put32};

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Where in it the checksum is.
pub const CHECKSUM: usize = 16;

/// Flag bits of byte 13.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement field means something.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer means something.
    pub const URG: u8 = 0x20;
    /// ECN echo.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// A TCP segment.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B>(B);

impl<B: AsRef<[u8]>> Packet<B> {
    /// Checks that the fixed header is present and the data offset lies in the segment.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::HeaderLength`].
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, Error> {
        let segment = bytes.as_ref();
        if segment.len() < HEADER {
            return Err(Error::Truncated);
        }
        let header = usize::from(segment[12] >> 4) * 4;
        if header < HEADER {
            return Err(Error::HeaderLength);
        }
        if header > segment.len() {
            return Err(Error::Truncated);
        }
        Ok(Self(bytes))
    }
    /// Source port.
    pub fn sport(&self) -> u16 {
        be16(self.0.as_ref(), 0)
    }
    /// Destination port.
    pub fn dport(&self) -> u16 {
        be16(self.0.as_ref(), 2)
    }
    /// Sequence number.
    pub fn seq(&self) -> u32 {
        be32(self.0.as_ref(), 4)
    }
    /// Acknowledgement number.
    pub fn ack(&self) -> u32 {
        be32(self.0.as_ref(), 8)
    }
    /// Header bytes, options included: 20-60.
    pub fn header_len(&self) -> usize {
        usize::from(self.0.as_ref()[12] >> 4) * 4
    }
    /// The four reserved bits between data offset and flags.
    pub fn reserved(&self) -> u8 {
        self.0.as_ref()[12] & 15
    }
    /// The flag byte ([`flags`]).
    pub fn flags(&self) -> u8 {
        self.0.as_ref()[13]
    }
    /// Window, unscaled.
    pub fn window(&self) -> u16 {
        be16(self.0.as_ref(), 14)
    }
    /// The checksum field.
    pub fn checksum(&self) -> u16 {
        be16(self.0.as_ref(), 16)
    }
    /// Urgent pointer.
    pub fn urgent(&self) -> u16 {
        be16(self.0.as_ref(), 18)
    }
    /// Option bytes.
    pub fn option_bytes(&self) -> &[u8] {
        &self.0.as_ref()[HEADER..self.header_len()]
    }
    /// The options, up to the first malformed one.
    pub fn options(&self) -> Options<'_> {
        Options { rest: self.option_bytes() }
    }
    /// The payload.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[self.header_len()..]
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
    /// Sets the sequence number; the checksum is the caller's.
    pub fn set_seq(&mut self, seq: u32) {
        put32(self.0.as_mut(), 4, seq);
    }
    /// Sets the acknowledgement number; the checksum is the caller's.
    pub fn set_ack(&mut self, ack: u32) {
        put32(self.0.as_mut(), 8, ack);
    }
    /// Sets the checksum field.
    pub fn set_checksum(&mut self, sum: u16) {
        put16(self.0.as_mut(), 16, sum);
    }
}

/// One TCP option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpOption<'a> {
    /// Kind 1.
    NoOperation,
    /// Kind 2: maximum segment size in bytes.
    MaxSegment(u16),
    /// Kind 3: window scale shift, as sent (may exceed 14).
    WindowScale(u8),
    /// Kind 4.
    SackPermitted,
    /// Kind 5: blocks of left and right edges.
    Sack(SackBlocks<'a>),
    /// Kind 8: value and echo.
    Timestamps(u32, u32),
    /// Any other kind, or a known kind of unexpected length, with its data.
    Other(u8, &'a [u8]),
}

/// The blocks of a SACK option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SackBlocks<'a>(&'a [u8]);

impl<'a> SackBlocks<'a> {
    /// Left and right edges, in sent order.
    pub fn iter(self) -> impl Iterator<Item = (u32, u32)> + 'a {
        self.0.chunks_exact(8).map(|block| (be32(block, 0), be32(block, 4)))
    }
}

/// Iterator over TCP options; ends at End-of-Options or the first malformed one.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    /// Over raw option bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = TcpOption<'a>;

    fn next(&mut self) -> Option<TcpOption<'a>> {
        let (&kind, rest) = self.rest.split_first()?;
        match kind {
            0 => {
                self.rest = &[];
                return None;
            }
            1 => {
                self.rest = rest;
                return Some(TcpOption::NoOperation);
            }
            _ => {}
        }
        let size = usize::from(*rest.first()?);
        if size < 2 || size > self.rest.len() {
            self.rest = &[];
            return None;
        }
        let (option, rest) = self.rest.split_at(size);
        self.rest = rest;
        let data = &option[2..];
        Some(match (kind, data.len()) {
            (2, 2) => TcpOption::MaxSegment(be16(data, 0)),
            (3, 1) => TcpOption::WindowScale(data[0]),
            (4, 0) => TcpOption::SackPermitted,
            (5, 8 | 16 | 24 | 32) => TcpOption::Sack(SackBlocks(data)),
            (8, 8) => TcpOption::Timestamps(be32(data, 0), be32(data, 4)),
            _ => TcpOption::Other(kind, data),
        })
    }
}
