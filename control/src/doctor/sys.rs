//! The system calls that no library in the tree makes safely.

#![allow(unsafe_code, reason = "libc takes raw pointers; unshare is unsafe for threads that share")]

use std::io;
use std::mem::MaybeUninit;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The kernel clock's discipline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Discipline {
    /// Whether something keeps the clock right.
    pub(super) synchronised: bool,
    /// The greatest error that it may have, in microseconds.
    pub(super) error_us: u64,
}

/// Asks how well the wall clock is kept; changes nothing.
pub(super) fn clock_discipline() -> io::Result<Discipline> {
    let mut state = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: zeroed, it asks for no change (`modes` is 0); the kernel fills it in.
    if unsafe { libc::adjtimex(state.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: integers only, zeroed before and filled in since.
    let state = unsafe { state.assume_init() };
    let synchronised = state.status & libc::STA_UNSYNC == 0;
    Ok(Discipline { synchronised, error_us: u64::try_from(state.maxerror).unwrap_or(u64::MAX) })
}

/// Moves the calling thread to a network namespace of its own, which is gone with it.
pub(super) fn own_network() -> io::Result<()> {
    // SAFETY: only the network namespace is left, not the table of open files or
    // any memory that other threads rely on.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?)
}
