//! Tests of the worker over ports in memory.

use proptest::prelude::*;

use super::*;
use crate::conntrack::{Config, Conntrack};
use crate::effects::{Effects, LogRecord, Report};
use crate::fib::{Mode, NeighbourEntry, Network, PortInfo, Topology};
use crate::logbook::{LogBook, Rate, Reports};
use crate::packet::{Family, Mac};
use crate::policy::target::LogTarget;
use crate::policy::{FamilyPolicy, Hook, Policy, TABLES};
use crate::port::LinkState;
use crate::port::afxdp::AfxdpPort;
use crate::port::afxdp::tests::{self as afxdp, Kernel};
use crate::port::fault::{FaultPort, Faults, PerMillion};
use crate::port::memory::MemoryPort;
use crate::port::pcap::{CapturePort, Reader};
use crate::publish::Publisher;
use crate::snapshot::Snapshot;
use crate::wire::{self, build::Packet};

const A: PortId = PortId(0);
const B: PortId = PortId(1);

fn worker<L: Pipeline>(pipeline: L) -> Worker<MemoryPort, L> {
    let pool = Pool::new(512, false).expect("memory for a small pool");
    let ports = vec![MemoryPort::new(128), MemoryPort::new(128)];
    Worker::new(0, pool, ports, pipeline, Outlets::new(4, 4))
}

fn inject<L: Pipeline>(worker: &mut Worker<MemoryPort, L>, port: PortId, bytes: &[u8]) {
    let (pool, ports) = worker.parts();
    assert!(ports[port.index()].inject(pool, bytes), "no room to inject");
}

fn collect<L: Pipeline>(worker: &mut Worker<MemoryPort, L>, port: PortId) -> Vec<Vec<u8>> {
    let (pool, ports) = worker.parts();
    ports[port.index()].collect(pool)
}

#[test]
fn a_cross_connect_forwards_both_ways_and_loses_no_frame() {
    let mut worker = worker(CrossConnect::new(&[(A, B)]));
    for round in 0..100u8 {
        for index in 0..100 {
            inject(&mut worker, A, &[round, index, 1]);
            inject(&mut worker, B, &[round, index, 2, 2]);
        }
        let mut received = 0;
        for _ in 0..8 {
            received += worker.turn(Nanos::SECOND);
        }
        assert_eq!(received, 200);
        let (to_b, to_a) = (collect(&mut worker, B), collect(&mut worker, A));
        assert_eq!(to_b.len(), 100);
        assert_eq!(to_b[99], [round, 99, 1]);
        assert_eq!(to_a.len(), 100);
        assert_eq!(to_a[99], [round, 99, 2, 2]);
    }
    let stats = worker.stats();
    assert_eq!(stats.port(A).rx.get(), (10_000, 30_000));
    assert_eq!(stats.port(B).tx.get(), (10_000, 30_000));
    assert_eq!(stats.port(A).tx.get(), (10_000, 40_000));
    assert_eq!(stats.turns.get(), 800);
    let (pool, _) = worker.parts();
    assert_eq!((pool.held(), pool.lent()), (0, 0));
}

#[test]
fn a_port_without_a_peer_drops_and_a_full_one_is_counted() {
    let mut worker = worker(CrossConnect::new(&[(A, A)]));
    inject(&mut worker, B, &[1; 60]);
    worker.turn(Nanos::SECOND);
    assert_eq!(worker.stats().drops(DropReason::NotForUs), 1);
    for _ in 0..3 {
        for _ in 0..64 {
            inject(&mut worker, A, &[1; 60]);
        }
        worker.turn(Nanos::SECOND);
    }
    assert_eq!(worker.stats().drops(DropReason::TxRingFull), 64);
    assert_eq!(collect(&mut worker, A).len(), 128);
    assert_eq!(worker.parts().0.held(), 0);
}

#[test]
fn a_link_that_is_down_drops_until_it_is_back() {
    let mut worker = worker(CrossConnect::new(&[(A, B)]));
    worker.parts().1[1].set_link(LinkState::Down);
    worker.turn(Nanos::SECOND);
    inject(&mut worker, A, &[1; 60]);
    worker.turn(Nanos::SECOND);
    assert_eq!(worker.stats().drops(DropReason::PortDown), 1);
    worker.parts().1[1].set_link(LinkState::Up);
    worker.turn(Nanos::SECOND + CHECK_INTERVAL);
    inject(&mut worker, A, &[1; 60]);
    worker.turn(Nanos::SECOND + CHECK_INTERVAL);
    assert_eq!(collect(&mut worker, B).len(), 1);
    let events: Vec<_> = std::iter::from_fn(|| worker.outlets.events.pop()).collect();
    assert!(matches!(events[0], WorkerEvent { port: B, event: PortEvent::LinkDown, .. }));
    assert!(matches!(events[1], WorkerEvent { port: B, event: PortEvent::LinkUp, .. }));
    assert_eq!(events.len(), 2);
}

#[test]
fn what_waited_through_a_silence_is_dropped_and_what_comes_after_is_not() {
    let beat = crate::port::afxdp::Beat::unheard(Nanos::SECOND);
    let mut worker = worker(CrossConnect::new(&[(A, B)])).with_beat(Some(beat));
    let start = Nanos::from_secs(7200);
    worker.turn(start);
    inject(&mut worker, A, &[1; 60]);
    worker.turn(start + Nanos::SECOND);
    assert_eq!(collect(&mut worker, B).len(), 1, "a second is not too late");
    for _ in 0..100 {
        inject(&mut worker, A, &[2; 60]);
    }
    assert_eq!(worker.turn(start + Nanos::from_secs(3)), 0);
    assert_eq!(worker.stats().drops(DropReason::Stale), 100);
    inject(&mut worker, A, &[3; 60]);
    assert_eq!(worker.turn(start + Nanos::from_secs(3)), 1);
    assert_eq!(collect(&mut worker, B), [[3; 60]]);
    assert_eq!(worker.parts().0.held(), 0);
}

/// Sends everything to one next hop on port B, which is unknown at first.
#[derive(Debug, Default)]
struct OneHop {
    known: bool,
    changed: bool,
    refused: u32,
    answers: bool,
}

const HOP: u128 = 0xc612_0202;

impl Pipeline for OneHop {
    fn refresh(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
    fn process(&mut self, burst: &mut [Slot<'_>], _now: Nanos, effects: &mut impl Effects) {
        for slot in burst {
            slot.disposition = if self.answers {
                assert!(effects.emit(slot.port, &[9; 42]));
                Disposition::Drop(DropReason::TtlExpired)
            } else {
                effects.want_neighbour(B, Family::V4, HOP);
                Disposition::AwaitNeighbour { port: B, next_hop: (Family::V4, HOP) }
            };
        }
    }
    fn link_addresses(
        &self,
        port: PortId,
        family: Family,
        next_hop: u128,
    ) -> Option<LinkAddresses> {
        assert_eq!((port, family, next_hop), (B, Family::V4, HOP));
        self.known.then_some(LinkAddresses { destination: Mac([2; 6]), source: Mac([4; 6]) })
    }
    fn unresolved(&mut self, port: PortId, frame: &mut [u8], _: Nanos, _: &mut impl Effects) {
        assert_eq!((port, frame.len()), (B, 60));
        self.refused += 1;
    }
}

#[test]
fn waiting_frames_leave_in_order_when_the_neighbour_is_known() {
    let mut worker = worker(OneHop::default());
    for number in 0..10 {
        inject(&mut worker, A, &[number; 60]);
    }
    worker.turn(Nanos::SECOND);
    assert_eq!((worker.waiting(), worker.outlets.neighbours.len()), (10, 1));
    worker.pipeline_mut().changed = true;
    worker.turn(Nanos::SECOND);
    assert_eq!(worker.waiting(), 10, "a change that does not resolve it keeps them");
    worker.pipeline_mut().changed = true;
    worker.pipeline_mut().known = true;
    worker.turn(Nanos::SECOND);
    let sent = collect(&mut worker, B);
    assert_eq!((sent.len(), worker.waiting()), (10, 0));
    for (number, frame) in sent.iter().enumerate() {
        assert_eq!(frame[..6], [2; 6]);
        assert_eq!(frame[6..12], [4; 6]);
        assert_eq!(frame[12..], [number as u8; 48]);
    }
}

#[test]
fn waiting_frames_are_bounded_and_given_up_after_three_seconds() {
    let mut worker = worker(OneHop::default());
    for _ in 0..100 {
        inject(&mut worker, A, &[1; 60]);
    }
    worker.turn(Nanos::SECOND);
    worker.turn(Nanos::SECOND);
    assert_eq!(worker.waiting(), 64);
    assert_eq!(worker.stats().drops(DropReason::NeighbourQueueFull), 36);
    assert_eq!(worker.outlets.neighbours.len(), 1, "asked once");
    let last = Nanos::from_secs(4) - Nanos(1);
    worker.turn(last);
    assert_eq!((worker.waiting(), worker.pipeline_mut().refused), (64, 0));
    worker.turn(Nanos::from_secs(4));
    assert_eq!((worker.waiting(), worker.pipeline_mut().refused), (0, 64));
    assert_eq!(worker.stats().drops(DropReason::NeighbourUnresolved), 64);
    assert_eq!(worker.parts().0.held(), 0);
}

#[test]
fn a_next_hop_is_asked_for_again_after_a_second_or_a_change() {
    let mut worker = worker(OneHop::default());
    let mut asked_at = |now: Nanos, changed: bool| {
        inject(&mut worker, A, &[1; 60]);
        worker.pipeline_mut().changed = changed;
        worker.turn(now);
        std::iter::from_fn(|| worker.outlets.neighbours.pop()).collect::<Vec<_>>()
    };
    let request = NeighbourRequest { port: B, family: Family::V4, next_hop: HOP };
    assert_eq!(asked_at(Nanos::SECOND, false), [request]);
    assert_eq!(asked_at(Nanos::from_millis(1999), false), []);
    assert_eq!(asked_at(Nanos::from_millis(2000), false), [request]);
    assert_eq!(asked_at(Nanos::from_millis(2001), true), [request]);
    assert_eq!(asked_at(Nanos::from_millis(2002), false), []);
}

#[test]
fn a_request_that_found_no_room_is_made_again() {
    let mut worker = worker(OneHop::default());
    let other = NeighbourRequest { port: A, family: Family::V6, next_hop: 1 };
    while worker.outlets.neighbours.push(other).is_ok() {}
    inject(&mut worker, A, &[1; 60]);
    worker.turn(Nanos::SECOND);
    while worker.outlets.neighbours.pop().is_some() {}
    inject(&mut worker, A, &[1; 60]);
    worker.turn(Nanos::SECOND);
    assert_eq!(worker.outlets.neighbours.pop().map(|request| request.next_hop), Some(HOP));
}

#[test]
fn the_pipelines_own_frames_are_sent() {
    let mut worker = worker(OneHop { answers: true, ..OneHop::default() });
    inject(&mut worker, A, &[1; 60]);
    worker.turn(Nanos::SECOND);
    assert_eq!(collect(&mut worker, A), [vec![9; 42]]);
    assert_eq!(worker.stats().drops(DropReason::TtlExpired), 1);
    assert_eq!(worker.parts().0.held(), 0);
}

#[test]
fn a_stopped_worker_returns() {
    let mut worker = worker(CrossConnect::new(&[(A, B)]));
    let stop = AtomicBool::new(true);
    assert!(worker.run_pinned(None, &stop));
}

/// No tables: everything is accepted.
fn empty_policy() -> Policy {
    fn family<A: classifier::Address>() -> FamilyPolicy<A> {
        FamilyPolicy {
            chains: Box::new([]),
            hooks: [[None; TABLES]; 5],
            needs_conntrack: false,
            nat: false,
            max_depth: 0,
        }
    }
    Policy { v4: family(), v6: family(), counters: 0 }
}

fn network(mode: Mode) -> Arc<Network> {
    let port = |name: &str, last| PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: name.to_owned(),
        mac: Mac([2, 0, 0, 0, 0, last]),
        mtu: 1500,
        addresses: Vec::new(),
        up: true,
    };
    let topology = Topology {
        mode,
        ports: vec![port("a", 1), port("b", 2)],
        routes: Vec::new(),
        rules: Vec::new(),
        neighbours: Vec::new(),
    };
    Arc::new(Network::build(&topology).unwrap())
}

#[test]
fn the_firewall_adopts_what_is_published_between_turns() {
    let bridge = || network(Mode::Bridge(vec![(A, B)]));
    let mut policies = Publisher::new(Arc::new(Snapshot::new(1, empty_policy(), 1)));
    let mut networks = Publisher::new(bridge());
    let conntrack = Arc::new(Conntrack::new(Config::new([0; 16])).unwrap());
    let stats = Arc::new(WorkerStats::default());
    let (policy, net) = (policies.subscribe(), networks.subscribe());
    let firewall = EnginePipeline::new(0, policy, net, conntrack, Arc::clone(&stats));
    let mut worker = worker(firewall).with_stats(Arc::clone(&stats));
    let arp = {
        let mut frame = [0xff; 60];
        frame[12..14].copy_from_slice(&[0x08, 0x06]);
        frame
    };
    inject(&mut worker, A, &arp);
    worker.turn(Nanos::SECOND);
    assert_eq!(collect(&mut worker, B).len(), 1);
    assert_eq!((stats.generation.get(), stats.swaps.get()), (1, 0));

    drop(policies.publish(Arc::new(Snapshot::new(2, empty_policy(), 1))));
    drop(networks.publish(network(Mode::Routed)));
    assert_eq!((policies.reclaim(), networks.reclaim()), (1, 1), "the worker holds the old ones");
    inject(&mut worker, A, &arp);
    worker.turn(Nanos::SECOND);
    assert_eq!(collect(&mut worker, B).len(), 0, "a router does not pass ARP on");
    assert_eq!((stats.generation.get(), stats.swaps.get()), (2, 1));
    assert_eq!((policies.reclaim(), networks.reclaim()), (0, 0));
}

/// A gateway between 198.18.1.0/24 on A and 198.18.2.0/24 on B.
fn gateway(neighbours: &[(PortId, [u8; 4])]) -> Arc<Network> {
    let port = |name: &str, net| PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: name.to_owned(),
        mac: Mac([2, 0, 0, 0, 0, net]),
        mtu: 1500,
        addresses: vec![([198, 18, net, 1].into(), 24)],
        up: true,
    };
    let neighbour = |&(port, address): &(PortId, [u8; 4])| NeighbourEntry {
        port,
        address: address.into(),
        mac: Mac([2, 9, 9, 9, 9, 9]),
    };
    let topology = Topology {
        mode: Mode::Routed,
        ports: vec![port("a", 1), port("b", 2)],
        routes: Vec::new(),
        rules: Vec::new(),
        neighbours: neighbours.iter().map(neighbour).collect(),
    };
    Arc::new(Network::build(&topology).unwrap())
}

#[test]
fn an_answer_waits_for_its_neighbour_as_a_forwarded_frame_does() {
    let mut networks = Publisher::new(gateway(&[]));
    let policies = Publisher::new(Arc::new(Snapshot::new(1, empty_policy(), 1)));
    let conntrack = Arc::new(Conntrack::new(Config::new([0; 16])).unwrap());
    let stats = Arc::new(WorkerStats::default());
    let (policy, net) = (policies.subscribe(), networks.subscribe());
    let firewall = EnginePipeline::new(0, policy, net, conntrack, Arc::clone(&stats));
    let mut worker = worker(firewall).with_stats(Arc::clone(&stats));
    let (server, nowhere) = ("198.18.2.2", "192.0.2.1");
    let client = |ttl| Packet::udp("198.18.1.2", 9, server, 53).ttl(ttl);
    let lost = Packet::udp("198.18.1.2", 9, nowhere, 53);
    for packet in [client(1), client(64), lost] {
        inject(&mut worker, A, &packet.macs(Mac([2; 6]), Mac([2, 0, 0, 0, 0, 1])).build());
    }
    worker.turn(Nanos::SECOND);
    assert_eq!(worker.waiting(), 3, "time exceeded, no route, and the packet for the server");
    let asked: Vec<_> = std::iter::from_fn(|| worker.outlets.neighbours.pop()).collect();
    assert_eq!(asked.iter().map(|request| request.port).collect::<Vec<_>>(), [A, B]);
    assert_eq!((stats.replies.get(), stats.port(A).tx.get().0), (2, 0));

    drop(networks.publish(gateway(&[(A, [198, 18, 1, 2])])));
    worker.turn(Nanos::SECOND);
    let answers = collect(&mut worker, A);
    assert_eq!((answers.len(), worker.waiting()), (2, 1));
    assert!(answers.iter().all(|frame| frame[..12] == [2, 9, 9, 9, 9, 9, 2, 0, 0, 0, 0, 1]));

    drop(networks.publish(gateway(&[])));
    worker.turn(Nanos::from_secs(4));
    assert_eq!(worker.waiting(), 1, "that the server does not answer waits for the client");
    worker.turn(Nanos::from_secs(7));
    assert_eq!((worker.waiting(), worker.parts().0.held()), (0, 0), "no error about an error");
    assert_eq!(stats.drops(DropReason::NeighbourUnresolved), 2);
}

#[test]
fn answers_that_find_the_waiting_room_full_are_counted() {
    let networks = Publisher::new(gateway(&[]));
    let policies = Publisher::new(Arc::new(Snapshot::new(1, empty_policy(), 1)));
    let conntrack = Arc::new(Conntrack::new(Config::new([0; 16])).unwrap());
    let stats = Arc::new(WorkerStats::default());
    let (policy, net) = (policies.subscribe(), networks.subscribe());
    let firewall = EnginePipeline::new(0, policy, net, conntrack, Arc::clone(&stats));
    let mut worker = worker(firewall).with_stats(Arc::clone(&stats));
    for number in 0..100 {
        let packet = Packet::udp("198.18.1.2", 9, "198.18.2.2", number).payload_len(2000);
        inject(&mut worker, A, &packet.macs(Mac([2; 6]), Mac([2, 0, 0, 0, 0, 1])).build());
    }
    worker.turn(Nanos::SECOND);
    worker.turn(Nanos::SECOND);
    assert_eq!(worker.waiting(), 64, "32 packets in two pieces each");
    assert_eq!(stats.drops(DropReason::NeighbourQueueFull), 68);
    assert_eq!(worker.parts().0.held(), 64);
}

/// Logs every frame once.
#[derive(Debug)]
struct LogAll(LogTarget, Arc<LogBook>);

impl LogAll {
    fn new(target: &LogTarget) -> Self {
        let book = LogBook::of_reports([Reports::Log(target.clone())], 1);
        Self(target.clone(), Arc::new(book))
    }
}

impl Pipeline for LogAll {
    fn refresh(&mut self) -> bool {
        false
    }
    fn log_book(&self) -> Option<&Arc<LogBook>> {
        Some(&self.1)
    }
    fn process(&mut self, burst: &mut [Slot<'_>], now: Nanos, effects: &mut impl Effects) {
        for slot in burst {
            let Ok(wire::Frame::Ip(parsed)) = wire::parse(slot.frame(), Mac::default()) else {
                panic!("the test sends IP");
            };
            effects.log(&LogRecord {
                now,
                input: Some(slot.port),
                output: Some(B),
                mark: 7,
                ..LogRecord::plain(Report::Log(&self.0), slot.frame(), &parsed)
            });
        }
    }
    fn link_addresses(&self, _: PortId, _: Family, _: u128) -> Option<LinkAddresses> {
        None
    }
    fn unresolved(&mut self, _: PortId, _: &mut [u8], _: Nanos, _: &mut impl Effects) {}
}

/// An IPv4 UDP packet with `payload` bytes, checksums right.
fn udp(payload: usize) -> Vec<u8> {
    let total = (28 + payload) as u16;
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0];
    frame.extend([0x45, 0]);
    frame.extend(total.to_be_bytes());
    frame.extend([0, 1, 0, 0, 64, 17, 0, 0, 198, 18, 1, 2, 198, 18, 2, 2]);
    let sum: u32 =
        frame[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend([0x12, 0x34, 0, 53]);
    frame.extend((8 + payload as u16).to_be_bytes());
    frame.extend([0, 0]);
    frame.resize(frame.len() + payload, 0x55);
    frame
}

fn log_target() -> LogTarget {
    LogTarget {
        level: 6,
        prefix: "twenty-nine bytes are allowed".into(),
        tcp_sequence: true,
        tcp_options: false,
        ip_options: true,
        uid: false,
        mac_decode: true,
    }
}

#[test]
fn a_rule_that_reports_too_much_is_kept_back_and_every_hit_is_counted_once() {
    let mut worker = worker(LogAll::new(&log_target()));
    worker.outlets =
        Outlets::new(64, 4).with_rates(Rates { log: Rate::new(10, 5), ..Rates::default() });
    for (second, expected) in [(1, 5), (1, 0), (2, 5), (100, 5)] {
        for _ in 0..20 {
            inject(&mut worker, A, &udp(10));
        }
        worker.turn(Nanos::from_secs(second));
        assert_eq!(worker.outlets.log.len(), expected);
        while worker.outlets.log.pop().is_some() {}
    }
    let stats = worker.stats();
    let counted = [&stats.logged, &stats.log_suppressed, &stats.log_lost].map(|cell| cell.get());
    assert_eq!(counted, [15, 65, 0]);
    assert_eq!(worker.book.suppressed(0), 65);
}

/// All rules together have a budget: what is beyond is lost, told by rule, and costs no copy.
#[test]
fn what_is_over_the_budget_is_lost_and_counted_once() {
    let mut worker = worker(LogAll::new(&log_target()));
    let rates = Rates::default().within(Rate::new(10, 5));
    worker.outlets = Outlets::new(8, 4).with_rates(rates);
    let mut handed = 0;
    // The eight that fit the queue are never all of the budget's.
    for (second, expected) in [(1, 5), (1, 0), (2, 5), (100, 5)] {
        for _ in 0..20 {
            inject(&mut worker, A, &udp(10));
        }
        worker.turn(Nanos::from_secs(second));
        assert_eq!(worker.outlets.log.len(), expected);
        while worker.outlets.log.pop().is_some() {
            handed += 1;
        }
    }
    let stats = worker.stats();
    let counted = [&stats.logged, &stats.log_suppressed, &stats.log_lost, &stats.log_over_budget]
        .map(|cell| cell.get());
    assert_eq!(counted, [handed, 0, 80 - handed, 80 - handed]);
    assert_eq!((worker.book.lost(0), worker.book.suppressed(0)), (80 - handed, 0));
}

#[test]
fn log_hits_are_queued_whole_and_losses_are_counted() {
    let target = log_target();
    let mut worker = worker(LogAll::new(&target));
    for _ in 0..10 {
        inject(&mut worker, A, &udp(1000));
    }
    worker.turn(Nanos::SECOND);
    let stats = worker.stats();
    assert_eq!((stats.logged.get(), stats.log_lost.get()), (4, 6));
    assert_eq!((stats.log_over_budget.get(), worker.book.lost(0)), (0, 6));
    let entry = worker.outlets.log.pop().expect("four were queued");
    let record = entry.record();
    assert!(matches!(record.report, Report::Log(found) if *found == target));
    assert_eq!((record.now, record.mark, record.hook), (Nanos::SECOND, 7, Hook::Forward));
    assert_eq!((record.input, record.output), (Some(A), Some(B)));
    assert_eq!(record.frame, &udp(1000)[..42], "the headers, not the payload");
    assert_eq!(record.parsed.l3_len, 1028);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Every port in turn feeds the whole engine what no sane sender sends.
    #[test]
    fn malformed_frames_through_every_port_leave_nothing_behind(
        seed in any::<u64>(),
        routed in any::<bool>(),
        frames in prop::collection::vec(hostile(), 1..64),
    ) {
        let mut capture = Vec::new();
        for (index, frame) in frames.iter().enumerate() {
            capture.extend([[0; 4], (index as u32).to_le_bytes()].concat());
            capture.extend([frame.len() as u32; 2].iter().flat_map(|len| len.to_le_bytes()));
            capture.extend(frame);
        }
        let head = [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 65_535, 1];
        let capture = [head.iter().flat_map(|word| word.to_le_bytes()).collect(), capture].concat();
        let reader = Reader::new(std::io::Cursor::new(capture), "hostile".as_ref()).unwrap();
        let mut memory = MemoryPort::new(1024);
        let mut pool = Pool::new(2048, false).unwrap();
        for frame in &frames {
            assert!(memory.inject(&mut pool, frame));
        }
        let some = PerMillion(200_000);
        let faults = Faults { corruption: some, truncation: some, duplication: some, ..Faults::default() };
        let ports: Vec<Box<dyn Port>> = vec![
            Box::new(FaultPort::new(memory, seed, faults, faults)),
            Box::new(CapturePort::new(Some(reader), None)),
        ];
        let mode = if routed { Mode::Routed } else { Mode::Bridge(vec![(A, B)]) };
        let mut snapshots = Publisher::new(Arc::new(Snapshot::new(1, empty_policy(), 1)));
        let networks = Publisher::new(network(mode));
        let conntrack = Arc::new(Conntrack::new(Config::new([0; 16])).unwrap());
        let stats = Arc::new(WorkerStats::default());
        let (policy, net) = (snapshots.subscribe(), networks.subscribe());
        let firewall = EnginePipeline::new(0, policy, net, conntrack, Arc::clone(&stats));
        let mut worker = Worker::new(0, pool, ports, firewall, Outlets::new(4, 4)).with_stats(stats);
        for turn in 0..12 {
            worker.turn(Nanos::SECOND + Nanos(turn));
        }
        drop(snapshots.publish(Arc::new(Snapshot::new(2, empty_policy(), 1))));
        worker.turn(Nanos::from_secs(10));
        let stats = worker.stats();
        let received = stats.port(A).rx.get().0 + stats.port(B).rx.get().0;
        prop_assert!(received >= 2 * frames.len() as u64);
        let dropped: u64 = DropReason::ALL.iter().map(|reason| stats.drops(*reason)).sum();
        let sent = stats.port(A).tx.get().0 + stats.port(B).tx.get().0;
        prop_assert_eq!(received + stats.replies.get(), dropped + sent + stats.delivered.get());
        prop_assert_eq!(worker.waiting(), 0);
    }
}

/// Frames near to sound ones, and noise behind every EtherType.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let types = prop::sample::select(vec![[8, 0], [0x86, 0xdd], [8, 6], [0x81, 0], [0x88, 0xa8]]);
    let noise = (types, prop::collection::vec(any::<u8>(), 0..200)).prop_map(|(kind, rest)| {
        [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9][..], &kind, &rest].concat()
    });
    let near = (0usize..300, 0usize..360, prop::collection::vec((0usize..60, any::<u8>()), 0..4))
        .prop_map(|(payload, cut, damage)| {
            let mut frame = udp(payload);
            for (at, value) in damage {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            frame.truncate(cut);
            frame
        });
    prop_oneof![noise, near]
}

/// A worker with one port on a socket in memory, and the other side of its exchange.
fn exchanging(works: bool) -> (Worker<AfxdpPort, CrossConnect>, Arc<Exchange>, Kernel) {
    let pool = Pool::new(512, false).expect("memory for a small pool");
    let (port, kernel) = afxdp::port(&pool, works);
    let exchange = Arc::new(Exchange::default());
    let worker = Worker::new(0, pool, vec![port], CrossConnect::new(&[(A, A)]), Outlets::new(4, 4));
    (worker.with_exchange(Arc::clone(&exchange)), exchange, kernel)
}

/// What the other side does with a socket that was returned.
fn close_and_recover(exchange: &Exchange) {
    let (port, socket) = exchange.returned().expect("a socket was returned");
    let closed = socket.close().expect("nobody else holds it");
    exchange.order(PortOrder::Recover(port, closed)).expect("there is room");
}

#[test]
fn a_port_whose_socket_fails_is_returned_and_goes_on_with_another() {
    let (mut worker, exchange, _kernel) = exchanging(false);
    for turn in 1..4 {
        worker.turn(Nanos::from_secs(turn));
    }
    let event = worker.outlets.events.pop().expect("it was reported");
    assert!(matches!(event.event, PortEvent::Failed(_)), "{event:?}");
    assert!(worker.outlets.events.pop().is_none(), "once");
    close_and_recover(&exchange);
    worker.turn(Nanos::from_secs(5));
    let (pool, ports) = worker.parts();
    assert_eq!((pool.lent(), pool.held(), ports[0].lent()), (0, 0, 0));

    let (socket, mut kernel) = afxdp::socket(true);
    exchange.order(PortOrder::Install(A, Box::new(socket))).expect("there is room");
    worker.turn(Nanos::from_secs(6));
    assert!(worker.parts().0.lent() > 0, "the new fill ring is filled at once");
    kernel.take(8);
    kernel.receive(8, 60);
    assert_eq!(worker.turn(Nanos::from_secs(7)), 8);
    assert_eq!(worker.stats().port(A).tx.get().0, 8, "and frames leave by it");
    let events = std::iter::from_fn(|| worker.outlets.events.pop());
    assert!(matches!(events.last().expect("told").event, PortEvent::LinkUp));
}

#[test]
fn a_withdrawn_port_handles_nothing_until_it_has_another_socket() {
    let (mut worker, exchange, mut kernel) = exchanging(true);
    worker.turn(Nanos::from_secs(1));
    kernel.take(8);
    kernel.receive(8, 60);
    exchange.order(PortOrder::Withdraw(A)).expect("there is room");
    assert_eq!(worker.turn(Nanos::from_secs(2)), 0, "what had arrived is lost with the socket");
    close_and_recover(&exchange);
    // A second order, for a socket that was returned already, changes nothing.
    exchange.order(PortOrder::Withdraw(A)).expect("there is room");
    worker.turn(Nanos::from_secs(3));
    let (pool, _) = worker.parts();
    assert_eq!((pool.lent(), pool.held()), (0, 0));
    assert!(exchange.returned().is_none());
    for round in 0..50 {
        let (socket, mut kernel) = afxdp::socket(true);
        exchange.order(PortOrder::Install(A, Box::new(socket))).expect("there is room");
        worker.turn(Nanos::from_secs(10 + round));
        kernel.take(20);
        kernel.receive(10, 60);
        assert_eq!(worker.turn(Nanos::from_secs(10 + round)), 10);
        exchange.order(PortOrder::Withdraw(A)).expect("there is room");
        worker.turn(Nanos::from_secs(10 + round));
        close_and_recover(&exchange);
        worker.turn(Nanos::from_secs(10 + round));
        assert_eq!((worker.parts().0.lent(), worker.parts().0.held()), (0, 0), "{round}");
    }
}

#[test]
fn a_second_socket_for_a_port_that_has_one_is_returned() {
    let (mut worker, exchange, _kernel) = exchanging(true);
    let (socket, _other) = afxdp::socket(true);
    exchange.order(PortOrder::Install(A, Box::new(socket))).expect("there is room");
    worker.turn(Nanos::from_secs(1));
    assert!(exchange.returned().is_some());
    assert!(worker.parts().1[0].socket().is_some(), "it keeps its own");
}

#[test]
fn frames_that_a_bad_wire_loses_at_its_end_are_counted() {
    let pool = Pool::new(512, false).expect("memory for a small pool");
    let ports = vec![FaultPort::new(MemoryPort::new(4), 1, Faults::default(), Faults::default())];
    let mut worker = Worker::new(0, pool, ports, CrossConnect::new(&[(A, A)]), Outlets::new(4, 4));
    for _ in 0..3 {
        let (pool, ports) = worker.parts();
        for _ in 0..4 {
            assert!(ports[0].inner_mut().inject(pool, &[1; 60]));
        }
        worker.turn(Nanos::SECOND);
    }
    assert_eq!(worker.stats().drops(DropReason::TxRingFull), 8);
    assert_eq!(worker.parts().1[0].statistics().tx_lost, 8);
}
