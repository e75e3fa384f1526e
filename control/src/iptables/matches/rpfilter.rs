//! `-m rpfilter`.

use dataplane::policy::matches::Match;
use dataplane::policy::place::{PlaceMatch, RpFilterMatch};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, flag,
};
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] =
    &[flag("loose", 0), flag("validmark", 1), flag("accept-local", 2), flag("invert", 3)];

#[derive(Default)]
pub(super) struct RpFilter {
    found: RpFilterMatch,
}

impl Module for RpFilter {
    fn name(&self) -> &'static str {
        "rpfilter"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, _operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        match id {
            0 => self.found.loose = true,
            1 => self.found.valid_mark = true,
            2 => self.found.accept_local = true,
            _ => self.found.invert = true,
        }
        Ok(())
    }
}

impl MatchModule for RpFilter {
    fn finish(&self, _at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        Ok(MatchBody::Plain(Match::Place(PlaceMatch::RpFilter(self.found))))
    }
}
