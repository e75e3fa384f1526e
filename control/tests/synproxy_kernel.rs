//! SYNPROXY before the kernel and before Portcullis: the same handshakes, the
//! same segments, byte for byte but for the cookie and our own timestamps, which
//! are told by where they come from. Needs root.

#[path = "behaviours"]
#[allow(dead_code, unreachable_pub, reason = "shared with another test binary")]
mod behaviours {
    pub mod compare;
    pub mod flow;
    pub mod kernel;
    pub mod ours;
    pub mod packet;
    pub mod script;
    pub mod store;
    pub mod topology;
}
mod lab;

use std::fmt::Write as _;

use behaviours::flow::Flow;
use behaviours::kernel::Kernel;
use behaviours::ours::Ours;
use behaviours::packet::{Host, Segment, host, tcp};
use behaviours::script::{Side, ruleset};
use lab::address;

/// Initial sequence numbers and first timestamps of both ends.
const CLIENT: u32 = 1_000;
const SERVER: u32 = 900_000_000;
const CLIENT_CLOCK: u32 = 50_000;
const SERVER_CLOCK: u32 = 2_100_000_000;
/// What is this near to a number is told relative to it.
const NEAR: u32 = 200_000;

/// One handshake in progress on one side.
struct Play<'s> {
    side: &'s mut dyn Side,
    v6: bool,
    client: Host,
    server: Host,
    /// The number that the client was answered with.
    cookie: u32,
    /// The timestamp that it was answered with.
    stamp: u32,
    told: Vec<String>,
}

impl Play<'_> {
    fn client(&self, flags: &str) -> Segment {
        tcp(self.client, 4_000, self.server.ip, 80).flags(flags).seq(CLIENT)
    }
    fn server(&self, flags: &str) -> Segment {
        tcp(self.server, 80, self.client.ip, 4_000).flags(flags).seq(SERVER).ack(CLIENT + 1)
    }

    /// Sends a segment; tells what came out, and gives the TCP headers.
    fn send(&mut self, what: &str, segment: &Segment) -> Vec<Vec<u8>> {
        let mut out = self.side.send(&segment.build());
        out.sort_by_key(|sent| sent.port);
        let mut text = format!("{what}:");
        let mut all = Vec::new();
        for sent in out {
            let ip = &sent.frame[14..];
            let header = if self.v6 { 40 } else { 20 };
            let l4 = ip[header..].to_vec();
            if l4[13] == 0x12 || l4[13] == 0x52 {
                // Ours, unless it is the server's own.
                if long(&l4, 4).wrapping_sub(SERVER) > NEAR {
                    self.cookie = long(&l4, 4);
                    self.stamp = stamps(&l4).map_or(0, |at| long(&l4, at));
                }
            }
            write!(text, "\n  eth{} {:02x?}", sent.port, before_sum(ip, self.v6)).unwrap();
            self.tell(&mut text, &l4);
            assert_eq!(sum(ip, self.v6), 0, "{}: {what}", self.side.name());
            all.push(l4);
        }
        self.told.push(text);
        all
    }

    fn tell(&self, text: &mut String, l4: &[u8]) {
        let name = |number: u32| {
            for (name, base) in [("cookie", self.cookie), ("stamp", self.stamp & !63)] {
                let distance = number.wrapping_sub(base);
                if base != 0 && distance < NEAR {
                    return format!("{name}+{distance}");
                }
            }
            // The kernel moves the echo of our ACK to the server, which was right before.
            if number.wrapping_add(self.stamp) == SERVER_CLOCK.wrapping_mul(2) {
                assert_eq!(self.side.name(), "kernel");
                return SERVER_CLOCK.to_string();
            }
            number.to_string()
        };
        let ports = (&l4[..2], &l4[2..4]);
        write!(text, " {ports:?} seq {} ack {}", name(long(l4, 4)), name(long(l4, 8))).unwrap();
        write!(text, " {:02x?}", &l4[12..16]).unwrap();
        let header = usize::from(l4[12] >> 4) * 4;
        match stamps(l4) {
            Some(at) => {
                let (value, echo) = (name(long(l4, at)), name(long(l4, at + 4)));
                write!(text, " {:02x?} {value} {echo}", &l4[20..at]).unwrap();
                write!(text, " {:02x?}", &l4[at + 8..header]).unwrap();
            }
            None => write!(text, " {:02x?}", &l4[20..header]).unwrap(),
        }
        write!(text, " {:02x?}", &l4[header..]).unwrap();
    }

    /// The connection table.
    fn table(&mut self) -> Vec<Flow> {
        let lines = self.side.table();
        let mut flows: Vec<Flow> = lines.iter().filter_map(|line| Flow::parse(line)).collect();
        flows.sort();
        self.told.extend(flows.iter().map(|flow| format!("table: {}", flow.facts)));
        flows
    }

    /// Timestamps as a segment of the client has them.
    fn client_stamps(&self, echo: u32) -> Vec<u8> {
        [&[1, 1, 8, 10][..], &(CLIENT_CLOCK + 9).to_be_bytes(), &echo.to_be_bytes()].concat()
    }
    fn server_stamps(&self) -> Vec<u8> {
        let (value, echo) = (SERVER_CLOCK.to_be_bytes(), (CLIENT_CLOCK + 9).to_be_bytes());
        [&[1, 1, 8, 10][..], &value, &echo].concat()
    }
}

fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Where the two timestamps stand in a TCP header.
fn stamps(l4: &[u8]) -> Option<usize> {
    let mut at = 20;
    while at < usize::from(l4[12] >> 4) * 4 {
        match l4[at] {
            8 => return Some(at + 2),
            0 | 1 => at += 1,
            _ => at += usize::from(l4[at + 1].max(2)),
        }
    }
    None
}

/// The IP header without what a checksum changes in it.
fn before_sum(ip: &[u8], v6: bool) -> Vec<u8> {
    match v6 {
        true => ip[..40].to_vec(),
        false => [&ip[..10], &ip[12..20]].concat(),
    }
}

/// The sum over a TCP segment and its pseudo header: zero when right.
fn sum(ip: &[u8], v6: bool) -> u16 {
    let (addresses, l4) = if v6 { (8, &ip[40..]) } else { (12, &ip[20..]) };
    let until = if v6 { 40 } else { 20 };
    let tail = [&[0, 6][..], &(l4.len() as u16).to_be_bytes()].concat();
    lab::frames::checksum(&[&ip[addresses..until], &tail, l4])
}

/// Performs the play on both sides and compares what was told.
#[track_caller]
fn both(v6: bool, rules: &[&str], play: impl Fn(&mut Play<'_>)) {
    let perform = |side: &mut dyn Side| {
        side.sysctl("tcp_loose", 0);
        side.load(v6, &ruleset(rules), false);
        let (client, server) = (host(v6, 0, 10), host(v6, 2, 10));
        let mut stage = Play { side, v6, client, server, cookie: 0, stamp: 0, told: Vec::new() };
        play(&mut stage);
        stage.table();
        stage.told
    };
    let mut kernel = Kernel::new(&[]);
    let theirs = perform(&mut kernel);
    let ours = perform(&mut Ours::new(kernel.times(), ""));
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(theirs, ours, "the kernel's first");
    }
    assert_eq!(theirs.len(), ours.len());
}

/// SYNs from eth0 untracked, and SYNPROXY with these options for them.
fn proxying(options: &str) -> [String; 3] {
    [
        "-t raw -A PREROUTING -i eth0 -p tcp -m tcp --syn -j CT --notrack".to_owned(),
        format!(
            "-A FORWARD -i eth0 -p tcp -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY{options}"
        ),
        "-A FORWARD -m conntrack --ctstate INVALID -j DROP".to_owned(),
    ]
}

const ALL: &str = " --sack-perm --timestamp --wscale 7 --mss 1460 --ecn";
/// What a client may offer, without timestamps.
const OFFERS: [&[u8]; 5] = [
    &[],
    &[2, 4, 5, 0xb4],
    &[2, 4, 5, 0x14, 4, 2],
    &[2, 4, 2, 0, 3, 3, 9],
    &[4, 2, 3, 3, 15, 2, 4, 0x22, 0xec],
];

/// A handshake from the first SYN to the server's answer; the server's first
/// options are given.
fn handshake(t: &mut Play<'_>, flags: &str, offer: &[u8], stamped: bool, answer: &[u8]) {
    let mut syn = t.client(flags).option(offer);
    let clock = [&[8, 10][..], &CLIENT_CLOCK.to_be_bytes(), &[0; 4]].concat();
    if stamped {
        syn = syn.option(&clock);
    }
    let answered = t.send("SYN", &syn.window(64_240));
    assert_eq!(answered.len(), 1, "{}", t.side.name());
    let mut ack = t.client("A").seq(CLIENT + 1).ack(t.cookie.wrapping_add(1)).window(502);
    if t.stamp != 0 {
        ack = ack.option(&t.client_stamps(t.stamp));
    }
    let opened = t.send("ACK", &ack);
    assert_eq!(opened.len(), 1, "{}", t.side.name());
    t.table();
    t.send("ACK again", &ack);
    let mut syn_ack = t.server("SA").option(answer).window(65_160);
    if stamps(&opened[0]).is_some() {
        syn_ack = syn_ack.option(&t.server_stamps());
    }
    let joined = t.send("SYN-ACK", &syn_ack);
    assert_eq!(joined.len(), 2, "{}", t.side.name());
    t.table();
}

/// Data both ways, and the end.
fn talk(t: &mut Play<'_>) {
    let with_stamps = t.stamp != 0;
    let stamp = |t: &Play<'_>, segment: Segment, bytes: Vec<u8>| match with_stamps {
        true => segment.option(&bytes),
        false => {
            let _ = t;
            segment
        }
    };
    let up = t.client("PA").seq(CLIENT + 1).ack(t.cookie.wrapping_add(1)).len(40);
    let up = stamp(t, up, t.client_stamps(t.stamp + 3));
    t.send("question", &up);
    let down = t.server("PA").seq(SERVER + 1).ack(CLIENT + 41).len(100);
    let down = stamp(t, down, t.server_stamps());
    t.send("answer", &down);
    let edges = [t.cookie.wrapping_add(201), t.cookie.wrapping_add(301)].map(u32::to_be_bytes);
    let sack = [&[1, 1, 5, 10][..], &edges[0], &edges[1]].concat();
    let seen = t.client("A").seq(CLIENT + 41).ack(t.cookie.wrapping_add(101)).option(&sack);
    t.send("SACK", &seen);
    t.table();
    let fin = t.client("FA").seq(CLIENT + 41).ack(t.cookie.wrapping_add(101));
    t.send("client's FIN", &stamp(t, fin, t.client_stamps(t.stamp + 4)));
    let fin = t.server("FA").seq(SERVER + 101).ack(CLIENT + 42);
    t.send("server's FIN", &stamp(t, fin, t.server_stamps()));
    let last = t.client("A").seq(CLIENT + 42).ack(t.cookie.wrapping_add(102));
    t.send("last ACK", &last);
}

fn run(v6: bool, options: &str, flags: &str, offer: &[u8], stamped: bool, answer: &[u8]) {
    let rules = proxying(options);
    both(v6, &rules.each_ref().map(String::as_str), |t| {
        handshake(t, flags, offer, stamped, answer);
        talk(t);
    });
}

#[test]
fn a_client_with_everything() {
    for v6 in [false, true] {
        run(v6, ALL, "SEC", &[2, 4, 5, 0xb4, 4, 2, 3, 3, 7], true, &[2, 4, 5, 0xb4, 3, 3, 7]);
    }
}

#[test]
fn offers_and_rules_of_all_kinds() {
    let rules = ["", " --mss 1460", " --sack-perm --wscale 7 --mss 1300", " --timestamp", ALL];
    for (round, offer) in OFFERS.into_iter().enumerate() {
        for (at, options) in rules.into_iter().enumerate() {
            let stamped = (round + at) % 2 == 0;
            let answer = OFFERS[(round + 2 * at) % OFFERS.len()];
            let flags = if at % 2 == 0 { "S" } else { "SEC" };
            run(at % 2 == 1, options, flags, offer, stamped, answer);
        }
    }
}

#[test]
fn what_is_no_handshake() {
    let rules = proxying(ALL);
    both(false, &rules.each_ref().map(String::as_str), |t| {
        // Nobody gave these cookies out.
        assert!(t.send("stray ACK", &t.client("A").ack(77)).is_empty());
        let syn = t.client("S").option(&[2, 4, 5, 0xb4]);
        t.send("SYN", &syn);
        let good = t.cookie.wrapping_add(1);
        for (what, seq, ack) in [
            ("wrong cookie", CLIENT + 1, good.wrapping_add(1 << 20)),
            ("wrong number", CLIENT + 9, good),
        ] {
            assert!(t.send(what, &t.client("A").seq(seq).ack(ack)).is_empty());
        }
        for flags in ["SA", "F", "FA", "R", "RA", "SF", "P", "U"] {
            t.send(flags, &t.client(flags).seq(CLIENT + 1).ack(good));
        }
        let mut broken = syn.build();
        broken.ip[37] ^= 1;
        let out = t.side.send(&broken);
        assert!(out.is_empty(), "{}: wrong checksum", t.side.name());
        assert!(t.table().is_empty());
        // Data with the first ACK is not lost on the way in, but not kept either.
        t.send("ACK with data", &t.client("PA").seq(CLIENT + 1).ack(good).len(10));
        assert_eq!(t.table().len(), 1);
    });
}

#[test]
fn a_server_that_refuses() {
    let rules = proxying(ALL);
    both(false, &rules.each_ref().map(String::as_str), |t| {
        t.send("SYN", &t.client("S").option(&[2, 4, 5, 0xb4]));
        let ack = t.client("A").seq(CLIENT + 1).ack(t.cookie.wrapping_add(1));
        t.send("ACK", &ack);
        let reset = t.server("RA").seq(0);
        assert_eq!(t.send("reset", &reset).len(), 1);
        t.table();
        t.send("ACK after the reset", &ack);
        t.table();
    });
}

/// Its server has not answered, so it shows that it is still there, with the number
/// before the one that it will send next. The kernel judges the cookie by the wrong
/// one of the two, and takes the next larger segment size, or refuses the largest.
#[test]
fn a_client_that_asks_again() {
    let rules = proxying(ALL);
    for (mss, kernels) in [([2, 24], Some([5, 20])), ([5, 180], None)] {
        both(false, &rules.each_ref().map(String::as_str), |t| {
            t.send("SYN", &t.client("S").option(&[2, 4, mss[0], mss[1]]));
            let ack = t.client("A").seq(CLIENT + 1).ack(t.cookie.wrapping_add(1));
            t.send("ACK", &ack);
            let asked = t.side.send(&ack.seq(CLIENT).build());
            let said = asked.first().map(|sent| [sent.frame[56], sent.frame[57]]);
            let expected = if t.side.name() == "kernel" { kernels } else { Some(mss) };
            assert_eq!(said, expected, "{}", t.side.name());
            t.table();
        });
    }
}

/// The server is the router itself: its SYN goes through the loopback interface.
#[test]
fn for_the_machine_itself() {
    let rules = [
        "-t raw -A PREROUTING -i eth0 -p tcp -m tcp --syn -j CT --notrack",
        "-A INPUT -i eth0 -p tcp -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --mss 1300",
        "-A INPUT -m conntrack --ctstate INVALID -j DROP",
    ];
    both(false, &rules, |t| {
        t.server = Host { ip: address(false, 0, 1), port: None, mac: [0; 6] };
        t.send("SYN", &t.client("S").option(&[2, 4, 5, 0xb4]));
        let ack = t.client("A").seq(CLIENT + 1).ack(t.cookie.wrapping_add(1));
        t.send("ACK", &ack);
        assert_eq!(t.side.delivered(), 1, "{}", t.side.name());
        t.table();
    });
}

#[test]
fn through_translation() {
    for nat in [
        "-t nat -A POSTROUTING -o eth2 -j SNAT --to-source 198.18.3.100",
        "-t nat -A OUTPUT -p tcp -m tcp --dport 80 -j DNAT --to-destination 198.18.3.10:8080",
    ] {
        let mut rules = proxying(ALL).to_vec();
        rules.push(nat.to_owned());
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        both(false, &rules, |t| {
            let snat = nat.contains("SNAT");
            t.send("SYN", &t.client("S").option(&[2, 4, 5, 0xb4]));
            let ack = t.client("A").seq(CLIENT + 1).ack(t.cookie.wrapping_add(1));
            t.send("ACK", &ack);
            let to = if snat { "198.18.3.100".parse().unwrap() } else { t.client.ip };
            let from = if snat { 80 } else { 8080 };
            let server = |flags: &str| tcp(t.server, from, to, 4_000).flags(flags).ack(CLIENT + 1);
            let answer = server("SA").seq(SERVER).option(&[2, 4, 5, 0xb4]);
            let data = server("PA").seq(SERVER + 1).len(20);
            t.send("SYN-ACK", &answer);
            t.send("data", &data);
            let up = t.client("PA").seq(CLIENT + 1).ack(t.cookie.wrapping_add(21)).len(5);
            t.send("question", &up);
            t.table();
        });
    }
}
