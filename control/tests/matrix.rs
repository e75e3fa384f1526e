//! `portcullis matrix` on the command line: exit codes, JSON, JUnit; and the policies under
//! `examples/`, which are checked, free of errors, and as their matrices say.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

const RULES: &str = "*filter
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -p tcp -m tcp --dport 443 -j ACCEPT
COMMIT
";
const MATRIX: &str = r#"[[flow]]
name = "web"
owner = "shop"
in = "a"
out = "b"
src = "192.0.2.1"
dst = "198.51.100.1"
dport = 443
expect = "accept"
answered = true

[[flow]]
name = "<not> telnet"
in = "a"
out = "b"
src = "192.0.2.1"
dst = "198.51.100.1"
dport = 23
expect = "deny"
"#;

struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let name = format!("portcullis-matrix-{}-{name}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        let files = Self(directory);
        files.write("rules.v4", RULES);
        files.write("matrix.toml", MATRIX);
        files
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn portcullis(arguments: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = Command::new(BINARY).args(arguments).output().unwrap();
    let said = String::from_utf8([stdout, stderr].concat()).unwrap();
    (status.code().unwrap(), said)
}

#[test]
fn exit_codes_and_json_say_how_it_went() {
    let files = Files::new("codes");
    let (matrix, rules) = (files.file("matrix.toml"), files.file("rules.v4"));
    let run = ["matrix", "run", &matrix, "--rules", &rules];
    let (code, said) = portcullis(&run);
    assert_eq!((code, said.contains("2 flows as expected")), (0, true), "{said}");
    let (code, said) = portcullis(&[&["--json"], &run[..], &["--all"]].concat());
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, lines.len()), (0, 3), "{said}");
    assert_eq!(lines[0]["steps"].as_array().unwrap().len(), 3);
    assert_eq!(lines[0]["steps"][1]["state"], "ESTABLISHED");
    assert_eq!((&lines[2]["passed"], &lines[2]["failed"]), (&2.into(), &0.into()));

    files.write("rules.v4", &RULES.replace("443", "23"));
    let (code, said) = portcullis(&run);
    assert_eq!(code, 6, "{said}");
    assert!(said.contains("FAIL web [owner shop]"), "{said}");
    assert!(said.contains("expected deny, got accept by filter FORWARD rule 2 (ACCEPT), line 4"));
    let (code, said) = portcullis(&[&["--json"], &run[..]].concat());
    assert_eq!((code, said.lines().count()), (6, 3), "{said}");

    files.write("rules.v4", "*filter\n-A FORWARD -j NOWHERE\nCOMMIT\n");
    let (code, said) = portcullis(&run);
    assert!(code == 1 && said.contains("rules.v4:2:"), "{said}");
    files.write("rules.v4", RULES);
    files.write("matrix.toml", &MATRIX.replace("dport = 23", "dprt = 23"));
    let (code, said) = portcullis(&run);
    assert!(code == 1 && said.contains("matrix.toml:18:1"), "{said}");
    assert!(said.contains("did you mean `dport`?"), "{said}");
    assert_eq!(portcullis(&["matrix", "run", &matrix]).0, 2, "no policy");
    assert_eq!(portcullis(&["matrix", "run", "--rules", &rules]).0, 2, "no matrix");
    assert_eq!(portcullis(&["matrix", "run", &files.file("none"), "--rules", &rules]).0, 1);
    let nobody = ["matrix", "run", "--live", "--socket", &files.file("none")];
    assert_eq!(portcullis(&nobody).0, 3);
}

#[test]
fn junit_is_written_and_well_formed() {
    let files = Files::new("junit");
    files.write("rules.v4", &RULES.replace("443", "23"));
    let (matrix, rules) = (files.file("matrix.toml"), files.file("rules.v4"));
    let xml = files.file("out.xml");
    let (code, _) = portcullis(&["matrix", "run", &matrix, "--rules", &rules, "--junit", &xml]);
    assert_eq!(code, 6);
    let text = std::fs::read_to_string(&xml).unwrap();
    assert!(text.starts_with("<?xml"), "{text}");
    let report = quick_junit::Report::deserialize_from_str(&text).unwrap();
    let cases = &report.test_suites[0].test_cases;
    assert_eq!((report.tests, report.failures, cases.len()), (2, 2, 2));
    assert_eq!(cases[1].name.as_str(), "<not> telnet");
}

/// The examples, each with its directory.
fn examples() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples");
    let entries = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.join("matrix.toml").exists()).collect();
    found.sort();
    found
}

#[test]
fn examples_are_complete_sound_and_as_their_matrices_say() {
    let examples = examples();
    assert_eq!(examples.len(), 2);
    for example in examples {
        let file = |name: &str| example.join(name).display().to_string();
        for name in
            ["rules.v4", "rules.v6", "objects", "matrix.toml", "portcullis.toml", "RUNBOOK.md"]
        {
            assert!(example.join(name).exists(), "{}", file(name));
        }
        let (v4, v6, sets) = (file("rules.v4"), file("rules.v6"), file("objects"));
        let policy = ["--rules", &v4, "--rules6", &v6, "--sets", &sets];
        let (code, said) = portcullis(&[&["check"], &policy[..]].concat());
        assert_eq!(code, 0, "{said}");
        let (code, said) = portcullis(&[&["lint"], &policy[..]].concat());
        assert_eq!(code, 0, "{said}");
        let (code, said) = portcullis(&["config", "check", &file("portcullis.toml")]);
        assert_eq!(code, 0, "{said}");
        let (code, said) = portcullis(&["matrix", "run", "--config", &file("portcullis.toml")]);
        assert_eq!(code, 0, "{said}");
        // It is the policy that the matrix is about: without it, flows fail.
        let empty = format!("{}/examples/{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        std::fs::create_dir_all(&empty).unwrap();
        let open = format!("{empty}/open.v4");
        std::fs::write(&open, "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n").unwrap();
        let (code, said) = portcullis(&["matrix", "run", &file("matrix.toml"), "--rules", &open]);
        assert_eq!(code, 6, "{said}");
        std::fs::remove_dir_all(&empty).unwrap();
    }
}

#[test]
fn objects_tell_who_uses_them() {
    let example = examples().remove(0);
    let file = |name: &str| example.join(name).display().to_string();
    let (v4, v6, objects) = (file("rules.v4"), file("rules.v6"), file("objects"));
    let given = ["--rules", &v4, "--rules6", &v6, "--dir", &objects];
    let ask = |arguments: &[&str]| {
        let (code, said) = portcullis(&[&["--json", "objects"], arguments, &given[..]].concat());
        let lines: Vec<Value> =
            said.lines().map(|line| serde_json::from_str(line).expect(&said)).collect();
        (code, lines)
    };
    let (code, list) = ask(&["list"]);
    let names: Vec<&str> = list.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!((code, names), (0, vec!["admins", "blocked", "partners", "web"]));
    let partners = &list[2];
    assert_eq!((&partners["exposed"], &partners["members"]), (&"partner".into(), &3.into()));
    assert_eq!((&partners["rules"], &partners["owner"]), (&2.into(), &"shop".into()));
    let (_, uses) = ask(&["where-used", "partners"]);
    let sides: Vec<&str> = uses.iter().map(|it| it["family"].as_str().unwrap()).collect();
    assert_eq!(sides, ["IPv4", "IPv6"]);
    let (_, shown) = ask(&["show", "partners"]);
    let entries = shown[0]["entries"].as_array().unwrap();
    assert_eq!(entries.iter().filter(|it| it["enabled"] == false).count(), 3);
    assert_eq!(ask(&["unused"]).0, 0);
    assert_eq!(ask(&["show", "nobody"]).0, 1);
    let files = Files::new("objects");
    files.write("lone.object", "type: ports\nowner: anna\n443\n");
    let unused = ["objects", "unused", "--rules", &v4, "--dir", &files.0.display().to_string()];
    let (code, said) = portcullis(&unused);
    assert_eq!((code, &*said), (6, "lone (owner anna): no rule uses it\n"));
    files.write("bad.object", "type: ports\nowner: anna\n70000\n");
    let (code, said) = portcullis(&unused);
    assert!(code == 1 && said.contains("bad.object:3:1"), "{said}");
}

#[test]
fn what_init_proposes_passes() {
    for example in examples() {
        let config = example.join("portcullis.toml").display().to_string();
        let (code, text) = portcullis(&["matrix", "init", "--config", &config]);
        assert_eq!(code, 0, "{text}");
        let files = Files::new("init");
        let proposed = files.write("proposed.toml", &text);
        let (code, said) = portcullis(&["matrix", "run", &proposed, "--config", &config]);
        assert_eq!(code, 0, "{said}");
        let flows = text.matches("[[flow]]").count();
        assert!(flows > 15, "{flows}\n{text}");
        assert_eq!(portcullis(&["matrix", "init", "--config", &config]).1, text, "the same again");
    }
}
