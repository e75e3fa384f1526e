//! `-m length`.

use dataplane::policy::matches::{Match, Range};

use super::one::Kind;
use crate::iptables::extension::{Context, Operand, Problem, negatable};
use crate::iptables::value;
use crate::model::MatchBody;

pub(super) const LENGTH: Kind<Range<u16>> = Kind {
    name: "length",
    options: &[negatable("length", 0)],
    option: "--length",
    protocol: None,
    read,
    made: |length| MatchBody::Plain(Match::Length(length)),
};

fn read(operand: &Operand<'_>, context: &mut Context<'_>) -> Result<Range<u16>, Problem> {
    let (low, high) = value::range(operand.text, 0xffff).ok_or_else(|| {
        operand.bad(format!("`{}' is no length or LOW:HIGH (0-65535)", operand.text))
    })?;
    let value = Range { low: low as u16, high: high as u16 };
    super::warn_reversed(&value, operand, context);
    Ok(value)
}
