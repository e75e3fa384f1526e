//! The differential test: generated rules and packets through the kernel and
//! through Portcullis, compared; a mismatch is made small before it is shown.

#![allow(unreachable_pub, reason = "one crate's inner interface")]

pub mod compare;
pub mod corpus;
pub mod extra;
pub mod kernel;
pub mod packets;
pub mod replay;
pub mod rng;
pub mod rules;
pub mod shrink;
pub mod world;

use std::collections::BTreeMap;

use packets::Packet;
use rng::Rng;
use rules::RulesetText;

use crate::lab::Sent;

/// A ruleset and the packets to send through it.
#[derive(Clone, Debug)]
pub struct Case {
    /// Rules of one family, printed from pieces that can be taken away.
    pub rules: RulesetText,
    /// Packets in order.
    pub packets: Vec<Packet>,
    /// Whether rules may make the kernel track.
    pub conntrack: bool,
    /// Whether the router has default routes.
    pub default_routes: bool,
}

impl Case {
    /// The case of that seed.
    pub fn generate(seed: u64, packets: usize) -> Self {
        let mut case = Self::core(seed, packets);
        let mut rng = Rng(!seed);
        extra::decorate(&mut rng, &mut case.rules, case.conntrack);
        extra::strew(&mut rng, &case.rules, &mut case.packets);
        extra::silence(&case.rules, &mut case.packets);
        case
    }

    /// The case of that seed without what `extra` adds: kept seeds are of these.
    pub fn core(seed: u64, packets: usize) -> Self {
        let mut rng = Rng(seed);
        let v6 = rng.chance(45);
        // Without conntrack, fragments travel one by one.
        let conntrack = rng.chance(75);
        let rules = rules::generate(&mut rng, v6, conntrack);
        let packets = packets::generate(
            &mut rng,
            v6,
            packets,
            packets::Rules { conntrack, rejects: rules.text().contains("REJECT") },
        );
        Self { rules, packets, conntrack, default_routes: false }
    }
}

/// Where a rule or policy counts: table, chain, rule index (`None`: the policy).
pub type CounterKey = (String, String, Option<usize>);

/// One connection: everything but its timeout, and the timeout in seconds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// Protocol, state, tuples, flags and mark, in one fixed form.
    pub facts: String,
    /// Seconds left.
    pub timeout_s: i64,
}

/// What came of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// By packet: what came out, and where.
    pub sent: Vec<Vec<Sent>>,
    /// Packets and bytes by rule.
    pub counters: BTreeMap<CounterKey, (u64, u64)>,
    /// The connection table at the end.
    pub connections: Vec<Connection>,
    /// How many packets the local stack was given.
    pub delivered: u64,
    /// LOG lines in order, from this process's tag on.
    pub logged: Vec<String>,
    /// The rules as printed afterwards, without comments and counters.
    pub printed: Vec<String>,
    /// The elements of all sets, if the rules name any.
    pub elements: Vec<String>,
}

/// Reads counters and rules from `iptables-save -c` output.
pub fn read_saved(text: &str) -> (BTreeMap<CounterKey, (u64, u64)>, Vec<String>) {
    let mut counters = BTreeMap::new();
    // The kernel prints tables in the order of their first use: here by name.
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    let mut print = |table: &str, line: String| {
        tables.entry(table.to_owned()).or_default().push(line);
    };
    let mut next: BTreeMap<String, usize> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
            next.clear();
        } else if let Some(chain) = line.strip_prefix(':') {
            let words: Vec<&str> = chain.split(' ').collect();
            let count = words.last().and_then(|word| read_pair(word));
            if words.len() == 3 && words[1] != "-" {
                let count = count.unwrap_or_default();
                counters.insert((table.clone(), words[0].to_owned(), None), count);
            }
            print(&table, format!(":{}", words[..words.len().min(2)].join(" ")));
        } else if let Some((count, rule)) = line.split_once("] ") {
            let chain = rule.split(' ').nth(1).unwrap_or_default().to_owned();
            let index = next.entry(chain.clone()).or_default();
            let key = (table.clone(), chain, Some(*index));
            counters.insert(key, read_pair(&format!("{count}]")).unwrap_or_default());
            *index += 1;
            print(&table, rule.trim_end().to_owned());
        } else {
            print(&table, line.to_owned());
        }
    }
    let named = tables
        .into_iter()
        .flat_map(|(table, lines)| lines.into_iter().map(move |line| format!("{table}: {line}")));
    (counters, named.collect())
}

fn read_pair(word: &str) -> Option<(u64, u64)> {
    let (packets, bytes) = word.strip_prefix('[')?.strip_suffix(']')?.split_once(':')?;
    Some((packets.parse().ok()?, bytes.parse().ok()?))
}

/// Reads one line of `/proc/net/nf_conntrack` or `conntrack -L`.
pub fn read_connection(line: &str) -> Option<Connection> {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if matches!(words.first(), Some(&"ipv4" | &"ipv6")) {
        words.drain(..2);
    }
    let proto: u8 = words.get(1)?.parse().ok()?;
    let timeout_s = words.get(2)?.parse().ok()?;
    let facts = words[3..].iter().filter_map(|word| match word.split_once('=') {
        // Not part of a connection, or only shown by one of the two listings; the
        // first rule with connbytes turns accounting on for good.
        Some((
            "use" | "zone" | "secctx" | "helper" | "timeout" | "stream_timeout" | "packets"
            | "bytes",
            _,
        )) => None,
        Some((name @ ("src" | "dst"), value)) => {
            let address: std::net::IpAddr = value.parse().ok()?;
            Some(format!("{name}={address}"))
        }
        _ => Some((*word).to_owned()),
    });
    let facts = std::iter::once(proto.to_string()).chain(facts).collect::<Vec<_>>().join(" ");
    Some(Connection { facts, timeout_s })
}
