//! Tables of lookups, and the longest-prefix match against a linear scan.

mod lookups;

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::lpm::{Lpm, Span};
use super::*;
use crate::packet::PktType;
use crate::verdict::DropReason;
use crate::wire::proto::{IGMP, UDP};

const ETH0: PortId = PortId(0);
const ETH1: PortId = PortId(1);

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn bits(text: &str) -> u128 {
    crate::wire::build::address_bits(ip(text))
}

fn prefix(text: &str) -> (IpAddr, u8) {
    let (address, len) = text.split_once('/').expect("a prefix");
    (ip(address), len.parse().expect("a length"))
}

fn port(name: &str, last: u8, addresses: &[&str]) -> PortInfo {
    PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: name.into(),
        mac: Mac([2, 0, 0, 0, 1, last]),
        mtu: 1500,
        addresses: addresses.iter().map(|text| prefix(text)).collect(),
        up: true,
    }
}

fn route(to: &str, via: Option<&str>, kind: RouteKind, table: u32) -> RouteEntry {
    let via = via.map(ip);
    RouteEntry {
        to: prefix(to),
        via,
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

fn topology() -> Topology {
    let unicast = RouteKind::Unicast;
    Topology {
        mode: Mode::Routed,
        ports: vec![
            port(
                "eth0",
                1,
                &["198.18.1.1/24", "198.18.1.9/24", "198.18.9.1/31", "2001:db8:1::1/64"],
            ),
            port("eth1", 2, &["198.18.2.1/24", "2001:db8:2::1/64", "fd00:2::1/64"]),
        ],
        routes: vec![
            route("0.0.0.0/0", Some("198.18.2.254"), unicast(ETH1), 254),
            route("::/0", Some("2001:db8:2::254"), unicast(ETH1), 254),
            RouteEntry {
                mtu: Some(1280),
                ..route("203.0.113.0/24", Some("198.18.1.254"), unicast(ETH0), 254)
            },
            route("203.0.113.64/26", None, RouteKind::Blackhole, 254),
            route("203.0.113.128/26", None, RouteKind::Unreachable, 254),
            route("203.0.113.192/26", None, RouteKind::Prohibit, 254),
            route("2001:db8:f1::/48", None, RouteKind::Blackhole, 254),
            route("2001:db8:f2::/48", None, RouteKind::Unreachable, 254),
            route("2001:db8:f3::/48", None, RouteKind::Prohibit, 254),
            route("192.0.2.0/24", None, RouteKind::Foreign, 254),
            RouteEntry {
                metric: 5,
                ..route("198.51.100.0/24", Some("198.18.1.253"), unicast(ETH0), 254)
            },
            RouteEntry {
                metric: 4,
                ..route("198.51.100.0/24", Some("198.18.1.252"), unicast(ETH0), 254)
            },
            route("0.0.0.0/0", Some("198.18.1.200"), unicast(ETH0), 100),
            route("198.51.100.0/25", None, RouteKind::Throw, 100),
        ],
        rules: vec![RuleEntry {
            family: Family::V4,
            priority: 1000,
            fwmark: Some((0x20, 0xff)),
            from: None,
            to: None,
            iif: None,
            table: 100,
            realms: Realms::default(),
        }],
        neighbours: vec![
            NeighbourEntry {
                port: ETH1,
                address: ip("198.18.2.254"),
                mac: Mac([2, 0, 0, 0, 2, 2]),
            },
            NeighbourEntry {
                port: ETH1,
                address: ip("2001:db8:2::254"),
                mac: Mac([2, 0, 0, 0, 2, 3]),
            },
        ],
    }
}

fn network() -> Network {
    Network::build(&topology()).expect("a network")
}

fn query(src: &str, dst: &str, mark: u32) -> Query {
    let family = if ip(src).is_ipv4() { Family::V4 } else { Family::V6 };
    Query { family, src: bits(src), dst: bits(dst), iif: Some(ETH0), mark }
}

/// What input says, in a few letters.
fn input(net: &Network, src: &str, dst: &str, mark: u32) -> String {
    match net.input(ETH0, &query(src, dst, mark), PktType::Host, UDP) {
        InputRoute::Deliver => "deliver".into(),
        InputRoute::Forward { port, next_hop, mtu, .. } => {
            let hop = match next_hop.0 {
                Family::V4 => IpAddr::V4((next_hop.1 as u32).into()),
                Family::V6 => IpAddr::V6(next_hop.1.into()),
            };
            format!("eth{} {hop} {mtu}", port.0)
        }
        InputRoute::Drop { reason, answer } => match answer {
            None => reason.name().into(),
            Some((kind, code)) => format!("{} {kind}/{code}", reason.name()),
        },
    }
}

#[test]
fn ipv4_input() {
    let net = network();
    let host = "198.18.1.5";
    let table = [
        (host, "198.18.1.1", "deliver"),
        (host, "198.18.1.9", "deliver"),
        (host, "198.18.2.1", "deliver"),
        (host, "198.18.1.255", "deliver"),
        (host, "198.18.2.255", "deliver"),
        (host, "255.255.255.255", "deliver"),
        (host, "198.18.9.0", "eth0 198.18.9.0 1500"),
        (host, "198.18.1.0", "eth0 198.18.1.0 1500"),
        (host, "198.18.2.7", "eth1 198.18.2.7 1500"),
        (host, "9.9.9.9", "eth1 198.18.2.254 1500"),
        (host, "203.0.113.1", "eth0 198.18.1.254 1280"),
        (host, "203.0.113.65", "route_refused"),
        (host, "203.0.113.129", "route_refused 3/1"),
        (host, "203.0.113.193", "route_refused 3/13"),
        (host, "192.0.2.1", "route_foreign"),
        (host, "198.51.100.1", "eth0 198.18.1.252 1500"),
        (host, "224.0.0.1", "deliver"),
        (host, "224.0.0.5", "not_forwarded"),
        (host, "239.1.1.1", "not_forwarded"),
        (host, "127.0.0.1", "martian_destination"),
        (host, "0.0.0.0", "martian_destination"),
        (host, "0.0.0.1", "eth1 198.18.2.254 1500"),
        (host, "240.0.0.1", "eth1 198.18.2.254 1500"),
        ("0.0.0.0", "255.255.255.255", "deliver"),
        ("0.0.0.0", "0.0.0.0", "deliver"),
        ("0.0.0.0", "198.18.1.1", "martian_source"),
        ("0.0.0.0", "198.18.2.7", "martian_source"),
        ("0.1.2.3", "198.18.2.7", "eth1 198.18.2.7 1500"),
        ("127.0.0.1", "198.18.2.7", "martian_source"),
        ("127.0.0.5", "127.0.0.1", "martian_destination"),
        ("127.0.0.5", "0.0.0.0", "martian_destination"),
        ("127.0.0.5", "224.0.0.1", "martian_source"),
        ("127.0.0.5", "255.255.255.255", "martian_source"),
        ("127.0.0.1", "255.255.255.255", "martian_source"),
        ("224.0.0.1", "198.18.2.7", "martian_source"),
        ("255.255.255.255", "198.18.2.7", "martian_source"),
        ("198.18.1.1", "198.18.2.7", "martian_source"),
        ("198.18.2.1", "198.18.1.1", "martian_source"),
        ("240.0.0.1", "198.18.2.7", "eth1 198.18.2.7 1500"),
    ];
    for (src, dst, expected) in table {
        assert_eq!(input(&net, src, dst, 0), expected, "{src} -> {dst}");
    }
}

/// As Linux 6.18 does with these packets.
#[test]
fn route_localnet() {
    let mut plain = topology();
    plain.rules.clear();
    let with = |plain: &Topology, port: usize| {
        let mut changed = plain.clone();
        changed.ports[port].route_localnet = true;
        Network::build(&changed).unwrap()
    };
    let full = RuleEntry {
        family: Family::V4,
        priority: 9,
        fwmark: Some((77, 77)),
        from: None,
        to: None,
        iif: None,
        table: 100,
        realms: Realms::default(),
    };
    let mut ruled = plain.clone();
    ruled.rules.push(full);
    let (here, elsewhere, ruled) = (with(&plain, 0), with(&plain, 1), with(&ruled, 0));
    let (own, dst) = ("martian_source", "martian_destination");
    let table = [
        ("198.18.1.5", "127.0.0.1", ["deliver", dst, "deliver"]),
        ("198.18.1.5", "127.9.9.9", ["deliver", dst, "deliver"]),
        ("127.0.0.5", "198.18.1.1", ["deliver", own, own]),
        ("127.0.0.5", "127.0.0.1", ["deliver", dst, own]),
        ("127.0.0.5", "224.0.0.1", ["deliver", own, own]),
        ("127.0.0.5", "255.255.255.255", ["deliver", "deliver", own]),
        ("127.0.0.5", "198.18.2.7", ["eth1 198.18.2.7 1500", own, own]),
        // The machine's own addresses stay out, and what is no address.
        ("127.0.0.1", "198.18.1.1", [own; 3]),
        ("127.0.0.1", "127.0.0.1", [own, dst, own]),
        ("127.0.0.1", "224.0.0.1", [own; 3]),
        ("127.0.0.1", "198.18.2.7", [own; 3]),
        ("198.18.1.1", "127.0.0.1", [own, dst, own]),
        ("0.0.0.0", "127.0.0.1", [own; 3]),
        ("127.0.0.5", "0.0.0.0", [dst; 3]),
    ];
    for (src, to, expected) in table {
        let found = [&here, &elsewhere, &ruled].map(|net| input(net, src, to, 0));
        assert_eq!(found, expected, "{src} -> {to}");
    }
}

#[test]
fn ipv6_input() {
    let net = network();
    let host = "2001:db8:1::5";
    let own_link_local = "fe80::ff:fe00:101";
    let table = [
        (host, "2001:db8:1::1", "deliver"),
        (host, "2001:db8:2::1", "deliver"),
        (host, "2001:db8:2::", "deliver"),
        (host, own_link_local, "deliver"),
        (host, "fe80::ff:fe00:102", "eth0 fe80::ff:fe00:102 1500"),
        (host, "2001:db8:2::7", "eth1 2001:db8:2::7 1500"),
        (host, "2001:db8:99::7", "eth1 2001:db8:2::254 1500"),
        (host, "2001:db8:f1::1", "route_refused"),
        (host, "2001:db8:f2::1", "route_refused 1/0"),
        (host, "2001:db8:f3::1", "route_refused 1/1"),
        (host, "ff02::1", "deliver"),
        (host, "ff02::2", "deliver"),
        (host, "ff02::1:ff00:1", "deliver"),
        (host, "ff02::1:ff00:7", "not_forwarded"),
        (host, "ff05::1:3", "not_forwarded"),
        ("fe80::5", "2001:db8:2::7", "martian_source 1/2"),
        ("::", "2001:db8:2::7", "martian_source"),
        ("::", "2001:db8:1::1", "deliver"),
    ];
    for (src, dst, expected) in table {
        assert_eq!(input(&net, src, dst, 0), expected, "{src} -> {dst}");
    }
}

#[test]
fn marks_and_rules_choose_the_table() {
    let net = network();
    assert_eq!(input(&net, "198.18.1.5", "9.9.9.9", 0x20), "eth0 198.18.1.200 1500");
    assert_eq!(input(&net, "198.18.1.5", "9.9.9.9", 0x1020), "eth0 198.18.1.200 1500");
    assert_eq!(input(&net, "198.18.1.5", "9.9.9.9", 0x21), "eth1 198.18.2.254 1500");
    // Throw falls through to main; the local table is asked first.
    assert_eq!(input(&net, "198.18.1.5", "198.51.100.1", 0x20), "eth0 198.18.1.252 1500");
    assert_eq!(input(&net, "198.18.1.5", "198.51.100.200", 0x20), "eth0 198.18.1.200 1500");
    assert_eq!(input(&net, "198.18.1.5", "198.18.2.1", 0x20), "deliver");
    let mut topology = topology();
    let rule = &mut topology.rules[0];
    (rule.fwmark, rule.from, rule.iif) = (None, Some(prefix("198.18.1.0/25")), Some(ETH0));
    let net = Network::build(&topology).expect("a network");
    assert_eq!(input(&net, "198.18.1.5", "9.9.9.9", 0), "eth0 198.18.1.200 1500");
    assert_eq!(input(&net, "198.18.1.200", "9.9.9.9", 0), "eth1 198.18.2.254 1500");
    let from_eth1 = Query { iif: Some(ETH1), ..query("198.18.1.5", "9.9.9.9", 0) };
    assert_eq!(net.route(&from_eth1).map(|r| r.kind), Some(RouteKind::Unicast(ETH1)));
}

#[test]
fn broadcast_sources_are_refused_by_the_full_check_only() {
    let mut topology = topology();
    let net = Network::build(&topology).expect("a network");
    assert_eq!(input(&net, "198.18.2.255", "9.9.9.9", 0), "martian_source", "rules exist");
    topology.rules.clear();
    let net = Network::build(&topology).expect("a network");
    assert_eq!(input(&net, "198.18.2.255", "9.9.9.9", 0), "eth1 198.18.2.254 1500");
}

#[test]
fn only_frames_to_our_own_mac_are_forwarded() {
    let net = network();
    let onward = query("198.18.1.5", "198.18.2.7", 0);
    let refused = InputRoute::Drop { reason: DropReason::NotForwarded, answer: None };
    assert_eq!(net.input(ETH0, &onward, PktType::Broadcast, UDP), refused);
    let own = query("198.18.1.5", "198.18.2.1", 0);
    assert_eq!(net.input(ETH0, &own, PktType::Broadcast, UDP), InputRoute::Deliver);
}

#[test]
fn no_route_is_answered() {
    let mut topology = topology();
    topology.routes.clear();
    topology.rules.clear();
    let net = Network::build(&topology).expect("a network");
    assert_eq!(input(&net, "198.18.1.5", "9.9.9.9", 0), "no_route 3/0");
    assert_eq!(input(&net, "2001:db8:1::5", "2001:db8:9::", 0), "no_route 1/0");
    topology.ports[1].up = false;
    let net = Network::build(&topology).expect("a network");
    assert_eq!(input(&net, "198.18.1.5", "198.18.2.7", 0), "no_route 3/0", "port down");
}

#[test]
fn a_mirrored_local_table_is_taken_as_it_is() {
    let mut topology = topology();
    topology.routes.push(route("198.18.1.1/32", None, RouteKind::Local, 255));
    let net = Network::build(&topology).expect("a network");
    assert_eq!(input(&net, "198.18.1.5", "198.18.1.1", 0), "deliver");
    // Nothing derived for IPv4: the connected network is not in the mirror.
    assert_eq!(input(&net, "198.18.1.5", "198.18.2.255", 0), "eth1 198.18.2.254 1500");
    assert_eq!(input(&net, "2001:db8:1::5", "2001:db8:2::7", 0), "eth1 2001:db8:2::7 1500");
}

#[test]
fn neighbours_ports_and_addresses() {
    let net = network();
    assert_eq!(
        net.neighbour(ETH1, Family::V4, bits("198.18.2.254")),
        Some(Mac([2, 0, 0, 0, 2, 2]))
    );
    assert_eq!(net.neighbour(ETH0, Family::V4, bits("198.18.2.254")), None);
    assert_eq!(net.neighbour(ETH1, Family::V6, bits("198.18.2.254")), None);
    assert_eq!(net.port_named("eth1"), Some(ETH1));
    assert_eq!(net.port_named("eth"), None);
    assert!(net.is_local(Family::V4, bits("198.18.1.9")));
    assert!(!net.is_local(Family::V4, bits("198.18.1.255")));
    assert!(net.is_link_local_of(ETH0, bits("fe80::ff:fe00:101")));
    assert!(!net.is_link_local_of(ETH1, bits("fe80::ff:fe00:101")));
}

#[test]
fn sources_of_errors() {
    let net = network();
    let from = |src: &str, dst: &str| {
        let family = if ip(src).is_ipv4() { Family::V4 } else { Family::V6 };
        let near = (ETH0, true);
        net.error_source(family, bits(src), bits(dst), near).map(|(source, port, _)| (source, port))
    };
    let expect = |source: &str, port| Some((bits(source), port));
    assert_eq!(from("198.18.1.5", "9.9.9.9"), expect("198.18.1.1", ETH0));
    assert_eq!(from("198.18.1.5", "198.18.1.9"), expect("198.18.1.9", ETH0), "to ourselves");
    assert_eq!(from("8.8.8.8", "198.18.2.7"), expect("198.18.2.1", ETH1), "way back, not way in");
    assert_eq!(from("203.0.113.65", "198.18.2.7"), None, "no way back");
    assert_eq!(from("2001:db8:1::5", "2001:db8:2::7"), expect("2001:db8:1::1", ETH0));
    assert_eq!(from("2001:db8:77::5", "2001:db8:2::1"), expect("2001:db8:2::1", ETH1));
    assert_eq!(from("fe80::5", "2001:db8:2::7"), expect("fe80::ff:fe00:101", ETH0));
    let near_ula = net.source_address(ETH1, Family::V6, bits("fd00:9::1"));
    assert_eq!(near_ula, Some(bits("fd00:2::1")), "label before prefix");
}

#[test]
fn inconsistent_topologies_are_refused() {
    let build = |change: &dyn Fn(&mut Topology)| {
        let mut topology = topology();
        change(&mut topology);
        Network::build(&topology).err()
    };
    assert_eq!(build(&|_| {}), None);
    let error = build(&|t| t.ports[1].name = "eth0".into());
    assert_eq!(error, Some(NetworkError::DuplicatePort("eth0".into())));
    let error = build(&|t| t.routes[0].kind = RouteKind::Unicast(PortId(9)));
    assert_eq!(error, Some(NetworkError::NoSuchPort(9)));
    let error = build(&|t| t.ports[0].addresses[0].1 = 33);
    assert_eq!(error, Some(NetworkError::PrefixLength(ip("198.18.1.1"), 33)));
    let error = build(&|t| t.mode = Mode::Bridge(vec![(ETH0, PortId(2))]));
    assert_eq!(error, Some(NetworkError::NoSuchPort(2)));
    let error = build(&|t| t.routes[0].prefsrc = Some(ip("::1")));
    assert_eq!(error, Some(NetworkError::MixedFamilies(ip("0.0.0.0"), ip("::1"))));
    let many =
        |t: &mut Topology| t.ports = (0..63).map(|i| port(&format!("p{i}"), i, &[])).collect();
    assert_eq!(build(&many), Some(NetworkError::TooManyPorts(63)));
}

proptest! {
    /// Prefixes and probes crowd together so that nesting and near misses are common.
    #[test]
    fn longest_prefix_match_equals_a_linear_scan(
        prefixes in vec((0u128..64, 0u32..=7, any::<bool>()), 0..24),
        probes in vec((0u128..64, any::<bool>()), 64),
    ) {
        let place = |address: u128, high: bool| if high { u128::MAX - 63 + address } else { address };
        let mut spans: Vec<(Span, u32)> = Vec::new();
        for (address, host_bits, high) in prefixes {
            let mask = if host_bits == 7 { u128::MAX } else { (1 << host_bits) - 1 };
            let bits = place(address, high);
            let span = Span { first: bits & !mask, last: bits | mask };
            if !spans.iter().any(|&(other, _)| other == span) {
                spans.push((span, spans.len() as u32));
            }
        }
        let lpm = Lpm::<u128>::build(spans.clone());
        for (address, high) in probes {
            let address = place(address, high);
            let slow = spans
                .iter()
                .filter(|(span, _)| span.first <= address && address <= span.last)
                .min_by_key(|(span, _)| span.last - span.first)
                .map(|&(_, value)| value);
            prop_assert_eq!(lpm.get(address), slow);
        }
    }
}

#[test]
fn only_joined_groups_are_delivered() {
    let mut topology = topology();
    let groups = ["224.0.0.5", "239.1.2.3", "ff02::5"];
    topology.ports[0].groups = groups.map(|group| group.parse().unwrap()).into();
    let network = Network::build(&topology).unwrap();
    let input_of = |protocol: u8, port: u8, src: &str, dst: &str| {
        let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        let family = if dst.is_ipv4() { Family::V4 } else { Family::V6 };
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let query = Query { family, src: bits(src), dst: bits(dst), iif: None, mark: 0 };
        network.input(PortId(port), &query, PktType::Multicast, protocol)
    };
    let input = |port: u8, src: &str, dst: &str| input_of(UDP, port, src, dst);
    let silent = |reason| InputRoute::Drop { reason, answer: None };
    let v4 = "198.18.9.9";
    assert_eq!(input(0, v4, "224.0.0.5"), InputRoute::Deliver);
    assert_eq!(input(0, v4, "224.0.0.1"), InputRoute::Deliver, "all hosts");
    assert_eq!(input(1, v4, "224.0.0.5"), silent(DropReason::NotForwarded), "not on that port");
    assert_eq!(input(0, v4, "224.0.0.6"), silent(DropReason::NotForwarded));
    assert_eq!(input(0, v4, "255.255.255.255"), InputRoute::Deliver);
    assert_eq!(input(0, "fe80::9", "ff02::5"), InputRoute::Deliver);
    assert_eq!(input(0, "fe80::9", "ff02::1"), InputRoute::Deliver);
    assert_eq!(input(1, "fe80::9", "ff02::5"), silent(DropReason::NotForwarded));
    // Without an address one speaks to the link only, or of groups.
    assert_eq!(input(0, "0.0.0.0", "224.0.0.5"), InputRoute::Deliver);
    assert_eq!(input(0, "0.0.0.0", "239.1.2.3"), silent(DropReason::MartianSource));
    assert_eq!(input_of(IGMP, 0, "0.0.0.0", "239.1.2.3"), InputRoute::Deliver);
    assert_eq!(input_of(IGMP, 0, "0.0.0.0", "239.1.2.4"), silent(DropReason::NotForwarded));
}
