//! Named exchanges, each over both families where that makes sense.

use dataplane::wire::build::{Packet, address_bits};
use dataplane::wire::checksum;
use dataplane::wire::tcp::flags::{ACK, FIN, PSH, RST, SYN, URG};

use super::super::DENIED_TTL;
use super::{INSIDE, OUTSIDE, Step};

/// Another host of the outside, in front of the usual one.
const ROUTER: [&str; 2] = ["198.18.2.11", "2001:db8:2::b"];

struct Hosts {
    v6: usize,
}

impl Hosts {
    fn out(&self, make: impl Fn(&str, &str) -> Packet) -> Step {
        Step::inside(make(INSIDE[self.v6], OUTSIDE[self.v6]))
    }
    fn back(&self, make: impl Fn(&str, &str) -> Packet) -> Step {
        Step::outside(make(OUTSIDE[self.v6], INSIDE[self.v6]))
    }
    /// TCP, from the inside.
    fn tcp(&self, flags: u8, seq: u32, ack: u32) -> Step {
        self.out(|a, b| Packet::tcp(a, 4000, b, 80, flags).seq(seq, ack))
    }
    /// TCP, from the outside.
    fn answer(&self, flags: u8, seq: u32, ack: u32) -> Step {
        self.back(|b, a| Packet::tcp(b, 80, a, 4000, flags).seq(seq, ack))
    }
    fn handshake(&self) -> Vec<Step> {
        vec![self.tcp(SYN, 100, 0), self.answer(SYN | ACK, 500, 101), self.tcp(ACK, 101, 501)]
    }
    fn udp(&self) -> Step {
        self.out(|a, b| Packet::udp(a, 5000, b, 53).payload(b"query"))
    }
    fn udp_answer(&self) -> Step {
        self.back(|b, a| Packet::udp(b, 53, a, 5000).payload(b"answer"))
    }
    /// An ICMP error of type `kinds[family]` from `from` to the inside about an outgoing packet.
    fn error(&self, from: [&str; 2], kinds: [u8; 2], quoted: &Packet, cut: usize) -> Step {
        let frame = quoted.build();
        let quoted = &frame[..frame.len().min(cut)];
        let (from, to) = (from[self.v6], INSIDE[self.v6]);
        Step::outside(Packet::error(from, to, kinds[self.v6], 0, 0, quoted))
    }
    fn quoted_udp(&self) -> Packet {
        Packet::udp(INSIDE[self.v6], 5000, OUTSIDE[self.v6], 53).payload(b"query")
    }
}

const UNREACHABLE: [u8; 2] = [3, 1];
const TIME_EXCEEDED: [u8; 2] = [11, 3];

/// All of them.
pub(crate) fn scripts() -> Vec<(String, Vec<Step>)> {
    let mut all = Vec::new();
    for v6 in 0..2 {
        let hosts = Hosts { v6 };
        for (name, script) in named(&hosts) {
            all.push((format!("{name}, IPv{}", 4 + 2 * v6), script));
        }
    }
    all.extend(ipv4_only());
    all.extend(ipv6_only());
    all
}

fn named(hosts: &Hosts) -> Vec<(&'static str, Vec<Step>)> {
    [tcp(hosts), tcp_openings(hosts), icmp(hosts), icmp_more(hosts), others(hosts)].concat()
}

fn tcp(hosts: &Hosts) -> Vec<(&'static str, Vec<Step>)> {
    let after = |more: Vec<Step>| [hosts.handshake(), more].concat();
    vec![
        ("bare ACK", vec![hosts.tcp(ACK, 1, 1), hosts.answer(ACK, 1, 1), hosts.tcp(ACK, 1, 1)]),
        (
            "strange beginnings",
            [RST, FIN | ACK, SYN | ACK, FIN, SYN | FIN, 0, FIN | PSH | URG]
                .map(|flags| hosts.tcp(flags, 1, 1))
                .to_vec(),
        ),
        (
            "denied first",
            vec![
                hosts.out(|a, b| Packet::tcp(a, 4000, b, 80, SYN).ttl(DENIED_TTL)),
                hosts.tcp(SYN, 1000, 0),
            ],
        ),
        (
            "close",
            after(vec![
                hosts.tcp(FIN | ACK, 101, 501),
                hosts.answer(ACK, 501, 102),
                hosts.answer(FIN | ACK, 501, 102),
                hosts.tcp(ACK, 102, 502),
                hosts.tcp(SYN, 9000, 0),
            ]),
        ),
        (
            "stale reset after FIN",
            after(vec![hosts.tcp(FIN | ACK, 101, 501), hosts.answer(RST, 400, 0)]),
        ),
        (
            "resets",
            after(vec![
                hosts.answer(RST, 499, 0),
                hosts.answer(RST, 510, 0),
                hosts.answer(RST, 501, 0),
                hosts.tcp(ACK | PSH, 101, 501),
                hosts.tcp(SYN, 900, 0),
            ]),
        ),
    ]
}

fn tcp_openings(hosts: &Hosts) -> Vec<(&'static str, Vec<Step>)> {
    let after = |more: Vec<Step>| [hosts.handshake(), more].concat();
    vec![
        (
            "challenge",
            after(vec![
                hosts.tcp(SYN, 7000, 0),
                hosts.answer(ACK, 501, 101),
                hosts.tcp(RST, 101, 0),
                hosts.tcp(SYN, 7000, 0),
            ]),
        ),
        (
            "wrong answers to a SYN",
            vec![
                hosts.tcp(SYN, 100, 0),
                hosts.answer(SYN | ACK, 500, 999),
                hosts.answer(RST | ACK, 0, 999),
                hosts.answer(ACK, 500, 90),
            ],
        ),
        (
            "simultaneous open",
            vec![
                hosts.tcp(SYN, 100, 0),
                hosts.answer(SYN, 500, 0),
                hosts.tcp(SYN | ACK, 100, 501),
                hosts.answer(SYN | ACK, 500, 101),
                hosts.tcp(ACK, 101, 501),
            ],
        ),
        ("four identical ACKs", after(vec![hosts.answer(ACK, 501, 101); 5])),
        (
            "zero window",
            after(vec![
                hosts.back(|b, a| Packet::tcp(b, 80, a, 4000, ACK).seq(501, 101).window(0)),
                hosts.answer(ACK, 501, 101),
            ]),
        ),
        ("SYN repeated", vec![hosts.tcp(SYN, 100, 0), Step::Wait(1100), hosts.tcp(SYN, 100, 0)]),
        (
            "unacknowledged data",
            after(vec![
                hosts.out(|a, b| Packet::tcp(a, 4000, b, 80, ACK).seq(101, 501).payload_len(100)),
                hosts.answer(ACK, 501, 201),
            ]),
        ),
        (
            "fast open",
            vec![
                hosts.out(|a, b| Packet::tcp(a, 4000, b, 80, SYN).seq(100, 0).payload_len(50)),
                hosts.answer(SYN | ACK, 500, 151),
                hosts.tcp(ACK, 151, 501),
            ],
        ),
    ]
}

fn icmp(hosts: &Hosts) -> Vec<(&'static str, Vec<Step>)> {
    let udp = hosts.quoted_udp();
    let about = |cut| hosts.error(ROUTER, TIME_EXCEEDED, &udp, cut);
    let ip = [20, 40][hosts.v6];
    let stranger = Packet::udp(INSIDE[hosts.v6], 5001, OUTSIDE[hosts.v6], 53);
    let ping = Packet::ping(INSIDE[hosts.v6], OUTSIDE[hosts.v6], 77, 1);
    vec![
        (
            "ping",
            vec![
                hosts.out(|a, b| Packet::ping(a, b, 77, 1)),
                hosts.back(|b, a| Packet::pong(b, a, 77, 1)),
                hosts.back(|b, a| Packet::pong(b, a, 78, 1)),
                hosts.out(|a, b| Packet::ping(a, b, 77, 2).bad_l4_checksum()),
                hosts.error(ROUTER, UNREACHABLE, &ping, 1000),
            ],
        ),
        (
            "error about UDP",
            vec![
                about(1000),
                hosts.udp(),
                about(1000),
                hosts.udp_answer(),
                about(14 + ip + 8),
                about(14 + ip + 4),
                about(14 + ip + 3),
                about(14 + ip),
                about(14 + ip - 1),
                hosts.error(OUTSIDE, UNREACHABLE, &udp, 1000),
                hosts.error(ROUTER, UNREACHABLE, &stranger, 1000),
            ],
        ),
    ]
}

fn icmp_more(hosts: &Hosts) -> Vec<(&'static str, Vec<Step>)> {
    let udp = hosts.quoted_udp();
    vec![
        (
            "error to another host",
            vec![
                hosts.udp(),
                Step::outside(Packet::error(
                    ROUTER[hosts.v6],
                    ["198.18.1.11", "2001:db8:1::b"][hosts.v6],
                    UNREACHABLE[hosts.v6],
                    0,
                    0,
                    &udp.build(),
                )),
            ],
        ),
        (
            "error about TCP",
            vec![
                hosts.tcp(SYN, 100, 0),
                hosts.error(
                    ROUTER,
                    UNREACHABLE,
                    &Packet::tcp(INSIDE[hosts.v6], 4000, OUTSIDE[hosts.v6], 80, SYN),
                    1000,
                ),
                hosts.answer(SYN | ACK, 500, 101),
            ],
        ),
        (
            "every type",
            (0..=255).map(|kind| hosts.out(|a, b| Packet::icmp(a, b, kind, 0, 5 << 16))).collect(),
        ),
        (
            "every type back",
            (0..20)
                .chain(128..145)
                .map(|kind| hosts.back(|b, a| Packet::icmp(b, a, kind, 0, 5 << 16)))
                .collect(),
        ),
    ]
}

fn others(hosts: &Hosts) -> Vec<(&'static str, Vec<Step>)> {
    let raw = |number: u8, bytes: &'static [u8]| {
        [
            hosts.out(|a, b| Packet::raw(a, b, number, bytes)),
            hosts.back(|b, a| Packet::raw(b, a, number, bytes)),
        ]
    };
    let gre = |bytes: &'static [u8]| [raw(47, bytes), raw(47, bytes)].concat();
    vec![
        (
            "UDP becomes a stream",
            vec![
                hosts.udp(),
                hosts.udp_answer(),
                hosts.udp_answer(),
                hosts.udp(),
                Step::Wait(2100),
                hosts.udp(),
                hosts.udp_answer(),
            ],
        ),
        (
            "spoiled UDP",
            vec![
                hosts.out(|a, b| Packet::udp(a, 5000, b, 53).bad_l4_checksum()),
                hosts.out(|a, b| Packet::udp(a, 5000, b, 53).no_udp_checksum()),
            ],
        ),
        (
            "UDP-Lite",
            [(0, 136), (0, 17), (8, 136), (8, 17), (12, 17), (30, 17), (7, 17)]
                .map(|(coverage, protocol)| lite(hosts, coverage, protocol))
                .to_vec(),
        ),
        ("plain GRE", gre(&[0, 0, 8, 0, 1, 2, 3, 4])),
        ("GRE of PPTP", gre(&[0x30, 1, 0x88, 0x0b, 0, 4, 0x12, 0x34, 0, 0, 0, 0])),
        ("GRE version 1 of another protocol", gre(&[0x30, 1, 8, 0, 0, 4, 0x12, 0x34, 0, 0, 0, 0])),
        ("short GRE", gre(&[0, 0, 8])),
        ("ESP", raw(50, &[1, 2, 3, 4, 0, 0, 0, 1, 9, 9]).to_vec()),
        ("DCCP", raw(33, &[1, 2, 3, 4, 0, 0, 0, 1, 9, 9, 9, 9]).to_vec()),
        ("a protocol without a name", raw(253, &[]).to_vec()),
        ("the other family's ICMP", raw([58, 1][hosts.v6], &[8, 0, 0, 0, 0, 1, 0, 1]).to_vec()),
        ("no TCP header", raw(6, &[0; 19]).to_vec()),
        ("short UDP", raw(17, &[0; 7]).to_vec()),
        ("short ICMP", raw([1, 58][hosts.v6], &[8, 0, 0, 0]).to_vec()),
    ]
}

/// UDP-Lite whose checksum covers `coverage` bytes (0: all) under a pseudo header of `protocol`.
fn lite(hosts: &Hosts, coverage: u16, protocol: u8) -> Step {
    hosts.out(|a, b| {
        let mut message = [&[0x13, 0x88, 0, 53][..], &coverage.to_be_bytes(), &[0; 14]].concat();
        let length = message.len() as u32;
        let covered = if coverage == 0 { message.len() } else { usize::from(coverage) };
        let family = Packet::udp(a, 1, b, 1).family();
        let bits = |text: &str| address_bits(text.parse().expect("an address"));
        let pseudo = checksum::pseudo(family, bits(a), bits(b), protocol, length);
        let covered = &message[..covered.min(message.len())];
        let sum = checksum::finish(checksum::add(pseudo, covered));
        message[6..8].copy_from_slice(&sum.to_be_bytes());
        Packet::raw(a, b, 136, &message)
    })
}

fn ipv4_only() -> Vec<(String, Vec<Step>)> {
    let hosts = Hosts { v6: 0 };
    let redirect = |from| hosts.error(from, [5, 0], &hosts.quoted_udp(), 1000);
    let fragment = hosts.quoted_udp().payload_len(64).fragment(24, 40, false);
    vec![
        ("redirect".to_owned(), vec![hosts.udp(), redirect(ROUTER)]),
        (
            "a later fragment quoted".to_owned(),
            vec![hosts.udp(), hosts.error(ROUTER, TIME_EXCEEDED, &fragment, 1000)],
        ),
        (
            "query pairs".to_owned(),
            [(13, 14), (15, 16), (17, 18)]
                .into_iter()
                .flat_map(|(ask, say)| {
                    [
                        hosts.out(|a, b| Packet::icmp(a, b, ask, 0, 5 << 16)),
                        hosts.back(|b, a| Packet::icmp(b, a, say, 0, 5 << 16)),
                        hosts.back(|b, a| Packet::icmp(b, a, say, 1, 5 << 16)),
                    ]
                })
                .collect(),
        ),
    ]
}

/// An ICMPv6 redirect whose options are `options`.
fn redirect_v6(hops: u8, options: &[u8]) -> Step {
    let body = [&[0; 32][..], options].concat();
    let packet = Packet::icmp(ROUTER[1], INSIDE[1], 137, 0, 0).payload(&body).ttl(hops);
    Step::outside(packet)
}

fn ipv6_only() -> Vec<(String, Vec<Step>)> {
    let hosts = Hosts { v6: 1 };
    let quoted = hosts.quoted_udp().build()[14..].to_vec();
    let padded = [&quoted[..], &[0; 3]].concat();
    let header = |kind: u8, words: u8| [kind, words, 0, 0, 0, 0, 0, 0];
    let redirected = [&header(4, (padded.len() / 8 + 1) as u8)[..], &padded].concat();
    let behind_link = [&header(2, 1)[..], &redirected].concat();
    vec![
        (
            "redirects".to_owned(),
            vec![
                hosts.udp(),
                redirect_v6(255, &redirected),
                redirect_v6(255, &behind_link),
                redirect_v6(254, &redirected),
                redirect_v6(255, &[]),
                redirect_v6(255, &header(4, 0)),
            ],
        ),
        ("no next header".to_owned(), vec![hosts.out(|a, b| Packet::raw(a, b, 59, &[1, 2, 3]))]),
        (
            "behind extension headers".to_owned(),
            vec![
                hosts.out(|a, b| {
                    Packet::udp(a, 5000, b, 53).extension(60, &[0, 0, 1, 4, 0, 0, 0, 0])
                }),
                hosts.udp_answer(),
            ],
        ),
    ]
}
