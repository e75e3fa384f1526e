//! The real binary on AF_XDP between network namespaces. Needs root.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use serde_json::Value;

mod netns;
use netns::{Directory, Namespace, Process, Row};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// Accepts pings and TCP port 7 from the client side, and what belongs to them.
const OPEN: &str = "*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -p icmp -m icmp --icmp-type 8 -j LOG --log-prefix \"ping: \"
-A FORWARD -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A FORWARD -i g0 -o g1 -p tcp -m tcp --dport 7 -j ACCEPT
-A FORWARD -i g0 -o g1 -p udp -m udp --dport 7 -j ACCEPT
COMMIT
";

/// The same for IPv6.
const OPEN6: &str = "*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -p ipv6-icmp -m icmp6 --icmpv6-type 128 -j ACCEPT
-A FORWARD -i g0 -o g1 -p tcp -m tcp --dport 7 -j ACCEPT
-A FORWARD -i g0 -o g1 -p udp -m udp --dport 7 -j ACCEPT
COMMIT
";

/// Only what belongs to known connections.
const CLOSED: &str = "*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

const V4: &str = "198.18.2.2";
const V6: &str = "2001:db8:2::2";

/// Client, gateway and server, a directory for files, and the daemon.
struct Lab {
    client: Namespace,
    gateway: Namespace,
    server: Namespace,
    directory: Directory,
    daemon: Option<Process>,
}

impl Lab {
    fn of(row: Row) -> Self {
        let Row { client, gateway, server, directory } = row;
        Self { client, gateway, server, directory, daemon: None }
    }

    /// Both sides in one namespace each; addresses are the caller's business.
    fn bare(queues: u32) -> Self {
        Self::of(Row::bare("daemon", queues))
    }

    /// A gateway with addresses on both sides.
    fn routed() -> Self {
        Self::of(Row::routed_twice("daemon"))
    }

    /// A transparent pair: both sides in one subnet.
    fn bridged() -> Self {
        let lab = Self::bare(1);
        lab.client.run("ip addr add 198.18.2.1/24 dev a0");
        lab.server.run("ip addr add 198.18.2.2/24 dev b0");
        lab
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// `portcullis run` with these arguments after the usual ones.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.gateway.command(BINARY);
        command.args([
            "run",
            "--on-failure",
            "open",
            "--port",
            "g0",
            "--port",
            "g1",
            "--conntrack-max",
            "4096",
        ]);
        command.arg("--log").arg(self.directory.join("log"));
        command.arg("--socket").arg(self.socket()).args(arguments);
        command
    }

    /// Starts the daemon and waits until it says that it is ready.
    fn start(&mut self, arguments: &[&str]) {
        let errors = std::fs::File::create(self.directory.join("stderr")).unwrap();
        let (process, line) = Process::speaking(self.command(arguments).stderr(errors));
        self.daemon = Some(process);
        assert!(line.starts_with("ready: "), "{line}{}", self.errors());
    }

    fn start_with(&mut self, rules: &str, rules6: &str) {
        let (v4, v6) = (self.file("rules.v4", rules), self.file("rules.v6", rules6));
        self.start(&["--rules", v4.to_str().unwrap(), "--rules6", v6.to_str().unwrap()]);
    }

    /// What the daemon wrote to standard error.
    fn errors(&self) -> String {
        std::fs::read_to_string(self.directory.join("stderr")).unwrap_or_default()
    }

    /// A command of ours that talks to the daemon.
    fn cli(&self, arguments: &[&str]) -> Output {
        let socket = self.socket();
        Command::new(BINARY).args(arguments).arg("--socket").arg(socket).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let output = self.cli(&all);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn apply(&self, name: &str, rules: &str) -> Output {
        let path = self.file(name, rules);
        self.cli(&["apply", "--rules", path.to_str().unwrap()])
    }

    /// Packets that met rule `number` of FORWARD.
    fn hits(&self, family: &str, number: usize) -> u64 {
        let shown = self.json(&["show", "rules", family, "--chain", "FORWARD"]);
        shown["chains"][0]["rules"][number - 1]["packets"].as_u64().unwrap()
    }

    fn pings(&self, to: &str) -> bool {
        let line = format!("ping -c 1 -W 1 {to}");
        self.client.attempt(&line).status.success()
    }

    /// Waits (bounded) for a condition of the running network.
    fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = monotonic();
        while !done() {
            let waited = monotonic().saturating_sub(start);
            assert!(waited < Nanos::from_secs(20), "never: {what}\n{}", self.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

/// A listener. A process that another test is just starting may hold the last
/// one's descriptor until it executes: bounded patience.
fn listen(server: &Namespace, address: SocketAddr) -> TcpListener {
    let start = monotonic();
    loop {
        match server.enter(|| TcpListener::bind(address)) {
            Ok(listener) => return listener,
            Err(error) => {
                assert!(monotonic().saturating_sub(start) < Nanos::from_secs(5), "{error}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Listens in `server` on port 7 and answers one connection with what it hears.
fn tcp_echo(client: &Namespace, server: &Namespace, to: &str) -> std::io::Result<()> {
    let address = SocketAddr::new(to.parse::<IpAddr>().unwrap(), 7);
    let listener = listen(server, address);
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| {
            listener.set_nonblocking(false).unwrap();
            let (mut stream, _) = listener.accept()?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut heard = vec![0; 100_000];
            stream.read_exact(&mut heard)?;
            stream.write_all(&heard)
        });
        let result = client.enter(|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let said: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
            stream.write_all(&said)?;
            let mut heard = vec![0; said.len()];
            stream.read_exact(&mut heard)?;
            assert_eq!(heard, said);
            Ok(())
        });
        if result.is_err() {
            // Nobody came through: let the listener go.
            let _ = server.enter(|| TcpStream::connect_timeout(&address, PATIENCE));
        }
        let _ = echo.join();
        result
    })
}

fn udp_echo(client: &Namespace, server: &Namespace, to: &str) -> std::io::Result<()> {
    let address = SocketAddr::new(to.parse::<IpAddr>().unwrap(), 7);
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let service = server.enter(|| UdpSocket::bind(address)).unwrap();
    let socket = client.enter(|| UdpSocket::bind(any)).unwrap();
    service.set_read_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(b"hello", address)?;
    let mut buffer = [0; 16];
    let (len, from) = service.recv_from(&mut buffer)?;
    service.send_to(&buffer[..len], from)?;
    let (len, from) = socket.recv_from(&mut buffer)?;
    assert_eq!((&buffer[..len], from), (&b"hello"[..], address));
    Ok(())
}

#[test]
fn a_gateway_routes_what_its_rules_accept_and_shows_what_it_does() {
    let mut lab = Lab::routed();
    lab.start_with(OPEN, OPEN6);
    assert!(lab.pings(V4), "{}", lab.errors());
    assert!(lab.pings(V6), "{}", lab.errors());
    for to in [V4, V6] {
        tcp_echo(&lab.client, &lab.server, to).unwrap();
        udp_echo(&lab.client, &lab.server, to).unwrap();
    }
    // The other way round TCP is not accepted.
    let back: SocketAddr = "198.18.1.2:7".parse().unwrap();
    let _listener = lab.client.enter(|| TcpListener::bind(back)).unwrap();
    let short = Duration::from_millis(500);
    assert!(lab.server.enter(|| TcpStream::connect_timeout(&back, short)).is_err());
    assert!(lab.server.attempt("ping -c 1 -W 1 198.18.1.2").status.success());
    // The gateway itself, behind INPUT and OUTPUT.
    assert!(lab.pings("198.18.1.1") && lab.pings("2001:db8:1::1"));

    assert_eq!((lab.hits("-4", 3), lab.hits("-4", 4), lab.hits("-4", 5)), (2, 1, 1));
    assert_eq!((lab.hits("-6", 2), lab.hits("-6", 3), lab.hits("-6", 4)), (1, 1, 1));
    let saved = lab.cli(&["show", "rules", "--save", "--counters"]);
    let saved = String::from_utf8(saved.stdout).unwrap();
    assert!(
        saved.contains("[2:168] -A FORWARD -p icmp -m icmp --icmp-type 8 -j ACCEPT"),
        "{saved}"
    );

    // What was saved with counters can be applied with them.
    let path = lab.file("saved.v4", &saved);
    let applied = lab.cli(&["apply", "--counters", "--rules", path.to_str().unwrap()]);
    assert!(applied.status.success(), "{applied:?}");
    let again = lab.cli(&["show", "rules", "--save", "--counters"]);
    let bare = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    assert_eq!(bare(&String::from_utf8(again.stdout).unwrap()), bare(&saved));
    let nothing = lab.cli(&["show", "rules", "--chain", "FORWRAD"]);
    let (code, said) = refusal(&nothing);
    assert_eq!((code, said.trim()), (Some(1), "portcullis: the policy has no chain FORWRAD"));

    let ports = lab.json(&["show", "ports"]);
    assert_eq!(ports["mode"], "routed");
    assert_eq!(ports["ports"][0]["name"], "g0");
    assert_eq!(ports["ports"][0]["xdp"], "native");
    assert_eq!(ports["ports"][0]["queues"][0]["zero_copy"], false);
    assert!(ports["ports"][1]["tx_packets"].as_u64().unwrap() > 70);
    let stats = lab.json(&["show", "stats"]);
    assert_eq!(stats["workers"][0]["generation"], 2);
    assert!(stats["xdp"]["redirected"].as_u64().unwrap() > 100);
    let rows = lab.cli(&["--json", "show", "conntrack", "--proto", "tcp", "--dport", "7"]);
    let rows = String::from_utf8(rows.stdout).unwrap();
    assert_eq!(rows.lines().count(), 2, "{rows}");
    let row: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!((&row["seen_reply"], &row["original"]["dport"]), (&true.into(), &7.into()));
    lab.until("two LOG lines", || {
        let log = std::fs::read_to_string(lab.directory.join("log")).unwrap();
        log.matches("kernel: ping: IN=g0 OUT=g1 MAC=").count() == 1
            && log.matches("kernel: ping: IN=g1 OUT=g0 MAC=").count() == 1
    });
    let words = ["in=g0", "src=198.18.1.2", "dst=198.18.2.2", "proto=tcp", "dport=23"];
    let mut explain = vec!["explain"];
    explain.extend(words);
    let explained = lab.cli(&explain);
    let said = String::from_utf8(explained.stdout).unwrap();
    assert!(explained.status.success() && said.contains("FORWARD"), "{said}");
    let before = lab.hits("-4", 1);
    assert_eq!(lab.json(&explain)["event"]["verdict"], "drop");
    assert_eq!(lab.hits("-4", 1), before, "explaining counts nothing");
    for view in ["rules", "ports", "stats", "conntrack", "log"] {
        let shown = lab.cli(&["show", view]);
        assert!(shown.status.success() && !shown.stdout.is_empty(), "{view}");
    }
    let errors = lab.errors();
    assert!(errors.contains("net.ipv4.ip_forward is 0: when portcullis ends"), "{errors}");
}

/// Every rule that reports.
const REPORTING: &str = "*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -s 198.18.1.2 -p icmp -j TRACE
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -p icmp -j NFLOG --nflog-group 5 --nflog-prefix caught
-A FORWARD -p icmp -j AUDIT --type accept
-A FORWARD -p udp -m udp --dport 7 -j LOG --log-prefix \"flood: \"
-A FORWARD -m conntrack --ctstate NEW,RELATED,ESTABLISHED -j ACCEPT
COMMIT
";

#[test]
fn records_go_where_they_are_wanted_and_every_one_is_accounted_for() {
    let mut lab = Lab::routed();
    let rules = lab.file("rules.v4", REPORTING);
    let (json, captures) = (lab.directory.join("json"), lab.directory.join("captures"));
    std::fs::create_dir(&captures).unwrap();
    lab.start(&[
        "--rules",
        rules.to_str().unwrap(),
        "--log-json",
        json.to_str().unwrap(),
        "--nflog-dir",
        captures.to_str().unwrap(),
        "--log-rate",
        "1",
        "--log-burst",
        "5",
    ]);
    let traced = std::thread::scope(|scope| {
        let watching = scope.spawn(|| lab.cli(&["trace", "--count", "6"]));
        let mut tries = 0;
        while !watching.is_finished() {
            assert!(lab.pings(V4), "pings pass");
            tries += 1;
            assert!(tries < 200, "trace ends by itself");
        }
        watching.join().unwrap()
    });
    let said = String::from_utf8(traced.stdout).unwrap();
    assert!(traced.status.success() && said.lines().count() == 6, "{said}");
    assert!(said.contains("TRACE: filter:FORWARD:rule:4 IN=g0 OUT=g1 MAC="), "{said}");
    lab.client.enter(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..500 {
            socket.send_to(b"x", (V4, 7)).unwrap();
        }
    });
    let report = || lab.json(&["show", "log"]);
    let number = |report: &Value, key: &str| report[key].as_u64().unwrap();
    lab.until("everything is written", || number(&report(), "waiting") == 0);
    let report = report();
    let [emitted, written, suppressed, dropped] =
        ["emitted", "written", "suppressed", "dropped"].map(|key| number(&report, key));
    assert_eq!(emitted, written + suppressed + dropped, "{report}");
    assert!(suppressed >= 480 && dropped == 0, "{report}");
    let named = |list: &str, name: &str| {
        let report = lab.json(&["show", "log"]);
        report[list].as_array().unwrap().iter().any(|heavy| heavy["name"] == name)
    };
    lab.until("the heaviest are known", || {
        named("rules", "v4 filter:FORWARD:3") && named("sources", "198.18.1.0/24")
    });

    let text = std::fs::read_to_string(lab.directory.join("log")).unwrap();
    let floods = text.matches("kernel: flood: IN=g0 OUT=g1 MAC=").count() as u64;
    assert!((5..20).contains(&floods), "{text}");
    assert!(text.contains("kernel: audit: type=1324 audit("), "{text}");
    let lines = std::fs::read_to_string(&json).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let flood = lines.iter().find(|line| line["prefix"] == "flood: ").expect("a flood");
    assert_eq!((&flood["rule"], &flood["line"]), (&3.into(), &9.into()));
    assert_eq!((&flood["ct"]["state"], &flood["dpt"]), (&"NEW".into(), &7.into()));
    assert!(flood["ct"]["id"].as_u64().is_some() && flood["path"][0] == "FORWARD:3", "{flood}");

    let capture = captures.join("nflog-5.pcap");
    let read = Command::new("tcpdump").arg("-nr").arg(&capture).output().unwrap();
    let packets = String::from_utf8(read.stdout).unwrap();
    let stderr = String::from_utf8_lossy(&read.stderr);
    assert!(stderr.contains("link-type NFLOG"), "{stderr}");
    assert!(packets.lines().count() as u64 == number(&report["captures"], "written"), "{packets}");
    assert!(packets.contains("IP 198.18.1.2 > 198.18.2.2: ICMP echo request"), "{packets}");
}

#[test]
fn the_gateways_own_packets_pass_input_and_output() {
    let mut lab = Lab::routed();
    lab.start_with(OPEN, OPEN6);
    let local: SocketAddr = "198.18.1.1:7".parse().unwrap();
    let _service = listen(&lab.gateway, local);
    let short = Duration::from_millis(500);
    assert!(lab.client.enter(|| TcpStream::connect_timeout(&local, short)).is_err(), "INPUT drops");
    // Its own connections go out, and their replies come in as ESTABLISHED.
    tcp_echo(&lab.gateway, &lab.server, V4).unwrap();
    tcp_echo(&lab.gateway, &lab.server, V6).unwrap();
    udp_echo(&lab.gateway, &lab.server, V4).unwrap();
    // Fragments both ways, put together before INPUT.
    assert!(lab.gateway.attempt("ping -c 1 -W 1 -s 4000 198.18.2.2").status.success());
    assert!(lab.client.attempt("ping -c 1 -W 1 -s 4000 198.18.1.1").status.success());
    let stats = lab.json(&["show", "stats"]);
    assert_eq!(stats["drops"]["host_refused"].as_u64().unwrap_or(0), 0);
    assert!(stats["drops"]["chain_policy"].as_u64().unwrap() > 0);

    // What OUTPUT refuses does not leave.
    let mute = OPEN.replace(":OUTPUT ACCEPT", ":OUTPUT DROP");
    assert!(lab.apply("mute.v4", &mute).status.success());
    assert!(!lab.gateway.attempt("ping -c 1 -W 1 198.18.2.2").status.success());
    assert!(!lab.pings("198.18.1.1"), "nor do its answers");
    assert!(lab.pings(V4), "but others pass");
}

#[test]
fn a_policy_is_swapped_while_connections_live_and_a_bad_one_refused() {
    let mut lab = Lab::routed();
    lab.start_with(OPEN, OPEN6);
    let address: SocketAddr = format!("{V4}:7").parse().unwrap();
    let listener = lab.server.enter(|| TcpListener::bind(address)).unwrap();
    let mut client = lab.client.enter(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let mut both_ways = || {
        for stream in [&mut client, &mut server] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let mut byte = [0];
        client.write_all(b"x").unwrap();
        server.read_exact(&mut byte).unwrap();
        server.write_all(b"y").unwrap();
        client.read_exact(&mut byte).unwrap();
    };
    both_ways();
    let connects = || {
        let short = Duration::from_millis(500);
        lab.client.enter(|| TcpStream::connect_timeout(&address, short)).is_ok()
    };
    assert!(connects() && lab.pings(V4));

    let closed = lab.apply("closed.v4", CLOSED);
    assert!(closed.status.success(), "{closed:?}");
    let said = String::from_utf8(closed.stdout).unwrap();
    assert!(said.starts_with("generation 2: 1 IPv4 and 4 IPv6 rules\n"), "{said}");
    assert!(!connects() && !lab.pings(V4), "new connections are refused");
    assert!(lab.pings(V6), "the other family keeps its policy");
    both_ways();

    let before = lab.hits("-4", 1);
    let bad = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -p tcp --dport 99999 -j ACCEPT\nCOMMIT\n";
    let refused = lab.apply("bad.v4", bad);
    assert_eq!(refused.status.code(), Some(1));
    let complaint = String::from_utf8(refused.stderr).unwrap();
    assert!(complaint.contains("bad.v4:3:27: error: "), "{complaint}");
    let line = "    -A FORWARD -p tcp --dport 99999 -j ACCEPT";
    let caret = format!("{line}\n{}^\n", " ".repeat(30));
    assert!(complaint.contains(&caret), "{complaint}");
    assert!(!lab.pings(V4), "the old policy stays");
    assert_eq!(lab.json(&["show", "rules"])["generation"], 2);
    both_ways();
    assert!(lab.hits("-4", 1) > before);

    assert!(lab.apply("open.v4", OPEN).status.success());
    assert!(connects() && lab.pings(V4));
    both_ways();
    assert!(lab.hits("-4", 1) > before, "an unchanged rule keeps its count");
}

#[test]
fn signals_reload_and_stop() {
    let mut lab = Lab::routed();
    lab.start_with(OPEN, OPEN6);
    assert!(lab.pings(V4));
    lab.file("rules.v4", CLOSED);
    lab.daemon.as_ref().unwrap().signal("HUP");
    lab.until("the closed policy", || lab.json(&["show", "rules"])["generation"] == 2);
    assert!(!lab.pings(V4));
    lab.file("rules.v4", "*filter\n:FORWARD MAYBE [0:0]\nCOMMIT\n");
    lab.daemon.as_ref().unwrap().signal("HUP");
    lab.until("a refusal", || lab.errors().contains("the old policy keeps running"));
    assert_eq!(lab.json(&["show", "rules"])["generation"], 2);
    let daemon = lab.daemon.take().unwrap();
    daemon.signal("TERM");
    assert_eq!(daemon.code(), Some(0));
    assert!(!lab.socket().exists());
    let unreachable = lab.cli(&["show", "rules"]);
    assert_eq!(unreachable.status.code(), Some(3));

    lab.start(&[]);
    assert!(lab.pings(V4), "no rules: everything is accepted");
    assert!(lab.cli(&["stop"]).status.success());
    assert_eq!(lab.daemon.take().unwrap().code(), Some(0));
}

#[test]
fn routes_neighbours_and_links_are_followed_under_traffic() {
    let mut lab = Lab::routed();
    lab.start(&[]);
    lab.server.run("ip addr add 203.0.113.1/32 dev lo");
    lab.until("an answer that there is no route", || {
        let unreachable = lab.client.attempt("ping -c 1 -W 1 203.0.113.1");
        let said = String::from_utf8_lossy(&unreachable.stdout).into_owned();
        said.contains("From 198.18.1.1") && said.contains("Net Unreachable")
    });
    lab.gateway.run("ip route add 203.0.113.0/24 via 198.18.2.2");
    lab.until("the new route", || lab.pings("203.0.113.1"));
    lab.gateway.run("ip route replace blackhole 203.0.113.0/24");
    lab.until("the blackhole", || !lab.pings("203.0.113.1"));

    // Policy routing by source.
    lab.gateway.run("ip route add default via 198.18.2.2 table 7");
    lab.gateway.run("ip rule add from 198.18.1.0/24 to 203.0.113.0/24 table 7 prio 100");
    lab.until("the rule", || lab.pings("203.0.113.1"));

    // The server moves to another MAC address.
    assert!(lab.pings(V4));
    lab.server.run("ip link set b0 down; ip link set b0 address 02:00:00:00:0b:0b");
    lab.server.run("ip link set b0 up; ip route replace default via 198.18.2.1");
    lab.gateway.run("ip neigh flush dev g1");
    lab.until("the new address", || lab.pings(V4));

    for _ in 0..3 {
        lab.gateway.run("ip link set g1 down");
        lab.until("the link down", || lab.json(&["show", "ports"])["ports"][1]["up"] == false);
        assert!(!lab.pings(V4));
        lab.gateway.run("ip link set g1 up");
        lab.until("the link up again", || lab.pings(V4));
    }
    // A device that is gone takes its port along, and nothing else.
    lab.gateway.run("ip link del g1");
    lab.until("a word about it", || {
        lab.errors().contains("g1: out of service: there is no device g1")
    });
    assert_eq!(lab.json(&["show", "ports"])["ports"][1]["up"], false);
    assert!(!lab.pings(V4) && lab.pings("198.18.1.1"));
}

/// Datagrams from each side to the other, thousands a second, until dropped.
struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(lab: &Lab) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let send = |from: &Namespace, to: &str| {
            let socket = from.enter(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
            let (to, stop) = (to.to_owned(), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..16 {
                        // While nobody forwards, or answers that nobody listens, sending fails.
                        let _ = socket.send_to(&[0x5a; 64], &*to);
                    }
                    // Never idle, but no more than one slow core carries: a ping must get through.
                    std::thread::sleep(Duration::from_millis(1));
                }
            })
        };
        let threads = vec![send(&lab.client, "198.18.2.2:7"), send(&lab.server, "198.18.1.2:7")];
        Self { stop, threads }
    }
    /// A counter of the worker grows: the load is really there.
    fn must_flow(&self, lab: &Lab, counter: &str) {
        let read = || match &lab.json(&["show", "stats"])["workers"][0][counter] {
            Value::Object(reasons) => reasons.values().filter_map(Value::as_u64).sum(),
            count => count.as_u64().unwrap(),
        };
        let before: u64 = read();
        lab.until(counter, || read() > before + 1000);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The ids of the XDP program on g0 and of its maps.
fn bpf_objects(lab: &Lab) -> (u64, Vec<u64>) {
    let links = lab.gateway.run("ip -j -d link show g0");
    let links: Value = serde_json::from_str(&links).unwrap();
    let program = links[0]["xdp"]["prog"]["id"].as_u64().expect("a program is attached");
    let shown = lab.gateway.run(&format!("bpftool -j prog show id {program}"));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let maps = shown["map_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap());
    (program, maps.collect())
}

#[test]
fn a_killed_daemon_leaves_nothing_behind_and_starts_again_at_once() {
    let mut lab = Lab::routed();
    let load = Load::start(&lab);
    for _ in 0..3 {
        lab.start_with(CLOSED, CLOSED);
        assert!(!lab.pings(V4));
        load.must_flow(&lab, "drops");
        let (program, maps) = bpf_objects(&lab);
        assert!(maps.len() > 5);
        let daemon = lab.daemon.take().unwrap();
        daemon.signal("KILL");
        assert_eq!(daemon.code(), None);
        lab.start_with(OPEN, OPEN6);
        assert!(lab.pings(V4), "{}", lab.errors());
        load.must_flow(&lab, "tx_packets");
        let daemon = lab.daemon.take().unwrap();
        daemon.signal("KILL");
        assert_eq!(daemon.code(), None);
        let gone = |kind: &str, id: u64| {
            !lab.gateway.attempt(&format!("bpftool {kind} show id {id}")).status.success()
        };
        lab.until("the program gone", || gone("prog", program));
        lab.until("its maps gone", || maps.iter().all(|map| gone("map", *map)));
        let links = lab.gateway.run("ip -d link");
        assert!(!links.contains("xdp"), "{links}");
        assert_eq!(links.lines().filter(|line| line.contains(" mtu ")).count(), 3, "{links}");
    }
    drop(load);
    // Open on failure: the kernel forwards by itself.
    lab.gateway.run("sysctl -qw net.ipv4.ip_forward=1");
    assert!(lab.pings(V4));
}

fn refusal(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_cannot_run_says_why_and_touches_nothing() {
    let mut lab = Lab::routed();
    let run = |arguments: &[&str]| {
        let mut command = lab.gateway.command(BINARY);
        let output =
            command.args(["run", "--on-failure", "open"]).args(arguments).output().unwrap();
        refusal(&output)
    };
    let socket = lab.socket();
    let socket = socket.to_str().unwrap();
    let (code, said) = run(&["--port", "g0", "--port", "eth7", "--socket", socket]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("port eth7 does not exist; there is g0, g1"), "{said}");
    let (code, said) = run(&["--port", "lo", "--socket", socket]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("lo is not an Ethernet device"), "{said}");
    let (code, said) = run(&["--port", "g0", "--port", "g0", "--socket", socket]);
    assert_eq!((code, said.contains("g0 is given twice")), (Some(4), true), "{said}");
    let (code, said) = run(&["--port", "g0", "--mode", "bridge", "--socket", socket]);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = run(&["--port", "g0", "--sysctl", "tcp_lose=1", "--socket", socket]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("unknown conntrack setting `tcp_lose`"), "{said}");
    let bad = lab.file("bad.v4", "*filter\n-A FORWARD -j NOSUCH\nCOMMIT\n");
    let bad = bad.to_str().unwrap();
    let (code, said) = run(&["--port", "g0", "--rules", bad, "--socket", socket]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("bad.v4:2:15"), "{said}");
    lab.gateway.run("ip rule add not from 198.18.0.0/15 table 100 prio 77");
    let (code, said) = run(&["--port", "g0", "--socket", socket]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("ip rule with priority 77 uses not"), "{said}");
    lab.gateway.run("ip rule del prio 77");
    let output = lab
        .gateway
        .command("setpriv")
        .args([
            "--bounding-set",
            "-bpf,-sys_admin",
            BINARY,
            "run",
            "--on-failure",
            "open",
            "--port",
            "g0",
        ])
        .args(["--socket", socket])
        .output()
        .unwrap();
    let (code, said) = refusal(&output);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("missing privilege: CAP_BPF; run as root"), "{said}");
    assert!(!lab.gateway.run("ip -d link").contains("xdp"));

    lab.start(&[]);
    let pid = lab.daemon.as_ref().unwrap().id();
    let (code, said) = refusal(&lab.command(&[]).output().unwrap());
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains(&format!("another daemon (pid {pid}) already listens on")), "{said}");
    let other = lab.directory.join("other.sock");
    let (code, said) = refusal(&lab.command(&[]).arg("--socket").arg(&other).output().unwrap());
    // The last --socket is not taken silently: clap refuses a repeated option.
    assert_eq!(code, Some(2), "{said}");
    let mut second = lab.gateway.command(BINARY);
    let second =
        second.args(["run", "--on-failure", "open", "--port", "g1", "--socket"]).arg(&other);
    let (code, said) = refusal(&second.output().unwrap());
    assert_eq!(code, Some(4), "{said}");
    let held = format!("port g1 is held by another portcullis (pid {pid})");
    assert!(said.contains(&held), "{said}");
    assert!(lab.pings(V4), "the first one is not disturbed");
}

/// Sends a frame (in hexadecimal) on a0 until a frame of its EtherType is heard on b0.
fn sent_and_heard(lab: &Lab, frame: &str) -> Option<String> {
    let hear = "import socket,sys\n\
        s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(3))\n\
        s.bind(('b0',3)); s.settimeout(10); s.setsockopt(263,8,1)\n\
        print('listening',flush=True)\n\
        want=bytes.fromhex(sys.argv[1])[-70:]\n\
        while True:\n \
         data,anc,_,_=s.recvmsg(4096,256)\n \
         tag=[a[2] for a in anc if a[0]==263]\n \
         tpid,tci,has=tag[0][18:20],tag[0][16:18],tag[0][0]&16\n \
         if has: data=data[:12]+tpid[::-1]+tci[::-1]+data[12:]\n \
         if want[-60:] in data: print(data.hex()); break";
    let mut listener = lab.server.command("python3");
    let mut listener = listener.args(["-c", hear, frame]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(listener.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "listening");
    lab.client.run(&format!(
        "python3 -c \"import socket; s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW); \
         s.bind(('a0',0)); s.send(bytes.fromhex('{frame}'))\""
    ));
    line.clear();
    output.read_line(&mut line).unwrap();
    listener.wait().unwrap();
    (!line.is_empty()).then(|| line.trim().to_owned())
}

#[test]
fn a_bridge_is_transparent_and_filters() {
    let mut lab = Lab::bridged();
    lab.gateway.run("ethtool -K g0 rxvlan on; ethtool -K g1 rxvlan off");
    let rules = OPEN.replace(" -i g0 -o g1", "");
    let v4 = lab.file("rules.v4", &rules);
    lab.start(&["--mode", "bridge", "--rules", v4.to_str().unwrap()]);
    assert!(lab.pings(V4), "ARP and ICMP cross: {}", lab.errors());
    // Tagged, and tagged twice, with a payload that is no IP at all.
    for tags in ["81000005", "88a8000781000005"] {
        let frame = format!("ffffffffffff02000000aaaa{tags}88b5{}", "5a".repeat(60));
        let heard = sent_and_heard(&lab, &frame);
        assert_eq!(heard.as_deref(), Some(frame.as_str()), "crosses as it is");
    }
    tcp_echo(&lab.client, &lab.server, V4).unwrap();
    udp_echo(&lab.client, &lab.server, V4).unwrap();
    let hop = lab.client.run("ping -c 1 -W 1 198.18.2.2");
    assert!(hop.contains("ttl=64"), "a bridge is no hop: {hop}");
    assert!(lab.apply("closed.v4", CLOSED).status.success());
    assert!(!lab.pings(V4));
    assert_eq!(lab.json(&["show", "ports"])["mode"], "bridge");
    // Tags that the device takes off are invisible: said from the start, and as long as it is so.
    let stripped = "port g0 strips VLAN tags in hardware";
    let noted = lab.json(&["show", "ports"])["notes"].to_string();
    let strips = lab.gateway.run("ethtool -k g0").contains("rx-vlan-offload: on");
    assert_eq!(noted.contains(stripped), strips, "{noted}");
    assert_eq!(lab.errors().contains(stripped), strips);
    // Promiscuous as long as the daemon lives.
    let promiscuity = |lab: &Lab| lab.gateway.run("ip -d link show g0").contains("promiscuity 1");
    assert!(promiscuity(&lab));
    lab.daemon = None;
    assert!(!promiscuity(&lab));
}

#[test]
fn every_queue_has_its_worker() {
    let mut lab = Lab::bare(2);
    lab.client.run("ip addr add 198.18.2.1/24 dev a0");
    lab.server.run("ip addr add 198.18.2.2/24 dev b0");
    let wrong = lab.command(&["--mode", "bridge", "--workers", "1"]).output().unwrap();
    let (code, said) = refusal(&wrong);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("g0 has 2 queue(s) but there are 1 worker(s)"), "{said}");
    lab.start(&["--mode", "bridge"]);
    for _ in 0..10 {
        tcp_echo(&lab.client, &lab.server, V4).unwrap();
    }
    let stats = lab.json(&["show", "stats"]);
    assert_eq!(stats["workers"].as_array().unwrap().len(), 2);
    let ports = lab.json(&["show", "ports"]);
    assert_eq!(ports["ports"][1]["queues"][1]["worker"], 1);
}
