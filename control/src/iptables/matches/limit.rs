//! `-m limit`.

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, plain,
};
use crate::iptables::value;
use crate::model::{LimitSpec, MatchBody, Rule, Span};

const RATE: u8 = 0;
const OPTIONS: &[Opt] = &[plain("limit", RATE), plain("limit-burst", 1)];

/// Units of the average per second.
const SCALE: u32 = 10_000;
/// What is meant when nothing is given: three an hour, five at once.
const DEFAULT: LimitSpec = LimitSpec { avg: SCALE * 3_600 / 3, burst: 5 };
/// Highest burst that the tools take.
const MAX_BURST: u64 = 10_000;

/// Units as printed, longest first, with their length in units of 1/10000 s.
pub(crate) const RATE_UNITS: &[(&str, u32)] =
    &[("day", SCALE * 86_400), ("hour", SCALE * 3_600), ("min", SCALE * 60), ("sec", SCALE)];

pub(super) struct Limit {
    spec: LimitSpec,
}

impl Default for Limit {
    fn default() -> Self {
        Self { spec: DEFAULT }
    }
}

impl Module for Limit {
    fn name(&self) -> &'static str {
        "limit"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        if id == RATE {
            self.spec.avg = average(operand)?;
        } else {
            let burst = value::number(operand.text, 1, MAX_BURST).ok_or_else(|| {
                operand.bad(format!("`{}' is no burst (1-{MAX_BURST})", operand.text))
            })?;
            self.spec.burst = burst as u32;
        }
        Ok(())
    }
}

/// `N`, `N/second`, `N/minute`, `N/hour` or `N/day`, units abbreviable, to the
/// interval between packets. Like the tools, ignores what follows the digits.
fn average(operand: &Operand<'_>) -> Result<u32, Problem> {
    let bad = || {
        operand
            .bad(format!("`{}' is no rate", operand.text))
            .remedy("write NUMBER/second, NUMBER/minute, NUMBER/hour or NUMBER/day")
    };
    let too_fast = || operand.bad(format!("rate `{}' is above 10000/second", operand.text));
    let (count, unit) = match operand.text.split_once('/') {
        None => (operand.text, SCALE),
        Some((count, unit)) => (count, unit_length(unit).ok_or_else(bad)?),
    };
    let count = count.trim_start_matches([' ', '\t']);
    let count = count.strip_prefix('+').unwrap_or(count);
    let digits = &count[..count.bytes().take_while(u8::is_ascii_digit).count()];
    if digits.bytes().all(|b| b == b'0') {
        return Err(bad());
    }
    let count: u32 = digits.parse().map_err(|_| too_fast())?;
    match unit / count {
        0 => Err(too_fast()),
        average => Ok(average),
    }
}

fn unit_length(unit: &str) -> Option<u32> {
    const NAMES: [(&str, u32); 4] =
        [("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400)];
    let found = NAMES.iter().find(|(name, _)| !unit.is_empty() && value::abbreviates(unit, name));
    found.map(|(_, seconds)| seconds * SCALE)
}

impl MatchModule for Limit {
    fn finish(&self, _at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        Ok(MatchBody::Limit(self.spec))
    }
}
