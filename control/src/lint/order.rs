//! Which rules may stand earlier without changing anything, and are met often enough to gain by it.
//!
//! A rule may pass one before it if no packet meets both, or if both have the same verdict, and
//! the matches of neither do more than answer.

use super::shadow::{Act, ReadRule};
use crate::region::Effort;

/// Most moves that are told of one chain.
const TOLD: usize = 10;
/// A move is worth a word from so many of a chain's comparisons on, one of this many.
const WORTH: u64 = 100;

/// A rule that may move up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub rule: u32,
    /// Before which it may stand.
    pub before: u32,
    /// How often it was met.
    pub hits: u64,
    /// Comparisons that are saved, as often as it was met.
    pub saved: u64,
}

/// The moves that gain most, of rules with these hits.
pub(super) fn moves(rules: &[ReadRule], hits: &[u64], effort: &mut Effort) -> Vec<Move> {
    let cost: u64 = hits.iter().zip(1..).map(|(hits, at)| hits.saturating_mul(at)).sum();
    let mut hot: Vec<usize> = (1..rules.len()).filter(|at| hits[*at] > 0).collect();
    hot.sort_by_key(|at| std::cmp::Reverse(hits[*at].saturating_mul(*at as u64)));
    let mut found = Vec::new();
    for at in hot.into_iter().take(8 * TOLD) {
        let mut to = at;
        while to > 0 && hits[to - 1] < hits[at] && effort.spend(1) {
            if !may_pass(&rules[at], &rules[to - 1]) {
                break;
            }
            to -= 1;
        }
        let passed: u64 = hits[to..at].iter().sum();
        let saved = (hits[at].saturating_mul((at - to) as u64)).saturating_sub(passed);
        if to < at && saved.saturating_mul(WORTH) >= cost {
            found.push(Move { rule: at as u32, before: to as u32, hits: hits[at], saved });
        }
        if found.len() == TOLD {
            break;
        }
    }
    found.sort_by_key(|it| it.rule);
    found
}

fn may_pass(one: &ReadRule, other: &ReadRule) -> bool {
    if one.effects || other.effects || one.segment != other.segment {
        return false;
    }
    let same = matches!((one.act, other.act), (Act::Verdict(a), Act::Verdict(b)) if a == b);
    same || !one.matched.iter().any(|a| other.matched.iter().any(|b| a.meets(b)))
}
