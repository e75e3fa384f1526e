//! Never locked out: management traffic against rulesets that are out to stop it, packets
//! that only look like it, and changes that would cut the session they come from. Needs root.

mod netns;
#[path = "management/probe.rs"]
mod probe;
#[allow(dead_code, reason = "the office is the clients' tests', of which this is a part")]
#[path = "clients/stage.rs"]
mod stage;

use std::time::Duration;

use netns::{Namespace, join};
use probe::{Directory, Office, hostile};

/// The office's managers: four addresses of the LAN, and one behind the provider.
const LIST: [&str; 5] = [
    "10.7.0.8/30 tcp 2222",
    "fd00:7::8/126 tcp 2222",
    "198.18.3.2 tcp 2222",
    "2001:db8:3::2 tcp 2222",
    "10.7.0.0/28 udp 2224",
];

fn flags() -> Vec<&'static str> {
    LIST.iter().flat_map(|entry| ["--management", entry]).collect()
}

#[test]
fn no_ruleset_stands_before_the_managers() {
    let mut office = Office::new();
    // From before the first packet that the daemon has: a session that lasts to the end.
    let session = office.session();
    let (v4, v6) = hostile().remove(0).1;
    // A table that a flood has filled is no hindrance either.
    let more = [flags(), vec!["--conntrack-max", "16"]].concat();
    office.stage.start(&v4, &v6, &more);
    for (what, (v4, v6)) in hostile() {
        office.apply(&v4, &v6);
        let managers = [
            ("10.7.0.8", "10.7.0.1"),
            ("10.7.0.11", "198.18.2.1"),
            ("fd00:7::8", "fd00:7::1"),
            ("fd00:7::b", "2001:db8:2::1"),
        ];
        let asked = managers.map(|(from, to)| ("tcp", from, to, 2222));
        assert_eq!(office.reached(&asked), [true; 4], "{what}\n{}", office.stage.errors());
    }
    // Everybody else meets the rules: neighbours of the prefix, of the port, another protocol.
    let (v4, v6) = &hostile()[0].1;
    office.apply(v4, v6);
    let strangers = [
        ("tcp", "10.7.0.7", "10.7.0.1", 2222),
        ("tcp", "10.7.0.12", "10.7.0.1", 2222),
        ("tcp", "10.7.0.8", "10.7.0.1", 2221),
        ("tcp", "10.7.0.8", "10.7.0.1", 2223),
        ("udp", "10.7.0.8", "10.7.0.1", 2222),
        ("tcp", "fd00:7::7", "fd00:7::1", 2222),
        ("tcp", "fd00:7::c", "fd00:7::1", 2222),
        ("tcp", "fd00:7::8", "fd00:7::1", 2223),
        ("udp", "fd00:7::8", "fd00:7::1", 2222),
        // Somebody else's service is transit.
        ("tcp", "10.7.0.8", "198.18.3.2", 2222),
        ("tcp", "fd00:7::8", "2001:db8:3::2", 2222),
    ];
    assert_eq!(office.reached(&strangers), [false; 11]);
    // Another service of the list works, and is another entry.
    assert_eq!(office.reached(&[("udp", "10.7.0.8", "10.7.0.1", 2224)]), [true]);
    let counts = office.counts();
    assert!(counts[0].1 > 30 && counts[0].2 > 30, "{counts:?}");
    assert!(counts[1].1 > 20 && counts[4] == (LIST[4].to_owned(), 1, 1), "{counts:?}");
    let shown = office.stage.cli(&["show", "management"]);
    assert!(shown.contains(LIST[0]) && shown.contains("packets in"), "{shown}");
    let gap = session.end();
    assert!(gap < Duration::from_millis(1500), "the session stood still for {gap:?}");
}

#[test]
fn large_transfers_and_path_mtu_errors_belong_to_it() {
    let mut office = Office::new();
    // A narrow link in the middle, and managers beyond it who do not know.
    for (host, device) in [(&office.stage.provider, "r1"), (&office.stage.server, "s0")] {
        host.run(&format!("ip link set {device} mtu 1500"));
    }
    let narrow = "dev r1 mtu lock 1280";
    office.stage.provider.run(&format!("ip route replace 198.18.3.0/24 {narrow}"));
    office.stage.provider.run(&format!("ip -6 route replace 2001:db8:3::/64 {narrow} metric 256"));
    let (v4, v6) = hostile().remove(0).1;
    office.stage.start(&v4, &v6, &flags());
    for to in ["198.18.2.1", "2001:db8:2::1"] {
        let from = if to.contains(':') { "2001:db8:3::2" } else { "198.18.3.2" };
        office.transfer(&office.stage.server, from, to, 4_000_000);
    }
    let mtu = office.stage.gateway.run("ip route get 198.18.3.2; ip -6 route get 2001:db8:3::2");
    assert_eq!(mtu.matches("mtu 1280").count(), 2, "the kernel has learned it: {mtu}");
    // With the LAN's offloads on, and through a flood of transit.
    let _flood = office
        .stage
        .spawn(&office.stage.neighbour, "timeout 20 hping3 --udp -q -i u200 -p 9 198.18.3.2");
    for (from, to) in [("10.7.0.8", "10.7.0.1"), ("fd00:7::8", "fd00:7::1")] {
        office.transfer(&office.stage.client, from, to, 16_000_000);
    }
}

#[test]
fn what_only_looks_like_management_is_not() {
    let mut office = Office::new();
    let (v4, v6) = hostile().remove(0).1;
    office.stage.gateway.run("ip addr add 10.7.0.200/24 dev g0");
    // Else the switch would hand over tags beside the frame, where no program sees them.
    office.stage.switch.run("ethtool -K p2 txvlan off");
    office.stage.start(&v4, &v6, &flags());
    let crafted = |what: &str, times: u64| {
        let before = office.admitted();
        office.craft(what);
        let admitted = office.admitted() - before;
        assert_eq!(admitted, times, "{what}");
    };
    // An answer to it would be answered.
    let ack = "IP(src='10.7.0.8',dst='10.7.0.1')/TCP(sport=5,dport=2222,flags='A')";
    let ack6 = "IPv6(src='fd00:7::8',dst='fd00:7::1')/TCP(sport=5,dport=2222,flags='A')";
    crafted(&format!("E/{ack}"), 1);
    crafted(&format!("E/{ack6}"), 1);
    // A mere priority is no VLAN.
    crafted(&format!("E/Dot1Q(vlan=0,prio=3)/{ack}"), 1);
    for what in [
        format!("E/Dot1Q(vlan=5)/{ack}"),
        "E/IP(src='10.7.0.8',dst='10.7.0.1',flags='MF')/TCP(sport=5,dport=2222)".to_owned(),
        "E/IP(src='10.7.0.8',dst='10.7.0.1',frag=20,proto=6)/(b'\\x00\\x05\\x08\\xae'*8)"
            .to_owned(),
        "E/IP(src='10.7.0.8',dst='10.7.0.1',options=[IPOption_NOP()])/TCP(sport=5,dport=2222)"
            .to_owned(),
        "E/IPv6(src='fd00:7::8',dst='fd00:7::1')/IPv6ExtHdrHopByHop()/TCP(sport=5,dport=2222)"
            .to_owned(),
        "E/IPv6(src='fd00:7::8',dst='fd00:7::1')/IPv6ExtHdrFragment(m=1)/TCP(sport=5,dport=2222)"
            .to_owned(),
        "E/IP(src='10.7.0.8',dst='10.7.0.1')/ICMP()".to_owned(),
        "E/IP(src='10.7.0.8',dst='10.7.0.1')/UDP(sport=5,dport=2222)".to_owned(),
        "E/IP(src='10.7.0.8',dst='198.18.3.2')/TCP(sport=5,dport=2222)".to_owned(),
        // Who says to be this machine itself, and who speaks to everybody.
        "E/IP(src='10.7.0.1',dst='10.7.0.1')/UDP(sport=5,dport=2224)".to_owned(),
        "E/IP(src='10.7.0.8',dst='10.7.0.255')/UDP(sport=5,dport=2224)".to_owned(),
        "E/IP(src='10.7.0.8',dst='255.255.255.255')/UDP(sport=5,dport=2224)".to_owned(),
        // Errors about what nobody here sent to a manager.
        "E/IP(src='10.7.0.8',dst='10.7.0.1')/ICMP(type=3,code=4)/\
         IP(src='10.7.0.1',dst='10.7.0.12')/TCP(sport=2222,dport=5)"
            .to_owned(),
        "E/IP(src='10.7.0.8',dst='198.18.3.2')/ICMP(type=3,code=4)/\
         IP(src='10.7.0.1',dst='10.7.0.8')/TCP(sport=2222,dport=5)"
            .to_owned(),
        "E/IP(src='10.7.0.8',dst='10.7.0.1')/ICMP(type=3,code=4)/\
         IP(src='10.7.0.1',dst='10.7.0.8')/TCP(sport=5,dport=2222)"
            .to_owned(),
    ] {
        crafted(&what, 0);
    }
    // Anybody on the way may complain about what went to a manager.
    crafted(
        "E/IP(src='10.7.0.99',dst='10.7.0.1')/ICMP(type=3,code=4)/\
         IP(src='10.7.0.1',dst='10.7.0.8')/TCP(sport=2222,dport=5)",
        1,
    );
    // An address is the machine's own until it is taken away.
    let other = "E/IP(src='10.7.0.8',dst='10.7.0.200')/TCP(sport=5,dport=2222,flags='A')";
    crafted(other, 1);
    office.stage.gateway.run("ip addr del 10.7.0.200/24 dev g0");
    std::thread::sleep(Duration::from_millis(300));
    crafted(other, 0);
    let words = "in=g0 src=10.7.0.8 dst=10.7.0.1 proto=tcp dport=2222 flags=SYN";
    let words: Vec<&str> = words.split(' ').collect();
    let explained = office.stage.cli(&[&["explain"], &words[..]].concat());
    assert!(
        explained.starts_with("management: \"10.7.0.8/30 tcp 2222\" lets it past"),
        "{explained}"
    );
    let words = "in=g0 src=10.7.0.12 dst=10.7.0.1 proto=tcp dport=2222 flags=SYN";
    let words: Vec<&str> = words.split(' ').collect();
    let explained = office.stage.cli(&[&["explain"], &words[..]].concat());
    assert!(explained.starts_with("packet:"), "{explained}");
}

#[test]
fn a_dead_daemon_leaves_the_managers_in_and_nobody_else() {
    let mut office = Office::new();
    let pins = office.bpffs();
    let more = [flags(), vec!["--on-failure", "closed", "--pin-dir", &pins]].concat();
    office.stage.start("*filter\nCOMMIT\n", "*filter\nCOMMIT\n", &more);
    let asked = [
        ("tcp", "10.7.0.8", "10.7.0.1", 2222),
        ("tcp", "fd00:7::8", "fd00:7::1", 2222),
        ("tcp", "10.7.0.12", "10.7.0.1", 2222),
        ("tcp", "fd00:7::c", "fd00:7::1", 2222),
        ("tcp", "10.7.0.8", "198.18.3.2", 2222),
    ];
    assert_eq!(office.reached(&asked[..4]), [true; 4], "no rule forbids it");
    office.stage.end("KILL");
    // Nobody remembers where the others are.
    for host in [&office.stage.client, &office.stage.gateway] {
        host.run("ip neigh flush all; ip -6 neigh flush all");
    }
    assert_eq!(office.reached(&asked), [true, true, false, false, false]);
}

#[test]
fn a_bridge_is_managed_by_its_own_address() {
    let [left, boxed, right] = ["left", "box", "right"].map(Namespace::new);
    join((&boxed, "b0"), (&left, "l0"), 1);
    join((&boxed, "b1"), (&right, "r0"), 1);
    for (host, device, last) in [(&boxed, "b0", 1), (&left, "l0", 2), (&right, "r0", 3)] {
        host.run(&format!("ip addr add 198.18.1.{last}/24 dev {device}"));
        host.run(&format!("ip addr add 2001:db8:1::{last}/64 dev {device}"));
    }
    let directory = Directory::new(boxed.name());
    let _services = [&boxed, &right].map(|host| directory.services(host));
    let shut = directory.file("shut", "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    let list = ["198.18.1.2 tcp 2222", "2001:db8:1::2 tcp 2222"];
    let managers: Vec<&str> = list.iter().flat_map(|entry| ["--management", entry]).collect();
    let mut arguments = vec!["--mode", "bridge", "--port", "b0", "--port", "b1"];
    arguments.extend(["--rules", shut.as_str(), "--rules6", shut.as_str()]);
    arguments.extend(managers);
    let _daemon = directory.run(&boxed, &arguments);
    let asked = [
        ("tcp", "198.18.1.2", "198.18.1.1", 2222),
        ("tcp", "2001:db8:1::2", "2001:db8:1::1", 2222),
        ("tcp", "198.18.1.2", "198.18.1.1", 2223),
        ("tcp", "198.18.1.2", "198.18.1.3", 2222),
        ("tcp", "2001:db8:1::2", "2001:db8:1::3", 2222),
    ];
    assert_eq!(directory.reached(&left, &asked), [true, true, false, false, false]);
}

#[test]
fn a_start_that_cuts_the_session_says_so() {
    let office = Office::new();
    let session = office.held("10.7.0.12", "10.7.0.1");
    let shut = office.stage.file("shut", "*filter\n:INPUT DROP [0:0]\nCOMMIT\n");
    let shut = shut.to_str().expect("a plain name").to_owned();
    let directory = Directory::new("start");
    let gateway = &office.stage.gateway;
    let arguments = ["--port", "g0", "--port", "g1", "--rules", shut.as_str()];
    let daemon = directory.run_over(gateway, &arguments, &session.words());
    let said = directory.errors();
    assert!(said.contains("THIS CUTS THE SESSION YOU ARE ON (10.7.0.12 port "), "{said}");
    assert!(said.contains(&format!("{shut}:2: filter INPUT policy DROP")), "{said}");
    assert!(!session.speaks());
    drop(daemon);
    let managers = ["--management", "10.7.0.12 tcp 2222"];
    let session = office.held("10.7.0.12", "10.7.0.1");
    let _daemon =
        directory.run_over(gateway, &[&arguments[..], &managers].concat(), &session.words());
    assert!(!directory.errors().contains("CUTS"), "{}", directory.errors());
    assert!(session.speaks());
}

#[test]
fn apply_keeps_the_session_that_it_is_typed_in() {
    let mut office = Office::new();
    // It is tracked from its beginning.
    let open = "*filter\n-A INPUT -m state --state ESTABLISHED -j ACCEPT\nCOMMIT\n";
    office.stage.start(open, open, &["--management", "10.7.0.11 tcp 2222"]);
    let shut = "*filter\n:INPUT DROP [0:0]\nCOMMIT\n";
    let one_way =
        "*filter\n:INPUT DROP [0:0]\n-A INPUT -m state --state ESTABLISHED -j ACCEPT\nCOMMIT\n";
    for (from, to, flag) in
        [("10.7.0.12", "10.7.0.1", "--rules"), ("fd00:7::c", "fd00:7::1", "--rules6")]
    {
        let session = office.held(from, to);
        let named = session.words();
        let (refused, said) = office.try_apply(shut, flag, &["--session", &named]);
        assert_eq!(refused, 1, "{said}");
        for part in ["would cut the session you are on", "filter INPUT policy DROP", ":2: error"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(session.speaks(), "the old policy keeps running");
        let (done, said) = office.try_apply(one_way, flag, &["--session", &named]);
        assert_eq!(done, 0, "{said}");
        assert!(said.contains("you would not come back"), "{said}");
        assert!(session.speaks(), "it was taken up as ESTABLISHED");
        // Another family's rules are no matter.
        let other = if flag == "--rules" { "--rules6" } else { "--rules" };
        let (done, said) = office.try_apply(open, other, &["--json", "--session", &named]);
        assert!(done == 0 && said.contains("\"unchanged\""), "{said}");
        let (done, said) = office.try_apply(shut, flag, &["--session", &named, "--force"]);
        assert_eq!(done, 0, "{said}");
        assert!(said.contains("would cut the session you are on"), "{said}");
        assert!(!session.speaks(), "it was said that it would be cut");
        let (done, said) = office.try_apply(open, flag, &["--json", "--session", "none"]);
        assert!(done == 0 && said.contains("\"outcome\":\"none\""), "{said}");
    }
    // A manager's session is nobody's to cut.
    let session = office.held("10.7.0.11", "10.7.0.1");
    let (done, said) =
        office.try_apply(shut, "--rules", &["--json", "--session", &session.words()]);
    assert!(done == 0 && said.contains("\"management\""), "{said}");
    assert!(session.speaks());
    // What SSH_CONNECTION says is believed when it is there.
    let said = office.apply_over(&session, shut);
    assert!(said.contains("\"management\""), "{said}");
}
