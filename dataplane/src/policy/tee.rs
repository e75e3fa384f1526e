//! TEE: copies of packets for another machine.
//!
//! A rule only takes the copy; the engine sends it when the walk is over, on the road of
//! this machine's own packets. Limits: [`COPIES_MAX`] copies in one walk, each of a frame
//! that a port could have received.

use arrayvec::ArrayVec;

use super::Hook;
use super::eval::PacketView;
use crate::conntrack::CtState;
use crate::packet::{Family, Parsed, PortId};
use crate::port::MAX_FRAME;
use crate::wire::{ethernet, ethertype};

/// Copies that one walk takes at most.
pub const COPIES_MAX: usize = 4;
/// Bytes of one copy.
const ROOM: usize = MAX_FRAME;

/// `-j TEE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TeeTarget {
    /// `--gateway`: who gets the copy, in the common form.
    pub gateway: u128,
    /// `--oif`.
    pub output: Option<PortId>,
}

/// A copy that is still to be sent; its bytes lie in the [`Copies`].
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Where it goes.
    pub target: TeeTarget,
    /// Facts about the copy's frame.
    pub parsed: Parsed,
    /// At which hook it was taken.
    pub hook: Hook,
    /// Tracking had found its checksum right when it came.
    pub verified: bool,
    /// The packet's mark then.
    pub mark: u32,
    /// Length of the frame in bytes.
    pub len: usize,
}

/// Copies of one walk.
#[derive(Debug, Default)]
pub struct Copies {
    taken: ArrayVec<Taken, COPIES_MAX>,
    bytes: Vec<u8>,
    /// Copies are being sent: a copy is not copied.
    closed: bool,
    /// Packets that could not be copied.
    missed: u64,
}

impl Copies {
    /// Makes room, if rules take copies at all.
    pub fn fit(&mut self, needed: bool) {
        let room = if needed { COPIES_MAX * ROOM } else { 0 };
        if self.bytes.len() != room {
            self.bytes = vec![0; room];
        }
    }

    /// Whether there is nothing to send and nothing to count.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.taken.is_empty() && self.missed == 0
    }

    /// Takes a copy of the packet as it is now.
    pub fn take(&mut self, target: &TeeTarget, packet: &PacketView<'_>) {
        if self.closed {
            return;
        }
        let l3 = packet.parsed.l3_bytes(&packet.frame);
        let len = ethernet::HEADER + l3.len();
        let start = self.taken.len() * ROOM;
        let Some(room) = self.bytes.get_mut(start..start + ROOM).filter(|_| len <= ROOM) else {
            self.missed += 1;
            return;
        };
        let family = packet.parsed.family;
        let kind = match family {
            Family::V4 => ethertype::IPV4,
            Family::V6 => ethertype::IPV6,
        };
        room[..ethernet::HEADER].fill(0);
        room[ethernet::HEADER - 2..ethernet::HEADER].copy_from_slice(&kind.to_be_bytes());
        room[ethernet::HEADER..len].copy_from_slice(l3);
        let (target, hook, mark) = (*target, packet.hook, packet.mark);
        let shift = packet.parsed.l3 - ethernet::HEADER as u16;
        let parsed =
            Parsed { l3: ethernet::HEADER as u16, l4: packet.parsed.l4 - shift, ..*packet.parsed };
        use CtState::{Established, New, Related};
        let tracking = &packet.tracking;
        let verified = tracking.summed || matches!(tracking.state, New | Established | Related);
        self.taken.push(Taken { target, parsed, hook, verified, mark, len });
    }

    /// How many packets could not be copied since this was last asked.
    pub fn missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    /// Every copy with its frame, behind which there is room to grow.
    pub fn drain(&mut self) -> impl Iterator<Item = (Taken, &mut [u8])> {
        let taken = std::mem::take(&mut self.taken);
        let frames = self.bytes.chunks_mut(ROOM.max(1));
        taken.into_iter().zip(frames)
    }

    /// Takes no copies from now on, or does again.
    pub fn close(&mut self, closed: bool) {
        self.closed = closed;
    }
}
