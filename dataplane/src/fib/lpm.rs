//! Longest-prefix match over an immutable set of prefixes.
//!
//! Prefixes are flattened into disjoint intervals, each of which knows the
//! longest prefix that covers it: a lookup is one binary search over at most
//! 2n + 1 boundaries, whatever the prefix lengths.

/// A prefix in the common 128-bit form: first and last address it covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// First address.
    pub(super) first: u128,
    /// Last address.
    pub(super) last: u128,
}

/// The table: interval starts in rising order, and what each interval maps to.
#[derive(Debug, Default)]
pub(super) struct Lpm {
    starts: Box<[u128]>,
    values: Box<[Option<u32>]>,
}

impl Lpm {
    /// Builds from distinct prefixes and their values.
    pub(super) fn build(mut prefixes: Vec<(Span, u32)>) -> Self {
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
        let (starts, values) = intervals.into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        Self { starts: starts.into(), values: values.into() }
    }
    /// The value of the longest prefix that covers `address`.
    #[inline]
    pub(super) fn get(&self, address: u128) -> Option<u32> {
        let after = self.starts.partition_point(|&start| start <= address);
        self.values.get(after.wrapping_sub(1)).copied().flatten()
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
