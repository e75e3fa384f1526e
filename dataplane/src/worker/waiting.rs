//! The waiting room: frames whose next hop's link-layer address is not yet known.
//!
//! Bounded in all and per next hop, so that a scan of an empty network cannot
//! take the frames of others. Order per next hop is kept.

use super::pipeline::LinkAddresses;
use crate::clock::Nanos;
use crate::packet::{Family, PortId};
use crate::port::{Frame, Memory, Pool};

/// Frames that wait on one worker at most.
pub const WAITING_MAX: usize = 256;
/// Frames that wait for one next hop at most.
const PER_NEXT_HOP_MAX: usize = 64;
/// How long the kernel tries: three solicitations, a second apart.
const PATIENCE: Nanos = Nanos::from_secs(3);

#[derive(Debug)]
struct Waiting {
    port: PortId,
    next_hop: (Family, u128),
    deadline: Nanos,
    frame: Frame,
}

/// See the head of this file. Oldest first, so deadlines rise.
#[derive(Debug)]
pub(super) struct WaitingRoom {
    frames: Vec<Waiting>,
}

impl WaitingRoom {
    pub(super) fn new() -> Self {
        Self { frames: Vec::with_capacity(WAITING_MAX) }
    }
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Keeps a frame; hands it back when there is no room for it.
    pub(super) fn admit(
        &mut self,
        port: PortId,
        next_hop: (Family, u128),
        now: Nanos,
        frame: Frame,
    ) -> Result<(), Frame> {
        if self.frames.len() == WAITING_MAX {
            return Err(frame);
        }
        let same = |w: &&Waiting| w.port == port && w.next_hop == next_hop;
        if self.frames.iter().filter(same).count() >= PER_NEXT_HOP_MAX {
            return Err(frame);
        }
        self.frames.push(Waiting { port, next_hop, deadline: now + PATIENCE, frame });
        Ok(())
    }

    /// A frame whose time is up.
    pub(super) fn expired(&mut self, now: Nanos) -> Option<(PortId, Frame)> {
        if self.frames.first()?.deadline > now {
            return None;
        }
        let waiting = self.frames.remove(0);
        Some((waiting.port, waiting.frame))
    }

    /// Moves the frames whose next hop `resolve` knows to `ready`, with their
    /// Ethernet headers written.
    pub(super) fn release(
        &mut self,
        resolve: impl Fn(PortId, Family, u128) -> Option<LinkAddresses>,
        memory: &Memory,
        ready: &mut Vec<(PortId, Frame)>,
    ) {
        for waiting in self.frames.extract_if(.., |waiting| {
            let (family, next_hop) = waiting.next_hop;
            match resolve(waiting.port, family, next_hop) {
                Some(link) => {
                    address(memory.bytes_mut(&mut waiting.frame), link);
                    true
                }
                None => false,
            }
        }) {
            ready.push((waiting.port, waiting.frame));
        }
    }

    /// Gives every frame back.
    pub(super) fn empty(&mut self, pool: &mut Pool) {
        for waiting in self.frames.drain(..) {
            pool.put(waiting.frame);
        }
    }
}

/// Writes both addresses of the Ethernet header.
fn address(frame: &mut [u8], link: LinkAddresses) {
    if let Some(header) = frame.get_mut(..12) {
        header[..6].copy_from_slice(&link.destination.0);
        header[6..].copy_from_slice(&link.source.0);
    }
}
