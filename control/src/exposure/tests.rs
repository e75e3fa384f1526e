//! Exposure against packets: all packets of a small world through the engine.

use std::net::Ipv4Addr;
use std::sync::Arc;

use dataplane::conntrack::Config;
use dataplane::fib::{
    Mode, NeighbourEntry, Network, PortInfo, Realms, RouteEntry, RouteKind, Topology,
};
use dataplane::packet::{L4Class, Mac, PortId};
use dataplane::policy::{NO_INTERFACE, state_class};
use dataplane::sets::Registry;
use dataplane::wire::build::{L4, Packet, Tcp};
use dataplane::wire::proto;
use proptest::prelude::*;

use super::*;
use crate::iptables;
use crate::region::{Point, Region};
use crate::replay::{Replay, Source, Verdict};

const PORTS: [&str; 3] = ["eth0", "eth1", "wan0"];
/// Of the machine itself, one a port.
const LOCAL: [u32; 3] = [0xc612_0001, 0xc612_0101, 0xcb00_7101];
/// One behind each port.
const HOSTS: [u32; 3] = [0xc612_0002, 0xc612_0102, 0xcb00_7109];
const SERVICES: [u16; 4] = [22, 80, 443, 8080];

fn topology() -> Topology {
    let address = |bits: u32| std::net::IpAddr::V4(Ipv4Addr::from_bits(bits));
    let port = |at: usize| PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: PORTS[at].to_owned(),
        mac: Mac([2, 0, 0, 0, 0, at as u8]),
        mtu: 1500,
        addresses: vec![(address(LOCAL[at]), 32)],
        up: true,
    };
    let route = |at: usize| RouteEntry {
        to: (address(HOSTS[at] & 0xffff_ff00), 24),
        via: None,
        kind: RouteKind::Unicast(PortId(at as u8)),
        table: 254,
        metric: 0,
        mtu: None,
        prefsrc: None,
        devices: 0,
        anycast: false,
        realms: Realms::default(),
    };
    let neighbour = |(at, last): (usize, u32)| NeighbourEntry {
        port: PortId(at as u8),
        address: address(HOSTS[at] & 0xffff_ff00 | last),
        mac: Mac([2, 0, 0, 0, 1, at as u8]),
    };
    let all = (0..3).flat_map(|at| (1..=20).map(move |last| (at, last)));
    Topology {
        mode: Mode::Routed,
        ports: (0..3).map(port).collect(),
        routes: (0..3).map(route).collect(),
        rules: vec![],
        neighbours: all.map(neighbour).collect(),
    }
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    input: usize,
    src: u32,
    dst: u32,
    proto: u8,
    sport: u16,
    dport: u16,
}

/// All packets of the world; each begins a connection of its own.
fn probes() -> Vec<Probe> {
    let mut all = Vec::new();
    for input in 0..3 {
        for src in HOSTS {
            for dst in HOSTS.into_iter().chain([LOCAL[0], LOCAL[2]]).filter(|it| *it != src) {
                for (proto, ports) in
                    [(proto::TCP, &SERVICES[..]), (proto::UDP, &SERVICES[..2]), (proto::ICMP, &[0])]
                {
                    for dport in ports {
                        let sport = 30_000 + all.len() as u16;
                        all.push(Probe { input, src, dst, proto, sport, dport: *dport });
                    }
                }
            }
        }
    }
    all
}

fn frame(probe: &Probe) -> Vec<u8> {
    let l4 = match probe.proto {
        proto::TCP => L4::Tcp(Tcp::new(probe.sport, probe.dport, 2)),
        proto::UDP => L4::Udp { sport: probe.sport, dport: probe.dport, length: None, lite: false },
        _ => L4::Icmp { kind: 8, code: 0, word: u32::from(probe.sport) << 16 },
    };
    let address = |bits: u32| std::net::IpAddr::V4(Ipv4Addr::from_bits(bits));
    let mut frame = Packet::between(address(probe.src), address(probe.dst), l4).build();
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, probe.input as u8]);
    frame
}

/// One rule by choices.
fn rule(table: &str, chains: &[&str], pick: &[u8]) -> String {
    let at = |nth: usize, count: usize| usize::from(pick[nth]) % count;
    let chain = chains[at(0, chains.len())];
    let mut words = format!("-A {chain}");
    let mut add = |text: &str| words.push_str(text);
    if at(1, 4) == 0 && chain != "POSTROUTING" {
        add(&format!(" -i {}", ["eth0", "eth1", "eth+", "wan0"][at(2, 4)]));
    }
    if at(1, 4) == 1 && ["FORWARD", "POSTROUTING"].contains(&chain) {
        add(&format!(" -o {}", ["eth0", "eth1", "eth+", "wan0"][at(2, 4)]));
    }
    if at(3, 3) == 0 {
        let not = if at(3, 2) == 0 { "" } else { " !" };
        let side = ["-s", "-d"][at(4, 2)];
        let nets = ["198.18.0.0/24", "198.18.1.2/32", "198.18.0.0/16", "203.0.113.0/24"];
        add(&format!("{not} {side} {}", nets[at(5, 4)]));
    }
    let ported = at(6, 3) == 0 || table == "nat";
    match (ported, at(7, 4)) {
        (true, 0) => add(" -p udp -m udp --dport 80"),
        (true, 1) => add(" -p tcp -m multiport --dports 22,443"),
        (true, other) => add(&format!(" -p tcp -m tcp --dport {}", [80, 8080][other - 2])),
        (false, 0) => add(" -p icmp -m icmp --icmp-type 8"),
        _ => {}
    }
    if table != "nat" && at(8, 5) == 0 {
        let states = ["NEW", "RELATED,ESTABLISHED", "UNTRACKED", "INVALID,UNTRACKED"];
        add(&format!(" -m conntrack --ctstate {}", states[at(9, 4)]));
    }
    if table != "raw" && at(8, 5) == 1 {
        add(&format!(" -m mark --mark 0x{}", at(9, 2)));
    }
    let target = match table {
        "raw" => ["-j CT --notrack", "-j DROP", "-j ACCEPT"][at(10, 3)],
        "mangle" => ["-j MARK --set-xmark 0x1/0xffffffff", "-j DROP", "-j ACCEPT"][at(10, 3)],
        "nat" => [
            "-j DNAT --to-destination 198.18.1.2:8080",
            "-j DNAT --to-destination 198.18.0.1:22",
            "-j DNAT --to-destination 198.18.1.2-198.18.1.3",
            "-j REDIRECT --to-ports 8080",
            "-j NETMAP --to 198.18.1.0/24",
            "-j ACCEPT",
        ][at(10, 6)],
        _ if chain == "sub" => ["-j ACCEPT", "-j DROP", "-j RETURN"][at(10, 3)],
        _ => [
            "-j ACCEPT",
            "-j DROP",
            "-j REJECT --reject-with icmp-port-unreachable",
            "-j sub",
            "-g sub",
        ][at(10, 5)],
    };
    format!("{words} {target}\n")
}

/// Four tables of a few rules.
fn policy() -> impl Strategy<Value = String> {
    let rules = |most| prop::collection::vec(prop::collection::vec(any::<u8>(), 11), 0..most);
    let ends = prop::collection::vec(prop::bool::ANY, 3);
    (rules(3), rules(4), rules(5), rules(10), ends).prop_map(|(raw, mangle, nat, filter, ends)| {
        let end = |at: usize| if ends[at] { "DROP" } else { "ACCEPT" };
        let all = |table: &str, chains: &[&str], rules: &[Vec<u8>]| -> String {
            rules.iter().map(|it| rule(table, chains, it)).collect()
        };
        format!(
            "*raw\n:PREROUTING ACCEPT [0:0]\n{}COMMIT\n\
             *mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n\
             :POSTROUTING {} [0:0]\n{}COMMIT\n\
             *nat\n:PREROUTING ACCEPT [0:0]\n{}COMMIT\n\
             *filter\n:INPUT {} [0:0]\n:FORWARD {} [0:0]\n:sub - [0:0]\n{}COMMIT\n",
            all("raw", &["PREROUTING"], &raw),
            if ends[2] && !mangle.is_empty() { "DROP" } else { "ACCEPT" },
            all("mangle", &["PREROUTING", "INPUT", "FORWARD", "POSTROUTING"], &mangle),
            all("nat", &["PREROUTING"], &nat),
            end(0),
            end(1),
            all("filter", &["INPUT", "FORWARD", "FORWARD", "sub"], &filter),
        )
    })
}

fn parsed(text: &str) -> Ruleset {
    let parsed = iptables::parse(text, "test", Family::V4, &TableNames::well_known());
    parsed.unwrap_or_else(|error| panic!("{text}: {error:#?}")).ruleset
}

fn local() -> Ranges {
    Ranges::union(LOCAL.iter().map(|it| (u128::from(*it), u128::from(*it))).collect())
}

/// Where a packet arrives: this machine or a port, and at which address and port.
struct Arrival {
    out: Option<usize>,
    dst: u32,
    dport: u16,
    /// What of its state is seen from outside.
    states: &'static [u64],
}

fn arrival(engine: &mut Replay, at: usize, probe: &Probe) -> Option<Arrival> {
    let now = crate::explain::NOW;
    let source = Source::Port(PortId(probe.input as u8));
    let event = engine.feed(source, now, &frame(probe)).event;
    if event.verdict != Verdict::Accept {
        return None;
    }
    let out = PORTS.iter().position(|it| event.out.iter().any(|out| out == it));
    let (dst, dport) = match &event.reply {
        Some(reply) => match reply.src {
            std::net::IpAddr::V4(src) => (src.to_bits(), reply.sport.unwrap_or(0)),
            std::net::IpAddr::V6(_) => panic!("packet {at} is of IPv4"),
        },
        None => (probe.dst, probe.dport),
    };
    let states: &[u64] = match event.ctstate {
        Some("UNTRACKED") => &[state_class::UNTRACKED],
        Some(_) => &[state_class::NEW],
        // To policies that track nothing, all is new.
        None => &[state_class::NEW, state_class::UNTRACKED],
    };
    Some(Arrival { out, dst, dport, states })
}

fn bit(ports: &[String], name: &str) -> u64 {
    PortId(crate::region::stands_for(ports, name) as u8).bit()
}

/// Whether flows of a road may have, and surely have, a packet that arrives so.
fn told(
    groups: &[&Reachable],
    names: &[String],
    probe: &Probe,
    (road, out): (Road, Option<usize>),
    to: (u32, u16, u64),
) -> [bool; 2] {
    let (kind, code) = if probe.proto == proto::ICMP { (8, 0) } else { (probe.sport, to.1) };
    let point = Point {
        src: probe.src.into(),
        dst: to.0.into(),
        sport: kind,
        dport: code,
        proto: probe.proto,
        flags: if probe.proto == proto::TCP { 2 } else { 0 },
        classes: [
            bit(names, PORTS[probe.input]),
            out.map_or(NO_INTERFACE, |it| bit(names, PORTS[it])),
            to.2,
            L4Class::Whole.bit(),
        ],
        atoms: Vec::new(),
    };
    let asked = |via: &Option<flow::Via>| match via {
        None => to.0 == probe.dst && to.1 == probe.dport,
        Some(via) => via.dst.contains(probe.dst.into()) && via.dport.contains(probe.dport.into()),
    };
    let flows = groups.iter().filter(|it| it.road == road).flat_map(|it| &it.raw);
    let mut found = [false; 2];
    for flow in flows.filter(|it| asked(&it.via)) {
        let plain = Region { atoms: Vec::new(), ..flow.region.clone() };
        found[0] |= plain.contains(&point);
        found[1] |= flow.region.atoms.is_empty() && plain.contains(&point);
    }
    found
}

fn check(text: &str) -> Result<(), TestCaseError> {
    let rules = parsed(text);
    let sets = Arc::new(Registry::default());
    let own = local();
    let bounds = Bounds { walked: 0, ..Bounds::default() };
    let given = Given { local: Some(&own), bounds };
    let found = expose(Policy { rules: &rules, sets: &sets }, given, &mut |_| {});
    let found = found.expect("it compiles");
    let names = ports([&rules]).expect("few are named");
    let network = Arc::new(Network::build(&topology()).expect("it can be"));
    let none = Ruleset::empty(Family::V6);
    let engine =
        Replay::with_sets(network, rules.clone(), none, Config::new([0; 16]), Arc::clone(&sets));
    let mut engine = engine.expect("it loads");
    let groups: Vec<&Reachable> = found.reachable.iter().collect();
    for (at, probe) in probes().iter().enumerate() {
        match arrival(&mut engine, at, probe) {
            Some(to) => {
                let road = if to.out.is_some() { Road::Forward } else { Road::Input };
                let dport = if probe.proto == proto::ICMP { 0 } else { to.dport };
                let said = to.states.iter().any(|state| {
                    told(&groups, &names, probe, (road, to.out), (to.dst, dport, *state))[0]
                });
                prop_assert!(
                    said || !found.complete,
                    "{text}{probe:?} arrives at {} {dport}: {found:#?}",
                    Ipv4Addr::from_bits(to.dst)
                );
            }
            None => {
                // Nothing may be said to be reachable without conditions where it was asked for.
                let own = LOCAL.contains(&probe.dst);
                let road = if own { Road::Input } else { Road::Forward };
                let out = HOSTS.iter().position(|it| *it == probe.dst);
                for state in [state_class::NEW, state_class::UNTRACKED] {
                    let to = (probe.dst, probe.dport, state);
                    let untranslated: Vec<&Reachable> =
                        groups.iter().copied().filter(|it| it.nat.is_none()).collect();
                    let said = told(&untranslated, &names, probe, (road, out), to);
                    prop_assert!(!said[1], "{text}{probe:?} does not arrive: {found:#?}");
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_reachable_is_what_arrives(text in policy()) {
        check(&text)?;
    }

    #[test]
    fn differences_are_those_of_the_packets(one in policy(), two in policy()) {
        let (old, new) = (parsed(&one), parsed(&two));
        let sets = Arc::new(Registry::default());
        let own = local();
        let given = Given { local: Some(&own), bounds: Bounds { walked: 0, ..Bounds::default() } };
        let policies = [&old, &new].map(|rules| Policy { rules, sets: &sets });
        let found = compare(policies, &BTreeSet::new(), given, &mut |_| {}).expect("they compile");
        let names = ports([&old, &new]).expect("few are named");
        let groups = |all: &Exposure| all.reachable.clone();
        let (before, after) = (groups(&found.old), groups(&found.new));
        let as_groups = |all: &[Difference]| -> Vec<Reachable> {
            all.iter().map(|it| Reachable {
                road: it.road, rule: None, nat: None, services: vec![], raw: it.raw.clone(),
            }).collect()
        };
        let (gained, lost) =
            (as_groups(&found.changes.newly_exposed), as_groups(&found.changes.no_longer_exposed));
        let refs = |all: &'_ [Reachable]| -> Vec<Reachable> { all.to_vec() };
        let lists = [refs(&before), refs(&after), refs(&gained), refs(&lost)];
        for probe in probes().iter().step_by(3) {
            for (road, out) in [(Road::Input, None), (Road::Forward, Some(1))] {
                for (state, translated) in
                    [(state_class::NEW, false), (state_class::UNTRACKED, false), (state_class::NEW, true)]
                {
                    let to = if translated { (HOSTS[1], 8080, state) } else { (probe.dst, probe.dport, state) };
                    let kind = |all: &[Reachable]| -> Vec<Reachable> {
                        let flows = |it: &Reachable| {
                            let raw = it.raw.iter().filter(|flow| flow.via.is_some() == translated);
                            Reachable { raw: raw.cloned().collect(), ..it.clone() }
                        };
                        all.iter().map(flows).collect()
                    };
                    let [one, two, new, old] = [0, 1, 2, 3].map(|at| {
                        told(&kind(&lists[at]).iter().collect::<Vec<_>>(), &names, probe, (road, out), to)
                    });
                    // [may, must] of each.
                    prop_assert!(!new[1] || two[0] && !one[1], "{probe:?}: {:#?}", found.changes);
                    prop_assert!(!old[1] || one[0] && !two[1], "{probe:?}: {:#?}", found.changes);
                    if found.changes.complete {
                        prop_assert!(!two[1] || one[0] || new[0], "{probe:?}: {:#?}", found.changes);
                        prop_assert!(!one[1] || two[0] || old[0], "{probe:?}: {:#?}", found.changes);
                    }
                }
            }
        }
        let same = compare([policies[0]; 2], &BTreeSet::new(), given, &mut |_| {});
        prop_assert!(same.expect("it compiles").changes.is_empty());
    }
}

/// What is reachable, with all witnesses.
fn exposed(text: &str) -> Exposure {
    let rules = parsed(text);
    let sets = Arc::new(Registry::default());
    let policy = Policy { rules: &rules, sets: &sets };
    expose(policy, Given::default(), &mut |_| {}).expect("it compiles")
}

const EDGE: &str = "*nat\n:PREROUTING ACCEPT [0:0]\n\
    -A PREROUTING -i wan0 -p tcp -m tcp --dport 443 -m comment --comment \"web owner=web ticket=OPS-1\" -j DNAT --to-destination 10.0.0.5:8443\n\
    COMMIT\n*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n\
    -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    -A INPUT -s 198.51.100.0/24 -i lan0 -p tcp -m tcp --dport 22 -m comment --comment \"ssh owner=ops review=2027-01-01\" -j ACCEPT\n\
    -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    -A FORWARD -i wan0 -d 10.0.0.5/32 -o lan0 -p tcp -m tcp --dport 8443 -j ACCEPT\n\
    COMMIT\n";

#[test]
fn an_edge_is_told_with_owners_and_witnesses_that_arrive() {
    let found = exposed(EDGE);
    assert!(found.complete, "{found:#?}");
    let counts = found.summary();
    assert_eq!((counts.refuted, counts.unwalked), (0, 0), "{found:#?}");
    let ssh = found.reachable.iter().find(|it| it.road == Road::Input && it.nat.is_none());
    let ssh = ssh.expect("ssh is reachable");
    assert_eq!(ssh.owner(), Some("ops"));
    let [service] = &ssh.services[..] else { panic!("{ssh:#?}") };
    assert_eq!(service.interfaces, ["lan0"]);
    assert_eq!(service.sources, ["198.51.100.0/24"]);
    assert_eq!(
        (&service.protocols[..], &service.ports[..]),
        (&["tcp".to_owned()][..], &["22".to_owned()][..])
    );
    let web = found.reachable.iter().find(|it| it.nat.is_some()).expect("web is reachable");
    assert_eq!((web.road, web.owner()), (Road::Forward, Some("web")));
    let service = &web.services[0];
    assert_eq!(
        (&service.destinations[..], &service.ports[..]),
        (&["10.0.0.5".to_owned()][..], &["8443".to_owned()][..])
    );
    assert_eq!(service.via.as_ref().map(|it| it.ports.clone()), Some(vec!["443".to_owned()]));
    let said = text(&found);
    assert!(
        said.contains("that is all (exact)") && said.contains("owner web, ticket OPS-1"),
        "{said}"
    );
}

#[test]
fn another_owner_and_another_port_are_told_apart() {
    let sets = Arc::new(Registry::default());
    let (old, new) = (
        parsed(EDGE),
        parsed(&EDGE.replace("owner=ops", "owner=net").replace("--dport 443", "--dport 80")),
    );
    let policies = [&old, &new].map(|rules| Policy { rules, sets: &sets });
    let found = compare(policies, &BTreeSet::new(), Given::default(), &mut |_| {});
    let changes = found.expect("they compile").changes;
    assert!(changes.complete);
    let [gained] = &changes.newly_exposed[..] else { panic!("{changes:#?}") };
    let [lost] = &changes.no_longer_exposed[..] else { panic!("{changes:#?}") };
    let asked = |it: &Difference| it.services[0].via.as_ref().map(|it| it.ports.clone());
    assert_eq!(
        (asked(gained), asked(lost)),
        (Some(vec!["80".to_owned()]), Some(vec!["443".to_owned()]))
    );
    let [changed] = &changes.changed[..] else { panic!("{changes:#?}") };
    assert!(changed.other_owner());
    let owners = [&changed.before[0], &changed.after[0]].map(|it| it.owner.clone());
    assert_eq!(owners, [Some("ops".to_owned()), Some("net".to_owned())]);
}

#[test]
fn what_hangs_on_a_set_says_so_and_little_effort_is_said() {
    let sets = "*filter\n:INPUT DROP [0:0]\n-A INPUT -m mac --mac-source 02:00:00:00:00:07 -j DROP\n-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\nCOMMIT\n";
    let found = exposed(sets);
    let one = found.reachable.iter().find(|it| it.road == Road::Input);
    let one = one.expect("there is one");
    assert_eq!(one.services[0].conditions.len(), 1);
    assert!(one.services[0].conditions[0].starts_with("unless -m mac"), "{one:#?}");
    let rules = parsed(EDGE);
    let sets = Arc::new(Registry::default());
    let given = Given { local: None, bounds: Bounds { effort: 3, ..Bounds::default() } };
    let found = expose(Policy { rules: &rules, sets: &sets }, given, &mut |_| {});
    let found = found.expect("it compiles");
    assert!(!found.complete && !found.unfinished.is_empty(), "{found:#?}");
}

#[test]
fn denials_are_shown_by_packets_that_end_there() {
    let found = exposed(EDGE);
    let policies: Vec<_> = found.denials.iter().map(|it| it.rule.text.as_str()).collect();
    assert_eq!(policies, [":INPUT DROP", ":FORWARD DROP"]);
    for denial in &found.denials {
        let witness = denial.services[0].witness.as_ref().expect("there is a packet");
        assert_eq!(witness.confirmed, Some(true), "{denial:#?}");
    }
}
