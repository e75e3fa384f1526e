//! The goals of the classifier, line by line, judged by measured lines. Only
//! contenders of one round are compared with each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::contest::median;

/// How lines of this command are told from others.
pub(super) const BENCH: &str = "classify";

/// Ours, as a packet's road asks: the first of these that was measured.
const OURS: [&str; 2] = ["portcullis-batch", "portcullis"];
const X32: &str = "rte_acl-x32";
const AVX2: &str = "rte_acl-avx2";

/// What a contender took for one set and trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    /// `classify`, as every command names itself.
    pub(crate) bench: String,
    pub(crate) set: String,
    /// What the set is, without its size: `acl1`.
    pub(crate) kind: String,
    /// `v4` or `v6`.
    pub(crate) family: String,
    pub(crate) rules: usize,
    /// `corners`, `zipf` or `flood`.
    pub(crate) trace: String,
    pub(crate) contender: String,
    /// Nanoseconds per packet: the median of each round's slices.
    pub(crate) rounds_ns: Vec<f64>,
    /// The best slice of all.
    pub(crate) best_ns: f64,
    pub(crate) build_ms: f64,
    pub(crate) memory_mib: f64,
    /// Answers compared with a linear search, and those that differed (peers only: ours end the run).
    pub(crate) checked: u64,
    pub(crate) wrong: u64,
}

impl Line {
    /// The size that sets are spoken of by: 1000, 10,000, ... rules.
    pub(crate) fn size(&self) -> usize {
        10_usize.pow((self.rules.max(1) as f64).log10().round() as u32)
    }
}

/// A goal with its measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Goal {
    /// `classify`.
    pub(crate) bench: String,
    /// Of what, over which sets.
    pub(crate) goal: String,
    /// As the specification says it.
    pub(crate) target: String,
    /// Rounded to hundredths.
    pub(crate) measured: f64,
    /// Least and most over sets and rounds.
    pub(crate) spread: (f64, f64),
    /// The set that is furthest on the wrong side.
    pub(crate) worst: String,
    pub(crate) met: bool,
}

/// Values by set, each with those of its rounds.
type BySet = BTreeMap<String, Vec<f64>>;

/// All lines of one run or several.
pub(crate) struct Judge<'l> {
    lines: &'l [Line],
}

/// Whether a goal bounds from above or below.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// What of the sets is compared with the bound.
#[derive(Clone, Copy)]
enum Over {
    Mean,
    Worst,
}

impl<'l> Judge<'l> {
    pub(crate) fn new(lines: &'l [Line]) -> Self {
        Self { lines }
    }

    /// Every goal for which something was measured, in the specification's order.
    pub(crate) fn goals(&self) -> Vec<Goal> {
        use Bound::{AtLeast, AtMost};
        use Over::{Mean, Worst};
        let against = |size, peer| self.against(size, "v4", "corners", peer);
        let all = [
            ("10k: rte_acl x32 / ours, geometric mean", AtLeast(2.0), Mean, against(10_000, X32)),
            ("10k: rte_acl AVX2 / ours, geometric mean", AtLeast(4.0), Mean, against(10_000, AVX2)),
            ("10k: rte_acl x32 / ours, worst set", AtLeast(0.8), Worst, against(10_000, X32)),
            ("100k / 10k, ours, geometric mean", AtMost(1.5), Mean, self.growth(10_000, 100_000)),
            ("100k: rte_acl x32 / ours, geometric mean", AtLeast(1.5), Mean, against(100_000, X32)),
            ("1k: rte_acl x32 / ours, geometric mean", AtLeast(0.8), Mean, against(1_000, X32)),
            ("10k: build, ms, slowest set", AtMost(50.0), Worst, self.cost(10_000, |l| l.build_ms)),
            (
                "100k: build, ms, slowest set",
                AtMost(250.0),
                Worst,
                self.cost(100_000, |l| l.build_ms),
            ),
            (
                "100k: memory, MiB, largest set",
                AtMost(16.0),
                Worst,
                self.cost(100_000, |l| l.memory_mib),
            ),
            (
                "10k: flood, ns per packet, worst set",
                AtMost(60.0),
                Worst,
                self.own(10_000, "flood"),
            ),
            ("10k: IPv6 / IPv4, ours, geometric mean", AtMost(2.0), Mean, self.families()),
        ];
        all.into_iter()
            .filter_map(|(name, bound, over, values)| judge(name, bound, over, &values))
            .collect()
    }

    fn find(&self, contender: &str, like: &Line) -> impl Iterator<Item = &'l Line> {
        let key = (like.set.clone(), like.rules, like.family.clone(), like.trace.clone());
        let contender = contender.to_owned();
        self.lines.iter().filter(move |line| {
            line.contender == contender
                && (&line.set, line.rules, &line.family, &line.trace)
                    == (&key.0, key.1, &key.2, &key.3)
        })
    }

    /// Our lines for a size, a family and a trace.
    fn ours(&self, size: usize, family: &str, trace: &str) -> Vec<&'l Line> {
        let of = |name: &str| -> Vec<&'l Line> {
            let same = |line: &&Line| {
                line.contender == name
                    && line.size() == size
                    && line.family == family
                    && line.trace == trace
            };
            self.lines.iter().filter(same).collect()
        };
        OURS.iter().map(|name| of(name)).find(|lines| !lines.is_empty()).unwrap_or_default()
    }

    /// Round by round, the peer's time over ours. Lines of one run stand in
    /// the same order for all contenders.
    fn against(&self, size: usize, family: &str, trace: &str, peer: &str) -> BySet {
        let mut values = BySet::new();
        for ours in self.ours(size, family, trace) {
            let run = self.find(&ours.contender, ours).position(|line| std::ptr::eq(line, ours));
            let Some(theirs) = run.and_then(|run| self.find(peer, ours).nth(run)) else { continue };
            let ratios = theirs.rounds_ns.iter().zip(&ours.rounds_ns).map(|(t, o)| t / o);
            values.entry(ours.kind.clone()).or_default().extend(ratios);
        }
        values
    }

    fn own(&self, size: usize, trace: &str) -> BySet {
        by_kind(self.ours(size, "v4", trace), |line| line.rounds_ns.clone())
    }

    fn cost(&self, size: usize, of: fn(&Line) -> f64) -> BySet {
        by_kind(self.ours(size, "v4", "corners"), |line| vec![of(line)])
    }

    fn growth(&self, from: usize, to: usize) -> BySet {
        quotient(&self.own(to, "corners"), &self.own(from, "corners"))
    }

    fn families(&self) -> BySet {
        let wide = by_kind(self.ours(10_000, "v6", "corners"), |line| line.rounds_ns.clone());
        quotient(&wide, &self.own(10_000, "corners"))
    }
}

fn by_kind(lines: Vec<&Line>, of: impl Fn(&Line) -> Vec<f64>) -> BySet {
    let mut values = BySet::new();
    for line in lines {
        values.entry(line.kind.clone()).or_default().extend(of(line));
    }
    values
}

/// Round by round where both have the set.
fn quotient(over: &BySet, under: &BySet) -> BySet {
    let both = over.iter().filter_map(|(kind, over)| Some((kind, over, under.get(kind)?)));
    both.map(|(kind, over, under)| {
        (kind.clone(), over.iter().zip(under).map(|(o, u)| o / u).collect())
    })
    .collect()
}

fn judge(name: &str, bound: Bound, over: Over, values: &BySet) -> Option<Goal> {
    let medians: Vec<(f64, &String)> =
        values.iter().map(|(kind, rounds)| (median(&mut rounds.clone()), kind)).collect();
    let order = |a: &&(f64, &String), b: &&(f64, &String)| a.0.total_cmp(&b.0);
    let worst = match bound {
        Bound::AtLeast(_) => medians.iter().min_by(order),
        Bound::AtMost(_) => medians.iter().max_by(order),
    }?;
    let measured = match over {
        Over::Mean => geometric_mean(medians.iter().map(|(value, _)| *value)),
        Over::Worst => worst.0,
    };
    let (met, target) = match bound {
        Bound::AtLeast(bound) => (measured >= bound, format!(">= {bound}")),
        Bound::AtMost(bound) => (measured <= bound, format!("<= {bound}")),
    };
    let all = || values.values().flatten().copied();
    let hundredths = |value: f64| (value * 100.0).round() / 100.0;
    Some(Goal {
        bench: BENCH.to_owned(),
        goal: name.to_owned(),
        target,
        measured: hundredths(measured),
        spread: (
            hundredths(all().fold(f64::INFINITY, f64::min)),
            hundredths(all().fold(f64::NEG_INFINITY, f64::max)),
        ),
        worst: format!("{} {}", worst.1, hundredths(worst.0)),
        met,
    })
}

pub(crate) fn geometric_mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value.ln(), count + 1));
    (sum / f64::from(count)).exp()
}

/// Prints the goals as JSON lines and, for people, as a table.
pub(super) fn print(goals: &[Goal]) {
    for goal in goals {
        println!("{}", json!(goal));
    }
    for goal in goals {
        let verdict = if goal.met { "met" } else { "missed" };
        eprintln!(
            "{verdict:>6}  {:44} {:>8} {:>9} ({} to {}; worst {})",
            goal.goal, goal.target, goal.measured, goal.spread.0, goal.spread.1, goal.worst
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(kind: &str, rules: usize, contender: &str, rounds_ns: &[f64]) -> Line {
        Line {
            bench: BENCH.to_owned(),
            set: format!("{kind}_{rules}"),
            kind: kind.to_owned(),
            family: "v4".to_owned(),
            rules,
            trace: "corners".to_owned(),
            contender: contender.to_owned(),
            rounds_ns: rounds_ns.to_vec(),
            best_ns: rounds_ns[0],
            build_ms: 10.0,
            memory_mib: 1.0,
            checked: 1,
            wrong: 0,
        }
    }

    fn goal<'g>(goals: &'g [Goal], name: &str) -> &'g Goal {
        goals.iter().find(|goal| goal.goal.contains(name)).expect(name)
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let lines = [
            line("a", 9_800, "portcullis", &[10.0, 20.0, 40.0]),
            line("a", 9_800, X32, &[30.0, 40.0, 160.0]),
            line("b", 9_000, "portcullis", &[10.0]),
            line("b", 9_000, X32, &[7.0]),
        ];
        let goals = Judge::new(&lines).goals();
        let mean = goal(&goals, "10k: rte_acl x32 / ours, geometric");
        assert_eq!(mean.measured, 1.45, "sqrt(3 * 0.7)");
        assert_eq!(mean.spread, (0.7, 4.0));
        assert!(!mean.met);
        let worst = goal(&goals, "10k: rte_acl x32 / ours, worst");
        assert_eq!((worst.measured, worst.met, worst.worst.as_str()), (0.7, false, "b 0.7"));
        assert!(goals.iter().all(|goal| !goal.goal.contains("IPv6")), "nothing measured, no goal");
    }

    #[test]
    fn runs_are_paired_in_order_and_batches_go_first() {
        let lines = [
            line("a", 1_000, "portcullis", &[50.0]),
            line("a", 1_000, "portcullis-batch", &[10.0]),
            line("a", 1_000, X32, &[10.0]),
            line("a", 1_000, "portcullis", &[50.0]),
            line("a", 1_000, "portcullis-batch", &[20.0]),
            line("a", 1_000, X32, &[10.0]),
        ];
        let goals = Judge::new(&lines).goals();
        let ratio = goal(&goals, "1k: rte_acl x32");
        assert_eq!(ratio.spread, (0.5, 1.0));
        assert!(!ratio.met);
    }

    #[test]
    fn sizes_growth_and_costs() {
        let lines =
            [line("a", 9_511, "portcullis", &[10.0]), line("a", 100_000, "portcullis", &[14.0])];
        assert_eq!(lines[0].size(), 10_000);
        let goals = Judge::new(&lines).goals();
        assert_eq!(goal(&goals, "100k / 10k").measured, 1.4);
        assert!(goal(&goals, "100k: build").met);
        assert!(goal(&goals, "100k: memory").met);
    }
}
