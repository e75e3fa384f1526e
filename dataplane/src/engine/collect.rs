//! Fragments on the road: collected before the first hook of a tracked family
//! and before INPUT, so that rules and tracking see the datagram once and whole.

use classifier::Address;

use super::road::{End, Packet, Road};
use super::{Engine, World};
use crate::effects::Effects;
use crate::fib::{InputRoute, Mode, Query};
use crate::packet::{Family, Parsed, PktType, PortId};
use crate::reassembly::{Collected, Expired, Piece, User, Whole};
use crate::reply::Message;
use crate::verdict::{Disposition, DropReason};
use crate::wire::{ethernet, parse};

/// Datagrams that end for want of fragments in one go at most.
const EXPIRED_MAX: usize = 16;

impl<A: Address, E: Effects> Road<'_, A, E> {
    /// Collects the packet if it is a fragment; the one that completes its
    /// datagram takes that `onward`. `None`: there is nothing to collect.
    pub(super) fn gather(
        &mut self,
        packet: &mut Packet<'_>,
        user: User,
        onward: impl FnOnce(&mut Self, &mut Packet<'_>) -> Result<Disposition, End>,
    ) -> Result<Option<Disposition>, End> {
        if packet.regroup.is_some() {
            return Ok(None);
        }
        let read = Piece::read(&packet.parsed, &packet.frame, user, packet.input);
        let Some(piece) = read.map_err(End::Drop)? else { return Ok(None) };
        // Only a packet of ours that answers a datagram could find it taken.
        let Some(mut whole) = self.scratch.whole.take() else {
            return Err(End::Drop(DropReason::Fragment));
        };
        let World { stats, now, .. } = *self.world;
        let lost = |reason, others| (0..others).for_each(|_| stats.drop(reason));
        let result = match self.scratch.fragments.collect(&piece, now, &mut whole) {
            Collected::Kept => {
                stats.collected.add(1);
                Ok(Some(Disposition::Collected))
            }
            Collected::Complete => {
                stats.reassembled.add(1);
                self.complete(packet, &mut whole, onward).map(Some)
            }
            Collected::Passed(others) => {
                lost(DropReason::Fragment, others);
                Ok(None)
            }
            Collected::Refused { reason, others } => {
                lost(reason, others);
                Err(End::Drop(reason))
            }
        };
        self.scratch.whole = Some(whole);
        result
    }

    /// Before the first hook: only families that are tracked.
    pub(super) fn gather_tracked(
        &mut self,
        packet: &mut Packet<'_>,
        user: User,
        onward: impl FnOnce(&mut Self, &mut Packet<'_>) -> Result<Disposition, End>,
    ) -> Result<Option<Disposition>, End> {
        match self.policy.needs_conntrack {
            true => self.gather(packet, user, onward),
            false => Ok(None),
        }
    }

    /// Takes a whole datagram to its end, on behalf of its last fragment.
    fn complete(
        &mut self,
        last: &mut Packet<'_>,
        whole: &mut Whole,
        onward: impl FnOnce(&mut Self, &mut Packet<'_>) -> Result<Disposition, End>,
    ) -> Result<Disposition, End> {
        let (frame, regroup) = whole.parts();
        let parsed = parse_as(&last.parsed, &frame).map_err(End::Drop)?;
        let mut packet = Packet::new(frame, parsed, last.input);
        (packet.mark, packet.handed, packet.regroup) = (last.mark, last.handed, Some(regroup));
        packet.traced = last.traced;
        (packet.sender, packet.owner) = (last.sender, last.owner);
        let disposition = match onward(self, &mut packet) {
            Ok(disposition) => disposition,
            Err(end) => self.settle(&mut packet, end),
        };
        (last.tracking, last.mark) = (packet.tracking, packet.mark);
        Ok(match disposition {
            Disposition::AwaitNeighbour { port, next_hop } => {
                let held = self.effects.hold(port, next_hop, &packet.frame);
                held.map_or_else(Disposition::Drop, |()| Disposition::Fragmented)
            }
            Disposition::Transmit(port) => match self.effects.emit(port, &packet.frame) {
                true => Disposition::Fragmented,
                false => Disposition::Drop(DropReason::NoFrame),
            },
            Disposition::Deliver => {
                let port = packet.input.filter(|&port| port != PortId::LOOPBACK);
                self.effects.deliver(port, &packet.frame);
                Disposition::Delivered
            }
            disposition => disposition,
        })
    }

    /// Tells the sender that its datagram did not arrive in time, if the kernel
    /// does: for IPv4 only a host does, for IPv6 also a router that tracks.
    fn late(&mut self, packet: &mut Packet<'_>) {
        let Parsed { family, src, dst, pkt_type, proto, .. } = packet.parsed;
        let Some(input) = packet.input else { return };
        let network = self.world.network;
        if matches!(network.mode(), Mode::Bridge(_)) {
            return;
        }
        let query = Query { family, src, dst, iif: Some(input), mark: 0 };
        let route = || network.input(input, &query, pkt_type, proto);
        let local = || matches!(route(), InputRoute::Deliver);
        if family == Family::V6 || local() {
            let message = Message { code: 1, ..Message::time_exceeded(family) };
            self.complain(packet, DropReason::ReassemblyTimeout, message);
        }
    }
}

impl Engine {
    /// Ends datagrams whose fragments did not all arrive in time. To be called
    /// now and then when there are no frames; a burst does it by itself.
    pub fn tick<E: Effects>(&mut self, world: &World<'_>, effects: &mut E) {
        self.fit(world);
        self.expire(world, effects);
    }

    pub(super) fn expire<E: Effects>(&mut self, world: &World<'_>, effects: &mut E) {
        for _ in 0..EXPIRED_MAX {
            if !self.scratch.fragments.due(world.now) {
                return;
            }
            let Some(mut whole) = self.scratch.whole.take() else { return };
            if let Some(expired) = self.scratch.fragments.expire(world.now, &mut whole) {
                (0..expired.pieces).for_each(|_| world.stats.drop(DropReason::ReassemblyTimeout));
                self.report(world, &expired, &mut whole, effects);
            }
            self.scratch.whole = Some(whole);
        }
    }

    fn report<E: Effects>(
        &mut self,
        world: &World<'_>,
        expired: &Expired,
        whole: &mut Whole,
        effects: &mut E,
    ) {
        if !expired.first || expired.user == User::Output {
            return;
        }
        let (input, (frame, _)) = (whole.input(), whole.parts());
        let policy = &world.snapshot.policy;
        match expired.family {
            Family::V4 => {
                let Ok(parsed) = parse::parse_ipv4(&frame, ethernet::HEADER, PktType::Host) else {
                    return;
                };
                self.road(world, &policy.v4, effects).late(&mut Packet::new(frame, parsed, input));
            }
            Family::V6 => {
                let Ok(parsed) = parse::parse_ipv6(&frame, ethernet::HEADER, PktType::Host) else {
                    return;
                };
                self.road(world, &policy.v6, effects).late(&mut Packet::new(frame, parsed, input));
            }
        }
    }
}

fn parse_as(last: &Parsed, frame: &[u8]) -> Result<Parsed, DropReason> {
    match last.family {
        Family::V4 => parse::parse_ipv4(frame, ethernet::HEADER, last.pkt_type),
        Family::V6 => parse::parse_ipv6(frame, ethernet::HEADER, last.pkt_type),
    }
}
