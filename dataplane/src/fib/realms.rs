//! Realms: numbers that routes and policy rules give to what travels by them (IPv4),
//! and what the kernel makes of several for one packet.

use super::network::{Network, Query, Route};
use super::{InputRoute, RouteKind};
use crate::packet::{Family, PortId};

/// What `ip route ... realms FROM/TO` says: the realm that a packet comes from in the
/// high half, the one that it goes to in the low half; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Realms(pub u32);

const TO: u32 = 0xffff;
const FROM: u32 = 0xffff_0000;

impl Realms {
    /// Whether either half says anything.
    pub const fn is_set(self) -> bool {
        self.0 != 0
    }

    /// `other`'s halves where `self` has none.
    pub(super) const fn or(self, other: Self) -> Self {
        let to = if self.0 & TO == 0 { other.0 & TO } else { 0 };
        let from = if self.0 & FROM == 0 { other.0 & FROM } else { 0 };
        Self(self.0 | to | from)
    }

    /// What the way back to a packet's source says of it: where that way goes to is where
    /// the packet comes from. The route comes first there, but only the rule's other half
    /// counts.
    const fn of_source((route, rule): (Self, Self)) -> Self {
        let to = if route.0 & TO != 0 { route.0 } else { rule.0 };
        Self(to << 16 | rule.0 >> 16)
    }
}

impl Route {
    /// What it says of packets of our own that take it.
    pub fn realms(&self) -> Realms {
        let (route, rule) = self.realms;
        route.or(rule)
    }
}

impl Network {
    /// The realms of a packet that arrived and goes where `way` says. Delivered packets
    /// have their source's only.
    pub fn realms_arrived(&self, query: &Query, way: &InputRoute) -> Realms {
        if query.family == Family::V6 {
            return Realms::default();
        }
        match way {
            InputRoute::Deliver if self.is_for_many(query) => {
                self.source_realms(&Query { dst: 0, ..*query }, None)
            }
            InputRoute::Deliver => self.source_realms(query, None),
            InputRoute::Forward { port, realms, .. } => {
                realms.or(self.source_realms(query, Some(*port)))
            }
            InputRoute::Drop { .. } => Realms::default(),
        }
    }

    /// Whether an IPv4 packet that is delivered is addressed to others, too.
    fn is_for_many(&self, query: &Query) -> bool {
        let broadcast = |route: Route| route.kind == RouteKind::Broadcast;
        let all = query.dst == u128::from(u32::MAX) || query.dst >> 28 == 0xe;
        all || self.route(query).is_some_and(broadcast)
    }

    fn source_realms(&self, query: &Query, out: Option<PortId>) -> Realms {
        if query.src == 0 {
            return Realms::default();
        }
        let back = self.way_to_source(query, out);
        back.map_or(Realms::default(), |route| Realms::of_source(route.realms))
    }

    /// The way that the kernel looks up to check a packet's source: as of what came in
    /// where the packet goes out.
    pub(super) fn way_to_source(&self, query: &Query, out: Option<PortId>) -> Option<Route> {
        self.route(&Query { src: query.dst, dst: query.src, mark: 0, iif: out, ..*query })
    }
}
