//! What `check` says of files on disk.

use super::*;
use crate::iptables::TableNames;

fn checked(name: &str, text: &str) -> Checked {
    let path = std::env::temp_dir().join(format!("portcullis-check-{}-{name}", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let checked = rules_file(&path, Family::V4, &TableNames::well_known(), &Sets::default());
    std::fs::remove_file(&path).unwrap();
    checked
}

fn codes(checked: &Checked) -> Vec<Code> {
    checked.findings.iter().map(|finding| finding.code).collect()
}

#[test]
fn what_cannot_be_read_or_compiled_is_refused() {
    let missing = rules_file(
        Path::new("/nonexistent/x"),
        Family::V4,
        &TableNames::well_known(),
        &Sets::default(),
    );
    assert_eq!(codes(&missing), [Code::Unreadable]);
    assert!(!missing.loads() && missing.ruleset.is_none());
    let bad = checked("bad", "*filter\n-A FORWARD -j NOPE\nCOMMIT\n");
    assert_eq!(codes(&bad), [Code::MissingChain]);
    // The credit of five packets at one a day does not fit the kernel's 32 bits.
    let limit = checked("limit", "*filter\n-A FORWARD -m limit --limit 1/day\nCOMMIT\n");
    assert_eq!(codes(&limit), [Code::CannotCompile]);
    assert_eq!((limit.findings[0].line, limit.ruleset.is_none()), (2, true));
    let request = Request { sets: vec!["/nonexistent/sets".into()], ..Request::default() };
    let sets = run(&request, &TableNames::well_known());
    assert_eq!(codes(&sets[0]), [Code::Unreadable]);
}

#[test]
fn ports_of_a_bridge_are_asked_for_in_other_modes_only() {
    use dataplane::fib::Mode;
    use dataplane::packet::PortId;
    let text = "*filter\n-A FORWARD -m physdev ! --physdev-in eth0 -j DROP\nCOMMIT\n";
    let names = TableNames::well_known();
    let rules = crate::iptables::parse(text, "rules.v4", Family::V4, &names).unwrap().ruleset;
    assert!(mode::refusals(&rules, "rules.v4", &Mode::Routed).is_empty());
    let bridge = Mode::Bridge(vec![(PortId(0), PortId(1))]);
    let refused = mode::refusals(&rules, "rules.v4", &bridge);
    assert_eq!(refused.len(), 1);
    assert_eq!((refused[0].line, refused[0].column), (2, 15));
    assert!(refused[0].remedy.is_some());
}
