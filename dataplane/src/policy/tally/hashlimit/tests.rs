//! Tables of hashlimit: what fits, what expires, and many workers at once.

use super::*;
use crate::policy::tally::rate::Unit;

fn settings(most: u32) -> HashSettings {
    let rate = Rate { unit: Unit::Packets, avg: 1_000_000, burst: 2, window_s: None };
    HashSettings {
        parts: KeyParts { src: true, ..KeyParts::default() },
        src_len: 32,
        dst_len: 32,
        rate,
        buckets: 1,
        most,
        expire_ms: 1000,
        gc_ms: 1000,
    }
}

fn key(src: u128) -> Key {
    Key { src, ..Key::default() }
}

#[test]
fn each_key_has_its_own_bucket() {
    let table = HashTable::new(settings(10), Family::V4);
    let spent = |src, tick| table.spend(key(src), 60, tick);
    assert_eq!(
        [spent(1, 0), spent(1, 0), spent(1, 0)],
        [Spent::Within, Spent::Within, Spent::Above]
    );
    assert_eq!(spent(2, 0), Spent::Within);
    assert_eq!(
        (spent(1, 249), spent(1, 250), spent(1, 251)),
        (Spent::Above, Spent::Within, Spent::Above)
    );
    assert_eq!(table.rows(251).len(), 1, "the other one was cleared away");
}

#[test]
fn a_full_table_has_no_room_until_an_entry_expires() {
    let table = HashTable::new(settings(3), Family::V4);
    let spent = |src, tick| table.spend(key(src), 60, tick);
    assert!((1..=3).all(|src| spent(src, 0) == Spent::Within));
    assert_eq!((spent(4, 1), spent(1, 1)), (Spent::NoRoom, Spent::Within));
    // Two of them are over at the kernel's next look; the first was refreshed since.
    assert_eq!(spent(4, 249), Spent::NoRoom);
    assert_eq!(
        (spent(4, 250), spent(5, 250), spent(6, 250)),
        (Spent::Within, Spent::Within, Spent::NoRoom)
    );
    assert_eq!(table.len(), 3);
    assert_eq!(spent(1, 500), Spent::Within, "full again: it was cleared away");
    assert_eq!(spent(1, 500), Spent::Within);
    table.flush();
    assert!(table.is_empty());
}

#[test]
fn workers_share_the_bound() {
    let table = HashTable::new(settings(20_000), Family::V4);
    let within: usize = std::thread::scope(|scope| {
        let work = |from: u128| {
            let table = &table;
            scope.spawn(move || {
                (from..from + 9_000)
                    .filter(|&src| table.spend(key(src), 60, 7) == Spent::Within)
                    .count()
            })
        };
        let threads: Vec<_> = (0..4).map(|n| work(n * 7_000)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(table.len(), 20_000);
    assert!(within >= 20_000);
    assert_eq!(table.rows(7).len(), 20_000);
}

#[test]
fn rows_go_elsewhere_and_stay_as_spent() {
    let table = HashTable::new(settings(10), Family::V4);
    assert_eq!(table.spend(key(1), 60, 100), Spent::Within);
    assert_eq!(table.spend(key(1), 60, 100), Spent::Within);
    let rows = table.rows(100);
    let other = HashTable::new(settings(10), Family::V4);
    assert_eq!((other.restore(&rows, 110), other.restore(&rows, 110)), (1, 0));
    assert_eq!(other.spend(key(1), 60, 110), Spent::Above);
}

#[test]
fn bytes_are_counted_in_pieces_and_refilled_burst_times() {
    // 16 kB a second: 1 s of it at once, and twice more.
    let rate = Rate { unit: Unit::Bytes, avg: cost_of(16_384), burst: 2, window_s: None };
    assert_eq!(rate.check(), Ok(()));
    let mut bucket = rate.full(0);
    let packets = (0..1000).take_while(|_| rate.take(&mut bucket, 1_000)).count();
    assert_eq!(packets, 3 * 16);
    rate.refill(&mut bucket, 125);
    assert_eq!((0..100).take_while(|_| rate.take(&mut bucket, 1_000)).count(), 8);
}

fn cost_of(bytes: u32) -> u64 {
    crate::policy::tally::rate::cost_of_bytes(bytes)
}

#[test]
fn windows_count_what_was_in_the_last_one() {
    let rate = Rate { unit: Unit::Packets, avg: 100_000, burst: 5, window_s: Some(2) };
    assert_eq!(rate.of_window(), (10, 15));
    let mut bucket = rate.full(0);
    assert_eq!((0..20).filter(|_| rate.take(&mut bucket, 60)).count(), 15);
    rate.refill(&mut bucket, 500);
    assert!(!rate.take(&mut bucket, 60), "the window before was too full");
    rate.refill(&mut bucket, 1000);
    assert!(rate.take(&mut bucket, 60));
}
