//! Builders of frames for tests, benches and the kernel lab: valid by default
//! (lengths and checksums filled in), with switches for deliberate breakage.
//!
//! Not for the packet path: every builder allocates.

mod emit;

use std::net::IpAddr;

use super::{ethernet::Tag, ethertype, icmp, icmpv6};
use crate::packet::{Family, Mac};

/// Layer 4 of a [`Packet`]. Checksums are filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum L4 {
    /// A TCP segment.
    Tcp(Tcp),
    /// A UDP or UDP-Lite datagram (`lite`): ports, and an explicit length field or coverage.
    Udp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
        /// The length field; `None`: the true length.
        length: Option<u16>,
        /// True for UDP-Lite.
        lite: bool,
    },
    /// ICMP or ICMPv6, by the family of the addresses.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// The four bytes after the checksum: id << 16 | seq, MTU, pointer.
        word: u32,
    },
    /// SCTP: the payload is the chunks.
    Sctp {
        /// Source port.
        sport: u16,
        /// Destination port.
        dport: u16,
        /// Verification tag.
        tag: u32,
    },
    /// Any protocol: the payload is the whole of layer 4.
    Raw(u8),
}

/// The TCP header of a [`Packet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flag byte.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Option bytes; padded to a multiple of four with End-of-Options.
    pub options: Vec<u8>,
    /// The data offset field in words; `None`: the true one.
    pub offset: Option<u8>,
    /// The four reserved bits.
    pub reserved: u8,
}

/// An IP packet in an Ethernet frame, described. [`Packet::build`] makes the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source MAC address.
    pub eth_src: Mac,
    /// Destination MAC address.
    pub eth_dst: Mac,
    /// VLAN tags, outermost first.
    pub tags: Vec<Tag>,
    /// Source address; its family is the packet's.
    pub src: IpAddr,
    /// Destination address; of the same family as `src`.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// IPv4 identification, or the identification of the IPv6 fragment header.
    pub id: u32,
    /// IPv4 don't-fragment bit.
    pub df: bool,
    /// The reserved ("evil") top bit of the IPv4 fragment word.
    pub evil: bool,
    /// IPv6 flow label.
    pub flow_label: u32,
    /// IPv4 option bytes; padded to a multiple of four with End-of-Options.
    pub options: Vec<u8>,
    /// IPv6 extension headers in order: type, and the whole header with its
    /// first byte (next header) left to the builder.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Fragment: byte offset (a multiple of 8) and whether more follow. The
    /// layer 4 bytes are those of the whole datagram, cut at `fragment_window`.
    pub fragment: Option<(u16, bool)>,
    /// Bytes of the datagram that this fragment carries, from its offset on.
    pub fragment_len: usize,
    /// Layer 4 header.
    pub l4: L4,
    /// Layer 4 payload.
    pub payload: Vec<u8>,
    /// XORed into the IPv4 header checksum.
    pub ip_checksum_xor: u16,
    /// XORed into the layer 4 checksum.
    pub l4_checksum_xor: u16,
    /// Sends UDP without a checksum.
    pub udp_checksum_none: bool,
    /// Overrides the IPv4 total length or IPv6 payload length field.
    pub length: Option<u16>,
    /// Overrides the IPv4 header length field, in words.
    pub ihl: Option<u8>,
    /// Overrides the IP version field.
    pub version: Option<u8>,
    /// Bytes of padding appended to the frame.
    pub padding: usize,
    /// Cuts the frame to this many bytes.
    pub truncate: Option<usize>,
}

/// Source MAC address of built frames unless set.
pub const ETH_SRC: Mac = Mac([2, 0, 0, 0, 0, 0xaa]);
/// Destination MAC address of built frames unless set.
pub const ETH_DST: Mac = Mac([2, 0, 0, 0, 0, 0xbb]);

impl Packet {
    /// A packet of any protocol between two addresses of one family.
    ///
    /// # Panics
    /// When an address does not parse, or the families differ: builders serve tests.
    pub fn new(src: &str, dst: &str, l4: L4) -> Self {
        let address = |text: &str| text.parse::<IpAddr>().expect("an IP address");
        Self::between(address(src), address(dst), l4)
    }
    /// A packet of any protocol between two addresses of one family.
    ///
    /// # Panics
    /// When the families differ: builders serve tests.
    pub fn between(src: IpAddr, dst: IpAddr, l4: L4) -> Self {
        assert_eq!(src.is_ipv4(), dst.is_ipv4(), "one family");
        Self {
            eth_src: ETH_SRC,
            eth_dst: ETH_DST,
            tags: Vec::new(),
            src,
            dst,
            ttl: 64,
            tos: 0,
            id: 0x1234,
            df: false,
            evil: false,
            flow_label: 0,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            fragment_len: usize::MAX,
            l4,
            payload: Vec::new(),
            ip_checksum_xor: 0,
            l4_checksum_xor: 0,
            udp_checksum_none: false,
            length: None,
            ihl: None,
            version: None,
            padding: 0,
            truncate: None,
        }
    }
    /// A TCP segment with sequence numbers 1000 and 0 and window 8192.
    pub fn tcp(src: &str, sport: u16, dst: &str, dport: u16, flags: u8) -> Self {
        Self::new(src, dst, L4::Tcp(Tcp::new(sport, dport, flags)))
    }
    /// A UDP datagram without payload.
    pub fn udp(src: &str, sport: u16, dst: &str, dport: u16) -> Self {
        Self::new(src, dst, L4::Udp { sport, dport, length: None, lite: false })
    }
    /// An ICMP or ICMPv6 message; `word` is what follows the checksum.
    pub fn icmp(src: &str, dst: &str, kind: u8, code: u8, word: u32) -> Self {
        Self::new(src, dst, L4::Icmp { kind, code, word })
    }
    /// An echo request of the addresses' family.
    pub fn ping(src: &str, dst: &str, id: u16, seq: u16) -> Self {
        let kind = if src.contains(':') { icmpv6::kind::ECHO } else { icmp::kind::ECHO };
        Self::icmp(src, dst, kind, 0, u32::from(id) << 16 | u32::from(seq))
    }
    /// An echo reply of the addresses' family.
    pub fn pong(src: &str, dst: &str, id: u16, seq: u16) -> Self {
        let v6 = src.contains(':');
        let kind = if v6 { icmpv6::kind::ECHO_REPLY } else { icmp::kind::ECHO_REPLY };
        Self::icmp(src, dst, kind, 0, u32::from(id) << 16 | u32::from(seq))
    }
    /// A packet of protocol `number` whose layer 4 is `bytes`.
    pub fn raw(src: &str, dst: &str, number: u8, bytes: &[u8]) -> Self {
        Self::new(src, dst, L4::Raw(number)).payload(bytes)
    }
    /// An ICMP error of the addresses' family that quotes `quoted` (a whole frame
    /// without tags, of which the IP packet is taken).
    pub fn error(src: &str, dst: &str, kind: u8, code: u8, word: u32, quoted: &[u8]) -> Self {
        Self::icmp(src, dst, kind, code, word).payload(&quoted[14..])
    }
    /// Sets the MAC addresses.
    pub fn macs(mut self, src: Mac, dst: Mac) -> Self {
        (self.eth_src, self.eth_dst) = (src, dst);
        self
    }
    /// Adds an inner VLAN tag.
    pub fn tag(mut self, tpid: u16, tci: u16) -> Self {
        self.tags.push(Tag { tpid, tci });
        self
    }
    /// Sets the payload.
    pub fn payload(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }
    /// Sets a payload of `len` counting bytes.
    pub fn payload_len(mut self, len: usize) -> Self {
        self.payload = (0..len).map(|i| i as u8).collect();
        self
    }
    /// Sets TTL or hop limit.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }
    /// Sets TOS or traffic class.
    pub fn tos(mut self, tos: u8) -> Self {
        self.tos = tos;
        self
    }
    /// Sets the identification.
    pub fn id(mut self, id: u32) -> Self {
        self.id = id;
        self
    }
    /// Sets the don't-fragment bit (IPv4).
    pub fn df(mut self) -> Self {
        self.df = true;
        self
    }
    /// Sets IPv4 options.
    pub fn options(mut self, bytes: &[u8]) -> Self {
        self.options = bytes.to_vec();
        self
    }
    /// Adds an IPv6 extension header of type `kind`: its bytes, the first of
    /// which (next header) the builder overwrites.
    pub fn extension(mut self, kind: u8, header: &[u8]) -> Self {
        self.extensions.push((kind, header.to_vec()));
        self
    }
    /// Makes it one fragment: `len` bytes of the datagram from byte `offset` on.
    pub fn fragment(mut self, offset: u16, len: usize, more: bool) -> Self {
        (self.fragment, self.fragment_len) = (Some((offset, more)), len);
        self
    }
    /// Sets TCP sequence and acknowledgement numbers; no effect on other protocols.
    pub fn seq(mut self, seq: u32, ack: u32) -> Self {
        if let L4::Tcp(tcp) = &mut self.l4 {
            (tcp.seq, tcp.ack) = (seq, ack);
        }
        self
    }
    /// Sets the TCP window; no effect on other protocols.
    pub fn window(mut self, window: u16) -> Self {
        if let L4::Tcp(tcp) = &mut self.l4 {
            tcp.window = window;
        }
        self
    }
    /// Sets TCP option bytes; no effect on other protocols.
    pub fn tcp_options(mut self, bytes: &[u8]) -> Self {
        if let L4::Tcp(tcp) = &mut self.l4 {
            tcp.options = bytes.to_vec();
        }
        self
    }
    /// Spoils the IPv4 header checksum.
    pub fn bad_ip_checksum(mut self) -> Self {
        self.ip_checksum_xor = 0x5555;
        self
    }
    /// Spoils the layer 4 checksum.
    pub fn bad_l4_checksum(mut self) -> Self {
        self.l4_checksum_xor = 0x5555;
        self
    }
    /// Sends UDP with checksum zero.
    pub fn no_udp_checksum(mut self) -> Self {
        self.udp_checksum_none = true;
        self
    }
    /// Overrides the IPv4 total length or IPv6 payload length field.
    pub fn length(mut self, bytes: u16) -> Self {
        self.length = Some(bytes);
        self
    }
    /// Appends bytes of padding.
    pub fn padding(mut self, bytes: usize) -> Self {
        self.padding = bytes;
        self
    }
    /// Cuts the frame to at most `bytes`.
    pub fn truncate(mut self, bytes: usize) -> Self {
        self.truncate = Some(bytes);
        self
    }
    /// The packet's family.
    pub fn family(&self) -> Family {
        if self.src.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl Tcp {
    /// A header with sequence numbers 1000 and 0, window 8192, no options.
    pub fn new(sport: u16, dport: u16, flags: u8) -> Self {
        Self {
            sport,
            dport,
            seq: 1000,
            ack: 0,
            flags,
            window: 8192,
            urgent: 0,
            options: Vec::new(),
            offset: None,
            reserved: 0,
        }
    }
}

/// An address in the common 128-bit form (IPv4 in the low 32 bits).
pub fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// An ARP request or reply (`operation` 1 or 2) in a frame.
pub fn arp(operation: u16, sender: (Mac, u32), target: (Mac, u32)) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    let dst = if operation == 1 { Mac([0xff; 6]) } else { target.0 };
    frame.extend(dst.0);
    frame.extend(sender.0.0);
    for word in [ethertype::ARP, 1, ethertype::IPV4, 0x0604, operation] {
        frame.extend(word.to_be_bytes());
    }
    for (mac, ip) in [sender, target] {
        frame.extend(mac.0);
        frame.extend(ip.to_be_bytes());
    }
    frame
}
