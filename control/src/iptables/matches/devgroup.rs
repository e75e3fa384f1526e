//! `-m devgroup`.

use dataplane::policy::matches::{Match, Neg};
use dataplane::policy::place::{DevGroupMatch, PlaceMatch};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, negatable, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] = &[negatable("src-group", 0), negatable("dst-group", 1)];

/// The one name that every list of groups has. (The others are in a file of the machine
/// that the rules were written on.)
const DEFAULT: &str = "default";

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

    fn set(
        &mut self,
        id: u8,
        operand: &Operand<'_>,
        _context: &mut Context<'_>,
    ) -> Result<(), Problem> {
        let found = match operand.text {
            DEFAULT => Some((0, u32::MAX)),
            text => value::value_mask32(text),
        };
        let value = found.ok_or_else(|| {
            let message = format!("`{}' is no 32-bit VALUE or VALUE/MASK", operand.text);
            operand.bad(message).remedy("give the number that /etc/iproute2/group has for it")
        })?;
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
