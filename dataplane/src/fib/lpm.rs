//! Longest-prefix match over an immutable set of prefixes.
//!
//! Prefixes are flattened into disjoint [`Intervals`], each of which knows the longest
//! prefix that covers it. A lookup reads where an address's upper bits begin among them
//! and searches what shares these bits: a step or none in a table of a few networks, a
//! handful in one of a million. Memory is at most two intervals a prefix and 2^16 words.

/// A prefix in the common 128-bit form: first and last address it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// First address.
    pub(super) first: u128,
    /// Last address.
    pub(super) last: u128,
}

/// An address as a family has it.
pub(super) trait Bits: Copy + Ord + std::fmt::Debug {
    /// How many bits.
    const BITS: u32;
    /// From the common form.
    fn of(address: u128) -> Self;
    /// What is left of it when it is shifted right by fewer than all bits.
    fn upper(self, shift: u32) -> usize;
}

impl Bits for u32 {
    const BITS: u32 = Self::BITS;
    #[inline]
    fn of(address: u128) -> Self {
        address as Self
    }
    #[inline]
    fn upper(self, shift: u32) -> usize {
        (self >> shift) as usize
    }
}

impl Bits for u128 {
    const BITS: u32 = Self::BITS;
    #[inline]
    fn of(address: u128) -> Self {
        address
    }
    #[inline]
    fn upper(self, shift: u32) -> usize {
        (self >> shift) as usize
    }
}

/// Disjoint intervals from address 0 on: where each starts, in rising order, and what
/// it maps to.
#[derive(Clone, Debug)]
pub(super) struct Intervals(Vec<(u128, Option<u32>)>);

impl Intervals {
    /// Flattens distinct prefixes.
    pub(super) fn of(mut prefixes: Vec<(Span, u32)>) -> Self {
        // Wider before narrower at the same start, so that nesting is a stack.
        prefixes.sort_by_key(|(span, _)| (span.first, u128::MAX - span.last));
        let mut intervals: Vec<(u128, Option<u32>)> = vec![(0, None)];
        let mut open: Vec<(u128, u32)> = Vec::new();
        for (span, value) in prefixes {
            close(&mut open, &mut intervals, Some(span.first));
            push(&mut intervals, span.first, Some(value));
            open.push((span.last, value));
        }
        close(&mut open, &mut intervals, None);
        Self(intervals)
    }

    /// What comes of asking `tables` by turns until one has a value that `counts`.
    pub(super) fn overlaid(tables: &[&Self], counts: impl Fn(u32) -> bool) -> Self {
        let mut at = vec![0; tables.len()];
        let mut next = Some(0);
        let mut intervals: Vec<(u128, Option<u32>)> = Vec::new();
        while let Some(start) = next {
            next = None;
            for (table, at) in tables.iter().zip(&mut at) {
                while table.0.get(*at + 1).is_some_and(|&(begins, _)| begins <= start) {
                    *at += 1;
                }
                let begins = table.0.get(*at + 1).map(|&(begins, _)| begins);
                next = [next, begins].into_iter().flatten().min();
            }
            let mut values = tables.iter().zip(&at).filter_map(|(table, &at)| table.0[at].1);
            let value = values.find(|&value| counts(value));
            if intervals.last().is_none_or(|&(_, before)| before != value) {
                intervals.push((start, value));
            }
        }
        Self(intervals)
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Lpm<A> {
    /// How many lower bits do not choose a place in `root`.
    shift: u32,
    /// For each value of the upper bits, the interval in which their first address lies;
    /// and the last interval.
    root: Box<[u32]>,
    starts: Box<[A]>,
    /// [`NOTHING`] where no prefix covers an interval.
    values: Box<[u32]>,
}

const NOTHING: u32 = u32::MAX;

impl<A: Bits> Lpm<A> {
    /// Builds from distinct prefixes and their values.
    #[cfg(test)]
    pub(super) fn build(prefixes: Vec<(Span, u32)>) -> Self {
        Self::index(&Intervals::of(prefixes))
    }

    /// Indexes intervals.
    pub(super) fn index(Intervals(intervals): &Intervals) -> Self {
        // What lies beyond a family's last address is of no use.
        let within = |&(start, _): &(u128, _)| start <= u128::MAX >> (128 - A::BITS);
        let intervals = &intervals[..intervals.partition_point(within)];
        let bits = (intervals.len().ilog2() + 4).clamp(8, 16);
        let shift = A::BITS - bits;
        let mut root = Vec::with_capacity((1 << bits) + 1);
        let mut at = 0;
        for upper in 0..1_u128 << bits {
            let first = upper << shift;
            while intervals.get(at + 1).is_some_and(|&(start, _)| start <= first) {
                at += 1;
            }
            root.push(at as u32);
        }
        root.push(intervals.len() as u32 - 1);
        Self {
            shift,
            root: root.into(),
            starts: intervals.iter().map(|&(start, _)| A::of(start)).collect(),
            values: intervals.iter().map(|&(_, value)| value.unwrap_or(NOTHING)).collect(),
        }
    }

    /// The value of the longest prefix that covers `address`.
    #[inline]
    pub(super) fn get(&self, address: A) -> Option<u32> {
        let upper = address.upper(self.shift);
        let (low, high) = (self.root[upper] as usize, self.root[upper + 1] as usize);
        let mut at = low;
        if low != high {
            at += self.starts[low + 1..=high].partition_point(|&start| start <= address);
        }
        Some(self.values[at]).filter(|&value| value != NOTHING)
    }
}

/// Ends every open prefix that lies wholly before `next`.
fn close(
    open: &mut Vec<(u128, u32)>,
    intervals: &mut Vec<(u128, Option<u32>)>,
    next: Option<u128>,
) {
    while let Some(&(last, _)) = open.last() {
        if next.is_some_and(|next| last >= next) {
            break;
        }
        open.pop();
        if let Some(start) = last.checked_add(1) {
            push(intervals, start, open.last().map(|&(_, value)| value));
        }
    }
}

/// Starts an interval, replacing one that starts at the same address.
fn push(intervals: &mut Vec<(u128, Option<u32>)>, start: u128, value: Option<u32>) {
    match intervals.last_mut() {
        Some(interval) if interval.0 == start => interval.1 = value,
        _ => intervals.push((start, value)),
    }
}
