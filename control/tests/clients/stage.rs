//! A small office behind a gateway: two hosts on one LAN, the daemon on AF_XDP
//! between them and the provider, a router of the provider's with a narrow link
//! behind it, and a server. The provider knows no way to the LAN's addresses.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};

use crate::netns::{Directory, Namespace, Process, join};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

/// The gateway's address on the provider's side.
pub(crate) const GATEWAY: &str = "198.18.2.1";
/// The server, and the same in IPv6.
pub(crate) const SERVER: &str = "198.18.3.2";
pub(crate) const SERVER6: &str = "2001:db8:3::2";
/// MTU of the link to the server.
pub(crate) const NARROW: u32 = 1280;

pub(crate) struct Stage {
    pub(crate) client: Namespace,
    pub(crate) neighbour: Namespace,
    #[allow(dead_code, reason = "not every test changes its ports")]
    pub(crate) switch: Namespace,
    pub(crate) gateway: Namespace,
    #[allow(dead_code, reason = "not every test changes its routes")]
    pub(crate) provider: Namespace,
    pub(crate) server: Namespace,
    pub(crate) directory: Directory,
    daemon: Option<Process>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let [client, neighbour, switch, gateway, provider, server] =
            ["c", "n", "sw", "gw", "isp", "srv"].map(Namespace::new);
        switch.run("ip link add br0 type bridge && ip link set br0 up");
        join((&client, "c0"), (&switch, "p0"), 1);
        join((&neighbour, "n0"), (&switch, "p1"), 1);
        join((&gateway, "g0"), (&switch, "p2"), 1);
        join((&gateway, "g1"), (&provider, "r0"), 1);
        join((&provider, "r1"), (&server, "s0"), 1);
        for port in ["p0", "p1", "p2"] {
            switch.run(&format!("ip link set {port} master br0"));
        }
        let addresses = [
            (&client, "c0", "10.7.0.2/24 fd00:7::2/64"),
            (&neighbour, "n0", "10.7.0.3/24 fd00:7::3/64"),
            (&gateway, "g0", "10.7.0.1/24 fd00:7::1/64"),
            (&gateway, "g1", "198.18.2.1/24 2001:db8:2::1/64"),
            (&provider, "r0", "198.18.2.254/24 2001:db8:2::fe/64"),
            (&provider, "r1", "198.18.3.254/24 2001:db8:3::fe/64"),
            (&server, "s0", "198.18.3.2/24 2001:db8:3::2/64"),
        ];
        for (host, device, list) in addresses {
            for address in list.split(' ') {
                host.run(&format!("ip addr add {address} dev {device}"));
            }
        }
        for (host, v4, v6) in [
            (&client, "10.7.0.1", "fd00:7::1"),
            (&neighbour, "10.7.0.1", "fd00:7::1"),
            (&gateway, "198.18.2.254", "2001:db8:2::fe"),
            (&server, "198.18.3.254", "2001:db8:3::fe"),
        ] {
            host.run(&format!("ip route add default via {v4} && ip -6 route add default via {v6}"));
        }
        provider.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for (host, device) in [(&provider, "r1"), (&server, "s0")] {
            host.run(&format!("ip link set {device} mtu {NARROW}"));
        }
        let directory = Directory::new(gateway.name());
        Self { client, neighbour, switch, gateway, provider, server, directory, daemon: None }
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A bpffs of our own: `ip netns exec` hides the usual one.
    pub(crate) fn pins(&self) -> PathBuf {
        let pins = self.directory.join("bpf");
        std::fs::create_dir(&pins).unwrap();
        crate::netns::shell(&format!("mount -t bpf bpf {}", pins.display()));
        pins
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// Starts the daemon on both sides of the gateway and waits until frames flow.
    pub(crate) fn start(&mut self, rules: &str, rules6: &str, more: &[&str]) {
        let (v4, v6) = (self.file("rules.v4", rules), self.file("rules.v6", rules6));
        let errors = std::fs::File::create(self.directory.join("stderr")).unwrap();
        let mut command = self.gateway.command(BINARY);
        command.args(["run", "--port", "g0", "--port", "g1"]).args(more);
        if !more.contains(&"--on-failure") {
            command.args(["--on-failure", "open"]);
        }
        command.arg("--rules").arg(v4).arg("--rules6").arg(v6);
        command.arg("--socket").arg(self.socket()).arg("--log").arg(self.directory.join("log"));
        let (process, line) = Process::speaking(command.stderr(errors));
        self.daemon = Some(process);
        assert!(line.starts_with("ready: "), "{line}{}", self.errors());
    }

    /// Ends the daemon with a signal and waits for it.
    pub(crate) fn end(&mut self, signal: &str) {
        let mut daemon = self.daemon.take().expect("it runs");
        crate::netns::shell(&format!("kill -{signal} {}", daemon.id()));
        let _ = daemon.wait();
    }

    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(self.directory.join("stderr")).unwrap_or_default()
    }

    /// A command of ours that talks to the daemon.
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let output = Command::new(BINARY)
            .args(arguments)
            .arg("--socket")
            .arg(self.socket())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// A background process in a namespace.
    pub(crate) fn spawn(&self, host: &Namespace, line: &str) -> Process {
        let mut command = host.command("sh");
        command.args(["-c", &format!("exec {line}")]).current_dir(&self.directory);
        Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    /// Waits (bounded) until a TCP or UDP port is open in a namespace.
    pub(crate) fn until_open(&self, host: &Namespace, socket: &str) {
        self.until(socket, || {
            let line = format!("ss -Hltun 'sport = :{socket}' | grep -q .");
            host.attempt(&line).status.success()
        });
    }

    pub(crate) fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = monotonic();
        while !done() {
            let waited = monotonic().saturating_sub(start);
            assert!(waited < Nanos::from_secs(20), "never: {what}\n{}", self.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A file of that many bytes that no two places of are alike.
    pub(crate) fn payload(&self, name: &str, bytes: usize) -> PathBuf {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = (0..bytes.div_ceil(8)).flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        let path = self.directory.join(name);
        std::fs::write(&path, words.take(bytes).collect::<Vec<u8>>()).unwrap();
        path
    }
}

pub(crate) fn same(a: &Path, b: &Path) -> bool {
    std::fs::read(a).unwrap() == std::fs::read(b).unwrap_or_default()
}

pub(crate) fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
