//! Leaves: the rules of one slot, four to a block, field by field, so that one
//! comparison checks a field of all four.

use super::condition::Conditions;
use crate::{Address, Key, Rule};

/// "No position": greater than every position.
pub(super) const NOWHERE: u32 = crate::NONE;
/// Rules in a block.
pub(super) const BLOCK: usize = 4;
/// In [`Block::small`]: the rule stands at several positions.
pub(super) const COPIED: u32 = 1 << 31;

/// Four rules (128 bytes with IPv4 addresses), by first position.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Block<A> {
    pub(super) src: [A; BLOCK],
    pub(super) dst: [A; BLOCK],
    pub(super) src_mask: [A; BLOCK],
    pub(super) dst_mask: [A; BLOCK],
    /// Source port in the upper half.
    pub(super) ports_low: [u32; BLOCK],
    /// Highest less lowest, half by half.
    pub(super) ports_span: [u32; BLOCK],
    /// Protocol, its mask, then the number of the condition; [`COPIED`].
    pub(super) small: [u32; BLOCK],
    /// First positions; [`NOWHERE`] in lanes that hold no rule.
    pub(super) first: [u32; BLOCK],
}

impl<A: Address> Block<A> {
    /// Matches nothing.
    pub(super) fn empty() -> Self {
        Self {
            src: [A::default(); BLOCK],
            dst: [A::default(); BLOCK],
            src_mask: [A::default(); BLOCK],
            dst_mask: [A::default(); BLOCK],
            ports_low: [0; BLOCK],
            ports_span: [0; BLOCK],
            small: [0x00ff; BLOCK],
            first: [NOWHERE; BLOCK],
        }
    }
    /// Puts a rule into a lane.
    pub(super) fn set(&mut self, lane: usize, rule: &Rule<A>, condition: u32, own: &[u32]) {
        let pair = |sport: u16, dport: u16| u32::from(sport) << 16 | u32::from(dport);
        self.src[lane] = rule.src.value();
        self.dst[lane] = rule.dst.value();
        self.src_mask[lane] = rule.src.mask();
        self.dst_mask[lane] = rule.dst.mask();
        self.ports_low[lane] = pair(rule.sport.low, rule.dport.low);
        let span = |range: crate::PortRange| range.high - range.low;
        self.ports_span[lane] = pair(span(rule.sport), span(rule.dport));
        let copied = if own.len() > 1 { COPIED } else { 0 };
        let (value, mask) = (rule.proto.value(), rule.proto.mask());
        self.small[lane] = u32::from(value) | u32::from(mask) << 8 | condition << 16 | copied;
        self.first[lane] = own[0];
    }
    /// The lanes whose addresses, ports and protocol the key has.
    #[inline(always)]
    pub(super) fn hits(&self, key: &Key<A>) -> u32 {
        let mut hits = 0;
        for lane in 0..BLOCK {
            let small = self.small[lane];
            let low = self.ports_low[lane];
            let span = self.ports_span[lane];
            let hit = (key.src & self.src_mask[lane] == self.src[lane])
                & (key.dst & self.dst_mask[lane] == self.dst[lane])
                & (key.sport.wrapping_sub((low >> 16) as u16) <= (span >> 16) as u16)
                & (key.dport.wrapping_sub(low as u16) <= span as u16)
                & (key.proto & (small >> 8) as u8 == small as u8);
            hits |= u32::from(hit) << lane;
        }
        hits
    }
}

/// The block and lane of the lowest hit. In a "pair" of one, the upper hits are the lower again.
#[inline(always)]
fn lane_of<A>(pair: &[Block<A>], hits: u32) -> (&Block<A>, usize) {
    let lane = hits.trailing_zeros() as usize;
    (&pair[(lane / BLOCK).min(pair.len() - 1)], lane % BLOCK)
}

/// What is needed besides a block to tell which position of a hit counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places<'t> {
    pub(super) conditions: &'t Conditions,
    /// First position and position of every copy but the first, sorted.
    pub(super) copies: &'t [(u32, u32)],
}

impl Places<'_> {
    /// The lowest position of the lanes hit in two blocks (or one) whose condition holds as well.
    #[inline(always)]
    pub(super) fn first<A: Address>(&self, pair: &[Block<A>], hits: u32, key: &Key<A>) -> u32 {
        let mut left = hits;
        while left != 0 {
            let (block, lane) = lane_of(pair, left);
            if self.conditions.hold(block.small[lane], block.first[lane], key) {
                return block.first[lane];
            }
            left &= left - 1;
        }
        NOWHERE
    }
    /// The same at or after `from`.
    #[inline]
    pub(super) fn next<A: Address>(
        &self,
        pair: &[Block<A>],
        hits: u32,
        key: &Key<A>,
        from: u32,
    ) -> u32 {
        let (mut best, mut left) = (NOWHERE, hits);
        while left != 0 {
            let (block, lane) = lane_of(pair, left);
            left &= left - 1;
            let (small, first) = (block.small[lane], block.first[lane]);
            if first < best && (first >= from || small & COPIED != 0) {
                best = best.min(self.confirm(small, first, key, from));
            }
        }
        best
    }
    /// The lowest position at or after `from` of a rule hit, if its condition holds.
    #[inline(always)]
    pub(super) fn confirm<A>(&self, small: u32, first: u32, key: &Key<A>, from: u32) -> u32 {
        match self.conditions.hold(small, first, key) {
            true => self.at_or_after(first, from),
            false => NOWHERE,
        }
    }
    /// The lowest position at or after `from` of the rule that stands first at `first`.
    fn at_or_after(&self, first: u32, from: u32) -> u32 {
        if first >= from {
            return first;
        }
        let next = self.copies.partition_point(|&copy| copy < (first, from));
        match self.copies.get(next) {
            Some(&(of, position)) if of == first => position,
            _ => NOWHERE,
        }
    }
}
