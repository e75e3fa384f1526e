//! What keeps a hash type in order: indexes that grow or are worn, room for packets,
//! what expired, and emptying. None of it holds the lock for long.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::super::index::{Index, SMALLEST, Table};
use super::super::slab::{LIVE, Slab};
use super::{NEVER, NONE, Store, Writer};
use crate::clock::Nanos;

/// Rows that a sweep looks at under one lock.
const PIECE: u32 = 1024;
/// Slots that the sweep carries under one lock.
const CARRY_MOST: usize = 4096;
/// Slots of the largest index that is replaced at once.
const AT_ONCE: usize = 512;
/// Slots of an index that is not freed by who adds an element.
const LARGE: usize = 1 << 16;
/// Replaced tables that may wait for the sweep.
const MOST_RETIRED: usize = 64;
/// Most rows that are set aside for packets.
const MOST_RESERVED: u32 = 1 << 20;
/// Slots that are carried with an addition where the new index is itself half full.
const CARRY_MORE: usize = 512;

impl Store {
    /// A larger index where it is half full, a new one where it is worn, or some more of
    /// one that was begun; whether the table is another one now.
    pub(super) fn renew(
        &self,
        writer: &mut Writer,
        table: &Table,
        live: usize,
        slots: usize,
    ) -> bool {
        let (now, full) = (table.index.len(), live * 2 > table.index.len());
        if table.before.is_some() {
            let slots = if full { slots.max(CARRY_MORE) } else { slots };
            return self.carry(writer, table, slots);
        }
        let wanted = if full { now * 2 } else { now };
        let due = wanted > now || table.index.is_worn(live);
        if due {
            self.begin(writer, table, wanted);
        }
        due
    }

    /// Begins another index over the same rows. A small one is done at once, and one of
    /// interfaces: theirs are told apart by the order in which they are met.
    fn begin(&self, writer: &mut Writer, old: &Table, slots: usize) {
        let (table, mut carried) = old.begin(Index::over(self.slots(Index::size(slots))));
        let at_once = self.shape.has_iface() || old.index.len() <= AT_ONCE;
        if at_once && table.carry(&mut carried, usize::MAX) {
            self.publish(writer, table.settled());
        } else {
            writer.carried = carried;
            self.publish(writer, table);
        }
    }

    /// Carries some more slots; whether those were the last.
    fn carry(&self, writer: &mut Writer, table: &Table, slots: usize) -> bool {
        let done = table.before.is_some() && table.carry(&mut writer.carried, slots);
        if done {
            self.publish(writer, table.settled());
        }
        done
    }

    /// Lookups in flight keep the old table; it is freed later, and not by them.
    fn publish(&self, writer: &mut Writer, table: Table) {
        let many = writer.retired.len() >= MOST_RETIRED;
        let waits = |old: &Arc<Table>| !many && old.index.len() > LARGE;
        writer.retired.retain(|old| Arc::strong_count(old) > 1 || waits(old));
        writer.retired.push(self.table.swap(Arc::new(table)));
    }

    /// Does what is begun, a piece at a time so that nobody waits long.
    fn settle(&self) {
        loop {
            let mut writer = self.writer();
            let table = self.table.load();
            if table.before.is_none() || self.carry(&mut writer, &table, CARRY_MOST) {
                return;
            }
        }
    }

    /// Sets room aside, so that packets may add all the set takes, or a million.
    pub(in crate::sets) fn reserve(&self) {
        if std::mem::replace(&mut self.writer().reserved, true) {
            return;
        }
        let most = self.maxelem.min(MOST_RESERVED);
        self.table.load_full().slab.prepare_to(most);
        let slots = (most as usize * 2).next_power_of_two();
        loop {
            self.settle();
            let mut writer = self.writer();
            let table = self.table.load();
            match table.before {
                None if table.index.len() >= slots => break,
                None => self.begin(&mut writer, &table, slots),
                Some(_) => {}
            }
        }
        self.table.load().index.touch();
    }

    pub(super) fn sweep_some(&self, writer: &mut Writer, table: &Table, most: u32, now: Nanos) {
        for _ in 0..most.min(writer.fresh) {
            let at = writer.hand % writer.fresh;
            writer.hand = writer.hand.wrapping_add(1);
            self.drop_row(writer, table, at, |row| row.expired(now));
        }
    }

    /// Takes out what expired, a piece at a time so that nobody waits long.
    pub(in crate::sets) fn sweep(&self, now: Nanos) {
        self.sweep_if_due(now);
        self.tidy();
    }

    /// Looks at every row, unless no time can be over.
    pub(super) fn sweep_if_due(&self, now: Nanos) {
        let (rows, sweep) = {
            let mut writer = self.writer();
            if writer.earliest >= now {
                return;
            }
            writer.met = NEVER;
            writer.sweep += 1;
            (writer.fresh, writer.sweep)
        };
        for from in (0..rows).step_by(PIECE as usize) {
            let mut writer = self.writer();
            let table = self.table.load();
            for at in from..rows.min(from + PIECE) {
                self.drop_row(&mut writer, &table, at, |row| row.expired(now));
                if let Some(row) = table.slab.row(at).filter(|row| row.state() & LIVE != 0) {
                    writer.note_deadline(&row);
                }
            }
        }
        let mut writer = self.writer();
        if writer.sweep == sweep {
            writer.earliest = writer.met;
        }
    }

    /// Renews an index that is worn, and frees what nobody reads any more.
    pub(in crate::sets) fn tidy(&self) {
        let mut writer = self.writer();
        let table = self.table.load();
        self.renew(&mut writer, &table, self.live() as usize + 1, CARRY_MOST);
        drop((table, writer));
        self.settle();
        let retired = std::mem::take(&mut self.writer().retired);
        if retired.is_empty() {
            return;
        }
        let (free, kept): (Vec<_>, Vec<_>) =
            retired.into_iter().partition(|old| Arc::strong_count(old) == 1);
        self.writer().retired.extend(kept);
        drop(free);
    }

    /// Takes everything out.
    pub(in crate::sets) fn flush(&self) {
        let reserved = self.writer().reserved;
        let slab = Arc::new(Slab::new(self.layout, self.maxelem));
        let mut slots = SMALLEST;
        if reserved {
            let most = self.maxelem.min(MOST_RESERVED);
            slab.prepare_to(most);
            slots = most as usize * 2;
        }
        let empty = Table::new(slots, slab);
        let mut writer = self.writer();
        self.publish(&mut writer, empty);
        (writer.free, writer.fresh, writer.hand) = (NONE, 0, 0);
        (writer.earliest, writer.met) = (NEVER, NEVER);
        writer.sweep += 1;
        self.live.store(0, Ordering::Relaxed);
        for lengths in &self.lengths {
            lengths.clear();
        }
        // Packets came to be expected meanwhile.
        let late = std::mem::replace(&mut writer.reserved, reserved) != reserved;
        drop(writer);
        if late {
            self.reserve();
        }
        self.tidy();
    }
}
