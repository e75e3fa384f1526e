//! Routing decisions against the kernel's, over generated routes and rules:
//! `ip route get` for what arrives, and for the sources of what we send. Needs root.

mod support;

use std::fmt::Write as _;
use std::net::IpAddr;

use dataplane::fib::{
    InputRoute, Mode, Network, PortInfo, Query, Realms, RouteEntry, RouteKind, RuleEntry, Topology,
};
use dataplane::packet::{Family, PktType, PortId};
use dataplane::verdict::DropReason;
use dataplane::wire::build::address_bits;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRng, TestRunner};
use support::{Lab, ROUTER};

const MARKS: [u32; 4] = [0, 0x10, 0x21, 0x120];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn family(address: &IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// The lab's own ports, and nothing else.
fn bare() -> Topology {
    let port = |index: usize| PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: format!("eth{index}"),
        mac: ROUTER[index],
        mtu: 1500,
        addresses: vec![
            (ip(&format!("198.18.{}.1", index + 1)), 24),
            (ip(&format!("2001:db8:{}::1", index + 1)), 64),
        ],
        up: true,
    };
    Topology {
        mode: Mode::Routed,
        ports: vec![port(0), port(1)],
        routes: Vec::new(),
        rules: Vec::new(),
        neighbours: Vec::new(),
    }
}

/// An address from a small space, so that prefixes nest and probes nearly hit.
fn address(v6: bool, a: u8, b: u8) -> IpAddr {
    // Bytes of few different values.
    let (a, b) = (a & 0xc3, b & 0xc3);
    if v6 {
        IpAddr::from([0x2001, 0xdb8, 0x100 + u16::from(a), 0, 0, 0, 0, u16::from(b)])
    } else {
        IpAddr::from([203, 0, a, b])
    }
}

fn masked(address: IpAddr, len: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

fn any_prefix() -> impl Strategy<Value = (IpAddr, u8)> {
    let v4 = proptest::sample::select(&[0u8, 8, 16, 17, 18, 24, 25, 26, 31, 32][..]);
    let v6 = proptest::sample::select(&[0u8, 32, 40, 41, 48, 64, 120, 122, 128][..]);
    (any::<[u8; 2]>(), any::<bool>(), v4, v6).prop_map(|([a, b], v6, len4, len6)| {
        let len = if v6 { len6 } else { len4 };
        (masked(address(v6, a, b), len), len)
    })
}

fn any_route() -> impl Strategy<Value = RouteEntry> {
    let table = proptest::sample::select(&[254u32, 254, 100, 101][..]);
    let kind = prop_oneof![
        6 => (0..2u8).prop_map(|port| RouteKind::Unicast(PortId(port))),
        1 => Just(RouteKind::Blackhole),
        1 => Just(RouteKind::Unreachable),
        1 => Just(RouteKind::Prohibit),
        1 => Just(RouteKind::Throw),
    ];
    (any_prefix(), kind, table, 1..4u32, any::<bool>(), proptest::option::of(1280..1500u32))
        .prop_map(|(to, kind, table, metric, gateway, mtu)| {
            let via = match kind {
                RouteKind::Unicast(port) if gateway && to.0.is_ipv4() => {
                    Some(ip(&format!("198.18.{}.254", port.0 + 1)))
                }
                RouteKind::Unicast(port) if gateway => {
                    Some(ip(&format!("2001:db8:{}::254", port.0 + 1)))
                }
                _ => None,
            };
            let mtu = mtu.filter(|_| matches!(kind, RouteKind::Unicast(_)));
            RouteEntry {
                to,
                via,
                kind,
                table,
                metric,
                mtu,
                prefsrc: None,
                devices: 0,
                anycast: false,
                realms: Realms::default(),
            }
        })
}

fn any_rule() -> impl Strategy<Value = RuleEntry> {
    let mark = proptest::sample::select(&[(0x10, 0xf0), (0x20, 0x20), (0x21, u32::MAX)][..]);
    let table = proptest::sample::select(&[100u32, 101, 254][..]);
    let iif = proptest::option::of((0..2u8).prop_map(PortId));
    let prefix = || proptest::option::weighted(0.4, any_prefix());
    (any::<bool>(), proptest::option::of(mark), prefix(), prefix(), iif, table, 100..900u32)
        .prop_map(|(v6, fwmark, from, to, iif, table, priority)| {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let own = |prefix: &(IpAddr, u8)| prefix.0.is_ipv6() == v6;
            RuleEntry {
                family,
                priority,
                fwmark,
                from: from.filter(own),
                to: to.filter(own),
                iif,
                table,
                realms: Realms::default(),
            }
        })
}

/// What `ip -batch` makes of the topology's routes and rules.
fn batch(topology: &Topology, of: Family) -> String {
    let mut text = String::new();
    for route in topology.routes.iter().filter(|route| family(&route.to.0) == of) {
        let _ = write!(text, "route add ");
        let kind = match route.kind {
            RouteKind::Blackhole => "blackhole ",
            RouteKind::Unreachable => "unreachable ",
            RouteKind::Prohibit => "prohibit ",
            RouteKind::Throw => "throw ",
            _ => "",
        };
        let _ = write!(text, "{kind}{}/{}", route.to.0, route.to.1);
        let _ = route.via.map(|via| write!(text, " via {via}"));
        if let RouteKind::Unicast(port) = route.kind {
            let _ = write!(text, " dev eth{}", port.0);
        }
        let _ = route.mtu.map(|mtu| write!(text, " mtu {mtu}"));
        let _ = writeln!(text, " table {} metric {}", route.table, route.metric);
    }
    for rule in topology.rules.iter().filter(|rule| rule.family == of) {
        let _ = write!(text, "rule add priority {}", rule.priority);
        let _ = rule.from.map(|(from, len)| write!(text, " from {from}/{len}"));
        let _ = rule.to.map(|(to, len)| write!(text, " to {to}/{len}"));
        let _ = rule.fwmark.map(|(value, mask)| write!(text, " fwmark {value}/{mask}"));
        let _ = rule.iif.map(|port| write!(text, " iif eth{}", port.0));
        let _ = writeln!(text, " table {}", rule.table);
    }
    text
}

/// Adds (or deletes) the topology's routes and rules.
fn configure(lab: &Lab, topology: &Topology, verb: &str) {
    for (of, command) in [(Family::V4, "ip -4 -batch -"), (Family::V6, "ip -6 -batch -")] {
        lab.router_input(command, &batch(topology, of).replace(" add ", verb));
    }
}

/// The kernel's answer about a packet that arrives, in our words.
fn kernel(lab: &Lab, src: IpAddr, dst: IpAddr, mark: u32) -> String {
    let family = if dst.is_ipv4() { "-4" } else { "-6" };
    let mark = if mark == 0 { String::new() } else { format!("mark {mark}") };
    let command = format!("ip {family} route get {dst} from {src} iif eth0 {mark}");
    let (_, text) = lab.router_try(&command);
    let word_after = |key: &str| {
        let mut words = text.split_whitespace().skip_while(|&word| word != key);
        words.nth(1).map(str::to_owned)
    };
    if text.contains("Network is unreachable") {
        return "no route".into();
    }
    if text.contains("No route to host") {
        return "unreachable".into();
    }
    if text.contains("Permission denied") {
        return "prohibit".into();
    }
    if text.contains("Invalid argument") || text.contains("Invalid cross-device link") {
        return "silent".into();
    }
    // IPv6 shows refusing routes instead of failing.
    match text.split_whitespace().next() {
        Some("unreachable") if text.contains("error -101") => return "no route".into(),
        Some("local" | "broadcast" | "anycast" | "multicast") => return "deliver".into(),
        Some("blackhole") => return "silent".into(),
        Some(kind @ ("unreachable" | "prohibit")) => return kind.into(),
        _ => {}
    }
    let dev = word_after("dev").unwrap_or_else(|| panic!("{command}: {text}"));
    let hop = word_after("via").unwrap_or_else(|| dst.to_string());
    format!("{dev} {hop} {}", word_after("mtu").unwrap_or("1500".into()))
}

/// Our answer in the same words.
fn ours(net: &Network, src: IpAddr, dst: IpAddr, mark: u32) -> String {
    let (src, bits) = (address_bits(src), address_bits(dst));
    let family = family(&dst);
    let query = Query { family, src, dst: bits, iif: Some(PortId(0)), mark };
    match net.input(PortId(0), &query, PktType::Host, 17) {
        InputRoute::Deliver => "deliver".into(),
        InputRoute::Forward { port, next_hop: (_, hop), mtu, .. } => {
            let hop = match family {
                Family::V4 => IpAddr::V4((hop as u32).into()),
                Family::V6 => IpAddr::V6(hop.into()),
            };
            format!("eth{} {hop} {mtu}", port.0)
        }
        InputRoute::Drop { reason: DropReason::NoRoute, .. } => "no route".into(),
        InputRoute::Drop { answer: None, .. } => "silent".into(),
        InputRoute::Drop { answer: Some((3, 1) | (1, 0)), .. } => "unreachable".into(),
        InputRoute::Drop { answer: Some((3, 13) | (1, 1)), .. } => "prohibit".into(),
        InputRoute::Drop { reason, .. } => reason.name().into(),
    }
}

fn runner() -> TestRunner {
    let config = Config::default();
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    TestRunner::new_with_rng(config, rng)
}

/// Duplicates are the kernel's to refuse (IPv4) or to balance over (IPv6).
fn distinct(mut topology: Topology) -> Topology {
    let mut seen = std::collections::HashSet::new();
    topology.routes.retain(|route| seen.insert((route.to, route.table, route.metric)));
    let mut seen = std::collections::HashSet::new();
    topology.rules.retain(|rule| seen.insert((rule.family, rule.priority)));
    topology
}

#[test]
fn generated_routes_and_rules() {
    let lab = Lab::new();
    let mut runner = runner();
    let plans = (vec(any_route(), 4..30), vec(any_rule(), 0..5));
    let probes = vec((any::<[u8; 4]>(), any::<bool>(), 0..MARKS.len()), 60);
    let mut kinds = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..10 {
        let (routes, rules) = plans.new_tree(&mut runner).expect("a plan").current();
        let topology = distinct(Topology { routes, rules, ..bare() });
        let net = Network::build(&topology).expect("a network");
        configure(&lab, &topology, " add ");
        for ([a, b, c, d], v6, mark) in probes.new_tree(&mut runner).expect("probes").current() {
            let (src, dst) = (address(v6, a, b), address(v6, c, d));
            let expected = kernel(&lab, src, dst, MARKS[mark]);
            let got = ours(&net, src, dst, MARKS[mark]);
            assert_eq!(
                expected,
                got,
                "kernel, then ours: {src} -> {dst} mark {}\n{}",
                MARKS[mark],
                batch(&topology, family(&dst))
            );
            let kind = got.split(' ').next().unwrap_or("").to_owned();
            *kinds.entry(kind).or_default() += 1;
        }
        configure(&lab, &topology, " del ");
    }
    eprintln!("{kinds:?}");
    assert!(kinds.len() >= 6, "every kind of answer was seen: {kinds:?}");
}

/// A route of the main table by a gateway on a port.
fn by(to: &str, len: u8, via: &str, port: u8) -> RouteEntry {
    RouteEntry {
        to: (ip(to), len),
        via: Some(ip(via)),
        kind: RouteKind::Unicast(PortId(port)),
        table: 254,
        metric: 9,
        mtu: None,
        prefsrc: None,
        devices: 0,
        anycast: false,
        realms: Realms::default(),
    }
}

#[test]
fn special_addresses() {
    let lab = Lab::new();
    let routes = vec![by("0.0.0.0", 0, "198.18.2.254", 1), by("::", 0, "2001:db8:2::254", 1)];
    let topology = Topology { routes, ..bare() };
    let net = Network::build(&topology).expect("a network");
    configure(&lab, &topology, " add ");
    let v4 = [
        "198.18.1.5",
        "198.18.1.1",
        "198.18.2.1",
        "198.18.2.7",
        "198.18.2.0",
        "198.18.2.255",
        "198.18.1.255",
        "198.18.1.0",
        "8.8.8.8",
        "0.0.0.1",
        "0.0.0.0",
        "127.0.0.1",
        "127.9.9.9",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "255.255.255.254",
        "169.254.1.1",
    ];
    let v6 = [
        "2001:db8:1::5",
        "2001:db8:1::1",
        "2001:db8:2::1",
        "2001:db8:2::7",
        "2001:db8:2::",
        "2001:db8:1::",
        "2001:db8:99::9",
        "fe80::5",
        "fe80::ff:fe00:101",
        "fe80::ff:fe00:102",
        "::ffff:198.18.1.1",
        "fec0::1",
        "fd00::1",
    ];
    let (mut compared, mut wrong) = (0, Vec::new());
    for list in [&v4[..], &v6[..]] {
        for (src, dst) in list.iter().flat_map(|src| list.iter().map(move |dst| (ip(src), ip(dst))))
        {
            // `ip route get` takes an unspecified source for none at all.
            if src.is_unspecified() {
                continue;
            }
            let got = ours(&net, src, dst, 0);
            // The kernel forwards these and refuses them later.
            let got = if got == "martian_source" { "eth1".into() } else { got };
            let expected = kernel(&lab, src, dst, 0);
            if !expected.starts_with(&got) {
                wrong.push(format!("{src} -> {dst}: kernel {expected}, ours {got}"));
            }
            compared += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 450, "{compared}");
}

#[test]
fn sources_of_our_own_packets() {
    let lab = Lab::new();
    let mut topology = bare();
    let more = [
        (0, "198.18.7.1", 24),
        (0, "198.18.1.9", 24),
        (1, "198.18.8.1", 28),
        (1, "fd00:2::1", 64),
        (1, "2001:db8:2:1::1", 64),
        (0, "fd00:1::1", 64),
        (0, "2002:c612:101::1", 64),
    ];
    for (port, address, len) in more {
        lab.router(
            &format!("ip addr add {address}/{len} dev eth{port} nodad")
                .replace(" nodad", if address.contains(':') { " nodad" } else { "" }),
        );
        // The kernel lists IPv6 addresses newest first, and so does its mirror.
        let addresses = &mut topology.ports[port].addresses;
        let at = if address.contains(':') { 0 } else { addresses.len() };
        addresses.insert(at, (ip(address), len));
    }
    topology.routes = [
        ("0.0.0.0", 0, "198.18.8.2", 1),
        ("198.51.100.0", 24, "198.18.7.7", 0),
        ("203.0.113.0", 24, "198.18.1.7", 0),
        ("::", 0, "2001:db8:2::254", 1),
    ]
    .map(|(to, len, via, port)| by(to, len, via, port))
    .to_vec();
    configure(&lab, &topology, " add ");
    let net = Network::build(&topology).expect("a network");
    for dst in [
        "198.18.1.5",
        "198.18.7.5",
        "198.18.2.5",
        "198.18.8.5",
        "8.8.8.8",
        "198.51.100.1",
        "203.0.113.1",
        "2001:db8:1::5",
        "2001:db8:2::5",
        "2001:db8:2:1::5",
        "fd00:1::5",
        "fd00:2::5",
        "fd00:9::1",
        "2001:db8:77::1",
        "2002:c612:707::1",
        "2a00::1",
        "2001::1",
    ] {
        let text = lab.router(&format!("ip route get {dst}"));
        let source = text.split_whitespace().skip_while(|&word| word != "src").nth(1);
        let (family, bits) = (family(&ip(dst)), address_bits(ip(dst)));
        let query = Query { family, src: 0, dst: bits, iif: None, mark: 0 };
        let route = net.route(&query).expect("a route");
        let RouteKind::Unicast(port) = route.kind else { panic!("{dst}: {route:?}") };
        let near = match family {
            Family::V4 => route.next_hop(family, bits).1,
            Family::V6 => bits,
        };
        let got = route.prefsrc.or_else(|| net.source_address(port, family, near));
        assert_eq!(source.map(|text| address_bits(ip(text))), got, "{dst}: {text}");
    }
}
