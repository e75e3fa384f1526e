//! `-m connbytes`.

use dataplane::conntrack::Direction;
use dataplane::policy::matches::{ConnbytesMatch, ConnbytesUnit, Match, Neg, Range};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, negatable, plain, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] =
    &[negatable("connbytes", 0), plain("connbytes-dir", 1), plain("connbytes-mode", 2)];

/// Names of `--connbytes-dir`.
pub(crate) const DIRECTIONS: [(&str, Option<Direction>); 3] =
    [("original", Some(Direction::Original)), ("reply", Some(Direction::Reply)), ("both", None)];

/// Names of `--connbytes-mode`.
pub(crate) const UNITS: [(&str, ConnbytesUnit); 3] = [
    ("packets", ConnbytesUnit::Packets),
    ("bytes", ConnbytesUnit::Bytes),
    ("avgpkt", ConnbytesUnit::Average),
];

#[derive(Default)]
pub(super) struct Connbytes {
    range: Option<Neg<Range<u64>>>,
    direction: Option<Option<Direction>>,
    unit: Option<ConnbytesUnit>,
}

impl Module for Connbytes {
    fn name(&self) -> &'static str {
        "connbytes"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        match id {
            0 => self.range = Some(range(operand)?),
            1 => self.direction = Some(named(operand, &DIRECTIONS)?),
            _ => self.unit = Some(named(operand, &UNITS)?),
        }
        Ok(())
    }
}

fn range(operand: &Operand<'_>) -> Result<Neg<Range<u64>>, Problem> {
    let (low, high) = match operand.text.split_once(':') {
        None => (operand.text, ""),
        Some(ends) => ends,
    };
    let end = |text: &str, absent: u64| match text {
        "" => Ok(absent),
        _ => value::number(text, 0, u64::MAX).ok_or_else(|| {
            operand
                .bad(format!("`{}' is no range of numbers", operand.text))
                .remedy("write FROM:TO or FROM")
        }),
    };
    let (low, high) = (end(low, 0)?, end(high, u64::MAX)?);
    if low > high {
        return Err(operand
            .bad(format!("`{}' is reversed: no number lies in it", operand.text))
            .remedy("write the lower number first"));
    }
    if operand.negated && low == high {
        // The kernel keeps `!' by swapping the two ends.
        return Err(operand.bad("the kernel forgets the `!' before a range of one number").remedy(
            format!(
                "write two rules, `:{}' and `{}:'",
                low.saturating_sub(1),
                low.saturating_add(1)
            ),
        ));
    }
    Ok(Neg { negated: operand.negated, value: Range { low, high } })
}

fn named<T: Copy>(operand: &Operand<'_>, known: &[(&str, T)]) -> Result<T, Problem> {
    let found = known.iter().find(|(name, _)| *name == operand.text);
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        operand
            .bad(format!("`{}' is none of {}", operand.text, names.join(" ")))
            .remedy(format!("write one of {} in full", names.join(" ")))
    })
}

impl MatchModule for Connbytes {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let (Some(range), Some(direction), Some(unit)) = (self.range, self.direction, self.unit)
        else {
            let options = "--connbytes, --connbytes-dir and --connbytes-mode";
            return Err(required(at, "connbytes", options));
        };
        Ok(MatchBody::Plain(Match::Connbytes(ConnbytesMatch { range, direction, unit })))
    }
}
