//! Finds the differences between two observations.

use std::fmt::Write as _;

use super::{Case, Connection, Observation};
use crate::lab::Sent;

/// Timeouts may differ by this much: both sides round, and both take time.
const TIMEOUT_SLACK_S: i64 = 2;

/// The differences, in words; empty when there are none.
pub fn differences(case: &Case, kernel: &Observation, ours: &Observation) -> Vec<String> {
    let mut all = Vec::new();
    let drawn = draws_ports(case);
    for (index, packet) in case.packets.iter().enumerate() {
        let (mut theirs, mut own) = (kernel.sent[index].clone(), ours.sent[index].clone());
        if drawn {
            theirs.iter_mut().chain(&mut own).for_each(|sent| blur(&mut sent.frame));
        }
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
    let facts = |side: &[Connection]| -> Vec<Connection> {
        let mut side = side.to_vec();
        side.iter_mut().filter(|_| drawn).for_each(|one| one.facts = blurred(&one.facts));
        side
    };
    connections(&mut all, &facts(&kernel.connections), &facts(&ours.connections));
    if kernel.delivered != ours.delivered {
        all.push(format!(
            "delivered to the local stack: kernel {}, ours {}",
            kernel.delivered, ours.delivered
        ));
    }
    let (theirs, own) = (logged(case, kernel, drawn), logged(case, ours, drawn));
    if theirs != own {
        let unlike = theirs.iter().zip(&own).find(|(a, b)| a != b);
        let (theirs, own) = (theirs.len(), own.len());
        all.push(match unlike {
            Some((theirs, own)) => {
                format!("log line differs:\n    kernel: {theirs}\n    ours  : {own}")
            }
            None => format!("log lines: kernel {theirs}, ours {own}"),
        });
    }
    let missing = |here: &[String], there: &[String]| -> Vec<String> {
        here.iter().filter(|line| !there.contains(line)).cloned().collect()
    };
    let theirs = missing(&kernel.elements, &ours.elements);
    let own = missing(&ours.elements, &kernel.elements);
    if !theirs.is_empty() || !own.is_empty() {
        all.push(format!("elements: only the kernel's {theirs:?}, only ours {own:?}"));
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

/// Whether the rules may make either side draw ports at random. Here those are left
/// out of the comparison; `sequences` and `nat_kernel` compare them up to a pairing.
fn draws_ports(case: &Case) -> bool {
    let text = case.rules.text();
    ["SNAT", "DNAT", "MASQUERADE", "REDIRECT", "NETMAP"].iter().any(|target| text.contains(target))
}

/// Zeroes ports, ICMP identifiers and the checksums over them, quoted ones too.
fn blur(frame: &mut [u8]) {
    let Some((proto, l4)) = layer4(frame, 14) else { return };
    let mut clear = |at: usize, len: usize| {
        frame.iter_mut().skip(at).take(len).for_each(|byte| *byte = 0);
    };
    match proto {
        6 => [(0, 4), (16, 2)].map(|(at, len)| clear(l4 + at, len)),
        17 | 136 => [(0, 4), (6, 2)].map(|(at, len)| clear(l4 + at, len)),
        132 => [(0, 4), (8, 4)].map(|(at, len)| clear(l4 + at, len)),
        // An error quotes a whole header and at least eight bytes behind it.
        1 | 58 => {
            let inner = layer4(frame, l4 + 8).map_or(l4 + 4, |(_, at)| at);
            frame.iter_mut().skip(l4 + 2).take(2).for_each(|byte| *byte = 0);
            frame.iter_mut().skip(inner).for_each(|byte| *byte = 0);
            [(), ()]
        }
        _ => [(), ()],
    };
}

/// Protocol and layer 4 offset of the IP packet at `at`, if it is one.
fn layer4(frame: &[u8], at: usize) -> Option<(u8, usize)> {
    match frame.get(at)? >> 4 {
        4 => Some((*frame.get(at + 9)?, at + usize::from(frame[at] & 0xf) * 4)),
        6 => {
            let (mut next, mut at) = (*frame.get(at + 6)?, at + 40);
            // Extension headers; an authentication header counts in words of four bytes.
            while matches!(next, 0 | 43 | 44 | 51 | 60) {
                let length = usize::from(*frame.get(at + 1)?);
                let bytes = if next == 51 { (length + 2) * 4 } else { (length + 1) * 8 };
                (next, at) = (*frame.get(at)?, at + bytes);
            }
            Some((next, at))
        }
        _ => None,
    }
}

/// The LOG lines in the order in which they are compared.
fn logged(case: &Case, side: &Observation, drawn: bool) -> Vec<String> {
    let line = |line: &String| if drawn { blurred_line(line) } else { line.clone() };
    let mut lines: Vec<_> = side.logged.iter().map(line).collect();
    // The kernel sends a copy while its original waits; we send it afterwards.
    if case.rules.text().contains("-j TEE") {
        lines.sort();
    }
    lines
}

/// A LOG line without the ports and identifiers behind its protocol.
fn blurred_line(line: &str) -> String {
    let Some(at) = line.find("PROTO=") else { return line.to_owned() };
    let (head, tail) = line.split_at(at);
    let words = tail.split(' ').map(|word| match word.split_once('=') {
        Some((key @ ("SPT" | "DPT" | "ID"), _)) => format!("{key}=*"),
        _ => word.to_owned(),
    });
    format!("{head}{}", words.collect::<Vec<_>>().join(" "))
}

/// A connection's facts without ports and identifiers of its reply direction.
fn blurred(facts: &str) -> String {
    let Some(reply) = facts.rfind("src=") else { return facts.to_owned() };
    let (head, tail) = facts.split_at(reply);
    let words = tail.split(' ').map(|word| match word.split_once('=') {
        Some((key @ ("sport" | "dport" | "id"), _)) => format!("{key}=*"),
        _ => word.to_owned(),
    });
    format!("{head}{}", words.collect::<Vec<_>>().join(" "))
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
