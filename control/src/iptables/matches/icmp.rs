//! `-m icmp` and `-m icmp6`.

use dataplane::policy::matches::{IcmpMatch, Match, Neg, Range};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, has_protocol, needs_protocol,
    negatable, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const OPTIONS_V4: &[Opt] = &[negatable("icmp-type", 0)];
const OPTIONS_V6: &[Opt] = &[negatable("icmpv6-type", 0)];

/// A name, its type, and its code if it names one.
type Name = (&'static str, u8, Option<u8>);

const NAMES_V4: &[Name] = &[
    ("any", 255, None),
    ("echo-reply", 0, None),
    ("pong", 0, None),
    ("destination-unreachable", 3, None),
    ("network-unreachable", 3, Some(0)),
    ("host-unreachable", 3, Some(1)),
    ("protocol-unreachable", 3, Some(2)),
    ("port-unreachable", 3, Some(3)),
    ("fragmentation-needed", 3, Some(4)),
    ("source-route-failed", 3, Some(5)),
    ("network-unknown", 3, Some(6)),
    ("host-unknown", 3, Some(7)),
    ("network-prohibited", 3, Some(9)),
    ("host-prohibited", 3, Some(10)),
    ("TOS-network-unreachable", 3, Some(11)),
    ("TOS-host-unreachable", 3, Some(12)),
    ("communication-prohibited", 3, Some(13)),
    ("host-precedence-violation", 3, Some(14)),
    ("precedence-cutoff", 3, Some(15)),
    ("source-quench", 4, None),
    ("redirect", 5, None),
    ("network-redirect", 5, Some(0)),
    ("host-redirect", 5, Some(1)),
    ("TOS-network-redirect", 5, Some(2)),
    ("TOS-host-redirect", 5, Some(3)),
    ("echo-request", 8, None),
    ("ping", 8, None),
    ("router-advertisement", 9, None),
    ("router-solicitation", 10, None),
    ("time-exceeded", 11, None),
    ("ttl-exceeded", 11, None),
    ("ttl-zero-during-transit", 11, Some(0)),
    ("ttl-zero-during-reassembly", 11, Some(1)),
    ("parameter-problem", 12, None),
    ("ip-header-bad", 12, Some(0)),
    ("required-option-missing", 12, Some(1)),
    ("timestamp-request", 13, None),
    ("timestamp-reply", 14, None),
    ("address-mask-request", 17, None),
    ("address-mask-reply", 18, None),
];

const NAMES_V6: &[Name] = &[
    ("destination-unreachable", 1, None),
    ("no-route", 1, Some(0)),
    ("communication-prohibited", 1, Some(1)),
    ("beyond-scope", 1, Some(2)),
    ("address-unreachable", 1, Some(3)),
    ("port-unreachable", 1, Some(4)),
    ("failed-policy", 1, Some(5)),
    ("reject-route", 1, Some(6)),
    ("packet-too-big", 2, None),
    ("time-exceeded", 3, None),
    ("ttl-exceeded", 3, None),
    ("ttl-zero-during-transit", 3, Some(0)),
    ("ttl-zero-during-reassembly", 3, Some(1)),
    ("parameter-problem", 4, None),
    ("bad-header", 4, Some(0)),
    ("unknown-header-type", 4, Some(1)),
    ("unknown-option", 4, Some(2)),
    ("echo-request", 128, None),
    ("ping", 128, None),
    ("echo-reply", 129, None),
    ("pong", 129, None),
    ("router-solicitation", 133, None),
    ("router-advertisement", 134, None),
    ("neighbour-solicitation", 135, None),
    ("neighbor-solicitation", 135, None),
    ("neighbour-advertisement", 136, None),
    ("neighbor-advertisement", 136, None),
    ("redirect", 137, None),
];

pub(super) struct Icmp {
    v6: bool,
    kind: Option<Neg<(u8, Range<u8>)>>,
}

impl Icmp {
    pub(super) fn new(v6: bool) -> Self {
        Self { v6, kind: None }
    }
}

impl Module for Icmp {
    fn name(&self) -> &'static str {
        if self.v6 { "icmp6" } else { "icmp" }
    }

    fn options(&self) -> &'static [Opt] {
        if self.v6 { OPTIONS_V6 } else { OPTIONS_V4 }
    }

    fn set(&mut self, _id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let names = if self.v6 { NAMES_V6 } else { NAMES_V4 };
        let (kind, code) = match named(names, operand)? {
            Some(found) => found,
            None => numeric(operand)?,
        };
        let mut codes = match code {
            Some(code) => Range { low: code, high: code },
            None => Range { low: 0, high: 255 },
        };
        if !self.v6 && kind == 255 {
            // The kernel takes type 255 for any type and then ignores the code.
            codes = Range { low: 0, high: 255 };
        }
        self.kind = Some(Neg { negated: operand.negated, value: (kind, codes) });
        Ok(())
    }
}

/// The name that the text abbreviates, if it abbreviates any.
fn named(names: &[Name], operand: &Operand<'_>) -> Result<Option<(u8, Option<u8>)>, Problem> {
    let mut hits = names.iter().filter(|name| value::abbreviates(operand.text, name.0));
    match (hits.next(), hits.next()) {
        (Some(first), Some(second)) => Err(operand
            .bad(format!("ambiguous ICMP type `{}'", operand.text))
            .remedy(format!("write `{}' or `{}'", first.0, second.0))),
        (Some(name), None) => Ok(Some((name.1, name.2))),
        (None, _) => Ok(None),
    }
}

fn numeric(operand: &Operand<'_>) -> Result<(u8, Option<u8>), Problem> {
    let bad = || {
        operand
            .bad(format!("unknown ICMP type `{}'", operand.text))
            .remedy("write a name, TYPE or TYPE/CODE, each number from 0 to 255")
    };
    let (kind, code) = match operand.text.split_once('/') {
        None => (operand.text, None),
        Some((kind, code)) => (kind, Some(value::number8(code).ok_or_else(bad)?)),
    };
    Ok((value::number8(kind).ok_or_else(bad)?, code))
}

impl MatchModule for Icmp {
    fn finish(&self, at: Span, _seen: u32, rule: &Rule) -> Result<MatchBody, Problem> {
        let option = self.options()[0].name;
        let kind = self.kind.ok_or_else(|| required(at, self.name(), &format!("--{option}")))?;
        let (number, name) = if self.v6 { (58, "icmpv6") } else { (1, "icmp") };
        if !has_protocol(rule, number) {
            return Err(needs_protocol(at, &format!("the {} match", self.name()), name));
        }
        Ok(MatchBody::Plain(Match::Icmp(IcmpMatch { v6: self.v6, kind })))
    }
}
