//! Sleeping until a port has frames.

#![allow(unsafe_code, reason = "poll(2) takes a pointer to its descriptors")]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use arrayvec::ArrayVec;

use crate::packet::MAX_PORTS;

/// A socket and a TAP of every port.
pub const POLLED_MAX: usize = 2 * MAX_PORTS + 1;

/// Sleeps until one of `descriptors` (of which [`POLLED_MAX`] are looked at) is
/// readable or in error, or `timeout` has passed. A signal ends the sleep too.
pub fn poll_readable(descriptors: &[BorrowedFd<'_>], timeout: Duration) {
    let mut polled: ArrayVec<libc::pollfd, POLLED_MAX> = descriptors
        .iter()
        .take(POLLED_MAX)
        .map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 })
        .collect();
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer and the count describe `polled`, which outlives the call.
    // What it returns does not matter: the caller looks at its ports in any case.
    let _ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, timeout) };
}
