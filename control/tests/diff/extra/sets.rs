//! `set` and SET, over sets that every case finds with the same elements. None has a
//! timeout at the beginning: a replay counts those from its own beginning.

use std::fmt::Write as _;

use crate::diff::rng::Rng;
use crate::diff::rules::Place;
use crate::lab;

/// Sets by family (`x`: both): name, type with options, dimensions.
const SETS: &[(char, &str, &str, usize)] = &[
    ('4', "net4", "hash:net counters", 1),
    ('4', "ip4", "hash:ip timeout 0 counters", 1),
    ('4', "ipport4", "hash:ip,port counters", 2),
    ('4', "netport4", "hash:net,port", 2),
    ('4', "ipportip4", "hash:ip,port,ip", 3),
    ('4', "ipportnet4", "hash:ip,port,net", 3),
    ('4', "netiface4", "hash:net,iface", 2),
    ('4', "bitmap4", "bitmap:ip range 198.18.1.0-198.18.3.255 counters", 1),
    ('4', "mark4", "hash:ip skbinfo", 1),
    ('6', "net6", "hash:net family inet6 counters", 1),
    ('6', "ip6", "hash:ip family inet6 timeout 0 counters", 1),
    ('6', "ipport6", "hash:ip,port family inet6 counters", 2),
    ('6', "netport6", "hash:net,port family inet6", 2),
    ('6', "ipportip6", "hash:ip,port,ip family inet6", 3),
    ('6', "mark6", "hash:ip family inet6 skbinfo", 1),
    ('x', "ports", "bitmap:port range 0-1024 counters", 1),
    ('x', "all", "list:set", 1),
];

/// Whether the rules name a set.
pub fn are_named(rules: &str) -> bool {
    ["--match-set ", "--add-set ", "--del-set ", "--map-set "].iter().any(|way| rules.contains(way))
}

/// The sets and what they hold, as `ipset restore` reads it. `again`: those of the same
/// name are there, with other elements.
pub fn text(again: bool) -> String {
    let mut text = String::new();
    for (_, name, kind, _) in SETS {
        writeln!(text, "create {name} {kind}{}", if again { " -exist" } else { "" })
            .expect("writing to a string");
        if again {
            writeln!(text, "flush {name}").expect("writing to a string");
        }
    }
    for (family, v6) in [('4', false), ('6', true)] {
        let host = |port, last| lab::address(v6, port, last);
        let (wide, near, far) = match v6 {
            false => ("198.18.1.0/24", "198.18.2.0/29", "203.0.113.0/30"),
            true => ("2001:db8:1::/64", "2001:db8:2::/125", "2001:db8:ffff::/48"),
        };
        let (a, b, c, d) = (host(0, 10), host(1, 10), host(1, 11), host(2, 11));
        let mut lines = vec![
            format!("net# {wide}"),
            format!("net# {} nomatch", host(0, 11)),
            format!("net# {far}"),
            format!("ip# {a}"),
            format!("ip# {c}"),
            format!("ip# {d} packets 3 bytes 200"),
            format!("ipport# {a},tcp:80"),
            format!("ipport# {b},udp:53"),
            format!("ipport# {c},tcp:22 packets 7 bytes 70"),
            format!("netport# {wide},tcp:443"),
            format!("netport# {near},udp:53"),
            format!("ipportip# {a},tcp:80,{b}"),
            format!("ipportip# {b},udp:53,{a}"),
            format!("mark# {a} skbmark 0x11/0xff"),
            format!("mark# {b} skbmark 0x2"),
        ];
        if !v6 {
            lines.extend([
                format!("netiface# {wide},eth0"),
                format!("netiface# {far},eth2"),
                format!("netiface# {near},eth1 nomatch"),
                format!("ipportnet# {a},tcp:80,{near}"),
                format!("bitmap# {a} packets 0 bytes 0"),
                format!("bitmap# {d} packets 0 bytes 0"),
            ]);
        }
        for line in lines {
            writeln!(text, "add {}", line.replacen('#', &family.to_string(), 1)).expect("string");
        }
    }
    // Flushing leaves the counters of a bitmap to whoever adds the same again.
    for (port, count) in [(80, 0), (53, 0), (443, 2)] {
        writeln!(text, "add ports {port} packets {count} bytes {}", count * 50).expect("string");
    }
    for member in ["ip4", "net4", "ip6", "net6"] {
        writeln!(text, "add all {member}").expect("writing to a string");
    }
    text
}

/// The elements as `ipset save` tells them, without the seconds that are left.
pub fn elements(saved: &str) -> Vec<String> {
    let adds = saved.lines().filter(|line| line.starts_with("add "));
    let mut all: Vec<String> = adds
        .map(|line| {
            let mut words: Vec<&str> = line.split_whitespace().collect();
            if let Some(at) = words.iter().position(|&word| word == "timeout") {
                words.drain(at..at + 2);
            }
            words.join(" ")
        })
        .collect();
    all.sort();
    all
}

fn one(rng: &mut Rng, v6: bool) -> (&'static str, &'static str, usize) {
    let own = if v6 { '6' } else { '4' };
    let usable: Vec<_> =
        SETS.iter().filter(|(family, ..)| *family == own || *family == 'x').collect();
    let (_, name, kind, dimensions) = usable[rng.below(usable.len())];
    (name, kind, *dimensions)
}

fn sides(rng: &mut Rng, dimensions: usize) -> String {
    let sides: Vec<&str> = (0..dimensions).map(|_| rng.pick(&["src", "dst"])).collect();
    sides.join(",")
}

/// `-m set`.
pub fn extension(rng: &mut Rng, place: &Place<'_>, _parts: &[String]) -> Option<String> {
    let (name, kind, dimensions) = one(rng, place.v6);
    let bang = if rng.chance(20) { "! " } else { "" };
    let mut text = format!("-m set {bang}--match-set {name} {}", sides(rng, dimensions));
    if bang.is_empty() && kind.contains("net") && rng.chance(30) {
        text += " --return-nomatch";
    }
    if kind.contains("counters") {
        if rng.chance(30) {
            text += " ! --update-counters";
        }
        if bang.is_empty() && rng.chance(40) {
            let test = rng.pick(&["packets-gt 2", "packets-lt 4", "packets-eq 0", "bytes-gt 100"]);
            text += &format!(" --{test}");
        }
    }
    if name == "all" && rng.chance(40) {
        text += " ! --update-subcounters";
    }
    Some(text)
}

/// `-j SET`.
pub fn target(rng: &mut Rng, place: &Place<'_>, _parts: &[String]) -> Option<String> {
    let (name, kind, dimensions) = one(rng, place.v6);
    let sides = sides(rng, dimensions);
    if name.starts_with("mark") && place.table == "mangle" && rng.chance(60) {
        return Some(format!("-j SET --map-set {name} {sides} --map-mark"));
    }
    if rng.chance(30) {
        return Some(format!("-j SET --del-set {name} {sides}"));
    }
    let mut text = format!("-j SET --add-set {name} {sides}");
    if rng.chance(40) {
        text += " --exist";
    }
    if kind.contains("timeout") && rng.chance(40) {
        text += " --timeout 700";
    }
    Some(text)
}
