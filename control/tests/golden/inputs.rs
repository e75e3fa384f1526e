//! The packets of each golden case, in order: when, where from, what.

use dataplane::packet::Mac;
use dataplane::wire::build::Packet;

/// Milliseconds since the start, port (or `host`), frame.
pub(crate) type Input = (u64, &'static str, Vec<u8>);

const CLIENT: &str = "198.18.1.2";
const SERVER: &str = "198.18.2.2";
const CLIENT6: &str = "2001:db8:1::2";
const SERVER6: &str = "2001:db8:2::2";
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn client(at_ms: u64, packet: Packet) -> Input {
    let packet = packet.macs(Mac([2, 0, 0, 0, 2, 1]), Mac([2, 0, 0, 0, 1, 1]));
    (at_ms, "eth0", packet.build())
}

fn server(at_ms: u64, packet: Packet) -> Input {
    let packet = packet.macs(Mac([2, 0, 0, 0, 2, 2]), Mac([2, 0, 0, 0, 1, 2]));
    (at_ms, "eth1", packet.build())
}

fn host(at_ms: u64, packet: Packet) -> Input {
    (at_ms, "host", packet.build())
}

fn there(sport: u16, dport: u16, flags: u8) -> Packet {
    Packet::tcp(CLIENT, sport, SERVER, dport, flags)
}

fn back(sport: u16, dport: u16, flags: u8) -> Packet {
    Packet::tcp(SERVER, sport, CLIENT, dport, flags)
}

fn query(dport: u16) -> Packet {
    Packet::udp(CLIENT, 4000, SERVER, dport).payload(b"query")
}

/// Every case with its inputs.
pub(crate) fn cases() -> Vec<(&'static str, Vec<Input>)> {
    vec![
        ("basics", basics()),
        ("tcp", tcp()),
        ("udp", udp()),
        ("icmp-related", icmp_related()),
        ("reject", reject()),
        ("router", router()),
        ("chains-marks", chains_and_marks()),
        ("ipv6", ipv6()),
        ("log", log()),
        ("limit", limit()),
        ("host", own()),
        ("bridge", bridge()),
        ("nat", nat()),
        ("nat6", nat6()),
    ]
}

fn basics() -> Vec<Input> {
    vec![
        client(0, there(1025, 80, SYN)),
        client(1, there(1025, 81, SYN)),
        client(2, there(1025, 22, SYN)),
        client(3, there(1025, 8080, SYN)),
        client(4, there(1025, 8081, SYN)),
        client(5, Packet::tcp("203.0.113.9", 1025, SERVER, 80, SYN)),
        server(6, Packet::ping(SERVER, CLIENT, 7, 1)),
        client(7, Packet::ping(CLIENT, SERVER, 7, 1)),
        client(8, query(53)),
        client(9, Packet::udp(CLIENT, 53, SERVER, 53)),
        client(10, there(1025, 80, SYN).payload_len(40).fragment(24, 24, false)),
        client(11, query(53).bad_ip_checksum()),
        client(12, query(53).truncate(30)),
    ]
}

fn tcp() -> Vec<Input> {
    let (there, back) = (|flags| there(1025, 80, flags), |flags| back(80, 1025, flags));
    vec![
        client(0, there(ACK).seq(1, 1)),
        client(1, there(SYN).seq(999, 0)),
        server(2, back(SYN | ACK).seq(4999, 1000)),
        client(3, there(ACK).seq(1000, 5000)),
        client(4, there(ACK).seq(1000, 5000).payload(b"GET /")),
        server(5, back(ACK).seq(5000, 1005).payload(b"200 OK")),
        client(6, there(RST).seq(90_000_000, 0)),
        server(7, back(SYN).seq(1, 0)),
        client(8, there(FIN | ACK).seq(1005, 5006)),
        server(9, back(FIN | ACK).seq(5006, 1006)),
        client(10, there(ACK).seq(1006, 5007)),
        server(11, Packet::tcp(SERVER, 81, CLIENT, 1025, SYN)),
        client(12, there(SYN | FIN).seq(1, 1)),
    ]
}

fn udp() -> Vec<Input> {
    let answer = Packet::udp(SERVER, 53, CLIENT, 4000).payload(b"answer");
    vec![
        server(0, answer.clone()),
        client(1, query(53)),
        server(2, answer.clone()),
        client(3, query(54)),
        client(4, query(53).bad_l4_checksum()),
        client(5, query(53).no_udp_checksum()),
        client(3000, query(53)),
        server(40_000, answer),
        server(200_000, Packet::udp(SERVER, 53, CLIENT, 4000)),
    ]
}

fn icmp_related() -> Vec<Input> {
    let sent = query(53).ttl(63).build();
    let unrelated = query(54).build();
    let error = |to: &str, quoted: &[u8]| Packet::error(SERVER, to, 3, 3, 0, quoted);
    vec![
        server(0, error(CLIENT, &sent)),
        client(1, query(53)),
        server(2, error(CLIENT, &sent)),
        server(3, error(CLIENT, &unrelated)),
        server(4, error("198.18.1.1", &sent)),
        server(5, Packet::error("198.18.2.254", CLIENT, 11, 0, 0, &sent)),
        server(6, Packet::pong(SERVER, CLIENT, 1, 1)),
    ]
}

fn reject() -> Vec<Input> {
    let ports = (1..=5).map(|port| client(u64::from(port) * 1000, query(port)));
    let mut inputs = vec![
        client(0, there(1025, 23, SYN).seq(77, 0)),
        client(1, there(1025, 23, ACK).seq(77, 99)),
        client(2, there(1025, 23, RST).seq(77, 0)),
    ];
    inputs.extend(ports);
    inputs.extend([
        client(6000, Packet::ping(CLIENT, SERVER, 1, 1)),
        client(7000, Packet::error(CLIENT, SERVER, 3, 3, 0, &query(9).build())),
        client(8000, query(1).bad_l4_checksum()),
        client(9000, query(1).payload_len(64).fragment(24, 24, false)),
    ]);
    inputs
}

fn router() -> Vec<Input> {
    vec![
        client(0, query(53).ttl(2)),
        client(1000, query(53).ttl(1)),
        client(2000, Packet::ping(CLIENT, "198.18.2.1", 1, 1).ttl(1)),
        client(3000, query(53).payload_len(1300).df()),
        client(4000, query(53).payload_len(1300)),
        client(5000, Packet::udp(CLIENT, 1, "192.0.2.1", 2)),
        client(6000, Packet::udp(CLIENT, 1, "198.18.2.77", 2)),
        client(7000, Packet::udp("198.18.1.1", 1, SERVER, 2)),
        client(8000, Packet::udp(CLIENT6, 1, SERVER6, 2).payload_len(1300)),
        client(9000, Packet::udp(CLIENT6, 1, "2001:db8:3::1", 2)),
    ]
}

fn chains_and_marks() -> Vec<Input> {
    let outside = |dport| Packet::udp(CLIENT, 4000, "192.0.2.9", dport);
    let mut inputs: Vec<Input> =
        [53, 54, 55, 56].into_iter().zip(0..).map(|(port, at)| client(at, query(port))).collect();
    inputs.extend([
        client(10, there(1025, 9, SYN)),
        client(11, outside(5000)),
        client(12, outside(5001)),
        client(13, outside(5002)),
    ]);
    inputs
}

fn ipv6() -> Vec<Input> {
    let tcp = |dport, flags| Packet::tcp(CLIENT6, 1025, SERVER6, dport, flags);
    let padding = [0, 0, 1, 4, 0, 0, 0, 0];
    vec![
        client(0, Packet::ping(CLIENT6, SERVER6, 1, 1)),
        server(1, Packet::pong(SERVER6, CLIENT6, 1, 1)),
        server(2, Packet::ping(SERVER6, CLIENT6, 1, 1)),
        client(3, tcp(443, SYN)),
        client(4, tcp(443, SYN).extension(60, &padding)),
        client(5, tcp(23, SYN)),
        client(6, Packet::udp(CLIENT6, 1, SERVER6, 2)),
        client(1500, Packet::ping(CLIENT6, SERVER6, 1, 2).ttl(1)),
        client(3000, tcp(443, SYN).payload_len(64).fragment(48, 16, false)),
    ]
}

fn log() -> Vec<Input> {
    vec![
        client(0, there(1025, 80, SYN).tcp_options(&[2, 4, 5, 180]).df()),
        client(1, query(53).tos(0x10)),
        client(2, Packet::ping(CLIENT, SERVER, 7, 1)),
        server(3, Packet::error(SERVER, CLIENT, 3, 3, 0, &query(9).build())),
        client(4, Packet::tcp(CLIENT6, 1025, SERVER6, 80, SYN)),
        client(5, Packet::udp(CLIENT6, 1, SERVER6, 2)),
        client(6, Packet::ping(CLIENT6, SERVER6, 7, 1)),
    ]
}

fn limit() -> Vec<Input> {
    let mut inputs: Vec<Input> = (0..3).map(|at| client(at, query(53))).collect();
    inputs.extend([
        client(900, query(53)),
        client(1100, query(80)),
        client(1200, query(53)),
        client(2300, query(53)),
    ]);
    inputs.extend((0..7).map(|at| client(3000 + at, Packet::ping(CLIENT, SERVER, 1, at as u16))));
    inputs.extend([8900, 9100].map(|at| client(at, Packet::ping(CLIENT, SERVER, 1, 9))));
    inputs
}

fn own() -> Vec<Input> {
    let (inside, outside) = ("198.18.1.1", "198.18.2.1");
    vec![
        client(0, Packet::tcp(CLIENT, 1025, inside, 22, SYN)),
        host(1, Packet::tcp(inside, 22, CLIENT, 1025, SYN | ACK).seq(1, 1001)),
        client(2, Packet::tcp(CLIENT, 1025, inside, 80, SYN)),
        client(3, Packet::udp(CLIENT, 1025, inside, 53)),
        host(4, Packet::udp(outside, 4000, SERVER, 53)),
        server(5, Packet::udp(SERVER, 53, outside, 4000)),
        host(6, Packet::udp(outside, 4000, "203.0.113.1", 53)),
        host(7, Packet::udp(inside, 1, inside, 2)),
    ]
}

fn nat() -> Vec<Input> {
    let (inside, outside, hop) = ("198.18.1.1", "198.18.2.1", "198.18.2.254");
    let left = Packet::tcp(outside, 1025, SERVER, 8080, SYN).ttl(63).seq(1000, 0).build();
    let mapped = |sport| Packet::udp(CLIENT, sport, "203.0.113.2", 9).payload(b"mapped");
    vec![
        // A forwarded port, to a server that sees the router's own address.
        client(0, Packet::tcp(CLIENT, 1025, inside, 80, SYN).seq(1000, 0)),
        server(1, Packet::tcp(SERVER, 8080, outside, 1025, SYN | ACK).seq(5000, 1001)),
        client(2, Packet::tcp(CLIENT, 1025, inside, 80, ACK).seq(1001, 5001)),
        server(3, Packet::error(hop, outside, 11, 0, 0, &left)),
        // A shifted port range.
        client(4, Packet::tcp(CLIENT, 1025, "192.0.2.1", 5003, SYN)),
        client(5, Packet::ping(CLIENT, SERVER, 7, 1)),
        server(6, Packet::pong(SERVER, "198.18.2.50", 7, 1)),
        // Two ports, three connections.
        client(7, mapped(4000)),
        client(8, mapped(4001)),
        client(9, mapped(4002)),
        // To this machine, and its answer.
        client(10, query(53)),
        host(11, Packet::udp(inside, 5353, CLIENT, 4000).payload(b"answer")),
        client(12, there(1026, 22, SYN)),
        client(13, there(1026, 25, SYN)),
        client(14, query(514)),
    ]
}

fn nat6() -> Vec<Input> {
    let (inside, outside, hop) = ("2001:db8:1::1", "2001:db8:2::1", "2001:db8:2::fe");
    let taken = "2001:db8:2::50";
    let left = Packet::udp(taken, 4000, SERVER6, 53).ttl(63).payload(b"query").build();
    vec![
        client(0, Packet::tcp(CLIENT6, 1025, inside, 80, SYN).seq(1000, 0)),
        server(1, Packet::tcp(SERVER6, 8080, outside, 1025, SYN | ACK).seq(5000, 1001)),
        client(2, Packet::udp(CLIENT6, 4000, SERVER6, 53).payload(b"query")),
        server(3, Packet::udp(SERVER6, 53, taken, 4000).payload(b"answer")),
        server(4, Packet::error(hop, taken, 3, 0, 0, &left)),
        client(5, Packet::ping(CLIENT6, SERVER6, 7, 1)),
        server(6, Packet::pong(SERVER6, "2001:db8:7::2", 7, 1)),
        client(7, Packet::tcp(CLIENT6, 1025, SERVER6, 22, SYN)),
    ]
}

fn bridge() -> Vec<Input> {
    let across = |packet: Packet| packet.macs(Mac([2, 0, 0, 0, 2, 1]), Mac([2, 0, 0, 0, 2, 2]));
    let arp = dataplane::wire::build::arp(
        1,
        (Mac([2, 0, 0, 0, 2, 1]), 0xc612_0102),
        (Mac([0; 6]), 0xc612_0202),
    );
    vec![
        (0, "eth0", arp),
        (1, "eth0", across(there(1025, 80, SYN).ttl(1)).build()),
        (2, "eth1", across(back(80, 1025, SYN | ACK).seq(9, 1001)).build()),
        (3, "eth1", across(back(1025, 80, SYN)).build()),
        (4, "eth0", across(there(1025, 81, SYN)).build()),
    ]
}
