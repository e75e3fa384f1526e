//! Routing decisions: where a packet goes next, and why it does not.

use classifier::Address;

use super::road::{End, Packet, Road};
use crate::effects::Effects;
use crate::fib::{InputRoute, Mode, Network, Query, Realms, Route, RouteKind};
use crate::packet::{Family, Mac, PortId};
use crate::reply::Message;
use crate::verdict::DropReason;

/// Where a packet goes next, once routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    /// The port it leaves on.
    pub(super) port: PortId,
    /// The next hop's family and address.
    pub(super) next_hop: (Family, u128),
    /// Longest IP packet in bytes that may leave in one piece.
    pub(super) mtu: u32,
    /// The next hop's link-layer address, where the kernel has chosen the way.
    pub(super) mac: Option<Mac>,
    /// What is said of packets that go this way.
    pub(super) realms: Realms,
}

impl Hop {
    /// By a route that leaves on `port`.
    pub(super) fn by(
        network: &Network,
        route: &Route,
        port: PortId,
        next_hop: (Family, u128),
    ) -> Self {
        let (mtu, realms) = (network.mtu(route, port), route.realms());
        Self { port, next_hop, mtu, mac: None, realms }
    }
}

impl<A: Address, E: Effects> Road<'_, A, E> {
    /// The routing decision for a packet from a port.
    pub(super) fn route_input(
        &self,
        packet: &mut Packet<'_>,
        input: PortId,
    ) -> Result<Option<Hop>, End> {
        let (parsed, network) = (&packet.parsed, self.world.network);
        let query = Query { iif: Some(input), ..packet.query() };
        let way = network.input(input, &query, parsed.pkt_type, parsed.proto);
        if network.has_realms() {
            packet.realms = network.realms_arrived(&query, &way);
        }
        match way {
            InputRoute::Deliver => Ok(None),
            InputRoute::Forward { .. } if *network.mode() == Mode::Host => {
                Err(End::Drop(DropReason::NotForwarded))
            }
            InputRoute::Forward { port, next_hop, mtu, .. } => {
                Ok(Some(Hop { port, next_hop, mtu, mac: None, realms: packet.realms }))
            }
            // A packet that goes no further never gets beyond its source's scope.
            InputRoute::Drop { reason: DropReason::MartianSource, answer: Some(_) }
                if parsed.ttl <= 1 =>
            {
                Err(End::Refused(DropReason::TtlExpired, Message::time_exceeded(parsed.family)))
            }
            InputRoute::Drop { reason, answer: None } => Err(End::Drop(reason)),
            InputRoute::Drop { reason, answer: Some((kind, code)) } => {
                Err(End::Refused(reason, Message { kind, code, word: 0 }))
            }
        }
    }

    /// The routing decision for a packet of our own; `None`: to this machine itself.
    pub(super) fn route_output(&self, query: &Query) -> Result<Option<Hop>, End> {
        let network = self.world.network;
        let said = |(port, next_hop), realms| Hop {
            port,
            next_hop,
            mtu: network.port(port).mtu,
            mac: None,
            realms,
        };
        let own = network.port_with(query.family, query.dst);
        if own.is_some_and(|port| network.is_link_local_of(port, query.dst)) {
            // Through `lo`.
            return Ok(None);
        }
        if let Some(way) = network.group_way(query) {
            return Ok(Some(said(way, Realms::default())));
        }
        let Some(route) = network.route(query) else {
            return Err(End::Drop(DropReason::NoRoute));
        };
        match route.kind {
            RouteKind::Unicast(port) if network.confines(query.family, query.src, port) => {
                Err(End::Drop(DropReason::MartianSource))
            }
            RouteKind::Unicast(port) => {
                let next_hop = route.next_hop(query.family, query.dst);
                Ok(Some(Hop::by(network, &route, port, next_hop)))
            }
            RouteKind::Local => Ok(None),
            RouteKind::Foreign => Err(End::Drop(DropReason::RouteForeign)),
            RouteKind::Broadcast => match network.broadcast_way(query.dst) {
                Some(way) => Ok(Some(said(way, route.realms.1))),
                None => Err(End::Drop(DropReason::NotForwarded)),
            },
            RouteKind::Blackhole
            | RouteKind::Unreachable
            | RouteKind::Prohibit
            | RouteKind::Throw => Err(End::Drop(DropReason::RouteRefused)),
        }
    }
}
