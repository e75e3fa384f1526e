//! One AF_XDP socket as a [`Port`]: the system calls that keep its rings moving,
//! and the change to another socket when a device went away and came back.
//!
//! The fill ring is kept full as frames arrive. A port whose device is gone lets go
//! of its socket ([`Port::detach`]); somebody who may wait closes it, the frames that
//! the kernel had come back to the pool ([`Port::recover`]), and later the port
//! takes a new socket ([`Port::attach`]). Without a socket nothing is received, and
//! what is to be sent is handed back.

use std::io;
use std::os::fd::BorrowedFd;

use super::ledger::Ledger;
use super::socket::{BoundSocket, Closed, Observer, adopt, recover};
use super::sys;
use crate::clock::Nanos;
use crate::port::{Burst, Description, Frame, LinkState, Pool, Port, PortError, PortStatistics};

/// One queue of one device, whatever socket it has.
#[derive(Debug)]
pub struct AfxdpPort {
    bound: Option<BoundSocket>,
    /// What its socket, or the one before, was lent.
    ledger: Ledger,
    /// The socket that the ledger speaks of.
    serial: u64,
    pool: u32,
    /// The last socket's.
    description: Description,
    /// Frames received and not yet replaced in the fill ring.
    unfilled: u32,
    /// Whether the transmit ring may hold frames that the kernel was not told of.
    unsent: bool,
    /// Entries written but not yet shown to the kernel.
    unpublished: bool,
    counts: PortStatistics,
}

impl AfxdpPort {
    /// A port on `bound`, which was lent what stands in `ledger`.
    pub(super) fn new(pool: &Pool, mut bound: BoundSocket, ledger: Ledger) -> Self {
        Self {
            unfilled: bound.rings.fill.room(),
            serial: bound.serial(),
            description: bound.description(),
            bound: Some(bound),
            ledger,
            pool: pool.id(),
            unsent: false,
            unpublished: false,
            counts: PortStatistics::default(),
        }
    }

    /// The socket at work; `None` when the port waits for one.
    pub fn socket(&self) -> Option<&BoundSocket> {
        self.bound.as_ref()
    }
    /// Reads statistics from other threads, as long as its present socket lives.
    pub fn observer(&self) -> Option<Observer> {
        self.bound.as_ref().map(BoundSocket::observer)
    }
    /// Frames that its socket has been lent.
    pub fn lent(&self) -> usize {
        self.ledger.len()
    }

    fn gone(&self) -> PortError {
        let device = match &self.description {
            Description::AfXdp { device, .. } => device.clone(),
            other => other.to_string(),
        };
        PortError::DeviceGone { device }
    }

    /// Calls the kernel until the transmit ring is empty or a call takes nothing.
    fn wake(&mut self, pool: &mut Pool) -> Result<(), PortError> {
        let Some(bound) = &mut self.bound else { return Ok(()) };
        let mut pending = bound.rings.transmit.pending();
        while pending > 0 {
            self.counts.tx_wakeups += 1;
            if let Err(error) = sys::wake_transmit(bound.fd()) {
                match error.raw_os_error() {
                    // The budget is used up, or the completion ring is full.
                    Some(libc::EAGAIN) => {
                        let (_, bad) = bound.rings.reap(pool, &mut self.ledger);
                        self.counts.bad_address += bad;
                    }
                    // One frame was refused, yet completed: go on with the next.
                    Some(libc::EBUSY) => self.counts.tx_refused += 1,
                    _ => {
                        judge(bound.device(), "sendto", error)?;
                    }
                }
            }
            let left = bound.rings.transmit.pending();
            if left >= pending {
                // No memory, or the link is down: the next flush tries again.
                break;
            }
            pending = left;
        }
        self.unsent = bound.rings.transmit.pending() > 0;
        Ok(())
    }
}

/// Turns a kernel's refusal into what the port does about it.
fn judge(device: &str, call: &'static str, source: io::Error) -> Result<LinkState, PortError> {
    match source.raw_os_error() {
        // The device is gone: the kernel has unbound the socket.
        Some(libc::ENXIO) => Err(PortError::DeviceGone { device: device.to_owned() }),
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
        _ => Err(PortError::Kernel { device: device.to_owned(), call, source }),
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
        let Some(bound) = &mut self.bound else { return Ok(0) };
        let before = burst.len();
        while !burst.is_full() {
            let Some(descriptor) = bound.rings.receive.pop() else { break };
            self.unfilled += 1;
            match adopt(pool, &mut self.ledger, descriptor.addr, descriptor.len) {
                Some(frame) => {
                    pool.memory().prefetch(&frame);
                    burst.push(frame);
                }
                None => self.counts.bad_address += 1,
            }
        }
        let count = burst.len() - before;
        if count > 0 {
            bound.rings.receive.release();
        } else if bound.rings.fill.needs_wakeup()
            && let Err(error) = sys::wake_receive(bound.fd())
        {
            judge(bound.device(), "recvfrom", error)?;
        }
        Ok(count)
    }

    fn transmit(&mut self, pool: &mut Pool, frame: Frame) -> Result<(), Frame> {
        assert_eq!(pool.id(), self.pool, "a port works with the pool it was opened with");
        let Some(bound) = &mut self.bound else { return Err(frame) };
        if let Err(frame) = bound.rings.send(pool, &mut self.ledger, frame) {
            self.counts.tx_full += 1;
            return Err(frame);
        }
        self.unpublished = true;
        Ok(())
    }

    fn flush(&mut self, pool: &mut Pool, _now: Nanos) -> Result<usize, PortError> {
        let Some(bound) = &mut self.bound else { return Ok(0) };
        if self.unpublished {
            bound.rings.transmit.publish();
            self.unpublished = false;
            self.unsent = true;
        }
        if self.unsent {
            if bound.rings.transmit.needs_wakeup() {
                self.wake(pool)?;
            } else {
                self.unsent = bound.rings.transmit.pending() > 0;
            }
        }
        Ok(0)
    }

    fn reap(&mut self, pool: &mut Pool) -> usize {
        let Some(bound) = &mut self.bound else { return 0 };
        let (count, bad) = bound.rings.reap(pool, &mut self.ledger);
        self.counts.bad_address += bad;
        count
    }

    fn fill(&mut self, pool: &mut Pool) -> usize {
        let Some(bound) = self.bound.as_mut().filter(|_| self.unfilled > 0) else { return 0 };
        let lent = bound.rings.lend(pool, &mut self.ledger, self.unfilled);
        self.unfilled -= lent;
        lent as usize
    }

    fn check(&mut self) -> Result<LinkState, PortError> {
        let Some(bound) = &self.bound else { return Err(self.gone()) };
        match sys::wake_receive(bound.fd()) {
            Ok(()) => Ok(LinkState::Up),
            Err(error) => judge(bound.device(), "recvfrom", error),
        }
    }

    fn detach(&mut self) -> Option<Box<BoundSocket>> {
        (self.unsent, self.unpublished) = (false, false);
        self.bound.take().map(Box::new)
    }

    fn recover(&mut self, pool: &mut Pool, closed: &Closed) -> usize {
        assert_eq!(pool.id(), self.pool, "a port works with the pool it was opened with");
        // A proof about another socket says nothing of these frames.
        if closed.serial() != self.serial {
            return 0;
        }
        recover(pool, &mut self.ledger, closed)
    }

    fn attach(&mut self, socket: Box<BoundSocket>) -> Result<(), Box<BoundSocket>> {
        if self.bound.is_some() || self.ledger.len() > 0 {
            return Err(socket);
        }
        let mut bound = *socket;
        self.unfilled = bound.rings.fill.room();
        self.serial = bound.serial();
        self.description = bound.description();
        self.bound = Some(bound);
        Ok(())
    }

    fn statistics(&self) -> PortStatistics {
        let kernel = self.bound.as_ref().map(|bound| bound.socket().statistics());
        PortStatistics {
            tx_refused: self.counts.tx_refused,
            tx_full: self.counts.tx_full,
            tx_wakeups: self.counts.tx_wakeups,
            bad_address: self.counts.bad_address,
            ..kernel.unwrap_or_default()
        }
    }

    fn description(&self) -> Description {
        self.description.clone()
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.bound.as_ref().map(BoundSocket::fd)
    }
}
