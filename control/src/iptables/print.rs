//! The kernel's normal form: what `iptables-save` prints.

mod hashlimit;
mod matches;
mod measure;
mod meta;
mod payload;
mod place;
mod protocol;
mod report;
mod sets;
mod tally;
mod targets;

use std::fmt::Write;

use dataplane::packet::Family;
use dataplane::policy::matches::{AddressMask, Neg};
use dataplane::policy::{ChainPolicy, TableId};

use super::address;
use super::names::Names;
use crate::model::{Chain, Counters, Interface, Rule, Ruleset, Table};

/// Where live counters come from: the table, the chain, and the index of a
/// rule in it, or `None` for the chain's policy.
pub type CounterSource<'c> = dyn Fn(TableId, &str, Option<usize>) -> Counters + 'c;

/// Prints a ruleset as `iptables-save` does, without comment lines. With
/// `counters`, every rule begins with its `[packets:bytes]`; without, policies
/// show `[0:0]`.
pub fn print(ruleset: &Ruleset, names: &dyn Names, counters: Option<&CounterSource<'_>>) -> String {
    let mut out = String::new();
    for table in &ruleset.tables {
        print_table(&mut out, table, ruleset.family, names, counters);
    }
    out
}

fn print_table(
    out: &mut String,
    table: &Table,
    family: Family,
    names: &dyn Names,
    counters: Option<&CounterSource<'_>>,
) {
    let count = |chain: &Chain, rule: Option<usize>| {
        counters.map_or_else(Counters::default, |read| read(table.id, &chain.name, rule))
    };
    line(out, format_args!("*{}", table.id.name()));
    for chain in &table.chains {
        let (policy, counted) = match chain.policy {
            Some((ChainPolicy::Accept, _)) => ("ACCEPT", count(chain, None)),
            Some((ChainPolicy::Drop, _)) => ("DROP", count(chain, None)),
            None => ("-", Counters::default()),
        };
        let Counters { packets, bytes } = counted;
        line(out, format_args!(":{} {policy} [{packets}:{bytes}]", chain.name));
    }
    for chain in &table.chains {
        for (index, rule) in chain.rules.iter().enumerate() {
            if counters.is_some() {
                let Counters { packets, bytes } = count(chain, Some(index));
                push(out, format_args!("[{packets}:{bytes}] "));
            }
            let text = rule_text(rule, family, names);
            line(out, format_args!("-A {}{text}", chain.name));
        }
    }
    out.push_str("COMMIT\n");
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    push(out, text);
    out.push('\n');
}

/// `!` and a blank, if negated.
fn bang(negated: bool) -> &'static str {
    if negated { "! " } else { "" }
}

/// A rule without `-A CHAIN`, in normal form, with a blank in front of each part.
pub fn rule_text(rule: &Rule, family: Family, names: &dyn Names) -> String {
    let mut out = String::new();
    address(&mut out, "-s", rule.src, family);
    address(&mut out, "-d", rule.dst, family);
    interface(&mut out, "-i", rule.input.as_ref());
    interface(&mut out, "-o", rule.output.as_ref());
    if let Some(proto) = rule.proto {
        push(&mut out, format_args!(" {}-p ", bang(proto.negated)));
        match names.protocol_name(proto.value) {
            Some(name) => out.push_str(name),
            None => push(&mut out, format_args!("{}", proto.value)),
        }
    }
    if let Some(later) = rule.fragment {
        push(&mut out, format_args!(" {}-f", bang(!later)));
    }
    for spec in &rule.matches {
        matches::body(&mut out, &spec.body, family, names);
    }
    targets::target(&mut out, &rule.target, family);
    out
}

fn address(out: &mut String, option: &str, selector: Option<Neg<AddressMask>>, family: Family) {
    let Some(Neg { negated, value }) = selector else { return };
    let address = address::format_address(value.address, family);
    let mask = address::format_mask(value.mask, family);
    push(out, format_args!(" {}{option} {address}{mask}", bang(negated)));
}

fn interface(out: &mut String, option: &str, selector: Option<&(Interface, bool)>) {
    let Some((interface, negated)) = selector else { return };
    let plus = if interface.prefix { "+" } else { "" };
    push(out, format_args!(" {}{option} {}{plus}", bang(*negated), interface.name));
}

/// A string operand: quoted and escaped unless it is a plain word.
fn quoted(out: &mut String, text: &str) {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !text.is_empty() && text.chars().all(plain) {
        push(out, format_args!(" {text}"));
        return;
    }
    out.push_str(" \"");
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '\'') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}
