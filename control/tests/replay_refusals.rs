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
    bench.write("sets", b"# one\ncreate a hash:ip\n");
    let with_sets = [&input[..], &["--ipset", "sets"]].concat();
    bench.refused(&with_sets, "sets:2:1: sets are not supported yet");

    bench.write("rules", b"*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j NOWHERE\nCOMMIT\n");
    bench.refused(&[&input[..], &["--rules", "rules"]].concat(), "rules:3:");
    let signed = TOPOLOGY.replace("02:00:00", "02:+0:00");
    bench.write("topo.toml", signed.as_bytes());
    bench.refused(&input, "topo.toml:4:");
    bench.write("topo.toml", format!("{TOPOLOGY}[conntrack]\ntcp_lose = 0\n").as_bytes());
    bench.refused(&input, "topo.toml:6:1: unknown conntrack setting `tcp_lose`");
}
