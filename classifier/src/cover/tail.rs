//! The tail: rules that fit no table, compared sixteen at a time in order.

#![allow(clippy::needless_range_loop, reason = "sides and words number several columns at once")]

use super::lanes::{LANES, WORDS, Words, word_count, words};
use super::leaf::{COPIED, NOWHERE, Places};
use crate::{Address, Key, Rule};

/// Sixteen rules, field by field.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(super) struct Row {
    pub(super) values: [[[u32; LANES]; WORDS]; 2],
    pub(super) masks: [[[u32; LANES]; WORDS]; 2],
    pub(super) ports_low: [u32; LANES],
    pub(super) ports_span: [u32; LANES],
    /// As in a leaf's block.
    pub(super) small: [u32; LANES],
    pub(super) first: [u32; LANES],
}

impl Row {
    fn empty() -> Self {
        Self {
            values: [[[0; LANES]; WORDS]; 2],
            masks: [[[0; LANES]; WORDS]; 2],
            ports_low: [0; LANES],
            ports_span: [0; LANES],
            small: [0x00ff; LANES],
            first: [NOWHERE; LANES],
        }
    }
    fn set<A: Address>(&mut self, lane: usize, rule: &Rule<A>, condition: u32, own: &[u32]) {
        for (side, field) in [rule.src, rule.dst].into_iter().enumerate() {
            let (value, mask) = (words(field.value()), words(field.mask()));
            for word in 0..WORDS {
                self.values[side][word][lane] = value[word];
                self.masks[side][word][lane] = mask[word];
            }
        }
        let mut block = super::leaf::Block::empty();
        block.set(0, rule, condition, own);
        self.ports_low[lane] = block.ports_low[0];
        self.ports_span[lane] = block.ports_span[0];
        self.small[lane] = block.small[0];
        self.first[lane] = block.first[0];
    }
    /// The lanes whose addresses, ports and protocol the key has.
    #[inline(always)]
    pub(super) fn hits<A: Address>(&self, words: &Words, proto: u8) -> u32 {
        let mut wrong = [0_u32; LANES];
        for side in 0..2 {
            for word in 0..word_count::<A>() {
                let (values, masks) = (&self.values[side][word], &self.masks[side][word]);
                for lane in 0..LANES {
                    wrong[lane] |= words.addresses[side][word] & masks[lane] ^ values[lane];
                }
            }
        }
        let mut hits = 0;
        for (lane, wrong) in wrong.into_iter().enumerate() {
            let (low, span) = (self.ports_low[lane], self.ports_span[lane]);
            let half = |shift: u32| {
                let offset = ((words.ports >> shift) as u16).wrapping_sub((low >> shift) as u16);
                offset <= (span >> shift) as u16
            };
            let small = self.small[lane];
            let own = proto & (small >> 8) as u8 == small as u8;
            hits |= u32::from((wrong == 0) & half(0) & half(16) & own) << lane;
        }
        hits
    }
    /// The lowest position of the lanes hit, at or after `from`.
    #[inline(always)]
    pub(super) fn next<A: Address>(
        &self,
        hits: u32,
        key: &Key<A>,
        from: u32,
        places: &Places<'_>,
    ) -> u32 {
        let (mut best, mut left) = (NOWHERE, hits);
        while left != 0 {
            let lane = left.trailing_zeros() as usize % LANES;
            left &= left - 1;
            let (small, first) = (self.small[lane], self.first[lane]);
            if first >= best {
                break;
            }
            if first >= from || small & COPIED != 0 {
                best = best.min(places.confirm(small, first, key, from));
            }
        }
        best
    }
}

/// All rows, by first position.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) rows: Box<[Row]>,
    /// First and last position of any copy within or before each row.
    pub(super) spans: Box<[(u32, u32)]>,
}

impl Tail {
    /// From rules with their conditions and positions, by first position.
    pub(super) fn build<'r, A: Address>(
        rules: impl Iterator<Item = (&'r Rule<A>, u32, &'r [u32])>,
    ) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        let mut spans: Vec<(u32, u32)> = Vec::new();
        let mut reach = 0;
        for (index, (rule, condition, own)) in rules.enumerate() {
            if index % LANES == 0 {
                rows.push(Row::empty());
                spans.push((own[0], 0));
            }
            reach = reach.max(own[own.len() - 1]);
            spans[index / LANES].1 = reach;
            rows[index / LANES].set(index % LANES, rule, condition, own);
        }
        Self { rows: rows.into(), spans: spans.into() }
    }
    /// Rows that may hold a position at or after `from`.
    #[inline(always)]
    pub(super) fn begin(&self, from: u32) -> usize {
        if from == 0 { 0 } else { self.spans.partition_point(|&(_, reach)| reach < from) }
    }
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.rows) + size_of_val(&*self.spans)
    }
}
