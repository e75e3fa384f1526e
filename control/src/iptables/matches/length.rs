//! `-m length`.

use dataplane::policy::matches::{Match, Neg, Range};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, negatable, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] = &[negatable("length", 0)];

#[derive(Default)]
pub(super) struct Length {
    length: Option<Neg<Range<u16>>>,
}

impl Module for Length {
    fn name(&self) -> &'static str {
        "length"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(
        &mut self,
        _id: u8,
        operand: &Operand<'_>,
        context: &mut Context<'_>,
    ) -> Result<(), Problem> {
        let (low, high) = value::range(operand.text, 0xffff).ok_or_else(|| {
            operand.bad(format!("`{}' is no length or LOW:HIGH (0-65535)", operand.text))
        })?;
        let value = Range { low: low as u16, high: high as u16 };
        super::warn_reversed(&value, operand, context);
        self.length = Some(Neg { negated: operand.negated, value });
        Ok(())
    }
}

impl MatchModule for Length {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let length = self.length.ok_or_else(|| required(at, "length", "--length"))?;
        Ok(MatchBody::Plain(Match::Length(length)))
    }
}
