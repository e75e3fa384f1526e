//! The table's memory: zeroed pages, large ones where they can be had, and lines that
//! are asked for before they are read.
//!
//! A packet touches a few lines anywhere in gigabytes. With small pages each of them
//! costs a walk through page tables on top, which is the greater part of a lookup.
//! Pages take no memory before they are used; [`Zeroed::populate`] has them come early,
//! on a thread that may wait for them.

#![allow(unsafe_code, reason = "pages from the system, and prefetches")]

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
    use std::ops::Deref;
    use std::ptr::NonNull;

    use super::Zero;

    /// Bytes of a large page.
    const LARGE_PAGE: usize = 2 << 20;

    /// So many values, all zero at first.
    pub(in super::super) struct Zeroed<T> {
        first: NonNull<T>,
        len: usize,
        /// The whole mapping, which is aligned to large pages only inside.
        mapping: NonNull<libc::c_void>,
        mapped: usize,
    }

    // SAFETY: it owns its values as a boxed slice does.
    unsafe impl<T: Send> Send for Zeroed<T> {}
    // SAFETY: shared, it gives shared access to its values, as a boxed slice does.
    unsafe impl<T: Sync> Sync for Zeroed<T> {}

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
            let mapped = layout.size() + spare + 1;
            let (protection, flags) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            );
            // SAFETY: a new mapping wherever the system likes concerns nobody else.
            let start =
                unsafe { libc::mmap(std::ptr::null_mut(), mapped, protection, flags, -1, 0) };
            let Some(mapping) = NonNull::new(start).filter(|_| start != libc::MAP_FAILED) else {
                std::alloc::handle_alloc_error(layout);
            };
            let skip = match spare {
                0 => 0,
                _ => start.addr().next_multiple_of(LARGE_PAGE) - start.addr(),
            };
            // SAFETY: `spare` bytes more than the values need were mapped.
            let first = unsafe { mapping.byte_add(skip) }.cast();
            let all = Self { first, len, mapping, mapped };
            if spare > 0 {
                all.advise(0, layout.size(), libc::MADV_HUGEPAGE);
            }
            all
        }

        /// Advice for some of its bytes. It is a wish: without it all stays as it is.
        fn advise(&self, from: usize, bytes: usize, advice: libc::c_int) -> bool {
            let end = (from + bytes).min(size_of_val(&**self));
            let start = self.first.as_ptr().addr() + from;
            // SAFETY: the range lies within the mapping, and neither advice given here
            // changes what is in memory.
            unsafe { libc::madvise(start as *mut libc::c_void, end - from, advice) == 0 }
        }

        /// Has the page of byte `from`, a multiple of [`Zeroed::STEP`], and what follows up
        /// to the next one there before they are written. `None`: that was the end.
        pub(in super::super) fn populate(&self, from: usize) -> Option<usize> {
            (from < size_of_val(&**self)).then(|| {
                self.advise(from, Self::STEP, libc::MADV_POPULATE_WRITE);
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
            // SAFETY: `len` values lie there, which were zero bytes at first, for as
            // long as `self` lives, and are given out shared only.
            unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
        }
    }

    impl<T> Drop for Zeroed<T> {
        fn drop(&mut self) {
            // SAFETY: the mapping is this value's own, and nothing borrows from it any more.
            unsafe { libc::munmap(self.mapping.as_ptr(), self.mapped) };
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

/// Asks for the line of `value`, which will be read and perhaps written.
#[inline]
pub(super) fn fetch<T>(value: &T) {
    #[cfg(all(target_arch = "x86_64", not(loom)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing, and every x86-64 processor has it.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) };
    }
    // Elsewhere, processors look ahead by themselves.
    #[cfg(not(all(target_arch = "x86_64", not(loom))))]
    let _ = value;
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

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
