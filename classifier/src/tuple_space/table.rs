//! One hash table: slots over one contiguous array of entries.
//!
//! There is no probing: a slot is the range of all entries whose hash selects
//! it, so a lookup reads one slot, of a size known since the build.

use super::cover::Cover;

/// One leaf in a slot. Positions first and last are copied here, so that
/// entries that cannot win are passed over without touching the leaf.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) tag: u32,
    pub(super) leaf: u32,
    pub(super) first: u32,
    pub(super) last: u32,
}

/// The bits of a hash that tell entries of one slot apart.
#[inline]
pub(super) fn tag(hash: u64) -> u32 {
    hash as u32
}

/// The table of one cover.
#[derive(Debug)]
pub(super) struct Table<A> {
    cover: Cover<A>,
    first: u32,
    last: u32,
    /// The hash is shifted right by this much to select a slot.
    shift: u32,
    /// `starts[s]..starts[s + 1]` are the entries of slot `s`.
    starts: Box<[u32]>,
    /// Within a slot by `first`, ascending.
    entries: Box<[Entry]>,
}

impl<A> Table<A> {
    /// Lays the entries out. Slots number at least twice the entries.
    pub(super) fn build(cover: Cover<A>, mut hashed: Vec<(u64, Entry)>) -> Self {
        let bits = (hashed.len().max(1) * 2).next_power_of_two().ilog2();
        let shift = 64 - bits;
        hashed.sort_unstable_by_key(|(hash, entry)| (hash >> shift, entry.first));
        let mut starts = vec![0_u32; (1 << bits) + 1];
        for (hash, _) in &hashed {
            starts[(hash >> shift) as usize + 1] += 1;
        }
        for slot in 1..starts.len() {
            starts[slot] += starts[slot - 1];
        }
        let entries: Box<[Entry]> = hashed.into_iter().map(|(_, entry)| entry).collect();
        Self {
            cover,
            first: entries.iter().map(|entry| entry.first).min().unwrap_or(u32::MAX),
            last: entries.iter().map(|entry| entry.last).max().unwrap_or(0),
            shift,
            starts: starts.into(),
            entries,
        }
    }
    #[inline]
    pub(super) fn cover(&self) -> &Cover<A> {
        &self.cover
    }
    /// Lowest position of any entry.
    #[inline]
    pub(super) fn first(&self) -> u32 {
        self.first
    }
    /// Highest position of any entry.
    #[inline]
    pub(super) fn last(&self) -> u32 {
        self.last
    }
    /// All entries that may have this hash, by first position.
    #[inline]
    pub(super) fn slot(&self, hash: u64) -> &[Entry] {
        let slot = (hash >> self.shift) as usize;
        &self.entries[self.starts[slot] as usize..self.starts[slot + 1] as usize]
    }
    pub(super) fn largest_slot(&self) -> usize {
        let sizes = self.starts.windows(2).map(|pair| (pair[1] - pair[0]) as usize);
        sizes.max().unwrap_or(0)
    }
    /// The entries of the largest slot.
    pub(super) fn largest(&self) -> &[Entry] {
        let slots = self.starts.windows(2).map(|pair| pair[0] as usize..pair[1] as usize);
        slots.max_by_key(|slot| slot.len()).map_or(&[], |slot| &self.entries[slot])
    }
    /// All entries.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.starts) + size_of_val(&*self.entries)
    }
}
