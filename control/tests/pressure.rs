//! Pressure profiles of a real daemon between network namespaces: they come in order, go when the
//! pressure is gone, and no established flow notices. Needs root.

#[allow(dead_code, reason = "shared with the story")]
#[path = "story/lab.rs"]
mod lab;
mod netns;

use std::net::UdpSocket;
use std::time::Duration;

use lab::{Lab, Talk};
use serde_json::Value;

const OPEN: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -p icmp -j ACCEPT
-A FORWARD -p tcp -j ACCEPT
-A FORWARD -p udp -j ACCEPT
COMMIT
";
/// Only what is there already, and pings.
const SIEGE: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -p icmp -j ACCEPT
COMMIT
";
const PROFILES: &str = r#"
[conntrack]
max = 200
settings = { udp_timeout = 3 }

[[pressure]]
name = "crowded"
enter = { conntrack = 30 }
hold = 0
release = 1
timeouts = { udp_timeout = 1, tcp_timeout_syn_sent = 5 }

[[pressure]]
name = "siege"
enter = { conntrack = 60 }
hold = 0
release = 1
rules = "siege.v4"

[[pressure]]
name = "broken"
enter = { conntrack = 99 }
rules = "broken.v4"
"#;

fn start() -> Lab {
    let mut lab = Lab::new(OPEN);
    lab.write("siege.v4", SIEGE);
    lab.write("broken.v4", "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
    lab.add(PROFILES);
    lab.start();
    lab
}

fn is_active(lab: &Lab, name: &str) -> bool {
    let info = lab.json(&["pressure", "show"]);
    let mut profiles = info["profiles"].as_array().unwrap().iter();
    profiles.find(|it| it["name"] == name).unwrap()["active"] == true
}

fn events(lab: &Lab) -> Vec<(String, String)> {
    let info = lab.json(&["pressure", "show"]);
    let text = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
    let events = info["events"].as_array().unwrap().iter();
    events.map(|it| (text(it, "profile"), text(it, "event"))).collect()
}

fn setting(lab: &Lab, name: &str) -> u64 {
    lab.json(&["sysctl", name])[name].as_u64().unwrap()
}

/// So many flows that nobody answers.
fn flood(lab: &Lab, flows: u16, first: u16) {
    lab.client.enter(|| {
        for port in first..first + flows {
            let socket = UdpSocket::bind(("0.0.0.0", port)).unwrap();
            let _ = socket.send_to(b"x", "198.18.2.2:7");
        }
    });
}

#[test]
fn profiles_come_in_order_and_go_and_established_flows_do_not_notice() {
    let lab = start();
    let mut session = Talk::through(&lab, 5001);
    assert!(session.answers(Duration::from_secs(2)));
    let info = lab.json(&["pressure", "show"]);
    let broken = info["profiles"][2]["trouble"].as_str().unwrap();
    assert!(broken.contains("established"), "{info}");
    // Nobody there answers with an ICMP error: it would be an answer.
    lab.server.run("iptables -A OUTPUT -p icmp --icmp-type destination-unreachable -j DROP");
    flood(&lab, 80, 20_000);
    lab.until("it is crowded", || is_active(&lab, "crowded"));
    assert!(!is_active(&lab, "siege"));
    assert_eq!((setting(&lab, "udp_timeout"), setting(&lab, "tcp_timeout_syn_sent")), (1, 5));
    assert!(session.answers(Duration::from_secs(2)));
    let mut next = 21_000;
    lab.until("it is a siege", || {
        flood(&lab, 60, next);
        next += 60;
        is_active(&lab, "siege")
    });
    // The session goes on, new ones are not let in, and the history says why.
    assert!(session.answers(Duration::from_secs(2)) && lab.pings());
    let history = lab.json(&["history"]);
    assert_eq!(history["records"][0]["action"], "pressure");
    let reason = history["records"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("pressure profile siege: conntrack "), "{reason}");
    lab.until("all is as it was", || !is_active(&lab, "siege") && !is_active(&lab, "crowded"));
    assert!(session.answers(Duration::from_secs(2)));
    assert_eq!((setting(&lab, "udp_timeout"), setting(&lab, "tcp_timeout_syn_sent")), (3, 120));
    let history = lab.json(&["history", "--verify"]);
    assert_eq!(history["records"][0]["policy"]["id"], history["records"][2]["policy"]["id"]);
    assert_eq!(history["damage"], serde_json::json!([]));
    let of = |profile: &str| -> Vec<String> {
        let events = events(&lab).into_iter().filter(|it| it.0 == profile);
        events.map(|(_, event)| event).collect()
    };
    assert_eq!(
        (of("crowded"), of("siege")),
        (vec!["on".into(), "off".into()], vec!["on".into(), "off".into()])
    );
    assert_eq!(events(&lab)[..2], [("crowded".into(), "on".into()), ("siege".into(), "on".into())]);
}

#[test]
fn hands_decide_and_what_somebody_has_changed_stays() {
    let mut lab = start();
    lab.json(&["pressure", "on", "crowded"]);
    lab.json(&["pressure", "on", "siege"]);
    lab.until("both are in force", || is_active(&lab, "crowded") && is_active(&lab, "siege"));
    let page = lab.text(&["show", "metrics"]);
    assert!(page.contains("portcullis_pressure_active{profile=\"siege\"} 1"), "{page}");
    // A reload puts the files' policy and settings in force: they stay.
    lab.json(&["reload"]);
    lab.json(&["sysctl", "udp_timeout=7"]);
    lab.json(&["pressure", "auto", "crowded"]);
    lab.json(&["pressure", "off", "siege"]);
    lab.until("both are at rest", || !is_active(&lab, "crowded") && !is_active(&lab, "siege"));
    assert_eq!((setting(&lab, "udp_timeout"), setting(&lab, "tcp_timeout_syn_sent")), (7, 120));
    let said = lab.text(&["pressure", "show"]);
    assert!(said.contains("the policy was changed meanwhile and stays"), "{said}");
    assert!(said.contains("udp_timeout was changed meanwhile and stays"), "{said}");
    let (code, refused) = lab.refused(&["pressure", "on", "nothing"]);
    assert!(code == 1 && refused.contains("no pressure profile"), "{refused}");
    // A daemon that dies under pressure comes back without.
    lab.json(&["pressure", "on", "siege"]);
    lab.until("it is in force", || is_active(&lab, "siege"));
    lab.kill();
    lab.start();
    assert!(!is_active(&lab, "siege"));
    let rules = lab.text(&["show", "rules", "--save"]);
    assert!(rules.contains("-A FORWARD -p udp -j ACCEPT"), "{rules}");
}
