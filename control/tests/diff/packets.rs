//! Generated packets: interleaved conversations with small accidents, errors
//! about them, strays, and packets that are wrong in every way.

use std::net::IpAddr;

use super::rng::Rng;
use super::world::{self, Host, PORT_POOL};
use crate::lab::frames::{self, Ip, Tcp};
use crate::lab::{self, port_mac};

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// Where a packet enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The wire of that port.
    Port(usize),
    /// The router's own stack (an IP packet without Ethernet header).
    Own,
    /// The same for a packet to a group or a link-local address, out of that port.
    OwnOn(usize),
}

/// One packet to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it enters.
    pub entry: Entry,
    /// The frame, or the IP packet for [`Entry::Own`].
    pub bytes: Vec<u8>,
    /// What it is meant to be.
    pub note: String,
}

/// A conversation in progress.
struct Flow {
    client: Host,
    server: Host,
    kind: Kind,
    step: usize,
    script: &'static [Step],
    sport: u16,
    dport: u16,
    isn: [u32; 2],
    options: Vec<u8>,
    tos: u8,
    payload: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Echo,
    Other(u8),
}

/// One TCP segment of a script: direction (true: from the client), flags,
/// sequence and acknowledgement relative to the initial ones, payload.
type Step = (bool, u8, u32, u32, usize);

const FULL: &[Step] = &[
    (true, SYN, 0, 0, 0),
    (false, SYN | ACK, 0, 1, 0),
    (true, ACK, 1, 1, 0),
    (true, PSH | ACK, 1, 1, 30),
    (false, ACK, 1, 31, 0),
    (false, PSH | ACK, 1, 31, 200),
    (true, ACK, 31, 201, 0),
    (true, FIN | ACK, 31, 201, 0),
    (false, FIN | ACK, 201, 32, 0),
    (true, ACK, 32, 202, 0),
    (true, SYN, 100_000, 0, 0),
];
const REFUSED: &[Step] = &[
    (true, SYN, 0, 0, 0),
    (false, RST | ACK, 0, 1, 0),
    (true, SYN, 0, 0, 0),
    (false, SYN | ACK, 0, 1, 0),
    (true, ACK, 1, 1, 0),
];
const RESET: &[Step] = &[
    (true, SYN, 0, 0, 0),
    (false, SYN | ACK, 0, 1, 0),
    (true, ACK, 1, 1, 0),
    (true, PSH | ACK, 1, 1, 10),
    (false, RST, 1, 0, 0),
    (true, ACK, 11, 1, 0),
    (true, RST | ACK, 11, 1, 0),
    (true, SYN, 5_000, 0, 0),
];
const PICKUP: &[Step] = &[
    (true, ACK, 500, 700, 0),
    (false, ACK, 700, 500, 40),
    (true, PSH | ACK, 500, 740, 20),
    (false, FIN | ACK, 740, 520, 0),
    (true, RST, 520, 0, 0),
];
const STUBBORN: &[Step] = &[
    (true, SYN, 0, 0, 0),
    (true, SYN, 0, 0, 0),
    (false, ACK, 77, 1, 0),
    (true, SYN, 0, 0, 0),
    (false, SYN | ACK, 0, 9, 0),
    (false, SYN, 0, 0, 0),
    (true, SYN | ACK, 0, 1, 0),
    (false, SYN | ACK, 0, 1, 0),
    (true, ACK, 1, 1, 0),
];
/// Directions only: UDP, echo and other protocols.
const TALK: &[Step] = &[
    (true, 0, 0, 0, 10),
    (false, 0, 0, 0, 20),
    (true, 0, 0, 0, 10),
    (true, 0, 0, 0, 0),
    (false, 0, 0, 0, 33),
    (false, 0, 0, 0, 1),
];

/// What the packets' ruleset does, where that decides which packets make sense.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Makes the kernel track, and so reassemble fragments.
    pub conntrack: bool,
    /// Has REJECT rules.
    pub rejects: bool,
}

/// Makes `count` packets of one family.
pub fn generate(rng: &mut Rng, v6: bool, count: usize, rules: Rules) -> Vec<Packet> {
    let mut maker = Maker { rng, v6, rules, hosts: world::hosts(v6), flows: Vec::new() };
    let mut all: Vec<Packet> = Vec::with_capacity(count);
    while all.len() < count {
        let packet = match maker.rng.below(100) {
            0..60 => maker.conversation(),
            60..68 => maker.error_about(&all),
            68..76 => Some(maker.stray()),
            76..84 => Some(maker.odd()),
            84..92 => Some(maker.said_to_link()),
            _ => Some(maker.own()),
        };
        all.extend(packet);
        if maker.rng.chance(5)
            && let Some(last) = all.last().cloned()
        {
            all.push(Packet { note: format!("{} again", last.note), ..last });
        }
    }
    all.truncate(count);
    all
}

/// As many datagrams from each of two hosts to an address that no route leads to.
pub fn to_nowhere(v6: bool, count: usize) -> Vec<Packet> {
    let hosts = world::hosts(v6);
    let pairs = (0..count).flat_map(|_| [hosts[0], hosts[3]]);
    let packet = |from: Host| {
        let ip = Ip::new(from.address, world::nowhere(v6), 17);
        let bytes = frames::ip_frame(
            port_mac(from.port),
            from.mac,
            &ip.packet(&frames::udp(&ip, 1_000, 2_000, 5)),
        );
        Packet { entry: Entry::Port(from.port), bytes, note: "to nowhere".to_owned() }
    };
    pairs.map(packet).collect()
}

/// IPv4 datagrams from everybody, and from where only the default route leads, to everybody,
/// to the router, to its broadcast addresses and to where only that route leads.
pub fn every_way() -> Vec<Packet> {
    let hosts = world::hosts(false);
    let far = world::nowhere(false);
    let stranger = Host { address: far, ..hosts[hosts.len() - 1] };
    let mut packets = Vec::new();
    for from in hosts.iter().copied().chain([stranger]) {
        let own = [world::router(false, from.port), [198, 18, from.port as u8 + 1, 255].into()];
        let others = hosts.iter().map(|host| host.address).filter(|it| *it != from.address);
        for to in others.chain(own).chain([far]).filter(|to| *to != from.address) {
            for dport in [7, 8, 9] {
                let ip = Ip::new(from.address, to, 17);
                let udp = frames::udp(&ip, 1_000, dport, 5);
                let bytes = frames::ip_frame(port_mac(from.port), from.mac, &ip.packet(&udp));
                let note = format!("{} to {to}, port {dport}", from.address);
                packets.push(Packet { entry: Entry::Port(from.port), bytes, note });
            }
        }
    }
    packets
}

struct Maker<'r> {
    rng: &'r mut Rng,
    v6: bool,
    rules: Rules,
    hosts: Vec<Host>,
    flows: Vec<Flow>,
}

impl Maker<'_> {
    fn host(&mut self) -> Host {
        self.hosts[self.rng.below(self.hosts.len())]
    }
    fn ip(&mut self, src: IpAddr, dst: IpAddr, proto: u8) -> Ip {
        let id = 1 + self.rng.below(60_000) as u16;
        let ttl = self.rng.weighted(&[(80, 64), (6, 63), (3, 2), (3, 255)]);
        let tos = self.rng.weighted(&[(80, 0), (6, 0x10), (6, 0x28), (6, 0xb8), (2, 0x03)]);
        Ip { id, ttl, tos, ..Ip::new(src, dst, proto) }
    }
    fn wire(&self, from: Host, packet: &[u8], note: String) -> Packet {
        let bytes = frames::ip_frame(port_mac(from.port), from.mac, packet);
        Packet { entry: Entry::Port(from.port), bytes, note }
    }

    fn new_flow(&mut self) -> Flow {
        let client = self.host();
        let mut server = self.host();
        while server.address == client.address {
            server = self.host();
        }
        if self.rng.chance(12) {
            server.address = world::router(self.v6, self.rng.below(lab::PORTS));
        }
        let others = [47, 50, 132, 255, 136];
        let other = Kind::Other(self.rng.pick(&others));
        let kind =
            self.rng.weighted(&[(50, Kind::Tcp), (30, Kind::Udp), (15, Kind::Echo), (5, other)]);
        let script = match kind {
            Kind::Tcp => self.rng.weighted(&[
                (50, FULL),
                (12, REFUSED),
                (16, RESET),
                (10, PICKUP),
                (12, STUBBORN),
            ]),
            _ => TALK,
        };
        let option = self.rng.weighted(&[
            (40, &[][..]),
            (20, &[2, 4, 5, 0xb4][..]),
            (20, &[2, 4, 5, 0xb4, 1, 3, 3, 7][..]),
            (10, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0][..]),
            (10, &[4, 2, 1, 1, 2, 4, 5, 0xb4][..]),
            (6, &[1, 2, 4, 0x23, 0x28, 1, 1, 1][..]),
            (4, &[9, 0, 2, 4, 0x05, 0x78, 0, 0][..]),
        ]);
        Flow {
            client,
            server,
            kind,
            step: 0,
            script,
            sport: if self.rng.chance(70) {
                40_000 + self.rng.below(9) as u16
            } else {
                self.rng.pick(&PORT_POOL)
            },
            dport: self.rng.pick(&PORT_POOL),
            isn: [self.rng.bits() as u32, self.rng.bits() as u32],
            options: option.to_vec(),
            tos: self.rng.weighted(&[(80, 0), (10, 0x10), (10, 0x28)]),
            payload: self.rng.pick(&[0, 0, 12, 500]),
        }
    }

    /// The next packet of a conversation, with an accident now and then.
    fn conversation(&mut self) -> Option<Packet> {
        if self.flows.len() < 4 || self.rng.chance(12) {
            let flow = self.new_flow();
            self.flows.push(flow);
        }
        let index = self.flows.len() - 1 - self.rng.below(self.flows.len().min(5));
        let mut flow = self.flows.remove(index);
        let &(forward, flags, seq, ack, payload) = flow.script.get(flow.step)?;
        flow.step += 1;
        let (from, to) =
            if forward { (flow.client, flow.server) } else { (flow.server, flow.client) };
        // What the router itself answers, a socket of its own sends.
        let spoof = from.address == world::router(self.v6, 0)
            || (0..lab::PORTS).any(|port| from.address == world::router(self.v6, port));
        let (sport, dport) =
            if forward { (flow.sport, flow.dport) } else { (flow.dport, flow.sport) };
        let mut ip = self.ip(from.address, to.address, 0);
        ip.tos = flow.tos;
        let (l4, note) = match flow.kind {
            Kind::Tcp => {
                let side = usize::from(!forward);
                let ack = if flags & ACK == 0 { 0 } else { flow.isn[1 - side].wrapping_add(ack) };
                let mut tcp = Tcp {
                    sport,
                    dport,
                    seq: flow.isn[side].wrapping_add(seq),
                    ack,
                    flags,
                    window: 8_192,
                    options: if flags & SYN == 0 { Vec::new() } else { flow.options.clone() },
                    payload,
                };
                self.accident(&mut tcp);
                ip.proto = 6;
                (tcp.build(&ip), format!("tcp {}", flags_text(tcp.flags)))
            }
            Kind::Udp => {
                ip.proto = 17;
                (frames::udp(&ip, sport, dport, payload + flow.payload), "udp".to_owned())
            }
            Kind::Echo => {
                ip.proto = if self.v6 { 58 } else { 1 };
                let kind = match (self.v6, forward) {
                    (false, true) => 8,
                    (false, false) => 0,
                    (true, true) => 128,
                    (true, false) => 129,
                };
                let [high, low] = flow.sport.to_be_bytes();
                let word = [high, low, 0, flow.step as u8];
                let rest = vec![7; flow.payload];
                (frames::icmp(&ip, kind, 0, word, &rest), format!("echo {kind}"))
            }
            Kind::Other(number) => {
                ip.proto = number;
                let l4 = other_l4(&ip, number, sport, dport);
                (l4, format!("protocol {number}"))
            }
        };
        let note = format!("{note} {}:{sport} > {}:{dport}", from.address, to.address);
        if self.rng.chance(8) {
            // The step comes again: a retransmission.
            flow.step -= 1;
        }
        self.flows.insert(index, flow);
        if spoof {
            let note = format!("own: {note}");
            return Some(Packet { entry: Entry::Own, bytes: ip.packet(&l4), note });
        }
        Some(self.wire(from, &ip.packet(&l4), note))
    }

    fn accident(&mut self, tcp: &mut Tcp) {
        if !self.rng.chance(14) {
            return;
        }
        match self.rng.below(8) {
            0 => tcp.seq = tcp.seq.wrapping_add(1),
            1 => tcp.seq = tcp.seq.wrapping_sub(1),
            2 => {
                tcp.seq =
                    tcp.seq.wrapping_add(self.rng.pick(&[8_191, 8_192, 8_193, 70_000, 1 << 30]))
            }
            3 => tcp.ack = tcp.ack.wrapping_add(self.rng.pick(&[1, 500, 100_000])),
            4 => tcp.ack = tcp.ack.wrapping_sub(self.rng.pick(&[1, 30, 66_001])),
            5 => tcp.flags ^= 1 << self.rng.below(8),
            6 => tcp.window = self.rng.pick(&[0, 1, 65_535]),
            _ => tcp.payload = self.rng.pick(&[1, 1_000, 1_400]),
        }
    }

    /// An ICMP error about an earlier packet.
    fn error_about(&mut self, earlier: &[Packet]) -> Option<Packet> {
        let about = earlier.get(earlier.len().checked_sub(1 + self.rng.below(12))?)?;
        let Entry::Port(_) = about.entry else { return None };
        let quoted = about.bytes.get(14..)?;
        let header = if self.v6 { 40 } else { 20 };
        if quoted.len() < header + 8 || (quoted[0] >> 4 == 6) != self.v6 {
            return None;
        }
        let (src, dst) = addresses(quoted)?;
        let keep = (header + self.rng.pick(&[8, 8, 28, 64, 4, 2, 0])).min(quoted.len());
        let mut quoted = quoted[..keep].to_vec();
        if self.rng.chance(30) {
            quoted[if self.v6 { 7 } else { 8 }] -= quoted[if self.v6 { 7 } else { 8 }].min(1);
        }
        // From the destination, or from some router on the way; to the sender or to somebody else.
        let to = if self.rng.chance(90) { src } else { self.host().address };
        let reporter = self.hosts.iter().find(|host| host.address == dst).copied();
        let from = match reporter {
            Some(host) if self.rng.chance(60) => host,
            _ => self.host(),
        };
        let mut ip = self.ip(from.address, to, if self.v6 { 58 } else { 1 });
        ip.tos = 0;
        let (kind, code) = if self.v6 {
            self.rng.pick(&[(1, 0), (1, 1), (1, 4), (2, 0), (3, 0), (3, 1), (4, 0), (137, 0)])
        } else {
            self.rng.pick(&[
                (3, 0),
                (3, 1),
                (3, 3),
                (3, 4),
                (11, 0),
                (11, 1),
                (12, 0),
                (5, 1),
                (4, 0),
            ])
        };
        let word = if kind == 2 || (kind, code) == (3, 4) { [0, 0, 5, 0x14] } else { [0; 4] };
        let l4 = frames::icmp(&ip, kind, code, word, &quoted);
        let note = format!("icmp error {kind}/{code} {} > {to}", from.address);
        Some(self.wire(from, &ip.packet(&l4), note))
    }

    /// Something nobody asked for.
    fn stray(&mut self) -> Packet {
        let mut from = self.host();
        let dst = match self.rng.below(10) {
            // IPv4's errors about missing routes are limited by source over the life
            // of the router, whatever is set: they have a test of their own.
            0 if self.v6 => world::nowhere(self.v6),
            1 | 2 => world::router(self.v6, self.rng.below(lab::PORTS)),
            _ => self.host().address,
        };
        let mut ip = self.ip(from.address, dst, 17);
        let (sport, dport) = (self.rng.pick(&PORT_POOL), self.rng.pick(&PORT_POOL));
        let (l4, what) = match self.rng.below(6) {
            0..3 => {
                ip.proto = 6;
                let flags = self.rng.weighted(&[
                    (20, SYN),
                    (10, SYN | ACK),
                    (10, ACK),
                    (8, RST),
                    (8, FIN),
                    (8, FIN | ACK),
                    (5, 0),
                    (5, SYN | FIN),
                    (5, 0xff),
                    (5, SYN | PSH),
                    (5, SYN | 0x40),
                    (5, FIN | PSH | 32),
                ]);
                let (seq, ack) = (self.rng.bits() as u32, self.rng.pick(&[0, 0, 5, 1 << 31]));
                let tcp = Tcp {
                    sport,
                    dport,
                    seq,
                    ack,
                    flags,
                    window: 1_000,
                    options: vec![],
                    payload: 0,
                };
                (tcp.build(&ip), format!("stray tcp {}", flags_text(flags)))
            }
            3 => (
                frames::udp(&ip, sport, dport, self.rng.pick(&[0, 12, 1_400])),
                "stray udp".to_owned(),
            ),
            4 => {
                ip.proto = if self.v6 { 58 } else { 1 };
                let kind = if self.v6 {
                    self.rng.pick(&[128, 129, 1, 130, 133, 134, 135, 136, 137, 143, 200])
                } else {
                    self.rng.pick(&[8, 0, 13, 14, 15, 17, 18, 9, 10, 19, 40, 255, 3])
                };
                let l4 = frames::icmp(&ip, kind, 0, [0, 9, 0, 1], &[0; 24]);
                (l4, format!("stray icmp {kind}"))
            }
            _ => {
                ip.proto = self.rng.pick(&[47, 50, 51, 132, 136, 33, 4, 41, 2, 255, 200]);
                (other_l4(&ip, ip.proto, sport, dport), format!("stray protocol {}", ip.proto))
            }
        };
        if self.rng.chance(15) {
            ip.ttl = self.rng.pick(&[1, 1, 0]);
        }
        if self.rng.chance(15) {
            from.port = self.rng.below(lab::PORTS);
        }
        let note = format!("{what} ttl {} {}:{sport} > {dst}:{dport}", ip.ttl, from.address);
        self.wire(from, &ip.packet(&l4), note)
    }

    /// Something that is wrong, or rare, in one way.
    fn odd(&mut self) -> Packet {
        let (from, to) = (self.host(), self.host());
        let mut ip = self.ip(from.address, to.address, 0);
        ip.proto = self.rng.pick(&[6, 17, 17, if self.v6 { 58 } else { 1 }]);
        let (sport, dport) = (self.rng.pick(&PORT_POOL), self.rng.pick(&PORT_POOL));
        let mut l4 = match ip.proto {
            6 => {
                let tcp = Tcp {
                    sport,
                    dport,
                    seq: 9,
                    ack: 0,
                    flags: SYN,
                    window: 100,
                    options: vec![2, 4, 5, 0xb4],
                    payload: 0,
                };
                tcp.build(&ip)
            }
            17 => frames::udp(&ip, sport, dport, 16),
            _ => frames::icmp(&ip, if self.v6 { 128 } else { 8 }, 0, [0, 3, 0, 1], &[0; 16]),
        };
        let what = match self.rng.below(if !self.rules.conntrack { 14 } else { 11 }) {
            0 => {
                let keep = self.rng.pick(&[0, 1, 3, 4, 7, 8, 12, 19]);
                l4.truncate(keep);
                format!("layer 4 cut to {keep}")
            }
            1 => {
                let at = self.rng.below(l4.len());
                l4[at] ^= 1 << self.rng.below(8);
                format!("layer 4 bit flipped in byte {at}")
            }
            2 => {
                ip.length_error = self.rng.pick(&[-1, -4, 1, 4, 100, -30]);
                format!("length off by {}", ip.length_error)
            }
            3 if ip.proto == 6 => {
                l4[12] = self.rng.pick(&[0x10, 0x40, 0x50, 0xf0]);
                "data offset".to_owned()
            }
            3 if ip.proto == 17 => {
                l4[4..6].copy_from_slice(&self.rng.pick(&[0_u16, 7, 8, 25, 9_000]).to_be_bytes());
                "udp length".to_owned()
            }
            4 if ip.proto == 17 => {
                l4[6..8].fill(0);
                "udp without checksum".to_owned()
            }
            5 | 6 => self.header_options(&mut ip),
            11..14 => self.fragment(&mut ip, &mut l4),
            _ => {
                let packet = ip.packet(&l4);
                return self.odd_frame(from, packet);
            }
        };
        let note = format!("odd: {what}, protocol {} {} > {}", ip.proto, from.address, to.address);
        self.wire(from, &ip.packet(&l4), note)
    }

    fn header_options(&mut self, ip: &mut Ip) -> String {
        if self.v6 {
            // Next header, length, PadN of four; the transport follows.
            let kind = self.rng.pick(&[0, 60, 43, 51, 0, 60]);
            ip.first_extension = kind;
            ip.options = match kind {
                43 => vec![ip.proto, 0, 4, 0, 0, 0, 0, 0],
                51 => vec![ip.proto, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
                _ => vec![ip.proto, 0, 1, 4, 0, 0, 0, 0],
            };
            if kind != 51 && self.rng.chance(30) {
                ip.options[0] = 60;
                ip.options.extend([ip.proto, 0, 1, 4, 0, 0, 0, 0]);
            }
            format!("extension {kind}")
        } else {
            ip.options = self
                .rng
                .pick(&[
                    &[1, 1, 1, 0][..],
                    &[148, 4, 0, 0][..],
                    &[7, 7, 4, 0, 0, 0, 0, 0][..],
                    &[130, 4, 0, 0][..],
                    &[131, 7, 4, 198, 18, 3, 10, 0][..],
                ])
                .to_vec();
            // Answers that carry options on, and timestamps, are compared in
            // dataplane/tests/options_kernel.rs: neither is provoked here.
            if self.rules.rejects && ip.options[0] == 7 {
                ip.options.truncate(4);
                ip.options.fill(1);
            }
            format!("option {}", ip.options[0])
        }
    }

    fn fragment(&mut self, ip: &mut Ip, l4: &mut Vec<u8>) -> String {
        let offset = self.rng.pick(&[0_u16, 0, 1, 2, 100]);
        let more = offset == 0 || self.rng.chance(40);
        if more {
            l4.resize(self.rng.pick(&[8, 16, 24]), 0);
        }
        if self.v6 {
            let word = offset << 3 | u16::from(more);
            ip.first_extension = 44;
            ip.options = vec![ip.proto, 0, (word >> 8) as u8, word as u8, 0, 0, 0, 9];
        } else {
            ip.frag = offset | if more { 0x2000 } else { 0 };
        }
        format!("fragment at {offset}, more {more}")
    }

    /// Wrong at layer 2, or in the IP header itself.
    fn odd_frame(&mut self, from: Host, mut packet: Vec<u8>) -> Packet {
        let mut dst = port_mac(from.port);
        let what = match self.rng.below(7) {
            0 => {
                dst = [0xff; 6];
                "to the broadcast MAC"
            }
            1 => {
                dst = [1, 0, 0x5e, 0, 0, 5];
                "to a multicast MAC"
            }
            2 => {
                dst[5] = 99;
                "to another MAC"
            }
            3 => {
                packet[0] ^= self.rng.pick(&[0x10, 0x20, 0xf0]);
                "wrong version"
            }
            4 if !self.v6 => {
                packet[10] ^= 1;
                "wrong header checksum"
            }
            5 if !self.v6 => {
                packet[0] = self.rng.pick(&[0x44, 0x4f]);
                "wrong header length"
            }
            _ => {
                packet.truncate(self.rng.below(packet.len()).max(1));
                "frame cut short"
            }
        };
        let ethertype = if self.v6 { 0x86dd } else { 0x0800 };
        let bytes = frames::ethernet(dst, from.mac, ethertype, &packet);
        let note = format!("odd: {what} from {}", from.address);
        Packet { entry: Entry::Port(from.port), bytes, note }
    }

    /// To a group, to everybody on a link, or to a link-local address.
    fn said_to_link(&mut self) -> Packet {
        let mut from = self.host();
        let near = self.rng.below(lab::PORTS);
        let (net, v6) = (from.port as u8 + 1, self.v6);
        let dst: IpAddr = match (v6, self.rng.below(9)) {
            (false, 0) => [255, 255, 255, 255].into(),
            (false, 1 | 2) => [198, 18, self.rng.pick(&[net, near as u8 + 1]), 255].into(),
            (false, 3) => [224, 0, 0, self.rng.pick(&[1, 1, 2, 22, 251])].into(),
            (false, 4) => [239, 1, 2, self.rng.pick(&[3, 4])].into(),
            (false, _) => [224, 0, 0, 5].into(),
            (true, 0) => lab::link_local(from.port, self.rng.pick(&[1, 1, 10])),
            (true, 2) => [0xff02, 0, 0, 0, 0, 0, 0, self.rng.pick(&[1, 2, 0x16, 0xfb])].into(),
            (true, 3) => [0xff05, 0, 0, 0, 0, 0, 1, self.rng.pick(&[3, 4])].into(),
            (true, 4) => {
                let last = self.rng.pick(&[1, 0, 10, 77]);
                [0xff02, 0, 0, 0, 0, 1, 0xff00 | (u16::from(net) * self.rng.below(2) as u16), last]
                    .into()
            }
            (true, 5) => {
                [self.rng.pick(&[0xff00, 0xff01, 0xff0e, 0xff12]), 0, 0, 0, 0, 0, 0, 1].into()
            }
            (true, _) => [0xff02, 0, 0, 0, 0, 0, 0, 5].into(),
        };
        if self.rng.chance(15) {
            from.port = near;
        }
        from.address = match self.rng.below(12) {
            0 if v6 => [0; 8].into(),
            0 => [0, 0, 0, 0].into(),
            1 => world::router(v6, near),
            2 if !v6 => [198, 18, net, 255].into(),
            3 if !v6 => [169, 254, 7, 7].into(),
            2..7 if v6 => lab::link_local(from.port, 10),
            _ => from.address,
        };
        let proto = self.rng.pick(&[17, 17, 17, 89, 112, 2, if v6 { 58 } else { 1 }, 6, 103]);
        let mut ip = self.ip(from.address, dst, proto);
        ip.ttl = self.rng.pick(&[1, 1, 64, 255, 2]);
        let (l4, note) = self.short_message(&ip);
        let note = format!("to the link: {note} {} > {dst}", from.address);
        let mac = if self.rng.chance(85) { group_mac(dst) } else { None };
        let mac = mac.unwrap_or_else(|| match self.rng.below(12) {
            0 => [0xff; 6],
            1 => [1, 0, 0x5e, 0, 0, 9],
            _ => port_mac(from.port),
        });
        let kind = if v6 { 0x86dd } else { 0x0800 };
        let bytes = frames::ethernet(mac, from.mac, kind, &ip.packet(&l4));
        Packet { entry: Entry::Port(from.port), bytes, note }
    }

    fn short_message(&mut self, ip: &Ip) -> (Vec<u8>, String) {
        let (sport, dport) = (self.rng.pick(&PORT_POOL), self.rng.pick(&PORT_POOL));
        let l4 = match ip.proto {
            6 => {
                let flags = self.rng.pick(&[SYN, ACK, RST]);
                let tcp = Tcp {
                    sport,
                    dport,
                    seq: 1,
                    ack: 0,
                    flags,
                    window: 9,
                    options: vec![],
                    payload: 0,
                };
                tcp.build(ip)
            }
            1 => frames::icmp(ip, self.rng.pick(&[8, 8, 0, 13]), 0, [0, 5, 0, 1], &[0; 8]),
            58 => {
                let kind = self.rng.pick(&[128, 128, 129, 130, 131, 143]);
                frames::icmp(ip, kind, 0, [0, 5, 0, 1], &[0; 20])
            }
            17 => frames::udp(ip, sport, dport, 8),
            _ => vec![0; 24],
        };
        (l4, format!("protocol {} port {dport}", ip.proto))
    }

    /// Something the router says itself.
    fn own(&mut self) -> Packet {
        let (to, v6) = (self.host(), self.v6);
        let out = self.rng.below(lab::PORTS);
        let link = self.rng.chance(30);
        let (src, dst): (IpAddr, IpAddr) = match self.rng.below(8) {
            0 if v6 && link => (lab::link_local(out, 1), lab::link_local(out, 10)),
            1 | 2 if v6 && link => {
                (lab::link_local(out, 1), [0xff02, 0, 0, 0, 0, 0, 0, self.rng.pick(&[1, 5])].into())
            }
            _ if v6 && link => (world::router(v6, out), [0xff05, 0, 0, 0, 0, 0, 1, 3].into()),
            0..4 if link => {
                (world::router(v6, out), [224, 0, 0, self.rng.pick(&[1, 5, 18])].into())
            }
            _ if link => (world::router(v6, out), [239, 1, 2, 3].into()),
            // To itself, by loopback.
            0 => (world::router(v6, out), world::router(v6, self.rng.below(lab::PORTS))),
            1 => (world::router(v6, out), to.address),
            _ => (world::router(v6, to.port), to.address),
        };
        let other = if link { 89 } else { 17 };
        let proto = self.rng.pick(&[6, 17, if v6 { 58 } else { 1 }, other]);
        let mut ip = self.ip(src, dst, proto);
        ip.ttl = if link { self.rng.pick(&[1, 64, 255]) } else { 64 };
        let (l4, note) = match proto {
            1 | 58 => {
                let kind = if v6 { 128 } else { 8 };
                (frames::icmp(&ip, kind, 0, [0, 5, 0, 1], &[0; 8]), format!("protocol {proto}"))
            }
            _ => self.short_message(&ip),
        };
        let note = format!("own: {note} {src} > {dst}");
        let entry = if link { Entry::OwnOn(out) } else { Entry::Own };
        Packet { entry, bytes: ip.packet(&l4), note }
    }
}

/// The link-layer address that a group or broadcast address is sent to.
fn group_mac(dst: IpAddr) -> Option<[u8; 6]> {
    match dst {
        IpAddr::V4(v4) if v4.is_multicast() => {
            let [_, b, c, d] = v4.octets();
            Some([1, 0, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V4(v4) if v4.octets()[3] == 255 => Some([0xff; 6]),
        IpAddr::V6(v6) if v6.is_multicast() => {
            let [.., a, b, c, d] = v6.octets();
            Some([0x33, 0x33, a, b, c, d])
        }
        _ => None,
    }
}

fn other_l4(ip: &Ip, proto: u8, sport: u16, dport: u16) -> Vec<u8> {
    match proto {
        47 => vec![0, 0, 8, 0, 1, 2, 3, 4],
        50 => vec![0, 0, 0, 7, 0, 0, 0, 1, 9, 9, 9, 9],
        51 => vec![59, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1],
        132 => {
            let mut l4 = vec![0; 32];
            l4[..2].copy_from_slice(&sport.to_be_bytes());
            l4[2..4].copy_from_slice(&dport.to_be_bytes());
            // An INIT chunk of 20 bytes; the CRC stays zero, which is wrong.
            l4[12] = 1;
            l4[15] = 20;
            l4
        }
        33 => frames::udp(ip, sport, dport, 12),
        // Conntrack verifies UDP-Lite with UDP's number: both sums are of interest.
        136 if sport.is_multiple_of(2) => {
            frames::udp(&Ip { proto: 17, ..ip.clone() }, sport, dport, 12)
        }
        136 => frames::udp(ip, sport, dport, 12),
        _ => vec![0; 12],
    }
}

fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    if packet[0] >> 4 == 6 {
        let part =
            |at: usize| <[u8; 16]>::try_from(packet.get(at..at + 16)?).ok().map(IpAddr::from);
        Some((part(8)?, part(24)?))
    } else {
        let part = |at: usize| <[u8; 4]>::try_from(packet.get(at..at + 4)?).ok().map(IpAddr::from);
        Some((part(12)?, part(16)?))
    }
}

fn flags_text(flags: u8) -> String {
    let letters = "FSRPAUEC".chars().enumerate();
    let set: String = letters.filter(|(bit, _)| flags >> bit & 1 == 1).map(|(_, c)| c).collect();
    if set.is_empty() { "none".to_owned() } else { set }
}
