//! The workers: one pinned thread for each queue, and what others may read of them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use dataplane::conntrack::Conntrack;
use dataplane::fib::Network;
use dataplane::port::afxdp::{Observer, WorkerPorts};
use dataplane::publish::Publisher;
use dataplane::stats::WorkerStats;
use dataplane::worker::{EnginePipeline, Outlets, Worker};

use crate::apply::PolicyStore;

/// What others may read of one worker.
#[derive(Clone, Debug)]
pub(super) struct WorkerSight {
    /// The core it is pinned to, if it could be.
    pub(super) core: Option<usize>,
    /// Its counters.
    pub(super) stats: Arc<WorkerStats>,
    /// Its sockets, by port.
    pub(super) sockets: Vec<Observer>,
}

/// The running workers.
#[derive(Debug)]
pub(super) struct Fleet {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    sights: Vec<WorkerSight>,
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
    ) -> io::Result<Self> {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let mut fleet = Self {
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::with_capacity(shares.len()),
            sights: Vec::with_capacity(shares.len()),
        };
        for (index, share) in shares.into_iter().enumerate() {
            let stats = Arc::new(WorkerStats::default());
            let sockets = share.ports.iter().map(|port| port.observer()).collect();
            let pipeline = EnginePipeline::new(
                index,
                store.subscribe(),
                networks.subscribe(),
                Arc::clone(conntrack),
                Arc::clone(&stats),
            );
            let mut worker = Worker::new(index, share.pool, share.ports, pipeline, outlets.clone())
                .with_stats(Arc::clone(&stats))
                .with_host(share.host);
            // More workers than cores share them.
            let core = cores.get(index % cores.len().max(1)).copied();
            let stop = Arc::clone(&fleet.stop);
            let thread =
                std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                    let pinned = core.is_some_and(core_affinity::set_for_current);
                    if !pinned {
                        tracing::warn!("worker {index} runs unpinned");
                    }
                    worker.run(&stop);
                })?;
            fleet.threads.push(thread);
            fleet.sights.push(WorkerSight { core: core.map(|core| core.id), stats, sockets });
        }
        Ok(fleet)
    }

    /// What others may read, by worker.
    pub(super) fn sights(&self) -> &[WorkerSight] {
        &self.sights
    }

    /// The first worker whose thread has ended: while the daemon runs, none should.
    pub(super) fn fallen(&self) -> Option<usize> {
        self.threads.iter().position(JoinHandle::is_finished)
    }

    /// Stops all workers and waits for them.
    pub(super) fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A worker that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.stop();
    }
}
