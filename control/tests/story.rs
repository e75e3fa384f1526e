//! The story of issue 7, on the real binary between network namespaces: no change can hurt,
//! and every change leaves evidence. Needs root.

#[path = "story/lab.rs"]
mod lab;
mod netns;

use std::time::Duration;

use lab::{Lab, Talk};
use serde_json::Value;

/// Everybody may pass and come in; `one` is kept track of.
const OPEN: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -p icmp -j ACCEPT
-A FORWARD -p tcp -j ACCEPT
-A FORWARD -p udp -j ACCEPT
COMMIT
";
/// The door falls shut, for what is established too.
const LOCKED: &str = "*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
COMMIT
";
/// No new connection to 5002.
const DENY: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -p icmp -j ACCEPT
-A FORWARD -p tcp -m tcp --dport 5002 -j DROP
-A FORWARD -p tcp -j ACCEPT
-A FORWARD -p udp -j ACCEPT
COMMIT
";

fn actions(history: &Value) -> Vec<String> {
    let records = history["records"].as_array().unwrap().iter();
    records.map(|it| it["action"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_lock_out_undoes_itself_and_the_operators_session_goes_on() {
    let mut lab = Lab::new(OPEN);
    lab.start();
    let mut session = Talk::with_gateway(&lab, 2222);
    assert!(session.answers(Duration::from_secs(2)));
    lab.write("locked.v4", LOCKED);
    let applied = lab.apply("locked.v4", &["--confirm", "3s", "--reason", "too tidy"]);
    assert_eq!(applied["confirm_ms"], 3000);
    assert!(!lab.pings() && !session.answers(Duration::from_millis(300)));
    // Nobody else may change anything meanwhile, and it is said why.
    let (code, refused) = lab.refused(&["apply", "--rules", &lab.file("rules.v4")]);
    assert_eq!(code, 1, "{refused}");
    assert!(refused.contains("waits for its confirmation until"), "{refused}");
    let status = lab.json(&["show", "status"]);
    assert!(status["changes"][0].as_str().unwrap().contains("unless confirmed"), "{status}");
    lab.until("it is undone", || lab.pings());
    assert!(session.answers(Duration::from_secs(5)), "the session is gone\n{}", lab.errors());
    let history = lab.json(&["history"]);
    assert_eq!(actions(&history), ["undo", "apply", "start"]);
    let record = &history["records"][1];
    assert_eq!((&record["reason"], &record["who"]["uid"]), (&"too tidy".into(), &0.into()));
    assert!(record["result"].as_str().unwrap().contains("undone at"), "{record}");
    let (code, refused) = lab.refused(&["confirm"]);
    assert!(code == 1 && refused.contains("no change waits"), "{refused}");
    // A rollback need not be waited for, and what was confirmed stays.
    lab.apply("locked.v4", &["--confirm", "1h"]);
    assert!(!lab.pings());
    lab.json(&["rollback"]);
    assert!(lab.pings());
    lab.write("deny.v4", DENY);
    lab.apply("deny.v4", &["--confirm", "1s"]);
    lab.json(&["confirm", "--approver", "anna"]);
    std::thread::sleep(Duration::from_millis(1500));
    let history = lab.json(&["history"]);
    assert_eq!(actions(&history)[0], "confirm");
    assert_eq!(history["records"][0]["policy"]["id"], history["records"][1]["policy"]["id"]);
    assert_eq!(lab.exit(&["history", "--verify"]), 0);
}

#[test]
fn a_dead_daemon_keeps_its_promise() {
    let mut lab = Lab::new(OPEN);
    lab.start();
    // The operator has edited the file in place: a restart would read the lock-out again.
    lab.write("rules.v4", LOCKED);
    lab.apply("rules.v4", &["--confirm", "4s"]);
    lab.kill();
    lab.start();
    assert!(!lab.pings(), "the window is not over");
    assert!(lab.errors().contains("still waits"), "{}", lab.errors());
    lab.until("it is undone after the restart", || lab.pings());
    // Dead until the window is over.
    lab.apply("rules.v4", &["--confirm", "1s"]);
    lab.kill();
    std::thread::sleep(Duration::from_millis(1200));
    lab.start();
    assert!(lab.pings(), "{}", lab.errors());
    assert!(lab.errors().contains("nobody confirmed the change"), "{}", lab.errors());
    // Nor does the next start bring it back, though the file still says so.
    lab.kill();
    lab.start();
    assert!(lab.pings(), "{}", lab.errors());
    assert!(lab.errors().contains("the policy files say what was undone"), "{}", lab.errors());
    let history = lab.json(&["history", "--verify"]);
    assert_eq!(actions(&history)[..2], ["undo", "apply"]);
    assert_eq!(history["damage"], serde_json::json!([]));
    // Whoever wants it applies it.
    lab.apply("rules.v4", &["--reason", "it is meant so"]);
    assert!(!lab.pings());
}

#[test]
fn rematch_cuts_exactly_the_flows_that_the_policy_would_not_admit() {
    let mut lab = Lab::new(OPEN);
    lab.start();
    let mut kept = Talk::through(&lab, 5001);
    let mut cut = Talk::through(&lab, 5002);
    assert!(kept.answers(Duration::from_secs(2)) && cut.answers(Duration::from_secs(2)));
    assert!(lab.pings());
    lab.write("deny.v4", DENY);
    let ports = |effect: &Value| -> Vec<u64> {
        let flows = effect["flows"].as_array().cloned().unwrap_or_default();
        flows.iter().map(|flow| flow["original"]["dport"].as_u64().unwrap()).collect()
    };
    let told = lab.apply("deny.v4", &["--dry-run"]);
    assert_eq!(ports(&told["effect"]), [5002], "{told}");
    assert_eq!(told["effect"]["flows"][0]["line"], 6);
    assert_eq!(told["effect"]["refused"], 1);
    assert!(told["effect"]["judged"].as_u64().unwrap() >= 3, "{told}");
    // Without --rematch an established flow goes on.
    lab.apply("deny.v4", &[]);
    assert!(cut.answers(Duration::from_secs(2)), "nothing was to be cut");
    let before = lab.json(&["show", "stats"])["conntrack"]["entries"].clone();
    let done = lab.apply("deny.v4", &["--rematch"]);
    assert_eq!((ports(&done["effect"]), &done["effect"]["ended"]), (vec![5002], &1.into()));
    assert!(!cut.answers(Duration::from_millis(700)), "{done}\n{before}");
    assert!(kept.answers(Duration::from_secs(2)), "another flow was cut\n{}", lab.errors());
    // Nothing is left to cut.
    let again = lab.apply("deny.v4", &["--rematch"]);
    assert_eq!(again["effect"]["refused"], 0, "{again}");
}

#[test]
fn another_translation_counts_as_another_flow() {
    let nat = |to: &str| {
        format!(
            "*nat\n:PREROUTING ACCEPT\n-A PREROUTING -p tcp -m tcp --dport 8080 -j DNAT --to-destination 198.18.2.2:{to}\nCOMMIT\n"
        )
    };
    let mut lab = Lab::new(&nat("5001"));
    lab.start();
    let mut moved = Talk::through_to(&lab, 5001, 8080);
    let mut plain = Talk::through(&lab, 5002);
    assert!(moved.answers(Duration::from_secs(2)) && plain.answers(Duration::from_secs(2)));
    lab.write("same.v4", &(nat("5001") + "*filter\n:FORWARD ACCEPT\nCOMMIT\n"));
    assert_eq!(lab.apply("same.v4", &["--rematch"])["effect"]["refused"], 0);
    lab.write("other.v4", &nat("5003"));
    let done = lab.apply("other.v4", &["--rematch"]);
    assert_eq!((&done["effect"]["refused"], &done["effect"]["ended"]), (&1.into(), &1.into()));
    let by = done["effect"]["flows"][0]["by"].as_str().unwrap();
    assert!(by.contains("another translation, 198.18.2.2:5003 by nat PREROUTING rule 1"), "{by}");
    assert!(plain.answers(Duration::from_secs(2)));
}

#[test]
fn what_was_in_force_comes_back_by_name_unless_somebody_changed_it() {
    let mut lab = Lab::new(OPEN);
    lab.start();
    lab.write("deny.v4", DENY);
    lab.write("locked.v4", LOCKED);
    lab.write("open.v6", "*filter\n:FORWARD DROP\n-A FORWARD -p udp -j ACCEPT\nCOMMIT\n");
    lab.apply("deny.v4", &["--ticket", "NET-1"]);
    lab.json(&["apply", "--rules6", &lab.file("open.v6")]);
    lab.apply("locked.v4", &[]);
    let rules = |family: &[&str]| lab.text(&[&["show", "rules", "--save"], family].concat());
    let names = lab.json(&["history"]);
    assert_eq!(actions(&names), ["apply", "apply", "apply", "start"]);
    // Two back is without IPv6, and with what it had then.
    lab.json(&["rollback", "2"]);
    assert!(!rules(&["-6"]).contains("udp") && rules(&[]).contains("5002"));
    lab.json(&["rollback", names["records"][0]["policy"]["id"].as_str().unwrap()]);
    assert!(rules(&["-6"]).contains("udp") && !rules(&[]).contains("5002"));
    assert_eq!(lab.text(&["history", "show", "r2", "--rules"]), DENY);
    let history = lab.file("history");
    assert_eq!(lab.exit_alone(&["check", "--rules", "@1", "--history", &history]), 0);
    assert_eq!(lab.exit_alone(&["check", "--rules", "@77", "--history", &history]), 1);
    assert_eq!(lab.exit_alone(&["history", "--verify", "--dir", &history]), 0);
    // Somebody makes it look as if another policy had been approved.
    let path = lab.path("history/records/0000000002.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("NET-1", "NET-9")).unwrap();
    let (code, said) = lab.refused(&["history", "--verify"]);
    assert!(code == 1 && said.contains("record 2 was changed"), "{said}");
    let sum = names["records"][2]["policy"]["v4"]["sha256"].as_str().unwrap();
    std::fs::write(lab.path(&format!("history/objects/{sum}")), OPEN).unwrap();
    let (code, said) = lab.refused(&["rollback", "r2"]);
    assert!(code == 1 && said.contains("was changed"), "{said}");
    assert_eq!(lab.exit_alone(&["history", "--verify", "--dir", &history]), 1);
    // It goes on all the same.
    lab.json(&["rollback", "r1"]);
}

#[test]
fn what_cannot_be_recorded_is_not_put_in_force_but_in_an_emergency() {
    let mut lab = Lab::new(OPEN);
    lab.small_disk();
    lab.start();
    lab.write("locked.v4", LOCKED);
    lab.fill_disk();
    let (code, said) = lab.refused(&["apply", "--rules", &lab.file("locked.v4")]);
    assert!(code == 1 && said.contains("--emergency --reason"), "{said}");
    assert!(said.contains("No space left"), "{said}");
    assert!(lab.pings());
    let hurry = ["--emergency", "--reason", "a worm"];
    assert_eq!(lab.exit(&["apply", "--rules", &lab.file("locked.v4"), "--emergency"]), 2);
    lab.apply("locked.v4", &hurry);
    assert!(!lab.pings());
    // Recorded as soon as there is room.
    lab.empty_disk();
    lab.until("it is recorded", || actions(&lab.json(&["history"]))[0] == "apply");
    let history = lab.json(&["history"]);
    assert_eq!(
        (&history["open"][0], &history["records"][0]["emergency"]),
        (&2.into(), &true.into())
    );
    let nag = lab.json(&["show", "status"])["changes"].to_string();
    assert!(nag.contains("emergency change 2"), "{nag}");
    assert_eq!(lab.exit(&["reconcile", "2"]), 1, "without a reason");
    lab.json(&["reconcile", "2", "--reason", "reviewed"]);
    assert_eq!(lab.exit(&["reconcile", "2", "--reason", "again"]), 1);
    let status = lab.json(&["show", "status"]);
    assert_eq!(status["changes"], Value::Null, "{status}");
    assert_eq!(lab.exit(&["history", "--verify"]), 0);
}

#[test]
fn a_site_may_want_reasons_and_services_that_answer() {
    let mut lab = Lab::new(OPEN);
    lab.add("[change]\nrequire = [\"reason\", \"approver\"]\nprobes = [\"198.18.2.2:5001\"]\n");
    lab.start();
    let _service = Talk::through(&lab, 5001);
    lab.write("deny.v4", DENY);
    let deny = lab.file("deny.v4");
    let (code, said) = lab.refused(&["apply", "--rules", &deny, "--reason", "x"]);
    assert!(code == 1 && said.contains("--approver"), "{said}");
    lab.apply("deny.v4", &["--reason", "x", "--approver", "anna"]);
    // The gateway itself cannot reach the service any more: that is undone at once.
    lab.write("mute.v4", "*filter\n:OUTPUT DROP\nCOMMIT\n");
    let before = lab.text(&["show", "rules", "--save"]);
    let mute = lab.file("mute.v4");
    let (code, said) =
        lab.refused(&["apply", "--rules", &mute, "--reason", "x", "--approver", "b"]);
    assert!(code == 1 && said.contains("does not answer"), "{said}");
    assert!(said.contains("the old policy is back"), "{said}");
    assert_eq!(lab.text(&["show", "rules", "--save"]), before);
    assert_eq!(actions(&lab.json(&["history"])), ["undo", "apply", "apply", "start"]);
}

/// Rules of which somebody may want to know when they were used.
const OWNED: &str = "*filter
:FORWARD DROP [0:0]
-A FORWARD -p icmp -m comment --comment \"ping; owner=net ticket=NET-3 review=2027-01-31\" -j ACCEPT
-A FORWARD -p tcp -m tcp --dport 5001 -j ACCEPT
-A FORWARD -p tcp -j ACCEPT
COMMIT
";

#[test]
fn counters_hits_and_owners_survive_ten_reloads_and_a_restart() {
    let mut lab = Lab::new(OWNED);
    lab.start();
    let rules = |lab: &Lab| {
        lab.json(&["show", "rules", "--chain", "FORWARD"])["chains"][0]["rules"].clone()
    };
    for _ in 0..3 {
        assert!(lab.pings());
    }
    let before = rules(&lab);
    let ping = |rules: &Value| {
        rules.as_array().unwrap().iter().find(|it| it["about"]["owner"] == "net").cloned().unwrap()
    };
    // Both directions of three pings.
    assert_eq!(ping(&before)["packets"], 6);
    let hit = ping(&before)["last_hit"].as_u64().unwrap();
    assert!(ping(&before)["first_hit"].as_u64().unwrap() <= hit);
    assert_eq!(before[1]["last_hit"], Value::Null, "{before}");
    std::thread::sleep(Duration::from_millis(1100));
    for round in 0..10 {
        // Others come and go, before it and behind it.
        let line = format!("-A FORWARD -s 203.0.113.{round} -j DROP\n-A FORWARD -p icmp");
        lab.write("rules.v4", &OWNED.replacen("-A FORWARD -p icmp", &line, usize::from(round < 9)));
        lab.json(&["reload"]);
        assert_eq!(ping(&rules(&lab)), {
            let mut same = ping(&before);
            same["number"] = if round < 9 { 2.into() } else { 1.into() };
            same
        });
    }
    assert_eq!(rules(&lab), before, "{}", lab.errors());
    // Saved every second; then the daemon dies.
    std::thread::sleep(Duration::from_millis(2500));
    lab.kill();
    lab.start();
    assert_eq!(rules(&lab), before, "{}", lab.errors());
    assert_eq!(ping(&before)["about"]["ticket"], "NET-3");
    assert!(lab.pings());
    lab.until("it is hit again", || ping(&rules(&lab))["last_hit"].as_u64().unwrap() > hit);
    assert_eq!(ping(&rules(&lab))["packets"], 8);
    let unused = lab.json(&["show", "rules", "--unused", "2s"]);
    assert_eq!(unused["chains"][0]["rules"].as_array().unwrap().len(), 2, "{unused}");
    let none = lab.json(&["show", "rules", "--unused", "7d"]);
    assert_eq!(none["chains"], serde_json::json!([]));
    // Other packets, other rules; and a text's own counters are no hits.
    let _talk = Talk::through(&lab, 5001);
    lab.until("a hit", || rules(&lab)[1]["first_hit"] != Value::Null);
    lab.write("counted.v4", &OWNED.replace("-A FORWARD -p tcp -j", "[7:700] -A FORWARD -p tcp -j"));
    std::thread::sleep(Duration::from_millis(2100));
    // Answers of the session.
    let hit = rules(&lab)[2]["last_hit"].clone();
    lab.apply("counted.v4", &["-c"]);
    std::thread::sleep(Duration::from_millis(1100));
    let last = rules(&lab)[2].clone();
    assert_eq!((&last["packets"], &last["last_hit"]), (&7.into(), &hit), "{last}");
}

#[test]
fn a_rule_that_expires_is_announced_and_stops_matching_at_its_time() {
    let now = dataplane::clock::wall_us() / 1_000_000;
    let at = portcullis::history::stamp((now + 6) * 1_000_000);
    let policy = format!(
        "*filter\n:FORWARD DROP\n-A FORWARD -p icmp -m comment --comment \"owner=net expires={at}\" -j ACCEPT\n\
         -A FORWARD -p udp -m comment --comment expires=soon -j ACCEPT\nCOMMIT\n"
    );
    let mut lab = Lab::new(&policy);
    lab.start();
    assert!(lab.errors().contains("expires=soon is no time"), "{}", lab.errors());
    assert!(lab.pings());
    lab.until("it is announced", || lab.errors().contains("rule 1 expires at"));
    let status = lab.json(&["show", "status"])["changes"].to_string();
    assert!(
        status.contains("IPv4 filter FORWARD rule 1 expires at") && status.contains("owner net")
    );
    let explain = |at: &str| {
        let words = ["--in", "g0", "--out", "g1", "--src", "198.18.1.2", "--dst", "198.18.2.2"];
        let rules = lab.file("rules.v4");
        let first =
            ["--json", "explain", "--rules", &rules, "--at", at, "--proto", "icmp", "--type", "8"];
        lab.text_alone(&[&first[..], &words].concat())
    };
    assert!(explain("2001-01-01").contains("\"accept"), "{}", explain("2001-01-01"));
    assert!(!explain("2101-01-01").contains("\"accept"), "{}", explain("2101-01-01"));
    let rules = || lab.json(&["show", "rules", "--chain", "FORWARD"])["chains"][0]["rules"].clone();
    lab.until("it has expired", || lab.errors().contains("rules have expired"));
    let counted = rules()[0]["packets"].clone();
    assert!(!lab.pings(), "{}", lab.errors());
    assert_eq!((&rules()[0]["packets"], rules().as_array().unwrap().len()), (&counted, 2));
    // Nor does it come back with a restart.
    lab.kill();
    lab.start();
    assert!(!lab.pings());
}

/// Web for everybody, and nothing else; for the policies above.
const MATRIX: &str = r#"[[flow]]
name = "ping"
owner = "ops"
purpose = "monitoring"
in = "g0"
out = "g1"
src = "198.18.1.2"
dst = "198.18.2.2"
proto = "icmp"
expect = "accept"
answered = true

[[flow]]
name = "orders"
owner = "shop"
in = "g0"
out = "g1"
src = "198.18.1.2"
dst = "198.18.2.2"
dport = 5001
expect = "accept"
answered = true

[[flow]]
name = "nothing else"
in = "g0"
out = "g1"
src = "198.18.1.2"
dst = "198.18.2.2"
proto = "sctp"
dport = 9
expect = "deny"
"#;

#[test]
fn a_policy_that_is_not_as_its_matrix_says_is_refused_and_traffic_goes_on() {
    let mut lab = Lab::new(OPEN);
    lab.add("[matrix]\nfile = \"matrix.toml\"\ninterval = 1\n");
    lab.write("matrix.toml", MATRIX);
    lab.start();
    let mut session = Talk::through(&lab, 5001);
    assert!(session.answers(Duration::from_secs(2)));
    lab.until("the matrix is run against the live policy", || {
        lab.json(&["show", "matrix"])["last"]["passed"] == 3
    });
    // The door would fall shut.
    let before = lab.json(&["show", "status"])["version"]["generation"].clone();
    lab.write("locked.v4", LOCKED);
    for flags in [&[][..], &["--dry-run"], &["--confirm", "9s"]] {
        let arguments = ["apply", "--rules", &lab.file("locked.v4")];
        let (code, said) = lab.refused(&[&arguments, flags].concat());
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("2 of 3 flows not as expected; the old policy"), "{said}");
        assert!(said.contains("matrix.toml:1:1: error: flow \"ping\" (owner ops)"), "{said}");
        assert!(said.contains("flow \"orders\" (owner shop): expected accept, got drop"), "{said}");
    }
    let after = lab.json(&["show", "status"])["version"]["generation"].clone();
    assert_eq!(before, after);
    assert!(lab.pings() && session.answers(Duration::from_secs(2)), "{}", lab.errors());
    assert_eq!(actions(&lab.json(&["history"])), ["start"]);
    // Nor by a reload; nor with a matrix that cannot be read.
    lab.write("rules.v4", LOCKED);
    let (code, said) = lab.refused(&["reload"]);
    assert!(code == 1 && said.contains("2 of 3 flows"), "{said}");
    lab.write("rules.v4", OPEN);
    lab.write("matrix.toml", &MATRIX.replace("\"deny\"", "\"denied\""));
    let (code, said) = lab.refused(&["reload"]);
    assert!(code == 1 && said.contains("matrix.toml:32:10: error: \"denied\" is no"), "{said}");
    assert!(lab.pings() && session.answers(Duration::from_secs(2)), "{}", lab.errors());
    lab.write("matrix.toml", MATRIX);
    // What it allows goes through.
    lab.write("deny.v4", DENY);
    lab.apply("deny.v4", &[]);
    assert_eq!(lab.exit(&["matrix", "run", "--live"]), 0);
    // An emergency is not held up, but it is written down, and nagged about.
    let flags = ["--emergency", "--reason", "worm"];
    let applied = lab.apply("locked.v4", &flags);
    assert!(applied["findings"].to_string().contains("in spite of its matrix"), "{applied}");
    let history = lab.json(&["history"]);
    let result = history["records"][0]["result"].as_str().unwrap();
    assert!(result.contains("in spite of its matrix") && result.contains("2 of 3"), "{result}");
    lab.until("the live policy is not as expected", || {
        lab.json(&["show", "status"])["changes"].to_string().contains("2 of 3 flows")
    });
    assert_eq!(lab.exit(&["show", "matrix"]), 6);
    assert_eq!(lab.exit(&["matrix", "run", "--live"]), 6);
    assert!(lab.errors().contains("matrix: 2 of 3 flows are not as expected"), "{}", lab.errors());
    // A rollback is always possible.
    lab.json(&["rollback"]);
    lab.until("the live policy is as expected again", || lab.exit(&["show", "matrix"]) == 0);
    assert!(lab.pings(), "{}", lab.errors());
}

#[test]
fn objects_change_with_the_policy_or_not_at_all() {
    let rules = OPEN.replace(
        "-A FORWARD -p icmp -j ACCEPT",
        "-A FORWARD -p icmp -m set --match-set friends src -j ACCEPT",
    );
    let mut lab = Lab::new(&rules);
    let object = |stage: &str| {
        format!(
            "type: addresses\nowner: ops\nstages: none, client\nexposed: {stage}\n\
             [client]\n198.18.1.2\n"
        )
    };
    lab.write("friends.object", &object("none"));
    lab.write("open.save", "create open hash:ip\n");
    lab.add_sets("[\"friends.object\", \"open.save\"]");
    lab.start();
    assert!(!lab.pings(), "exposed to nobody yet");
    let (code, said) = lab.refused(&["set", "add", "friends", "198.18.1.2"]);
    assert!(code == 1 && said.contains("friends is of an object"), "{said}");
    assert_eq!(lab.refused(&["set", "flush"]).0, 1);
    assert_eq!(lab.exit(&["set", "add", "open", "198.18.1.2"]), 0);
    assert_eq!(lab.exit(&["set", "test", "friends", "198.18.1.2"]), 1);
    lab.write("friends.object", &object("client"));
    lab.json(&["reload"]);
    assert!(lab.pings(), "{}", lab.errors());
    let directory = lab.file("friends.object");
    let socket = lab.file("control.sock");
    let list = ["--json", "objects", "list", "--dir", &directory, "--socket", &socket];
    let list: Value = serde_json::from_str(&lab.text_alone(&list)).unwrap();
    assert_eq!((&list["rules"], &list["members"]), (&1.into(), &1.into()));
    assert!(list["hits"].as_u64().unwrap() > 0, "{list}");
    // Back, by hand of the history.
    lab.json(&["rollback"]);
    assert!(!lab.pings(), "{}", lab.errors());
}
