//! Packets of this machine that its kernel has already sent on their way: the
//! first routing decision was the kernel's and stays, because only the kernel
//! knows the socket (bound to a device, a group's interface, a marked one).
//!
//! Such a frame tells where it goes by the TAP that it came through
//! ([`Slot::port`]) and by its Ethernet header: the destination is the next
//! hop's, and in place of the source, which is the port's anyway, the tcx
//! program (`dataplane/bpf/host.h`) has written what else must not be lost.
//!
//! What OUTPUT turns to this machine itself is delivered through loopback, and answered
//! there. The engine says which answers it expects ([`Effects::expect_looped`]); they
//! come by loopback's TAP, to be translated back, and are delivered as if from where
//! they seem to come. What else comes by it was taken for such an answer, and is given
//! back untouched.

use classifier::Address;

use super::Slot;
use super::road::{End, Packet, Road};
use super::way::Hop;
use crate::conntrack::status::{DST_NAT, SRC_NAT};
use crate::effects::{Answer, Effects};
use crate::fib::{Query, Realms, Route, RouteKind, is_link_local};
use crate::packet::{Mac, Parsed, PortId};
use crate::verdict::{Disposition, DropReason};
use crate::wire::proto;

/// Bit of the first byte: the socket is bound to the device.
const BOUND: u8 = 1;
/// The first byte of what loopback sent, which no wire carries.
const LOOPED: u8 = 3;
/// The bits of the first byte that these take; the rest are the owner's high ones.
const FLAGS: u8 = 7;

/// What the kernel decided about a packet of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handed {
    /// The port it sent it out on, or loopback.
    port: PortId,
    /// The next hop's link-layer address.
    next_hop: Mac,
    /// The packet's mark.
    pub(super) mark: u32,
    /// The number of its owner.
    pub(super) owner: u16,
    /// Its socket is bound to the device: no table may route it elsewhere.
    bound: bool,
}

impl Handed {
    /// Reads it off a frame; `None` when no kernel has routed it, as in a replay.
    pub(super) fn read(slot: &Slot<'_>) -> Option<Self> {
        let [a, b, c, d, e, f, first, owner, mark @ ..] = *slot.frame().first_chunk::<12>()?;
        let next_hop = Mac([a, b, c, d, e, f]);
        let (flags, high) = (first & FLAGS, first >> FLAGS.count_ones());
        let looped = slot.port == PortId::LOOPBACK;
        if looped && (next_hop, flags) != (Mac::default(), LOOPED) {
            return None;
        }
        Some(Self {
            port: slot.port,
            next_hop,
            mark: u32::from_ne_bytes(mark),
            owner: u16::from_be_bytes([high, owner]),
            bound: !looped && flags & BOUND != 0,
        })
    }

    /// Whether loopback has sent it.
    pub(super) fn is_looped(&self) -> bool {
        self.port == PortId::LOOPBACK
    }
}

impl<A: Address, E: Effects> Road<'_, A, E> {
    /// The first routing decision about a packet of our own: the kernel's where it
    /// has made one.
    pub(super) fn first_way(&self, packet: &mut Packet<'_>) -> Result<Option<Hop>, End> {
        let Some(handed) = packet.handed else { return self.route_output(&packet.query()) };
        if handed.is_looped() {
            return Ok(None);
        }
        let mac = Some(handed.next_hop);
        Ok(Some(Hop { mac, ..self.way_on(handed.port, &packet.query()) }))
    }

    /// The way that the tables name on `port`; if they name another, straight onto its link.
    fn way_on(&self, port: PortId, query: &Query) -> Hop {
        let network = self.world.network;
        let there = |route: &Route| route.kind == RouteKind::Unicast(port);
        let route = match is_link_local(query.family, query.dst) {
            true => Some(network.link_route(query, port)),
            false => network.listed_route(query).filter(there),
        };
        match route {
            Some(route) => {
                let next_hop = route.next_hop(query.family, query.dst);
                Hop::by(network, &route, port, next_hop)
            }
            None => {
                let next_hop = (query.family, query.dst);
                let (mtu, realms) = (network.port(port).mtu, Realms::default());
                Hop { port, next_hop, mtu, mac: None, realms }
            }
        }
    }

    /// The last step of a packet of our own that this machine receives itself.
    pub(super) fn hand_back(&mut self, packet: &mut Packet<'_>) -> Disposition {
        if packet.handed.is_none() {
            return Disposition::Deliver;
        }
        let network = self.world.network;
        self.expect_answer(packet);
        let Parsed { family, src, .. } = packet.parsed;
        let query = Query { family, src: 0, dst: src, iif: None, mark: 0 };
        // A strict rp_filter knows no other machine behind loopback.
        let port = match network.route(&query).map(|route| route.kind) {
            Some(RouteKind::Unicast(port)) => Some(port),
            _ => None,
        };
        let to = port.map_or(Mac::default(), |port| network.port(port).mac);
        packet.frame[..to.0.len()].copy_from_slice(&to.0);
        if port.is_none() {
            return Disposition::Deliver;
        }
        self.effects.deliver(port, &packet.frame);
        Disposition::Delivered
    }

    /// Says that the answer to a translated packet will go over loopback.
    fn expect_answer(&mut self, packet: &Packet<'_>) {
        let status = packet.tracking.conn.and_then(|conn| self.world.conntrack.status(conn));
        let Parsed { family, proto, src, dst, sport, dport, .. } = packet.parsed;
        if status.is_some_and(|bits| bits & (SRC_NAT | DST_NAT) != 0)
            && matches!(proto, proto::TCP | proto::UDP)
        {
            let (src, sport, dst, dport) = (dst, dport, src, sport);
            self.effects.expect_looped(&Answer { family, proto, src, sport, dst, dport });
        }
    }

    /// Routes a packet of our own again, because OUTPUT changed what routing depends
    /// on. A bound socket's stays on its device.
    pub(super) fn route_again(
        &self,
        packet: &Packet<'_>,
        first: Option<Hop>,
    ) -> Result<Option<Hop>, End> {
        let query = packet.query();
        let bound = packet.handed.filter(|handed| handed.bound);
        if is_link_local(query.family, query.dst) {
            match (first, bound) {
                // It means nothing on another link, but a rule may name a gateway on this one.
                (Some(first), _) => return Ok(Some(self.way_on(first.port, &query))),
                // One of our own was on its way through `lo`, which has no such address.
                (None, None) => return Err(End::Drop(DropReason::NoRoute)),
                (None, Some(_)) => {}
            }
        }
        let again = self.route_output(&query);
        match (bound, again) {
            (Some(handed), Ok(Some(hop))) if hop.port != handed.port => Ok(first),
            (Some(_), Err(_)) => Ok(first),
            (_, again) => again,
        }
    }
}
