//! Connections by source under real threads: every living one is found, no dead one,
//! and nothing stays behind.

use super::super::status::SRC_NAT_DONE;
use super::super::store::Store;
use super::super::{ConnId, Tuple};
use crate::clock::Nanos;
use crate::packet::Family;

const NOW: Nanos = Nanos(1);

/// Three sources that all threads share; what is behind them tells the threads apart.
fn tuple(source: u16, dport: u16) -> Tuple {
    Tuple { src: 9, dst: 5, sport: source, dport, proto: 17, family: Family::V4, zone: 0 }
}

fn enter(store: &Store, tuple: &Tuple) -> ConnId {
    let keys = [*tuple, tuple.inverted().unwrap()].map(|tuple| tuple.key(store.hash_key()));
    assert!(store.reserve(64, keys[0].hash, NOW).0);
    let (id, entry) = store.create(&keys[0], &keys[1]).unwrap();
    entry.set_deadline(if tuple.dport.is_multiple_of(2) { 1 << 40 } else { 1 });
    entry.add_status(SRC_NAT_DONE);
    drop(entry);
    store.link(id, NOW).unwrap();
    id
}

fn ports(store: &Store, source: u16) -> Vec<u16> {
    let mut seen = Vec::new();
    store.find_source(&tuple(source, 0), |reply| {
        assert_eq!(reply.dport, source, "of another source");
        seen.push(reply.sport);
        None::<()>
    });
    seen
}

#[test]
fn threads_find_every_living_connection_of_a_source() {
    let store = Store::new(64, [3; 16]).unwrap();
    std::thread::scope(|scope| {
        for me in 0..4_u16 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..6000_u16 {
                    let (source, other) = (round % 3, (round + 1) % 3);
                    let [long, short] = [me * 16, me * 16 + 1];
                    let id = enter(store, &tuple(source, long));
                    enter(store, &tuple(source, short));
                    let kept = enter(store, &tuple(other, long));
                    let seen = ports(store, source);
                    assert!(seen.contains(&long) && seen.contains(&short), "{seen:?}");
                    assert!(ports(store, other).contains(&long));
                    assert!(store.kill(id));
                    // The other has expired, and ends by whoever meets it.
                    let key = tuple(source, short).key(store.hash_key());
                    assert_eq!(store.find(&key, Nanos(5)), None);
                    let seen = ports(store, source);
                    assert!(!seen.contains(&long) && !seen.contains(&short), "{seen:?}");
                    assert!(store.kill(kept));
                }
            });
        }
    });
    assert_eq!((store.live(), store.entries().len()), (0, 0));
    for source in 0..3 {
        assert_eq!(ports(&store, source), [], "left behind");
    }
}

#[test]
fn what_never_entered_a_list_leaves_the_others_alone() {
    let store = Store::new(8, [3; 16]).unwrap();
    let first = enter(&store, &tuple(1, 2));
    // The same flow again clashes, and one without a decision is in no list.
    let keys = [tuple(1, 2), tuple(1, 2).inverted().unwrap()].map(|it| it.key(store.hash_key()));
    for status in [SRC_NAT_DONE, 0] {
        assert!(store.reserve(8, keys[0].hash, NOW).0);
        let (id, entry) = store.create(&keys[0], &keys[1]).unwrap();
        entry.add_status(status);
        drop(entry);
        assert!(store.link(id, NOW).is_err());
        assert!(store.discard(id));
    }
    assert_eq!(ports(&store, 1), [2]);
    assert!(store.kill(first));
    assert_eq!(ports(&store, 1), []);
}
