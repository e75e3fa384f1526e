//! The kernel's own time zone, which `-m time --kerneltz` goes by. The C library no
//! longer tells it.

#![allow(unsafe_code, reason = "gettimeofday(2) takes a pointer to the zone")]

/// Minutes west of Greenwich, as somebody once told the kernel; 0 if nobody did.
pub(crate) fn minutes_west() -> i32 {
    let mut zone = [0_i32; 2];
    let (no_time, zone_at) = (std::ptr::null_mut::<libc::timeval>(), zone.as_mut_ptr());
    // SAFETY: `zone` is as large as `struct timezone`, two ints, and outlives the call;
    // the kernel writes no time where there is no room given for it.
    let failed = unsafe { libc::syscall(libc::SYS_gettimeofday, no_time, zone_at) } != 0;
    if failed { 0 } else { zone[0] }
}
