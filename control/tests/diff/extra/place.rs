//! Matches on where a packet is and whose.

use std::net::IpAddr;

use crate::diff::packets::{Entry, Packet};
use crate::diff::rng::Rng;
use crate::diff::rules::{Place, RulesetText};
use crate::diff::world;
use crate::lab::frames::{self, Ip};
use crate::lab::port_mac;

fn not(rng: &mut Rng) -> &'static str {
    if rng.chance(25) { "! " } else { "" }
}

/// One of them.
pub(super) fn extension(rng: &mut Rng, spot: &Place<'_>, _parts: &[String]) -> Option<String> {
    let filters = spot.chain == "PREROUTING" && matches!(spot.table, "raw" | "mangle");
    Some(match rng.below(10) {
        0..5 if filters => reverse_path(rng),
        0..4 if !spot.v6 && ROUTED.contains(&spot.chain) => realm(rng),
        4 if BUILT_IN.contains(&spot.chain) => device_groups(rng, spot.chain),
        0 | 1 => ipsec(rng, spot),
        2 => bridge_ports(rng, spot),
        _ => address_type(rng, spot),
    })
}

/// Where a packet has a route.
const ROUTED: [&str; 4] = ["INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

const BUILT_IN: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Of the lab's ports, mostly.
fn device_groups(rng: &mut Rng, chain: &str) -> String {
    let mut text = "-m devgroup".to_owned();
    let (from, to) = match chain {
        "FORWARD" => rng.pick(&[(true, false), (false, true), (true, true)]),
        "OUTPUT" | "POSTROUTING" => (false, true),
        _ => (true, false),
    };
    for option in [("--src-group", from), ("--dst-group", to)].iter().filter(|it| it.1) {
        let value = rng.pick(&["0", "5", "0x15", "0x5/0xf", "0x10/0x10", "7", "1/0"]);
        text += &format!(" {}{} {value}", not(rng), option.0);
    }
    text
}

/// Of what the lab's routes and rules have, mostly.
fn realm(rng: &mut Rng) -> String {
    let known = ["5", "9", "2", "0", "0x30005", "0x90000", "0x50005", "0x50009", "0x40002"];
    let mask = rng.pick(&["", "/0xffff", "/0xffff0000", "/0xf", "/0xffffffff"]);
    format!("-m realm {}--realm {}{mask}", not(rng), rng.pick(&known))
}

/// Every answer is the same here and there: no packet passes a bridge.
fn bridge_ports(rng: &mut Rng, spot: &Place<'_>) -> String {
    let outward = spot.chain == "OUTPUT" || spot.chain.starts_with('o');
    let options: &[&str] = match outward {
        true => &["in e0", "in +", "is-in", "is-bridged"],
        false => &["in e0", "in +", "is-in", "is-bridged", "out e1", "is-out"],
    };
    let first = rng.below(options.len());
    let mut text = format!("-m physdev {}--physdev-{}", inverted(rng), options[first]);
    let second = rng.below(options.len());
    let word = |at: usize| options[at].split(' ').next();
    if word(first) != word(second) {
        text += &format!(" {}--physdev-{}", inverted(rng), options[second]);
    }
    text
}

/// Mostly: else nothing holds.
fn inverted(rng: &mut Rng) -> &'static str {
    if rng.chance(75) { "! " } else { "" }
}

fn address_type(rng: &mut Rng, spot: &Place<'_>) -> String {
    let (mut text, limit) = ("-m addrtype".to_owned(), limit(rng, spot));
    let sides = rng.weighted(&[(4, &["src"][..]), (5, &["dst"]), (2, &["src", "dst"])]);
    for side in sides {
        let kinds = kinds(rng, spot.v6, limit.is_some());
        text += &format!(" {}--{side}-type {kinds}", not(rng));
    }
    text + limit.unwrap_or_default()
}

fn kinds(rng: &mut Rng, v6: bool, limited: bool) -> String {
    let all: &[&str] = match (v6, limited) {
        (true, true) => &["UNICAST", "LOCAL", "MULTICAST", "UNSPEC"],
        (true, false) => {
            &["UNICAST", "LOCAL", "MULTICAST", "UNSPEC", "ANYCAST", "LOCAL", "UNREACHABLE"]
        }
        (false, _) => &[
            "UNICAST",
            "LOCAL",
            "MULTICAST",
            "BROADCAST",
            "LOCAL",
            "BROADCAST",
            "UNSPEC",
            "ANYCAST",
            "BLACKHOLE",
            "UNREACHABLE",
            "PROHIBIT",
            "THROW",
        ],
    };
    let one = rng.pick(all);
    match rng.pick(all) {
        other if other != one && rng.chance(35) => format!("{one},{other}"),
        _ => one.to_owned(),
    }
}

fn limit(rng: &mut Rng, spot: &Place<'_>) -> Option<&'static str> {
    let choices: &[&str] = match spot.chain {
        "FORWARD" => &[" --limit-iface-in", " --limit-iface-out"],
        "PREROUTING" | "INPUT" => &[" --limit-iface-in"],
        "OUTPUT" | "POSTROUTING" => &[" --limit-iface-out"],
        chain if chain.starts_with('o') => &[" --limit-iface-out"],
        _ => &[" --limit-iface-in"],
    };
    rng.chance(30).then(|| rng.pick(choices))
}

fn reverse_path(rng: &mut Rng) -> String {
    let mut text = "-m rpfilter".to_owned();
    for option in ["loose", "validmark", "accept-local", "invert"] {
        if rng.chance(40) {
            text += &format!(" --{option}");
        }
    }
    text
}

fn ipsec(rng: &mut Rng, spot: &Place<'_>) -> String {
    let directions: &[&str] = match spot.chain {
        "FORWARD" => &["in", "out"],
        "OUTPUT" | "POSTROUTING" => &["out"],
        chain if chain.starts_with('o') => &["out"],
        _ => &["in"],
    };
    let policy = rng.pick(&[
        "none",
        "none",
        "ipsec",
        "ipsec --reqid 7",
        "ipsec --strict --spi 0x100 --next --proto ah --mode transport",
    ]);
    format!("-m policy --dir {} --pol {policy}", rng.pick(directions))
}

/// From and to networks with special routes, and from addresses that are somewhere else.
pub(super) fn packets(rng: &mut Rng, rules: &RulesetText) -> Vec<Packet> {
    let text = rules.text();
    if !["addrtype", "rpfilter", "realm"].iter().any(|name| text.contains(name)) {
        return Vec::new();
    }
    (0..4 + rng.below(12)).map(|_| packet(rng, rules.v6)).collect()
}

fn packet(rng: &mut Rng, v6: bool) -> Packet {
    let hosts = world::hosts(v6);
    let (from, to) = (hosts[rng.below(hosts.len())], hosts[rng.below(hosts.len())]);
    let last = rng.pick(&[0, 9]);
    let src: IpAddr = match rng.below(7) {
        0 => world::nowhere(v6),
        1 => to.address,
        2 if !v6 => [198, 18, 1 + rng.below(3) as u8, 255].into(),
        3 if v6 => world::special(true, 3, last),
        _ => world::special(v6, rng.below(3), last),
    };
    let dst = match rng.below(9) {
        // Errors about the others are limited by source.
        0 => world::special(v6, 0, 5),
        1 if v6 => world::special(true, 1 + rng.below(2), last),
        2 => world::router(v6, rng.below(3)),
        3 if !v6 => [198, 18, from.port as u8 + 1, 255].into(),
        _ => to.address,
    };
    let mut ip = Ip::new(src, dst, 17);
    ip.ttl = rng.pick(&[64, 64, 64, 1]);
    let note = format!("udp ttl {} {src} > {dst}", ip.ttl);
    let packet = ip.packet(&frames::udp(&ip, 1_000, rng.pick(&world::PORT_POOL), 8));
    let bytes = frames::ip_frame(port_mac(from.port), from.mac, &packet);
    Packet { entry: Entry::Port(from.port), bytes, note }
}
