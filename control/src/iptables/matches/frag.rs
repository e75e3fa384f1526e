//! `-m frag`.

use dataplane::policy::matches::{Match, Neg, Range};
use dataplane::policy::protocol::{FragMatch, ProtocolMatch};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, bit, flag, negatable,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const ID: u8 = 0;
const LENGTH: u8 = 1;
const RESERVED: u8 = 2;
const FIRST: u8 = 3;
const MORE: u8 = 4;
const LAST: u8 = 5;

const OPTIONS: &[Opt] = &[
    negatable("fragid", ID),
    negatable("fraglen", LENGTH),
    flag("fragres", RESERVED),
    flag("fragfirst", FIRST),
    flag("fragmore", MORE).excluding(bit(LAST)),
    flag("fraglast", LAST).excluding(bit(MORE)),
];

#[derive(Default)]
pub(super) struct Frag {
    frag: FragMatch,
}

impl Module for Frag {
    fn name(&self) -> &'static str {
        "frag"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let negated = operand.negated;
        match id {
            ID => {
                let (low, high) =
                    value::range(operand.text, u64::from(u32::MAX)).ok_or_else(|| {
                        operand.bad(format!("`{}' is no number or LOW:HIGH", operand.text))
                    })?;
                let value = Range { low: low as u32, high: high as u32 };
                super::warn_reversed(&value, operand, context);
                self.frag.id = super::unless_all(Neg { negated, value }, operand, context);
            }
            LENGTH => {
                self.frag.length = Some(Neg { negated, value: super::header_length(operand)? });
                super::warn_unread(operand, context, "--fraglen");
            }
            RESERVED => self.frag.reserved = true,
            FIRST => self.frag.first = true,
            more_or_last => self.frag.more = Some(more_or_last == MORE),
        }
        Ok(())
    }
}

impl MatchModule for Frag {
    fn finish(&self, _at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        Ok(MatchBody::Plain(Match::Protocol(ProtocolMatch::Frag(self.frag))))
    }
}
