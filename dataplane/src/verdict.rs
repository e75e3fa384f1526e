//! Why a packet was not sent: one enum, one counter per variant.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal,)*) => {
        /// Every reason for which a frame ends without being sent on as it was.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $variant,)* }

        impl DropReason {
            /// All reasons, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The stable name used in statistics, events and documentation.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an Ethernet header, or a VLAN tag cut short.
    FrameTruncated => "frame_truncated",
    /// Unicast to a MAC address that is not the port's (routed mode).
    NotForUs => "not_for_us",
    /// An EtherType that this mode neither routes nor passes on.
    UnknownEtherType => "unknown_ethertype",
    /// IP version, header length or total length is wrong, or the packet is cut short.
    IpHeader => "ip_header",
    /// The IPv4 header checksum is wrong.
    IpChecksum => "ip_checksum",
    /// IPv4 options that a router must refuse (bad source route and the like).
    IpOptions => "ip_options",
    /// An IPv6 extension header chain that is malformed or too long.
    ExtensionHeader => "extension_header",
    /// A source address that no packet may carry on the wire.
    MartianSource => "martian_source",
    /// A destination address that no packet may carry on the wire.
    MartianDestination => "martian_destination",
    /// A rule with target DROP.
    Rule => "rule",
    /// A built-in chain's DROP policy.
    ChainPolicy => "chain_policy",
    /// A rule with target REJECT.
    Reject => "reject",
    /// A match met a malformed header (the kernel's hotdrop).
    Hotdrop => "hotdrop",
    /// SYNPROXY answered it, or spoke to the server in its place.
    Synproxy => "synproxy",
    /// An ACK that SYNPROXY was to judge, with a cookie that we did not give out or that
    /// is too old.
    SynCookie => "syn_cookie",
    /// The connection table is full and nothing could be evicted.
    ConntrackFull => "conntrack_full",
    /// The connection table is crowded, and the source has its share of what nobody answers.
    ConntrackQuota => "conntrack_quota",
    /// Another connection has a tuple of this packet's: it was confirmed first, or
    /// no port was left for a translation.
    ConntrackClash => "conntrack_clash",
    /// A translation to a port's address, and the port has none.
    NatNoAddress => "nat_no_address",
    /// A translated packet that is too short for its protocol, or a damaged ICMP error.
    NatHeader => "nat_header",
    /// An ICMP redirect about a translated connection.
    NatRedirect => "nat_redirect",
    /// A masqueraded connection that would now leave on another port; it ends.
    NatPortChanged => "nat_port_changed",
    /// Connection tracking refused the packet outright.
    ConntrackInvalid => "conntrack_invalid",
    /// A connection helper could not follow the packet: half a command, or no
    /// room to expect what it announces.
    Helper => "helper",
    /// Rewriting made the packet longer than its buffer, or than a packet can be.
    NoRoom => "no_room",
    /// The sequence numbers of its connection are shifted, and its options are malformed.
    SequenceAdjust => "sequence_adjust",
    /// A fragment that is empty or cut short, that contradicts the others of its
    /// datagram in length or congestion marks, or that ended with such a one.
    Fragment => "fragment",
    /// A fragment whose datagram was not complete in time.
    ReassemblyTimeout => "reassembly_timeout",
    /// A fragment of a datagram of which two overlapped.
    ReassemblyOverlap => "reassembly_overlap",
    /// A fragment that was there already.
    ReassemblyDuplicate => "reassembly_duplicate",
    /// A fragment for which there was no memory left, or one too many of its datagram.
    ReassemblyFull => "reassembly_full",
    /// A fragment of a datagram that is longer than a packet can be.
    ReassemblyOversize => "reassembly_oversize",
    /// TTL or hop limit would reach zero.
    TtlExpired => "ttl_expired",
    /// No route to the destination.
    NoRoute => "no_route",
    /// A blackhole, unreachable or prohibit route.
    RouteRefused => "route_refused",
    /// The route leads to a device that is not one of our ports.
    RouteForeign => "route_foreign",
    /// Broadcast or multicast that is not forwarded.
    NotForwarded => "not_forwarded",
    /// Longer than the egress MTU and must not be fragmented.
    TooBig => "too_big",
    /// The next hop has no known link-layer address.
    NeighbourUnresolved => "neighbour_unresolved",
    /// The bounded queue of frames that wait for a neighbour is full.
    NeighbourQueueFull => "neighbour_queue_full",
    /// The transmit ring of the output port is full.
    TxRingFull => "tx_ring_full",
    /// No free frame in the pool.
    NoFrame => "no_frame",
    /// This machine did not take a frame that INPUT accepted: its queue is full.
    HostRefused => "host_refused",
    /// It waited while the worker did not turn, for longer than the watchdog allows.
    Stale => "stale",
    /// The output port is down or gone.
    PortDown => "port_down",
    /// Dropped on purpose by the fault-injecting port.
    FaultInjected => "fault_injected",
}

/// Number of drop reasons: the length of a counter array.
pub const DROP_REASONS: usize = DropReason::ALL.len();

/// What became of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Send the frame, as it now stands in its buffer, on this port.
    Transmit(crate::packet::PortId),
    /// Hand it to the local stack (INPUT accepted it).
    Deliver,
    /// Keep it until the next hop's link-layer address is known.
    AwaitNeighbour {
        /// The port it will leave on.
        port: crate::packet::PortId,
        /// The next hop's family and address (IPv4 in the low 32 bits).
        next_hop: (crate::packet::Family, u128),
    },
    /// It went on as fragments through [`crate::effects::Effects::emit`]; the frame itself is free.
    Fragmented,
    /// It was a fragment and is kept, as a copy, until its datagram is complete;
    /// the frame itself is free.
    Collected,
    /// It completed a datagram, which INPUT accepted and which went to the local
    /// stack through [`crate::effects::Effects::deliver`]; the frame itself is free.
    Delivered,
    /// End of the road. Whoever drives the engine counts it.
    Drop(DropReason),
}
