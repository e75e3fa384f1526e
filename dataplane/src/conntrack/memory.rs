//! The table's memory: zeroed pages, large ones where they can be had.
//!
//! A packet touches a few lines anywhere in gigabytes. With small pages each of them
//! costs a walk through page tables on top, which is the greater part of a lookup.
//! Pages take no memory before they are used; [`Zeroed::populate`] has them come early,
//! on a thread that may wait for them.

#![allow(unsafe_code, reason = "pages as values")]

use super::sync::{AtomicU32, AtomicU64};

/// What is made of atomic numbers alone, so that zero bytes are a value of it.
///
/// # Safety
/// All bytes zero is a value of the type, and it has nothing to drop.
pub(super) unsafe trait Zero: Sized {
    /// That value.
    #[cfg_attr(not(loom), allow(dead_code, reason = "modelled atomics are no zero bytes"))]
    fn zero() -> Self;
}

// SAFETY: a number.
unsafe impl Zero for AtomicU64 {
    fn zero() -> Self {
        Self::new(0)
    }
}

// SAFETY: a number.
unsafe impl Zero for AtomicU32 {
    fn zero() -> Self {
        Self::new(0)
    }
}

// SAFETY: nothing but values that may be zero bytes.
unsafe impl<T: Zero, const N: usize> Zero for [T; N] {
    fn zero() -> Self {
        std::array::from_fn(|_| T::zero())
    }
}

/// On cache lines of its own.
#[repr(C, align(64))]
pub(super) struct Line<T>(pub(super) T);

// SAFETY: a value that may be zero bytes, and perhaps padding.
unsafe impl<T: Zero> Zero for Line<T> {
    fn zero() -> Self {
        Self(T::zero())
    }
}

// SAFETY: numbers only.
unsafe impl Zero for super::record::Record {
    fn zero() -> Self {
        Self::zero()
    }
}

// SAFETY: numbers only.
unsafe impl Zero for super::flow::Words {
    fn zero() -> Self {
        Self::zero()
    }
}

// SAFETY: numbers only.
unsafe impl Zero for super::sources::Link {
    fn zero() -> Self {
        Self::zero()
    }
}

// SAFETY: numbers only.
unsafe impl Zero for super::extra::Extra {
    fn zero() -> Self {
        Self::new()
    }
}

#[cfg(loom)]
pub(super) use modelled::Zeroed;
#[cfg(not(loom))]
pub(super) use pages::Zeroed;

#[cfg(not(loom))]
mod pages {
    use std::marker::PhantomData;
    use std::ops::Deref;

    use memmap2::{Advice, MmapOptions, MmapRaw};

    use super::Zero;

    /// Bytes of a large page.
    const LARGE_PAGE: usize = 2 << 20;

    /// So many values, all zero at first.
    pub(in super::super) struct Zeroed<T> {
        /// Aligned to large pages only from `skip` on.
        map: MmapRaw,
        skip: usize,
        len: usize,
        owned: PhantomData<T>,
    }

    impl<T: Zero> Zeroed<T> {
        /// `len` of them.
        ///
        /// # Panics
        /// When they are more than address space has room for; ends the process when
        /// the system has no memory, as any allocation does.
        pub(in super::super) fn new(len: usize) -> Self {
            const { assert!(align_of::<T>() <= 4096 && !std::mem::needs_drop::<T>()) };
            let layout = std::alloc::Layout::array::<T>(len).expect("it fits address space");
            let spare = if layout.size() >= LARGE_PAGE { LARGE_PAGE } else { 0 };
            let mapped = MmapOptions::new()
                .len(layout.size() + spare + 1)
                .no_reserve_swap()
                .map_anon()
                .map(MmapRaw::from);
            let Ok(map) = mapped else { std::alloc::handle_alloc_error(layout) };
            let start = map.as_ptr().addr();
            let skip = if spare == 0 { 0 } else { start.next_multiple_of(LARGE_PAGE) - start };
            let all = Self { map, skip, len, owned: PhantomData };
            if spare > 0 {
                all.advise(Advice::HugePage, 0, layout.size());
            }
            all
        }

        /// Advice for some of its bytes. It is a wish: without it all stays as it is.
        fn advise(&self, advice: Advice, from: usize, bytes: usize) {
            let bytes = bytes.min(size_of_val(&**self) - from);
            let _refused = self.map.advise_range(advice, self.skip + from, bytes);
        }

        /// Has the page of byte `from`, a multiple of [`Zeroed::STEP`], and what follows up
        /// to the next one there before they are written. `None`: that was the end.
        pub(in super::super) fn populate(&self, from: usize) -> Option<usize> {
            (from < size_of_val(&**self)).then(|| {
                self.advise(Advice::PopulateWrite, from, Self::STEP);
                from + Self::STEP
            })
        }

        /// Bytes that [`Zeroed::populate`] looks after at once.
        pub(in super::super) const STEP: usize = LARGE_PAGE;
    }

    impl<T> Deref for Zeroed<T> {
        type Target = [T];

        #[inline]
        fn deref(&self) -> &[T] {
            let first = self.map.as_ptr().wrapping_add(self.skip).cast();
            // SAFETY: `len` values lie there, aligned, which were zero bytes at first, for
            // as long as `self` lives, and are given out shared only.
            unsafe { std::slice::from_raw_parts(first, self.len) }
        }
    }
}

#[cfg(loom)]
mod modelled {
    use super::Zero;

    /// The same of modelled atomics.
    pub(in super::super) struct Zeroed<T>(Box<[T]>);

    impl<T: Zero> Zeroed<T> {
        pub(in super::super) fn new(len: usize) -> Self {
            Self((0..len).map(|_| T::zero()).collect())
        }
        pub(in super::super) fn populate(&self, _: usize) -> Option<usize> {
            None
        }
    }

    impl<T> std::ops::Deref for Zeroed<T> {
        type Target = [T];
        fn deref(&self) -> &[T] {
            &self.0
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::prefetch::fetch;

    #[test]
    fn pages_are_zero_aligned_and_stay_what_was_written() {
        for len in [0, 1, 63, 5000, 1 << 16, (1 << 17) + 3] {
            let all = Zeroed::<Line<[AtomicU64; 8]>>::new(len);
            assert_eq!((all.len(), all.as_ptr().addr() % 64), (len, 0));
            let sum = |seed: u64| {
                let words = all.iter().flat_map(|line| &line.0);
                words.map(|word| word.load(Ordering::Relaxed) ^ seed).fold(0, u64::wrapping_add)
            };
            assert_eq!(sum(0), 0);
            for (nth, word) in all.iter().flat_map(|line| &line.0).enumerate() {
                word.store(nth as u64, Ordering::Relaxed);
            }
            let before = sum(7);
            let mut at = Some(0);
            while let Some(from) = at {
                at = all.populate(from);
            }
            assert_eq!(sum(7), before);
            all.iter().for_each(fetch);
        }
    }
}
