//! The kernel's network objects as plain data: what netlink messages say,
//! reduced to what routing needs. No decisions are made here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::fib::Realms;
use dataplane::packet::{Family, Mac};
use netlink_packet_core::Nla;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage, LinkXdp};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop,
    RouteNextHopFlags, RouteRealm, RouteType, RouteVia,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::groups::Membership;
use super::netlink::{Connection, NetlinkError};

/// One network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Its group, as `ip link set ... group` sets it.
    pub group: u32,
    /// Name.
    pub name: String,
    /// Link-layer address; zero when it has none of six bytes.
    pub mac: Mac,
    /// MTU in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub enabled: bool,
    /// Administratively up, with carrier.
    pub up: bool,
    /// Whether it is an Ethernet device.
    pub ethernet: bool,
    /// The bridge, bond or VRF it is enslaved to.
    pub controller: Option<u32>,
    /// The XDP program attached to it.
    pub xdp: Option<u32>,
}

/// One address of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) link: u32,
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
}

/// One next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) link: Option<u32>,
    pub(super) via: Option<IpAddr>,
    /// The device is down or gone: the kernel never uses the hop.
    pub(super) dead: bool,
    /// The device has no carrier.
    pub(super) carrier_lost: bool,
    pub(super) realms: Realms,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) family: Family,
    pub(super) to: (IpAddr, u8),
    pub(super) kind: RouteType,
    pub(super) table: u32,
    pub(super) metric: u32,
    pub(super) mtu: Option<u32>,
    pub(super) prefsrc: Option<IpAddr>,
    pub(super) hops: Vec<Hop>,
    pub(super) tos: u8,
    /// IPv6 source-specific route.
    pub(super) source_specific: bool,
    /// MPLS, SRv6 or another encapsulation.
    pub(super) encapsulated: bool,
    /// The nexthop object (`ip nexthop`) that it goes by.
    pub(super) nexthop_object: Option<u32>,
}

/// One `ip rule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) family: Family,
    pub(super) priority: u32,
    pub(super) table: u32,
    pub(super) fwmark: Option<(u32, u32)>,
    pub(super) from: Option<(IpAddr, u8)>,
    pub(super) to: Option<(IpAddr, u8)>,
    pub(super) input: Option<String>,
    /// Only packets of our own have an output interface when they are routed.
    pub(super) has_output: bool,
    pub(super) l3mdev: bool,
    pub(super) realms: Realms,
    /// The first feature that a [`dataplane::fib::RuleEntry`] cannot say.
    pub(super) unsupported: Option<&'static str>,
}

/// One neighbour with a usable link-layer address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub(super) mac: Mac,
    pub(super) stale: bool,
}

/// What a notification means for the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// Nothing.
    Ignored,
    /// It was taken in.
    Applied,
    /// Only a new dump can tell.
    NeedsDump,
}

/// Everything dumped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    pub(super) links: BTreeMap<u32, Link>,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<Route>,
    pub(super) rules: Vec<Rule>,
    pub(super) neighbours: BTreeMap<(u32, IpAddr), Neighbour>,
    /// Multicast groups, which are read apart from the dump.
    pub(super) groups: Vec<Membership>,
    /// Ports on which 127.0.0.0/8 may arrive, read apart from the dump as well.
    pub(super) localnet: BTreeSet<String>,
}

impl View {
    /// Reads everything from the kernel.
    pub(super) fn dump(connection: &mut Connection) -> Result<Self, NetlinkError> {
        use RouteNetlinkMessage as M;
        let links = connection.dump("links", &M::GetLink(LinkMessage::default()), |m| match m {
            M::NewLink(message) => Some(link(&message)),
            _ => None,
        })?;
        let request = M::GetAddress(AddressMessage::default());
        let addresses = connection.dump("addresses", &request, |m| match m {
            M::NewAddress(message) => address(&message),
            _ => None,
        })?;
        let mut routes = Vec::new();
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            routes.extend(connection.dump("routes", &M::GetRoute(request), |m| match m {
                M::NewRoute(message) => route(&message),
                _ => None,
            })?);
            let mut request = RuleMessage::default();
            request.header.family = family;
            rules.extend(connection.dump("rules", &M::GetRule(request), |m| match m {
                M::NewRule(message) => rule(&message),
                _ => None,
            })?);
        }
        let request = M::GetNeighbour(NeighbourMessage::default());
        let neighbours = connection.dump("neighbours", &request, |m| match m {
            M::NewNeighbour(message) => neighbour(&message),
            _ => None,
        })?;
        Ok(Self {
            links: links.into_iter().map(|link| (link.index, link)).collect(),
            addresses,
            routes,
            rules,
            groups: Vec::new(),
            localnet: BTreeSet::new(),
            neighbours: neighbours
                .into_iter()
                .filter_map(|(key, value)| Some((key, value?)))
                .collect(),
        })
    }

    /// Takes in one notification.
    pub(super) fn follow(&mut self, message: RouteNetlinkMessage) -> Follow {
        use RouteNetlinkMessage as M;
        let (key, value) = match message {
            M::NewNeighbour(message) => match neighbour(&message) {
                Some(found) => found,
                None => return Follow::Ignored,
            },
            M::DelNeighbour(message) => match neighbour(&message) {
                Some((key, _)) => (key, None),
                None => return Follow::Ignored,
            },
            M::NewLink(message) => {
                // Statistics and wireless events repeat what is known already.
                let link = link(&message);
                let known = self.links.get(&link.index) == Some(&link);
                return if known { Follow::Ignored } else { Follow::NeedsDump };
            }
            _ => return Follow::NeedsDump,
        };
        let before = match value {
            Some(value) => self.neighbours.insert(key, value),
            None => self.neighbours.remove(&key),
        };
        if before == value { Follow::Ignored } else { Follow::Applied }
    }

    /// The device of that index.
    pub fn link_by_index(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// Names of all Ethernet devices.
    pub fn ethernet_names(&self) -> Vec<String> {
        let ethernet = self.links.values().filter(|link| link.ethernet);
        ethernet.map(|link| link.name.clone()).collect()
    }

    /// The device of that name.
    pub fn link_by_name(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        group: 0,
        name: String::new(),
        mac: Mac::default(),
        mtu: 0,
        enabled: message.header.flags.contains(LinkFlags::Up),
        up: message.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        ethernet: message.header.link_layer_type == LinkLayerType::Ether,
        controller: None,
        xdp: None,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::Xdp(facts) => {
                link.xdp = facts.iter().find_map(|fact| match fact {
                    LinkXdp::ProgId(id)
                    | LinkXdp::DrvProgId(id)
                    | LinkXdp::SkbProgId(id)
                    | LinkXdp::HwProgId(id) => Some(*id),
                    _ => None,
                });
            }
            LinkAttribute::Address(bytes) => {
                link.mac = Mac(bytes[..].try_into().unwrap_or_default());
            }
            _ => {}
        }
    }
    link
}

pub(super) fn address(message: &AddressMessage) -> Option<Address> {
    let mut own = None;
    let mut peer = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => own = Some(*address),
            AddressAttribute::Address(address) => peer = Some(*address),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the peer's; IFA_LOCAL is ours.
    let address = own.or(peer)?;
    Some(Address { link: message.header.index, address, prefix: message.header.prefix_len })
}

fn family(family: AddressFamily) -> Option<Family> {
    match family {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn via(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(address) => Some(IpAddr::V4(*address)),
        RouteVia::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn route(message: &RouteMessage) -> Option<Route> {
    let header = &message.header;
    // Cloned entries are the kernel's own cache of exceptions.
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let family = family(header.address_family)?;
    let any = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let mut route = Route {
        family,
        to: (any, header.destination_prefix_length),
        kind: header.kind,
        table: u32::from(header.table),
        metric: 0,
        mtu: None,
        prefsrc: None,
        hops: Vec::new(),
        tos: header.tos,
        source_specific: header.source_prefix_length != 0,
        encapsulated: false,
        nexthop_object: None,
    };
    let mut single = Hop {
        link: None,
        via: None,
        dead: header.flags.contains(RouteFlags::Dead),
        carrier_lost: header.flags.contains(RouteFlags::Linkdown),
        realms: Realms::default(),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => route.to.0 = ip(address)?,
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::PrefSource(address) => route.prefsrc = ip(address),
            RouteAttribute::Oif(index) => single.link = Some(*index),
            RouteAttribute::Gateway(address) => single.via = ip(address),
            RouteAttribute::Realm(found) => single.realms = realms(*found),
            RouteAttribute::Via(address) => single.via = via(address),
            RouteAttribute::EncapType(_) => route.encapsulated = true,
            RouteAttribute::NhId(id) => route.nexthop_object = Some(*id),
            RouteAttribute::MultiPath(hops) => route.hops = hops.iter().map(hop).collect(),
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    if route.hops.is_empty() {
        route.hops.push(single);
    }
    Some(route)
}

fn hop(next_hop: &RouteNextHop) -> Hop {
    let mut hop = Hop {
        link: Some(next_hop.interface_index),
        via: None,
        dead: next_hop.flags.contains(RouteNextHopFlags::Dead),
        carrier_lost: next_hop.flags.contains(RouteNextHopFlags::Linkdown),
        realms: Realms::default(),
    };
    for attribute in &next_hop.attributes {
        match attribute {
            RouteAttribute::Gateway(address) => hop.via = ip(address),
            RouteAttribute::Realm(found) => hop.realms = realms(*found),
            RouteAttribute::Via(address) => hop.via = via(address),
            _ => {}
        }
    }
    hop
}

fn realms(found: RouteRealm) -> Realms {
    Realms(u32::from(found.source) << 16 | u32::from(found.destination))
}

fn rule(message: &RuleMessage) -> Option<Rule> {
    let header = &message.header;
    let mut rule = Rule {
        family: family(header.family)?,
        priority: 0,
        table: u32::from(header.table),
        fwmark: None,
        from: None,
        to: None,
        input: None,
        has_output: false,
        l3mdev: false,
        realms: Realms::default(),
        unsupported: None,
    };
    let (mut mark, mut mask) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(priority) => rule.priority = *priority,
            RuleAttribute::Table(table) => rule.table = *table,
            RuleAttribute::FwMark(value) => mark = Some(*value),
            RuleAttribute::FwMask(value) => mask = Some(*value),
            RuleAttribute::Source(address) => rule.from = Some((*address, header.src_len)),
            RuleAttribute::Destination(address) => rule.to = Some((*address, header.dst_len)),
            RuleAttribute::Iifname(name) => rule.input = Some(name.clone()),
            RuleAttribute::Oifname(_) => rule.has_output = true,
            RuleAttribute::L3MDev(on) => rule.l3mdev = *on,
            RuleAttribute::Realm(found) => rule.realms = realms(*found),
            other => rule.unsupported = rule.unsupported.or(unsupported_selector(other)),
        }
    }
    rule.fwmark =
        (mark.is_some() || mask.is_some()).then(|| (mark.unwrap_or(0), mask.unwrap_or(u32::MAX)));
    if header.flags.contains(RuleFlags::Invert) {
        rule.unsupported = Some("not");
    } else if header.tos != 0 {
        rule.unsupported = Some("tos");
    } else if !rule.l3mdev && header.action != RuleAction::ToTable {
        rule.unsupported = Some("an action other than a table lookup");
    }
    Some(rule)
}

fn unsupported_selector(attribute: &RuleAttribute) -> Option<&'static str> {
    match attribute {
        // The kernel always sends these two; all ones means unset.
        RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::SuppressIfGroup(u32::MAX) => {
            None
        }
        RuleAttribute::SuppressPrefixLen(_) => Some("suppress_prefixlength"),
        RuleAttribute::SuppressIfGroup(_) => Some("suppress_ifgroup"),
        RuleAttribute::Goto(_) => Some("goto"),
        RuleAttribute::TunId(_) => Some("tun_id"),
        RuleAttribute::UidRange(_) => Some("uidrange"),
        RuleAttribute::IpProtocol(_) => Some("ipproto"),
        RuleAttribute::SourcePortRange(_) => Some("sport"),
        RuleAttribute::DestinationPortRange(_) => Some("dport"),
        // Who installed it, and alignment padding do not select packets.
        RuleAttribute::Protocol(_) => None,
        RuleAttribute::Other(other) => (other.kind() > LAST_KNOWN).then_some("an unknown selector"),
        _ => Some("an unknown selector"),
    }
}

/// `FRA_DPORT_RANGE`: what the kernel added later may select packets.
const LAST_KNOWN: u16 = 24;

type NeighbourKey = (u32, IpAddr);

/// The key, and the entry if its address can be used.
fn neighbour(message: &NeighbourMessage) -> Option<(NeighbourKey, Option<Neighbour>)> {
    let header = &message.header;
    if header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let mut address = None;
    let mut mac = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(found)) => {
                address = Some(IpAddr::V4(*found));
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)) => {
                address = Some(IpAddr::V6(*found));
            }
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes[..].try_into().ok().map(Mac);
            }
            _ => {}
        }
    }
    use NeighbourState as State;
    let valid = matches!(
        header.state,
        State::Reachable
            | State::Stale
            | State::Delay
            | State::Probe
            | State::Noarp
            | State::Permanent
    );
    let entry =
        mac.filter(|_| valid).map(|mac| Neighbour { mac, stale: header.state == State::Stale });
    Some(((header.ifindex, address?), entry))
}
