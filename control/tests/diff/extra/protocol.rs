//! Matches on other transports and on IPv6 extension headers, and packets that
//! nearly or just hit them, cut short now and then.

use std::net::IpAddr;

use super::super::packets::{Entry, Packet};
use super::super::rng::Rng;
use super::super::rules::{Place, RulesetText};
use super::super::world::{self, Host, PORT_POOL};
use crate::lab::frames::{self, Ip};
use crate::lab::{self, port_mac};

const SPIS: [u32; 6] = [0, 1, 5, 7, 256, u32::MAX];
const SEGMENT_SIZES: [u16; 6] = [0, 536, 1400, 1459, 1460, 65_535];
const CHUNKS: [(&str, u8); 9] = [
    ("DATA", 0),
    ("INIT", 1),
    ("SACK", 3),
    ("ABORT", 6),
    ("SHUTDOWN_COMPLETE", 14),
    ("I_DATA", 64),
    ("ASCONF_ACK", 128),
    ("FORWARD_TSN", 192),
    ("ASCONF", 193),
];
const DCCP_TYPES: [&str; 11] = [
    "REQUEST", "RESPONSE", "DATA", "ACK", "DATAACK", "CLOSEREQ", "CLOSE", "RESET", "SYNC",
    "SYNCACK", "INVALID",
];

/// A match for the rule: of its protocol, with one, or that needs none.
pub(super) fn matches(rng: &mut Rng, place: &Place<'_>, parts: &[String]) -> Option<String> {
    let named = parts.iter().find(|part| part.contains("-p "));
    match named.map(String::as_str) {
        Some("-p tcp") if rng.chance(60) => Some(tcp_match(rng)),
        Some("-p sctp" | "-p 132") => Some(sctp(rng)),
        None if rng.chance(50) => Some(with_protocol(rng, place.v6)),
        _ => Some(extension(rng, place)),
    }
}

/// Packets for the rules. Fragments would be kept in wait where connections are tracked.
pub(super) fn packets(rng: &mut Rng, ruleset: &RulesetText) -> Vec<Packet> {
    (0..20).map(|_| packet(rng, ruleset.v6, false)).collect()
}

/// One that needs no `-p`.
pub fn extension(rng: &mut Rng, place: &Place<'_>) -> String {
    if !place.v6 {
        return format!("-m ecn {}--ecn-ip-ect {}", not(rng), rng.below(4));
    }
    match rng.below(9) {
        0 => format!("-m ecn {}--ecn-ip-ect {}", not(rng), rng.below(4)),
        1 => ah(rng, true),
        2 if place.inward() => "-m eui64".to_owned(),
        2 | 3 => ipv6_header(rng),
        4 => rt(rng),
        5 => header_options(rng, "hbh"),
        6 => header_options(rng, "dst"),
        7 => frag(rng),
        _ => srh(rng),
    }
}

fn not(rng: &mut Rng) -> &'static str {
    if rng.chance(25) { "! " } else { "" }
}

fn tcp_match(rng: &mut Rng) -> String {
    match rng.below(2) {
        0 => format!("-m tcpmss {}--mss {}", not(rng), range(rng, &SEGMENT_SIZES)),
        _ => ecn(rng),
    }
}

/// A match with the protocol it needs.
pub fn with_protocol(rng: &mut Rng, v6: bool) -> String {
    match rng.below(if v6 { 7 } else { 8 }) {
        0 => format!("-p sctp {}", sctp(rng)),
        1 => format!("-p dccp {}", dccp(rng)),
        2 => format!("-p esp -m esp{}", spi(rng, "--espspi")),
        3 => format!("-p ipcomp -m ipcomp{}", spi(rng, "--ipcompspi")),
        4 | 5 => format!("-p tcp {}", tcp_match(rng)),
        _ if v6 => {
            let kind = rng.pick(&["brr", "bu", "ba", "5:6", "3:", ":2", "255"]);
            format!("-p mh -m mh {}--mh-type {kind}", not(rng))
        }
        _ => format!("-p ah {}", ah(rng, false)),
    }
}

fn range<T: Copy + Ord + std::fmt::Display>(rng: &mut Rng, pool: &[T]) -> String {
    let (a, b) = (rng.pick(pool), rng.pick(pool));
    if a == b || rng.chance(50) { a.to_string() } else { format!("{}:{}", a.min(b), a.max(b)) }
}

/// The whole range is printed as nothing, whatever it means.
fn spi(rng: &mut Rng, option: &str) -> String {
    let range = range(rng, &SPIS);
    if range == "0:4294967295" || rng.chance(10) && option != "--ipcompspi" {
        return if option == "--ipcompspi" { " --ipcompspi 7".to_owned() } else { String::new() };
    }
    format!(" {}{option} {range}", not(rng))
}

fn ah(rng: &mut Rng, v6: bool) -> String {
    let mut part = format!("-m ah{}", spi(rng, "--ahspi"));
    if v6 && rng.chance(30) {
        part += &format!(" {}--ahlen {}", not(rng), rng.pick(&[12, 16, 24, 8]));
    }
    if v6 && rng.chance(30) {
        part += " --ahres";
    }
    part
}

fn sctp(rng: &mut Rng) -> String {
    let mut part = "-m sctp".to_owned();
    for option in ["--sport", "--dport"] {
        if rng.chance(15) {
            part += &format!(" {}{option} {}", not(rng), world::port_range(rng, ':'));
        }
    }
    if rng.chance(85) {
        let scope = rng.pick(&["any", "all", "only"]);
        let mut list: Vec<String> = Vec::new();
        // As they are printed: in the order of their types.
        for (name, _) in CHUNKS {
            if rng.chance(30) {
                let flags = match name {
                    "DATA" => rng.pick(&["", "", ":B", ":b", ":BE", ":IUBE", ":uB", ":e"]),
                    "ABORT" | "SHUTDOWN_COMPLETE" => rng.pick(&["", ":T", ":t"]),
                    _ => "",
                };
                list.push(format!("{name}{flags}"));
            }
        }
        if list.is_empty() {
            list.push(rng.pick(&["ALL", "NONE"]).to_owned());
        }
        part += &format!(" {}--chunk-types {scope} {}", not(rng), list.join(","));
    }
    part
}

fn dccp(rng: &mut Rng) -> String {
    let mut part = "-m dccp".to_owned();
    for option in ["--sport", "--dport"] {
        if rng.chance(15) {
            part += &format!(" {}{option} {}", not(rng), world::port_range(rng, ':'));
        }
    }
    if rng.chance(60) {
        let mut list: Vec<&str> = DCCP_TYPES.into_iter().filter(|_| rng.chance(35)).collect();
        if list.is_empty() {
            list.push(rng.pick(&DCCP_TYPES));
        }
        part += &format!(" {}--dccp-types {}", not(rng), list.join(","));
    }
    if rng.chance(40) {
        part += &format!(" {}--dccp-option {}", not(rng), rng.pick(&[1, 2, 5, 32, 255]));
    }
    part
}

fn ecn(rng: &mut Rng) -> String {
    let mut part = "-m ecn".to_owned();
    for option in ["--ecn-tcp-ece", "--ecn-tcp-cwr"] {
        if rng.chance(60) {
            part += &format!(" {}{option}", not(rng));
        }
    }
    if part == "-m ecn" || rng.chance(30) {
        part += &format!(" {}--ecn-ip-ect {}", not(rng), rng.below(4));
    }
    part
}

fn ipv6_header(rng: &mut Rng) -> String {
    let names = ["hop", "dst", "route", "frag", "auth", "esp", "none", "prot"];
    let mut list: Vec<&str> = names.into_iter().filter(|_| rng.chance(25)).collect();
    if list.is_empty() {
        list.push(rng.pick(&names));
    }
    let soft = if rng.chance(60) { " --soft" } else { "" };
    format!("-m ipv6header {}--header {}{soft}", not(rng), list.join(","))
}

fn segments() -> [IpAddr; 3] {
    [world::router(true, 0), world::router(true, 1), world::hosts(true)[2].address]
}

fn rt(rng: &mut Rng) -> String {
    let mut part = "-m rt".to_owned();
    let kind = rng.pick(&[0, 0, 2, 3, 4, 256]);
    let bang = not(rng);
    let typed = rng.chance(70);
    if typed {
        part += &format!(" {bang}--rt-type {kind}");
    }
    if rng.chance(40) {
        part += &format!(" {}--rt-segsleft {}", not(rng), range(rng, &[0, 1, 2, 255]));
    }
    if rng.chance(30) {
        part += &format!(" {}--rt-len {}", not(rng), rng.pick(&[8, 24, 40, 56, 0]));
    }
    if typed && kind == 0 && bang.is_empty() {
        if rng.chance(25) {
            part += " --rt-0-res";
        }
        if rng.chance(50) {
            let count = 1 + rng.below(3);
            let list: Vec<String> = (0..count).map(|_| rng.pick(&segments()).to_string()).collect();
            let strict = if rng.chance(60) { " --rt-0-not-strict" } else { "" };
            part += &format!(" --rt-0-addrs {}{strict}", list.join(","));
        }
    }
    part
}

fn header_options(rng: &mut Rng, module: &str) -> String {
    let mut part = format!("-m {module}");
    if rng.chance(40) {
        part += &format!(" {}--{module}-len {}", not(rng), rng.pick(&[8, 16, 24, 0]));
    }
    if rng.chance(65) {
        let option = |rng: &mut Rng| rng.pick(&["0", "1", "1:4", "1:2", "1:0", "5:2", "5", "30:1"]);
        let list: Vec<&str> = (0..1 + rng.below(3)).map(|_| option(rng)).collect();
        part += &format!(" --{module}-opts {}", list.join(","));
    }
    part
}

fn frag(rng: &mut Rng) -> String {
    let mut part = "-m frag".to_owned();
    if rng.chance(50) {
        part += &format!(" {}--fragid {}", not(rng), range(rng, &[0, 8, 9, 10, 77]));
    }
    if rng.chance(15) {
        part += &format!(" {}--fraglen 8", not(rng));
    }
    for option in [" --fragres", " --fragfirst"] {
        if rng.chance(25) {
            part += option;
        }
    }
    part + rng.pick(&["", "", " --fragmore", " --fraglast"])
}

fn srh(rng: &mut Rng) -> String {
    let bang = not(rng);
    let how = rng.pick(&["eq", "gt", "lt"]);
    let segment = rng.pick(&segments());
    match rng.below(9) {
        0 => format!("-m srh {bang}--srh-next-hdr {}", rng.pick(&[6, 17, 60])),
        1 => format!("-m srh {bang}--srh-hdr-len-{how} {}", rng.pick(&[2, 4, 6])),
        2 => format!("-m srh {bang}--srh-segs-left-{how} {}", rng.below(3)),
        3 => format!("-m srh {bang}--srh-last-entry-{how} {}", rng.below(3)),
        4 => format!("-m srh {bang}--srh-tag {}", rng.pick(&[0, 1, 256])),
        5 => format!("-m srh {bang}--srh-psid {segment}/{}", rng.pick(&[128, 64, 0])),
        6 => format!("-m srh {bang}--srh-nsid {segment}/{}", rng.pick(&[128, 47, 48])),
        7 => format!("-m srh {bang}--srh-lsid {segment}/{}", rng.pick(&[128, 64])),
        _ => "-m srh".to_owned(),
    }
}

/// A packet of one of the protocols, or with some of the headers.
pub fn packet(rng: &mut Rng, v6: bool, fragments: bool) -> Packet {
    let hosts = world::hosts(v6);
    let mut from: Host = hosts[rng.below(hosts.len())];
    let to = match rng.chance(12) {
        true => world::router(v6, rng.below(lab::PORTS)),
        false => hosts[rng.below(hosts.len())].address,
    };
    if v6 && rng.chance(10) {
        from.address = eui64(rng, from);
    }
    let proto = rng.pick(&[6, 6, 132, 132, 33, 50, 51, 108, 17, if v6 { 135 } else { 51 }, 59]);
    let proto = if v6 && proto == 51 { 6 } else { proto };
    let mut ip = Ip { tos: rng.below(4) as u8, ..Ip::new(from.address, to, proto) };
    ip.frag = 0;
    let mut note = format!("protocol {proto}");
    let mut l4 = transport(rng, proto);
    if v6 {
        headers(rng, &mut ip, &mut note, fragments);
    } else if fragments && rng.chance(15) {
        let offset = rng.pick(&[0, 1, 2, 100]);
        ip.frag = offset | if rng.chance(60) { 0x2000 } else { 0 };
        note += &format!(", fragment at {offset}");
    }
    let length = ip.options.len() + l4.len();
    let mut packet = if rng.chance(30) {
        let keep = if rng.chance(50) {
            rng.below(length + 1)
        } else {
            length - rng.below(length.min(16) + 1)
        };
        note += &format!(", {keep} of {length} bytes");
        if v6 {
            ip.options.truncate(keep);
            l4.truncate(keep - ip.options.len());
            let first = ip.first_extension;
            if ip.options.is_empty() && first != 255 {
                ip.proto = first;
            }
        } else {
            l4.truncate(keep);
        }
        ip.packet(&l4)
    } else {
        ip.packet(&l4)
    };
    if v6 && ip.first_extension != 255 {
        packet[6] = ip.first_extension;
    }
    let bytes = frames::ip_frame(port_mac(from.port), from.mac, &packet);
    Packet { entry: Entry::Port(from.port), bytes, note }
}

/// The host's address as made of its MAC address, or nearly.
fn eui64(rng: &mut Rng, from: Host) -> IpAddr {
    let [a, b, c, d, e, f] = from.mac;
    let a = a ^ rng.pick(&[2, 2, 0]);
    let pair = |high, low| u16::from_be_bytes([high, low]);
    let net = from.port as u16 + 1;
    [0x2001, 0xdb8, net, 0, pair(a, b), pair(c, 0xff), pair(0xfe, d), pair(e, f)].into()
}

fn transport(rng: &mut Rng, proto: u8) -> Vec<u8> {
    let mut l4 = Vec::new();
    match proto {
        6 | 33 | 132 => {
            l4.extend(rng.pick(&PORT_POOL).to_be_bytes());
            l4.extend(rng.pick(&PORT_POOL).to_be_bytes());
        }
        _ => {}
    }
    match proto {
        6 => tcp(rng, &mut l4),
        33 => dccp_packet(rng, &mut l4),
        132 => {
            l4.extend([0, 0, 0, 9, 0, 0, 0, 0]);
            for _ in 0..rng.below(4) {
                let (_, kind) = rng.pick(&CHUNKS);
                let flags = rng.pick(&[0, 1, 2, 3, 7, 15]);
                let size: u16 = rng.weighted(&[(70, 8), (15, 5), (5, 4), (5, 1), (5, 0)]);
                l4.extend([kind, flags, 0, size as u8]);
                l4.resize(l4.len() + usize::from(size.saturating_sub(4).next_multiple_of(4)), 0);
            }
        }
        50 => l4.extend([rng.pick(&SPIS), 1, 9].map(u32::to_be_bytes).concat()),
        51 => {
            l4.extend([17, 2, 0, 0]);
            l4.extend([rng.pick(&SPIS), 1, 9].map(u32::to_be_bytes).concat());
        }
        108 => {
            l4.extend([17, 0]);
            l4.extend((rng.pick(&SPIS) as u16).to_be_bytes());
            l4.extend([0; 8]);
        }
        135 => {
            let next = rng.weighted(&[(90, 59), (10, 6)]);
            l4.extend([next, 1, rng.pick(&[0, 1, 2, 5, 6, 255]), 0, 0, 0]);
            l4.resize(16, 0);
        }
        _ => l4.resize(16, 0x23),
    }
    l4
}

fn tcp(rng: &mut Rng, l4: &mut Vec<u8>) {
    let options: &[u8] = rng.pick(&[
        &[][..],
        &[2, 4, 5, 0xb4],
        &[2, 4, 5, 0x78],
        &[1, 2, 4, 5, 0xb3, 0, 0, 0],
        &[3, 3, 7, 2, 4, 2, 0x18, 0],
        &[8, 2, 2, 4],
        &[2, 3, 5, 0xb4],
        &[2, 4, 0, 0, 2, 4, 5, 0xb4],
        &[5, 0, 2, 4, 5, 0xb4, 0, 2],
        &[1, 1, 1, 2],
        &[4, 9, 2, 4],
    ]);
    let words = (20 + options.len()) / 4;
    let words = rng.weighted(&[(92, words), (3, 4), (3, 15), (2, 0)]);
    let flags = rng.pick(&[2, 2, 0x12, 0x10, 0x42, 0xc2, 0x82, 0xd0]);
    l4.extend([0, 0, 0, 9, 0, 0, 0, 0, (words << 4) as u8, flags, 1, 0, 0, 0, 0, 0]);
    l4.extend(options);
    l4.resize(l4.len() + rng.pick(&[0, 0, 10]), 7);
}

fn dccp_packet(rng: &mut Rng, l4: &mut Vec<u8>) {
    let kind = rng.below(13) as u8;
    let extended = rng.below(2) as u8;
    let more = match kind {
        0 => 4,
        2 => 0,
        3..=6 | 8 | 9 => 8,
        _ => 12,
    };
    let header = 12 + 4 * usize::from(extended) + more;
    let options: &[u8] = rng.pick(&[
        &[][..],
        &[1, 2, 5, 3],
        &[32, 3, 9, 0],
        &[33, 3, 5, 255],
        &[40, 0, 5, 1],
        &[40, 9, 5, 1],
    ]);
    let words = (header + options.len()) / 4;
    let words = rng.weighted(&[(90, words), (4, words.saturating_sub(1)), (3, 2), (3, 60)]);
    l4.extend([words as u8, 0, 0, 0, kind << 1 | extended, 0, 0, 1]);
    l4.resize(header, 0);
    l4.extend(options);
    l4.resize(l4.len() + rng.pick(&[0, 0, 12]), 0);
}

/// Up to three extension headers. `first_extension` stays 255 for none.
fn headers(rng: &mut Rng, ip: &mut Ip, note: &mut String, fragments: bool) {
    let mut kinds: Vec<u8> = Vec::new();
    for _ in 0..rng.weighted(&[(25, 0), (40, 1), (25, 2), (10, 3)]) {
        let kind = rng.pick(&[60, 60, 43, 43, 43, 44, 44, 51]);
        kinds.push(if kind == 44 && !fragments { 60 } else { kind });
    }
    if rng.chance(15) {
        kinds.insert(0, 0);
    }
    ip.first_extension = kinds.first().copied().unwrap_or(255);
    for (index, kind) in kinds.iter().enumerate() {
        let next = kinds.get(index + 1).copied().unwrap_or(ip.proto);
        let header = one_header(rng, *kind, next);
        ip.options.extend(header);
        *note += &format!(", header {kind}");
    }
}

fn one_header(rng: &mut Rng, kind: u8, next: u8) -> Vec<u8> {
    match kind {
        43 => routing(rng, next),
        44 => {
            let offset = rng.weighted(&[(60, 0_u16), (20, 1), (20, 100)]);
            let reserved: u16 = rng.weighted(&[(85, 0), (15, 2)]);
            let word = offset << 3 | reserved | u16::from(rng.chance(50));
            let [high, low] = word.to_be_bytes();
            let odd = rng.weighted(&[(90, 0), (10, 1)]);
            vec![next, odd, high, low, 0, 0, 0, rng.pick(&[8, 9, 10, 77])]
        }
        51 => {
            let mut header = vec![next, 2, 0, rng.weighted(&[(80, 0), (20, 1)])];
            header.extend(rng.pick(&SPIS).to_be_bytes());
            header.extend([0, 0, 0, 1, 9, 9, 9, 9]);
            header[1] = rng.weighted(&[(85, 2), (5, 1), (5, 0), (5, 60)]);
            header
        }
        _ => {
            let options: &[u8] = rng.pick(&[
                &[1, 4, 0, 0, 0, 0][..],
                &[5, 2, 0, 0, 1, 0],
                &[1, 0, 5, 2, 0, 0],
                &[0, 0, 1, 2, 0, 0],
                &[30, 1, 0, 1, 1, 0],
                &[0, 1, 1, 0, 1, 0],
                &[1, 4, 0, 0, 0, 0, 5, 2, 0, 0, 1, 2, 0, 0],
            ]);
            let broken: &[u8] =
                rng.pick(&[&[1, 9, 0, 0, 0, 0], &[1, 2, 0, 0, 1, 40], &[0, 0, 0, 0, 0, 5]]);
            let options = if kind == 60 && rng.chance(15) { broken } else { options };
            let units = (2 + options.len()) / 8 - 1;
            let units = if kind == 60 { rng.weighted(&[(92, units), (8, 30)]) } else { units };
            [&[next, units as u8], options].concat()
        }
    }
}

/// Types 0 and 4 with lists, others with none.
fn routing(rng: &mut Rng, next: u8) -> Vec<u8> {
    let kind = rng.pick(&[0, 0, 4, 4, 4, 2, 3]);
    let count = rng.below(4) as u8;
    let left = if rng.chance(85) { rng.below(usize::from(count).max(1)) as u8 } else { 5 };
    let last = match kind {
        4 => rng.weighted(&[(90, count.saturating_sub(1)), (10, count)]),
        _ => rng.weighted(&[(80, 0), (20, 3)]),
    };
    let tag = rng.pick(&[[0, 0], [0, 1], [1, 0]]);
    let [high, low] = if kind == 4 { tag } else { [0, 0] };
    let mut header = vec![next, count * 2, kind, left, last, 0, high, low];
    for _ in 0..count {
        header.extend(frames::octets(rng.pick(&segments())));
    }
    header
}
