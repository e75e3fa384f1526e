//! ICMP (IPv4) headers.

use super::{Error, be16, put16};

/// Bytes of the header that every type has.
pub const HEADER: usize = 8;

/// Message types.
pub mod kind {
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 0;
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 3;
    /// Source quench.
    pub const SOURCE_QUENCH: u8 = 4;
    /// Redirect.
    pub const REDIRECT: u8 = 5;
    /// Echo request.
    pub const ECHO: u8 = 8;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 11;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 12;
    /// Timestamp request.
    pub const TIMESTAMP: u8 = 13;
    /// Timestamp reply.
    pub const TIMESTAMP_REPLY: u8 = 14;
    /// Information request.
    pub const INFO_REQUEST: u8 = 15;
    /// Information reply.
    pub const INFO_REPLY: u8 = 16;
    /// Address mask request.
    pub const ADDRESS: u8 = 17;
    /// Address mask reply.
    pub const ADDRESS_REPLY: u8 = 18;
    /// Highest type that is known.
    pub const MAX: u8 = 18;
}

/// Whether a type reports an error about the packet it quotes.
#[inline]
pub const fn is_error(kind: u8) -> bool {
    matches!(
        kind,
        kind::UNREACHABLE
            | kind::SOURCE_QUENCH
            | kind::REDIRECT
            | kind::TIME_EXCEEDED
            | kind::PARAMETER_PROBLEM
    )
}

/// An ICMP message.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B>(B);

impl<B: AsRef<[u8]>> Packet<B> {
    /// Checks that the header is present.
    ///
    /// # Errors
    /// [`Error::Truncated`].
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, Error> {
        if bytes.as_ref().len() < HEADER { Err(Error::Truncated) } else { Ok(Self(bytes)) }
    }
    /// Type.
    pub fn kind(&self) -> u8 {
        self.0.as_ref()[0]
    }
    /// Code.
    pub fn code(&self) -> u8 {
        self.0.as_ref()[1]
    }
    /// The checksum field.
    pub fn checksum(&self) -> u16 {
        be16(self.0.as_ref(), 2)
    }
    /// Identifier of queries and their replies.
    pub fn id(&self) -> u16 {
        be16(self.0.as_ref(), 4)
    }
    /// Sequence number of queries; next-hop MTU of "fragmentation needed".
    pub fn seq(&self) -> u16 {
        be16(self.0.as_ref(), 6)
    }
    /// What follows the header: the quoted packet of an error.
    pub fn payload(&self) -> &[u8] {
        &self.0.as_ref()[HEADER..]
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Packet<B> {
    /// Sets the identifier; the checksum is the caller's.
    pub fn set_id(&mut self, id: u16) {
        put16(self.0.as_mut(), 4, id);
    }
    /// Sets the checksum field.
    pub fn set_checksum(&mut self, sum: u16) {
        put16(self.0.as_mut(), 2, sum);
    }
}
