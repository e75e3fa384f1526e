//! What the engine takes for a frame that a rule in raw PREROUTING drops.

use std::path::Path;
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, Conntrack};
use dataplane::effects::{Effects, LogRecord};
use dataplane::engine::{BURST, Engine, Slot, World};
use dataplane::fib::Network;
use dataplane::packet::{Family, PortId};
use dataplane::sets::{CreateSpec, Element, Extras, Registry, SetName, SetType};
use dataplane::stats::WorkerStats;
use dataplane::verdict::{Disposition, DropReason};
use portcullis::apply::{Change, PolicyStore};
use portcullis::iptables::{self, TableNames};
use portcullis::replay::topology::TopologyFile;
use serde_json::{Value, json};

use crate::blocklist::List;
use crate::clock::Stopwatch;

const TOPOLOGY: &str = "mode = \"routed\"\n[[port]]\nname = \"g0\"\n\
     mac = \"02:00:00:00:01:01\"\naddresses = [\"198.18.1.1/24\"]\n";
const RULES: &str = "-A PREROUTING -m set --match-set hosts src -j DROP\n\
     -A PREROUTING -m set --match-set nets src -j DROP\n";
const HEADROOM: usize = 256;

/// Nothing leaves.
struct Nowhere;

impl Effects for Nowhere {
    fn emit(&mut self, _: PortId, _: &[u8]) -> bool {
        false
    }
    fn hold(&mut self, _: PortId, _: (Family, u128), _: &[u8]) -> Result<(), DropReason> {
        Err(DropReason::NeighbourUnresolved)
    }
    fn deliver(&mut self, _: Option<PortId>, _: &[u8]) {}
    fn log(&mut self, _: &LogRecord<'_>) {}
    fn want_neighbour(&mut self, _: PortId, _: Family, _: u128) {}
}

fn fill(sets: &Registry, name: &str, kind: SetType, elements: &[Element]) -> Result<u64, Error> {
    let name = SetName::new(name)?;
    let maxelem = (elements.len() * 2 + 1024) as u32;
    sets.create(name, CreateSpec { maxelem, ..CreateSpec::new(kind) }, false)?;
    let slot = sets.find(&name)?;
    for element in elements {
        sets.add(&slot, element, &Extras::default(), true, Nanos(0))?;
    }
    let header = slot.set().header();
    Ok(header.memory_bytes)
}

type Error = Box<dyn std::error::Error>;

/// One line for loading, and one for each kind of frame.
///
/// # Errors
/// A policy that does not load: a fault of this program.
pub(crate) fn measure(
    list: &List,
    frames: usize,
    rounds: usize,
    seed: u64,
) -> Result<Vec<Value>, Error> {
    let sets = Arc::new(Registry::new(seed));
    let loading = Stopwatch::start();
    let hosts = fill(&sets, "hosts", SetType::HashIp, &list.hosts)?;
    let nets = fill(&sets, "nets", SetType::HashNet, &list.nets)?;
    let mut lines = vec![json!({
        "bench": "blocklist", "side": "engine", "load_ms": loading.elapsed_ns() as f64 / 1e6,
        "addresses": list.hosts.len(), "networks": list.nets.len(),
        "memory_bytes": hosts + nets,
    })];
    for (kind, net, rules) in [
        ("none", false, "-A PREROUTING -j DROP\n"),
        ("listed address", false, RULES),
        ("listed network", true, RULES),
    ] {
        let text = format!("*raw\n:PREROUTING ACCEPT [0:0]\n{rules}COMMIT\n");
        let parsed = iptables::parse(&text, "bench", Family::V4, &TableNames::well_known());
        let parsed = parsed.map_err(|findings| format!("{} findings", findings.len()))?;
        let change = Change { v4: Some(parsed.ruleset), ..Change::default() };
        let store = PolicyStore::open_with(change, vec!["g0".to_owned()], 1, Arc::clone(&sets))?;
        let (ns, dropped) = flood(&store, &list.frames(seed, net), frames, rounds)?;
        lines.push(json!({
            "bench": "blocklist", "side": "engine", "frames": kind, "engine_ns": ns,
            "dropped": dropped,
        }));
    }
    Ok(lines)
}

/// Nanoseconds for a frame in the fastest round, and how many were dropped by a rule.
fn flood(
    store: &PolicyStore,
    frames: &[Vec<u8>],
    count: usize,
    rounds: usize,
) -> Result<(f64, usize), Error> {
    let file = TopologyFile::parse(Path::new("bench"), TOPOLOGY)?;
    let network = Network::build(&file.topology)?;
    let conntrack = Conntrack::new(Config::new([1; 16]))?;
    let stats = WorkerStats::default();
    let snapshot = store.read(|view| Arc::clone(view.snapshot()));
    let now = Nanos::from_secs(1);
    let world = World {
        snapshot: &snapshot,
        worker: 0,
        network: &network,
        conntrack: &conntrack,
        stats: &stats,
        now,
    };
    let mut engine = Engine::new();
    let mut buffers: Vec<Vec<u8>> =
        frames.iter().map(|frame| [&[0; HEADROOM], &frame[..], &[0; 64]].concat()).collect();
    let (mut best, mut dropped) = (f64::MAX, 0);
    for _ in 0..rounds {
        let watch = Stopwatch::start();
        let mut done = 0;
        while done < count {
            for (chunk, written) in buffers.chunks_mut(BURST).zip(frames.chunks(BURST)) {
                let slots = chunk.iter_mut().zip(written).map(|(buf, frame)| Slot {
                    buf,
                    start: HEADROOM,
                    len: frame.len(),
                    port: PortId(0),
                    disposition: Disposition::Deliver,
                });
                let mut burst: Vec<Slot<'_>> = slots.collect();
                engine.process(&world, &mut burst, &mut Nowhere);
                let rule = Disposition::Drop(DropReason::Rule);
                dropped += burst.iter().filter(|slot| slot.disposition == rule).count();
                done += burst.len();
            }
        }
        best = best.min(watch.elapsed_ns() as f64 / done as f64);
    }
    Ok((best, dropped))
}
