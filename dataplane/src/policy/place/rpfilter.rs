//! `-m rpfilter`: whether answers to the source would go back to where it came from.

use crate::fib::{Network, Query, RouteKind, is_link_local};
use crate::packet::{Family, PortId};
use crate::policy::eval::PacketView;

/// `-m rpfilter`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RpFilterMatch {
    /// `--loose`: a way back on any device is good.
    pub loose: bool,
    /// `--validmark`: the route is looked up with the packet's mark, otherwise with 0.
    pub valid_mark: bool,
    /// `--accept-local`: a source of this machine's own is good.
    pub accept_local: bool,
    /// `--invert`: matches what fails.
    pub invert: bool,
}

impl RpFilterMatch {
    pub(super) fn matches(&self, packet: &PacketView<'_>) -> bool {
        let passes = match (packet.input, packet.parsed.family) {
            (None | Some(PortId::LOOPBACK), _) => true,
            (Some(port), Family::V4) => self.passes_v4(packet, port),
            (Some(port), Family::V6) => self.passes_v6(packet, port),
        };
        passes != self.invert
    }

    fn back(&self, packet: &PacketView<'_>, src: u128) -> Query {
        let mark = if self.valid_mark { packet.mark } else { 0 };
        let parsed = &*packet.parsed;
        Query { family: parsed.family, src, dst: parsed.src, iif: None, mark }
    }

    fn passes_v4(&self, packet: &PacketView<'_>, port: PortId) -> bool {
        let (src, dst) = (packet.parsed.src as u32, packet.parsed.dst as u32);
        // Somebody who has no address yet asks everybody around.
        if src == 0 && (dst == u32::MAX || dst >> 8 == 0xe0_0000) {
            return true;
        }
        let usable = dst != 0 && dst != u32::MAX && dst >> 28 != 0xe;
        let from = if usable { dst } else { 0 };
        let Some(route) = packet.network.route(&self.back(packet, from.into())) else {
            return false;
        };
        let good = match route.kind {
            RouteKind::Unicast(_) | RouteKind::Foreign => true,
            RouteKind::Local => self.accept_local && !route.anycast,
            _ => false,
        };
        good && (self.loose || route.devices & port.bit() != 0)
    }

    fn passes_v6(&self, packet: &PacketView<'_>, port: PortId) -> bool {
        let (src, dst) = (packet.parsed.src, packet.parsed.dst);
        // It gets nowhere by itself.
        if src == 0 {
            return true;
        }
        let from = if Network::is_unicast_v6(dst) { dst } else { 0 };
        let back = self.back(packet, from);
        let route = match is_link_local(Family::V6, src) {
            true => packet.network.route(&Query { iif: Some(port), ..back }),
            false => packet.network.listed_route(&back),
        };
        route.is_some_and(|route| match route.kind {
            _ if route.anycast => false,
            RouteKind::Local => self.accept_local,
            RouteKind::Unicast(_) | RouteKind::Foreign => {
                self.loose || route.devices & port.bit() != 0
            }
            _ => false,
        })
    }
}
