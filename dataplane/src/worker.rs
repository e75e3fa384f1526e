//! The worker loop: ports, engine and neighbour waiting room on one core.
//!
//! A worker owns one pool, one queue of every port and one pipeline. A turn
//! adopts what was published, takes up to a burst of frames from its ports in
//! rotation, lets the pipeline decide them together, acts on the decisions and
//! flushes. Time is an argument of [`Worker::turn`]; only [`Worker::run`] reads
//! the clock, once a turn. Nothing is shared with other workers but statistics
//! (one writer) and bounded lock-free queues.

mod beating;
mod exchange;
mod hosting;
mod live;
mod outlets;
mod overheard;
mod pipeline;
mod records;
mod waiting;

#[cfg(test)]
mod tests;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrayvec::ArrayVec;

pub use exchange::{Exchange, PortOrder};
pub use live::EnginePipeline;
pub use outlets::{NeighbourRequest, Outlets, PortEvent, WorkerEvent};
pub use pipeline::{CrossConnect, LinkAddresses, Pipeline};
pub use records::{
    About, CALLERS, CAPTURE_BYTES, Capture, Entry as LogRecordEntry, LINE_BYTES, LogEntry, Rates,
    line_bytes,
};
pub use waiting::WAITING_MAX;

use crate::clock::{self, Nanos};
use crate::engine::{BURST, Slot};
use crate::logbook::LogBook;
use crate::packet::{MAX_PORTS, PortId};
use crate::port::afxdp::Beat;
use crate::port::host::{HostQueue, HostWay};
use crate::port::{Burst, Frame, POLLED_MAX, Pool, Port, poll_readable};
use crate::stats::{Stage, WorkerStats};
use crate::verdict::{Disposition, DropReason};
use outlets::Surroundings;
use waiting::WaitingRoom;

/// What a worker does when nothing arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Asks again at once: lowest latency, a whole core.
    Spin,
    /// Sleeps in the kernel until a frame arrives, after `spins` empty turns.
    Sleep {
        /// Empty turns before sleeping.
        spins: u32,
        /// Longest sleep: bounds how late timers and a stop are noticed.
        timeout: Duration,
    },
}

impl Default for Idle {
    fn default() -> Self {
        Self::Sleep { spins: 64, timeout: Duration::from_millis(5) }
    }
}

/// How often ports are asked whether their device is there and up.
const CHECK_INTERVAL: Nanos = Nanos::from_millis(100);

/// Where the frames of a burst come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The ports.
    Ports,
    /// This machine.
    Host,
}

/// Whether frames can go to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Up,
    LinkDown,
    Failed,
}

/// One core's share of the data plane. See the head of this file.
#[derive(Debug)]
pub struct Worker<P, L> {
    index: usize,
    pool: Pool,
    ports: Vec<P>,
    // After the pool: what is under way ends in `drop`, while that is there.
    host: Option<HostQueue>,
    beat: Option<Beat>,
    health: Vec<Health>,
    pipeline: L,
    stats: Arc<WorkerStats>,
    outlets: Outlets,
    book: Arc<LogBook>,
    exchange: Option<Arc<Exchange>>,
    idle: Idle,
    waiting: WaitingRoom,
    asked: outlets::Asked,
    overheard: overheard::Overheard,
    burst: Burst,
    arrived_on: ArrayVec<PortId, BURST>,
    emitted: Vec<(PortId, Frame)>,
    first_port: usize,
    next_check: Nanos,
    next_down_check: Nanos,
    empty_turns: u32,
}

impl<P: Port, L: Pipeline> Worker<P, L> {
    /// Worker number `index` over `ports`, whose positions are their [`PortId`]s.
    ///
    /// # Panics
    /// When there are more than [`MAX_PORTS`] ports.
    pub fn new(index: usize, pool: Pool, ports: Vec<P>, pipeline: L, outlets: Outlets) -> Self {
        assert!(ports.len() <= MAX_PORTS, "{} ports, {MAX_PORTS} are possible", ports.len());
        Self {
            index,
            health: vec![Health::Up; ports.len()],
            pool,
            ports,
            book: pipeline.log_book().map_or_else(Arc::default, Arc::clone),
            host: None,
            beat: None,
            pipeline,
            stats: Arc::new(WorkerStats::default()),
            outlets,
            exchange: None,
            idle: Idle::default(),
            waiting: WaitingRoom::new(),
            asked: outlets::Asked::default(),
            overheard: overheard::Overheard::default(),
            burst: Burst::new(),
            arrived_on: ArrayVec::new(),
            emitted: Vec::with_capacity(outlets::EMITTED_MAX),
            first_port: 0,
            next_check: Nanos::default(),
            next_down_check: Nanos::default(),
            empty_turns: 0,
        }
    }

    /// Chooses what to do when nothing arrives.
    #[must_use]
    pub fn with_idle(mut self, idle: Idle) -> Self {
        self.idle = idle;
        self
    }
    /// Counts into `stats`, which the pipeline may share: both run on this thread.
    #[must_use]
    pub fn with_stats(mut self, stats: Arc<WorkerStats>) -> Self {
        self.stats = stats;
        self
    }
    /// Takes this machine's own packets from `host` and delivers to it.
    #[must_use]
    pub fn with_host(mut self, host: Option<HostQueue>) -> Self {
        self.host = host;
        self
    }
    /// Changes the sockets of its ports as ordered through `exchange`.
    #[must_use]
    pub fn with_exchange(mut self, exchange: Arc<Exchange>) -> Self {
        self.exchange = Some(exchange);
        self
    }
    /// The statistics, to be read by other threads. `turns` is the heartbeat.
    pub fn stats(&self) -> Arc<WorkerStats> {
        Arc::clone(&self.stats)
    }
    /// The pool and the ports, for tests and for setting up.
    pub fn parts(&mut self) -> (&mut Pool, &mut [P]) {
        (&mut self.pool, &mut self.ports)
    }
    /// The pipeline.
    pub fn pipeline_mut(&mut self) -> &mut L {
        &mut self.pipeline
    }
    /// Frames that wait for a neighbour.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// One iteration at time `now`; returns how many frames were received.
    pub fn turn(&mut self, now: Nanos) -> usize {
        self.stats.turns.add(1);
        self.stats.enter(Stage::House);
        self.strike(now);
        self.follow_orders();
        let network_changed = self.pipeline.refresh();
        self.open_book();
        self.keep_house(now, network_changed);
        self.stats.enter(Stage::Receiving);
        self.receive(now);
        let mut received = self.burst.len();
        self.stats.enter(Stage::Deciding);
        if received > 0 {
            self.process(now, Origin::Ports);
        }
        received += self.host_turn(now, received > 0);
        self.stats.enter(Stage::Sending);
        self.send_emitted();
        self.flush(now);
        received
    }

    /// Turns until `stop` is set, reading the clock once a turn.
    pub fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let received = self.turn(clock::monotonic());
            self.stats.enter(Stage::Resting);
            self.rest(received);
        }
        self.finish();
    }

    /// Pins the calling thread to `core`, if given, and runs. False when the
    /// system refused the pinning; the worker does not run then.
    pub fn run_pinned(&mut self, core: Option<usize>, stop: &AtomicBool) -> bool {
        if let Some(id) = core
            && !core_affinity::set_for_current(core_affinity::CoreId { id })
        {
            return false;
        }
        self.run(stop);
        true
    }

    /// Idles as configured after a turn that received `received` frames.
    fn rest(&mut self, received: usize) {
        let Idle::Sleep { spins, timeout } = self.idle else { return };
        if received > 0 {
            self.empty_turns = 0;
            return;
        }
        self.empty_turns = self.empty_turns.saturating_add(1);
        if self.empty_turns <= spins {
            return;
        }
        let readable: ArrayVec<BorrowedFd<'_>, POLLED_MAX> = self
            .ports
            .iter()
            .zip(&self.health)
            .filter(|(_, health)| **health == Health::Up)
            .filter_map(|(port, _)| port.pollable())
            .chain(self.host.iter().flat_map(HostQueue::pollable))
            .take(POLLED_MAX)
            .collect();
        if readable.is_empty() {
            std::thread::sleep(timeout);
        } else {
            poll_readable(&readable, timeout);
        }
    }

    /// Takes the log book that belongs to the policy in force.
    fn open_book(&mut self) {
        if let Some(book) = self.pipeline.log_book()
            && !Arc::ptr_eq(book, &self.book)
        {
            self.book = Arc::clone(book);
        }
    }

    /// Rings, links and waiting frames: everything that is not the burst itself.
    fn keep_house(&mut self, now: Nanos, network_changed: bool) {
        for port in &mut self.ports {
            port.reap(&mut self.pool);
            port.fill(&mut self.pool);
        }
        if now >= self.next_check {
            self.next_check = now + CHECK_INTERVAL;
            for index in 0..self.ports.len() {
                self.check(index);
            }
            self.stats.frames.set(self.pool.free(), self.pool.lent(), self.pool.held());
            let way = self.host.as_ref().map_or(HostWay::Off, HostQueue::way);
            self.stats.host_way.set(way as u64);
            self.tick(now);
        }
        self.check_down(now);
        if network_changed {
            self.asked.clear();
            self.release_waiting();
        }
        while let Some((port, frame)) = self.waiting.expired(now) {
            self.give_up(port, frame, now);
        }
    }

    /// Lets the pipeline do what is due by time alone.
    fn tick(&mut self, now: Nanos) {
        let (memory, free) = self.pool.split();
        let mut surroundings = Surroundings {
            memory,
            free,
            emitted: &mut self.emitted,
            outlets: &self.outlets,
            asked: &mut self.asked,
            waiting: &mut self.waiting,
            host: self.host.as_mut(),
            stats: &self.stats,
            book: &self.book,
            worker: self.index,
            now,
        };
        self.pipeline.tick(now, &mut surroundings);
    }

    /// Fills the burst from the ports, starting with another one each turn.
    fn receive(&mut self, now: Nanos) {
        let count = self.ports.len();
        for step in 0..count {
            if self.burst.is_full() {
                break;
            }
            let index = (self.first_port + step) % count;
            if self.health[index] == Health::Failed {
                continue;
            }
            let result = self.ports[index].receive(&mut self.pool, now, &mut self.burst);
            if let Err(error) = result {
                self.fail(index, error);
            }
            let stats = &self.stats.port(PortId(index as u8)).rx;
            for frame in &self.burst[self.arrived_on.len()..] {
                stats.bump(frame.len() as u64);
                self.arrived_on.push(PortId(index as u8));
            }
        }
        if count > 0 {
            self.first_port = (self.first_port + 1) % count;
        }
    }

    /// Lets the pipeline decide the burst, then acts on each decision.
    fn process(&mut self, now: Nanos, origin: Origin) {
        self.stats.bursts.add(1);
        if origin == Origin::Ports && self.host.is_some() {
            self.overhear(now);
        }
        let (memory, free) = self.pool.split();
        let mut surroundings = Surroundings {
            memory,
            free,
            emitted: &mut self.emitted,
            outlets: &self.outlets,
            asked: &mut self.asked,
            waiting: &mut self.waiting,
            host: self.host.as_mut(),
            stats: &self.stats,
            book: &self.book,
            worker: self.index,
            now,
        };
        let mut slots: ArrayVec<Slot<'_>, BURST> = ArrayVec::new();
        for (frame, port) in self.burst.iter_mut().zip(&self.arrived_on) {
            let (start, len) = (frame.start(), frame.len());
            // Closed unless the pipeline says otherwise.
            let disposition = Disposition::Drop(DropReason::UnknownEtherType);
            slots.push(Slot { buf: memory.buffer(frame), start, len, port: *port, disposition });
        }
        match origin {
            Origin::Ports => self.pipeline.process(&mut slots, now, &mut surroundings),
            Origin::Host => self.pipeline.output(&mut slots, now, &mut surroundings),
        }
        let decided: ArrayVec<(PortId, usize, usize, Disposition), BURST> =
            slots.iter().map(|slot| (slot.port, slot.start, slot.len, slot.disposition)).collect();
        drop(slots);
        self.show(&decided);
        self.arrived_on.clear();
        let mut burst = std::mem::take(&mut self.burst);
        for (mut frame, (port, start, len, disposition)) in burst.drain(..).zip(decided) {
            frame.set_extent(start, len);
            let arrived_on = (origin == Origin::Ports).then_some(port);
            self.act(now, frame, arrived_on, disposition);
        }
    }

    fn act(
        &mut self,
        now: Nanos,
        frame: Frame,
        arrived_on: Option<PortId>,
        disposition: Disposition,
    ) {
        match disposition {
            Disposition::Transmit(port) => self.send(port, frame),
            Disposition::Deliver => self.deliver(frame, arrived_on),
            Disposition::AwaitNeighbour { port, next_hop } => {
                if let Err(frame) = self.waiting.admit(port, next_hop, now, frame) {
                    self.discard(frame, DropReason::NeighbourQueueFull);
                }
            }
            // Its bytes were copied elsewhere; the frame itself is done.
            Disposition::Fragmented | Disposition::Collected | Disposition::Delivered => {
                self.pool.put(frame);
            }
            Disposition::Drop(reason) => self.discard(frame, reason),
        }
    }

    fn discard(&mut self, frame: Frame, reason: DropReason) {
        WorkerStats::drop(&self.stats, reason);
        self.pool.put(frame);
    }

    /// Queues a frame on a port, or drops it with the reason.
    fn send(&mut self, port: PortId, frame: Frame) {
        if self.health.get(port.index()) != Some(&Health::Up) {
            return self.discard(frame, DropReason::PortDown);
        }
        let len = frame.len() as u64;
        match self.ports[port.index()].transmit(&mut self.pool, frame) {
            Ok(()) => self.stats.port(port).tx.bump(len),
            Err(frame) => self.discard(frame, DropReason::TxRingFull),
        }
    }

    /// Sends what the pipeline made itself.
    fn send_emitted(&mut self) {
        let mut emitted = std::mem::take(&mut self.emitted);
        for (port, frame) in emitted.drain(..) {
            self.send(port, frame);
        }
        self.emitted = emitted;
    }

    fn flush(&mut self, now: Nanos) {
        self.flush_host();
        for index in 0..self.ports.len() {
            if self.health[index] == Health::Failed {
                continue;
            }
            match self.ports[index].flush(&mut self.pool, now) {
                Ok(lost) => {
                    for _ in 0..lost {
                        WorkerStats::drop(&self.stats, DropReason::TxRingFull);
                    }
                }
                Err(error) => self.fail(index, error),
            }
        }
    }

    /// Sends the waiting frames whose next hop is now known.
    fn release_waiting(&mut self) {
        let pipeline = &self.pipeline;
        let mut ready = std::mem::take(&mut self.emitted);
        self.waiting.release(
            |port, family, next_hop| pipeline.link_addresses(port, family, next_hop),
            self.pool.memory(),
            &mut ready,
        );
        self.emitted = ready;
        self.send_emitted();
    }

    /// A frame's next hop did not answer in time.
    fn give_up(&mut self, port: PortId, mut frame: Frame, now: Nanos) {
        let (memory, free) = self.pool.split();
        let mut surroundings = Surroundings {
            memory,
            free,
            emitted: &mut self.emitted,
            outlets: &self.outlets,
            asked: &mut self.asked,
            waiting: &mut self.waiting,
            host: self.host.as_mut(),
            stats: &self.stats,
            book: &self.book,
            worker: self.index,
            now,
        };
        self.pipeline.unresolved(port, memory.bytes_mut(&mut frame), now, &mut surroundings);
        self.discard(frame, DropReason::NeighbourUnresolved);
    }
}

impl<P, L> Drop for Worker<P, L> {
    fn drop(&mut self) {
        for frame in self.burst.drain(..) {
            self.pool.put(frame);
        }
        self.waiting.empty(&mut self.pool);
        self.close_host();
    }
}
