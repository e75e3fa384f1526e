//! Ports: where frames come from and go to.
//!
//! A [`Frame`] is a consumed token: whoever holds it owns a chunk of the
//! [`Pool`]; a full ring hands it back. One worker owns one pool and one port
//! object (one queue) for every port of the machine; nothing here is shared
//! between threads. All kinds of port run under the same worker: AF_XDP sockets,
//! queues in memory, captures, and any of them behind faults.

pub mod afxdp;
pub mod fault;
pub mod host;
pub mod management;
pub mod memory;
pub mod pcap;
mod poll;
pub mod pool;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use arrayvec::ArrayVec;

use crate::clock::Nanos;
use crate::engine::BURST;

use afxdp::{BoundSocket, Closed};
pub use poll::{POLLED_MAX, poll_readable};
pub use pool::{Area, CHUNK, Frame, HEADROOM, MAX_FRAME, Memory, Pool, PoolError};

/// Frames received together.
pub type Burst = ArrayVec<Frame, BURST>;

/// Why a port stopped working. Full rings and passing refusals are no errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// The network device no longer exists; new sockets are needed.
    #[error("device {device} is gone")]
    DeviceGone {
        /// Its name when the port was opened.
        device: String,
    },
    /// A system call failed in a way that is not passing.
    #[error("{call} on {device}: {source}")]
    Kernel {
        /// The device's name.
        device: String,
        /// The call.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A capture could not be read or written.
    #[error(transparent)]
    Capture(#[from] pcap::CaptureError),
}

/// Whether the link under a port carries frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Frames flow.
    Up,
    /// The device exists but is down; it may come back by itself.
    Down,
}

/// One queue of one port, owned by one worker.
///
/// A worker's turn is `reap`, `fill`, `receive`, then `transmit` for each frame
/// that goes out, then `flush` once.
pub trait Port {
    /// Appends received frames to `burst` until it is full or there are no
    /// more; returns how many were added.
    ///
    /// # Errors
    /// [`PortError`] when the port can no longer be used.
    fn receive(
        &mut self,
        pool: &mut Pool,
        now: Nanos,
        burst: &mut Burst,
    ) -> Result<usize, PortError>;

    /// Queues a frame for transmission.
    ///
    /// # Errors
    /// The frame itself when the queue is full: the caller owns it again.
    fn transmit(&mut self, pool: &mut Pool, frame: Frame) -> Result<(), Frame>;

    /// Tells the device that frames were queued. Costs nothing when none were.
    /// Returns how many frames it had taken and cannot send after all.
    ///
    /// # Errors
    /// [`PortError`] when the port can no longer be used.
    fn flush(&mut self, pool: &mut Pool, now: Nanos) -> Result<usize, PortError>;

    /// Gives frames that the device has finished sending back to the pool;
    /// returns how many.
    fn reap(&mut self, pool: &mut Pool) -> usize;

    /// Lends free frames to the device to receive into; returns how many.
    fn fill(&mut self, pool: &mut Pool) -> usize;

    /// Asks whether the device is still there and its link up. A system call
    /// for real devices: not for every turn.
    ///
    /// # Errors
    /// [`PortError`] when the port can no longer be used.
    fn check(&mut self) -> Result<LinkState, PortError>;

    /// Gives up its socket, if it has one, which is then closed by somebody who may wait.
    fn detach(&mut self) -> Option<Box<BoundSocket>> {
        None
    }

    /// Takes back the frames that a socket had when it was given up; returns how many.
    fn recover(&mut self, pool: &mut Pool, closed: &Closed) -> usize {
        let (_, _) = (pool, closed);
        0
    }

    /// Goes on with another socket.
    ///
    /// # Errors
    /// The socket, when the port has one, or has not recovered its frames, or needs none.
    fn attach(&mut self, socket: Box<BoundSocket>) -> Result<(), Box<BoundSocket>> {
        Err(socket)
    }

    /// Counters of the device queue.
    fn statistics(&self) -> PortStatistics;

    /// What this port is and how it really runs.
    fn description(&self) -> Description;

    /// A descriptor that becomes readable when frames arrive, if there is one.
    fn pollable(&self) -> Option<BorrowedFd<'_>>;
}

impl<P: Port + ?Sized> Port for Box<P> {
    fn receive(
        &mut self,
        pool: &mut Pool,
        now: Nanos,
        burst: &mut Burst,
    ) -> Result<usize, PortError> {
        (**self).receive(pool, now, burst)
    }
    fn transmit(&mut self, pool: &mut Pool, frame: Frame) -> Result<(), Frame> {
        (**self).transmit(pool, frame)
    }
    fn flush(&mut self, pool: &mut Pool, now: Nanos) -> Result<usize, PortError> {
        (**self).flush(pool, now)
    }
    fn reap(&mut self, pool: &mut Pool) -> usize {
        (**self).reap(pool)
    }
    fn fill(&mut self, pool: &mut Pool) -> usize {
        (**self).fill(pool)
    }
    fn check(&mut self) -> Result<LinkState, PortError> {
        (**self).check()
    }
    fn detach(&mut self) -> Option<Box<BoundSocket>> {
        (**self).detach()
    }
    fn recover(&mut self, pool: &mut Pool, closed: &Closed) -> usize {
        (**self).recover(pool, closed)
    }
    fn attach(&mut self, socket: Box<BoundSocket>) -> Result<(), Box<BoundSocket>> {
        (**self).attach(socket)
    }
    fn statistics(&self) -> PortStatistics {
        (**self).statistics()
    }
    fn description(&self) -> Description {
        (**self).description()
    }
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        (**self).pollable()
    }
}

/// Frames that a device queue lost, as the kernel's `XDP_STATISTICS` names
/// them, and what the port itself saw. All since the port was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStatistics {
    /// Frames dropped on receive for other reasons (too long for a chunk).
    pub rx_dropped: u64,
    /// Received descriptors that were invalid.
    pub rx_invalid: u64,
    /// Transmit descriptors that the kernel found invalid.
    pub tx_invalid: u64,
    /// Frames dropped because the receive ring was full: the worker is too slow.
    pub rx_ring_full: u64,
    /// Times the kernel found the fill ring empty: the pool is too small.
    pub fill_ring_empty: u64,
    /// Times the kernel found nothing to send.
    pub tx_ring_empty: u64,
    /// Frames that the device refused although they were completed (longer than the peer takes).
    pub tx_refused: u64,
    /// Frames handed back because the transmit queue was full.
    pub tx_full: u64,
    /// Frames that were taken for transmission and then could not be sent.
    pub tx_lost: u64,
    /// System calls made to wake the transmit side.
    pub tx_wakeups: u64,
    /// Descriptors of what the port had not lent: always zero with a sound kernel.
    pub bad_address: u64,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// By the driver, before a socket buffer exists.
    Native,
    /// By the network stack, after one was made: slower, works everywhere.
    Generic,
    /// On the NIC itself.
    Offloaded,
}

/// What a port is, as the kernel reports it, not as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Description {
    /// Queues in memory.
    Memory,
    /// Captures.
    Capture,
    /// Another port behind faults.
    Fault(Box<Self>),
    /// An AF_XDP socket.
    AfXdp {
        /// Interface name.
        device: String,
        /// Interface index.
        ifindex: u32,
        /// Queue on the device.
        queue: u32,
        /// How the program is attached.
        attach: AttachMode,
        /// Whether the NIC writes frames into our memory itself.
        zero_copy: bool,
        /// Whether the kernel is woken only when it asks for it.
        need_wakeup: bool,
        /// Frames the kernel sends for one wakeup, where it could be raised.
        tx_budget: Option<u32>,
    },
}

impl fmt::Display for AttachMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Offloaded => "offloaded",
        })
    }
}

impl fmt::Display for Description {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => out.write_str("memory"),
            Self::Capture => out.write_str("capture"),
            Self::Fault(inner) => write!(out, "{inner} behind faults"),
            Self::AfXdp { device, queue, attach, zero_copy, need_wakeup, .. } => {
                let copy = if *zero_copy { "zero-copy" } else { "copy" };
                let wakeup = if *need_wakeup { ", need-wakeup" } else { "" };
                write!(out, "AF_XDP {device} queue {queue}, {attach}, {copy}{wakeup}")
            }
        }
    }
}
