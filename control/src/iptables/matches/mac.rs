//! `-m mac`.

use dataplane::policy::matches::{Match, Neg};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, negatable, required,
};
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] = &[negatable("mac-source", 0)];

#[derive(Default)]
pub(super) struct Mac {
    source: Option<Neg<[u8; 6]>>,
}

impl Module for Mac {
    fn name(&self) -> &'static str {
        "mac"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(
        &mut self,
        _id: u8,
        operand: &Operand<'_>,
        _context: &mut Context<'_>,
    ) -> Result<(), Problem> {
        let value = parse(operand.text).ok_or_else(|| {
            operand
                .bad(format!("`{}' is no MAC address", operand.text))
                .remedy("write six hexadecimal bytes with colons, 02:00:00:00:00:01")
        })?;
        self.source = Some(Neg { negated: operand.negated, value });
        Ok(())
    }
}

/// Six bytes of one or two hexadecimal digits.
fn parse(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next()?;
        if !(1..=2).contains(&part.len()) || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(bytes)
}

impl MatchModule for Mac {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let source = self.source.ok_or_else(|| required(at, "mac", "--mac-source"))?;
        Ok(MatchBody::Plain(Match::MacSource(source)))
    }
}
