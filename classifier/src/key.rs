//! The key: what the classifier may know of one packet.

use crate::field::Address;

/// The static facts of a packet that rules are indexed by.
///
/// Fields that a packet lacks are zero; `class.l4` says whether ports and
/// `flags` mean anything, and rules that look at them constrain it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Key<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port; for ICMP and ICMPv6 the type.
    pub sport: u16,
    /// Destination port; for ICMP and ICMPv6 the code.
    pub dport: u16,
    /// Layer 4 protocol number.
    pub proto: u8,
    /// TCP flag byte (FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32, ECE 64, CWR 128).
    pub flags: u8,
    /// Input interface: one bit, or zero when there is none (OUTPUT).
    pub iif: u64,
    /// Output interface: one bit, or zero when there is none (INPUT, PREROUTING).
    pub oif: u64,
    /// Connection-state class: one bit.
    pub state: u64,
    /// Layer 4 availability class: one bit.
    pub l4: u64,
}

impl<A: Address> Key<A> {
    /// A key with every field zero.
    pub fn zero() -> Self {
        Self::default()
    }
}
