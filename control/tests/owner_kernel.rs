//! `-m owner` on the packets of real sockets: of several users, and of the kernel
//! itself. The same rules count in netfilter and in portcullis. Needs root.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

mod netns;
use netns::{Namespace, join};
use rustix::thread::{set_thread_gid, set_thread_uid};
use rustix::{process::Gid, process::Uid};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");
const PATIENCE: Duration = Duration::from_millis(800);

/// What is asked of each kind of packet.
const OWNERS: [&str; 9] = [
    "--uid-owner 0",
    "--uid-owner 1",
    "! --uid-owner 1",
    "--uid-owner 65534-70000",
    "! --uid-owner 2-70000",
    "--socket-exists",
    "! --socket-exists",
    "--socket-exists ! --uid-owner 1",
    "! --socket-exists ! --uid-owner 1",
];

/// Users and groups that send.
const USERS: [(u32, u32); 5] = [(0, 0), (1, 1), (1, 5), (65534, 65534), (70_000, 5)];

fn rules(v6: bool) -> String {
    let icmp = |kind: &str| match v6 {
        false => format!("-p icmp -m icmp --icmp-type {kind}"),
        true => format!("-p ipv6-icmp -m icmp6 --icmpv6-type {kind}"),
    };
    let tcp = |flags: &str| format!("-p tcp -m tcp --tcp-flags SYN,RST,ACK {flags}");
    let kinds = [
        "-p udp".to_owned(),
        tcp("SYN"),
        tcp("SYN,ACK"),
        tcp("RST,ACK"),
        icmp(if v6 { "128" } else { "8" }),
        icmp(if v6 { "129" } else { "0" }),
        icmp(if v6 { "1" } else { "3" }),
    ];
    let each = |chain: &str| -> String {
        let lines = kinds
            .iter()
            .flat_map(|kind| OWNERS.map(|owner| format!("-A {chain} {kind} -m owner {owner}\n")));
        lines.collect()
    };
    format!(
        "*mangle\n{}COMMIT\n*filter\n:INPUT ACCEPT [0:0]\n{}\
         -A INPUT -p udp -m udp --dport 10 -j REJECT\n\
         -A INPUT -p tcp -m tcp --dport 10 -j REJECT --reject-with tcp-reset\nCOMMIT\n",
        each("POSTROUTING"),
        each("OUTPUT")
    )
}

/// The machine and a neighbour.
struct Lab {
    host: Namespace,
    peer: Namespace,
    directory: PathBuf,
    daemon: Option<Child>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            drop((daemon.kill(), daemon.wait()));
        }
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

impl Lab {
    fn new() -> Self {
        let [host, peer] = ["h", "p"].map(Namespace::new);
        join((&peer, "p0"), (&host, "h0"), 1);
        for (namespace, device, last) in [(&host, "h0", 1), (&peer, "p0", 2)] {
            namespace.run(&format!("ip link set {device} address 02:00:00:00:00:0{last}"));
            namespace.run(&format!("ip addr add 198.18.1.{last}/24 dev {device}"));
            namespace.run(&format!("ip addr add 2001:db8:1::{last}/64 dev {device} nodad"));
            let other = 3 - last;
            for address in [format!("198.18.1.{other}"), format!("2001:db8:1::{other}")] {
                let mac = format!("02:00:00:00:00:0{other}");
                namespace.run(&format!("ip neigh replace {address} lladdr {mac} dev {device}"));
            }
        }
        let serial = host.name().replace("pcd-", "");
        let directory = std::env::temp_dir().join(format!("portcullis-owner-{serial}"));
        std::fs::create_dir_all(&directory).unwrap();
        for v6 in [false, true] {
            std::fs::write(directory.join(file(v6)), rules(v6)).unwrap();
        }
        Self { host, peer, directory, daemon: None }
    }

    fn netfilter() -> Self {
        let lab = Self::new();
        for v6 in [false, true] {
            let path = lab.directory.join(file(v6));
            lab.host.run(&format!("{}-legacy-restore {}", tool(v6), path.display()));
        }
        lab
    }

    fn portcullis() -> Self {
        let mut lab = Self::new();
        let mut command = lab.host.command(BINARY);
        command.args(["run", "--mode", "host", "--port", "h0", "--conntrack-max", "4096"]);
        command.arg("--rules").arg(lab.directory.join(file(false)));
        command.arg("--rules6").arg(lab.directory.join(file(true)));
        command.arg("--socket").arg(lab.directory.join("control.sock"));
        let errors = std::fs::File::create(lab.directory.join("stderr")).unwrap();
        let mut process = command.stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        lab.daemon = Some(process);
        let errors = std::fs::read_to_string(lab.directory.join("stderr")).unwrap_or_default();
        assert!(line.starts_with("ready: "), "{line}{errors}");
        lab
    }

    /// The rules with their counters.
    fn counted(&self, v6: bool) -> Vec<String> {
        let text = match self.daemon {
            None => self.host.run(&format!("{}-legacy-save -c", tool(v6))),
            Some(_) => {
                let family = if v6 { "-6" } else { "-4" };
                let output = Command::new(BINARY)
                    .args(["show", "rules", "--save", "--counters", family, "--socket"])
                    .arg(self.directory.join("control.sock"))
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8_lossy(&output.stdout).into_owned()
            }
        };
        let mut lines: Vec<_> =
            text.lines().filter(|line| line.contains(" -A ")).map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

fn file(v6: bool) -> &'static str {
    if v6 { "rules.v6" } else { "rules.v4" }
}

fn tool(v6: bool) -> &'static str {
    if v6 { "ip6tables" } else { "iptables" }
}

fn become_user((uid, gid): (u32, u32)) {
    // Of this thread alone.
    set_thread_gid(Gid::from_raw(gid)).unwrap();
    set_thread_uid(Uid::from_raw(uid)).unwrap();
}

/// Every kind of packet, from everybody.
fn talk(lab: &Lab) {
    for v6 in [false, true] {
        let address = |last: u16| -> IpAddr {
            match v6 {
                false => [198, 18, 1, last as u8].into(),
                true => [0x2001, 0xdb8, 1, 0, 0, 0, 0, last].into(),
            }
        };
        let (own, other) = (address(1), address(2));
        for user in USERS {
            lab.host.enter(|| {
                become_user(user);
                let socket = UdpSocket::bind(SocketAddr::new(own, 0)).unwrap();
                for length in [5, 50, 500] {
                    socket.send_to(&[7; 500][..length], SocketAddr::new(other, 9)).unwrap();
                }
                // A SYN, which nobody answers but with a reset.
                let refused = TcpStream::connect(SocketAddr::new(other, 8));
                assert!(refused.is_err());
            });
            let listener = lab.host.enter(|| {
                become_user(user);
                TcpListener::bind(SocketAddr::new(own, 0)).unwrap()
            });
            let at = listener.local_addr().unwrap();
            // Closed in good order: no resets but those that are asked for.
            let client = lab.peer.enter(|| TcpStream::connect_timeout(&at, PATIENCE).unwrap());
            let (mut served, _) = listener.accept().unwrap();
            drop(client);
            assert_eq!(served.read(&mut [0; 9]).unwrap(), 0);
        }
        lab.peer.enter(|| {
            // The kernel's own answers: a reset, an echo, an error.
            assert!(TcpStream::connect(SocketAddr::new(own, 8)).is_err());
            assert!(TcpStream::connect(SocketAddr::new(own, 10)).is_err());
            let socket = UdpSocket::bind(SocketAddr::new(other, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            for port in [9, 10] {
                socket.connect(SocketAddr::new(own, port)).unwrap();
                socket.send(b"hello").unwrap();
                assert!(socket.recv(&mut [0; 9]).is_err());
            }
        });
        lab.peer.run(&format!("ping -c 2 -i 0.2 {own}"));
        lab.host.run(&format!("ping -c 2 -i 0.2 {other}"));
    }
}

#[test]
fn packets_have_the_owners_that_the_kernel_finds() {
    let (kernel, ours) = (Lab::netfilter(), Lab::portcullis());
    for lab in [&kernel, &ours] {
        talk(lab);
    }
    for v6 in [false, true] {
        let theirs = kernel.counted(v6);
        assert_eq!(theirs.len(), 2 * 7 * OWNERS.len() + 2);
        let mut own = ours.counted(v6);
        for _ in 0..50 {
            if own == theirs {
                break;
            }
            // Counters are published now and then.
            std::thread::sleep(Duration::from_millis(20));
            own = ours.counted(v6);
        }
        let unlike: Vec<_> = theirs.iter().filter(|line| !own.contains(line)).collect();
        let instead: Vec<_> = own.iter().filter(|line| !theirs.contains(line)).collect();
        assert!(unlike.is_empty(), "kernel: {unlike:#?}\nours: {instead:#?}");
        // And the rules tell the users apart.
        let packets = |what: &str| theirs.iter().filter(|line| line.ends_with(what)).count();
        assert_eq!(packets("-p udp -m owner --uid-owner 1"), 2);
        assert!(theirs.iter().any(|line| line.starts_with("[6:") && line.ends_with("udp -m owner --uid-owner 1")));
    }
}
