//! Lines that are asked for before they are read.

#![allow(unsafe_code, reason = "an instruction of the processor")]

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Asks for the line of `value`, which will be read and perhaps written. Changes nothing.
#[inline]
pub(crate) fn fetch<T>(value: &T) {
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
