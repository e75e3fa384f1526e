//! Bad inputs to `portcullis replay`: exit 1, with file and position.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TOPOLOGY: &str =
    "mode = \"routed\"\n[[port]]\nname = \"eth0\"\nmac = \"02:00:00:00:01:01\"\n";
/// A pcap header: little endian, microseconds, Ethernet.
const PCAP: [u8; 24] =
    [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];

struct Bench(PathBuf);

impl Bench {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("portcullis-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a scratch directory");
        let bench = Self(path);
        bench.write("topo.toml", TOPOLOGY.as_bytes());
        bench.write("a.pcap", &PCAP);
        bench
    }
    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join(name), bytes).expect("a writable file");
    }
    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .current_dir(&self.0)
            .args(["replay", "--topology", "topo.toml", "--out", "out"])
            .args(arguments)
            .output()
            .expect("the binary runs")
    }
    fn tool(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.current_dir(&self.0).args(arguments).output().expect("the binary runs")
    }
    #[track_caller]
    fn refused(&self, arguments: &[&str], words: &str) {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
}

#[test]
fn an_input_is_never_overwritten() {
    let bench = Bench::new("overwrite");
    let policy = b"*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n";
    bench.write("rules.v4", policy);
    bench.write("eth0.pcap", &PCAP);
    let binary = env!("CARGO_BIN_EXE_portcullis");
    for arguments in [
        ["--in", "eth0=a.pcap", "--rules", "rules.v4"],
        ["--in", "eth0=eth0.pcap", "--events", "events"],
        ["--in", "eth0=a.pcap", "--events", "a.pcap"],
    ] {
        let mut command = Command::new(binary);
        command.current_dir(&bench.0).args(["replay", "--topology", "topo.toml", "--out", "."]);
        let output = command.args(arguments).output().expect("the binary runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains("is an input, and would be overwritten"), "{text}");
    }
    assert_eq!(fs::read(bench.0.join("rules.v4")).expect("still there"), policy);
    assert_eq!(fs::read(bench.0.join("a.pcap")).expect("still there"), PCAP);
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// `check`, `explain` and a topology know timeout policies by the same words.
#[test]
fn timeout_policies_are_known_offline() {
    let at = Bench::new("timeouts");
    let rules = "*raw\n:PREROUTING ACCEPT [0:0]\n\
        -A PREROUTING -p tcp -j CT --timeout patient\nCOMMIT\n";
    at.write("rules", rules.as_bytes());
    let port = |name: &str, n: u8| {
        format!(
            "[[port]]\nname = \"{name}\"\nmac = \"02:00:00:00:01:0{n}\"\naddresses = [\"198.18.{n}.1/24\"]\n"
        )
    };
    let known = "[conntrack.timeout.patient]\nprotocol = \"tcp\"\nestablished = 864000\n";
    let network = format!("mode = \"routed\"\n{}{}", port("eth0", 1), port("eth1", 2));
    at.write("topo", format!("{network}{known}").as_bytes());
    at.write("bad", format!("{network}[conntrack]\nlog_invalid = 1\n").as_bytes());
    at.write("high", format!("{network}[limits]\nconntrack_max = 0\n").as_bytes());
    const OPTION: [&str; 2] = ["--ct-timeout", "patient=tcp,established=864000"];
    const PACKET: [&str; 6] =
        ["explain", "--rules", "rules", "in=eth0", "src=198.18.1.2", "dst=198.18.2.2"];
    let fine = |arguments: &[&str]| {
        let output = at.tool(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let refused = |arguments: &[&str], words: &str| {
        let output = at.tool(arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
        assert!(text.contains(words), "{arguments:?}: {text}");
    };
    fine(&[&["check", "--rules", "rules"], &OPTION[..]].concat());
    fine(&[&PACKET[..], &["out=eth1"], &OPTION].concat());
    fine(&[&PACKET[..], &["--topology", "topo"]].concat());
    refused(&[&PACKET[..], &["out=eth1"]].concat(), "--ct-timeout");
    refused(
        &[&PACKET[..], &["--topology", "bad"]].concat(),
        "bad:11:1: conntrack setting `log_invalid` has no counterpart",
    );
    refused(
        &[&PACKET[..], &["--topology", "high"]].concat(),
        "high:10:1: conntrack setting `max` must be",
    );
    let unnamed = at.tool(&["check", "--rules", "rules"]);
    assert_eq!(unnamed.status.code(), Some(1), "nobody named it");
    let twice = at.tool(&[&["check", "--rules", "rules"], &OPTION[..], &OPTION].concat());
    assert_eq!(twice.status.code(), Some(2));
}

#[test]
fn bad_inputs_are_named_with_their_place() {
    let bench = Bench::new("refusals");
    let input = ["--in", "eth0=a.pcap"];
    assert_eq!(bench.run(&input).status.code(), Some(0));
    assert!(Path::new(&bench.0.join("out/eth0.pcap")).exists());

    bench.refused(&["--in", "eth7=a.pcap"], "--in eth7: the topology has no such port");
    bench.refused(&["--in", "eth0=missing.pcap"], "missing.pcap: ");
    bench.write("cut.pcap", &[&PCAP[..], &[0; 9]].concat());
    bench.refused(&["--in", "eth0=cut.pcap"], "cut.pcap: damaged at byte 24: ");
    let mut cooked = PCAP;
    cooked[20] = 113;
    bench.write("cooked.pcap", &cooked);
    bench.refused(&["--in", "eth0=cooked.pcap"], "only Ethernet is supported");

    bench.write("sets", b"# nothing\n\n");
    assert_eq!(bench.run(&[&input[..], &["--ipset", "sets"]].concat()).status.code(), Some(0));
    bench.write("sets", b"# one\ncreate a hash:pi\n");
    let with_sets = [&input[..], &["--ipset", "sets"]].concat();
    bench.refused(&with_sets, "--> sets:2:10");

    bench.write("rules", b"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j NOWHERE\nCOMMIT\n");
    bench.refused(&[&input[..], &["--rules", "rules"]].concat(), "rules:3:");
    let signed = TOPOLOGY.replace("02:00:00", "02:+0:00");
    bench.write("topo.toml", signed.as_bytes());
    bench.refused(&input, "topo.toml:4:");
    bench.write("topo.toml", format!("{TOPOLOGY}[conntrack]\ntcp_lose = 0\n").as_bytes());
    bench.refused(&input, "topo.toml:6:1: unknown conntrack setting `tcp_lose`");
}
