//! Routing of what arrives on a port: the kernel's checks of source and
//! destination before a packet is delivered or forwarded.

use super::network::{Network, Query, Route, is_link_local};
use super::routes::Found;
use super::{Realms, RouteKind};
use crate::packet::{Family, PktType, PortId};
use crate::verdict::DropReason;
use crate::wire::proto;

/// What becomes of a packet that arrived on a port, as far as routing decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputRoute {
    /// For this machine: INPUT comes next.
    Deliver,
    /// To be sent on: FORWARD comes next.
    Forward {
        /// The output port.
        port: PortId,
        /// The next hop's family and address.
        next_hop: (Family, u128),
        /// Longest IP packet in bytes that may leave unfragmented.
        mtu: u32,
        /// What its route and rule say of it ([`Route::realms`]).
        realms: Realms,
    },
    /// The end, with the ICMP or ICMPv6 type and code to answer with, if any.
    Drop {
        /// Why.
        reason: DropReason,
        /// Type and code of the error to send to the source.
        answer: Option<(u8, u8)>,
    },
}

impl InputRoute {
    const fn silent(reason: DropReason) -> Self {
        Self::Drop { reason, answer: None }
    }
    const fn answered(reason: DropReason, kind: u8, code: u8) -> Self {
        Self::Drop { reason, answer: Some((kind, code)) }
    }
}

impl Network {
    /// Routes a packet that arrived on `port` (`query.iif` is ignored in its favour).
    /// As a kernel with forwarding on, and reverse-path filtering and redirects off.
    /// `protocol` is the one above IP.
    #[inline]
    pub fn input(
        &self,
        port: PortId,
        query: &Query,
        pkt_type: PktType,
        protocol: u8,
    ) -> InputRoute {
        let query = Query { iif: Some(port), ..*query };
        match query.family {
            Family::V4 => self.input_v4(port, &query, pkt_type, protocol),
            Family::V6 => self.input_v6(port, &query, pkt_type),
        }
    }

    fn input_v4(&self, port: PortId, query: &Query, pkt_type: PktType, protocol: u8) -> InputRoute {
        let (src, dst) = (query.src as u32, query.dst as u32);
        if let Some(decided) = check_v4(src, dst, protocol, self.port(port).route_localnet) {
            return decided;
        }
        let own = self.is_local(Family::V4, query.src);
        let martian = InputRoute::silent(DropReason::MartianSource);
        if is_multicast(dst) || dst == u32::MAX || src == 0 {
            let joined = || !is_multicast(dst) || self.has_joined(port, Family::V4, query.dst);
            let unnamed = Query { dst: 0, ..*query };
            return match src != 0 && (own || self.refused_source(&unnamed, None)) {
                true => martian,
                false if joined() => InputRoute::Deliver,
                false => InputRoute::silent(DropReason::NotForwarded),
            };
        }
        let Some(found) = self.v4.find(query) else {
            return InputRoute::answered(DropReason::NoRoute, 3, 0);
        };
        let martian_source = match found.kept.kind {
            RouteKind::Unicast(out) => own || self.refused_source(query, Some(out)),
            RouteKind::Broadcast => own || self.refused_source(&Query { dst: 0, ..*query }, None),
            RouteKind::Foreign | RouteKind::Local => own || self.refused_source(query, None),
            _ => false,
        };
        if martian_source {
            return martian;
        }
        match found.kept.kind {
            RouteKind::Unreachable => InputRoute::answered(DropReason::RouteRefused, 3, 1),
            RouteKind::Prohibit => InputRoute::answered(DropReason::RouteRefused, 3, 13),
            _ => self.onward(query, found.kept, found.realms(), pkt_type),
        }
    }

    /// The kernel's full source check, made when policy rules or realms exist: it also
    /// refuses broadcast addresses, and all that is routed to this machine itself.
    fn refused_source(&self, query: &Query, out: Option<PortId>) -> bool {
        if !self.checks_sources_v4() {
            return false;
        }
        let kind = self.way_to_source(query, out).map(|route| route.kind);
        matches!(kind, Some(RouteKind::Broadcast | RouteKind::Local))
    }

    fn input_v6(&self, port: PortId, query: &Query, pkt_type: PktType) -> InputRoute {
        if query.dst >> 120 == 0xff {
            return match self.has_joined(port, Family::V6, query.dst) {
                true => InputRoute::Deliver,
                false => InputRoute::silent(DropReason::NotForwarded),
            };
        }
        let (linked, realms);
        let route = if is_link_local(Family::V6, query.dst) {
            (linked, realms) = (self.link_local_route(query), Realms::default());
            linked.as_ref()
        } else {
            let found = self.v6.find(query);
            realms = found.map_or(Realms::default(), Found::realms);
            found.map(|found| found.kept)
        };
        let Some(route) = route else {
            return InputRoute::answered(DropReason::NoRoute, 1, 0);
        };
        match route.kind {
            RouteKind::Unreachable => InputRoute::answered(DropReason::RouteRefused, 1, 0),
            RouteKind::Prohibit => InputRoute::answered(DropReason::RouteRefused, 1, 1),
            RouteKind::Unicast(out) if out != port && query.src == 0 => {
                InputRoute::silent(DropReason::MartianSource)
            }
            // Beyond the scope of its source address.
            RouteKind::Unicast(out) if out != port && is_link_local(Family::V6, query.src) => {
                InputRoute::answered(DropReason::MartianSource, 1, 2)
            }
            _ => self.onward(query, route, realms, pkt_type),
        }
    }

    #[inline]
    fn onward(
        &self,
        query: &Query,
        route: &Route,
        realms: Realms,
        pkt_type: PktType,
    ) -> InputRoute {
        match route.kind {
            RouteKind::Local | RouteKind::Broadcast => InputRoute::Deliver,
            RouteKind::Unicast(_) | RouteKind::Foreign if pkt_type != PktType::Host => {
                InputRoute::silent(DropReason::NotForwarded)
            }
            RouteKind::Unicast(port) => InputRoute::Forward {
                port,
                next_hop: route.next_hop(query.family, query.dst),
                mtu: self.mtu(route, port),
                realms,
            },
            RouteKind::Foreign => InputRoute::silent(DropReason::RouteForeign),
            _ => InputRoute::silent(DropReason::RouteRefused),
        }
    }
}

fn is_multicast(address: u32) -> bool {
    address >> 28 == 0xe
}

/// The checks that need no routes. `localnet`: 127.0.0.0/8 is an ordinary network
/// on the port, which no exemption from other checks goes with.
fn check_v4(src: u32, dst: u32, protocol: u8, localnet: bool) -> Option<InputRoute> {
    // The rest of 0.0.0.0/8 is ordinary unicast to the kernel.
    let zero = |address: u32| address == 0;
    let foreign_loopback = |address: u32| address >> 24 == 127 && !localnet;
    let martian_source = InputRoute::silent(DropReason::MartianSource);
    if is_multicast(src) || src == u32::MAX {
        return Some(martian_source);
    }
    if is_multicast(dst) {
        // Who has no address yet may speak to its link, and of groups to any.
        let nameless = dst >> 8 == 0xe0_0000 || protocol == proto::IGMP;
        let refused = foreign_loopback(src) || zero(src) && !nameless;
        return refused.then_some(martian_source);
    }
    if dst == u32::MAX || src == 0 && dst == 0 {
        return None;
    }
    if zero(src) {
        Some(martian_source)
    } else if zero(dst) || foreign_loopback(dst) {
        Some(InputRoute::silent(DropReason::MartianDestination))
    } else {
        foreign_loopback(src).then_some(martian_source)
    }
}
