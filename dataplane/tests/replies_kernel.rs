//! What the router makes, byte for byte against the kernel. Needs root.

mod support;

use dataplane::clock::Nanos;
use dataplane::packet::{Family, Mac, Parsed};
use dataplane::policy::RejectWith;
use dataplane::reply::limit::{Limiter, Settings};
use dataplane::reply::{About, Message, Origin, fragment, icmp, reject};
use dataplane::wire::build::{self, L4, Packet, Tcp};
use dataplane::wire::tcp::flags;
use dataplane::wire::{Frame, checksum, ipv4, parse, proto};
use support::{HOST, Lab, ROUTER};

const A: &str = "198.18.1.5";
const B: &str = "198.18.2.7";
const A6: &str = "2001:db8:1::5";
const B6: &str = "2001:db8:2::7";

fn to_router(packet: Packet) -> Vec<u8> {
    packet.macs(HOST[0], ROUTER[0]).build()
}

fn parsed(frame: &[u8]) -> Parsed {
    match parse(frame, ROUTER[0]) {
        Ok(Frame::Ip(parsed)) => parsed,
        other => panic!("not IP: {other:?}"),
    }
}

/// The frame as rules in FORWARD see it.
fn hop(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    match parsed(&frame).family {
        Family::V4 => ipv4::Packet::new_checked(&mut frame[14..]).expect("IPv4").decrement_ttl(),
        Family::V6 => frame[14 + 7] -= 1,
    }
    frame
}

/// The kernel numbers its ICMP errors unpredictably: takes the number out.
fn without_id(mut frame: Vec<u8>) -> Vec<u8> {
    if frame[12..14] == [8, 0] && frame[14 + 9] == proto::ICMP {
        frame[18..20].fill(0);
        if let Ok(mut ip) = ipv4::Packet::new_header(&mut frame[14..]) {
            ip.fill_checksum();
        }
    }
    frame
}

fn framed(ip: &[u8], family: Family) -> Vec<u8> {
    let ethertype = match family {
        Family::V4 => [0x08, 0x00],
        Family::V6 => [0x86, 0xdd],
    };
    [&HOST[0].0[..], &ROUTER[0].0[..], &ethertype[..], ip].concat()
}

fn hex(frames: &[Vec<u8>]) -> String {
    let line = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    frames.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn origin(source: &str) -> Origin {
    let source = build::address_bits(source.parse().expect("an address"));
    Origin { source, id: 0, mtu: 1500 }
}

/// What the kernel sends back must be what `make` writes.
fn compare(
    lab: &Lab,
    name: &str,
    frame: &[u8],
    make: impl Fn(&mut [u8], &Parsed) -> Option<usize>,
) -> bool {
    let [back, _] = lab.exchange(0, frame);
    let back: Vec<_> = back.into_iter().map(without_id).collect();
    let parsed = parsed(frame);
    let mut out = vec![0xa5; 2000];
    let ours: Vec<_> = make(&mut out, &parsed)
        .map(|length| without_id(framed(&out[..length], parsed.family)))
        .into_iter()
        .collect();
    let name = format!("{name} ({:?})", parsed.family);
    assert_eq!(
        hex(&back),
        hex(&ours),
        "{name}: kernel, then ours, for\n{}",
        hex(&[frame.to_vec()])
    );
    !ours.is_empty()
}

fn about<'a>(frame: &'a [u8], parsed: &'a Parsed) -> About<'a> {
    About { frame, parsed, group: false, summed: false, half_summed: false, options: &[] }
}

/// Packets of every kind from A to B.
fn zoo(a: &str, b: &str) -> Vec<(&'static str, Packet)> {
    let mut zoo = transports(a, b);
    zoo.extend(messages(a, b));
    zoo.extend(others(a, b));
    if a.contains(':') {
        let pad = [0, 0, 1, 4, 0, 0, 0, 0];
        zoo.push((
            "behind options",
            Packet::tcp(a, 1, b, 2, flags::SYN).extension(proto::DESTINATION, &pad),
        ));
        zoo.push((
            "ping behind options",
            Packet::ping(a, b, 1, 2).extension(proto::HOP_BY_HOP, &pad),
        ));
        zoo.push((
            "error behind options",
            Packet::icmp(a, b, 1, 0, 0).extension(proto::DESTINATION, &pad),
        ));
        zoo.push(("no next header", Packet::raw(a, b, proto::NONE, &[1; 4])));
        zoo.push(("cut chain", Packet::raw(a, b, proto::DESTINATION, &[6])));
    } else {
        let id = Packet::tcp(a, 1, b, 2, flags::SYN).options(&[1, 1, 1, 1]);
        zoo.push(("with options", id));
        zoo.push(("don't fragment", Packet::udp(a, 1, b, 2).df().id(0)));
    }
    zoo
}

fn transports(a: &str, b: &str) -> Vec<(&'static str, Packet)> {
    vec![
        ("udp", Packet::udp(a, 1000, b, 53).payload_len(30)),
        ("long udp", Packet::udp(a, 1000, b, 53).payload_len(1300).tos(0x5c)),
        ("udp of every tos bit", Packet::udp(a, 1000, b, 53).tos(0xff)),
        ("empty udp", Packet::udp(a, 1000, b, 53)),
        ("udp without checksum", Packet::udp(a, 1000, b, 53).no_udp_checksum().payload_len(9)),
        ("udp with bad checksum", Packet::udp(a, 1000, b, 53).bad_l4_checksum()),
        ("short udp", Packet::raw(a, b, proto::UDP, &[0, 1, 0, 2])),
        ("padded udp", Packet::udp(a, 1000, b, 53).payload_len(3).padding(15)),
        ("syn", Packet::tcp(a, 1000, b, 80, flags::SYN).tcp_options(&[2, 4, 5, 0xb4])),
        ("syn with data", Packet::tcp(a, 1000, b, 80, flags::SYN).payload_len(10)),
        ("ack", Packet::tcp(a, 1000, b, 80, flags::ACK).seq(5, 6).payload_len(7)),
        ("syn fin", Packet::tcp(a, 1000, b, 80, flags::SYN | flags::FIN).seq(u32::MAX, 3)),
        ("fin ack", Packet::tcp(a, 1000, b, 80, flags::ACK | flags::FIN).seq(77, 78).tos(0x48)),
        ("rst", Packet::tcp(a, 1000, b, 80, flags::RST)),
        ("no flags", Packet::tcp(a, 1000, b, 80, 0).payload_len(2)),
        ("tcp with bad checksum", Packet::tcp(a, 1000, b, 80, flags::SYN).bad_l4_checksum()),
        ("short tcp", Packet::raw(a, b, proto::TCP, &[0; 19])),
        (
            "tcp with odd offset",
            Packet::new(a, b, L4::Tcp(Tcp { offset: Some(15), ..Tcp::new(1, 2, 2) })),
        ),
    ]
}

fn messages(a: &str, b: &str) -> Vec<(&'static str, Packet)> {
    let error = Packet::udp(b, 9, a, 10).payload_len(20).build();
    let (unreachable, reply) = if a.contains(':') { (1, 129) } else { (3, 0) };
    vec![
        ("ping", Packet::ping(a, b, 1, 2).payload_len(56)),
        ("ping with bad checksum", Packet::ping(a, b, 1, 2).bad_l4_checksum()),
        ("pong", Packet::icmp(a, b, reply, 0, 5)),
        ("icmp error", Packet::error(a, b, unreachable, 1, 0, &error)),
        ("redirect", Packet::error(a, b, if reply == 0 { 5 } else { 137 }, 1, 0, &error)),
        ("unknown icmp", Packet::icmp(a, b, 42, 0, 0)),
        ("unknown icmp above 127", Packet::icmp(a, b, 200, 0, 0)),
        ("icmp of no bytes", Packet::raw(a, b, if reply == 0 { 1 } else { 58 }, &[])),
        ("short ping", Packet::raw(a, b, if reply == 0 { 1 } else { 58 }, &[8, 0, 0xf7, 0xff])),
    ]
}

fn others(a: &str, b: &str) -> Vec<(&'static str, Packet)> {
    vec![
        (
            "sctp with bad checksum",
            Packet::new(a, b, L4::Sctp { sport: 1, dport: 2, tag: 3 }).bad_l4_checksum(),
        ),
        ("gre", Packet::raw(a, b, proto::GRE, &[0, 0, 8, 0, 1])),
        ("esp", Packet::raw(a, b, proto::ESP, &[1; 20])),
        ("unknown protocol", Packet::raw(a, b, 200, &[1; 20])),
        ("unknown protocol that sums up", Packet::raw(a, b, 200, &[0xff; 20])),
        ("no layer 4", Packet::raw(a, b, 200, &[])),
        (
            "udplite",
            Packet::new(a, b, L4::Udp { sport: 1, dport: 2, length: Some(8), lite: true })
                .payload_len(9),
        ),
        ("first fragment", Packet::udp(a, 1, b, 2).payload_len(64).fragment(0, 32, true)),
        (
            "first fragment without checksum",
            Packet::udp(a, 1, b, 2).no_udp_checksum().payload_len(64).fragment(0, 32, true),
        ),
        ("later fragment", Packet::udp(a, 1, b, 2).payload_len(64).fragment(32, 32, false)),
        ("later ping fragment", Packet::ping(a, b, 1, 2).payload_len(64).fragment(32, 32, false)),
        ("empty first ping fragment", Packet::ping(a, b, 1, 2).fragment(0, 0, true)),
    ]
}

#[test]
fn time_exceeded() {
    let lab = Lab::new();
    let mut answers = 0;
    for (a, b, source) in [(A, B, "198.18.1.1"), (A6, B6, "2001:db8:1::1")] {
        for (name, packet) in zoo(a, b) {
            let frame = to_router(packet.ttl(1));
            answers += compare(&lab, name, &frame, |out, p| {
                icmp::error(
                    out,
                    &about(&frame, p),
                    Message::time_exceeded(p.family),
                    &origin(source),
                )
            }) as u32;
        }
    }
    assert!(answers > 50, "{answers} answers");
}

#[test]
fn no_route_and_refused_routes() {
    let lab = Lab::new();
    lab.router("ip route add unreachable 198.51.100.0/24");
    lab.router("ip route add prohibit 203.0.113.0/24");
    lab.router("ip route add blackhole 192.0.2.0/24");
    lab.router("ip -6 route add unreachable 2001:db8:f2::/48");
    lab.router("ip -6 route add prohibit 2001:db8:f3::/48");
    lab.router("ip -6 route add blackhole 2001:db8:f1::/48");
    let table = [
        (A, "8.8.8.8", Some(0)),
        (A, "198.51.100.1", Some(1)),
        (A, "203.0.113.1", Some(13)),
        (A, "192.0.2.1", None),
        (A6, "2001:db8:99::1", Some(0)),
        (A6, "2001:db8:f2::1", Some(0)),
        (A6, "2001:db8:f3::1", Some(1)),
        (A6, "2001:db8:f1::1", None),
    ];
    for (a, b, code) in table {
        let source = if a == A { "198.18.1.1" } else { "2001:db8:1::1" };
        let frame = to_router(Packet::udp(a, 1, b, 2).payload_len(20));
        compare(&lab, b, &frame, |out, p| {
            let message = Message::unreachable(p.family, code?);
            icmp::error(out, &about(&frame, p), message, &origin(source))
        });
    }
}

#[test]
fn too_big() {
    let lab = Lab::new();
    lab.router("ip link set eth1 mtu 1400");
    for (a, b, source) in [(A, B, "198.18.1.1"), (A6, B6, "2001:db8:1::1")] {
        let frame = to_router(Packet::udp(a, 1, b, 2).payload_len(1452).df());
        compare(&lab, "too big", &frame, |out, p| {
            icmp::error(out, &about(&frame, p), Message::too_big(p.family, 1400), &origin(source))
        });
    }
}

#[test]
fn reject_in_forward() {
    let lab = Lab::new();
    let v4 = [
        ("icmp-net-unreachable", RejectWith::Icmp(0)),
        ("icmp-host-unreachable", RejectWith::Icmp(1)),
        ("icmp-proto-unreachable", RejectWith::Icmp(2)),
        ("icmp-port-unreachable", RejectWith::Icmp(3)),
        ("icmp-net-prohibited", RejectWith::Icmp(9)),
        ("icmp-host-prohibited", RejectWith::Icmp(10)),
        ("icmp-admin-prohibited", RejectWith::Icmp(13)),
        ("tcp-reset", RejectWith::TcpReset),
    ];
    let v6 = [
        ("icmp6-no-route", RejectWith::Icmp6(0)),
        ("icmp6-adm-prohibited", RejectWith::Icmp6(1)),
        ("icmp6-addr-unreachable", RejectWith::Icmp6(3)),
        ("icmp6-port-unreachable", RejectWith::Icmp6(4)),
        ("icmp6-policy-fail", RejectWith::Icmp6(5)),
        ("icmp6-reject-route", RejectWith::Icmp6(6)),
        ("tcp-reset", RejectWith::TcpReset),
    ];
    let mut answers = 0;
    for (a, b, source, command, types) in [
        (A, B, "198.18.1.1", "iptables-restore", &v4[..]),
        (A6, B6, "2001:db8:1::1", "ip6tables-restore", &v6[..]),
    ] {
        for &(name, with) in types {
            let tcp = if with == RejectWith::TcpReset { "-p tcp" } else { "" };
            let rules = format!(
                "*filter\n:FORWARD DROP\n-A FORWARD {tcp} -j REJECT --reject-with {name}\nCOMMIT\n"
            );
            lab.router_input(command, &rules);
            let kinds = zoo(a, b);
            // Every packet with one ICMP type and with resets; a few with the others.
            let whole =
                matches!(with, RejectWith::Icmp(3) | RejectWith::Icmp6(4) | RejectWith::TcpReset);
            for (kind, packet) in kinds.into_iter().take(if whole { usize::MAX } else { 3 }) {
                let frame = to_router(packet);
                answers += compare(&lab, &format!("{name}, {kind}"), &frame, |out, _| {
                    let seen = hop(&frame);
                    let p = parsed(&seen);
                    // `-p tcp` drops what has a broken chain of headers outright.
                    reject(out, &about(&seen, &p), with, &origin(source))
                }) as u32;
            }
        }
    }
    assert!(answers > 60, "{answers} answers");
}

#[test]
fn answers_to_groups_and_strangers() {
    let lab = Lab::new();
    lab.neighbour(0, "fe80::5");
    let everything = "*filter\n:INPUT DROP\n-A INPUT -j REJECT\nCOMMIT\n";
    lab.router_input("iptables-restore", everything);
    lab.router_input("ip6tables-restore", everything);
    let (unicast, broadcast) = (ROUTER[0], Mac([0xff; 6]));
    // From, to, by which MAC address, source of the answer, a group by routing.
    let table = [
        (A, "198.18.1.1", unicast, "198.18.1.1", false),
        (A, "198.18.2.1", unicast, "198.18.2.1", false),
        (A, "198.18.1.255", broadcast, "198.18.1.1", true),
        (A, "198.18.1.255", unicast, "198.18.1.1", true),
        (A, "255.255.255.255", unicast, "198.18.1.1", false),
        (A, "198.18.1.1", broadcast, "198.18.1.1", false),
        (A, "224.0.0.1", unicast, "198.18.1.1", false),
        (A6, "2001:db8:1::1", unicast, "2001:db8:1::1", false),
        (A6, "2001:db8:2::1", unicast, "2001:db8:2::1", false),
        (A6, "ff02::1", unicast, "2001:db8:1::1", false),
        (A6, "2001:db8:1::1", broadcast, "2001:db8:1::1", false),
        ("fe80::5", "fe80::ff:fe00:101", unicast, "fe80::ff:fe00:101", false),
        ("fe80::5", "2001:db8:1::1", unicast, "2001:db8:1::1", false),
    ];
    for (from, to, mac, source, group) in table {
        let frame = Packet::udp(from, 1, to, 2).macs(HOST[0], mac).build();
        compare(&lab, &format!("{to} by {mac:?}"), &frame, |out, p| {
            let with = match p.family {
                Family::V4 => RejectWith::Icmp(3),
                Family::V6 => RejectWith::Icmp6(4),
            };
            reject(out, &About { group, ..about(&frame, p) }, with, &origin(source))
        });
    }
}

#[test]
fn fragments() {
    let lab = Lab::new();
    let long = || Packet::udp(A, 1000, B, 53).payload_len(1472);
    let table = [
        ("plain", 1400, long()),
        ("small", 68, long().id(7)),
        ("odd", 777, long().tos(0x44)),
        ("evil", 900, Packet { evil: true, ..long() }),
        ("first of a fragmented", 600, long().fragment(0, 1472, true)),
        (
            "middle of a fragmented",
            600,
            Packet::udp(A, 1000, B, 53).payload_len(3000).fragment(1472, 1480, true),
        ),
        (
            "last of a fragmented",
            600,
            Packet::udp(A, 1000, B, 53).payload_len(2900).fragment(1472, 1480, false),
        ),
        // Stream id (copied), no-operation, an experiment's option (not copied).
        (
            "with options",
            600,
            long().payload_len(1400).options(&[0x88, 4, 1, 2, 1, 0x1e, 4, 9, 9, 0x9e, 4, 7, 7]),
        ),
        // Only the datagram's first fragment loses options.
        (
            "middle of a fragmented with options",
            600,
            Packet::udp(A, 1000, B, 53)
                .payload_len(3000)
                .options(&[0x88, 4, 1, 2, 0x1e, 4, 9, 9])
                .fragment(1472, 1400, true),
        ),
        (
            "first of a fragmented with options",
            600,
            long().options(&[0x1e, 4, 9, 9, 0x9e, 4, 7, 7]).fragment(0, 1400, true),
        ),
    ];
    for (name, mtu, packet) in table {
        lab.router(&format!("ip link set eth1 mtu {mtu}"));
        lab.router("ip addr replace 198.18.2.1/24 dev eth1");
        lab.router("ip link set eth1 up");
        lab.neighbour(1, B);
        let frame = to_router(packet);
        let [_, kernel] = lab.exchange(0, &frame);
        let mut onward = hop(&frame);
        onward[..6].copy_from_slice(&HOST[1].0);
        onward[6..12].copy_from_slice(&ROUTER[1].0);
        let (mut scratch, mut ours) = ([0; 2000], Vec::new());
        let count = fragment::fragment(&onward, &parsed(&frame), mtu, &mut scratch, |f| {
            ours.push(f.to_vec())
        });
        assert_eq!(count, ours.len());
        assert_eq!(hex(&kernel), hex(&ours), "{name}: kernel, then ours");
        assert!(count > 1, "{name} was cut");
    }
}

/// The lab can tell: a reply with one byte changed is not the kernel's.
#[test]
fn the_comparison_can_fail() {
    let lab = Lab::new();
    let frame = to_router(Packet::udp(A, 1, B, 2).ttl(1));
    let [back, _] = lab.exchange(0, &frame);
    let p = parsed(&frame);
    let mut out = [0; 2000];
    let wrong = Message { code: 1, ..Message::time_exceeded(Family::V4) };
    let length = icmp::error(&mut out, &about(&frame, &p), wrong, &origin("198.18.1.1"));
    let ours = framed(&out[..length.expect("an error")], Family::V4);
    assert_eq!(back.len(), 1);
    assert_ne!(without_id(back[0].clone()), without_id(ours));
    assert!(checksum::transport_ok(&back[0], &parsed(&back[0])));
}

/// A burst is limited per destination as [`Limiter`] says.
#[test]
fn bursts_are_limited() {
    let lab = Lab::new();
    lab.sysctl("net.ipv4.icmp_ratelimit=1000");
    lab.sysctl("net.ipv6.icmp.ratelimit=1000");
    for (a, b) in [(A, B), (A6, B6)] {
        let frame = to_router(Packet::udp(a, 1, b, 2).ttl(1));
        let kernel: usize = (0..12).map(|_| lab.exchange(0, &frame)[0].len()).sum();
        let settings = Settings { icmpv6_ratelimit_ms: 1000, ..Settings::default() };
        let mut limiter = Limiter::new(settings, 16);
        let p = parsed(&frame);
        let message = Message::time_exceeded(p.family);
        let now = Nanos::from_secs(3600);
        let ours = (0..12).filter(|_| limiter.allow(now, p.family, message, p.src, 64)).count();
        assert_eq!(kernel, ours, "{a}");
    }
}
