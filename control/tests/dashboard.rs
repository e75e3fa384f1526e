//! What is shipped for Prometheus and Grafana: the rules by Prometheus' own tools, and every query
//! of the dashboard against a real Prometheus that scrapes a real daemon in a namespace. Needs
//! root and Debian's `prometheus`.

#[allow(dead_code, reason = "shared with the story")]
#[path = "story/lab.rs"]
mod lab;
mod netns;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::Lab;
use serde_json::Value;

const RULES: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -p icmp -j ACCEPT
-A FORWARD -p udp -m udp --dport 9 -j DROP
COMMIT
";

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("contrib").join(name)
}

#[test]
fn the_alert_rules_are_good_and_fire_when_they_should() {
    for (arguments, file) in [
        (["check", "rules"], "prometheus/rules.yml"),
        (["test", "rules"], "prometheus/rules_test.yml"),
    ] {
        let output = Command::new("promtool").args(arguments).arg(shipped(file)).output();
        let output = output.expect("promtool (scripts/setup)");
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{said}");
    }
    // No rule is without a test.
    let text = |file| std::fs::read_to_string(shipped(file)).unwrap();
    let (rules, tests) = (text("prometheus/rules.yml"), text("prometheus/rules_test.yml"));
    for rule in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let fires = tests.contains(&format!("alertname: {rule}\n"));
        assert!(fires, "{rule} is not tested");
    }
}

/// A Prometheus beside the daemon, ended whatever happens.
struct Prometheus<'l> {
    lab: &'l Lab,
    process: Child,
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl<'l> Prometheus<'l> {
    fn start(lab: &'l Lab) -> Self {
        lab.write(
            "prometheus.yml",
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\nscrape_configs:\n\
             - {job_name: portcullis, static_configs: [{targets: ['127.0.0.1:9649']}]}\n",
        );
        let mut command = lab.gateway.command("prometheus");
        command.arg(format!("--config.file={}", lab.file("prometheus.yml")));
        command.arg(format!("--storage.tsdb.path={}", lab.file("tsdb")));
        command.arg("--web.listen-address=127.0.0.1:9090");
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { lab, process: process.expect("prometheus (scripts/setup)") }
    }

    fn get(&self, path: &str) -> Option<String> {
        self.lab.gateway.enter(|| {
            let mut stream = TcpStream::connect("127.0.0.1:9090").ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: x\r\n\r\n").ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok()?;
            let (_, body) = answer.split_once("\r\n\r\n")?;
            Some(body.to_owned())
        })
    }

    /// What a query finds.
    fn query(&self, query: &str) -> Vec<Value> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let Some(body) = self.get(&format!("/api/v1/query?query={escaped}")) else {
            return Vec::new();
        };
        let Ok(answer) = serde_json::from_str::<Value>(&body) else { return Vec::new() };
        assert_ne!(answer["status"], "error", "{query}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }
}

/// As Grafana fills them in.
fn filled(query: &str) -> String {
    let query = query.replace("$__rate_interval", "10s").replace("$instance", ".*");
    assert!(!query.contains('$'), "{query} has a variable that is not known");
    query
}

#[test]
fn every_query_of_the_dashboard_finds_something() {
    let text = std::fs::read_to_string(shipped("grafana/portcullis.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut queries = Vec::new();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let annotations = dashboard["annotations"]["list"].as_array().unwrap().iter();
    let targets = panels.flat_map(|it| it["targets"].as_array().unwrap()).chain(annotations);
    queries.extend(targets.map(|it| filled(it["expr"].as_str().unwrap())));
    assert!(queries.len() > 15, "{queries:?}");
    let mut lab = Lab::new(RULES);
    lab.add("[metrics]\nlisten = \"127.0.0.1:9649\"\n");
    lab.start();
    let prometheus = Prometheus::start(&lab);
    lab.until("Prometheus scrapes", || !prometheus.query("up{job=\"portcullis\"} == 1").is_empty());
    // Another policy, for the annotations.
    lab.json(&["reload"]);
    let mut missing = queries.clone();
    lab.until("every query finds something", || {
        lab.client.run("ping -c 1 -W 1 198.18.2.2 >/dev/null");
        lab.client.run("for p in 9 10; do echo x | timeout 1 nc -u -q0 198.18.2.2 $p; done");
        missing.retain(|query| prometheus.query(query).is_empty());
        if !missing.is_empty() {
            eprintln!("nothing yet: {missing:#?}");
        }
        missing.is_empty()
    });
    // What the rules speak of is there as well, but for what needs trouble to be there.
    let text = std::fs::read_to_string(shipped("prometheus/rules.yml")).unwrap();
    let names = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let absent = ["portcullis_rule_expiry_seconds", "portcullis_alerts_total"];
    for name in names.filter(|name| name.starts_with("portcullis_") && !absent.contains(name)) {
        assert!(!prometheus.query(name).is_empty(), "{name} is no metric");
    }
}
