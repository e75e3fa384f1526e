//! What the engine decides against: two ports with a router behind each, a policy from
//! text, and an empty connection table.

use std::path::Path;
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, Conntrack};
use dataplane::effects::{Effects, LogRecord};
use dataplane::fib::Network;
use dataplane::packet::{Family, PortId};
use dataplane::snapshot::Snapshot;
use dataplane::stats::WorkerStats;
use dataplane::verdict::DropReason;
use portcullis::apply::{Change, PolicyStore};
use portcullis::iptables::{self, TableNames};
use portcullis::replay::topology::TopologyFile;

/// Clients live behind `g0`, everybody else behind `g1`.
const TOPOLOGY: &str = r#"
mode = "routed"
[[port]]
name = "g0"
mac = "02:00:00:00:01:01"
mtu = 9000
addresses = ["192.0.2.1/24", "2001:db8:aaaa::1/64"]
[[port]]
name = "g1"
mac = "02:00:00:00:01:02"
mtu = 9000
addresses = ["203.0.113.1/24", "2001:db8:bbbb::1/64"]
[[route]]
to = "10.0.0.0/8"
via = "192.0.2.2"
dev = "g0"
[[route]]
to = "0.0.0.0/0"
via = "203.0.113.2"
dev = "g1"
[[route]]
to = "2001:db8:a::/48"
via = "2001:db8:aaaa::2"
dev = "g0"
[[route]]
to = "::/0"
via = "2001:db8:bbbb::2"
dev = "g1"
[[neighbour]]
dev = "g0"
address = "192.0.2.2"
mac = "02:00:00:00:02:01"
[[neighbour]]
dev = "g1"
address = "203.0.113.2"
mac = "02:00:00:00:02:02"
[[neighbour]]
dev = "g0"
address = "2001:db8:aaaa::2"
mac = "02:00:00:00:02:01"
[[neighbour]]
dev = "g1"
address = "2001:db8:bbbb::2"
mac = "02:00:00:00:02:02"
"#;

/// Client `n` of IPv4 and of IPv6 has this address and `n`.
pub(super) const CLIENTS: (u32, u128) = (10 << 24, 0x2001_0db8_000a << 80);
/// Server `n`.
pub(super) const SERVERS: (u32, u128) = (198 << 24 | 18 << 16, 0x2001_0db8_000b << 80);

/// Everything but the engines.
pub(super) struct Bed {
    pub(super) network: Network,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) conntrack: Conntrack,
    pub(super) stats: Vec<WorkerStats>,
    /// Owner of the snapshot's counters.
    _store: PolicyStore,
}

impl Bed {
    /// A policy of one family for so many workers, more routes beside the topology's own,
    /// and room for so many connections.
    pub(super) fn new(
        rules: Option<(Family, &str)>,
        routes: usize,
        connections: usize,
        workers: usize,
    ) -> Result<Self, super::Error> {
        let mut change = Change::default();
        if let Some((family, text)) = rules {
            let parsed = iptables::parse(text, "bench", family, &TableNames::well_known());
            let ruleset = parsed.map_err(|findings| match findings.first() {
                Some(first) => format!("{} findings, the first: {first:?}", findings.len()),
                None => "the rules do not load".to_owned(),
            })?;
            match family {
                Family::V4 => change.v4 = Some(ruleset.ruleset),
                Family::V6 => change.v6 = Some(ruleset.ruleset),
            }
        }
        let store = PolicyStore::open(change, vec!["g0".to_owned(), "g1".to_owned()], workers)?;
        let snapshot = store.read(|view| Arc::clone(view.snapshot()));
        let file = TopologyFile::parse(Path::new("bench"), &topology(routes))?;
        let network = Network::build(&file.topology)?;
        let mut config = Config::new(*b"a key that is so");
        config.set("max", (connections as u64).max(1024))?;
        let conntrack = Conntrack::new(config)?;
        let stats = (0..workers).map(|_| WorkerStats::default()).collect();
        Ok(Self { network, snapshot, conntrack, stats, _store: store })
    }
}

/// The topology with so many more routes: networks of many lengths, all on `g1`.
fn topology(routes: usize) -> String {
    use std::fmt::Write;
    let mut text = TOPOLOGY.to_owned();
    for n in 0..routes as u32 {
        let len = 16 + n % 13;
        let bits = (11 << 24) + n.wrapping_mul(40503) % (150 << 16) * 256;
        let to = std::net::Ipv4Addr::from(bits & (u32::MAX << (32 - len)));
        let written = write!(
            text,
            "[[route]]\nto = \"{to}/{len}\"\nvia = \"203.0.113.2\"\ndev = \"g1\"\nmetric = {n}\n"
        );
        debug_assert!(written.is_ok(), "writing to a String cannot fail");
    }
    text
}

/// Where the engine's own packets go: nowhere, and they are counted.
#[derive(Debug, Default)]
pub(super) struct Counted {
    pub(super) sent: u64,
}

impl Effects for Counted {
    fn emit(&mut self, _: PortId, _: &[u8]) -> bool {
        self.sent += 1;
        true
    }
    fn hold(&mut self, _: PortId, _: (Family, u128), _: &[u8]) -> Result<(), DropReason> {
        Err(DropReason::NeighbourUnresolved)
    }
    fn deliver(&mut self, _: Option<PortId>, _: &[u8]) {
        self.sent += 1;
    }
    fn log(&mut self, _: &LogRecord<'_>) {}
    fn want_neighbour(&mut self, _: PortId, _: Family, _: u128) {}
}

/// The time of a run, which only it moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub(super) Nanos);

impl Time {
    /// Some time after the machine was started.
    pub(super) const START: Self = Self(Nanos::from_secs(1000));

    /// Later by so many nanoseconds.
    pub(super) fn pass(&mut self, nanoseconds: u64) -> Nanos {
        self.0 = Nanos(self.0.0 + nanoseconds);
        self.0
    }
}
