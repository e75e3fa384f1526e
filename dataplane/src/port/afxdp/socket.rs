//! An AF_XDP socket: its descriptor, its four rings, and how it ends.
//!
//! Every frame that a socket has is in one of its rings or in the kernel, is
//! counted as lent by the pool, and stands in the [`Ledger`] of the port. The
//! rings are mappings of the descriptor: the kernel releases the socket when the
//! last of them is gone ([`BoundSocket::close`]), and only then are the frames ours
//! again that it had not given back.

#![allow(unsafe_code, reason = "frames come back from the kernel as addresses")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::ledger::Ledger;
use super::ring::{Consumer, Layout, Producer};
use super::umem::{self, Place};
use super::{AfxdpError, sys};
use crate::port::{AttachMode, CHUNK, Description, Frame, Pool, PortStatistics};

/// Frames that copy mode sends for one wakeup, when the kernel lets us choose.
const TX_BUDGET: u32 = 512;
/// Chunks that filling leaves for frames made here.
const RESERVE: usize = 64;

/// The descriptor. Shared with observers that only read statistics.
#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Any descriptor in the place of a socket, for tests without the kernel.
    #[cfg(test)]
    pub(super) fn of(fd: OwnedFd) -> Self {
        Self { fd }
    }
    pub(super) fn bind(
        &self,
        ifindex: u32,
        queue: u32,
        flags: u16,
        owner: Option<&Self>,
    ) -> io::Result<()> {
        sys::bind(self.fd.as_fd(), ifindex, queue, flags, owner.map(|owner| owner.fd.as_fd()))
    }
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
    /// Whether it is bound to a device that is there.
    pub(super) fn is_bound(&self) -> bool {
        !matches!(sys::wake_receive(self.fd()), Err(error) if error.raw_os_error() == Some(libc::ENXIO))
    }
    pub(super) fn statistics(&self) -> PortStatistics {
        // Only a closed socket refuses, and this one is open.
        let Ok(kernel) = sys::get_option::<libc::xdp_statistics>(self.fd(), libc::XDP_STATISTICS)
        else {
            return PortStatistics::default();
        };
        PortStatistics {
            rx_dropped: kernel.rx_dropped,
            rx_invalid: kernel.rx_invalid_descs,
            tx_invalid: kernel.tx_invalid_descs,
            rx_ring_full: kernel.rx_ring_full,
            fill_ring_empty: kernel.rx_fill_ring_empty_descs,
            tx_ring_empty: kernel.tx_ring_empty_descs,
            ..PortStatistics::default()
        }
    }
}

/// The rings of a socket.
#[derive(Debug)]
pub(super) struct Rings {
    pub(super) fill: Producer<u64>,
    pub(super) completion: Consumer<u64>,
    pub(super) receive: Consumer<libc::xdp_desc>,
    pub(super) transmit: Producer<libc::xdp_desc>,
}

impl Rings {
    /// Opens a socket, registers memory with it if given, and maps its rings
    /// of `size` entries each.
    pub(super) fn create(
        device: &str,
        register: Option<libc::xdp_umem_reg>,
        size: u32,
    ) -> Result<(Socket, Self), AfxdpError> {
        let failed =
            |call| move |source| AfxdpError::Call { device: device.to_owned(), call, source };
        let fd = sys::socket().map_err(failed("socket(AF_XDP)"))?;
        let socket = fd.as_fd();
        if let Some(registration) = register {
            sys::set_option(socket, libc::XDP_UMEM_REG, &registration)
                .map_err(failed("XDP_UMEM_REG"))?;
        }
        for (option, call) in [
            (libc::XDP_UMEM_FILL_RING, "XDP_UMEM_FILL_RING"),
            (libc::XDP_UMEM_COMPLETION_RING, "XDP_UMEM_COMPLETION_RING"),
            (libc::XDP_RX_RING, "XDP_RX_RING"),
            (libc::XDP_TX_RING, "XDP_TX_RING"),
        ] {
            sys::set_option(socket, option, &size).map_err(failed(call))?;
        }
        let offsets: libc::xdp_mmap_offsets =
            sys::get_option(socket, libc::XDP_MMAP_OFFSETS).map_err(failed("XDP_MMAP_OFFSETS"))?;
        let map = |layout: &Layout, bytes: usize, at: u64| {
            debug_assert!(bytes > layout.entries);
            memmap2::MmapOptions::new().offset(at).len(bytes).populate().map_raw(&fd)
        };
        let fill = layout(&offsets.fr);
        let fill_map = map(&fill, fill.bytes::<u64>(size), libc::XDP_UMEM_PGOFF_FILL_RING);
        let completion = layout(&offsets.cr);
        let completion_map =
            map(&completion, completion.bytes::<u64>(size), libc::XDP_UMEM_PGOFF_COMPLETION_RING);
        let receive = layout(&offsets.rx);
        let receive_map =
            map(&receive, receive.bytes::<libc::xdp_desc>(size), libc::XDP_PGOFF_RX_RING as u64);
        let transmit = layout(&offsets.tx);
        let transmit_map =
            map(&transmit, transmit.bytes::<libc::xdp_desc>(size), libc::XDP_PGOFF_TX_RING as u64);
        let rings = Self {
            fill: Producer::new(fill_map.map_err(failed("mmap(fill ring)"))?, fill, size)?,
            completion: Consumer::new(
                completion_map.map_err(failed("mmap(completion ring)"))?,
                completion,
                size,
            )?,
            receive: Consumer::new(
                receive_map.map_err(failed("mmap(receive ring)"))?,
                receive,
                size,
            )?,
            transmit: Producer::new(
                transmit_map.map_err(failed("mmap(transmit ring)"))?,
                transmit,
                size,
            )?,
        };
        Ok((Socket { fd }, rings))
    }

    /// Lends up to `wanted` frames to the fill ring; returns how many.
    pub(super) fn lend(&mut self, pool: &mut Pool, ledger: &mut Ledger, wanted: u32) -> u32 {
        let room = self.fill.space(wanted).min(wanted);
        let mut lent = 0;
        while lent < room && pool.free() > RESERVE {
            let Some(frame) = pool.take() else { break };
            // The kernel puts its headroom before the frame, from the chunk's start.
            let (address, _) = pool.lend(frame);
            let chunk = address / CHUNK as u64;
            ledger.enter(chunk as u32);
            let pushed = self.fill.push(chunk * CHUNK as u64);
            debug_assert!(pushed, "there was room");
            lent += 1;
        }
        if lent > 0 {
            self.fill.publish();
        }
        lent
    }

    /// Lends a frame to the transmit ring, unless it is full.
    #[inline]
    pub(super) fn send(
        &mut self,
        pool: &mut Pool,
        ledger: &mut Ledger,
        frame: Frame,
    ) -> Result<(), Frame> {
        if self.transmit.space(1) == 0 {
            return Err(frame);
        }
        let (addr, len) = pool.lend(frame);
        ledger.enter((addr / CHUNK as u64) as u32);
        let pushed = self.transmit.push(libc::xdp_desc { addr, len, options: 0 });
        debug_assert!(pushed, "there was room");
        Ok(())
    }

    /// Gives completed frames back to the pool; returns how many, and how many
    /// addresses made no sense.
    pub(super) fn reap(&mut self, pool: &mut Pool, ledger: &mut Ledger) -> (usize, u64) {
        let (mut count, mut bad) = (0, 0);
        while let Some(address) = self.completion.pop() {
            count += 1;
            match adopt(pool, ledger, address - address % CHUNK as u64, 0) {
                Some(frame) => pool.put(frame),
                None => bad += 1,
            }
        }
        if count > 0 {
            self.completion.release();
        }
        (count, bad)
    }
}

/// Makes a frame of what the kernel gave back. `None` when it never got it, or
/// gave it back before, or when the length makes no sense.
#[inline]
pub(super) fn adopt(pool: &mut Pool, ledger: &mut Ledger, address: u64, len: u32) -> Option<Frame> {
    if !ledger.strike(address / CHUNK as u64) {
        return None;
    }
    // SAFETY: it stood in the ledger, so it was lent and not taken back since; the
    // kernel hands over what it is done with.
    let frame = unsafe { pool.adopt(address, len) };
    if frame.is_none() {
        // Its length made no sense: the chunk itself is ours again.
        ledger.enter((address / CHUNK as u64) as u32);
    }
    frame
}

/// Gives the pool everything that stands in the ledger of a closed socket;
/// returns how many chunks.
pub(super) fn recover(pool: &mut Pool, ledger: &mut Ledger, _proof: &Closed) -> usize {
    let (mut count, mut from) = (0, 0);
    while let Some(chunk) = ledger.strike_next(from) {
        // SAFETY: it stood in the ledger, so it was lent and not taken back since, and
        // the kernel has closed the socket: nobody will hand it over any more.
        if let Some(frame) = unsafe { pool.adopt(u64::from(chunk) * CHUNK as u64, 0) } {
            pool.put(frame);
            count += 1;
        }
        from = chunk + 1;
    }
    count
}

fn layout(offset: &libc::xdp_ring_offset) -> Layout {
    Layout {
        producer: offset.producer as usize,
        consumer: offset.consumer as usize,
        flags: offset.flags as usize,
        entries: offset.desc as usize,
    }
}

/// A socket at work on one queue of one device.
#[derive(Debug)]
pub struct BoundSocket {
    serial: u64,
    socket: Arc<Socket>,
    pub(super) rings: Rings,
    device: String,
    ifindex: u32,
    queue: u32,
    attach: AttachMode,
    zero_copy: bool,
    need_wakeup: bool,
    tx_budget: Option<u32>,
}

/// Proof that a socket is closed and that the kernel has let go of its frames.
#[derive(Debug)]
#[must_use = "the frames it had are still to be recovered"]
pub struct Closed {
    serial: u64,
}

impl BoundSocket {
    /// Wraps a socket that is bound, asking the kernel what it really got.
    pub(super) fn new(
        socket: Arc<Socket>,
        rings: Rings,
        place: Place<'_>,
    ) -> Result<Self, AfxdpError> {
        let options: libc::xdp_options =
            sys::get_option(socket.fd(), libc::XDP_OPTIONS).map_err(|source| AfxdpError::Call {
                device: place.link.name.clone(),
                call: "XDP_OPTIONS",
                source,
            })?;
        let zero_copy = options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
        let budget = TX_BUDGET.min(place.ring_size);
        let raised = sys::set_option(socket.fd(), sys::XDP_MAX_TX_SKB_BUDGET, &budget).is_ok();
        let mut bound = Self::of(socket, rings, place);
        // Copy mode sets the flag from the start and never clears it.
        bound.need_wakeup |= zero_copy;
        bound.zero_copy = zero_copy;
        bound.tx_budget = (raised && !zero_copy).then_some(budget);
        Ok(bound)
    }

    /// Without asking the kernel anything.
    pub(super) fn of(socket: Arc<Socket>, rings: Rings, place: Place<'_>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            serial: NEXT.fetch_add(1, Ordering::Relaxed),
            need_wakeup: rings.transmit.needs_wakeup(),
            socket,
            rings,
            device: place.link.name.clone(),
            ifindex: place.link.ifindex,
            queue: place.queue,
            attach: place.attach,
            zero_copy: false,
            tx_budget: None,
        }
    }

    /// Closes the socket. Blocks for as long as the kernel takes to let go of its
    /// frames: in copy mode that is done when `close` returns, also when the device went
    /// away before; a zero-copy driver is done when its queue can be bound anew.
    ///
    /// # Errors
    /// What can be asked again later, when the driver does not let go.
    pub fn close(self) -> Result<Closed, Closing> {
        let Self { serial, mut socket, rings, ifindex, queue, zero_copy, .. } = self;
        drop(rings);
        // Observers hold it for the time of one system call.
        while let Err(shared) = Arc::try_unwrap(socket) {
            socket = shared;
            std::thread::yield_now();
        }
        Closing { serial, busy: zero_copy.then_some((ifindex, queue)) }.finish()
    }
    /// Reads statistics from other threads, as long as the socket is open.
    pub fn observer(&self) -> Observer {
        Observer { socket: Arc::downgrade(&self.socket), description: self.description() }
    }
    /// The descriptor, to be put into the program's map.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }
    /// The queue it is bound to.
    pub fn queue(&self) -> u32 {
        self.queue
    }
    /// The device it is bound to.
    pub fn device(&self) -> &str {
        &self.device
    }
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }
    /// What it is and how it really runs.
    pub fn description(&self) -> Description {
        Description::AfXdp {
            device: self.device.clone(),
            ifindex: self.ifindex,
            queue: self.queue,
            attach: self.attach,
            zero_copy: self.zero_copy,
            need_wakeup: self.need_wakeup,
            tx_budget: self.tx_budget,
        }
    }
}

/// A zero-copy socket that is closed and that the driver still holds.
#[derive(Debug)]
pub struct Closing {
    serial: u64,
    /// The device's index and the queue, until it is known to be free.
    busy: Option<(u32, u32)>,
}

impl Closing {
    /// A socket that was never bound, or not to a device that is there still.
    pub(super) fn of_unbound(socket: Socket, rings: Rings) -> Closed {
        drop(rings);
        drop(socket);
        Closed { serial: 0 }
    }
    /// Asks (again) whether the kernel has let go.
    ///
    /// # Errors
    /// Itself, when it has not.
    pub fn finish(self) -> Result<Closed, Self> {
        match self.busy {
            Some((ifindex, queue)) if !umem::is_free(ifindex, queue) => Err(self),
            _ => Ok(Closed { serial: self.serial }),
        }
    }
}

impl Closed {
    pub(super) fn serial(&self) -> u64 {
        self.serial
    }
}

/// Reads a port's kernel statistics from another thread. Does not keep the
/// socket open.
#[derive(Clone, Debug)]
pub struct Observer {
    socket: Weak<Socket>,
    description: Description,
}

impl Observer {
    /// The kernel's counters; `None` once the port is closed. What the port
    /// itself counts stays zero.
    pub fn statistics(&self) -> Option<PortStatistics> {
        self.socket.upgrade().map(|socket| socket.statistics())
    }
    /// What the port is and how it really runs.
    pub fn description(&self) -> &Description {
        &self.description
    }
}
