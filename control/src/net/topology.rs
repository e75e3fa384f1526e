//! From the kernel's view to the topology that workers route by.
//!
//! What a [`Topology`] cannot say exactly is either refused
//! ([`TopologyError`]), when packets could take another road than the kernel
//! would send them, or simplified with a [`Note`].
//!
//! Multipath: the kernel spreads flows by a hash with a secret seed, so no other
//! program can choose the same hop for the same flow. All flows take the
//! first hop that is alive, has carrier, and leads to a port of ours.

use std::net::{IpAddr, Ipv4Addr};

use dataplane::fib::{
    Mode, NeighbourEntry, PortInfo, Realms, RouteEntry, RouteKind, RuleEntry, Topology,
};
use dataplane::packet::{Mac, PortId};
use netlink_packet_route::route::RouteType;
use thiserror::Error;

use super::view::{Hop, Route, Rule, View};

/// A part of the kernel's configuration that cannot be honoured exactly.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TopologyError {
    /// A policy routing rule with a selector or action that we do not know.
    #[error(
        "ip rule with priority {priority} uses {feature}, which cannot be honoured; \
         remove the rule or keep this traffic off the ports"
    )]
    Rule {
        /// The rule's priority.
        priority: u32,
        /// What it uses.
        feature: &'static str,
    },
    /// A port belongs to a VRF.
    #[error("port {port} belongs to a VRF, which cannot be honoured")]
    Vrf {
        /// The port.
        port: String,
    },
}

/// Something that was simplified.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Note {
    /// All flows take one hop.
    #[error("multipath route to {}/{}: all flows take {}", to.0, to.1, describe(*chosen))]
    Multipath {
        /// The destination.
        to: (IpAddr, u8),
        /// The hop's gateway.
        chosen: Option<IpAddr>,
    },
    /// A route for one TOS value only, which is left out.
    #[error("route to {}/{} is for one TOS value only and is left out", to.0, to.1)]
    Tos {
        /// The destination.
        to: (IpAddr, u8),
    },
    /// A source-specific IPv6 route, which is left out.
    #[error("route to {}/{} is source-specific and is left out", to.0, to.1)]
    SourceSpecific {
        /// The destination.
        to: (IpAddr, u8),
    },
    /// A route whose next hop is an object that the kernel does not spell out.
    #[error(
        "route to {}/{} names nexthop object {id} only: packets to it are dropped; \
         sysctl net.ipv4.nexthop_compat_mode=1 makes the kernel spell it out", to.0, to.1
    )]
    NextHopObject {
        /// The destination.
        to: (IpAddr, u8),
        /// The object.
        id: u32,
    },
    /// An encapsulating route: nothing is sent on it.
    #[error("route to {}/{} encapsulates: packets to it are dropped", to.0, to.1)]
    Encapsulated {
        /// The destination.
        to: (IpAddr, u8),
    },
}

fn describe(gateway: Option<IpAddr>) -> String {
    gateway.map_or_else(|| "the first device".to_owned(), |address| address.to_string())
}

/// Prefixes, sorted, without duplicates.
pub type PrefixList = Vec<(IpAddr, u8)>;

struct Builder<'a> {
    view: &'a View,
    /// Interface index of each port; `None` when it is gone.
    indices: Vec<Option<u32>>,
    notes: Vec<Note>,
}

/// Builds the topology. `ports[i]` becomes `PortId(i)`; a port that is gone
/// stays in its place, down.
pub(super) fn build(
    view: &View,
    mode: &Mode,
    ports: &[String],
) -> Result<(Topology, Vec<Note>), TopologyError> {
    let indices = ports.iter().map(|name| view.link_by_name(name).map(|link| link.index)).collect();
    let mut builder = Builder { view, indices, notes: Vec::new() };
    let topology = Topology {
        mode: mode.clone(),
        ports: ports.iter().map(|name| builder.port(name)).collect(),
        routes: view.routes.iter().filter_map(|route| builder.route(route)).collect(),
        rules: builder.rules(ports)?,
        neighbours: builder.neighbours(),
    };
    Ok((topology, builder.notes))
}

/// What the kernel delivers to itself: local, anycast and broadcast prefixes.
pub(super) fn local_prefixes(view: &View) -> PrefixList {
    let local = |route: &&Route| {
        matches!(route.kind, RouteType::Local | RouteType::Anycast | RouteType::Broadcast)
    };
    let mut list: PrefixList = view.routes.iter().filter(local).map(|route| route.to).collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// The IPv4 broadcast addresses among them.
pub(super) fn broadcasts(view: &View) -> Vec<Ipv4Addr> {
    let broadcast = |route: &&Route| route.kind == RouteType::Broadcast;
    let host = |route: &Route| match route.to {
        (IpAddr::V4(address), 32) => Some(address),
        _ => None,
    };
    let mut list: Vec<_> = view.routes.iter().filter(broadcast).filter_map(host).collect();
    list.sort_unstable();
    list.dedup();
    list
}

/// Stale neighbours on our ports.
pub(super) fn stale_neighbours(
    view: &View,
    ports: &[String],
    limit: usize,
) -> Vec<(PortId, IpAddr)> {
    let indices = ports.iter().map(|name| view.link_by_name(name).map(|link| link.index)).collect();
    let builder = Builder { view, indices, notes: Vec::new() };
    let stale = view.neighbours.iter().filter(|(_, neighbour)| neighbour.stale);
    stale
        .filter_map(|(&(link, address), _)| Some((builder.port_of(link)?, address)))
        .take(limit)
        .collect()
}

impl Builder<'_> {
    fn port_of(&self, link: u32) -> Option<PortId> {
        let position = self.indices.iter().position(|index| *index == Some(link))?;
        Some(PortId(position as u8))
    }

    /// The class bit of a device that is a port, or loopback.
    fn device(&self, link: u32) -> Option<u64> {
        let loopback = || self.view.links.get(&link).is_some_and(|link| link.name == "lo");
        let port = self.port_of(link).or_else(|| loopback().then_some(PortId::LOOPBACK))?;
        Some(port.bit())
    }

    fn port(&self, name: &str) -> PortInfo {
        let Some(link) = self.view.link_by_name(name) else {
            return PortInfo {
                groups: Vec::new(),
                route_localnet: false,
                device_group: 0,
                name: name.to_owned(),
                mac: Mac::default(),
                mtu: 1500,
                addresses: Vec::new(),
                up: false,
            };
        };
        let own = self.view.addresses.iter().filter(|address| address.link == link.index);
        let joined = self.view.groups.iter().filter(|(device, _)| *device == link.index);
        PortInfo {
            groups: joined.map(|(_, group)| *group).collect(),
            route_localnet: self.view.localnet.contains(name),
            device_group: link.group,
            name: name.to_owned(),
            mac: link.mac,
            mtu: link.mtu,
            addresses: own.map(|address| (address.address, address.prefix)).collect(),
            up: link.up,
        }
    }

    fn route(&mut self, route: &Route) -> Option<RouteEntry> {
        let to = route.to;
        if route.tos != 0 {
            self.notes.push(Note::Tos { to });
            return None;
        }
        if route.source_specific {
            self.notes.push(Note::SourceSpecific { to });
            return None;
        }
        let own = route.hops.first().map_or(Realms::default(), |hop| hop.realms);
        let (kind, via, realms) = match route.kind {
            RouteType::Unicast => self.unicast(route)?,
            RouteType::Local | RouteType::Anycast => (RouteKind::Local, None, own),
            RouteType::Broadcast => (RouteKind::Broadcast, None, own),
            RouteType::BlackHole => (RouteKind::Blackhole, None, own),
            RouteType::Unreachable => (RouteKind::Unreachable, None, own),
            RouteType::Prohibit => (RouteKind::Prohibit, None, own),
            RouteType::Throw => (RouteKind::Throw, None, own),
            // Multicast is not forwarded; the rest the kernel does not route by.
            _ => return None,
        };
        Some(RouteEntry {
            to,
            via,
            kind,
            table: route.table,
            metric: route.metric,
            mtu: route.mtu,
            prefsrc: route.prefsrc,
            devices: route
                .hops
                .iter()
                .filter_map(|hop| self.device(hop.link?))
                .fold(0, |a, b| a | b),
            anycast: route.kind == RouteType::Anycast,
            realms,
        })
    }

    /// Where a unicast route leads, and that hop's realms; `None` when no hop is alive.
    fn unicast(&mut self, route: &Route) -> Option<(RouteKind, Option<IpAddr>, Realms)> {
        if route.encapsulated {
            self.notes.push(Note::Encapsulated { to: route.to });
            return Some((RouteKind::Foreign, None, Realms::default()));
        }
        let untold = |hop: &Hop| hop.link.is_none() && hop.via.is_none();
        if let Some(id) = route.nexthop_object.filter(|_| route.hops.iter().all(untold)) {
            self.notes.push(Note::NextHopObject { to: route.to, id });
            return Some((RouteKind::Foreign, None, Realms::default()));
        }
        let port = |hop: &Hop| hop.link.and_then(|link| self.port_of(link));
        let alive = || route.hops.iter().filter(|hop| !hop.dead);
        let chosen = alive()
            .find(|hop| !hop.carrier_lost && port(hop).is_some())
            .or_else(|| alive().find(|hop| !hop.carrier_lost))
            .or_else(|| alive().next())?;
        let kind = port(chosen).map_or(RouteKind::Foreign, RouteKind::Unicast);
        if alive().count() > 1 {
            self.notes.push(Note::Multipath { to: route.to, chosen: chosen.via });
        }
        Some((kind, chosen.via, chosen.realms))
    }

    fn rules(&self, ports: &[String]) -> Result<Vec<RuleEntry>, TopologyError> {
        let mut rules = Vec::new();
        for rule in &self.view.rules {
            rules.extend(self.rule(rule, ports)?);
        }
        Ok(rules)
    }

    /// `None` for a rule that no packet received on a port can match.
    fn rule(&self, rule: &Rule, ports: &[String]) -> Result<Option<RuleEntry>, TopologyError> {
        if rule.has_output {
            return Ok(None);
        }
        let iif = match &rule.input {
            None => None,
            Some(name) => match ports.iter().position(|port| port == name) {
                Some(position) => Some(PortId(position as u8)),
                None => return Ok(None),
            },
        };
        if rule.l3mdev {
            return self.no_vrf(ports).map(|()| None);
        }
        if let Some(feature) = rule.unsupported {
            return Err(TopologyError::Rule { priority: rule.priority, feature });
        }
        Ok(Some(RuleEntry {
            family: rule.family,
            priority: rule.priority,
            fwmark: rule.fwmark,
            from: rule.from,
            to: rule.to,
            iif,
            table: rule.table,
            realms: rule.realms,
        }))
    }

    /// The `l3mdev` rule exists as soon as any VRF does; it matters only to a
    /// port that is in one. (A port in a bridge or bond is refused elsewhere.)
    fn no_vrf(&self, ports: &[String]) -> Result<(), TopologyError> {
        let enslaved = ports.iter().find(|name| {
            self.view.link_by_name(name).is_some_and(|link| link.controller.is_some())
        });
        match enslaved {
            Some(port) => Err(TopologyError::Vrf { port: port.clone() }),
            None => Ok(()),
        }
    }

    fn neighbours(&self) -> Vec<NeighbourEntry> {
        let all = self.view.neighbours.iter();
        all.filter_map(|(&(link, address), neighbour)| {
            Some(NeighbourEntry { port: self.port_of(link)?, address, mac: neighbour.mac })
        })
        .collect()
    }
}
