//! Portcullis's side where rules are replaced as the daemon replaces them: a
//! policy store, and an engine that takes each packet's rules from it.

use std::path::Path;
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, Conntrack};
use dataplane::effects::{Effects, LogRecord};
use dataplane::engine::{Engine, Slot, World};
use dataplane::fib::Network;
use dataplane::packet::{Family, PortId};
use dataplane::publish::Subscription;
use dataplane::snapshot::Snapshot;
use dataplane::stats::WorkerStats;
use dataplane::verdict::{Disposition, DropReason};
use portcullis::apply::{Change, PolicyStore};
use portcullis::iptables::{self, TableNames};
use portcullis::model::Counters;
use portcullis::replay::topology::TopologyFile;

use super::packet::Packet;
use super::script::Side;
use super::topology;
use crate::lab::{self, Sent, frames, port_mac};

/// Room in front of a frame, as a worker's pool leaves it.
const HEADROOM: usize = dataplane::port::HEADROOM;

/// A store of rules and one worker.
pub struct Store {
    policies: PolicyStore,
    worker: Subscription<Snapshot>,
    engine: Engine,
    network: Arc<Network>,
    conntrack: Conntrack,
    stats: WorkerStats,
    names: TableNames,
    now: Nanos,
}

impl Store {
    /// Without rules.
    pub fn new() -> Self {
        let file = TopologyFile::parse(Path::new("topo.toml"), &topology::text());
        let topology = file.unwrap_or_else(|error| panic!("{error}")).topology;
        let ports = (0..lab::PORTS).map(|port| format!("eth{port}")).collect();
        let policies = PolicyStore::open(Change::default(), ports, 1).expect("no rules");
        Self {
            worker: policies.subscribe(),
            policies,
            engine: Engine::new(),
            network: Arc::new(Network::build(&topology).expect("a network")),
            conntrack: Conntrack::new(Config::new([0; 16])).expect("a table"),
            stats: WorkerStats::default(),
            names: TableNames::of_host(),
            now: Nanos::from_secs(1_000),
        }
    }
}

/// Nothing that the router says by itself matters here.
struct Silent;

impl Effects for Silent {
    fn emit(&mut self, _: PortId, _: &[u8]) -> bool {
        true
    }
    fn hold(&mut self, _: PortId, _: (Family, u128), _: &[u8]) -> Result<(), DropReason> {
        Err(DropReason::NeighbourUnresolved)
    }
    fn deliver(&mut self, _: Option<PortId>, _: &[u8]) {}
    fn log(&mut self, _: &LogRecord<'_>) {}
    fn want_neighbour(&mut self, _: PortId, _: Family, _: u128) {}
}

impl Side for Store {
    fn name(&self) -> &'static str {
        "Portcullis"
    }
    fn load(&mut self, _v6: bool, text: &str, written: bool) {
        let parsed = iptables::parse_bytes(text.as_bytes(), "rules", Family::V4, &self.names);
        let rules = parsed.expect("accepted rules").ruleset;
        let change = Change { v4: Some(rules), v6: None, written_counters: written, sets: None };
        let (policies, worker) = (&self.policies, &mut self.worker);
        // The change waits for the worker, which is between two packets.
        std::thread::scope(|scope| {
            let change = scope.spawn(|| policies.install(change).expect("it applies"));
            while !change.is_finished() {
                worker.refresh();
                lab::clock::pause_ms(1);
            }
            assert!(change.join().expect("no panic").adopted);
        });
    }
    fn send(&mut self, packet: &Packet) -> Vec<Sent> {
        let port = packet.from.port.expect("somebody on a cable");
        let frame = frames::ip_frame(port_mac(port), packet.from.mac, &packet.ip);
        let mut buf = vec![0; HEADROOM + frame.len() + 128];
        buf[HEADROOM..][..frame.len()].copy_from_slice(&frame);
        self.now = self.now + Nanos::from_millis(1);
        let mut burst = [Slot {
            buf: &mut buf,
            start: HEADROOM,
            len: frame.len(),
            port: PortId(port as u8),
            disposition: Disposition::Drop(DropReason::FrameTruncated),
        }];
        let world = World {
            snapshot: self.worker.refresh(),
            worker: 0,
            network: &self.network,
            conntrack: &self.conntrack,
            stats: &self.stats,
            now: self.now,
        };
        self.engine.process(&world, &mut burst, &mut Silent);
        match burst[0].disposition {
            Disposition::Transmit(port) => {
                vec![Sent { port: port.index(), frame: burst[0].frame().to_vec() }]
            }
            _ => Vec::new(),
        }
    }
    fn wait_ms(&mut self, ms: u64) {
        self.now = self.now + Nanos::from_millis(ms);
    }
    fn saved(&self, _v6: bool) -> String {
        self.policies.read(|view| {
            let counted = |table, chain: &str, rule: Option<usize>| {
                let chain = view.counters().chain(Family::V4, table, chain);
                let counter = chain.and_then(|chain| match rule {
                    Some(index) => chain.rule(index),
                    None => chain.policy,
                });
                let (packets, bytes) = counter.map_or((0, 0), |counter| view.count(counter));
                Counters { packets, bytes }
            };
            iptables::print(view.rules(Family::V4), &self.names, Some(&counted))
        })
    }
    fn table(&mut self) -> Vec<String> {
        self.conntrack.rows(self.now).map(|row| row.to_string()).collect()
    }
    fn expectations(&self) -> Vec<String> {
        Vec::new()
    }
    fn sysctl(&mut self, name: &str, value: u64) {
        self.conntrack.set(name, value).expect("a sysctl");
    }
    fn delivered(&self) -> u64 {
        0
    }
    fn fill_table(&mut self) {
        unreachable!("nothing about full tables is told here");
    }
    fn table_drops(&self) -> u64 {
        self.conntrack.counters().drop
    }
}
