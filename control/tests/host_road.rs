//! What real sockets of a machine with two ports experience behind INPUT and OUTPUT: the same
//! rules in the kernel's netfilter and in portcullis, on the same wires. Needs root.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

mod netns;
use netns::{Directory, Namespace, Process, join};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");
/// What is refused silently takes this long to be noticed.
const SHORT: Duration = Duration::from_millis(600);
const PATIENCE: Duration = Duration::from_secs(3);

/// Default deny, translations of outside and local clients, and a mark that routes.
const RULES: &str = "*mangle
-A OUTPUT -p udp -m udp --dport 9000 -j MARK --set-mark 1
COMMIT
*nat
-A PREROUTING -i h0 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 7
-A PREROUTING -i h0 -p tcp -m tcp --dport 81 -j DNAT --to-destination LOOPBACK
-A OUTPUT -p tcp -m tcp --dport 82 -j DNAT --to-destination SERVER
-A OUTPUT -p tcp -m tcp --dport 83 -j REDIRECT --to-ports 8083
-A OUTPUT -p udp -m udp --dport 83 -j REDIRECT --to-ports 8083
-A OUTPUT -p tcp -m tcp --dport 84 -j DNAT --to-destination OWN
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT DROP [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p PING -j ACCEPT
-A INPUT -p tcp -m tcp --dport 7 -j ACCEPT
-A INPUT -p tcp -m tcp --dport 17 -j ACCEPT
-A INPUT -p udp -m udp --dport 9 -j ACCEPT
-A OUTPUT -o lo -j ACCEPT
-A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A OUTPUT -p PING -j ACCEPT
-A OUTPUT -p tcp -m multiport --dports 7,8,8083,8084 -j ACCEPT
-A OUTPUT -p udp -m multiport --dports 7,9,8083,9000 -j ACCEPT
COMMIT
";

fn rules(v4: bool) -> String {
    let (ping, loopback, server, own) = match v4 {
        true => ("icmp", "127.0.0.1:17", "198.18.2.2:7", "198.18.1.1:8084"),
        false => ("ipv6-icmp", "[2001:db8:1::1]:17", "[2001:db8:2::2]:7", "[2001:db8:1::1]:8084"),
    };
    let rules = RULES.replace("PING", ping).replace("LOOPBACK", loopback);
    rules.replace("SERVER", server).replace("OWN", own)
}

/// Client, the machine, and a server that is also the router to a far network.
struct Lab {
    client: Namespace,
    host: Namespace,
    server: Namespace,
    far: Namespace,
    directory: Directory,
    daemon: Option<Process>,
}

impl Lab {
    fn new() -> Self {
        let [client, host, server, far] = ["c", "h", "s", "f"].map(Namespace::new);
        join((&client, "c0"), (&host, "h0"), 1);
        join((&server, "s0"), (&host, "h1"), 1);
        join((&far, "f0"), (&server, "s1"), 1);
        for (namespace, device, v4, v6) in [
            (&client, "c0", "198.18.1.2/24", "2001:db8:1::2/64"),
            (&host, "h0", "198.18.1.1/24", "2001:db8:1::1/64"),
            (&host, "h1", "198.18.2.1/24", "2001:db8:2::1/64"),
            (&server, "s0", "198.18.2.2/24", "2001:db8:2::2/64"),
            (&server, "s1", "203.0.113.1/24", "2001:db8:f::1/64"),
            (&far, "f0", "203.0.113.2/24", "2001:db8:f::2/64"),
            // Reached through the client by those whom a mark sends there.
            (&client, "lo", "192.0.2.9/32", "2001:db8:9::9/128"),
        ] {
            namespace.run(&format!("ip addr add {v4} dev {device}"));
            namespace.run(&format!("ip addr add {v6} dev {device} nodad"));
        }
        for (namespace, v4, v6) in [
            (&client, "198.18.1.1", "2001:db8:1::1"),
            (&host, "198.18.2.2", "2001:db8:2::2"),
            (&server, "198.18.2.1", "2001:db8:2::1"),
            (&far, "203.0.113.1", "2001:db8:f::1"),
        ] {
            namespace.run(&format!("ip route add default via {v4}; ip route add default via {v6}"));
        }
        server.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        server.run("ip route change 203.0.113.0/24 dev s1 mtu lock 1300");
        server.run("ip -6 route add 2001:db8:f::/64 dev s1 metric 1 mtu lock 1300");
        host.run("ip rule add fwmark 1 table 100; ip route add default via 198.18.1.2 table 100");
        host.run("ip -6 rule add fwmark 1 table 100");
        host.run("ip -6 route add default via 2001:db8:1::2 table 100");
        host.run("sysctl -qw net.ipv4.conf.h0.route_localnet=1");
        let serial = host.name().replace("pcd-", "");
        let directory = Directory::new(&format!("road-{serial}"));
        Self { client, host, server, far, directory, daemon: None }
    }

    fn files(&self) -> (PathBuf, PathBuf) {
        let (v4, v6) = (self.directory.join("rules.v4"), self.directory.join("rules.v6"));
        std::fs::write(&v4, rules(true)).unwrap();
        std::fs::write(&v6, rules(false)).unwrap();
        (v4, v6)
    }

    /// The rules in the kernel.
    fn netfilter() -> Self {
        let lab = Self::new();
        let (v4, v6) = lab.files();
        lab.host.run(&format!(
            "iptables-restore {}; ip6tables-restore {}",
            v4.display(),
            v6.display()
        ));
        lab
    }

    /// The rules in portcullis.
    fn portcullis(arguments: &[&str]) -> Self {
        let mut lab = Self::new();
        let (v4, v6) = lab.files();
        let mut command = lab.host.command(BINARY);
        command.args([
            "run",
            "--on-failure",
            "open",
            "--port",
            "h0",
            "--port",
            "h1",
            "--conntrack-max",
            "4096",
        ]);
        command.arg("--rules").arg(v4).arg("--rules6").arg(v6);
        command.arg("--socket").arg(lab.directory.join("control.sock")).args(arguments);
        let errors = std::fs::File::create(lab.directory.join("stderr")).unwrap();
        let (process, line) = Process::speaking(command.stderr(errors));
        lab.daemon = Some(process);
        let errors = || std::fs::read_to_string(lab.directory.join("stderr")).unwrap_or_default();
        assert!(line.starts_with("ready: "), "{line}{}", errors());
        lab
    }

    fn shows(&self, what: &str) -> serde_json::Value {
        let socket = self.directory.join("control.sock");
        let output = std::process::Command::new(BINARY)
            .args(["--json", "show", what, "--socket"])
            .arg(socket)
            .output()
            .unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn name(error: &std::io::Error) -> String {
    // A read that times out says so in another word.
    match error.kind() {
        std::io::ErrorKind::WouldBlock => "TimedOut".to_owned(),
        kind => format!("{kind:?}"),
    }
}

/// A listener at `at`. A child that another test has just forked holds the last one's socket
/// until it runs its program.
fn listen(server: &Namespace, at: SocketAddr) -> TcpListener {
    for _ in 0..500 {
        match server.enter(|| TcpListener::bind(at)) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                std::thread::sleep(Duration::from_millis(2));
            }
            outcome => return outcome.unwrap(),
        }
    }
    panic!("{at} stays in use");
}

/// What a client hears from an echo server that listens at `at` when it calls `to`.
fn tcp(from: &Namespace, to: &str, server: &Namespace, at: &str) -> String {
    let listener = listen(server, at.parse().unwrap());
    listener.set_nonblocking(true).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let heard = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                };
                stream.set_nonblocking(false)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                let mut buffer = vec![0; 40_000];
                stream.read_exact(&mut buffer)?;
                stream.write_all(&buffer)?;
            }
            std::io::Result::Ok(())
        });
        let heard = from.enter(|| {
            let mut stream = TcpStream::connect_timeout(&to.parse().unwrap(), SHORT)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let said: Vec<u8> = (0..40_000_u32).map(|i| i as u8).collect();
            stream.write_all(&said)?;
            let mut heard = vec![0; said.len()];
            stream.read_exact(&mut heard)?;
            std::io::Result::Ok(heard == said)
        });
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        heard
    });
    heard.map_or_else(|error| name(&error), |same| format!("same {same}"))
}

/// What a client hears from a UDP echo server at `at` for `length` bytes to `to`; without a
/// server, from the kernel there.
fn udp(from: &Namespace, to: &str, server: Option<(&Namespace, &str)>, length: usize) -> String {
    let to: SocketAddr = to.parse().unwrap();
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let service = server.map(|(server, at)| server.enter(|| UdpSocket::bind(at).unwrap()));
    let socket = from.enter(|| UdpSocket::bind(any)).unwrap();
    let talk = || -> std::io::Result<String> {
        from.enter(|| socket.connect(to))?;
        socket.set_read_timeout(Some(SHORT))?;
        socket.send(&vec![7; length])?;
        let mut buffer = vec![0; 65_536];
        let mut seen = String::new();
        if let Some(service) = &service {
            service.set_read_timeout(Some(SHORT))?;
            let (heard, peer) = service.recv_from(&mut buffer)?;
            service.send_to(&buffer[..heard], peer)?;
            seen = format!("{heard} from {}, ", peer.ip());
        }
        let heard = socket.recv(&mut buffer)?;
        Ok(format!("{seen}{heard} back"))
    };
    talk().unwrap_or_else(|error| name(&error))
}

/// Everything that is compared, a line each.
fn observe(lab: &Lab) -> Vec<String> {
    let Lab { client, host, server, far, .. } = lab;
    let mut seen = Vec::new();
    for v6 in [false, true] {
        let at = |v4: &str, port: u16| -> String {
            let v6_of = |v4: &str| match v4 {
                "0.0.0.0" => "::",
                "198.18.1.1" => "2001:db8:1::1",
                "198.18.2.1" => "2001:db8:2::1",
                "198.18.2.2" => "2001:db8:2::2",
                "203.0.113.2" => "2001:db8:f::2",
                "198.51.100.1" => "2001:db8:5::1",
                _ => "2001:db8:9::9",
            };
            if v6 { format!("[{}]:{port}", v6_of(v4)) } else { format!("{v4}:{port}") }
        };
        let mut note = |what: &str, outcome: String| {
            seen.push(format!("{} {what}: {outcome}", if v6 { "v6" } else { "v4" }));
        };
        let any = |port| at("0.0.0.0", port);
        note("in, allowed", tcp(client, &at("198.18.1.1", 7), host, &any(7)));
        note("in, refused", tcp(client, &at("198.18.1.1", 8), host, &any(8)));
        note("in, the other address", tcp(client, &at("198.18.2.1", 7), host, &any(7)));
        note("in, redirected", tcp(client, &at("198.18.1.1", 80), host, &any(7)));
        let loopback = if v6 { at("198.18.1.1", 17) } else { at("127.0.0.1", 17) };
        note("in, to loopback", tcp(client, &at("198.18.1.1", 81), host, &loopback));
        note("out, allowed", tcp(host, &at("198.18.2.2", 7), server, &any(7)));
        note("out, refused", tcp(host, &at("198.18.2.2", 18), server, &any(18)));
        note("out, nobody there", tcp(host, &at("198.18.2.2", 8), server, &any(7)));
        note("out, translated", tcp(host, &at("198.51.100.1", 82), server, &any(7)));
        let far_away = at("198.51.100.1", 83);
        let local = if v6 { "[::1]:8083" } else { "127.0.0.1:8083" };
        note("out, redirected to here", tcp(host, &far_away, host, local));
        note("out, UDP, redirected to here", udp(host, &far_away, Some((host, local)), 50));
        let own = at("198.18.1.1", 8084);
        note("out, to an own address", tcp(host, &at("198.51.100.1", 84), host, &own));
        let local = local.replace("8083", "8085");
        note("through loopback", tcp(host, &local, host, &local));
        note("out, narrow link", tcp(host, &at("203.0.113.2", 7), far, &any(7)));
        let route = if v6 { "2001:db8:f::2" } else { "203.0.113.2" };
        let learned = host.run(&format!("ip route get {route}"));
        note("path MTU learned", learned.contains("mtu 1300").to_string());
        note("UDP in fragments", udp(host, &at("198.18.2.2", 7), Some((server, &any(7))), 5000));
        note("UDP, long", udp(host, &at("198.18.2.2", 7), Some((server, &any(7))), 50_000));
        note(
            "in, UDP in fragments",
            udp(client, &at("198.18.1.1", 9), Some((host, &any(9))), 5000),
        );
        note("in, UDP, nobody there", udp(client, &at("198.18.1.1", 9), None, 50));
        note("out, UDP, nobody there", udp(host, &at("198.18.2.2", 9), None, 50));
        note("out, UDP, refused", udp(host, &at("198.18.2.2", 10), None, 50));
        let marked = udp(host, &at("192.0.2.9", 9000), Some((client, &at("192.0.2.9", 9000))), 50);
        note("out, routed by mark", marked);
    }
    let through =
        client.enter(|| TcpStream::connect_timeout(&"198.18.2.2:7".parse().unwrap(), SHORT));
    seen.push(format!(
        "not forwarded: {}",
        through.err().map_or("?".to_owned(), |error| name(&error))
    ));
    seen
}

/// What is documented to be different: what it is, the kernel's way, ours.
const DIFFERENT: [(&str, &str, &str); 2] = [
    // The kernel tells the caller of send(2), which is long back when our OUTPUT decides.
    ("v4 out, UDP, refused", "PermissionDenied", "TimedOut"),
    ("v6 out, UDP, refused", "PermissionDenied", "TimedOut"),
];

/// Runs the daemon with `arguments` beside the kernel with the same rules.
fn compare(arguments: &[&str], mode: &str, way: &str, xdp: &str) {
    let (kernel, ours, lab) = std::thread::scope(|scope| {
        let kernel = scope.spawn(|| observe(&Lab::netfilter()));
        let lab = Lab::portcullis(arguments);
        let ours = observe(&lab);
        (kernel.join().unwrap(), ours, lab)
    });
    let ports = lab.shows("ports");
    assert_eq!((&ports["mode"], &ports["host_road"]), (&mode.into(), &way.into()));
    assert_eq!(ports["ports"][0]["xdp"], xdp);
    assert_eq!(lab.shows("status")["host_road"], way);
    assert_eq!(lab.shows("stats")["drops"]["host_refused"].as_u64().unwrap_or(0), 0);
    for (ours, kernel) in ours.iter().zip(&kernel) {
        match DIFFERENT.iter().find(|(what, ..)| kernel.starts_with(what)) {
            Some((what, theirs, own)) => {
                assert_eq!(
                    (ours, kernel),
                    (&format!("{what}: {own}"), &format!("{what}: {theirs}"))
                );
            }
            None => assert_eq!(ours, kernel),
        }
    }
    assert_eq!(ours.len(), kernel.len());
    // And the kernel does what the rules are there to show.
    let expected =
        |what: &str| assert!(kernel.iter().any(|line| line == what), "{what}: {kernel:#?}");
    for family in ["v4", "v6"] {
        for what in [
            "in, allowed",
            "in, redirected",
            "in, to loopback",
            "out, translated",
            "out, redirected to here",
            "out, to an own address",
            "through loopback",
            "out, narrow link",
        ] {
            expected(&format!("{family} {what}: same true"));
        }
        expected(&format!("{family} path MTU learned: true"));
        let marked = kernel
            .iter()
            .any(|line| line.starts_with(&format!("{family} out, routed by mark: 50 from")));
        assert!(marked, "{kernel:#?}");
        let here = |line: &String| {
            line.starts_with(&format!("{family} out, UDP, redirected to here: 50 from"))
        };
        assert!(kernel.iter().any(here), "{kernel:#?}");
        expected(&format!("{family} in, UDP, nobody there: ConnectionRefused"));
        expected(&format!("{family} out, UDP, nobody there: ConnectionRefused"));
    }
}

#[test]
fn a_host_with_two_ports_is_served_as_by_the_kernel() {
    compare(&["--mode", "host"], "host", "io-uring", "native");
}

#[test]
fn generic_ports_have_a_host_road_too() {
    compare(&["--mode", "host", "--xdp", "generic"], "host", "io-uring", "generic");
}

#[test]
fn a_gateway_without_io_uring_is_served_as_by_the_kernel() {
    compare(&["--host-road", "plain"], "routed", "plain", "native");
}

#[test]
fn the_benchmark_runs() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/hostbench");
    let output = std::process::Command::new(script)
        .args(["--smoke", "--subjects", "kernel,host", "--binary", BINARY])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let runs: Vec<serde_json::Value> =
        said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(runs.len(), 8, "{said}");
    assert!(runs.iter().all(|run| run["mbit_s"].as_f64().unwrap() > 0.0), "{said}");
    assert!(said.contains("CPU s/GB"), "a table: {said}");
}
