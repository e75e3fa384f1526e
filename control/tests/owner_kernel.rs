//! `-m owner` on the packets of real sockets: of several users and groups, of sockets that
//! changed hands or were closed, and of the kernel itself. The same rules count in netfilter
//! and in portcullis. Where the kernel does not let us look, the rules are refused. Needs root.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

mod netns;
use netns::{Directory, Namespace, Process, join};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::fchown;
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");
const PATIENCE: Duration = Duration::from_millis(800);

/// What is asked of each kind of packet.
const OWNERS: [&str; 20] = [
    "--uid-owner 0",
    "--uid-owner 1",
    "! --uid-owner 1",
    "--uid-owner 65534-70000",
    "! --uid-owner 2-70000",
    "--socket-exists",
    "! --socket-exists",
    "--socket-exists ! --uid-owner 1",
    "! --socket-exists ! --uid-owner 1",
    "--gid-owner 0",
    "! --gid-owner 5",
    "--gid-owner 4-6",
    "! --gid-owner 2-70000",
    "--uid-owner 1 ! --gid-owner 5",
    "! --uid-owner 1 --gid-owner 5",
    "--gid-owner 7",
    "--gid-owner 7 --suppl-groups",
    "--gid-owner 5-7 --suppl-groups",
    "! --gid-owner 7-9 --suppl-groups",
    "! --socket-exists ! --gid-owner 5",
];

/// Users, groups and supplementary groups that send.
const USERS: [(u32, u32, &[u32]); 8] = [
    (0, 0, &[]),
    (1, 1, &[1]),
    (1, 5, &[7, 20, 4_000_000_000]),
    (1, 5, &[6]),
    (65534, 65534, &[]),
    (70_000, 5, &[8]),
    (70_000, 9, MANY.split_at(32).0),
    (70_000, 7, &MANY),
];
/// One group more than are told.
const MANY: [u32; 33] = {
    let mut groups = [0; 33];
    let mut at = 0;
    while at < groups.len() {
        groups[at] = 100 + at as u32;
        at += 1;
    }
    groups[0] = 7;
    groups
};

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
        tcp("RST"),
        "-p tcp -m tcp --tcp-flags FIN FIN".to_owned(),
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
    directory: Directory,
    daemon: Option<Process>,
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
        let directory = Directory::new(&format!("owner-{serial}"));
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
        let line = lab.start("");
        let errors = lab.errors();
        assert!(line.starts_with("ready: "), "{line}{errors}");
        lab
    }

    fn errors(&self) -> String {
        std::fs::read_to_string(self.directory.join("stderr")).unwrap_or_default()
    }

    /// Starts a daemon after what a shell is to do, and returns the first line that it says.
    fn start(&mut self, before: &str) -> String {
        let mut command = self.host.command("sh");
        command.args(["-c", &format!("{before}\nexec \"$0\" \"$@\""), BINARY]);
        command.args(["run", "--mode", "host", "--port", "h0", "--conntrack-max", "4096"]);
        command.arg("--rules").arg(self.directory.join(file(false)));
        command.arg("--rules6").arg(self.directory.join(file(true)));
        command.arg("--socket").arg(self.socket());
        let errors = std::fs::File::create(self.directory.join("stderr")).unwrap();
        let (process, line) = Process::speaking(command.stderr(errors));
        self.daemon = Some(process);
        line
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// The rules with their counters.
    fn counted(&self, v6: bool) -> Vec<String> {
        let text = match self.daemon {
            None => self.host.run(&format!("{}-legacy-save -c", tool(v6))),
            Some(_) => {
                let family = if v6 { "-6" } else { "-4" };
                let output = Command::new(BINARY)
                    .args(["show", "rules", "--save", "--counters", family, "--socket"])
                    .arg(self.socket())
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8_lossy(&output.stdout).into_owned()
            }
        };
        let mut lines: Vec<_> =
            text.lines().filter(|line| line.contains(" -A ")).map(comparable).collect();
        lines.sort();
        lines
    }
}

/// A rule; without its bytes if these depend on how segments are cut, which is done later
/// in the kernel.
fn comparable(line: &str) -> String {
    match (line.split_once(':'), line.split_once(']')) {
        (Some((packets, _)), Some((_, rule))) if rule.contains("FIN FIN") => {
            format!("{packets}:-]{rule}")
        }
        _ => line.to_owned(),
    }
}

fn file(v6: bool) -> &'static str {
    if v6 { "rules.v6" } else { "rules.v4" }
}

fn tool(v6: bool) -> &'static str {
    if v6 { "ip6tables" } else { "iptables" }
}

fn become_user((uid, gid, groups): (u32, u32, &[u32])) {
    // Of this thread alone.
    let groups: Vec<_> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
    set_thread_groups(&groups).unwrap();
    set_thread_gid(Gid::from_raw(gid)).unwrap();
    set_thread_uid(Uid::from_raw(uid)).unwrap();
}

/// Sockets whose file and inode, or program and packets, are different ones'.
fn change_hands(lab: &Lab, own: IpAddr, other: IpAddr) {
    let nine = SocketAddr::new(other, 9);
    lab.host.enter(|| {
        // Given away: what counts is who opened it.
        let given = UdpSocket::bind(SocketAddr::new(own, 0)).unwrap();
        fchown(&given, Some(Uid::from_raw(1)), Some(Gid::from_raw(5))).unwrap();
        given.send_to(b"given", nine).unwrap();
        let kept = UdpSocket::bind(SocketAddr::new(own, 0)).unwrap();
        // Of the program that is not the kernel, though it says what the kernel says.
        let (family, icmp, reply) = match own {
            IpAddr::V4(_) => (AddressFamily::INET, ipproto::ICMP, [0, 0, 0, 0, 0xff, 0xff, 0, 0]),
            IpAddr::V6(_) => (AddressFamily::INET6, ipproto::ICMPV6, [129, 0, 0, 0, 0, 0, 0, 0]),
        };
        let raw = |protocol| socket(family, SocketType::RAW, Some(protocol)).unwrap();
        let to = SocketAddr::new(other, 0);
        sendto(raw(icmp), &reply, SendFlags::empty(), &to).unwrap();
        become_user((1, 5, &[7]));
        kept.send_to(b"kept", nine).unwrap();
    });
    lab.host.enter(|| {
        set_thread_gid(Gid::from_raw(5)).unwrap();
        let family = if own.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let raw = socket(family, SocketType::RAW, Some(ipproto::TCP)).unwrap();
        let mut reset = [0; 20];
        reset[..4].copy_from_slice(&[0x10, 0, 0, 9]);
        reset[12..14].copy_from_slice(&[0x50, 0x14]);
        sendto(&raw, &reset, SendFlags::empty(), &SocketAddr::new(other, 0)).unwrap();
    });
}

/// What is still sent once a program has closed its socket.
fn close_early(lab: &Lab, own: IpAddr, other: IpAddr) {
    let listen = |port| lab.peer.enter(|| TcpListener::bind(SocketAddr::new(other, port)).unwrap());
    let listener = listen(0);
    let at = listener.local_addr().unwrap();
    // The end comes after everything that the other side did not yet take.
    let client = lab.host.enter(|| {
        become_user((1, 5, &[7]));
        let mut client = TcpStream::connect(at).unwrap();
        client.set_nonblocking(true).unwrap();
        while client.write(&[7; 4096]).is_ok() {}
        client
    });
    let (mut served, _) = listener.accept().unwrap();
    drop(client);
    served.set_read_timeout(Some(PATIENCE * 4)).unwrap();
    while served.read(&mut [0; 65536]).unwrap() > 0 {}
    drop(served);
    // Unread data is answered with a reset by whoever closes.
    let client = lab.host.enter(|| {
        become_user((70_000, 5, &[8]));
        TcpStream::connect(at).unwrap()
    });
    let (mut served, _) = listener.accept().unwrap();
    served.write_all(b"unread").unwrap();
    assert_eq!(client.peek(&mut [0; 9]).unwrap(), 6);
    drop(client);
    served.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(served.read(&mut [0; 9]).is_err());
    drop(served);
    // A connection that nobody accepted goes with its listener.
    let listener = lab.host.enter(|| {
        become_user((1, 5, &[6]));
        TcpListener::bind(SocketAddr::new(own, 0)).unwrap()
    });
    let at = listener.local_addr().unwrap();
    let client = lab.peer.enter(|| TcpStream::connect_timeout(&at, PATIENCE).unwrap());
    // The handshake's end has come here, too.
    let ready = poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).unwrap();
    assert_eq!(ready, 1);
    drop(listener);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!((&client).read(&mut [0; 9]).is_err());
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
        change_hands(lab, own, other);
        close_early(lab, own, other);
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
        assert_eq!(theirs.len(), 2 * 9 * OWNERS.len() + 2);
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
        let sent = |count: &str, what: &str| {
            let is = |line: &&String| line.starts_with(count) && line.ends_with(what);
            theirs.iter().filter(is).count() == 2
        };
        // Of the users and of the kept socket no packet, but of the given one all.
        assert!(sent("[9:", "udp -m owner --uid-owner 1"), "{theirs:#?}");
        assert!(sent("[9:", "udp -m owner --gid-owner 7 --suppl-groups"), "{theirs:#?}");
        let of_nobody = "FIN FIN -m owner ! --socket-exists ! --gid-owner 5";
        assert!(sent("[1:", of_nobody) || sent("[2:", of_nobody), "{theirs:#?}");
    }
}

/// Hides how the kernel describes itself.
const WITHOUT_BTF: &str = "mount -t tmpfs none /sys/kernel/btf";

#[test]
fn rules_are_refused_where_nobody_can_tell_whose_packets_are() {
    let mut lab = Lab::new();
    let line = lab.start(WITHOUT_BTF);
    let errors = lab.errors();
    assert!(line.is_empty() && errors.contains("CONFIG_DEBUG_INFO_BTF"), "{line}{errors}");
    assert!(errors.contains("rules.v4:3:"), "{errors}");
    // Without such rules it starts, and takes none later.
    for v6 in [false, true] {
        let path = lab.directory.join(file(v6));
        std::fs::write(path, "*filter\n-A INPUT -p udp -m udp --dport 9 -j DROP\nCOMMIT\n")
            .unwrap();
    }
    let line = lab.start(WITHOUT_BTF);
    assert!(line.starts_with("ready: "), "{line}{}", lab.errors());
    let path = lab.directory.join("asking");
    std::fs::write(&path, "*filter\n-A OUTPUT -m owner --uid-owner 1 -j DROP\nCOMMIT\n").unwrap();
    let output = Command::new(BINARY)
        .args(["apply", "--rules"])
        .arg(&path)
        .arg("--socket")
        .arg(lab.socket())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("cannot be seen here"), "{said}");
    // Its own packets pass as they did.
    lab.host.run("ping -c 1 -W 2 198.18.1.2");
}
