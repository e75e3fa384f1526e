//! A gateway under Portcullis between two plain machines, for services that talk
//! to a link and not to a host.

use std::process::{Output, Stdio};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use serde_json::Value;

use super::netns::{Directory, Namespace, Process, join};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// Everything denied, but for the given rules.
pub(crate) fn denied_but(rules: &str) -> String {
    format!("*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT DROP [0:0]\n{rules}COMMIT\n")
}

/// `a` - `g0` gateway `g1` - `b`.
pub(crate) struct Lab {
    daemon: Option<Process>,
    pub(crate) a: Namespace,
    pub(crate) b: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) directory: Directory,
}

impl Lab {
    /// Links without addresses; routers on all sides.
    pub(crate) fn new() -> Self {
        let (a, gateway, b) = (Namespace::new("a"), Namespace::new("gw"), Namespace::new("b"));
        join((&a, "a0"), (&gateway, "g0"), 1);
        join((&b, "b0"), (&gateway, "g1"), 1);
        gateway.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        let directory = Directory::new(gateway.name());
        Self { daemon: None, a, b, gateway, directory }
    }

    /// With an IPv4 network on both sides.
    pub(crate) fn addressed() -> Self {
        let lab = Self::new();
        lab.a.run("ip addr add 198.18.1.2/24 dev a0; ip route add default via 198.18.1.1");
        lab.b.run("ip addr add 198.18.2.2/24 dev b0; ip route add default via 198.18.2.1");
        lab.gateway.run("ip addr add 198.18.1.1/24 brd + dev g0");
        lab.gateway.run("ip addr add 198.18.2.1/24 brd + dev g1");
        lab
    }

    /// Writes a file; returns its path as text.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A path in the lab's directory.
    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    /// What a file of the lab holds; nothing when there is none.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.join(name)).unwrap_or_default()
    }

    /// Starts the daemon with the same rules for both families.
    pub(crate) fn start(&mut self, rules: &str) {
        let rules = self.file("rules", rules);
        let errors = std::fs::File::create(self.directory.join("stderr")).unwrap();
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
        command.args(["--rules", &rules, "--rules6", &rules]);
        command.args(["--log", &self.path("log"), "--socket", &self.path("control.sock")]);
        let (child, line) = Process::speaking(command.stderr(errors));
        self.daemon = Some(child);
        assert!(line.starts_with("ready: "), "{line}{}", self.read("stderr"));
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = std::process::Command::new(BINARY);
        command.args(arguments).args(["--socket", &self.path("control.sock")]);
        command.output().unwrap()
    }

    /// Puts other rules in force, for both families.
    pub(crate) fn apply(&self, rules: &str) {
        let rules = self.file("rules.new", rules);
        let output = self.cli(&["apply", "--rules", &rules, "--rules6", &rules]);
        assert!(output.status.success(), "{output:?}");
    }

    /// Packets that met rule `number` of a chain; number 0 is its policy.
    pub(crate) fn hits(&self, family: &str, chain: &str, number: usize) -> u64 {
        let output = self.cli(&["--json", "show", "rules", family, "--chain", chain]);
        assert!(output.status.success(), "{output:?}");
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        let chain = &shown["chains"][0];
        let counted = match number.checked_sub(1) {
            Some(index) => &chain["rules"][index]["packets"],
            None => &chain["packets"],
        };
        counted.as_u64().unwrap_or_else(|| panic!("no counter {number} in {chain}"))
    }

    /// Frames dropped for that reason.
    pub(crate) fn drops(&self, reason: &str) -> u64 {
        let output = self.cli(&["--json", "show", "stats"]);
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        shown["drops"][reason].as_u64().unwrap_or(0)
    }

    /// Starts a program inside, its words in `NAME.log`.
    pub(crate) fn spawn(&self, inside: &Namespace, name: &str, line: &str) -> Process {
        let log = std::fs::File::create(self.directory.join(format!("{name}.log"))).unwrap();
        let mut command = inside.command("sh");
        command.args(["-c", &format!("exec {line}")]).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Process::start(&mut command)
    }

    /// Waits (bounded) for a condition of the running network.
    pub(crate) fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = monotonic();
        while !done() {
            let waited = monotonic().saturating_sub(start);
            assert!(waited < Nanos::from_secs(20), "never: {what}\n{}", self.read("stderr"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
