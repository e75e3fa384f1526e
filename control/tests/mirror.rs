//! The netlink mirror against the kernel, in namespaces of its own. Needs root.

use std::net::IpAddr;

use dataplane::clock::{Nanos, monotonic};
use dataplane::fib::{Mode, Realms, RouteKind, Topology};
use dataplane::packet::{Mac, PortId};
use portcullis::net::{Loss, Mirror, Update};

mod netns;
use netns::{Namespace, join};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Waits (bounded) until the mirror has an update that satisfies `done`.
fn follow(mirror: &mut Mirror, mut done: impl FnMut(&Update) -> bool) -> Update {
    let start = monotonic();
    let mut last = None;
    while monotonic().saturating_sub(start) < Nanos::from_secs(10) {
        mirror.drain().unwrap();
        if let Some(update) = mirror.refresh(monotonic).unwrap() {
            if done(&update) {
                return update;
            }
            last = Some(update);
        }
        std::thread::yield_now();
    }
    panic!("the change never arrived; last seen: {last:#?}");
}

fn route_kind(topology: &Topology, to: &str, prefix: u8) -> Option<(RouteKind, Option<IpAddr>)> {
    let to = (address(to), prefix);
    topology.routes.iter().find(|route| route.to == to).map(|route| (route.kind, route.via))
}

#[test]
fn routes_addresses_neighbours_and_links_are_followed() {
    let gateway = Namespace::new("gw");
    let peer = Namespace::new("peer");
    join((&gateway, "p0"), (&peer, "q0"), 1);
    join((&gateway, "p1"), (&peer, "q1"), 1);
    join((&gateway, "other"), (&peer, "q2"), 1);
    gateway.run("ip link set p0 address 02:00:00:00:01:01");
    gateway.run("ip addr add 198.18.1.1/24 dev p0; ip addr add 198.18.2.1/24 dev p1");
    gateway
        .run("ip addr add 198.18.3.1/24 dev other; ip -6 addr add 2001:db8:1::1/64 dev p0 nodad");
    peer.run("ip addr add 198.18.1.2/24 dev q0; ip link set q0 address 02:00:00:00:01:02");

    gateway.enter(|| {
        let ports = vec!["p0".to_owned(), "p1".to_owned()];
        let mut mirror = Mirror::open(Mode::Routed, ports).unwrap();
        let first = follow(&mut mirror, |_| true);
        let topology = &first.topology;
        assert_eq!(topology.ports[0].mac, Mac([2, 0, 0, 0, 1, 1]));
        assert!(topology.ports[0].up && topology.ports[1].up);
        assert!(topology.ports[0].addresses.contains(&(address("198.18.1.1"), 24)));
        let connected = route_kind(topology, "198.18.2.0", 24);
        assert_eq!(connected, Some((RouteKind::Unicast(PortId(1)), None)));
        assert_eq!(route_kind(topology, "198.18.3.0", 24), Some((RouteKind::Foreign, None)));
        assert_eq!(route_kind(topology, "198.18.1.1", 32), Some((RouteKind::Local, None)));
        assert_eq!(route_kind(topology, "198.18.1.255", 32), Some((RouteKind::Broadcast, None)));
        assert!(first.local.contains(&(address("198.18.1.255"), 32)));
        assert!(first.local.contains(&(address("2001:db8:1::1"), 128)));
        assert!(topology.rules.iter().any(|rule| rule.table == 255 && rule.priority == 0));

        gateway.run(
            "ip route add 203.0.113.0/24 via 198.18.2.9 table 100 metric 7 mtu 1400 realms 3/5",
        );
        let update =
            follow(&mut mirror, |update| route_kind(&update.topology, "203.0.113.0", 24).is_some());
        let to = (address("203.0.113.0"), 24);
        let route = update.topology.routes.iter().find(|route| route.to == to).unwrap();
        assert_eq!((route.table, route.metric, route.mtu), (100, 7, Some(1400)));
        assert_eq!(route.realms, Realms(0x3_0005));
        assert_eq!(route.via, Some(address("198.18.2.9")));

        gateway.run(
            "ip rule add fwmark 0x20/0xff iif p0 from 198.18.1.0/24 realms 4/2 table 100 prio 500",
        );
        let update =
            follow(&mut mirror, |u| u.topology.rules.iter().any(|rule| rule.priority == 500));
        let rule = update.topology.rules.iter().find(|rule| rule.priority == 500).unwrap();
        assert_eq!(rule.fwmark, Some((0x20, 0xff)));
        assert_eq!(rule.realms, Realms(0x4_0002));
        assert_eq!((rule.iif, rule.table), (Some(PortId(0)), 100));
        assert_eq!(rule.from, Some((address("198.18.1.0"), 24)));

        gateway.run("ip link set p1 group 7");
        let groups = |update: &Update| [0, 1].map(|port| update.topology.ports[port].device_group);
        follow(&mut mirror, |update| groups(update) == [0, 7]);

        // Asked to resolve, the kernel does, and the answer comes back.
        mirror.solicit(PortId(0), address("198.18.1.2")).unwrap();
        let update = follow(&mut mirror, |update| !update.topology.neighbours.is_empty());
        let found = update.topology.neighbours[0];
        assert_eq!(found.address, address("198.18.1.2"));
        assert_eq!((found.port, found.mac), (PortId(0), Mac([2, 0, 0, 0, 1, 2])));

        // IPv4 routes over a link that goes down vanish without a word.
        gateway.run("ip link set p1 down");
        follow(&mut mirror, |update| {
            !update.topology.ports[1].up
                && route_kind(&update.topology, "198.18.2.0", 24).is_none()
                && route_kind(&update.topology, "203.0.113.0", 24).is_none()
        });
        gateway.run("ip link set p1 up");
        follow(&mut mirror, |update| {
            update.topology.ports[1].up && route_kind(&update.topology, "198.18.2.0", 24).is_some()
        });
        gateway.run("ip link del p1");
        let update = follow(&mut mirror, |update| !update.topology.ports[1].up);
        assert_eq!(update.topology.ports[1].name, "p1", "a port keeps its place");
    });
}

/// Joining and leaving is told of, and costs no dump of everything.
#[test]
fn multicast_groups_are_followed() {
    let gateway = Namespace::new("gw");
    let peer = Namespace::new("peer");
    join((&gateway, "p0"), (&peer, "q0"), 1);
    gateway.run("ip addr add 198.18.1.1/24 dev p0; ip -6 addr add 2001:db8:1::1/64 dev p0 nodad");
    gateway.enter(|| {
        let mut mirror = Mirror::open(Mode::Routed, vec!["p0".to_owned()]).unwrap();
        let first = follow(&mut mirror, |_| true);
        let has = |update: &Update, group: &str| {
            update.topology.ports[0].groups.contains(&address(group))
        };
        assert!(has(&first, "224.0.0.1") && has(&first, "ff02::1"));
        assert!(has(&first, "ff02::1:ff00:1") && !has(&first, "224.0.0.5"));
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let (group, own) = ("224.0.0.5".parse().unwrap(), "198.18.1.1".parse().unwrap());
        socket.join_multicast_v4(&group, &own).unwrap();
        follow(&mut mirror, |update| has(update, "224.0.0.5"));
        let six = std::net::UdpSocket::bind("[::]:0").unwrap();
        let index = mirror.view().link_by_name("p0").unwrap().index;
        six.join_multicast_v6(&"ff02::5".parse().unwrap(), index).unwrap();
        follow(&mut mirror, |update| has(update, "ff02::5"));
        drop((socket, six));
        follow(&mut mirror, |update| !has(update, "224.0.0.5") && !has(update, "ff02::5"));
    });
}

#[test]
fn route_localnet_is_followed_for_a_port_and_for_all() {
    let gateway = Namespace::new("gw");
    let peer = Namespace::new("peer");
    join((&gateway, "p0"), (&peer, "q0"), 1);
    join((&gateway, "p1"), (&peer, "q1"), 1);
    gateway.enter(|| {
        let ports = ["p0", "p1"].map(str::to_owned).to_vec();
        let mut mirror = Mirror::open(Mode::Routed, ports).unwrap();
        let has = |update: &Update| [0, 1].map(|port| update.topology.ports[port].route_localnet);
        assert_eq!(has(&follow(&mut mirror, |_| true)), [false; 2]);
        let conf = "net.ipv4.conf";
        gateway.run(&format!("sysctl -qw {conf}.p1.route_localnet=1"));
        follow(&mut mirror, |update| has(update) == [false, true]);
        gateway.run(&format!("sysctl -qw {conf}.all.route_localnet=1"));
        follow(&mut mirror, |update| has(update) == [true; 2]);
        gateway.run(&format!("sysctl -qw {conf}.all.route_localnet=0 {conf}.p1.route_localnet=0"));
        follow(&mut mirror, |update| has(update) == [false; 2]);
    });
}

#[test]
fn lost_addresses_and_ports_are_told_of_even_when_they_are_back_at_once() {
    let gateway = Namespace::new("gw");
    let peer = Namespace::new("peer");
    join((&gateway, "p0"), (&peer, "q0"), 1);
    join((&gateway, "p1"), (&peer, "q1"), 1);
    gateway.run("ip addr add 198.18.1.1/24 dev p0; ip addr add 198.18.2.1/24 dev p1");
    gateway.enter(|| {
        let ports = vec!["p0".to_owned(), "p1".to_owned()];
        let mut mirror = Mirror::open(Mode::Routed, ports).unwrap();
        follow(&mut mirror, |_| true);
        drop(mirror.losses());
        gateway.run("ip addr del 198.18.1.1/24 dev p0; ip addr add 198.18.1.1/24 dev p0");
        gateway.run("ip link set p1 down; ip link set p1 up");
        peer.run("ip link set q0 down");
        follow(&mut mirror, |update| !update.topology.ports[0].up);
        let lost = mirror.losses();
        let is = |port, address| Loss { port: PortId(port), address };
        assert!(lost.contains(&is(0, Some(address("198.18.1.1")))), "{lost:?}");
        assert!(lost.contains(&is(1, None)), "{lost:?}");
        assert!(!lost.contains(&is(0, None)), "only its carrier is gone: {lost:?}");
        assert!(mirror.losses().is_empty());
    });
}

#[test]
fn an_overrun_of_notifications_is_healed() {
    let gateway = Namespace::new("gw");
    // Nothing else may cause a dump: IPv6 addresses come up late by themselves.
    gateway.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1");
    gateway.run("ip link add p0 type veth peer name x0; ip link set x0 up; ip link set p0 up; ip addr add 198.18.1.1/24 dev p0");
    gateway.enter(|| {
        let mut mirror = Mirror::open(Mode::Routed, vec!["p0".to_owned()]).unwrap();
        follow(&mut mirror, |_| true);
        // Far more notifications than the queue holds, none of them read.
        gateway.run(
            "for i in $(seq 0 99); do for j in $(seq 1 250); do \
             echo neigh add 198.19.$i.$j lladdr 02:00:00:00:00:01 dev p0; done; done > /tmp/$$.batch; \
             ip -batch /tmp/$$.batch; rm /tmp/$$.batch",
        );
        follow(&mut mirror, |update| update.topology.neighbours.len() >= 25_000);
    });
}

#[test]
fn what_cannot_be_honoured_is_said() {
    let gateway = Namespace::new("gw");
    gateway.run("ip link add p0 type veth peer name x0; ip link set x0 up; ip link set p0 up; ip addr add 198.18.1.1/24 dev p0");
    gateway.run("ip link add p1 type veth peer name x1; ip link set x1 up; ip link set p1 up; ip addr add 198.18.2.1/24 dev p1");
    gateway.run(
        "ip route add 203.0.113.0/24 nexthop via 198.18.1.2 dev p0 nexthop via 198.18.2.2 dev p1",
    );
    gateway.run("ip route add 192.0.2.0/24 tos 0x10 via 198.18.1.3");
    gateway.enter(|| {
        let ports = vec!["p0".to_owned(), "p1".to_owned()];
        let mut mirror = Mirror::open(Mode::Routed, ports).unwrap();
        let update = follow(&mut mirror, |_| true);
        let notes: Vec<String> = update.notes.iter().map(ToString::to_string).collect();
        assert_eq!(
            notes,
            [
                "route to 192.0.2.0/24 is for one TOS value only and is left out",
                "multipath route to 203.0.113.0/24: all flows take 198.18.1.2",
            ]
        );
        gateway.run("ip rule add not from 198.18.0.0/15 table 100 prio 77");
        let start = monotonic();
        let error = loop {
            mirror.drain().unwrap();
            match mirror.refresh(monotonic) {
                Err(error) => break error,
                Ok(_) => assert!(monotonic().saturating_sub(start) < Nanos::from_secs(10)),
            }
        };
        assert_eq!(
            error.to_string(),
            "ip rule with priority 77 uses not, which cannot be honoured; \
             remove the rule or keep this traffic off the ports"
        );
        // Said once; and when the rule is gone, the same network as before is news.
        assert!(mirror.refresh(monotonic).unwrap().is_none());
        gateway.run("ip rule del prio 77");
        let again = follow(&mut mirror, |_| true);
        assert_eq!(again.topology, update.topology);
        // A note is news even where the network stays the same.
        gateway.run("ip route add 192.0.2.0/25 tos 0x10 via 198.18.1.3");
        let noted = follow(&mut mirror, |update| update.notes.len() == 3);
        assert_eq!(noted.topology, again.topology);
    });
}

#[test]
fn a_nexthop_object_that_is_not_spelt_out_is_said() {
    let gateway = Namespace::new("gw");
    gateway.run("ip link add p0 type veth peer name x0; ip link set x0 up; ip link set p0 up");
    gateway.run("ip addr add 198.18.1.1/24 dev p0");
    gateway.run("ip nexthop add id 7 via 198.18.1.2 dev p0; ip route add 203.0.113.0/24 nhid 7");
    gateway.enter(|| {
        let mut mirror = Mirror::open(Mode::Routed, vec!["p0".to_owned()]).unwrap();
        let spelt = follow(&mut mirror, |_| true);
        let way = Some((RouteKind::Unicast(PortId(0)), Some(address("198.18.1.2"))));
        assert_eq!(route_kind(&spelt.topology, "203.0.113.0", 24), way);
        assert!(spelt.notes.is_empty(), "{:?}", spelt.notes);
        gateway.run("sysctl -qw net.ipv4.nexthop_compat_mode=0; ip route add 192.0.2.0/24 nhid 7");
        let untold = follow(&mut mirror, |update| update.notes.len() == 2);
        let foreign = Some((RouteKind::Foreign, None));
        assert_eq!(route_kind(&untold.topology, "192.0.2.0", 24), foreign);
        let note = untold.notes[0].to_string();
        assert!(note.contains("names nexthop object 7 only: packets to it are dropped"), "{note}");
    });
}
