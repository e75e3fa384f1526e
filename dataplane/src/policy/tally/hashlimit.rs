//! `-m hashlimit`: a limit for each address, port or both.
//!
//! Life cycle: a table is made with the first policy that names it and kept as long as
//! its settings are. Concurrency: parts by the key's hash, each with its lock; the number
//! of entries is common. Limits: as many entries as the table's settings say. When it is
//! full, packets of new keys are dropped, as by the kernel, until an entry's time is over;
//! expired entries make room one by one as packets come.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::PAGE;
use super::rate::{Bucket, Rate};
use super::shelf::Shelf;
use super::spin::Spin;
use super::{HZ, ticks};
use crate::packet::{Family, Fragment};
use crate::policy::eval::{Outcome, PacketView};
use crate::wire::proto;

/// Most entries and buckets that the kernel takes.
pub const MAX_ENTRIES: u32 = 1 << 20;
/// Buckets when nothing is said, on machines with more than 1 GiB.
pub const DEFAULT_BUCKETS: u32 = 8192;
/// Longest name in bytes.
pub const MAX_NAME: usize = 254;
/// Up to this many entries a table is one part.
const WHOLE: usize = 4096;
/// Parts of a larger table.
const PARTS: usize = 8;
/// Expired entries that one packet clears away at most, of each part.
const CLEARED: usize = 4;
/// Before the first packet.
const NEVER: u64 = u64::MAX;

/// What a table tells apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyParts {
    /// `srcip`.
    pub src: bool,
    /// `srcport`.
    pub sport: bool,
    /// `dstip`.
    pub dst: bool,
    /// `dstport`.
    pub dport: bool,
}

/// Settings of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HashSettings {
    /// `--hashlimit-mode`.
    pub parts: KeyParts,
    /// Length of `--hashlimit-srcmask`.
    pub src_len: u8,
    /// Length of `--hashlimit-dstmask`.
    pub dst_len: u8,
    /// How much.
    pub rate: Rate,
    /// `--hashlimit-htable-size`; 0 when not given.
    pub buckets: u32,
    /// `--hashlimit-htable-max`; 0 when not given.
    pub most: u32,
    /// `--hashlimit-htable-expire`, in milliseconds.
    pub expire_ms: u32,
    /// `--hashlimit-htable-gcinterval`, in milliseconds.
    pub gc_ms: u32,
}

impl HashSettings {
    /// How many entries fit.
    pub fn capacity(&self) -> u32 {
        let buckets = match self.buckets {
            0 => DEFAULT_BUCKETS,
            given => given.min(MAX_ENTRIES),
        };
        match self.most {
            0 => buckets.saturating_mul(8),
            given => given.min(MAX_ENTRIES).max(buckets),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Key {
    src: u128,
    dst: u128,
    sport: u16,
    dport: u16,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    bucket: Bucket,
    /// Tick from which on it is to be cleared away.
    expires: u64,
}

/// What a packet meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spent {
    /// Within the limit.
    Within,
    /// Above it.
    Above,
    /// No room for its key.
    NoRoom,
}

/// One entry, outside its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Source address and port.
    pub src: (u128, u16),
    /// Destination address and port.
    pub dst: (u128, u16),
    /// Its bucket.
    pub bucket: Bucket,
    /// Tick from which on it is to be cleared away.
    pub expires: u64,
}

/// A table.
#[derive(Debug)]
pub struct HashTable {
    /// What it was made with.
    pub settings: HashSettings,
    family: Family,
    hasher: RandomState,
    parts: Box<[Spin<Shelf<Key, Entry>>]>,
    /// Entries in all parts, expired ones that were not cleared away included.
    count: AtomicUsize,
    /// Tick of the first packet: the kernel clears away at regular intervals.
    origin: AtomicU64,
}

impl HashTable {
    /// An empty table.
    pub fn new(settings: HashSettings, family: Family) -> Self {
        let capacity = settings.capacity() as usize;
        let hasher = RandomState::new();
        let (parts, each) = match capacity {
            0..=WHOLE => (1, capacity.max(1)),
            // Keys spread evenly, but for a few standard deviations.
            _ => {
                let mean = capacity / PARTS;
                (PARTS, mean + 12 * mean.isqrt())
            }
        };
        let parts = (0..parts).map(|_| Spin::new(Shelf::new(each, hasher.clone()))).collect();
        let (count, origin) = (AtomicUsize::new(0), AtomicU64::new(NEVER));
        Self { settings, family, hasher, parts, count, origin }
    }

    /// Entries, expired ones that were not cleared away included.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Spends for one packet of `length` bytes at `tick`.
    fn spend(&self, key: Key, length: u32, tick: u64) -> Spent {
        let origin = self.origin(tick);
        let part = self.part(&key);
        if let Some(spent) = self.spend_known(&mut part.lock(), &key, length, tick, origin) {
            return spent;
        }
        if !self.reserve(tick, origin) {
            return Spent::NoRoom;
        }
        let mut shelf = part.lock();
        // Another packet of the key may have been quicker.
        if let Some(spent) = self.spend_known(&mut shelf, &key, length, tick, origin) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return spent;
        }
        let mut bucket = self.settings.rate.full(tick);
        let within = self.settings.rate.take(&mut bucket, length);
        let expires = tick + in_ticks(self.settings.expire_ms);
        if shelf.insert(key, Entry { bucket, expires }).is_none() {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Spent::NoRoom;
        }
        if within { Spent::Within } else { Spent::Above }
    }

    /// The same for a key that has an entry; one whose time is over is cleared away.
    fn spend_known(
        &self,
        shelf: &mut Shelf<Key, Entry>,
        key: &Key,
        length: u32,
        tick: u64,
        origin: u64,
    ) -> Option<Spent> {
        let at = shelf.find(key, |_| true)?;
        if self.is_over(shelf.value(at), tick, origin) {
            shelf.remove(at);
            self.count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let entry = shelf.value_mut(at);
        entry.expires = tick + in_ticks(self.settings.expire_ms);
        self.settings.rate.refill(&mut entry.bucket, tick);
        let within = self.settings.rate.take(&mut entry.bucket, length);
        shelf.touch(at);
        Some(if within { Spent::Within } else { Spent::Above })
    }

    /// Whether the kernel has cleared the entry away: at the first of its regular looks
    /// after the entry's time.
    fn is_over(&self, entry: &Entry, tick: u64, origin: u64) -> bool {
        let every = in_ticks(self.settings.gc_ms).max(1);
        let looks = entry.expires.saturating_sub(origin).div_ceil(every).max(1);
        origin.saturating_add(looks.saturating_mul(every)) <= tick
    }

    fn origin(&self, tick: u64) -> u64 {
        let origin = self.origin.load(Ordering::Relaxed);
        if origin != NEVER {
            return origin;
        }
        let set = self.origin.compare_exchange(NEVER, tick, Ordering::Relaxed, Ordering::Relaxed);
        set.err().unwrap_or(tick)
    }

    /// Counts an entry that is to come, if there is room or can be made.
    fn reserve(&self, tick: u64, origin: u64) -> bool {
        let most = self.settings.capacity() as usize;
        let room = |count: usize| (count < most).then_some(count + 1);
        let reserve =
            || self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok();
        if reserve() {
            return true;
        }
        for part in &self.parts {
            let mut shelf = part.lock();
            for _ in 0..CLEARED {
                let oldest = shelf.oldest();
                let over = |&at: &u32| self.is_over(shelf.value(at), tick, origin);
                let Some(at) = oldest.filter(over) else { break };
                shelf.remove(at);
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
        }
        reserve()
    }

    fn part(&self, key: &Key) -> &Spin<Shelf<Key, Entry>> {
        // The shelf's buckets take the hash's low bits.
        let high = (self.hasher.hash_one(key) >> 32) as usize;
        &self.parts[high % self.parts.len()]
    }

    /// Entries whose time is not over, in no order.
    pub fn rows(&self, tick: u64) -> Vec<Row> {
        let origin = self.origin(tick);
        let mut rows = Vec::new();
        for part in &self.parts {
            let mut from = 0;
            loop {
                rows.reserve(PAGE);
                let shelf = part.lock();
                let Some(page) = shelf.page(from, PAGE) else { break };
                let alive = |at: &u32| !self.is_over(shelf.value(*at), tick, origin);
                rows.extend(page.map(|(_, at)| at).filter(alive).map(|at| {
                    let (key, entry) = (shelf.key(at), shelf.value(at));
                    let mut bucket = entry.bucket;
                    self.settings.rate.refill(&mut bucket, tick);
                    let (src, dst) = ((key.src, key.sport), (key.dst, key.dport));
                    Row { src, dst, bucket, expires: entry.expires }
                }));
                from += PAGE;
            }
        }
        rows
    }

    /// Puts rows from elsewhere into the table, as far as they fit; the ones that expire
    /// first must come first. Returns how many.
    pub fn restore(&self, rows: &[Row], tick: u64) -> usize {
        let origin = self.origin(tick);
        let fits = |row: &&Row| {
            let key = Key { src: row.src.0, dst: row.dst.0, sport: row.src.1, dport: row.dst.1 };
            let mut shelf = self.part(&key).lock();
            let known = shelf.find(&key, |_| true).is_some();
            let entry = Entry { bucket: row.bucket, expires: row.expires };
            let room = self.len() < self.settings.capacity() as usize;
            let put = room && !known && !self.is_over(&entry, tick, origin);
            let put = put && shelf.insert(key, entry).is_some();
            self.count.fetch_add(usize::from(put), Ordering::Relaxed);
            put
        };
        rows.iter().filter(fits).count()
    }

    /// Forgets every entry.
    pub fn flush(&self) {
        for part in &self.parts {
            let mut shelf = part.lock();
            self.count.fetch_sub(shelf.len(), Ordering::Relaxed);
            shelf.clear();
        }
        self.origin.store(NEVER, Ordering::Relaxed);
    }

    /// The packet's key; `None` if it has no ports to look at and the table asks for them.
    fn key(&self, packet: &PacketView<'_>) -> Option<Key> {
        let (parsed, settings) = (&*packet.parsed, &self.settings);
        let mut key = Key::default();
        if settings.parts.src {
            key.src = parsed.src & prefix(self.family, settings.src_len);
        }
        if settings.parts.dst {
            key.dst = parsed.dst & prefix(self.family, settings.dst_len);
        }
        if settings.parts.sport || settings.parts.dport {
            let (sport, dport) = ports(packet)?;
            key.sport = if settings.parts.sport { sport } else { 0 };
            key.dport = if settings.parts.dport { dport } else { 0 };
        }
        Some(key)
    }
}

/// Milliseconds in ticks, begun ones counted.
fn in_ticks(ms: u32) -> u64 {
    (u64::from(ms) * HZ).div_ceil(1000)
}

fn prefix(family: Family, len: u8) -> u128 {
    match family {
        Family::V4 => u128::from(u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)),
        Family::V6 => u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0),
    }
}

/// The four bytes where ports are, by the protocol alone: in later IPv4 fragments, too.
fn ports(packet: &PacketView<'_>) -> Option<(u16, u16)> {
    let parsed = &*packet.parsed;
    let later = matches!(parsed.fragment, Fragment::Later { .. });
    if parsed.family == Family::V6 && later {
        return Some((0, 0));
    }
    if parsed.family == Family::V6 && (parsed.broken_chain() || parsed.proto == NO_NEXT_HEADER) {
        return None;
    }
    let at = match parsed.proto {
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP | proto::ESP => 0,
        proto::AH => 4,
        _ => return Some((0, 0)),
    };
    let bytes = parsed.l4_bytes(&packet.frame).get(at..at + 4)?;
    Some((u16::from_be_bytes([bytes[0], bytes[1]]), u16::from_be_bytes([bytes[2], bytes[3]])))
}

/// IPv6: nothing follows.
const NO_NEXT_HEADER: u8 = 59;

/// A rule and its table.
#[derive(Clone, Debug)]
pub struct HashMatch {
    /// `--hashlimit-above`: matches what is above the limit.
    pub above: bool,
    /// The table.
    pub table: Arc<HashTable>,
}

impl HashMatch {
    pub(super) fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        let Some(key) = self.table.key(packet) else { return Outcome::Hotdrop };
        let length = u32::from(packet.parsed.l3_len);
        match self.table.spend(key, length, ticks(packet.now)) {
            Spent::Within => (!self.above).into(),
            Spent::Above => self.above.into(),
            Spent::NoRoom => Outcome::Hotdrop,
        }
    }
}

#[cfg(test)]
mod tests;
