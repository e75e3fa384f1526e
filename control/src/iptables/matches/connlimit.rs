//! `-m connlimit`.

use dataplane::packet::Family;
use dataplane::policy::tally::ConnRule;

use super::hashlimit::length;
use crate::iptables::address::width;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, bit, flag, negatable, plain,
    required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span, TallySpec};

const UPTO: u8 = 0;
const ABOVE: u8 = 1;
const MASK: u8 = 2;
const SOURCE: u8 = 3;
const DESTINATION: u8 = 4;

const OPTIONS: &[Opt] = &[
    negatable("connlimit-upto", UPTO).excluding(bit(ABOVE)),
    negatable("connlimit-above", ABOVE).excluding(bit(UPTO)),
    plain("connlimit-mask", MASK),
    flag("connlimit-saddr", SOURCE).excluding(bit(DESTINATION)),
    flag("connlimit-daddr", DESTINATION).excluding(bit(SOURCE)),
];

pub(super) struct ConnLimit {
    rule: ConnRule,
    given: bool,
}

impl ConnLimit {
    pub(super) fn new(family: Family) -> Self {
        let len = width(family) as u8;
        let rule = ConnRule { limit: 0, above: false, len, destination: false };
        Self { rule, given: false }
    }
}

impl Module for ConnLimit {
    fn name(&self) -> &'static str {
        "connlimit"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        match id {
            UPTO | ABOVE => {
                let number = value::number32(operand.text);
                let bad = || operand.bad(format!("`{}' is no number", operand.text));
                self.rule.limit = number.ok_or_else(bad)?;
                self.rule.above = (id == ABOVE) != operand.negated;
                self.given = true;
            }
            MASK => self.rule.len = length(operand, context.family)?,
            SOURCE => self.rule.destination = false,
            _ => self.rule.destination = true,
        }
        Ok(())
    }
}

impl MatchModule for ConnLimit {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        if !self.given {
            return Err(required(at, "connlimit", "--connlimit-upto or --connlimit-above"));
        }
        Ok(MatchBody::Tally(TallySpec::Conn { rule: self.rule }))
    }
}
