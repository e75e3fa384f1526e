//! Chooses the structure for a rule list from its shape, and says why.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use crate::cover::{self, CoverTables};
use crate::reference::Linear;
use crate::tuple_space::TupleSpace;
use crate::{Address, Classifier, Key, NONE, Rule};

/// Lists up to this long are scanned: as fast as hashing, and nothing to build.
pub const SCAN_LIMIT: usize = 24;

/// More rules than this outside of all cover tables are reason to look for something else.
pub const TAIL_LIMIT: usize = 256;

/// The structure chosen for one chain.
#[derive(Debug)]
pub enum Strategy<A> {
    /// A plain scan, for short chains.
    Linear(Linear<A>),
    /// Cover tables, for long ones.
    Cover(CoverTables<A>),
    /// Hash tables with slots of any size, where cover tables leave too much over.
    TupleSpace(TupleSpace<A>),
}

/// Why a structure was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// At most [`SCAN_LIMIT`] rules.
    Short,
    /// Many rules, and they hash.
    Hashes,
    /// Many rules, but they share no bits to hash by: a scan is no worse.
    Unhashable,
}

/// What makes lookups in a rule list dear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The rule fixes too few bits to hash by: it is compared one by one.
    Unhashable,
    /// Too many rules share its hashed bits: one probe compares this many.
    Crowded(usize),
    /// Its masks are like few others': its table of this many rules costs every lookup a probe.
    RareMasks(usize),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unhashable => f.write_str("fixes too few bits to hash by"),
            Self::Crowded(rules) => write!(f, "shares its hashed bits with {rules} rules"),
            Self::RareMasks(1) => f.write_str("has a table to itself: no other has masks like it"),
            Self::RareMasks(rules) => write!(f, "has masks that only {rules} rules share"),
        }
    }
}

/// A rule that stands behind the worst case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Its position.
    pub rule: u32,
    /// What it does.
    pub why: Why,
}

/// Most culprits that an explanation names.
pub const MAX_CULPRITS: usize = 8;

/// What was chosen for a rule list, why, and what a lookup costs at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Rules in the list.
    pub rules: usize,
    /// Why.
    pub reason: Reason,
    /// Most hash tables that one lookup probes.
    pub max_probes: usize,
    /// Entries in the largest slot that a probe may meet.
    pub largest_slot: usize,
    /// Rules that are scanned one by one after the tables (all, for a plain scan).
    pub scanned: usize,
    /// Most rules that one lookup compares in full, whatever the packet.
    pub max_compared: usize,
    /// The masks differ too much: tables were used up and rules are left over.
    pub exploded: bool,
    /// Rules behind the worst case, dearest first; at most [`MAX_CULPRITS`].
    pub worst: Vec<Culprit>,
    /// Bytes held, without allocator overhead.
    pub bytes: usize,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Short => write!(f, "scan of {} rules (short list)", self.rules),
            Reason::Unhashable => write!(f, "scan of {} rules (nothing to hash by)", self.rules),
            Reason::Hashes => write!(
                f,
                "{} rules in {} hash tables (largest slot {}), {} scanned",
                self.rules, self.max_probes, self.largest_slot, self.scanned
            ),
        }
    }
}

impl<A: Address> Strategy<A> {
    /// Builds the structure that suits the rules, under a random salt. Position = index.
    pub fn build(rules: Vec<Rule<A>>) -> Self {
        Self::build_seeded(rules, RandomState::new().hash_one(0_u8))
    }

    /// Like [`Strategy::build`] with the salt's seed given: the same layout every time.
    pub fn build_seeded(rules: Vec<Rule<A>>, seed: u64) -> Self {
        Self::build_by(rules, seed, CoverTables::build)
    }

    /// Like [`Strategy::build`], with less time for finding the best layout: for lists that
    /// are seldom looked into.
    pub fn build_plainly(rules: Vec<Rule<A>>) -> Self {
        Self::build_by(rules, RandomState::new().hash_one(0_u8), CoverTables::build_plainly)
    }

    fn build_by(
        rules: Vec<Rule<A>>,
        seed: u64,
        lay_out: impl FnOnce(&[Rule<A>], u64) -> CoverTables<A>,
    ) -> Self {
        if rules.len() <= SCAN_LIMIT {
            return Self::Linear(Linear::new(rules));
        }
        // In plain code, one table after the other is the faster way.
        if rules.len() < cover::MOST_RULES && cover::Level::detect() != cover::Level::Scalar {
            let tables = lay_out(&rules, seed);
            if tables.shape().tail <= TAIL_LIMIT {
                return Self::Cover(tables);
            }
            return Self::without_long_tail(rules, seed, tables);
        }
        let space = TupleSpace::build(&rules, seed);
        if space.shape().tables == 0 {
            return Self::Linear(Linear::new(rules));
        }
        Self::TupleSpace(space)
    }

    /// Cover tables leave much over: tables with large slots may promise less work.
    fn without_long_tail(rules: Vec<Rule<A>>, seed: u64, tables: CoverTables<A>) -> Self {
        let space = TupleSpace::build(&rules, seed);
        let (cover, tuple) = (tables.shape(), space.shape());
        // The tail is compared sixteen rules at a time.
        if tuple.tables > 0 && tuple.compared < (cover.compared - cover.tail) + cover.tail / 8 {
            return Self::TupleSpace(space);
        }
        Self::Cover(tables)
    }

    /// The lowest positions of rules that match the keys, as
    /// [`Classifier::first_at_or_after`] from 0 finds them one by one; [`NONE`] where
    /// there is none.
    ///
    /// # Panics
    /// When `firsts` is shorter than `keys`.
    #[inline]
    pub fn first_batch(&self, keys: &[Key<A>], firsts: &mut [u32]) {
        if let Self::Cover(tables) = self {
            return tables.first_batch(keys, firsts);
        }
        for (first, key) in firsts[..keys.len()].iter_mut().zip(keys) {
            *first = self.first_at_or_after(key, 0).unwrap_or(NONE);
        }
    }

    /// What was chosen, and why.
    pub fn explain(&self) -> Explanation {
        match self {
            Self::Linear(linear) => {
                let rules = linear.len();
                let reason = if rules <= SCAN_LIMIT { Reason::Short } else { Reason::Unhashable };
                let bytes = rules * size_of::<Rule<A>>();
                let culprit = |rule| Culprit { rule, why: Why::Unhashable };
                let worst = match reason {
                    Reason::Short => Vec::new(),
                    _ => (0..rules as u32).take(MAX_CULPRITS).map(culprit).collect(),
                };
                Explanation {
                    rules,
                    reason,
                    max_probes: 0,
                    largest_slot: 0,
                    scanned: rules,
                    max_compared: rules,
                    exploded: false,
                    worst,
                    bytes,
                }
            }
            Self::Cover(tables) => {
                let (shape, rules) = (tables.shape(), tables.len());
                // Without a table, copies count as well: who resumes behind each meets them all.
                let (reason, scanned, max_compared) = match shape.tables {
                    0 => (Reason::Unhashable, rules, rules),
                    _ => (Reason::Hashes, shape.tail, shape.compared),
                };
                Explanation {
                    rules,
                    reason,
                    max_probes: shape.tables,
                    largest_slot: shape.largest_slot,
                    scanned,
                    max_compared,
                    exploded: shape.exploded,
                    worst: tables.culprits(MAX_CULPRITS),
                    bytes: shape.bytes,
                }
            }
            Self::TupleSpace(space) => {
                let shape = space.shape();
                Explanation {
                    rules: space.len(),
                    reason: Reason::Hashes,
                    max_probes: shape.tables,
                    largest_slot: shape.largest_slot,
                    scanned: shape.remainder,
                    max_compared: shape.compared,
                    exploded: shape.exploded,
                    worst: space.culprits(MAX_CULPRITS),
                    bytes: shape.bytes,
                }
            }
        }
    }
}

impl<A: Address> Classifier<A> for Strategy<A> {
    #[inline]
    fn first_at_or_after(&self, key: &Key<A>, from: u32) -> Option<u32> {
        match self {
            Self::Linear(linear) => linear.first_at_or_after(key, from),
            Self::Cover(tables) => tables.first_at_or_after(key, from),
            Self::TupleSpace(space) => space.first_at_or_after(key, from),
        }
    }
}
