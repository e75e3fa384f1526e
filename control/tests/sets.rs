//! Sets in the running daemon: commands, files, reloads and restarts, on the real binary
//! between network namespaces. Needs root.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

mod netns;
use netns::{Directory, Namespace, Process, Row};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");

const RULES: &str = "*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -m set --match-set blocked src -j DROP
COMMIT
";
const SETS: &str = "create blocked hash:net timeout 0 comment
add blocked 203.0.113.0/24 comment \"a network\"
create others hash:ip
create all list:set
add all others
";

struct Lab {
    client: Namespace,
    gateway: Namespace,
    _server: Namespace,
    directory: Directory,
    daemon: Option<Process>,
}

impl Lab {
    fn new() -> Self {
        let Row { client, gateway, server, directory } = Row::routed("sets");
        std::fs::create_dir_all(directory.join("sets")).unwrap();
        let lab = Self { client, gateway, _server: server, directory, daemon: None };
        lab.write("rules.v4", RULES);
        lab.write("sets/10-blocked.save", SETS);
        lab.write(
            "portcullis.toml",
            "ports = [\"g0\", \"g1\"]\n[policy]\nrules = \"rules.v4\"\nsets = [\"sets\"]\n\
             [state]\nfile = \"state/conntrack\"\ninterval = 3600\n\
             [control]\nsocket = \"control.sock\"\n[failure]\non-failure = \"open\"\n",
        );
        std::os::unix::fs::symlink(BINARY, lab.path("ipset")).unwrap();
        lab
    }

    fn started() -> Self {
        let mut lab = Self::new();
        lab.start();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn stderr(&self) -> String {
        std::fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// Starts the daemon and waits until it says that it is ready.
    fn start(&mut self) {
        let errors = std::fs::File::create(self.path("stderr")).unwrap();
        let mut command = self.gateway.command(BINARY);
        command.args(["run", "--config"]).arg(self.path("portcullis.toml"));
        let (process, line) = Process::speaking(command.stderr(errors));
        self.daemon = Some(process);
        assert!(line.starts_with("ready: "), "{line}{}", self.stderr());
    }

    fn stop(&mut self) {
        assert!(self.cli(&["stop"]).status.success());
        let mut daemon = self.daemon.take().unwrap();
        assert!(daemon.wait().unwrap().success(), "{}", self.stderr());
    }

    fn cli(&self, arguments: &[&str]) -> Output {
        let socket = self.path("control.sock");
        Command::new(BINARY).args(arguments).arg("--socket").arg(socket).output().unwrap()
    }

    /// `portcullis set`, which must succeed.
    fn set(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let output = self.cli(&[&["set"], &words[..]].concat());
        assert!(output.status.success(), "{line}: {output:?}\n{}", self.stderr());
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same, which must fail; what it says.
    fn refused(&self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let output = self.cli(&[&["set"], &words[..]].concat());
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// As the `ipset` tool, with a text on its standard input.
    fn tool(&self, line: &str, input: &str) -> Output {
        let mut child = Command::new(self.path("ipset"))
            .args(line.split(' '))
            .arg("--socket")
            .arg(self.path("control.sock"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    fn pings(&self) -> bool {
        self.client.attempt("ping -c 1 -W 1 198.18.2.2").status.success()
    }

    /// Elements of a set, sorted.
    fn elements(&self, name: &str) -> Vec<String> {
        let listed = self.set(&format!("list {name} -s"));
        let (_, members) = listed.split_once("Members:\n").unwrap();
        members.lines().map(str::to_owned).collect()
    }
}

#[test]
fn elements_change_what_packets_meet_at_once() {
    let lab = Lab::started();
    assert!(lab.pings());
    lab.set("add blocked 198.18.1.0/24");
    assert!(!lab.pings());
    assert_eq!(lab.set("test blocked 198.18.1.77"), "");
    assert!(lab.refused("test blocked 192.0.2.1").contains("is NOT in set blocked"));
    // An exception within it.
    lab.set("add blocked 198.18.1.2 nomatch");
    assert!(lab.pings());
    lab.set("del blocked 198.18.1.2");
    assert!(!lab.pings());
    lab.set("flush blocked");
    assert!(lab.pings());
    assert_eq!(lab.elements("blocked"), [""; 0]);

    // A whole set changes places in one step, under a rule that stays.
    lab.set("create new hash:net timeout 0 comment");
    lab.set("add new 198.18.1.0/28 timeout 600");
    lab.set("swap new blocked");
    assert!(!lab.pings());
    let left = lab.elements("blocked");
    assert!(left[0].starts_with("198.18.1.0/28 timeout "), "{left:?}");
    lab.set("destroy new");

    let uses = lab.set("where-used blocked");
    assert_eq!(
        uses,
        "IPv4 filter rule 1 (line 3): -A FORWARD -m set --match-set blocked src -j DROP\n"
    );
    assert_eq!(lab.set("where-used others"), "list:set all\n");
    for line in ["destroy blocked", "rename blocked other", "destroy others"] {
        assert!(lab.refused(line).contains("in use"), "{line}");
    }
    // The caret stands under what is wrong.
    let said = lab.refused("add blocked 198.18.1.0/33");
    assert!(said.contains("command:1:24: error:") && said.contains("up to 32"), "{said}");
    let listed: Value = {
        let output = lab.cli(&["--json", "set", "list", "-t"]);
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect()
    };
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|set| &set["name"]).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    let blocked = listed.as_array().unwrap().iter().find(|set| set["name"] == "blocked").unwrap();
    assert_eq!(
        (&blocked["kind"], &blocked["references"], &blocked["entries"]),
        (&json!("hash:net"), &json!(1), &json!(1))
    );
}

#[test]
fn the_binary_is_ipset_by_that_name() {
    let lab = Lab::started();
    let ok = |line: &str, input: &str| {
        let output = lab.tool(line, input);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    ok("create a hash:ip,port -exist", "");
    ok("-! create a hash:ip,port", "");
    ok("add a 192.0.2.1,udp:53-54", "");
    let again = lab.tool("add a 192.0.2.1,udp:53", "");
    let said = String::from_utf8(again.stderr).unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(said.starts_with("ipset v7.17 (portcullis): the element is in the set"), "{said}");
    ok("-exist add a 192.0.2.1,udp:53", "");
    assert_eq!(
        ok("save a -s", ""),
        "create a hash:ip,port family inet hashsize 1024 maxelem 65536 bucketsize 12\n\
         add a 192.0.2.1,udp:53\nadd a 192.0.2.1,udp:54\n"
    );
    assert_eq!(ok("list a -o save -s", ""), ok("save a -s", ""));
    assert_eq!(ok("-n list", "").lines().count(), 4);
    let terse = ok("list a -t", "");
    assert!(terse.contains("Number of entries: 2") && !terse.contains("Members"), "{terse}");
    assert_eq!(lab.tool("list -o xml", "").status.code(), Some(2));

    // All of a file, or none of it.
    let bad = lab.tool("restore", "create b hash:ip\nadd b 192.0.2.1\nflush a\nadd b 192.0.2.1\n");
    let said = String::from_utf8(bad.stderr).unwrap();
    assert!(said.contains("Error in line 4: the element is in the set"), "{said}");
    assert!(!ok("-n list", "").contains("b\n"), "half a file is in force");
    assert_eq!(lab.elements("a").len(), 2);
    let good = "create b hash:ip\nadd b 192.0.2.1\nadd a 192.0.2.9,tcp:1\nswap b others\n\
                destroy b\n";
    ok("restore", good);
    assert_eq!(lab.elements("others"), ["192.0.2.1"]);
    assert_eq!(lab.elements("a").len(), 3);
    // What it saves it takes back.
    let saved = ok("save -s", "");
    ok("-exist restore", &saved);
    assert_eq!(ok("save -s", ""), saved);
}

#[test]
fn sets_outlive_reloads_and_restarts_until_their_files_say_otherwise() {
    let mut lab = Lab::started();
    lab.set("add blocked 198.18.1.0/24 timeout 500");
    lab.set("add others 192.0.2.7");
    lab.set("create mine hash:ip");
    lab.set("add mine 192.0.2.8");
    let reload = |lab: &Lab, wanted: i32| {
        let output = lab.cli(&["reload"]);
        assert_eq!(output.status.code(), Some(wanted), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    reload(&lab, 0);
    assert!(!lab.pings(), "a reload of the same files has emptied a set");
    assert_eq!(lab.elements("blocked").len(), 2);

    // A restart is the same: what passed comes off the timeouts.
    lab.stop();
    lab.start();
    assert!(!lab.pings());
    assert_eq!((lab.elements("blocked").len(), lab.elements("others").len()), (2, 1));
    assert_eq!(lab.elements("mine"), ["192.0.2.8"]);
    assert_eq!(lab.set("where-used others"), "list:set all\n");

    // A file that is wrong changes nothing, and neither do rules beside it.
    lab.write("sets/20-more.save", "create more hash:ip\nadd more 192.0.2.300\n");
    lab.write("rules.v4", &RULES.replace("blocked src", "more src"));
    let said = reload(&lab, 1);
    assert!(said.contains("20-more.save:2:10: error:"), "{said}");
    assert!(!lab.pings());
    // Rules that are wrong do not let the sets beside them through.
    lab.write("sets/20-more.save", "create more hash:ip\nadd more 198.18.1.2\n");
    lab.write("rules.v4", &RULES.replace("blocked src", "none src"));
    reload(&lab, 1);
    assert!(!lab.cli(&["set", "list", "more"]).status.success(), "half a reload is in force");

    // Another text of one set replaces that set, and no other.
    lab.write("rules.v4", RULES);
    lab.write("sets/10-blocked.save", &SETS.replace("203.0.113.0/24", "203.0.113.0/25"));
    reload(&lab, 0);
    assert!(lab.pings());
    assert_eq!(lab.elements("blocked"), ["203.0.113.0/25 timeout 0 comment \"a network\""]);
    assert_eq!(lab.elements("others"), ["192.0.2.7"]);

    // What is damaged is refused whole, and said.
    lab.stop();
    let path = lab.path("state/conntrack.sets");
    let mut saved = std::fs::read(&path).unwrap();
    let middle = saved.len() / 2;
    saved[middle] ^= 1;
    std::fs::write(&path, saved).unwrap();
    lab.start();
    assert!(lab.stderr().contains("it is damaged"), "{}", lab.stderr());
    assert!(!lab.cli(&["set", "list", "mine"]).status.success());
    assert_eq!(lab.elements("others"), [""; 0]);
}

#[test]
fn rules_and_sets_are_applied_together() {
    let lab = Lab::started();
    lab.write("new.save", "create late hash:ip\nadd late 198.18.1.2\n");
    lab.write("new.v4", &RULES.replace("blocked src", "late src"));
    let path = |name: &str| lab.path(name).display().to_string();
    let rules = path("new.v4");
    let without = lab.cli(&["apply", "--rules", &rules]);
    assert_eq!(without.status.code(), Some(1), "{without:?}");
    assert!(String::from_utf8_lossy(&without.stderr).contains("no set called late"));
    assert!(lab.pings());
    let sets = path("new.save");
    let with = lab.cli(&["apply", "--rules", &rules, "--sets", &sets]);
    assert!(with.status.success(), "{with:?}");
    assert!(!lab.pings());
    // Given again, the file is the set.
    lab.set("flush late");
    assert!(lab.pings());
    assert!(lab.cli(&["apply", "--sets", &sets]).status.success());
    assert!(!lab.pings());
}

/// A listing is many small answers: nothing waits for it, and nothing is missing.
#[test]
fn a_large_set_is_listed_page_by_page() {
    let lab = Lab::started();
    let mut text = String::from("create large hash:ip maxelem 200000\n");
    for n in 0..60_000u32 {
        text += &format!("add large {}\n", std::net::Ipv4Addr::from(0x0a00_0001 + n));
    }
    let restored = lab.tool("restore", &text);
    assert!(restored.status.success(), "{:?}", String::from_utf8_lossy(&restored.stderr));
    let listed = lab.set("list large");
    assert!(listed.contains("Number of entries: 60000"), "{}", &listed[..300]);
    let members: std::collections::BTreeSet<&str> =
        listed.split_once("Members:\n").unwrap().1.lines().collect();
    assert_eq!(members.len(), 60_000);
}
