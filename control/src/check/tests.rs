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
