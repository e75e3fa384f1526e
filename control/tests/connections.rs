//! Connections on a running daemon: listed, filtered and ended as the real `conntrack`
//! does it in a kernel that saw the same packets, and kept over restarts. Needs root.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use serde_json::Value;

mod netns;
use netns::{Directory, Namespace, Process, Row};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");
const PATIENCE: Duration = Duration::from_secs(20);

/// Source translation, and nothing begins in the middle.
const GATE: &str = "*nat
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o g1 -j SNAT --to-source 198.18.9.9
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -p tcp -m tcp ! --syn -j DROP
-A FORWARD -i g0 -j CONNMARK --set-mark 5
-A FORWARD -i g0 -j ACCEPT
COMMIT
";

const GATE6: &str = "*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i g0 -j ACCEPT
COMMIT
";

/// Client, gateway and server, and files.
struct Lab {
    client: Namespace,
    gateway: Namespace,
    server: Namespace,
    directory: Directory,
    daemon: Option<Process>,
}

impl Lab {
    fn new() -> Self {
        let Row { client, gateway, server, directory } = Row::routed_twice("connections");
        let lab = Self { client, gateway, server, directory, daemon: None };
        lab.file("rules.v4", GATE);
        lab.file("rules.v6", GATE6);
        // The tool that scripts call.
        std::os::unix::fs::symlink(BINARY, lab.path("conntrack")).unwrap();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Starts the daemon and waits until it is ready; returns what it said.
    fn start(&mut self, arguments: &[&str]) -> String {
        let errors = std::fs::File::create(self.path("stderr")).unwrap();
        let mut command = self.gateway.command(BINARY);
        command.args(["run", "--on-failure", "open", "--port", "g0", "--port", "g1"]);
        command.args(["--conntrack-max", "4096", "--rules"]).arg(self.path("rules.v4"));
        command.arg("--rules6").arg(self.path("rules.v6"));
        command.arg("--socket").arg(self.path("control.sock")).args(arguments);
        let (process, line) = Process::speaking(command.stderr(errors));
        self.daemon = Some(process);
        let errors = std::fs::read_to_string(self.path("stderr")).unwrap();
        assert!(line.starts_with("ready: "), "{line}{errors}");
        errors
    }

    /// The state file's flags.
    fn state(&self) -> [String; 4] {
        let path = self.path("state/conntrack").display().to_string();
        ["--state".to_owned(), path, "--state-interval".to_owned(), "1".to_owned()]
    }

    fn start_with_state(&mut self) -> String {
        let flags = self.state();
        let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        flags.extend(["--sysctl", "tcp_loose=0"]);
        self.start(&flags)
    }

    /// Ends it as a crash would.
    fn kill(&mut self) {
        self.daemon = None;
    }

    fn stop(&mut self) {
        assert!(self.portcullis(&["stop"]).status.success());
        assert!(self.daemon.take().unwrap().wait().unwrap().success());
    }

    fn portcullis(&self, arguments: &[&str]) -> Output {
        let socket = self.path("control.sock");
        Command::new(BINARY).args(arguments).arg("--socket").arg(socket).output().unwrap()
    }

    fn status(&self) -> Value {
        let output = self.portcullis(&["--json", "show", "status"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = monotonic();
        while !done() {
            let waited = monotonic().saturating_sub(start);
            assert!(waited < Nanos::from_secs(20), "never: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One connection of every kind, with ports that are known.
struct Flows {
    _client: TcpStream,
    _server: TcpStream,
    _sockets: Vec<UdpSocket>,
}

impl Flows {
    fn start(lab: &Lab) -> Self {
        let listener = lab.server.enter(|| TcpListener::bind("198.18.2.2:7")).unwrap();
        let client = lab.client.enter(|| connect_from("198.18.1.2:40000", "198.18.2.2:7"));
        let (server, _) = listener.accept().unwrap();
        let mut sockets = Vec::new();
        let mut say = |from: &str, to: &str, answered: bool| {
            let to: SocketAddr = to.parse().unwrap();
            let socket = lab.client.enter(|| UdpSocket::bind(from)).unwrap();
            let service = lab.server.enter(|| UdpSocket::bind(to)).unwrap();
            service.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.send_to(b"hello", to).unwrap();
            let mut buffer = [0; 16];
            let (_, back) = service.recv_from(&mut buffer).unwrap();
            if answered {
                service.send_to(b"yes", back).unwrap();
                socket.recv_from(&mut buffer).unwrap();
            }
            sockets.extend([socket, service]);
        };
        say("198.18.1.2:50001", "198.18.2.2:9", false);
        say("198.18.1.2:50002", "198.18.2.2:10", true);
        say("[2001:db8:1::2]:50003", "[2001:db8:2::2]:9", false);
        lab.client.run("ping -c 1 -W 2 -e 77 198.18.2.2");
        lab.client.run("ping -c 1 -W 2 -e 78 2001:db8:2::2");
        Self { _client: client, _server: server, _sockets: sockets }
    }
}

/// A TCP connection from a chosen port.
fn connect_from(from: &str, to: &str) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &from.parse::<SocketAddr>().unwrap()).unwrap();
    connect(&socket, &to.parse::<SocketAddr>().unwrap()).unwrap();
    TcpStream::from(socket)
}

/// Lines in an order of their own, without what time and chance decide.
fn normal(output: &Output) -> (Vec<String>, Option<i32>, String) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = |word: &str| match word.split_once('=') {
        Some((key @ ("use" | "id" | "delta-time"), _)) => format!("{key}=*"),
        _ => word.to_owned(),
    };
    let line = |line: &str| {
        let mut words: Vec<String> = line.split(' ').map(word).collect();
        // The seconds left: just begun, or nearly so.
        for at in 0..words.len() {
            let after_t = at > 0 && words[at - 1] == "-t";
            let Ok(seconds) = words[at].parse::<u64>() else { continue };
            let bases = [30, 120, 432_000, 600];
            if let Some(base) = bases.iter().find(|base| (**base - 8..=**base).contains(&seconds))
                && (after_t || !words[at - 1].starts_with('-'))
            {
                words[at] = format!("about {base}");
            }
        }
        words.join(" ")
    };
    let mut lines: Vec<String> = text.lines().map(line).collect();
    lines.sort();
    let summary = String::from_utf8_lossy(&output.stderr);
    let summary = summary.split_once("): ").map_or(summary.as_ref(), |(_, said)| said);
    (lines, output.status.code(), summary.trim().to_owned())
}

/// In this order: the last ones end connections.
const COMMANDS: &[&str] = &[
    "-L",
    "--dump -o extended",
    "-L -o id",
    "-L -o save",
    "-L -f ipv4",
    "-L -f ipv6 -o extended",
    "-L -p tcp",
    "-L -p udp --dport 9",
    "-L -p udp --orig-port-src 50001 --reply-port-src 9",
    "-L -p tcp --state ESTABLISHED",
    "-L -p tcp --state TIME_WAIT",
    "-L -p icmp --icmp-type 8",
    "-L -p icmp --icmp-type 0",
    "-L -s 198.18.1.2",
    "-L -s 198.18.0.0/16 -d 198.18.2.2",
    "-L -s 198.18.1.3",
    "-L --src 198.18.1.9 --mask-src 255.255.255.0 -p tcp",
    "-L -d 2001:db8:2::/48 -f ipv6",
    "-L -q 198.18.9.9",
    "-L -r 198.18.2.2 -p tcp",
    "-L -n",
    "-L -n 198.18.9.9",
    "-L -j -p tcp",
    "-L --dst-nat -p udp",
    "-L -m 5",
    "-L -m 4/4",
    "-L -m 4",
    "-L -u ASSURED",
    "-L -u SEEN_REPLY -p udp",
    "-L -u UNREPLIED",
    "-L -w 0 -p tcp",
    "-L -w 3",
    "-C",
    "-G -p udp -s 198.18.1.2 -d 198.18.2.2 --sport 50001 --dport 9",
    "-D -p udp --sport 50001 --dport 9 -f ipv4",
    "-D -p udp --sport 50001 --dport 9",
    "-D -u ASSURED",
    "-D -s 198.18.1.99",
    "-L",
    "-D -f ipv6",
    "-C",
];

#[test]
fn the_tool_says_of_the_daemon_what_it_says_of_the_kernel() {
    let kernel = Lab::new();
    kernel.gateway.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    kernel.gateway.run("sysctl -qw net.netfilter.nf_conntrack_acct=1");
    kernel.gateway.run(&format!("iptables-restore {}", kernel.path("rules.v4").display()));
    kernel.gateway.run(&format!("ip6tables-restore {}", kernel.path("rules.v6").display()));
    let mut ours = Lab::new();
    ours.start(&["--sysctl", "acct=1"]);
    let _flows = [&kernel, &ours].map(Flows::start);
    let real = |line: &str| {
        let mut command = kernel.gateway.command("conntrack");
        normal(&command.args(line.split_whitespace()).output().unwrap())
    };
    let socket = ours.path("control.sock");
    let tool = |line: &str| {
        let mut command = Command::new(ours.path("conntrack"));
        normal(
            &command.args(line.split_whitespace()).arg("--socket").arg(&socket).output().unwrap(),
        )
    };
    let (all, _, summary) = tool("-L");
    assert_eq!((all.len(), summary.as_str()), (6, "6 flow entries have been shown."), "{all:#?}");
    for line in COMMANDS {
        assert_eq!(tool(line), real(line), "conntrack {line}");
    }
    // Here we say more than the tool: how many there were.
    let (lines, code, said) = tool("-F");
    let wanted = "connection tracking table has been emptied (2 entries).";
    assert_eq!((lines, code, said.as_str()), (Vec::new(), Some(0), wanted));
    assert_eq!(tool("-C").0, ["0"]);
    for line in
        ["-L -x", "-L -p nosuch", "-L -F", "-L --dport 9", "-L -p icmp --sport 3", "-L bogus"]
    {
        assert_eq!((tool(line).1, real(line).1), (Some(2), Some(2)), "conntrack {line}");
    }
}

#[test]
fn a_connection_that_is_killed_ends_and_what_is_translated_is_shown() {
    let mut lab = Lab::new();
    lab.start(&["--sysctl", "tcp_loose=0"]);
    let listener = lab.server.enter(|| TcpListener::bind("198.18.2.2:7")).unwrap();
    let mut client = lab.client.enter(|| connect_from("198.18.1.2:40000", "198.18.2.2:7"));
    let (mut server, peer) = listener.accept().unwrap();
    assert_eq!(peer, "198.18.9.9:40000".parse().unwrap());
    for stream in [&client, &server] {
        stream.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    }
    let mut byte = [0];
    client.write_all(b"x").unwrap();
    server.read_exact(&mut byte).unwrap();
    let shown = lab.portcullis(&["--json", "show", "nat", "-p", "tcp"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["kinds"], serde_json::json!(["snat"]));
    assert_eq!(shown["connection"]["reply"]["dst"], "198.18.9.9");
    let table = lab.portcullis(&["show", "nat"]);
    let table = String::from_utf8(table.stdout).unwrap();
    let wanted = "snat  tcp    198.18.1.2:40000 -> 198.18.2.2:7  198.18.9.9:40000 -> 198.18.2.2:7  ESTABLISHED";
    assert!(table.contains(wanted), "{table}");
    let none = lab.portcullis(&["show", "nat", "-g"]);
    assert_eq!(String::from_utf8(none.stdout).unwrap().lines().count(), 1, "only the headings");

    let tuple = ["-p", "tcp", "-s", "198.18.1.2", "-d", "198.18.2.2", "--sport", "40000"];
    let kill = [&["conntrack", "delete"][..], &tuple, &["--dport", "7"]].concat();
    let killed = lab.portcullis(&kill);
    let said = String::from_utf8(killed.stderr).unwrap();
    assert_eq!(
        (killed.status.code(), said.trim()),
        (Some(0), "portcullis: 1 flow entries have been deleted.")
    );
    client.write_all(b"y").unwrap();
    assert!(server.read_exact(&mut byte).is_err(), "nothing passes any more");
    assert_eq!(lab.portcullis(&kill).status.code(), Some(1), "it is gone");
}

/// A watcher and what it has said.
struct Watcher {
    process: Child,
    path: PathBuf,
}

impl Watcher {
    fn start(lab: &Lab, mut command: Command, name: &str) -> Self {
        let path = lab.path(name);
        let file = std::fs::File::create(&path).unwrap();
        let process = command.stdout(file).stderr(Stdio::null()).spawn().unwrap();
        Self { process, path }
    }

    /// What was said, without what time decides; in order of the words, as two
    /// workers of the kernel may speak out of turn.
    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.path).unwrap();
        let cut = |line: &str| {
            let line = line.split(" [USERSPACE]").next().unwrap_or(line);
            let words = line.split(' ').map(|word| match word.parse::<u64>() {
                Ok(22..=30) => "about 30",
                Ok(59..=60) => "about 60",
                Ok(119..=120) => "about 120",
                Ok(431_990..=432_000) => "about 432000",
                _ if word.starts_with("delta-time=") => "delta-time=*",
                _ => word,
            });
            words.collect::<Vec<_>>().join(" ")
        };
        let mut lines: Vec<String> = text.lines().map(cut).collect();
        lines.sort();
        lines
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_watcher_hears_of_the_daemon_what_it_hears_of_the_kernel() {
    let kernel = Lab::new();
    kernel.gateway.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    kernel.gateway.run("sysctl -qw net.netfilter.nf_conntrack_acct=1");
    kernel.gateway.run(&format!("iptables-restore {}", kernel.path("rules.v4").display()));
    kernel.gateway.run(&format!("ip6tables-restore {}", kernel.path("rules.v6").display()));
    let mut ours = Lab::new();
    ours.start(&["--sysctl", "acct=1"]);
    let real = |arguments: &str, name| {
        let mut command = kernel.gateway.command("conntrack");
        command.args(arguments.split(' '));
        Watcher::start(&kernel, command, name)
    };
    let tool = |arguments: &str, name| {
        let mut command = Command::new(ours.path("conntrack"));
        command.args(arguments.split(' ')).arg("--socket").arg(ours.path("control.sock"));
        Watcher::start(&ours, command, name)
    };
    let all = [real("-E", "all"), tool("-E", "all")];
    let ended = [real("-E -e DESTROY -p udp", "ended"), tool("-E -e DESTROY -p udp", "ended")];
    // Until everybody listens.
    std::thread::sleep(Duration::from_secs(1));
    let _flows = [&kernel, &ours].map(Flows::start);
    kernel.gateway.run("conntrack -D -p udp");
    assert!(ours.portcullis(&["conntrack", "-D", "-p", "udp"]).status.success());
    ours.until("the last of it", || ended[1].lines().len() == 3);
    ours.until("the last of it", || all[1].lines().len() == all[0].lines().len());
    assert_eq!(ended[1].lines(), ended[0].lines());
    assert_eq!(all[1].lines(), all[0].lines());
    // Interrupted, it says how much it was.
    let path = ours.path("said");
    let mut command = Command::new("timeout");
    command.args(["-s", "INT", "1"]).arg(BINARY).args(["conntrack", "-E"]);
    command.arg("--socket").arg(ours.path("control.sock"));
    let said = command.stderr(std::fs::File::create(&path).unwrap()).status().unwrap();
    assert_eq!(said.code(), Some(124), "timeout says that it had to interrupt");
    let said = std::fs::read_to_string(path).unwrap();
    assert_eq!(said.trim(), "portcullis: 0 flow events have been shown.");
}

/// A long transfer through the gateway, in the background.
struct Iperf {
    server: Child,
    client: Child,
}

impl Iperf {
    fn start(lab: &Lab, seconds: u32) -> Self {
        let mut server = lab.server.command("iperf3");
        let server = server.args(["-s", "-1"]).stdout(Stdio::null()).spawn().unwrap();
        lab.until("iperf3 to listen", || lab.server.run("ss -ltn").contains(":5201"));
        let mut client = lab.client.command("iperf3");
        client.args(["-c", "198.18.2.2", "-J", "-b", "20M", "-t", &seconds.to_string()]);
        let client = client.stdout(Stdio::piped()).spawn().unwrap();
        Self { server, client }
    }

    /// Waits for its end and returns what the server received, in bytes.
    fn finish(mut self) -> u64 {
        let mut text = String::new();
        self.client.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        let report: Value = serde_json::from_str(&text).unwrap();
        let ended = self.client.wait().unwrap();
        assert!(ended.success(), "{:?}", report["error"]);
        let _ = self.server.wait();
        report["end"]["sum_received"]["bytes"].as_u64().unwrap()
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.server.kill();
    }
}

#[test]
fn a_transfer_through_snat_survives_a_restart_and_a_crash() {
    let mut lab = Lab::new();
    lab.server.run("ip route add 198.18.9.9 via 198.18.2.1");
    lab.start_with_state();
    let transfer = Iperf::start(&lab, 9);
    std::thread::sleep(Duration::from_secs(2));
    let marked = || {
        let listed =
            lab.portcullis(&["conntrack", "-L", "-p", "tcp", "--dport", "5201", "-m", "5"]);
        String::from_utf8(listed.stdout).unwrap().lines().count()
    };
    assert_eq!(marked(), 2, "the transfer and its control connection");
    lab.stop();
    lab.start_with_state();
    let status = lab.status();
    let back = &status["state"]["restored"];
    assert_eq!((&back["clean"], &back["connections"]), (&true.into(), &2.into()), "{status}");
    std::thread::sleep(Duration::from_secs(2));
    lab.until("a save", || lab.status()["state"]["saves"].as_u64() > Some(0));
    lab.kill();
    lab.start_with_state();
    let status = lab.status();
    let back = &status["state"]["restored"];
    assert_eq!((&back["clean"], &back["connections"]), (&false.into(), &2.into()), "{status}");
    let listed = lab.portcullis(&["conntrack", "-L", "-p", "tcp", "-m", "5", "-n", "198.18.9.9"]);
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 2);
    let received = transfer.finish();
    // At 20 Mbit/s with two gaps.
    assert!(received > 9_000_000, "{received} bytes");
}

#[test]
fn a_file_that_cannot_be_used_is_put_aside_and_a_disk_that_is_full_survived() {
    let mut lab = Lab::new();
    // A disk of our own, that can be full.
    std::fs::create_dir_all(lab.path("state")).unwrap();
    let disk = lab.path("state").display().to_string();
    netns::shell(&format!("mount -t tmpfs -o size=2m tmpfs {disk}"));
    lab.file("state/conntrack", "this was never a state file");
    let said = lab.start_with_state();
    let wanted = "was refused: it is not a state file; starting clean, it is now";
    assert!(said.contains(wanted), "{said}");
    assert_eq!(lab.status()["state"]["restored"]["refused"], "it is not a state file");
    assert!(lab.path("state/conntrack.refused").exists());
    lab.until("a save", || lab.status()["state"]["saves"].as_u64() > Some(0));
    lab.file("state/ballast", "");
    let full = format!("dd if=/dev/zero of={disk}/ballast bs=64k 2>/dev/null || true");
    netns::shell(&full);
    lab.until("a failure", || lab.status()["state"]["failures"].as_u64() > Some(0));
    let error = lab.status()["state"]["error"].clone();
    assert!(error.as_str().unwrap().contains("No space left"), "{error}");
    assert!(lab.client.attempt("ping -c 1 -W 1 198.18.2.2").status.success(), "traffic goes on");
    std::fs::remove_file(lab.path("state/ballast")).unwrap();
    lab.until("a save again", || lab.status()["state"]["error"].is_null());
    // A second daemon on the same file is told so.
    let flags = lab.state();
    let second = lab
        .gateway
        .command(BINARY)
        .args(["run", "--on-failure", "open", "--port", "g0", "--socket"])
        .arg(lab.path("other.sock"))
        .args(&flags)
        .output()
        .unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(4), "{said}");
    assert!(said.contains("is in use by another daemon"), "{said}");
    lab.stop();
    netns::shell(&format!("umount {disk}"));
}
