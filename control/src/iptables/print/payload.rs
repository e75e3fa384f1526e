//! Matches on any byte, in normal form.

use dataplane::packet::Family;
use dataplane::policy::payload::string::StringSpec;
use dataplane::policy::payload::u32::U32Step;
use dataplane::policy::payload::{BpfMatch, PayloadMatch, U32Match};

use super::{bang, push};
use crate::iptables::matches::STRING_ALGORITHMS;

pub(super) fn body(out: &mut String, found: &PayloadMatch, _family: Family) {
    match found {
        PayloadMatch::String(found) => string(out, found.spec()),
        PayloadMatch::U32(found) => numbers(out, found),
        PayloadMatch::Bpf(found) => bytecode(out, found),
    }
}

/// Hex if a byte cannot be printed, or a backslash would escape the closing quote.
fn string(out: &mut String, spec: &StringSpec) {
    push(out, format_args!(" -m string {}", bang(spec.negated)));
    let printable = spec.pattern.iter().all(|byte| matches!(byte, b' '..=b'~'));
    if printable && spec.pattern.last() != Some(&b'\\') {
        out.push_str("--string \"");
        for &byte in &spec.pattern {
            if matches!(byte, b'"' | b'\\') {
                out.push('\\');
            }
            out.push(char::from(byte));
        }
        out.push('"');
    } else {
        out.push_str("--hex-string \"|");
        for byte in &spec.pattern {
            push(out, format_args!("{byte:02x}"));
        }
        out.push_str("|\"");
    }
    let name = STRING_ALGORITHMS.iter().find(|(_, algorithm)| *algorithm == spec.algorithm);
    push(out, format_args!(" --algo {}", name.map_or("", |(name, _)| name)));
    if spec.from != 0 {
        push(out, format_args!(" --from {}", spec.from));
    }
    if spec.to != u16::MAX {
        push(out, format_args!(" --to {}", spec.to));
    }
    if spec.ignore_case {
        out.push_str(" --icase");
    }
}

fn numbers(out: &mut String, found: &U32Match) {
    push(out, format_args!(" -m u32 {}--u32 \"", bang(found.negated)));
    for (at, test) in found.tests.iter().enumerate() {
        let and = if at > 0 { "&&" } else { "" };
        push(out, format_args!("{and}0x{:x}", test.start));
        for step in &test.steps {
            let (sign, number) = match step {
                U32Step::And(mask) => ("&", mask),
                U32Step::Left(bits) => ("<<", bits),
                U32Step::Right(bits) => (">>", bits),
                U32Step::At(place) => ("@", place),
            };
            push(out, format_args!("{sign}0x{number:x}"));
        }
        for (at, range) in test.ranges.iter().enumerate() {
            let sign = if at > 0 { "," } else { "=" };
            push(out, format_args!("{sign}0x{:x}", range.low));
            if range.low != range.high {
                push(out, format_args!(":0x{:x}", range.high));
            }
        }
    }
    out.push('"');
}

fn bytecode(out: &mut String, found: &BpfMatch) {
    push(out, format_args!(" -m bpf --bytecode \"{}", found.program().len()));
    for one in found.program() {
        push(out, format_args!(",{} {} {} {}", one.code, one.jt, one.jf, one.k));
    }
    out.push('"');
}
