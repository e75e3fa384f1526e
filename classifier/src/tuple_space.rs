//! Tuple-space search: one hash table per *cover*, a combination of masks that
//! many rules share.
//!
//! Every rule goes into exactly one table, under the bits that the table's
//! cover selects; what the cover leaves out (the rest of a prefix, the ends of
//! a port range, flags, class sets) is verified when an entry is found.
//! [`plan`] chooses at most [`MAX_TABLES`] covers so that nearly every bucket
//! stays small; rules that fit none stand in a remainder list.
//!
//! Equal rules share one leaf with a sorted list of positions, so a thousand
//! copies cost one verification and each copy can still be found. The hash is
//! salted per build, and the work of a lookup is bounded by what was built
//! ([`Shape`]), whatever the keys are.

mod cover;
mod plan;
mod table;

pub use plan::MAX_TABLES;

use crate::fold::FoldMap;
use crate::strategy::{Culprit, Why};
use crate::{Address, Classifier, Key, Rule};
use cover::{Cover, Salt};
use table::{Entry, Table};

/// Rules that are simply tried in order before any table is probed, when the
/// caller resumes: runs of LOG or MARK rules then cost one comparison each.
const LOOK_AHEAD: u32 = 4;

/// More rules than this left over by a full set of tables: their masks explode.
const EXPLODED: usize = 64;
/// More rules than this in one slot are worth a word.
const CROWDED: usize = 16;
/// Fewer rules than this in a table: it hardly earns its probe.
const RARE: usize = 8;

/// "No position": greater than every position.
const NOWHERE: u32 = u32::MAX;

/// What a build came to; the bound on the work of one lookup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Hash tables, each probed at most once.
    pub tables: usize,
    /// Entries in the largest slot of any table.
    pub largest_slot: usize,
    /// Rules outside all tables, scanned in order.
    pub remainder: usize,
    /// Most rules that one lookup compares in full.
    pub compared: usize,
    /// The tables were used up and more rules were left over than a scan should see.
    pub exploded: bool,
    /// Different rules that can match at all.
    pub distinct: usize,
    /// Bytes held, without allocator overhead.
    pub bytes: usize,
}

/// One rule with all its positions.
#[derive(Clone, Copy, Debug)]
struct Leaf<A> {
    rule: Rule<A>,
    /// Where its positions start in `positions`.
    start: u32,
    /// How many there are.
    count: u32,
}

/// The tuple-space classifier.
#[derive(Debug)]
pub struct TupleSpace<A> {
    salt: Salt,
    /// By lowest position, so that the search can stop early.
    tables: Box<[Table<A>]>,
    /// By lowest position; the tag is unused.
    remainder: Box<[Entry]>,
    /// `reach[i]`: the greatest `last` among `remainder[..=i]`.
    reach: Box<[u32]>,
    leaves: Box<[Leaf<A>]>,
    positions: Box<[u32]>,
    leaf_at: Box<[u32]>,
}

impl<A: Address> TupleSpace<A> {
    /// Builds the tables. Position = index in `rules`. The seed salts the hash:
    /// answers do not depend on it, the layout does.
    ///
    /// # Panics
    /// When there are `u32::MAX` rules or more: positions are 32 bits wide.
    pub fn build(rules: &[Rule<A>], seed: u64) -> Self {
        assert!(rules.len() < NOWHERE as usize, "positions are 32 bits wide");
        let salt = Salt::new(seed);
        let (leaves, positions, leaf_at) = intern(rules);
        let covers: Vec<Cover<A>> = leaves.iter().map(|leaf| Cover::of(&leaf.rule)).collect();
        let possible: Vec<u32> = (0..leaves.len() as u32)
            .filter(|&leaf| can_match(&leaves[leaf as usize].rule))
            .collect();
        let plan = plan::choose(&salt, &leaves, &covers, possible);
        let entry = |leaf: u32, tag: u32| {
            let own = own_positions(&leaves[leaf as usize], &positions);
            Entry { tag, leaf, first: own[0], last: own[own.len() - 1] }
        };
        let mut tables: Vec<Table<A>> = plan
            .tables
            .into_iter()
            .map(|(cover, members)| {
                let hashed = members.into_iter().map(|leaf| {
                    let hash = cover.hash_rule(&salt, &leaves[leaf as usize].rule);
                    (hash, entry(leaf, table::tag(hash)))
                });
                Table::build(cover, hashed.collect())
            })
            .collect();
        tables.sort_by_key(Table::first);
        let mut remainder: Vec<Entry> =
            plan.remainder.into_iter().map(|leaf| entry(leaf, 0)).collect();
        remainder.sort_by_key(|entry| entry.first);
        let reach = remainder.iter().scan(0, |reach: &mut u32, entry| {
            *reach = (*reach).max(entry.last);
            Some(*reach)
        });
        Self {
            salt,
            reach: reach.collect(),
            tables: tables.into(),
            remainder: remainder.into(),
            leaves: leaves.into(),
            positions: positions.into(),
            leaf_at: leaf_at.into(),
        }
    }

    /// Number of rules, copies included.
    pub fn len(&self) -> usize {
        self.leaf_at.len()
    }
    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.leaf_at.is_empty()
    }
    /// What the build came to.
    pub fn shape(&self) -> Shape {
        Shape {
            tables: self.tables.len(),
            largest_slot: self.tables.iter().map(Table::largest_slot).max().unwrap_or(0),
            remainder: self.remainder.len(),
            compared: self.tables.iter().map(Table::largest_slot).sum::<usize>()
                + self.remainder.len(),
            exploded: self.tables.len() == MAX_TABLES && self.remainder.len() > EXPLODED,
            distinct: self.leaves.iter().filter(|leaf| can_match(&leaf.rule)).count(),
            bytes: self.tables.iter().map(Table::bytes).sum::<usize>()
                + size_of_val(&*self.remainder)
                + size_of_val(&*self.reach)
                + size_of_val(&*self.leaves)
                + size_of_val(&*self.positions)
                + size_of_val(&*self.leaf_at),
        }
    }

    /// Rules behind the worst case, dearest first: those scanned, those in the
    /// largest slot, those with a small table.
    pub fn culprits(&self, at_most: usize) -> Vec<Culprit> {
        let scanned = self.remainder.iter().map(|entry| (entry.first, Why::Unhashable));
        let largest = self.tables.iter().max_by_key(|table| table.largest_slot());
        let crowded = largest.filter(|table| table.largest_slot() > CROWDED).map(|table| {
            let size = table.largest_slot();
            table.largest().iter().map(move |entry| (entry.first, Why::Crowded(size)))
        });
        let rare = self.tables.iter().filter(|table| table.entries().len() < RARE).map(|table| {
            let rules = table.entries().len();
            (table.first(), Why::RareMasks(rules))
        });
        let all = scanned.chain(crowded.into_iter().flatten()).chain(rare);
        all.take(at_most).map(|(rule, why)| Culprit { rule, why }).collect()
    }

    /// The lowest position in `from..best` at which the entry's rule stands, if
    /// that rule matches; otherwise `best`.
    #[inline]
    fn verify(&self, entry: &Entry, key: &Key<A>, from: u32, best: u32) -> u32 {
        let leaf = &self.leaves[entry.leaf as usize];
        if !leaf.rule.matches(key) {
            return best;
        }
        if entry.first >= from {
            return best.min(entry.first);
        }
        let own = own_positions(leaf, &self.positions);
        let next = own.partition_point(|&position| position < from);
        own.get(next).map_or(best, |&position| best.min(position))
    }

    fn scan_remainder(&self, key: &Key<A>, from: u32, mut best: u32) -> u32 {
        let start = self.reach.partition_point(|&reach| reach < from);
        for entry in &self.remainder[start..] {
            if entry.first >= best {
                break;
            }
            if entry.last >= from {
                best = self.verify(entry, key, from, best);
            }
        }
        best
    }
}

impl<A: Address> Classifier<A> for TupleSpace<A> {
    fn first_at_or_after(&self, key: &Key<A>, from: u32) -> Option<u32> {
        let len = self.leaf_at.len() as u32;
        let mut from = from;
        if from > 0 {
            let ahead = from.saturating_add(LOOK_AHEAD).min(len);
            for position in from..ahead {
                let leaf = self.leaf_at[position as usize];
                if self.leaves[leaf as usize].rule.matches(key) {
                    return Some(position);
                }
            }
            from = from.max(ahead);
        }
        if from >= len {
            return None;
        }
        let mut best = NOWHERE;
        for table in &self.tables {
            if table.first() >= best {
                break;
            }
            if table.last() < from {
                continue;
            }
            let hash = table.cover().hash_key(&self.salt, key);
            let tag = table::tag(hash);
            for entry in table.slot(hash) {
                if entry.first >= best {
                    break;
                }
                if entry.tag == tag && entry.last >= from {
                    best = self.verify(entry, key, from, best);
                }
            }
        }
        best = self.scan_remainder(key, from, best);
        (best != NOWHERE).then_some(best)
    }
}

/// A rule with an empty range or an empty class set matches no key.
fn can_match<A>(rule: &Rule<A>) -> bool {
    rule.sport.low <= rule.sport.high
        && rule.dport.low <= rule.dport.high
        && [rule.iif, rule.oif, rule.state, rule.l4].iter().all(|set| set.0 != 0)
}

fn own_positions<'p, A>(leaf: &Leaf<A>, positions: &'p [u32]) -> &'p [u32] {
    &positions[leaf.start as usize..][..leaf.count as usize]
}

/// Leaves in order of first position, all positions grouped by leaf, and the
/// leaf at every position.
fn intern<A: Address>(rules: &[Rule<A>]) -> (Vec<Leaf<A>>, Vec<u32>, Vec<u32>) {
    let mut leaves: Vec<Leaf<A>> = Vec::new();
    let mut known: FoldMap<&Rule<A>, u32> = FoldMap::default();
    known.reserve(rules.len());
    let mut leaf_at = Vec::with_capacity(rules.len());
    for rule in rules {
        let leaf = *known.entry(rule).or_insert_with(|| {
            leaves.push(Leaf { rule: *rule, start: 0, count: 0 });
            leaves.len() as u32 - 1
        });
        leaves[leaf as usize].count += 1;
        leaf_at.push(leaf);
    }
    let mut start = 0;
    for leaf in &mut leaves {
        leaf.start = start;
        start += leaf.count;
    }
    let mut next: Vec<u32> = leaves.iter().map(|leaf| leaf.start).collect();
    let mut positions = vec![0; rules.len()];
    for (position, &leaf) in leaf_at.iter().enumerate() {
        let slot = &mut next[leaf as usize];
        positions[*slot as usize] = position as u32;
        *slot += 1;
    }
    (leaves, positions, leaf_at)
}
