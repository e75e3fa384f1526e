//! A matrix from what was observed: each service that somebody asked for, and what the policy
//! does about it.

use std::collections::BTreeMap;
use std::fmt::Write;

use dataplane::clock::Nanos;
use dataplane::fib::{Network, Query, RouteKind};
use dataplane::packet::{Mac, Parsed, PortId};
use dataplane::wire::{self, Frame, proto};

use super::init::{Words, nat, only_passing, quoted, run};
use super::load::Loaded;
use super::run::RunError;
use crate::explain::describe::ip;

/// Services that are told at most; the rest would not be read.
const MOST: usize = 10_000;

/// A packet that was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The port it came by.
    pub port: PortId,
    /// It.
    pub frame: Vec<u8>,
}

/// Where a service was asked for: input, output, protocol, destination, port.
type Service = (String, Option<String>, u8, u128, u16);

/// Proposes a matrix: one flow for each service that a first packet asks for. `network` is where
/// they were seen.
///
/// # Errors
/// The policy cannot be run.
pub fn learn(
    policy: &Loaded,
    network: &Network,
    seen: &[Seen],
    at: Nanos,
) -> Result<String, RunError> {
    let mut services: BTreeMap<Service, (Words, u64)> = BTreeMap::new();
    for Seen { port, frame } in seen {
        let Ok(Frame::Ip(parsed)) = wire::parse(frame, network.port(*port).mac) else { continue };
        if !is_first(&parsed) {
            continue;
        }
        let input = network.port(*port).name.clone();
        let output = way_out(network, &parsed);
        let service = (input, output, parsed.proto, parsed.dst, parsed.dport);
        let words = words(&service, &parsed);
        if services.len() < MOST || services.contains_key(&service) {
            services.entry(service).or_insert((words, 0)).1 += 1;
        }
    }
    let all: Vec<Words> = services.values().map(|(words, _)| words.clone()).collect();
    let results = run(policy, &all, at)?;
    let mut text = String::from(
        "# Learned by `portcullis matrix learn`: what was asked for, and what this policy does about it. Read\n\
         # each flow, and ask its owner whether it should be so; give it a name, an owner and a purpose.\n",
    );
    for ((service, (words, count)), result) in services.iter().zip(results) {
        let Some(step) = result.and_then(|result| result.steps.into_iter().next()) else {
            continue;
        };
        let (input, output, number, dst, port) = service;
        let to = ip(wire_family(words), *dst);
        let beyond = output.as_deref().unwrap_or("this machine");
        let name = format!("{input} to {beyond}: protocol {number} {to} port {port}");
        let mut line = |key: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key} = {value}");
        };
        line("\n[[flow]]\nname", quoted(&name));
        line("purpose", quoted(&format!("observed {count} times")));
        for (key, value) in words {
            line(key, quoted(value));
        }
        line("expect", quoted(&step.verdict));
        if let Some(nat) = step.nat.as_deref().and_then(nat) {
            line("nat", nat);
        }
    }
    only_passing(policy, text, at)
}

fn wire_family(words: &Words) -> dataplane::packet::Family {
    let v6 = words.iter().any(|(key, value)| key == "dst" && value.contains(':'));
    if v6 { dataplane::packet::Family::V6 } else { dataplane::packet::Family::V4 }
}

/// Whether a packet may begin something.
fn is_first(parsed: &Parsed) -> bool {
    const SYN: u8 = 0x02;
    const SYN_ACK_RST: u8 = 0x16;
    match parsed.proto {
        proto::TCP => parsed.tcp_flags & SYN_ACK_RST == SYN,
        proto::ICMP => parsed.sport == 8,
        proto::ICMPV6 => parsed.sport == 128,
        // Answers come from the port of a service.
        proto::UDP => parsed.dport < parsed.sport,
        proto::SCTP => false,
        _ => true,
    }
}

/// The port that routing chooses; none: this machine.
fn way_out(network: &Network, parsed: &Parsed) -> Option<String> {
    let (family, src, dst) = (parsed.family, parsed.src, parsed.dst);
    if network.is_local(family, dst) {
        return None;
    }
    match network.route(&Query { family, src, dst, iif: None, mark: 0 })?.kind {
        RouteKind::Unicast(port) => Some(network.port(port).name.clone()),
        _ => None,
    }
}

fn words(service: &Service, parsed: &Parsed) -> Words {
    let (input, output, number, ..) = service;
    let mut words = vec![("in".to_owned(), input.clone())];
    words.extend(output.clone().map(|output| ("out".to_owned(), output)));
    for (key, bits) in [("src", parsed.src), ("dst", parsed.dst)] {
        words.push((key.to_owned(), ip(parsed.family, bits).to_string()));
    }
    words.push(("proto".to_owned(), number.to_string()));
    let ports = match parsed.proto {
        proto::ICMP | proto::ICMPV6 => ["type", "code"],
        _ => ["sport", "dport"],
    };
    if matches!(
        parsed.proto,
        proto::TCP | proto::UDP | proto::UDPLITE | proto::ICMP | proto::ICMPV6
    ) {
        for (key, value) in ports.into_iter().zip([parsed.sport, parsed.dport]) {
            words.push((key.to_owned(), value.to_string()));
        }
    }
    words
}

/// A frame as a source of what was seen; addressed to whom it may be.
pub fn seen(port: PortId, mac: Mac, mut frame: Vec<u8>) -> Seen {
    if frame.len() >= 6 {
        frame[..6].copy_from_slice(&mac.0);
    }
    Seen { port, frame }
}
