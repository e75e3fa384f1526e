//! Judging with made-up sights: one healthy machine, and one thing wrong with it at a time.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dataplane::fib::Mode;
use dataplane::packet::PortId;
use dataplane::port::AttachMode;
use dataplane::port::afxdp::PinKind;
use dataplane::port::afxdp::ethtool::{Driver, Offload, Rings, Spreading};
use dataplane::port::host::TcxProgram;

use super::cpu::Interrupt;
use super::daemon::Running;
use super::netlink::NftTable;
use super::peer::Peer;
use super::ports::Device;
use super::probe::Probes;
use super::sys::Discipline;
use super::system::Place;
use super::*;
use crate::api::protocol::{
    ChainInfo, ConntrackStats, FamilyName, PinInfo, PortStatus, Ports, QueueStatus, RuleInfo,
    Rules, StateInfo, Stats, Status, StuckInfo, VersionInfo, WorkerInfo,
};

fn wanted() -> Wanted {
    Wanted {
        ports: vec!["eth0".to_owned()],
        mode: Mode::Routed,
        workers: None,
        host_road: true,
        closed: false,
        pin_directory: "/sys/fs/bpf/portcullis".into(),
        conntrack_max: 262_144,
        user: None,
        management: true,
        state: Some("/var/lib/portcullis/state/conntrack".into()),
        log: Some("/var/log/portcullis.log".into()),
        socket: "/run/portcullis/control.sock".into(),
        rules: Some("rules.v4".into()),
        rules6: None,
    }
}

fn offload(name: &str, active: bool) -> Offload {
    Offload { name: name.to_owned(), active, changeable: true }
}

fn device() -> Device {
    Device {
        ethernet: true,
        enabled: true,
        carrier: true,
        mtu: 1500,
        queues: 2,
        controller: None,
        promiscuous: 0,
        speed: Some(10_000),
        driver: Ok(Driver { name: "ixgbe".to_owned(), ..Driver::default() }),
        features: Ok(0x7f),
        xdp: None,
        pins: Ok(Vec::new()),
        holder: None,
        tcx: Ok(Vec::new()),
        filters: Ok([Vec::new(), Vec::new()]),
        rings: Some(Rings { rx: 2048, rx_max: 4096, tx: 2048, tx_max: 4096 }),
        spreading: Some(Spreading {
            toeplitz: true,
            symmetric: true,
            key: [0x6d, 0x5a].repeat(20),
            queues: vec![0, 1, 0, 1],
            ports_hashed: [true; 4],
        }),
        steering: 0,
        offloads: Ok(["rx-vlan-hw-parse", "rx-vlan-filter", "rx-lro", "rx-gro-hw"]
            .map(|name| offload(name, false))
            .to_vec()),
        peer: None,
    }
}

fn peer() -> Peer {
    Peer {
        name: "a0".to_owned(),
        mtu: 1500,
        prefix: ["ip", "netns", "exec", "lab"].map(str::to_owned).to_vec(),
        offloads: vec![
            offload("tx-checksum-ip-generic", false),
            offload("tx-vlan-hw-insert", false),
        ],
    }
}

/// A machine with which nothing is wrong.
fn seen() -> Seen {
    Seen {
        kernel: kernel::Seen {
            release: "6.18.0".to_owned(),
            missing: Vec::new(),
            may_pin: true,
            af_xdp: Ok(()),
            probes: Probes { program: Ok(()), xdp_link: Ok(()), host_road: Ok(()), owners: Ok(()) },
            tun: Ok(()),
            io_uring: Ok(()),
            io_uring_disabled: Ok(0),
            jit: Ok(1),
            bpffs: Ok(true),
            mounts_stay: true,
            memlock: None,
            open_files: Some(20_000),
        },
        ports: vec![ports::Seen { name: "eth0".to_owned(), device: Ok(device()) }],
        memory: memory::Seen {
            total: Ok(8 << 30),
            available: Ok(6 << 30),
            huge_free: Ok(64),
            huge_total: Ok(64),
            transparent: Ok("madvise".to_owned()),
        },
        clock: clock::Seen {
            source: Ok("tsc".to_owned()),
            sources: vec!["tsc".to_owned(), "hpet".to_owned()],
            wall: 1_800_000_000,
            discipline: Ok(Discipline { synchronised: true, error_us: 500 }),
        },
        cpu: cpu::Seen {
            cores: vec![0, 1, 2, 3],
            siblings: vec![(0, vec![0, 2]), (1, vec![1, 3])],
            governors: vec![(0, "performance".to_owned()), (1, "performance".to_owned())],
            isolated: Vec::new(),
            quota: Ok(None),
            interrupts: Vec::new(),
            irqbalance: false,
        },
        system: system::Seen {
            forwarding4: Ok(1),
            forwarding6: Ok(1),
            learned_route: false,
            others: Vec::new(),
            reverse_path: vec![("eth0".to_owned(), 2)],
            rules: rules::Seen {
                nftables: Ok(Vec::new()),
                legacy: Ok(Vec::new()),
                tracked: Some(0),
            },
            state: Some(("/var/lib".into(), Ok(Place { writable: true, free: 1 << 40 }))),
            log: Some(("/var/log".into(), Ok(Place { writable: true, free: 1 << 40 }))),
        },
        daemon: daemon::Seen::Running(Box::new(running())),
        config: config::Seen {
            mode: None,
            network: Some(Ok(Vec::new())),
            user: None,
            files: vec![config::File {
                path: PathBuf::from("rules.v4"),
                option: "--rules",
                errors: 0,
                warnings: 0,
                first: None,
            }],
        },
    }
}

/// A daemon in good health.
fn running() -> Running {
    Running { status: status(), ports: ports_shown(), stats: stats(), rules: rules_shown() }
}

fn status() -> Status {
    Status {
        version: VersionInfo {
            portcullis: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: "6.18.0".to_owned(),
            pid: 1,
            generation: 3,
            uptime_ms: 1,
        },
        connections: 0,
        host_road: "io-uring".to_owned(),
        failure: Default::default(),
        log: Default::default(),
        state: Some(StateInfo {
            file: "/var/lib/state".to_owned(),
            every_ms: 5000,
            saves: 1,
            failures: 0,
            error: None,
            last: None,
            restored: Default::default(),
        }),
        changes: Vec::new(),
    }
}

fn ports_shown() -> Ports {
    let queue = |queue| QueueStatus {
        queue,
        worker: queue as usize,
        zero_copy: true,
        counters: BTreeMap::from([("rx_ring_full".to_owned(), 0)]),
    };
    Ports {
        mode: "routed".to_owned(),
        host_road: "io-uring".to_owned(),
        failure: None,
        ports: vec![PortStatus {
            out_of_service: None,
            name: "eth0".to_owned(),
            up: true,
            mac: String::new(),
            mtu: 1500,
            addresses: Vec::new(),
            xdp: "native".to_owned(),
            xdp_counters: BTreeMap::new(),
            queues: vec![queue(0), queue(1)],
            rx_packets: 0,
            rx_bytes: 0,
            tx_packets: 0,
            tx_bytes: 0,
        }],
        notes: Vec::new(),
    }
}

fn stats() -> Stats {
    let worker = |worker| WorkerInfo {
        frames_free: 0,
        frames_lent: 0,
        frames_held: 0,
        worker,
        core: Some(worker),
        generation: 3,
        bursts: 0,
        swaps: 0,
        replies: 0,
        replies_limited: 0,
        logged: 0,
        log_lost: 0,
        rx_packets: 0,
        tx_packets: 0,
        drops: BTreeMap::new(),
        plans: BTreeMap::new(),
        synproxy: BTreeMap::new(),
    };
    Stats {
        uptime_ms: 1,
        generation: 3,
        retired: 0,
        drops: BTreeMap::new(),
        workers: vec![worker(0), worker(1)],
        xdp: BTreeMap::new(),
        conntrack: ConntrackStats { entries: 5, capacity: 262_144, ..Default::default() },
        log_written: 0,
        log_lost: 0,
    }
}

fn rules_shown() -> Rules {
    let rule = RuleInfo { number: 1, text: "-A INPUT".to_owned(), ..RuleInfo::default() };
    Rules {
        generation: 3,
        chains: vec![ChainInfo {
            family: FamilyName::V4,
            table: "filter".to_owned(),
            chain: "INPUT".to_owned(),
            policy: Some("DROP".to_owned()),
            packets: 0,
            bytes: 0,
            enforced: true,
            rules: vec![rule],
        }],
    }
}

/// What is not well, as `severity code`, and whether `--fix` mends it.
fn problems(wanted: &Wanted, seen: &Seen) -> Vec<String> {
    let workers = workers(wanted, &seen.ports, &seen.daemon);
    let mut findings = judge(wanted, workers, seen);
    sort(&mut findings);
    let bad = findings.iter().filter(|finding| finding.severity > Severity::Ok);
    bad.map(|finding| {
        assert!(!finding.safe || finding.code.fixes(), "the table says no: {finding:?}");
        assert!(!finding.safe || finding.command.is_some(), "nothing to run: {finding:?}");
        let fix = if finding.safe { " fix" } else { "" };
        format!("{} {}{fix}", finding.severity, finding.code.name())
    })
    .collect()
}

type Change = fn(&mut Wanted, &mut Seen);

/// Changes one thing of a healthy machine and expects exactly these findings.
#[track_caller]
fn expect(change: Change, expected: &[&str]) {
    let (mut wanted, mut seen) = (wanted(), seen());
    change(&mut wanted, &mut seen);
    assert_eq!(problems(&wanted, &seen), expected);
}

fn port(seen: &mut Seen) -> &mut Device {
    seen.ports[0].device.as_mut().unwrap()
}

fn daemon(seen: &mut Seen) -> &mut Running {
    match &mut seen.daemon {
        daemon::Seen::Running(running) => running,
        _ => unreachable!("the healthy machine has a daemon"),
    }
}

fn absent(seen: &mut Seen) {
    seen.daemon = daemon::Seen::Absent { stale: false };
}

#[test]
fn a_healthy_machine_has_no_problem() {
    expect(|_, _| {}, &[]);
}

#[test]
fn the_kernel() {
    let cases: &[(Change, &[&str])] = &[
        (|_, s| s.kernel.release = "6.1.0".to_owned(), &["error kernel-version"]),
        (|_, s| s.kernel.missing = vec!["CAP_BPF"], &["note privilege"]),
        (|_, s| s.kernel.af_xdp = Err(Unseen::Failed("no".to_owned())), &["error af-xdp"]),
        (|_, s| s.kernel.af_xdp = Err(Unseen::Privilege("CAP_NET_RAW")), &["note not-seen"]),
        (
            |_, s| s.kernel.probes.program = Err(Unseen::Failed("no".to_owned())),
            &["error bpf-load"],
        ),
        (
            |_, s| s.kernel.probes.host_road = Err(Unseen::Failed("no".to_owned())),
            &["error host-road-link"],
        ),
        (
            |_, s| s.kernel.probes.owners = Err(Unseen::Failed("no BTF".to_owned())),
            &["warning owners"],
        ),
        (
            |w, s| {
                w.host_road = false;
                s.kernel.probes.host_road = Err(Unseen::Failed("no".to_owned()));
                s.kernel.tun = Err(Unseen::Failed("no".to_owned()));
            },
            &[],
        ),
        (|_, s| s.kernel.tun = Err(Unseen::Failed("no".to_owned())), &["error tun"]),
        (|_, s| s.kernel.io_uring = Err(Unseen::Failed("no".to_owned())), &["warning io-uring"]),
        (|_, s| s.kernel.jit = Ok(0), &["warning bpf-jit fix"]),
        (|_, s| s.kernel.bpffs = Ok(false), &[]),
        (
            |w, s| {
                w.closed = true;
                (s.system.forwarding4, s.system.forwarding6) = (Ok(0), Ok(0));
                (s.kernel.bpffs, s.kernel.mounts_stay) = (Ok(false), false);
            },
            &["error bpffs"],
        ),
        (
            |w, s| {
                w.closed = true;
                (s.system.forwarding4, s.system.forwarding6) = (Ok(0), Ok(0));
                s.kernel.bpffs = Ok(false);
                w.pin_directory = "/run/elsewhere".into();
            },
            &["error bpffs"],
        ),
        // A daemon that runs has pinned its memory already.
        (|_, s| (s.kernel.may_pin, s.kernel.memlock) = (false, Some(8 << 20)), &[]),
        (
            |_, s| {
                absent(s);
                (s.kernel.may_pin, s.kernel.memlock) = (false, Some(8 << 20));
            },
            &["error memlock", "note daemon-absent"],
        ),
        (|_, s| (s.kernel.may_pin, s.kernel.memlock) = (false, Some(1 << 30)), &[]),
        (
            |_, s| {
                absent(s);
                s.kernel.open_files = Some(100);
            },
            &["warning open-files", "note daemon-absent"],
        ),
    ];
    cases.iter().for_each(|(change, expected)| expect(*change, expected));
}

#[test]
fn a_port() {
    let cases: &[(Change, &[&str])] = &[
        (|_, s| s.ports[0].device = Err(vec!["lan0".to_owned()]), &["error port-missing"]),
        (|_, s| port(s).ethernet = false, &["error port-kind"]),
        (|_, s| port(s).enabled = false, &["warning port-down"]),
        (|_, s| port(s).carrier = false, &["warning carrier"]),
        (|_, s| port(s).controller = Some("br0".to_owned()), &["error port-enslaved"]),
        (|_, s| port(s).mtu = 9000, &["error mtu"]),
        (|_, s| port(s).mtu = 3818, &[]),
        (|_, s| port(s).mtu = 3819, &["error mtu"]),
        (|_, s| port(s).promiscuous = 1, &["note promiscuous"]),
        (|_, s| port(s).steering = 2, &["note steering"]),
        (
            |_, s| port(s).rings = Some(Rings { rx: 256, rx_max: 4096, tx: 2048, tx_max: 4096 }),
            &["note rings"],
        ),
        (|_, s| port(s).rings = Some(Rings { rx: 256, rx_max: 256, tx: 256, tx_max: 256 }), &[]),
        // Attached and held by the daemon that answers.
        (|_, s| (port(s).xdp, port(s).holder) = (Some((AttachMode::Native, 7)), Some(1)), &[]),
        (
            |w, s| {
                absent(s);
                w.workers = Some(2);
                port(s).xdp = Some((AttachMode::Native, 7));
            },
            &["error xdp-foreign", "note daemon-absent"],
        ),
        (
            |_, s| {
                absent(s);
                port(s).holder = Some(9);
                port(s).xdp = Some((AttachMode::Native, 7));
            },
            &["error port-held", "note daemon-absent"],
        ),
        // What on-failure closed leaves behind.
        (
            |_, s| {
                absent(s);
                let name = "host_out".to_owned();
                port(s).tcx = Ok(vec![TcxProgram { id: 1, name, egress: true }]);
                port(s).xdp = Some((AttachMode::Native, 7));
                port(s).pins = Ok(vec![PinKind::Xdp, PinKind::Egress]);
            },
            &["warning port-pinned", "note daemon-absent"],
        ),
        (|_, s| port(s).pins = Ok(vec![PinKind::Xdp]), &[]),
        (
            |_, s| {
                let name = "host_out".to_owned();
                port(s).tcx = Ok(vec![TcxProgram { id: 1, name, egress: true }]);
                port(s).holder = Some(1);
            },
            &[],
        ),
        (
            |_, s| {
                let name = "spy".to_owned();
                port(s).tcx = Ok(vec![TcxProgram { id: 1, name, egress: true }]);
            },
            &["warning tcx-foreign"],
        ),
        (
            |_, s| port(s).filters = Ok([vec!["flower".to_owned()], Vec::new()]),
            &["warning tc-filter"],
        ),
    ];
    cases.iter().for_each(|(change, expected)| expect(*change, expected));
}

#[test]
fn queues_and_modes() {
    let cases: &[(Change, &[&str])] = &[
        (|_, s| port(s).queues = 4, &["error queues", "warning rss-table"]),
        (
            |w, s| {
                absent(s);
                w.workers = Some(1);
            },
            &["error queues", "note daemon-absent"],
        ),
        (|_, s| daemon(s).ports.ports[0].xdp = "generic".to_owned(), &["note xdp-mode"]),
        (
            |_, s| {
                absent(s);
                port(s).features = Ok(0);
            },
            &["note xdp-mode", "note daemon-absent"],
        ),
        (|_, s| port(s).spreading.as_mut().unwrap().queues = vec![0, 0], &["warning rss-table"]),
        (|_, s| port(s).spreading.as_mut().unwrap().symmetric = false, &[]),
        (
            |_, s| {
                let spreading = port(s).spreading.as_mut().unwrap();
                spreading.symmetric = false;
                spreading.key = (0..40).collect();
            },
            &["note rss-symmetry"],
        ),
        (|_, s| port(s).spreading.as_mut().unwrap().ports_hashed[1] = false, &["note rss-ports"]),
    ];
    cases.iter().for_each(|(change, expected)| expect(*change, expected));
}

#[test]
fn offloads_of_the_port_and_of_its_peer() {
    let bridge: Change = |w, s| {
        w.mode = Mode::Bridge(vec![(PortId(0), PortId(1))]);
        w.host_road = false;
        port(s).offloads = Ok(vec![offload("rx-vlan-filter", true)]);
    };
    let cases: &[(Change, &[&str])] = &[
        (
            |_, s| port(s).offloads = Ok(vec![offload("rx-vlan-hw-parse", true)]),
            &["warning rx-vlan fix"],
        ),
        (
            |_, s| {
                let fixed = Offload { changeable: false, ..offload("rx-vlan-hw-parse", true) };
                port(s).offloads = Ok(vec![fixed]);
            },
            &["warning rx-vlan"],
        ),
        (|_, s| port(s).offloads = Ok(vec![offload("rx-lro", true)]), &["warning lro fix"]),
        (|_, s| port(s).offloads = Ok(vec![offload("rx-gro-hw", true)]), &["warning gro-hw fix"]),
        (
            |_, s| port(s).offloads = Ok(vec![offload("rx-udp-gro-forwarding", true)]),
            &["note udp-gro"],
        ),
        (|_, s| port(s).offloads = Ok(vec![offload("rx-vlan-filter", true)]), &[]),
        (bridge, &["warning rx-vlan-filter fix"]),
        (|_, s| port(s).peer = Some(Ok(peer())), &[]),
        // The port's own flag says nothing on a veth.
        (
            |_, s| {
                port(s).peer = Some(Ok(peer()));
                port(s).offloads = Ok(vec![offload("rx-vlan-hw-parse", true)]);
            },
            &[],
        ),
        (
            |_, s| {
                let offloads = vec![offload("tx-checksum-ip-generic", true)];
                port(s).peer = Some(Ok(Peer { offloads, ..peer() }));
            },
            &["error peer-checksum fix"],
        ),
        (
            |_, s| {
                let offloads = vec![offload("tx-vlan-hw-insert", true)];
                port(s).peer = Some(Ok(Peer { offloads, ..peer() }));
            },
            &["warning peer-vlan fix"],
        ),
        (|_, s| port(s).peer = Some(Ok(Peer { mtu: 9000, ..peer() })), &["warning peer-mtu"]),
        (|_, s| port(s).peer = Some(Err(Unseen::Failed("gone".to_owned()))), &["note peer-unseen"]),
    ];
    cases.iter().for_each(|(change, expected)| expect(*change, expected));
}

#[test]
fn memory_clock_and_cores() {
    let cases: &[(Change, &[&str])] = &[
        (
            |_, s| {
                absent(s);
                s.memory.available = Ok(60 << 20);
            },
            &["error memory-conntrack", "warning memory-frames", "note daemon-absent"],
        ),
        (|w, _| w.conntrack_max = 1000, &["note conntrack-size"]),
        (|w, _| w.conntrack_max = 12 << 20, &["warning conntrack-size", "note transparent-pages"]),
        (|_, s| s.memory.huge_total = Ok(0), &["note huge-pages"]),
        (
            |w, s| {
                absent(s);
                w.conntrack_max = 1 << 20;
                s.memory.transparent = Ok("never".to_owned());
            },
            &["note transparent-pages", "note daemon-absent"],
        ),
        (|_, s| s.clock.source = Ok("hpet".to_owned()), &["warning clock-source"]),
        (|_, s| s.clock.wall = 3600, &["error clock-wall"]),
        (
            |_, s| s.clock.discipline = Ok(Discipline { synchronised: false, error_us: 0 }),
            &["note clock-sync"],
        ),
        (|_, s| s.cpu.cores = vec![0], &["warning cores"]),
        (|_, s| s.cpu.quota = Ok(Some(("system.slice".to_owned(), 150))), &["warning cpu-quota"]),
        (|_, s| s.cpu.quota = Ok(Some(("system.slice".to_owned(), 200))), &[]),
        (|_, s| s.cpu.governors[1].1 = "powersave".to_owned(), &["note governor"]),
        (|_, s| s.cpu.siblings = vec![(0, vec![0, 1]), (1, vec![0, 1])], &["note siblings"]),
        (|_, s| s.cpu.isolated = vec![2, 3], &["note isolation"]),
        (|_, s| s.cpu.isolated = vec![0, 1], &[]),
        (|_, s| s.cpu.irqbalance = true, &["note irqbalance"]),
        (
            |_, s| {
                let interrupt =
                    |number, core| Interrupt { port: "eth0".to_owned(), number, cores: vec![core] };
                s.cpu.interrupts = vec![interrupt(30, 0), interrupt(31, 0)];
            },
            &["note irq"],
        ),
        (
            |_, s| {
                let interrupt =
                    |number, core| Interrupt { port: "eth0".to_owned(), number, cores: vec![core] };
                s.cpu.interrupts = vec![interrupt(30, 0), interrupt(31, 1)];
            },
            &[],
        ),
    ];
    cases.iter().for_each(|(change, expected)| expect(*change, expected));
}

#[test]
fn the_system() {
    let cases: &[(Change, &[&str])] = &[
        (|_, s| s.system.forwarding4 = Ok(0), &["warning forwarding-v4 fix"]),
        (|_, s| s.system.forwarding6 = Ok(0), &["warning forwarding-v6 fix"]),
        (|_, s| s.system.forwarding6 = Ok(2), &[]),
        (
            |_, s| (s.system.forwarding6, s.system.learned_route) = (Ok(0), true),
            &["warning forwarding-v6"],
        ),
        (|w, _| w.closed = true, &["warning forwarding-v4 fix", "warning forwarding-v6 fix"]),
        (
            |w, s| {
                w.closed = true;
                s.system.others = vec!["docker0".to_owned()];
            },
            &["warning forwarding-v4", "warning forwarding-v6"],
        ),
        (
            |w, s| {
                w.mode = Mode::Host;
                (s.system.forwarding4, s.system.forwarding6) = (Ok(0), Ok(0));
            },
            &[],
        ),
        (|_, s| s.system.reverse_path[0].1 = 1, &["note reverse-path"]),
        (
            |_, s| {
                let name = "filter".to_owned();
                let table = NftTable { family: "ip", name, rules: 3, drops: true };
                s.system.rules.nftables = Ok(vec![table]);
            },
            &["warning kernel-rules", "note kernel-conntrack"],
        ),
        (
            |_, s| s.system.rules.legacy = Ok(vec![("ip", 2)]),
            &["warning kernel-rules", "note kernel-conntrack"],
        ),
        (|_, s| s.system.rules.tracked = Some(4), &["note kernel-conntrack"]),
        (
            |_, s| {
                let full = Place { writable: true, free: 0 };
                s.system.state = Some(("/var/lib".into(), Ok(full)));
            },
            &["error state-directory"],
        ),
        (
            |_, s| {
                let little = Place { writable: true, free: 1 << 20 };
                s.system.log = Some(("/var/log".into(), Ok(little)));
            },
            &["warning log-directory"],
        ),
    ];
    cases.iter().for_each(|(change, expected)| expect(*change, expected));
}

#[test]
fn the_daemon() {
    let cases: &[(Change, &[&str])] = &[
        (
            |_, s| s.daemon = daemon::Seen::Silent("permission denied".to_owned()),
            &["warning daemon-socket"],
        ),
        (|_, s| daemon(s).status.version.portcullis = "0.0.1".to_owned(), &["note daemon-version"]),
        (|_, s| daemon(s).ports.ports[0].name = "eth7".to_owned(), &["note daemon-ports"]),
        (|_, s| daemon(s).rules.chains[0].enforced = false, &["warning host-road"]),
        (|_, s| daemon(s).ports.host_road = "plain".to_owned(), &["note host-road"]),
        (|_, s| daemon(s).ports.notes = vec!["a note".to_owned()], &["note daemon-note"]),
        (
            |_, s| {
                let counters = &mut daemon(s).ports.ports[0].queues[1].counters;
                counters.insert("rx_ring_full".to_owned(), 5);
            },
            &["warning losses"],
        ),
        (
            |_, s| {
                daemon(s).stats.drops.insert("tx_ring_full".to_owned(), 5);
            },
            &["warning losses"],
        ),
        (|_, s| daemon(s).stats.log_lost = 1, &["warning log-lost"]),
        (|_, s| daemon(s).status.log.error = Some("no space".to_owned()), &["error log-lost"]),
        (
            |_, s| {
                let state = daemon(s).status.state.as_mut().unwrap();
                state.error = Some("no space".to_owned());
            },
            &["error state-save"],
        ),
        (|_, s| daemon(s).stats.conntrack.entries = 262_144, &["warning conntrack-full"]),
        (|_, s| daemon(s).stats.conntrack.quota_refused = 4, &["note conntrack-full"]),
        (|_, s| daemon(s).stats.workers[1].generation = 2, &["error worker-stuck"]),
        (
            |_, s| {
                let stage = "deciding".to_owned();
                let stuck = StuckInfo { worker: 1, core: None, still_ms: 3000, stage };
                daemon(s).status.failure.stuck = vec![stuck];
            },
            &["error worker-stuck"],
        ),
        (
            |_, s| {
                let port = &mut daemon(s).ports.ports[0];
                port.out_of_service = Some("its device is gone".to_owned());
                (port.xdp, port.queues) = ("none".to_owned(), Vec::new());
            },
            &["error out-of-service"],
        ),
        (
            |_, s| {
                daemon(s).rules.chains[0].rules.clear();
                daemon(s).rules.chains[0].policy = Some("ACCEPT".to_owned());
            },
            &["note policy-open"],
        ),
    ];
    cases.iter().for_each(|(change, expected)| expect(*change, expected));
}

#[test]
fn files_and_configuration() {
    let cases: &[(Change, &[&str])] = &[
        (
            |_, s| (s.config.files[0].errors, s.config.files[0].first) = (1, Some(String::new())),
            &["error rules"],
        ),
        (|_, s| s.config.files[0].warnings = 1, &["note rules"]),
        (|_, s| s.config.mode = Some(String::new()), &["error mode"]),
        (|_, s| s.config.user = Some(String::new()), &["error user"]),
        (|_, s| s.config.network = Some(Err(String::new())), &["error network"]),
        (|_, s| s.config.network = Some(Ok(vec![String::new()])), &["note network"]),
        (|w, _| w.management = false, &["note management"]),
        (
            |_, s| {
                let pin = PinInfo { port: "eth0".to_owned(), pinned: false, adopted: false };
                daemon(s).status.failure.on_failure = "closed".to_owned();
                daemon(s).status.failure.ports = vec![pin];
            },
            &["error pins"],
        ),
        (
            |_, s| {
                daemon(s).stats.xdp.insert("silent".to_owned(), 1);
            },
            &["warning losses"],
        ),
    ];
    cases.iter().for_each(|(change, expected)| expect(*change, expected));
}

#[test]
fn without_ports_and_daemon_it_says_that_it_did_not_look() {
    expect(
        |w, s| {
            absent(s);
            w.ports.clear();
            s.ports.clear();
        },
        &["note not-seen", "note daemon-absent"],
    );
}

#[test]
fn commands_are_quoted_where_a_shell_needs_it() {
    let command = Command::new("ip link set").arg("we ird'$(x)").arg("up");
    assert_eq!(command.to_string(), r"ip link set 'we ird'\''$(x)' up");
    let peer = Command::new("ethtool -K a0 tx off").behind(&["nsenter".to_owned()]);
    assert_eq!(peer.to_string(), "nsenter ethtool -K a0 tx off");
}

#[test]
fn each_safe_command_is_run_once() {
    let one = || Finding::warning(Code::Lro, "a", "x").fix(Command::new("ethtool -K a lro off"));
    let other = Finding::warning(Code::Mtu, "a", "x").mend(Command::new("ip link set a mtu 9"));
    assert_eq!(fix::plan(&[one(), other, one()]), [Command::new("ethtool -K a lro off")]);
    assert_eq!(fix::run(&Command::new("true")), fix::Outcome::Done);
    let failed = fix::run(&Command::new("sh -c").arg("echo no >&2; exit 1"));
    assert_eq!(failed, fix::Outcome::Failed("no".to_owned()));
    assert!(matches!(fix::run(&Command::new("/no/such/tool")), fix::Outcome::Failed(_)));
}

#[test]
fn texts_of_the_kernel_are_read() {
    assert_eq!(cpu::list("0-2,5\n"), [0, 1, 2, 5]);
    assert!(cpu::list("").is_empty());
    assert_eq!(cpu::hundredths("150000 100000"), Some(150));
    assert_eq!(cpu::hundredths("max 100000"), None);
    assert_eq!(memory::chosen("always [madvise] never\n"), "madvise");
    let text = "MemTotal:       1024 kB\nMemAvailable:    512 kB\n";
    assert_eq!(memory::field(text, "MemAvailable:"), Some(512 << 10));
    let saved = "*filter\n:INPUT DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n";
    assert_eq!(rules::active_lines(saved), 2);
}

#[test]
fn the_table_in_the_handbook_is_the_table_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");
    let handbook = std::fs::read_to_string(path).unwrap();
    assert!(handbook.contains(&table()), "docs/operations.md should hold:\n{}", table());
    let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Code::ALL.len(), "a name is given twice");
}

#[test]
fn a_finding_is_an_object_with_its_remedy() {
    let finding =
        Finding::error(Code::PeerChecksum, "g0", "found").fix(Command::new("ethtool -K a0 tx off"));
    let value = serde_json::to_value(&finding).unwrap();
    assert_eq!(value["severity"], "error");
    assert_eq!(value["code"], "peer-checksum");
    assert_eq!(value["group"], "port");
    assert_eq!(value["command"], "ethtool -K a0 tx off");
    assert_eq!(value["fixable"], true);
    assert_eq!(value["advice"], serde_json::Value::Null);
}

#[test]
fn who_may_write_in_a_directory() {
    use system::is_writable;
    assert!(is_writable(5, 5, 0o700, 5, &[]));
    assert!(!is_writable(5, 5, 0o500, 5, &[5]), "the owner's bits hold for the owner");
    assert!(is_writable(0, 9, 0o770, 5, &[9]));
    assert!(!is_writable(0, 9, 0o750, 5, &[9]));
    assert!(!is_writable(0, 0, 0o755, 5, &[9]));
    assert!(is_writable(0, 0, 0o1777, 5, &[]));
}
