//! Rules that translate, and the addresses that make flows meet them.

use std::net::IpAddr;

use crate::diff::rng::Rng;
use crate::lab::address;

/// The outside network's host of that number.
pub fn remote(v6: bool, last: u8) -> IpAddr {
    if v6 {
        [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, u16::from(last)].into()
    } else {
        [203, 0, 113, last].into()
    }
}

/// Outside addresses that rules translate to something inside: 100 to 103 one by
/// one, 104 to 107 as a network (106 and 107 are hosts 10 and 11).
pub const VIRTUAL: [u8; 6] = [100, 101, 102, 103, 106, 107];
/// The first outside address of the pools that sources are translated to.
const POOL: u8 = 200;

/// An address with a port or a range, as the targets write it.
fn with_port(address: &str, v6: bool, port: &str) -> String {
    match (port.is_empty(), v6) {
        (true, _) => address.to_owned(),
        (false, true) => format!("[{address}]:{port}"),
        (false, false) => format!("{address}:{port}"),
    }
}

/// Rules of the nat table.
pub fn rules(rng: &mut Rng, v6: bool) -> Vec<String> {
    let mut rules = Vec::new();
    if rng.chance(85) {
        source(rng, v6, &mut rules);
    }
    if rng.chance(75) {
        destination(rng, v6, &mut rules);
    }
    // Counting rules see each connection once.
    rules.push("nat -A POSTROUTING -m conntrack --ctstate NEW".to_owned());
    rules.push("nat -A INPUT -m conntrack --ctstate NEW".to_owned());
    rules
}

fn length(v6: bool, bits: u8) -> u8 {
    if v6 { 128 - bits } else { 32 - bits }
}

fn source(rng: &mut Rng, v6: bool, rules: &mut Vec<String>) {
    let mut rule = |text: String| rules.push(format!("nat -A POSTROUTING {text}"));
    let (own, inside) = (address(v6, 2, 1), address(v6, 0, 0));
    let net = length(v6, if v6 { 64 } else { 8 });
    let pool = |last: u8| remote(v6, POOL + last).to_string();
    let range = format!("{}-{}", pool(0), pool(3));
    let flags = rng.weighted(&[
        (60, ""),
        (12, " --random"),
        (12, " --random-fully"),
        (12, " --persistent"),
    ]);
    let randomly = if flags == " --persistent" { "" } else { flags };
    if rng.chance(40) {
        rule(format!("-s {inside}/{net} -d {inside}/{net} -j MASQUERADE"));
    }
    match rng.below(9) {
        0..2 => rule(format!("-o eth2 -j MASQUERADE{randomly}")),
        2 => {
            for proto in ["tcp", "udp"] {
                rule(format!("-o eth2 -p {proto} -j MASQUERADE --to-ports 30000-30999{randomly}"));
            }
        }
        3 => rule(format!("-o eth2 -j SNAT --to-source {own}{flags}")),
        4 => rule(format!("-s {inside}/{net} -o eth2 -j SNAT --to-source {range}{flags}")),
        5 => {
            for proto in ["tcp", "udp"] {
                let to = with_port(&range, v6, "40000-40999");
                rule(format!("-o eth2 -p {proto} -j SNAT --to-source {to}{flags}"));
            }
        }
        6 => {
            let to = with_port(&pool(1), v6, "5000-5255");
            rule(format!("-o eth2 -p tcp -j SNAT --to-source {to}"));
            rule(format!("-o eth2 -p udp -j SNAT --to-source {}", with_port(&pool(2), v6, "6000")));
        }
        7 => {
            let net = length(v6, 4);
            rule(format!("-s {inside}/{net} -o eth2 -j NETMAP --to {}/{net}", pool(8)));
        }
        _ => {
            rule(format!("-s {} -j SNAT --to-source {}", address(v6, 0, 10), pool(4)));
            rule(format!("-o eth1 -j SNAT --to-source {}{flags}", address(v6, 1, 1)));
        }
    }
    if rng.chance(25) {
        rules.push(format!(
            "nat -A INPUT -p udp -j SNAT --to-source {}",
            with_port(&pool(6), v6, "7000-7999")
        ));
    }
}

fn destination(rng: &mut Rng, v6: bool, rules: &mut Vec<String>) {
    let mut rule = |text: String| rules.push(format!("nat -A PREROUTING {text}"));
    let (web, other) = (address(v6, 0, 10).to_string(), address(v6, 1, 11).to_string());
    let range = format!("{}-{}", address(v6, 0, 10), address(v6, 0, 11));
    let own = address(v6, 2, 1);
    let at = |index: usize| remote(v6, VIRTUAL[index]);
    let randomly = if rng.chance(20) { " --random" } else { "" };
    if rng.chance(70) {
        let to = with_port(&web, v6, rng.pick(&["", "80", "8080", "9000-9003"]));
        rule(format!("-d {} -p tcp -j DNAT --to-destination {to}{randomly}", at(0)));
        rule(format!("-d {own} -p tcp -m tcp --dport 80 -j DNAT --to-destination {to}"));
    }
    if rng.chance(60) {
        let persistent = if rng.chance(40) { " --persistent" } else { "" };
        rule(format!("-d {} -j DNAT --to-destination {range}{persistent}", at(1)));
    }
    if rng.chance(50) {
        rule(format!("-d {} -j DNAT --to-destination {other}", at(2)));
        let to = with_port(&other, v6, "53");
        rule(format!("-d {} -p udp -j DNAT --to-destination {to}", at(3)));
    }
    if rng.chance(50) {
        let net = length(v6, 2);
        let target = address(v6, 1, 8);
        rule(format!("-d {}/{net} -j NETMAP --to {target}/{net}", remote(v6, 104)));
    }
    if rng.chance(40) {
        rule("-i eth0 -p tcp -m tcp --dport 443 -j REDIRECT --to-ports 8443".to_owned());
        rule("-i eth0 -p udp -m udp --dport 53 -j REDIRECT --to-ports 5300-5303".to_owned());
    }
    if rng.chance(30) {
        let to = with_port(&web, v6, "80");
        rules
            .push(format!("nat -A OUTPUT -p tcp -m tcp --dport 443 -j DNAT --to-destination {to}"));
        rules.push(
            "nat -A OUTPUT -p icmp -j ACCEPT"
                .replace("icmp", if v6 { "ipv6-icmp" } else { "icmp" }),
        );
    }
}
