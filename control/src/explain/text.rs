//! Explanations for people.

use std::fmt::Write;

use dataplane::packet::Mac;
use dataplane::wire::{self, Frame, proto};

use super::describe::ip;
use super::{Description, Explanation, Stage, Step, reasons};
use crate::replay::event::Verdict;

/// The packet in a few words.
pub(crate) fn packet(description: &Description) -> String {
    let Ok(Frame::Ip(parsed)) = wire::parse(&description.frame, Mac::default()) else {
        return format!("a frame of {} bytes that is no usable IP packet", description.frame.len());
    };
    let (src, dst) = (ip(parsed.family, parsed.src), ip(parsed.family, parsed.dst));
    let (sport, dport) = (parsed.sport, parsed.dport);
    match parsed.proto {
        proto::TCP => {
            let flags = reasons::tcp_flags(parsed.tcp_flags);
            format!("tcp {src} port {sport} > {dst} port {dport}, {flags}")
        }
        proto::UDP => format!("udp {src} port {sport} > {dst} port {dport}"),
        proto::ICMP => format!("icmp {src} > {dst}, type {sport} code {dport}"),
        proto::ICMPV6 => format!("icmpv6 {src} > {dst}, type {sport} code {dport}"),
        other => format!("protocol {other} {src} > {dst}"),
    }
}

/// The whole explanation as text.
pub fn render(explanation: &Explanation) -> String {
    let mut out = format!("packet: {}, in {}\n", explanation.packet, explanation.event.input);
    for stage in &explanation.stages {
        match stage {
            Stage::Tracking { state, direction } => {
                push(&mut out, format_args!("tracking: {state}, {direction} direction\n"));
            }
            Stage::Translation { hook, what, from, to } => {
                push(&mut out, format_args!("nat {hook}: {what} {from} becomes {to}\n"));
            }
            Stage::Routing { to } => push(&mut out, format_args!("routing: {to}\n")),
            Stage::Table { table, hook, input, output, steps } => {
                let dash = |name: &str| if name.is_empty() { "-".to_owned() } else { name.into() };
                let (input, output) = (dash(input), dash(output));
                push(&mut out, format_args!("{table} {hook} (in {input}, out {output})\n"));
                steps.iter().for_each(|step| self::step(&mut out, step));
            }
        }
    }
    verdict(&mut out, explanation);
    out
}

fn step(out: &mut String, step: &Step) {
    let indent = "  ".repeat(step.depth + 1);
    let mark = if step.matched { "*" } else { " " };
    match step.rule {
        Some(number) => {
            let Step { chain, text, .. } = step;
            push(out, format_args!("{indent}{mark} {chain} {number}: {text}\n"));
        }
        None => push(out, format_args!("{indent}{mark} {}: {}\n", step.chain, step.text)),
    }
    if let Some(why) = &step.why {
        push(out, format_args!("{indent}      no: {why}\n"));
    }
}

fn verdict(out: &mut String, explanation: &Explanation) {
    let event = &explanation.event;
    let what = match event.verdict {
        Verdict::Accept => "accept",
        Verdict::Drop => "drop",
        Verdict::Reject => "reject",
        Verdict::Stolen if event.reason.is_some() => "taken",
        Verdict::Stolen => "a fragment, kept until its datagram is complete",
        Verdict::InvalidDrop => "dropped before any rule",
        Verdict::Consumed => "answered by the router",
    };
    push(out, format_args!("verdict: {what}"));
    if let Some(reason) = event.reason {
        push(out, format_args!(" ({reason})"));
    }
    if !event.out.is_empty() {
        push(out, format_args!(", out {}", event.out.join(", ")));
    }
    if event.mark != 0 {
        push(out, format_args!(", mark {:#x}", event.mark));
    }
    if !event.answers.is_empty() {
        push(out, format_args!(", answered on {}", event.answers.join(", ")));
    }
    out.push('\n');
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}
