//! Registering a worker's pool with the kernel, once for all its ports where possible.
//!
//! The first socket of a worker registers the memory; the others share that
//! registration, so a frame received on one port is sent on another as it lies.
//! A registration is either zero-copy or copy: its first socket's bind decides. When
//! devices differ, the same memory is registered a second time, and frames still
//! cross without a copy in user space. A registration lives as long as any of its
//! sockets, and any of them can be shared with; when the last is gone, the next
//! socket registers the memory again.

use std::io;
use std::sync::{Arc, Weak};

use super::ledger::Ledger;
use super::socket::{BoundSocket, Closing, Rings, Socket, recover};
use super::{AfxdpError, CopyMode, LinkInfo};
use crate::port::{Area, AttachMode, CHUNK, HEADROOM, Pool};

/// How long a bind is repeated while the kernel still releases an older socket
/// of the same queue: it does so after the socket was closed.
const BUSY_RETRIES: u32 = 100;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// The registrations of one worker's pool.
#[derive(Debug)]
pub(super) struct Umem {
    area: Area,
    copy: Registration,
    zero_copy: Registration,
}

/// The sockets of one registration, those of closed ports too.
type Registration = Vec<Weak<Socket>>;

/// Frames that a socket is given before it is bound.
pub(super) type Filling<'a> = Option<(&'a mut Pool, &'a mut Ledger)>;

/// What a port is opened on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) link: &'a LinkInfo,
    pub(super) attach: AttachMode,
    pub(super) queue: u32,
    pub(super) ring_size: u32,
}

impl Umem {
    pub(super) fn new(area: Area) -> Self {
        Self { area, copy: Vec::new(), zero_copy: Vec::new() }
    }

    /// Opens a socket on a queue, in the best mode that `copy` allows. Without a
    /// pool to fill its ring from, its worker does so later.
    pub(super) fn open(
        &mut self,
        mut filling: Filling<'_>,
        place: Place<'_>,
        copy: CopyMode,
    ) -> Result<BoundSocket, AfxdpError> {
        // Zero-copy needs the driver's own XDP support.
        let try_zero_copy = match copy {
            CopyMode::Copy => false,
            CopyMode::Auto => place.attach != AttachMode::Generic,
            CopyMode::ZeroCopy => true,
        };
        if try_zero_copy {
            let sharers = &mut self.zero_copy;
            match attempt(&self.area, sharers, &mut filling, place, libc::XDP_ZEROCOPY) {
                Ok(port) => return Ok(port),
                Err(AfxdpError::Bind { source, .. }) if cannot(&source) => {
                    if copy == CopyMode::ZeroCopy {
                        let device = place.link.name.clone();
                        return Err(AfxdpError::NoZeroCopy { device, queue: place.queue });
                    }
                }
                Err(error) => return Err(error),
            }
        }
        attempt(&self.area, &mut self.copy, &mut filling, place, libc::XDP_COPY)
    }
}

/// Whether a refusal means that the device has no zero-copy support, for this
/// socket or beside the registration's owner.
fn cannot(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
}

/// Opens a socket that shares the registration of `sharers`, or begins it.
fn attempt(
    area: &Area,
    sharers: &mut Registration,
    filling: &mut Filling<'_>,
    place: Place<'_>,
    mode: u16,
) -> Result<BoundSocket, AfxdpError> {
    sharers.retain(|socket| socket.strong_count() > 0);
    let device = &place.link.name;
    // Held until the new socket is bound. One whose device is gone is no help.
    let owner = sharers.iter().filter_map(Weak::upgrade).find(|socket| socket.is_bound());
    let register = owner.is_none().then(|| registration(area));
    let (socket, mut rings) = Rings::create(device, register, place.ring_size)?;
    // A zero-copy driver takes frames from the fill ring while it binds.
    if let Some((pool, ledger)) = filling {
        rings.lend(pool, ledger, place.ring_size);
    }
    // One that shares must pass no other flag: it inherits them.
    let flags = match owner {
        Some(_) => libc::XDP_SHARED_UMEM,
        None => mode | libc::XDP_USE_NEED_WAKEUP,
    };
    if let Err(source) = bind_patiently(&socket, place, flags, owner.as_deref()) {
        let closed = Closing::of_unbound(socket, rings);
        if let Some((pool, ledger)) = filling {
            recover(pool, ledger, &closed);
        }
        return Err(refusal(place, source));
    }
    let socket = Arc::new(socket);
    sharers.push(Arc::downgrade(&socket));
    BoundSocket::new(socket, rings, place)
}

fn registration(area: &Area) -> libc::xdp_umem_reg {
    libc::xdp_umem_reg {
        addr: area.address(),
        len: area.size() as u64,
        chunk_size: CHUNK as u32,
        // The kernel keeps its own headroom of the same size as ours.
        headroom: const { HEADROOM as u32 - 256 },
        flags: 0,
        tx_metadata_len: 0,
    }
}

/// Whether a queue can be bound, or its device is gone: then no driver holds memory
/// for it. Asked with a socket and memory made for the purpose; when that cannot be
/// had, the answer is no.
pub(super) fn is_free(ifindex: u32, queue: u32) -> bool {
    const SIZE: u32 = 64;
    let Ok(pool) = Pool::new(SIZE as usize, false) else { return false };
    let register = Some(registration(&pool.memory().area()));
    let Ok((socket, _rings)) = Rings::create("a queue", register, SIZE) else { return false };
    match socket.bind(ifindex, queue, libc::XDP_COPY, None) {
        Ok(()) => true,
        Err(error) => matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EINVAL)),
    }
}

fn bind_patiently(
    socket: &Socket,
    place: Place<'_>,
    flags: u16,
    owner: Option<&Socket>,
) -> io::Result<()> {
    let mut attempts = 0;
    loop {
        let result = socket.bind(place.link.ifindex, place.queue, flags, owner);
        match result {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && attempts < BUSY_RETRIES => {
                attempts += 1;
                std::thread::sleep(BUSY_PAUSE);
            }
            result => return result,
        }
    }
}

fn refusal(place: Place<'_>, source: io::Error) -> AfxdpError {
    let (device, queue) = (place.link.name.clone(), place.queue);
    match source.raw_os_error() {
        Some(libc::EBUSY) => AfxdpError::QueueBusy { device, queue },
        Some(libc::ENODEV) => AfxdpError::NoDevice { device, source },
        _ => AfxdpError::Bind { device, queue, source },
    }
}
