//! The facts about one frame that later stages rely on, checked once.

/// Index of a port in the port table; at most [`MAX_PORTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u8);

/// Interfaces are one bit each in a classifier key; [`PortId::LOOPBACK`] and "no
/// interface" take the other two.
pub const MAX_PORTS: usize = 62;

impl PortId {
    /// The machine's loopback interface: no port, but what `-i lo` means for
    /// packets that this machine sends itself.
    pub const LOOPBACK: Self = Self(MAX_PORTS as u8);

    /// The port's class bit in a classifier key.
    #[inline]
    pub const fn bit(self) -> u64 {
        1 << self.0
    }
    /// The port's index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A link-layer address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

/// Network-layer family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// How the frame was addressed at layer 2 (`-m pkttype`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PktType {
    /// To the port's own MAC address.
    Host,
    /// To the broadcast address.
    Broadcast,
    /// To a group address.
    Multicast,
    /// To somebody else's MAC address (bridge mode, promiscuous).
    OtherHost,
}

/// Whether layer 4 can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum L4Class {
    /// The whole fixed header of the protocol is present (or the protocol has none that we read).
    Whole,
    /// A non-first fragment: there is no layer 4 header.
    LaterFragment,
    /// Too short for its protocol's header, an IPv4 fragment at offset 8, or a
    /// broken IPv6 header chain ([`Parsed::broken_chain`]). Rules are walked one
    /// by one for these, because a match may drop the packet outright.
    Odd,
}

impl L4Class {
    /// The class bit in a classifier key.
    #[inline]
    pub const fn bit(self) -> u64 {
        match self {
            Self::Whole => 1,
            Self::LaterFragment => 2,
            Self::Odd => 4,
        }
    }
}

/// Fragment position of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// Not a fragment.
    Whole,
    /// Offset 0 with more to come.
    First,
    /// Offset above 0, in bytes.
    Later {
        /// Byte offset of this fragment's payload in the datagram.
        offset: u16,
        /// Whether more fragments follow.
        more: bool,
    },
}

/// One IP packet in a frame, parsed and checked. Offsets are from the first
/// byte of the Ethernet header. Every offset and length lies inside the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// Network-layer family.
    pub family: Family,
    /// Offset of the IP header.
    pub l3: u16,
    /// Length of the IP packet, header included, as the header says.
    pub l3_len: u16,
    /// Offset of the layer 4 header (after options or extension headers).
    pub l4: u16,
    /// Bytes of layer 4 present in this packet (header and payload).
    pub l4_len: u16,
    /// Layer 4 protocol as `-p` sees it (after IPv6 extension headers); zero
    /// for a broken IPv6 header chain, which no intact chain ends with.
    pub proto: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS byte or IPv6 traffic class.
    pub tos: u8,
    /// TCP flag byte; zero for other protocols or when not present.
    pub tcp_flags: u8,
    /// Fragment position.
    pub fragment: Fragment,
    /// Whether layer 4 can be looked at.
    pub l4_class: L4Class,
    /// Source port, or ICMP type; zero when not present.
    pub sport: u16,
    /// Destination port, or ICMP code; zero when not present.
    pub dport: u16,
    /// Source address (IPv4 in the low 32 bits).
    pub src: u128,
    /// Destination address (IPv4 in the low 32 bits).
    pub dst: u128,
    /// How the frame was addressed at layer 2.
    pub pkt_type: PktType,
}

impl Parsed {
    /// Whether the IPv6 header chain is cut short, or a later fragment claims to
    /// start with an extension header. No layer 4 protocol is known then: a rule
    /// with `-p` whose addresses and interfaces match drops the packet outright
    /// (hotdrop), other rules see it as usual, and tracking calls it INVALID.
    #[inline]
    pub fn broken_chain(&self) -> bool {
        self.family == Family::V6 && self.proto == 0
    }
    /// The IP packet, header included, trimmed of link-layer padding.
    pub fn l3_bytes<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        let start = self.l3 as usize;
        &frame[start..start + self.l3_len as usize]
    }
    /// The layer 4 bytes present in this packet.
    pub fn l4_bytes<'f>(&self, frame: &'f [u8]) -> &'f [u8] {
        let start = self.l4 as usize;
        &frame[start..start + self.l4_len as usize]
    }
}
