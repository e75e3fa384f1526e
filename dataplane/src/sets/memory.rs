//! Zeroed words in large pages.
//!
//! A lookup in a large set touches a few cache lines anywhere in many megabytes: with small
//! pages, each costs a walk through page tables on top.

#![allow(unsafe_code, reason = "zeroed pages as they come, and advice by address")]

use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a large page.
const LARGE_PAGE: usize = 2 << 20;
/// Words of a small one.
const PAGE_WORDS: usize = 512;

/// So many words, all of them zero. Large ones cost little before they are written.
pub(super) fn zeroed(words: usize) -> Box<[AtomicU64]> {
    // SAFETY: an atomic word of zero bytes is a word of zero.
    let words = unsafe { Box::<[AtomicU64]>::new_zeroed_slice(words).assume_init() };
    advise(&words);
    words
}

/// Has the pages of these words there, whatever is written to them meanwhile.
pub(super) fn touch(words: &[AtomicU64]) {
    for word in words.iter().step_by(PAGE_WORDS) {
        word.fetch_or(0, Ordering::Relaxed);
    }
}

/// Asks for large pages where words fill any. It is a wish: without it all stays as it is.
fn advise(words: &[AtomicU64]) {
    let start = words.as_ptr().addr();
    let first = start.next_multiple_of(LARGE_PAGE);
    let end = (start + size_of_val(words)) & !(LARGE_PAGE - 1);
    if end <= first {
        return;
    }
    // SAFETY: the range lies within `words`, and the advice changes no content.
    unsafe {
        libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_HUGEPAGE);
    }
}
