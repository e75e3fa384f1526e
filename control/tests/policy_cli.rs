//! What `lint`, `diff` and `exposure` say to scripts: exit codes, JSON, files and directories,
//! policies of a history.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use portcullis::api::protocol::Source;
use portcullis::daemon::policy::Texts;
use portcullis::history::{Action, Draft, History, Keep, Who};
use serde_json::Value;

const OLD: &str = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT ACCEPT [0:0]\n\
    -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
    -A FORWARD -i lan0 -o wan0 -p tcp -m tcp --dport 80 -m comment --comment \"web owner=net\" -j ACCEPT\n\
    COMMIT\n";

struct Bench(PathBuf);

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Bench {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("portcullis-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a scratch directory");
        let bench = Self(path);
        bench.write("old.v4", OLD);
        bench.write("new.v4", &OLD.replace("--dport 80", "--dport 443"));
        bench
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("it has one")).expect("a directory");
        fs::write(path, text).expect("a writable file");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        // A site's own configuration is not asked.
        command.current_dir(&self.0).args(arguments).output().expect("the binary runs")
    }

    /// What is printed, and that it ends so.
    #[track_caller]
    fn says(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{errors}");
        format!("{out}{errors}")
    }

    #[track_caller]
    fn json(&self, code: i32, arguments: &[&str]) -> Vec<Value> {
        let all = [&["--json"], arguments].concat();
        let output = self.run(&all);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
    }

    /// A history with these policies, the last one in force.
    fn history(&self, policies: &[&str]) {
        let keep = Keep { records: 100, age: dataplane::clock::Nanos(u64::MAX) };
        let mut history = History::open(&self.0.join("history"), keep).expect("it opens");
        for (at, text) in policies.iter().enumerate() {
            let source = Source { name: "rules.v4".to_owned(), text: (*text).to_owned() };
            let texts = Texts { v4: Some(source), ..Texts::default() };
            let draft = Draft::new(Action::Apply, Who::default(), 1_000_000 * (at as u64 + 1));
            history.note(&draft, &texts).expect("it is recorded");
        }
    }
}

#[test]
fn lint_ends_with_what_is_denied() {
    let bench = Bench::new("lint-exit");
    bench.write("open.v4", &OLD.replace("COMMIT", "-A INPUT -j ACCEPT\nCOMMIT"));
    bench.says(0, &["lint", "--rules", "old.v4"]);
    let said = bench.says(1, &["lint", "--rules", "open.v4", "--deny", "accept-any"]);
    assert!(said.contains("open.v4:7") && said.contains("1 denied"), "{said}");
    let quiet = bench.says(0, &["lint", "--rules", "open.v4", "--allow", "accept-any"]);
    assert!(!quiet.contains("accept-any"), "{quiet}");
    bench.write("levels.toml", "[lint]\naccept-any = \"deny\"\n");
    bench.says(1, &["lint", "--rules", "open.v4", "--lint-config", "levels.toml"]);
    // The command line comes last.
    bench.says(
        0,
        &["lint", "--rules", "open.v4", "--lint-config", "levels.toml", "--warn", "accept-any"],
    );
    bench.write("levels.toml", "[lint]\naccept-anny = \"deny\"\n");
    let said = bench.says(1, &["lint", "--rules", "open.v4", "--lint-config", "levels.toml"]);
    assert!(said.contains("accept-any"), "{said}");
}

#[test]
fn lint_refuses_what_makes_no_sense() {
    let bench = Bench::new("lint-refused");
    let said = bench.says(2, &["lint"]);
    assert!(said.contains("--rules"), "{said}");
    let said = bench.says(2, &["lint", "--rules", "old.v4", "--deny", "acept-any"]);
    assert!(said.contains("did you mean accept-any"), "{said}");
    bench.says(2, &["lint", "--rules", "old.v4", "--today", "tomorrow"]);
    bench.says(1, &["lint", "--rules", "missing.v4"]);
    bench.write("bad.v4", "*filter\n-A FORWARD -j NOWHERE\nCOMMIT\n");
    let said = bench.says(1, &["lint", "--rules", "bad.v4"]);
    assert!(said.contains("bad.v4:2"), "{said}");
}

#[test]
fn lint_explains_its_codes() {
    let bench = Bench::new("lint-explain");
    let said = bench.says(0, &["lint", "--explain", "contradicted"]);
    assert!(said.contains("contradicted"), "{said}");
    bench.says(2, &["lint", "--explain", "contradictd"]);
    let all = bench.json(0, &["lint", "--codes"]);
    assert!(all.len() > 20 && all.iter().all(|it| it["remedy"].is_string()), "{all:?}");
    let [one] = &bench.json(0, &["lint", "--explain", "contradicted"])[..] else { panic!("one") };
    assert_eq!(one["code"], "contradicted");
}

#[test]
fn lint_speaks_json() {
    let bench = Bench::new("lint-json");
    bench.write(
        "twice.v4",
        &OLD.replace(
            "COMMIT",
            "-A FORWARD -i lan0 -o wan0 -p tcp -m tcp --dport 80 -j DROP\nCOMMIT",
        ),
    );
    let all = bench.json(0, &["lint", "--rules", "twice.v4", "--marks", "--modules"]);
    let finding = all.iter().find(|it| it["code"] == "contradicted").expect("it is found");
    assert_eq!(
        (&finding["line"], &finding["severity"]),
        (&Value::from(7), &Value::from("warning"))
    );
    let sums = all.iter().find(|it| it["lint"].is_object()).expect("there are sums");
    assert_eq!(
        (&sums["lint"]["rules"], &sums["lint"]["undecided"]),
        (&Value::from(3), &Value::from(0))
    );
    assert!(
        all.iter().any(|it| it["marks"].is_array())
            && all.iter().any(|it| it["modules"].is_array())
    );
}

#[test]
fn hits_are_of_the_family_that_they_were_counted_in() {
    let bench = Bench::new("lint-hits");
    let rules = |net: &str| {
        format!(
            "*filter\n:FORWARD DROP [0:0]\n[5:300] -A FORWARD -s {net}1 -j ACCEPT\n\
             [9000:540000] -A FORWARD -s {net}2 -j ACCEPT\nCOMMIT\n"
        )
    };
    bench.write("four", &rules("192.0.2."));
    bench.write("six", &rules("2001:db8::"));
    let moved = |arguments: &[&str]| {
        let all = bench.json(0, arguments);
        all.iter().filter(|it| it["code"] == "rule-order").count()
    };
    assert_eq!(moved(&["lint", "--rules", "four", "--hits", "four"]), 1);
    assert_eq!(moved(&["lint", "--rules6", "six", "--hits6", "six"]), 1);
    let both = ["lint", "--rules", "four", "--rules6", "six", "--hits", "four", "--hits6", "six"];
    assert_eq!(moved(&both), 2);
    // The other family's counters are none of its business.
    assert_eq!(moved(&["lint", "--rules", "four", "--rules6", "six", "--hits", "four"]), 1);
}

#[test]
fn diff_tells_same_from_different() {
    let bench = Bench::new("diff-exit");
    let said = bench.says(0, &["diff", "old.v4", "old.v4"]);
    assert!(said.contains("every packet has the same fate (exact)"), "{said}");
    let said = bench.says(6, &["diff", "old.v4", "new.v4"]);
    assert!(said.contains("+++ b/rules.v4") && said.contains("walked through both"), "{said}");
    // A new connection to a port that people know.
    assert!(said.contains("dport=443") && said.contains("state=NEW"), "{said}");
    let said = bench.says(6, &["diff", "old.v4", "new.v4", "--no-text"]);
    assert!(!said.contains("+++"), "{said}");
    bench.says(6, &["diff", "old.v4", "new.v4", "--no-packets"]);
    bench.says(0, &["diff", "old.v4", "old.v4", "--no-packets"]);
    bench.write("bad.v4", "*filter\n-A FORWARD -j NOWHERE\nCOMMIT\n");
    bench.says(1, &["diff", "old.v4", "bad.v4"]);
    bench.says(2, &["diff", "old.v4"]);
}

#[test]
fn diff_speaks_json() {
    let bench = Bench::new("diff-json");
    let all = bench.json(6, &["diff", "old.v4", "new.v4"]);
    assert_eq!(all[0]["text"]["name"], "rules.v4");
    let four = all.iter().find(|it| it["family"] == "ipv4").expect("IPv4 is told");
    assert_eq!(four["complete"], true);
    let changes = four["changes"].as_array().expect("a list");
    assert_eq!(changes.len(), 2, "{changes:#?}");
    for change in changes {
        assert_eq!((&change["table"], &change["hook"]), (&"filter".into(), &"FORWARD".into()));
        assert_eq!(change["witness"]["confirmed"], true);
    }
    assert!(all.iter().any(|it| it["family"] == "ipv6" && it["changes"] == Value::Array(vec![])));
}

#[test]
fn directories_and_the_history_are_policies() {
    let bench = Bench::new("diff-places");
    bench.write("a/rules.v4", OLD);
    bench.write("b/rules.v4", &OLD.replace("--dport 80", "--dport 443"));
    bench.write("b/rules.v6", "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    bench.write("empty/readme", "nothing");
    let said = bench.says(6, &["diff", "a", "b"]);
    assert!(said.contains("ipv6 filter FORWARD"), "{said}");
    let said = bench.says(2, &["diff", "a", "empty"]);
    assert!(said.contains("name the files"), "{said}");
    let newer = OLD.replace("--dport 80", "--dport 443");
    bench.history(&[OLD, &newer]);
    bench.says(6, &["diff", "--history", "history", "@1", "@0"]);
    bench.says(0, &["diff", "--history", "history", "@1", "old.v4", "--no-text"]);
    let said = bench.says(1, &["diff", "--history", "history", "@7", "@0"]);
    assert!(said.contains("the history has 2 policies"), "{said}");
    let said =
        bench.says(6, &["exposure", "--history", "history", "@0", "--against", "@1", "--changes"]);
    assert!(said.contains("newly exposed") && said.contains("no longer exposed"), "{said}");
    bench.says(0, &["exposure", "--history", "history", "@0", "--against", "new.v4", "--changes"]);
}

#[test]
fn exposure_speaks_json() {
    let bench = Bench::new("exposure-json");
    let all = bench.json(0, &["exposure", "--rules", "old.v4"]);
    let four = all.iter().find(|it| it["exposure"]["family"] == "ipv4").expect("IPv4 is told");
    assert_eq!(four["exposure"]["complete"], true);
    let [one] = &four["exposure"]["reachable"].as_array().expect("a list")[..] else {
        panic!("{four:#}")
    };
    assert_eq!((&one["road"], &one["rule"]["owner"]), (&"forward".into(), &"net".into()));
    let service = &one["services"][0];
    assert_eq!((&service["interfaces"][0], &service["ports"][0]), (&"lan0".into(), &"80".into()));
    assert_eq!(service["witness"]["confirmed"], true);
    assert_eq!(four["summary"]["unowned"], 0);
    bench.says(1, &["exposure", "missing.v4"]);
    bench.says(2, &["exposure", "--rules", "old.v4", "--local", "nonsense"]);
    bench.says(3, &["exposure", "--socket", "none.sock"]);
}
