//! Tests of explanations: reasons, states, hooks, refusals.

use super::*;
use crate::iptables::{self, TableNames};
use crate::replay::event::Verdict;

const RULES: &str = "*mangle
:PREROUTING ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
-A PREROUTING -i eth0 -p tcp -j MARK --set-xmark 0x5/0xffffffff
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:web - [0:0]
-A INPUT -p icmp -m icmp --icmp-type 8 -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -i eth0 -p tcp -m tcp --dport 80:443 -j web
-A FORWARD -j REJECT --reject-with icmp-port-unreachable
-A web ! -s 198.18.1.0/24 -j RETURN
-A web -p tcp -m limit --limit 1/sec -m multiport --dports 80,443 -j ACCEPT
-A web -j LOG
-A OUTPUT -d 198.18.9.9/32 -j DROP
COMMIT
";

fn ask(words: &str) -> Result<Explanation, ExplainError> {
    let names = TableNames::well_known();
    let rules = iptables::parse(RULES, "rules.v4", Family::V4, &names).expect("it loads").ruleset;
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    let description = Description::parse(&words)?;
    explain(&rules, &Ruleset::empty(Family::V6), None, &description, &names)
}

/// Each step of one table as `chain/rule` with `+` or the reason.
fn steps(explanation: &Explanation, wanted: &str) -> Vec<String> {
    let mut found = Vec::new();
    for stage in &explanation.stages {
        let Stage::Table { table, hook, steps, .. } = stage else { continue };
        if format!("{table} {hook}") == wanted {
            found.extend(steps.iter().map(|step| {
                let rule = step.rule.map_or("policy".to_owned(), |rule| rule.to_string());
                let why = step.why.as_deref().unwrap_or("+");
                format!("{}/{rule} {why}", step.chain)
            }));
        }
    }
    found
}

#[test]
fn every_step_has_its_reason() {
    let explanation =
        ask("in=eth0 out=eth1 src=198.18.1.2 dst=198.18.2.2 proto=tcp dport=443").unwrap();
    assert_eq!(explanation.event.verdict, Verdict::Accept);
    assert_eq!(
        (explanation.event.out.as_slice(), explanation.event.mark),
        (&["eth1".into()][..], 5)
    );
    assert_eq!(
        steps(&explanation, "filter FORWARD"),
        [
            "FORWARD/1 --ctstate: the packet has NEW",
            "FORWARD/2 --ctstate: the packet has NEW",
            "FORWARD/3 +",
            "web/1 ! -s: the packet has 198.18.1.2",
            "web/2 +",
        ]
    );
    let text = render(&explanation);
    assert!(
        text.contains("  * FORWARD 3: -i eth0 -p tcp -m tcp --dport 80:443 -j web\n"),
        "{text}"
    );
    assert!(text.contains("routing: eth1\n") && text.contains("tracking: NEW"), "{text}");
    assert!(text.ends_with("verdict: accept, out eth1, mark 0x5\n"), "{text}");
}

#[test]
fn states_are_brought_about() {
    let cases = [
        ("proto=tcp sport=9 dport=22 state=ESTABLISHED", "accept", "ESTABLISHED"),
        (
            "proto=tcp sport=443 dport=9 flags=ACK state=ESTABLISHED dir=reply",
            "accept",
            "ESTABLISHED",
        ),
        ("proto=udp dport=53 state=ESTABLISHED", "accept", "ESTABLISHED"),
        ("proto=icmp state=ESTABLISHED", "accept", "ESTABLISHED"),
        ("proto=icmp state=RELATED", "accept", "RELATED"),
        ("proto=tcp dport=443 state=INVALID", "drop", "INVALID"),
        ("proto=udp dport=53 state=NEW", "reject", "NEW"),
    ];
    for (words, verdict, state) in cases {
        let explanation =
            ask(&format!("in=eth0 out=eth1 src=198.18.1.2 dst=198.18.2.2 {words}")).expect(words);
        let got = serde_json::to_value(explanation.event.verdict).unwrap();
        assert_eq!(
            (got.as_str(), explanation.event.ctstate),
            (Some(verdict), Some(state)),
            "{words}"
        );
    }
    let impossible =
        ask("in=eth0 out=eth1 src=198.18.1.2 dst=198.18.2.2 proto=tcp flags=FIN,SYN state=NEW");
    assert!(matches!(impossible, Err(ExplainError::State { wanted: "NEW", got: "INVALID" })));
}

#[test]
fn interfaces_choose_the_hooks() {
    let input = ask("in=eth0 src=198.18.1.2 dst=198.18.1.1 proto=icmp").unwrap();
    assert_eq!(steps(&input, "filter INPUT"), ["INPUT/1 +"]);
    assert_eq!(input.event.out, ["host"]);
    let output = ask("out=eth1 src=198.18.1.1 dst=198.18.9.9 proto=udp").unwrap();
    assert_eq!(steps(&output, "filter OUTPUT"), ["OUTPUT/1 +"]);
    assert_eq!(output.event.verdict, Verdict::Drop);
    let other = ask("in=ppp0 out=eth1 src=198.18.1.2 dst=198.18.2.2 proto=tcp dport=80").unwrap();
    let reason = "FORWARD/3 -i: the packet has ppp0";
    assert_eq!(steps(&other, "filter FORWARD")[2], reason);
}

#[test]
fn a_packet_from_a_capture_is_taken_as_it_is() {
    let frame = wire::build::Packet::tcp("198.18.1.2", 5, "198.18.2.2", 80, 2).ttl(1).build();
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let explanation = ask(&format!("in=eth0 out=eth1 hex={hex}")).unwrap();
    assert_eq!(explanation.event.reason, Some("ttl_expired"));
    assert_eq!(steps(&explanation, "filter FORWARD"), Vec::<String>::new());
    assert_eq!(steps(&explanation, "mangle PREROUTING").len(), 2, "MARK, policy");
    let short: String = hex[..60].to_owned();
    assert_eq!(ask(&format!("in=eth0 hex={short}")).unwrap().event.verdict, Verdict::InvalidDrop);
}

#[test]
fn bad_descriptions_are_refused() {
    let cases = [
        ("in=eth0 src=198.18.1.2", "src and dst are needed"),
        ("src=198.18.1.2 dst=198.18.2.2", "in or out is needed"),
        ("in=eth0 src=198.18.1.2 dst=2001:db8::1", "different families"),
        ("in=eth0 src=198.18.1.2 dst=198.18.2.2 dport=65536", "dport=65536: expected"),
        ("in=eth0 src=198.18.1.2 dst=198.18.2.2 flags=SIN", "flags=SIN: expected"),
        ("in=eth0 source=198.18.1.2", "unknown key `source`"),
        ("in=eth0 in=eth1", "given twice"),
        ("in=eth0 tcp", "is not KEY=VALUE"),
        ("in=eth0 hex=00", "hex=00: expected"),
    ];
    for (words, expected) in cases {
        let error = ask(words).expect_err(words).to_string();
        assert!(error.contains(expected), "{words}: {error}");
    }
}
