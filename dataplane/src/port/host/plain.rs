//! The host road by plain reads and writes, where io_uring is not to be had: a system
//! call for each packet, and one for each TAP to learn that there is none.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};

use super::{Account, Ports, READS_MAX, RETRY};
use crate::clock::Nanos;
use crate::packet::PortId;
use crate::port::pool::HEADROOM;
use crate::port::{Burst, Pool};

/// A busy worker asks every so many turns only: asking costs a system call.
const TURNS_BUSY: u32 = 8;

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Plain {
    /// The TAP to read from first.
    next: usize,
    turns: u32,
    /// By port: when to ask a TAP again that answered with an error.
    retry_at: Box<[Option<Nanos>]>,
}

impl Plain {
    /// For `ports` TAPs that will be read.
    pub(super) fn new(ports: usize) -> Self {
        Self { next: 0, turns: 0, retry_at: vec![None; ports].into() }
    }

    pub(super) fn is_there(&self, port: usize) -> bool {
        self.retry_at[port].is_none()
    }

    /// Appends what has been read, and the ports. `taps` are those that are read; they
    /// must not block.
    pub(super) fn receive(
        &mut self,
        taps: &[File],
        pool: &mut Pool,
        (now, busy): (Nanos, bool),
        (burst, ports): (&mut Burst, &mut Ports),
    ) {
        self.turns = self.turns.wrapping_add(1);
        if busy && !self.turns.is_multiple_of(TURNS_BUSY) {
            return;
        }
        let before = burst.len();
        for step in 0..taps.len() {
            let at = (self.next + step) % taps.len();
            if self.retry_at[at].is_some_and(|at| now < at) {
                continue;
            }
            while burst.len() - before < READS_MAX && !burst.is_full() {
                let Some(mut frame) = pool.take() else { return };
                let buffer = pool.memory().buffer(&mut frame);
                match (&taps[at]).read(&mut buffer[HEADROOM..]) {
                    Ok(len) if len > 0 => {
                        frame.set_extent(HEADROOM, len);
                        burst.push(frame);
                        ports.push(PortId(at as u8));
                    }
                    other => {
                        pool.put(frame);
                        let quiet = [ErrorKind::WouldBlock, ErrorKind::Interrupted];
                        let gone = !other.is_err_and(|error| quiet.contains(&error.kind()));
                        self.retry_at[at] = gone.then(|| now + RETRY);
                        break;
                    }
                }
            }
        }
        self.next = (self.next + 1) % taps.len().max(1);
    }

    /// Writes a frame to the TAP.
    pub(super) fn deliver(mut tap: &File, frame: &[u8], account: &mut Account) {
        account.settle(tap.write(frame).is_ok_and(|written| written == frame.len()));
    }
}
