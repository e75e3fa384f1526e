//! Tests of matrices: what passes, what fails and how that is said, faults of files, JUnit.

use std::path::Path;

use dataplane::clock::Nanos;
use dataplane::conntrack::Config;

use super::{Loaded, Report, junit, read, render};
use crate::api::protocol::Source;
use crate::daemon::policy::Texts;
use crate::diagnostics::Code;

const AT: Nanos = Nanos::from_secs(1_800_000_000);

const RULES: &str = "*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i wan -d 198.51.100.7/32 -p tcp --dport 80 -j DNAT --to-destination 10.0.0.2:8080
-A POSTROUTING -o wan -s 10.0.0.0/24 -j SNAT --to-source 198.51.100.7
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:web - [0:0]
-A INPUT -i lan -p tcp --dport 22 -m comment --comment \"admins owner=ops\" -j ACCEPT
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -i wan -j web
-A FORWARD -i lan -o wan -j ACCEPT
-A FORWARD -p icmp -m icmp --icmp-type 8 -m limit --limit 1/hour --limit-burst 1 -j ACCEPT
-A FORWARD -m limit --limit 10/sec -j LOG --log-prefix \"fw-drop: \"
-A FORWARD -p tcp -j REJECT --reject-with tcp-reset
-A web -p tcp --dport 8080 -d 10.0.0.2/32 -m set ! --match-set bad src -j ACCEPT
COMMIT
";
const SETS: &str = "create bad hash:ip family inet\nadd bad 203.0.113.66\n";

fn texts() -> Texts {
    let source = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
    Texts { v4: Some(source("rules.v4", RULES)), v6: None, sets: vec![source("sets", SETS)] }
}

fn run(text: &str) -> Report {
    let matrix = read(text, Path::new("m.toml")).unwrap_or_else(|findings| {
        panic!("{}", crate::diagnostics::render_all(&findings, Some(text)))
    });
    let loaded = Loaded::read(&texts(), Config::new([0; 16]), AT).unwrap();
    loaded.run(&matrix, None, AT, &mut |_, _| {}).unwrap()
}

/// The flows that must be as expected.
const GOOD: &str = r#"
[[flow]]
name = "web from outside"
owner = "web"
purpose = "customers"
in = "wan"
out = "lan"
src = "203.0.113.9"
dst = "198.51.100.7"
dport = 80
expect = "accept"
by = "filter web 1"
state = "NEW"
nat = { dst = "10.0.0.2", dport = 8080 }
log = false
answered = true

[[flow]]
name = "blocked customers"
in = "wan"
out = "lan"
src = "203.0.113.66"
dst = "198.51.100.7"
dport = 80
expect = "reject"
by = "filter FORWARD 7"
log = "fw-drop: "

[[flow]]
name = "out, and answers"
in = "lan"
out = "wan"
src = "10.0.0.5"
dst = "203.0.113.1"
proto = "udp"
dport = 53

[[flow.step]]
expect = "accept"
by = "nat POSTROUTING 1"
nat = { src = "198.51.100.7" }

[[flow.step]]
from = "server"
after_ms = 100
expect = "accept"
state = "ESTABLISHED"
nat = { dst = "10.0.0.5" }

[[flow.step]]
from = "server"
after_ms = 20000
length = 20
expect = "accept"
log = false

[[flow.step]]
from = "server"
after_ms = 400000
expect = "drop"

[[flow]]
name = "ping, once"
in = "x"
out = "lan"
src = "203.0.113.1"
dst = "10.0.0.5"
proto = "icmp"
expect = "accept"

[[flow]]
name = "ping, once again: flows know nothing of each other"
in = "x"
out = "lan"
src = "203.0.113.1"
dst = "10.0.0.5"
proto = "icmp"
expect = "accept"
answered = true

[[flow]]
name = "administration"
in = "lan"
src = "10.0.0.9"
dst = "10.0.0.1"
dport = 22
expect = "accept"
comment = "admins"
answered = true

[[flow]]
name = "not the others"
in = "wan"
src = "203.0.113.1"
dst = "10.0.0.1"
dport = 22
expect = "deny"
by = "filter INPUT policy"

[[flow]]
name = "a stray segment"
in = "wan"
out = "lan"
src = "203.0.113.9"
dst = "10.0.0.2"
dport = 9
flags = "ACK"
given = "ESTABLISHED"
expect = "accept"
state = "ESTABLISHED"
by = "filter FORWARD 1"

[[flow]]
name = "damaged"
in = "wan"
out = "lan"
src = "203.0.113.9"
dst = "10.0.0.2"
dport = 8080
given = "INVALID"
expect = "drop"
by = "filter FORWARD 2"

[[flow]]
name = "our own"
out = "wan"
src = "198.51.100.7"
dst = "203.0.113.1"
proto = "udp"
dport = 123
expect = "accept"
by = "filter OUTPUT"
nat = "none"
"#;

#[test]
fn flows_that_are_as_expected_pass() {
    let report = run(GOOD);
    let all = render(&report, true);
    let (passed, failed) = (report.passed, report.failed);
    // The administration's answer is the machine's own.
    assert_eq!((passed, failed), (10, 0), "{all}");
    assert_eq!(report.flows[0].steps.len(), 3);
    let nat = report.flows[0].steps[0].nat.as_deref();
    assert_eq!(nat, Some("destination 10.0.0.2 port 8080"));
    assert!(all.contains("10 flows as expected"), "{all}");
}

#[test]
fn each_expectation_can_fail() {
    // What is said of the first flow, another word, and what comes of it.
    let cases = [
        ("expect = \"accept\"", "expect = \"deny\"", "expected deny, got accept"),
        ("by = \"filter web 1\"", "by = \"filter web 2\"", "expected a decision by filter web 2"),
        ("state = \"NEW\"", "state = \"RELATED\"", "expected state RELATED, got NEW"),
        ("dport = 8080", "dport = 81", "expected destination port 81, got 8080"),
        ("dst = \"10.0.0.2\", ", "", "expected destination 198.51.100.7, got 10.0.0.2"),
        ("log = false", "log = true", "expected a line in the log, got none"),
        ("log = \"fw-drop: \"", "log = false", "expected no log, got fw-drop: IN=wan"),
        ("log = \"fw-drop: \"", "log = \"other\"", "with prefix \"other\", got fw-drop:"),
        ("comment = \"admins\"", "comment = \"users\"", "expected a rule that says \"users\""),
        ("after_ms = 20000", "after_ms = 200000", "expected accept, got drop"),
        ("out = \"lan\"\nsrc = \"203.0.113.9\"", "out = \"x\"\nsrc = \"203.0.113.9\"", ""),
    ];
    for (from, to, problem) in cases {
        assert!(GOOD.contains(from), "{from}");
        let report = run(&GOOD.replacen(from, to, 1));
        let found = report.failures().flat_map(|flow| &flow.steps).flat_map(|it| &it.problems);
        let found: Vec<&String> = found.collect();
        if problem.is_empty() {
            assert_eq!(report.failed, 0, "another port of the same policy: {found:?}");
        } else {
            assert_eq!(report.failed, 1, "{from} -> {to}: {found:?}");
            assert!(found.iter().any(|it| it.contains(problem)), "{problem}: {found:?}");
        }
    }
}

#[test]
fn flows_do_not_depend_on_their_order() {
    let mut flows: Vec<&str> = GOOD.split("\n[[flow]]\n").skip(1).collect();
    flows.reverse();
    let turned: String = flows.iter().map(|flow| format!("\n[[flow]]\n{flow}")).collect();
    let (one, mut other) = (run(GOOD), run(&turned));
    other.flows.reverse();
    for (one, other) in one.flows.iter().zip(&other.flows) {
        let ends = |it: &super::FlowResult| -> Vec<(String, Option<String>)> {
            it.steps.iter().map(|step| (step.verdict.clone(), step.by.clone())).collect()
        };
        assert_eq!((&one.name, ends(one)), (&other.name, ends(other)));
    }
}

#[test]
fn faults_of_a_file_have_their_places() {
    let flow = "[[flow]]\nname = \"a\"\nin = \"e0\"\nsrc = \"192.0.2.1\"\ndst = \"192.0.2.2\"\n";
    let cases: [(&str, Code, u32, u32); 14] = [
        ("expect = \"acept\"", Code::BadValue, 6, 10),
        ("expct = \"accept\"", Code::UnknownKey, 6, 1),
        ("expect = true", Code::WrongType, 6, 10),
        ("expect = \"accept\"\nby = \"FORWARD\"", Code::BadValue, 7, 6),
        ("expect = \"accept\"\nby = \"filter FORWARD 0\"", Code::BadValue, 7, 6),
        ("expect = \"accept\"\nnat = { too = 1 }", Code::UnknownKey, 7, 9),
        ("expect = \"accept\"\nnat = { dst = \"x\" }", Code::BadValue, 7, 15),
        ("expect = \"accept\"\nproto = \"tpc\"", Code::BadValue, 7, 9),
        ("expect = \"accept\"\ndport = 70000", Code::BadValue, 7, 9),
        ("expect = \"accept\"\nlog = 1", Code::WrongType, 7, 7),
        ("expect = \"accept\"\n[[flow.step]]\nexpect = \"accept\"", Code::BadValue, 6, 10),
        ("[[flow.step]]\nfrom = \"server\"\nexpect = \"accept\"", Code::BadValue, 6, 1),
        ("expect = \"accept\"\n[[flow]]\nname = \"a\"", Code::BadValue, 8, 8),
        ("expect = \"accept", Code::BadSyntax, 6, 17),
    ];
    for (rest, code, line, column) in cases {
        let text = format!("{flow}{rest}\n");
        let findings = read(&text, Path::new("m.toml")).expect_err(rest);
        let first = &findings[0];
        assert_eq!(
            (first.code, first.line, first.column),
            (code, line, column),
            "{rest}: {first:?}"
        );
    }
    let both = format!("{flow}expect = \"x\"\nlgo = 1\n");
    assert_eq!(read(&both, Path::new("m.toml")).unwrap_err().len(), 2, "all at once");
    assert!(read("", Path::new("m.toml")).unwrap().flows.is_empty());
}

#[test]
fn an_empty_matrix_runs() {
    let report = run("");
    assert_eq!((report.passed, report.failed), (0, 0));
}

#[test]
fn junit_names_every_flow_and_every_failure() {
    let report = run(&GOOD.replacen("expect = \"accept\"", "expect = \"drop\"", 1));
    let mut xml = Vec::new();
    junit(&report, &mut xml).unwrap();
    let text = String::from_utf8(xml).unwrap();
    assert_eq!(text.matches("<testcase ").count(), report.flows.len(), "{text}");
    assert_eq!(text.matches("<failure ").count(), 1, "{text}");
    assert!(text.contains("tests=\"10\"") && text.contains("failures=\"1\""), "{text}");
    assert!(text.contains("expected drop, got accept"), "{text}");
}

#[test]
fn what_is_proposed_passes_and_is_the_same_each_time() {
    let policy = || Loaded::read(&texts(), Config::new([0; 16]), AT).unwrap();
    let text = super::propose(&policy(), AT).unwrap();
    assert_eq!(super::propose(&policy(), AT).unwrap(), text);
    let report = run(&text);
    assert_eq!(report.failed, 0, "{}", render(&report, true));
    // A flow for every rule that ends a walk and that a packet can meet, with a near miss.
    for name in
        ["INPUT 1", "FORWARD 1", "FORWARD 2", "FORWARD 4", "FORWARD 7", "web 1", "FORWARD policy"]
    {
        assert!(text.contains(&format!("name = \"ipv4 {name}\"\n")), "{name}:\n{text}");
    }
    assert!(text.matches("a near miss").count() >= 3, "{text}");
    assert!(text.contains("owner = \"ops\"\npurpose = \"admins\"\n"), "{text}");
    // Another policy fails it.
    let mut other = texts();
    other.v4.as_mut().unwrap().text = RULES.replace(":INPUT DROP", ":INPUT ACCEPT");
    let matrix = read(&text, Path::new("m.toml")).unwrap();
    let other = Loaded::read(&other, Config::new([0; 16]), AT).unwrap();
    assert!(other.run(&matrix, None, AT, &mut |_, _| {}).unwrap().failed > 0);
}

#[test]
fn what_was_seen_is_learned_once_for_each_service() {
    use dataplane::fib::Network;
    use dataplane::wire::build::Packet;

    let topology = "mode = \"routed\"
[[port]]
name = \"wan\"
mac = \"02:00:00:00:00:01\"
addresses = [\"198.51.100.7/24\"]
[[port]]
name = \"lan\"
mac = \"02:00:00:00:00:02\"
addresses = [\"10.0.0.1/24\"]
[[route]]
to = \"0.0.0.0/0\"
dev = \"wan\"
via = \"198.51.100.1\"
";
    let file = crate::replay::topology::TopologyFile::parse(Path::new("t"), topology).unwrap();
    let network = Network::build(&file.topology).unwrap();
    let lan = network.port_named("lan").unwrap();
    let mac = network.port(lan).mac;
    let frames = [
        Packet::tcp("10.0.0.5", 40_001, "203.0.113.1", 443, 2),
        Packet::tcp("10.0.0.6", 40_002, "203.0.113.1", 443, 2),
        // What belongs to something, and an answer.
        Packet::tcp("10.0.0.6", 40_002, "203.0.113.1", 443, 0x10),
        Packet::udp("10.0.0.5", 53, "203.0.113.1", 40_000),
        Packet::udp("10.0.0.5", 40_000, "203.0.113.1", 53),
        Packet::tcp("10.0.0.9", 40_003, "10.0.0.1", 22, 2),
        Packet::tcp("10.0.0.9", 40_003, "10.0.0.1", 23, 2),
    ];
    let seen: Vec<_> = frames.iter().map(|it| super::seen(lan, mac, it.build())).collect();
    let policy = Loaded::read(&texts(), Config::new([0; 16]), AT).unwrap();
    let text = super::learn(&policy, &network, &seen, AT).unwrap();
    assert_eq!(text.matches("[[flow]]").count(), 4, "{text}");
    assert!(text.contains("observed 2 times"), "{text}");
    let report = run(&text);
    assert_eq!((report.passed, report.failed), (4, 0), "{text}\n{}", render(&report, true));
    let verdicts: Vec<&str> = report.flows.iter().map(|it| &*it.steps[0].verdict).collect();
    assert_eq!(verdicts, ["accept", "drop", "accept", "accept"]);
    assert!(text.contains("src = \"198.51.100.7\""), "{text}");
}
