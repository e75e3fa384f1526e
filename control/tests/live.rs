//! What a running firewall shows of itself: live traces and captures of real traffic between
//! network namespaces. Needs root, tcpdump, tshark and tmux.

#[allow(dead_code, reason = "shared with the story")]
#[path = "story/lab.rs"]
mod lab;
mod netns;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use lab::{Lab, Talk};
use serde_json::Value;

const RULES: &str = "*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --dport 8080 -j DNAT --to-destination 198.18.2.2:5001
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:web - [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -p icmp -j ACCEPT
-A FORWARD -p tcp -j web
-A web -p tcp -m tcp --dport 5001 -j ACCEPT
-A web -p tcp -m tcp --dport 6001 -j REJECT --reject-with tcp-reset
COMMIT
";

/// A command that follows packets; killed when dropped.
struct Following(Child, Option<BufReader<ChildStderr>>);

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Following {
    fn begin(lab: &Lab, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(arguments).arg("--socket").arg(lab.path("control.sock"));
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It says so, or why not, or ends: nothing to wait for without bound.
        let mut errors = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        let following = Self(process, Some(errors));
        assert_eq!(line, "listening\n", "{arguments:?}");
        following
    }
    /// What it printed, once it has ended by itself: its bounds are part of the arguments.
    fn end(mut self) -> (String, String) {
        let (mut out, mut errors) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        let mut rest = self.1.take().unwrap();
        rest.read_to_string(&mut errors).unwrap();
        assert!(self.0.wait().unwrap().success(), "{out}{errors}");
        (out, errors)
    }
}

/// A trace of `filter` while `traffic` runs.
fn traced(lab: &Lab, filter: &str, count: u32, traffic: impl FnOnce()) -> Vec<Value> {
    let count = count.to_string();
    let words = ["--json", "trace", "--for", "6s", "--count", &count, filter];
    let following = Following::begin(lab, &words);
    traffic();
    let (out, _) = following.end();
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn port_of(lab: &Lab, port: u16) {
    let line = format!("timeout 1 bash -c '</dev/tcp/198.18.2.2/{port}'");
    lab.client.attempt(&line);
}

fn chains(packet: &Value) -> Vec<String> {
    let steps = packet["path"].as_array().unwrap().iter();
    let place = |step: &Value| {
        let rule = step["rule"].as_u64().map_or("policy".to_owned(), |rule| rule.to_string());
        format!("{}:{}:{rule}", step["table"].as_str().unwrap(), step["chain"].as_str().unwrap())
    };
    steps.map(place).collect()
}

#[test]
fn a_trace_tells_the_way_of_live_packets_whole() {
    let mut lab = Lab::new(RULES);
    lab.start();
    // A new connection, translated.
    let mut talk = None;
    let packets = traced(&lab, "tcp port 8080 and in g0", 2, || {
        talk = Some(Talk::through_to(&lab, 5001, 8080));
    });
    let first = &packets[0];
    assert_eq!((&first["state"], &first["verdict"]), (&"NEW".into(), &"accept".into()), "{first}");
    assert_eq!(
        chains(first),
        ["nat:PREROUTING:1", "filter:FORWARD:3", "filter:web:1", "nat:POSTROUTING:policy"],
        "{first}"
    );
    assert_eq!(first["path"][0]["line"], 3);
    assert_eq!(first["decided"], 2);
    assert_eq!(first["rewritten"][0], "dst 198.18.2.2:8080 -> 198.18.2.2:5001");
    assert_eq!((&first["input"], &first["output"]), (&"g0".into(), &"g1".into()));
    assert_eq!(first["connection"]["reply"]["sport"], 5001);
    assert_eq!(packets[1]["state"], "ESTABLISHED");
    // Established packets follow plans; traced, they show their rules, and count once.
    let mut talk = talk.unwrap();
    (0..4).for_each(|_| assert!(talk.answers(Duration::from_secs(2))));
    let accepted = || {
        let rules = lab.json(&["show", "rules", "--chain", "FORWARD"]);
        rules["chains"][0]["rules"][0]["packets"].as_u64().unwrap()
    };
    let before = accepted();
    let packets = traced(&lab, "in g1 and src port 5001", 2, || {
        (0..4).for_each(|_| assert!(talk.answers(Duration::from_secs(2))));
    });
    assert_eq!(chains(&packets[0]), ["filter:FORWARD:1"], "{}", packets[0]);
    assert_eq!(packets[0]["rewritten"][0], "src 198.18.2.2:5001 -> 198.18.2.2:8080");
    assert!(accepted() >= before + 8);
    // Refused by a rule, by the policy, and what was answered.
    let packets = traced(&lab, "src host 198.18.1.2 and dst port 6001-6002", 2, || {
        port_of(&lab, 6001);
        port_of(&lab, 6002);
    });
    let [rejected, dropped] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!((&rejected["verdict"], &rejected["reason"]), (&"reject".into(), &"reject".into()));
    assert!(rejected["answer"].as_str().unwrap().contains("RST"), "{rejected}");
    assert_eq!(rejected["path"][rejected["decided"].as_u64().unwrap() as usize]["rule"], 2);
    assert_eq!((&dropped["verdict"], &dropped["reason"]), (&"drop".into(), &"chain_policy".into()));
    assert_eq!(dropped["path"][2]["text"], "policy DROP", "{dropped}");
    assert!(lab.exit(&["stop"]) == 0);
}

#[test]
fn a_trace_is_bounded_and_ends_with_its_client() {
    let mut lab = Lab::new(RULES);
    lab.start();
    let (code, said) = lab.refused(&["trace", "tcp", "prot", "443"]);
    assert!(code == 1 && said.contains("column 5") && said.contains("    ^"), "{said}");
    let (code, said) = lab.refused(&["trace", "in", "eth7"]);
    assert!(code == 1 && said.contains("no port of this firewall"), "{said}");
    let following = Following::begin(&lab, &["trace", "--for", "1h", "any"]);
    let (code, said) = lab.refused(&["trace", "any"]);
    assert!(code == 1 && said.contains("another trace is under way"), "{said}");
    drop(following);
    // Its end is noticed, and the next may begin.
    lab.until("the trace of the dead client ends", || {
        lab.exit(&["trace", "--for", "1ms", "any"]) == 0
    });
    // Beyond the rate packets are counted, and pass all the same.
    let following =
        Following::begin(&lab, &["--json", "trace", "--for", "3s", "--rate", "2", "icmp"]);
    let line = "ping -q -c 50 -i 0.01 198.18.2.2";
    assert!(lab.client.run(line).contains(" 50 received"));
    let (out, errors) = following.end();
    let sum: Value = serde_json::from_str(errors.lines().last().unwrap()).unwrap();
    let sum = &sum["summary"];
    let (told, limited) = (out.lines().count() as u64, sum["limited"].as_u64().unwrap());
    assert!(told < 20 && sum["packets"] == told && sum["matched"] == 100, "{errors}");
    assert_eq!(told + limited, 100);
}

#[test]
fn a_capture_is_read_by_the_usual_tools() {
    let mut lab = Lab::new(RULES);
    lab.start();
    let file = lab.file("out.pcapng");
    let begin = |extra: &[&str]| {
        let words = ["capture", "--out", &file, "--for", "2s", "icmp or tcp port 6002"];
        Following::begin(&lab, &[&words[..], extra].concat())
    };
    let following = begin(&[]);
    assert!(lab.pings());
    port_of(&lab, 6002);
    let (_, errors) = following.end();
    assert!(errors.contains("packet(s)"), "{errors}");
    let tool = |line: &str| {
        let output = Command::new("sh").args(["-c", line]).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let dump = tool(&format!("tcpdump -nr {file} 2>/dev/null"));
    assert!(dump.contains("ICMP echo request") && dump.contains(".6002: Flags [S]"), "{dump}");
    let fields = "-e frame.interface_name -e frame.packet_flags_direction -e frame.comment";
    let told = tool(&format!("tshark -r {file} -T fields {fields} 2>/dev/null"));
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("g0\t"), "{told}");
    assert!(
        lines[0].contains("ACCEPT; by filter FORWARD rule 2 (line 10): -p icmp -j ACCEPT; ct=NEW"),
        "{told}"
    );
    assert!(lines[1].starts_with("g1\t") && lines[1].contains("ct=ESTABLISHED"), "{told}");
    assert!(
        told.contains("DROP reason=chain_policy; by filter FORWARD policy: policy DROP"),
        "{told}"
    );
    assert!(tool(&format!("capinfos -M {file}")).contains("Number of packets:"));
    // What is there is not written over by accident.
    let (code, said) = lab.refused(&["capture", "--out", &file, "any"]);
    assert!(code == 4 && said.contains("--force"), "{said}");
    let (_, errors) = begin(&["--force", "--count", "1"]).end();
    assert!(errors.contains("0 packet(s)") && errors.contains("nothing matched"), "{errors}");
}

/// `top` in a terminal of its own, which ends with it, and after two minutes whatever happens.
struct Screen(String);

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-S", &self.0, "kill-server"]).output();
    }
}

impl Screen {
    fn open(lab: &Lab, name: &str, size: (u32, u32)) -> Self {
        let terminal = lab.file(name);
        let (width, height) = size;
        let socket = lab.file("control.sock");
        let program = env!("CARGO_BIN_EXE_portcullis");
        let line = format!(
            "timeout --foreground 120 {program} top --interval 200ms --socket {socket}; \
             echo ended=$?; exec timeout --foreground 120 cat"
        );
        let output = Command::new("tmux")
            .args(["-f", "/dev/null", "-u", "-S", &terminal, "new-session", "-d"])
            .args(["-x", &width.to_string(), "-y", &height.to_string(), &line])
            .env_remove("TMUX")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(terminal)
    }
    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux").args(["-S", &self.0]).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
    fn keys(&self, keys: &str) {
        self.tmux(&["send-keys", keys]);
    }
    fn shows(&self, lab: &Lab, part: &str) {
        lab.until(part, || self.tmux(&["capture-pane", "-p"]).contains(part));
    }
}

#[test]
fn top_shows_traffic_and_leaves_the_terminal_as_it_was() {
    let mut lab = Lab::new(RULES);
    lab.start();
    let flood = "ping -q -i 0.01 -w 60 198.18.2.2";
    let _ping = Following(lab.client.command("sh").args(["-c", flood]).spawn().unwrap(), None);
    let screen = Screen::open(&lab, "wide", (80, 24));
    screen.shows(&lab, "PORT");
    screen.shows(&lab, "g0             up");
    screen.shows(&lab, "conntrack 1/");
    screen.keys("2");
    screen.shows(&lab, "v4 filter FORWARD 1");
    screen.keys("3");
    screen.shows(&lab, "198.18.1.2");
    screen.keys("h");
    screen.shows(&lab, "q, esc   end");
    screen.keys("q");
    screen.shows(&lab, "ended=0");
    assert!(!screen.tmux(&["capture-pane", "-p"]).contains("TALKER"), "the screen is given back");
    // A terminal in which nothing has room.
    let tiny = Screen::open(&lab, "tiny", (10, 2));
    tiny.shows(&lab, "portcul");
    tiny.keys("q");
    tiny.tmux(&["resize-window", "-x", "80", "-y", "24"]);
    tiny.shows(&lab, "ended=0");
    // A signal ends it, and the screen is given back.
    let signalled = Screen::open(&lab, "signalled", (80, 24));
    signalled.shows(&lab, "PORT");
    let pane = signalled.tmux(&["list-panes", "-F", "#{pane_pid}"]);
    netns::shell(&format!("kill -INT $(pgrep -s {} -x portcullis)", pane.trim()));
    signalled.shows(&lab, "ended=0");
    assert!(!signalled.tmux(&["capture-pane", "-p"]).contains("PORT"));
    // A terminal that goes away takes it along.
    let gone = Screen::open(&lab, "gone", (80, 24));
    gone.shows(&lab, "PORT");
    let pane = gone.tmux(&["list-panes", "-F", "#{pane_pid}"]);
    drop(gone);
    let left = || Command::new("pgrep").args(["-x", "portcullis", "-s", pane.trim()]).output();
    lab.until("top has ended", || left().unwrap().stdout.is_empty());
    // The same for scripts.
    let frame = lab.json(&["top", "--once", "--interval", "500ms"]);
    assert!(frame["rx_packets"].as_f64().unwrap() > 20.0, "{frame}");
    assert_eq!(frame["ports"][0]["port"], "g0");
    assert_eq!(frame["talkers"][0]["source"], "198.18.1.2");
    assert!(lab.text(&["top", "--once"]).contains("WORKER"));
    let rates = lab.json(&["show", "rates"]);
    assert_eq!(rates["ports"].as_array().unwrap().len(), 2);
    assert!(lab.text(&["show", "talkers"]).contains("198.18.1.2"));
}
