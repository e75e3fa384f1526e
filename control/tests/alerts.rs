//! Webhooks, told by a real daemon between network namespaces: to servers that take it, fail,
//! hang, or are not there. Needs root.

#[allow(dead_code, reason = "shared with the story")]
#[path = "story/lab.rs"]
mod lab;
mod netns;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataplane::clock::wall_us;
use lab::Lab;
use portcullis::history::stamp;
use serde_json::{Value, json};

const OPEN: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
-A FORWARD -p icmp -j ACCEPT
-A FORWARD -p udp -m udp --dport 9 -j DROP
COMMIT
";

/// A web server of the gateway: what it was told, and what it answers.
struct Hook {
    told: Arc<Mutex<Vec<Value>>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Hook {
    /// `statuses` one after the other, the last of them for ever; 0: it takes the request and
    /// says nothing.
    fn new(lab: &Lab, port: u16, statuses: &'static [u16]) -> Self {
        let listener = lab.gateway.enter(|| TcpListener::bind(("127.0.0.1", port)).unwrap());
        listener.set_nonblocking(true).unwrap();
        let (told, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let hook = Self { told: Arc::clone(&told), stop: Arc::clone(&stop) };
        std::thread::spawn(move || {
            let mut hung = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                };
                let Some(body) = request(&mut stream) else { continue };
                let mut told = told.lock().unwrap();
                let status = statuses[told.len().min(statuses.len() - 1)];
                told.push(serde_json::from_str(&body).unwrap_or(Value::String(body)));
                match status {
                    0 => hung.push(stream),
                    status => {
                        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
                        let _ = stream.write_all(answer.as_bytes());
                    }
                }
            }
        });
        hook
    }

    fn told(&self) -> Vec<Value> {
        self.told.lock().unwrap().clone()
    }
}

/// The body of a good request.
fn request(stream: &mut TcpStream) -> Option<String> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{head}");
            let head = head.to_lowercase();
            assert!(head.contains("content-type: application/json"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.expect("a length").parse::<usize>().unwrap() {
                return Some(body.to_owned());
            }
        }
        match stream.read(&mut piece) {
            Ok(length @ 1..) => bytes.extend_from_slice(&piece[..length]),
            _ => return None,
        }
    }
}

fn alert(port: u16, events: &str, more: &str) -> String {
    format!("[[alert]]\nurl = \"http://127.0.0.1:{port}/hook\"\nevents = [{events}]\n{more}\n")
}

fn metric(lab: &Lab, name: &str) -> f64 {
    let page = lab.text(&["show", "metrics"]);
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).trim().parse().unwrap()
}

fn outcome(lab: &Lab, webhook: u32, outcome: &str) -> f64 {
    let labels = format!("webhook=\"{webhook}\",host=\"127.0.0.1\",outcome=\"{outcome}\"");
    metric(lab, &format!("portcullis_alerts_total{{{labels}}}"))
}

#[test]
fn a_rollback_is_told_whatever_the_servers_do() {
    let mut lab = Lab::new(OPEN);
    let body = "body = '''{\"what\": {{ event ~ \" \" ~ state }}, \"text\": {{ summary }}}'''";
    lab.add(
        &[
            alert(8001, "\"rollback\"", body),
            alert(8002, "\"rollback\"", "timeout = 1\nattempts = 2"),
            alert(8003, "\"rollback\"", "attempts = 2"),
            alert(8004, "\"rollback\"", "attempts = 2"),
        ]
        .concat(),
    );
    let grumpy = Hook::new(&lab, 8001, &[500, 503, 200]);
    let hanging = Hook::new(&lab, 8002, &[0]);
    let elsewhere = Hook::new(&lab, 8004, &[302]);
    lab.start();
    lab.apply("rules.v4", &["--confirm", "1s"]);
    lab.until("it is told", || outcome(&lab, 0, "sent") == 1.0);
    assert_eq!(outcome(&lab, 0, "failed"), 2.0);
    let told = grumpy.told();
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|it| *it == told[0]), "{told:?}");
    assert_eq!(told[0]["what"], "rollback firing");
    assert!(told[0]["text"].as_str().unwrap().contains("undone"), "{told:?}");
    for webhook in 1..4 {
        lab.until("it is given up", || outcome(&lab, webhook, "lost") == 1.0);
        assert_eq!((outcome(&lab, webhook, "failed"), outcome(&lab, webhook, "sent")), (2.0, 0.0));
    }
    assert_eq!((hanging.told().len(), elsewhere.told().len()), (2, 2));
    assert_eq!(hanging.told()[0]["event"], "rollback");
    assert!(lab.errors().contains("it is given up"), "{}", lab.errors());
    assert!(!lab.errors().contains("/hook"), "{}", lab.errors());
    assert!(lab.pings());
}

#[test]
fn a_flood_begins_and_ends_and_an_exception_is_announced() {
    let soon = stamp(wall_us() + 3_600_000_000);
    let rule =
        format!("-A FORWARD -p tcp -m comment --comment \"owner=ops expires={soon}\" -j ACCEPT");
    let mut lab = Lab::new(&OPEN.replace("COMMIT", &format!("{rule}\nCOMMIT")));
    let events = "\"drop-rate\", \"exception-expiring\"";
    lab.add(&alert(8001, events, "drop-rate = 20\nhold = 1\nexpiring = 2"));
    let hook = Hook::new(&lab, 8001, &[200]);
    lab.start();
    lab.until("the exception is announced", || hook.told().len() == 1);
    let told = &hook.told()[0];
    assert_eq!((&told["event"], &told["state"]), (&json!("exception-expiring"), &json!("firing")));
    let summary = told["summary"].as_str().unwrap();
    let wanted = format!("IPv4 filter FORWARD rule 3, owner ops expires at {soon}");
    assert_eq!(summary, wanted);
    let rules = lab.json(&["show", "rules"]);
    let chains = rules["chains"].as_array().unwrap().iter();
    let id = chains.flat_map(|it| it["rules"].as_array().unwrap()).nth(2).unwrap()["id"].clone();
    assert_eq!(told["key"], id);
    // A flood until it is told, and then none.
    let socket = lab.client.enter(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    lab.until("the flood is told", || {
        for _ in 0..10 {
            socket.send_to(b"x", "198.18.2.2:9").unwrap();
        }
        hook.told().len() == 2
    });
    lab.until("its end is told", || hook.told().len() == 3);
    let told = hook.told();
    let states: Vec<_> = told[1..].iter().map(|it| (&it["event"], &it["state"])).collect();
    let event = json!("drop-rate");
    assert_eq!(states, [(&event, &json!("firing")), (&event, &json!("resolved"))]);
    assert!(told[1]["value"].as_f64().unwrap() >= 20.0, "{told:?}");
    assert_eq!(told[1]["threshold"], json!(20.0));
    assert_eq!(outcome(&lab, 0, "sent"), 3.0);
}
