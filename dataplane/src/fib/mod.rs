//! Routes, rules, addresses and neighbours: the kernel's view of the network,
//! mirrored by `control` (netlink, or a replay topology) and immutable once built.
//!
//! [`Topology`] is the plain data; [`Network`] answers from it. A lookup
//! allocates nothing and costs one look into an index and a short search behind it; with
//! policy rules of one's own, one for each table that they ask.

mod derive;
mod groups;
mod input;
mod kinds;
mod link;
mod lpm;
mod neighbours;
mod network;
mod own;
mod quick;
mod realms;
mod routes;
mod source;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

pub use input::InputRoute;
pub use kinds::KindV6;
pub(crate) use network::is_link_local;
pub use network::{Network, NetworkError, Query, Route};
pub use quick::Onward;
pub use realms::Realms;

use crate::packet::{Family, Mac, PortId};

/// MTU in bytes of the way to this machine itself.
pub const LOOPBACK_MTU: u32 = 65536;

/// How the engine treats what arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A gateway: frames to our MAC are routed.
    #[default]
    Routed,
    /// Transparent pairs: what arrives on one leaves on the other.
    Bridge(Vec<(PortId, PortId)>),
    /// One port, INPUT and OUTPUT only; nothing is forwarded.
    Host,
}

/// One port as the kernel knows it. Index in [`Topology::ports`] = [`PortId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Interface name.
    pub name: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Layer 3 MTU in bytes.
    pub mtu: u32,
    /// Addresses with prefix lengths, primary first.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Multicast groups that the machine listens to there. For a family that is not
    /// mirrored (see [`Topology`]), those that every router joins are added.
    pub groups: Vec<IpAddr>,
    /// Whether 127.0.0.0/8 may be the source or destination of what arrives there:
    /// `net.ipv4.conf.PORT.route_localnet` or that of `all`.
    pub route_localnet: bool,
    /// Its group, as `ip link set PORT group` sets it.
    pub device_group: u32,
    /// Whether it is up.
    pub up: bool,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Forward to a port of ours.
    Unicast(PortId),
    /// Forward to a device that is not one of our ports.
    Foreign,
    /// Deliver locally.
    Local,
    /// Broadcast address of a connected network.
    Broadcast,
    /// Drop silently.
    Blackhole,
    /// Answer host unreachable.
    Unreachable,
    /// Answer administratively prohibited.
    Prohibit,
    /// Continue with the next rule.
    Throw,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// Destination prefix.
    pub to: (IpAddr, u8),
    /// Gateway, if any.
    pub via: Option<IpAddr>,
    /// What it does.
    pub kind: RouteKind,
    /// Table number (254 main, 255 local).
    pub table: u32,
    /// Lower wins. Zero means 1024 for IPv6, as the kernel has it.
    pub metric: u32,
    /// Route MTU, if set.
    pub mtu: Option<u32>,
    /// Preferred source address, if set.
    pub prefsrc: Option<IpAddr>,
    /// Class bits of the ports (and of loopback) that all its next hops are on, or the
    /// address that it delivers to. A unicast route's own port is implied.
    pub devices: u64,
    /// A local route of type anycast.
    pub anycast: bool,
    /// Its realms, as `ip route ... realms` sets them (IPv4).
    pub realms: Realms,
}

/// One `ip rule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleEntry {
    /// Family it applies to.
    pub family: Family,
    /// Lower is asked first.
    pub priority: u32,
    /// Packet mark: value, mask.
    pub fwmark: Option<(u32, u32)>,
    /// Source prefix.
    pub from: Option<(IpAddr, u8)>,
    /// Destination prefix.
    pub to: Option<(IpAddr, u8)>,
    /// Input port.
    pub iif: Option<PortId>,
    /// Table to look in.
    pub table: u32,
    /// Its realms (IPv4).
    pub realms: Realms,
}

/// One neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourEntry {
    /// On which port.
    pub port: PortId,
    /// Its address.
    pub address: IpAddr,
    /// Its link-layer address.
    pub mac: Mac,
}

/// Everything the kernel would otherwise supply; plain data.
///
/// Per family: when `routes` has no entry in table 255, the local, broadcast
/// and connected routes are derived from the ports' addresses, as the kernel
/// does; otherwise `routes` is taken as the complete mirror of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Mode.
    pub mode: Mode,
    /// Ports.
    pub ports: Vec<PortInfo>,
    /// Routes of all tables.
    pub routes: Vec<RouteEntry>,
    /// Policy rules; the kernel's defaults are implied for a family none of
    /// whose rules asks table 255 (local).
    pub rules: Vec<RuleEntry>,
    /// Neighbours.
    pub neighbours: Vec<NeighbourEntry>,
}
