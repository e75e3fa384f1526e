//! Wire formats: checked views over bytes and the frame parser.
//!
//! One file per protocol. A view is checked once, by `Packet::new_checked`;
//! its accessors then need no length checks, because every offset that they
//! use was proven to lie inside the bytes. Setters exist where the data plane
//! rewrites. [`parse()`] turns a frame into the facts that later stages rely on.

pub mod ah;
pub mod arp;
pub mod build;
pub mod checksum;
pub mod esp;
pub mod ethernet;
pub mod gre;
pub mod icmp;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod options;
pub mod parse;
pub mod plain;
pub mod sctp;
pub mod tcp;
pub mod udp;

#[cfg(test)]
mod tests;

pub use parse::{Frame, parse, parse_looped};

/// Why bytes are not what a view expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Error {
    /// Fewer bytes than the fixed header, or than the header's own length field.
    #[error("cut short")]
    Truncated,
    /// A version field that is not the protocol's.
    #[error("wrong version")]
    Version,
    /// A header length field below the minimum.
    #[error("header length field too small")]
    HeaderLength,
    /// A total or payload length field that contradicts the header or the bytes present.
    #[error("length field contradicts the packet")]
    Length,
    /// A checksum that does not verify.
    #[error("wrong checksum")]
    Checksum,
    /// An option or extension header that is malformed or refused.
    #[error("malformed option or extension header")]
    Option,
}

/// IP protocol numbers that the data plane knows.
pub mod proto {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IGMP.
    pub const IGMP: u8 = 2;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE.
    pub const GRE: u8 = 47;
    /// ESP.
    pub const ESP: u8 = 50;
    /// AH.
    pub const AH: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// No next header.
    pub const NONE: u8 = 59;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDPLITE: u8 = 136;
}

/// EtherTypes that the data plane knows.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad outer tag (QinQ).
    pub const QINQ: u16 = 0x88a8;
}

/// Reads a big-endian u16. The caller has checked the length.
#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Reads a big-endian u32. The caller has checked the length.
#[inline]
pub(crate) fn be32(bytes: &[u8], at: usize) -> u32 {
    let word = &bytes[at..at + 4];
    u32::from_be_bytes([word[0], word[1], word[2], word[3]])
}

/// Reads a big-endian u128. The caller has checked the length.
#[inline]
pub(crate) fn be128(bytes: &[u8], at: usize) -> u128 {
    let mut word = [0; 16];
    word.copy_from_slice(&bytes[at..at + 16]);
    u128::from_be_bytes(word)
}

/// Writes a big-endian u16. The caller has checked the length.
#[inline]
pub(crate) fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Writes a big-endian u32. The caller has checked the length.
#[inline]
pub(crate) fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
