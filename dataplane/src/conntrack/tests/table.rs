//! The table by itself: against a model, and under real threads.

use super::super::hash::HashKey;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::super::status::{ASSURED, CONFIRMED};
use super::super::store::{LinkError, Store};
use super::super::{ConnId, Direction, Tuple};
use crate::clock::Nanos;
use crate::packet::Family;

const KEY: [u8; 16] = *b"sixteen bytes ok";

/// A small universe of tuples that differ in one field each, so that lookups nearly hit.
fn tuple(number: u8) -> Tuple {
    let base = Tuple {
        src: 0xc633_6401,
        dst: 0xcb00_7109,
        sport: 1000,
        dport: 80,
        proto: 6,
        family: Family::V4,
        zone: 0,
    };
    let step = u16::from(number / 8);
    let base = Tuple { sport: base.sport + step * 2, ..base };
    match number % 8 {
        0 => base,
        1 => Tuple { sport: base.sport + 1, ..base },
        2 => Tuple { dport: 81, ..base },
        3 => Tuple { proto: 17, ..base },
        4 => Tuple { zone: 1, ..base },
        5 => Tuple { family: Family::V6, ..base },
        6 => Tuple { src: base.src + 1, ..base },
        _ => Tuple { family: Family::V6, src: base.src | 1 << 127, ..base },
    }
}

fn id_of(store: &Store, tuple: &Tuple, now: Nanos) -> Option<(ConnId, Direction)> {
    store.find(&tuple.key(store.hash_key()), now).map(|hit| (hit.id, hit.direction))
}

/// Adds a connection; `None` when the table is full.
fn add(store: &Store, tuple: &Tuple, limit: u32, life: u64, now: Nanos) -> Option<Added> {
    let (original, reply) =
        (tuple.key(store.hash_key()), tuple.inverted().unwrap().key(store.hash_key()));
    if !store.reserve(limit, original.hash, now).0 {
        return None;
    }
    let (id, entry) = store.create(&original, &reply).expect("a record for every reservation");
    entry.set_deadline(life);
    entry.set_proto(&[0; 8]);
    drop(entry);
    let linked = store.link(id, now);
    if linked.is_err() {
        assert!(store.discard(id));
    }
    Some(Added { id, linked })
}

struct Added {
    id: ConnId,
    linked: Result<(), LinkError>,
}

#[derive(Clone, Debug)]
enum Op {
    Add { number: u8, life: u64 },
    Reply(u8),
    Assure(u8),
    Kill(u8),
    Pass(u64),
    Sweep,
}

fn op() -> impl Strategy<Value = Op> {
    let number = 0..48u8;
    prop_oneof![
        6 => (number.clone(), 1..200u64).prop_map(|(number, life)| Op::Add { number, life }),
        2 => number.clone().prop_map(Op::Reply),
        1 => number.clone().prop_map(Op::Assure),
        2 => number.prop_map(Op::Kill),
        2 => (1..60u64).prop_map(Op::Pass),
        1 => Just(Op::Sweep),
    ]
}

/// What the table should hold: by original tuple, its handle, deadline, and whether ASSURED.
#[derive(Default)]
struct Model(HashMap<Tuple, (ConnId, u64, bool)>);

impl Model {
    fn check(&mut self, store: &Store, now: Nanos) {
        self.0.retain(|_, (_, deadline, _)| *deadline > now.0);
        for number in 0..48 {
            let tuple = tuple(number);
            let wanted = self.0.get(&tuple).map(|entry| entry.0);
            let reply = tuple.inverted().unwrap();
            assert_eq!(
                id_of(store, &tuple, now),
                wanted.map(|id| (id, Direction::Original)),
                "{tuple:?}"
            );
            assert_eq!(
                id_of(store, &reply, now),
                wanted.map(|id| (id, Direction::Reply)),
                "{reply:?}"
            );
        }
        // Looking everything up collected what had expired.
        assert_eq!(store.live() as usize, self.0.len());
        assert_eq!(store.entries().len(), self.0.len() * 2);
    }

    /// Takes note of an eviction: only connections that are not ASSURED may be missing.
    fn evicted(&mut self, store: &Store, now: Nanos) {
        self.0.retain(|tuple, (id, _, assured)| {
            let there = id_of(store, tuple, now).is_some_and(|found| found.0 == *id);
            assert!(there || !*assured, "an ASSURED connection was evicted");
            there
        });
    }
}

proptest! {
    #[test]
    fn a_key_and_its_answers_are_those_of_tuples(
        (src, dst) in any::<(u128, u128)>(),
        (sport, dport) in any::<(u16, u16)>(),
        (zone, other) in any::<(u16, u16)>(),
        proto in prop_oneof![Just(1_u8), Just(6), Just(17), Just(58), any::<u8>()],
        wide in any::<bool>(),
    ) {
        let (family, mask) = match wide {
            true => (Family::V6, u128::MAX),
            false => (Family::V4, u128::from(u32::MAX)),
        };
        let (src, dst) = (src & mask, dst & mask);
        let tuple = Tuple { src, dst, sport, dport, proto, family, zone };
        let key = tuple.key(&HashKey::new(KEY));
        prop_assert_eq!(tuple.hashed_key(key.hash), key);
        prop_assert_eq!(key.tuple(), tuple);
        let inverted = tuple.inverted().map(|it| Tuple { zone: other, ..it }.key(&HashKey::new(KEY)));
        prop_assert_eq!(key.answered(other, &HashKey::new(KEY)), inverted);
    }

    #[test]
    fn agrees_with_a_map(ops in proptest::collection::vec(op(), 1..120)) {
        const LIMIT: u32 = 20;
        let store = Store::new(LIMIT as usize, KEY).unwrap();
        let mut model = Model::default();
        let mut now = Nanos(1000);
        for op in ops {
            match op {
                Op::Add { number, life } => {
                    let tuple = tuple(number);
                    let full = model.0.len() == LIMIT as usize;
                    let added = add(&store, &tuple, LIMIT, life, now);
                    if full {
                        model.evicted(&store, now);
                    }
                    match added {
                        Some(Added { id, linked: Ok(()) }) => {
                            let old = model.0.insert(tuple, (id, now.0 + life, false));
                            prop_assert!(old.is_none_or(|old| old.0 == id), "a duplicate");
                        }
                        Some(Added { linked: Err(LinkError::Clash(hit)), .. }) => {
                            prop_assert_eq!(hit.id, model.0[&tuple].0);
                        }
                        Some(Added { linked: Err(other), .. }) => {
                            prop_assert!(false, "{:?}", other);
                        }
                        None => prop_assert!(full, "refused with room left"),
                    }
                }
                Op::Reply(number) => {
                    let reply = tuple(number).inverted().unwrap();
                    let clash = add(&store, &reply, LIMIT + 1, 5, now);
                    let holds = model.0.contains_key(&tuple(number));
                    let Some(added) = clash else { continue };
                    prop_assert_eq!(added.linked.is_err(), holds);
                    if added.linked.is_ok() {
                        store.kill(added.id);
                    }
                    model.evicted(&store, now);
                }
                Op::Assure(number) => {
                    if let Some(entry) = model.0.get_mut(&tuple(number)) {
                        entry.2 = true;
                        store.lock(entry.0).unwrap().add_status(ASSURED);
                    }
                }
                Op::Kill(number) => {
                    if let Some((id, ..)) = model.0.remove(&tuple(number)) {
                        prop_assert!(store.kill(id));
                        prop_assert!(!store.kill(id), "killed twice");
                        prop_assert!(store.lock(id).is_none());
                        prop_assert!(store.contents(id).is_some(), "readable until reused");
                    }
                }
                Op::Pass(time) => now = Nanos(now.0 + time),
                Op::Sweep => {
                    let live = store.live() as usize;
                    let ended = (0..store.len())
                        .filter(|&at| store.collect(at, now, false, |_| false).is_some())
                        .count();
                    model.0.retain(|_, (_, deadline, _)| *deadline > now.0);
                    prop_assert_eq!(live - ended, model.0.len());
                }
            }
            model.check(&store, now);
        }
    }
}

#[test]
fn a_handle_never_speaks_for_a_successor() {
    let store = Store::new(1, KEY).unwrap();
    let now = Nanos(1);
    let mut old: Option<ConnId> = None;
    let mut handles = HashSet::new();
    for round in 0..5000u64 {
        let added = add(&store, &tuple((round % 48) as u8), 1, 1 << 40, now).unwrap();
        assert!(handles.insert(added.id), "a handle came back");
        if let Some(old) = old {
            assert!(store.lock(old).is_none());
            assert!(!store.kill(old) && !store.discard(old));
        }
        assert!(store.kill(added.id));
        old = Some(added.id);
    }
    assert_eq!(store.live(), 0);
    assert!(store.entries().is_empty());
}

/// Threads that each own some tuples, and all read and change everything.
#[test]
fn threads_lose_nothing_and_tear_nothing() {
    const THREADS: u8 = 4;
    const ROUNDS: u64 = 4000;
    let store = Store::new(32, KEY).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|me| {
                let store = &store;
                scope.spawn(move || own(store, me, ROUNDS))
            })
            .collect();
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                observe(&store);
            }
        });
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        // Before any verdict: a failed worker must not leave the observer running.
        stop.store(true, Ordering::Relaxed);
        ended.into_iter().for_each(|end| end.unwrap());
    });
    audit(&store);
}

/// Creates, uses and ends tuples `me`, `me + 4`, ...; nobody else ends them.
fn own(store: &Store, me: u8, rounds: u64) {
    let now = Nanos(1);
    let mut held: HashMap<u8, ConnId> = HashMap::new();
    for round in 0..rounds {
        let number = me + 4 * ((round * 7 + u64::from(me)) % 8) as u8;
        let tuple = tuple(number);
        match held.remove(&number) {
            Some(id) => {
                assert_eq!(id_of(store, &tuple, now), Some((id, Direction::Original)));
                assert!(store.kill(id), "somebody else ended it");
                // A rival may have taken the freed tuple, as its reply, in between.
                let found = id_of(store, &tuple, now);
                assert!(found.is_none_or(|(other, _)| other != id), "ended, yet found");
            }
            None => {
                // Somebody else tries the same tuple now and then, backwards.
                let added = add(store, &tuple, 64, 1 << 40, now).expect("room");
                if added.linked.is_ok() {
                    held.insert(number, added.id);
                }
            }
        }
        for (&number, &id) in &held {
            let found = id_of(store, &super::table::tuple(number), now);
            assert_eq!(found, Some((id, Direction::Original)), "lost");
            bump(store, id);
        }
        rival(store, (round % 32) as u8, now);
    }
}

/// Adds the mirrored twin of somebody's tuple, which must clash or be alone.
fn rival(store: &Store, number: u8, now: Nanos) {
    let reply = tuple(number).inverted().unwrap();
    if let Some(added) = add(store, &reply, 64, 1 << 40, now)
        && added.linked.is_ok()
    {
        assert!(store.kill(added.id));
    }
}

/// One change of many fields that readers must see whole.
fn bump(store: &Store, id: ConnId) {
    let Some(entry) = store.lock(id) else { return };
    let next = entry.aux() + 1;
    entry.set_aux(next);
    entry.set_proto(&[next; 8]);
    entry.set_mark(next as u32);
}

fn observe(store: &Store) {
    for at in 0..store.len().min(64) {
        let Some((id, contents)) = store.contents_at(at) else { continue };
        if contents.status & CONFIRMED != 0 {
            assert_eq!(contents.proto, [contents.aux; 8], "torn");
            assert_eq!(contents.mark, contents.aux as u32, "torn");
            assert_eq!(contents.original.inverted(), Some(contents.reply), "torn tuples");
            bump(store, id);
        }
    }
}

/// Nothing is running any more: every count must be exact.
fn audit(store: &Store) {
    let mut seen = HashSet::new();
    for entry in store.entries() {
        let (id, contents) = store.contents_at(entry.record as usize).unwrap();
        assert_eq!(contents.status & CONFIRMED, CONFIRMED);
        let tuple = match entry.direction {
            Direction::Original => contents.original,
            Direction::Reply => contents.reply,
        };
        assert!(seen.insert(tuple), "a tuple is there twice");
        assert_eq!(id_of(store, &tuple, Nanos(1)), Some((id, entry.direction)));
    }
    assert_eq!(seen.len(), store.live() as usize * 2);
}
