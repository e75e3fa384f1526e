//! The workers: one pinned thread for each queue, and what others may read of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;

use dataplane::clock::{Nanos, monotonic};
use dataplane::conntrack::Conntrack;
use dataplane::engine::Switches;
use dataplane::fib::Network;
use dataplane::nat::Spread;
use dataplane::port::afxdp::{AfxdpPort, Beat, LinkInfo, WorkerPorts};
use dataplane::port::fault::{FaultPort, Faults};
use dataplane::port::host::HostQueue;
use dataplane::port::{Pool, Port};
use dataplane::publish::Publisher;
use dataplane::stats::WorkerStats;
use dataplane::worker::{EnginePipeline, Exchange, Outlets, Worker};

use super::health::Health;
use super::ports::SocketSights;
use super::taps::TapDesk;
use crate::apply::PolicyStore;

/// How long workers may take to end.
const FAREWELL: Nanos = Nanos::from_secs(3);
/// How often they are asked whether they have.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

/// What others may read of one worker.
#[derive(Clone, Debug)]
pub(super) struct WorkerSight {
    /// The core it is pinned to, if it could be.
    pub(super) core: Option<usize>,
    /// Its counters.
    pub(super) stats: Arc<WorkerStats>,
    /// Its sockets, by port.
    pub(super) sockets: SocketSights,
    /// Through which its ports get other ones.
    pub(super) exchange: Arc<Exchange>,
    /// Its thread, as the kernel numbers it; 0 until it runs.
    tid: Arc<AtomicU32>,
    /// Since when the watchdog has seen it stand still; zero while it turns.
    still_since: Arc<AtomicU64>,
}

impl WorkerSight {
    /// Since when it stands still.
    pub(super) fn still_since(&self) -> Option<Nanos> {
        Some(Nanos(self.still_since.load(Ordering::Relaxed))).filter(|since| since.0 > 0)
    }
    /// CPU time that its thread has had, if the kernel says.
    pub(super) fn cpu(&self) -> Option<Nanos> {
        let tid = self.tid.load(Ordering::Relaxed);
        let text = std::fs::read_to_string(format!("/proc/self/task/{tid}/schedstat")).ok()?;
        text.split(' ').next()?.parse().ok().map(Nanos)
    }
    /// Says since when it stands still, or that it turns.
    pub(super) fn set_still_since(&self, since: Option<Nanos>) {
        self.still_since.store(since.map_or(0, |since| since.0), Ordering::Relaxed);
    }
}

/// The running workers.
#[derive(Debug)]
pub(super) struct Fleet {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    sights: Vec<WorkerSight>,
}

/// Faults put on every wire on purpose, to see what a bad network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    /// The same seed gives the same faults for the same frames.
    pub seed: u64,
    /// In each direction of each port.
    pub faults: Faults,
}

/// What a worker is made of, besides its ports.
struct Crew {
    index: usize,
    core: Option<core_affinity::CoreId>,
    pipeline: EnginePipeline,
    outlets: Outlets,
    stats: Arc<WorkerStats>,
    exchange: Arc<Exchange>,
    tid: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
}

impl Crew {
    fn start<P: Port + Send + 'static>(
        self,
        pool: Pool,
        ports: Vec<P>,
        host: Option<HostQueue>,
        beat: Beat,
    ) -> io::Result<JoinHandle<()>> {
        let Self { index, core, pipeline, outlets, stats, exchange, tid, stop } = self;
        let mut worker = Worker::new(index, pool, ports, pipeline, outlets)
            .with_stats(stats)
            .with_exchange(exchange)
            .with_host(host)
            .with_beat(Some(beat));
        std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            tid.store(rustix::thread::gettid().as_raw_nonzero().get() as u32, Ordering::Relaxed);
            let pinned = core.is_some_and(core_affinity::set_for_current);
            if !pinned {
                tracing::warn!("worker {index} runs unpinned");
            }
            worker.run(&stop);
        })
    }
}

/// What all workers have in common.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// By port: how devices choose among their queues, where they say.
    pub(super) spreads: Vec<Option<Spread>>,
    /// Roads of the engine beside the plain one.
    pub(super) switches: Switches,
    /// Faults on every wire, for tests.
    pub(super) faults: Option<Injection>,
    /// Where packets are taken.
    pub(super) taps: Arc<TapDesk>,
}

impl Terms {
    pub(super) fn of(config: &super::Config) -> Self {
        Self {
            spreads: config.ports.iter().map(|port| LinkInfo::spread(port)).collect(),
            switches: config.switches,
            faults: config.faults,
            taps: Arc::default(),
        }
    }
}

impl Fleet {
    /// Starts one thread for each share of the ports.
    ///
    /// # Errors
    /// When a thread cannot be made; those already made are stopped.
    pub(super) fn start(
        shares: Vec<WorkerPorts>,
        store: &PolicyStore,
        networks: &Publisher<Network>,
        conntrack: &Arc<Conntrack>,
        outlets: &Outlets,
        terms: &Terms,
    ) -> io::Result<Self> {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let mut fleet = Self {
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::with_capacity(shares.len()),
            sights: Vec::with_capacity(shares.len()),
        };
        for (index, share) in shares.into_iter().enumerate() {
            let stats = Arc::new(WorkerStats::default());
            let sockets = share.ports.iter().map(AfxdpPort::observer).collect();
            let sockets = SocketSights::new(sockets);
            let exchange = Arc::new(Exchange::default());
            let tid = Arc::<AtomicU32>::default();
            let pipeline = EnginePipeline::new(
                index,
                store.subscribe(),
                networks.subscribe(),
                Arc::clone(conntrack),
                Arc::clone(&stats),
            )
            .with_spreads(terms.spreads.clone().into())
            .with_switches(terms.switches)
            .with_taps(terms.taps.subscribe());
            // More workers than cores share them.
            let core = cores.get(index % cores.len().max(1)).copied();
            let pipeline = pipeline.with_core(core.map(|core| core.id as u32));
            let crew = Crew {
                index,
                core,
                pipeline,
                outlets: outlets.clone(),
                stats: Arc::clone(&stats),
                exchange: Arc::clone(&exchange),
                tid: Arc::clone(&tid),
                stop: Arc::clone(&fleet.stop),
            };
            let thread = match terms.faults {
                None => crew.start(share.pool, share.ports, share.host, share.beat),
                Some(Injection { seed, faults }) => {
                    let bad = share.ports.into_iter().enumerate().map(|(port, inner)| {
                        let seed = seed ^ (index << 8 | port) as u64;
                        FaultPort::new(inner, seed, faults, faults)
                    });
                    crew.start(share.pool, bad.collect(), share.host, share.beat)
                }
            }?;
            fleet.threads.push(thread);
            fleet.sights.push(WorkerSight {
                core: core.map(|core| core.id),
                stats,
                sockets,
                exchange,
                tid,
                still_since: Arc::default(),
            });
        }
        Ok(fleet)
    }

    /// What others may read, by worker.
    pub(super) fn sights(&self) -> &[WorkerSight] {
        &self.sights
    }

    /// The workers' heartbeats: the turns that they make.
    pub(super) fn health(&self) -> Health {
        let mut health = Health::default();
        for (index, sight) in self.sights.iter().enumerate() {
            let stats = Arc::clone(&sight.stats);
            health.watch(format!("worker {index}"), monotonic(), move || stats.turns.get());
        }
        health
    }

    /// The first worker whose thread has ended: while the daemon runs, none should.
    pub(super) fn fallen(&self) -> Option<usize> {
        self.threads.iter().position(JoinHandle::is_finished)
    }

    /// Stops all workers and waits for them, but not for ever: false when one does not end.
    pub(super) fn stop(&mut self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        let deadline = monotonic() + FAREWELL;
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            if monotonic() > deadline {
                self.threads.clear();
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so on standard error.
            let _ = thread.join();
        }
        true
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop();
    }
}
