//! Which source address a packet of our own gets: the kernel's primary-address
//! choice for IPv4, RFC 6724 as far as routers need it for IPv6.

use std::net::IpAddr;

use super::kinds::is_anycast;
use super::network::{Network, Query, address_bits, family_of, is_link_local, span};
use super::{Route, RouteKind};
use crate::packet::{Family, PortId};

impl Network {
    /// The route to, and source address for, an ICMP or ICMPv6 error about a
    /// packet that went from `src` to `dst` and met this machine on `near`: whether it
    /// `arrived` there, or is our own. `None` when there is no way back, or
    /// the source is an anycast address. The route's kind is [`RouteKind::Unicast`].
    pub fn error_source(
        &self,
        family: Family,
        src: u128,
        dst: u128,
        (near, arrived): (PortId, bool),
    ) -> Option<(u128, PortId, Route)> {
        let scoped = is_link_local(family, src);
        let back = Query { family, src: 0, dst: src, iif: scoped.then_some(near), mark: 0 };
        let route = self.route(&back)?;
        let RouteKind::Unicast(out) = route.kind else { return None };
        if family == Family::V6 && is_anycast(&route, src) {
            return None;
        }
        let source = match (family, route.prefsrc) {
            _ if self.is_own(family, dst, near) => dst,
            (_, Some(preferred)) => preferred,
            (Family::V4, None) => self.select_v4(out, route.via.map(|via| via.1))?,
            // Linux takes the address from the port the packet came in by.
            (Family::V6, None) => self.select_v6(if arrived { near } else { out }, src)?,
        };
        let leaves = !self.confines(family, source, out);
        leaves.then_some((source, out, route))
    }

    /// Whether a packet of our own from `src` may not leave by `port`: IPv4's loopback
    /// network is kept from the wire.
    pub fn confines(&self, family: Family, src: u128, port: PortId) -> bool {
        family == Family::V4 && src >> 24 == 127 && !self.port(port).route_localnet
    }

    /// The address by which an IPv4 packet that arrived on `port` from `src`
    /// and is not addressed to this machine itself knows this machine.
    pub fn address_towards(&self, src: u128, port: PortId) -> Option<u128> {
        let back = Query { family: Family::V4, src: 0, dst: src, iif: None, mark: 0 };
        match self.route(&back) {
            Some(Route { kind: RouteKind::Unicast(out), via, prefsrc, .. }) => {
                prefsrc.or_else(|| self.select_v4(out, via.map(|via| via.1)))
            }
            _ if port == PortId::LOOPBACK => None,
            _ => self.select_v4(port, Some(src)),
        }
    }

    /// The address of an IPv4 packet's way out on `port`, as routing now has it.
    pub fn address_onward(&self, query: &Query, port: PortId, next_hop: u128) -> Option<u128> {
        match self.route(query) {
            Some(Route { kind: RouteKind::Unicast(out), via, prefsrc, .. }) if out == port => {
                prefsrc.or_else(|| self.select_v4(out, via.map(|via| via.1)))
            }
            _ => self.select_v4(port, Some(next_hop)),
        }
    }

    /// The source address for a packet of our own that leaves on `port` towards
    /// `dst`, when its route prefers none.
    pub fn source_address(&self, port: PortId, family: Family, dst: u128) -> Option<u128> {
        match family {
            Family::V4 => self.select_v4(port, Some(dst)),
            Family::V6 => self.select_v6(port, dst),
        }
    }

    /// The address of `port` that a packet which came in on it for `dst` is
    /// redirected to: the first, of the scope that a scoped destination needs.
    pub fn redirect_address(&self, port: PortId, family: Family, dst: u128) -> Option<u128> {
        if port == PortId::LOOPBACK {
            return None;
        }
        let own = self.port(port).addresses.iter().map(|&(address, _)| address);
        let mut own = own.filter(|address| family_of(address) == family).map(address_bits);
        // `::/96` is a scope of its own to the kernel, which no usable address has.
        if family == Family::V6 && dst >> 32 == 0 && dst > 1 {
            return None;
        }
        match (family, scope(dst)) {
            (Family::V6, wanted @ (2 | 5)) => own.find(|&address| scope(address) == wanted),
            (Family::V6, _) => {
                // The kernel lists wide scopes first.
                own.reduce(|best, next| if scope(next) > scope(best) { next } else { best })
            }
            (Family::V4, _) => own.next(),
        }
    }

    /// The first address of the port whose network holds `near`, else its
    /// first; else the first of any port.
    fn select_v4(&self, port: PortId, near: Option<u128>) -> Option<u128> {
        let v4 = |port: &'_ super::PortInfo, near: Option<u128>| {
            let mut own = port.addresses.iter().filter(|(address, _)| address.is_ipv4());
            own.find(|&&prefix| near.is_none_or(|near| holds(prefix, near)))
                .map(|&(address, _)| address_bits(address))
        };
        let at = (port != PortId::LOOPBACK).then(|| self.port(port));
        at.and_then(|at| v4(at, near).or_else(|| v4(at, None)))
            .or_else(|| self.ports().iter().find_map(|port| v4(port, None)))
    }

    /// RFC 6724 rules 1, 2, 5, 6 and 8, in the kernel's order of candidates.
    fn select_v6(&self, port: PortId, dst: u128) -> Option<u128> {
        const LOOPBACK: u128 = 1;
        if dst == LOOPBACK {
            return Some(LOOPBACK);
        }
        let mut best: Option<(Score, u128)> = None;
        for (index, info) in self.ports().iter().enumerate() {
            let here = index == port.index();
            if !here && is_link_local(Family::V6, dst) {
                continue;
            }
            for &(address, len) in &info.addresses {
                if family_of(&address) != Family::V6 {
                    continue;
                }
                let bits = address_bits(address);
                let score = Score::of(bits, len, dst, here);
                if best.is_none_or(|(held, _)| score > held) {
                    best = Some((score, bits));
                }
            }
        }
        best.map(|(_, address)| address)
    }
}

fn holds(prefix: (IpAddr, u8), address: u128) -> bool {
    let span = span(prefix);
    span.first <= address && address <= span.last
}

/// A candidate's merits, most important first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    same: bool,
    scope: i32,
    on_port: bool,
    label: bool,
    common_bits: u32,
}

impl Score {
    fn of(address: u128, len: u8, dst: u128, on_port: bool) -> Self {
        let (own, wanted) = (scope(address), scope(dst));
        Self {
            same: address == dst,
            scope: if own >= wanted { -own } else { own - 128 },
            on_port,
            label: label(address) == label(dst),
            common_bits: (address ^ dst).leading_zeros().min(len.into()),
        }
    }
}

/// The scope of an address, in the numbering of multicast scopes.
fn scope(address: u128) -> i32 {
    match address >> 112 {
        top if top >> 8 == 0xff => (top & 15) as i32,
        top if top & 0xffc0 == 0xfe80 => 2,
        top if top & 0xffc0 == 0xfec0 => 5,
        _ => 14,
    }
}

/// The kernel's default address labels.
fn label(address: u128) -> u8 {
    let starts = |prefix: u128, len: u32| (address ^ prefix) >> (128 - len) == 0;
    match address {
        1 => 0,
        a if a >> 32 == 0xffff => 4,
        a if a >> 32 == 0 => 3,
        _ if starts(0x2001 << 112, 32) => 6,
        _ if starts(0x2001_0010 << 96, 28) => 7,
        _ if starts(0x2002 << 112, 16) => 2,
        _ if starts(0x3ffe << 112, 16) => 12,
        _ if starts(0xfec0 << 112, 10) => 11,
        _ if starts(0xfc00 << 112, 7) => 5,
        _ => 1,
    }
}
