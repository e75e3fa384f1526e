//! Subjects made of this project's parts, on a thread of this process: the worker with
//! the engine, the worker that joins ports without looking, the bare rings.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use dataplane::clock::monotonic;
use dataplane::conntrack::{self, Conntrack};
use dataplane::fib::{
    Mode, NeighbourEntry, Network, PortInfo, Realms, RouteEntry, RouteKind, Topology,
};
use dataplane::packet::{Family, PortId};
use dataplane::port::afxdp::{AfxdpPort, Config, Floor, Opened, open};
use dataplane::port::poll_readable;
use dataplane::publish::Publisher;
use dataplane::stats::WorkerStats;
use dataplane::worker::{CrossConnect, EnginePipeline, Idle, Outlets, Pipeline, Worker};
use portcullis::apply::{Change, PolicyStore};
use portcullis::iptables::{self, TableNames};
use serde_json::{Value, json};

use super::Policy;
use super::subject::Settings;
use crate::clock::Stopwatch;
use crate::ipsets::command;
use crate::lab::{GENERATOR, Lab, Outcome, SUBJECT, cores, inside, mac, median, pin};

/// Longest sleep of an idle subject.
const REST: Duration = Duration::from_millis(5);
/// Empty turns before it.
const SPINS: u32 = 64;

/// A subject's thread.
#[derive(Debug)]
pub(super) struct Own {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The thread's number, once it runs.
    pub(super) tid: u32,
    pub(super) store: Option<Arc<PolicyStore>>,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It says itself what went wrong.
            let _panicked = thread.join();
        }
    }
}

impl Own {
    fn spawn(work: impl FnOnce(&AtomicBool) + Send + 'static) -> Outcome<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, tid) = (Arc::clone(&stop), Arc::new(AtomicU32::new(0)));
        let (ready, wait) = mpsc::channel();
        let told = Arc::clone(&tid);
        let thread = std::thread::Builder::new().name("subject".to_owned()).spawn(move || {
            let number = rustix::thread::gettid().as_raw_nonzero().get();
            told.store(number.unsigned_abs(), Ordering::Relaxed);
            let pinned = pin(cores() - 1).is_ok();
            let _nobody = ready.send(pinned);
            work(&seen);
        })?;
        let pinned = wait.recv_timeout(Duration::from_secs(5));
        let tid = tid.load(Ordering::Relaxed);
        let own = Self { stop, thread: Some(thread), tid, store: None };
        match pinned {
            Ok(true) => Ok(own),
            _ => Err("the subject's thread cannot be pinned".into()),
        }
    }

    /// A worker with `pipeline`.
    fn worker<L: Pipeline + Send + 'static>(
        opened: Opened,
        pipeline: L,
        settings: Settings,
        stats: Arc<WorkerStats>,
        keep: impl Send + 'static,
    ) -> Outcome<Self> {
        let Opened { program, mut workers, opener, .. } = opened;
        let share = workers.remove(0);
        Self::spawn(move |stop| {
            let idle = match settings.spin {
                true => Idle::Spin,
                false => Idle::Sleep { spins: SPINS, timeout: REST },
            };
            let mut worker =
                Worker::new(0, share.pool, share.ports, pipeline, Outlets::new(4096, 64))
                    .with_idle(idle)
                    .with_stats(stats)
                    .with_beat(Some(share.beat));
            worker.run(stop);
            drop((program, opener, keep));
        })
    }

    /// The engine with a policy.
    pub(super) fn portcullis(lab: &Lab, policy: &Policy, settings: Settings) -> Outcome<Self> {
        let opened = open_in(lab, true, settings)?;
        let ports = SUBJECT.map(str::to_owned).to_vec();
        let store = Arc::new(PolicyStore::open(change(policy)?, ports, 1)?);
        let networks = Publisher::new(Arc::new(Network::build(&topology())?));
        let conntrack = Arc::new(Conntrack::new(conntrack::Config::new([7; 16]))?);
        let stats = Arc::new(WorkerStats::default());
        let (policies, network) = (store.subscribe(), networks.subscribe());
        let pipeline = EnginePipeline::new(0, policies, network, conntrack, Arc::clone(&stats))
            .with_switches(settings.switches);
        let mut own = Self::worker(opened, pipeline, settings, stats, networks)?;
        own.store = Some(store);
        Ok(own)
    }

    /// Ports joined by the worker.
    pub(super) fn cross_connect(lab: &Lab, settings: Settings) -> Outcome<Self> {
        let pipeline = CrossConnect::new(&[(PortId(0), PortId(1))]);
        let opened = open_in(lab, false, settings)?;
        Self::worker(opened, pipeline, settings, Arc::default(), ())
    }

    /// Rings joined without a worker.
    pub(super) fn floor(lab: &Lab, settings: Settings) -> Outcome<Self> {
        let Opened { program, mut workers, opener, .. } = open_in(lab, false, settings)?;
        let share = workers.remove(0);
        let [left, right] = <[AfxdpPort; 2]>::try_from(share.ports).map_err(|_| "two ports")?;
        let mut floor = Floor::new(left, right, settings.batch).ok_or("no sockets")?;
        let (pool, mut beat) = (share.pool, share.beat);
        Self::spawn(move |stop| {
            let mut empty = 0;
            while !stop.load(Ordering::Relaxed) {
                beat.strike(monotonic());
                empty = if floor.turn() > 0 { 0 } else { empty + 1 };
                if empty > SPINS && !settings.spin {
                    poll_readable(&floor.pollable(), REST);
                }
            }
            drop(program);
            drop((floor, opener, pool));
        })
    }
}

fn open_in(lab: &Lab, routed: bool, settings: Settings) -> Outcome<Opened> {
    let mut config = Config::new(SUBJECT.map(str::to_owned), 1);
    (config.ring_size, config.huge_pages) = (settings.ring_size, settings.huge_pages);
    config.routed = routed;
    let local = (1..3).map(|at| (IpAddr::V4(Ipv4Addr::new(198, 18, at, 1)), 32));
    Ok(inside(&lab.namespace("s"), || open(&config, local).map_err(|e| e.to_string()))?)
}

fn change(policy: &Policy) -> Outcome<Change> {
    let parsed =
        iptables::parse(&policy.iptables(), "bench", Family::V4, &TableNames::well_known());
    let parsed = parsed.map_err(|findings| format!("{} findings", findings.len()))?;
    Ok(Change { v4: Some(parsed.ruleset), ..Change::default() })
}

/// What the kernel's tables say where the subject is.
fn topology() -> Topology {
    let address = |net, host| IpAddr::V4(Ipv4Addr::new(198, 18, net, host));
    let port = |(net, name): (u8, &&str)| PortInfo {
        name: (*name).to_owned(),
        mac: mac(name),
        mtu: 1500,
        addresses: vec![(address(net, 1), 24)],
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        up: true,
    };
    let route = |net: u8| RouteEntry {
        to: (IpAddr::V4(Ipv4Addr::new(10, net, 0, 0)), 16),
        via: Some(address(net, 2)),
        kind: RouteKind::Unicast(PortId(net - 1)),
        table: 254,
        metric: 0,
        mtu: None,
        prefsrc: None,
        devices: 0,
        anycast: false,
        realms: Realms(0),
    };
    let neighbour = |(net, name): (u8, &str)| NeighbourEntry {
        port: PortId(net - 1),
        address: address(net, 2),
        mac: mac(name),
    };
    Topology {
        mode: Mode::Routed,
        ports: (1..).zip(&SUBJECT).map(port).collect(),
        routes: (1..3).map(route).collect(),
        rules: Vec::new(),
        neighbours: (1..).zip(GENERATOR).map(neighbour).collect(),
    }
}

/// Swaps policies of a length for each other until dropped.
#[derive(Debug)]
pub(crate) struct Swapping {
    stop: Arc<AtomicBool>,
    took: Arc<Mutex<Vec<f64>>>,
    thread: Option<JoinHandle<()>>,
}

impl Swapping {
    /// Begins. The thread runs where the generator does, whenever nobody else wants to.
    pub(super) fn start(store: Arc<PolicyStore>, every: Duration, base: Policy) -> Outcome<Self> {
        let changes = [change(&base)?, change(&Policy { seed: base.seed + 1, ..base })?];
        let (stop, took) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (seen, told) = (Arc::clone(&stop), Arc::clone(&took));
        let thread = std::thread::Builder::new().name("swaps".to_owned()).spawn(move || {
            let tid = rustix::thread::gettid().as_raw_nonzero().to_string();
            let idle = pin(0).and_then(|()| command(&["chrt", "--idle", "--pid", "0", &tid], ""));
            if let Err(error) = idle {
                return eprintln!("portcullis-bench: {error}");
            }
            let mut number = 0;
            while !seen.load(Ordering::Relaxed) {
                number += 1;
                let watch = Stopwatch::start();
                if let Err(error) = store.install(changes[number % 2].clone()) {
                    return eprintln!("portcullis-bench: swap {number}: {error}");
                }
                let spent = Duration::from_nanos(watch.elapsed_ns());
                if let Ok(mut took) = told.lock() {
                    took.push(spent.as_secs_f64() * 1e3);
                }
                std::thread::sleep(every.saturating_sub(spent));
            }
        })?;
        Ok(Self { stop, took, thread: Some(thread) })
    }

    /// Ends, and says how many there were and how long they took.
    pub(crate) fn report(mut self) -> Value {
        self.end();
        let took = self.took.lock().map(|took| took.clone()).unwrap_or_default();
        let longest = took.iter().copied().fold(0.0, f64::max);
        json!({ "swaps": took.len(), "median_ms": median(took), "max_ms": longest })
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.end();
    }
}
