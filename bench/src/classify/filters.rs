//! Filter sets to classify with: ClassBench files, plain or compressed, and
//! sets of any size grown from them with the same statistics.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use classifier::{Masked, PortRange, Rule};

use crate::sets::{self, Rng};

/// Leading bits that every copy of a set keeps, so that the wide rules of one
/// copy hold the narrow rules of all.
const SHARED_BITS: u32 = 8;

/// Copies of the base after which a set is as large as it gets.
const MAX_COPIES: u64 = 4096;

/// A filter set with its name.
#[derive(Clone, Debug)]
pub(super) struct FilterSet {
    /// File name without compression suffix; `generated` without a file.
    pub(super) name: String,
    /// In order of priority.
    pub(super) rules: Vec<Rule<u32>>,
}

impl FilterSet {
    /// Reads a ClassBench file; `.xz` goes through `xz -dc`.
    ///
    /// # Errors
    /// A file that cannot be read or is not a ClassBench file.
    pub(super) fn read(path: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let compressed = path.extension() == Some(OsStr::new("xz"));
        let text = if compressed { unpack(path)? } else { std::fs::read_to_string(path)? };
        let rules =
            sets::parse_classbench(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let stem = if compressed { path.file_stem() } else { path.file_name() };
        let name = stem.unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, rules })
    }

    /// A set without a file: the generator's, as far as addresses, ports and protocols go.
    pub(super) fn generated(count: usize, seed: u64) -> Self {
        let bare = |rule: Rule<u32>| Rule {
            iif: Default::default(),
            oif: Default::default(),
            state: Default::default(),
            ..rule
        };
        let rules = sets::generate(count, seed).into_iter().map(bare).collect();
        Self { name: "generated".to_owned(), rules }
    }

    /// The family of statistics: what stands before the size in the name.
    pub(super) fn kind(&self) -> &str {
        self.name.split('_').next().unwrap_or_default()
    }

    /// The same statistics at another size: a sample in order, or copies of
    /// the whole whose addresses go through a prefix-preserving permutation
    /// each. A copy of a rule stands right after it, so who precedes whom is
    /// kept. What a copy would merely repeat gets another port of its class, or
    /// is left out. May come to less than `count` when nothing new can be made.
    pub(super) fn resized(&self, count: usize, seed: u64) -> Self {
        let name = self.name.clone();
        let mut rng = Rng(seed);
        if count <= self.rules.len() {
            let mut left = count;
            let mut rules = Vec::with_capacity(count);
            for (index, rule) in self.rules.iter().enumerate() {
                if rng.below(self.rules.len() - index) < left {
                    rules.push(*rule);
                    left -= 1;
                }
            }
            return Self { name, rules };
        }
        let mut seen: HashSet<Rule<u32>> = self.rules.iter().copied().collect();
        // (place of the original, copy, rule): sorted, that is the order of priority.
        let mut grown: Vec<(usize, u64, Rule<u32>)> =
            self.rules.iter().enumerate().map(|(place, rule)| (place, 0, *rule)).collect();
        for copy in 1..MAX_COPIES {
            let missing = count - grown.len();
            if missing == 0 {
                break;
            }
            let key = rng.bits();
            let mut made = copies(&self.rules, key, &mut rng, &mut seen);
            if made.is_empty() {
                break;
            }
            while made.len() > missing {
                made.swap_remove(rng.below(made.len()));
            }
            grown.extend(made.into_iter().map(|(place, rule)| (place, copy, rule)));
        }
        grown.sort_unstable_by_key(|&(place, copy, _)| (place, copy));
        Self { name, rules: grown.into_iter().map(|(_, _, rule)| rule).collect() }
    }
}

/// One copy of every rule under the permutation `key`, but for those that say nothing new.
fn copies(
    rules: &[Rule<u32>],
    key: u64,
    rng: &mut Rng,
    seen: &mut HashSet<Rule<u32>>,
) -> Vec<(usize, Rule<u32>)> {
    let moved = |field: Masked<u32>| Masked::new(permuted(key, field.value()), field.mask());
    let mut made = Vec::with_capacity(rules.len());
    for (place, rule) in rules.iter().enumerate() {
        let mut copy = Rule { src: moved(rule.src), dst: moved(rule.dst), ..*rule };
        if seen.contains(&copy) {
            copy.sport = another_port(rng, rule.sport);
            copy.dport = another_port(rng, rule.dport);
        }
        if seen.insert(copy) {
            made.push((place, copy));
        }
    }
    made
}

/// A range of the same class and width elsewhere: an exact port stays one, open
/// ends stay open.
fn another_port(rng: &mut Rng, range: PortRange) -> PortRange {
    if range.low == 0 || range.high == u16::MAX || range.low > range.high {
        return range;
    }
    let width = range.high - range.low;
    let low = 1 + rng.below(usize::from(u16::MAX - 1 - width)) as u16;
    PortRange { low, high: low + width }
}

/// Flips each bit after the shared ones by a hash of the bits before it: two
/// addresses have as many leading bits in common afterwards as before.
fn permuted(key: u64, address: u32) -> u32 {
    let mut flips = 0;
    for bit in SHARED_BITS..32 {
        let before = u64::from(address) >> (32 - bit);
        let flip = Rng(key ^ before << 6 ^ u64::from(bit)).bits() as u32 & 1;
        flips |= flip << (31 - bit);
    }
    address ^ flips
}

fn unpack(path: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let output = Command::new("xz").arg("-dc").arg(path).output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", path.display(), said.trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(rules: &[Rule<u32>]) -> Vec<(u32, u32)> {
        let mut all: Vec<_> =
            rules.iter().map(|r| (r.src.mask().count_ones(), r.dst.mask().count_ones())).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn growing_keeps_the_base_its_order_and_its_shapes() {
        let base = FilterSet::generated(500, 3);
        let grown = base.resized(1500, 7);
        assert_eq!(grown.rules.len(), 1500);
        let mut at = 0;
        for rule in &base.rules {
            at += grown.rules[at..].iter().position(|r| r == rule).expect("in order") + 1;
        }
        let shapes: HashSet<_> = lengths(&base.rules).into_iter().collect();
        assert!(lengths(&grown.rules).iter().all(|shape| shapes.contains(shape)));
        assert_eq!(grown.rules, base.resized(1500, 7).rules, "seeded");
        assert_ne!(grown.rules, base.resized(1500, 8).rules);
    }

    #[test]
    fn shrinking_is_a_sample_in_order() {
        let base = FilterSet::generated(500, 3);
        let small = base.resized(100, 7);
        assert_eq!(small.rules.len(), 100);
        let mut at = 0;
        for rule in &small.rules {
            at += base.rules[at..].iter().position(|r| r == rule).expect("in order") + 1;
        }
    }

    #[test]
    fn the_permutation_keeps_common_prefixes() {
        let mut rng = Rng(5);
        for _ in 0..2000 {
            let (a, b) = (rng.bits() as u32, rng.bits() as u32 >> rng.below(32));
            let (a, b) = (a, a ^ b);
            let after = permuted(9, a) ^ permuted(9, b);
            assert_eq!((a ^ b).leading_zeros(), after.leading_zeros());
            assert_eq!(a >> 24, permuted(9, a) >> 24);
        }
    }

    #[test]
    fn another_port_keeps_the_class() {
        let mut rng = Rng(1);
        let exact = another_port(&mut rng, PortRange { low: 80, high: 80 });
        assert_eq!(exact.low, exact.high);
        let high = PortRange { low: 1024, high: u16::MAX };
        assert_eq!(another_port(&mut rng, high), high);
        for _ in 0..1000 {
            let moved = another_port(&mut rng, PortRange { low: 10, high: 60_000 });
            assert_eq!(moved.high - moved.low, 59_990);
        }
    }

    #[test]
    fn what_can_say_nothing_new_ends_growth() {
        let base = FilterSet { name: "any".to_owned(), rules: vec![Rule::default(); 3] };
        assert_eq!(base.resized(50, 1).rules.len(), 3);
        assert_eq!(FilterSet { name: "acl1_10k".into(), rules: vec![] }.kind(), "acl1");
    }
}
