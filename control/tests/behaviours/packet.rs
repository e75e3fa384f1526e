//! Packets to send and packets that came out, with the parts that scripts talk about.

use std::net::IpAddr;

use crate::lab::frames::{self, Ip, checksum};
use crate::lab::{address, host_mac};

/// Somebody on a cable of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Address.
    pub ip: IpAddr,
    /// Router port that it is behind; `None` is the router itself.
    pub port: Option<usize>,
    /// Link-layer source of its frames.
    pub mac: [u8; 6],
}

/// A neighbour of the router.
pub fn host(v6: bool, port: usize, last: u8) -> Host {
    Host { ip: address(v6, port, last), port: Some(port), mac: host_mac(port, last) }
}
/// A client inside (eth0).
pub fn alice() -> Host {
    host(false, 0, 10)
}
/// Another client inside (eth0).
pub fn bob() -> Host {
    host(false, 0, 11)
}
/// A server in the middle (eth1).
pub fn carol() -> Host {
    host(false, 1, 10)
}
/// Another server in the middle (eth1).
pub fn dave() -> Host {
    host(false, 1, 11)
}
/// A server outside (eth2).
pub fn web() -> Host {
    host(false, 2, 10)
}
/// Another server outside (eth2).
pub fn mail() -> Host {
    host(false, 2, 11)
}
/// A server further away, by way of [`hop`].
pub fn far() -> Host {
    Host { ip: IpAddr::from([203, 0, 113, 5]), ..hop() }
}
/// The router outside (eth2), which sends ICMP errors.
pub fn hop() -> Host {
    host(false, 2, 254)
}
/// The same host in IPv6.
pub fn v6(host: Host) -> Host {
    let IpAddr::V4(v4) = host.ip else { panic!("{host:?} has no IPv4 address") };
    let ip = match v4.octets() {
        [198, 18, net, last] => address(true, usize::from(net) - 1, last),
        [203, 0, 113, last] => IpAddr::from([0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, u16::from(last)]),
        _ => panic!("{v4} is not in the lab"),
    };
    Host { ip, ..host }
}
/// The machine under test, on that port's network.
pub fn router(port: usize) -> Host {
    Host { ip: address(false, port, 1), port: None, mac: [0; 6] }
}

/// An IP packet and who sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who.
    pub from: Host,
    /// From the IP header on.
    pub ip: Vec<u8>,
}

/// A TCP segment to be.
#[derive(Clone, Debug)]
pub struct Segment {
    from: Host,
    ip: Ip,
    sport: u16,
    dport: u16,
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
}

/// A segment between these ends: no flags, sequence 1000, window 29200.
pub fn tcp(from: Host, sport: u16, to: IpAddr, dport: u16) -> Segment {
    Segment {
        from,
        ip: Ip::new(from.ip, to, 6),
        sport,
        dport,
        seq: 1000,
        ack: 0,
        flags: 0,
        window: 29_200,
        options: Vec::new(),
        payload: Vec::new(),
    }
}

/// Bits of a flag word such as `PA`.
pub fn flag_bits(letters: &str) -> u8 {
    let bit = |letter| match letter {
        'F' => 1,
        'S' => 2,
        'R' => 4,
        'P' => 8,
        'A' => 16,
        'U' => 32,
        'E' => 64,
        'C' => 128,
        other => panic!("no TCP flag {other}"),
    };
    letters.chars().map(bit).fold(0, |all, bit| all | bit)
}

impl Segment {
    /// Flags by their letters.
    pub fn flags(mut self, letters: &str) -> Self {
        self.flags = flag_bits(letters);
        self
    }
    /// Sequence number.
    pub fn seq(mut self, seq: u32) -> Self {
        self.seq = seq;
        self
    }
    /// Acknowledgement number.
    pub fn ack(mut self, ack: u32) -> Self {
        self.ack = ack;
        self
    }
    /// Window, unscaled.
    pub fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }
    /// More options, padded with NOPs.
    pub fn option(mut self, bytes: &[u8]) -> Self {
        self.options.extend(bytes);
        while !self.options.len().is_multiple_of(4) {
            self.options.push(1);
        }
        self
    }
    /// That many bytes of payload.
    pub fn len(self, len: usize) -> Self {
        self.data(&(0..len).map(|n| n as u8).collect::<Vec<_>>())
    }
    /// Payload.
    pub fn data(mut self, bytes: &[u8]) -> Self {
        self.payload = bytes.to_vec();
        self
    }
    /// TTL.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ip.ttl = ttl;
        self
    }
    /// The packet.
    pub fn build(&self) -> Packet {
        let mut l4 = Vec::new();
        l4.extend(self.sport.to_be_bytes());
        l4.extend(self.dport.to_be_bytes());
        l4.extend(self.seq.to_be_bytes());
        l4.extend(self.ack.to_be_bytes());
        l4.extend([(((20 + self.options.len()) / 4) << 4) as u8, self.flags]);
        l4.extend(self.window.to_be_bytes());
        l4.extend([0; 4]);
        l4.extend(&self.options);
        l4.extend(&self.payload);
        let sum = self.ip.l4_checksum(&l4);
        l4[16..18].copy_from_slice(&sum.to_be_bytes());
        Packet { from: self.from, ip: self.ip.packet(&l4) }
    }
}

impl From<Segment> for Packet {
    fn from(segment: Segment) -> Self {
        segment.build()
    }
}

/// A UDP datagram with DF clear.
pub fn udp(from: Host, sport: u16, to: IpAddr, dport: u16, payload: &[u8]) -> Packet {
    let mut ip = Ip::new(from.ip, to, 17);
    ip.frag = 0;
    let mut l4 = Vec::new();
    l4.extend(sport.to_be_bytes());
    l4.extend(dport.to_be_bytes());
    l4.extend((8 + payload.len() as u16).to_be_bytes());
    l4.extend([0, 0]);
    l4.extend(payload);
    let sum = match ip.l4_checksum(&l4) {
        0 => 0xffff,
        sum => sum,
    };
    l4[6..8].copy_from_slice(&sum.to_be_bytes());
    Packet { from, ip: ip.packet(&l4) }
}

/// An echo request (8) or reply (0), or what they are in ICMPv6.
pub fn echo(kind: u8, from: Host, to: IpAddr, id: u16, seq: u16) -> Packet {
    let [[a, b], [c, d]] = [id, seq].map(u16::to_be_bytes);
    let kind = match (to.is_ipv6(), kind) {
        (true, 8) => 128,
        (true, _) => 129,
        (false, kind) => kind,
    };
    icmp(from, to, kind, 0, [a, b, c, d], b"echo")
}

/// An ICMP message.
pub fn icmp(from: Host, to: IpAddr, kind: u8, code: u8, word: [u8; 4], rest: &[u8]) -> Packet {
    let mut ip = Ip::new(from.ip, to, if to.is_ipv6() { 58 } else { 1 });
    ip.frag = 0;
    let l4 = frames::icmp(&ip, kind, code, word, rest);
    Packet { from, ip: ip.packet(&l4) }
}

/// An ICMP error about what came out, quoting its header and 8 bytes more.
pub fn error(from: Host, to: IpAddr, kind: u8, code: u8, about: &[u8]) -> Packet {
    let quoted = View(about).header() + 8;
    icmp(from, to, kind, code, [0; 4], &about[..about.len().min(quoted)])
}

impl Packet {
    /// The UDP checksum left out.
    pub fn without_udp_checksum(mut self) -> Self {
        self.ip[26..28].fill(0);
        self
    }
    /// Fragments whose payloads start at these offsets (multiples of 8).
    pub fn fragments(&self, starts: &[usize]) -> Vec<Self> {
        let (header, payload) = self.ip.split_at(View(&self.ip).header());
        let ends = starts[1..].iter().copied().chain([payload.len()]);
        let piece = |(&start, end): (&usize, usize)| {
            let more = end < payload.len();
            let ip = if View(header).v6() { v6_fragment } else { v4_fragment };
            Self { from: self.from, ip: ip(header, start, more, &payload[start..end]) }
        };
        starts.iter().zip(ends).map(piece).collect()
    }
}

fn v4_fragment(header: &[u8], start: usize, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut ip = header.to_vec();
    let word = (start / 8) as u16 | u16::from(more) << 13;
    ip[2..4].copy_from_slice(&(20 + payload.len() as u16).to_be_bytes());
    ip[6..8].copy_from_slice(&word.to_be_bytes());
    ip.extend(payload);
    seal_ip(&mut ip);
    ip
}

fn v6_fragment(header: &[u8], start: usize, more: bool, payload: &[u8]) -> Vec<u8> {
    let mut ip = header.to_vec();
    ip[4..6].copy_from_slice(&(8 + payload.len() as u16).to_be_bytes());
    let next = std::mem::replace(&mut ip[6], 44);
    let word = start as u16 | u16::from(more);
    ip.extend([next, 0]);
    ip.extend(word.to_be_bytes());
    ip.extend([0x12, 0x34, 0x56, 0x78]);
    ip.extend(payload);
    ip
}

fn seal_ip(ip: &mut [u8]) {
    let header = usize::from(ip[0] & 15) * 4;
    ip[10..12].fill(0);
    let sum = checksum(&[&ip[..header]]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// The parts of an IP packet (or of what an ICMP error quotes of one). Of IPv6's
/// extension headers it knows the fragment header.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(pub &'a [u8]);

impl<'a> View<'a> {
    /// Whether it is IPv6.
    pub fn v6(self) -> bool {
        self.0[0] >> 4 == 6
    }
    /// Whether it is an IPv6 fragment.
    pub fn is_v6_fragment(self) -> bool {
        self.v6() && self.0[6] == 44
    }
    fn header(self) -> usize {
        match self.v6() {
            true if self.is_v6_fragment() => 48,
            true => 40,
            false => usize::from(self.0[0] & 15) * 4,
        }
    }
    /// From the layer 4 header on.
    pub fn l4(self) -> &'a [u8] {
        &self.0[self.header()..]
    }
    fn word(bytes: &[u8], at: usize) -> u16 {
        u16::from_be_bytes([bytes[at], bytes[at + 1]])
    }
    fn long(bytes: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    }
    fn address(self, which: usize) -> IpAddr {
        if self.v6() {
            let at = 8 + 16 * which;
            IpAddr::from(<[u8; 16]>::try_from(&self.0[at..at + 16]).expect("sixteen bytes"))
        } else {
            let at = 12 + 4 * which;
            IpAddr::from(<[u8; 4]>::try_from(&self.0[at..at + 4]).expect("four bytes"))
        }
    }
    /// Source address.
    pub fn src(self) -> IpAddr {
        self.address(0)
    }
    /// Destination address.
    pub fn dst(self) -> IpAddr {
        self.address(1)
    }
    /// Protocol.
    pub fn proto(self) -> u8 {
        match self.v6() {
            true if self.is_v6_fragment() => self.0[40],
            true => self.0[6],
            false => self.0[9],
        }
    }
    /// Where its payload starts in the datagram, and how long it is.
    pub fn piece(self) -> (usize, usize) {
        let start = match self.v6() {
            true if self.is_v6_fragment() => usize::from(Self::word(self.0, 42) & !7),
            true => 0,
            false => usize::from(Self::word(self.0, 6) & 0x1fff) * 8,
        };
        (start, self.0.len() - self.header())
    }
    /// Source port.
    pub fn sport(self) -> u16 {
        Self::word(self.l4(), 0)
    }
    /// Destination port.
    pub fn dport(self) -> u16 {
        Self::word(self.l4(), 2)
    }
    /// Identifier of an ICMP query.
    pub fn icmp_id(self) -> u16 {
        Self::word(self.l4(), 4)
    }
    /// Type and code of an ICMP message.
    pub fn icmp_kind(self) -> (u8, u8) {
        (self.l4()[0], self.l4()[1])
    }
    /// Sequence number.
    pub fn seq(self) -> u32 {
        Self::long(self.l4(), 4)
    }
    /// Acknowledgement number.
    pub fn ack(self) -> u32 {
        Self::long(self.l4(), 8)
    }
    /// TCP options.
    pub fn options(self) -> &'a [u8] {
        let l4 = self.l4();
        &l4[20..usize::from(l4[12] >> 4) * 4]
    }
    /// The payload of TCP or UDP.
    pub fn payload(self) -> &'a [u8] {
        let l4 = self.l4();
        match self.proto() {
            6 => &l4[usize::from(l4[12] >> 4) * 4..],
            _ => &l4[8..],
        }
    }
    /// The checksum field of UDP.
    pub fn udp_checksum(self) -> u16 {
        Self::word(self.l4(), 6)
    }
    /// What an ICMP error quotes.
    pub fn quoted(self) -> View<'a> {
        View(&self.l4()[8..])
    }
    /// Whether the IP header's checksum is right; IPv6 has none.
    pub fn ip_checksum_holds(self) -> bool {
        self.v6() || checksum(&[&self.0[..self.header()]]) == 0
    }
    /// Whether this is an ICMP error, which quotes.
    pub fn is_error(self) -> bool {
        match self.proto() {
            1 => matches!(self.l4()[0], 3 | 4 | 5 | 11 | 12),
            58 => self.l4()[0] < 128,
            _ => false,
        }
    }
    /// Whether the checksums of a whole packet are right, the quoted header's included.
    pub fn checksums_hold(self) -> bool {
        let l4 = self.l4();
        let l4_holds = match self.proto() {
            1 => checksum(&[l4]) == 0,
            17 if self.udp_checksum() == 0 => true,
            proto => {
                let addresses = if self.v6() { &self.0[8..40] } else { &self.0[12..20] };
                let len = (l4.len() as u32).to_be_bytes();
                checksum(&[addresses, &len, &[0, proto], l4]) == 0
            }
        };
        let quote_holds = !self.is_error() || self.quoted().ip_checksum_holds();
        self.ip_checksum_holds() && l4_holds && quote_holds
    }
}
