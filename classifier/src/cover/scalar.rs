//! A lookup in plain code.

use super::lanes::{LANES, Words, tag};
use super::leaf::NOWHERE;
use super::{CoverTables, Entry, MIXED, PRIO_SHIFT, TAG_SHIFT};
use crate::{Address, Key};

/// What a lookup is held to cost, in tenths of nanoseconds or so.
const TABLE_COST: u64 = 8;
const LEAF_COST: u64 = 140;
const PAIR_COST: u64 = 40;
const ROW_COST: u64 = 20;
/// What signatures cost on top: once, and for each table.
const SIGNED_COST: u64 = 40;
const SIGNED_TABLE_COST: u64 = 3;

/// The lowest position at or after `from` whose rule matches, or [`NOWHERE`].
pub(super) fn first<A: Address>(tables: &CoverTables<A>, key: &Key<A>, from: u32) -> u32 {
    look_up(tables, key, from, &mut 0)
}

/// What looking the key up costs.
pub(super) fn cost<A: Address>(tables: &CoverTables<A>, key: &Key<A>) -> u64 {
    let count = tables.tables.len() as u64;
    let signs = if tables.signed { SIGNED_COST + SIGNED_TABLE_COST * count } else { 0 };
    let mut cost = signs + TABLE_COST * count;
    look_up(tables, key, 0, &mut cost);
    cost
}

#[inline(always)]
fn look_up<A: Address>(tables: &CoverTables<A>, key: &Key<A>, from: u32, cost: &mut u64) -> u32 {
    let words = Words::of(key);
    let mut metas = [u64::MAX; LANES];
    for (table, meta) in metas.iter_mut().enumerate().take(tables.tables.len()) {
        let hash = tables.lanes.hash::<A>(table, &words);
        let entry = tables.entries[tables.lanes.slot(table, hash) as usize];
        let tagged = (entry.meta >> TAG_SHIFT) as u32 & 0xff;
        let lacks = tables.signs.wanted_of(&tables.lanes, table, &words, key) & !entry.sign;
        if (lacks == 0 || !tables.signed) && (tagged == MIXED || tagged == tag(hash)) {
            *meta = entry.meta;
        }
    }
    let places = tables.places();
    let mut best = NOWHERE;
    loop {
        let entry = metas.iter_mut().min().expect("there are lanes");
        if (*entry >> PRIO_SHIFT) as u32 >= best || *entry == u64::MAX {
            break;
        }
        let leaf = &tables.blocks[Entry::blocks(*entry)];
        *cost += LEAF_COST + PAIR_COST * leaf.len().div_ceil(2) as u64;
        for block in leaf {
            let hits = block.hits(key);
            if hits != 0 {
                best = best.min(places.next(std::slice::from_ref(block), hits, key, from));
            }
        }
        *entry = u64::MAX;
    }
    for (row, span) in tables.tail.rows.iter().zip(&tables.tail.spans).skip(tables.tail.begin(from))
    {
        if span.0 >= best {
            break;
        }
        *cost += ROW_COST;
        let hits = row.hits::<A>(&words, key.proto);
        if hits != 0 {
            best = best.min(row.next(hits, key, from, &places));
        }
    }
    best
}
