//! Routes, rules, neighbours and addresses that change under traffic: the same steps
//! with the daemon and with the kernel alone, what came of each and how soon.

use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};

use crate::lab::{Lab, OPEN, Stream, alone, millis};
use crate::netns::{Namespace, join};

/// The gateway has two ways to 203.0.113.1: by g1 to `lab.server`, which is place 0,
/// and by g2 to `other`, place 1.
struct Crossroads {
    lab: Lab,
    other: Namespace,
}

const TO: &str = "203.0.113.1";

impl Crossroads {
    fn new() -> Self {
        let (mut lab, other) = (Lab::new(1), Namespace::new("c"));
        join((&other, "c0"), (&lab.gateway, "g2"), 1);
        other.run("ip addr add 198.18.3.2/24 dev c0; ip route add default via 198.18.3.1");
        lab.gateway.run("ip addr add 198.18.3.1/24 dev g2");
        lab.gateway.run("ip route add default via 198.18.3.2 table 100");
        lab.gateway.run("ip route add default via 198.18.2.2");
        for namespace in [&lab.server, &other] {
            namespace.run(&format!("ip addr add {TO}/32 dev lo"));
        }
        lab.ports.push("g2");
        Self { lab, other }
    }

    fn stream(&self) -> Stream {
        let places = [&self.lab.server, &self.other];
        let stream = Stream::begin(&self.lab.client, &places, &format!("{TO}:9"));
        let begun = monotonic();
        stream.next(begun, Some(0)).expect("it flows by the first way");
        stream
    }
}

/// Where a command runs.
#[derive(Clone, Copy)]
enum By {
    Gateway,
    Server,
}

const STEPS: &[(&str, By, &str)] = &[
    ("default route to the other port", By::Gateway, "ip route replace default via 198.18.3.2"),
    ("default route back", By::Gateway, "ip route replace default via 198.18.2.2"),
    ("ip rule added", By::Gateway, "ip rule add from 198.18.1.2 lookup 100"),
    ("ip rule deleted", By::Gateway, "ip rule del from 198.18.1.2 lookup 100"),
    (
        "neighbour with a foreign MAC",
        By::Gateway,
        "ip neigh replace 198.18.2.2 lladdr 02:00:00:00:00:77 dev g1 nud permanent",
    ),
    (
        "neighbour with its own MAC",
        By::Gateway,
        "ip neigh replace 198.18.2.2 lladdr 02:00:00:00:00:b0 dev g1 nud reachable",
    ),
    ("neighbour deleted", By::Gateway, "ip neigh del 198.18.2.2 dev g1"),
    ("gratuitous ARP with another MAC", By::Server, "ip link set b0 address 02:00:00:00:00:b1"),
    ("address deleted", By::Gateway, "ip addr del 198.18.2.1/24 dev g1"),
    ("address added", By::Gateway, "ip addr add 198.18.2.1/24 dev g1"),
    ("default route again", By::Gateway, "ip route replace default via 198.18.2.2"),
    ("unreachable instead", By::Gateway, "ip route replace unreachable 203.0.113.1"),
    ("reachable again", By::Gateway, "ip route del unreachable 203.0.113.1"),
];

/// What came of one step.
#[derive(Debug)]
struct Outcome {
    /// Where datagrams arrive in the end.
    place: Option<usize>,
    /// From the end of the command until the first one arrived there, or the last one did
    /// anywhere if none does in the end.
    took: Nanos,
    lost: u64,
}

fn walk(ours: bool) -> Vec<Outcome> {
    let mut crossroads = Crossroads::new();
    let server = &crossroads.lab.server;
    server.run("sysctl -qw net.ipv4.conf.b0.arp_notify=1");
    server.run("ip link set b0 address 02:00:00:00:00:b0");
    if ours {
        crossroads.lab.start(OPEN, &[]);
    }
    let stream = crossroads.stream();
    let mut outcomes = Vec::new();
    for (what, by, command) in STEPS {
        let namespace = match by {
            By::Gateway => &crossroads.lab.gateway,
            By::Server => &crossroads.lab.server,
        };
        let (sent, arrived) = (stream.sent(), stream.arrived() as u64);
        namespace.run(command);
        let done = monotonic();
        std::thread::sleep(Duration::from_millis(700));
        let lost = (stream.sent() - sent).saturating_sub(stream.arrived() as u64 - arrived);
        let place = stream.since(monotonic() - Nanos::from_millis(200)).last().map(|it| it.place);
        let after = stream.since(done);
        let moment = match place {
            Some(place) => after.iter().find(|it| it.place == place).map(|it| it.at),
            None => after.last().map(|it| it.at),
        };
        let took = moment.map_or(Nanos(0), |at| at - done);
        let who = if ours { "portcullis" } else { "kernel" };
        println!("{who}: {what}: place {place:?} after {:.1} ms, {lost} lost", millis(took));
        outcomes.push(Outcome { place, took, lost });
    }
    if ours {
        assert!(crossroads.lab.errors().lines().count() < 20, "{}", crossroads.lab.errors());
    }
    outcomes
}

#[test]
fn changes_of_paths_take_effect_as_they_do_in_the_kernel() {
    let _alone = alone();
    let (kernel, ours) = (walk(false), walk(true));
    for (((what, ..), kernel), ours) in STEPS.iter().zip(&kernel).zip(&ours) {
        assert_eq!(ours.place, kernel.place, "{what}: {kernel:?}, {ours:?}");
        assert!(ours.took < Nanos::from_millis(400), "{what}: {ours:?}");
        let bound = if ours.place.is_some() { kernel.lost + 300 } else { u64::MAX };
        assert!(ours.lost <= bound, "{what}: {kernel:?}, {ours:?}");
    }
    assert_eq!(kernel[0].place, Some(1));
    assert_eq!(kernel[4].place, None);
}

/// Notifications that were lost because a netlink socket of the daemon overran.
fn overruns(lab: &Lab) -> u64 {
    let table = std::fs::read_to_string(format!("/proc/{}/net/netlink", lab.pid())).unwrap();
    let drops = table.lines().skip(1).filter_map(|line| line.split_whitespace().nth(8));
    drops.map(|count| count.parse::<u64>().unwrap()).sum()
}

#[test]
fn twenty_thousand_route_changes_are_followed_even_when_notifications_are_lost() {
    const ROUTES: u32 = 20_000;
    let _alone = alone();
    let mut crossroads = Crossroads::new();
    crossroads.lab.start(OPEN, &[]);
    let (lab, stream) = (&crossroads.lab, crossroads.stream());
    let batch = |verb: &str, last: &str| {
        let route = |number: u32| {
            format!("route {verb} 10.{}.{}.0/24 via 198.18.2.2\n", number >> 8, number & 255)
        };
        let lines: String = (0..ROUTES).map(route).collect();
        lab.file(verb, &format!("{lines}route {verb} {TO}/32 via {last}\n"))
    };
    let flood = |file: std::path::PathBuf| {
        let begun = monotonic();
        lab.gateway.run(&format!("ip -batch {}", file.display()));
        monotonic() - begun
    };
    // The daemon looks away, so that its queue overruns.
    lab.signal("STOP");
    let took = flood(batch("add", "198.18.3.2"));
    let lost = overruns(lab);
    lab.signal("CONT");
    let begun = monotonic();
    let seen = stream.next(begun, Some(1)).expect("the last route is in force");
    println!(
        "{ROUTES} routes added in {:.0} ms, {lost} overruns; in force {:.0} ms after",
        millis(took),
        millis(seen - begun)
    );
    assert!(lost > 0, "the queue has overrun");
    // Now it looks on all the time, and the stream goes on.
    let took = flood(batch("del", "198.18.3.2"));
    let begun = monotonic();
    let seen = stream.next(begun, Some(0)).expect("the last change is in force");
    println!(
        "{ROUTES} routes deleted in {:.0} ms; in force {:.0} ms after; longest pause {:.0} ms",
        millis(took),
        millis(seen - begun),
        millis(stream.longest_pause(begun - took))
    );
    assert!(seen - begun < Nanos::from_secs(3));
    assert!(lab.pings());
}
