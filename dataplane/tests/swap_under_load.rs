//! Publication under load: workers judge packets while policies are swapped
//! under them. Every packet gets the verdict of one of the two policies, none
//! is lost, and memory stays flat.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use classifier::{ClassSet, Masked, Rule};
use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, Conntrack};
use dataplane::effects::{Effects, LogRecord};
use dataplane::engine::{Engine, Slot, World};
use dataplane::fib::{Mode, NeighbourEntry, Network, PortInfo, Topology};
use dataplane::packet::{Family, Mac, PortId};
use dataplane::policy::target::{MarkTarget, Target};
use dataplane::policy::{
    BaseMatch, Chain, ChainId, ChainPolicy, CompiledRule, CounterId, FamilyPolicy, Hook, Policy,
    TABLES, TableId,
};
use dataplane::publish::{Publisher, Subscription};
use dataplane::snapshot::Snapshot;
use dataplane::stats::WorkerStats;
use dataplane::verdict::{Disposition, DropReason};
use dataplane::wire::build::Packet;

const SWAPS: u64 = 1_000;
const WORKERS: usize = 3;
const RULES: u32 = 50;
const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];
const HOST: Mac = Mac([2, 0, 0, 0, 0, 9]);

/// Snapshots alive at this moment, counted by the only thing that each owns.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

struct Counted(Snapshot);

impl Counted {
    fn new(generation: u64) -> Arc<Self> {
        ALIVE.fetch_add(1, Ordering::SeqCst);
        Arc::new(Self(Snapshot::new(generation, policy(generation), WORKERS)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Silent;

impl Effects for Silent {
    fn emit(&mut self, _port: PortId, _frame: &[u8]) -> bool {
        true
    }
    fn hold(&mut self, _: PortId, _: (Family, u128), _: &[u8]) -> Result<(), DropReason> {
        Ok(())
    }
    fn deliver(&mut self, _port: Option<PortId>, _frame: &[u8]) {}
    fn log(&mut self, _record: &LogRecord<'_>) {}
    fn want_neighbour(&mut self, _port: PortId, _family: Family, _next_hop: u128) {}
}

/// Even generations forward and count in their last rule; odd ones drop. Both
/// mark the packet with what they are on the way, and judge by that mark, so
/// that a walk that saw parts of both would end in the chain's policy.
fn policy(generation: u64) -> Policy {
    let parity = (generation % 2) as u32 + 1;
    let any = (Masked::new(0u32, 0), false);
    let rule = |index: u32, residual: Vec<dataplane::policy::Match>, target| CompiledRule {
        indexed: Rule::default(),
        check_base: false,
        base: BaseMatch {
            src: any,
            dst: any,
            iif: ClassSet::ANY,
            oif: ClassSet::ANY,
            proto: None,
            fragment: None,
        },
        matches: residual.clone().into(),
        residual: residual.into(),
        target,
        written: Default::default(),
        counter: CounterId(index + 1),
    };
    let mark = |value| {
        let neg = dataplane::policy::matches::Neg::plain((value, u32::MAX));
        vec![dataplane::policy::Match::Mark(neg)]
    };
    let mut rules: Vec<_> = (0..RULES)
        .map(|index| {
            let toggle = MarkTarget { clear: u32::MAX, toggle: parity };
            rule(index, Vec::new(), Target::Mark(toggle))
        })
        .collect();
    let verdict = if parity == 1 { Target::Accept } else { Target::Drop };
    rules.push(rule(RULES, mark(parity), verdict));
    let policy = Some((ChainPolicy::Drop, CounterId(0)));
    let chain = Chain::new(TableId::Filter, "FORWARD".into(), policy, rules.into());
    let mut hooks = [[None; TABLES]; 5];
    hooks[Hook::Forward as usize][TableId::Filter as usize] = Some(ChainId(0));
    Policy {
        v4: FamilyPolicy {
            chains: Box::new([chain]),
            hooks,
            needs_conntrack: true,
            nat: false,
            max_depth: 0,
        },
        v6: FamilyPolicy {
            chains: Box::new([]),
            hooks: [[None; TABLES]; 5],
            needs_conntrack: false,
            nat: false,
            max_depth: 0,
        },
        counters: RULES + 2,
    }
}

fn network() -> Network {
    let port = |index: usize| PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: format!("eth{index}"),
        mac: MACS[index],
        mtu: 1500,
        addresses: vec![(format!("198.18.{index}.1").parse().unwrap(), 24)],
        up: true,
    };
    let neighbour =
        NeighbourEntry { port: PortId(1), address: "198.18.1.2".parse().unwrap(), mac: HOST };
    let topology = Topology {
        mode: Mode::Routed,
        ports: vec![port(0), port(1)],
        routes: Vec::new(),
        rules: Vec::new(),
        neighbours: vec![neighbour],
    };
    Network::build(&topology).unwrap()
}

/// What a worker counted: forwarded, dropped by a rule, anything else.
#[derive(Debug, Default)]
struct Tally {
    forwarded: u64,
    dropped: u64,
    other: u64,
}

/// What the workers share.
struct Shared {
    network: Network,
    conntrack: Conntrack,
    stop: AtomicBool,
    started: AtomicUsize,
}

/// One worker: bursts of one flow until told to stop.
fn work(worker: usize, shared: &Shared, mut subscription: Subscription<Counted>) -> Tally {
    let (mut engine, stats) = (Engine::new(), WorkerStats::default());
    let mut tally = Tally::default();
    let packet = Packet::udp("198.18.0.2", 1000 + worker as u16, "198.18.1.2", 53);
    let frame = packet.macs(HOST, MACS[0]).build();
    shared.started.fetch_add(1, Ordering::SeqCst);
    while !shared.stop.load(Ordering::Relaxed) {
        let counted = subscription.refresh();
        let world = World {
            snapshot: &counted.0,
            worker,
            network: &shared.network,
            conntrack: &shared.conntrack,
            stats: &stats,
            now: Nanos::from_secs(1000),
        };
        let mut bufs = [(); 8].map(|()| frame.clone());
        let mut burst = bufs.each_mut().map(|buf| Slot {
            len: buf.len(),
            buf: buf.as_mut_slice(),
            start: 0,
            port: PortId(0),
            disposition: Disposition::Drop(DropReason::FaultInjected),
        });
        engine.process(&world, &mut burst, &mut Silent);
        let forwards = counted.0.generation.is_multiple_of(2);
        for slot in &burst {
            match slot.disposition {
                Disposition::Transmit(PortId(1)) if forwards => tally.forwarded += 1,
                Disposition::Drop(DropReason::Rule) if !forwards => tally.dropped += 1,
                _ => tally.other += 1,
            }
        }
    }
    tally
}

/// The control thread: publishes, and reads each old snapshot's counters once
/// every worker has left it. Returns what they counted, those of the snapshots
/// that are not yet left, and how many were alive at most.
fn swap(publisher: &mut Publisher<Counted>) -> ((u64, u64), Vec<Arc<Counted>>, usize) {
    let (mut retired, mut total, mut most) = (Vec::new(), (0, 0), 0);
    for generation in 1..=SWAPS {
        retired.push(publisher.publish(Counted::new(generation)));
        // Most swaps come in a hurry; before some, all workers have moved on.
        let patient = generation.is_multiple_of(32);
        while patient && retired.iter().any(|old| Arc::strong_count(old) > HELD) {
            std::thread::yield_now();
        }
        most = most.max(ALIVE.load(Ordering::SeqCst));
        retired.retain(|old| {
            let left = Arc::strong_count(old) == HELD;
            if left {
                total = add(total, verdicts(old));
            }
            !left
        });
    }
    (total, retired, most)
}

/// Owners of a snapshot that every worker has left: the publisher and the test.
const HELD: usize = 2;

fn add(a: (u64, u64), b: (u64, u64)) -> (u64, u64) {
    (a.0 + b.0, a.1 + b.1)
}

#[test]
fn a_thousand_swaps_under_load() {
    let shared = Shared {
        network: network(),
        conntrack: Conntrack::new(Config::new([3; 16])).unwrap(),
        stop: AtomicBool::new(false),
        started: AtomicUsize::new(0),
    };
    let mut publisher = Publisher::new(Counted::new(0));
    let (tallies, (counted, retired, most)) = std::thread::scope(|scope| {
        let shared = &shared;
        let workers = [0, 1, 2].map(|worker| {
            let subscription = publisher.subscribe();
            scope.spawn(move || work(worker, shared, subscription))
        });
        while shared.started.load(Ordering::SeqCst) < WORKERS {
            std::thread::yield_now();
        }
        let swapped = swap(&mut publisher);
        shared.stop.store(true, Ordering::Relaxed);
        (workers.map(|worker| worker.join().unwrap()), swapped)
    });
    let late = retired.into_iter().chain([publisher.current()]);
    let (packets, bytes) = late.fold(counted, |total, old| add(total, verdicts(&old)));
    assert_eq!(publisher.reclaim(), 0);
    assert_eq!(ALIVE.load(Ordering::SeqCst), 1, "only the current snapshot is left");
    assert!(most <= 2 * WORKERS + 4, "{most} snapshots were alive at once");
    let sum = |part: fn(&Tally) -> u64| tallies.iter().map(part).sum::<u64>();
    assert_eq!(sum(|tally| tally.other), 0, "{tallies:?}");
    let judged = sum(|tally| tally.forwarded) + sum(|tally| tally.dropped);
    assert!(judged > SWAPS, "{tallies:?}");
    assert_eq!((packets, bytes), (judged, judged * 28), "no packet lost to a swap");
}

/// Packets and bytes that the verdict rule of a snapshot counted.
fn verdicts(snapshot: &Counted) -> (u64, u64) {
    let (packets, bytes) = snapshot.0.count(CounterId(RULES + 1));
    assert_eq!(snapshot.0.count(CounterId(0)), (0, 0), "nothing reaches the chain's policy");
    assert_eq!(snapshot.0.count(CounterId(1)), (packets, bytes), "each walked one policy whole");
    (packets, bytes)
}
