//! The engine alone, and behind a program: the same verdicts and the same counts, whatever
//! policy, sets, frames, and in whatever order things happen.
//!
//! The program is a model of `bpf/block.h` here; `dataplane/tests/afxdp/blocklist.rs` and
//! `control/tests/blocklist.rs` are about the real one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use dataplane::clock::Nanos;
use dataplane::conntrack::{Config as Tracking, Conntrack};
use dataplane::effects::{Effects, LogRecord};
use dataplane::engine::{Engine, Slot, World};
use dataplane::port::afxdp::blocklist::RULES;
use dataplane::sets::{CreateSpec, Cursor, Entry, Extras, Registry, SetName};
use dataplane::stats::WorkerStats;
use dataplane::verdict::Disposition;
use dataplane::wire::build::Packet;
use dataplane::wire::{self, Frame, ipv4};
use proptest::prelude::*;

use super::*;
use crate::apply::Change;
use crate::iptables::{self, TableNames};
use crate::replay::topology::TopologyFile;

const PORTS: [Mac; 2] = [Mac([2, 0, 0, 0, 1, 1]), Mac([2, 0, 0, 0, 1, 2])];
const TOPOLOGY: &str = r#"
mode = "routed"
[[port]]
name = "eth0"
mac = "02:00:00:00:01:01"
addresses = ["198.18.1.1/24", "2001:db8:1::1/64"]
[[port]]
name = "eth1"
mac = "02:00:00:00:01:02"
addresses = ["198.18.2.1/24", "2001:db8:2::1/64"]
[[neighbour]]
dev = "eth1"
address = "198.18.2.2"
mac = "02:00:00:00:02:02"
[[neighbour]]
dev = "eth1"
address = "2001:db8:2::2"
mac = "02:00:00:00:02:02"
"#;

/// The maps, and the program over them.
#[derive(Debug, Default)]
struct Program {
    size: BlocklistSize,
    entries: BTreeMap<(u32, IpAddr, u8), Meaning>,
    rules: [[Option<BlockRule>; RULES]; 2],
    counts: [[[Blocked; 2]; RULES]; 2],
    macs: [Option<Mac>; 2],
}

impl Program {
    fn listed(&self, rule: &BlockRule, source: IpAddr) -> bool {
        let (bits, all) = match source {
            IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
            IpAddr::V6(ip) => (u128::from(ip), 128),
        };
        let shortest = if rule.nets { 0 } else { all };
        let found = (shortest..=all).rev().find_map(|length| {
            let host = all - length;
            let net = if host == 128 { 0 } else { bits >> host << host };
            let net = match source {
                IpAddr::V4(_) => IpAddr::V4((net as u32).into()),
                IpAddr::V6(_) => IpAddr::V6(net.into()),
            };
            self.entries.get(&(rule.table, net, length as u8))
        });
        found == Some(&Meaning::Listed)
    }

    fn blocks(&mut self, port: PortId, frame: &[u8]) -> bool {
        if self.macs[port.index()].is_none_or(|mac| mac.0[..] != frame[..6]) {
            return false;
        }
        let Ok(Frame::Ip(ip)) = wire::parse(frame, PORTS[port.index()]) else { return false };
        let at = index(ip.family);
        let source = match ip.family {
            Family::V4 => IpAddr::V4((ip.src as u32).into()),
            Family::V6 => IpAddr::V6(ip.src.into()),
        };
        let drops = |rule: &Option<BlockRule>| {
            rule.is_some_and(|rule| rule.ports >> port.0 & 1 == 1 && self.listed(&rule, source))
        };
        let Some(rule) = self.rules[at].iter().position(drops) else { return false };
        let plain = match ip.family {
            Family::V4 => frame[14] == 0x45 && frame[20] & 0x3f == 0 && frame[21] == 0,
            Family::V6 => matches!(frame[20], 6 | 17 | 58) && ip.dst >> 120 != 0xff,
        };
        let dhcp = ip.proto == 17 && matches!(frame[36..38], [0, 67 | 68]);
        if !plain || dhcp && ip.family == Family::V4 {
            return false;
        }
        let count = &mut self.counts[at][rule][port.index()];
        count.packets += 1;
        count.bytes += u64::from(ip.l3_len);
        count.frame_bytes += frame.len() as u64;
        true
    }
}

fn index(family: Family) -> usize {
    usize::from(family == Family::V6)
}

/// A program that the test looks at too.
#[derive(Clone, Debug, Default)]
struct Shared(Arc<Mutex<Program>>);

impl Shared {
    fn with<T>(&self, act: impl FnOnce(&mut Program) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }
}

impl Maps for Shared {
    fn size(&self) -> BlocklistSize {
        self.with(|it| it.size)
    }
    fn put(&mut self, table: u32, (ip, length): Prefix, meaning: Meaning) -> Result<(), BpfError> {
        self.with(|it| {
            let room = it.size.hosts[usize::from(ip.is_ipv6())] as usize;
            if !it.entries.contains_key(&(table, ip, length)) && it.entries.len() >= room {
                return Err(BpfError::Full("block"));
            }
            it.entries.insert((table, ip, length), meaning);
            Ok(())
        })
    }
    fn remove(&mut self, table: u32, (ip, length): Prefix) -> Result<bool, BpfError> {
        Ok(self.with(|it| it.entries.remove(&(table, ip, length)).is_some()))
    }
    fn set_rule(
        &mut self,
        family: Family,
        at: usize,
        to: Option<BlockRule>,
    ) -> Result<(), BpfError> {
        self.with(|it| it.rules[index(family)][at] = to);
        Ok(())
    }
    fn count(&self, family: Family, at: usize, port: PortId) -> Result<Blocked, BpfError> {
        Ok(self.with(|it| it.counts[index(family)][at][port.index()]))
    }
    fn set_mac(&mut self, port: PortId, mac: Option<Mac>) -> Result<(), BpfError> {
        self.with(|it| it.macs[port.index()] = mac);
        Ok(())
    }
    fn remains(&self, alive: &dyn Fn(u32) -> bool) -> Result<Remains, BpfError> {
        self.with(|it| it.entries.retain(|(table, ..), _| alive(*table)));
        Ok(Remains::default())
    }
    fn bury(&mut self, _: &mut Remains, _: usize) -> Result<bool, BpfError> {
        Ok(false)
    }
    fn quiesce(&self) -> io::Result<()> {
        Ok(())
    }
}

/// What leaves an engine, in order.
#[derive(Debug, Default, PartialEq)]
struct Seen(Vec<(PortId, Vec<u8>)>, Vec<String>);

impl Effects for Seen {
    fn emit(&mut self, port: PortId, frame: &[u8]) -> bool {
        self.0.push((port, frame.to_vec()));
        true
    }
    fn hold(
        &mut self,
        _: PortId,
        _: (Family, u128),
        _: &[u8],
    ) -> Result<(), dataplane::verdict::DropReason> {
        Err(DropReason::NeighbourUnresolved)
    }
    fn deliver(&mut self, _: Option<PortId>, _: &[u8]) {}
    fn log(&mut self, record: &LogRecord<'_>) {
        self.1.push(format!("{:?} {:?}", record.place, record.parsed));
    }
    fn want_neighbour(&mut self, _: PortId, _: Family, _: u128) {}
}

/// Rules, drops by reason, packets and bytes of ports.
type Counted = (Vec<String>, BTreeMap<String, u64>, Vec<(u64, u64)>);

/// One gateway.
struct Side {
    sets: Arc<Registry>,
    store: PolicyStore,
    network: Network,
    conntrack: Conntrack,
    engine: Engine,
    stats: WorkerStats,
    seen: Seen,
    behind: Option<(Arc<Blocker>, Shared)>,
    now: Nanos,
}

const SETS: [(&str, &str); 9] = [
    ("ip", "hash:ip"),
    ("ip2", "hash:ip"),
    ("net", "hash:net"),
    ("net2", "hash:net"),
    ("counting", "hash:ip counters"),
    ("timed", "hash:ip timeout 600"),
    ("trap", "hash:ip"),
    ("ip6", "hash:ip family inet6"),
    ("net6", "hash:net family inet6"),
];

fn spec(text: &str) -> CreateSpec {
    let words: Vec<&str> = text.split(' ').collect();
    let mut spec = CreateSpec::new(SetType::named(words[0]).unwrap());
    spec.counters = words.contains(&"counters");
    spec.timeout = words.contains(&"timeout").then_some(600);
    if words.contains(&"inet6") {
        spec.family = Family::V6;
    }
    spec
}

fn name(text: &str) -> SetName {
    SetName::new(text).unwrap()
}

impl Side {
    fn new(policy: &Written, room: Option<u32>) -> Self {
        let sets = Arc::new(Registry::new(1));
        for (set, kind) in SETS {
            sets.create(name(set), spec(kind), false).unwrap();
        }
        let file = TopologyFile::parse(Path::new("topology"), TOPOLOGY).unwrap();
        let network = Network::build(&file.topology).unwrap();
        let ports = vec!["eth0".to_owned(), "eth1".to_owned()];
        let store = PolicyStore::open_with(policy.change(), ports, 1, Arc::clone(&sets)).unwrap();
        let behind = room.map(|room| {
            let program = Shared::default();
            program.with(|it| it.size = BlocklistSize { hosts: [room; 2], nets: room });
            let blocker = Blocker::new(Box::new(program.clone()), 2).unwrap();
            store.go_ahead(Arc::clone(&blocker) as Arc<dyn Ahead>);
            blocker.adopt(&network);
            (blocker, program)
        });
        Self {
            sets,
            store,
            network,
            conntrack: Conntrack::new(Tracking::new([0; 16])).unwrap(),
            engine: Engine::new(),
            stats: WorkerStats::default(),
            seen: Seen::default(),
            behind,
            now: Nanos::from_secs(1),
        }
    }

    /// What became of a frame; `None`: it was dropped before the engine.
    fn feed(&mut self, port: PortId, frame: &[u8]) -> Option<(Disposition, Vec<u8>)> {
        self.now = self.now + Nanos::MILLISECOND;
        if let Some((_, program)) = &self.behind
            && program.with(|it| it.blocks(port, frame))
        {
            return None;
        }
        let mut buf = [&[0; 256], frame, &[0; 256]].concat();
        let disposition = Disposition::Drop(DropReason::FrameTruncated);
        let mut burst = [Slot { buf: &mut buf, start: 256, len: frame.len(), port, disposition }];
        let snapshot = self.store.read(|view| Arc::clone(view.snapshot()));
        let world = World {
            snapshot: &snapshot,
            worker: 0,
            network: &self.network,
            conntrack: &self.conntrack,
            stats: &self.stats,
            now: self.now,
        };
        self.engine.process(&world, &mut burst, &mut self.seen);
        let [slot] = burst;
        self.stats.port(port).rx.bump(frame.len() as u64);
        if let Disposition::Drop(reason) = slot.disposition {
            self.stats.drop(reason);
        }
        Some((slot.disposition, slot.frame().to_vec()))
    }

    fn entries(&self) -> Vec<(SetName, Vec<Entry>)> {
        let tell = |slot: &Arc<dataplane::sets::Slot>| {
            let set = slot.set();
            let (mut entries, _) = set.entries(Cursor::default(), 1000, self.now);
            entries.sort_by_key(|entry| format!("{entry:?}"));
            (slot.name(), entries)
        };
        self.sets.list().iter().map(tell).collect()
    }

    /// Everything that is counted: rules, drops, ports.
    fn counted(&self) -> Counted {
        let rules = self.store.read(|view| {
            [Family::V4, Family::V6].map(|family| format!("{:?}", view.counted(family)))
        });
        let mut drops: BTreeMap<String, u64> = BTreeMap::new();
        for reason in DropReason::ALL {
            drops.insert(reason.name().to_owned(), self.stats.drops(*reason));
        }
        let mut ports: Vec<_> = [0, 1].map(|at| self.stats.port(PortId(at)).rx.get()).into();
        if let Some((blocker, _)) = &self.behind {
            for (at, port) in ports.iter_mut().enumerate() {
                let blocked = blocker.on_port(PortId(at as u8));
                *port = (port.0 + blocked.packets, port.1 + blocked.frame_bytes);
                *drops.get_mut("rule").unwrap() += blocked.packets;
            }
        }
        (rules.into(), drops, ports)
    }

    fn blocked(&self) -> u64 {
        self.behind.as_ref().map_or(0, |(blocker, _)| {
            [0, 1].iter().map(|at| blocker.on_port(PortId(*at)).packets).sum()
        })
    }
}

/// A policy as its rules are written.
#[derive(Clone, Debug)]
struct Written {
    table: &'static str,
    v4: Vec<&'static str>,
    v6: Vec<&'static str>,
    tracked: bool,
}

impl Written {
    fn change(&self) -> Change {
        let text = |rules: &[&str]| {
            let table = self.table;
            let rules: String =
                rules.iter().map(|rule| format!("-A PREROUTING {rule}\n")).collect();
            let state = if self.tracked { "-m conntrack --ctstate NEW,RELATED" } else { "" };
            format!(
                "*{table}\n:PREROUTING ACCEPT [0:0]\n{rules}COMMIT\n*filter\n:FORWARD ACCEPT [0:0]\n\
                 -A FORWARD {state} -p udp -j ACCEPT\n-A FORWARD -p tcp -j DROP\nCOMMIT\n"
            )
        };
        let names = TableNames::well_known();
        let parse = |rules: &[&str], family| {
            let text = text(rules);
            let parsed = iptables::parse(&text, "rules", family, &names);
            parsed.unwrap_or_else(|error| panic!("{text}{error:?}")).ruleset
        };
        let (v4, v6) = (parse(&self.v4, Family::V4), parse(&self.v6, Family::V6));
        Change { v4: Some(v4), v6: Some(v6), ..Change::default() }
    }
}

fn rule4() -> impl Strategy<Value = &'static str> {
    let blocklist = prop_oneof![
        Just("-m set --match-set ip src -j DROP"),
        Just("-m set --match-set net src -j DROP"),
        Just("-m set --match-set ip2 src -j DROP"),
        Just("-m set --match-set net2 src -j DROP"),
        Just("-i eth0 -m set --match-set ip src -j DROP"),
        Just("-i eth1 -m set --match-set net src -j DROP"),
        Just("! -i eth0 -m set --match-set net2 src -j DROP"),
    ];
    let others = prop_oneof![
        Just("-i lo -j ACCEPT"),
        Just("-s 10.0.0.1 -j ACCEPT"),
        Just("-p udp -m set --match-set ip src -j DROP"),
        Just("-m set --match-set ip src"),
        Just("-m set ! --match-set net src -j DROP"),
        Just("-m set --match-set counting src -j DROP"),
        Just("-m set --match-set timed src -j DROP"),
        Just("-m set --match-set trap src -j DROP"),
        Just("-i eth1 -p udp -m udp --dport 9 -j DROP"),
        Just("-p tcp -m tcp --dport 80 -j LOG"),
        Just("-s 10.0.0.4/30 -j SET --add-set trap src"),
        Just("-s 10.0.0.9 -j SET --del-set ip2 src"),
    ];
    prop_oneof![4 => blocklist, 1 => others]
}

fn rule6() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("-m set --match-set ip6 src -j DROP"),
        Just("-m set --match-set net6 src -j DROP"),
        Just("-i eth0 -m set --match-set net6 src -j DROP"),
        Just("-p tcp -m set --match-set net6 src -j DROP"),
    ]
}

fn written() -> impl Strategy<Value = Written> {
    let table = prop_oneof![3 => Just("raw"), 1 => Just("mangle")];
    let v4 = prop::collection::vec(rule4(), 0..7);
    let v6 = prop::collection::vec(rule6(), 0..3);
    (table, v4, v6, any::<bool>()).prop_map(|(table, v4, v6, tracked)| Written {
        table,
        // The raw table's.
        v4: v4.into_iter().filter(|rule| table == "raw" || !rule.contains("SET")).collect(),
        v6,
        tracked,
    })
}

#[derive(Clone, Debug)]
enum Act {
    Frame { port: u8, source: u8, kind: u8, v6: bool },
    Add { set: usize, source: u8, bits: u8, nomatch: bool },
    Del { set: usize, source: u8, bits: u8 },
    Flush(usize),
    Swap(usize),
    Install(Written),
    Steps(u8),
}

fn act() -> impl Strategy<Value = Act> {
    let sets = SETS.len();
    prop_oneof![
        12 => (0..2u8, 0..12u8, 0..14u8, prop::bool::weighted(0.2))
            .prop_map(|(port, source, kind, v6)| Act::Frame { port, source, kind, v6 }),
        6 => (0..sets, 0..12u8, 0..4u8, prop::bool::weighted(0.2))
            .prop_map(|(set, source, bits, nomatch)| Act::Add { set, source, bits, nomatch }),
        3 => (0..sets, 0..12u8, 0..4u8)
            .prop_map(|(set, source, bits)| Act::Del { set, source, bits }),
        1 => (0..sets).prop_map(Act::Flush),
        1 => (0..3usize).prop_map(Act::Swap),
        1 => written().prop_map(Act::Install),
        4 => (0..20u8).prop_map(Act::Steps),
    ]
}

fn element(set: usize, source: u8, bits: u8) -> Element {
    let spec = spec(SETS[set].1);
    let (base, all) = match spec.family {
        Family::V4 => (0x0a00_0000, 32),
        Family::V6 => (0x2001_0db8_0009_u128 << 80, 128),
    };
    let ip = base + u128::from(source) + 1;
    let cidr = (spec.kind == SetType::HashNet).then_some(all - bits);
    let ip = ip >> cidr.map_or(0, |_| bits) << cidr.map_or(0, |_| bits);
    Element { ip, cidr, ..Element::default() }
}

fn frame(port: u8, source: u8, kind: u8, v6: bool) -> Vec<u8> {
    let (from, to) = match v6 {
        false => (format!("10.0.0.{}", source + 1), "198.18.2.2"),
        true => (format!("2001:db8:9::{:x}", source + 1), "2001:db8:2::2"),
    };
    let udp = |dport| Packet::udp(&from, 9, to, dport).payload(&[1; 8]);
    let packet = match kind {
        0..=3 => udp(9),
        4 => Packet::tcp(&from, 9, to, 80, 2),
        5 => udp(67),
        _ => udp(80),
    };
    let mut bytes = packet.macs(Mac([2, 0, 0, 0, 9, 9]), PORTS[usize::from(port)]).build();
    match (kind, v6) {
        (6, _) => bytes[5] ^= 7,
        (7, _) => bytes[..6].copy_from_slice(&[0xff; 6]),
        (8, false) => bytes[24] ^= 1,
        (9, false) => bytes[20] = 0x20,
        (10, _) => bytes.truncate(40),
        (11, _) => bytes.extend([0; 9]),
        (12, true) => bytes[20] = 60,
        (13, false) => bytes[14] = 0x46,
        _ => {}
    }
    if matches!(kind, 9 | 13)
        && !v6
        && let Ok(mut ip) = ipv4::Packet::new_header(&mut bytes[14..])
    {
        ip.fill_checksum();
    }
    bytes
}

/// The two sides of a comparison: without a program, and behind one.
struct Pair([Side; 2]);

impl Pair {
    fn new(policy: &Written, room: u32) -> Self {
        Self([Side::new(policy, None), Side::new(policy, Some(room))])
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Frame { port, source, kind, v6 } => {
                let frame = frame(*port, *source, *kind, *v6);
                let [alone, behind] = &mut self.0;
                let expected = alone.feed(PortId(*port), &frame);
                match behind.feed(PortId(*port), &frame) {
                    None => {
                        let dropped = expected.map(|(disposition, _)| disposition);
                        assert_eq!(dropped, Some(Disposition::Drop(DropReason::Rule)));
                    }
                    found => assert_eq!(found, expected),
                }
            }
            Act::Steps(steps) => {
                let [_, behind] = &self.0;
                let Some((blocker, _)) = &behind.behind else { return };
                (0..*steps).for_each(|_| _ = blocker.step());
            }
            Act::Install(policy) => {
                for side in &self.0 {
                    side.store.install(policy.change()).unwrap();
                }
            }
            _ => self.0.iter().for_each(|side| change(side, act)),
        }
    }

    fn settle(&self) {
        let [_, behind] = &self.0;
        let Some((blocker, _)) = &behind.behind else { return };
        while blocker.step() {}
    }

    fn compare(&self) {
        let [alone, behind] = &self.0;
        assert_eq!(behind.counted(), alone.counted());
        assert_eq!(behind.entries(), alone.entries());
        assert_eq!(behind.seen, alone.seen);
    }
}

fn change(side: &Side, act: &Act) {
    let slot = |set: usize| side.sets.get(&name(SETS[set].0)).unwrap();
    match act {
        Act::Add { set, source, bits, nomatch } => {
            let element = element(*set, *source, *bits);
            let nomatch = *nomatch && element.cidr.is_some();
            let extras = Extras { nomatch, ..Extras::default() };
            side.sets.add(&slot(*set), &element, &extras, true, side.now).unwrap();
        }
        Act::Del { set, source, bits } => {
            let element = element(*set, *source, *bits);
            side.sets.del(&slot(*set), &element, true, side.now).unwrap();
        }
        Act::Flush(set) => slot(*set).set().flush(),
        Act::Swap(which) => {
            let (one, other) = [("ip", "ip2"), ("net", "net2"), ("ip", "timed")][*which];
            side.sets.swap(&name(one), &name(other)).unwrap();
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(80))]
    #[test]
    fn a_program_ahead_changes_nothing_that_can_be_seen(
        policy in written(),
        room in prop_oneof![Just(3_u32), Just(1000)],
        acts in prop::collection::vec(act(), 1..120),
    ) {
        let mut pair = Pair::new(&policy, room);
        for act in &acts {
            pair.act(act);
        }
        pair.compare();
        pair.settle();
        for act in &acts {
            pair.act(act);
        }
        pair.compare();
    }
}

/// The same for one policy, with counts that show that something was dropped ahead.
#[test]
fn what_is_pushed_is_dropped_ahead() {
    let list = "-m set --match-set ip src -j DROP";
    let nets = "-m set --match-set net src -j DROP";
    let policy = Written { table: "raw", v4: vec![list, nets], v6: vec![], tracked: true };
    let mut pair = Pair::new(&policy, 1000);
    let frame = |source| Act::Frame { port: 0, source, kind: 0, v6: false };
    let add = |set, source, bits| Act::Add { set, source, bits, nomatch: false };
    pair.act(&add(0, 1, 0));
    pair.act(&frame(1));
    assert_eq!(pair.0[1].blocked(), 0, "nothing is pushed yet");
    pair.settle();
    pair.act(&frame(1));
    assert_eq!(pair.0[1].blocked(), 1);
    // Elements that come and go are followed at once.
    pair.act(&add(0, 2, 0));
    pair.act(&add(2, 4, 2));
    (2..6).for_each(|source| pair.act(&frame(source)));
    assert_eq!(pair.0[1].blocked(), 5, "one, and a network of four that has three of them");
    pair.act(&Act::Del { set: 0, source: 2, bits: 0 });
    pair.act(&frame(2));
    pair.compare();
    let told = pair.0[1].behind.as_ref().unwrap().0.info();
    assert!(told.rules.iter().all(|rule| rule.pushed && rule.why.is_none()), "{told:?}");
    // A new policy with the same rules goes on where this one was.
    pair.act(&Act::Install(policy));
    let before = pair.0[1].blocked();
    pair.act(&frame(1));
    assert_eq!(pair.0[1].blocked(), before, "until the thread has its turn");
    pair.settle();
    pair.act(&frame(1));
    assert_eq!(pair.0[1].blocked(), before + 1);
    // An emptied set, and one that is swapped for another.
    pair.act(&Act::Flush(0));
    pair.act(&frame(1));
    pair.act(&Act::Swap(1));
    pair.act(&frame(4));
    assert_eq!(pair.0[1].blocked(), before + 1);
    pair.compare();
    pair.settle();
    pair.act(&add(0, 1, 0));
    pair.act(&frame(1));
    assert_eq!(pair.0[1].blocked(), before + 2);
    pair.compare();
}

#[test]
fn reasons_are_told() {
    let rules = vec![
        "-i eth0 -m set --match-set timed src -j DROP",
        "-m set --match-set ip src -j DROP",
        "-p udp -m set --match-set ip src -j DROP",
    ];
    let policy = Written { table: "raw", v4: rules, v6: vec![], tracked: false };
    let pair = Pair::new(&policy, 1000);
    pair.settle();
    let told = pair.0[1].behind.as_ref().unwrap().0.info();
    let why: Vec<_> = told.rules.iter().map(|rule| rule.why.clone().unwrap()).collect();
    assert_eq!(why[0], "elements of its set expire");
    assert_eq!(why[1], "a rule before it is not, or not all, pushed");
    assert_eq!(why[2], "it asks for more than -i and one set");
    // Room.
    let list = "-m set --match-set ip src -j DROP";
    let policy = Written { table: "raw", v4: vec![list], v6: vec![], tracked: false };
    let mut pair = Pair::new(&policy, 3);
    for source in 0..5 {
        pair.act(&Act::Add { set: 0, source, bits: 0, nomatch: false });
    }
    pair.settle();
    let told = &pair.0[1].behind.as_ref().unwrap().0.info().rules[0];
    assert_eq!((told.pushed, told.elements, told.held), (true, 5, 3));
    assert_eq!(told.why.as_deref(), Some("2 elements have no room in the program"));
}
