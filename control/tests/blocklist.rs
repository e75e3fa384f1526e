//! Source blocklists in the real XDP program: the same frames through a daemon and through a
//! kernel with the same rules and sets, and the same counters in the end. Needs root.

#![allow(clippy::disallowed_methods, reason = "tests wait on real time")]

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use dataplane::packet::Mac;
use dataplane::wire::build::Packet;
use serde_json::Value;

mod netns;
use netns::{Directory, Namespace, Process, join};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");
const OWN: Mac = Mac([2, 0, 0, 0, 1, 1]);
const PEER: Mac = Mac([2, 0, 0, 0, 1, 2]);

const RULES: &str = "*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -i lo -j ACCEPT
-A PREROUTING -i g0 -m set --match-set blocked src -j DROP
-A PREROUTING -m set --match-set nets src -j DROP
-A PREROUTING -s 10.7.0.0/16 -j DROP
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -p udp -j ACCEPT
COMMIT
";
const RULES6: &str = "*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -m set --match-set blocked6 src -j DROP
COMMIT
";
const SETS: &str = "create blocked hash:ip maxelem 100000
add blocked 10.9.0.1
add blocked 10.9.0.2
create other hash:ip maxelem 100000
add other 10.9.0.5
create nets hash:net
add nets 10.8.0.0/16
add nets 10.8.3.0/24 nomatch
add nets 10.9.0.2
create blocked6 hash:net family inet6
add blocked6 2001:db8:bad::/48
add blocked6 2001:db8:bad:1::1 nomatch
";

/// A gateway between two networks, and who sends to it.
struct Gateway {
    client: Namespace,
    router: Namespace,
    _server: Namespace,
}

impl Gateway {
    fn new(role: &str) -> Self {
        let name = |part: &str| Namespace::new(&format!("{part}{role}"));
        let (client, router, server) = (name("a"), name("gw"), name("b"));
        join((&client, "a0"), (&router, "g0"), 1);
        join((&server, "b0"), (&router, "g1"), 1);
        client.run("sysctl -qw net.ipv6.conf.a0.disable_ipv6=1");
        server.run("sysctl -qw net.ipv6.conf.b0.disable_ipv6=1");
        for (number, device) in ["g0", "g1"].iter().enumerate() {
            let (net, host) = (number + 1, number + 1);
            router.run(&format!(
                "ip link set {device} address 02:00:00:00:0{net}:01; \
                 sysctl -qw net.ipv4.conf.{device}.rp_filter=0 net.ipv6.conf.{device}.forwarding=1; \
                 ip addr add 198.18.{net}.1/24 dev {device}; \
                 ip addr add 2001:db8:{net}::1/64 dev {device} nodad; \
                 ip neigh add 198.18.{net}.99 lladdr 02:00:00:00:0{host}:99 dev {device}; \
                 ip neigh add 2001:db8:{net}::99 lladdr 02:00:00:00:0{host}:99 dev {device}"
            ));
        }
        router.run(
            "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.ip_forward=1 \
             net.ipv6.conf.all.forwarding=1",
        );
        Self { client, router, _server: server }
    }

    fn send(&self, frames: &[Vec<u8>]) {
        let script = "import socket,sys\ns=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)\n\
             s.bind(('a0',0))\nfor l in sys.stdin: s.send(bytes.fromhex(l))";
        let mut command = self.client.command("python3");
        let mut child = command.args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
        let mut text = String::new();
        for frame in frames {
            frame.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text.push('\n');
        }
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    fn pipe(&self, line: &str, text: &str) {
        let mut command = self.router.command("sh");
        let mut child = command.args(["-c", line]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{line}");
    }
}

/// Frames of many kinds from a source.
fn frames(source: &str) -> Vec<Vec<u8>> {
    let to = if source.contains(':') { "2001:db8:2::99" } else { "198.18.2.99" };
    let udp = |port, length| Packet::udp(source, 9, to, port).payload_len(length);
    let whole = |packet: Packet| packet.macs(PEER, OWN).build();
    let mut frames = vec![
        whole(udp(9, 10)),
        whole(udp(9, 1000)),
        whole(udp(67, 30)),
        whole(Packet::tcp(source, 9, to, 80, 2)),
        whole(Packet::ping(source, to, 1, 1)),
        whole(udp(9, 3).padding(20)),
        whole(Packet::udp(source, 9, to, 9).macs(PEER, Mac([2; 6]))),
    ];
    if !source.contains(':') {
        frames.extend([
            whole(udp(9, 10).options(&[1, 1, 1, 1])),
            whole(udp(9, 10).bad_ip_checksum()),
            whole(Packet::tcp(source, 9, to, 80, 2).truncate(14 + 20 + 20).length(28)),
            whole(udp(9, 64).id(7).fragment(0, 32, true)),
            whole(udp(9, 64).id(7).fragment(32, 40, false)),
            whole(udp(9, 10).ttl(1)),
        ]);
        // To another machine.
        frames.push(Packet::udp(source, 9, to, 9).macs(PEER, Mac([2; 6])).build());
    }
    frames.remove(6);
    frames
}

struct Lab {
    ours: Gateway,
    kernel: Gateway,
    directory: Directory,
    daemon: Option<Process>,
}

impl Lab {
    fn start(rules: &str, more: &str) -> Self {
        let (ours, kernel) = (Gateway::new("o"), Gateway::new("k"));
        let serial = ours.router.name().replace("pcd-", "");
        let directory = Directory::new(&format!("block-{serial}"));
        for (name, text) in [("rules.v4", rules), ("rules.v6", RULES6), ("sets.save", SETS)] {
            std::fs::write(directory.join(name), text).unwrap();
        }
        let config = format!(
            "ports = [\"g0\", \"g1\"]\n[policy]\nrules = \"rules.v4\"\nrules6 = \"rules.v6\"\n\
             sets = [\"sets.save\"]\n[state]\nfile = \"none\"\n[control]\nsocket = \"control.sock\"\n\
             [failure]\non-failure = \"open\"\n{more}"
        );
        std::fs::write(directory.join("portcullis.toml"), config).unwrap();
        kernel.pipe("ipset restore", SETS);
        kernel.pipe("iptables-legacy-restore", rules);
        kernel.pipe("ip6tables-legacy-restore", RULES6);
        let mut lab = Self { ours, kernel, directory, daemon: None };
        let errors = std::fs::File::create(lab.directory.join("stderr")).unwrap();
        let mut command = lab.ours.router.command(BINARY);
        command.args(["run", "--config"]).arg(lab.directory.join("portcullis.toml"));
        let (process, line) = Process::speaking(command.stderr(errors));
        lab.daemon = Some(process);
        assert!(line.starts_with("ready: "), "{line}{}", lab.stderr());
        lab
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.directory.join("stderr")).unwrap_or_default()
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let socket = self.directory.join("control.sock");
        Command::new(BINARY).args(arguments).arg("--socket").arg(socket).output().unwrap()
    }

    fn text(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.stderr());
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[&["--json"], arguments].concat())).unwrap()
    }

    /// One change of the sets, on both sides.
    fn set(&self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        self.text(&[&["set"], &words[..]].concat());
        self.kernel.router.run(&format!("ipset {line}"));
    }

    fn send(&self, frames: &[Vec<u8>]) {
        self.ours.send(frames);
        self.kernel.send(frames);
    }

    /// Waits until the program has every rule that it is to have.
    fn pushed(&self, wanted: usize) {
        let mut told = Value::Null;
        let found = soon(|| {
            told = self.json(&["show", "blocklist"]);
            let rules = told["rules"].as_array().unwrap();
            let whole = |rule: &&Value| rule["pushed"] == true && rule["held"] == rule["elements"];
            rules.iter().filter(whole).count() == wanted
        });
        assert!(found, "{told:#}\n{}", self.stderr());
    }

    /// The counters of both sides, in `iptables-save -c` form.
    fn compare(&self) {
        let lines = |text: String| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
        };
        let kernel = |tool: &str| {
            let text = self.kernel.router.run(&format!("{tool}-legacy-save -c -t raw"));
            let filter = match tool {
                "iptables" => self.kernel.router.run("iptables-legacy-save -c -t filter"),
                _ => String::new(),
            };
            lines(text + &filter)
        };
        let (v4, v6) = (kernel("iptables"), kernel("ip6tables"));
        let (mut ours, mut ours6) = (Vec::new(), Vec::new());
        let same = soon(|| {
            ours = lines(self.text(&["show", "rules", "--save", "-c"]));
            ours6 = lines(self.text(&["show", "rules", "-6", "--save", "-c"]));
            // Policies of IPv6 see neighbour discovery.
            let rules = |lines: &[String]| -> Vec<String> {
                lines.iter().filter(|line| line.starts_with('[')).cloned().collect()
            };
            ours == v4 && rules(&ours6) == rules(&v6)
        });
        assert!(same, "{ours:#?}\n{v4:#?}\n{ours6:#?}\n{v6:#?}");
    }

    /// What the program has dropped.
    fn blocked(&self) -> u64 {
        let told = self.json(&["show", "ports"]);
        told["ports"][0]["xdp_counters"]["blocked"].as_u64().unwrap()
    }
}

fn soon(mut check: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        if check() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

const SOURCES: [&str; 9] = [
    "10.9.0.1",
    "10.9.0.2",
    "10.9.0.3",
    "10.8.0.1",
    "10.8.3.1",
    "10.7.0.1",
    "2001:db8:bad::1",
    "2001:db8:bad:1::1",
    "2001:db8:9::1",
];

fn all() -> Vec<Vec<u8>> {
    SOURCES.iter().flat_map(|source| frames(source)).collect()
}

#[test]
fn rules_in_the_program_drop_and_count_as_the_kernel_does() {
    let lab = Lab::start(RULES, "");
    lab.pushed(3);
    lab.send(&all());
    lab.compare();
    let first = lab.blocked();
    assert!(first > 15, "{first}");
    let totals = |lab: &Lab| {
        let stats = lab.json(&["show", "stats"]);
        let ports = lab.json(&["show", "ports"]);
        (
            stats["drops"]["rule"].as_u64().unwrap(),
            ports["ports"][0]["rx_packets"].as_u64().unwrap(),
        )
    };
    let (drops, received) = totals(&lab);
    assert_eq!(received as usize, all().len(), "what is dropped ahead was received too");
    assert!(drops >= first);

    // Elements come and go.
    for line in ["add blocked 10.9.0.3", "del blocked 10.9.0.1", "del nets 10.8.3.0/24"] {
        lab.set(line);
        lab.send(&all());
        lab.compare();
    }
    lab.set("add nets 10.8.0.0/24 nomatch");
    lab.send(&all());
    lab.compare();
    lab.pushed(3);
    // Sets change places, and are emptied; then the program has them again.
    for line in ["swap blocked other", "flush nets", "add nets 10.9.0.0/29", "swap blocked other"] {
        lab.set(line);
        lab.send(&all());
        lab.pushed(3);
        lab.send(&all());
        lab.compare();
    }
    let (drops, received) = totals(&lab);
    assert_eq!(received as usize, all().len() * 13);
    let shown = lab.json(&["show", "rules"]);
    let chains = shown["chains"].as_array().unwrap().iter();
    let rules = chains.flat_map(|chain| chain["rules"].as_array().unwrap());
    let drop = rules.filter(|rule| rule["text"].as_str().unwrap().ends_with("-j DROP"));
    let by_rules: u64 = drop.map(|rule| rule["packets"].as_u64().unwrap()).sum();
    assert_eq!(drops, by_rules);
    assert!(lab.blocked() > first * 8);
}

#[test]
fn a_policy_that_comes_later_has_the_counts_of_its_rules_and_the_program() {
    let lab = Lab::start(RULES, "");
    lab.pushed(3);
    lab.send(&all());
    lab.compare();
    let counts = |lab: &Lab| {
        let text = lab.text(&["show", "rules", "--save", "-c"]);
        let mut rules = text.lines().filter(|line| line.contains("match-set"));
        rules.next().unwrap().split(' ').next().unwrap().to_owned()
    };
    let before = counts(&lab);
    let apply = |rules: &str| {
        let path = lab.directory.join("next.v4");
        std::fs::write(&path, rules).unwrap();
        lab.text(&["apply", "--rules", path.to_str().unwrap()]);
    };
    let blocked = lab.blocked();
    // A rule in front of it that may accept: it is the engine's again.
    let front = "-A PREROUTING -i g0 -m set";
    apply(&RULES.replace(front, &format!("-A PREROUTING -s 10.9.0.1 -j ACCEPT\n{front}")));
    assert_eq!(counts(&lab), before);
    lab.ours.send(&frames("10.9.0.2"));
    assert!(soon(|| counts(&lab) != before));
    assert_eq!(lab.blocked(), blocked);
    let told = lab.text(&["show", "blocklist"]);
    assert!(told.contains("by the engine: rule 2, before it, may do something"), "{told}");
    assert!(told.contains("IPv4 raw PREROUTING 3"), "{told}");
    apply(RULES);
    lab.pushed(3);
    lab.ours.send(&frames("10.9.0.2"));
    assert!(soon(|| lab.blocked() > blocked));
}

#[test]
fn what_cannot_be_pushed_is_told() {
    let lab = Lab::start(RULES, "[xdp]\nblocklist = 0\n");
    let told = lab.text(&["show", "blocklist"]);
    assert!(told.starts_with("off: xdp.blocklist is 0\n"), "{told}");
    lab.send(&all());
    lab.compare();
    assert_eq!(lab.blocked(), 0);
    drop(lab);
    let late = RULES.replace("-A PREROUTING -i lo -j ACCEPT", "-A PREROUTING -p icmp");
    let lab = Lab::start(&late, "");
    lab.pushed(1);
    let told = lab.text(&["show", "blocklist"]);
    assert_eq!(told.matches("by the engine: rule 1, before it, may").count(), 2, "{told}");
    lab.send(&all());
    lab.compare();
}
