//! The system calls of AF_XDP, each behind a safe function.

#![allow(unsafe_code, reason = "libc takes raw pointers and descriptors")]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Socket option: frames the kernel sends for one wakeup (Linux 6.17; not in libc yet).
pub(super) const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Attach flag: by the driver.
pub(super) const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
/// Attach flag: by the network stack.
pub(super) const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;

/// Any bits are a value of these plain kernel structures, and none has padding.
pub(super) trait Plain: Copy {}
impl Plain for u32 {}
impl Plain for libc::xdp_umem_reg {}
impl Plain for libc::xdp_mmap_offsets {}
impl Plain for libc::xdp_statistics {}
impl Plain for libc::xdp_options {}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Takes a descriptor that a system call just returned.
fn owned(descriptor: libc::c_int) -> io::Result<OwnedFd> {
    check(descriptor)?;
    // SAFETY: the kernel has just opened it for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Opens an AF_XDP socket.
pub(super) fn socket() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    owned(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })
}

/// Sets an option of level `SOL_XDP`.
pub(super) fn set_option<T: Plain>(
    socket: BorrowedFd<'_>,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the pointer and the length describe `value`, which is only read.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, name, value, len) })
}

/// Reads an option of level `SOL_XDP`.
pub(super) fn get_option<T: Plain>(socket: BorrowedFd<'_>, name: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    let (fd, place) = (socket.as_raw_fd(), value.as_mut_ptr().cast());
    // SAFETY: the pointers describe `value` and `len`; the kernel writes no more than `len`.
    check(unsafe { libc::getsockopt(fd, libc::SOL_XDP, name, place, &mut len) })?;
    // SAFETY: zeroed before, and any bits are a `T`.
    Ok(unsafe { value.assume_init() })
}

/// Binds a socket to a queue of a device. `shared` is the socket whose memory it uses.
pub(super) fn bind(
    socket: BorrowedFd<'_>,
    ifindex: u32,
    queue: u32,
    flags: u16,
    shared: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: ifindex,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: shared.map_or(0, |fd| fd.as_raw_fd() as u32),
    };
    let len = size_of_val(&address) as libc::socklen_t;
    let address = std::ptr::from_ref(&address).cast();
    // SAFETY: the pointer and the length describe `address`, which is only read.
    check(unsafe { libc::bind(socket.as_raw_fd(), address, len) })
}

/// Makes a device take frames for every MAC address as long as the returned
/// socket is open, however the process ends. The socket itself receives nothing.
pub(super) fn promiscuous(ifindex: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers. Protocol 0 receives no frames.
    let socket =
        owned(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    let request = libc::packet_mreq {
        mr_ifindex: ifindex as libc::c_int,
        mr_type: libc::PACKET_MR_PROMISC as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let len = size_of_val(&request) as libc::socklen_t;
    let (fd, value) = (socket.as_raw_fd(), std::ptr::from_ref(&request).cast());
    let (level, name) = (libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP);
    // SAFETY: the pointer and the length describe `request`, which is only read.
    check(unsafe { libc::setsockopt(fd, level, name, value, len) })?;
    Ok(socket)
}

/// Lets the kernel send what is in the transmit ring.
pub(super) fn wake_transmit(socket: BorrowedFd<'_>) -> io::Result<()> {
    let (fd, none) = (socket.as_raw_fd(), std::ptr::null());
    // SAFETY: a null buffer of length zero and no address.
    let sent = unsafe { libc::sendto(fd, none, 0, libc::MSG_DONTWAIT, none.cast(), 0) };
    check(sent as libc::c_int)
}

/// Lets the kernel look at the fill ring; says whether the device is still there.
pub(super) fn wake_receive(socket: BorrowedFd<'_>) -> io::Result<()> {
    let (fd, none) = (socket.as_raw_fd(), std::ptr::null_mut());
    // SAFETY: a null buffer of length zero.
    let received = unsafe { libc::recv(fd, none, 0, libc::MSG_DONTWAIT) };
    check(received as libc::c_int)
}

/// The index of an interface.
pub(super) fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: a string that ends in zero and outlives the call.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// `struct ethtool_channels`, which libc does not have.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    max: [u32; 4],
    receive: u32,
    transmit: u32,
    other: u32,
    combined: u32,
}

/// Queues that a device uses now (`ethtool -l`): the larger of receive and transmit.
pub(super) fn channels(name: &str) -> io::Result<u32> {
    const ETHTOOL_GCHANNELS: u32 = 0x3c;
    let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
    ethtool(name, &mut channels)?;
    Ok(channels.combined + channels.receive.max(channels.transmit))
}

/// Whether a device takes VLAN tags out of the frames it receives (`ethtool -k`, rxvlan).
pub(super) fn strips_vlan_tags(name: &str) -> io::Result<bool> {
    const ETHTOOL_GFLAGS: u32 = 0x25;
    const ETH_FLAG_RXVLAN: u32 = 1 << 8;
    let mut value = [ETHTOOL_GFLAGS, 0];
    ethtool(name, &mut value)?;
    Ok(value[1] & ETH_FLAG_RXVLAN != 0)
}

/// Entries of an indirection table at most.
const QUEUES_MAX: usize = 2048;
/// Words of a hash key at most.
const KEY_WORDS: usize = 16;

/// `struct ethtool_rxfh` with room for the table and the key.
#[repr(C)]
struct Rxfh {
    command: u32,
    context: u32,
    table: u32,
    key: u32,
    function: u8,
    transform: u8,
    reserved: [u8; 6],
    rest: [u32; QUEUES_MAX + KEY_WORDS],
}

/// How a device chooses a receive queue.
pub(super) struct ReceiveHash {
    /// Bit of the hash function.
    pub(super) function: u8,
    /// Bits of what is done to the input before hashing (symmetric hashing).
    pub(super) transform: u8,
    /// The function's key.
    pub(super) key: Vec<u8>,
    /// The queue of each part of the hash.
    pub(super) queues: Vec<u32>,
}

/// Hash function, key and indirection table of a device's receive queues (`ethtool -x`).
pub(super) fn receive_hash(name: &str) -> io::Result<ReceiveHash> {
    const ETHTOOL_GRSSH: u32 = 0x46;
    let blank = || Rxfh {
        command: ETHTOOL_GRSSH,
        context: 0,
        table: 0,
        key: 0,
        function: 0,
        transform: 0,
        reserved: [0; 6],
        rest: [0; QUEUES_MAX + KEY_WORDS],
    };
    let mut sizes = blank();
    ethtool(name, &mut sizes)?;
    let (table, key) = (sizes.table as usize, sizes.key as usize);
    if table > QUEUES_MAX || key > KEY_WORDS * 4 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut answer = Rxfh { table: sizes.table, key: sizes.key, ..blank() };
    ethtool(name, &mut answer)?;
    let words = answer.rest[table..].iter();
    Ok(ReceiveHash {
        function: answer.function,
        transform: answer.transform,
        key: words.flat_map(|word| word.to_ne_bytes()).take(key).collect(),
        queues: answer.rest[..table].to_vec(),
    })
}

/// Whether a device hashes the ports of a flow type besides its addresses
/// (`ethtool -n DEVICE rx-flow-hash tcp4`).
pub(super) fn hashes_ports(name: &str, flow: u32) -> io::Result<bool> {
    const ETHTOOL_GRXFH: u32 = 0x29;
    const ADDRESSES_AND_PORTS: u64 = 0xf0;
    // `struct ethtool_rxnfc`: command, flow type, 64 bits of data, and a filter.
    let mut value = [0_u64; 26];
    value[0] = u64::from_ne_bytes(
        [ETHTOOL_GRXFH.to_ne_bytes(), flow.to_ne_bytes()].concat().try_into().unwrap_or_default(),
    );
    ethtool(name, &mut value)?;
    Ok(value[1] & ADDRESSES_AND_PORTS == ADDRESSES_AND_PORTS)
}

/// One ethtool request; `T` starts with its command, and the kernel knows its size by that.
pub(super) fn ethtool<T>(name: &str, value: &mut T) -> io::Result<()> {
    // SAFETY: takes no pointers.
    let socket = owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0) })?;
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut ifr_name = [0; libc::IFNAMSIZ];
    for (to, from) in ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_data: std::ptr::from_mut(value).cast() };
    let mut request = libc::ifreq { ifr_name, ifr_ifru };
    // SAFETY: `request` names the device and points to `value`, which is the
    // structure of its command; both outlive the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &mut request) })
}

/// Where on a device a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::port) enum TcxHook {
    /// Before the stack receives.
    Ingress,
    /// Behind what the stack sends.
    Egress,
}

/// Attaches an XDP program to a device by a `bpf_link`: it is gone when the
/// descriptor is. Unlike the library's, this never falls back to netlink,
/// whose attachments would outlive us.
pub(super) fn attach_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    const BPF_XDP: u32 = 37;
    create_link(program, ifindex, BPF_XDP, flags)
}

/// The same for a tcx program.
pub(in crate::port) fn attach_tcx(
    program: BorrowedFd<'_>,
    ifindex: u32,
    hook: TcxHook,
) -> io::Result<OwnedFd> {
    let attach_type = match hook {
        TcxHook::Ingress => 46,
        TcxHook::Egress => 47,
    };
    create_link(program, ifindex, attach_type, 0)
}

fn create_link(
    program: BorrowedFd<'_>,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    /// The start of `union bpf_attr` for this command; the rest is zero.
    #[repr(C)]
    struct LinkCreate {
        program: u32,
        ifindex: u32,
        attach_type: u32,
        flags: u32,
        rest: [u64; 4],
    }
    const BPF_LINK_CREATE: libc::c_long = 28;
    let attributes = LinkCreate {
        program: program.as_raw_fd() as u32,
        ifindex,
        attach_type,
        flags,
        rest: [0; 4],
    };
    let (pointer, len) = (std::ptr::from_ref(&attributes), size_of_val(&attributes));
    // SAFETY: the pointer and the length describe `attributes`, which is only read.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, pointer, len) };
    owned(fd as libc::c_int)
}
