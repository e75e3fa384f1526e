//! The pipeline of a running daemon: the engine, with subscriptions to what the
//! control thread publishes.

use std::sync::Arc;

use super::pipeline::{LinkAddresses, Pipeline};
use crate::clock::{self, Nanos};
use crate::conntrack::Conntrack;
use crate::effects::Effects;
use crate::engine::{Engine, Slot, Switches, World};
use crate::fib::Network;
use crate::logbook::LogBook;
use crate::nat::Spread;
use crate::packet::{Family, PortId};
use crate::publish::Subscription;
use crate::snapshot::Snapshot;
use crate::stats::WorkerStats;
use crate::tap::{self, Tap};
use crate::zone;

/// One worker's engine and its view of the published world.
#[derive(Debug)]
pub struct EnginePipeline {
    engine: Engine,
    worker: usize,
    snapshots: Subscription<Snapshot>,
    networks: Subscription<Network>,
    taps: Option<Subscription<Tap>>,
    snapshot: Arc<Snapshot>,
    network: Arc<Network>,
    /// While some packets are taken from bursts.
    tap: Option<Arc<Tap>>,
    conntrack: Arc<Conntrack>,
    stats: Arc<WorkerStats>,
    /// When the time of day was last looked up.
    clock_read: Nanos,
}

impl EnginePipeline {
    /// The pipeline of worker number `worker`, whose statistics are `stats`.
    pub fn new(
        worker: usize,
        mut snapshots: Subscription<Snapshot>,
        mut networks: Subscription<Network>,
        conntrack: Arc<Conntrack>,
        stats: Arc<WorkerStats>,
    ) -> Self {
        let snapshot = Arc::clone(snapshots.refresh());
        let network = Arc::clone(networks.refresh());
        stats.generation.set(snapshot.generation);
        let mut engine = Engine::new();
        engine.set_seed(conntrack.seed(worker));
        engine.set_cpu(worker as u32);
        let clock_read = clock::monotonic();
        let mut pipeline = Self {
            engine,
            worker,
            snapshots,
            networks,
            taps: None,
            snapshot,
            network,
            tap: None,
            conntrack,
            stats,
            clock_read,
        };
        pipeline.read_clock(clock_read);
        pipeline
    }

    /// On the core of that number, which `-m cpu` asks for.
    pub fn with_core(mut self, core: Option<u32>) -> Self {
        self.engine.set_cpu(core.unwrap_or(self.worker as u32));
        self
    }

    /// Finds out what time of day it is, and in which zone.
    fn read_clock(&mut self, now: Nanos) {
        self.clock_read = now;
        self.engine.set_utc_offset(clock::utc_offset());
        self.engine.set_minutes_west(zone::minutes_west());
    }

    /// With what is known of how ports spread what they receive, by port: worker
    /// number n reads their nth queues.
    pub fn with_spreads(mut self, spreads: Box<[Option<Spread>]>) -> Self {
        self.engine.set_spreads(spreads, self.worker as u32);
        self
    }

    /// With packets taken as `taps` says.
    pub fn with_taps(mut self, taps: Subscription<Tap>) -> Self {
        self.taps = Some(taps);
        self
    }

    /// With roads beside the plain one on and off.
    pub fn with_switches(mut self, switches: Switches) -> Self {
        self.engine.set_switches(switches);
        self
    }

    /// Takes up the tap that is open, or lets go of one that is not any more.
    fn look_for_tap(&mut self) {
        let Some(taps) = &mut self.taps else { return };
        let tap = taps.refresh();
        let held = self.tap.as_ref().is_some_and(|held| Arc::ptr_eq(held, tap));
        if held != tap.may_be_on() || !held && self.tap.is_some() {
            self.tap = tap.may_be_on().then(|| Arc::clone(tap));
        }
    }

    /// Decides a burst from which packets may be taken.
    #[cold]
    fn decide_tapped(
        &mut self,
        tap: &Tap,
        burst: &mut [Slot<'_>],
        (own, now): (bool, Nanos),
        effects: &mut impl Effects,
    ) {
        let (engine, world) = self.parts(now);
        tap::decide(engine, &world, tap, (burst, own), effects);
    }

    /// The engine, and what it decides against at `now`.
    fn parts(&mut self, now: Nanos) -> (&mut Engine, World<'_>) {
        let world = World {
            snapshot: &self.snapshot,
            worker: self.worker,
            network: &self.network,
            conntrack: &self.conntrack,
            stats: &self.stats,
            now,
        };
        (&mut self.engine, world)
    }
}

/// Takes over a newly published value; true when there was one.
fn adopt<T>(held: &mut Arc<T>, subscription: &mut Subscription<T>) -> bool {
    let current = subscription.refresh();
    let changed = !Arc::ptr_eq(held, current);
    if changed {
        *held = Arc::clone(current);
    }
    changed
}

impl Pipeline for EnginePipeline {
    fn refresh(&mut self) -> bool {
        if adopt(&mut self.snapshot, &mut self.snapshots) {
            self.stats.swaps.add(1);
            self.stats.generation.set(self.snapshot.generation);
        }
        self.look_for_tap();
        adopt(&mut self.network, &mut self.networks)
    }
    fn log_book(&self) -> Option<&Arc<LogBook>> {
        Some(&self.snapshot.log)
    }
    fn process(&mut self, burst: &mut [Slot<'_>], now: Nanos, effects: &mut impl Effects) {
        if let Some(tap) = self.tap.clone() {
            return self.decide_tapped(&tap, burst, (false, now), effects);
        }
        let (engine, world) = self.parts(now);
        engine.process(&world, burst, effects);
    }
    fn output(&mut self, burst: &mut [Slot<'_>], now: Nanos, effects: &mut impl Effects) {
        if let Some(tap) = self.tap.clone() {
            return self.decide_tapped(&tap, burst, (true, now), effects);
        }
        let (engine, world) = self.parts(now);
        engine.output(&world, burst, effects);
    }
    fn tick(&mut self, now: Nanos, effects: &mut impl Effects) {
        // People and time servers set the clock.
        if now.saturating_sub(self.clock_read) >= Nanos::SECOND {
            self.read_clock(now);
        }
        let (engine, world) = self.parts(now);
        engine.tick(&world, effects);
    }
    fn link_addresses(
        &self,
        port: PortId,
        family: Family,
        next_hop: u128,
    ) -> Option<LinkAddresses> {
        let destination = self.network.neighbour(port, family, next_hop)?;
        Some(LinkAddresses { destination, source: self.network.port(port).mac })
    }
    fn unresolved(
        &mut self,
        port: PortId,
        frame: &mut [u8],
        now: Nanos,
        effects: &mut impl Effects,
    ) {
        let (engine, world) = self.parts(now);
        engine.unresolved(&world, port, frame, effects);
    }
}
