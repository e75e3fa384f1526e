//! `-j TTL` (IPv4) and `-j HL` (IPv6).

use dataplane::policy::TableId;
use dataplane::policy::target::{HeaderTarget, HopChange};

use super::in_mangle;
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, plain, required,
};
use crate::iptables::value;
use crate::model::{Rule, Span, TargetSpec};

const SET: u8 = 0;
const INCREMENT: u8 = 1;

const TTL: &[Opt] = &[
    plain("ttl-set", SET).excluding(0b110),
    plain("ttl-inc", INCREMENT).excluding(0b101),
    plain("ttl-dec", 2).excluding(0b011),
];
const HL: &[Opt] = &[
    plain("hl-set", SET).excluding(0b110),
    plain("hl-inc", INCREMENT).excluding(0b101),
    plain("hl-dec", 2).excluding(0b011),
];

pub(super) struct Hops {
    v6: bool,
    change: Option<HopChange>,
}

impl Hops {
    pub(super) fn new(v6: bool) -> Self {
        Self { v6, change: None }
    }
}

impl Module for Hops {
    fn name(&self) -> &'static str {
        if self.v6 { "HL" } else { "TTL" }
    }

    fn options(&self) -> &'static [Opt] {
        if self.v6 { HL } else { TTL }
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let (what, change): (u64, fn(u8) -> HopChange) = match id {
            SET => (0, HopChange::Set),
            INCREMENT => (1, HopChange::Increment),
            _ => (1, HopChange::Decrement),
        };
        let value = value::number(operand.text, what, 0xff).ok_or_else(|| {
            operand.bad(format!("`{}' is no number from {what} to 255", operand.text))
        })?;
        self.change = Some(change(value as u8));
        Ok(())
    }
}

impl TargetModule for Hops {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        _rule: &Rule,
        table: TableId,
    ) -> Result<TargetSpec, Problem> {
        in_mangle(at, self.name(), table)?;
        let options = match self.v6 {
            true => "--hl-set, --hl-inc or --hl-dec",
            false => "--ttl-set, --ttl-inc or --ttl-dec",
        };
        let change = self.change.ok_or_else(|| required(at, self.name(), options))?;
        Ok(TargetSpec::Header(HeaderTarget::Hops(change)))
    }
}
