//! Packet sockets in a namespace: whole frames out and in.

#![allow(unsafe_code, reason = "packet sockets and setns have no safe form in std")]

use std::ffi::CString;
use std::fs::File;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// How long a frame may take to arrive before the test fails.
const PATIENCE_MS: i32 = 5000;

/// A packet socket bound to one interface.
pub(crate) struct Socket(OwnedFd);

/// Opens a socket on each interface of a namespace.
pub(crate) fn open(namespace: &str, interfaces: &[&str]) -> Vec<Socket> {
    // A thread of its own enters the namespace, so that no other thread does.
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                let file = File::open(format!("/run/netns/{namespace}")).expect("the namespace");
                // SAFETY: the descriptor is open; only this thread changes namespace.
                let rc = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(rc, 0, "setns: {}", std::io::Error::last_os_error());
                interfaces.iter().map(|name| Socket::bind(name)).collect()
            })
            .join()
            .expect("the socket thread")
    })
}

impl Socket {
    fn bind(interface: &str) -> Self {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: a plain system call without pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, protocol.into()) };
        assert!(fd >= 0, "socket: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is new and owned by nobody else.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        let name = CString::new(interface).expect("a name");
        // SAFETY: `name` is a NUL-terminated string that outlives the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        // SAFETY: sockaddr_ll is plain data for which all zeroes is valid.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol;
        address.sll_ifindex = index as i32;
        let length = mem::size_of_val(&address) as u32;
        // SAFETY: the pointer and length describe `address`, which outlives the call.
        let rc = unsafe { libc::bind(fd, (&raw const address).cast(), length) };
        assert_eq!(rc, 0, "bind {interface}: {}", std::io::Error::last_os_error());
        socket
    }
    /// Sends one frame.
    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: the pointer and length describe `frame`, which outlives the call.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "send: {}", std::io::Error::last_os_error());
    }
    /// The next frame that came from the wire; `None` after five seconds without one.
    pub(crate) fn receive(&self) -> Option<Vec<u8>> {
        loop {
            let mut poll =
                libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: `poll` is one valid pollfd for the length of the call.
            if unsafe { libc::poll(&raw mut poll, 1, PATIENCE_MS) } <= 0 {
                return None;
            }
            let mut frame = vec![0; 70_000];
            // SAFETY: sockaddr_ll is plain data for which all zeroes is valid.
            let mut from: libc::sockaddr_ll = unsafe { mem::zeroed() };
            let mut length = mem::size_of_val(&from) as u32;
            // SAFETY: buffer and address are writable for the lengths given.
            let got = unsafe {
                libc::recvfrom(
                    self.0.as_raw_fd(),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut length,
                )
            };
            assert!(got >= 0, "receive: {}", std::io::Error::last_os_error());
            if from.sll_pkttype != libc::PACKET_OUTGOING {
                frame.truncate(got as usize);
                return Some(frame);
            }
        }
    }
}
