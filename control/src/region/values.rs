//! Sets of values of one field, closed under intersection and difference.

/// Most ranges that a mask with holes is spelt out in.
const MASK_RANGES: u32 = 12;

/// A set of numbers: rising, disjoint, inclusive ranges that do not touch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    /// No number.
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// From `low` to `high`, both included; nothing if they are the wrong way round.
    pub fn of(low: u128, high: u128) -> Self {
        Self(if low <= high { vec![(low, high)] } else { Vec::new() })
    }

    /// All numbers of so many bits.
    pub fn all(bits: u32) -> Self {
        Self::of(0, u128::MAX >> (128 - bits))
    }

    /// Those that agree with `value` on `mask`, among numbers of so many bits. `None`:
    /// the mask has so many holes that they are too many ranges.
    pub fn masked(value: u128, mask: u128, bits: u32) -> Option<Self> {
        let top = u128::MAX >> (128 - bits);
        let (mask, value) = (mask & top, value & mask & top);
        // The low bits that are free make one range; free bits above them, more ranges.
        let low_free = mask.trailing_zeros().min(bits);
        let span = if low_free == 128 { u128::MAX } else { (1 << low_free) - 1 };
        let holes: Vec<u32> = (low_free..bits).filter(|bit| mask >> bit & 1 == 0).collect();
        if holes.len() as u32 > MASK_RANGES {
            return None;
        }
        let ranges = (0..1_u32 << holes.len()).map(|choice| {
            let bits =
                holes.iter().enumerate().map(|(at, bit)| u128::from(choice >> at & 1) << bit);
            let low = value | bits.sum::<u128>();
            (low, low | span)
        });
        Some(Self(ranges.collect()))
    }

    /// The union of ranges in any order.
    pub fn union(mut ranges: Vec<(u128, u128)>) -> Self {
        ranges.retain(|(low, high)| low <= high);
        ranges.sort_unstable();
        let mut joined: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (low, high) in ranges {
            match joined.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                _ => joined.push((low, high)),
            }
        }
        Self(joined)
    }

    /// Whether it has no number.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its ranges, rising.
    pub fn ranges(&self) -> &[(u128, u128)] {
        &self.0
    }

    /// Whether it has `value`.
    pub fn contains(&self, value: u128) -> bool {
        let after = self.0.partition_point(|range| range.0 <= value);
        after > 0 && self.0[after - 1].1 >= value
    }

    /// What both have.
    pub fn and(&self, other: &Self) -> Self {
        let (mut one, mut two) = (0, 0);
        let mut both = Vec::new();
        while let (Some(a), Some(b)) = (self.0.get(one), other.0.get(two)) {
            let (low, high) = (a.0.max(b.0), a.1.min(b.1));
            if low <= high {
                both.push((low, high));
            }
            if a.1 < b.1 {
                one += 1;
            } else {
                two += 1;
            }
        }
        Self(both)
    }

    /// What it has and `other` has not.
    pub fn minus(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut two = 0;
        for &(mut low, high) in &self.0 {
            while other.0.get(two).is_some_and(|range| range.1 < low) {
                two += 1;
            }
            let mut at = two;
            let mut open = true;
            while let Some(&(cut, end)) = other.0.get(at).filter(|range| range.0 <= high) {
                if cut > low {
                    left.push((low, cut - 1));
                }
                if end >= high {
                    open = false;
                    break;
                }
                low = end + 1;
                at += 1;
            }
            if open {
                left.push((low, high));
            }
        }
        Self(left)
    }

    /// Whether both have a number.
    pub fn meets(&self, other: &Self) -> bool {
        let (mut one, mut two) = (0, 0);
        while let (Some(a), Some(b)) = (self.0.get(one), other.0.get(two)) {
            if a.0.max(b.0) <= a.1.min(b.1) {
                return true;
            }
            if a.1 < b.1 {
                one += 1;
            } else {
                two += 1;
            }
        }
        false
    }

    /// Whether `other` has all of it.
    pub fn within(&self, other: &Self) -> bool {
        self.0.iter().all(|range| {
            let after = other.0.partition_point(|it| it.0 <= range.0);
            after > 0 && other.0[after - 1].1 >= range.1
        })
    }

    /// The `nth` of its numbers, counted from the first of each range in turn: a way to
    /// reach every range's ends and insides with few numbers. `None` if it has none.
    pub fn pick(&self, nth: u64) -> Option<u128> {
        let ranges = self.0.len() as u64;
        let (low, high) = *self.0.get(usize::try_from(nth.checked_rem(ranges)?).ok()?)?;
        let width = high - low;
        Some(match nth / ranges % 3 {
            0 => low,
            1 => high,
            _ => {
                low + u128::from(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15)) % width.saturating_add(1)
            }
        })
    }
}

/// A set of values of eight bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bytes([u64; 4]);

impl Bytes {
    /// No value.
    pub const EMPTY: Self = Self([0; 4]);
    /// Every value.
    pub const ALL: Self = Self([u64::MAX; 4]);

    /// The values that `wanted` wants.
    pub fn of(wanted: impl Fn(u8) -> bool) -> Self {
        let mut set = Self::EMPTY;
        for value in (0..=u8::MAX).filter(|value| wanted(*value)) {
            set.0[usize::from(value >> 6)] |= 1 << (value & 63);
        }
        set
    }

    /// Whether it has no value.
    pub fn is_empty(self) -> bool {
        self.0 == [0; 4]
    }

    /// Whether it has `value`.
    pub fn contains(self, value: u8) -> bool {
        self.0[usize::from(value >> 6)] >> (value & 63) & 1 != 0
    }

    /// What both have.
    pub fn and(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & other.0[at]))
    }

    /// What either has.
    pub fn or(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    /// What it has and `other` has not.
    pub fn minus(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & !other.0[at]))
    }

    /// How many.
    pub fn len(self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// One of its values; `None` if it has none.
    pub fn pick(self, nth: u64) -> Option<u8> {
        let nth = nth.checked_rem(u64::from(self.len()))?;
        (0..=u8::MAX).filter(|value| self.contains(*value)).nth(nth as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = Ranges> {
        prop::collection::vec((0_u128..16, 0_u128..16), 0..4).prop_map(Ranges::union)
    }

    proptest! {
        #[test]
        fn set_algebra_is_that_of_the_numbers(a in ranges(), b in ranges()) {
            let (both, left) = (a.and(&b), a.minus(&b));
            for value in 0..16 {
                let (in_a, in_b) = (a.contains(value), b.contains(value));
                prop_assert_eq!(both.contains(value), in_a && in_b);
                prop_assert_eq!(left.contains(value), in_a && !in_b);
            }
            prop_assert_eq!(a.meets(&b), !both.is_empty());
            prop_assert_eq!(a.within(&b), left.is_empty());
            for set in [&both, &left] {
                let gaps = set.ranges().windows(2).all(|pair| pair[0].1 < pair[1].0);
                prop_assert!(gaps, "rising and disjoint: {set:?}");
            }
        }

        #[test]
        fn masks_are_spelt_out(value in 0_u128..256, mask in 0_u128..256) {
            let set = Ranges::masked(value, mask, 8).expect("eight bits have few holes");
            for it in 0..256 {
                prop_assert_eq!(set.contains(it), it & mask == value & mask);
            }
        }

        #[test]
        fn picks_lie_inside(a in ranges(), nth in any::<u64>()) {
            prop_assert_eq!(a.pick(nth).is_none(), a.is_empty());
            prop_assert!(a.pick(nth).is_none_or(|value| a.contains(value)));
        }
    }

    #[test]
    fn whole_words_do_not_overflow() {
        let all = Ranges::all(128);
        assert_eq!(all, Ranges::masked(7, 0, 128).expect("no holes"));
        assert_eq!(all.minus(&Ranges::of(5, u128::MAX)), Ranges::of(0, 4));
        assert!(all.minus(&all).is_empty());
        assert_eq!(Ranges::union(vec![(0, u128::MAX), (3, 4)]), all);
        assert!(Ranges::masked(0, 0x5555_5555_5555_5555, 128).is_none(), "too many holes");
        assert!(all.pick(2).is_some_and(|value| all.contains(value)));
    }
}
