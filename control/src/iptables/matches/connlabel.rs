//! `-m connlabel`.

use dataplane::policy::matches::{ConnlabelMatch, Match, Neg};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, flag, negatable, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] = &[negatable("label", 0), flag("set", 1)];

/// Highest label.
const MAX_LABEL: u64 = 127;

#[derive(Default)]
pub(super) struct Connlabel {
    label: Option<Neg<u8>>,
    set: bool,
}

impl Module for Connlabel {
    fn name(&self) -> &'static str {
        "connlabel"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        if id == 1 {
            self.set = true;
            return Ok(());
        }
        let number = || value::number(operand.text, 0, MAX_LABEL).map(|label| label as u8);
        let label = context.names.label(operand.text).or_else(number).ok_or_else(|| {
            operand.bad(format!("`{}' is no connection label", operand.text)).remedy(
                "write a number from 0 to 127, or a name that /etc/xtables/connlabel.conf gives one",
            )
        })?;
        self.label = Some(Neg { negated: operand.negated, value: label });
        Ok(())
    }
}

impl MatchModule for Connlabel {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let label = self.label.ok_or_else(|| required(at, "connlabel", "--label"))?;
        Ok(MatchBody::Plain(Match::Connlabel(ConnlabelMatch { label, set: self.set })))
    }
}
