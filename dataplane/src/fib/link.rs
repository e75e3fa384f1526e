//! Links: the groups of ports, and ways that stay on one.

use super::network::{Network, Query, Route};
use super::{RouteKind, derive};
use crate::packet::PortId;

impl Network {
    /// The group of a port. Loopback has the default one.
    #[inline]
    pub fn device_group(&self, port: PortId) -> u32 {
        self.ports().get(port.index()).map_or(0, |port| port.device_group)
    }

    /// IPv6 link-local destinations never leave the link they came from.
    pub(super) fn link_local_route(&self, query: &Query) -> Option<Route> {
        let port = query.iif?;
        if self.is_link_local_of(port, query.dst) {
            return Some(Route::straight(RouteKind::Local, port, derive::LOCAL, 128));
        }
        let linked = self.link_local.iter().any(|&(owner, _)| owner == port);
        linked.then(|| self.link_route(query, port))
    }

    /// The route to an IPv6 link-local destination on `port`: straight onto the link,
    /// unless policy rules name a table with another way on that port.
    pub fn link_route(&self, query: &Query, port: PortId) -> Route {
        let (kind, table, prefix_len) = (RouteKind::Unicast(port), derive::MAIN, 64);
        let link = Route::straight(kind, port, table, prefix_len);
        let nearer = |route: &Route| {
            route.kind == link.kind && (route.table != link.table || route.prefix_len >= prefix_len)
        };
        self.listed_route(query).filter(nearer).unwrap_or(link)
    }
}
