//! The elements of a hash type: rows found through an index of their hashes.
//!
//! Lookups walk the index and the rows through atomics alone and never wait. Whoever
//! adds or deletes holds one short lock: an index that is half full, or worn by what is
//! gone, is replaced a piece at a time by those who add, and by the sweep; what is large
//! is made before the lock is taken, and freed after. Rows stay where they are. Packets
//! never allocate: what they may add to has its room [reserved](Store::reserve).

mod ahead;
mod upkeep;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use self::ahead::Ahead;
use super::error::SetError;
use super::index::{Carried, SMALLEST, Table};
use super::key::{Key, Shape};
use super::lengths::Lengths;
use super::slab::{COMMENTED, FLAGS, LIVE, Layout, Row, Slab};
use super::spec::CreateSpec;
use crate::clock::Nanos;

/// Later than any time.
const NEVER: Nanos = Nanos(u64::MAX);
/// No row.
const NONE: u32 = u32::MAX;
/// Rows that a packet looks at for expired ones when a set is full.
const SWEEP: u32 = 256;
/// Slots that an element's addition carries into a new index.
const CARRY: usize = 32;
/// Interfaces of one network.
const MOST_IFACES: u32 = 64;

/// What only the holder of the lock may touch.
#[derive(Debug)]
struct Writer {
    /// The first of the rows that were given back, linked through their spare words.
    free: u32,
    /// Rows from here on were never used.
    fresh: u32,
    /// Where the search for expired rows goes on.
    hand: u32,
    /// What lookups may still be in.
    retired: Vec<Arc<Table>>,
    /// How far the index takes over the one before.
    carried: Carried,
    /// No row's time is over before.
    earliest: Nanos,
    /// The earliest that the sweep under way has met, and which sweep that is.
    met: Nanos,
    sweep: u64,
    /// Whether room is set aside for packets.
    reserved: bool,
}

impl Writer {
    /// A row has a time now.
    fn note_deadline(&mut self, row: &Row<'_>) {
        if let Some(deadline) = row.deadline() {
            self.earliest = self.earliest.min(deadline);
            self.met = self.met.min(deadline);
        }
    }
}

/// What to put, and how.
pub(super) struct Put<'a> {
    pub(super) key: &'a Key,
    /// Prefix lengths.
    pub(super) cidrs: [Option<u8>; 2],
    /// Flags besides being live.
    pub(super) flags: u64,
    pub(super) exist: bool,
    /// False for packets.
    pub(super) may_allocate: bool,
    pub(super) now: Nanos,
}

/// Elements of a hash type.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) shape: Shape,
    layout: Layout,
    maxelem: u32,
    forceadd: bool,
    secrets: [u64; 2],
    /// Whether keys are as short as hashes.
    short: bool,
    /// Whether a row says no more than its hash.
    plain: bool,
    table: ArcSwap<Table>,
    live: AtomicU32,
    pub(super) lengths: [Lengths; 2],
    writer: Mutex<Writer>,
    ahead: Box<Ahead>,
}

impl Store {
    pub(super) fn new(spec: &CreateSpec, seed: u64) -> Self {
        let shape = Shape::of(spec);
        let layout = Layout::new(spec, shape.words());
        let slab = Arc::new(Slab::new(layout, spec.maxelem));
        let short = shape.is_short();
        Self {
            shape,
            layout,
            maxelem: spec.maxelem,
            forceadd: spec.forceadd,
            secrets: [
                seed ^ 0x9e37_79b9_7f4a_7c15,
                seed.rotate_left(32).wrapping_mul(0xd6e8_feb8_6659_fd93) | 1,
            ],
            short,
            plain: short && spec.timeout.is_none() && !spec.counters && !spec.skbinfo,
            table: ArcSwap::from_pointee(Table::new(SMALLEST, slab)),
            live: AtomicU32::new(0),
            lengths: [Lengths::new(), Lengths::new()],
            writer: Mutex::new(Writer {
                free: NONE,
                fresh: 0,
                hand: 0,
                retired: Vec::new(),
                carried: Carried::default(),
                earliest: NEVER,
                met: NEVER,
                sweep: 0,
                reserved: false,
            }),
            ahead: Box::default(),
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lookups go through now.
    #[inline]
    pub(super) fn table(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// Whether an element is there if its hash is: different keys have different hashes,
    /// and rows have nothing to ask.
    #[inline]
    pub(super) fn knows_by_hash(&self) -> bool {
        self.plain
    }

    #[inline]
    pub(super) fn hash(&self, key: &Key) -> u32 {
        if self.short {
            return self.shuffled(key[0] as u32);
        }
        let hashed = self.shape.hashed(key);
        let mut hash = self.secrets[0];
        for word in &hashed[..self.shape.words()] {
            let product =
                u128::from(hash ^ word) * u128::from(self.secrets[1] ^ 0xa076_1d64_78bd_642f);
            hash = (product as u64) ^ (product >> 64) as u64 ^ self.secrets[0].rotate_left(17);
        }
        let product = u128::from(hash) * 0xe703_7ed1_a0b4_28db;
        ((product as u64) ^ (product >> 64) as u64) as u32
    }

    /// A permutation: each step can be undone.
    #[inline]
    fn shuffled(&self, key: u32) -> u32 {
        let [one, two] = self.secrets;
        let mut hash = key ^ one as u32;
        hash = hash.wrapping_mul(two as u32 | 1);
        hash ^= hash >> 16 ^ (one >> 48) as u32;
        hash = hash.wrapping_mul((two >> 32) as u32 | 1);
        hash ^= hash >> 15 ^ (one >> 32) as u32 & 0xffff;
        hash.wrapping_mul(0x9e37_79b1)
    }

    /// Elements, with those that expired and were not swept yet.
    pub(super) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Gives `visit` every entry of a hash, until it answers.
    #[inline]
    pub(super) fn visit<R>(
        &self,
        table: &Table,
        hash: u32,
        mut visit: impl FnMut(Row<'_>, u64, &Key) -> Option<R>,
    ) -> Option<R> {
        table.walk(hash, |row| {
            let row = table.slab.row(row)?;
            let (state, key) = row.read()?;
            visit(row, state, &key)
        })
    }

    /// The row of the very element.
    fn find(&self, table: &Table, hash: u32, meant: &Key) -> Option<u32> {
        table.walk(hash, |at| {
            let (_, key) = table.slab.row(at)?.read()?;
            self.shape.same(&key, meant).then_some(at)
        })
    }

    /// Puts an element, or finds it there; `fill` says what its row keeps.
    pub(super) fn put(
        &self,
        put: &Put<'_>,
        fill: impl FnOnce(u32, &Row<'_>),
    ) -> Result<(), SetError> {
        if put.may_allocate && self.live() >= self.maxelem {
            self.sweep_if_due(put.now);
        }
        let hash = self.hash(put.key);
        let mut writer = self.writer();
        let mut table = self.table.load();
        let flags = LIVE | put.flags;
        if let Some(at) = self.find(&table, hash, put.key) {
            let row = table.slab.row(at).ok_or(SetError::NoRoom)?;
            if !put.exist && !row.expired(put.now) {
                return Err(SetError::Exists);
            }
            fill(at, &row);
            writer.note_deadline(&row);
            // Packets say nothing of comments.
            let said = if put.may_allocate { 0 } else { row.state() & COMMENTED };
            let flags = flags | said;
            if row.state() & FLAGS != flags {
                row.set_state(flags);
            }
            return Ok(());
        }
        self.check_room(&mut writer, &table, hash, put)?;
        let live = self.live() as usize + 1;
        if put.may_allocate {
            if self.renew(&mut writer, &table, live, CARRY) {
                table = self.table.load();
            }
        } else if live * 8 > table.index.len() * 7 {
            return Err(SetError::NoRoom);
        }
        let at = self.take(&mut writer, &table.slab, put.may_allocate)?;
        let row = table.slab.row(at).ok_or(SetError::NoRoom)?;
        row.set_key(put.key);
        row.clear();
        fill(at, &row);
        writer.note_deadline(&row);
        row.set_state(flags);
        for (lengths, cidr) in self.lengths.iter().zip(put.cidrs) {
            if let Some(cidr) = cidr {
                lengths.add(cidr);
            }
        }
        table.insert(hash, at);
        self.live.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes room where the set is full, if time or `forceadd` allows.
    fn check_room(
        &self,
        writer: &mut Writer,
        table: &Table,
        hash: u32,
        put: &Put<'_>,
    ) -> Result<(), SetError> {
        if self.shape.has_iface() {
            let mut count = 0;
            table.walk(hash, |at| {
                let (_, key) = table.slab.row(at)?.read()?;
                count += u32::from(self.shape.same_net(&key, put.key));
                None::<()>
            });
            if count >= MOST_IFACES {
                return Err(SetError::Full);
            }
        }
        if self.live() >= self.maxelem && writer.earliest < put.now {
            self.sweep_some(writer, table, SWEEP, put.now);
        }
        if self.live() < self.maxelem {
            return Ok(());
        }
        if !self.forceadd || self.maxelem == 0 {
            return Err(SetError::Full);
        }
        for _ in 0..writer.fresh {
            let at = writer.hand % writer.fresh;
            writer.hand = writer.hand.wrapping_add(1);
            if self.drop_row(writer, table, at, |_| true) {
                return Ok(());
            }
        }
        Err(SetError::Full)
    }

    fn take(&self, writer: &mut Writer, slab: &Slab, make: bool) -> Result<u32, SetError> {
        if writer.free != NONE {
            let at = writer.free;
            let row = slab.row(at).ok_or(SetError::NoRoom)?;
            writer.free = row.spare() as u32;
            return Ok(at);
        }
        let at = writer.fresh;
        if make {
            slab.prepare(at);
        }
        slab.row(at).ok_or(SetError::NoRoom)?;
        writer.fresh += 1;
        Ok(at)
    }

    /// Deletes an element.
    pub(super) fn del(&self, meant: &Key, now: Nanos) -> Result<(), SetError> {
        let hash = self.hash(meant);
        let mut writer = self.writer();
        let table = self.table.load();
        let at = self.find(&table, hash, meant).ok_or(SetError::NotThere)?;
        let mut expired = false;
        let mut note = |row: &Row<'_>| {
            expired = row.expired(now);
            !expired
        };
        match self.drop_row(&mut writer, &table, at, &mut note) {
            true => Ok(()),
            false => Err(SetError::NotThere),
        }
    }

    /// Takes a live row out if `wanted`.
    fn drop_row(
        &self,
        writer: &mut Writer,
        table: &Table,
        at: u32,
        wanted: impl FnOnce(&Row<'_>) -> bool,
    ) -> bool {
        let Some(row) = table.slab.row(at) else { return false };
        let Some((_, key)) = row.read() else { return false };
        if !wanted(&row) {
            return false;
        }
        if !table.remove(self.hash(&key), at) {
            return false;
        }
        row.set_state(0);
        let element = self.shape.unpack(&key);
        for (lengths, cidr) in self.lengths.iter().zip(self.cidrs(&element)) {
            if let Some(cidr) = cidr {
                lengths.remove(cidr);
            }
        }
        row.set_spare(u64::from(writer.free));
        writer.free = at;
        self.live.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Prefix lengths by network: the first, and the second (or the only one behind a port).
    pub(super) fn cidrs(&self, element: &super::Element) -> [Option<u8>; 2] {
        [element.cidr, element.cidr2]
    }

    /// Marks of what is gone.
    #[cfg(test)]
    pub(super) fn gone(&self) -> u32 {
        self.table.load().index.gone()
    }

    /// Slots that the longest walk there can be looks at.
    #[cfg(test)]
    pub(super) fn longest_walk(&self) -> usize {
        self.table.load().index.longest_walk()
    }

    /// Entries by row, from `from` on, until `take` has enough; the next row.
    pub(super) fn list(
        &self,
        from: u32,
        mut take: impl FnMut(u32, Row<'_>, u64, &Key) -> bool,
    ) -> Option<u32> {
        let rows = self.writer().fresh;
        let table = self.table.load();
        for at in from..rows {
            let Some(row) = table.slab.row(at) else { continue };
            let Some((state, key)) = row.read() else { continue };
            if !take(at, row, state, &key) {
                return Some(at);
            }
        }
        None
    }

    /// Bytes in use.
    pub(super) fn bytes(&self) -> u64 {
        let table = self.table.load();
        table.slab.bytes() + table.bytes()
    }
}
