//! `-m mark` and `-m connmark`.

use dataplane::policy::matches::{Match, Neg};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, negatable, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] = &[negatable("mark", 0)];

pub(super) struct Mark {
    connection: bool,
    mark: Option<Neg<(u32, u32)>>,
}

impl Mark {
    pub(super) fn new(connection: bool) -> Self {
        Self { connection, mark: None }
    }
}

impl Module for Mark {
    fn name(&self) -> &'static str {
        if self.connection { "connmark" } else { "mark" }
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(
        &mut self,
        _id: u8,
        operand: &Operand<'_>,
        _context: &mut Context<'_>,
    ) -> Result<(), Problem> {
        let value = value::value_mask32(operand.text).ok_or_else(|| {
            operand.bad(format!("`{}' is no 32-bit VALUE or VALUE/MASK", operand.text))
        })?;
        self.mark = Some(Neg { negated: operand.negated, value });
        Ok(())
    }
}

impl MatchModule for Mark {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let mark = self.mark.ok_or_else(|| required(at, self.name(), "--mark"))?;
        Ok(MatchBody::Plain(if self.connection {
            Match::Connmark(mark)
        } else {
            Match::Mark(mark)
        }))
    }
}
