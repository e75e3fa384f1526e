//! Times by size, to within three percent, in memory that is there from the start.

use serde_json::{Value, json};

/// Parts of each power of two.
const PARTS: u32 = 32;

/// A histogram of nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    slots: Box<[u64]>,
    most: u64,
    count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let slots = vec![0; (64 * PARTS) as usize].into_boxed_slice();
        Self { slots, most: 0, count: 0 }
    }
}

impl Histogram {
    /// One more.
    pub(super) fn add(&mut self, ns: u64) {
        self.slots[slot(ns)] += 1;
        self.most = self.most.max(ns);
        self.count += 1;
    }

    /// What so many of a million do not exceed.
    fn quantile(&self, ppm: u64) -> u64 {
        let wanted = (u128::from(self.count) * u128::from(ppm)).div_ceil(1_000_000) as u64;
        let mut sum = 0;
        let reached = |count: &u64| {
            sum += count;
            sum >= wanted.max(1)
        };
        self.slots.iter().position(reached).map_or(0, |slot| upper(slot).min(self.most))
    }

    /// The usual quantiles.
    pub(super) fn summary(&self) -> Value {
        json!({
            "count": self.count, "p50": self.quantile(500_000), "p99": self.quantile(990_000),
            "p99.9": self.quantile(999_000), "p99.99": self.quantile(999_900), "max": self.most,
        })
    }
}

fn slot(ns: u64) -> usize {
    let high = 63 - ns.max(1).leading_zeros();
    let part = match high < PARTS.ilog2() {
        true => 0,
        false => (ns >> (high - PARTS.ilog2())) as u32 - PARTS,
    };
    (high * PARTS + part) as usize
}

/// The highest time that its slot holds.
fn upper(slot: usize) -> u64 {
    let (high, part) = (slot as u32 / PARTS, slot as u32 % PARTS);
    match high < PARTS.ilog2() {
        true => (2 << high) - 1,
        false => (u64::from(PARTS + part + 1) << (high - PARTS.ilog2())) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near_what_was_added() {
        let mut histogram = Histogram::default();
        (1..=1_000_000).for_each(|ns| histogram.add(ns));
        for ppm in [10_000_u64, 500_000, 990_000, 999_000] {
            let (found, wanted) = (histogram.quantile(ppm) as f64, ppm as f64);
            assert!((found / wanted - 1.0).abs() < 0.035, "{ppm}: {found}");
        }
        assert_eq!(histogram.quantile(1_000_000), 1_000_000);
    }
}
