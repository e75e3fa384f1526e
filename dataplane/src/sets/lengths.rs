//! Which prefix lengths a set of networks has, the longest first.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// How many elements there are of each prefix length, for one of two networks.
#[derive(Debug)]
pub(super) struct Lengths {
    counts: Box<[AtomicU32]>,
    /// Those that are there, one bit each.
    present: [AtomicU64; 3],
}

impl Lengths {
    pub(super) fn new() -> Self {
        Self { counts: (0..=128).map(|_| AtomicU32::new(0)).collect(), present: Default::default() }
    }

    pub(super) fn add(&self, cidr: u8) {
        if self.counts[usize::from(cidr)].fetch_add(1, Ordering::Relaxed) == 0 {
            self.present[usize::from(cidr / 64)].fetch_or(1 << (cidr % 64), Ordering::Release);
        }
    }

    pub(super) fn remove(&self, cidr: u8) {
        if self.counts[usize::from(cidr)].fetch_sub(1, Ordering::Relaxed) == 1 {
            self.present[usize::from(cidr / 64)].fetch_and(!(1 << (cidr % 64)), Ordering::Release);
        }
    }

    pub(super) fn clear(&self) {
        for cidr in self.iter() {
            self.counts[usize::from(cidr)].store(0, Ordering::Relaxed);
        }
        for word in &self.present {
            word.store(0, Ordering::Release);
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
