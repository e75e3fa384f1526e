//! Lists and tables on their way to the state file and back.

use dataplane::clock::Nanos;
use dataplane::packet::Family;
use dataplane::policy::tally::hashlimit::Row;
use dataplane::policy::tally::rate::Bucket;
use dataplane::policy::tally::recent::Seen;
use dataplane::policy::tally::{HashTable, RecentTable, TICK_NS, ticks};

use crate::compile::pieces::{Left, Piece, Reading, Words};

/// The kind of `-m recent`'s pieces.
pub(super) const RECENT: &str = "recent";
const VERSION: u16 = 1;

pub(super) fn family(number: u8) -> Option<Family> {
    match number {
        4 => Some(Family::V4),
        6 => Some(Family::V6),
        _ => None,
    }
}

pub(super) fn number(family: Family) -> u8 {
    match family {
        Family::V4 => 4,
        Family::V6 => 6,
    }
}

/// A tick as an age, or an age as a tick.
fn turned(tick: u64, now: u64) -> u64 {
    now.wrapping_sub(tick)
}

pub(super) fn recent(name: &str, table: &RecentTable, now: Nanos) -> Piece {
    let now = now.0 / TICK_NS;
    let mut words = Words::default();
    for seen in table.list() {
        words.u8(number(seen.family));
        words.u128(seen.address);
        words.u8(seen.ttl);
        words.u32(seen.index);
        words.u32(seen.times.len() as u32);
        seen.times.iter().for_each(|&time| words.u64(turned(time, now)));
    }
    Piece { kind: RECENT.to_owned(), name: name.to_owned(), version: VERSION, bytes: words.0 }
}

/// All of a piece's entries, none of a piece that is not of this version.
fn all<T>(piece: &Piece, read: impl Fn(&mut Reading<'_>) -> Option<T>) -> Result<Vec<T>, Left> {
    if piece.version != VERSION {
        return Err(Left::Version(piece.version));
    }
    let mut reading = Reading(&piece.bytes);
    let mut all = Vec::new();
    while !reading.is_done() {
        all.push(read(&mut reading).ok_or(Left::Malformed)?);
    }
    Ok(all)
}

/// Puts a saved list in the place of what is there.
pub(super) fn put_recent(
    piece: &Piece,
    table: &RecentTable,
    elapsed: Nanos,
    now: Nanos,
) -> Result<(), Left> {
    let now = (now.0 / TICK_NS).wrapping_sub(elapsed.0 / TICK_NS);
    let all = all(piece, |reading| read_seen(reading, now))?;
    table.flush();
    // The oldest give way, should there be too many.
    let skipped = all.len().saturating_sub(table.entries() as usize);
    table.restore(&all[skipped..]);
    Ok(())
}

fn read_seen(reading: &mut Reading<'_>, now: u64) -> Option<Seen> {
    let family = family(reading.u8()?)?;
    let (address, ttl, index) = (reading.u128()?, reading.u8()?, reading.u32()?);
    let count = reading.u32()?;
    let times = (0..count).map(|_| Some(turned(reading.u64()?, now)));
    let times: Option<Vec<u64>> = times.collect();
    Some(Seen { family, address, ttl, index, times: times? })
}

/// The kind of `-m hashlimit`'s pieces.
pub(super) const fn hash_kind(family: Family) -> &'static str {
    match family {
        Family::V4 => "hashlimit4",
        Family::V6 => "hashlimit6",
    }
}

pub(super) fn hash(family: Family, name: &str, table: &HashTable, now: Nanos) -> Piece {
    let now = ticks(now);
    let mut rows = table.rows(now);
    // The ones that expire first come first.
    rows.sort_by_key(|row| row.expires);
    let mut words = Words::default();
    for row in rows {
        for (address, port) in [row.src, row.dst] {
            words.u128(address);
            words.u32(u32::from(port));
        }
        words.u64(turned(row.bucket.since, now));
        words.u64(row.bucket.credit);
        words.u64(row.bucket.left);
        words.u64(row.expires.saturating_sub(now));
    }
    let kind = hash_kind(family).to_owned();
    Piece { kind, name: name.to_owned(), version: VERSION, bytes: words.0 }
}

/// Puts a saved table in the place of what is there.
pub(super) fn put_hash(
    piece: &Piece,
    table: &HashTable,
    elapsed: Nanos,
    now: Nanos,
) -> Result<(), Left> {
    let (elapsed, now) = (elapsed.0 / TICK_NS, ticks(now));
    let rows = all(piece, |reading| read_row(reading, elapsed, now))?;
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    table.flush();
    table.restore(&rows, now);
    Ok(())
}

/// One row; nothing inside, if its time is over.
fn read_row(reading: &mut Reading<'_>, elapsed: u64, now: u64) -> Option<Option<Row>> {
    let mut end = || Some((reading.u128()?, u16::try_from(reading.u32()?).ok()?));
    let (src, dst) = (end()?, end()?);
    let since = now.saturating_sub(elapsed).saturating_sub(reading.u64()?);
    let bucket = Bucket { since, credit: reading.u64()?, left: reading.u64()? };
    let left = reading.u64()?.checked_sub(elapsed).filter(|&left| left > 0);
    Some(left.map(|left| Row { src, dst, bucket, expires: now.saturating_add(left) }))
}
