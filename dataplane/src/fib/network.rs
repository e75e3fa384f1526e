//! [`Network`]: the topology, indexed for lookups.

use std::net::IpAddr;

use super::groups::group_mac;
use super::lpm::Span;
use super::neighbours::Neighbours;
use super::own::Own;
use super::realms::Realms;
use super::routes::{Found, Routes};
use super::{Mode, PortInfo, RouteKind, Topology, derive};
use crate::packet::{Family, MAX_PORTS, Mac, PortId};
use crate::plan::Serial;

/// Why a topology cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// More ports than [`MAX_PORTS`].
    #[error("{0} ports; at most {MAX_PORTS} are supported")]
    TooManyPorts(usize),
    /// Two ports of one name.
    #[error("two ports are named `{0}`")]
    DuplicatePort(String),
    /// A route, rule, neighbour or bridge pair names a port that does not exist.
    #[error("port {0} does not exist")]
    NoSuchPort(u8),
    /// A prefix length beyond its family's.
    #[error("{0}/{1}: prefix length out of range")]
    PrefixLength(IpAddr, u8),
    /// Addresses of two families where one is needed.
    #[error("{0} and {1} are not of one family")]
    MixedFamilies(IpAddr, IpAddr),
}

/// What a route is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Network-layer family.
    pub family: Family,
    /// Source address; zero when not chosen yet.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// Input port; `None` for packets that this machine makes.
    pub iif: Option<PortId>,
    /// The packet's mark.
    pub mark: u32,
}

/// The route that a lookup found. Plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it does; never [`RouteKind::Throw`].
    pub kind: RouteKind,
    /// The gateway and its family; `None` when the destination is on the link.
    pub via: Option<(Family, u128)>,
    /// Route MTU in bytes, if set.
    pub mtu: Option<u32>,
    /// Preferred source address, if set.
    pub prefsrc: Option<u128>,
    /// The table it was found in.
    pub table: u32,
    /// Its prefix length.
    pub prefix_len: u8,
    /// Class bits of the ports that all its next hops are on, or the address that it
    /// delivers to. IPv6: those of every route to that prefix.
    pub devices: u64,
    /// A local route of type anycast.
    pub anycast: bool,
    /// Its realms, and those of the policy rule that led to it.
    pub realms: (Realms, Realms),
}

impl Route {
    /// One without a gateway, on `port`.
    pub(super) fn straight(kind: RouteKind, port: PortId, table: u32, prefix_len: u8) -> Self {
        let devices = port.bit();
        let (via, mtu, prefsrc, anycast) = (None, None, None, false);
        let realms = Default::default();
        Self { kind, via, mtu, prefsrc, table, prefix_len, devices, anycast, realms }
    }

    /// The next hop towards `dst`: the gateway, or `dst` itself.
    #[inline]
    pub fn next_hop(&self, family: Family, dst: u128) -> (Family, u128) {
        self.via.unwrap_or((family, dst))
    }
}

/// Everything the data plane asks about the network. Immutable. By default there is
/// nothing: no ports, no routes.
#[derive(Debug, Default)]
pub struct Network {
    serial: Serial,
    mode: Mode,
    ports: Vec<PortInfo>,
    pub(super) v4: Routes<u32>,
    pub(super) v6: Routes<u128>,
    neighbours: Neighbours,
    own: Own,
    /// Link-local IPv6 addresses by port: they mean nothing elsewhere.
    pub(super) link_local: Vec<(PortId, u128)>,
    /// Multicast groups by port, sorted.
    pub(super) groups: Vec<(PortId, Family, u128)>,
}

impl Network {
    /// Checks and indexes a topology.
    ///
    /// # Errors
    /// [`NetworkError`] for anything inconsistent; nothing is skipped silently.
    pub fn build(topology: &Topology) -> Result<Self, NetworkError> {
        check(topology)?;
        let ports = derive::complete_ports(topology);
        let routes = derive::complete_routes(topology, &ports);
        let bits = |address: &IpAddr| (family_of(address), address_bits(*address));
        let local_routes =
            routes.iter().filter(|r| r.kind == RouteKind::Local && r.to.1 == full(&r.to.0));
        let local_routes = local_routes.map(|r| bits(&r.to.0));
        let addresses = ports.iter().flat_map(|p| &p.addresses).map(|(address, _)| bits(address));
        let local = local_routes.chain(addresses);
        let own = Own::new(local.filter(|&(family, address)| !is_link_local(family, address)));
        let neighbours = topology.neighbours.iter().map(|n| (Neighbours::key(n), n.mac));
        let link_local = ports.iter().enumerate().flat_map(|(index, port)| {
            port.addresses.iter().map(move |(address, _)| (PortId(index as u8), bits(address)))
        });
        let link_local = link_local
            .filter(|&(_, (family, address))| is_link_local(family, address))
            .map(|(port, (_, address))| (port, address))
            .collect();
        let mut groups: Vec<_> = ports
            .iter()
            .enumerate()
            .flat_map(|(index, port)| {
                let on_port =
                    move |group| (PortId(index as u8), family_of(group), address_bits(*group));
                port.groups.iter().map(on_port)
            })
            .collect();
        groups.sort_unstable();
        Ok(Self {
            serial: Serial::default(),
            groups,
            mode: topology.mode.clone(),
            v4: Routes::build(Family::V4, &routes, &topology.rules, &ports),
            v6: Routes::build(Family::V6, &routes, &topology.rules, &ports),
            ports,
            neighbours: Neighbours::new(neighbours.collect()),
            own,
            link_local,
        })
    }
    /// A number that no other network of this process has.
    #[inline]
    pub fn serial(&self) -> Serial {
        self.serial
    }
    /// How the engine treats what arrives.
    pub fn mode(&self) -> &Mode {
        &self.mode
    }
    /// The ports, indexed by [`PortId`]; derived link-local addresses included.
    pub fn ports(&self) -> &[PortInfo] {
        &self.ports
    }
    /// One port.
    ///
    /// # Panics
    /// When the port does not exist: ids come from the same topology.
    #[inline]
    pub fn port(&self, port: PortId) -> &PortInfo {
        &self.ports[port.index()]
    }
    /// The port with this interface name.
    pub fn port_named(&self, name: &str) -> Option<PortId> {
        self.ports.iter().position(|port| port.name == name).map(|index| PortId(index as u8))
    }
    /// The link-layer address of a neighbour, if it is known.
    #[inline]
    pub fn neighbour(&self, port: PortId, family: Family, address: u128) -> Option<Mac> {
        let known = self.neighbours.get(port, family, address);
        known.or_else(|| group_mac(family, address))
    }
    /// Whether an address is this machine's own. IPv6 link-local addresses
    /// belong to a port: see [`Network::is_link_local_of`].
    #[inline]
    pub fn is_local(&self, family: Family, address: u128) -> bool {
        self.own.has(family, address)
    }
    /// Whether `address` is an IPv6 link-local address of `port`.
    pub fn is_link_local_of(&self, port: PortId, address: u128) -> bool {
        self.link_local.contains(&(port, address))
    }
    /// Whether an address that was met on `port` is this machine's, there or everywhere.
    pub fn is_own(&self, family: Family, address: u128, port: PortId) -> bool {
        self.is_local(family, address) || self.is_link_local_of(port, address)
    }
    /// The route that policy rules and tables give. Input checks are not made:
    /// see [`Network::input`]. `None`: no route.
    #[inline]
    pub fn route(&self, query: &Query) -> Option<Route> {
        if is_link_local(query.family, query.dst) {
            return self.link_local_route(query);
        }
        self.listed_route(query)
    }
    /// The route that rules and tables give, even to a link-local destination: see
    /// [`Network::link_route`].
    #[inline]
    pub fn listed_route(&self, query: &Query) -> Option<Route> {
        match query.family {
            Family::V4 => self.v4.find(query).map(Found::route),
            Family::V6 => self.v6.find(query).map(Found::route),
        }
    }
    /// The MTU in bytes of a unicast route over `port`: the route's own, or the port's.
    #[inline]
    pub fn mtu(&self, route: &Route, port: PortId) -> u32 {
        route.mtu.unwrap_or(self.port(port).mtu)
    }

    /// What table "local" alone says of an address.
    pub(super) fn in_local_table(&self, family: Family, address: u128) -> Option<Route> {
        match family {
            Family::V4 => self.v4.in_local_table(address),
            Family::V6 => self.v6.in_local_table(address),
        }
    }

    /// Whether the kernel looks up the way to every IPv4 source.
    pub(super) fn checks_sources_v4(&self) -> bool {
        self.v4.custom_rules || self.v4.realms
    }

    /// Whether any IPv4 route or rule has a realm.
    #[inline]
    pub fn has_realms(&self) -> bool {
        self.v4.realms
    }
}

fn check(topology: &Topology) -> Result<(), NetworkError> {
    let count = topology.ports.len();
    if count > MAX_PORTS {
        return Err(NetworkError::TooManyPorts(count));
    }
    for (index, port) in topology.ports.iter().enumerate() {
        if topology.ports[..index].iter().any(|other| other.name == port.name) {
            return Err(NetworkError::DuplicatePort(port.name.clone()));
        }
        port.addresses.iter().try_for_each(|&prefix| check_prefix(prefix))?;
    }
    let exists = |port: PortId| match port.index() < count {
        true => Ok(()),
        false => Err(NetworkError::NoSuchPort(port.0)),
    };
    for route in &topology.routes {
        check_prefix(route.to)?;
        if let RouteKind::Unicast(port) = route.kind {
            exists(port)?;
        }
        if let Some(source) = route.prefsrc {
            same_family(route.to.0, source)?;
        }
    }
    for rule in &topology.rules {
        rule.iif.map_or(Ok(()), exists)?;
        for prefix in [rule.from, rule.to].into_iter().flatten() {
            check_prefix(prefix)?;
        }
        if let (Some(from), Some(to)) = (rule.from, rule.to) {
            same_family(from.0, to.0)?;
        }
    }
    topology.neighbours.iter().try_for_each(|neighbour| exists(neighbour.port))?;
    if let Mode::Bridge(pairs) = &topology.mode {
        pairs.iter().try_for_each(|&(a, b)| exists(a).and(exists(b)))?;
    }
    Ok(())
}

fn check_prefix((address, len): (IpAddr, u8)) -> Result<(), NetworkError> {
    match len <= full(&address) {
        true => Ok(()),
        false => Err(NetworkError::PrefixLength(address, len)),
    }
}

fn same_family(a: IpAddr, b: IpAddr) -> Result<(), NetworkError> {
    match a.is_ipv4() == b.is_ipv4() {
        true => Ok(()),
        false => Err(NetworkError::MixedFamilies(a, b)),
    }
}

/// The prefix length of a single host.
pub(super) fn full(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The family of an address.
pub(super) fn family_of(address: &IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// An address in the common 128-bit form.
pub(super) fn address_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The addresses that a prefix covers; bits beyond its length are ignored.
pub(super) fn span((address, len): (IpAddr, u8)) -> Span {
    let host = match family_of(&address) {
        Family::V4 => u128::from(u32::MAX.checked_shr(len.into()).unwrap_or(0)),
        Family::V6 => u128::MAX.checked_shr(len.into()).unwrap_or(0),
    };
    let bits = address_bits(address);
    Span { first: bits & !host, last: bits | host }
}

/// Whether an address is IPv6 link-local (fe80::/10).
#[inline]
pub(crate) fn is_link_local(family: Family, address: u128) -> bool {
    family == Family::V6 && address >> 118 == 0xfe80 >> 6
}
