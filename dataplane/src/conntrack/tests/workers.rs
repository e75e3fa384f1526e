//! Several workers and one table: both directions of a flow, and each of its packets,
//! come to any of them.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::*;

const WORKERS: usize = 4;
const FLOWS: usize = 600;
/// Packets of a flow: its first, its answer, and some either way.
const STEPS: u32 = 24;
const BUSY: u32 = 1 << 31;

fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 20) as usize
}

/// Runs `work` on all workers at once; the first failure fails the test.
fn together(work: impl Fn(usize) + Sync) {
    let barrier = Barrier::new(WORKERS);
    std::thread::scope(|scope| {
        let (work, barrier) = (&work, &barrier);
        let start = |worker| {
            scope.spawn(move || {
                barrier.wait();
                work(worker);
            })
        };
        let all: Vec<_> = (0..WORKERS).map(start).collect();
        all.into_iter().for_each(|one| one.join().unwrap());
    });
}

fn packets(flow: usize) -> [Packet; 2] {
    let (sport, dport) = (1000 + flow as u16, 53);
    let (a, b) = if flow.is_multiple_of(3) { ("2001:db8::1", "2001:db8::9") } else { (A, B) };
    [Packet::udp(a, sport, b, dport), Packet::udp(b, dport, a, sport)]
}

/// Sends a packet through tracking up to its verdict, as the engine does: prefetched,
/// looked up, confirmed.
fn pass(lab: &Lab, packet: &Packet) -> Tracking {
    let frame = packet.build();
    let parsed = parsed(&frame);
    let subject = lab.ct.subject(&parsed, &frame, 0);
    lab.ct.prefetch(&subject);
    lab.ct.prefetch_records([&subject], true);
    let terms = super::super::Terms::default();
    let mut tracking =
        lab.ct.track_subject(&subject, &parsed, &frame, false, &terms, lab.now).unwrap();
    lab.ct.confirm(&mut tracking, lab.now).unwrap();
    tracking
}

/// The order of a flow's packets is the network's; who gets each is chance.
#[test]
fn every_packet_of_a_flow_may_come_to_another_worker() {
    let mut lab = Lab::new(&[("max", 4096)]);
    let steps: Vec<AtomicU32> = (0..FLOWS).map(|_| AtomicU32::new(0)).collect();
    let conns: Vec<AtomicU64> = (0..FLOWS).map(|_| AtomicU64::new(0)).collect();
    let handed_over = AtomicU64::new(0);
    let last_worker: Vec<AtomicU32> = (0..FLOWS).map(|_| AtomicU32::new(0)).collect();
    together(|worker| {
        let mut state = worker as u64 + 1;
        for _ in 0..FLOWS * STEPS as usize * 3 {
            let flow = random(&mut state) % FLOWS;
            let step = steps[flow].fetch_or(BUSY, Ordering::AcqRel);
            if step & BUSY != 0 || step == STEPS {
                if step & BUSY == 0 {
                    steps[flow].store(step, Ordering::Release);
                }
                continue;
            }
            let way = if step < 2 { step as usize } else { random(&mut state) % 2 };
            let tracking = pass(&lab, &packets(flow)[way]);
            let number = tracking.conn.unwrap().number();
            let wanted = [CtState::New, CtState::Established][usize::from(step > 0)];
            assert_eq!(tracking.state, wanted, "step {step}");
            assert_eq!(tracking.direction.index(), way);
            match step {
                0 => conns[flow].store(number, Ordering::Relaxed),
                _ => assert_eq!(conns[flow].load(Ordering::Relaxed), number),
            }
            let before = last_worker[flow].swap(worker as u32, Ordering::Relaxed);
            handed_over.fetch_add(u64::from(before != worker as u32), Ordering::Relaxed);
            steps[flow].store(step + 1, Ordering::Release);
        }
    });
    let begun = steps.iter().filter(|step| step.load(Ordering::Relaxed) > 0).count();
    assert_eq!(begun, FLOWS);
    assert!(handed_over.into_inner() > FLOWS as u64, "packets changed workers");
    exactly(&lab, FLOWS, FLOWS as u64);
    let all = || conns.iter().map(|conn| conn.load(Ordering::Relaxed));
    assert_eq!(all().collect::<std::collections::HashSet<_>>().len(), FLOWS);
    // And they all end, on any of the workers, once each.
    lab.wait(3600);
    let ended = AtomicU64::new(0);
    together(|_| {
        for _ in 0..64 {
            let collected = lab.ct.sweep(lab.now, 256);
            ended.fetch_add(collected as u64, Ordering::Relaxed);
        }
    });
    assert_eq!(ended.into_inner(), FLOWS as u64);
    exactly(&lab, 0, FLOWS as u64);
}

/// The first packets of both ends, and their repetitions, at once.
#[test]
fn workers_that_open_one_flow_agree_on_one_connection() {
    let lab = Lab::new(&[("max", 4096)]);
    let packets: Vec<[Packet; 2]> = (0..FLOWS).map(packets).collect();
    together(|worker| {
        for both in &packets {
            let tracking = pass(&lab, &both[worker % 2]);
            assert!(tracking.conn.is_some() && !tracking.unconfirmed);
        }
    });
    let counters = lab.ct.counters();
    assert_eq!(counters.insert, FLOWS as u64, "one each");
    assert_eq!(counters.insert_failed, 0);
    exactly(&lab, FLOWS, FLOWS as u64);
}

/// Connections that come and go on all workers, while the table is full most of the time.
#[test]
fn workers_count_exactly_in_a_full_table() {
    const MAX: usize = 2048;
    let lab = Lab::new(&[("max", MAX as u64)]);
    let (opened, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    together(|worker| {
        let mut state = worker as u64 + 77;
        let mut held = Vec::new();
        for nth in 0..6000_u32 {
            let (high, low) = (nth >> 8, nth & 255);
            let from = format!("10.{worker}.{high}.{low}");
            let made = Packet::udp(&from, 1, B, 2);
            match lab.track(&made) {
                Ok(mut tracking) => {
                    lab.ct.confirm(&mut tracking, lab.now).unwrap();
                    held.push(tracking.conn.unwrap());
                    opened.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => drop(refused.fetch_add(1, Ordering::Relaxed)),
            }
            assert!(lab.ct.len() <= MAX + WORKERS, "{} connections", lab.ct.len());
            if random(&mut state).is_multiple_of(3) && !held.is_empty() {
                let at = random(&mut state) % held.len();
                lab.ct.remove(held.swap_remove(at));
            }
        }
    });
    let rows = lab.ct.rows(lab.now).count();
    assert_eq!(rows, lab.ct.len());
    assert!(rows <= MAX);
    assert_eq!(lab.ct.counters().insert, opened.into_inner());
    assert_eq!(lab.ct.store.entries().len(), 2 * rows);
}

/// Nothing is running any more: what is there, and what was counted.
fn exactly(lab: &Lab, live: usize, inserted: u64) {
    assert_eq!(lab.ct.len(), live);
    assert_eq!(lab.ct.rows(lab.now).count(), live);
    assert_eq!(lab.ct.store.entries().len(), 2 * live);
    assert_eq!(lab.ct.counters().insert, inserted);
}
