//! The kernel's side of a case.

use super::extra::{sets, tally};
use super::packets::Entry;
use super::rules::{RulesetText, log_tag};
use super::{Case, Observation, read_connection, read_saved};
use crate::lab::clock::Clock;
use crate::lab::{Lab, Sent};

/// Runs the case through netfilter. Gives the times of the packets as well.
///
/// # Errors
/// The complaint of `iptables-restore`, when it refuses the rules.
pub fn run(lab: &Lab, case: &Case) -> Result<(Observation, Vec<u64>), String> {
    let v6 = case.rules.v6;
    let text = case.rules.text();
    if tally::is_kept(&text) {
        // Lists of `recent` belong to both families.
        [false, true].into_iter().try_for_each(|v6| reset(lab, v6))?;
    }
    let named = sets::are_named(&text);
    if named {
        lab.router().run("ipset", &["restore"], &sets::text(true))?;
    }
    lab.restore(v6, &text)?;
    lab.flush_conntrack();
    // What the last rules may have held back (a TEE, say) is not this case's.
    drop(lab.drain());
    let delivered = lab.delivered();
    let tag = log_tag();
    drop(lab.logged(&tag));
    let clock = Clock::start();
    let mut times = Vec::with_capacity(case.packets.len());
    let mut sent = Vec::with_capacity(case.packets.len());
    for packet in &case.packets {
        times.push(clock.now_ns());
        let out = match packet.entry {
            Entry::Port(port) => lab.inject(port, &packet.bytes),
            Entry::Own => lab.emit(v6, &packet.bytes),
            Entry::OwnOn(port) => lab.emit_on(v6, &packet.bytes, port),
        };
        sent.push(out.into_iter().map(normalised).collect());
    }
    let logged = lab.logged(&tag).iter().map(|line| normalised_line(line)).collect();
    let connections = lab.conntrack();
    let delivered = lab.delivered() - delivered;
    let (counters, printed) = read_saved(&lab.save(v6));
    let connections = connections.iter().filter_map(|row| read_connection(row)).collect();
    let saved = match named {
        true => lab.router().run("ipset", &["save"], "")?,
        false => String::new(),
    };
    let elements = sets::elements(&saved);
    Ok((Observation { sent, counters, connections, delivered, logged, printed, elements }, times))
}

/// Leaves nothing of the last case behind.
///
/// # Errors
/// As [`run`].
pub fn reset(lab: &Lab, v6: bool) -> Result<(), String> {
    lab.restore(v6, &RulesetText::empty(v6).text())
}

/// The identification of IPv4 packets that the router makes itself, in the name of a
/// broadcast address even, is random (unless it is zero with DF set): it becomes zero, and the header checksum with it.
pub fn normalised(mut sent: Sent) -> Sent {
    let frame = &mut sent.frame;
    let own = frame.len() >= 34
        && frame[12..14] == [8, 0]
        && (frame[26..28] == [198, 18] && matches!(frame[29], 1 | 255)
            || frame[26..30] == [255; 4]
            || frame[15] & 0xe0 == 0xc0)
        && frame[23] == 1
        && !matches!(frame[34], 0 | 8);
    if own {
        frame[18..20].fill(0);
        frame[24..26].fill(0);
    }
    sent
}

/// The same for a LOG line about a packet that the router makes itself.
pub fn normalised_line(line: &str) -> String {
    let own = (1..=3)
        .flat_map(|net| [1, 255].map(|host| format!(" SRC=198.18.{net}.{host} ")))
        .any(|source| line.contains(&source))
        || line.contains(" PREC=0xC0 ")
        || line.contains("IN=lo ");
    let from_here = line.contains("IN= ") || line.contains("IN=lo ");
    let answer = from_here && line.contains(" PROTO=ICMP ") && line.contains(" [SRC=");
    let words = line
        .split(' ')
        .map(|word| if own && answer && word.starts_with("ID=") { "ID=0" } else { word });
    words.collect::<Vec<_>>().join(" ").trim_end().to_owned()
}
