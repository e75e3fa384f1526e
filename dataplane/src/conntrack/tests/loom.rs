//! Models of the concurrent core, explored by loom:
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p dataplane --lib loom --release`
//!
//! Covered: uniqueness of a tuple under two inserts, reuse of a record under a
//! lookup, atomicity of two updates and a reader, a single winner among two
//! removers, lists of one source that grow and shrink under a reader, and
//! expectations that are met twice at once, or looked for while their slots serve
//! again; the ring of free records, while records are taken and given back, one by one
//! and by the handful; credits of lanes at the limit. Buckets have one slot here, which
//! has the lock, too, so that entries spill into the second bucket and the overflow area. Not covered: more than two preemptions.

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use super::super::free::Ring;
use super::super::slots::{BY_TUPLE, Slots};
use super::super::status::SRC_NAT_DONE;
use super::super::store::{LinkError, Store};
use super::super::{ConnId, Direction, Expectation, SourceMask, Tuple};
use crate::clock::Nanos;
use crate::packet::Family;
use crate::policy::target::HelperKind;

const NOW: Nanos = Nanos(1);

fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 100_000;
    builder.check(run);
}

fn tuple(sport: u16) -> Tuple {
    Tuple { src: 1, dst: 2, sport, dport: 80, proto: 17, family: Family::V4, zone: 0 }
}

fn table(capacity: usize) -> Arc<Store> {
    Arc::new(Store::new(capacity, [5; 16]).unwrap())
}

fn create(store: &Store, tuple: &Tuple) -> ConnId {
    let keys = [*tuple, tuple.inverted().unwrap()].map(|tuple| tuple.key(store.hash_key()));
    assert!(store.reserve(8, keys[0].hash, NOW).0);
    let (id, entry) = store.create(&keys[0], &keys[1]).unwrap();
    entry.set_deadline(1 << 40);
    id
}

fn find(store: &Store, tuple: &Tuple) -> Option<ConnId> {
    store.find(&tuple.key(store.hash_key()), NOW).map(|hit| hit.id)
}

#[test]
fn loom_two_inserts_of_one_tuple_have_one_winner() {
    model(|| {
        let store = table(2);
        let insert = |tuple: Tuple| {
            let store = store.clone();
            move || {
                let id = create(&store, &tuple);
                match store.link(id, NOW) {
                    Ok(()) => Some(id),
                    Err(LinkError::Clash(winner)) => {
                        assert!(store.discard(id));
                        assert_eq!(find(&store, &tuple), Some(winner.id));
                        None
                    }
                    Err(other) => panic!("{other:?}"),
                }
            }
        };
        // The same connection, first seen from both ends.
        let other = thread::spawn(insert(tuple(7)));
        let mine = insert(tuple(7).inverted().unwrap())();
        let theirs = other.join().unwrap();
        assert!(mine.is_some() != theirs.is_some(), "one winner");
        assert_eq!(store.live(), 1);
        assert_eq!(store.entries().len(), 2);
        assert_eq!(find(&store, &tuple(7)), mine.or(theirs));
    });
}

#[test]
fn loom_a_lookup_during_reuse_finds_the_right_one_or_none() {
    model(|| {
        let store = table(1);
        let first = create(&store, &tuple(7));
        store.link(first, NOW).unwrap();
        let reuser = {
            let store = store.clone();
            thread::spawn(move || {
                assert!(store.kill(first));
                let second = create(&store, &tuple(8));
                store.link(second, NOW).unwrap();
                second
            })
        };
        if let Some(id) = find(&store, &tuple(7)) {
            assert_eq!(id, first);
            if let Some(contents) = store.contents(id) {
                assert_eq!(contents.original, tuple(7), "read another's record");
            }
        }
        if let Some(id) = find(&store, &tuple(8)) {
            assert_ne!(id, first);
        }
        let second = reuser.join().unwrap();
        assert_eq!(find(&store, &tuple(8)), Some(second));
        assert_eq!(find(&store, &tuple(7)), None);
        assert!(store.lock(first).is_none());
        assert_eq!((store.live(), store.entries().len()), (1, 2));
    });
}

#[test]
fn loom_two_updates_and_a_reader_see_whole_changes() {
    model(|| {
        let store = table(1);
        let id = create(&store, &tuple(7));
        store.link(id, NOW).unwrap();
        let update = move |store: &Store| {
            let entry = store.lock(id).unwrap();
            let next = entry.aux() + 1;
            entry.set_aux(next);
            entry.set_mark(next as u32);
        };
        let other = {
            let store = store.clone();
            thread::spawn(move || update(&store))
        };
        update(&store);
        let seen = store.contents(id).unwrap();
        assert_eq!(u64::from(seen.mark), seen.aux, "torn");
        other.join().unwrap();
        assert_eq!(store.contents(id).unwrap().aux, 2, "an update was lost");
    });
}

#[test]
fn loom_two_removers_have_one_winner() {
    model(|| {
        let store = table(2);
        let id = create(&store, &tuple(7));
        store.link(id, NOW).unwrap();
        let other = {
            let store = store.clone();
            thread::spawn(move || store.kill(id))
        };
        let mine = store.kill(id);
        // What is there for others stays findable throughout.
        let neighbour = create(&store, &tuple(9));
        store.link(neighbour, NOW).unwrap();
        assert_eq!(find(&store, &tuple(9)), Some(neighbour));
        assert!(mine != other.join().unwrap());
        assert_eq!((store.live(), store.entries().len()), (1, 2));
        let hit = store.find(&tuple(9).inverted().unwrap().key(store.hash_key()), NOW).unwrap();
        assert_eq!(hit.direction, Direction::Reply);
    });
}

#[test]
fn loom_a_list_of_one_source_is_whole_while_it_changes() {
    model(|| {
        let store = table(3);
        let towards = |dport| Tuple { dport, ..tuple(7) };
        let enter = move |store: &Store, dport| {
            let id = create(store, &towards(dport));
            store.lock(id).unwrap().add_status(SRC_NAT_DONE);
            store.link(id, NOW).unwrap();
            id
        };
        let [first, second] = [80, 81].map(|dport| enter(&store, dport));
        let other = {
            let store = store.clone();
            thread::spawn(move || {
                assert!(store.kill(first));
                // The record serves again, in the same list.
                enter(&store, 82)
            })
        };
        let mut seen = Vec::new();
        store.find_source(&tuple(7), |reply| {
            seen.push(reply.sport);
            None::<()>
        });
        assert!(seen.contains(&81), "{seen:?}");
        assert!(seen.len() <= 3 && seen.iter().all(|port| (80..=82).contains(port)), "{seen:?}");
        assert!(store.kill(second));
        let third = other.join().unwrap();
        let mut left = Vec::new();
        store.find_source(&tuple(7), |reply| {
            left.push(reply.sport);
            None::<()>
        });
        assert_eq!(left, [82]);
        assert!(store.kill(third));
        assert_eq!(store.find_source(&tuple(7), |reply| Some(reply.sport)), None);
    });
}

/// Its first and its last word say `number`.
fn expectation(number: u16) -> Expectation {
    Expectation {
        tuple: Tuple { src: number.into(), ..tuple(7) },
        mask: SourceMask { address: 0, port: number },
        master: ConnId(0),
        by: HelperKind::Ftp,
        class: 0,
        permanent: false,
        inactive: false,
        helper: None,
        follow: None,
    }
}

#[test]
fn loom_an_expectation_serves_one_of_two_packets() {
    model(|| {
        let slots = Arc::new(Slots::new(1));
        let id = slots.write().add(&expectation(1), Nanos(9), [0, 0]).unwrap();
        let serve = |slots: &Slots| {
            let found = slots.find(BY_TUPLE, 0, |_| true);
            found.is_some_and(|found| slots.serve(&found))
        };
        let other = {
            let slots = slots.clone();
            thread::spawn(move || serve(&slots))
        };
        let mine = serve(&slots);
        assert!(mine != other.join().unwrap(), "one of them");
        let writer = slots.write();
        assert!(!writer.end(id));
        assert_eq!(writer.collect(0, 1, |_| true), 0);
        assert_eq!((slots.live(), writer.used()), (0, 0));
        assert!(writer.add(&expectation(2), Nanos(9), [0, 0]).is_some(), "its place is free");
    });
}

#[test]
fn loom_an_expectation_is_found_while_its_neighbours_place_serves_again() {
    model(|| {
        let slots = Arc::new(Slots::new(2));
        slots.write().add(&expectation(1), Nanos(9), [0, 0]).unwrap();
        let before = slots.write().add(&expectation(2), Nanos(9), [0, 0]).unwrap();
        let other = {
            let slots = slots.clone();
            thread::spawn(move || {
                let writer = slots.write();
                assert!(writer.end(before));
                writer.add(&expectation(3), Nanos(9), [1, 1]).unwrap();
            })
        };
        let found = slots.find(BY_TUPLE, 0, |found| {
            let one = &found.expectation;
            assert_eq!(one.tuple.src, one.mask.port.into(), "torn");
            assert_ne!(one.mask.port, 3, "of another chain");
            one.mask.port == 1
        });
        assert!(found.is_some(), "lost");
        other.join().unwrap();
        assert!(slots.find(BY_TUPLE, 1, |found| found.expectation.mask.port == 3).is_some());
        assert_eq!(slots.live(), 2);
    });
}

#[test]
fn loom_a_free_record_has_one_taker_and_comes_back() {
    for records in [1, 2] {
        model(move || {
            let ring = Arc::new(Ring::full(records));
            let held = Arc::new([0, 1].map(|_| AtomicU32::new(0)));
            let use_one = |ring: &Ring, held: &[AtomicU32; 2]| {
                let Some(record) = ring.take() else { return false };
                let holders = held[record as usize].fetch_add(1, Ordering::Relaxed);
                assert_eq!(holders, 0, "two have it");
                held[record as usize].fetch_sub(1, Ordering::Relaxed);
                ring.give(record);
                true
            };
            let other = {
                let (ring, held) = (ring.clone(), held.clone());
                thread::spawn(move || use_one(&ring, &held) as u32 + use_one(&ring, &held) as u32)
            };
            let mine = use_one(&ring, &held);
            let theirs = other.join().unwrap();
            assert!(records == 1 || mine && theirs == 2, "none, with one free");
            let mut left: Vec<u32> = std::iter::from_fn(|| ring.take()).collect();
            left.sort_unstable();
            assert_eq!(left, Vec::from_iter(0..records), "all are there again");
        });
    }
}

#[test]
fn loom_a_handful_of_free_records_has_one_taker() {
    model(|| {
        let ring = Arc::new(Ring::full(3));
        let held = Arc::new([0, 1, 2].map(|_| AtomicU32::new(0)));
        let use_some = |ring: &Ring, held: &[AtomicU32; 3]| {
            let mut some = [0; 2];
            let got = ring.take_some(&mut some);
            for record in &some[..got] {
                let holders = held[*record as usize].fetch_add(1, Ordering::Relaxed);
                assert_eq!(holders, 0, "two have it");
            }
            for record in &some[..got] {
                held[*record as usize].fetch_sub(1, Ordering::Relaxed);
                ring.give(*record);
            }
            got
        };
        // All were used before: they come from the ring, in handfuls that meet its end.
        use_some(&ring, &held);
        use_some(&ring, &held);
        let other = {
            let (ring, held) = (ring.clone(), held.clone());
            thread::spawn(move || use_some(&ring, &held))
        };
        let mine = use_some(&ring, &held);
        let theirs = other.join().unwrap();
        assert!(mine + theirs >= 2, "none, with three free");
        let mut left: Vec<u32> = std::iter::from_fn(|| ring.take()).collect();
        left.sort_unstable();
        assert_eq!(left, [0, 1, 2], "all are there again");
    });
}

#[test]
fn loom_credits_never_let_more_in_than_the_limit() {
    use super::super::lanes::{Live, modelled::LANE};
    for limit in [1, 2, 3] {
        model(move || {
            let live = Arc::new(Live::with_blocks(2));
            let enter = move |live: &Live| {
                let entered = live.enter(limit);
                if !entered {
                    live.withdraw();
                }
                entered
            };
            let other = {
                let live = live.clone();
                thread::spawn(move || {
                    LANE.with(|it| it.set(1));
                    if enter(&live) {
                        live.leave();
                    }
                    enter(&live) as u32
                })
            };
            let mine = enter(&live) as u32;
            let entered = mine + other.join().unwrap();
            assert!((1..=limit).contains(&entered), "{entered} of {limit}");
            assert_eq!(live.get(), entered);
            // Whatever rests in lanes: all of the limit is to be had, and no more.
            let more = (0..=limit).filter(|_| live.enter(limit)).count() as u32;
            assert_eq!(entered + more, limit);
        });
    }
}
