//! `-j TCPOPTSTRIP` and `-j CHECKSUM`.

use dataplane::policy::TableId;
use dataplane::policy::header::strip::OptionKinds;
use dataplane::policy::target::HeaderTarget;

use super::in_mangle;
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, flag, has_protocol,
    needs_protocol, plain, required,
};
use crate::iptables::value;
use crate::model::{Rule, Span, TargetSpec};

const STRIP_OPTIONS: &[Opt] = &[plain("strip-options", 0)];
const FILL_OPTIONS: &[Opt] = &[flag("checksum-fill", 0)];

/// TCP options that have a name here.
const NAMES: [(&str, u8); 6] =
    [("wscale", 3), ("mss", 2), ("sack-permitted", 4), ("sack", 5), ("timestamp", 8), ("md5", 19)];

#[derive(Default)]
pub(super) struct Strip {
    kinds: OptionKinds,
}

impl Module for Strip {
    fn name(&self) -> &'static str {
        "TCPOPTSTRIP"
    }

    fn options(&self) -> &'static [Opt] {
        STRIP_OPTIONS
    }

    fn set(&mut self, _id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        for part in operand.text.split(',') {
            let named = NAMES.iter().find(|(name, _)| *name == part).map(|(_, kind)| *kind);
            let kind = named.or_else(|| value::number8(part)).ok_or_else(|| {
                let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
                operand
                    .bad(format!("`{part}' is no TCP option"))
                    .remedy(format!("write numbers from 2 to 255, or {}", names.join(", ")))
            })?;
            if kind < 2 {
                return Err(operand.bad("options 0 and 1 are padding and cannot be stripped"));
            }
            if self.kinds.contains(kind) {
                return Err(operand.bad(format!("option `{part}' is given twice")));
            }
            self.kinds.insert(kind);
        }
        Ok(())
    }
}

impl TargetModule for Strip {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        rule: &Rule,
        table: TableId,
    ) -> Result<TargetSpec, Problem> {
        in_mangle(at, self.name(), table)?;
        if !has_protocol(rule, 6) {
            return Err(needs_protocol(at, "TCPOPTSTRIP", "tcp"));
        }
        Ok(TargetSpec::Header(HeaderTarget::StripOptions(self.kinds)))
    }
}

#[derive(Default)]
pub(super) struct Fill;

impl Module for Fill {
    fn name(&self) -> &'static str {
        "CHECKSUM"
    }

    fn options(&self) -> &'static [Opt] {
        FILL_OPTIONS
    }

    fn set(&mut self, _id: u8, _operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        Ok(())
    }
}

impl TargetModule for Fill {
    fn finish(
        &self,
        at: Span,
        seen: u32,
        _rule: &Rule,
        table: TableId,
    ) -> Result<TargetSpec, Problem> {
        if seen == 0 {
            return Err(required(at, "CHECKSUM", "--checksum-fill"));
        }
        in_mangle(at, self.name(), table)?;
        Ok(TargetSpec::Header(HeaderTarget::FillChecksum))
    }
}
