//! ICMPv6 headers.

use super::{Error, be16, be32, put16};

/// Bytes of the header that the data plane reads.
pub const HEADER: usize = 8;

/// Message types.
pub mod kind {
    /// Destination unreachable.
    pub const UNREACHABLE: u8 = 1;
    /// Packet too big.
    pub const TOO_BIG: u8 = 2;
    /// Time exceeded.
    pub const TIME_EXCEEDED: u8 = 3;
    /// Parameter problem.
    pub const PARAMETER_PROBLEM: u8 = 4;
    /// Echo request.
    pub const ECHO: u8 = 128;
    /// Echo reply.
    pub const ECHO_REPLY: u8 = 129;
    /// Multicast listener query.
    pub const MLD_QUERY: u8 = 130;
    /// Multicast listener report.
    pub const MLD_REPORT: u8 = 131;
    /// Multicast listener done.
    pub const MLD_DONE: u8 = 132;
    /// Router solicitation.
    pub const ROUTER_SOLICITATION: u8 = 133;
    /// Router advertisement.
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Neighbour solicitation.
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Neighbour advertisement.
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Redirect.
    pub const REDIRECT: u8 = 137;
    /// Version 2 multicast listener report.
    pub const MLD2_REPORT: u8 = 143;
}

/// Whether a type reports an error about the packet it quotes.
#[inline]
pub const fn is_error(kind: u8) -> bool {
    kind < 128
}

/// An ICMPv6 message.
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
    /// Identifier of echo messages.
    pub fn id(&self) -> u16 {
        be16(self.0.as_ref(), 4)
    }
    /// Sequence number of echo messages.
    pub fn seq(&self) -> u16 {
        be16(self.0.as_ref(), 6)
    }
    /// The MTU of "packet too big", or the pointer of "parameter problem".
    pub fn word(&self) -> u32 {
        be32(self.0.as_ref(), 4)
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
