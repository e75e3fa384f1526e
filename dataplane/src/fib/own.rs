//! Which addresses are this machine's own.

use crate::packet::Family;

/// A set of addresses of both families. Most packets are of others: one bit says so.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// A bit is set for every address in the set that has it.
    filter: [u64; WORDS],
    v4: Box<[u32]>,
    v6: Box<[u128]>,
}

const WORDS: usize = 16;

/// Which bit of which word is an address's.
#[inline]
fn place(address: u128) -> (usize, u64) {
    let folded = address as u64 ^ (address >> 64) as u64;
    let bits = folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    ((bits >> 6) as usize % WORDS, 1 << (bits & 63))
}

impl Own {
    /// These.
    pub(super) fn new(addresses: impl Iterator<Item = (Family, u128)>) -> Self {
        let (mut filter, mut v4, mut v6) = ([0; WORDS], Vec::new(), Vec::new());
        for (family, address) in addresses {
            let (word, bit) = place(address);
            filter[word] |= bit;
            match family {
                Family::V4 => v4.push(address as u32),
                Family::V6 => v6.push(address),
            }
        }
        v4.sort_unstable();
        v6.sort_unstable();
        Self { filter, v4: v4.into(), v6: v6.into() }
    }

    /// Whether this is one of them.
    #[inline]
    pub(super) fn has(&self, family: Family, address: u128) -> bool {
        let (word, bit) = place(address);
        self.filter[word] & bit != 0 && self.holds(family, address)
    }

    /// The same, without a look at the filter.
    pub(super) fn holds(&self, family: Family, address: u128) -> bool {
        match family {
            Family::V4 => self.v4.binary_search(&(address as u32)).is_ok(),
            Family::V6 => self.v6.binary_search(&address).is_ok(),
        }
    }
}
