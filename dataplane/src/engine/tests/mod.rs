//! The engine over memory slots: a gateway with two ports, a client and a server.

mod bridge;
mod flood;
mod fragments;
mod hooks;
mod hostile;
mod lane;
mod nat;
mod own;
mod own_errors;
mod planned;
mod rewritten;
mod router;
mod straight;
mod synproxy;
mod tapped;

use std::net::IpAddr;

use super::{Engine, Slot, World};
use crate::clock::Nanos;
use crate::conntrack::{Config, Conntrack};
use crate::fib::{
    Mode, NeighbourEntry, Network, PortInfo, Realms, RouteEntry, RouteKind, Topology,
};
use crate::packet::{Mac, PortId};
use crate::policy::testing::{Builder, Indexing, Recorder, join};
use crate::policy::{ChainId, FamilyPolicy, Policy};
use crate::snapshot::Snapshot;
use crate::stats::WorkerStats;
use crate::verdict::{Disposition, DropReason};
use crate::wire::build::Packet;

pub(super) const INSIDE: PortId = PortId(0);
pub(super) const OUTSIDE: PortId = PortId(1);
pub(super) const PORT_MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 1, 1]), Mac([2, 0, 0, 0, 2, 1])];
pub(super) const HOST_MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 1, 2]), Mac([2, 0, 0, 0, 2, 2])];
pub(super) const CLIENT: &str = "198.18.1.2";
pub(super) const SERVER: &str = "198.18.2.2";
pub(super) const CLIENT6: &str = "2001:db8:1::2";
pub(super) const SERVER6: &str = "2001:db8:2::2";
/// SYN, and SYN with ACK.
pub(super) const SYN: u8 = 2;
pub(super) const SYN_ACK: u8 = 0x12;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(index: usize) -> PortInfo {
    let net = index + 1;
    PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: format!("eth{index}"),
        mac: PORT_MACS[index],
        mtu: 1500,
        addresses: vec![
            (ip(&format!("198.18.{net}.1")), 24),
            (ip(&format!("2001:db8:{net}::1")), 64),
        ],
        up: true,
    }
}

pub(super) fn topology() -> Topology {
    let hosts = [(CLIENT, 0), (CLIENT6, 0), (SERVER, 1), (SERVER6, 1)];
    let neighbour = |(address, index): (&str, usize)| NeighbourEntry {
        port: PortId(index as u8),
        address: ip(address),
        mac: HOST_MACS[index],
    };
    Topology {
        mode: Mode::Routed,
        ports: vec![port(0), port(1)],
        routes: Vec::new(),
        rules: Vec::new(),
        neighbours: hosts.map(neighbour).into(),
    }
}

pub(super) fn route(to: (&str, u8), kind: RouteKind) -> RouteEntry {
    RouteEntry {
        to: (ip(to.0), to.1),
        via: None,
        kind,
        table: 254,
        metric: 0,
        mtu: None,
        prefsrc: None,
        devices: 0,
        anycast: false,
        realms: Realms::default(),
    }
}

/// An empty policy for each family, to be filled.
pub(super) fn builders() -> (Builder<u32>, Builder<u128>) {
    (Builder::new(Indexing::Exact, 0), Builder::new(Indexing::Exact, 1000))
}

/// What became of one frame.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) disposition: Disposition,
    pub(super) frame: Vec<u8>,
}

/// An engine and its world.
pub(super) struct Rig {
    pub(super) snapshot: Snapshot,
    pub(super) network: Network,
    pub(super) conntrack: Conntrack,
    pub(super) stats: WorkerStats,
    pub(super) engine: Engine,
    pub(super) seen: Recorder,
    pub(super) now: Nanos,
}

impl Rig {
    pub(super) fn new(topology: &Topology, policy: Policy) -> Self {
        let mut config = Config::new([7; 16]);
        config.set("max", 1024).unwrap();
        Self {
            snapshot: Snapshot::new(1, policy, 1),
            network: Network::build(topology).unwrap(),
            conntrack: Conntrack::new(config).unwrap(),
            stats: WorkerStats::default(),
            engine: Engine::new(),
            seen: Recorder::default(),
            now: Nanos::from_secs(1_000_000),
        }
    }
    /// With the standard topology and only an IPv4 policy.
    pub(super) fn v4(fill: impl FnOnce(&mut Builder<u32>)) -> Self {
        let (mut v4, v6) = builders();
        fill(&mut v4);
        Self::new(&topology(), join(v4, v6))
    }
    fn run(&mut self, port: PortId, frame: &[u8], output: bool) -> Sent {
        let mut buf = vec![0; 64];
        buf.extend_from_slice(frame);
        // Room to grow.
        buf.resize(buf.len() + 64, 0);
        let disposition = Disposition::Drop(DropReason::FaultInjected);
        let slot = Slot { buf: &mut buf, start: 64, len: frame.len(), port, disposition };
        let world = World {
            snapshot: &self.snapshot,
            worker: 0,
            network: &self.network,
            conntrack: &self.conntrack,
            stats: &self.stats,
            now: self.now,
        };
        let mut burst = [slot];
        match output {
            true => self.engine.output(&world, &mut burst, &mut self.seen),
            false => self.engine.process(&world, &mut burst, &mut self.seen),
        }
        let [slot] = burst;
        Sent { disposition: slot.disposition, frame: slot.frame().to_vec() }
    }
    /// A frame that arrives on a port.
    pub(super) fn arrive(&mut self, port: PortId, frame: &[u8]) -> Sent {
        self.run(port, frame, false)
    }
    /// A packet from the client's side.
    pub(super) fn up(&mut self, packet: Packet) -> Sent {
        self.arrive(INSIDE, &packet.macs(HOST_MACS[0], PORT_MACS[0]).build())
    }
    /// A packet from the server's side.
    pub(super) fn down(&mut self, packet: Packet) -> Sent {
        self.arrive(OUTSIDE, &packet.macs(HOST_MACS[1], PORT_MACS[1]).build())
    }
    /// A packet of the machine's own.
    pub(super) fn own(&mut self, packet: Packet) -> Sent {
        self.run(PortId::LOOPBACK, &packet.build(), true)
    }
    /// A packet of the machine's own that its kernel has sent out on `port` to `mac`;
    /// `said` is what the tcx program wrote: flags, a zero, the mark.
    pub(super) fn handed(&mut self, port: PortId, mac: Mac, said: [u8; 6], packet: Packet) -> Sent {
        self.run(port, &packet.macs(Mac(said), mac).build(), true)
    }
    /// Packets counted by the rules of a chain, its policy's last.
    pub(super) fn hits(&self, chain: ChainId) -> Vec<u64> {
        self.counts(chain).into_iter().map(|pair| pair.0).collect()
    }
    /// Packets and bytes counted by the rules of an IPv4 chain, its policy's last.
    pub(super) fn counts(&self, chain: ChainId) -> Vec<(u64, u64)> {
        self.counts_of(&self.snapshot.policy.v4, chain)
    }
    /// Packets counted by the rules of an IPv6 chain, its policy's last.
    pub(super) fn hits6(&self, chain: ChainId) -> Vec<u64> {
        let counts = self.counts_of(&self.snapshot.policy.v6, chain);
        counts.into_iter().map(|pair| pair.0).collect()
    }
    fn counts_of<A>(&self, policy: &FamilyPolicy<A>, chain: ChainId) -> Vec<(u64, u64)> {
        let chain = &policy.chains[chain.0 as usize];
        let rules = chain.rules.iter().map(|rule| rule.counter);
        let ids = rules.chain(chain.policy.map(|policy| policy.1));
        ids.map(|id| self.snapshot.count(id)).collect()
    }
    /// The one packet that the engine made.
    pub(super) fn answer(&mut self) -> (PortId, Vec<u8>) {
        assert_eq!(self.seen.emitted.len(), 1, "{:?}", self.seen.emitted);
        self.seen.emitted.remove(0)
    }
}

pub(super) fn dropped(reason: DropReason) -> Disposition {
    Disposition::Drop(reason)
}
