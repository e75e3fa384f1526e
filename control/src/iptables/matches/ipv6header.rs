//! `-m ipv6header` and `-m eui64`.

use dataplane::policy::matches::{Match, Neg};
use dataplane::policy::protocol::{ExtensionSet, Ipv6HeaderMatch, ProtocolMatch, extension};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, flag, negatable, required,
};
use crate::iptables::names::Names;
use crate::model::{MatchBody, Rule, Span};

const HEADER: u8 = 0;
const SOFT: u8 = 1;
const OPTIONS: &[Opt] = &[negatable("header", HEADER), flag("soft", SOFT)];

/// What a header is called: printed, short, by number; and its bit.
pub(crate) const HEADER_NAMES: [(&str, &str, &str, ExtensionSet); 8] = [
    ("hop-by-hop", "hop", "0", extension::HOP_BY_HOP),
    ("ipv6-opts", "dst", "60", extension::DESTINATION),
    ("ipv6-route", "route", "43", extension::ROUTING),
    ("ipv6-frag", "frag", "44", extension::FRAGMENT),
    ("ah", "auth", "51", extension::AH),
    ("esp", "esp", "50", extension::ESP),
    ("ipv6-nonxt", "none", "59", extension::NONE),
    ("protocol", "prot", "255", extension::PROTOCOL),
];

#[derive(Default)]
pub(super) struct Ipv6Header {
    headers: Option<Neg<ExtensionSet>>,
    soft: bool,
}

impl Module for Ipv6Header {
    fn name(&self) -> &'static str {
        "ipv6header"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        if id == SOFT {
            self.soft = true;
            return Ok(());
        }
        let mut value = 0;
        for word in operand.text.split(',').filter(|word| !word.is_empty()) {
            value |= header(word, context.names).ok_or_else(|| {
                operand
                    .bad(format!("`{word}' is no header"))
                    .remedy("the headers are hop dst route frag auth esp none prot")
            })?;
        }
        if value == 0 {
            return Err(operand.bad("--header names no header"));
        }
        self.headers = Some(Neg { negated: operand.negated, value });
        Ok(())
    }
}

/// Other names of those that are protocols are taken too.
fn header(word: &str, names: &dyn Names) -> Option<ExtensionSet> {
    let number = names.protocol_number(word).map(|number| number.to_string());
    let named = |name: &str| word == name || number.as_deref() == Some(name);
    let found = HEADER_NAMES
        .iter()
        .find(|(long, short, number, _)| word == *long || word == *short || named(number));
    found.map(|(_, _, _, bit)| *bit)
}

impl MatchModule for Ipv6Header {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let headers = self.headers.ok_or_else(|| required(at, "ipv6header", "--header"))?;
        let wanted = Ipv6HeaderMatch { headers, soft: self.soft };
        Ok(MatchBody::Plain(Match::Protocol(ProtocolMatch::Ipv6Header(wanted))))
    }
}

/// It has no options.
pub(super) struct Eui64;

impl Module for Eui64 {
    fn name(&self) -> &'static str {
        "eui64"
    }

    fn options(&self) -> &'static [Opt] {
        &[]
    }

    fn set(&mut self, _id: u8, _operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        Ok(())
    }
}

impl MatchModule for Eui64 {
    fn finish(&self, _at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        Ok(MatchBody::Plain(Match::Protocol(ProtocolMatch::Eui64)))
    }
}
