//! The lab's router once more, as an engine in memory.

use classifier::{Address, ClassSet, Masked, Rule};
use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, Conntrack};
use dataplane::effects::{Effects, LogRecord};
use dataplane::engine::{Engine, Slot, World};
use dataplane::fib::{
    Mode, NeighbourEntry, Network, PortInfo, Realms, RouteEntry, RouteKind, Topology,
};
use dataplane::packet::{Family, PortId};
use dataplane::policy::target::Target;
use dataplane::policy::{
    BaseMatch, Chain, ChainId, ChainPolicy, CompiledRule, CounterId, FamilyPolicy, Hook, Policy,
    RejectWith, TABLES, TableId,
};
use dataplane::reply::limit::Settings;
use dataplane::snapshot::Snapshot;
use dataplane::stats::WorkerStats;
use dataplane::verdict::{Disposition, DropReason};

use super::support::{HOST, ROUTER};

/// The router's time of day, in milliseconds: four bytes that no frame of the
/// tests holds otherwise.
pub(crate) const NOW_MS: u32 = 0x03a5_c37e;

/// Last bytes of the addresses of further hosts in port 0's network.
pub(crate) const STRANGERS: std::ops::Range<u8> = 20..254;

/// What the engine sends, by port.
#[derive(Default)]
struct Sent([Vec<Vec<u8>>; 2]);

impl Effects for Sent {
    fn emit(&mut self, port: PortId, frame: &[u8]) -> bool {
        self.0[port.index()].push(frame.to_vec());
        true
    }
    fn hold(
        &mut self,
        _port: PortId,
        _next_hop: (Family, u128),
        _frame: &[u8],
    ) -> Result<(), DropReason> {
        Err(DropReason::NeighbourUnresolved)
    }
    fn deliver(&mut self, _port: Option<PortId>, _frame: &[u8]) {}
    fn log(&mut self, _record: &LogRecord<'_>) {}
    fn want_neighbour(&mut self, _port: PortId, _family: Family, _next_hop: u128) {}
}

/// The router.
pub(crate) struct Router {
    snapshot: Snapshot,
    network: Network,
    conntrack: Conntrack,
    stats: WorkerStats,
    engine: Engine,
}

impl Router {
    /// With the lab's ports and hosts and further routes. INPUT drops all, or
    /// INPUT and FORWARD reject all; the same over both families.
    pub(crate) fn new(routes: &[(&str, u8, RouteKind)], reject: Option<[RejectWith; 2]>) -> Self {
        let config = Config::new([7; 16]);
        let policy = Policy {
            v4: family(reject.map(|with| with[0])),
            v6: family(reject.map(|with| with[1])),
            counters: 4,
        };
        Self {
            snapshot: Snapshot::new(1, policy, 1),
            network: Network::build(&topology(routes)).expect("a network"),
            conntrack: Conntrack::new(config).expect("a table"),
            stats: WorkerStats::default(),
            engine: Engine::with_limits(Settings::off()),
        }
    }
    /// The same with IPv4 connection tracking.
    pub(crate) fn tracked(mut self) -> Self {
        let mut policy = self.snapshot.policy;
        policy.v4.needs_conntrack = true;
        self.snapshot = Snapshot::new(1, policy, 1);
        self
    }
    /// Sends a frame into port 0 and returns what leaves by port, and what
    /// became of the frame itself.
    pub(crate) fn exchange(&mut self, frame: &[u8]) -> ([Vec<Vec<u8>>; 2], Disposition) {
        let (mut buf, mut sent) = (frame.to_vec(), Sent::default());
        let world = World {
            snapshot: &self.snapshot,
            worker: 0,
            network: &self.network,
            conntrack: &self.conntrack,
            stats: &self.stats,
            now: Nanos::from_millis(u64::from(NOW_MS) + 86_400_000),
        };
        let disposition = Disposition::Drop(DropReason::FaultInjected);
        let slot = Slot { buf: &mut buf, start: 0, len: frame.len(), port: PortId(0), disposition };
        let mut burst = [slot];
        self.engine.process(&world, &mut burst, &mut sent);
        let [slot] = burst;
        if let Disposition::Transmit(port) = slot.disposition {
            sent.0[port.index()].push(slot.frame().to_vec());
        }
        (sent.0, slot.disposition)
    }
}

fn family<A: Address>(reject: Option<RejectWith>) -> FamilyPolicy<A> {
    let chain = |policy, counter| {
        let rules: Box<[_]> = reject.into_iter().map(|with| rejects(with, counter + 1)).collect();
        let policy = Some((policy, CounterId(counter)));
        Chain::new(TableId::Filter, "all".into(), policy, rules)
    };
    let mut hooks = [[None; TABLES]; 5];
    hooks[Hook::Input as usize][TableId::Filter as usize] = Some(ChainId(0));
    hooks[Hook::Forward as usize][TableId::Filter as usize] = Some(ChainId(1));
    FamilyPolicy {
        chains: Box::new([chain(ChainPolicy::Drop, 0), chain(ChainPolicy::Accept, 2)]),
        hooks,
        needs_conntrack: false,
        nat: false,
        max_depth: 0,
    }
}

fn rejects<A: Address>(with: RejectWith, counter: u32) -> CompiledRule<A> {
    let any = (Masked::default(), false);
    CompiledRule {
        indexed: Rule::default(),
        check_base: false,
        residual: Box::new([]),
        base: BaseMatch {
            src: any,
            dst: any,
            iif: ClassSet::ANY,
            oif: ClassSet::ANY,
            proto: None,
            fragment: None,
        },
        matches: Box::new([]),
        target: Target::Reject(with),
        written: Default::default(),
        counter: CounterId(counter),
    }
}

fn topology(routes: &[(&str, u8, RouteKind)]) -> Topology {
    let ip = |text: &str| text.parse().expect("an address");
    let port = |index: usize| PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: format!("eth{index}"),
        mac: ROUTER[index],
        mtu: 1500,
        addresses: vec![
            (ip(&format!("198.18.{}.1", index + 1)), 24),
            (ip(&format!("2001:db8:{}::1", index + 1)), 64),
            (ip(&format!("fe80::ff:fe00:{}", 101 + index)), 64),
        ],
        up: true,
    };
    let hosts = ["198.18.1.5", "2001:db8:1::5", "fe80::5", "198.18.2.7", "2001:db8:2::7"];
    Topology {
        mode: Mode::Routed,
        ports: vec![port(0), port(1)],
        routes: routes
            .iter()
            .map(|&(to, len, kind)| RouteEntry {
                to: (ip(to), len),
                via: None,
                kind,
                table: 254,
                metric: 0,
                mtu: None,
                prefsrc: None,
                devices: 0,
                anycast: false,
                realms: Realms::default(),
            })
            .collect(),
        rules: Vec::new(),
        neighbours: hosts
            .iter()
            .enumerate()
            .map(|(at, host)| (usize::from(at > 2), (*host).to_owned()))
            .chain(STRANGERS.map(|host| (0, format!("198.18.1.{host}"))))
            .map(|(side, host)| NeighbourEntry {
                port: PortId(side as u8),
                address: ip(&host),
                mac: HOST[side],
            })
            .collect(),
    }
}
