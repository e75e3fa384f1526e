//! `-m devgroup`.

use dataplane::policy::matches::{Match, Neg};
use dataplane::policy::place::{DevGroupMatch, PlaceMatch};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, negatable, required,
};
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] = &[negatable("src-group", 0), negatable("dst-group", 1)];

#[derive(Default)]
pub(super) struct DevGroup {
    found: DevGroupMatch,
}

impl Module for DevGroup {
    fn name(&self) -> &'static str {
        "devgroup"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let value = super::named_value_mask(operand, "default", "group")?;
        let found = Some(Neg { negated: operand.negated, value });
        match id {
            0 => self.found.src = found,
            _ => self.found.dst = found,
        }
        Ok(())
    }
}

impl MatchModule for DevGroup {
    fn finish(&self, at: Span, seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        if seen == 0 {
            return Err(required(at, self.name(), "--src-group or --dst-group"));
        }
        Ok(MatchBody::Plain(Match::Place(PlaceMatch::DevGroup(self.found))))
    }
}
