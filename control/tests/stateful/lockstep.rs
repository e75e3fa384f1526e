//! Runs a batch through both sides, packet by packet, and compares.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use dataplane::clock::Nanos;
use dataplane::packet::{Family, PortId};
use portcullis::iptables::{self, TableNames};
use portcullis::replay::topology::TopologyFile;
use portcullis::replay::{Replay, Setup, Source, files};

use super::bijection::Bijection;
use super::concrete::{COMPLAINT_ID, Concrete, HOST, Ready, peek};
use super::script::{Batch, Place, Step};
use crate::diff::compare::hex;
use crate::diff::{Connection, Observation, kernel, read_connection, read_saved, replay};
use crate::lab::clock::Clock;
use crate::lab::{Lab, Sent};

/// Timeouts may differ by this much: both sides round, and both take time.
const TIMEOUT_SLACK_S: i64 = 2;

/// Differences that are put into words.
const WORDED: usize = 12;

/// What batches may set, and what they start from.
const SYSCTLS: [(&str, u64); 9] = [
    ("tcp_loose", 1),
    ("tcp_be_liberal", 0),
    ("tcp_max_retrans", 3),
    ("tcp_ignore_invalid_rst", 0),
    ("tcp_timeout_syn_sent", 120),
    ("tcp_timeout_unacknowledged", 300),
    ("tcp_timeout_max_retrans", 300),
    ("checksum", 1),
    ("udp_timeout", 30),
];

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// In words; empty when both sides agree.
    pub differences: Vec<String>,
    /// Frames put in.
    pub put: usize,
    /// Frames that the kernel let out.
    pub out: usize,
    /// Connections at the end.
    pub connections: usize,
    /// Packets for the local stack.
    pub delivered: usize,
}

/// Why a batch could not be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// By `iptables-restore`.
    Kernel(String),
    /// By Portcullis.
    Ours(String),
}

/// Portcullis, opened with the batch's rules.
fn open(batch: &Batch) -> Result<Replay, Refused> {
    let file = TopologyFile::parse(Path::new("topo.toml"), &replay::topology(false, false));
    let file = file.map_err(|error| Refused::Ours(error.to_string()))?;
    let mut setup = Setup::new(file.topology, 1);
    setup.icmp = file.icmp;
    for (name, value) in &batch.sysctls {
        let set = setup.conntrack.set(name, *value);
        set.map_err(|error| Refused::Ours(error.to_string()))?;
    }
    let family = family(batch);
    let text = batch.ruleset();
    let names = TableNames::of_host();
    let parsed = iptables::parse_bytes(text.as_bytes(), "rules", family, &names);
    let rules = parsed.map_err(|findings| Refused::Ours(format!("{findings:#?}")))?.ruleset;
    match family {
        Family::V4 => setup.v4 = rules,
        Family::V6 => setup.v6 = rules,
    }
    Replay::new(setup).map_err(|error| Refused::Ours(error.to_string()))
}

fn family(batch: &Batch) -> Family {
    if batch.v6 { Family::V6 } else { Family::V4 }
}

fn prepare(lab: &Lab, batch: &Batch) -> Result<(), Refused> {
    lab.restore(batch.v6, &batch.ruleset()).map_err(Refused::Kernel)?;
    for (name, default) in SYSCTLS {
        let own = batch.sysctls.iter().find(|(own, _)| own == name);
        let value = own.map_or(default, |(_, value)| *value);
        lab.router().sysctl(&format!("netfilter/nf_conntrack_{name}"), &value.to_string());
    }
    lab.flush_conntrack();
    drop((lab.drain(), lab.received()));
    Ok(())
}

/// A packet for the local stack. A reset that the router made for itself has only
/// the beginnings of a checksum in the kernel: those of all resets become zero.
fn to_host(packet: &[u8]) -> Sent {
    let mut frame = [&[0; 14], packet].concat();
    if let Some(peek) = peek(packet).filter(|peek| peek.proto == 6 && !peek.later) {
        let l4 = 14 + peek.l4;
        if frame.get(l4 + 13).is_some_and(|flags| flags & 4 != 0) && frame.len() >= l4 + 20 {
            frame[l4 + 16..l4 + 18].fill(0);
        }
    }
    Sent { port: HOST, frame }
}

/// The identification of IPv6 fragments that the kernel makes is random, and so is
/// that of its own IPv4 errors, in whosever name: they become zero, besides what
/// the stateless comparison makes alike.
fn normalised(sent: Sent) -> Sent {
    let mut sent = kernel::normalised(sent);
    let frame = &mut sent.frame;
    let error = frame.get(14).is_some_and(|byte| byte >> 4 == 4)
        && frame.get(23) == Some(&1)
        && frame.get(18..20) != Some(&COMPLAINT_ID.to_be_bytes())
        && matches!(frame.get(34), Some(3 | 11 | 12));
    if error {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    if sent.frame.get(14).is_some_and(|byte| byte >> 4 == 6) && sent.frame.get(20) == Some(&44) {
        sent.frame[58..62].fill(0);
    }
    sent
}

/// Both sides of a run.
struct Pair<'r> {
    lab: &'r Lab,
    replay: Replay,
    theirs: Concrete,
    ours: Concrete,
    names: Bijection,
    clock: Clock,
    v6: bool,
    outcome: Outcome,
}

impl Pair<'_> {
    fn kernel(&self, ready: &Ready) -> Vec<Sent> {
        let mut out = match ready.place {
            Place::Port(port, _) => self.lab.inject(port, &ready.frame()),
            Place::Router => self.lab.emit(self.v6, &ready.packet),
        };
        out.extend(self.lab.received().iter().map(|packet| to_host(packet)));
        out.into_iter().map(normalised).collect()
    }

    fn portcullis(&mut self, ready: &Ready, at: u64) -> Vec<Sent> {
        let source = match ready.place {
            Place::Port(port, _) => Source::Port(PortId(port as u8)),
            Place::Router => Source::Host,
        };
        let fed = self.replay.feed(source, Nanos(at), &ready.frame());
        let sent = fed.sent.into_iter();
        let sent = sent.map(|sent| Sent { port: sent.port.index(), frame: sent.frame });
        let host = fed.delivered.iter().map(|frame| to_host(&frame[14..]));
        sent.chain(host).map(normalised).collect()
    }

    fn step(&mut self, number: usize, step: &Step) {
        let (theirs, ours) = (self.theirs.make(step), self.ours.make(step));
        if theirs.len() != ours.len() {
            let (a, b) = (theirs.len(), ours.len());
            self.outcome.differences.push(format!("pieces {number}: kernel {a}, ours {b}"));
        }
        for (their_ready, own_ready) in theirs.iter().zip(&ours) {
            let at = 1_000_000_000 + self.clock.now_ns();
            let out = self.kernel(their_ready);
            let sent = self.portcullis(own_ready, at);
            self.outcome.put += 1;
            self.outcome.out += out.len();
            self.outcome.delivered += out.iter().filter(|sent| sent.port == HOST).count();
            self.theirs.learn(step, their_ready, &out);
            self.ours.learn(step, own_ready, &sent);
            self.compare(number, step, their_ready, out, sent);
        }
    }

    fn compare(
        &mut self,
        number: usize,
        step: &Step,
        ready: &Ready,
        mut theirs: Vec<Sent>,
        mut own: Vec<Sent>,
    ) {
        theirs.sort();
        own.sort();
        if self.names.alike(step.flow(), &theirs, &own) {
            return;
        }
        let mut text = format!("frames of step {number} differ\n    put in: {}", show(ready));
        for (who, sent) in [("kernel", &theirs), ("ours  ", &own)] {
            if sent.is_empty() {
                text += &format!("\n    {who}: nothing");
            }
            for Sent { port, frame } in sent {
                let port = if *port == HOST { "host".to_owned() } else { format!("eth{port}") };
                text += &format!("\n    {who}: {port} {}", hex(frame));
            }
        }
        self.outcome.differences.push(text);
    }
}

fn show(ready: &Ready) -> String {
    format!("{:?} {}", ready.place, hex(&ready.packet))
}

/// Runs a batch.
///
/// # Errors
/// Who does not take the rules, and why.
pub fn run(lab: &Lab, batch: &Batch) -> Result<Outcome, Refused> {
    static RUNS: AtomicU32 = AtomicU32::new(1);
    let number = RUNS.fetch_add(1, Ordering::Relaxed);
    prepare(lab, batch)?;
    let mut pair = Pair {
        lab,
        replay: open(batch)?,
        theirs: Concrete::new(batch, number),
        ours: Concrete::new(batch, number),
        names: Bijection::new(batch.flows.len()),
        clock: Clock::start(),
        v6: batch.v6,
        outcome: Outcome::default(),
    };
    for (number, step) in batch.steps.iter().enumerate() {
        pair.step(number, step);
    }
    let theirs = observe_kernel(lab, batch);
    let ours = observe_ours(&pair.replay, batch);
    let Pair { mut outcome, names, .. } = pair;
    outcome.connections = theirs.connections.len();
    ends(&mut outcome.differences, &theirs, &ours, &names);
    outcome.differences.truncate(WORDED);
    Ok(outcome)
}

fn observe_kernel(lab: &Lab, batch: &Batch) -> Observation {
    let rows = lab.conntrack();
    let (counters, printed) = read_saved(&lab.save(batch.v6));
    let connections = rows.iter().filter_map(|row| read_connection(row)).collect();
    Observation { counters, connections, printed, ..Observation::default() }
}

fn observe_ours(replay: &Replay, batch: &Batch) -> Observation {
    let text = files::print_rules(replay, family(batch), &TableNames::of_host());
    let (counters, printed) = read_saved(&text);
    let table = files::print_connections(replay);
    let connections = table.lines().filter_map(read_connection).collect();
    Observation { counters, connections, printed, ..Observation::default() }
}

/// Compares what is left at the end.
fn ends(all: &mut Vec<String>, theirs: &Observation, ours: &Observation, names: &Bijection) {
    for (key, counted) in &theirs.counters {
        let own = ours.counters.get(key).copied().unwrap_or_default();
        if own != *counted {
            let (table, chain, rule) = key;
            let mut lines = theirs
                .printed
                .iter()
                .filter(|line| line.starts_with(&format!("{table}: -A {chain} ")));
            let place = rule.and_then(|rule| lines.nth(rule)).cloned();
            let place = place.unwrap_or(format!("{table} {chain} policy"));
            all.push(format!("counter {place}: kernel {counted:?}, ours {own:?}"));
        }
    }
    connections(all, &theirs.connections, &ours.connections, names);
}

fn connections(
    all: &mut Vec<String>,
    theirs: &[Connection],
    own: &[Connection],
    names: &Bijection,
) {
    let same = |a: &Connection, b: &Connection| {
        let (left, right) = (a.facts.split(' '), b.facts.split(' '));
        left.clone().count() == right.clone().count()
            && left.zip(right).all(|(a, b)| a == b || names.words_alike(a, b))
    };
    let mut left: Vec<&Connection> = own.iter().collect();
    for connection in theirs {
        let exact = left.iter().position(|other| other.facts == connection.facts);
        let found = exact.or_else(|| left.iter().position(|other| same(connection, other)));
        let Some(found) = found else {
            all.push(format!("connection only in the kernel: {connection:?}"));
            continue;
        };
        let other = left.swap_remove(found);
        if (other.timeout_s - connection.timeout_s).abs() > TIMEOUT_SLACK_S {
            let (a, b) = (connection.timeout_s, other.timeout_s);
            all.push(format!("timeout of {}: kernel {a}, ours {b}", connection.facts));
        }
    }
    all.extend(left.iter().map(|connection| format!("connection only in ours: {connection:?}")));
}
