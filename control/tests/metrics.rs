//! Metrics of a real daemon between network namespaces: what Prometheus' own tools say of them,
//! and whether they tell what `show` tells. Needs root and Debian's `prometheus`.

#[allow(dead_code, reason = "shared with the story")]
#[path = "story/lab.rs"]
mod lab;
mod netns;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use lab::Lab;
use serde_json::Value;

const RULES: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -p icmp -j ACCEPT
-A FORWARD -p udp -m udp --dport 9 -j DROP
-A FORWARD -p udp -m udp --dport 9 -j DROP
-A FORWARD -p udp -m udp --dport 10 -j DROP
COMMIT
";
/// The same with a rule before the others, and without one of the two that are alike.
const OTHERS: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-A FORWARD -p sctp -j DROP
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -p icmp -j ACCEPT
-A FORWARD -p udp -m udp --dport 9 -j DROP
COMMIT
";

type Samples = BTreeMap<String, f64>;

fn samples(text: &str) -> Samples {
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    text.lines().filter(|line| !line.starts_with('#')).map(sample).collect()
}

/// What is a counter by the page's own word.
fn counters(text: &str) -> Vec<&str> {
    let typed = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    typed.filter_map(|line| line.strip_suffix(" counter")).collect()
}

fn sum(samples: &Samples, name: &str) -> f64 {
    let begins = |key: &&String| *key == name || key.starts_with(&format!("{name}{{"));
    samples.keys().filter(begins).map(|key| samples[key]).sum()
}

fn scrape(lab: &Lab, accept: &str) -> String {
    lab.gateway.enter(|| {
        let mut stream = TcpStream::connect("127.0.0.1:9649").unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        body.to_owned()
    })
}

/// What promtool thinks of a page.
fn check(text: &str) {
    let mut tool = Command::new("promtool");
    let tool = tool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut tool = tool.stderr(Stdio::piped()).spawn().expect("promtool (scripts/setup)");
    tool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = tool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&said));
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

fn start(most: u32) -> Lab {
    let mut lab = Lab::new(RULES);
    lab.add(&format!("[metrics]\nlisten = \"127.0.0.1:9649\"\nrules = {most}\n"));
    lab.start();
    lab
}

fn traffic(lab: &Lab) {
    assert!(lab.pings());
    for port in [9, 9, 10, 11] {
        lab.client.run(&format!("echo x | timeout 2 nc -u -q0 -w1 198.18.2.2 {port}"));
    }
}

#[test]
fn the_page_is_good_and_says_what_show_says() {
    let lab = start(200);
    traffic(&lab);
    let drops = |shown: &Value| shown["drops"]["rule"].as_u64().unwrap_or(0);
    lab.until("the packets are counted", || drops(&lab.json(&["show", "stats"])) == 3);
    let text = lab.text(&["show", "metrics"]);
    check(&text);
    let page = samples(&text);
    let stats = lab.json(&["show", "stats"]);
    let value = |name: &str| page[&format!("portcullis_{name}")];
    for (reason, count) in stats["drops"].as_object().unwrap() {
        // Neighbour discovery and the like go on meanwhile.
        if reason == "rule" || reason == "chain_policy" {
            let name = format!("dropped_packets_total{{reason=\"{reason}\"}}");
            assert_eq!(value(&name), count.as_f64().unwrap(), "{reason}");
        }
    }
    assert_eq!(value("conntrack_entries"), stats["conntrack"]["entries"].as_f64().unwrap());
    assert_eq!(value("conntrack_entries_limit"), stats["conntrack"]["capacity"].as_f64().unwrap());
    assert!(value("worker_cpu_seconds_total{worker=\"0\"}") > 0.0);
    assert_eq!(value("rules{family=\"ipv4\"}"), 5.0);
    // Rules by their ids, those alike too.
    let rules = lab.json(&["show", "rules"]);
    let mut shown = 0.0;
    for chain in rules["chains"].as_array().unwrap() {
        for rule in chain["rules"].as_array().unwrap() {
            let (table, name) =
                (chain["table"].as_str().unwrap(), chain["chain"].as_str().unwrap());
            let id = rule["id"].as_str().unwrap();
            let place = format!("family=\"ipv4\",table=\"{table}\",chain=\"{name}\"");
            let name = format!("rule_packets_total{{{place},rule=\"{id}\"}}");
            assert_eq!(value(&name), rule["packets"].as_f64().unwrap(), "{rule}");
            shown += value(&name);
        }
    }
    assert_eq!(shown, sum(&page, "portcullis_rule_packets_total"), "and nothing else");
    assert_eq!(shown, 2.0 + 3.0, "request, reply and three that are dropped");
    // Over HTTP, in both forms.
    let classic = scrape(&lab, "*/*");
    check(&classic);
    assert_eq!(sum(&samples(&classic), "portcullis_rule_packets_total"), shown);
    let open = scrape(&lab, "application/openmetrics-text;version=1.0.0");
    assert!(open.ends_with("# EOF\n"), "{open}");
    assert_eq!(samples(&open).len(), samples(&classic).len());
}

#[test]
fn nothing_goes_back_over_changes_and_sums_stay_true() {
    let lab = start(2);
    traffic(&lab);
    let total = |page: &Samples| sum(page, "portcullis_rule_packets_total");
    let page = || {
        let text = lab.text(&["show", "metrics"]);
        check(&text);
        text
    };
    lab.until("the packets are counted", || total(&samples(&page())) == 5.0);
    let before = page();
    let rules = |text: &str| {
        text.lines().filter(|it| it.starts_with("portcullis_rule_packets_total{")).count()
    };
    assert_eq!(rules(&before), 3, "two rules and the others: {before}");
    lab.write("rules.v4", OTHERS);
    lab.json(&["reload"]);
    traffic(&lab);
    lab.until("more packets are counted", || total(&samples(&page())) >= 9.0);
    let after = page();
    let (old, new) = (samples(&before), samples(&after));
    for name in counters(&before) {
        assert!(sum(&new, name) >= sum(&old, name), "{name} went back");
        let same = |key: &&String| key.starts_with(&format!("{name}{{")) || *key == name;
        for key in old.keys().filter(same) {
            let now = new.get(key).unwrap_or_else(|| panic!("{key} is gone"));
            assert!(*now >= old[key], "{key} went back");
        }
    }
    assert_eq!(rules(&after), 3, "{after}");
    // ping, two to port 9: port 10 and 11 meet the policy now.
    assert_eq!(total(&new), 9.0);
}

#[test]
fn the_endpoint_is_refused_where_it_cannot_be() {
    let mut lab = Lab::new(RULES);
    lab.add("[metrics]\nlisten = \"192.0.2.1:9649\"\n");
    let file = lab.file("portcullis.toml");
    let output = lab
        .gateway
        .command(env!("CARGO_BIN_EXE_portcullis"))
        .args(["run", "--config", &file])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("cannot listen on 192.0.2.1:9649"), "{said}");
    assert!(said.contains("metrics.listen"), "{said}");
    lab.add("[metrics]\nlisten = \"localhost:9649\"\n");
    let (code, said) = check_config(&file);
    assert_ne!(code, 0);
    assert!(said.contains("portcullis.toml:20:10"), "{said}");
    lab.kill();
}

/// The exit code, and what was said.
fn check_config(file: &str) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    let output = command.args(["config", "check", file]).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code().unwrap(), said)
}
