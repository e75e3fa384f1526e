//! `-j SNPT` and `-j DNPT`.

use dataplane::packet::Family;
use dataplane::policy::TableId;
use dataplane::policy::header::prefix::{PREFIX_MAX, PrefixTarget};
use dataplane::policy::target::HeaderTarget;

use super::in_mangle;
use crate::iptables::address;
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, plain, required,
};
use crate::model::{Rule, Span, TargetSpec};

const FROM: u8 = 0;
const OPTIONS: &[Opt] = &[plain("src-pfx", FROM), plain("dst-pfx", 1)];

pub(super) struct Prefix {
    source: bool,
    from: Option<(u128, u8)>,
    to: Option<(u128, u8)>,
}

impl Prefix {
    pub(super) fn new(source: bool) -> Self {
        Self { source, from: None, to: None }
    }
}

/// A prefix that the kernel takes, and the tools print again.
fn prefix(operand: &Operand<'_>) -> Result<(u128, u8), Problem> {
    let found = address::parse_unmasked(operand.text, Family::V6, operand.span)?;
    let length = found.mask.leading_ones() as u8;
    let whole = found.mask == address::prefix_mask(Family::V6, u32::from(length));
    if !whole || length == 0 || length > PREFIX_MAX {
        return Err(operand
            .bad(format!("`{}' is no prefix of 1 to {PREFIX_MAX} bits", operand.text))
            .remedy(format!("write PREFIX::/LENGTH, the length from 1 to {PREFIX_MAX}")));
    }
    if found.address & !found.mask != 0 {
        return Err(operand.bad(format!("`{}' has bits behind its prefix", operand.text)).remedy(
            format!(
                "write {}/{length}",
                address::format_address(found.address & found.mask, Family::V6)
            ),
        ));
    }
    Ok((found.address, length))
}

impl Module for Prefix {
    fn name(&self) -> &'static str {
        if self.source { "SNPT" } else { "DNPT" }
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let found = Some(prefix(operand)?);
        if id == FROM {
            self.from = found;
        } else {
            self.to = found;
        }
        Ok(())
    }
}

impl TargetModule for Prefix {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        _rule: &Rule,
        table: TableId,
    ) -> Result<TargetSpec, Problem> {
        in_mangle(at, self.name(), table)?;
        let (Some(from), Some(to)) = (self.from, self.to) else {
            return Err(required(at, self.name(), "--src-pfx and --dst-pfx"));
        };
        let target = PrefixTarget { source: self.source, from, to };
        Ok(TargetSpec::Header(HeaderTarget::Prefix(target)))
    }
}
