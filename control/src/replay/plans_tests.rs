//! Plans on and off: one policy, one sequence of frames over a few flows, two replays, of
//! which one follows plans. Nothing may tell them apart.

use std::net::{IpAddr, Ipv4Addr};

use dataplane::conntrack::Tuple;
use dataplane::engine::Switches;
use dataplane::packet::Mac;
use dataplane::policy::Hook;
use dataplane::wire::build::{L4, Packet, Tcp};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::topology::TopologyFile;
use super::*;
use crate::interpret::generate;
use crate::iptables;
use crate::model::{Table, TargetSpec};

const TOPOLOGY: &str = r#"
mode = "routed"
[[port]]
name = "eth0"
mac = "02:00:00:00:01:01"
addresses = ["198.18.1.254/24"]
[[port]]
name = "eth1"
mac = "02:00:00:00:01:02"
addresses = ["198.18.2.254/24"]
[[route]]
to = "198.51.100.0/24"
via = "198.18.2.1"
dev = "eth1"
[[neighbour]]
dev = "eth0"
address = "198.18.1.1"
mac = "02:00:00:00:02:01"
[[neighbour]]
dev = "eth0"
address = "198.18.1.2"
mac = "02:00:00:00:02:03"
[[neighbour]]
dev = "eth1"
address = "198.18.2.1"
mac = "02:00:00:00:02:02"
"#;

const NATS: [&str; 4] = [
    "",
    "*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n\
     -A POSTROUTING -o eth1 -j MASQUERADE\nCOMMIT\n",
    "*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n\
     -A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 198.18.2.1:8080\nCOMMIT\n",
    "*nat\n:PREROUTING ACCEPT\n:INPUT ACCEPT\n:OUTPUT ACCEPT\n:POSTROUTING ACCEPT\n\
     -A PREROUTING -i eth0 -j DNAT --to-destination 198.18.2.1\n\
     -A POSTROUTING -o eth1 -p tcp -j SNAT --to-source 198.18.2.254:5000-5999\n\
     -A POSTROUTING -o eth1 -p udp -j SNAT --to-source 198.18.2.254:5000-5999\nCOMMIT\n",
];

const TRACKED: &str = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";

/// A policy whose rules rarely end packets, so that flows live.
fn policy() -> impl Strategy<Value = Ruleset> {
    let mangled = select(vec![Hook::Prerouting, Hook::Forward, Hook::Postrouting]);
    (
        generate::table(TableId::Filter, Family::V4, "FORWARD"),
        mangled
            .prop_flat_map(|hook| generate::table(TableId::Mangle, Family::V4, hook.chain_name())),
        generate::table(TableId::Raw, Family::V4, "PREROUTING"),
        (0..8_usize, 0..5_usize, 0..3_usize),
        (select(&NATS[..]), any::<bool>(), 0..4_u8),
    )
        .prop_map(|(filter, mangle, raw, (some, few, fewer), (nat, established, mercy))| {
            let first = format!(
                "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n{TRACKED}COMMIT\n{nat}"
            );
            let names = iptables::TableNames::well_known();
            let mut rules = iptables::parse(&first, "first", Family::V4, &names).unwrap().ruleset;
            let ended = rules.tables.iter().position(|table| table.id == TableId::Filter);
            let tracked = rules.tables.remove(ended.unwrap());
            let forward = tracked.chains.iter().find(|chain| chain.name == "FORWARD");
            let tracked = forward.unwrap().rules[0].clone();
            for (mut table, most) in [(filter, some), (mangle, few), (raw, fewer)] {
                soften(&mut table, most, mercy);
                match table.id {
                    TableId::Filter if established => {
                        let at = table.chains[0].rules.len() / 2;
                        table.chains[0].rules.insert(at, tracked.clone());
                    }
                    // Whatever is there, connections are tracked.
                    TableId::Filter => table.chains[0].rules.push(tracked.clone()),
                    _ => {}
                }
                rules.tables.push(table);
            }
            rules
        })
}

fn soften(table: &mut Table, most: usize, mercy: u8) {
    for chain in &mut table.chains {
        chain.rules.truncate(most);
        if let Some((policy, _)) = &mut chain.policy {
            *policy = dataplane::policy::ChainPolicy::Accept;
        }
        for rule in &mut chain.rules {
            let ends = matches!(rule.target, TargetSpec::Drop | TargetSpec::Reject(_));
            let reports = matches!(
                rule.target,
                TargetSpec::Log(_) | TargetSpec::Report(_) | TargetSpec::Ct(_)
            );
            if (ends || reports) && mercy > 0 {
                rule.target = TargetSpec::None;
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// So many packets of a flow each way.
    Talk {
        flow: usize,
        times: u8,
        flags: u8,
        length: usize,
        tos: u8,
        ttl: u8,
    },
    Mark {
        flow: usize,
        mark: u32,
    },
    Delete {
        flow: usize,
    },
    Swap,
    Network {
        mtu: u32,
        mac: u8,
    },
    Wait {
        ms: u64,
    },
}

const FLOWS: usize = 6;

fn op() -> impl Strategy<Value = Op> {
    let flags = select(vec![0x10_u8, 0x10, 0x18, 0x18, 0x02, 0x11, 0x14, 0x38]);
    let length = select(vec![0_usize, 1, 20, 500, 1200, 1460]);
    let tos = select(vec![0_u8, 0, 0, 0x28, 4]);
    let ttl = select(vec![64_u8, 64, 63, 2, 1]);
    let talk = (0..FLOWS, 1..4_u8, flags, length, tos, ttl).prop_map(
        |(flow, times, flags, length, tos, ttl)| Op::Talk { flow, times, flags, length, tos, ttl },
    );
    prop_oneof![
        40 => talk,
        3 => (0..FLOWS, 0..4_u32).prop_map(|(flow, mark)| Op::Mark { flow, mark }),
        1 => (0..FLOWS).prop_map(|flow| Op::Delete { flow }),
        1 => Just(Op::Swap),
        1 => (select(vec![1500_u32, 1280]), 0..3_u8).prop_map(|(mtu, mac)| Op::Network { mtu, mac }),
        3 => select(vec![1_u64, 100, 2500]).prop_map(|ms| Op::Wait { ms }),
    ]
}

/// How a flow looks on the other side, and where its streams stand.
#[derive(Clone, Copy, Debug, Default)]
struct Talk {
    outside: Option<[u8; 12]>,
    sent: [u32; 2],
}

struct Pair {
    both: [Replay; 2],
    policies: [Ruleset; 2],
    turn: usize,
    talks: [Talk; FLOWS],
    at: Nanos,
}

fn network(mtu: u32, mac: u8) -> Arc<Network> {
    let file = TopologyFile::parse(std::path::Path::new("topo.toml"), TOPOLOGY).unwrap();
    let mut topology = file.topology;
    topology.ports.iter_mut().for_each(|port| port.mtu = mtu);
    topology.neighbours.iter_mut().for_each(|neighbour| neighbour.mac.0[1] = mac);
    Arc::new(Network::build(&topology).unwrap())
}

fn flow_tuple(flow: usize) -> (Tuple, bool) {
    let tcp = !flow.is_multiple_of(3);
    let ip = |a, b, c, d| u128::from(u32::from_be_bytes([a, b, c, d]));
    let src = [ip(198, 18, 1, 1), ip(198, 18, 1, 2)][flow % 2];
    let dst = [ip(198, 18, 2, 1), ip(198, 51, 100, 7)][flow / 2 % 2];
    let (sport, dport) = ([1024, 65535, 80][flow % 3], [80, 443, 22][flow / 2]);
    let proto = if tcp { 6 } else { 17 };
    (Tuple { family: Family::V4, proto, src, dst, sport, dport, zone: 0 }, tcp)
}

impl Pair {
    fn new(policies: [Ruleset; 2], liberal: bool) -> Option<Self> {
        let replay = |plans| {
            let mut config = Config::new(hash_key(7));
            config.set("tcp_be_liberal", liberal.into()).unwrap();
            config.set("acct", 1).unwrap();
            config.set("max", 64).unwrap();
            let other = Ruleset::empty(Family::V6);
            let replay = Replay::over(network(1500, 0), policies[0].clone(), other, config);
            let mut replay = replay.ok()?;
            replay.engine.set_switches(Switches::all(plans));
            Some(replay)
        };
        let both = [replay(false)?, replay(true)?];
        let at = Nanos::from_secs(1_700_000_000);
        Some(Self { both, policies, turn: 0, talks: Default::default(), at })
    }

    fn feed(&mut self, port: u8, frame: &[u8]) -> Fed {
        let source = Source::Port(PortId(port));
        let [plain, planned] =
            self.both.each_mut().map(|replay| replay.feed(source, self.at, frame));
        assert_eq!(format!("{plain:?}"), format!("{planned:?}"));
        planned
    }

    fn compare(&self) {
        let counts = self.both.each_ref().map(|replay| {
            let ids = 0..replay.snapshot.policy.counters;
            ids.map(|id| replay.count(CounterId(id))).collect::<Vec<_>>()
        });
        assert_eq!(counts[0], counts[1]);
        let rows = self.both.each_ref().map(|replay| {
            replay.conntrack.rows(replay.now).map(|row| format!("{row:?}")).collect::<Vec<_>>()
        });
        assert_eq!(rows[0], rows[1]);
        let len = self.both.each_ref().map(|replay| replay.conntrack.len());
        assert_eq!(len[0], len[1]);
    }

    fn talk(&mut self, flow: usize, flags: u8, length: usize, (tos, ttl): (u8, u8)) {
        let (tuple, tcp) = flow_tuple(flow);
        for way in [0, 1] {
            let ip = |bits: u128| IpAddr::V4(Ipv4Addr::from_bits(bits as u32));
            let (from, to) = match (way, self.talks[flow].outside) {
                (0, _) => ((ip(tuple.src), tuple.sport), (ip(tuple.dst), tuple.dport)),
                (_, Some([a, b, c, d, e, f, g, h, i, j, k, l])) => {
                    let [one, other] = [[a, b, c, d], [e, f, g, h]].map(|it| IpAddr::V4(it.into()));
                    let (sport, dport) = (u16::from_be_bytes([i, j]), u16::from_be_bytes([k, l]));
                    ((other, dport), (one, sport))
                }
                (_, None) => return,
            };
            let talk = &mut self.talks[flow];
            let (seq, ack) = (talk.sent[way], talk.sent[1 - way]);
            let l4 = match tcp {
                true => L4::Tcp(Tcp::new(from.1, to.1, flags)),
                false => L4::Udp { sport: from.1, dport: to.1, length: None, lite: false },
            };
            let mut packet =
                Packet::between(from.0, to.0, l4).ttl(ttl).tos(tos).payload_len(length);
            if tcp {
                packet = packet.seq(seq, ack);
            }
            let host = Mac([2, 0, 0, 0, 2, 9]);
            let frame = packet.macs(host, Mac([2, 0, 0, 0, 1, way as u8 + 1])).build();
            let fed = self.feed(way as u8, &frame);
            let passed = fed.sent.iter().find(|sent| sent.port == PortId(1 - way as u8));
            if let Some(sent) = passed.filter(|_| fed.reason.is_none()) {
                let talk = &mut self.talks[flow];
                talk.sent[way] = seq.wrapping_add(length as u32 + u32::from(flags & 3 != 0));
                if way == 0 {
                    talk.outside = sent.frame[26..38].try_into().ok();
                }
            }
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Talk { flow, times, flags, length, tos, ttl } => {
                for _ in 0..times {
                    self.talk(flow, flags, length, (tos, ttl));
                }
            }
            Op::Mark { flow, .. } | Op::Delete { flow } => {
                let (tuple, _) = flow_tuple(flow);
                for replay in &mut self.both {
                    let mut rows = replay.conntrack.rows(replay.now);
                    let found = rows.find(|row| row.view.original == tuple).map(|row| row.view.id);
                    drop(rows);
                    match (found, op) {
                        (Some(id), Op::Mark { mark, .. }) => {
                            assert!(replay.conntrack.set_mark(id, *mark))
                        }
                        (Some(id), _) => assert!(replay.conntrack.remove(id)),
                        (None, _) => {}
                    }
                }
            }
            Op::Swap => {
                self.turn = 1 - self.turn;
                for replay in &mut self.both {
                    let _ = replay.install(self.policies[self.turn].clone());
                }
            }
            Op::Network { mtu, mac } => {
                for replay in &mut self.both {
                    replay.network = network(mtu, mac);
                }
            }
            Op::Wait { ms } => self.at = self.at + Nanos::from_millis(ms),
        }
        self.compare();
    }
}

#[test]
fn nothing_tells_who_follows_plans() {
    let mut runner = TestRunner::deterministic();
    let (mut followed, mut packets) = (0, 0);
    let cases = (policy(), policy(), any::<bool>(), vec(op(), 60));
    for _ in 0..CASES {
        let (one, other, liberal, ops) = cases.new_tree(&mut runner).unwrap().current();
        let Some(mut pair) = Pair::new([one, other], liberal) else { continue };
        ops.iter().for_each(|op| pair.run(op));
        followed += pair.both[1].stats.plans.followed.get();
        assert_eq!(pair.both[0].stats.plans.followed.get(), 0, "the plain one is plain");
        packets += pair.both[1].fed;
    }
    assert!(followed * 10 > packets, "{followed} of {packets} packets followed plans");
    println!("{followed} of {packets} packets followed plans");
}

/// Policies that are tried.
const CASES: usize = 60;
