//! What the kernel derives from addresses: link-local addresses, local,
//! broadcast and connected routes, and the default policy rules.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::network::{address_bits, family_of, is_link_local, span};
use super::{PortInfo, Realms, RouteEntry, RouteKind, RuleEntry, Topology};
use crate::packet::{Family, Mac, PortId};

/// Table "local".
pub(super) const LOCAL: u32 = 255;
/// Table "main".
pub(super) const MAIN: u32 = 254;
/// Table "default".
const DEFAULT: u32 = 253;
/// Metric of connected IPv6 routes.
const CONNECTED_V6: u32 = 256;

fn mirrored(topology: &Topology, family: Family) -> bool {
    topology.routes.iter().any(|r| r.table == LOCAL && family_of(&r.to.0) == family)
}

/// The ports, each IPv6 port with a link-local address, and all with the groups
/// that a router joins, unless the topology is a mirror of a kernel (which would
/// have listed them).
pub(super) fn complete_ports(topology: &Topology) -> Vec<PortInfo> {
    let mut ports = topology.ports.clone();
    if !mirrored(topology, Family::V4) {
        ports.iter_mut().for_each(|port| port.groups.push(ALL_HOSTS.into()));
    }
    if mirrored(topology, Family::V6) {
        return ports;
    }
    for port in &mut ports {
        let mut v6 = port.addresses.iter().filter(|(address, _)| address.is_ipv6()).peekable();
        let used = v6.peek().is_some();
        if used && !v6.any(|(address, _)| is_link_local(Family::V6, address_bits(*address))) {
            port.addresses.push((eui64(port.mac).into(), 64));
        }
        join_ipv6(port);
    }
    ports
}

/// 224.0.0.1: the one group that every IPv4 host has joined.
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);

/// All nodes, all routers, and the solicited-node groups of the port's addresses
/// and of the subnet-router anycast addresses.
fn join_ipv6(port: &mut PortInfo) {
    const SOLICITED: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
    const ALL_NODES: u128 = 0xff02_0000_0000_0000_0000_0000_0000_0001;
    const ALL_ROUTERS: u128 = 0xff02_0000_0000_0000_0000_0000_0000_0002;
    const SITE_ROUTERS: u128 = 0xff05_0000_0000_0000_0000_0000_0000_0002;
    let mut groups = vec![ALL_NODES, ALL_ROUTERS, SITE_ROUTERS];
    for &(address, len) in port.addresses.iter().filter(|(address, _)| address.is_ipv6()) {
        let anycast = (len < 127).then_some(span((address, len)).first);
        let own = [Some(address_bits(address)), anycast].into_iter().flatten();
        groups.extend(own.map(|address| SOLICITED | address & 0xff_ffff));
    }
    port.groups.extend(groups.into_iter().map(|group| IpAddr::V6(Ipv6Addr::from_bits(group))));
}

/// The link-local address that the kernel forms from a MAC address.
fn eui64(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// The routes, with those that addresses imply where they are not mirrored.
pub(super) fn complete_routes(topology: &Topology, ports: &[PortInfo]) -> Vec<RouteEntry> {
    let mut routes = topology.routes.clone();
    let derive_v4 = !mirrored(topology, Family::V4);
    let derive_v6 = !mirrored(topology, Family::V6);
    for (index, port) in ports.iter().enumerate().filter(|(_, port)| port.up) {
        let id = PortId(index as u8);
        for (at, &(address, len)) in port.addresses.iter().enumerate() {
            match address {
                IpAddr::V4(v4) if derive_v4 => {
                    let primary = !port.addresses[..at].iter().any(|&(other, other_len)| {
                        other_len == len
                            && span((other, len)) == span((address, len))
                            && other.is_ipv4()
                    });
                    derive_ipv4(&mut routes, id, v4, len, primary);
                }
                IpAddr::V6(v6) if derive_v6 => derive_ipv6(&mut routes, id, v6, len),
                _ => {}
            }
        }
    }
    let on_loopback = |address: IpAddr, len, kind| RouteEntry {
        devices: PortId::LOOPBACK.bit(),
        ..entry((address, len), kind, LOCAL)
    };
    if derive_v4 {
        routes.push(on_loopback(Ipv4Addr::new(127, 0, 0, 0).into(), 8, RouteKind::Local));
        routes.push(on_loopback(Ipv4Addr::LOCALHOST.into(), 32, RouteKind::Local));
        let last = Ipv4Addr::new(127, 255, 255, 255).into();
        routes.push(on_loopback(last, 32, RouteKind::Broadcast));
    }
    if derive_v6 {
        routes.push(on_loopback(Ipv6Addr::LOCALHOST.into(), 128, RouteKind::Local));
    }
    routes
}

fn entry(to: (IpAddr, u8), kind: RouteKind, table: u32) -> RouteEntry {
    RouteEntry {
        to,
        via: None,
        kind,
        table,
        metric: 0,
        mtu: None,
        prefsrc: None,
        devices: 0,
        anycast: false,
        realms: Realms::default(),
    }
}

fn derive_ipv4(
    routes: &mut Vec<RouteEntry>,
    port: PortId,
    address: Ipv4Addr,
    len: u8,
    primary: bool,
) {
    let prefsrc = Some(IpAddr::V4(address));
    let host = (address.into(), 32);
    let devices = port.bit();
    routes.push(RouteEntry { prefsrc, devices, ..entry(host, RouteKind::Local, LOCAL) });
    if !primary || len == 32 {
        return;
    }
    let net = span((address.into(), len));
    let prefix = (Ipv4Addr::from_bits(net.first as u32).into(), len);
    routes.push(RouteEntry { prefsrc, ..entry(prefix, RouteKind::Unicast(port), MAIN) });
    if len < 31 {
        let broadcast = (Ipv4Addr::from_bits(net.last as u32).into(), 32);
        let broadcast = entry(broadcast, RouteKind::Broadcast, LOCAL);
        routes.push(RouteEntry { prefsrc, devices, ..broadcast });
    }
}

fn derive_ipv6(routes: &mut Vec<RouteEntry>, port: PortId, address: Ipv6Addr, len: u8) {
    if is_link_local(Family::V6, address.to_bits()) {
        // Link-local destinations are answered by port, outside the tables.
        return;
    }
    let devices = port.bit();
    let own = entry((address.into(), 128), RouteKind::Local, LOCAL);
    routes.push(RouteEntry { devices, ..own });
    if len == 128 {
        return;
    }
    let net = Ipv6Addr::from_bits(span((address.into(), len)).first).into();
    let connected = entry((net, len), RouteKind::Unicast(port), MAIN);
    routes.push(RouteEntry { metric: CONNECTED_V6, ..connected });
    if len < 127 {
        // The subnet-router anycast address, which a router answers.
        let subnet = entry((net, 128), RouteKind::Local, LOCAL);
        routes.push(RouteEntry { devices, anycast: true, ..subnet });
    }
}

/// The rules of a family in the order they are asked, defaults implied.
pub(super) fn complete_rules(family: Family, rules: &[RuleEntry]) -> Vec<RuleEntry> {
    let mut rules: Vec<_> = rules.iter().filter(|rule| rule.family == family).cloned().collect();
    if !rules.iter().any(|rule| rule.table == LOCAL) {
        for (priority, table) in [(0, LOCAL), (32766, MAIN), (32767, DEFAULT)] {
            rules.push(RuleEntry {
                family,
                priority,
                fwmark: None,
                from: None,
                to: None,
                iif: None,
                table,
                realms: Realms::default(),
            });
        }
    }
    rules.sort_by_key(|rule| rule.priority);
    rules
}

/// Whether a rule is one of the kernel's three defaults.
pub(super) fn is_default_rule(rule: &RuleEntry) -> bool {
    let plain =
        rule.fwmark.is_none() && rule.from.is_none() && rule.to.is_none() && rule.iif.is_none();
    plain && matches!((rule.priority, rule.table), (0, LOCAL) | (32766, MAIN) | (32767, DEFAULT))
}
