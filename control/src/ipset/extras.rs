//! What stands after an element: timeouts, counters, comments and the rest.

use dataplane::sets::{Beside, CreateSpec, Extras, SetType, SkbInfo};

use super::command::Author;
use super::create::{below, needs_operand, timeout};
use super::element;
use super::fault::Fault;
use super::lexer::Word;
use super::value::number;
use super::written::Written;
use crate::diagnostics::Code;

/// Longest comment in bytes.
pub(super) const MAX_COMMENT: usize = 255;

/// Which command the words belong to: not everything can stand after each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// `add`.
    Add,
    /// `del`.
    Del,
    /// `test`.
    Test,
}

/// Names of what may follow an element.
const NAMES: [&str; 11] = [
    "timeout", "packets", "bytes", "comment", "skbmark", "skbprio", "skbqueue", "nomatch",
    "wildcard", "before", "after",
];

/// Whether `name` may stand after an element of that type.
fn may(name: &str, spec: &CreateSpec, act: Act) -> bool {
    match name {
        "before" | "after" => spec.kind == SetType::ListSet,
        "nomatch" => act != Act::Del && spec.kind.networks() > 0,
        "wildcard" => act == Act::Add && spec.kind == SetType::HashNetIface,
        _ => act == Act::Add && NAMES.contains(&name),
    }
}

/// Reads the words after an element.
pub(super) fn read(
    words: &[Word<'_>],
    spec: &CreateSpec,
    act: Act,
    author: Author,
    written: &mut Written,
) -> Result<Extras, Fault> {
    let mut extras = Extras::default();
    let mut skb = SkbInfo::default();
    let mut seen: Vec<&str> = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let name = word.text.strip_prefix("--").unwrap_or(&word.text);
        let name = NAMES.iter().find(|it| **it == name && may(name, spec, act));
        let Some(&name) = name else { return Err(unknown(word, spec, act)) };
        let again = if name == "after" { "before" } else { name };
        if seen.contains(&again) {
            let message = format!("`{name}' is given twice");
            return Err(word.fault(Code::RepeatedOption, message).remedy("give it once"));
        }
        if !matches!(name, "nomatch" | "wildcard") {
            seen.push(again);
        }
        match name {
            "nomatch" => extras.nomatch = true,
            "wildcard" => {
                if let Some(iface) = &mut written.template_mut().iface {
                    iface.wildcard = true;
                }
            }
            _ => {
                let operand = rest.next().filter(|operand| !operand.text.is_empty());
                let operand = operand.ok_or_else(|| needs_operand(word))?;
                extension(name, spec, word)?;
                if name == "timeout" && author == Author::Daemon {
                    // A rule may ask for more than the tool can.
                    let most = CreateSpec::MAX_TIMEOUT_S;
                    extras.timeout_s = Some(below(operand, u32::MAX)?.min(most));
                    continue;
                }
                value(name, operand, &mut extras, &mut skb, written)?;
            }
        }
    }
    if skb != SkbInfo::default() {
        extras.skb = Some(skb);
    }
    Ok(extras)
}

/// Whether the set was created with what the word needs.
fn extension(name: &str, spec: &CreateSpec, word: &Word<'_>) -> Result<(), Fault> {
    let (needed, there) = match name {
        "timeout" => ("timeout", spec.timeout.is_some()),
        "packets" | "bytes" => ("counters", spec.counters),
        "comment" => ("comment", spec.comment),
        "skbmark" | "skbprio" | "skbqueue" => ("skbinfo", spec.skbinfo),
        _ => return Ok(()),
    };
    if there {
        return Ok(());
    }
    let message = format!("`{name}' in a set that was created without {needed}");
    let wanted = if needed == "timeout" { "timeout 0" } else { needed };
    Err(word
        .fault(Code::NoExtension, message)
        .remedy(format!("add `{wanted}' to its create line, or leave this out")))
}

fn value(
    name: &str,
    operand: &Word<'_>,
    extras: &mut Extras,
    skb: &mut SkbInfo,
    written: &mut Written,
) -> Result<(), Fault> {
    let text = operand.text.as_ref();
    let bad = |what: &str, remedy: &str| {
        operand.fault(Code::BadValue, format!("`{text}' is no {what}")).remedy(remedy)
    };
    match name {
        "timeout" => extras.timeout_s = Some(timeout(operand)?),
        "packets" | "bytes" => {
            let count = number(text, u64::MAX - 1)
                .ok_or_else(|| bad("count", "write a number up to 18446744073709551614"))?;
            let field = if name == "packets" { &mut extras.packets } else { &mut extras.bytes };
            *field = Some(count);
        }
        "comment" => {
            if text.len() > MAX_COMMENT {
                let message = format!("a comment of {} bytes", text.len());
                let fault = operand.fault(Code::TooLong, message);
                return Err(fault.remedy(format!("shorten it to {MAX_COMMENT}")));
            }
            extras.comment = Some(text.into());
        }
        "skbmark" => {
            let mark = skbmark(text)
                .ok_or_else(|| bad("skbmark", "write 0xMARK or 0xMARK/0xMASK in hexadecimal"))?;
            skb.mark = Some(mark);
        }
        "skbprio" => {
            let class = skbprio(text)
                .ok_or_else(|| bad("class", "write MAJOR:MINOR in hexadecimal, as 1:10"))?;
            skb.priority = Some(class);
        }
        "skbqueue" => skb.queue = Some(below(operand, 0xffff)? as u16),
        "before" => written.template_mut().beside = Some(Beside::Before(element::beside(operand)?)),
        "after" => written.template_mut().beside = Some(Beside::After(element::beside(operand)?)),
        _ => {}
    }
    Ok(())
}

/// `0xMARK[/0xMASK]`.
fn skbmark(text: &str) -> Option<(u32, u32)> {
    let hex = |text: &str| {
        let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    match text.split_once('/') {
        None | Some((_, "")) => Some((hex(text.trim_end_matches('/'))?, u32::MAX)),
        Some((mark, mask)) => Some((hex(mark)?, hex(mask)?)),
    }
}

/// `MAJOR:MINOR` in hexadecimal.
fn skbprio(text: &str) -> Option<u32> {
    let hex = |text: &str| {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
    };
    let (major, minor) = text.split_once(':')?;
    Some(u32::from(hex(major)?) << 16 | u32::from(hex(minor)?))
}

fn unknown(word: &Word<'_>, spec: &CreateSpec, act: Act) -> Fault {
    let kind = spec.kind.name();
    let message = match act {
        Act::Add => format!("`{}' cannot follow an element of {kind}", word.text),
        Act::Del => format!("`{}' cannot follow an element that is deleted", word.text),
        Act::Test => format!("`{}' cannot follow an element that is tested", word.text),
    };
    let known: Vec<_> = NAMES.into_iter().filter(|name| may(name, spec, act)).collect();
    let near = super::nearest(&word.text, known.iter().copied());
    let fault = word.fault(Code::UnknownOption, message);
    match near {
        Some(near) => fault.remedy(format!("did you mean `{near}'?")),
        None if known.is_empty() => fault.remedy("end the line after the element"),
        None => fault.remedy(format!("known are {}", known.join(" "))),
    }
}
