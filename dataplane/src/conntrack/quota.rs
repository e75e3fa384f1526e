//! Who fills the table: connections that nobody has answered, counted by source
//! prefix while the table is crowded, and refused beyond a quota.
//!
//! Nothing is counted, and no packet pays for it, until seven eighths of the table
//! are taken. A prefix has one cell, chosen by a keyed hash. Another prefix that
//! meets the cell takes one off its count and the place at zero: a flood from
//! everywhere leaves small counts, and one that comes from somewhere stands out.
//! Counts are halved every second, as nobody tells what became of the connections.
//!
//! Concurrency: a cell is one word, changed by compare-and-swap; an update that loses
//! a few races in a row is lost, which makes a count of thousands wrong by one.

use std::hash::Hasher;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crossbeam_queue::ArrayQueue;
use siphasher::sip::SipHasher13;

use super::Conntrack;
use super::record::Locked;
use super::tuple::Direction;
use crate::clock::Nanos;
use crate::packet::Family;

/// Prefixes that are counted at once.
const CELLS: usize = 8192;
/// Findings that wait to be collected.
const FINDINGS: usize = 256;
/// Offenders that are remembered.
const REMEMBERED: usize = 16;
/// Races that one update may lose.
const ATTEMPTS: usize = 8;
/// Below so many unanswered connections nobody is an offender.
const LEAST_QUOTA: u64 = 1024;

/// A source prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// Its family.
    pub family: Family,
    /// Its first address (IPv4 in the low 32 bits).
    pub address: u128,
    /// Its length in bits.
    pub length: u8,
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.family {
            Family::V4 => write!(f, "{}", std::net::Ipv4Addr::from(self.address as u32))?,
            Family::V6 => write!(f, "{}", std::net::Ipv6Addr::from(self.address))?,
        }
        write!(f, "/{}", self.length)
    }
}

impl Prefix {
    /// The prefixes that a source is counted under, the narrowest first.
    fn of(family: Family, source: u128) -> impl Iterator<Item = Self> {
        let lengths: &[(u8, u32)] = match family {
            Family::V4 => &[(32, 0), (24, 8)],
            Family::V6 => &[(64, 64)],
        };
        lengths.iter().map(move |&(length, host_bits)| {
            let address = source >> host_bits << host_bits;
            Self { family, address, length }
        })
    }

    /// Unanswered connections that it may have in a crowded table of `limit`.
    fn quota(self, limit: u64) -> u64 {
        match self.length {
            24 => (limit / 8).max(2 * LEAST_QUOTA),
            _ => (limit / 16).max(LEAST_QUOTA),
        }
    }
}

/// A prefix that met its quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offender {
    /// Who.
    pub prefix: Prefix,
    /// Seconds in which it did.
    pub times: u64,
    /// When last.
    pub last: Nanos,
}

/// How full the table is, and who fills it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// Whether the table is crowded: quotas hold.
    pub crowded: bool,
    /// Connections refused because their source's quota was used up.
    pub refused: u64,
    /// Who met a quota, the latest first.
    pub offenders: Vec<Offender>,
}

/// A cell: 24 bits of tag, 8 bits of the second, 32 bits of count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    tag: u32,
    second: u8,
    count: u32,
}

impl Cell {
    fn unpack(word: u64) -> Self {
        Self { tag: (word >> 40) as u32, second: (word >> 32) as u8, count: word as u32 }
    }
    fn pack(self) -> u64 {
        u64::from(self.tag) << 40 | u64::from(self.second) << 32 | u64::from(self.count)
    }
    /// As it is at `second`: halved for every one since. Workers read the clock once a
    /// burst, so that one may come from the second before.
    fn at(self, second: u8) -> Self {
        let passed = u32::from(second.wrapping_sub(self.second));
        if passed == u32::from(u8::MAX) {
            return self;
        }
        Self { second, count: self.count.checked_shr(passed).unwrap_or(0), ..self }
    }
}

/// The table's side of it.
pub(super) struct Quotas {
    crowded: AtomicBool,
    hash_key: [u8; 16],
    cells: Box<[AtomicU64]>,
    refused: AtomicU64,
    findings: ArrayQueue<(Prefix, Nanos)>,
    /// Only [`Conntrack::pressure`] takes this lock.
    offenders: Mutex<Vec<Offender>>,
}

impl Quotas {
    pub(super) fn new(hash_key: [u8; 16]) -> Self {
        Self {
            crowded: AtomicBool::new(false),
            hash_key,
            cells: (0..CELLS).map(|_| AtomicU64::new(0)).collect(),
            refused: AtomicU64::new(0),
            findings: ArrayQueue::new(FINDINGS),
            offenders: Mutex::new(Vec::new()),
        }
    }

    /// Whether quotas hold.
    #[inline]
    pub(super) fn hold(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// Told how many connections there are when one is opened, and now and then:
    /// quotas hold from 7/8 on, and until there are less than 3/4.
    #[inline]
    pub(super) fn update(&self, live: u64, limit: u64) -> bool {
        let held = self.hold();
        let hold = live * 8 >= limit * if held { 6 } else { 7 };
        if hold != held {
            self.crowded.store(hold, Ordering::Relaxed);
        }
        hold
    }

    fn cell(&self, prefix: Prefix) -> (&AtomicU64, u32) {
        let mut hasher = SipHasher13::new_with_key(&self.hash_key);
        hasher.write_u8(prefix.length);
        hasher.write_u128(prefix.address);
        let hash = hasher.finish();
        (&self.cells[hash as usize % CELLS], (hash >> 40) as u32)
    }

    /// Counts a connection that `source` opens, if it may open one. A refused one
    /// counts nowhere.
    pub(super) fn admit(&self, family: Family, source: u128, limit: u64, now: Nanos) -> bool {
        let mut counted = None;
        for prefix in Prefix::of(family, source) {
            if !self.count(prefix, prefix.quota(limit), now) {
                if let Some(narrower) = counted {
                    self.uncount(narrower);
                }
                return false;
            }
            counted = Some(prefix);
        }
        true
    }

    fn count(&self, prefix: Prefix, quota: u64, now: Nanos) -> bool {
        let (place, tag) = self.cell(prefix);
        let mut admitted = true;
        for _ in 0..ATTEMPTS {
            let word = place.load(Ordering::Relaxed);
            let mut cell = Cell::unpack(word).at(now.as_secs() as u8);
            admitted = cell.tag != tag || u64::from(cell.count) < quota;
            if cell.tag == tag {
                if u64::from(cell.count) > quota {
                    break;
                }
                // When refused: one above the quota, said for this second.
                cell.count = cell.count.saturating_add(1);
            } else if cell.count > 1 {
                // A stranger's: one less for it, or the place.
                cell.count -= 1;
            } else {
                (cell.tag, cell.count) = (tag, 1);
            }
            if swap(place, word, cell) {
                if !admitted {
                    // Full of findings that nobody collects: the rest are lost.
                    let _ = self.findings.push((prefix, now));
                }
                break;
            }
        }
        if !admitted {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        admitted
    }

    /// A connection of `source` was answered: it counts no longer.
    pub(super) fn answered(&self, family: Family, source: u128) {
        Prefix::of(family, source).for_each(|prefix| self.uncount(prefix));
    }

    fn uncount(&self, prefix: Prefix) {
        let (place, tag) = self.cell(prefix);
        for _ in 0..ATTEMPTS {
            let word = place.load(Ordering::Relaxed);
            let mut cell = Cell::unpack(word);
            if cell.tag != tag || cell.count == 0 {
                return;
            }
            cell.count -= 1;
            if swap(place, word, cell) {
                return;
            }
        }
    }

    fn collect(&self) -> Vec<Offender> {
        let mut known = self.offenders.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((prefix, last)) = self.findings.pop() {
            match known.iter_mut().find(|offender| offender.prefix == prefix) {
                Some(offender) => (offender.times, offender.last) = (offender.times + 1, last),
                None => known.push(Offender { prefix, times: 1, last }),
            }
            known.sort_by_key(|offender| std::cmp::Reverse(offender.last));
            known.truncate(REMEMBERED);
        }
        known.clone()
    }
}

fn swap(place: &AtomicU64, word: u64, cell: Cell) -> bool {
    place.compare_exchange(word, cell.pack(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

impl Conntrack {
    /// A connection saw its first answer: it no longer counts for its source.
    #[inline]
    pub(super) fn answered(&self, entry: &Locked<'_>) {
        if self.quotas.hold() {
            let original = entry.tuple(Direction::Original);
            self.quotas.answered(original.family, original.src);
        }
    }

    /// How full the table is, and who fills it.
    pub fn pressure(&self) -> Pressure {
        Pressure {
            crowded: self.quotas.hold(),
            refused: self.quotas.refused.load(Ordering::Relaxed),
            offenders: self.quotas.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u64 = 16_384;

    fn open(quotas: &Quotas, source: u32, times: u64, second: u64) -> u64 {
        let now = Nanos::from_secs(second);
        let admit = |_: &u64| quotas.admit(Family::V4, source.into(), LIMIT, now);
        (0..times).filter(admit).count() as u64
    }

    #[test]
    fn a_host_that_nobody_answers_meets_its_quota_and_is_named() {
        let quotas = Quotas::new([1; 16]);
        assert_eq!(open(&quotas, 0xc612_0001, 1023, 10), 1023);
        assert_eq!(open(&quotas, 0xc612_0001, 5, 10), 1, "1/16 of the table");
        let offenders = quotas.collect();
        assert_eq!(offenders.len(), 1, "said once a second");
        assert_eq!(offenders[0].prefix.to_string(), "198.18.0.1/32");
        // Another of its network is not stopped for it, until the network is.
        assert_eq!(open(&quotas, 0xc612_0002, 1100, 10), 1024);
        assert_eq!(open(&quotas, 0xc612_0003, 10, 10), 0);
        let named: Vec<String> = quotas.collect().iter().map(|it| it.prefix.to_string()).collect();
        assert!(named.contains(&"198.18.0.0/24".to_owned()), "{named:?}");
        assert_eq!(open(&quotas, 0xc612_0103, 10, 10), 10, "the next network");
        // Half of it is forgiven with every second.
        assert_eq!(open(&quotas, 0xc612_0001, 1000, 11), 512);
    }

    #[test]
    fn answers_take_connections_off_the_count() {
        let quotas = Quotas::new([1; 16]);
        for _ in 0..100 {
            assert_eq!(open(&quotas, 0xc612_0001, 100, 10), 100);
            (0..100).for_each(|_| quotas.answered(Family::V4, 0xc612_0001));
        }
        assert_eq!(quotas.collect(), []);
    }

    #[test]
    fn a_flood_from_everywhere_makes_nobody_an_offender_but_who_stands_out() {
        let quotas = Quotas::new([1; 16]);
        let mut refused = 0;
        for nth in 0..400_000_u32 {
            let source = nth.wrapping_mul(0x9e37_79b9);
            refused += 1 - open(&quotas, source, 1, 10);
            if nth % 40 == 0 {
                open(&quotas, 0xc612_0001, 1, 10);
            }
        }
        assert_eq!(refused, 0);
        let named: Vec<String> = quotas.collect().iter().map(|it| it.prefix.to_string()).collect();
        assert!(named.contains(&"198.18.0.1/32".to_owned()), "{named:?}");
    }

    #[test]
    fn who_is_refused_for_its_network_is_not_counted_itself() {
        let quotas = Quotas::new([1; 16]);
        assert_eq!(open(&quotas, 0xc612_0001, 1024, 10), 1024);
        assert_eq!(open(&quotas, 0xc612_0002, 1024, 10), 1024);
        assert_eq!(open(&quotas, 0xc612_0003, 5000, 10), 0);
        let named: Vec<String> = quotas.collect().iter().map(|it| it.prefix.to_string()).collect();
        assert_eq!(named, ["198.18.0.0/24"]);
    }

    #[test]
    fn a_worker_whose_clock_is_behind_forgives_nothing() {
        let quotas = Quotas::new([1; 16]);
        assert_eq!(open(&quotas, 0xc612_0001, 2000, 300), 1024);
        let late = |_| open(&quotas, 0xc612_0001, 1, 299) + open(&quotas, 0xc612_0001, 1, 300);
        assert_eq!((0..100).map(late).sum::<u64>(), 0);
        assert_eq!(open(&quotas, 0xc612_0001, 2000, 301), 512);
        assert_eq!(open(&quotas, 0xc612_0001, 2000, 400), 1024, "long forgotten");
    }

    #[test]
    fn threads_share_one_quota_and_no_answer_is_lost() {
        const THREADS: u64 = 4;
        let quotas = Quotas::new([1; 16]);
        let on_threads = |work: &(dyn Fn() -> u64 + Sync)| {
            std::thread::scope(|scope| {
                let all: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
                all.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
            })
        };
        // As many answers as connections: nobody comes near the quota.
        let open_and_answer = || {
            let one = |_| {
                let admitted = open(&quotas, 0xc612_0001, 1, 10);
                quotas.answered(Family::V4, 0xc612_0001);
                admitted
            };
            (0..50_000).map(one).sum()
        };
        assert_eq!(on_threads(&open_and_answer), THREADS * 50_000);
        let source = 0xc612_0101;
        let admitted = on_threads(&|| open(&quotas, source, 20_000, 10));
        assert!((1024..1024 + 64).contains(&admitted), "{admitted}");
        assert_eq!(quotas.collect().len(), 1, "said once a second");
    }

    #[test]
    fn quotas_hold_late_and_are_let_go_later() {
        let quotas = Quotas::new([1; 16]);
        let holds = |live| quotas.update(live, 1000);
        assert_eq!([874, 875, 750, 749, 874].map(holds), [false, true, true, false, false]);
    }
}
