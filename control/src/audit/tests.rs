//! What an audit says of a policy and a history, and that nothing in it can harm its page.

use std::sync::Arc;

use dataplane::packet::Family;
use dataplane::sets::Registry;

use super::trend::Denied as Count;
use super::*;
use crate::diff::PolicyFiles;
use crate::history::{Action, PolicyRef, TextRef, Who};
use crate::iptables::{self, TableNames};
use crate::model::Ruleset;

const NOW_US: u64 = 1_795_400_000_000_000;
const SPAN: Span = Span { now_us: NOW_US, days: 30, stale_days: 30 };
const HOSTILE: &str = "<script>alert(1)</script><img src=x onerror=alert(2)> {{ 7*7 }} {% raw %}";

fn files(text: &str) -> PolicyFiles {
    let parsed = iptables::parse(text, "rules.v4", Family::V4, &TableNames::well_known());
    let v4 = parsed.expect("it loads").ruleset;
    PolicyFiles::of(v4, Ruleset::empty(Family::V6), Arc::new(Registry::default()))
}

fn record(number: u64, days_ago: u64, action: Action, emergency: bool) -> Record {
    let at_us = NOW_US - days_ago * DAY_US;
    let texts = TextRef { name: HOSTILE.to_owned(), sha256: "ab".repeat(32) };
    Record {
        number,
        time: stamp(at_us),
        at_us,
        action,
        who: Who { user: Some(HOSTILE.to_owned()), ..Who::default() },
        reason: Some(HOSTILE.to_owned()),
        approver: Some("<b>boss</b>".to_owned()),
        ticket: Some("\"><svg onload=alert(3)>".to_owned()),
        emergency,
        about: None,
        result: "in force".to_owned(),
        generation: number,
        policy: PolicyRef { id: "cd".repeat(32), v4: Some(texts), ..PolicyRef::default() },
        previous: String::new(),
        sum: String::new(),
    }
}

const RULES: &str = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n\
    -A INPUT -p tcp -m tcp --dport 22 -m comment --comment \"COMMENT owner=<i>ops</i> review=2026-01-01\" -j ACCEPT\n\
    -A INPUT -p udp -m udp --dport 53 -m comment --comment \"exception owner=dns expires=2026-12-01\" -j ACCEPT\n\
    -A INPUT -p tcp -m tcp --dport 25 -j ACCEPT\n\
    -A INPUT -p tcp -m tcp --dport 23 -j LOG --log-prefix \"telnet: \"\n\
    -A INPUT -p tcp -m tcp --dport 23 -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n";

fn gathered() -> Gathered {
    let mut trend = Trend::default();
    trend.see(Count { dropped: 7, rejected: 2, other: 1 }, NOW_US / 1_000_000);
    Gathered {
        source: HOSTILE.to_owned(),
        records: vec![
            record(3, 1, Action::Apply, true),
            record(2, 10, Action::Rollback, false),
            record(1, 90, Action::Start, false),
        ],
        open: vec![3],
        policy: Some(files(&RULES.replace("COMMENT", "<script>alert(4)</script> a & b"))),
        before: Some(files(&RULES.replace("COMMENT", "x").replace("--dport 25", "--dport 587"))),
        trend: Some(trend),
        checks: vec![Checks {
            title: HOSTILE.to_owned(),
            failed: vec![HOSTILE.to_owned()],
            ..Checks::default()
        }],
        ..Gathered::default()
    }
}

#[test]
fn everything_that_people_wrote_is_escaped() {
    let audit = examine(gathered(), SPAN, &mut |_, _| {});
    let page = page(&audit).expect("the template is right");
    for bad in ["<script", "<img", "<b>boss", "<i>ops", "onload=alert(3)>", "http://", "https://"] {
        let at = page.find(bad);
        let said = at.map(|at| &page[at.saturating_sub(60)..(at + 60).min(page.len())]);
        assert!(at.is_none(), "{bad}: {said:?}");
    }
    assert!(page.contains("&lt;script&gt;alert(4)") && page.contains("{{ 7*7 }}"));
    assert!(page.contains("Content-Security-Policy") && page.contains("</html>"));
    for section in
        ["What is reachable", "What is denied", "Exceptions that are due", "Where this comes from"]
    {
        assert!(page.contains(section), "{section}");
    }
}

#[test]
fn what_is_due_is_told() {
    let audit = examine(gathered(), SPAN, &mut |_, _| {});
    let said: Vec<&str> = audit.attention.iter().map(|it| it.text.as_str()).collect();
    assert!(
        said.iter().any(|it| it.contains("emergency change 3") && it.contains("reconcile 3")),
        "{said:#?}"
    );
    assert!(said.iter().any(|it| it.contains("was to be reviewed by 2026-01-01")), "{said:#?}");
    assert!(said.iter().any(|it| it.contains("expires on 2026-12-01")), "{said:#?}");
    assert!(!audit.is_bad(), "{said:#?}");
    assert_eq!(audit.changes.iter().map(|it| it.number).collect::<Vec<_>>(), [3, 2]);
    assert_eq!(audit.weeks.iter().map(|it| it.1).sum::<u64>(), 2);
    assert_eq!(audit.in_force.as_ref().map(|it| (it.record, it.rules_v4)), Some((3, 5)));
    assert_eq!((audit.owned, audit.unowned.len()), ((2, 3), 1));
    let changes = &audit.exposure_changes["ipv4"];
    let counts =
        [&changes.newly_exposed, &changes.no_longer_exposed, &changes.changed].map(Vec::len);
    assert_eq!(counts, [1, 1, 1], "{changes:#?}");
    let damaged = Gathered { damage: vec!["record 2 was changed".to_owned()], ..gathered() };
    assert!(examine(damaged, SPAN, &mut |_, _| {}).is_bad());
    let nothing = examine(Gathered::default(), SPAN, &mut |_, _| {});
    assert!(nothing.attention.is_empty() && !nothing.missing.is_empty());
    assert!(page(&nothing).is_ok() && text(&nothing).contains("Not known"));
}

#[test]
fn denied_probes_are_denied_and_their_log_is_shown() {
    let audit = examine(gathered(), SPAN, &mut |_, _| {});
    assert!(audit.denied.iter().all(|it| it.confirmed == Some(true)), "{:#?}", audit.denied);
    let telnet = audit.denied.iter().find(|it| it.verdict == "reject").expect("there is one");
    assert!(telnet.packet.contains("dport=23"), "{telnet:#?}");
    assert!(
        telnet.log.iter().any(|line| line.contains("telnet: ") && line.contains("DPT=23")),
        "{telnet:#?}"
    );
    let said = text(&audit);
    assert!(said.contains("Evidence of denials") && said.contains("NOT RECONCILED"), "{said}");
}
