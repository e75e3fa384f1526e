//! Builds frames byte by byte, right or deliberately wrong.

use std::net::IpAddr;

/// The Internet checksum of the concatenated parts (all but the last of even length).
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        for pair in part.chunks(2) {
            let low = pair.get(1).copied().unwrap_or(0);
            sum += u64::from(u16::from_be_bytes([pair[0], low]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// An IP packet to be, with the defaults of an ordinary one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source.
    pub src: IpAddr,
    /// Destination, of the same family.
    pub dst: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS byte or traffic class.
    pub tos: u8,
    /// IPv4 identification.
    pub id: u16,
    /// IPv4 flags and fragment offset word.
    pub frag: u16,
    /// IPv4 options (padded by the caller to a multiple of 4) or IPv6 extension
    /// headers (complete, the next-header fields filled in here).
    pub options: Vec<u8>,
    /// Type of the first IPv6 extension header in `options`.
    pub first_extension: u8,
    /// Layer 4 protocol.
    pub proto: u8,
    /// Added to the length field, to lie.
    pub length_error: i16,
}

impl Ip {
    /// From here to there.
    pub fn new(src: IpAddr, dst: IpAddr, proto: u8) -> Self {
        Self {
            src,
            dst,
            ttl: 64,
            tos: 0,
            id: 0x1234,
            frag: 0x4000,
            options: Vec::new(),
            first_extension: 0,
            proto,
            length_error: 0,
        }
    }
    /// Whether it is IPv6.
    pub fn v6(&self) -> bool {
        self.src.is_ipv6()
    }
    /// The packet with this layer 4.
    pub fn packet(&self, l4: &[u8]) -> Vec<u8> {
        if self.v6() { self.packet_v6(l4) } else { self.packet_v4(l4) }
    }
    fn packet_v4(&self, l4: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let length = (header + l4.len()) as u16;
        let mut packet = vec![0x40 | (header / 4) as u8, self.tos];
        packet.extend(length.wrapping_add_signed(self.length_error).to_be_bytes());
        packet.extend(self.id.to_be_bytes());
        packet.extend(self.frag.to_be_bytes());
        packet.extend([self.ttl, self.proto, 0, 0]);
        packet.extend(octets(self.src));
        packet.extend(octets(self.dst));
        packet.extend(&self.options);
        let sum = checksum(&[&packet]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(l4);
        packet
    }
    fn packet_v6(&self, l4: &[u8]) -> Vec<u8> {
        let length = (self.options.len() + l4.len()) as u16;
        let mut packet = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
        packet.extend(length.wrapping_add_signed(self.length_error).to_be_bytes());
        let next = if self.options.is_empty() { self.proto } else { self.first_extension };
        packet.extend([next, self.ttl]);
        packet.extend(octets(self.src));
        packet.extend(octets(self.dst));
        packet.extend(&self.options);
        packet.extend(l4);
        packet
    }
    /// The checksum of a layer 4 with its pseudo header; the field must be zero.
    pub fn l4_checksum(&self, l4: &[u8]) -> u16 {
        let (src, dst) = (octets(self.src), octets(self.dst));
        let len = (l4.len() as u32).to_be_bytes();
        checksum(&[&src, &dst, &len, &[0, self.proto], l4])
    }
}

/// An address as it stands in a header.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn sealed(ip: &Ip, mut l4: Vec<u8>, at: usize) -> Vec<u8> {
    let sum = match ip.l4_checksum(&l4) {
        0 if ip.proto == 17 => 0xffff,
        sum => sum,
    };
    l4[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    l4
}

/// A TCP segment to be.
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
    /// Options, padded by the caller to a multiple of 4.
    pub options: Vec<u8>,
    /// Bytes of payload.
    pub payload: usize,
}

impl Tcp {
    /// The segment, checksummed for that packet.
    pub fn build(&self, ip: &Ip) -> Vec<u8> {
        let mut l4 = Vec::new();
        l4.extend(self.sport.to_be_bytes());
        l4.extend(self.dport.to_be_bytes());
        l4.extend(self.seq.to_be_bytes());
        l4.extend(self.ack.to_be_bytes());
        l4.extend([(((20 + self.options.len()) / 4) << 4) as u8, self.flags]);
        l4.extend(self.window.to_be_bytes());
        l4.extend([0; 4]);
        l4.extend(&self.options);
        l4.extend((0..self.payload).map(|n| n as u8));
        sealed(ip, l4, 16)
    }
}

/// A UDP (or UDP-Lite, or DCCP-shaped) datagram, checksummed for that packet.
pub fn udp(ip: &Ip, sport: u16, dport: u16, payload: usize) -> Vec<u8> {
    let mut l4 = Vec::new();
    l4.extend(sport.to_be_bytes());
    l4.extend(dport.to_be_bytes());
    l4.extend((8 + payload as u16).to_be_bytes());
    l4.extend([0, 0]);
    l4.extend((0..payload).map(|n| n as u8));
    sealed(ip, l4, 6)
}

/// An ICMP or ICMPv6 message: type, code, the second word, and what follows.
pub fn icmp(ip: &Ip, kind: u8, code: u8, word: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let mut l4 = vec![kind, code, 0, 0];
    l4.extend(word);
    l4.extend(rest);
    let sum = if ip.v6() { ip.l4_checksum(&l4) } else { checksum(&[&l4]) };
    l4[2..4].copy_from_slice(&sum.to_be_bytes());
    l4
}

/// The whole frame.
pub fn ethernet(dst: [u8; 6], src: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + payload.len());
    frame.extend(dst);
    frame.extend(src);
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The whole frame for an IP packet.
pub fn ip_frame(dst: [u8; 6], src: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
    ethernet(dst, src, if v6 { 0x86dd } else { 0x0800 }, packet)
}
