//! The kernel and the engine side by side, behind the same nat rules.
//!
//! What both choose at random may differ: a step can name such a number (a port,
//! an identifier), and from then on each side's own value stands for the name.

#![allow(unreachable_pub, reason = "a part of a test binary")]

use std::fmt::Write as _;
use std::net::IpAddr;

use dataplane::clock::Nanos;
use dataplane::conntrack::Row;
use dataplane::packet::{Family, Mac, PortId};
use dataplane::wire::build::Packet;
use dataplane::wire::{Frame, checksum, parse, proto};
use portcullis::iptables::{self, TableNames};
use portcullis::replay::topology::TopologyFile;
use portcullis::replay::{Replay, Setup, Source};

use crate::lab::clock::{self, Clock};
use crate::lab::{self, Lab, address, host_mac, mac_text, port_mac};

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// A host (10, 11 or 254) behind a port.
    Host(usize, u8),
    /// The router itself.
    Router,
}

/// A number of a packet that has left, to be given a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Source port.
    Sport,
    /// Destination port.
    Dport,
    /// ICMP identifier.
    Id,
}

/// What came out of one side, with names for numbers.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    sent: Vec<(usize, Vec<u8>)>,
    delivered: u64,
    table: Vec<String>,
}

/// Both sides.
pub struct Twins {
    pub kernel: Lab,
    pub ours: Replay,
    pub v6: bool,
    clock: Clock,
    skipped: Nanos,
    /// The numbers that have names, by side.
    names: [Vec<u16>; 2],
    delivered: u64,
    story: String,
    pub packets: usize,
}

impl Twins {
    /// Both behind `rules` of one family.
    pub fn new(v6: bool, rules: &str) -> Self {
        Self::with(v6, rules, |_| {}, topology())
    }

    /// The same, with ports that have an MTU of 1400 where `narrow` says so.
    pub fn narrow(v6: bool, rules: &str, narrow: &[usize]) -> Self {
        let mut text = topology();
        for port in narrow {
            let name = format!("name = \"eth{port}\"\n");
            text = text.replace(&name, &format!("{name}mtu = 1400\n"));
        }
        let shrink = |kernel: &Lab| {
            for port in narrow {
                let args = ["link", "set", &format!("eth{port}"), "mtu", "1400"];
                kernel.router().run("ip", &args, "").unwrap();
            }
        };
        Self::with(v6, rules, shrink, text)
    }

    /// The same, with more addresses on eth1 and a network behind one of them. IPv6
    /// addresses are listed as the kernel does.
    pub fn with_addresses(v6: bool, rules: &str) -> Self {
        let (more, network, hop) = match v6 {
            false => (["10.9.9.1/24", "198.18.2.9/24"], "10.77.0.0/16", "10.9.9.254"),
            true => (["2001:db8:77::1/64", "fe80::77/64"], "2001:db8:78::/48", "2001:db8:77::fe"),
        };
        let mac = mac_text(host_mac(1, 254));
        let mut text = topology();
        text += &format!("[[route]]\nto = \"{network}\"\nvia = \"{hop}\"\ndev = \"eth1\"\n");
        text += &format!("[[neighbour]]\ndev = \"eth1\"\naddress = \"{hop}\"\nmac = \"{mac}\"\n");
        let own = address(v6, 1, 1);
        let (last, first) = match v6 {
            false => (format!("{own}/24"), format!("\", \"{}\", \"{}", more[0], more[1])),
            true => (format!("{own}/64"), format!("\", \"{}", more[1])),
        };
        text = text.replace(&last, &format!("{last}{first}"));
        if v6 {
            text = text.replace(&last, &format!("{}\", \"{last}", more[0]));
        }
        let prepare = |kernel: &Lab| {
            let run = |line: &str| {
                let words: Vec<&str> = line.split(' ').collect();
                kernel.router().run("ip", &words, "").unwrap();
            };
            for address in more {
                let nodad = if v6 { " nodad" } else { "" };
                run(&format!("addr add {address} dev eth1{nodad}"));
            }
            run(&format!("neigh replace {hop} lladdr {mac} dev eth1 nud permanent"));
            run(&format!("route add {network} via {hop} dev eth1"));
            clock::pause_ms(50);
            drop(kernel.drain());
        };
        Self::with(v6, rules, prepare, text)
    }

    fn with(v6: bool, rules: &str, prepare: impl Fn(&Lab), topology: String) -> Self {
        let kernel = Lab::new();
        prepare(&kernel);
        kernel.restore(v6, rules).unwrap_or_else(|why| panic!("{why}\n{rules}"));
        let file = TopologyFile::parse(std::path::Path::new("topology"), &topology).unwrap();
        let mut setup = Setup::new(file.topology, 1);
        setup.icmp = file.icmp;
        setup.conntrack.set("max", 4096).unwrap();
        let mut ours = Replay::new(setup).unwrap();
        ours.install(read(v6, rules)).unwrap();
        let delivered = kernel.delivered();
        Self {
            kernel,
            ours,
            v6,
            clock: Clock::start(),
            skipped: Nanos::from_secs(1000),
            names: [Vec::new(), Vec::new()],
            delivered,
            story: String::new(),
            packets: 0,
        }
    }

    /// An address of this family on a port's network; host 1 is the router.
    pub fn at(&self, port: usize, host: u8) -> String {
        address(self.v6, port, host).to_string()
    }

    /// Other rules on both sides.
    pub fn install(&mut self, rules: &str) {
        self.kernel.restore(self.v6, rules).unwrap();
        self.ours.install(read(self.v6, rules)).unwrap();
        writeln!(self.story, "rules: {rules}").unwrap();
    }

    fn now(&self) -> Nanos {
        Nanos(self.clock.now_ns()) + self.skipped
    }

    /// A packet in which nothing has a name.
    #[track_caller]
    pub fn send(&mut self, from: From, packet: Packet) -> usize {
        self.play(from, None, &|_| packet.clone())
    }

    /// A packet made of named numbers.
    #[track_caller]
    pub fn send_with(&mut self, from: From, make: &dyn Fn(&[u16]) -> Packet) -> usize {
        self.play(from, None, make)
    }

    /// A packet of which a field, as it leaves, gets the next name.
    #[track_caller]
    pub fn send_naming(&mut self, from: From, field: Field, packet: Packet) -> [u16; 2] {
        self.play(from, Some(field), &|_| packet.clone());
        self.names.each_ref().map(|names| *names.last().unwrap())
    }

    /// Sends through both and compares all that came of it; the number of frames.
    #[track_caller]
    fn play(&mut self, from: From, name: Option<Field>, make: &dyn Fn(&[u16]) -> Packet) -> usize {
        let frames = [0, 1].map(|side| framed(from, make(&self.names[side])));
        let theirs = match from {
            From::Host(port, _) => self.kernel.inject(port, &frames[0]),
            From::Router => self.kernel.emit(self.v6, &frames[0][14..]),
        };
        // Who is not known as a neighbour is asked for by the kernel itself.
        let asks = |frame: &[u8]| frame[12..14] == [8, 6] || frame.get(54) == Some(&135);
        let theirs = theirs.into_iter().map(|sent| (sent.port, sent.frame));
        let theirs: Vec<_> = theirs.filter(|(_, frame)| !asks(frame)).collect();
        let source = match from {
            From::Host(port, _) => Source::Port(PortId(port as u8)),
            From::Router => Source::Host,
        };
        let fed = self.ours.feed(source, self.now(), &frames[1]);
        let ours: Vec<_> =
            fed.sent.into_iter().map(|sent| (sent.port.index(), sent.frame)).collect();
        writeln!(self.story, "{from:?} {}", describe(&frames[0])).unwrap();
        if let Some(field) = name {
            for (side, sent) in [&theirs, &ours].into_iter().enumerate() {
                let value = sent.first().map(|(_, frame)| read_field(frame, field));
                let value =
                    value.unwrap_or_else(|| panic!("side {side} sent nothing\n{}", self.story));
                self.names[side].push(value);
            }
        }
        let all = self.kernel.delivered();
        let kernel = self.seen(0, theirs, all - self.delivered, self.kernel_table());
        let own = self.seen(1, ours, fed.delivered.len() as u64, self.own_table());
        self.delivered = all;
        self.packets += 1;
        assert!(
            kernel == own,
            "{}\nkernel: {}\nours ({:?}): {}",
            self.story,
            show(&kernel),
            fed.reason,
            show(&own)
        );
        kernel.sent.len()
    }

    fn seen(
        &self,
        side: usize,
        sent: Vec<(usize, Vec<u8>)>,
        delivered: u64,
        table: Vec<String>,
    ) -> Seen {
        let names = &self.names[side];
        let mut sent: Vec<_> =
            sent.into_iter().map(|(port, frame)| (port, masked(frame, names))).collect();
        sent.sort();
        let mut table: Vec<_> = table.iter().map(|line| named(line, names)).collect();
        table.sort();
        Seen { sent, delivered, table }
    }

    fn kernel_table(&self) -> Vec<String> {
        self.kernel.conntrack().iter().map(|line| words(line.split_whitespace().skip(2))).collect()
    }

    fn own_table(&self) -> Vec<String> {
        let family = if self.v6 { Family::V6 } else { Family::V4 };
        let rows: Vec<Row> = self.ours.connections(family);
        rows.iter().map(|row| words(row.to_string().split_whitespace())).collect()
    }

    /// Compares the tables when something else than a packet has changed them.
    #[track_caller]
    pub fn compare_tables(&mut self) {
        let kernel = self.seen(0, Vec::new(), 0, self.kernel_table());
        let ours = self.seen(1, Vec::new(), 0, self.own_table());
        assert!(kernel == ours, "{}\n{}\n{}", self.story, show(&kernel), show(&ours));
    }

    /// Starts over with empty tables.
    pub fn flush(&mut self) {
        self.kernel.flush_conntrack();
        let table = self.ours.conntrack();
        let ids: Vec<_> = table.rows(Nanos(0)).map(|row| row.view.id).collect();
        ids.into_iter().for_each(|id| assert!(table.remove(id)));
        self.names = [Vec::new(), Vec::new()];
        self.story.clear();
    }
}

fn read(v6: bool, rules: &str) -> portcullis::model::Ruleset {
    let family = if v6 { Family::V6 } else { Family::V4 };
    let parsed = iptables::parse(rules, "rules", family, &TableNames::well_known());
    parsed.unwrap_or_else(|why| panic!("{why:?}")).ruleset
}

fn framed(from: From, packet: Packet) -> Vec<u8> {
    match from {
        From::Host(port, host) => packet.macs(Mac(host_mac(port, host)), Mac(port_mac(port))),
        From::Router => packet,
    }
    .build()
}

/// The lab's router, as replay reads it.
fn topology() -> String {
    let mut text = String::from("mode = \"routed\"\n");
    text += "[icmp]\nicmp_ratelimit = 0\nicmp_msgs_per_sec = 0\nicmpv6_ratelimit = 0\n";
    for port in 0..lab::PORTS {
        let (v4, v6) = (address(false, port, 1), address(true, port, 1));
        let mac = mac_text(port_mac(port));
        text += &format!(
            "[[port]]\nname = \"eth{port}\"\nmac = \"{mac}\"\naddresses = [\"{v4}/24\", \"{v6}/64\"]\n"
        );
    }
    for (to, via) in lab::REMOTE {
        text += &format!("[[route]]\nto = \"{to}\"\nvia = \"{via}\"\ndev = \"eth2\"\n");
    }
    for (port, host) in (0..lab::PORTS).flat_map(|port| lab::NEIGHBOURS.map(|host| (port, host))) {
        for v6 in [false, true] {
            let (ip, mac) = (address(v6, port, host), mac_text(host_mac(port, host)));
            text += &format!(
                "[[neighbour]]\ndev = \"eth{port}\"\naddress = \"{ip}\"\nmac = \"{mac}\"\n"
            );
        }
    }
    text
}

/// A conntrack line without timeout, SCTP's state and the kernel's own remarks.
fn words<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let own = ["use=", "zone=0", "timeout=", "stream_timeout=", "CLOSED", "NONE"];
    let kept = words
        .enumerate()
        .filter(|&(at, word)| at != 2 && !own.iter().any(|own| word.starts_with(own)));
    let kept: Vec<String> = kept
        .map(|(_, word)| match word.split_once('=') {
            Some((key, value)) if value.contains(':') => {
                format!("{key}={}", value.parse::<IpAddr>().unwrap())
            }
            _ => word.to_owned(),
        })
        .collect();
    kept.join(" ")
}

fn named(line: &str, names: &[u16]) -> String {
    let word = |word: &str| match word.split_once('=') {
        Some((key @ ("sport" | "dport" | "id"), value)) => {
            let at = names.iter().position(|name| *value == name.to_string());
            at.map_or(word.to_owned(), |at| format!("{key}=#{at}"))
        }
        _ => word.to_owned(),
    };
    line.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Offset of layer 4 and its protocol.
fn layer4(frame: &[u8]) -> (usize, u8) {
    let parsed = parse(frame, Mac([0; 6]));
    let Ok(Frame::Ip(parsed)) = parsed else { panic!("no IP packet: {frame:02x?}") };
    (parsed.l4.into(), parsed.proto)
}

fn half(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

fn read_field(frame: &[u8], field: Field) -> u16 {
    let (l4, _) = layer4(frame);
    half(
        frame,
        l4 + match field {
            Field::Sport => 0,
            Field::Dport => 2,
            Field::Id => 4,
        },
    )
}

/// The frame with names for numbers, and without what depends on them; and
/// without the identification of the router's own packets.
fn masked(mut frame: Vec<u8>, names: &[u16]) -> Vec<u8> {
    let Ok(Frame::Ip(parsed)) = parse(&frame, Mac([0; 6])) else { return frame };
    let (l4, protocol) = (usize::from(parsed.l4), parsed.proto);
    let error = matches!((protocol, frame.get(l4)), (proto::ICMP, Some(3 | 4 | 5 | 11 | 12)))
        || protocol == proto::ICMPV6 && frame.get(l4).is_some_and(|&kind| kind < 128);
    if error && parsed.family == Family::V4 && parsed.ttl == 64 {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    // The kernel draws a new identification for IPv6 fragments.
    if parsed.family == Family::V6 && frame[20] == proto::FRAGMENT {
        frame[58..62].fill(0);
    }
    let whole = parsed.fragment == dataplane::packet::Fragment::Whole;
    let sound = whole && checksum::transport_ok(&frame, &parsed);
    let mut changed = mask_at(&mut frame, l4, protocol, names);
    if error {
        let inner = l4 + 8;
        let (at, protocol) = match parsed.family {
            Family::V4 => (inner + usize::from(frame[inner] & 15) * 4, frame[inner + 9]),
            Family::V6 => (inner + 40, frame[inner + 6]),
        };
        if mask_at(&mut frame, at, protocol, names) {
            frame[l4 + 2..l4 + 4].fill(0);
            changed = true;
        }
    }
    if changed {
        assert!(sound, "a wrong checksum: {frame:02x?}");
    }
    frame
}

fn mask_at(frame: &mut [u8], l4: usize, protocol: u8, names: &[u16]) -> bool {
    let (fields, check): (&[usize], usize) = match protocol {
        proto::TCP => (&[0, 2], 16),
        proto::UDP => (&[0, 2], 6),
        proto::ICMP | proto::ICMPV6 => (&[4], 2),
        _ => return false,
    };
    let mut changed = false;
    for &field in fields {
        let Some(bytes) = frame.get_mut(l4 + field..l4 + field + 2) else { continue };
        let value = u16::from_be_bytes([bytes[0], bytes[1]]);
        if let Some(at) = names.iter().position(|&name| name == value) {
            bytes.copy_from_slice(&(0xfff0 + at as u16).to_be_bytes());
            changed = true;
        }
    }
    if changed && let Some(check) = frame.get_mut(l4 + check..l4 + check + 2) {
        check.fill(0);
    }
    changed
}

fn describe(frame: &[u8]) -> String {
    let Ok(Frame::Ip(parsed)) = parse(frame, Mac([0; 6])) else { return String::new() };
    let text = |bits: u128| match parsed.family {
        Family::V4 => IpAddr::from((bits as u32).to_be_bytes()),
        Family::V6 => IpAddr::from(bits.to_be_bytes()),
    };
    format!(
        "proto {} {}:{} > {}:{} ttl {} length {}",
        parsed.proto,
        text(parsed.src),
        parsed.sport,
        text(parsed.dst),
        parsed.dport,
        parsed.ttl,
        parsed.l3_len
    )
}

fn show(seen: &Seen) -> String {
    let mut text = format!("delivered {}\n", seen.delivered);
    for (port, frame) in &seen.sent {
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "  eth{port} {}\n    {hex}", describe(frame)).unwrap();
    }
    for line in &seen.table {
        writeln!(text, "  {line}").unwrap();
    }
    text
}
