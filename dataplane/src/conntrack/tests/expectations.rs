//! The table of expectations under real threads: nothing is met twice, torn, lost
//! or leaked.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::super::expect::Expectations;
use super::super::{ConnId, Direction, ExpectId, Expectation, Follow, Limits, SourceMask, Tuple};
use crate::clock::Nanos;
use crate::packet::Family;
use crate::policy::target::HelperKind;

const NOW: Nanos = Nanos(1000);
const MOST: u32 = 8;
const LIMITS: Limits = Limits { most: 1000, timeout: Nanos(1000), any_master: false };
/// The one that is there throughout.
const PINNED: u16 = 1000;

/// Every field says `number`; towards port `to` from anywhere.
fn expectation(number: u64, to: u16) -> Expectation {
    let tuple = Tuple {
        src: u128::from(number) << 64 | u128::from(number),
        dst: 5,
        sport: number as u16,
        dport: to,
        proto: 6,
        family: Family::V4,
        zone: 0,
    };
    let follow = Follow {
        direction: if number.is_multiple_of(2) { Direction::Original } else { Direction::Reply },
        port: number as u16,
        address: Some(tuple.src),
    };
    Expectation {
        tuple,
        mask: SourceMask { address: 0, port: 0 },
        master: ConnId(number % 3),
        by: HelperKind::ALL[number as usize % 4],
        class: number as u8,
        permanent: to == PINNED,
        inactive: false,
        helper: number.is_multiple_of(2).then_some(HelperKind::Sip),
        follow: Some(follow),
    }
}

fn number(found: &Expectation) -> u64 {
    let number = found.tuple.src as u64;
    let whole = Expectation { inactive: found.inactive, ..expectation(number, found.tuple.dport) };
    assert_eq!(*found, whole, "torn");
    number
}

fn towards(to: u16) -> Tuple {
    Tuple { src: 77, sport: 77, ..expectation(0, to).tuple }
}

#[derive(Default)]
struct Tally {
    added: u64,
    ended: u64,
    met: Vec<u64>,
}

fn work(table: &Expectations, me: u64, rounds: u64, numbers: &AtomicU64) -> Tally {
    let mut tally = Tally::default();
    let mut mine: Option<ExpectId> = None;
    for round in 0..rounds {
        let to = ((round * 7 + me * 3) % 40) as u16;
        let fresh = numbers.fetch_add(1, Ordering::Relaxed);
        if let Ok(id) = table.insert(&expectation(fresh, to), LIMITS, MOST, NOW, |_| true) {
            tally.added += 1;
            if let Some(before) = mine.replace(id) {
                tally.ended += u64::from(table.remove(before));
                assert!(!table.remove(before), "ended twice");
            }
        }
        let met = table.take(&towards(((round * 11) % 40) as u16), NOW, |_| true);
        tally.met.extend(met.as_ref().map(number));
        match round % 64 {
            7 => table.change(ConnId(round % 3), NOW, |one, deadline| {
                number(one);
                one.inactive = !one.inactive && one.tuple.dport != PINNED;
                Some(deadline)
            }),
            // All but the pinned one's master are gone.
            63 => tally.ended += table.collect(NOW, |master| master == ConnId(0)) as u64,
            _ => {}
        }
    }
    tally
}

#[test]
fn threads_meet_each_expectation_once_and_lose_none() {
    const THREADS: u64 = 4;
    let table = Expectations::new(MOST as usize, [9; 16]);
    table.insert(&expectation(0, PINNED), LIMITS, MOST, NOW, |_| true).unwrap();
    let (stop, numbers) = (AtomicBool::new(false), AtomicU64::new(3));
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let (table, stop, numbers) = (&table, &stop, &numbers);
        let workers: Vec<_> =
            (0..THREADS).map(|me| scope.spawn(move || work(table, me, 30_000, numbers))).collect();
        let observer = scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let found = table.take(&towards(PINNED), NOW, |_| true);
                assert_eq!(found.as_ref().map(number), Some(0), "lost");
                let found = table.of_master(ConnId(0), NOW, |one| one.permanent);
                assert_eq!(found.as_ref().map(number), Some(0), "lost");
                let _ = table.peek(&towards(7), NOW).as_ref().map(number);
                table.all(NOW).iter().for_each(|(one, _)| {
                    number(one);
                });
            }
        });
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        stop.store(true, Ordering::Relaxed);
        observer.join().unwrap();
        ended.into_iter().map(|end| end.unwrap()).collect()
    });
    let met: Vec<u64> = tallies.iter().flat_map(|tally| tally.met.clone()).collect();
    let unique: HashSet<&u64> = met.iter().collect();
    assert_eq!(unique.len(), met.len(), "met twice");
    assert!(met.len() > 1000, "too little happened: {}", met.len());
    let [added, ended] =
        [tallies.iter().map(|it| it.added).sum(), tallies.iter().map(|it| it.ended).sum::<u64>()];
    let left = added - ended - met.len() as u64;
    assert_eq!(table.clear() as u64, left + 1, "the pinned one is left, too");
    assert!(table.is_empty());
    // Every place serves again.
    for number in 0..u64::from(MOST) {
        table
            .insert(&expectation(number, number as u16), LIMITS, MOST, NOW, |_| true)
            .unwrap_or_else(|error| panic!("a place has leaked: {number}: {error}"));
    }
    assert_eq!(table.all(NOW).len(), MOST as usize);
}
