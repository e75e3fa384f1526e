//! Tests of the worker over ports in memory.

use super::*;
use crate::effects::Effects;
use crate::packet::{Family, Mac};
use crate::port::memory::MemoryPort;

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
                Disposition::AwaitNeighbour { port: B, next_hop: HOP }
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
