//! Hot swaps under two-way traffic, through the real binary on AF_XDP. Needs root.
//!
//! Four kinds of datagram cross in each direction as fast as a window allows:
//! one that only policy A accepts, one that only policy B accepts, one that both
//! accept and one that neither does. While they cross, A and B are exchanged
//! over the control socket. No datagram that neither policy accepts may arrive,
//! none that both accept may be lost, and the daemon's memory must stay flat.
//!
//! `PORTCULLIS_SWAPS` sets the number of swaps (default 40); `scripts/swaps`
//! makes it 1,000.

use std::fmt::Write;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use portcullis::api::client::Client;
use portcullis::api::protocol::{Apply, Request, Response, Source};

mod netns;
use netns::{Directory, Namespace, Process, join};

/// Destination ports of the four kinds.
const ONLY_A: u16 = 1001;
const ONLY_B: u16 = 1002;
const BOTH: u16 = 1003;
const NEITHER: u16 = 1004;
const KINDS: [u16; 4] = [ONLY_A, ONLY_B, BOTH, NEITHER];

/// Rules that never match, so that a swap builds and frees something.
const FILLER: u32 = 500;

/// Datagrams accepted by both policies that may be on their way at once: with
/// the other kinds, half of what the shortest ring on the way holds (a veth's: 256),
/// so nothing else can lose them.
const WINDOW: u64 = 32;

fn policy(own: u16) -> String {
    let mut text = String::from("*filter\n:FORWARD DROP [0:0]\n:services - [0:0]\n");
    for index in 0..FILLER {
        let (high, low) = (index / 200, index % 200);
        writeln!(text, "-A FORWARD -s 203.0.{high}.{low}/32 -p udp -m udp --dport {own} -j DROP")
            .unwrap();
    }
    text.push_str("-A FORWARD -p udp -j services\n");
    for port in [own, BOTH] {
        writeln!(text, "-A services -p udp -m udp --dport {port} -j ACCEPT").unwrap();
    }
    text.push_str("COMMIT\n");
    text
}

/// What one direction saw.
#[derive(Debug, Default)]
struct Seen {
    sent: u64,
    /// By kind, in the order of [`KINDS`].
    arrived: [u64; 4],
}

/// One direction: a sender in one namespace, four receivers in the other.
struct Direction {
    sender: UdpSocket,
    receivers: Vec<UdpSocket>,
    to: Vec<SocketAddr>,
}

impl Direction {
    fn new(from: &Namespace, to: &Namespace, address: &str) -> Self {
        let sender = from.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        let to_addresses: Vec<SocketAddr> =
            KINDS.iter().map(|port| format!("{address}:{port}").parse().unwrap()).collect();
        let receivers = to.enter(|| {
            let bind = |address: &SocketAddr| {
                let socket = UdpSocket::bind(address).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket
            };
            to_addresses.iter().map(bind).collect()
        });
        Self { sender, receivers, to: to_addresses }
    }

    /// Sends quartets and collects what arrives until told to stop.
    fn run(&self, stop: &AtomicBool) -> Seen {
        let mut seen = Seen::default();
        let mut progress = monotonic();
        while !stop.load(Ordering::Relaxed) || seen.arrived[2] < seen.sent {
            let room = seen.sent - seen.arrived[2] < WINDOW && !stop.load(Ordering::Relaxed);
            if room {
                for address in &self.to {
                    // A REJECT-free policy sends no errors back; the send cannot fail for long.
                    self.sender.send_to(&seen.sent.to_le_bytes(), address).unwrap();
                }
                seen.sent += 1;
            }
            if self.collect(&mut seen) {
                progress = monotonic();
            } else if !room {
                let waited = monotonic().saturating_sub(progress);
                assert!(waited < Nanos::from_secs(5), "datagrams were lost: {seen:?}");
                std::thread::yield_now();
            }
        }
        // Whatever neither policy accepts has had its chance by now.
        std::thread::sleep(Duration::from_millis(200));
        self.collect(&mut seen);
        seen
    }

    fn collect(&self, seen: &mut Seen) -> bool {
        let mut any = false;
        let mut datagram = [0; 16];
        for (receiver, arrived) in self.receivers.iter().zip(&mut seen.arrived) {
            loop {
                match receiver.recv(&mut datagram) {
                    Ok(_) => *arrived += 1,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("receive: {error}"),
                }
                any = true;
            }
        }
        any
    }
}

struct Stage {
    client: Namespace,
    gateway: Namespace,
    server: Namespace,
    directory: Directory,
}

impl Stage {
    fn new() -> Self {
        let (client, gateway, server) =
            (Namespace::new("a"), Namespace::new("gw"), Namespace::new("b"));
        join((&client, "a0"), (&gateway, "g0"), 1);
        join((&server, "b0"), (&gateway, "g1"), 1);
        for (side, device, port, net) in [(&client, "a0", "g0", 1), (&server, "b0", "g1", 2)] {
            side.run(&format!("ip addr add 198.18.{net}.2/24 dev {device}"));
            side.run(&format!("ip route add default via 198.18.{net}.1"));
            gateway.run(&format!("ip addr add 198.18.{net}.1/24 dev {port}"));
            side.run(&format!("ping -c 1 -W 2 -q 198.18.{net}.1"));
        }
        let directory = Directory::new(&format!("swaps-{}", gateway.name()));
        Self { client, gateway, server, directory }
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    fn start(&self, rules: &str) -> Process {
        let file = self.directory.join("rules.v4");
        std::fs::write(&file, rules).unwrap();
        let mut command = self.gateway.command(env!("CARGO_BIN_EXE_portcullis"));
        command.args(["run", "--on-failure", "open", "--port", "g0", "--port", "g1"]);
        command.arg("--rules").arg(file).arg("--socket").arg(self.socket());
        command.arg("--log").arg(self.directory.join("log"));
        let (process, line) = Process::speaking(&mut command);
        assert!(line.starts_with("ready: "), "{line}");
        process
    }
}

/// Resident memory in KiB.
fn resident_kib(daemon: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Applies `text`; returns how long until every worker had adopted it.
fn apply(socket: &Path, text: &str) -> Nanos {
    let start = monotonic();
    let source = Source { name: "swap.v4".into(), text: text.into() };
    let apply = Apply { rules: Some(source), ..Apply::default() };
    let response = Client::connect(socket).unwrap().call(Request::Apply(apply)).unwrap();
    assert!(matches!(response, Response::Applied(_)), "{response:?}");
    monotonic().saturating_sub(start)
}

#[test]
fn swaps_lose_nothing_and_invent_no_verdict() {
    let swaps: usize =
        std::env::var("PORTCULLIS_SWAPS").map_or(40, |text| text.parse().expect("a number"));
    let (a, b) = (policy(ONLY_A), policy(ONLY_B));
    let stage = Stage::new();
    let daemon = stage.start(&a);
    let there = Direction::new(&stage.client, &stage.server, "198.18.2.2");
    let back = Direction::new(&stage.server, &stage.client, "198.18.1.2");
    let stop = AtomicBool::new(false);
    let start = monotonic();
    let (seen, memory, mut times) = std::thread::scope(|scope| {
        let directions = [&there, &back].map(|direction| scope.spawn(|| direction.run(&stop)));
        let mut memory = (0, 0);
        let mut times = Vec::new();
        for swap in 0..swaps {
            times.push(apply(&stage.socket(), if swap % 2 == 0 { &b } else { &a }));
            match swap * 10 / swaps {
                0 => memory.0 = memory.0.max(resident_kib(&daemon)),
                _ => memory.1 = memory.1.max(resident_kib(&daemon)),
            }
        }
        stop.store(true, Ordering::Relaxed);
        (directions.map(|direction| direction.join().unwrap()), memory, times)
    });
    let seconds = monotonic().saturating_sub(start).0 as f64 / 1e9;
    times.sort();
    let sent: u64 = seen.iter().map(|seen| seen.sent * 4).sum();
    println!(
        "{swaps} swaps of {} rules in {seconds:.1} s, median {:.1} ms, longest {:.1} ms; \
         {sent} datagrams offered ({:.0} a second); memory {} -> {} KiB; {seen:?}",
        FILLER + 3,
        times[times.len() / 2].0 as f64 / 1e6,
        times[times.len() - 1].0 as f64 / 1e6,
        sent as f64 / seconds,
        memory.0,
        memory.1,
    );
    for seen in &seen {
        let [only_a, only_b, both, neither] = seen.arrived;
        assert_eq!(neither, 0, "a verdict that neither policy gives");
        assert_eq!(both, seen.sent, "lost to a swap");
        assert!(only_a > 0 && only_a < seen.sent, "policy A was not in force for a part of it");
        assert!(only_b > 0 && only_b < seen.sent, "policy B was not in force for a part of it");
    }
    assert!(memory.1 < memory.0 + 4096, "memory grew: {memory:?} KiB");
    let arrived: u64 = seen.iter().flat_map(|seen| seen.arrived).sum();
    let stats = match Client::connect(&stage.socket()).unwrap().call(Request::ShowStats {}) {
        Ok(Response::Stats(stats)) => stats,
        other => panic!("{other:?}"),
    };
    let denied =
        stats.drops.get("rule").unwrap_or(&0) + stats.drops.get("chain_policy").unwrap_or(&0);
    assert_eq!(denied, sent - arrived, "every datagram that did not arrive was denied by a rule");
    assert_eq!((stats.generation, stats.retired), (swaps as u64 + 1, 0), "old policies linger");
}
