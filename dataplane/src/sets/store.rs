//! The elements of a hash type: rows found through an index of their hashes.
//!
//! Lookups walk the index and the rows through atomics alone and never wait. Whoever
//! adds or deletes holds one short lock. The index is open addressing with a part of the
//! hash beside each row's number, so that a miss touches no row; it is replaced by a
//! larger one when it is half full, or by one as large when too much of it is worn by
//! what is gone; rows stay where they are. Packets never allocate: what they may add to
//! has its room [reserved](Store::reserve).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::error::SetError;
use super::index::{SMALLEST, Table};
use super::key::{Key, Shape};
use super::slab::{COMMENTED, FLAGS, LIVE, Layout, Row, Slab};
use super::spec::CreateSpec;
use crate::clock::Nanos;

/// No row.
const NONE: u32 = u32::MAX;
/// Rows that are looked at for expired ones when a set is full.
const SWEEP: u32 = 64;
/// Most rows that are set aside for packets.
const MOST_RESERVED: u32 = 1 << 20;
/// Interfaces of one network.
const MOST_IFACES: u32 = 64;

/// How many elements there are of each prefix length, for one of two networks.
#[derive(Debug)]
pub(super) struct Lengths {
    counts: Box<[AtomicU32]>,
    /// Those that are there, one bit each.
    present: [AtomicU64; 3],
}

impl Lengths {
    fn new() -> Self {
        Self { counts: (0..=128).map(|_| AtomicU32::new(0)).collect(), present: Default::default() }
    }

    fn add(&self, cidr: u8) {
        if self.counts[usize::from(cidr)].fetch_add(1, Ordering::Relaxed) == 0 {
            self.present[usize::from(cidr / 64)].fetch_or(1 << (cidr % 64), Ordering::Release);
        }
    }

    fn remove(&self, cidr: u8) {
        if self.counts[usize::from(cidr)].fetch_sub(1, Ordering::Relaxed) == 1 {
            self.present[usize::from(cidr / 64)].fetch_and(!(1 << (cidr % 64)), Ordering::Release);
        }
    }

    /// The longest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = u8> + use<> {
        let mut words = [0, 1, 2].map(|at: usize| self.present[at].load(Ordering::Acquire));
        std::iter::from_fn(move || {
            let word = words.iter().rposition(|word| *word != 0)?;
            let bit = 63 - words[word].leading_zeros();
            words[word] &= !(1 << bit);
            Some((word as u32 * 64 + bit) as u8)
        })
    }
}

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
    /// Whether room is set aside for packets.
    reserved: bool,
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
    limit_ifaces: bool,
    secrets: [u64; 2],
    table: ArcSwap<Table>,
    live: AtomicU32,
    pub(super) lengths: [Lengths; 2],
    writer: Mutex<Writer>,
}

impl Store {
    pub(super) fn new(spec: &CreateSpec, seed: u64) -> Self {
        let shape = Shape::of(spec);
        let layout = Layout::new(spec, shape.words());
        let slab = Arc::new(Slab::new(layout, spec.maxelem));
        let table = Table::new(SMALLEST, slab);
        Self {
            shape,
            layout,
            maxelem: spec.maxelem,
            forceadd: spec.forceadd,
            limit_ifaces: spec.kind == super::SetType::HashNetIface,
            secrets: [
                seed ^ 0x9e37_79b9_7f4a_7c15,
                seed.rotate_left(32).wrapping_mul(0xd6e8_feb8_6659_fd93) | 1,
            ],
            table: ArcSwap::from_pointee(table),
            live: AtomicU32::new(0),
            lengths: [Lengths::new(), Lengths::new()],
            writer: Mutex::new(Writer {
                free: NONE,
                fresh: 0,
                hand: 0,
                retired: Vec::new(),
                reserved: false,
            }),
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn hash(&self, key: &Key) -> u64 {
        let hashed = self.shape.hashed(key);
        let mut hash = self.secrets[0];
        for word in &hashed[..self.shape.words()] {
            let product =
                u128::from(hash ^ word) * u128::from(self.secrets[1] ^ 0xa076_1d64_78bd_642f);
            hash = (product as u64) ^ (product >> 64) as u64 ^ self.secrets[0].rotate_left(17);
        }
        let product = u128::from(hash) * 0xe703_7ed1_a0b4_28db;
        (product as u64) ^ (product >> 64) as u64
    }

    /// Elements, with those that expired and were not swept yet.
    pub(super) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Gives `visit` every entry that `meant` may be, until it answers.
    #[inline]
    pub(super) fn visit<R>(
        &self,
        meant: &Key,
        mut visit: impl FnMut(Row<'_>, u64, &Key) -> Option<R>,
    ) -> Option<R> {
        let table = self.table.load();
        table.walk(self.hash(meant), |row, _| {
            let row = table.slab.row(row)?;
            let (state, key) = row.read()?;
            visit(row, state, &key)
        })
    }

    /// The row of the very element.
    fn find(&self, table: &Table, meant: &Key) -> Option<(u32, usize)> {
        table.walk(self.hash(meant), |at, slot| {
            let (_, key) = table.slab.row(at)?.read()?;
            self.shape.same(&key, meant).then_some((at, slot))
        })
    }

    /// Puts an element, or finds it there; `fill` says what its row keeps.
    pub(super) fn put(
        &self,
        put: &Put<'_>,
        fill: impl FnOnce(u32, &Row<'_>),
    ) -> Result<(), SetError> {
        let mut writer = self.writer();
        let mut table = self.table.load_full();
        let flags = LIVE | put.flags;
        if let Some((at, _)) = self.find(&table, put.key) {
            let row = table.slab.row(at).ok_or(SetError::NoRoom)?;
            if !put.exist && !row.expired(put.now) {
                return Err(SetError::Exists);
            }
            fill(at, &row);
            // Packets say nothing of comments.
            let said = if put.may_allocate { 0 } else { row.state() & COMMENTED };
            let flags = flags | said;
            if row.state() & FLAGS != flags {
                row.set_state(flags);
            }
            return Ok(());
        }
        self.check_room(&mut writer, &table, put)?;
        if put.may_allocate {
            table = self.renew(&mut writer, table);
        } else if (self.live() as usize + 1) * 8 > table.slots() * 7 {
            return Err(SetError::NoRoom);
        }
        let at = self.take(&mut writer, &table.slab, put.may_allocate)?;
        let row = table.slab.row(at).ok_or(SetError::NoRoom)?;
        row.set_key(put.key);
        row.clear();
        fill(at, &row);
        row.set_state(flags);
        for (lengths, cidr) in self.lengths.iter().zip(put.cidrs) {
            if let Some(cidr) = cidr {
                lengths.add(cidr);
            }
        }
        table.insert(self.hash(put.key), at);
        self.live.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes room where the set is full, if time or `forceadd` allows.
    fn check_room(
        &self,
        writer: &mut Writer,
        table: &Table,
        put: &Put<'_>,
    ) -> Result<(), SetError> {
        if self.limit_ifaces {
            let mut count = 0;
            table.walk(self.hash(put.key), |at, _| {
                let (_, key) = table.slab.row(at)?.read()?;
                count += u32::from(self.shape.same_net(&key, put.key));
                None::<()>
            });
            if count >= MOST_IFACES {
                return Err(SetError::Full);
            }
        }
        if self.live() >= self.maxelem {
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

    /// A larger index where it is half full, a new one where it is worn.
    fn renew(&self, writer: &mut Writer, table: Arc<Table>) -> Arc<Table> {
        let live = self.live() as usize + 1;
        let slots = if live * 2 > table.slots() { table.slots() * 2 } else { table.slots() };
        match slots > table.slots() || table.is_worn(live) {
            true => self.grow(writer, &table, slots),
            false => table,
        }
    }

    /// Another index over the same rows.
    fn grow(&self, writer: &mut Writer, old: &Table, slots: usize) -> Arc<Table> {
        let table = old.rebuilt(slots, |row| Some(self.hash(&old.slab.row(row)?.read()?.1)));
        self.publish(writer, table)
    }

    /// Lookups in flight keep the old table; it is freed here, later, and not by them.
    fn publish(&self, writer: &mut Writer, table: Table) -> Arc<Table> {
        let table = Arc::new(table);
        writer.retired.retain(|old| Arc::strong_count(old) > 1);
        writer.retired.push(self.table.swap(Arc::clone(&table)));
        table
    }

    /// Sets room aside, so that packets may add all the set takes, or a million.
    pub(super) fn reserve(&self) {
        let mut writer = self.writer();
        if std::mem::replace(&mut writer.reserved, true) {
            return;
        }
        let most = self.maxelem.min(MOST_RESERVED);
        let mut table = self.table.load_full();
        let slots = (most as usize * 2).next_power_of_two();
        if table.slots() < slots {
            table = self.grow(&mut writer, &table, slots);
        }
        for row in 0..most {
            table.slab.prepare(row);
        }
    }

    /// Deletes an element.
    pub(super) fn del(&self, meant: &Key, now: Nanos) -> Result<(), SetError> {
        let mut writer = self.writer();
        let table = self.table.load_full();
        let (at, _) = self.find(&table, meant).ok_or(SetError::NotThere)?;
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
        let slot = table.walk(self.hash(&key), |found, slot| (found == at).then_some(slot));
        let Some(slot) = slot else { return false };
        table.remove(slot);
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

    fn sweep_some(&self, writer: &mut Writer, table: &Table, most: u32, now: Nanos) {
        for _ in 0..most.min(writer.fresh) {
            let at = writer.hand % writer.fresh;
            writer.hand = writer.hand.wrapping_add(1);
            self.drop_row(writer, table, at, |row| row.expired(now));
        }
    }

    /// Takes out what expired, a piece at a time so that nobody waits long.
    pub(super) fn sweep(&self, now: Nanos) {
        const PIECE: u32 = 1024;
        let rows = self.writer().fresh;
        for _ in 0..rows.div_ceil(PIECE) {
            let mut writer = self.writer();
            let table = self.table.load_full();
            self.sweep_some(&mut writer, &table, PIECE, now);
        }
        self.tidy();
    }

    /// Renews an index that is worn, and frees what nobody reads any more.
    pub(super) fn tidy(&self) {
        let mut writer = self.writer();
        let table = self.table.load_full();
        self.renew(&mut writer, table);
        writer.retired.retain(|old| Arc::strong_count(old) > 1);
    }

    /// Marks of what is gone.
    #[cfg(test)]
    pub(super) fn gone(&self) -> u32 {
        self.table.load().gone()
    }

    /// Slots that the longest walk there can be looks at.
    #[cfg(test)]
    pub(super) fn longest_walk(&self) -> usize {
        self.table.load().longest_walk()
    }

    /// Takes everything out.
    pub(super) fn flush(&self) {
        let mut writer = self.writer();
        let old = self.table.load_full();
        let slab = Arc::new(Slab::new(self.layout, self.maxelem));
        let kept = if writer.reserved { self.maxelem.min(MOST_RESERVED) } else { 0 };
        for row in 0..kept {
            slab.prepare(row);
        }
        let slots = if writer.reserved { old.slots() } else { SMALLEST };
        self.publish(&mut writer, Table::new(slots, slab));
        (writer.free, writer.fresh, writer.hand) = (NONE, 0, 0);
        self.live.store(0, Ordering::Relaxed);
        for lengths in &self.lengths {
            for cidr in lengths.iter() {
                lengths.counts[usize::from(cidr)].store(0, Ordering::Relaxed);
            }
            for word in &lengths.present {
                word.store(0, Ordering::Release);
            }
        }
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
        table.slab.bytes() + 8 * table.slots() as u64
    }
}
