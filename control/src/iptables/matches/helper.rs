//! `-m helper`.

use dataplane::policy::matches::{Match, Neg};

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, negatable, required,
};
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] = &[negatable("helper", 0)];

/// Longest name that the kernel keeps.
const MAX_NAME: usize = 29;

#[derive(Default)]
pub(super) struct Helper {
    name: Option<Neg<Box<str>>>,
}

impl Module for Helper {
    fn name(&self) -> &'static str {
        "helper"
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
        let kept = &operand.text[..operand.text.floor_char_boundary(MAX_NAME)];
        if kept.len() < operand.text.len() {
            let message = format!("only the first {MAX_NAME} bytes of the name are kept: `{kept}'");
            context.warnings.push(Problem::new(Code::TooLong, operand.span, message));
        }
        self.name = Some(Neg { negated: operand.negated, value: kept.into() });
        Ok(())
    }
}

impl MatchModule for Helper {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let name = self.name.clone().ok_or_else(|| required(at, "helper", "--helper"))?;
        Ok(MatchBody::Plain(Match::Helper(name)))
    }
}
