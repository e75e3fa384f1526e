//! `portcullis doctor` on machines that are broken on purpose: network namespaces
//! with a veth between them. Each fault gives exactly its finding, `--fix` mends what
//! it says, and the next look is clean. Needs root.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

use dataplane::clock::Nanos;
use dataplane::packet::PortId;
use dataplane::port::afxdp::{AttachChoice, LinkInfo, OnFailure, Program, ProgramConfig};
use dataplane::port::host::{self, HostChoice};
use serde_json::Value;

mod netns;
use netns::{Namespace, Process, join};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// A gateway with one port, `g0`, and who is behind it, with everything in order.
struct Lab {
    gateway: Namespace,
    client: Namespace,
}

/// Severity, code and subject of a finding that is not just a note.
type Problem = (String, String, String);

impl Lab {
    fn new(queues: u32) -> Self {
        let (gateway, client) = (Namespace::new("gw"), Namespace::new("a"));
        join((&gateway, "g0"), (&client, "a0"), queues);
        client.run("ethtool -K a0 txvlan off >/dev/null");
        gateway.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        Self { gateway, client }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.gateway.command(BINARY);
        command.arg("--json").arg("doctor").args(arguments);
        command
    }

    /// What doctor says of `g0`, and its exit code.
    fn doctor(&self, arguments: &[&str]) -> (Vec<Value>, Option<i32>) {
        let mut all = vec!["--port", "g0", "--socket", "/run/nobody.sock"];
        if !arguments.contains(&"--on-failure") {
            all.extend(["--on-failure", "open"]);
        }
        all.extend(arguments);
        let output = self.command(&all).output().unwrap();
        (objects(&output), output.status.code())
    }

    fn problems(&self, arguments: &[&str]) -> BTreeSet<Problem> {
        problems(&self.doctor(arguments).0)
    }

    /// Everything that `--fix` could change here.
    fn state(&self) -> String {
        let gateway = self.gateway.run(
            "ethtool -k g0; sysctl -a 2>/dev/null | grep -E 'forward|rp_filter|bpf|io_uring'; \
             ip -o link | grep -o '^.*mtu [0-9]*'; mount | grep bpf; :",
        );
        gateway + &self.client.run("ethtool -k a0")
    }
}

fn objects(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let objects = text.lines().map(serde_json::from_str);
    objects.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn problems(findings: &[Value]) -> BTreeSet<Problem> {
    let word = |finding: &Value, name: &str| finding[name].as_str().unwrap_or("").to_owned();
    let severe =
        findings.iter().filter(|it| it["severity"] == "error" || it["severity"] == "warning");
    severe.map(|it| (word(it, "severity"), word(it, "code"), word(it, "subject"))).collect()
}

fn one(severity: &str, code: &str, subject: &str) -> BTreeSet<Problem> {
    BTreeSet::from([(severity.to_owned(), code.to_owned(), subject.to_owned())])
}

/// A fault: what makes it, here or behind the port, what is found, and what takes it
/// away again; nothing for `--fix`.
struct Fault {
    here: &'static str,
    behind: &'static str,
    found: (&'static str, &'static str, &'static str),
    undo: Option<&'static str>,
}

const FAULTS: [Fault; 12] = [
    Fault {
        here: "",
        behind: "ethtool -K a0 tx on >/dev/null",
        found: ("error", "peer-checksum", "g0"),
        undo: None,
    },
    Fault {
        here: "",
        behind: "ethtool -K a0 txvlan on >/dev/null",
        found: ("warning", "peer-vlan", "g0"),
        undo: None,
    },
    Fault {
        here: "sysctl -qw net.ipv4.ip_forward=0",
        behind: "",
        found: ("warning", "forwarding-v4", "net.ipv4.ip_forward"),
        undo: None,
    },
    Fault {
        here: "sysctl -qw net.ipv6.conf.all.forwarding=0",
        behind: "",
        found: ("warning", "forwarding-v6", "net.ipv6.conf.all.forwarding"),
        undo: None,
    },
    Fault {
        here: "ip link set g0 mtu 4000",
        behind: "",
        found: ("error", "mtu", "g0"),
        undo: Some("ip link set g0 mtu 1500"),
    },
    Fault {
        here: "",
        behind: "ip link set a0 mtu 3600",
        found: ("warning", "peer-mtu", "g0"),
        undo: Some("ip -n CLIENT link set a0 mtu 1500"),
    },
    Fault {
        here: "ip link set g0 down",
        behind: "",
        found: ("warning", "port-down", "g0"),
        undo: Some("ip link set g0 up"),
    },
    Fault {
        here: "",
        behind: "ip link set a0 down",
        found: ("warning", "carrier", "g0"),
        undo: Some("ip -n CLIENT link set a0 up"),
    },
    Fault {
        here: "ip link add br0 type bridge; ip link set g0 master br0",
        behind: "",
        found: ("error", "port-enslaved", "g0"),
        undo: Some("ip link del br0"),
    },
    Fault {
        here: "tc qdisc add dev g0 clsact; tc filter add dev g0 ingress protocol ip u32 match u32 0 0",
        behind: "",
        found: ("warning", "tc-filter", "g0"),
        undo: Some("tc qdisc del dev g0 clsact"),
    },
    Fault {
        here: "iptables-nft -A INPUT -p tcp --dport 23 -j DROP",
        behind: "",
        found: ("warning", "kernel-rules", "ip filter"),
        undo: Some("iptables-nft -F INPUT"),
    },
    Fault {
        here: "iptables-legacy -P FORWARD DROP",
        behind: "",
        found: ("warning", "kernel-rules", "iptables-legacy"),
        undo: Some("iptables-legacy -P FORWARD ACCEPT"),
    },
];

/// Makes the fault, expects its finding, mends it, expects nothing.
fn check(lab: &Lab, clean: &BTreeSet<Problem>, fault: &Fault) {
    let Fault { here, behind, found: (severity, code, subject), undo } = fault;
    lab.client.run(behind);
    lab.gateway.run(here);
    let (findings, exit) = lab.doctor(&[]);
    let new: BTreeSet<_> = problems(&findings).difference(clean).cloned().collect();
    assert_eq!(new, one(severity, code, subject), "{code}: {findings:#?}");
    if clean.is_empty() {
        assert_eq!(exit, Some(if *severity == "error" { 1 } else { 6 }), "{code}");
    }
    let finding = findings.iter().find(|it| it["code"] == *code).unwrap();
    assert_eq!(finding["fixable"], undo.is_none(), "{finding}");
    match undo {
        None => {
            let (said, _) = lab.doctor(&["--fix"]);
            let ran: Vec<_> = said.iter().filter(|it| it["event"] == "fix").collect();
            assert_eq!(ran.len(), 1, "{code}: {ran:?}");
            assert_eq!(ran[0]["command"], finding["command"]);
            assert_eq!(ran[0]["outcome"], "done", "{ran:?}");
            assert_eq!(&problems(&said), clean, "{code}: it looked again after mending");
        }
        Some(undo) => {
            lab.gateway.run(&undo.replace("CLIENT", lab.client.name()));
        }
    }
    assert_eq!(&lab.problems(&[]), clean, "{code} is still there");
}

#[test]
fn every_fault_gives_its_finding_and_fix_mends_what_it_says() {
    let lab = Lab::new(1);
    // Of the machine itself, not of the port.
    let clean = lab.problems(&[]);
    let of_port = clean.iter().find(|(_, _, subject)| subject == "g0");
    assert_eq!(of_port, None, "a port in order");
    FAULTS.iter().for_each(|fault| check(&lab, &clean, fault));
    // Nothing is left to do.
    let (said, _) = lab.doctor(&["--fix"]);
    assert!(said.iter().all(|it| it["event"] != "fix"), "{said:?}");
}

#[test]
fn another_program_and_another_number_of_queues_are_found() {
    let lab = Lab::new(2);
    let clean = lab.problems(&[]);
    let new: BTreeSet<_> = lab.problems(&["--workers", "1"]).difference(&clean).cloned().collect();
    assert_eq!(new, one("error", "queues", "g0"));
    assert_eq!(lab.problems(&["--workers", "2"]), clean);

    let config = ProgramConfig {
        routed: true,
        host: false,
        on_failure: OnFailure::Open,
        beat_limit: Nanos(0),
        queues: 2,
        blocklist: None,
    };
    // Nobody holds the port, so these programs belong to somebody else.
    let program = lab.gateway.enter(|| {
        let mut program = Program::load(config).unwrap();
        let link = LinkInfo::of("g0").unwrap();
        program.attach(PortId(0), &link, AttachChoice::Generic).unwrap();
        program
    });
    let new: BTreeSet<_> = lab.problems(&[]).difference(&clean).cloned().collect();
    assert_eq!(new, one("error", "xdp-foreign", "g0"));
    drop(program);
    assert_eq!(lab.problems(&[]), clean);
    let held = lab.gateway.enter(|| {
        let mut program = Program::load(config).unwrap();
        let link = LinkInfo::of("g0").unwrap();
        let queues = host::open(&mut program, &[link], 1, HostChoice::Auto).unwrap();
        (program, queues)
    });
    let new: BTreeSet<_> = lab.problems(&[]).difference(&clean).cloned().collect();
    assert_eq!(new, one("warning", "tcx-foreign", "g0"));
    drop(held);
    assert_eq!(lab.problems(&[]), clean);

    let (findings, exit) = lab.doctor(&["--port", "g9"]);
    assert_eq!(exit, Some(1));
    assert!(problems(&findings).is_superset(&one("error", "port-missing", "g9")));
}

#[test]
fn without_fix_nothing_changes() {
    let lab = Lab::new(1);
    lab.client.run("ethtool -K a0 tx on txvlan on >/dev/null");
    lab.gateway.run("sysctl -qw net.ipv4.ip_forward=0");
    let before = lab.state();
    lab.doctor(&[]);
    assert_eq!(lab.state(), before);
    let (said, exit) = lab.doctor(&["--fix", "--dry-run"]);
    assert_eq!(lab.state(), before);
    assert_eq!(exit, Some(1));
    let shown: Vec<_> = said.iter().filter(|it| it["event"] == "fix").collect();
    assert_eq!(shown.len(), 3, "{shown:?}");
    assert!(shown.iter().all(|it| it["outcome"] == "would run"), "{shown:?}");
}

#[test]
fn a_running_daemon_is_asked_for_what_is_in_force() {
    let lab = Lab::new(1);
    let socket = std::env::temp_dir().join(format!("{}.sock", lab.gateway.name()));
    let socket_text = socket.to_str().unwrap();
    let mut daemon = lab.gateway.command(BINARY);
    daemon.args(["run", "--port", "g0", "--conntrack-max", "65536", "--socket", socket_text]);
    daemon.args(["--on-failure", "open"]);
    let (mut daemon, line) = Process::speaking(daemon.stderr(Stdio::null()));
    let output = lab.command(&["--socket", socket_text]).output().unwrap();
    // In text too.
    let mut text = lab.gateway.command(BINARY);
    let text = text.args(["doctor", "--verbose", "--socket", socket_text]).output().unwrap();
    let stopped = Command::new(BINARY).args(["stop", "--socket", socket_text]).status().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let _ = std::fs::remove_file(&socket);

    assert!(line.starts_with("ready: ") && stopped.success(), "{line}");
    let findings = objects(&output);
    let of = |code: &str| findings.iter().find(|it| it["code"] == code);
    let says = |code: &str| of(code).and_then(|it| it["message"].as_str()).unwrap_or("");
    assert_eq!(says("xdp-mode"), "is in native mode");
    assert_eq!(says("zero-copy"), "is in copy mode");
    assert_eq!(says("queues"), "1 queue(s), each with a worker");
    assert_eq!(says("conntrack-full"), "0 of 65536 connections");
    assert_eq!(of("policy-open").unwrap()["severity"], "note");
    for code in ["xdp-foreign", "tcx-foreign", "port-held", "host-road", "tc-filter"] {
        let severity = of(code).map(|it| &it["severity"]);
        assert!(severity.is_none_or(|it| it == "ok"), "{code}: {findings:#?}");
    }
    let text = String::from_utf8_lossy(&text.stdout);
    assert!(text.contains("ok      xdp-mode          g0: is in native mode\n"), "{text}");
}

/// A bpffs of the test's own, outside of any namespace; gone with it.
struct Bpffs(std::path::PathBuf);

impl Drop for Bpffs {
    fn drop(&mut self) {
        netns::shell(&format!("umount {0}; rmdir {0}", self.0.display()));
    }
}

#[test]
fn closed_ports_are_told_from_foreign_programs() {
    let lab = Lab::new(1);
    let place = std::env::temp_dir().join(format!("{}-bpffs", lab.gateway.name()));
    netns::shell(&format!("mkdir {0}; mount -t bpf bpf {0}", place.display()));
    let place = Bpffs(place);
    let socket = std::env::temp_dir().join(format!("{}-closed.sock", lab.gateway.name()));
    let (pins, socket_text) = (place.0.to_str().unwrap(), socket.to_str().unwrap());
    let closed = ["--on-failure", "closed", "--pin-dir", pins];

    // Closed wants no forwarding by the kernel, and nothing else is up here.
    let clean = lab.problems(&[]);
    let (findings, _) = lab.doctor(&closed);
    let new: Vec<_> = problems(&findings).difference(&clean).map(|it| it.1.clone()).collect();
    assert_eq!(new, ["forwarding-v4", "forwarding-v6"], "{findings:#?}");
    let mut all = closed.to_vec();
    all.push("--fix");
    assert_eq!(problems(&lab.doctor(&all).0), clean);
    assert_eq!(lab.gateway.run("sysctl -n net.ipv4.ip_forward").trim(), "0");

    let mut daemon = lab.gateway.command(BINARY);
    daemon.args(["run", "--port", "g0", "--conntrack-max", "65536", "--socket", socket_text]);
    let (mut daemon, line) = Process::speaking(daemon.args(closed));
    let running = lab.command(&["--socket", socket_text]).output().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let _ = std::fs::remove_file(&socket);
    let new: BTreeSet<_> = lab.problems(&closed).difference(&clean).cloned().collect();
    lab.gateway.run(&format!("{BINARY} release --all --pin-dir {pins}"));
    let released = lab.problems(&closed);

    assert!(line.starts_with("ready: "), "{line}");
    assert_eq!(problems(&objects(&running)), clean, "closed is known from the daemon");
    assert_eq!(new, one("warning", "port-pinned", "g0"));
    assert_eq!(released, clean);
}

#[test]
fn without_privilege_it_says_what_it_could_not_see() {
    let lab = Lab::new(1);
    let line = format!(
        "setpriv --reuid 65534 --regid 65534 --clear-groups {BINARY} --json doctor --port g0 \
         --on-failure open --socket /run/nobody.sock"
    );
    let output = lab.gateway.attempt(&line);
    // A test binary may lie where only root can read it.
    let reachable = !String::from_utf8_lossy(&output.stderr).contains("ermission denied");
    let output = if reachable { output } else { elsewhere(&lab, &line) };
    let findings = objects(&output);
    let unseen = findings.iter().filter(|it| it["code"] == "not-seen");
    let unseen: Vec<_> = unseen.filter_map(|it| it["message"].as_str()).collect();
    for what in ["bpf-load", "host-road-link", "kernel-rules", "tcx-foreign"] {
        let said = format!("{what}: not visible without CAP_");
        assert!(unseen.iter().any(|it| it.starts_with(&said)), "{what}: {unseen:#?}");
    }
    assert!(findings.iter().any(|it| it["code"] == "privilege" && it["severity"] == "note"));
    assert_eq!(problems(&findings).iter().find(|it| it.0 == "error"), None);
}

/// The same with a copy of the binary where everyone can reach it.
fn elsewhere(lab: &Lab, line: &str) -> Output {
    let copy = std::env::temp_dir().join(format!("{}-binary", lab.gateway.name()));
    std::fs::copy(BINARY, &copy).unwrap();
    let output = lab.gateway.attempt(&line.replace(BINARY, copy.to_str().unwrap()));
    std::fs::remove_file(&copy).unwrap();
    output
}

#[test]
fn files_are_checked() {
    let lab = Lab::new(1);
    let directory = std::env::temp_dir().join(format!("{}-files", lab.gateway.name()));
    std::fs::create_dir(&directory).unwrap();
    let config = directory.join("portcullis.toml");
    let rules = directory.join("rules.v4");
    std::fs::write(&rules, "*filter\n-A FORWARD -j NOSUCH\nCOMMIT\n").unwrap();
    std::fs::write(&config, "ports = [\"g0\"]\nprots = 1\n").unwrap();
    let run = || {
        let arguments = ["--config", config.to_str().unwrap(), "--rules", rules.to_str().unwrap()];
        let output = lab.command(&arguments).output().unwrap();
        (objects(&output), output.status.code())
    };
    let (bad, exit) = run();
    std::fs::write(&config, "ports = [\"g0\"]\n").unwrap();
    std::fs::write(&rules, "*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n").unwrap();
    let (good, _) = run();
    std::fs::remove_dir_all(&directory).unwrap();

    assert_eq!(exit, Some(1));
    let find = |findings: &[Value], code: &str| {
        findings.iter().find(|it| it["code"] == code).cloned().unwrap_or_default()
    };
    let place = find(&bad, "configuration")["subject"].as_str().unwrap_or("").to_owned();
    assert!(place.ends_with("portcullis.toml:2:1"), "{place}");
    assert_eq!(find(&bad, "rules")["severity"], "error");
    assert!(find(&bad, "rules")["message"].as_str().unwrap().contains("line 2"), "{bad:#?}");
    assert_eq!(find(&good, "configuration"), Value::Null);
    assert_eq!(find(&good, "rules")["severity"], "ok");
    assert_eq!(find(&good, "driver")["subject"], "g0");
}
