//! `-m tcpmss`.

use dataplane::policy::matches::{Match, Neg, Range};
use dataplane::policy::protocol::ProtocolMatch;

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, has_protocol, needs_protocol, negatable,
    required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] = &[negatable("mss", 0)];

#[derive(Default)]
pub(super) struct TcpMss {
    mss: Option<Neg<Range<u16>>>,
}

impl Module for TcpMss {
    fn name(&self) -> &'static str {
        "tcpmss"
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
        let (low, high) = value::range(operand.text, 0xffff).ok_or_else(|| {
            operand.bad(format!("`{}' is no segment size or LOW:HIGH (0-65535)", operand.text))
        })?;
        if low > high {
            return Err(operand.bad(format!("`{}' is reversed", operand.text)));
        }
        let value = Range { low: low as u16, high: high as u16 };
        self.mss = Some(Neg { negated: operand.negated, value });
        Ok(())
    }
}

impl MatchModule for TcpMss {
    fn finish(&self, at: Span, _seen: u32, rule: &Rule) -> Result<MatchBody, Problem> {
        let mss = self.mss.ok_or_else(|| required(at, "tcpmss", "--mss"))?;
        if !has_protocol(rule, 6) {
            return Err(needs_protocol(at, "the tcpmss match", "tcp"));
        }
        Ok(MatchBody::Plain(Match::Protocol(ProtocolMatch::TcpMss(mss))))
    }
}
