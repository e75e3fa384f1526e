//! Which rules have series of their own, and the sum of the others.
//!
//! A rule is named until it leaves the policy; one that found no room stays among the others for
//! as long, so that neither its own series nor the sum ever goes back. What a rule that has left
//! had counted goes to the sum: all series together say what was ever counted.

use std::collections::{HashMap, HashSet};

use crate::apply::RuleKey;

/// Packets and bytes.
type Count = (u64, u64);

/// A rule and what it has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleRow {
    /// Which.
    pub key: RuleKey,
    /// Packets and bytes.
    pub count: (u64, u64),
}

/// What is to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selected {
    /// Positions among the rows that were given.
    pub named: Vec<usize>,
    /// All others, and what has left.
    pub other: (u64, u64),
}

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub struct RuleBook {
    most: usize,
    named: HashMap<RuleKey, Count>,
    others: HashMap<RuleKey, Count>,
    rest: Count,
}

fn add(sum: Count, more: Count) -> Count {
    (sum.0.saturating_add(more.0), sum.1.saturating_add(more.1))
}

/// What was added since; a counter that went back was set by hand.
fn since(last: Count, now: Count) -> Count {
    let one = |last: u64, now: u64| if now >= last { now - last } else { now };
    (one(last.0, now.0), one(last.1, now.1))
}

impl RuleBook {
    /// With room for `most` rules.
    pub fn new(most: usize) -> Self {
        Self { most, ..Self::default() }
    }

    /// Takes in what all rules of the policy have counted by now.
    pub fn see(&mut self, rows: &[RuleRow]) -> Selected {
        let present: HashSet<RuleKey> = rows.iter().map(|row| row.key).collect();
        let mut rest = self.rest;
        self.named.retain(|key, count| {
            let stays = present.contains(key);
            if !stays {
                rest = add(rest, *count);
            }
            stays
        });
        self.others.retain(|key, _| present.contains(key));
        let mut named = Vec::with_capacity(self.most.min(rows.len()));
        for (index, row) in rows.iter().enumerate() {
            if let Some(count) = self.named.get_mut(&row.key) {
                *count = row.count;
            } else if let Some(last) = self.others.get_mut(&row.key) {
                rest = add(rest, since(*last, row.count));
                *last = row.count;
                continue;
            } else if self.named.len() < self.most {
                self.named.insert(row.key, row.count);
            } else {
                rest = add(rest, row.count);
                self.others.insert(row.key, row.count);
                continue;
            }
            named.push(index);
        }
        self.rest = rest;
        Selected { named, other: rest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(counts: &[(u64, u64)]) -> Vec<RuleRow> {
        let row = |&(id, packets): &(u64, u64)| RuleRow {
            key: RuleKey(id, 0),
            count: (packets, packets * 10),
        };
        counts.iter().map(row).collect()
    }

    #[test]
    fn sums_stay_true_and_nothing_goes_back() {
        let mut book = RuleBook::new(2);
        let first = book.see(&rows(&[(1, 5), (2, 6), (3, 7), (4, 8)]));
        assert_eq!(first, Selected { named: vec![0, 1], other: (15, 150) });
        // Rule 1 leaves: what it counted is among the others, and there is room for a new one,
        // not for rule 3, which is among the others.
        let next = book.see(&rows(&[(2, 7), (3, 9), (4, 8), (5, 1), (6, 1)]));
        assert_eq!(next, Selected { named: vec![0, 3], other: (15 + 5 + 2 + 1, 230) });
        // A counter that was set to zero by hand.
        let zeroed = book.see(&rows(&[(2, 7), (3, 1), (4, 8), (5, 1), (6, 1)]));
        assert_eq!(zeroed.other, (24, 240));
        // It comes back, and begins anew.
        let back = book.see(&rows(&[(1, 0), (2, 7)]));
        assert_eq!((back.named, back.other), (vec![0, 1], (25, 250)));
    }

    #[test]
    fn none_may_be_named() {
        let mut book = RuleBook::new(0);
        assert_eq!(book.see(&rows(&[(1, 5)])), Selected { named: vec![], other: (5, 50) });
        assert_eq!(book.see(&[]), Selected { named: vec![], other: (5, 50) });
    }
}
