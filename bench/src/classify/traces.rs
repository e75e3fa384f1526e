//! Traces: what is looked up, for each family, and the first match of every
//! key by a linear search.

use classifier::reference::Linear;
use classifier::{Classifier, Key, Masked, Rule};

use crate::sets::{self, Rng};

/// "No rule matches".
pub(super) const NONE: u32 = u32::MAX;

/// Packets that every contender takes at once.
pub(super) const BATCH: usize = 32;

/// Exponent of the replay's popularity.
const ZIPF: f64 = 1.0;

/// How a trace is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// Corners of random rules: everything hits.
    Corners,
    /// Corners with one small step taken, which may leave the rule.
    Near,
    /// A replay of the corners where few are popular.
    Zipf,
    /// Random sources towards networks that rules name, half to their ports.
    Flood,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Corners => "corners",
            Self::Near => "near",
            Self::Zipf => "zipf",
            Self::Flood => "flood",
        }
    }
}

/// Keys and what a linear search says of them.
#[derive(Clone, Debug)]
pub(super) struct Trace<A> {
    /// In order; a whole number of batches.
    pub(super) keys: Vec<Key<A>>,
    /// The first rule that matches each, or [`NONE`].
    pub(super) expected: Vec<u32>,
}

/// Makes the trace over IPv4.
pub(super) fn make(kind: Kind, rules: &[Rule<u32>], count: usize, seed: u64) -> Trace<u32> {
    let count = count.next_multiple_of(BATCH);
    let mut rng = Rng(seed);
    let search = Columns::new(rules);
    let answered = |keys: Vec<Key<u32>>| {
        let expected = keys.iter().map(|key| search.first(key)).collect();
        Trace { keys, expected }
    };
    match kind {
        Kind::Corners => answered((0..count).map(|_| corner(&mut rng, rules)).collect()),
        Kind::Near => answered((0..count).map(|_| near(&mut rng, rules)).collect()),
        Kind::Flood => answered((0..count).map(|_| flood(&mut rng, rules)).collect()),
        Kind::Zipf => {
            let corners = answered((0..count).map(|_| corner(&mut rng, rules)).collect());
            let drawn = zipf(&mut rng, count);
            Trace {
                keys: drawn.iter().map(|&at| corners.keys[at]).collect(),
                expected: drawn.iter().map(|&at| corners.expected[at]).collect(),
            }
        }
    }
}

/// The same trace over IPv6, for rules that [`sets::widen`] widened: prefixes
/// match afterwards exactly where they did before. The host's bits are random.
pub(super) fn widen(trace: &Trace<u32>, seed: u64) -> Trace<u128> {
    let mut rng = Rng(seed);
    let hosts: Vec<Rule<u32>> = trace.keys.iter().map(host_rule).collect();
    let wide = sets::widen(&hosts);
    let mut keys = Vec::with_capacity(wide.len());
    for (rule, key) in wide.iter().zip(&trace.keys) {
        let mut host = |field: Masked<u128>| field.value() | u128::from(rng.bits());
        let (src, dst) = (host(rule.src), host(rule.dst));
        keys.push(Key {
            src,
            dst,
            sport: key.sport,
            dport: key.dport,
            proto: key.proto,
            ..Key::zero()
        });
    }
    Trace { keys, expected: trace.expected.clone() }
}

/// A rule that only this key's addresses match.
fn host_rule(key: &Key<u32>) -> Rule<u32> {
    Rule { src: Masked::new(key.src, !0), dst: Masked::new(key.dst, !0), ..Rule::default() }
}

/// Checks `samples` expectations against the oracle itself; the first that differs.
pub(super) fn disputed<A: classifier::Address>(
    trace: &Trace<A>,
    rules: &[Rule<A>],
    samples: usize,
) -> Option<usize> {
    let linear = Linear::new(rules.to_vec());
    let step = (trace.keys.len() / samples.max(1)).max(1);
    let same = |&at: &usize| {
        linear.first_at_or_after(&trace.keys[at], 0).unwrap_or(NONE) == trace.expected[at]
    };
    (0..trace.keys.len()).step_by(step).find(|at| !same(at))
}

fn corner(rng: &mut Rng, rules: &[Rule<u32>]) -> Key<u32> {
    let rule = *rng.pick(rules);
    plain(sets::corner_key(rng, &rule))
}

fn near(rng: &mut Rng, rules: &[Rule<u32>]) -> Key<u32> {
    let rule = *rng.pick(rules);
    plain(sets::near_key(rng, &rule))
}

/// Addresses, ports and protocol only: what a trace can say.
fn plain(key: Key<u32>) -> Key<u32> {
    Key { flags: 0, iif: 0, oif: 0, state: 0, l4: 0, ..key }
}

fn flood(rng: &mut Rng, rules: &[Rule<u32>]) -> Key<u32> {
    let rule = *rng.pick(rules);
    let inside = sets::corner_key(rng, &rule);
    let dst = rule.dst.value() | rng.bits() as u32 & !rule.dst.mask();
    let dport = if rng.one_in(2) { rng.bits() as u16 } else { inside.dport };
    let proto = if rng.one_in(3) { 17 } else { 6 };
    Key { src: rng.bits() as u32, dst, sport: rng.bits() as u16, dport, proto, ..Key::zero() }
}

/// `count` draws from `0..count`: the n-th is drawn with weight 1/n.
fn zipf(rng: &mut Rng, count: usize) -> Vec<usize> {
    let mut total = 0.0;
    let reach: Vec<f64> = (1..=count)
        .map(|rank| {
            total += (rank as f64).powf(-ZIPF);
            total
        })
        .collect();
    let draw = |rng: &mut Rng| {
        let x = (rng.bits() >> 11) as f64 / (1_u64 << 53) as f64 * total;
        reach.partition_point(|&below| below <= x).min(count - 1)
    };
    (0..count).map(|_| draw(rng)).collect()
}

/// Linear search with the addresses in columns: the same comparison of every
/// rule in order, but quick enough to check whole traces against 100,000 rules.
struct Columns<'r> {
    rules: &'r [Rule<u32>],
    columns: [Vec<u32>; 4],
}

impl<'r> Columns<'r> {
    const STEP: usize = 64;

    fn new(rules: &'r [Rule<u32>]) -> Self {
        let column = |field: fn(&Rule<u32>) -> u32| rules.iter().map(field).collect();
        let columns = [
            column(|rule| rule.src.value()),
            column(|rule| rule.src.mask()),
            column(|rule| rule.dst.value()),
            column(|rule| rule.dst.mask()),
        ];
        Self { rules, columns }
    }

    fn first(&self, key: &Key<u32>) -> u32 {
        let chunks = |at: usize| self.columns[at].chunks(Self::STEP);
        let blocks = chunks(0).zip(chunks(1)).zip(chunks(2).zip(chunks(3)));
        for (block, ((src, src_mask), (dst, dst_mask))) in blocks.enumerate() {
            let lanes = src.iter().zip(src_mask).zip(dst.iter().zip(dst_mask));
            let hits = lanes.fold(0_u32, |hits, ((s, sm), (d, dm))| {
                let differs = (key.src & sm ^ s) | (key.dst & dm ^ d);
                hits + u32::from(differs == 0)
            });
            if hits == 0 {
                continue;
            }
            let start = block * Self::STEP;
            let end = self.rules.len().min(start + Self::STEP);
            let found = self.rules[start..end].iter().position(|rule| rule.matches(key));
            if let Some(at) = found {
                return (start + at) as u32;
            }
        }
        NONE
    }
}

#[cfg(test)]
mod tests {
    use super::super::filters::FilterSet;
    use super::*;

    const KINDS: [Kind; 4] = [Kind::Corners, Kind::Near, Kind::Zipf, Kind::Flood];

    #[test]
    fn expectations_are_what_the_oracle_says_in_both_families() {
        let rules = FilterSet::generated(700, 2).rules;
        let wide_rules = sets::widen(&rules);
        for kind in KINDS {
            let trace = make(kind, &rules, 1000, 3);
            assert_eq!(trace.keys.len(), 1024);
            assert_eq!(disputed(&trace, &rules, usize::MAX), None, "{kind:?}");
            let wide = widen(&trace, 4);
            assert_eq!(disputed(&wide, &wide_rules, usize::MAX), None, "{kind:?}");
        }
    }

    #[test]
    fn a_wrong_expectation_is_found() {
        let rules = FilterSet::generated(100, 2).rules;
        let mut trace = make(Kind::Corners, &rules, 64, 3);
        trace.expected[17] ^= 1;
        assert_eq!(disputed(&trace, &rules, usize::MAX), Some(17));
    }

    #[test]
    fn corners_hit_and_zipf_repeats() {
        let rules = FilterSet::generated(300, 2).rules;
        let corners = make(Kind::Corners, &rules, 1024, 3);
        assert!(corners.expected.iter().all(|&first| first != NONE));
        let replay = make(Kind::Zipf, &rules, 1024, 3);
        let mut keys: Vec<_> = replay.keys.iter().map(|k| (k.src, k.dst, k.sport)).collect();
        keys.sort_unstable();
        keys.dedup();
        assert!(keys.len() < 700, "{} different keys", keys.len());
    }
}
