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

#[test]
fn what_the_running_kernel_did_is_told_beside_the_table() {
    let directory = std::env::temp_dir().join(format!("portcullis-live-{}", std::process::id()));
    let (corpus, results) = (directory.join("corpus"), directory.join("results"));
    for place in [&corpus, &results] {
        std::fs::create_dir_all(place).unwrap();
    }
    let write = |place: &Path, name: &str, text: &str| std::fs::write(place.join(name), text);
    let head = "file\tfamily\trules\tkernel_nft_test\tkernel_legacy_test\n";
    let manifest = ["a", "b", "c"].map(|it| format!("{it}.rules\tv4\t1\tok\tok\n")).concat();
    write(&corpus, "MANIFEST.tsv", &format!("{head}{manifest}")).unwrap();
    let saved = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\
                 -A INPUT -j DROP\nCOMMIT\n";
    write(&corpus, "a.rules", saved).unwrap();
    write(&corpus, "b.rules", saved).unwrap();
    write(&corpus, "c.rules", "*filter\n-A INPUT -j NFQUEUE\nCOMMIT\n").unwrap();
    write(&results, "a.rules.nft", saved).unwrap();
    write(&results, "a.rules.legacy.error", "line 2 failed\n").unwrap();
    write(&results, "b.rules.legacy.error", "line 3 failed\n").unwrap();
    write(&results, "c.rules.nft", "").unwrap();
    let rows = corpus::check(&corpus, Some(&results), &TableNames::well_known()).unwrap();
    let table = corpus::render(&rows);
    std::fs::remove_dir_all(&directory).unwrap();
    let failures: Vec<_> = rows.iter().map(corpus::Row::failure).collect();
    assert_eq!(failures, [None, Some("loads, but this kernel refuses it"), None]);
    for expected in [
        "a.rules\tboth\tnft\t-\tloads",
        "of 2 files (2 rules) that this kernel loads: 1 files (50.0%), 1 rules (50.00%)",
        "refused here, loaded there: c.rules (1 rules) 2:13 target NFQUEUE",
        "loaded here, refused there: b.rules: line 3 failed",
        "1 of the 1 files that load here and there print alike",
    ] {
        assert!(table.contains(expected), "{expected:?} is missing in\n{table}");
    }
}

#[test]
fn the_worst_case_of_long_chains_is_declared_with_the_rules_behind_it() {
    let rules = |rule: &dyn Fn(u32) -> String| {
        let rules: String = (0..200).map(|n| format!("-A FORWARD {}\n", rule(n))).collect();
        format!("*filter\n:FORWARD ACCEPT [0:0]\n{rules}-A INPUT -j ACCEPT\nCOMMIT\n")
    };
    let hosts = checked("hosts", &rules(&|n| format!("-s 10.0.0.{n} -j DROP")));
    assert!(hosts.loads() && hosts.findings.is_empty());
    let compared = hosts.compared.expect("it was compared");
    assert_eq!((compared.rules, compared.rules_total), (201, 201), "a short policy in whole");
    let [cost] = &hosts.costs[..] else { panic!("one long chain: {:?}", hosts.costs) };
    assert_eq!((cost.table, cost.chain.as_str(), cost.rules), ("filter", "FORWARD", 200));
    assert_eq!(cost.structure, cost::Structure::HashTables);
    assert!(cost.max_probes >= 1 && cost.max_compared < 50 && cost.bytes > 1_000, "{cost:?}");
    assert!(cost.max_probes_odd >= 1 && cost.max_compared_odd < 100, "{cost:?}");

    // Nothing to hash by.
    let scan = checked("scan", &rules(&|n| format!("! -s 10.0.0.{n} -j RETURN")));
    assert_eq!(codes(&scan), [Code::SlowChain]);
    let [cost] = &scan.costs[..] else { panic!("one long chain: {:?}", scan.costs) };
    assert_eq!((cost.structure, cost.max_compared), (cost::Structure::Scan, 200));
    assert_eq!((cost.worst[0].line, scan.findings[0].line), (3, 3));
    assert!(scan.loads(), "a warning refuses nothing");
}
