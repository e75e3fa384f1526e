//! The session that asks, and policies that would cut it.

use std::sync::Arc;

use dataplane::clock::monotonic;
use dataplane::conntrack::{Config, Conntrack, Extensions, Template};
use dataplane::fib::{Mode, Network, PortInfo, Topology};
use dataplane::packet::{Family, Mac};
use dataplane::port::management::List;
use dataplane::wire::build::{L4, Packet, Tcp};
use dataplane::wire::{self, Frame};

use super::find::Place;
use super::*;
use crate::iptables::{self, TableNames};
use crate::model::Ruleset;

const SESSION: &str = "198.18.1.2 50000 198.18.1.1 22";
const SESSION6: &str = "2001:db8:1::2 50000 2001:db8:1::1 22";

fn network() -> Arc<Network> {
    let port = |name: &str, index: u8, addresses: &[&str]| PortInfo {
        groups: Vec::new(),
        route_localnet: false,
        device_group: 0,
        name: name.to_owned(),
        mac: Mac([2, 0, 0, 0, 0, index]),
        mtu: 1500,
        addresses: addresses
            .iter()
            .map(|text| {
                let (address, length) = text.split_once('/').unwrap();
                (address.parse().unwrap(), length.parse().unwrap())
            })
            .collect(),
        up: true,
    };
    let topology = Topology {
        mode: Mode::Routed,
        ports: vec![
            port("g0", 1, &["198.18.1.1/24", "2001:db8:1::1/64"]),
            port("g1", 2, &["198.18.2.1/24"]),
        ],
        routes: vec![],
        rules: vec![],
        neighbours: vec![],
    };
    Arc::new(Network::build(&topology).expect("it makes sense"))
}

struct Scene {
    conntrack: Conntrack,
    management: List,
    host_road: bool,
}

impl Scene {
    fn new() -> Self {
        let mut config = Config::new([7; 16]);
        config.set("max", 128).unwrap();
        let conntrack = Conntrack::new(config).unwrap();
        Self { conntrack, management: List::default(), host_road: true }
    }

    /// With the session's handshake in the table; `as_seen`: what the service sees of it
    /// when that is not what is on the wire.
    fn opened(session: &str) -> Self {
        let scene = Self::new();
        let session: Session = session.parse().unwrap();
        scene.handshake(session.client, session.server);
        scene
    }

    fn handshake(&self, client: SocketAddr, server: SocketAddr) {
        let now = monotonic();
        for (from, to, flags, seq, ack) in [
            (client, server, 0x02, 100, 0),
            (server, client, 0x12, 500, 101),
            (client, server, 0x10, 101, 501),
        ] {
            let tcp = Tcp { seq, ack, ..Tcp::new(from.port(), to.port(), flags) };
            let frame = Packet::between(from.ip(), to.ip(), L4::Tcp(tcp)).build();
            let Ok(Frame::Ip(parsed)) = wire::parse(&frame, Mac::default()) else { panic!() };
            let terms = Template::default().terms(0, Extensions::default());
            let subject = self.conntrack.subject(&parsed, &frame, 0);
            let table = &self.conntrack;
            let tracked = table.track_subject(&subject, &parsed, &frame, true, &terms, now);
            table.confirm(&mut tracked.unwrap(), now).unwrap();
        }
    }

    fn judge(&self, session: &str, rules: &str) -> Verdict {
        let session: Session = session.parse().unwrap();
        let family = if session.client.is_ipv4() { Family::V4 } else { Family::V6 };
        judge(&session, &parsed(rules, family), &self.around(&network())).expect("it compiles")
    }

    fn around<'a>(&'a self, network: &'a Arc<Network>) -> Surroundings<'a> {
        let Self { conntrack, management, host_road } = self;
        Surroundings { network, conntrack, management, host_road: *host_road }
    }
}

fn parsed(rules: &str, family: Family) -> Ruleset {
    iptables::parse(rules, "new", family, &TableNames::well_known()).expect("it loads").ruleset
}

/// `filter` with these policies and rules.
fn filter(input: &str, output: &str, rules: &str) -> String {
    format!(
        "*filter\n:INPUT {input} [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT {output} [0:0]\n{rules}COMMIT\n"
    )
}

const ESTABLISHED: &str = "-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";

fn cut(verdict: Verdict) -> Cut {
    match verdict {
        Verdict::Cut(cut) => cut,
        other => panic!("not cut: {other:?}"),
    }
}

fn way_back(verdict: Verdict) -> Option<Cut> {
    match verdict {
        Verdict::Kept { back } => back,
        other => panic!("not kept: {other:?}"),
    }
}

#[test]
fn what_accepts_the_service_keeps_the_session() {
    for session in [SESSION, SESSION6] {
        let scene = Scene::opened(session);
        assert_eq!(way_back(scene.judge(session, &filter("ACCEPT", "ACCEPT", ""))), None);
        let ssh = "-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n";
        assert_eq!(way_back(scene.judge(session, &filter("DROP", "ACCEPT", ssh))), None);
        let both =
            format!("{ESTABLISHED}{ssh}-A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n");
        assert_eq!(way_back(scene.judge(session, &filter("DROP", "DROP", &both))), None);
    }
}

#[test]
fn established_alone_keeps_it_and_warns_of_no_way_back() {
    for session in [SESSION, SESSION6] {
        let scene = Scene::opened(session);
        let verdict = scene.judge(session, &filter("DROP", "ACCEPT", ESTABLISHED));
        let back = way_back(verdict).expect("a SYN is dropped");
        assert_eq!((back.how.as_str(), back.line), ("filter INPUT policy DROP", 2));
        assert_eq!(back.what, "a new connection like it");
    }
}

#[test]
fn what_drops_its_packets_cuts_it_and_is_named() {
    for session in [SESSION, SESSION6] {
        let scene = Scene::opened(session);
        let cases = [
            (filter("DROP", "ACCEPT", ""), "filter INPUT policy DROP", 2),
            (filter("ACCEPT", "DROP", ""), "filter OUTPUT policy DROP", 4),
            (
                filter("ACCEPT", "ACCEPT", "-A INPUT -i g0 -j DROP\n"),
                "filter INPUT rule 1 (DROP)",
                5,
            ),
            (
                filter("ACCEPT", "ACCEPT", "-A INPUT -i g1 -j DROP\n-A INPUT -p tcp -j REJECT\n"),
                "filter INPUT rule 2 (REJECT)",
                6,
            ),
            (
                filter("ACCEPT", "ACCEPT", "-A OUTPUT -o g0 -p tcp -m tcp --sport 22 -j DROP\n"),
                "filter OUTPUT rule 1 (DROP)",
                5,
            ),
            (
                "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j DROP\nCOMMIT\n".to_owned(),
                "raw PREROUTING rule 1 (DROP)",
                3,
            ),
            ("*mangle\n:INPUT DROP [0:0]\nCOMMIT\n".to_owned(), "mangle INPUT policy DROP", 2),
        ];
        for (rules, how, line) in cases {
            let cut = cut(scene.judge(session, &rules));
            assert_eq!((cut.how.as_str(), cut.line), (how, line), "{rules}");
        }
        // What another port's packets meet is no matter.
        let rules = filter("ACCEPT", "ACCEPT", "-A INPUT -i g1 -j DROP\n");
        assert_eq!(way_back(scene.judge(session, &rules)), None);
    }
}

#[test]
fn an_unknown_session_is_taken_up_or_is_invalid() {
    // Not in the table: the service's own packets take it up, unless tracking is strict.
    let scene = Scene::new();
    let rules = filter("DROP", "ACCEPT", ESTABLISHED);
    assert!(way_back(scene.judge(SESSION, &rules)).is_some());
    let closed = filter(
        "DROP",
        "DROP",
        "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A OUTPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT\n",
    );
    assert_eq!(cut(scene.judge(SESSION, &closed)).how, "filter INPUT policy DROP");
    scene.conntrack.set("tcp_loose", 0).unwrap();
    assert_eq!(cut(scene.judge(SESSION, &rules)).how, "filter INPUT policy DROP");
    let invalid = filter("ACCEPT", "ACCEPT", "-A INPUT -m conntrack --ctstate INVALID -j DROP\n");
    let cut = cut(scene.judge(SESSION, &invalid));
    assert_eq!((cut.how.as_str(), cut.line), ("filter INPUT rule 1 (DROP)", 5));
    // One that is known is not.
    assert_eq!(way_back(Scene::opened(SESSION).judge(SESSION, &invalid)), None);
}

#[test]
fn translation_is_the_connections_own() {
    let redirect = "*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --dport 22 -j REDIRECT --to-ports 2222
COMMIT\n";
    // A known connection keeps its translation, that is none; a new one is led astray.
    let back = way_back(Scene::opened(SESSION).judge(SESSION, redirect)).expect("not there");
    assert_eq!(back.how, "nat PREROUTING rule 1 (REDIRECT) (sent to 198.18.1.1:2222 instead)");
    assert_eq!(back.line, 3);
    let elsewhere = "*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --dport 22 -j DNAT --to-destination 198.18.2.9
COMMIT\n";
    let back = way_back(Scene::opened(SESSION).judge(SESSION, elsewhere)).expect("not there");
    assert!(back.how.starts_with("nat PREROUTING rule 1 (DNAT) ("), "{}", back.how);
}

#[test]
fn what_never_meets_a_rule_is_safe() {
    let shut = filter("DROP", "DROP", "");
    let mut scene = Scene::opened(SESSION);
    for (session, ground) in [
        // No route by one of our ports.
        ("203.0.113.9 50000 198.18.1.1 22", Ground::Elsewhere),
        ("127.0.0.1 50000 127.0.0.1 22", Ground::Elsewhere),
        ("fe80::9%eth7 50000 fe80::1%eth7 22", Ground::Elsewhere),
    ] {
        assert_eq!(scene.judge(session, &shut), Verdict::Safe(ground), "{session}");
    }
    scene.management = List::new(["198.18.1.0/24 tcp 22".parse().unwrap()]).unwrap();
    assert_eq!(scene.judge(SESSION, &shut), Verdict::Safe(Ground::Management));
    // Of another service, it is no matter.
    scene.management = List::new(["198.18.1.0/24 tcp 23".parse().unwrap()]).unwrap();
    cut(scene.judge(SESSION, &shut));
    scene.host_road = false;
    assert_eq!(scene.judge(SESSION, &shut), Verdict::Safe(Ground::Kernel));
}

#[test]
fn a_link_local_session_comes_by_its_port() {
    let scene = Scene::new();
    let session = "fe80::2%g0 50000 fe80::ff:fe00:1%g0 22";
    cut(scene.judge(session, &filter("DROP", "ACCEPT", "")));
    assert_eq!(way_back(scene.judge(session, &filter("ACCEPT", "ACCEPT", ""))), None);
}

#[test]
fn sessions_are_read_as_ssh_writes_them() {
    let session: Session = "::ffff:198.18.1.2 50000 ::ffff:198.18.1.1 22".parse().unwrap();
    assert_eq!(session, SESSION.parse().unwrap());
    assert_eq!(session.to_string(), "198.18.1.2 port 50000 to 198.18.1.1 port 22");
    let session: Session = "fe80::2%g0 50000 fe80::1%g0 22".parse().unwrap();
    assert_eq!(session.device.as_deref(), Some("g0"));
    for text in [
        "",
        "198.18.1.2 50000 198.18.1.1",
        "a 1 b 2",
        "198.18.1.2 0 198.18.1.1 22",
        "198.18.1.2 1 2001:db8::1 22",
        "198.18.1.2 1 198.18.1.1 22 x",
    ] {
        assert!(text.parse::<Session>().is_err(), "{text}");
    }
}

/// A /proc with three processes: a shell below sudo below an sshd.
struct Proc(std::path::PathBuf);

impl Proc {
    fn new(name: &str) -> Self {
        let unique = format!("portcullis-proc-{name}-{}", std::process::id());
        let root = std::env::temp_dir().join(unique);
        let proc = Self(root);
        for (pid, parent, comm) in
            [(30, 20, "portcullis"), (20, 10, "sudo"), (10, 1, "sshd-session")]
        {
            proc.write(pid, "status", &format!("Name:\t{comm}\nPPid:\t{parent}\n"));
            proc.write(pid, "comm", &format!("{comm}\n"));
            proc.write(pid, "environ", "PATH=/bin\0");
        }
        // A listener; 198.18.1.2:50000 at 198.18.1.1:22; the other in IPv6's notation, port 23.
        let tcp = "  sl  local_address rem_address   st
   0: 010112C6:0016 00000000:0000 0A 0 0 0 0 0 7 1
   1: 010112C6:0016 020112C6:C350 01 0 0 0 0 0 77 1\n";
        proc.write(30, "net/tcp", tcp);
        proc.write(30, "net/tcp6", "  sl  local_address\n   0: 0000000000000000FFFF0000010112C6:0017 0000000000000000FFFF0000020112C6:C351 01 0 0 0 0 0 78 1\n");
        proc
    }

    fn write(&self, pid: u32, name: &str, text: &str) {
        let path = self.0.join(pid.to_string()).join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn place(&self, said: Option<&str>) -> Place {
        Place { proc: self.0.clone(), pid: 30, said: said.map(str::to_owned) }
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_session_is_found_in_the_environment_of_a_parent_or_among_its_sockets() {
    let proc = Proc::new("found");
    let session: Session = SESSION.parse().unwrap();
    assert_eq!(proc.place(Some(SESSION)).session(), Some(session.clone()));
    // sudo dropped it, its parent has it.
    assert_eq!(proc.place(None).session(), None);
    proc.write(10, "environ", &format!("A=b\0SSH_CONNECTION={SESSION}\0C=d\0"));
    assert_eq!(proc.place(None).session(), Some(session.clone()));
    // What is no connection any more is not believed.
    let stale = "198.18.1.2 50001 198.18.1.1 22";
    proc.write(10, "environ", &format!("SSH_CONNECTION={stale}\0"));
    assert_eq!(proc.place(Some(stale)).session(), None);
    // Nobody says anything: sshd's socket does.
    proc.write(10, "fd/none", "");
    std::os::unix::fs::symlink("socket:[77]", proc.0.join("10/fd/4")).unwrap();
    assert_eq!(proc.place(None).session(), Some(session));
    std::fs::remove_file(proc.0.join("10/fd/4")).unwrap();
    std::os::unix::fs::symlink("socket:[78]", proc.0.join("10/fd/4")).unwrap();
    let other: Session = "198.18.1.2 50001 198.18.1.1 23".parse().unwrap();
    assert_eq!(proc.place(None).session(), Some(other));
    // Only sshd's sockets are a session.
    proc.write(10, "comm", "nc\n");
    assert_eq!(proc.place(None).session(), None);
}
