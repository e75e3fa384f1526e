//! `-j SYNPROXY`.

use dataplane::policy::TableId;
use dataplane::policy::target::SynproxyTarget;

use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, flag, has_protocol,
    needs_protocol, plain,
};
use crate::iptables::value;
use crate::model::{Rule, Span, TargetSpec};

const OPTIONS: &[Opt] = &[
    plain("mss", 0),
    plain("wscale", 1),
    flag("sack-perm", 2),
    flag("timestamp", 3),
    flag("ecn", 4),
];

#[derive(Default)]
pub(super) struct Synproxy {
    found: SynproxyTarget,
}

impl Module for Synproxy {
    fn name(&self) -> &'static str {
        "SYNPROXY"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        // The tools keep the low bits of a larger number.
        let number = |max: u64| {
            value::number(operand.text, 0, max).ok_or_else(|| {
                operand
                    .bad(format!("`{}' is out of range", operand.text))
                    .remedy(format!("write a number from 0 to {max}"))
            })
        };
        match id {
            0 => self.found.mss = Some(number(0xffff)? as u16),
            1 => self.found.wscale = Some(number(0xff)? as u8),
            2 => self.found.sack_perm = true,
            3 => self.found.timestamp = true,
            _ => self.found.ecn = true,
        }
        Ok(())
    }
}

impl TargetModule for Synproxy {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        rule: &Rule,
        _table: TableId,
    ) -> Result<TargetSpec, Problem> {
        if !has_protocol(rule, 6) {
            return Err(needs_protocol(at, "SYNPROXY", "tcp"));
        }
        Ok(TargetSpec::Synproxy(self.found))
    }
}
