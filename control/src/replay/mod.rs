//! Replay: the whole engine over frames with given timestamps, as a library.
//!
//! A [`Replay`] owns one worker's share of everything: policy, connection
//! table, network. Frames are fed one by one, in order of time; each call
//! returns all that the frame caused. Nothing here reads a clock or a random
//! number: the same input gives the same output, byte for byte.
//!
//! [`files`] runs it over captures as `portcullis replay` does (the contract is
//! `docs/replay.md`).

mod again;
pub mod capture;
mod effects;
pub mod event;
pub mod files;
#[cfg(test)]
mod plans_tests;
#[cfg(test)]
mod tests;
pub mod topology;

use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, ConnId, Conntrack, ConntrackError, ExpectRow, Row};
use dataplane::engine::{Engine, Slot, Switches, World};
use dataplane::fib::{Network, NetworkError, Topology};
use dataplane::packet::{Family, PortId};
use dataplane::policy::{CounterId, Policy, TableId};
use dataplane::reply::limit::Settings;
use dataplane::sets::Registry;
use dataplane::snapshot::Snapshot;
use dataplane::stats::WorkerStats;
use dataplane::verdict::{Disposition, DropReason};

use crate::compile::{self, CounterMap, DynamicState, Limits};
use crate::model::{Counters, Ruleset};
use crate::selfcheck::{self, Budget, SelfCheckError};
use effects::Collector;
pub use event::{Event, PathStep, Verdict};

/// Room in front of and behind a frame, as in a worker's pool.
const HEADROOM: usize = dataplane::port::HEADROOM;
const TAILROOM: usize = 128;
/// Records of the connection table that are looked at after each packet, to
/// collect what has expired.
const SWEEP: usize = 64;

/// What a replay is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Ports, routes, rules, neighbours.
    pub topology: Topology,
    /// The IPv4 policy.
    pub v4: Ruleset,
    /// The IPv6 policy.
    pub v6: Ruleset,
    /// The connection table's size and sysctls.
    pub conntrack: Config,
    /// How many ICMP errors the router may send.
    pub icmp: Settings,
    /// The sets that the policies name.
    pub sets: Arc<Registry>,
}

impl Setup {
    /// Empty policies, the kernel's defaults for connection tracking, `seed`
    /// for its hash.
    pub fn new(topology: Topology, seed: u64) -> Self {
        Self {
            topology,
            v4: Ruleset::empty(Family::V4),
            v6: Ruleset::empty(Family::V6),
            conntrack: Config::new(hash_key(seed)),
            icmp: Settings::default(),
            sets: Arc::default(),
        }
    }
}

/// The interface name of a port, the loopback interface included.
pub(crate) fn port_name(ports: &[String], port: PortId) -> &str {
    match port {
        PortId::LOOPBACK => "lo",
        port => &ports[port.index()],
    }
}

fn hash_key(seed: u64) -> [u8; 16] {
    let mut key = [0x5a; 16];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key
}

/// Why a replay cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The policy does not compile, or does not pass the self-check.
    #[error(transparent)]
    Policy(#[from] SelfCheckError),
    /// The topology contradicts itself.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// No connection table of that size.
    #[error(transparent)]
    Conntrack(#[from] ConntrackError),
}

/// Where a frame comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It arrived on a port.
    Port(PortId),
    /// The machine itself sends it; its Ethernet header is ignored.
    Host,
}

/// A frame on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// On which port.
    pub port: PortId,
    /// The frame.
    pub frame: Vec<u8>,
}

/// A packet that NFLOG captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// For listeners of this group.
    pub group: u16,
    /// As a record of a capture file ([`crate::log::nflog`]).
    pub record: Vec<u8>,
}

/// All that one frame caused.
#[derive(Clone, Debug)]
pub struct Fed {
    /// What became of it, in the contract's words.
    pub event: Event,
    /// Why it ended, when it was not sent on.
    pub reason: Option<DropReason>,
    /// Frames sent, in order: answers and fragments before the frame itself.
    pub sent: Vec<Sent>,
    /// Frames that the local stack receives.
    pub delivered: Vec<Vec<u8>>,
    /// Lines of LOG and TRACE, without a line end.
    pub log: Vec<String>,
    /// What audit records say, without time and number.
    pub audit: Vec<String>,
    /// Packets that NFLOG captured.
    pub captured: Vec<Captured>,
    /// Its connection.
    pub conn: Option<ConnId>,
}

/// One run. See the head of this file.
#[derive(Debug)]
pub struct Replay {
    v4: Ruleset,
    v6: Ruleset,
    ports: Vec<String>,
    network: Arc<Network>,
    snapshot: Snapshot,
    counters: CounterMap,
    sets: Arc<Registry>,
    conntrack: Conntrack,
    engine: Engine,
    stats: WorkerStats,
    fed: u64,
    now: Nanos,
}

impl Replay {
    /// Compiles and checks the policy, builds the network and the table.
    pub fn new(setup: Setup) -> Result<Self, ReplayError> {
        let network = Arc::new(Network::build(&setup.topology)?);
        let replay = Self::with_sets(network, setup.v4, setup.v6, setup.conntrack, setup.sets)?;
        let mut engine = Engine::with_limits(setup.icmp);
        engine.set_seed(replay.conntrack.seed(0));
        Ok(Self { engine, ..replay })
    }

    /// Like [`Replay::new`], over a network that is already built and with the
    /// kernel's limits on ICMP errors.
    pub fn over(
        network: Arc<Network>,
        v4: Ruleset,
        v6: Ruleset,
        conntrack: Config,
    ) -> Result<Self, ReplayError> {
        Self::with_sets(network, v4, v6, conntrack, Arc::default())
    }

    /// Like [`Replay::over`], with the sets that the policies name.
    ///
    /// # Errors
    /// As there.
    pub fn with_sets(
        network: Arc<Network>,
        v4: Ruleset,
        v6: Ruleset,
        conntrack: Config,
        sets: Arc<Registry>,
    ) -> Result<Self, ReplayError> {
        let dynamic = DynamicState::with_sets(Arc::clone(&sets));
        let ports: Vec<String> = network.ports().iter().map(|port| port.name.clone()).collect();
        let input = compile::Input { v4: &v4, v6: &v6, ports: &ports, limits: Limits::default() };
        let (compiled, _) = selfcheck::compile_checked(input, &dynamic, Budget::default())?;
        let conntrack = Conntrack::new(conntrack)?;
        let mut engine = Engine::new();
        engine.set_seed(conntrack.seed(0));
        Ok(Self {
            conntrack,
            snapshot: Snapshot::new(1, compiled.policy, 1),
            counters: compiled.counters,
            v4,
            v6,
            sets,
            ports,
            network,
            engine,
            stats: WorkerStats::default(),
            fed: 0,
            now: Nanos(0),
        })
    }

    /// Turns roads beside the plain one on and off.
    pub fn set_switches(&mut self, switches: Switches) {
        self.engine.set_switches(switches);
    }

    /// How late it is.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// The sets that its rules name.
    pub fn sets(&self) -> &Arc<Registry> {
        &self.sets
    }

    /// Replaces one family's policy. Connections live on; all counters start again
    /// at zero.
    pub fn install(&mut self, rules: Ruleset) -> Result<(), SelfCheckError> {
        let (v4, v6) = match rules.family {
            Family::V4 => (&rules, &self.v6),
            Family::V6 => (&self.v4, &rules),
        };
        let input = compile::Input { v4, v6, ports: &self.ports, limits: Limits::default() };
        let previous = DynamicState::with_sets(Arc::clone(&self.sets));
        let (compiled, _) = selfcheck::compile_checked(input, &previous, Budget::default())?;
        let generation = self.snapshot.generation + 1;
        self.snapshot = Snapshot::new(generation, compiled.policy, 1);
        self.counters = compiled.counters;
        match rules.family {
            Family::V4 => self.v4 = rules,
            Family::V6 => self.v6 = rules,
        }
        Ok(())
    }

    /// Lets time pass without a frame, for those who look at the table afterwards.
    pub fn advance(&mut self, at: Nanos) {
        self.now = self.now.max(at);
    }

    /// Decides one frame at time `at`, which must not lie before the last one's.
    pub fn feed(&mut self, source: Source, at: Nanos, frame: &[u8]) -> Fed {
        self.now = self.now.max(at);
        self.conntrack.sweep(self.now, SWEEP);
        let mut buf = vec![0; HEADROOM + frame.len() + TAILROOM];
        buf[HEADROOM..][..frame.len()].copy_from_slice(frame);
        let port = match source {
            Source::Port(port) => port,
            // No kernel has routed it: the engine does.
            Source::Host => PortId::LOOPBACK,
        };
        let mut burst = [Slot {
            buf: &mut buf,
            start: HEADROOM,
            len: frame.len(),
            port,
            disposition: Disposition::Drop(DropReason::FrameTruncated),
        }];
        let world = World {
            snapshot: &self.snapshot,
            worker: 0,
            network: &self.network,
            conntrack: &self.conntrack,
            stats: &self.stats,
            now: self.now,
        };
        let mut collector = Collector::new(&self.ports);
        match source {
            Source::Port(_) => self.engine.process(&world, &mut burst, &mut collector),
            Source::Host => self.engine.output(&world, &mut burst, &mut collector),
        }
        let [slot] = burst;
        let fed = self.account(source, at, frame, &slot, collector);
        self.fed += 1;
        fed
    }

    fn account(
        &self,
        source: Source,
        at: Nanos,
        frame: &[u8],
        slot: &Slot<'_>,
        collector: Collector<'_>,
    ) -> Fed {
        let reason = match slot.disposition {
            Disposition::Drop(reason) => Some(reason),
            Disposition::AwaitNeighbour { .. } => Some(DropReason::NeighbourUnresolved),
            Disposition::Transmit(_)
            | Disposition::Deliver
            | Disposition::Fragmented
            | Disposition::Collected
            | Disposition::Delivered => None,
        };
        if let Some(reason) = reason {
            self.stats.drop(reason);
        }
        let facts = event::Facts {
            n: self.fed,
            at,
            source,
            frame,
            disposition: slot.disposition,
            reason,
            ports: &self.ports,
            policy: &self.snapshot.policy,
            conntrack: &self.conntrack,
        };
        let event = Event::new(&facts, &collector);
        let Collector { mut sent, mut delivered, log, audit, captured, outcome, .. } = collector;
        match slot.disposition {
            Disposition::Transmit(port) => sent.push(Sent { port, frame: slot.frame().to_vec() }),
            Disposition::Deliver => delivered.push(slot.frame().to_vec()),
            _ => {}
        }
        let conn = outcome.and_then(|outcome| outcome.tracking.conn);
        Fed { event, reason, sent, delivered, log, audit, captured, conn }
    }

    /// Interface names by [`PortId`].
    pub fn ports(&self) -> &[String] {
        &self.ports
    }
    /// The port of that name.
    pub fn port(&self, name: &str) -> Option<PortId> {
        self.network.port_named(name)
    }
    /// Packets and bytes of every rule and policy, by their place.
    pub fn count(&self, counter: CounterId) -> (u64, u64) {
        self.snapshot.count(counter)
    }
    /// Which rule counts where.
    pub fn counters(&self) -> &CounterMap {
        &self.counters
    }
    /// Packets and bytes of a rule, or of a chain's policy.
    pub fn counted(
        &self,
        family: Family,
        table: TableId,
        chain: &str,
        rule: Option<usize>,
    ) -> Counters {
        let found = self.counters.chain(family, table, chain);
        let counter = found.and_then(|chain| match rule {
            Some(index) => chain.rule(index),
            None => chain.policy,
        });
        let (packets, bytes) = counter.map_or((0, 0), |counter| self.count(counter));
        Counters { packets, bytes }
    }
    /// One family's policy as given.
    pub fn rules(&self, family: Family) -> &Ruleset {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
    /// Live connections of a family, as of the last packet.
    pub fn connections(&self, family: Family) -> Vec<Row> {
        let rows = self.conntrack.rows(self.now);
        rows.filter(|row| row.view.original.family == family).collect()
    }
    /// One family's expectations.
    pub fn expectations(&self, family: Family) -> Vec<ExpectRow> {
        let mut rows = self.conntrack.expectations(self.now);
        rows.retain(|row| row.expectation.tuple.family == family);
        rows
    }
    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }
    /// The compiled policy.
    pub fn policy(&self) -> &Policy {
        &self.snapshot.policy
    }
    /// The connection table.
    pub fn conntrack(&self) -> &Conntrack {
        &self.conntrack
    }
    /// Drop reasons and other counts.
    pub fn stats(&self) -> &WorkerStats {
        &self.stats
    }
}
