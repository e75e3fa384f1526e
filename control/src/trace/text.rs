//! A followed packet for people: a line of what it is, and one for each thing that it met.

use std::fmt::Write as _;

use crate::api::protocol::{TracedPacket, TracedStep};
use crate::history::stamp;

/// The packet, and what it met; ends with a line end.
pub fn render(packet: &TracedPacket) -> String {
    let mut out = String::new();
    let _ = write_packet(&mut out, packet);
    out
}

/// The time of day with microseconds, in UTC.
fn clock(at_ns: u64) -> String {
    let (seconds, micros) = (at_ns / 1_000_000_000, at_ns / 1000 % 1_000_000);
    let day = seconds % 86_400;
    format!("{:02}:{:02}:{:02}.{micros:06}", day / 3600, day / 60 % 60, day % 60)
}

fn write_packet(out: &mut String, packet: &TracedPacket) -> std::fmt::Result {
    let from = packet.input.as_deref().unwrap_or("this machine");
    let TracedPacket { packet: words, length, worker, .. } = packet;
    writeln!(out, "{} {from} (worker {worker}): {words}, {length} bytes", clock(packet.at_ns))?;
    let mut path = packet.path.iter().enumerate().peekable();
    while let Some(step) = path.next_if(|step| step.1.table == "raw") {
        write_step(out, step, packet)?;
    }
    if let Some(state) = &packet.state {
        write!(out, "  {:<9}{state}", "track")?;
        if let Some(connection) = &packet.connection {
            write!(out, ", {} way of connection {}", connection.direction, connection.id)?;
            let state = connection.state.as_deref();
            state.map_or(Ok(()), |state| write!(out, " ({state})"))?;
        }
        out.push('\n');
    }
    while let Some(step) = path.next_if(|step| step.1.hook == "PREROUTING") {
        write_step(out, step, packet)?;
    }
    if let (Some(output), Some(_)) = (&packet.output, &packet.input) {
        writeln!(out, "  {:<9}to {output}", "route")?;
    }
    for step in path {
        write_step(out, step, packet)?;
    }
    if packet.more_steps > 0 {
        writeln!(out, "  {:<9}and {} steps more", "", packet.more_steps)?;
    }
    for change in &packet.rewritten {
        writeln!(out, "  {:<9}{change}", "rewrite")?;
    }
    write_end(out, packet)
}

fn write_end(out: &mut String, packet: &TracedPacket) -> std::fmt::Result {
    if packet.logged > 0 {
        writeln!(out, "  {:<9}{} record(s): see `portcullis show log'", "log", packet.logged)?;
    }
    if packet.mark != 0 {
        writeln!(out, "  {:<9}{:#x}", "mark", packet.mark)?;
    }
    write!(out, "  {:<9}{}", "verdict", packet.verdict.to_uppercase())?;
    if let Some(reason) = &packet.reason {
        write!(out, " ({reason})")?;
    }
    if let Some(output) = packet.output.as_ref().filter(|_| packet.reason.is_none()) {
        write!(out, ", to {output}")?;
    }
    if let Some(step) = packet.decided.and_then(|index| packet.path.get(index)) {
        write!(out, ", by {}", place(step))?;
    }
    out.push('\n');
    if let Some(next_hop) = &packet.awaits {
        writeln!(out, "  {:<9}for the link-layer address of {next_hop}", "waits")?;
    }
    if let Some(advice) = packet.reason.as_deref().and_then(advice) {
        writeln!(out, "  {:<9}{advice}", "hint")?;
    }
    if let Some(answer) = &packet.answer {
        writeln!(out, "  {:<9}{answer}", "made")?;
    }
    for step in &packet.answer_path {
        write_line(out, "", step, ' ')?;
    }
    Ok(())
}

fn write_step(
    out: &mut String,
    (index, step): (usize, &TracedStep),
    packet: &TracedPacket,
) -> std::fmt::Result {
    let sign = if packet.decided == Some(index) { '*' } else { ' ' };
    write_line(out, &step.table, step, sign)
}

fn write_line(out: &mut String, head: &str, step: &TracedStep, sign: char) -> std::fmt::Result {
    writeln!(out, " {sign}{head:<9}{}  {}", place(step), step.text)
}

/// Where a step stands: `FORWARD rule 3 (line 7)`.
pub fn place(step: &TracedStep) -> String {
    let mut text = match step.chain == step.hook {
        true => format!("{} ", step.chain),
        false => format!("{} {} ", step.hook, step.chain),
    };
    let _ = match step.rule {
        Some(rule) => write!(text, "rule {rule}"),
        None => write!(text, "policy"),
    };
    if let Some(line) = step.line {
        let _ = write!(text, " (line {line})");
    }
    text
}

/// The same in a line, for a capture's comment.
pub fn comment(packet: &TracedPacket) -> String {
    let mut text = packet.verdict.to_uppercase();
    if let Some(reason) = &packet.reason {
        let _ = write!(text, " reason={reason}");
    }
    if let Some(step) = packet.decided.and_then(|index| packet.path.get(index)) {
        let _ = write!(text, "; by {} {}: {}", step.table, place(step), step.text);
    }
    if let Some(state) = &packet.state {
        let _ = write!(text, "; ct={state}");
    }
    for change in &packet.rewritten {
        let _ = write!(text, "; {change}");
    }
    let from = packet.input.as_deref().unwrap_or("host");
    let _ = write!(text, "; in={from}");
    if let Some(output) = &packet.output {
        let _ = write!(text, " out={output}");
    }
    if let Some(next_hop) = &packet.awaits {
        let _ = write!(text, "; waits for {next_hop}");
    }
    text
}

/// Where to look next.
pub fn advice(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "not_for_us" => {
            "its link-layer address is not the port's: look at the sender's neighbours (ip neigh)"
        }
        "ip_checksum" | "ip_header" | "frame_truncated" => {
            "it arrived damaged: look at cable, driver and offloads (portcullis doctor)"
        }
        "conntrack_full" => "portcullis show stats, portcullis sysctl max",
        "conntrack_quota" => "its source has its share of a crowded table: portcullis show stats",
        "conntrack_invalid" | "conntrack_clash" => "portcullis conntrack -L shows what it met",
        "no_route" | "route_refused" | "route_foreign" => {
            "ip route get ADDRESS says the way; both ends must be ports (portcullis show ports)"
        }
        "neighbour_unresolved" | "neighbour_queue_full" => {
            "the next hop does not answer: ip neigh, then its cable"
        }
        "ttl_expired" => "a loop, or traceroute",
        "too_big" => {
            "longer than the way out takes, and not to be cut: the sender must hear our ICMP"
        }
        "port_down" => "portcullis show ports, ip link",
        "tx_ring_full" => "the port sends slower than it is given: portcullis show ports",
        _ => return None,
    })
}

/// The day and the time, as the history has them.
pub fn when(at_ns: u64) -> String {
    stamp(at_ns / 1_000_000_000)
}
