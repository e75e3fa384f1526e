//! Who causes the most records: bounded counting of the heaviest of many.
//!
//! Space-Saving: a newcomer takes the place of the lightest and inherits its count, which
//! is then how much the newcomer's may be too high by. Whoever causes more than one in
//! [`PLACES`] is always there.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::packet::Family;

/// Heavy ones that are known at once.
const PLACES: usize = 256;

/// One of the heaviest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) struct Heavy {
    /// Who.
    pub(in crate::daemon) name: String,
    /// Records that it caused, at most.
    pub(in crate::daemon) records: u64,
    /// By how much that may be too high.
    pub(in crate::daemon) error: u64,
}

/// Counts by key; see the head of this file.
#[derive(Debug)]
pub(super) struct Sketch<K> {
    places: HashMap<K, (u64, u64)>,
}

impl<K> Default for Sketch<K> {
    fn default() -> Self {
        Self { places: HashMap::with_capacity(PLACES) }
    }
}

impl<K: Hash + Eq + Clone> Sketch<K> {
    /// Counts `weight` more records of `key`.
    pub(super) fn add(&mut self, key: K, weight: u64) {
        if let Some((count, _)) = self.places.get_mut(&key) {
            *count += weight;
            return;
        }
        let mut inherited = 0;
        if self.places.len() == PLACES {
            let lightest = self.places.iter().min_by_key(|(_, (count, _))| *count);
            if let Some((lightest, count)) = lightest.map(|(key, (count, _))| (key.clone(), *count))
            {
                self.places.remove(&lightest);
                inherited = count;
            }
        }
        self.places.insert(key, (inherited + weight, inherited));
    }

    /// The heaviest `most`, the first the heaviest.
    pub(super) fn heaviest(&self, most: usize, name: impl Fn(&K) -> String) -> Vec<Heavy> {
        let mut all: Vec<Heavy> = self
            .places
            .iter()
            .map(|(key, &(records, error))| Heavy { name: name(key), records, error })
            .collect();
        all.sort_by(|a, b| b.records.cmp(&a.records).then_with(|| a.name.cmp(&b.name)));
        all.truncate(most);
        all
    }

    pub(super) fn clear(&mut self) {
        self.places.clear();
    }
}

/// The network that a source is counted under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Prefix(Family, u128);

impl Prefix {
    /// Bits of an IPv4 and an IPv6 source that tell.
    const LENGTHS: [u32; 2] = [24, 48];

    pub(super) fn of(family: Family, source: u128) -> Self {
        let (bits, length) = match family {
            Family::V4 => (32, Self::LENGTHS[0]),
            Family::V6 => (128, Self::LENGTHS[1]),
        };
        Self(family, source >> (bits - length) << (bits - length))
    }

    pub(super) fn name(&self) -> String {
        match self.0 {
            Family::V4 => format!("{}/{}", Ipv4Addr::from_bits(self.1 as u32), Self::LENGTHS[0]),
            Family::V6 => format!("{}/{}", Ipv6Addr::from_bits(self.1), Self::LENGTHS[1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heaviest_are_found_among_many() {
        let mut sketch = Sketch::default();
        for round in 0..1000_u64 {
            for heavy in 0..5 {
                sketch.add(heavy, 10 - heavy);
            }
            for light in 0..20 {
                sketch.add(1000 + round * 20 + light, 1);
            }
        }
        let found = sketch.heaviest(5, u64::to_string);
        let names: Vec<&str> = found.iter().map(|heavy| heavy.name.as_str()).collect();
        assert_eq!(names, ["0", "1", "2", "3", "4"]);
        for (heavy, weight) in found.iter().zip([10, 9, 8, 7, 6]) {
            let records = weight * 1000;
            assert!((records..=records + heavy.error).contains(&heavy.records), "{heavy:?}");
        }
        assert_eq!(sketch.places.len(), PLACES);
    }

    #[test]
    fn sources_are_counted_by_their_networks() {
        assert_eq!(Prefix::of(Family::V4, 0xc612_01ff).name(), "198.18.1.0/24");
        let v6: Ipv6Addr = "2001:db8:1:2::3".parse().unwrap();
        assert_eq!(Prefix::of(Family::V6, v6.to_bits()).name(), "2001:db8:1::/48");
    }
}
