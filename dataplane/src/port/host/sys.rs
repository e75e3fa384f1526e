//! The system calls of the host road, each behind a safe function.

#![allow(unsafe_code, reason = "libc takes raw pointers and descriptors")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// A device name as `struct ifreq` holds it.
type Name = [libc::c_char; libc::IFNAMSIZ];

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn name_of(text: &str) -> io::Result<Name> {
    if text.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut name = [0; libc::IFNAMSIZ];
    for (to, from) in name.iter_mut().zip(text.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(name)
}

fn text_of(name: &Name) -> String {
    name.iter().take_while(|letter| **letter != 0).map(|letter| *letter as u8 as char).collect()
}

/// Opens one queue of a TAP, which is made if there is none of that name yet. A
/// `%d` in the name becomes a free number; returns the name in force. The device
/// is gone when its last queue is closed.
pub(super) fn open_tap(name: &str) -> io::Result<(File, String)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_MULTI_QUEUE;
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_flags: flags as libc::c_short };
    let mut request = libc::ifreq { ifr_name: name_of(name)?, ifr_ifru };
    // SAFETY: `request` is the structure of this command and outlives the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })?;
    Ok((file, text_of(&request.ifr_name)))
}

/// Makes reads and writes wait or not.
pub(super) fn set_blocking(file: &File, blocking: bool) -> io::Result<()> {
    // SAFETY: takes no pointers.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    check(flags)?;
    let flags = if blocking { flags & !libc::O_NONBLOCK } else { flags | libc::O_NONBLOCK };
    // SAFETY: takes no pointers.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) })
}

/// Sets a device up.
pub(super) fn set_up(name: &str) -> io::Result<()> {
    let flags = libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_NOARP;
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_flags: flags as libc::c_short };
    let request = libc::ifreq { ifr_name: name_of(name)?, ifr_ifru };
    // SAFETY: takes no pointers.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(raw)?;
    // SAFETY: the kernel has just opened it for us, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: `request` is the structure of this command and is only read.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) })
}
