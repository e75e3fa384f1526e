//! Cover tables: at most sixteen hash tables, all hashed at once.
//!
//! A table's *cover* says which bits it hashes; every rule stands in one table
//! whose cover it fixes, in a slot shared with few others. A lookup hashes its key
//! for all tables, reads sixteen 16-byte [`Entry`]s, drops those whose tag or
//! signature the key lacks, and compares the [`leaf::Block`]s of the others,
//! best first, until no entry left can beat the match. What the hash leaves out
//! is compared in full, so looking at too much is harmless. Rules that fit no
//! table stand in a [`tail::Tail`].
//!
//! Equal rules share a lane with a sorted list of positions. The hash is salted
//! per build; what a lookup may cost is fixed by the build ([`Shape`]), whatever
//! the keys are. [`avx512`] and [`scalar`] answer from one layout.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod build;
mod condition;
mod lanes;
mod leaf;
mod plan;
mod scalar;
mod sign;
mod tail;

use crate::strategy::{Culprit, Why};
use crate::{Address, Classifier, Key};
pub use build::MOST_RULES;
use condition::Conditions;
pub use lanes::LANES as MAX_TABLES;
use lanes::Lanes;
use leaf::{BLOCK, Block, NOWHERE, Places};
use sign::Signs;
use tail::Tail;

/// Keys that one batch looks up together at most.
pub const BATCH: usize = 32;

/// More rules than this left over by a full set of tables: their masks explode.
const EXPLODED: usize = 64;
/// More rules than this in one slot are worth a word.
const CROWDED: usize = 16;
/// Fewer rules than this in a table: it hardly earns its probe.
const RARE: usize = 8;

/// Which instructions look keys up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Plain code.
    Scalar,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Level {
    /// The best that this machine has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if avx512::available() {
            return Self::Avx512;
        }
        Self::Scalar
    }
}

/// What is read of a slot before its leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
struct Entry {
    /// From the top: 28 bits of best position, 8 of tag, 24 of the first block's
    /// number, 4 of blocks less one. All ones: nothing here.
    meta: u64,
    /// What any of the rules can match.
    sign: u64,
}

const PRIO_SHIFT: u32 = 36;
const TAG_SHIFT: u32 = 28;
const MIXED: u32 = 0;

impl Entry {
    const EMPTY: Self = Self { meta: u64::MAX, sign: 0 };

    /// The blocks of an entry that is not empty.
    #[inline(always)]
    fn blocks(meta: u64) -> std::ops::Range<usize> {
        let start = (meta as u32 >> 4 & 0xff_ffff) as usize;
        start..start + (meta & 0xf) as usize + 1
    }
}

/// What a build came to; the bound on the work of one lookup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Hash tables, each probed at most once.
    pub tables: usize,
    /// Rules in the largest slot of any table.
    pub largest_slot: usize,
    /// Rules outside all tables, compared in order.
    pub tail: usize,
    /// Most rules that one lookup compares in full.
    pub compared: usize,
    /// The tables were used up and more rules were left over than should be.
    pub exploded: bool,
    /// Different rules that can match at all.
    pub distinct: usize,
    /// Bytes held, without allocator overhead.
    pub bytes: usize,
}

/// What a build knows of one table.
#[derive(Clone, Copy, Debug)]
struct Table {
    rules: u32,
    first: u32,
    largest_slot: u32,
    /// The number of that slot's entry.
    largest: u32,
}

/// The cover-table classifier.
#[derive(Debug)]
pub struct CoverTables<A> {
    level: Level,
    lanes: Box<Lanes>,
    tables: Vec<Table>,
    signs: Box<Signs>,
    /// Whether looking at signatures pays.
    signed: bool,
    entries: Box<[Entry]>,
    blocks: Box<[Block<A>]>,
    tail: Tail,
    tail_rules: Box<[u32]>,
    conditions: Conditions,
    /// First position and position of every copy but the first, sorted.
    copies: Box<[(u32, u32)]>,
    rules: usize,
    distinct: usize,
}

impl<A: Address> CoverTables<A> {
    /// Number of rules, copies included.
    pub fn len(&self) -> usize {
        self.rules
    }
    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules == 0
    }
    /// Which instructions answer.
    pub fn level(&self) -> Level {
        self.level
    }
    /// Answers with other instructions from now on (plain code where the machine
    /// lacks them): for tests and comparisons.
    pub fn set_level(&mut self, level: Level) {
        self.level = if level == Level::detect() { level } else { Level::Scalar };
    }
    /// Looks at signatures from now on, or not: for tests and comparisons.
    pub fn set_signed(&mut self, signed: bool) {
        self.signed = signed;
    }
    /// What the build came to.
    pub fn shape(&self) -> Shape {
        let slots = || self.tables.iter().map(|table| table.largest_slot as usize);
        let tail = self.tail_rules.len();
        Shape {
            tables: self.tables.len(),
            largest_slot: slots().max().unwrap_or(0),
            tail,
            compared: slots().sum::<usize>() + tail,
            exploded: self.tables.len() == MAX_TABLES && tail > EXPLODED,
            distinct: self.distinct,
            bytes: size_of::<Lanes>()
                + size_of::<Signs>()
                + size_of_val(&*self.entries)
                + size_of_val(&*self.blocks)
                + self.tail.bytes()
                + size_of_val(&*self.tail_rules)
                + self.conditions.bytes()
                + size_of_val(&*self.copies),
        }
    }
    /// Rules behind the worst case, dearest first: those of the tail, those in
    /// the largest slot, those with a small table.
    pub fn culprits(&self, at_most: usize) -> Vec<Culprit> {
        let tail = self.tail_rules.iter().map(|&rule| Culprit { rule, why: Why::Unhashable });
        let largest = self.tables.iter().max_by_key(|table| table.largest_slot);
        let crowded = largest.filter(|table| table.largest_slot as usize > CROWDED).map(|table| {
            let entry = self.entries[table.largest as usize];
            let blocks = self.blocks[Entry::blocks(entry.meta)].iter();
            let firsts = blocks.flat_map(|block| block.first).filter(|&first| first != NOWHERE);
            let why = Why::Crowded(table.largest_slot as usize);
            firsts.map(move |rule| Culprit { rule, why })
        });
        let rare = self
            .tables
            .iter()
            .filter(|table| (table.rules as usize) < RARE)
            .map(|table| Culprit { rule: table.first, why: Why::RareMasks(table.rules as usize) });
        tail.chain(crowded.into_iter().flatten()).chain(rare).take(at_most).collect()
    }

    /// The lowest positions of rules that match the keys; [`crate::NONE`] where none does.
    ///
    /// # Panics
    /// When `firsts` is shorter than `keys`.
    pub fn first_batch(&self, keys: &[Key<A>], firsts: &mut [u32]) {
        let firsts = firsts[..keys.len()].chunks_mut(BATCH);
        for (keys, firsts) in keys.chunks(BATCH).zip(firsts) {
            self.answer(keys, 0, firsts);
        }
    }

    /// At most [`BATCH`] keys.
    #[inline]
    fn answer(&self, keys: &[Key<A>], from: u32, firsts: &mut [u32]) {
        match self.level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::answer(self, keys, from, firsts),
            _ => {
                for (first, key) in firsts.iter_mut().zip(keys) {
                    *first = scalar::first(self, key, from);
                }
            }
        }
    }
    #[inline(always)]
    fn places(&self) -> Places<'_> {
        Places { conditions: &self.conditions, copies: &self.copies }
    }
}

impl<A: Address> Classifier<A> for CoverTables<A> {
    #[inline]
    fn first_at_or_after(&self, key: &Key<A>, from: u32) -> Option<u32> {
        let mut first = [NOWHERE];
        self.answer(std::slice::from_ref(key), from, &mut first);
        (first[0] != NOWHERE).then_some(first[0])
    }
}
