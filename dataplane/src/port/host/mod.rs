//! The host road: this machine's own packets on their way through the engine.
//!
//! Every port has a TAP beside it, and loopback has one. A tcx program on the
//! port sends what the kernel puts out there (IP only) to the TAP, where a
//! worker reads it: that is OUTPUT. What INPUT accepts is written to the TAP,
//! where another tcx program lets it be received as if on the port, so that
//! sockets see it come in by the real interface.
//!
//! Life cycle: programs are attached by `bpf_link` and TAPs are not persistent:
//! both are gone when the process is. Concurrency: a TAP has one queue for each
//! worker; nothing is shared. Limits: one system call for each packet, at most
//! [`READS_MAX`] reads a turn; links with a generic XDP program have no host road
//! (what is delivered would meet that program again).

mod sys;
mod tcx;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use arrayvec::ArrayVec;
pub use tcx::{PROGRAMS, TcxProgram, tcx_programs};

use super::afxdp::{BpfError, LinkInfo, PinError, Program};
use super::{Burst, Pool};
use crate::engine::BURST;
use crate::packet::PortId;

/// Packets read from the kernel in one turn at most.
pub const READS_MAX: usize = 32;

/// Names that TAPs get; the kernel puts the number in.
const TAP_NAME: &str = "portc%d";

/// Why there is no host road.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// A TAP cannot be made.
    #[error("no TAP can be made for this machine's own packets ({call}): {source}")]
    Tap {
        /// What failed.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The tcx programs.
    #[error("the host road: {0}")]
    Bpf(#[from] BpfError),
    /// A link cannot be kept.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// A tcx program cannot be attached.
    #[error("the host road cannot be attached to {device}: {source}")]
    Attach {
        /// The device.
        device: String,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Makes TAPs for `links` and loopback, and attaches the programs to them; returns
/// one queue for each of `workers`. From now on the kernel's own packets wait there.
///
/// # Errors
/// [`HostError`]; what was attached goes with `program`.
pub fn open(
    program: &mut Program,
    links: &[LinkInfo],
    workers: usize,
) -> Result<Vec<HostQueue>, HostError> {
    let mut queues: Vec<Vec<File>> = (0..workers).map(|_| Vec::new()).collect();
    let loopback = LinkInfo::of("lo").map_err(tap_error("loopback"))?;
    for (link, own) in links.iter().map(|link| (link, true)).chain([(&loopback, false)]) {
        let mut name = TAP_NAME.to_owned();
        for queue in &mut queues {
            let (file, actual) = sys::open_tap(&name).map_err(tap_error("TUNSETIFF"))?;
            name = actual;
            queue.push(file);
        }
        // No addresses of its own, and nothing that the kernel would say there by itself.
        let quiet = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
        match std::fs::write(quiet, "1") {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(HostError::Tap { call: "disable_ipv6", source });
            }
            _ => {}
        }
        sys::set_up(&name).map_err(tap_error("SIOCSIFFLAGS"))?;
        let tap = LinkInfo::of(&name).map_err(tap_error("asking for it"))?;
        program.join(link, &tap, own)?;
    }
    Ok(queues.into_iter().map(HostQueue::new).collect())
}

fn tap_error(call: &'static str) -> impl Fn(io::Error) -> HostError {
    move |source| HostError::Tap { call, source }
}

/// One worker's ends of all TAPs.
#[derive(Debug)]
pub struct HostQueue {
    /// By port; loopback's is the last one.
    taps: Vec<File>,
    /// The one to read from first.
    next: usize,
}

impl HostQueue {
    /// `taps`: whole frames are read from and written to these, one by one, by
    /// port and then loopback. They must not block.
    ///
    /// # Panics
    /// When there is none.
    pub fn new(taps: Vec<File>) -> Self {
        assert!(!taps.is_empty(), "loopback has one");
        Self { taps, next: 0 }
    }

    /// Appends what the kernel has put out to `burst`, and to `ports_of` by which port; returns
    /// how many frames.
    pub fn receive(
        &mut self,
        pool: &mut Pool,
        burst: &mut Burst,
        ports_of: &mut ArrayVec<PortId, BURST>,
    ) -> usize {
        let (before, ports) = (burst.len(), self.taps.len() - 1);
        for step in 0..ports {
            let at = (self.next + step) % ports;
            while burst.len() - before < READS_MAX && !burst.is_full() {
                let Some(mut frame) = pool.take() else { return burst.len() - before };
                let buffer = pool.memory().buffer(&mut frame);
                let start = super::pool::HEADROOM;
                match (&self.taps[at]).read(&mut buffer[start..]) {
                    Ok(len) if len > 0 => {
                        frame.set_extent(start, len);
                        burst.push(frame);
                        ports_of.push(PortId(at as u8));
                    }
                    // Nothing more there; a TAP that went away has nothing either.
                    Ok(_) | Err(_) => {
                        pool.put(frame);
                        break;
                    }
                }
            }
        }
        self.next = (self.next + 1) % ports.max(1);
        burst.len() - before
    }

    /// Lets the kernel receive a frame as if on `port`, or through loopback. False
    /// when it would not take it.
    pub fn deliver(&self, port: Option<PortId>, frame: &[u8]) -> bool {
        let at = port.map_or(self.taps.len() - 1, PortId::index);
        let Some(mut tap) = self.taps.get(at) else { return false };
        tap.write(frame).is_ok_and(|written| written == frame.len())
    }

    /// Descriptors that become readable when the kernel puts something out.
    pub fn pollable(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.taps[..self.taps.len() - 1].iter().map(AsFd::as_fd)
    }
}
