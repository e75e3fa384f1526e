//! Every kind of finding, found and not found.

use std::sync::Arc;

use dataplane::packet::Family;
use dataplane::sets::Registry;

use super::*;
use crate::diagnostics::{Code, Finding};
use crate::iptables::{self, TableNames};
use crate::model::Ruleset;

fn parsed(text: &str) -> Ruleset {
    let parsed = iptables::parse(text, "test", Family::V4, &TableNames::well_known());
    parsed.unwrap_or_else(|findings| panic!("{text}: {findings:#?}")).ruleset
}

fn all(text: &str, hits: Option<&Hits>) -> Vec<Finding> {
    let rules = parsed(text);
    let sets = Arc::new(Registry::default());
    let today = Date::parse("2026-11-22");
    let bounds = Bounds::default();
    let input = Input { rules: &rules, file: "test", sets: &sets, today, hits, bounds };
    let report = lint(&input, &mut |_| {});
    assert_eq!(report.undecided, 0, "{text}");
    report.findings
}

/// The lines with a finding of a kind.
fn lines(text: &str, code: Code) -> Vec<u32> {
    let found = all(text, None).into_iter().filter(|it| it.code == code);
    found.map(|it| it.line).collect()
}

const HEAD: &str = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n";

/// Rules of the filter table; the first stands in line 5.
fn filter(rules: &str) -> String {
    format!("{HEAD}{rules}COMMIT\n")
}

fn nat(nat: &str, filter: &str) -> String {
    let nat_head = "*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n";
    format!("{nat_head}{nat}COMMIT\n{HEAD}{filter}COMMIT\n")
}

#[test]
fn what_is_accepted_without_a_word_is_told() {
    let open = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n-A INPUT -p tcp -j DROP\n-A FORWARD -j DROP\nCOMMIT\n";
    assert_eq!(lines(open, Code::PolicyAccept), [2]);
    assert_eq!(lines(&filter(""), Code::PolicyAccept), [] as [u32; 0]);
    let any = filter(
        "-A FORWARD -m comment --comment x -j ACCEPT\n-A INPUT -i lo -j ACCEPT\n-A OUTPUT -j ACCEPT\n-A INPUT -m state --state NEW -j ACCEPT\n-A INPUT -m state --state ESTABLISHED -j ACCEPT\n",
    );
    assert_eq!(lines(&any, Code::AcceptAny), [5, 8]);
    let chained = filter(
        ":all - [0:0]\n:some - [0:0]\n-A INPUT -j all\n-A INPUT -p tcp -j some\n-A all -j ACCEPT\n-A some -j ACCEPT\n",
    );
    assert_eq!(lines(&chained, Code::AcceptAny), [9]);
}

#[test]
fn connections_need_their_packets() {
    let new = "-A INPUT -p tcp --dport 22 -m conntrack --ctstate NEW -j ACCEPT\n";
    assert_eq!(lines(&filter(new), Code::MissingEstablished), [5]);
    let both = format!("-A INPUT -m state --state ESTABLISHED,RELATED -j ACCEPT\n{new}");
    assert_eq!(lines(&filter(&both), Code::MissingEstablished), [] as [u32; 0]);
    let stateless = "-A INPUT -p tcp --dport 22 -j ACCEPT\n";
    assert_eq!(lines(&filter(stateless), Code::MissingEstablished), [] as [u32; 0]);
}

#[test]
fn logs_need_a_bound() {
    let rules = ":log - [0:0]\n:own - [0:0]\n-A INPUT -j LOG\n-A INPUT -m limit --limit 1/s -j LOG\n-A INPUT -m limit --limit 1/s -j log\n-A log -j LOG\n-A INPUT -j own\n-A own -j NFLOG --nflog-group 2\n";
    assert_eq!(lines(&filter(rules), Code::LogWithoutLimit), [7, 12]);
}

#[test]
fn limits_need_something_behind_them() {
    let idle = "-A INPUT -p icmp -m limit --limit 5/s -j ACCEPT\n-A INPUT -p icmp -j ACCEPT\n";
    assert_eq!(lines(&filter(idle), Code::LimitNeverFires), [5]);
    let policy = "-A INPUT -p icmp -m hashlimit --hashlimit-above 5/s --hashlimit-name a -j DROP\n";
    assert_eq!(lines(&filter(policy), Code::LimitNeverFires), [5]);
    let good = "-A INPUT -p icmp -m limit --limit 5/s -j ACCEPT\n-A INPUT -p icmp -j DROP\n";
    assert_eq!(lines(&filter(good), Code::LimitNeverFires), [] as [u32; 0]);
}

#[test]
fn translations_need_a_way_there_and_back() {
    let dnat = "-A PREROUTING -i wan0 -p tcp --dport 80 -j DNAT --to-destination 192.0.2.9:8080\n";
    let way = "-A FORWARD -d 192.0.2.9/32 -p tcp --dport 8080 -j ACCEPT\n";
    let back = "-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n";
    assert_eq!(lines(&nat(dnat, back), Code::DnatWithoutForward), [4]);
    // The port before the translation is not what FORWARD sees.
    let wrong = "-A FORWARD -d 192.0.2.9/32 -p tcp --dport 80 -j ACCEPT\n";
    assert_eq!(lines(&nat(dnat, &format!("{back}{wrong}")), Code::DnatWithoutForward), [4]);
    let whole = nat(dnat, &format!("{back}{way}"));
    assert_eq!(lines(&whole, Code::DnatWithoutForward), [] as [u32; 0]);
    assert_eq!(lines(&whole, Code::NatWithoutReturn), [] as [u32; 0]);
    assert_eq!(lines(&nat(dnat, way), Code::NatWithoutReturn), [4]);
    let masquerade = "-A POSTROUTING -o wan0 -j MASQUERADE\n";
    let out = "-A FORWARD -i lan0 -o wan0 -j ACCEPT\n";
    assert_eq!(lines(&nat(masquerade, out), Code::NatWithoutReturn), [4]);
    let both = format!("{back}{out}");
    assert_eq!(lines(&nat(masquerade, &both), Code::NatWithoutReturn), [] as [u32; 0]);
    let translated = "-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT\n";
    assert_eq!(lines(&filter(translated), Code::ForwardWithoutDnat), [5]);
    assert_eq!(lines(&nat(dnat, translated), Code::ForwardWithoutDnat), [] as [u32; 0]);
}

#[test]
fn invalid_does_not_pass_beside_a_translation() {
    let masquerade = "-A POSTROUTING -o wan0 -j MASQUERADE\n";
    let open = "-A FORWARD -i lan0 -j ACCEPT\n";
    assert_eq!(lines(&nat(masquerade, open), Code::InvalidNotDropped), [10]);
    let drop = "-A FORWARD -m conntrack --ctstate INVALID -j DROP\n";
    let closed = format!("{drop}{open}");
    assert_eq!(lines(&nat(masquerade, &closed), Code::InvalidNotDropped), [] as [u32; 0]);
    assert_eq!(lines(&filter(open), Code::InvalidNotDropped), [] as [u32; 0]);
    let early = "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n";
    let early = format!("{early}{}", nat(masquerade, open));
    assert_eq!(lines(&early, Code::InvalidNotDropped), [] as [u32; 0]);
}

#[test]
fn marks_are_set_and_asked_for() {
    let text = "*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -i a -j MARK --set-xmark 0x1/0x1\n-A PREROUTING -i b -j MARK --set-xmark 0x2/0x2\n-A PREROUTING -m mark --mark 0x2/0x2 -j CONNMARK --save-mark --nfmask 0x2 --ctmask 0x2\n-A PREROUTING -m mark --mark 0x4/0x4 -j ACCEPT\n-A PREROUTING -m connmark --mark 0x2/0x2 -j ACCEPT\nCOMMIT\n";
    assert_eq!(lines(text, Code::MarkNeverRead), [3]);
    assert_eq!(lines(text, Code::MarkNeverSet), [6]);
    let map = mark_map(&parsed(text));
    let sets = map.iter().filter(|it| it.mark == Owner::Packet && it.sets != 0);
    assert_eq!(sets.map(|it| (it.line, it.sets)).collect::<Vec<_>>(), [(3, 1), (4, 2)]);
}

#[test]
fn exceptions_have_somebody_and_an_end() {
    let rule = |comment: &str| {
        filter(&format!("-A INPUT -p tcp --dport 1 -m comment --comment \"{comment}\" -j ACCEPT\n"))
    };
    let codes = |comment: &str| -> Vec<Code> {
        let comments = [
            Code::ExceptionWithoutOwner,
            Code::ExceptionWithoutTicket,
            Code::ExceptionWithoutReview,
            Code::ReviewOverdue,
            Code::ExceptionExpired,
            Code::BadDate,
            Code::SecretInComment,
            Code::HostInComment,
        ];
        let found = all(&rule(comment), None).into_iter().map(|it| it.code);
        found.filter(|code| comments.contains(code)).collect()
    };
    use Code::*;
    assert_eq!(codes("web"), []);
    assert_eq!(
        codes("exception for web"),
        [ExceptionWithoutOwner, ExceptionWithoutTicket, ExceptionWithoutReview]
    );
    assert_eq!(codes("exception owner=a ticket=b review=2027-01-01"), []);
    assert_eq!(codes("owner=a ticket=b expires=2026-11-21"), [ExceptionExpired]);
    assert_eq!(codes("owner=a ticket=b expires=2026-11-22"), [], "it ends with its day");
    assert_eq!(codes("owner=a review=2026-01-01"), [ReviewOverdue]);
    assert_eq!(codes("owner=a review=1.1.2030"), [BadDate]);
    assert_eq!(codes("vpn password=x"), [SecretInComment]);
    assert_eq!(codes("to db7.example.internal"), [HostInComment]);
}

#[test]
fn purposes_and_scopes_are_told_where_a_site_asks() {
    let rules = ":tcp - [0:0]\n-A INPUT -p tcp -j tcp\n-A tcp -p tcp --dport 22 -m comment --comment ssh -j ACCEPT\n:udp - [0:0]\n-A INPUT -p udp -j udp\n-A udp -p udp --dport 53 -j ACCEPT\n";
    assert_eq!(lines(&filter(rules), Code::MissingPurpose), [6, 9, 10]);
    assert_eq!(lines(&filter(rules), Code::MissingScope), [8]);
    assert_eq!(Levels::default().of(Code::MissingPurpose), Level::Allow);
}

#[test]
fn hot_rules_move_up_only_where_nothing_changes() {
    let counted = filter(
        "[1:1] -A INPUT -s 198.18.0.0/24 -j DROP\n[1:1] -A INPUT -p udp -j ACCEPT\n[1:1] -A INPUT -p tcp --dport 22 -j ACCEPT\n[900:9] -A INPUT -p tcp --dport 443 -j ACCEPT\n",
    );
    let hits = Hits::of(&parsed(&counted)).expect("it has counters");
    let found = all(&counted, Some(&hits));
    let order: Vec<_> = found.iter().filter(|it| it.code == Code::RuleOrder).collect();
    let [one] = &order[..] else { panic!("{order:#?}") };
    assert_eq!(one.line, 8);
    assert!(one.message.contains("before line 6"), "not past the DROP: {}", one.message);
    assert!(Hits::of(&parsed(&filter("-A INPUT -j DROP\n"))).is_none());
}

#[test]
fn modules_are_registered() {
    let rules = parsed(&filter(
        "-A INPUT -p tcp -m tcp --dport 1 -m comment --comment \"-m x\" -j ACCEPT\n-A INPUT -m state --state NEW -j LOG\n",
    ));
    let found: Vec<_> =
        register(&rules).into_iter().map(|it| (it.kind, it.name, it.line)).collect();
    let wanted = [
        ("match", "comment", 5),
        ("match", "state", 6),
        ("match", "tcp", 5),
        ("target", "ACCEPT", 5),
        ("target", "LOG", 6),
    ];
    assert_eq!(found, wanted.map(|(kind, name, line)| (kind, name.to_owned(), line)));
}

#[test]
fn levels_are_the_sites() {
    let mut levels = Levels::default();
    assert!(!levels.set("no-such-code", Level::Deny));
    assert!(levels.set("accept-any", Level::Deny) && levels.set("unused-chain", Level::Allow));
    let text = filter(":idle - [0:0]\n-A idle -j DROP\n-A INPUT -j ACCEPT\n");
    let told = levels.applied(all(&text, None));
    let severity = |code| told.iter().find(|it| it.code == code).map(|it| it.severity);
    assert_eq!(severity(Code::AcceptAny), Some(crate::diagnostics::Severity::Error));
    assert_eq!(severity(Code::UnusedChain), None);
}

#[test]
fn every_code_is_explained_and_documented() {
    for (at, lint) in LINTS.iter().enumerate() {
        let name = lint.code.name();
        assert!(named(&name).is_some_and(|it| it.code == lint.code));
        assert!(LINTS[..at].iter().all(|it| it.code != lint.code), "{name} twice");
        for text in [lint.cause, lint.example, lint.remedy] {
            assert!(!text.is_empty(), "{name}");
        }
        assert!(lint.explained().contains("Cause: "));
    }
    let docs = include_str!("../../../docs/operations.md");
    assert!(docs.contains(&reference()), "docs/operations.md is stale: put there\n{}", reference());
}
