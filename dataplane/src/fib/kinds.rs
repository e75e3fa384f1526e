//! What kind of address an address is to this machine, and which way its answers
//! would go: what `addrtype` and `rpfilter` ask.

use super::network::{Network, Query, is_link_local};
use super::{Route, RouteEntry, RouteKind};
use crate::packet::{Family, PortId};

/// What the tables say of an IPv6 address, seen from this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindV6 {
    /// It is delivered here, and is no anycast address.
    pub local: bool,
    /// It is an anycast address, or the first of a network that is on a link.
    pub anycast: bool,
    /// Nothing leads there.
    pub unreachable: bool,
}

impl KindV6 {
    const UNREACHABLE: Self = Self { local: false, anycast: false, unreachable: true };

    fn of(route: &Route, address: u128) -> Self {
        let refused = matches!(
            route.kind,
            RouteKind::Blackhole | RouteKind::Unreachable | RouteKind::Prohibit | RouteKind::Throw
        );
        if refused {
            return Self::UNREACHABLE;
        }
        let anycast = is_anycast(route, address);
        let local = route.kind == RouteKind::Local && !route.anycast;
        Self { local, anycast, unreachable: false }
    }
}

/// The first address of an IPv6 network without a gateway is an anycast address to
/// the kernel, unless the network is a single address or a pair.
pub(super) fn is_anycast(route: &Route, address: u128) -> bool {
    let host = u128::MAX.checked_shr(route.prefix_len.into()).unwrap_or(0);
    route.anycast || route.prefix_len < 127 && route.via.is_none() && address & host == 0
}

impl Network {
    /// Whether an IPv6 address is one host's by its form: not unspecified, no group and
    /// no IPv4 address in IPv6's form.
    pub fn is_unicast_v6(address: u128) -> bool {
        address != 0 && address >> 120 != 0xff && address >> 32 != 0xffff
    }

    /// The kind of an IPv4 address by table "local" alone, policy rules and other tables
    /// aside. On a device: only routes over that device count. `None`: not in the table.
    pub fn kind_v4(&self, address: u128, device: Option<PortId>) -> Option<(RouteKind, bool)> {
        let route = self.in_local_table(Family::V4, address)?;
        let here = device.is_none_or(|device| route.devices & device.bit() != 0);
        here.then_some((route.kind, route.anycast))
    }

    /// The kind of an IPv6 address, by the route that a packet of our own would take.
    pub fn kind_v6(&self, address: u128) -> KindV6 {
        const GROUPS: u128 = 0xff << 120;
        if address >= GROUPS {
            // Each device's route to all groups.
            return KindV6 { local: false, anycast: address == GROUPS, unreachable: false };
        }
        let query = Query { family: Family::V6, src: 0, dst: address, iif: None, mark: 0 };
        if !is_link_local(Family::V6, address) {
            return match self.listed_route(&query) {
                Some(route) => KindV6::of(&route, address),
                None => KindV6::UNREACHABLE,
            };
        }
        // Each port has its own link-local network and the same anycast address.
        let own = self.link_local.iter().any(|&(_, own)| own == address);
        let on_link = !self.link_local.is_empty() && address >> 64 == 0xfe80 << 48;
        match self.listed_route(&query) {
            _ if own => KindV6 { local: true, anycast: false, unreachable: false },
            _ if on_link => {
                KindV6 { local: false, anycast: address == 0xfe80 << 112, unreachable: false }
            }
            Some(route) => KindV6::of(&route, address),
            None => KindV6::UNREACHABLE,
        }
    }

    /// Whether an IPv6 address is one of a device's own.
    pub fn is_own_of_device(&self, address: u128, device: PortId) -> bool {
        if is_link_local(Family::V6, address) {
            return self.is_link_local_of(device, address);
        }
        self.in_local_table(Family::V6, address).is_some_and(|route| {
            let own = route.kind == RouteKind::Local && !route.anycast && route.prefix_len == 128;
            own && route.devices & device.bit() != 0
        })
    }
}

/// The devices of a route, with what is implied.
pub(super) fn devices(entry: &RouteEntry) -> u64 {
    match entry.kind {
        RouteKind::Unicast(port) => entry.devices | port.bit(),
        _ => entry.devices,
    }
}
