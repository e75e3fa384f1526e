//! The configuration file and its reload, on the real binary between network namespaces.
//! Needs root.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};
use portcullis::config::{Effect, KEYS};
use serde_json::{Value, json};

mod netns;
use netns::{Directory, Namespace, Process, Row};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");
const SERVER: &str = "198.18.2.2";

/// Logs and accepts pings.
const OPEN: &str = "*filter
:FORWARD DROP [0:0]
-A FORWARD -p icmp -j LOG --log-prefix \"ping: \"
-A FORWARD -p icmp -j ACCEPT
COMMIT
";
/// Accepts nothing.
const CLOSED: &str = "*filter
:FORWARD DROP [0:0]
COMMIT
";
/// Lets nobody speak to the machine itself.
const DEAF: &str = "*filter
:INPUT DROP
COMMIT
";
const OPEN6: &str = "*filter
:FORWARD DROP [0:0]
-A FORWARD -p ipv6-icmp -j ACCEPT
COMMIT
";

/// Pings go through.
const MATRIX: &str = r#"[[flow]]
name = "ping"
in = "g0"
out = "g1"
src = "198.18.1.2"
dst = "198.18.2.2"
proto = "icmp"
expect = "accept"
"#;

/// What every test begins with.
const CONFIG: &str = r#"ports = ["g0", "g1"]

[policy]
rules = "rules.v4"
rules6 = "rules.v6"

[conntrack]
max = 4096
settings = { tcp_loose = 0 }

[state]
file = "state/conntrack"
interval = 3600

[log]
file = "log"

[control]
socket = "control.sock"

[failure]
on-failure = "open"
"#;

/// Client, gateway and server, a directory for files, and the daemon.
struct Lab {
    client: Namespace,
    gateway: Namespace,
    _server: Namespace,
    directory: Directory,
    daemon: Option<Process>,
}

impl Lab {
    fn new() -> Self {
        let Row { client, gateway, server, directory } = Row::routed("reload");
        let lab = Self { client, gateway, _server: server, directory, daemon: None };
        lab.write("rules.v4", OPEN);
        lab.write("rules.v6", CLOSED);
        lab.write("portcullis.toml", CONFIG);
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn command(&self, flags: &[&str]) -> Command {
        let mut command = self.gateway.command(BINARY);
        command.args(["run", "--config"]).arg(self.path("portcullis.toml")).args(flags);
        command
    }

    /// Starts the daemon and waits until it says that it is ready.
    fn start(&mut self, flags: &[&str]) {
        let errors = std::fs::File::create(self.path("stderr")).unwrap();
        let (process, line) = Process::speaking(self.command(flags).stderr(errors));
        self.daemon = Some(process);
        assert!(line.starts_with("ready: "), "{line}{}", self.read("stderr"));
    }

    fn started() -> Self {
        let mut lab = Self::new();
        lab.start(&[]);
        lab
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let socket = self.path("control.sock");
        Command::new(BINARY).args(arguments).arg("--socket").arg(socket).output().unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.cli(&[&["--json"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}\n{}", self.read("stderr"));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Replaces text of the configuration file.
    fn edit(&self, old: &str, new: &str) {
        let text = self.read("portcullis.toml");
        assert!(text.contains(old), "{old:?} is not in {text}");
        self.write("portcullis.toml", &text.replace(old, new));
    }

    /// `reload`, its exit code and answer.
    fn reload(&self, flags: &[&str]) -> (i32, Value) {
        let output = self.cli(&[&["--json", "reload"], flags].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let last = text.lines().last().unwrap_or("null");
        (output.status.code().unwrap(), serde_json::from_str(last).unwrap())
    }

    fn pings(&self) -> bool {
        self.client.attempt(&format!("ping -c 1 -W 1 {SERVER}")).status.success()
    }

    fn setting(&self, name: &str) -> u64 {
        self.json(&["sysctl", name])[name].as_u64().unwrap()
    }

    fn status(&self) -> Value {
        self.json(&["show", "status"])
    }

    /// Waits (bounded) for a condition of the running daemon.
    fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let start = monotonic();
        while !done() {
            let waited = monotonic().saturating_sub(start);
            assert!(waited < Nanos::from_secs(10), "never: {what}\n{}", self.read("stderr"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn keys(changes: &Value) -> Vec<&str> {
    changes.as_array().unwrap().iter().map(|change| change["key"].as_str().unwrap()).collect()
}

/// Reloads on behalf of `key`, and nothing but `changed` has changed.
fn reload_changes(lab: &Lab, key: &str, changed: &[&str]) {
    let (code, answer) = lab.reload(&[]);
    assert_eq!((code, keys(&answer["changed"])), (0, changed.to_vec()), "{key}: {answer}");
    assert_eq!(answer["restart"], json!([]));
}

/// For one live key: changes it in the file, reloads, and sees the daemon change.
fn prove(lab: &Lab, key: &str) {
    let reload = |changed: &[&str]| reload_changes(lab, key, changed);
    match key {
        "policy.rules" => {
            assert!(lab.pings());
            lab.write("closed.v4", CLOSED);
            lab.edit("\"rules.v4\"", "\"closed.v4\"");
            reload(&[key]);
            assert!(!lab.pings());
            // The same file with another text is no other setting, and read again.
            lab.write("closed.v4", OPEN);
            reload(&[]);
            assert!(lab.pings());
        }
        "policy.rules6" => {
            let rules = || lab.json(&["show", "rules", "-6", "--chain", "FORWARD"]);
            assert_eq!(rules()["chains"][0]["rules"], json!([]));
            lab.write("open.v6", OPEN6);
            lab.edit("\"rules.v6\"", "\"open.v6\"");
            reload(&[key]);
            assert_eq!(
                rules()["chains"][0]["rules"][0]["text"],
                "-A FORWARD -p ipv6-icmp -j ACCEPT"
            );
        }
        "policy.sets" => {
            lab.write("sets.save", "create seen hash:ip\nadd seen 192.0.2.1\n");
            lab.edit("[conntrack]", "sets = [\"sets.save\"]\n\n[conntrack]");
            // The tables of TOML end where the next begins.
            reload(&[key]);
            assert!(lab.cli(&["set", "test", "seen", "192.0.2.1"]).status.success());
        }
        "management.allow" => {
            lab.write("deaf.v4", DEAF);
            let before = lab.read("portcullis.toml");
            lab.write("portcullis.toml", &before.replace("closed.v4", "deaf.v4"));
            reload(&["policy.rules"]);
            let answers = || lab.client.attempt("ping -c 1 -W 1 198.18.1.1").status.success();
            assert!(!answers());
            let allow = "[management]\nallow = [\"198.18.1.0/24 icmp\"]\n\n[state]";
            lab.edit("[state]", allow);
            reload(&[key]);
            assert!(answers());
            lab.write("portcullis.toml", &before);
            reload(&["policy.rules", key]);
            assert!(answers());
        }
        _ => prove_beside_policy(lab, key),
    }
}

/// As [`prove`], for the keys that are not about what is let through.
fn prove_beside_policy(lab: &Lab, key: &str) {
    let reload = |changed: &[&str]| reload_changes(lab, key, changed);
    match key {
        "conntrack.max" => {
            lab.edit("max = 4096", "max = 100");
            reload(&[key]);
            assert_eq!(lab.setting("max"), 100);
        }
        "conntrack.settings" => {
            assert_eq!((lab.setting("tcp_loose"), lab.setting("acct")), (0, 0));
            lab.json(&["sysctl", "udp_timeout=77"]);
            lab.edit("{ tcp_loose = 0 }", "{ acct = 1 }");
            reload(&["conntrack.settings.acct", "conntrack.settings.tcp_loose"]);
            assert_eq!((lab.setting("tcp_loose"), lab.setting("acct")), (1, 1));
            // What was changed by hand and is in no file stays; what is in the file does not.
            lab.json(&["sysctl", "acct=0"]);
            reload(&[]);
            assert_eq!((lab.setting("udp_timeout"), lab.setting("acct")), (77, 1));
        }
        "lint" => {
            // Nothing that runs asks for it: `lint` and `check` read the file themselves.
            lab.edit("[state]", "[lint]\naccept-any = \"deny\"\n[state]");
            reload(&["lint.accept-any"]);
        }
        "matrix.file" => {
            lab.write("matrix.toml", MATRIX);
            lab.edit("[state]", "[matrix]\nfile = \"matrix.toml\"\n\n[state]");
            reload(&[key]);
            let passed = || lab.json(&["show", "matrix"])["last"]["passed"] == 1;
            lab.until("it is run against what is in force", passed);
            lab.write("shut.v4", CLOSED);
            let shut = lab.path("shut.v4");
            let refused = lab.cli(&["apply", "--rules", shut.to_str().unwrap()]);
            assert_eq!(refused.status.code(), Some(1), "{refused:?}");
            assert!(lab.pings());
        }
        "matrix.interval" => {
            let shown = || lab.json(&["show", "matrix"]);
            let before = shown();
            assert_eq!(before["interval_s"], 300);
            lab.edit("file = \"matrix.toml\"", "file = \"matrix.toml\"\ninterval = 1");
            reload(&[key]);
            lab.until("it is run again", || shown()["last"]["at"] != before["last"]["at"]);
        }
        "state.interval" => {
            let saves = || lab.status()["state"]["saves"].as_u64().unwrap();
            let before = saves();
            lab.edit("interval = 3600", "interval = 1");
            reload(&[key]);
            assert_eq!(lab.status()["state"]["every_ms"], 1000);
            lab.until("a save", || saves() > before);
        }
        "log.file" => {
            lab.edit("file = \"log\"", "file = \"other-log\"");
            reload(&[key]);
            lab.until("the other file", || {
                lab.status()["log"]["file"] == json!(lab.path("other-log").to_str().unwrap())
            });
            let before = lab.read("log");
            assert!(lab.pings());
            lab.until("a line", || lab.read("other-log").contains("ping: "));
            assert_eq!(lab.read("log"), before);
        }
        other => panic!("nothing proves that {other} changes live"),
    }
}

#[test]
fn every_live_key_changes_the_running_daemon() {
    let lab = Lab::started();
    for key in KEYS.iter().filter(|key| key.effect == Effect::Live) {
        prove(&lab, key.name);
    }
    // It is the same process, and nothing was complained about.
    let shown = lab.json(&["config", "show"]);
    assert_eq!(shown["pending"], Value::Null);
    let stderr = lab.read("stderr");
    assert!(!stderr.contains("ERROR"), "{stderr}");
}

/// A text for every key that needs a restart, other than [`CONFIG`]'s.
const RESTARTS: &str = r#"ports = ["g0"]
mode = "bridge"
bridge = [["g0", "g1"]]
workers = 1
[policy]
rules = "rules.v4"
rules6 = "rules.v6"
counters = true
[xdp]
attach = "generic"
zero-copy = "off"
blocklist = 1024
[engine]
plans = false
[host]
road = "off"
[failure]
on-failure = "closed"
pin-dir = "pins"
watchdog = 500
[conntrack]
max = 8192
settings = { tcp_loose = 0, expect_max = 1000000 }
timeouts = { patient = { protocol = "tcp" } }
[state]
file = "none"
interval = 3600
[history]
dir = "history"
keep = 18
days = 19
[change]
require = ["reason"]
probes = ["192.0.2.1:443"]
[log]
file = "log"
json = "log.json"
rate = 7
burst = 8
budget = 17
rotate-mib = 9
rotate-hours = 10
keep = 11
top = 12
trace-rate = 13
[nflog]
dir = "captures"
files = "one"
link = "raw"
rate = 14
rotate-mib = 15
keep = 16
[[pressure]]
name = "siege"
enter = { cpu = 90 }
timeouts = { udp_timeout = 5 }
[[alert]]
url = "http://192.0.2.1/"
events = ["rollback"]
[metrics]
listen = "127.0.0.1:9649"
rules = 20
[control]
socket = "other.sock"
group = 5
[service]
user = "nobody"
seccomp = "log"
"#;

#[test]
fn what_needs_a_restart_is_listed_and_stays() {
    let lab = Lab::started();
    let before = lab.json(&["config", "show"]);
    let mut text = RESTARTS.replace("ports = [\"g0\"]", "ports = [\"g1\", \"g0\"]");
    text = text.replace("3600", "1800");
    lab.write("portcullis.toml", &text);
    let mut wanted: BTreeSet<&str> = KEYS
        .iter()
        .filter(|key| key.effect == Effect::Restart)
        .map(|key| key.name)
        .filter(|key| *key != "conntrack.timeouts")
        .collect();
    wanted.extend(["conntrack.timeouts.patient", "conntrack.settings.expect_max", "conntrack.max"]);
    for flags in [&["--dry-run"][..], &[]] {
        let (code, answer) = lab.reload(flags);
        assert_eq!(code, 8, "{answer}");
        let found: BTreeSet<&str> = keys(&answer["restart"]).into_iter().collect();
        assert_eq!(found, wanted, "{answer}");
        assert_eq!(keys(&answer["changed"]), ["state.interval"]);
        let entries = answer["restart"].as_array().unwrap();
        let of = |key: &str| entries.iter().find(|it| it["key"] == key).unwrap();
        assert_eq!(of("mode"), &json!({"key": "mode", "old": "routed", "new": "bridge"}));
        assert_eq!(of("workers"), &json!({"key": "workers", "new": 1}));
        let why = of("conntrack.max")["why"].as_str().unwrap();
        assert!(why.contains("must be 1 to 4096, not 8192"), "{why}");
    }
    let after = lab.json(&["config", "show"]);
    assert_eq!(after["pending"].as_array().unwrap().len(), wanted.len());
    let value = |shown: &Value, key: &str| -> Value {
        let mut entries = shown["entries"].as_array().unwrap().iter();
        entries.find(|it| it["key"] == key).map_or(Value::Null, |it| it["value"].clone())
    };
    for key in &wanted {
        assert_eq!(value(&after, key), value(&before, key), "{key}");
    }
    assert_eq!(value(&after, "state.interval"), 1800);
    assert_eq!((lab.setting("max"), lab.setting("expect_max")), (4096, 4096));
    // Undone, there is nothing to wait for any more.
    lab.write("portcullis.toml", CONFIG);
    let (code, answer) = lab.reload(&[]);
    assert_eq!((code, &answer["restart"]), (0, &json!([])));
    assert_eq!(lab.json(&["config", "show"])["pending"], Value::Null);
}

#[test]
fn an_erroneous_file_changes_nothing_and_a_rehearsal_neither() {
    let lab = Lab::started();
    let before = lab.json(&["config", "show"]);
    let generation = || lab.json(&["show", "stats"])["generation"].as_u64().unwrap();
    let refused = |what: &str| -> String {
        for flags in [&["--dry-run"][..], &[]] {
            let (code, answer) = lab.reload(flags);
            assert_eq!(code, 1, "{what}: {answer}");
        }
        assert_eq!(lab.json(&["config", "show"]), before, "{what}");
        assert_eq!((generation(), lab.setting("tcp_loose")), (1, 0), "{what}");
        let output = lab.cli(&["reload"]);
        assert!(output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let edited = |edits: &[(&str, &str)]| {
        lab.write("portcullis.toml", CONFIG);
        edits.iter().for_each(|(old, new)| lab.edit(old, new));
    };
    // Good changes beside a bad one, in each place where something can be bad.
    let good = ("tcp_loose = 0", "tcp_loose = 1");
    edited(&[good, ("interval = 3600", "intervall = 3600\nfile2 = 1")]);
    let said = refused("keys");
    assert!(
        said.contains("portcullis.toml:13:1: error: there is no key `state.intervall`"),
        "{said}"
    );
    assert!(said.contains("did you mean `state.interval`?"), "{said}");
    assert!(said.contains("portcullis.toml:14:1"), "{said}");
    edited(&[good, ("interval = 3600", "interval = = 2")]);
    assert!(refused("syntax").contains("portcullis.toml:13:12"));
    edited(&[good, ("ports", "mode = \"bridge\"\nbridge = [[\"g0\", \"g7\"]]\nports")]);
    assert!(refused("contradiction").contains("portcullis.toml:2:10: error: g7 is no port"));
    edited(&[good]);
    lab.write("rules.v4", "*filter\n-A FORWARD -j ACEPT\nCOMMIT\n");
    assert!(refused("policy").contains("rules.v4:2:"));
    lab.write("rules.v4", OPEN);
    edited(&[good, ("rules.v6", "missing.v6")]);
    assert!(refused("no policy").contains("missing.v6"));
    std::fs::remove_file(lab.path("portcullis.toml")).unwrap();
    assert!(refused("no file").contains("cannot be read"));

    // A rehearsal says what would be, and leaves it.
    edited(&[good, ("file = \"log\"", "file = \"unmade/log\"")]);
    let (code, answer) = lab.reload(&["--dry-run"]);
    assert_eq!(code, 1, "a log file that cannot be: {answer}");
    edited(&[good, ("file = \"log\"", "file = \"new-log\""), ("rules.v6", "rules.v4")]);
    std::fs::remove_file(lab.path("log")).unwrap_or_default();
    let (code, answer) = lab.reload(&["--dry-run"]);
    assert_eq!((code, answer["policy"].clone()), (0, Value::Null), "{answer}");
    let changed = ["conntrack.settings.tcp_loose", "log.file", "policy.rules6"];
    let found: BTreeSet<&str> = keys(&answer["changed"]).into_iter().collect();
    assert_eq!(found, BTreeSet::from(changed));
    assert_eq!((generation(), lab.setting("tcp_loose")), (1, 0));
    assert_eq!(lab.json(&["config", "show"]), before);
    assert!(!lab.path("new-log").exists());
    // And then it is.
    let (code, answer) = lab.reload(&[]);
    assert_eq!((code, &answer["policy"]["generation"]), (0, &json!(2)), "{answer}");
    assert_eq!((generation(), lab.setting("tcp_loose")), (2, 1));
}

#[test]
fn a_reload_does_not_cut_the_session_that_it_comes_from_unless_forced() {
    let lab = Lab::started();
    lab.write("rules.v4", DEAF);
    let allow = "[management]\nallow = [\"203.0.113.0/24 tcp 22\"]\n\n[state]";
    lab.edit("[state]", allow);
    let session = ["--session", "198.18.1.2 50000 198.18.1.1 22"];
    let (code, answer) = lab.reload(&session);
    assert_eq!(code, 1, "{answer}");
    let generation = || lab.json(&["show", "stats"])["generation"].as_u64().unwrap();
    let entries = || lab.json(&["show", "management"])["entries"].as_array().unwrap().len();
    assert_eq!((generation(), entries()), (1, 0), "all of it is as it was");
    let (code, answer) = lab.reload(&[&session[..], &["--force"]].concat());
    assert_eq!((code, &answer["policy"]["session"]["outcome"]), (0, &json!("cut")), "{answer}");
    assert_eq!((generation(), entries()), (2, 1));
    // A list that lets the session in is in force before the policy is judged.
    lab.edit("203.0.113.0/24", "198.18.1.0/24");
    let (code, answer) = lab.reload(&session);
    assert_eq!((code, keys(&answer["changed"])), (0, vec!["management.allow"]), "{answer}");
}

#[test]
fn a_list_of_managers_does_not_lose_the_session_to_a_policy_that_stays() {
    let mut lab = Lab::new();
    lab.edit("rules = \"rules.v4\"\n", "");
    lab.edit("[state]", "[management]\nallow = [\"198.18.1.0/24 tcp 22\"]\n\n[state]");
    lab.start(&[]);
    lab.write("deaf.v4", DEAF);
    let (deaf, session) = (lab.path("deaf.v4"), "198.18.1.2 50000 198.18.1.1 22");
    let applied = lab.json(&["apply", "--rules", deaf.to_str().unwrap(), "--session", session]);
    assert_eq!(applied["session"]["outcome"], "management", "{applied}");
    lab.edit("198.18.1.0/24", "203.0.113.0/24");
    let entry = || lab.json(&["show", "management"])["entries"][0]["entry"].clone();
    let (code, answer) = lab.reload(&["--session", session]);
    assert_eq!((code, entry()), (1, json!("198.18.1.0/24 tcp 22")), "{answer}");
    let (code, answer) = lab.reload(&["--session", session, "--force"]);
    assert_eq!((code, entry()), (0, json!("203.0.113.0/24 tcp 22")), "{answer}");
}

#[test]
fn sighup_reloads_too_and_flags_go_on_beating_the_file() {
    let mut lab = Lab::new();
    lab.start(&["--sysctl", "acct=1", "--workers", "1"]);
    lab.edit("{ tcp_loose = 0 }", "{ tcp_loose = 1, acct = 0 }");
    lab.edit("ports", "workers = 2\nports");
    let pid = lab.daemon.as_ref().unwrap().id();
    netns::shell(&format!("kill -HUP {pid}"));
    lab.until("tcp_loose", || lab.setting("tcp_loose") == 1);
    assert_eq!(lab.setting("acct"), 1);
    let shown = lab.json(&["config", "show"]);
    let entries = shown["entries"].as_array().unwrap();
    let of = |key: &str| entries.iter().find(|it| it["key"] == key).unwrap();
    assert_eq!(of("conntrack.settings.acct")["origin"], "--sysctl");
    assert_eq!(
        (&of("workers")["origin"], &of("workers")["value"]),
        (&json!("--workers"), &json!(1))
    );
    let origin = of("conntrack.settings.tcp_loose")["origin"].as_str().unwrap();
    assert!(origin.ends_with("portcullis.toml:10"), "{origin}");
    // What is shown is a file that says the same.
    let text = lab.cli(&["config", "show"]);
    lab.write("shown.toml", &String::from_utf8(text.stdout).unwrap());
    let again = Command::new(BINARY)
        .args(["--json", "config", "show", "--file"])
        .arg(lab.path("shown.toml"))
        .output()
        .unwrap();
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    let plain = |shown: &Value| -> Vec<(Value, Value)> {
        let entries = shown["entries"].as_array().unwrap().iter();
        entries.map(|it| (it["key"].clone(), it["value"].clone())).collect()
    };
    assert_eq!(plain(&again), plain(&shown));
    // A mistake is in the log with its place.
    lab.edit("workers", "wokers");
    netns::shell(&format!("kill -HUP {pid}"));
    lab.until("a complaint", || {
        lab.read("stderr").contains("portcullis.toml:1:1: there is no key")
    });
    assert!(lab.pings());
}

#[test]
fn a_log_file_that_cannot_be_opened_does_not_keep_the_daemon_from_protecting() {
    let mut lab = Lab::new();
    let disk = lab.path("disk");
    std::fs::create_dir(&disk).unwrap();
    netns::shell(&format!("mount -t tmpfs -o ro,size=32k tmpfs {}", disk.display()));
    lab.edit("file = \"log\"", "file = \"disk/log\"");
    lab.start(&[]);
    assert!(lab.pings());
    let log = || lab.status()["log"].clone();
    lab.until("a diverted line", || log()["diverted"] == 2);
    let why = log()["error"].as_str().unwrap().to_owned();
    assert!(why.contains("Read-only file system"), "{why}");
    let stderr = lab.read("stderr");
    assert!(stderr.contains("ERROR log file") && stderr.contains("ping: IN=g0"), "{stderr}");
    let (code, _) = lab.reload(&[]);
    assert_eq!(code, 0, "that the file is in trouble does not stand in a reload's way");
    // In the daemon's own name space of mounts, which `ip netns exec` makes.
    let pid = lab.daemon.as_ref().unwrap().id();
    netns::shell(&format!("nsenter -t {pid} -m mount -o remount,rw {}", disk.display()));
    netns::shell(&format!("mount -o remount,rw {}", disk.display()));
    lab.until("the file", || log()["error"].is_null());
    assert!(lab.pings());
    lab.until("a line in the file", || lab.read("disk/log").contains("ping: IN=g0"));
    assert!(lab.read("disk/log").contains("portcullis: 2 lines are on standard error"));
    // Full: lines are lost and counted, packets are not.
    netns::shell(&format!(
        "head -c 40000 /dev/zero >{}/filler 2>/dev/null || true",
        disk.display()
    ));
    lab.client.run(&format!("ping -q -i 0.002 -c 60 {SERVER}"));
    lab.until("losses", || log()["lost"].as_u64().unwrap() > 0);
    assert!(log()["error"].as_str().unwrap().contains("No space left"));
    std::fs::remove_file(disk.join("filler")).unwrap();
    lab.until("the file again", || log()["error"].is_null());
    let lost = log()["lost"].as_u64().unwrap();
    let said = format!("portcullis: {lost} lines lost");
    assert!(lab.read("disk/log").contains(&said), "{said}: {}", lab.read("disk/log"));
    assert_eq!(lab.read("stderr").matches("No space left").count(), 1);
}

#[test]
fn a_start_with_a_bad_file_says_everything_that_is_wrong() {
    let lab = Lab::new();
    lab.write("portcullis.toml", "prots = []\n[log]\nfile = 3\n");
    let output = lab.command(&[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("portcullis.toml:1:1") && said.contains("did you mean `ports`?"));
    assert!(said.contains("portcullis.toml:3:8") && said.contains("        ^\n"), "{said}");
    lab.write("portcullis.toml", "");
    let output = lab.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
