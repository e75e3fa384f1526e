//! What the router itself sends: ICMP errors and resets, on their own road
//! through OUTPUT and POSTROUTING.

use classifier::Address;

use super::road::{Packet, Problem, Road};
use crate::effects::Effects;
use crate::policy::{Hook, RejectWith};

impl<A: Address, E: Effects> Road<'_, A, E> {
    /// Answers a packet that a REJECT rule refused.
    pub(super) fn reject(&mut self, _packet: &mut Packet<'_>, _with: RejectWith, _hook: Hook) {}

    /// Tells the sender why its packet cannot be forwarded.
    pub(super) fn complain(&mut self, _packet: &mut Packet<'_>, _problem: Problem) {}

    /// Tells the sender of a packet that its next hop does not answer.
    pub(super) fn next_hop_silent(&mut self, packet: &mut Packet<'_>) {
        let problem = Problem::host_unreachable(packet.parsed.family);
        self.complain(packet, problem);
    }
}
