//! One AF_XDP socket as a [`Port`]: a queue of a device, its four rings, and
//! the system calls that keep them moving.
//!
//! Every frame that the socket has is in one of its rings or in the kernel, and
//! is counted as lent by the pool. The fill ring is kept full as frames arrive.
//! Dropping the port closes the socket; what it had lent is lost to that pool,
//! so a port that failed is replaced together with its worker's pool.

#![allow(unsafe_code, reason = "frames come back from the kernel as addresses")]

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use super::ring::{Consumer, Layout, Producer};
use super::umem::Place;
use super::{AfxdpError, sys};
use crate::clock::Nanos;
use crate::port::{
    AttachMode, Burst, CHUNK, Description, Frame, LinkState, Pool, Port, PortError, PortStatistics,
};

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
    fn statistics(&self) -> PortStatistics {
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
    fill: Producer<u64>,
    completion: Consumer<u64>,
    receive: Consumer<libc::xdp_desc>,
    transmit: Producer<libc::xdp_desc>,
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
    pub(super) fn fill(&mut self, pool: &mut Pool, wanted: u32) -> u32 {
        let room = self.fill.space(wanted).min(wanted);
        let mut lent = 0;
        while lent < room && pool.free() > RESERVE {
            let Some(frame) = pool.take() else { break };
            // The kernel puts its headroom before the frame, from the chunk's start.
            let (address, _) = pool.lend(frame);
            let pushed = self.fill.push(address - address % CHUNK as u64);
            debug_assert!(pushed, "there was room");
            lent += 1;
        }
        if lent > 0 {
            self.fill.publish();
        }
        lent
    }

    /// Takes the frames back from the fill ring of a socket that was never bound.
    pub(super) fn abandon(&mut self, pool: &mut Pool) {
        while let Some(address) = self.fill.unpush() {
            reclaim(pool, address);
        }
    }

    /// Gives completed frames back to the pool; returns how many, and how many
    /// addresses made no sense.
    fn reap(&mut self, pool: &mut Pool) -> (usize, u64) {
        let (mut count, mut bad) = (0, 0);
        while let Some(address) = self.completion.pop() {
            count += 1;
            bad += u64::from(!reclaim(pool, address));
        }
        if count > 0 {
            self.completion.release();
        }
        (count, bad)
    }
}

/// Makes a frame of a received descriptor. `None` when the address makes no sense.
fn adopt(pool: &mut Pool, address: u64, len: u32) -> Option<Frame> {
    // SAFETY: the kernel hands a chunk of the fill ring over once, in a receive
    // descriptor, and what is in the fill ring was lent.
    unsafe { pool.adopt(address, len) }
}

/// Gives a completed or abandoned chunk back to the pool. False when the
/// address makes no sense.
fn reclaim(pool: &mut Pool, address: u64) -> bool {
    // SAFETY: the kernel completes each transmit descriptor once, and what is in
    // the transmit ring was lent; an abandoned fill ring was never looked at.
    let frame = unsafe { pool.adopt(address - address % CHUNK as u64, 0) };
    frame.map(|frame| pool.put(frame)).is_some()
}

fn layout(offset: &libc::xdp_ring_offset) -> Layout {
    Layout {
        producer: offset.producer as usize,
        consumer: offset.consumer as usize,
        flags: offset.flags as usize,
        entries: offset.desc as usize,
    }
}

/// An AF_XDP socket on one queue of one device.
#[derive(Debug)]
pub struct AfxdpPort {
    socket: Arc<Socket>,
    rings: Rings,
    pool: u32,
    device: String,
    ifindex: u32,
    queue: u32,
    attach: AttachMode,
    zero_copy: bool,
    need_wakeup: bool,
    tx_budget: Option<u32>,
    /// Frames received and not yet replaced in the fill ring.
    unfilled: u32,
    /// Whether the transmit ring may hold frames that the kernel was not told of.
    unsent: bool,
    /// Entries written but not yet shown to the kernel.
    unpublished: bool,
    counts: PortStatistics,
}

impl AfxdpPort {
    /// Wraps a socket that is bound, asking the kernel what it really got.
    pub(super) fn bound(
        socket: Arc<Socket>,
        mut rings: Rings,
        pool: &Pool,
        place: Place<'_>,
    ) -> Result<Self, AfxdpError> {
        let device = place.link.name.clone();
        let options: libc::xdp_options =
            sys::get_option(socket.fd(), libc::XDP_OPTIONS).map_err(|source| AfxdpError::Call {
                device: device.clone(),
                call: "XDP_OPTIONS",
                source,
            })?;
        let zero_copy = options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
        let budget = TX_BUDGET.min(place.ring_size);
        let raised = sys::set_option(socket.fd(), sys::XDP_MAX_TX_SKB_BUDGET, &budget).is_ok();
        let unfilled = place.ring_size - rings.fill.pending();
        Ok(Self {
            // Copy mode sets the flag from the start and never clears it.
            need_wakeup: rings.transmit.needs_wakeup() || zero_copy,
            socket,
            rings,
            pool: pool.id(),
            device,
            ifindex: place.link.ifindex,
            queue: place.queue,
            attach: place.attach,
            zero_copy,
            tx_budget: (raised && !zero_copy).then_some(budget),
            unfilled,
            unsent: false,
            unpublished: false,
            counts: PortStatistics::default(),
        })
    }

    /// Reads statistics from other threads, as long as the port lives.
    pub fn observer(&self) -> Observer {
        Observer { socket: Arc::downgrade(&self.socket), description: self.description() }
    }
    /// The socket, to be put into the program's map.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.fd()
    }
    /// The queue it is bound to.
    pub fn queue(&self) -> u32 {
        self.queue
    }

    /// Turns a kernel's refusal into what the port does about it.
    fn judge(&self, call: &'static str, source: io::Error) -> Result<LinkState, PortError> {
        match source.raw_os_error() {
            // The device is gone: the kernel has unbound the socket.
            Some(libc::ENXIO) => Err(PortError::DeviceGone { device: self.device.clone() }),
            Some(libc::ENETDOWN) => Ok(LinkState::Down),
            // Nothing to do, no memory, or not now.
            Some(
                libc::EAGAIN
                | libc::EBUSY
                | libc::ENOBUFS
                | libc::EINTR
                | libc::EOPNOTSUPP
                | libc::ENOMEM,
            ) => Ok(LinkState::Up),
            _ => Err(PortError::Kernel { device: self.device.clone(), call, source }),
        }
    }

    /// Calls the kernel until the transmit ring is empty or a call takes nothing.
    fn wake(&mut self, pool: &mut Pool) -> Result<(), PortError> {
        let mut pending = self.rings.transmit.pending();
        while pending > 0 {
            self.counts.tx_wakeups += 1;
            if let Err(error) = sys::wake_transmit(self.socket.fd()) {
                match error.raw_os_error() {
                    // The budget is used up, or the completion ring is full.
                    Some(libc::EAGAIN) => {
                        self.reap(pool);
                    }
                    // One frame was refused, yet completed: go on with the next.
                    Some(libc::EBUSY) => self.counts.tx_refused += 1,
                    _ => {
                        self.judge("sendto", error)?;
                    }
                }
            }
            let left = self.rings.transmit.pending();
            if left >= pending {
                // No memory, or the link is down: the next flush tries again.
                break;
            }
            pending = left;
        }
        self.unsent = self.rings.transmit.pending() > 0;
        Ok(())
    }
}

impl Port for AfxdpPort {
    fn receive(
        &mut self,
        pool: &mut Pool,
        _now: Nanos,
        burst: &mut Burst,
    ) -> Result<usize, PortError> {
        assert_eq!(pool.id(), self.pool, "a port works with the pool it was opened with");
        let before = burst.len();
        while !burst.is_full() {
            let Some(descriptor) = self.rings.receive.pop() else { break };
            self.unfilled += 1;
            match adopt(pool, descriptor.addr, descriptor.len) {
                Some(frame) => burst.push(frame),
                None => self.counts.bad_address += 1,
            }
        }
        let count = burst.len() - before;
        if count > 0 {
            self.rings.receive.release();
        } else if self.rings.fill.needs_wakeup()
            && let Err(error) = sys::wake_receive(self.socket.fd())
        {
            self.judge("recvfrom", error)?;
        }
        Ok(count)
    }

    fn transmit(&mut self, pool: &mut Pool, frame: Frame) -> Result<(), Frame> {
        assert_eq!(pool.id(), self.pool, "a port works with the pool it was opened with");
        if self.rings.transmit.space(1) == 0 {
            self.counts.tx_full += 1;
            return Err(frame);
        }
        let (addr, len) = pool.lend(frame);
        let pushed = self.rings.transmit.push(libc::xdp_desc { addr, len, options: 0 });
        debug_assert!(pushed, "there was room");
        self.unpublished = true;
        Ok(())
    }

    fn flush(&mut self, pool: &mut Pool, _now: Nanos) -> Result<(), PortError> {
        if self.unpublished {
            self.rings.transmit.publish();
            self.unpublished = false;
            self.unsent = true;
        }
        if self.unsent {
            if self.rings.transmit.needs_wakeup() {
                self.wake(pool)?;
            } else {
                self.unsent = self.rings.transmit.pending() > 0;
            }
        }
        Ok(())
    }

    fn reap(&mut self, pool: &mut Pool) -> usize {
        let (count, bad) = self.rings.reap(pool);
        self.counts.bad_address += bad;
        count
    }

    fn fill(&mut self, pool: &mut Pool) -> usize {
        if self.unfilled == 0 {
            return 0;
        }
        let lent = self.rings.fill(pool, self.unfilled);
        self.unfilled -= lent;
        lent as usize
    }

    fn check(&mut self) -> Result<LinkState, PortError> {
        match sys::wake_receive(self.socket.fd()) {
            Ok(()) => Ok(LinkState::Up),
            Err(error) => self.judge("recvfrom", error),
        }
    }

    fn statistics(&self) -> PortStatistics {
        PortStatistics {
            tx_refused: self.counts.tx_refused,
            tx_full: self.counts.tx_full,
            tx_wakeups: self.counts.tx_wakeups,
            bad_address: self.counts.bad_address,
            ..self.socket.statistics()
        }
    }

    fn description(&self) -> Description {
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

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.fd())
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
