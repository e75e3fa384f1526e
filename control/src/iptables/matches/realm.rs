//! `-m realm`.

use dataplane::policy::matches::Match;
use dataplane::policy::place::{PlaceMatch, RealmMatch};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, negatable, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] = &[negatable("realm", 0)];

/// The one name that every list of realms has. (The others are in a file of the machine
/// that the rules were written on.)
const COSMOS: &str = "cosmos";

#[derive(Default)]
pub(super) struct Realm {
    found: Option<RealmMatch>,
}

impl Module for Realm {
    fn name(&self) -> &'static str {
        "realm"
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
        let found = match operand.text {
            COSMOS => Some((0, u32::MAX)),
            text => value::value_mask32(text),
        };
        let (value, mask) = found.ok_or_else(|| {
            let message = format!("`{}' is no 32-bit VALUE or VALUE/MASK", operand.text);
            operand.bad(message).remedy("give the number that /etc/iproute2/rt_realms has for it")
        })?;
        self.found = Some(RealmMatch { value, mask, invert: operand.negated });
        Ok(())
    }
}

impl MatchModule for Realm {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let found = self.found.ok_or_else(|| required(at, self.name(), "--realm"))?;
        Ok(MatchBody::Plain(Match::Place(PlaceMatch::Realm(found))))
    }
}
