//! A forwarder on the bare rings: what two sockets can do at most.
//!
//! Descriptors received on one socket are written to the transmit ring of the other,
//! completed chunks return to the fill ring that they came from. No pool, no ledger, no
//! worker: benchmarks compare those with this. The chunks stay lent for good, so the
//! pool that they are of is good for nothing else afterwards.

use std::os::fd::BorrowedFd;

use super::{AfxdpPort, BoundSocket, CHUNK, sys};
use crate::port::Port;

/// Two sockets that pass each other what they receive.
#[derive(Debug)]
pub struct Floor {
    sockets: [Box<BoundSocket>; 2],
    /// Frames passed on together.
    batch: u32,
}

impl Floor {
    /// Takes the sockets of two ports that share a pool; `None` when one has none.
    pub fn new(mut left: AfxdpPort, mut right: AfxdpPort, batch: u32) -> Option<Self> {
        Some(Self { sockets: [left.detach()?, right.detach()?], batch: batch.max(1) })
    }

    /// Passes on up to a batch in each direction; returns how many frames.
    pub fn turn(&mut self) -> u32 {
        let [left, right] = &mut self.sockets;
        pass(left, right, self.batch) + pass(right, left, self.batch)
    }

    /// What becomes readable when frames arrive.
    pub fn pollable(&self) -> [BorrowedFd<'_>; 2] {
        [self.sockets[0].fd(), self.sockets[1].fd()]
    }
}

fn pass(from: &mut BoundSocket, to: &mut BoundSocket, batch: u32) -> u32 {
    let mut done = 0;
    while let Some(address) = to.rings.completion.pop() {
        let returned = from.rings.fill.push(address - address % CHUNK as u64);
        debug_assert!(returned, "it came from there");
        done += 1;
    }
    if done > 0 {
        to.rings.completion.release();
        from.rings.fill.publish();
    }
    let room = to.rings.transmit.space(batch).min(batch);
    let mut passed = 0;
    while passed < room {
        let Some(descriptor) = from.rings.receive.pop() else { break };
        to.rings.transmit.push(libc::xdp_desc { options: 0, ..descriptor });
        passed += 1;
    }
    if passed > 0 {
        from.rings.receive.release();
        to.rings.transmit.publish();
    }
    let mut pending = to.rings.transmit.pending();
    while pending > 0 && to.rings.transmit.needs_wakeup() {
        // A refusal shows in what is left; the next turn tries again.
        let _refused = sys::wake_transmit(to.fd());
        let left = to.rings.transmit.pending();
        if left >= pending {
            break;
        }
        pending = left;
    }
    passed
}
