//! Numbers and ranges of them, as several matches take them.

use dataplane::policy::matches::{Neg, Range};

use crate::diagnostics::Code;
use crate::iptables::extension::{Context, Operand, Problem};
use crate::iptables::value;

/// A range of all numbers compares nothing and the tools drop it; its inverse never
/// holds, and the tools print it as if nothing had been asked.
pub(super) fn unless_all<T: Copy + PartialEq + Bounded>(
    range: Neg<Range<T>>,
    operand: &Operand<'_>,
    context: &mut Context<'_>,
) -> Option<Neg<Range<T>>> {
    let all = range.value == Range { low: T::MIN, high: T::MAX };
    if all && range.negated {
        let message = format!("nothing lies outside `{}'", operand.text);
        context.warnings.push(Problem::new(Code::NeverMatches, operand.span, message));
    }
    (range.negated || !all).then_some(range)
}

/// Numbers with ends.
pub(super) trait Bounded {
    const MIN: Self;
    const MAX: Self;
}

impl Bounded for u8 {
    const MIN: Self = Self::MIN;
    const MAX: Self = Self::MAX;
}

impl Bounded for u32 {
    const MIN: Self = Self::MIN;
    const MAX: Self = Self::MAX;
}

/// The length of a header in bytes; any 32-bit number is taken.
pub(super) fn header_length(operand: &Operand<'_>) -> Result<u32, Problem> {
    value::number32(operand.text)
        .ok_or_else(|| operand.bad(format!("`{}' is no length in bytes", operand.text)))
}

/// Warns of an option that the kernel takes and does not look at.
pub(super) fn warn_unread(operand: &Operand<'_>, context: &mut Context<'_>, option: &str) {
    let message = format!("the kernel does not look at {option}: it compares nothing");
    context.warnings.push(Problem::new(Code::NoEffect, operand.span, message));
}

/// `VALUE` or `VALUE/MASK`.
pub(super) fn value_mask(operand: &Operand<'_>) -> Result<(u32, u32), Problem> {
    value::value_mask32(operand.text)
        .ok_or_else(|| operand.bad(format!("`{}' is no 32-bit VALUE or VALUE/MASK", operand.text)))
}

/// The same, or `zero`: the name that every list in a `file` of /etc/iproute2 has for 0.
/// What its other names mean is up to the machine that the rules were written on.
pub(super) fn named_value_mask(
    operand: &Operand<'_>,
    zero: &str,
    file: &str,
) -> Result<(u32, u32), Problem> {
    if operand.text == zero {
        return Ok((0, u32::MAX));
    }
    let remedy = format!("for a name, write the number that /etc/iproute2/{file} has for it");
    value_mask(operand).map_err(|problem| problem.remedy(remedy))
}
