//! What no sane sender sends, through real sockets: nothing gets around the
//! engine, and nothing stops it.

use std::sync::Arc;

use dataplane::clock::{Nanos, monotonic};
use dataplane::conntrack::{Config as TableConfig, Conntrack};
use dataplane::fib::{Mode, NeighbourEntry, Network, PortInfo, Topology};
use dataplane::packet::{Mac, PktType};
use dataplane::policy::{FamilyPolicy, Policy, TABLES};
use dataplane::port::afxdp::Opened;
use dataplane::port::fault::{FaultPort, Faults, PerMillion};
use dataplane::publish::Publisher;
use dataplane::snapshot::Snapshot;
use dataplane::stats::WorkerStats;
use dataplane::verdict::DropReason;
use dataplane::wire::build::Packet;
use dataplane::wire::parse::parse_ipv4;
use dataplane::worker::{EnginePipeline, Outlets, Worker};

use crate::lab::{Lab, inside, run};
use crate::{A, B, Peer, alone, config, open_in, routed, soon};

const BOX: [Mac; 2] = [Mac([2, 0, 0, 0, 1, 1]), Mac([2, 0, 0, 0, 1, 2])];
const HOST: [Mac; 2] = [Mac([2, 0, 0, 0, 2, 1]), Mac([2, 0, 0, 0, 2, 2])];
const CLIENT: &str = "198.18.1.2";
const SERVER: &str = "198.18.2.2";

/// A lab whose box has known addresses, forwards by itself, and knows the hosts.
fn lab() -> Lab {
    let lab = Lab::new(1);
    let namespace = lab.boxed();
    run(&format!("ip netns exec {namespace} sysctl -qw net.ipv4.ip_forward=1"));
    for (device, number, host) in [("f0", 1, CLIENT), ("f1", 2, SERVER)] {
        run(&format!("ip -n {namespace} link set {device} address 02:00:00:00:01:0{number}"));
        run(&format!(
            "ip -n {namespace} neigh replace {host} lladdr 02:00:00:00:02:0{number} dev {device}"
        ));
    }
    lab
}

fn transit(port: u16) -> Packet {
    Packet::udp(CLIENT, 4000, SERVER, port).macs(HOST[0], BOX[0])
}

/// Destination ports of the IPv4 packets that arrived, whatever was before them.
fn arrived(peer: &mut Peer) -> Vec<u16> {
    let ports = |frame: Vec<u8>| parse_ipv4(&frame, 14, PktType::Host).ok().map(|p| p.dport);
    peer.collect(0).into_iter().filter_map(ports).collect()
}

#[test]
fn nothing_is_forwarded_around_the_engine() {
    let _alone = alone();
    let lab = lab();
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let mut right = Peer::new(&lab.right(), "r0", 1);
    let tags: [&[(u16, u16)]; 7] = [
        &[],
        &[(0x8100, 0)],
        &[(0x8100, 0xe000)],
        &[(0x88a8, 0)],
        &[(0x8100, 0), (0x8100, 0)],
        &[(0x88a8, 0), (0x8100, 0)],
        &[(0x8100, 0), (0x8100, 0), (0x8100, 0)],
    ];
    let tagged = tags.iter().zip(6000..).map(|(tags, port)| {
        tags.iter().fold(transit(port), |packet, &(kind, control)| packet.tag(kind, control))
    });
    let mut frames: Vec<_> = tagged.map(|packet| packet.build()).collect();
    frames.push(transit(6007).options(&[1, 1, 1, 1]).build());
    frames.push(transit(6008).ttl(2).build());
    let all: Vec<u16> = (6000..6009).collect();
    let send = |left: &mut Peer| left.send(0, frames.iter().map(Vec::as_slice));

    // All of these a kernel that forwards carries across.
    let mut seen = Vec::new();
    assert_eq!(send(&mut left), frames.len());
    let carried = soon(|| {
        seen.extend(arrived(&mut right));
        seen.len() >= all.len()
    });
    seen.sort_unstable();
    assert!(carried, "{seen:?}");
    assert_eq!(seen, all);

    let local = ["198.18.1.1", "198.18.2.1"].map(|a| (a.parse().expect("an address"), 32));
    let Opened { program, workers, .. } =
        inside(&lab.boxed(), || dataplane::port::afxdp::open(&routed(&["f0", "f1"]), local))
            .expect("the box opens");
    // Nobody drives the workers: what arrives now came around them.
    assert_eq!(send(&mut left), frames.len());
    let redirected = || program.counters(A).expect("the counters are read").redirected;
    assert!(soon(|| redirected() >= frames.len() as u64), "{} redirected", redirected());
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(arrived(&mut right), []);
    drop(workers);
}

fn network(mode: Mode) -> Network {
    let port = |index: usize, name: &str| PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: name.to_owned(),
        mac: BOX[index],
        mtu: 1500,
        addresses: vec![([198, 18, index as u8 + 1, 1].into(), 24)],
        up: true,
    };
    let neighbour = |(port, address): (_, &str), mac| NeighbourEntry {
        port,
        address: address.parse().expect("an address"),
        mac,
    };
    let topology = Topology {
        mode,
        ports: vec![port(0, "f0"), port(1, "f1")],
        routes: Vec::new(),
        rules: Vec::new(),
        neighbours: vec![neighbour((A, CLIENT), HOST[0]), neighbour((B, SERVER), HOST[1])],
    };
    Network::build(&topology).expect("the topology is sound")
}

/// No rules, but every connection is tracked.
fn tracking_policy() -> Policy {
    fn family<A: classifier::Address>() -> FamilyPolicy<A> {
        FamilyPolicy {
            chains: Box::new([]),
            hooks: [[None; TABLES]; 5],
            needs_conntrack: true,
            nat: false,
            max_depth: 0,
        }
    }
    Policy { v4: family(), v6: family(), counters: 0 }
}

/// Sound frames of many kinds, some of which are then damaged or cut short.
fn hostile(number: u32) -> Vec<u8> {
    let port = 1024 + (number % 50_000) as u16;
    let server6 = "2001:db8:2::2";
    let packet = match number % 7 {
        0 => transit(port),
        1 => transit(port).tag(0x8100, 0),
        2 => transit(port).options(&[7, 7, 4, 0, 0, 0, 0, 0]),
        3 => Packet::tcp(CLIENT, port, SERVER, 80, number as u8),
        4 => Packet::tcp("2001:db8:1::2", port, server6, 80, 2),
        5 => Packet::udp("2001:db8:1::2", port, server6, 53).tag(0x88a8, 5),
        _ => Packet::udp(CLIENT, port, SERVER, 53).ttl((number % 3) as u8),
    };
    let mut frame = packet.macs(HOST[0], BOX[0]).payload_len(number as usize * 37 % 1200).build();
    // A fixed sequence, so that a failure can be repeated.
    let mut noise = number.wrapping_mul(0x9e37_79b9);
    for _ in 0..number % 4 {
        noise = noise.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        let at = 12 + (noise >> 8) as usize % 60;
        if let Some(byte) = frame.get_mut(at) {
            *byte ^= noise as u8;
        }
    }
    if number.is_multiple_of(5) {
        frame.truncate(1 + (noise >> 16) as usize % frame.len());
    }
    frame
}

fn malformed_frames_meet_the_engine(mode: Mode) {
    let lab = lab();
    let config = match mode {
        Mode::Bridge(_) => config(&["f0", "f1"]),
        Mode::Routed | Mode::Host => routed(&["f0", "f1"]),
    };
    let Opened { program: _program, workers, .. } =
        open_in(&lab.boxed(), &config).expect("the box opens");
    let share = workers.into_iter().next().expect("one worker");
    let some = PerMillion(100_000);
    let faults =
        Faults { corruption: some, truncation: some, duplication: some, ..Faults::default() };
    let none = Faults::default();
    let ports = share.ports.into_iter().zip(0..);
    let ports = ports.map(|(port, seed)| FaultPort::new(port, seed, faults, none)).collect();
    let snapshots = Publisher::new(Arc::new(Snapshot::new(1, tracking_policy(), 1)));
    let networks = Publisher::new(Arc::new(network(mode)));
    let conntrack = Arc::new(Conntrack::new(TableConfig::new([3; 16])).expect("a small table"));
    let stats = Arc::new(WorkerStats::default());
    let (policy, net) = (snapshots.subscribe(), networks.subscribe());
    let engine = EnginePipeline::new(0, policy, net, Arc::clone(&conntrack), Arc::clone(&stats));
    let mut worker = Worker::new(0, share.pool, ports, engine, Outlets::new(16, 16))
        .with_stats(Arc::clone(&stats));
    let mut left = Peer::new(&lab.left(), "l0", 1);
    let mut right = Peer::new(&lab.right(), "r0", 1);
    let mut crossed = 0;
    for round in 0..200u32 {
        let frames: Vec<_> = (0..32).map(|index| hostile(round * 32 + index)).collect();
        left.send(0, frames.iter().map(Vec::as_slice));
        left.collect(0);
        for _ in 0..4 {
            worker.turn(monotonic());
        }
        crossed += right.collect(0).len();
    }
    assert!(crossed > 1000, "{crossed} frames crossed");
    assert!(!conntrack.is_empty(), "sound ones among them were tracked");
    let sound = transit(9999).build();
    assert!(
        soon(|| {
            left.send(0, [&sound[..]]);
            worker.turn(monotonic());
            arrived(&mut right).contains(&9999)
        }),
        "the engine still forwards"
    );
    // Everything that waited is given up, and every frame is accounted for.
    while worker.turn(monotonic() + Nanos::from_secs(10)) > 0 {}
    let received = stats.port(A).rx.get().0 + stats.port(B).rx.get().0;
    let sent = stats.port(A).tx.get().0 + stats.port(B).tx.get().0;
    let dropped: u64 = DropReason::ALL.iter().map(|reason| stats.drops(*reason)).sum();
    assert_eq!(received + stats.replies.get(), dropped + sent + stats.delivered.get());
    assert_eq!(worker.waiting(), 0);
    let (pool, ports) = worker.parts();
    let held = |ports: &[FaultPort<_>]| ports.iter().map(FaultPort::held).sum::<usize>();
    assert_eq!(pool.held(), held(ports), "no frame is lost");
}

#[test]
fn malformed_frames_do_not_harm_a_router() {
    let _alone = alone();
    malformed_frames_meet_the_engine(Mode::Routed);
}

#[test]
fn malformed_frames_do_not_harm_a_bridge() {
    let _alone = alone();
    malformed_frames_meet_the_engine(Mode::Bridge(vec![(A, B)]));
}
