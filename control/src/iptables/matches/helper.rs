//! `-m helper`.

use dataplane::policy::matches::Match;

use super::one::Kind;
use crate::diagnostics::Code;
use crate::iptables::extension::{Context, Operand, Problem, negatable};
use crate::model::MatchBody;

/// Longest name that the kernel keeps.
const MAX_NAME: usize = 29;

pub(super) const HELPER: Kind<Box<str>> = Kind {
    name: "helper",
    options: &[negatable("helper", 0)],
    option: "--helper",
    protocol: None,
    read,
    made: |name| MatchBody::Plain(Match::Helper(name)),
};

fn read(operand: &Operand<'_>, context: &mut Context<'_>) -> Result<Box<str>, Problem> {
    let kept = &operand.text[..operand.text.floor_char_boundary(MAX_NAME)];
    if kept.len() < operand.text.len() {
        let message = format!("only the first {MAX_NAME} bytes of the name are kept: `{kept}'");
        context.warnings.push(Problem::new(Code::TooLong, operand.span, message));
    }
    Ok(kept.into())
}
