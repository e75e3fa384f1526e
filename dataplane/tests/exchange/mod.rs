//! What is exchanged: scripts of known behaviours, and seeded-random ones.

mod scripts;
mod sctp;

use dataplane::wire::build::Packet;
use dataplane::wire::tcp::flags::{ACK, CWR, ECE, FIN, PSH, RST, SYN, URG};

use super::{DENIED_TTL, Side};

pub(crate) use scripts::scripts;
pub(crate) use sctp::random_sctp;

/// Hosts by side and family.
pub(crate) const INSIDE: [&str; 2] = ["198.18.1.10", "2001:db8:1::a"];
/// The other side.
pub(crate) const OUTSIDE: [&str; 2] = ["198.18.2.10", "2001:db8:2::a"];

/// One step of an exchange.
#[derive(Clone)]
pub(crate) enum Step {
    /// A packet from one side.
    Send(Side, Box<Packet>),
    /// Milliseconds of silence.
    Wait(u64),
}

impl Step {
    fn inside(packet: Packet) -> Self {
        Self::Send(Side::Inside, Box::new(packet))
    }
    fn outside(packet: Packet) -> Self {
        Self::Send(Side::Outside, Box::new(packet))
    }
}

/// xorshift64*: small, seeded, the same everywhere.
pub(crate) struct Random(u64);

impl Random {
    /// From a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }
    /// One of `choices`.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What one end of a random conversation believes.
#[derive(Clone, Copy, Default)]
struct End {
    next: u32,
    acked: u32,
}

/// A TCP conversation that is mostly sane: it follows the protocol often enough to get
/// deep, and breaks it often enough to meet every rule.
pub(crate) fn random_tcp(seed: u64, steps: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    let family = random.below(2);
    let isn = random.pick(&[1000, 0, 0xffff_fff0, 0x7fff_fff0]);
    let mut ends = [End { next: isn, acked: 0 }, End { next: random.pick(&[5000, 0]), acked: 0 }];
    let mut script = Vec::new();
    let opening = random.below(8);
    for at in 0..steps {
        let side = if at < 3 { [0, 1, 0][at] } else { random.below(2) };
        let flags = match (opening, at) {
            (0..6, 0) => SYN,
            (0..6, 1) => SYN | ACK,
            (0..6, 2) => ACK,
            _ => random_flags(&mut random),
        };
        let step = random_segment(&mut random, &mut ends, side, flags, family);
        script.push(step);
    }
    script
}

fn random_flags(random: &mut Random) -> u8 {
    let common = [ACK, ACK, ACK, ACK | PSH, ACK | PSH, ACK | FIN, SYN, SYN | ACK, RST, RST | ACK];
    let odd =
        [0, FIN, SYN | FIN, SYN | RST, ACK | URG, SYN | ECE | CWR, FIN | PSH | URG, SYN | PSH];
    if random.one_in(25) { random.pick(&odd) } else { random.pick(&common) }
}

fn random_segment(
    random: &mut Random,
    ends: &mut [End; 2],
    side: usize,
    flags: u8,
    family: usize,
) -> Step {
    let (me, peer) = (ends[side], ends[1 - side]);
    let near = [
        0,
        0,
        0,
        0,
        1,
        u32::MAX,
        500,
        500u32.wrapping_neg(),
        9000,
        70_000,
        70_000u32.wrapping_neg(),
    ];
    let exact = !random.one_in(3);
    let seq = if exact { me.next } else { me.next.wrapping_add(random.pick(&near)) };
    let mut ack = if flags & ACK == 0 { 0 } else { peer.next };
    if flags & ACK != 0 && random.one_in(5) {
        ack = ack.wrapping_add(random.pick(&near));
    }
    let seq = if flags & RST != 0 && random.one_in(2) {
        random.pick(&[peer.acked, peer.acked.wrapping_sub(1), peer.acked.wrapping_add(1), 0])
    } else {
        seq
    };
    let len =
        if flags & RST == 0 && random.one_in(2) { random.pick(&[1, 10, 500, 1400]) } else { 0 };
    let phantom = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    if exact && flags & RST == 0 {
        ends[side].next = seq.wrapping_add(len as u32 + phantom);
        ends[side].acked = ack;
    }
    let [src, dst] = hosts(side, family);
    let [sport, dport] = if side == 0 { [4000, 80] } else { [80, 4000] };
    let window = random.pick(&[0, 1, 100, 8192, 8192, 8192, 65535]);
    let mut packet =
        Packet::tcp(src, sport, dst, dport, flags).seq(seq, ack).window(window).payload_len(len);
    packet = packet.tcp_options(&random_options(random, flags, peer.next));
    if random.one_in(40) {
        packet = packet.bad_l4_checksum();
    }
    if random.one_in(40) {
        packet = packet.ttl(DENIED_TTL);
    }
    if side == 0 { Step::inside(packet) } else { Step::outside(packet) }
}

fn random_options(random: &mut Random, flags: u8, edge: u32) -> Vec<u8> {
    let mut options = Vec::new();
    if flags & SYN != 0 {
        if random.one_in(2) {
            options.extend([1, 3, 3, random.pick(&[0, 2, 7, 14, 15])]);
        }
        if random.one_in(2) {
            options.extend([4, 2, 1, 1]);
        }
    } else if random.one_in(6) {
        let right = edge.wrapping_add(random.pick(&[0, 100, 2000, 90_000]));
        options.extend([1, 1, 5, 10]);
        options.extend(right.wrapping_sub(100).to_be_bytes());
        options.extend(right.to_be_bytes());
    }
    if random.one_in(30) {
        options.extend([8, 40]);
    }
    options
}

fn hosts(side: usize, family: usize) -> [&'static str; 2] {
    let (inside, outside) = (INSIDE[family], OUTSIDE[family]);
    if side == 0 { [inside, outside] } else { [outside, inside] }
}

/// Hop counts that the router's raw table takes for instructions: see `rules`.
pub(crate) const ZONED: [u8; 5] = [40, 41, 42, 43, 44];

/// Packets of a few flows, in and out of zones: most of a script's packets of one
/// side are in the same ones.
pub(crate) fn random_zones(seed: u64, steps: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    let family = random.below(2);
    let zone = |random: &mut Random| match random.one_in(3) {
        true => 64,
        false => random.pick(&ZONED),
    };
    let usual = [zone(&mut random), zone(&mut random)];
    (0..steps)
        .map(|_| {
            let side = random.below(2);
            let [src, dst] = hosts(side, family);
            let [sport, dport] = if side == 0 { [5000, 53] } else { [53, 5000] };
            let udp = Packet::udp(src, sport, dst, dport);
            let packet = match random.below(8) {
                0..4 => udp,
                4 => Packet::tcp(src, sport, dst, dport, random.pick(&[SYN, SYN | ACK, ACK])),
                5 => Packet::ping(src, dst, 7, 1),
                6 => Packet::pong(src, dst, 7, 1),
                _ => {
                    let quoted = Packet::udp(dst, dport, src, sport).build();
                    Packet::error(src, dst, [3, 1][family], 0, 0, &quoted)
                }
            };
            // Another zone of one direction would make tuples that two connections share.
            let hops = if random.one_in(6) { random.pick(&[40, 44]) } else { usual[side] };
            let packet = packet.ttl(hops);
            if side == 0 { Step::inside(packet) } else { Step::outside(packet) }
        })
        .collect()
}
