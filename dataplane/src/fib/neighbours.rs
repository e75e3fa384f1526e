//! Link-layer addresses of neighbours.

use super::NeighbourEntry;
use super::network::{address_bits, family_of};
use crate::packet::{Family, Mac, PortId};

/// Who is asked for.
type Key = (PortId, Family, u128);

/// A hash table without chains: all entries of a bucket lie side by side, sorted, so that
/// neighbours who share one, as a hostile link may arrange, cost a binary search at most.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// Where each bucket begins in `entries`, and where the last one ends.
    begins: Box<[u32]>,
    entries: Box<[(Key, Mac)]>,
}

/// Longest bucket that is searched from its beginning.
const SHORT: usize = 4;

impl Neighbours {
    /// The key of an entry.
    pub(super) fn key(entry: &NeighbourEntry) -> Key {
        (entry.port, family_of(&entry.address), address_bits(entry.address))
    }

    /// Of several entries with one key the first counts.
    pub(super) fn new(mut entries: Vec<(Key, Mac)>) -> Self {
        if entries.is_empty() {
            return Self::default();
        }
        let buckets = (entries.len() * 2).next_power_of_two();
        entries.sort_by_key(|&(key, _)| (bucket(&key, buckets), key));
        entries.dedup_by_key(|&mut (key, _)| key);
        let begins = (0..=buckets)
            .map(|number| entries.partition_point(|(key, _)| bucket(key, buckets) < number) as u32);
        Self { begins: begins.collect(), entries: entries.into() }
    }

    /// The address of a neighbour.
    #[inline]
    pub(super) fn get(&self, port: PortId, family: Family, address: u128) -> Option<Mac> {
        let key = (port, family, address);
        let at = match self.begins.len() {
            0 => return None,
            len => bucket(&key, len - 1),
        };
        let bucket = &self.entries[self.begins[at] as usize..self.begins[at + 1] as usize];
        if bucket.len() > SHORT {
            let found = bucket.binary_search_by_key(&key, |&(key, _)| key);
            return found.ok().map(|at| bucket[at].1);
        }
        bucket.iter().find(|(other, _)| *other == key).map(|&(_, mac)| mac)
    }
}

/// The bucket of a key among a power of two.
#[inline]
fn bucket(&(port, family, address): &Key, buckets: usize) -> usize {
    let folded = address as u64 ^ (address >> 64) as u64;
    let salted = folded ^ u64::from(port.0) << 48 ^ (family as u64) << 56;
    (salted.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & (buckets - 1)
}
