//! The clients' office with services on the gateway itself, managers, and strangers.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::netns::Process;
use crate::netns::{self, Namespace, shell};
use crate::stage::{Stage, said};

/// Echoes TCP on 2221 to 2223 and UDP on 2222 and 2224, in both families.
const SERVICES: &str = "
import socket, threading
def tcp(port):
    listener = socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True)
    def talk(peer):
        try:
            while data := peer.recv(65536):
                peer.sendall(data)
        except OSError:
            pass
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=talk, args=(peer,), daemon=True).start()
def udp(family, port):
    it = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        it.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    it.bind(('', port))
    while True:
        data, peer = it.recvfrom(65536)
        it.sendto(data, peer)
jobs = [(tcp, (port,)) for port in (2221, 2222, 2223)]
jobs += [(udp, (family, port)) for family in (socket.AF_INET, socket.AF_INET6) for port in (2222, 2224)]
threads = [threading.Thread(target=job, args=args) for job, args in jobs]
[thread.start() for thread in threads]
";

/// `reach KIND FROM TO PORT ...`: which services answer, all asked at once.
/// `transfer FROM TO PORT BYTES`: there and back, compared.
/// `hold FROM TO PORT`: says its SSH_CONNECTION, then `yes` or `no` for each line read.
/// `beat FROM TO PORT`: a byte each 20 ms; a line read ends it, the longest wait is said.
const PROBE: &str = "
import os, select, socket, sys, threading, time
def connect(kind, src, dst, port, timeout):
    family = socket.AF_INET6 if ':' in dst else socket.AF_INET
    it = socket.socket(family, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)
    it.settimeout(timeout)
    it.bind((src, 0))
    it.connect((dst, int(port)))
    return it
def echo(it):
    try:
        it.sendall(b'x')
        return it.recv(1) == b'x'
    except OSError:
        return False
def reach(words):
    asked = [words[at:at + 4] for at in range(0, len(words), 4)]
    answers = ['0'] * len(asked)
    def ask(at, kind, src, dst, port):
        try:
            answers[at] = str(int(echo(connect(kind, src, dst, port, 1.2))))
        except OSError:
            pass
    threads = [threading.Thread(target=ask, args=(at, *words)) for at, words in enumerate(asked)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print(' '.join(answers))
def transfer(src, dst, port, count):
    it = connect('tcp', src, dst, port, 15)
    data = os.urandom(1 << 20) * (int(count) // (1 << 20) + 1)
    data = data[:int(count)]
    sender = threading.Thread(target=it.sendall, args=(data,))
    sender.start()
    back = bytearray()
    while len(back) < len(data):
        part = it.recv(1 << 20)
        if not part:
            break
        back += part
    sender.join()
    assert back == data, (len(back), len(data))
def hold(src, dst, port):
    it = connect('tcp', src, dst, port, 1.2)
    own, peer = it.getsockname(), it.getpeername()
    print(own[0], own[1], peer[0], peer[1], flush=True)
    for _ in sys.stdin:
        print('yes' if echo(it) else 'no', flush=True)
def beat(src, dst, port):
    it = connect('tcp', src, dst, port, 20)
    longest = 0
    print('on', flush=True)
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        start = time.monotonic()
        assert echo(it)
        longest = max(longest, time.monotonic() - start)
    print(int(longest * 1000), flush=True)
words = sys.argv[2:]
{'reach': lambda: reach(words), 'transfer': lambda: transfer(*words),
 'hold': lambda: hold(*words), 'beat': lambda: beat(*words)}[sys.argv[1]]()
";

/// Sends each line read, an expression of scapy, after its `E`: an Ethernet header.
const CRAFT: &str = "
import sys
from scapy.all import *
E = Ether(dst=sys.argv[1])
out = conf.L2socket(iface='c0')
print('on', flush=True)
for line in sys.stdin:
    out.send(eval(line))
    print('sent', flush=True)
";

/// Policies that let nobody in, by what they do; IPv4 and IPv6.
pub(crate) fn hostile() -> Vec<(&'static str, (String, String))> {
    let dropping = |table: &str, chains: &str| {
        let chains: String =
            chains.split(' ').map(|chain| format!(":{chain} DROP [0:0]\n")).collect();
        format!("*{table}\n{chains}COMMIT\n")
    };
    let raw = dropping("raw", "PREROUTING OUTPUT");
    let mangle = dropping("mangle", "PREROUTING INPUT FORWARD OUTPUT POSTROUTING");
    let filter = dropping("filter", "INPUT FORWARD OUTPUT");
    let both = |text: &str| (text.to_owned(), text.to_owned());
    let elsewhere = |to: &str| {
        format!(
            "*nat\n-A PREROUTING -p tcp -m tcp --dport 2222 -j DNAT --to-destination {to}\nCOMMIT\n"
        )
    };
    let untracked = "*raw\n-A PREROUTING -p tcp -j CT --notrack\n-A OUTPUT -p tcp -j CT --notrack\n\
         COMMIT\n*filter\n:INPUT DROP [0:0]\n:OUTPUT DROP [0:0]\nCOMMIT\n";
    let proxied = "*raw\n-A PREROUTING -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j CT --notrack\n\
         COMMIT\n*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m tcp --dport 2222 -m conntrack \
         --ctstate INVALID,UNTRACKED -j SYNPROXY --sack-perm --timestamp --wscale 7 --mss 1460\n\
         -A INPUT -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n";
    let rejecting = "*filter\n-A INPUT -p tcp -j REJECT --reject-with tcp-reset\n\
         -A OUTPUT -j DROP\nCOMMIT\n";
    vec![
        ("everything is dropped", both(&format!("{raw}{mangle}{filter}"))),
        ("raw", both(&raw)),
        ("mangle", both(&mangle)),
        ("filter", both(&filter)),
        ("DNAT", (elsewhere("10.7.0.99"), elsewhere("fd00:7::99"))),
        ("NOTRACK", both(untracked)),
        ("SYNPROXY", both(proxied)),
        ("REJECT", both(rejecting)),
    ]
}

pub(crate) struct Office {
    pub(crate) stage: Stage,
    _services: Vec<Process>,
    crafter: Mutex<Option<Talk>>,
    bpffs: Option<String>,
}

impl Drop for Office {
    fn drop(&mut self) {
        if let Some(directory) = &self.bpffs {
            shell(&format!("umount -l {directory}; rmdir {directory}"));
        }
    }
}

/// A directory of one test, with the scripts in it.
pub(crate) struct Directory(netns::Directory);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let directory = Self(netns::Directory::new(&format!("{}-{name}", std::process::id())));
        directory.file("services.py", SERVICES);
        directory.file("probe.py", PROBE);
        directory
    }
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("it is written");
        path.display().to_string()
    }
    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(self.0.join("errors")).unwrap_or_default()
    }
    pub(crate) fn services(&self, host: &Namespace) -> Process {
        let mut command = host.command("/usr/bin/python3");
        let child = Process::start(command.arg(self.0.join("services.py")));
        for _ in 0..200 {
            if host.attempt("ss -Hltn 'sport = :2223' | grep -q .").status.success() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    }
    /// The daemon, forwarding.
    pub(crate) fn run(&self, host: &Namespace, arguments: &[&str]) -> Process {
        self.run_over(host, arguments, "")
    }
    /// The same, started from an SSH session.
    pub(crate) fn run_over(&self, host: &Namespace, arguments: &[&str], session: &str) -> Process {
        let errors = std::fs::File::create(self.0.join("errors")).expect("a file");
        let mut command = host.command(env!("CARGO_BIN_EXE_portcullis"));
        command
            .args(["run", "--on-failure", "open"])
            .args(arguments)
            .arg("--socket")
            .arg(self.0.join("socket"));
        command.env("SSH_CONNECTION", session).stderr(errors);
        let (daemon, line) = Process::speaking(&mut command);
        assert!(line.starts_with("ready: "), "{line}{}", self.errors());
        daemon
    }
    pub(crate) fn reached(&self, host: &Namespace, asked: &[(&str, &str, &str, u16)]) -> Vec<bool> {
        reached(host, &self.0.join("probe.py"), asked)
    }
}

/// Which services answer: kind, from an address of `host`, to an address, port.
fn reached(host: &Namespace, probe: &Path, asked: &[(&str, &str, &str, u16)]) -> Vec<bool> {
    let mut words = vec!["reach".to_owned()];
    for (kind, from, to, port) in asked {
        words.extend([(*kind).to_owned(), (*from).into(), (*to).into(), port.to_string()]);
    }
    let output = host.command("/usr/bin/python3").arg(probe).args(&words).output();
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    said.split_whitespace().map(|word| word == "1").collect()
}

/// A process that answers each line with a line.
struct Talk {
    child: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Talk {
    fn start(mut command: Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Process::start(piped);
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, input, output }
    }
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it speaks");
        line.trim().to_owned()
    }
    fn ask(&mut self, words: &str) -> String {
        writeln!(self.input, "{words}").expect("it listens");
        self.line()
    }
}

/// A connection that is held open.
pub(crate) struct Held {
    talk: Mutex<Talk>,
    words: String,
}

impl Held {
    /// As SSH_CONNECTION has it.
    pub(crate) fn words(&self) -> String {
        self.words.clone()
    }
    /// Whether a byte comes back.
    pub(crate) fn speaks(&self) -> bool {
        self.talk.lock().unwrap_or_else(PoisonError::into_inner).ask("") == "yes"
    }
}

/// A connection that never rests.
pub(crate) struct Beating(Talk);

impl Beating {
    /// Ends it; returns the longest that it waited for an echo.
    pub(crate) fn end(mut self) -> Duration {
        let said = self.0.ask("");
        let _ = self.0.child.wait();
        Duration::from_millis(said.parse().unwrap_or_else(|_| panic!("the session broke: {said}")))
    }
}

impl Office {
    pub(crate) fn new() -> Self {
        let stage = Stage::new();
        for last in [7, 8, 11, 12] {
            stage.client.run(&format!("ip addr add 10.7.0.{last}/24 dev c0"));
            stage.client.run(&format!("ip addr add fd00:7::{last:x}/64 dev c0"));
        }
        stage.gateway.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        // Back to the LAN, so that what is let through is answered.
        stage.provider.run("ip route add 10.7.0.0/24 via 198.18.2.1");
        stage.provider.run("ip -6 route add fd00:7::/64 via 2001:db8:2::1");
        let services = stage.file("services.py", SERVICES);
        stage.file("probe.py", PROBE);
        stage.file("craft.py", CRAFT);
        let line = format!("/usr/bin/python3 {}", services.display());
        let hosts = [&stage.gateway, &stage.server];
        let services = hosts.map(|host| stage.spawn(host, &line)).into();
        for host in hosts {
            for port in ["2221", "2222", "2223", "2224"] {
                stage.until_open(host, port);
            }
        }
        Self { stage, _services: services, crafter: Mutex::new(None), bpffs: None }
    }

    /// A bpffs of this test's own.
    pub(crate) fn bpffs(&mut self) -> String {
        let directory = format!("{}-bpf", self.stage.directory.display());
        shell(&format!("mkdir -p {directory} && mount -t bpf bpf {directory}"));
        self.bpffs = Some(directory.clone());
        format!("{directory}/portcullis")
    }

    fn probe(&self, host: &Namespace, words: &[&str]) -> Command {
        let mut command = host.command("/usr/bin/python3");
        command.arg(self.stage.directory.join("probe.py")).args(words);
        command
    }

    /// Which services answer: kind, from an address of the client, to an address, port.
    pub(crate) fn reached(&self, asked: &[(&str, &str, &str, u16)]) -> Vec<bool> {
        reached(&self.stage.client, &self.stage.directory.join("probe.py"), asked)
    }

    pub(crate) fn transfer(&self, host: &Namespace, from: &str, to: &str, bytes: usize) {
        let words = ["transfer", from, to, "2222", &bytes.to_string()];
        let output = self.probe(host, &words).output().expect("it runs");
        assert!(output.status.success(), "{from} to {to}: {}", said(&output));
    }

    pub(crate) fn session(&self) -> Beating {
        let words = ["beat", "10.7.0.8", "10.7.0.1", "2222"];
        let mut talk = Talk::start(self.probe(&self.stage.client, &words));
        assert_eq!(talk.line(), "on");
        Beating(talk)
    }

    pub(crate) fn held(&self, from: &str, to: &str) -> Held {
        let mut talk = Talk::start(self.probe(&self.stage.client, &["hold", from, to, "2222"]));
        let words = talk.line();
        Held { talk: Mutex::new(talk), words }
    }

    /// Puts policies in force, whoever is cut.
    pub(crate) fn apply(&self, v4: &str, v6: &str) {
        let (v4, v6) = (self.stage.file("new.v4", v4), self.stage.file("new.v6", v6));
        let [v4, v6] = [&v4, &v6].map(|path| path.to_str().expect("a plain name"));
        self.stage.cli(&["apply", "--rules", v4, "--rules6", v6, "--session", "none"]);
    }

    /// Tries one family's policy; returns the exit code and all that was said.
    pub(crate) fn try_apply(&self, text: &str, flag: &str, more: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(["apply", flag]).arg(self.stage.file("new", text)).args(more);
        let output = command.arg("--socket").arg(self.stage.socket()).output().expect("it runs");
        (output.status.code().unwrap_or(-1), said(&output))
    }

    /// The same on the gateway, below an sshd that holds this session.
    pub(crate) fn apply_over(&self, session: &Held, text: &str) -> String {
        let mut command = self.stage.gateway.command(env!("CARGO_BIN_EXE_portcullis"));
        command.env("SSH_CONNECTION", session.words());
        command.args(["--json", "apply", "--rules"]).arg(self.stage.file("new", text));
        said(&command.arg("--socket").arg(self.stage.socket()).output().expect("it runs"))
    }

    /// Entries with packets in and out.
    pub(crate) fn counts(&self) -> Vec<(String, u64, u64)> {
        let shown = self.stage.cli(&["--json", "show", "management"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let entries = shown["entries"].as_array().expect("a list");
        let entry = |it: &serde_json::Value| {
            let count = |name: &str| it[name].as_u64().expect("a number");
            let entry = it["entry"].as_str().expect("a text").to_owned();
            (entry, count("inbound"), count("outbound"))
        };
        entries.iter().map(entry).collect()
    }

    /// Packets that the list has let in.
    pub(crate) fn admitted(&self) -> u64 {
        self.counts().iter().map(|(_, inbound, _)| inbound).sum()
    }

    /// Sends a frame from the client.
    pub(crate) fn craft(&self, frame: &str) {
        let mut crafter = self.crafter.lock().unwrap_or_else(PoisonError::into_inner);
        let talk = crafter.get_or_insert_with(|| {
            let mac = self.stage.gateway.run("cat /sys/class/net/g0/address");
            let mut command = self.stage.client.command("/usr/bin/python3");
            command.arg(self.stage.directory.join("craft.py")).arg(mac.trim());
            let mut talk = Talk::start(command);
            assert_eq!(talk.line(), "on");
            talk
        });
        assert_eq!(talk.ask(frame), "sent", "{frame}");
        std::thread::sleep(Duration::from_millis(60));
    }
}
