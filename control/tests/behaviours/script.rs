//! Scripts: one exchange, told once, performed before the kernel and before
//! Portcullis, and then compared.
//!
//! A script is a function over [`Script`]. It loads rules (written as `iptables`
//! arguments), sends packets and says what must come of each; the same claims
//! are made on both sides, so a test cannot pass because both sides did nothing.
//! Whatever was seen is kept and compared afterwards: frames byte for byte,
//! the state of every packet, all counters, the connection table.

use std::collections::BTreeMap;

use super::compare;
use super::flow::Flow;
use super::kernel::Kernel;
use super::ours::Ours;
use super::packet::{Packet, View};
use super::store::Store;
use crate::lab::Sent;
use crate::lab::clock::Clock;

/// One of the two that are compared.
pub trait Side {
    /// Who it is, for messages.
    fn name(&self) -> &'static str;
    /// Replaces the rules of a family. With `written`, counters in the text count.
    fn load(&mut self, v6: bool, text: &str, written: bool);
    /// Performs one packet; gives what came out.
    fn send(&mut self, packet: &Packet) -> Vec<Sent>;
    /// Lets time pass.
    fn wait_ms(&mut self, ms: u64);
    /// The rules with counters, as `iptables-save -c` prints them.
    fn saved(&self, v6: bool) -> String;
    /// The connection table, one line an entry.
    fn table(&mut self) -> Vec<String>;
    /// The expectations, one line an entry.
    fn expectations(&self) -> Vec<String>;
    /// Sets a conntrack sysctl by its short name.
    fn sysctl(&mut self, name: &str, value: u64);
    /// Packets that the local stack was given.
    fn delivered(&self) -> u64;
    /// Leaves no room in the connection table.
    fn fill_table(&mut self);
    /// New connections that were dropped because the table was full.
    fn table_drops(&self) -> u64;
}

/// A frame that came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Port of the router.
    pub port: usize,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// The IP packet in it.
    pub fn ip(&self) -> View<'_> {
        View(&self.bytes[14..])
    }
}

/// What came of one packet.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its `--ctstate` words, or nothing when it met no rule.
    pub state: String,
    /// Frames that came out.
    pub out: Vec<Frame>,
    who: String,
}

impl Seen {
    /// It had that state and exactly one frame came out.
    #[track_caller]
    pub fn passes(&self, state: &str) -> Frame {
        assert_eq!(self.state, state, "{}", self.who);
        self.frame()
    }
    /// It had that state and nothing came out.
    #[track_caller]
    pub fn dropped(&self, state: &str) {
        assert_eq!(self.state, state, "{}", self.who);
        assert!(self.out.is_empty(), "{}: {:02x?} came out", self.who, self.out);
    }
    /// Exactly one frame came out.
    #[track_caller]
    pub fn frame(&self) -> Frame {
        let [frame] = self.out.as_slice() else {
            panic!("{}: one frame expected, {:02x?} came out", self.who, self.out)
        };
        frame.clone()
    }
}

/// What a side did, for the comparison.
#[derive(Clone, Debug, Default)]
pub struct Transcript {
    /// By step: what it was and what was seen.
    pub steps: Vec<(String, Observed)>,
    /// Ports and identifiers that the script's packets have, and the step that
    /// brought each first.
    pub known: BTreeMap<u16, usize>,
}

/// One observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observed {
    /// A packet's state, and the frames it caused.
    Packet(String, Vec<Frame>),
    /// The connection table, and how many seconds it took to read.
    Table(Vec<Flow>, u64),
    /// The expectations.
    Expectations(Vec<String>),
    /// Packets and bytes of every rule and policy.
    Counters(BTreeMap<String, (u64, u64)>),
    /// A single number.
    Number(u64),
}

/// The words of [`Script::send`], in the order of the rules that tell them apart.
const STATES: [&str; 5] = ["INVALID", "NEW", "ESTABLISHED", "RELATED", "UNTRACKED"];

/// One performance.
pub struct Script<'s> {
    side: &'s mut dyn Side,
    transcript: Transcript,
    v6: bool,
    counted: BTreeMap<String, (u64, u64)>,
}

impl Script<'_> {
    /// Loads rules, each as the arguments of one `iptables` command. Every packet's
    /// state is counted in mangle PREROUTING and OUTPUT before them.
    pub fn rules(&mut self, rules: &[&str]) {
        self.load(&ruleset(rules), false);
    }

    /// Loads a file.
    pub fn load(&mut self, text: &str, written_counters: bool) {
        self.side.load(self.v6, text, written_counters);
        self.counted = compare::counters(&self.side.saved(self.v6));
    }

    /// Sends one packet.
    pub fn send(&mut self, packet: impl Into<Packet>) -> Seen {
        let packet = packet.into();
        for number in compare::mentioned(&packet.ip) {
            let step = self.transcript.steps.len();
            self.transcript.known.entry(number).or_insert(step);
        }
        let sent = self.side.send(&packet);
        let out: Vec<Frame> =
            sent.into_iter().map(|sent| Frame { port: sent.port, bytes: sent.frame }).collect();
        let counted = compare::counters(&self.side.saved(self.v6));
        let chain = if packet.from.port.is_some() { "PREROUTING" } else { "OUTPUT" };
        let state = self.state(&counted, chain);
        self.counted = counted;
        let number = self.transcript.steps.len();
        let note = format!("step {number}: {}", compare::describe(&packet.ip));
        let who = format!("{}, {note}", self.side.name());
        self.transcript.steps.push((note, Observed::Packet(state.clone(), out.clone())));
        Seen { state, out, who }
    }

    /// The same, but not compared: for what the two do each in its own way.
    pub fn send_apart(&mut self, packet: impl Into<Packet>) -> Seen {
        let seen = self.send(packet);
        self.transcript.steps.pop();
        seen
    }

    fn state(&self, counted: &BTreeMap<String, (u64, u64)>, chain: &str) -> String {
        let rose = |index: usize| {
            let key = format!("mangle {chain} {index}");
            counted.get(&key).map(|count| count.0) > self.counted.get(&key).map(|count| count.0)
        };
        let words = STATES.iter().enumerate().filter(|(index, _)| rose(*index));
        words.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
    }

    /// Lets time pass.
    pub fn wait_ms(&mut self, ms: u64) {
        self.side.wait_ms(ms);
    }

    /// Sets a conntrack sysctl by its short name (`tcp_loose`, `udp_timeout`).
    pub fn sysctl(&mut self, name: &str, value: u64) {
        self.side.sysctl(name, value);
    }

    /// The connection table, which both sides must agree on.
    pub fn flows(&mut self) -> Vec<Flow> {
        let clock = Clock::start();
        let lines = self.side.table();
        let took_s = clock.now_ns().div_ceil(1_000_000_000);
        let flows: Vec<Flow> = lines.iter().filter_map(|line| Flow::parse(line)).collect();
        self.note("table", Observed::Table(flows.clone(), took_s));
        flows
    }

    /// The only connection.
    #[track_caller]
    pub fn flow(&mut self) -> Flow {
        let flows = self.flows();
        let [flow] = flows.as_slice() else {
            panic!("{}: one connection expected, not {flows:#?}", self.side.name())
        };
        flow.clone()
    }

    /// There is no connection.
    #[track_caller]
    pub fn no_flow(&mut self) {
        let flows = self.flows();
        assert!(flows.is_empty(), "{}: {flows:#?}", self.side.name());
    }

    /// The expectations, which both sides must agree on.
    pub fn expectations(&mut self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.side.expectations().iter().map(|line| expectation(line)).collect();
        lines.sort();
        self.note("expectations", Observed::Expectations(lines.clone()));
        lines
    }

    /// Packets and bytes by `TABLE CHAIN INDEX` (from 0; `policy` for the policy).
    pub fn counters(&mut self) -> BTreeMap<String, (u64, u64)> {
        self.counted = compare::counters(&self.side.saved(self.v6));
        self.note("counters", Observed::Counters(self.counted.clone()));
        self.counted.clone()
    }

    /// The same, but not compared: for what the two do each in its own way.
    pub fn peek(&mut self) -> BTreeMap<String, (u64, u64)> {
        self.counted = compare::counters(&self.side.saved(self.v6));
        self.counted.clone()
    }

    /// Whether this is the kernel's performance.
    pub fn is_kernel(&self) -> bool {
        self.side.name() == "kernel"
    }

    /// Packets that the rule (`filter FORWARD 0`) has counted.
    #[track_caller]
    pub fn count(&mut self, place: &str) -> u64 {
        let found = self.counters().get(place).map(|count| count.0);
        found.unwrap_or_else(|| panic!("no rule at {place}"))
    }

    /// Packets that the local stack was given so far.
    pub fn delivered(&mut self) -> u64 {
        let number = self.side.delivered();
        self.note("delivered", Observed::Number(number));
        number
    }

    /// Leaves no room in the connection table.
    pub fn fill_table(&mut self) {
        self.side.fill_table();
    }

    /// New connections dropped because the table was full, so far.
    pub fn table_drops(&mut self) -> u64 {
        let number = self.side.table_drops();
        self.note("table drops", Observed::Number(number));
        number
    }

    fn note(&mut self, what: &str, observed: Observed) {
        let number = self.transcript.steps.len();
        self.transcript.steps.push((format!("step {number}: {what}"), observed));
    }
}

/// The file that these commands make, after the rules that count states.
pub fn ruleset(commands: &[&str]) -> String {
    let mut tables: BTreeMap<&str, (Vec<String>, Vec<String>)> = BTreeMap::new();
    let mangle = tables.entry("mangle").or_default();
    for chain in ["PREROUTING", "OUTPUT"] {
        let rule = |state| format!("-A {chain} -m conntrack --ctstate {state}");
        mangle.1.extend(STATES.map(rule));
    }
    for command in commands {
        let (table, rest) = match command.strip_prefix("-t ") {
            Some(rest) => rest.split_once(' ').expect("a table and a command"),
            None => ("filter", *command),
        };
        let (heads, lines) = tables.entry(table).or_default();
        match rest.split(' ').collect::<Vec<_>>().as_slice() {
            ["-P", chain, policy] => heads.push(format!(":{chain} {policy} [0:0]")),
            ["-N", chain] => heads.push(format!(":{chain} - [0:0]")),
            _ => lines.push(rest.to_owned()),
        }
    }
    let table = |(name, (heads, lines)): (&&str, &(Vec<String>, Vec<String>))| {
        let body: String = heads.iter().chain(lines).map(|line| format!("{line}\n")).collect();
        format!("*{name}\n{body}COMMIT\n")
    };
    tables.iter().map(table).collect()
}

/// An expectation without what differs between listings and moments.
fn expectation(line: &str) -> String {
    let words = line.split_whitespace().filter(|word| {
        let (name, _) = word.split_once('=').unwrap_or((word, ""));
        !matches!(name, "l3proto" | "proto" | "zone" | "secctx" | "class")
            && name.parse::<u64>().is_err()
    });
    // One listing pads IPv6 addresses.
    let shown = |word: &str| match word.split_once('=') {
        Some((name @ ("src" | "dst"), address)) => {
            let address: Option<std::net::IpAddr> = address.parse().ok();
            address.map_or_else(|| word.to_owned(), |address| format!("{name}={address}"))
        }
        _ => word.to_owned(),
    };
    words.map(shown).collect::<Vec<_>>().join(" ")
}

/// What a test adds to the router.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extra<'e> {
    /// Whether rules, their counters and packets are IPv6's.
    pub v6: bool,
    /// Arguments of `ip` commands.
    pub ip: &'e [&'e str],
    /// The same in the words of a topology file.
    pub topology: &'e str,
}

/// Performs the script before the kernel and before Portcullis, and compares.
#[track_caller]
pub fn both(script: impl Fn(&mut Script<'_>)) {
    both_with(&Extra::default(), script);
}

/// The same in IPv6.
#[track_caller]
pub fn both_v6(script: impl Fn(&mut Script<'_>)) {
    both_with(&Extra { v6: true, ..Extra::default() }, script);
}

/// The same on a router with something more.
#[track_caller]
pub fn both_with(extra: &Extra<'_>, script: impl Fn(&mut Script<'_>)) {
    let (theirs, times) = before_kernel(extra, &script);
    agree(&theirs, &perform(&mut Ours::new(times, extra.topology), extra.v6, &script));
}

/// The same, with rules replaced as the daemon replaces them.
#[track_caller]
pub fn before_a_store(script: impl Fn(&mut Script<'_>)) {
    let (theirs, _) = before_kernel(&Extra::default(), &script);
    agree(&theirs, &perform(&mut Store::new(), false, &script));
}

#[track_caller]
fn agree(theirs: &Transcript, own: &Transcript) {
    let differences = compare::differences(theirs, own);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn before_kernel(extra: &Extra<'_>, script: impl Fn(&mut Script<'_>)) -> (Transcript, Vec<u64>) {
    let mut kernel = Kernel::new(extra.ip);
    let transcript = perform(&mut kernel, extra.v6, &script);
    (transcript, kernel.times())
}

fn perform(side: &mut dyn Side, v6: bool, script: impl Fn(&mut Script<'_>)) -> Transcript {
    let mut t = Script { side, transcript: Transcript::default(), v6, counted: BTreeMap::new() };
    script(&mut t);
    t.flows();
    t.counters();
    t.delivered();
    t.transcript
}
