//! `-j TOS` and `-j DSCP`.

use dataplane::policy::TableId;
use dataplane::policy::target::HeaderTarget;

use super::in_mangle;
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, plain, required,
};
use crate::iptables::matches::{dscp_value, tos_value};
use crate::iptables::value;
use crate::model::{Rule, Span, TargetSpec};

const TOS_OPTIONS: &[Opt] = &[
    plain("set-tos", 0).excluding(0b1110),
    plain("and-tos", 1).excluding(0b1101),
    plain("or-tos", 2).excluding(0b1011),
    plain("xor-tos", 3).excluding(0b0111),
];
const DSCP_OPTIONS: &[Opt] =
    &[plain("set-dscp", 0).excluding(0b10), plain("set-dscp-class", 1).excluding(0b01)];

#[derive(Default)]
pub(super) struct Tos {
    change: Option<HeaderTarget>,
}

impl Module for Tos {
    fn name(&self) -> &'static str {
        "TOS"
    }

    fn options(&self) -> &'static [Opt] {
        TOS_OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let (clear, toggle) = if id == 0 {
            let (value, mask) = tos_value(operand)?;
            (mask, value)
        } else {
            let bits = value::number8(operand.text).ok_or_else(|| {
                operand.bad(format!("`{}' is no number from 0 to 255", operand.text))
            })?;
            match id {
                1 => (!bits, 0),
                2 => (bits, bits),
                _ => (0, bits),
            }
        };
        self.change = Some(HeaderTarget::Tos { clear, toggle });
        Ok(())
    }
}

impl TargetModule for Tos {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        _rule: &Rule,
        table: TableId,
    ) -> Result<TargetSpec, Problem> {
        in_mangle(at, self.name(), table)?;
        let options = "--set-tos, --and-tos, --or-tos or --xor-tos";
        self.change.map(TargetSpec::Header).ok_or_else(|| required(at, "TOS", options))
    }
}

#[derive(Default)]
pub(super) struct Dscp {
    dscp: Option<u8>,
}

impl Module for Dscp {
    fn name(&self) -> &'static str {
        "DSCP"
    }

    fn options(&self) -> &'static [Opt] {
        DSCP_OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        self.dscp = Some(dscp_value(id == 1, "--set-dscp", operand)?);
        Ok(())
    }
}

impl TargetModule for Dscp {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        _rule: &Rule,
        table: TableId,
    ) -> Result<TargetSpec, Problem> {
        in_mangle(at, self.name(), table)?;
        let options = "--set-dscp or --set-dscp-class";
        let dscp = self.dscp.ok_or_else(|| required(at, "DSCP", options))?;
        Ok(TargetSpec::Header(HeaderTarget::Dscp(dscp)))
    }
}
