//! `-m iprange`.

use dataplane::policy::matches::{IpRangeMatch, Match, Neg, Range};

use crate::iptables::address;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, negatable, required,
};
use crate::model::{MatchBody, Rule, Span};

const SRC: u8 = 0;
const OPTIONS: &[Opt] = &[negatable("src-range", SRC), negatable("dst-range", 1)];

#[derive(Default)]
pub(super) struct IpRange {
    found: IpRangeMatch,
}

impl Module for IpRange {
    fn name(&self) -> &'static str {
        "iprange"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let one = |text: &str| {
            address::parse_address(text, context.family).ok_or_else(|| {
                operand
                    .bad(format!("`{text}' is no address"))
                    .remedy("write FIRST-LAST or a single address")
            })
        };
        let value = match operand.text.split_once('-') {
            None => one(operand.text).map(|only| Range { low: only, high: only })?,
            Some((low, high)) => Range { low: one(low)?, high: one(high)? },
        };
        super::warn_reversed(&value, operand, context);
        let range = Some(Neg { negated: operand.negated, value });
        if id == SRC {
            self.found.src = range;
        } else {
            self.found.dst = range;
        }
        Ok(())
    }
}

impl MatchModule for IpRange {
    fn finish(&self, at: Span, seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        if seen == 0 {
            return Err(required(at, "iprange", "--src-range or --dst-range"));
        }
        Ok(MatchBody::Plain(Match::IpRange(self.found)))
    }
}
