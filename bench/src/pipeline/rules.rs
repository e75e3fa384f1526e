//! Policies as text, and flows that meet their rules.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use classifier::{Address, Rule};
use dataplane::packet::Family;

use super::frames::{Flow, TCP, UDP};
use super::world::{CLIENTS, SERVERS};
use crate::sets::{self, Rng};

/// Bits of a client's and of a server's number.
const CLIENT_BITS: u32 = 24;
const SERVER_BITS: u32 = 16;

/// How generated rules hang together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Shape {
    /// All in FORWARD.
    Flat,
    /// In chains of some two hundred, by the server's network.
    Tree,
}

/// What is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Nat {
    /// The client's address and port.
    Snat,
    /// The server's address.
    Dnat,
}

impl Nat {
    /// First and last address of the translation.
    fn pool(self, family: Family) -> (u128, u128) {
        let v4 = |a, b, c, d| u128::from(Ipv4Addr::new(a, b, c, d).to_bits());
        let v6 = |net: u128| {
            (0x2001_0db8 << 96 | net << 80 | 0x100, 0x2001_0db8 << 96 | net << 80 | 0x1ff)
        };
        match (self, family) {
            (Self::Snat, Family::V4) => (v4(203, 0, 113, 10), v4(203, 0, 113, 250)),
            (Self::Dnat, Family::V4) => (v4(198, 51, 100, 1), v4(198, 51, 100, 200)),
            (Self::Snat, Family::V6) => v6(0xbbbb),
            (Self::Dnat, Family::V6) => v6(0xcccc),
        }
    }

    /// Whether a packet with the ends `before` may have left with the ends `after`.
    pub(super) fn allows(nat: Option<Self>, before: &Flow, after: &Flow) -> bool {
        let inside = |address, nat: Self| {
            let (low, high) = nat.pool(before.family);
            (low..=high).contains(&address)
        };
        match nat {
            None => before == after,
            Some(nat @ Self::Snat) => {
                let Flow { src, sport, .. } = *after;
                inside(src, nat) && *after == Flow { src, sport, ..*before }
            }
            Some(nat @ Self::Dnat) => {
                inside(after.dst, nat) && *after == Flow { dst: after.dst, ..*before }
            }
        }
    }
}

/// A generated rule, in numbers of clients and servers.
#[derive(Clone, Copy, Debug)]
struct Plan {
    client: (u32, u32),
    server: (u32, u32),
    proto: u8,
    dport: (u16, u16),
}

/// Rules as gateways have them, stateful.
#[derive(Debug)]
pub(super) struct Generated {
    plans: Vec<Plan>,
    family: Family,
}

impl Generated {
    /// So many rules.
    pub(super) fn new(count: usize, family: Family, seed: u64) -> Self {
        let mut rng = Rng(seed);
        let plan = |rng: &mut Rng| {
            let net = |rng: &mut Rng, bits: u32, lens: &[u32]| {
                let free = *rng.pick(lens);
                let number = rng.bits() as u32 & ((1 << bits) - 1);
                (number >> free << free, bits - free)
            };
            let client = net(rng, CLIENT_BITS, &[0, 0, 4, 8, 8, 8, 12, 16, 24]);
            let server = net(rng, SERVER_BITS, &[0, 0, 0, 0, 0, 2, 4, 8]);
            let exact = |port: u16| (port, port);
            let dport = match rng.below(8) {
                0 => (1024, u16::MAX),
                1 => {
                    let low = rng.bits() as u16 / 2;
                    (low, low + 100)
                }
                2..5 => exact(rng.bits() as u16),
                _ => exact(*rng.pick(&[22, 25, 53, 80, 123, 443, 993, 3306, 8080])),
            };
            Plan { client, server, proto: *rng.pick(&[TCP, TCP, UDP]), dport }
        };
        Self { plans: (0..count).map(|_| plan(&mut rng)).collect(), family }
    }

    /// The filter table: what is known passes, then the rules, then all that clients
    /// begin; and the nat table.
    pub(super) fn text(&self, shape: Shape, nat: Option<Nat>) -> String {
        let mut text =
            "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n".to_owned();
        let mut rules = String::new();
        for state in ["RELATED,ESTABLISHED -j ACCEPT", "INVALID -j DROP"] {
            line(&mut rules, format_args!("-A FORWARD -m conntrack --ctstate {state}"));
        }
        match shape {
            Shape::Flat => {
                self.plans.iter().for_each(|plan| self.rule(&mut rules, "FORWARD", plan))
            }
            Shape::Tree => {
                // Chains by the upper bits of the server's number.
                let bits = (self.plans.len() / 200).max(1).ilog2().min(8);
                let of = |plan: &Plan| plan.server.0 >> (SERVER_BITS - bits);
                for chain in 0..1_u32 << bits {
                    line(&mut text, format_args!(":net-{chain} - [0:0]"));
                    let net = (chain << (SERVER_BITS - bits), bits);
                    let net = prefix(self.family, SERVERS, SERVER_BITS, net);
                    line(&mut rules, format_args!("-A FORWARD -d {net} -j net-{chain}"));
                    let name = format!("net-{chain}");
                    let inside = self.plans.iter().filter(|plan| of(plan) == chain);
                    inside.for_each(|plan| self.rule(&mut rules, &name, plan));
                }
            }
        }
        line(&mut rules, format_args!("-A FORWARD -i g0 -o g1 -j ACCEPT"));
        text.push_str(&rules);
        text.push_str("COMMIT\n");
        if let Some(nat) = nat {
            let (low, high) = nat.pool(self.family);
            let (low, high) = (written(self.family, low), written(self.family, high));
            text.push_str("*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n");
            match nat {
                Nat::Snat => line(
                    &mut text,
                    format_args!("-A POSTROUTING -o g1 -j SNAT --to-source {low}-{high}"),
                ),
                Nat::Dnat => line(
                    &mut text,
                    format_args!("-A PREROUTING -i g0 -j DNAT --to-destination {low}-{high}"),
                ),
            }
            text.push_str("COMMIT\n");
        }
        text
    }

    fn rule(&self, text: &mut String, chain: &str, plan: &Plan) {
        let client = prefix(self.family, CLIENTS, CLIENT_BITS, plan.client);
        let server = prefix(self.family, SERVERS, SERVER_BITS, plan.server);
        let proto = if plan.proto == TCP { "tcp" } else { "udp" };
        let ports = match plan.dport {
            (low, high) if low == high => low.to_string(),
            (low, high) => format!("{low}:{high}"),
        };
        line(
            text,
            format_args!(
                "-A {chain} -s {client} -d {server} -p {proto} -m {proto} --dport {ports} -j ACCEPT"
            ),
        );
    }

    /// A flow of a client: one that meets a rule (if any rule has the protocol), or any.
    pub(super) fn flow(&self, rng: &mut Rng, proto: u8, hit: bool) -> Flow {
        let (mut client, mut server) = (rng.bits() as u32, rng.bits() as u32);
        let mut dport = rng.bits() as u16 | 1;
        let tries = if hit && !self.plans.is_empty() { 64 } else { 0 };
        if let Some(plan) =
            (0..tries).map(|_| rng.pick(&self.plans)).find(|plan| plan.proto == proto)
        {
            let within = |number: u32, (base, len): (u32, u32), bits: u32| {
                base | number & (((1_u64 << (bits - len)) - 1) as u32)
            };
            client = within(client, plan.client, CLIENT_BITS);
            server = within(server, plan.server, SERVER_BITS);
            let (low, high) = plan.dport;
            dport = low + rng.below(usize::from(high - low) + 1) as u16;
        }
        let src = numbered(self.family, CLIENTS, client & ((1 << CLIENT_BITS) - 1));
        let dst = numbered(self.family, SERVERS, server & ((1 << SERVER_BITS) - 1));
        let sport = 1024 + rng.below(64_000) as u16;
        Flow { family: self.family, proto, src, dst, sport, dport }
    }
}

fn line(text: &mut String, rule: std::fmt::Arguments<'_>) {
    let written = writeln!(text, "{rule}");
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
}

fn numbered(family: Family, base: (u32, u128), number: u32) -> u128 {
    match family {
        Family::V4 => u128::from(base.0 | number),
        Family::V6 => base.1 | u128::from(number),
    }
}

fn prefix(family: Family, base: (u32, u128), bits: u32, (number, len): (u32, u32)) -> String {
    let whole = if family == Family::V4 { 32 } else { 128 };
    format!("{}/{}", written(family, numbered(family, base, number)), whole - bits + len)
}

fn written(family: Family, address: u128) -> String {
    match family {
        Family::V4 => Ipv4Addr::from(address as u32).to_string(),
        Family::V6 => Ipv6Addr::from(address).to_string(),
    }
}

/// A filter set as a FORWARD chain without state, and how many rules it has: those with
/// ports of a protocol that has none are left out.
pub(super) fn stateless<A: Address>(rules: &[Rule<A>]) -> (String, Vec<Rule<A>>) {
    let family = if A::BITS == 32 { Family::V4 } else { Family::V6 };
    let mut text =
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n".to_owned();
    let mut kept = Vec::with_capacity(rules.len());
    for rule in rules {
        let ported = !(rule.sport.is_any() && rule.dport.is_any());
        let proto = (rule.proto.mask() != 0).then(|| rule.proto.value());
        if ported && !matches!(proto, Some(TCP | UDP)) {
            continue;
        }
        let net = |value: A, mask: A| {
            let len = mask.to_u128().count_ones();
            format!("{}/{len}", written(family, value.to_u128()))
        };
        let src = net(rule.src.value(), rule.src.mask());
        let dst = net(rule.dst.value(), rule.dst.mask());
        let mut options = String::new();
        if let Some(proto) = proto {
            options.push_str(&format!(" -p {proto}"));
        }
        if ported {
            options.push_str(if proto == Some(TCP) { " -m tcp" } else { " -m udp" });
            for (option, range) in [("--sport", rule.sport), ("--dport", rule.dport)] {
                if !range.is_any() {
                    options.push_str(&format!(" {option} {}:{}", range.low, range.high));
                }
            }
        }
        line(&mut text, format_args!("-A FORWARD -s {src} -d {dst}{options} -j ACCEPT"));
        let plain = Rule { src: rule.src, dst: rule.dst, proto: rule.proto, ..Rule::default() };
        kept.push(Rule { sport: rule.sport, dport: rule.dport, ..plain });
    }
    text.push_str("COMMIT\n");
    (text, kept)
}

/// A packet at a corner of some rule, or anywhere, that a router sends on to `g1`.
pub(super) fn corner<A: Address>(rng: &mut Rng, rules: &[Rule<A>], hit: bool) -> Option<Flow> {
    let family = if A::BITS == 32 { Family::V4 } else { Family::V6 };
    (0..1000).find_map(|_| {
        let rule = rules.get(rng.below(rules.len()))?;
        let mut key = sets::corner_key(rng, rule);
        if !hit {
            let bits = u128::from(rng.bits()) << 64 | u128::from(rng.bits());
            key.src = A::from_u128(bits & (u128::MAX >> (128 - A::BITS)));
        }
        let known = |proto: u8| match family {
            Family::V4 => true,
            Family::V6 => matches!(proto, TCP | UDP | 58),
        };
        let proto = if known(key.proto) { key.proto } else { UDP };
        let (src, dst) = (key.src.to_u128(), key.dst.to_u128());
        let (sport, dport) = match proto {
            TCP | UDP => (key.sport, key.dport),
            _ => (0, 0),
        };
        let flow = Flow { family, proto, src, dst, sport, dport };
        (crosses(family, src, false) && crosses(family, dst, true)).then_some(flow)
    })
}

/// Whether packets from, or to, this address cross the router from `g0` to `g1`.
fn crosses(family: Family, address: u128, is_destination: bool) -> bool {
    match family {
        Family::V4 => {
            let [a, b, c, _] = (address as u32).to_be_bytes();
            let own = matches!((a, b, c), (192, 0, 2) | (203, 0, 113));
            !(matches!(a, 0 | 127 | 224..) || own || is_destination && a == 10)
        }
        Family::V6 => address >> 112 == 0x2001 && address >> 96 != 0x2001_0db8,
    }
}
