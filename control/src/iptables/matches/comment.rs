//! `-m comment`.

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, plain, required,
};
use crate::model::{MatchBody, Rule, Span};

/// Longest text that the kernel keeps.
const MAX_COMMENT: usize = 255;

const OPTIONS: &[Opt] = &[plain("comment", 0)];

#[derive(Default)]
pub(super) struct Comment {
    text: Option<String>,
}

impl Module for Comment {
    fn name(&self) -> &'static str {
        "comment"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, _id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let kept = &operand.text[..operand.text.floor_char_boundary(MAX_COMMENT)];
        if kept.len() < operand.text.len() {
            context.warnings.push(Problem::new(
                Code::TooLong,
                operand.span,
                format!("only the first {MAX_COMMENT} bytes of the comment are kept"),
            ));
        }
        self.text = Some(kept.to_string());
        Ok(())
    }
}

impl MatchModule for Comment {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let text = self.text.as_ref().ok_or_else(|| required(at, "comment", "--comment"))?;
        Ok(MatchBody::Comment(text.clone()))
    }
}
