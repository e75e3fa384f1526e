//! The few system calls that the standard library has no word for: entering a
//! network namespace, packet sockets, raw IP sockets, pinning a thread.

#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `PACKET_IGNORE_OUTGOING` of `linux/if_packet.h`.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// `IPV6_HDRINCL` of `linux/in6.h`.
const IPV6_HDRINCL: libc::c_int = 36;

fn check(code: libc::c_int) -> io::Result<libc::c_int> {
    if code < 0 { Err(io::Error::last_os_error()) } else { Ok(code) }
}

/// Moves the calling thread into the namespace of that file.
pub fn enter_netns(namespace: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call; the call touches no memory of ours.
    check(unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Keeps the calling thread on the processor it runs on, so that veth delivery,
/// which happens on the sending core, is in order and done when `send` returns.
pub fn pin_to_this_cpu() -> io::Result<()> {
    // SAFETY: takes no arguments and touches no memory.
    let cpu = check(unsafe { libc::sched_getcpu() })?;
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `cpu` comes from the kernel; CPU_SET checks it against the set's size.
    unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    let size = size_of::<libc::cpu_set_t>();
    // SAFETY: `set` is a valid cpu_set_t of the given size; 0 means this thread.
    check(unsafe { libc::sched_setaffinity(0, size, &raw const set) }).map(drop)
}

fn socket(family: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: plain integers; the result is checked.
    let fd = check(unsafe { libc::socket(family, kind, protocol) })?;
    // SAFETY: the kernel has just given us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_option(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: i32) -> io::Result<()> {
    let size = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the option value points to `size` bytes that live through the call.
    let code =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), size) };
    check(code).map(drop)
}

/// The index of an interface of the calling thread's namespace.
pub fn interface_index(name: &str) -> io::Result<u32> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// A packet socket on one interface: sends whole frames, and receives what
/// arrives there (not what is sent from there).
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens it in the calling thread's namespace.
    pub fn open(interface: &str) -> io::Result<Self> {
        let index = interface_index(interface)?;
        // Protocol 0: nothing is queued before the socket is bound to its interface.
        let fd = socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        set_option(&fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20)?;
        // SAFETY: all-zero is a valid sockaddr_ll.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as i32;
        let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `address` is a sockaddr_ll of the given size and lives through the call.
        check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size) })?;
        Ok(Self(fd))
    }
    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and length describe `frame`, which is only read.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
    /// The next frame received, if one is there.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0_u8; 65_536];
        // SAFETY: the pointer and length describe `frame`, which the kernel fills.
        let got =
            unsafe { libc::recv(self.0.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        frame.truncate(usize::try_from(got).ok()?);
        Some(frame)
    }
}

/// A raw socket that sends whole IP packets from the local stack (OUTPUT).
#[derive(Debug)]
pub struct RawSocket {
    fd: OwnedFd,
    v6: bool,
}

impl RawSocket {
    /// Opens it in the calling thread's namespace.
    pub fn open(v6: bool) -> io::Result<Self> {
        let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
        let fd = socket(family, libc::SOCK_RAW, libc::IPPROTO_RAW)?;
        if v6 {
            set_option(&fd, libc::IPPROTO_IPV6, IPV6_HDRINCL, 1)?;
        } else {
            set_option(&fd, libc::SOL_SOCKET, libc::SO_BROADCAST, 1)?;
        }
        Ok(Self { fd, v6 })
    }
    /// Sends one IP packet to the destination in its header.
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        if self.v6 { self.send_v6(packet, 0) } else { self.send_v4(packet) }
    }
    /// The same for one to a group or to a link-local address: out of the interface
    /// with that index, without a copy for listeners here.
    pub fn send_on(&self, packet: &[u8], interface: u32) -> io::Result<()> {
        let index = interface as i32;
        if self.v6 {
            set_option(&self.fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, 0)?;
            set_option(&self.fd, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, index)?;
            return self.send_v6(packet, interface);
        }
        let zero = libc::in_addr { s_addr: 0 };
        let request = libc::ip_mreqn { imr_multiaddr: zero, imr_address: zero, imr_ifindex: index };
        let size = size_of::<libc::ip_mreqn>() as libc::socklen_t;
        set_option(&self.fd, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 0)?;
        let (fd, name) = (self.fd.as_raw_fd(), libc::IP_MULTICAST_IF);
        let value = (&raw const request).cast();
        // SAFETY: the option value is an ip_mreqn of the given size that lives through the call.
        check(unsafe { libc::setsockopt(fd, libc::IPPROTO_IP, name, value, size) })?;
        self.send_v4(packet)
    }
    fn send_v4(&self, packet: &[u8]) -> io::Result<()> {
        // SAFETY: all-zero is a valid sockaddr_in.
        let mut to: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        to.sin_family = libc::AF_INET as u16;
        let destination: [u8; 4] = packet[16..20].try_into().expect("four bytes");
        to.sin_addr.s_addr = u32::from_ne_bytes(destination);
        self.send_to(packet, (&raw const to).cast(), size_of::<libc::sockaddr_in>())
    }
    fn send_v6(&self, packet: &[u8], scope: u32) -> io::Result<()> {
        // SAFETY: all-zero is a valid sockaddr_in6.
        let mut to: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
        to.sin6_family = libc::AF_INET6 as u16;
        to.sin6_scope_id = scope;
        to.sin6_addr.s6_addr = packet[24..40].try_into().expect("sixteen bytes");
        self.send_to(packet, (&raw const to).cast(), size_of::<libc::sockaddr_in6>())
    }
    fn send_to(&self, packet: &[u8], to: *const libc::sockaddr, size: usize) -> io::Result<()> {
        // SAFETY: `packet` is only read; `to` points to a socket address of `size`
        // bytes on the caller's stack, which outlives the call.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                to,
                size as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
