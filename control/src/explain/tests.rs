//! Tests of explanations: reasons, states, hooks, refusals.

use dataplane::packet::Family;

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
    ask_of(RULES, Family::V4, words)
}

fn ask_of(rules: &str, family: Family, words: &str) -> Result<Explanation, ExplainError> {
    let names = TableNames::well_known();
    let rules = iptables::parse(rules, "rules", family, &names).expect("it loads").ruleset;
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    let description = Description::parse(&words)?;
    let none = match family {
        Family::V4 => Ruleset::empty(Family::V6),
        Family::V6 => Ruleset::empty(Family::V4),
    };
    let config = Config::new([0; 16]);
    match family {
        Family::V4 => {
            explain(&rules, &none, &Registry::default(), None, config, &description, &names)
        }
        Family::V6 => {
            explain(&none, &rules, &Registry::default(), None, config, &description, &names)
        }
    }
}

/// Translations in words.
fn translations(explanation: &Explanation) -> Vec<String> {
    let stages = explanation.stages.iter();
    let found = stages.filter_map(|stage| match stage {
        Stage::Translation { hook, what, from, to } => Some(format!("{hook} {what} {from} {to}")),
        _ => None,
    });
    found.collect()
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

const NAT: &str = "*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:web - [0:0]
-A PREROUTING -i eth0 -p tcp -m tcp --dport 80 -j web
-A PREROUTING -p udp -m udp --dport 53 -j REDIRECT --to-ports 5353
-A OUTPUT -d 192.0.2.7/32 -j DNAT --to-destination 198.18.2.9
-A OUTPUT -d 192.0.2.8/32 -j REDIRECT
-A POSTROUTING -o eth1 -p icmp -j SNAT --to-source 203.0.113.5
-A POSTROUTING -o eth1 -s 198.18.1.0/24 -j MASQUERADE
-A web -p tcp -j DNAT --to-destination 10.0.0.2:8080
COMMIT
*filter
:FORWARD DROP [0:0]
-A FORWARD -d 10.0.0.2/32 -p tcp -m tcp --dport 8080 -m conntrack --ctstate DNAT --ctorigdstport 80 --ctreplsrc 10.0.0.2 -j ACCEPT
-A FORWARD -m conntrack ! --ctstate DNAT,SNAT -p icmp -j ACCEPT
-A INPUT -p udp -m udp --dport 5353 -m conntrack --ctstate DNAT -j ACCEPT
-A INPUT -j DROP
COMMIT
";

#[test]
fn rules_after_a_translation_see_the_translated_packet() {
    let ask = |words: &str| ask_of(NAT, Family::V4, words).unwrap();
    let web = ask("in=eth0 out=eth1 src=198.18.1.2 dst=198.18.2.2 proto=tcp sport=4000 dport=80");
    assert_eq!((web.event.verdict, &*web.event.out), (Verdict::Accept, &["eth1".to_owned()][..]));
    assert_eq!(steps(&web, "nat PREROUTING"), ["PREROUTING/1 +", "web/1 +"]);
    assert_eq!(steps(&web, "filter FORWARD"), ["FORWARD/1 +"]);
    assert_eq!(
        translations(&web),
        [
            "PREROUTING destination 198.18.2.2 port 80 10.0.0.2 port 8080",
            "POSTROUTING source 198.18.1.2 port 4000 198.51.100.201 port 4000",
        ]
    );
    let text = render(&web);
    let line = "nat PREROUTING: destination 198.18.2.2 port 80 becomes 10.0.0.2 port 8080\n";
    assert!(text.contains(line), "{text}");

    let ping = ask("in=eth0 out=eth1 src=198.18.1.2 dst=198.18.2.2 proto=icmp id=9");
    assert_eq!(translations(&ping), ["POSTROUTING source 198.18.1.2 id 9 203.0.113.5 id 9"]);

    // Translated or not, what a later rule drops is dropped.
    let other = ask("in=eth0 out=eth1 src=198.18.1.2 dst=198.18.2.2 proto=tcp dport=8080");
    assert_eq!((other.event.verdict, other.event.reason), (Verdict::Drop, Some("chain_policy")));
    assert_eq!(translations(&other), [""; 0]);
}

#[test]
fn translations_change_the_way() {
    let ask = |words: &str| ask_of(NAT, Family::V4, words).unwrap();
    let dns = ask("in=eth0 out=eth1 src=198.18.1.2 dst=198.18.2.2 proto=udp dport=53");
    assert_eq!((dns.event.verdict, &*dns.event.out), (Verdict::Accept, &["host".to_owned()][..]));
    assert_eq!(steps(&dns, "filter INPUT"), ["INPUT/1 +"]);
    let away = ask("out=eth1 src=198.18.1.1 dst=192.0.2.7 proto=tcp dport=80");
    let expected = [
        "OUTPUT destination 192.0.2.7 port 80 198.18.2.9 port 80",
        "POSTROUTING source 198.18.1.1 port 40000 198.51.100.200 port 40000",
    ];
    assert_eq!(translations(&away), expected);
    let home = ask("out=eth1 src=198.18.3.1 dst=192.0.2.8 proto=tcp dport=80");
    assert_eq!(translations(&home), ["OUTPUT destination 192.0.2.8 port 80 127.0.0.1 port 80"]);
    assert_eq!(steps(&home, "filter INPUT"), ["INPUT/1 -p: the packet has tcp", "INPUT/2 +",]);
    assert_eq!(home.event.reason, Some("rule"));
}

#[test]
fn ipv6_is_translated_too() {
    let rules = "*nat\n-A PREROUTING -p tcp -j DNAT --to-destination [2001:db8::9]:8080\n\
                 -A POSTROUTING -j NETMAP --to 2001:db8:5::/64\nCOMMIT\n";
    let words = "in=eth0 out=eth1 src=2001:db8:1::2 dst=2001:db8:2::2 proto=tcp sport=7 dport=80";
    let explanation = ask_of(rules, Family::V6, words).unwrap();
    let expected = [
        "PREROUTING destination 2001:db8:2::2 port 80 2001:db8::9 port 8080",
        "POSTROUTING source 2001:db8:1::2 port 7 2001:db8:5::2 port 7",
    ];
    assert_eq!(translations(&explanation), expected);
}

#[test]
fn what_is_asked_before_tracking_shows() {
    let rules = "*raw\n-A PREROUTING -p udp -m udp --dport 53 -j NOTRACK\n\
                 -A PREROUTING -p tcp -m tcp --dport 80 -j NOTRACK\n\
                 -A PREROUTING -p udp -m udp --dport 54 -j CT --zone 7\n\
                 -A PREROUTING -p udp -m conntrack --ctstate NEW,UNTRACKED -j NOTRACK\nCOMMIT\n\
                 *filter\n:FORWARD DROP [0:0]\n\
                 -A FORWARD -p tcp -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --mss 1460\n\
                 -A FORWARD -m conntrack --ctstate UNTRACKED -j ACCEPT\n\
                 -A FORWARD -m connbytes --connbytes 1: --connbytes-dir both --connbytes-mode packets -j ACCEPT\n\
                 COMMIT\n";
    let ask = |words: &str| ask_of(rules, Family::V4, words).unwrap();
    let dns = ask("in=eth0 out=eth1 src=198.18.1.2 dst=198.18.2.2 proto=udp dport=53");
    assert_eq!((dns.event.verdict, dns.event.ctstate), (Verdict::Accept, Some("UNTRACKED")));
    assert!(render(&dns).contains("tracking: UNTRACKED"), "{}", render(&dns));
    let target = |explanation: &Explanation| explanation.event.path[0].target.clone();
    assert_eq!(target(&dns).as_deref(), Some("NOTRACK"));
    let zone = ask("in=eth0 out=eth1 src=198.18.1.2 dst=198.18.2.2 proto=udp dport=54");
    assert_eq!((zone.event.verdict, zone.event.ctstate), (Verdict::Accept, Some("NEW")));
    assert_eq!(target(&zone).as_deref(), Some("CT"));
    let expected = [
        "FORWARD/1 -p: the packet has udp",
        "FORWARD/2 --ctstate: the packet has NEW",
        "FORWARD/3 +",
    ];
    assert_eq!(steps(&zone, "filter FORWARD"), expected);
    let web = ask("in=eth0 out=eth1 src=198.18.1.2 dst=198.18.2.2 proto=tcp dport=80");
    assert_eq!(steps(&web, "filter FORWARD"), ["FORWARD/1 +"]);
    assert_eq!(web.event.path.last().unwrap().target.as_deref(), Some("SYNPROXY"));
    let text = render(&web);
    assert!(text.contains("* FORWARD 1: -p tcp") && !text.contains("accept"), "{text}");
}
