//! From a record of the tap to a value of the protocol: names in the place of numbers, the
//! rules' words, and which of the steps decided.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::clock::Nanos;
use dataplane::conntrack::{CtState, Direction};
use dataplane::effects::Step;
use dataplane::logbook::LogBook;
use dataplane::packet::{Family, PortId};
use dataplane::policy::{ChainPolicy, Hook, TableId};
use dataplane::tap::{Headers, Ip, Record};
use dataplane::verdict::{Disposition, DropReason};
use dataplane::wire::{ethertype, proto};

use crate::api::protocol::{TracedConnection, TracedPacket, TracedStep};
use crate::apply::PolicyStore;
use crate::conntrack::tuple;
use crate::iptables::{TableNames, print};
use crate::model::Ruleset;

/// Rules whose words are remembered.
const KNOWN_MAX: usize = 4096;

/// A rule, or a chain's policy, of one generation of the policy.
type Key = (u64, Family, u32, Option<u32>);

/// What rules say, looked up when packets meet them.
#[derive(Debug)]
pub struct Words {
    names: TableNames,
    known: HashMap<Key, (Option<u32>, String)>,
    /// Of which generation it is known whether its families are tracked.
    tracked: Option<(u64, [bool; 2])>,
}

impl Default for Words {
    fn default() -> Self {
        Self { names: TableNames::of_host(), known: HashMap::new(), tracked: None }
    }
}

impl Words {
    /// Whether the family of this EtherType is tracked.
    fn is_tracked(&mut self, kind: u16, generation: u64, store: &PolicyStore) -> bool {
        if self.tracked.is_none_or(|known| known.0 != generation) {
            let tracked = store.read(|view| {
                let policy = &view.snapshot().policy;
                [policy.v4.needs_conntrack, policy.v6.needs_conntrack]
            });
            self.tracked = Some((generation, tracked));
        }
        let [v4, v6] = self.tracked.map_or([false; 2], |known| known.1);
        match kind {
            ethertype::IPV4 => v4,
            ethertype::IPV6 => v6,
            _ => false,
        }
    }

    /// A step as a protocol value.
    fn step(&mut self, step: &Step, book: &LogBook, store: &PolicyStore) -> TracedStep {
        let (table, chain) = book.chain(step.family, step.chain);
        let key = (book.generation, step.family, step.chain.0, step.rule);
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let names = &self.names;
        let (line, text) = self.known.entry(key).or_insert_with(|| {
            store.read(|policy| match policy.generation() == book.generation {
                true => said(policy.rules(step.family), (table, chain), step.rule, names),
                false => (None, String::new()),
            })
        });
        TracedStep {
            table: table.name().to_owned(),
            hook: step.hook.chain_name().to_owned(),
            chain: chain.to_owned(),
            rule: step.rule.map(|index| index + 1),
            line: *line,
            text: text.clone(),
        }
    }
}

/// The line and the words of a rule, or of a chain's policy.
fn said(
    rules: &Ruleset,
    (table, chain): (TableId, &str),
    rule: Option<u32>,
    names: &TableNames,
) -> (Option<u32>, String) {
    let table = rules.tables.iter().find(|candidate| candidate.id == table);
    let Some(chain) = table.and_then(|table| table.chain(chain)) else {
        return (None, String::new());
    };
    match rule {
        Some(index) => match chain.rules.get(index as usize) {
            Some(rule) => {
                let text = print::rule_text(rule, rules.family, names).trim_start().to_owned();
                (Some(rule.span.line).filter(|&line| line > 0), text)
            }
            None => (None, String::new()),
        },
        None => match chain.policy {
            Some((ChainPolicy::Drop, _)) => (None, "policy DROP".to_owned()),
            _ => (None, "policy ACCEPT".to_owned()),
        },
    }
}

/// What is needed besides the record.
#[derive(Debug)]
pub struct Teller<'a> {
    /// Port names, by number.
    pub ports: &'a [String],
    /// The running policy.
    pub store: &'a PolicyStore,
    /// What to add to a time for the time since 1970.
    pub utc_offset: Nanos,
    /// Whether the bytes of frames are told.
    pub frames: bool,
}

impl Teller<'_> {
    /// The packet as a protocol value.
    pub fn tell(&self, record: &Record, words: &mut Words) -> TracedPacket {
        let steps: Vec<TracedStep> =
            record.steps.iter().map(|step| words.step(step, &record.book, self.store)).collect();
        let own = own_steps(record, &steps);
        let (path, answer_path) = (steps[..own].to_vec(), steps[own..].to_vec());
        let (verdict, reason) = verdict(record.disposition);
        let mut packet = TracedPacket {
            at_ns: (record.now + self.utc_offset).0,
            worker: record.worker,
            input: record.input.map(|port| self.name(port)),
            packet: summary(&record.before),
            length: record.length,
            frame: self.frames.then(|| hex(&record.frame)),
            state: self.state(record, words),
            connection: record.connection.map(|view| TracedConnection {
                id: view.id.number(),
                direction: direction(record.tracking.direction).to_owned(),
                original: tuple(&view.original, None),
                reply: tuple(&view.reply, None),
                state: view.state_name().map(str::to_owned),
            }),
            decided: decided(&record.steps[..own], record.disposition),
            path,
            more_steps: record.more_steps,
            verdict: verdict.to_owned(),
            reason: reason.map(|reason| reason.name().to_owned()),
            rewritten: rewritten(record),
            mark: record.mark,
            logged: record.logged,
            answer_path,
            ..TracedPacket::default()
        };
        match record.disposition {
            Disposition::Transmit(port) => packet.output = Some(self.name(port)),
            Disposition::Deliver | Disposition::Delivered => packet.output = Some("host".into()),
            Disposition::AwaitNeighbour { port, next_hop: (family, address) } => {
                packet.output = Some(self.name(port));
                packet.awaits = Some(ip(family, address).to_string());
            }
            Disposition::Fragmented => packet.output = record.answer.map(|it| self.name(it.0)),
            Disposition::Collected | Disposition::Drop(_) => {}
        }
        packet.answer = record.answer.as_ref().map(|(port, headers)| {
            format!("{} on {} ({} in all)", summary(headers), self.name(*port), record.emitted)
        });
        packet
    }

    fn name(&self, port: PortId) -> String {
        match port {
            PortId::LOOPBACK => "lo".to_owned(),
            port => self.ports.get(port.index()).cloned().unwrap_or_default(),
        }
    }

    /// What tracking said, where it was asked.
    fn state(&self, record: &Record, words: &mut Words) -> Option<String> {
        let state = record.tracking.state;
        // The engine begins with INVALID; without tables behind raw nobody was asked.
        let asked = record.tracking.conn.is_some()
            || state != CtState::Invalid
            || record.steps.iter().any(|step| step.table != TableId::Raw)
                && words.is_tracked(record.before.kind, record.book.generation, self.store);
        asked.then(|| state.name().to_owned())
    }
}

const fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Original => "original",
        Direction::Reply => "reply",
    }
}

/// How many of the steps are the packet's own: what answers it meets OUTPUT, which a packet
/// from a port does not, or stands behind the rule that rejected it.
fn own_steps(record: &Record, steps: &[TracedStep]) -> usize {
    let rejected = record.disposition == Disposition::Drop(DropReason::Reject);
    let output = record.steps.iter().position(|step| step.hook == Hook::Output);
    let own = match record.input {
        Some(_) => output,
        None if rejected => {
            steps.iter().position(|step| step.text.contains("-j REJECT")).map(|at| at + 1)
        }
        None => None,
    };
    own.unwrap_or(steps.len())
}

/// Which step decided: the last for what rules refuse, the last of filter for what passed.
fn decided(steps: &[Step], disposition: Disposition) -> Option<usize> {
    use DropReason as R;
    let filtered = || steps.iter().rposition(|step| step.table == TableId::Filter);
    match disposition {
        Disposition::Drop(R::Rule | R::ChainPolicy | R::Reject | R::Hotdrop | R::Synproxy) => {
            steps.len().checked_sub(1)
        }
        Disposition::Drop(_) | Disposition::Collected => None,
        _ => filtered(),
    }
}

const fn verdict(disposition: Disposition) -> (&'static str, Option<DropReason>) {
    match disposition {
        Disposition::Drop(DropReason::Reject) => ("reject", Some(DropReason::Reject)),
        Disposition::Drop(reason) => ("drop", Some(reason)),
        Disposition::Collected => ("stolen", None),
        _ => ("accept", None),
    }
}

fn ip(family: Family, bits: u128) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(bits as u32)),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(bits)),
    }
}

fn end(family: Family, bits: u128, port: Option<u16>) -> String {
    match (family, port) {
        (_, None) => ip(family, bits).to_string(),
        (Family::V4, Some(port)) => format!("{}:{port}", ip(family, bits)),
        (Family::V6, Some(port)) => format!("[{}]:{port}", ip(family, bits)),
    }
}

fn ends(ip: &Ip) -> [String; 2] {
    let (sport, dport) = ip.ports.unzip();
    [end(ip.family, ip.src, sport), end(ip.family, ip.dst, dport)]
}

/// A packet in a few words.
pub fn summary(headers: &Headers) -> String {
    let mut text = headers.vlan.map_or_else(String::new, |vlan| format!("vlan {vlan} "));
    let Some(ip) = &headers.ip else {
        let _ = match headers.kind {
            ethertype::ARP => write!(text, "arp"),
            kind => write!(text, "ethertype {kind:#06x}"),
        };
        return text;
    };
    let name = match ip.proto {
        proto::TCP => "tcp",
        proto::UDP => "udp",
        proto::ICMP => "icmp",
        proto::ICMPV6 => "icmp6",
        proto::SCTP => "sctp",
        proto::DCCP => "dccp",
        proto::UDPLITE => "udplite",
        proto::GRE => "gre",
        proto::ESP => "esp",
        proto::AH => "ah",
        _ => "",
    };
    let _ = match name {
        "" => write!(text, "proto {}", ip.proto),
        name => write!(text, "{name}"),
    };
    let [from, to] = ends(ip);
    let _ = write!(text, " {from} > {to}");
    if let Some(flags) = ip.flags {
        let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let set: Vec<&str> = names
            .into_iter()
            .enumerate()
            .filter(|it| flags >> it.0 & 1 != 0)
            .map(|it| it.1)
            .collect();
        let _ = write!(text, " {}", if set.is_empty() { "no flags".into() } else { set.join(",") });
    }
    if let Some((kind, code)) = ip.icmp {
        let _ = write!(text, " type {kind} code {code}");
    }
    let _ = write!(text, " ttl {}", ip.ttl);
    if ip.later {
        text.push_str(" later fragment");
    }
    text
}

/// What differs between the packet that came and the one that goes.
fn rewritten(record: &Record) -> Vec<String> {
    let (Some(before), Some(after)) = (&record.before.ip, &record.after.ip) else { return vec![] };
    let ([from, to], [new_from, new_to]) = (ends(before), ends(after));
    let mut changes = Vec::new();
    if before.family == after.family && from != new_from {
        changes.push(format!("src {from} -> {new_from}"));
    }
    if before.family == after.family && to != new_to {
        changes.push(format!("dst {to} -> {new_to}"));
    }
    if before.tos != after.tos {
        changes.push(format!("tos {:#04x} -> {:#04x}", before.tos, after.tos));
    }
    changes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
