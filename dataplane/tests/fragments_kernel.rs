//! Fragments through the engine and through a netfilter router in a namespace:
//! after every frame the same bytes have come out, and at the end the connection
//! tables agree. IPv6 identifications are compared by their presence only: the
//! kernel draws new ones. Needs root.

#[path = "fragments/cases.rs"]
mod cases;
#[path = "../../control/tests/lab/mod.rs"]
mod lab;

use cases::{Case, Rng};
use classifier::{Address, ClassSet, Masked, Rule};
use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, Conntrack};
use dataplane::effects::{Effects, LogRecord};
use dataplane::engine::{Engine, Slot, World};
use dataplane::fib::{Mode, NeighbourEntry, Network, PortInfo, Topology};
use dataplane::packet::{Family, Mac, PortId};
use dataplane::policy::matches::{Neg, Range, UdpMatch};
use dataplane::policy::target::Target;
use dataplane::policy::{
    BaseMatch, Chain, ChainId, ChainPolicy, CompiledRule, CounterId, FamilyPolicy, Hook, Match,
    Policy, TABLES, TableId,
};
use dataplane::snapshot::Snapshot;
use dataplane::stats::WorkerStats;
use dataplane::verdict::{Disposition, DropReason};
use dataplane::wire::ipv4;
use lab::clock::{Clock, pause_ms};
use lab::{Lab, address, host_mac, port_mac};

/// Frames that a side sent, by port.
type Out = Vec<(usize, Vec<u8>)>;

#[derive(Default)]
struct Seen {
    sent: Out,
    delivered: u64,
}

impl Effects for Seen {
    fn emit(&mut self, port: PortId, frame: &[u8]) -> bool {
        self.sent.push((port.index(), frame.to_vec()));
        true
    }
    fn hold(&mut self, _: PortId, _: (Family, u128), _: &[u8]) -> Result<(), DropReason> {
        Err(DropReason::NeighbourUnresolved)
    }
    fn deliver(&mut self, _port: Option<PortId>, _frame: &[u8]) {
        self.delivered += 1;
    }
    fn log(&mut self, _record: &LogRecord<'_>) {}
    fn want_neighbour(&mut self, _port: PortId, _family: Family, _next_hop: u128) {}
}

/// Drops UDP to port 53 in FORWARD.
fn family<A: Address>(needs_conntrack: bool) -> FamilyPolicy<A> {
    let dport = Some(Neg::plain(Range { low: 53, high: 53 }));
    let matches = vec![Match::Udp(UdpMatch { sport: None, dport })];
    let any = (Masked::new(A::default(), A::default()), false);
    let rule = CompiledRule {
        indexed: Rule::default(),
        check_base: true,
        base: BaseMatch {
            src: any,
            dst: any,
            iif: ClassSet::ANY,
            oif: ClassSet::ANY,
            proto: Some((17, false)),
            fragment: None,
        },
        residual: matches.clone().into(),
        matches: matches.into(),
        target: Target::Drop,
        written: Default::default(),
        counter: CounterId(1),
    };
    let policy = Some((ChainPolicy::Accept, CounterId(0)));
    let chain = Chain::new(TableId::Filter, "FORWARD".into(), policy, Box::new([rule]));
    let mut hooks = [[None; TABLES]; 5];
    hooks[Hook::Forward as usize][TableId::Filter as usize] = Some(ChainId(0));
    FamilyPolicy { chains: Box::new([chain]), hooks, needs_conntrack, nat: false, max_depth: 0 }
}

const RULE: &str = "-A FORWARD -p udp -m udp --dport 53 -j DROP\n";
const TRACKS: &str = "-A FORWARD -m conntrack --ctstate NEW\n";

fn network(mtu: u32) -> Network {
    let port = |index: usize| PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: format!("eth{index}"),
        mac: Mac(port_mac(index)),
        mtu: if index == 1 { mtu } else { 1500 },
        addresses: vec![(address(false, index, 1), 24), (address(true, index, 1), 64)],
        up: true,
    };
    let neighbour = |(index, v6)| NeighbourEntry {
        port: PortId(index as u8),
        address: address(v6, index, 10),
        mac: Mac(host_mac(index, 10)),
    };
    let topology = Topology {
        mode: Mode::Routed,
        ports: (0..3).map(port).collect(),
        routes: Vec::new(),
        rules: Vec::new(),
        neighbours: [(0, false), (0, true), (1, false), (1, true)].map(neighbour).into(),
    };
    Network::build(&topology).expect("a network")
}

/// The kernel and the engine side by side.
struct Twins {
    kernel: Lab,
    snapshot: Snapshot,
    network: Network,
    conntrack: Conntrack,
    engine: Engine,
    stats: WorkerStats,
    clock: Clock,
    skipped: Nanos,
    delivered: u64,
    frames: usize,
}

impl Twins {
    fn new(mtu: u32, tracked: bool) -> Self {
        let kernel = Lab::new();
        kernel
            .router()
            .run("ip", &["link", "set", "eth1", "mtu", &mtu.to_string()], "")
            .expect("an MTU");
        for v6 in [false, true] {
            let tracks = if tracked { TRACKS } else { "" };
            kernel.restore(v6, &format!("*filter\n{RULE}{tracks}COMMIT\n")).expect("rules");
        }
        let policy = Policy { v4: family(tracked), v6: family(tracked), counters: 2 };
        Self {
            delivered: kernel.delivered(),
            kernel,
            snapshot: Snapshot::new(1, policy, 1),
            network: network(mtu),
            conntrack: Conntrack::new(Config::new([3; 16])).expect("a table"),
            engine: Engine::new(),
            stats: WorkerStats::default(),
            clock: Clock::start(),
            skipped: Nanos::from_secs(1000),
            frames: 0,
        }
    }

    fn ours(&mut self, port: Option<usize>, frame: &[u8]) -> (Out, u64) {
        let mut seen = Seen::default();
        let mut buf = [&[0; 64], frame].concat();
        let disposition = Disposition::Drop(DropReason::FaultInjected);
        let (start, len, output) = (64, frame.len(), port.is_none());
        let port = port.map_or(PortId::LOOPBACK, |port| PortId(port as u8));
        let mut burst = [Slot { buf: &mut buf, start, len, port, disposition }];
        let world = World {
            snapshot: &self.snapshot,
            worker: 0,
            network: &self.network,
            conntrack: &self.conntrack,
            stats: &self.stats,
            now: Nanos(self.clock.now_ns()) + self.skipped,
        };
        match output {
            true => self.engine.output(&world, &mut burst, &mut seen),
            false => self.engine.process(&world, &mut burst, &mut seen),
        }
        let [slot] = burst;
        match slot.disposition {
            Disposition::Transmit(port) => seen.sent.push((port.index(), slot.frame().to_vec())),
            Disposition::Deliver => seen.delivered += 1,
            _ => {}
        }
        (seen.sent, seen.delivered)
    }

    /// Sends a frame through both; without a port, from the router itself.
    fn send(&mut self, name: &str, port: Option<usize>, frame: &[u8]) {
        let theirs = match port {
            Some(port) => self.kernel.inject(port, frame),
            None => self.kernel.emit(frame[12] == 0x86, &frame[14..]),
        };
        let theirs: Out = theirs.into_iter().map(|sent| (sent.port, sent.frame)).collect();
        let (ours, delivered) = self.ours(port, frame);
        self.delivered += delivered;
        self.frames += 1;
        let (theirs, ours) = (canonical(theirs), canonical(ours));
        if theirs != ours {
            let show = |out: &Out| out.iter().map(show).collect::<Vec<_>>().join("\n  ");
            let (input, theirs, ours) =
                (show(&vec![(9, frame.to_vec())]), show(&theirs), show(&ours));
            panic!("{name}\n{input}\nkernel:\n  {theirs}\nours:\n  {ours}");
        }
    }

    fn play(&mut self, case: &Case) {
        for (port, packet) in &case.frames {
            let macs = (Mac(host_mac(*port, 10)), Mac(port_mac(*port)));
            let frame = packet.clone().macs(macs.0, macs.1).build();
            self.send(&case.name, Some(*port), &frame);
        }
        assert_eq!(self.kernel.delivered(), self.delivered, "{}: delivered", case.name);
    }

    /// Connections without their timeouts.
    fn compare_tables(&self) {
        let words = |line: &str| {
            let keep = |word: &&str| {
                word.contains('=') && !word.starts_with("use=") && !word.starts_with("zone=")
            };
            line.split_whitespace().filter(keep).map(address_word).collect::<Vec<_>>().join(" ")
        };
        let mut theirs: Vec<String> = self.kernel.conntrack().iter().map(|l| words(l)).collect();
        let now = Nanos(self.clock.now_ns()) + self.skipped;
        let mut ours: Vec<String> =
            self.conntrack.rows(now).map(|row| words(&row.to_string())).collect();
        theirs.sort();
        ours.sort();
        assert_eq!(theirs, ours);
    }
}

/// IPv6 addresses have two spellings.
fn address_word(word: &str) -> String {
    match word.split_once('=') {
        Some((name, value)) if value.contains(':') => {
            format!("{name}={}", value.parse::<std::net::Ipv6Addr>().expect("an address"))
        }
        _ => word.to_owned(),
    }
}

/// What cannot be foretold is taken out: identifications of the router's own
/// ICMP errors and of IPv6 fragments.
fn canonical(out: Out) -> Out {
    out.into_iter()
        .map(|(port, mut frame)| {
            if frame[12] == 8 && frame[23] == 1 && matches!(frame[34], 3 | 11) {
                frame[18..20].fill(0);
                if let Ok(mut ip) = ipv4::Packet::new_header(&mut frame[14..]) {
                    ip.fill_checksum();
                }
            }
            if frame[12] == 0x86 {
                let (mut next, mut at) = (frame[20], 54);
                while matches!(next, 0 | 43 | 60) {
                    (next, at) = (frame[at], at + (usize::from(frame[at + 1]) + 1) * 8);
                }
                if next == 44 {
                    frame[at + 4..at + 8].fill(0);
                }
            }
            (port, frame)
        })
        .collect()
}

fn show((port, frame): &(usize, Vec<u8>)) -> String {
    let hex: String = frame.iter().skip(12).take(80).map(|byte| format!("{byte:02x}")).collect();
    format!("port {port} {} bytes {hex}", frame.len())
}

#[test]
fn fragments_go_on_as_in_the_kernel() {
    for mtu in [1500, 1400] {
        let mut twins = Twins::new(mtu, true);
        for v6 in [false, true] {
            for case in cases::all(v6) {
                twins.play(&Case { name: format!("{} (v6: {v6}, mtu {mtu})", case.name), ..case });
            }
        }
        twins.compare_tables();
        assert!(twins.frames > 200, "{} frames", twins.frames);
    }
}

#[test]
fn random_fragments_go_on_as_in_the_kernel() {
    let mut twins = Twins::new(1400, true);
    for seed in 0..400 {
        twins.play(&cases::random(&mut Rng::new(seed), seed));
    }
    twins.compare_tables();
    assert!(twins.stats.reassembled.get() > 200, "{}", twins.stats.reassembled.get());
}

/// A router says nothing about IPv4 datagrams that it only forwards.
#[test]
fn unfinished_datagrams_end_as_in_the_kernel() {
    let mut twins = Twins::new(1500, true);
    twins.kernel.router().sysctl("ipv4/ipfrag_time", "1");
    twins.kernel.router().sysctl("netfilter/nf_conntrack_frag6_timeout", "1");
    for (index, case) in cases::unfinished().iter().enumerate() {
        twins.play(case);
        pause_ms(1300);
        twins.skipped = twins.skipped + Nanos::from_secs(61);
        // What the kernel said meanwhile comes out with the next frame.
        let v6 = index % 2 == 1;
        twins.play(&cases::ping(v6, index as u16));
    }
    assert_eq!(twins.stats.drops(DropReason::ReassemblyTimeout), 8);
}

/// Without tracking fragments are judged one by one, and what is for the router
/// itself is put together behind the routing decision (IPv4).
#[test]
fn untracked_fragments_go_on_as_in_the_kernel() {
    let mut twins = Twins::new(1500, false);
    for case in cases::all(false) {
        twins.play(&case);
    }
    assert!(twins.delivered > 0 && twins.kernel.conntrack().is_empty());
}

#[test]
fn the_router_s_own_fragments_leave_as_in_the_kernel() {
    let mut twins = Twins::new(1400, true);
    for v6 in [false, true] {
        for packet in cases::own(v6) {
            let name = format!("own (v6: {v6})");
            twins.send(&name, None, &packet.build());
        }
    }
    twins.compare_tables();
    assert_eq!(twins.stats.reassembled.get(), 4);
}
