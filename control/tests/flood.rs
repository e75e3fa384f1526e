//! A SYN flood from a million random sources against a gateway with thousands of
//! established connections, through the daemon on AF_XDP. Needs root.
//!
//! `PORTCULLIS_FLOOD_SYNS` sets the number of SYNs (default 1,000,000) and
//! `PORTCULLIS_FLOOD_FLOWS` that of established connections (default 10,000).

mod netns;
#[path = "lab/sys.rs"]
#[allow(dead_code, unreachable_pub, reason = "the lab uses the rest")]
mod sys;

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use netns::{Directory, Namespace, Process, join};
use serde_json::Value;
use sys::PacketSocket;

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");
/// Room in the connection table: more than the flows, far less than the flood.
const TABLE: &str = "32768";

const RULES: &str = "*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -p tcp -m tcp --dport 7 -j ACCEPT
-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT
COMMIT
";

const PROXIED: &str = "*raw
-A PREROUTING -p tcp -m tcp --dport 80 --tcp-flags FIN,SYN,RST,ACK SYN -j CT --notrack
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -p tcp -m tcp --dport 80 -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --sack-perm --timestamp --wscale 7 --mss 1460
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -p tcp -m tcp --dport 7 -j ACCEPT
COMMIT
";

/// Echoes on port 7.
const ECHO: &str = "
import resource, selectors, socket
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
wait = selectors.DefaultSelector()
listener = socket.create_server(('0.0.0.0', 7), backlog=4096)
listener.setblocking(False)
wait.register(listener, selectors.EVENT_READ)
print('listening', flush=True)
while True:
    for key, _ in wait.select():
        if key.fileobj is listener:
            try:
                while True:
                    peer, _ = listener.accept()
                    peer.setblocking(False)
                    wait.register(peer, selectors.EVENT_READ)
            except BlockingIOError:
                pass
        else:
            data = key.fileobj.recv(4096)
            if data:
                key.fileobj.send(data)
            else:
                wait.unregister(key.fileobj)
";

/// Holds connections; for each line of input sends a word on every one and waits
/// for all answers, then prints how many came and the slowest.
const HOLDER: &str = "
import resource, selectors, socket, sys, time, json
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
count, wait, flows = int(sys.argv[1]), selectors.DefaultSelector(), []
for _ in range(count):
    flow = socket.create_connection(('198.18.2.2', 7), timeout=10)
    flow.setblocking(False)
    wait.register(flow, selectors.EVENT_READ)
    flows.append(flow)
print(json.dumps({'open': len(flows)}), flush=True)
for line in sys.stdin:
    start, sent, took = time.monotonic(), {}, []
    for flow in flows:
        sent[flow] = time.monotonic()
        flow.send(b'word')
        for key, _ in wait.select(0):
            key.fileobj.recv(4096)
            took.append(time.monotonic() - sent.pop(key.fileobj))
    while sent and time.monotonic() - start < 30:
        for key, _ in wait.select(1):
            key.fileobj.recv(4096)
            took.append(time.monotonic() - sent.pop(key.fileobj))
    took.sort()
    print(json.dumps({'answered': len(took), 'seconds': time.monotonic() - start,
        'median_ms': took[len(took) // 2] * 1e3, 'p99_ms': took[len(took) * 99 // 100] * 1e3,
        'slowest_ms': took[-1] * 1e3}), flush=True)
";

struct Script {
    _process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Script {
    fn start(host: &Namespace, path: &std::path::Path, argument: &str) -> Self {
        let mut command = host.command("/usr/bin/python3");
        command.arg("-u").arg(path).arg(argument);
        let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { _process: process, input, output }
    }
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }
    fn round(&mut self) -> Value {
        self.input.write_all(b"go\n").unwrap();
        serde_json::from_str(&self.line()).unwrap()
    }
}

/// Client, attacker and server around a gateway.
struct Lab {
    client: Namespace,
    attacker: Namespace,
    gateway: Namespace,
    server: Namespace,
    directory: Directory,
    daemon: Option<Process>,
}

impl Lab {
    fn new() -> Self {
        let [client, attacker, gateway, server] = ["a", "x", "gw", "b"].map(Namespace::new);
        join((&client, "a0"), (&gateway, "g0"), 1);
        join((&server, "b0"), (&gateway, "g1"), 1);
        join((&attacker, "x0"), (&gateway, "g2"), 1);
        for (host, device, port, net) in
            [(&client, "a0", "g0", 1), (&server, "b0", "g1", 2), (&attacker, "x0", "g2", 3)]
        {
            host.run(&format!("ip addr add 198.18.{net}.2/24 dev {device}"));
            host.run(&format!("ip route add default via 198.18.{net}.1"));
            gateway.run(&format!("ip addr add 198.18.{net}.1/24 dev {port}"));
        }
        gateway.run("ip route add 10.0.0.0/8 via 198.18.3.2");
        // The victim says nothing to the flood; what it would say is not our subject.
        server.run("iptables-legacy -A INPUT -s 10.0.0.0/8 -j DROP");
        let directory = Directory::new(gateway.name());
        Self { client, attacker, gateway, server, directory, daemon: None }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn start(&mut self, rules: &str, more: &[&str]) {
        let rules = self.file("rules.v4", rules);
        let mut command = self.gateway.command(BINARY);
        command.args([
            "run",
            "--on-failure",
            "open",
            "--port",
            "g0",
            "--port",
            "g1",
            "--port",
            "g2",
        ]);
        command.args(["--conntrack-max", TABLE]).args(more).arg("--rules").arg(rules);
        command.arg("--socket").arg(self.directory.join("sock"));
        command.arg("--log").arg(self.directory.join("log"));
        let (process, line) = Process::speaking(command.stderr(Stdio::null()));
        self.daemon = Some(process);
        assert!(line.starts_with("ready: "), "{line}");
    }

    fn show(&self, what: &[&str]) -> Value {
        let socket = self.directory.join("sock");
        let output =
            Command::new(BINARY).arg("--json").args(what).arg("--socket").arg(socket).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// SYNs to port 80 of the server from random sources as fast as they go;
    /// returns how many and in what time.
    fn flood(&self, count: u64, stop: &AtomicBool) -> (u64, Nanos) {
        let mac: String = self.gateway.run("cat /sys/class/net/g2/address");
        let mac: Vec<u8> =
            mac.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        self.attacker.enter(|| {
            let socket = PacketSocket::open("x0").unwrap();
            let mut state = 0x1234_5678_9abc_def1_u64;
            let start = monotonic();
            let mut sent = 0;
            while sent < count && !stop.load(Ordering::Relaxed) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let frame = syn(&mac, state);
                // A full queue is the generator's limit, not a failure.
                sent += u64::from(socket.send(&frame).is_ok());
            }
            (sent, monotonic() - start)
        })
    }
}

/// A SYN from a source in 10.0.0.0/8 that `random` chooses.
fn syn(to: &[u8], random: u64) -> [u8; 54] {
    let mut frame = [0_u8; 54];
    frame[..6].copy_from_slice(to);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&[8, 0]);
    let ip = &mut frame[14..34];
    ip[..12].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0]);
    ip[12..16].copy_from_slice(&(0x0a00_0000 | random as u32 & 0x00ff_ffff).to_be_bytes());
    ip[16..20].copy_from_slice(&[198, 18, 2, 2]);
    let sum = fold(&frame[14..34], 0);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    let sport = (1024 + (random >> 32 & 0x7fff)) as u16;
    frame[34..36].copy_from_slice(&sport.to_be_bytes());
    frame[36..38].copy_from_slice(&80_u16.to_be_bytes());
    frame[38..42].copy_from_slice(&((random >> 16) as u32).to_be_bytes());
    frame[46..50].copy_from_slice(&[0x50, 0x02, 0x72, 0x10]);
    // The pseudo-header's protocol and length beside its addresses.
    let sum = fold(&frame[26..54], 6 + 20);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
    frame
}

fn fold(bytes: &[u8], seed: u32) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = words.sum::<u32>() + seed;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn established_connections_outlive_a_flood() {
    let syns = from_environment("PORTCULLIS_FLOOD_SYNS", 1_000_000);
    let flows = from_environment("PORTCULLIS_FLOOD_FLOWS", 10_000);
    let mut lab = Lab::new();
    lab.start(RULES, &[]);
    let mut echo = Script::start(&lab.server, &lab.file("echo.py", ECHO), "");
    assert_eq!(echo.line(), "listening\n");
    let holder = lab.file("holder.py", HOLDER);
    let mut flows_held = Script::start(&lab.client, &holder, &flows.to_string());
    let opened: Value = serde_json::from_str(&flows_held.line()).unwrap();
    assert_eq!(opened["open"], flows);
    let calm = flows_held.round();
    assert_eq!(calm["answered"], flows, "{calm}");
    let stop = AtomicBool::new(false);
    let (flooded, during) = std::thread::scope(|scope| {
        let flood = scope.spawn(|| lab.flood(syns, &stop));
        let mut during = Vec::new();
        while !flood.is_finished() && during.len() < 20 {
            during.push(flows_held.round());
        }
        (flood.join().unwrap(), during)
    });
    let after = flows_held.round();
    let rate = flooded.0 as f64 * 1e9 / flooded.1.0 as f64;
    println!("calm {calm}\n{} SYNs at {rate:.0} a second", flooded.0);
    during.iter().for_each(|round| println!("flooded {round}"));
    println!("after {after}");
    for round in during.iter().chain([&after]) {
        assert_eq!(round["answered"], flows, "a connection was lost");
    }
    let stats = lab.show(&["show", "stats"]);
    println!("{}\n{}", stats["conntrack"], stats["drops"]);
    let early = stats["conntrack"]["counters"]["early_drop"].as_u64().unwrap_or(0);
    let refused = stats["drops"]["conntrack_full"].as_u64().unwrap_or(0);
    assert!(early + refused > 0, "the flood did not fill the table: {stats}");
}

#[test]
fn a_client_connects_through_synproxy_in_a_flood() {
    let syns = from_environment("PORTCULLIS_FLOOD_SYNS", 1_000_000);
    let mut lab = Lab::new();
    lab.start(PROXIED, &["--sysctl", "tcp_loose=0"]);
    let page = lab.directory.join("page");
    std::fs::write(&page, "a".repeat(200_000)).unwrap();
    let mut server = lab.server.command("/usr/bin/python3");
    server.args(["-m", "http.server", "80", "--directory"]).arg(&*lab.directory);
    let mut server = server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let listens = || !lab.server.attempt("ss -Hltn sport = :80").stdout.is_empty();
    let patience = 1500;
    let waited = (0..patience).take_while(|_| !listens()).inspect(|_| {
        std::thread::sleep(Duration::from_millis(20));
    });
    assert!(waited.count() < patience, "the server does not listen");
    let stop = AtomicBool::new(false);
    let fetch = "curl -sS --max-time 20 -o /dev/null -w '%{size_download} %{time_connect}' \
                 http://198.18.2.2/page";
    let fetched = std::thread::scope(|scope| {
        let flood = scope.spawn(|| lab.flood(syns, &stop));
        let fetched: Vec<_> = (0..5).map(|_| lab.client.attempt(fetch)).collect();
        stop.store(true, Ordering::Relaxed);
        println!("{:?}", flood.join().unwrap());
        fetched
    });
    let _ = server.kill();
    let _ = server.wait();
    for output in fetched {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{said}");
        assert!(said.starts_with("200000 "), "{output:?}");
    }
    let stats = lab.show(&["show", "stats"]);
    let insert = stats["conntrack"]["counters"]["insert"].as_u64().unwrap();
    assert!(insert < 1000, "the flood made {insert} connections: {stats}");
}
