//! Swaps under a worker at full speed over frames in memory: every frame is counted, and
//! every burst's time, with swaps and without, in one run.
//!
//! A burst's time is told twice: by the clock on the wall, which also tells of whatever
//! else the machine does, and by the worker's own processor time, which does not.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use dataplane::conntrack::{Config, Conntrack};
use dataplane::effects::{Effects, LogRecord};
use dataplane::engine::{BURST, Slot};
use dataplane::fib::Network;
use dataplane::packet::{Family, Mac, PortId};
use dataplane::publish::Publisher;
use dataplane::stats::WorkerStats;
use dataplane::verdict::{Disposition, DropReason};
use dataplane::wire::build::Packet;
use dataplane::worker::{EnginePipeline, Pipeline};
use portcullis::apply::{Change, PolicyStore};
use portcullis::iptables::{self, TableNames};
use portcullis::replay::topology::TopologyFile;
use serde_json::{Value, json};

use super::Error;
use super::histogram::Histogram;
use super::texts::{self, Shape};
use crate::clock::Stopwatch;

const TOPOLOGY: &str = r#"
mode = "routed"
[[port]]
name = "eth0"
mac = "02:00:00:00:01:01"
addresses = ["172.16.0.1/16"]
[[port]]
name = "eth1"
mac = "02:00:00:00:01:02"
addresses = ["172.17.0.1/16"]
[[route]]
to = "172.18.0.0/16"
via = "172.16.0.2"
dev = "eth0"
[[route]]
to = "172.19.0.0/16"
via = "172.17.0.2"
dev = "eth1"
[[neighbour]]
dev = "eth0"
address = "172.16.0.2"
mac = "02:00:00:00:02:01"
[[neighbour]]
dev = "eth1"
address = "172.17.0.2"
mac = "02:00:00:00:02:02"
"#;
/// Connections.
const FLOWS: u16 = 1_000;
const HEADROOM: usize = 256;

/// What is done under load.
pub(super) struct Plan {
    pub(super) rules: usize,
    pub(super) every: Duration,
    pub(super) lasts: Duration,
    pub(super) workers: usize,
    pub(super) seed: u64,
}

/// Nothing of their own leaves.
#[derive(Default)]
struct Nowhere(u64);

impl Effects for Nowhere {
    fn emit(&mut self, _: PortId, _: &[u8]) -> bool {
        self.0 += 1;
        true
    }
    fn hold(&mut self, _: PortId, _: (Family, u128), _: &[u8]) -> Result<(), DropReason> {
        Err(DropReason::NeighbourUnresolved)
    }
    fn deliver(&mut self, _: Option<PortId>, _: &[u8]) {
        self.0 += 1;
    }
    fn log(&mut self, _: &LogRecord<'_>) {}
    fn want_neighbour(&mut self, _: PortId, _: Family, _: u128) {}
}

/// What one worker saw in one phase.
#[derive(Default)]
struct Seen {
    frames: u64,
    /// Frames that did not leave by the other port.
    lost: u64,
    adopted: u64,
    wall: Histogram,
    own: Histogram,
    /// Bursts at whose beginning a policy was adopted, by processor time.
    adopting: Histogram,
}

/// A worker's frames in the order in which they come: there and back by turns.
fn frames(worker: usize) -> Vec<(Vec<u8>, PortId)> {
    let one = |flow: u16, back: bool| {
        let ends = [format!("172.18.{worker}.{}", flow % 250), "172.19.0.9".to_owned()];
        let (client, server) = (&*ends[0], &*ends[1]);
        let (frame, port) = match back {
            false => (Packet::udp(client, 1_000 + flow, server, 53), 0),
            true => (Packet::udp(server, 53, client, 1_000 + flow), 1),
        };
        let mut frame = frame.payload_len(18).build();
        frame[..6].copy_from_slice(&Mac([2, 0, 0, 0, 1, 1 + port]).0);
        (frame, PortId(port))
    };
    (0..FLOWS).flat_map(|flow| [one(flow, false), one(flow, true)]).collect()
}

fn work(mut pipeline: EnginePipeline, stats: &WorkerStats, worker: usize, phase: &Phase) -> Seen {
    let frames = frames(worker);
    let stride = HEADROOM + 128;
    let mut memory = vec![0_u8; BURST * stride];
    let (mut seen, mut effects, mut next) = (Seen::default(), Nowhere::default(), 0);
    let mut generation = None;
    while !phase.over.load(Ordering::Relaxed) {
        let mut burst: Vec<Slot<'_>> = Vec::with_capacity(BURST);
        for buf in memory.chunks_mut(stride) {
            let (frame, port) = &frames[next];
            next = (next + 1) % frames.len();
            buf[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
            let (len, port, disposition) = (frame.len(), *port, Disposition::Deliver);
            burst.push(Slot { buf, start: HEADROOM, len, port, disposition });
        }
        let (own, wall) = (processor_time(), Stopwatch::start());
        pipeline.refresh();
        pipeline.process(&mut burst, monotonic(), &mut effects);
        let (wall, own) = (wall.elapsed_ns(), processor_time() - own);
        let now = stats.generation.get();
        let adopted = generation.replace(now).is_some_and(|before| before != now);
        seen.wall.add(wall);
        seen.own.add(own.0);
        if adopted {
            seen.adopted += 1;
            seen.adopting.add(own.0);
        }
        let other = |slot: &Slot<'_>| Disposition::Transmit(PortId(1 - slot.port.0));
        seen.frames += burst.len() as u64;
        seen.lost += burst.iter().filter(|slot| slot.disposition != other(slot)).count() as u64;
    }
    seen.lost += effects.0;
    seen
}

/// Time that this thread has had.
fn processor_time() -> Nanos {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Nanos::from_secs(now.tv_sec as u64) + Nanos(now.tv_nsec as u64)
}

#[derive(Default)]
struct Phase {
    over: AtomicBool,
}

/// Both phases by turns, and a line for each.
pub(super) fn run(plan: &Plan) -> Result<(), Error> {
    let tail = "-A FORWARD -s 172.18.0.0/16 -j ACCEPT\nCOMMIT\n";
    let policy = |seed| {
        let text = texts::text(Shape::Flat, Family::V4, plan.rules.saturating_sub(1), seed);
        text.replace("COMMIT\n", tail)
    };
    let policies = [policy(plan.seed), policy(plan.seed + 1)];
    let file = TopologyFile::parse(Path::new("bench"), TOPOLOGY)?;
    let networks = Publisher::new(Arc::new(Network::build(&file.topology)?));
    let conntrack = Arc::new(Conntrack::new(Config::new(*b"a key that is so"))?);
    let ports = vec!["eth0".to_owned(), "eth1".to_owned()];
    let first = Change { v4: Some(parse(&policies[0])?), ..Change::default() };
    let store = PolicyStore::open(first, ports, plan.workers)?;
    for swaps in [false, true, false, true] {
        let lines = phase(plan, &store, &networks, &conntrack, swaps.then_some(&policies[..]))?;
        lines.iter().for_each(|line| println!("{line}"));
    }
    Ok(())
}

fn parse(text: &str) -> Result<portcullis::model::Ruleset, Error> {
    let parsed = iptables::parse(text, "bench", Family::V4, &TableNames::well_known());
    Ok(parsed.map_err(|findings| format!("{} findings", findings.len()))?.ruleset)
}

fn phase(
    plan: &Plan,
    store: &PolicyStore,
    networks: &Publisher<Network>,
    conntrack: &Arc<Conntrack>,
    policies: Option<&[String]>,
) -> Result<Vec<Value>, Error> {
    let phase = Phase::default();
    let made = |worker| {
        let (snapshots, stats) = (store.subscribe(), Arc::new(WorkerStats::default()));
        let (networks, table) = (networks.subscribe(), Arc::clone(conntrack));
        let pipeline = EnginePipeline::new(worker, snapshots, networks, table, Arc::clone(&stats));
        (pipeline, stats, worker)
    };
    let (seen, swapped) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..plan.workers)
            .map(made)
            .map(|(pipeline, stats, worker)| {
                let phase = &phase;
                scope.spawn(move || work(pipeline, &stats, worker, phase))
            })
            .collect();
        let swapped = swap(plan, store, policies);
        phase.over.store(true, Ordering::Relaxed);
        let seen: Vec<Seen> = threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
        (seen, swapped)
    });
    let (swaps, slowest_ms) = swapped?;
    let lines = seen.iter().enumerate().map(|(worker, seen)| {
        json!({
            "bench": "swap-under-load", "rules": plan.rules, "worker": worker,
            "swaps": swaps, "adopted": seen.adopted, "slowest_swap_ms": slowest_ms,
            "frames": seen.frames, "lost": seen.lost,
            "burst_wall_ns": seen.wall.summary(), "burst_cpu_ns": seen.own.summary(),
            "adopting_burst_cpu_ns": seen.adopting.summary(),
        })
    });
    Ok(lines.collect())
}

/// How many swaps there were, and what the slowest took from text to adoption.
fn swap(
    plan: &Plan,
    store: &PolicyStore,
    policies: Option<&[String]>,
) -> Result<(usize, f64), Error> {
    let watch = Stopwatch::start();
    let (mut swaps, mut slowest_ns) = (0, 0);
    let over = || watch.elapsed_ns() >= plan.lasts.as_nanos() as u64;
    while !over() {
        let turn = Stopwatch::start();
        if let Some(policies) = policies {
            let ruleset = parse(&policies[(swaps + 1) % policies.len()])?;
            store.install(Change { v4: Some(ruleset), ..Change::default() })?;
            swaps += 1;
            slowest_ns = slowest_ns.max(turn.elapsed_ns());
        }
        let left = plan.every.saturating_sub(Duration::from_nanos(turn.elapsed_ns()));
        std::thread::sleep(left);
    }
    Ok((swaps, slowest_ns as f64 / 1e6))
}
