//! Registering a worker's pool with the kernel, once for all its ports where possible.
//!
//! The first socket of a worker registers the memory; the others share that
//! registration, so a frame received on one port is sent on another as it lies.
//! A registration is either zero-copy or copy: its owner's bind decides. When
//! devices differ, the same memory is registered a second time, and frames still
//! cross without a copy in user space.

use std::io;
use std::sync::Arc;

use super::socket::{Rings, Socket};
use super::{AfxdpError, AfxdpPort, CopyMode, LinkInfo};
use crate::port::{AttachMode, CHUNK, HEADROOM, Memory, Pool};

/// How long a bind is repeated while the kernel still releases an older socket
/// of the same queue: it does so after the socket was closed.
const BUSY_RETRIES: u32 = 100;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// The registrations of one worker's pool.
#[derive(Debug, Default)]
pub(super) struct Umem {
    copy: Option<Arc<Socket>>,
    zero_copy: Option<Arc<Socket>>,
}

/// What a port is opened on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) link: &'a LinkInfo,
    pub(super) attach: AttachMode,
    pub(super) queue: u32,
    pub(super) ring_size: u32,
}

impl Umem {
    /// Opens a socket on a queue, in the best mode that `copy` allows.
    pub(super) fn open(
        &mut self,
        pool: &mut Pool,
        place: Place<'_>,
        copy: CopyMode,
    ) -> Result<AfxdpPort, AfxdpError> {
        // Zero-copy needs the driver's own XDP support.
        let try_zero_copy = match copy {
            CopyMode::Copy => false,
            CopyMode::Auto => place.attach != AttachMode::Generic,
            CopyMode::ZeroCopy => true,
        };
        if try_zero_copy {
            match attempt(&mut self.zero_copy, pool, place, libc::XDP_ZEROCOPY) {
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
        attempt(&mut self.copy, pool, place, libc::XDP_COPY)
    }
}

/// Whether a refusal means that the device has no zero-copy support, for this
/// socket or beside the registration's owner.
fn cannot(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL))
}

/// Opens a socket that shares `owner`'s registration, or makes it the owner.
fn attempt(
    owner: &mut Option<Arc<Socket>>,
    pool: &mut Pool,
    place: Place<'_>,
    mode: u16,
) -> Result<AfxdpPort, AfxdpError> {
    let device = &place.link.name;
    let register = owner.is_none().then(|| registration(pool.memory()));
    let (socket, mut rings) = Rings::create(device, register, place.ring_size)?;
    // A zero-copy driver takes frames from the fill ring while it binds.
    rings.fill(pool, place.ring_size);
    // One that shares must pass no other flag: it inherits them.
    let flags = match owner {
        Some(_) => libc::XDP_SHARED_UMEM,
        None => mode | libc::XDP_USE_NEED_WAKEUP,
    };
    if let Err(source) = bind_patiently(&socket, place, flags, owner.as_deref()) {
        rings.abandon(pool);
        return Err(refusal(place, source));
    }
    let socket = Arc::new(socket);
    let port = AfxdpPort::bound(Arc::clone(&socket), rings, pool, place)?;
    owner.get_or_insert(socket);
    Ok(port)
}

fn registration(memory: &Memory) -> libc::xdp_umem_reg {
    libc::xdp_umem_reg {
        addr: memory.address(),
        len: memory.size() as u64,
        chunk_size: CHUNK as u32,
        // The kernel keeps its own headroom of the same size as ours.
        headroom: const { HEADROOM as u32 - 256 },
        flags: 0,
        tx_metadata_len: 0,
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
