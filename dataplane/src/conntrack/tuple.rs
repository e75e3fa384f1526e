//! The tuple: what identifies one direction of a connection.

use crate::packet::Family;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// As the first packet went.
    Original,
    /// Back.
    Reply,
}

/// One direction of a connection, before any hashing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address (IPv4 in the low 32 bits).
    pub src: u128,
    /// Destination address (IPv4 in the low 32 bits).
    pub dst: u128,
    /// Source port, or ICMP identifier.
    pub sport: u16,
    /// Destination port, or ICMP type << 8 | code.
    pub dport: u16,
    /// Layer 4 protocol.
    pub proto: u8,
    /// Network family.
    pub family: Family,
    /// Conntrack zone.
    pub zone: u16,
}
