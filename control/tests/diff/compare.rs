//! Finds the differences between two observations.

use std::fmt::Write as _;

use super::{Case, Connection, Observation};
use crate::lab::Sent;

/// Timeouts may differ by this much: both sides round, and both take time.
const TIMEOUT_SLACK_S: i64 = 2;

/// The differences, in words; empty when there are none.
pub fn differences(case: &Case, kernel: &Observation, ours: &Observation) -> Vec<String> {
    let mut all = Vec::new();
    for (index, packet) in case.packets.iter().enumerate() {
        let (mut theirs, mut own) = (kernel.sent[index].clone(), ours.sent[index].clone());
        theirs.sort();
        own.sort();
        if theirs != own {
            let mut text = format!("packet {index} ({}): frames differ", packet.note);
            describe(&mut text, "kernel", &theirs);
            describe(&mut text, "ours  ", &own);
            all.push(text);
        }
    }
    for (key, counted) in &kernel.counters {
        let own = ours.counters.get(key).copied().unwrap_or_default();
        if own != *counted {
            let (table, chain, rule) = key;
            let place = rule.map_or("policy".to_owned(), |rule| format!("rule {rule}"));
            all.push(format!("counter {table} {chain} {place}: kernel {counted:?}, ours {own:?}"));
        }
    }
    connections(&mut all, &kernel.connections, &ours.connections);
    if kernel.delivered != ours.delivered {
        all.push(format!(
            "delivered to the local stack: kernel {}, ours {}",
            kernel.delivered, ours.delivered
        ));
    }
    if kernel.logged != ours.logged {
        let unlike = kernel.logged.iter().zip(&ours.logged).find(|(a, b)| a != b);
        let (theirs, own) = (kernel.logged.len(), ours.logged.len());
        all.push(match unlike {
            Some((theirs, own)) => {
                format!("log line differs:\n    kernel: {theirs}\n    ours  : {own}")
            }
            None => format!("log lines: kernel {theirs}, ours {own}"),
        });
    }
    for (theirs, own) in kernel.printed.iter().zip(&ours.printed).filter(|(a, b)| a != b) {
        all.push(format!("printed: kernel `{theirs}`, ours `{own}`"));
    }
    if kernel.printed.len() != ours.printed.len() {
        let (theirs, own) = (kernel.printed.len(), ours.printed.len());
        all.push(format!("printed lines: kernel {theirs}, ours {own}"));
    }
    all
}

fn describe(text: &mut String, who: &str, sent: &[Sent]) {
    if sent.is_empty() {
        write!(text, "\n    {who}: nothing").expect("writing to a string");
    }
    for Sent { port, frame } in sent {
        write!(text, "\n    {who}: eth{port} {}", hex(frame)).expect("writing to a string");
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string");
        text
    })
}

fn connections(all: &mut Vec<String>, theirs: &[Connection], own: &[Connection]) {
    let mut left: Vec<&Connection> = own.iter().collect();
    for connection in theirs {
        let found = left.iter().position(|other| other.facts == connection.facts);
        let Some(found) = found else {
            all.push(format!("connection only in the kernel: {connection:?}"));
            continue;
        };
        let other = left.swap_remove(found);
        if (other.timeout_s - connection.timeout_s).abs() > TIMEOUT_SLACK_S {
            all.push(format!(
                "timeout of {}: kernel {}, ours {}",
                connection.facts, connection.timeout_s, other.timeout_s
            ));
        }
    }
    all.extend(left.iter().map(|connection| format!("connection only in ours: {connection:?}")));
}
