//! A client, a gateway that runs the daemon, and servers behind it; and streams of
//! datagrams whose every arrival is timed.

#![allow(dead_code, reason = "each test uses its part")]

use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use serde_json::Value;

use crate::netns::{Directory, Namespace, Process, join, shell};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// Everything is forwarded, and tracked.
pub(crate) const OPEN: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -j ACCEPT
COMMIT
";

/// The tests share two cores: one at a time keeps their timing sane.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the head of this file. The client is 198.18.1.2 on a0, the gateway has g0, g1
/// and more, the servers are 198.18.2.2 on b0 and so on.
pub(crate) struct Lab {
    pub(crate) client: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) server: Namespace,
    pub(crate) directory: Directory,
    pub(crate) ports: Vec<&'static str>,
    log: PathBuf,
    socket: PathBuf,
    daemon: Option<Process>,
}

impl Lab {
    pub(crate) fn new(queues: u32) -> Self {
        let (client, gateway, server) =
            (Namespace::new("a"), Namespace::new("gw"), Namespace::new("b"));
        join((&client, "a0"), (&gateway, "g0"), queues);
        client.run("ip addr add 198.18.1.2/24 dev a0; ip route add default via 198.18.1.1");
        gateway.run("ip addr add 198.18.1.1/24 dev g0; sysctl -qw net.ipv4.ip_forward=1");
        let serial = gateway.name().replace("pcd-", "");
        let directory = Directory::new(&format!("life-{serial}"));
        let (log, socket) = (directory.join("log"), directory.join("control.sock"));
        let ports = vec!["g0", "g1"];
        let lab = Self { client, gateway, server, directory, ports, log, socket, daemon: None };
        lab.wire(queues);
        lab
    }

    /// Makes g1, its peer b0, and their addresses.
    pub(crate) fn wire(&self, queues: u32) {
        join((&self.server, "b0"), (&self.gateway, "g1"), queues);
        self.server.run("ip addr add 198.18.2.2/24 dev b0; ip route add default via 198.18.2.1");
        self.gateway.run("ip addr add 198.18.2.1/24 dev g1");
    }

    /// Puts the log and the control socket elsewhere.
    pub(crate) fn places(&mut self, log: &Path, socket: &Path) {
        (self.log, self.socket) = (log.to_owned(), socket.to_owned());
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts the daemon on g0 and g1 and waits until it is ready.
    pub(crate) fn start(&mut self, rules: &str, arguments: &[&str]) {
        let rules = self.file("rules.v4", rules);
        let errors = std::fs::File::create(self.directory.join("stderr")).unwrap();
        let mut command = self.gateway.command(BINARY);
        command.args(["run", "--on-failure", "open", "--conntrack-max", "4096"]);
        self.ports.iter().for_each(|port| _ = command.args(["--port", port]));
        command.arg("--rules").arg(rules).arg("--log").arg(&self.log);
        command.arg("--socket").arg(&self.socket).args(arguments);
        let (daemon, line) = Process::speaking(command.stderr(errors));
        self.daemon = Some(daemon);
        assert!(line.starts_with("ready: "), "{line}{}", self.errors());
    }

    /// What the daemon wrote to standard error.
    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(self.directory.join("stderr")).unwrap_or_default()
    }

    pub(crate) fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY).args(arguments).arg("--socket").arg(&self.socket).output().unwrap()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let output = self.cli(&all);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.errors());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What `show ports` says of one port.
    pub(crate) fn port(&self, index: usize) -> Value {
        self.json(&["show", "ports"])["ports"][index].clone()
    }

    /// Why a port is out of service, if it is.
    pub(crate) fn out(&self, index: usize) -> Option<String> {
        self.port(index)["out_of_service"].as_str().map(str::to_owned)
    }

    /// Waits (bounded) until something is true; returns how long that took.
    pub(crate) fn until(&self, what: &str, mut done: impl FnMut() -> bool) -> Nanos {
        let start = monotonic();
        while !done() {
            let waited = monotonic().saturating_sub(start);
            assert!(
                waited < Nanos::from_secs(10),
                "never: {what}\n{}\n{}",
                self.errors(),
                self.json(&["show", "ports"])
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        monotonic().saturating_sub(start)
    }

    /// Waits until a port is in service, or out of it.
    pub(crate) fn until_in_service(&self, index: usize, wanted: bool) -> Nanos {
        let what = format!("port {index} in service: {wanted}");
        self.until(&what, || self.out(index).is_none() == wanted)
    }

    pub(crate) fn pings(&self) -> bool {
        self.client.attempt("ping -c 1 -W 1 198.18.2.2").status.success()
    }

    /// The daemon's process, behind `ip netns exec`, which replaces itself.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("it was started").id()
    }

    pub(crate) fn signal(&self, name: &str) {
        shell(&format!("kill -{name} {}", self.pid()));
    }

    /// Descriptors that the daemon has open.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Resident memory of the daemon in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Frames of worker 0: free, lent and held, once they have come to rest.
    pub(crate) fn frames(&self) -> (u64, u64, u64) {
        let look = || {
            let worker = &self.json(&["show", "stats"])["workers"][0];
            let of = |name: &str| worker[name].as_u64().unwrap();
            (of("frames_free"), of("frames_lent"), of("frames_held"))
        };
        let mut last = look();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(150));
            let now = look();
            if now == last {
                break;
            }
            last = now;
        }
        last
    }

    /// A stream of datagrams from the client to port 9 of `to`, heard in `server`.
    pub(crate) fn stream(&self, server: &Namespace, to: &str) -> Stream {
        Stream::begin(&self.client, &[server], &format!("{to}:9"))
    }
}

/// A datagram each millisecond, and when each arrived, and where.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

/// One datagram that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) at: Nanos,
    /// The listener that heard it.
    pub(crate) place: usize,
}

/// How often a datagram is sent.
const EVERY: Duration = Duration::from_millis(1);

impl Stream {
    pub(crate) fn begin(client: &Namespace, places: &[&Namespace], to: &str) -> Self {
        let to: SocketAddr = to.parse().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (sent, arrivals) = (Arc::new(AtomicU64::new(0)), Arc::<Mutex<Vec<_>>>::default());
        let mut threads = Vec::new();
        for (place, namespace) in places.iter().enumerate() {
            let any = SocketAddr::new([0, 0, 0, 0].into(), to.port());
            let socket = namespace.enter(|| UdpSocket::bind(any)).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            let (stop, arrivals) = (Arc::clone(&stop), Arc::clone(&arrivals));
            threads.push(std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while !stop.load(Ordering::Relaxed) {
                    if socket.recv(&mut buffer).is_ok() {
                        let arrival = Arrival { at: monotonic(), place };
                        arrivals.lock().unwrap().push(arrival);
                    }
                }
            }));
        }
        let socket = client.enter(|| UdpSocket::bind("0.0.0.0:4000")).unwrap();
        let (ended, count) = (Arc::clone(&stop), Arc::clone(&sent));
        threads.push(std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                // Refusals are part of what is tested.
                let _ = socket.send_to(&[7; 32], to);
                count.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(EVERY);
            }
        }));
        Self { stop, sent, threads, arrivals }
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn arrived(&self) -> usize {
        self.arrivals.lock().unwrap().len()
    }

    /// What arrived since a moment.
    pub(crate) fn since(&self, moment: Nanos) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().iter().filter(|it| it.at > moment).copied().collect()
    }

    /// The first arrival after `since`, at any place or at that one; waits for it.
    pub(crate) fn next(&self, since: Nanos, place: Option<usize>) -> Option<Nanos> {
        let start = monotonic();
        while monotonic().saturating_sub(start) < Nanos::from_secs(8) {
            let found = self.since(since);
            let wanted = |it: &&Arrival| place.is_none_or(|place| place == it.place);
            if let Some(first) = found.iter().find(wanted) {
                return Some(first.at);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    /// The longest pause between two arrivals since a moment.
    pub(crate) fn longest_pause(&self, since: Nanos) -> Nanos {
        let arrivals = self.arrivals.lock().unwrap();
        let times: Vec<_> = arrivals.iter().map(|it| it.at).filter(|at| *at >= since).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Milliseconds, for people.
pub(crate) fn millis(time: Nanos) -> f64 {
    time.0 as f64 / 1e6
}

/// The middle and the largest of some times, in milliseconds.
pub(crate) fn spread(times: &mut [Nanos]) -> (f64, f64) {
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    (millis(middle), millis(times.last().copied().unwrap_or_default()))
}
