//! `-j MARK`.

use dataplane::policy::TableId;
use dataplane::policy::target::MarkTarget;

use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, plain, required,
};
use crate::iptables::value;
use crate::model::{Rule, Span, TargetSpec};

const OPTIONS: &[Opt] = &[
    plain("set-xmark", 0).excluding(0b11110),
    plain("set-mark", 1).excluding(0b11101),
    plain("and-mark", 2).excluding(0b11011),
    plain("or-mark", 3).excluding(0b10111),
    plain("xor-mark", 4).excluding(0b01111),
];

#[derive(Default)]
pub(super) struct Mark {
    mark: Option<MarkTarget>,
}

impl Module for Mark {
    fn name(&self) -> &'static str {
        "MARK"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let (clear, toggle) = operation(id, operand)?;
        self.mark = Some(MarkTarget { clear, toggle });
        Ok(())
    }
}

/// The bits to clear and the bits to toggle of the operations that MARK and
/// CONNMARK share, in the order set-xmark, set-mark, and, or, xor.
pub(super) fn operation(id: u8, operand: &Operand<'_>) -> Result<(u32, u32), Problem> {
    let bad = |what: &str| operand.bad(format!("`{}' is no {what}", operand.text));
    if id <= 1 {
        let (value, mask) =
            value::value_mask32(operand.text).ok_or_else(|| bad("32-bit VALUE or VALUE/MASK"))?;
        // --set-mark also clears the bits it sets, --set-xmark toggles them.
        return Ok((if id == 0 { mask } else { mask | value }, value));
    }
    let bits = value::number32(operand.text).ok_or_else(|| bad("32-bit number"))?;
    Ok(match id {
        2 => (!bits, 0),
        3 => (bits, bits),
        _ => (0, bits),
    })
}

impl TargetModule for Mark {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        _rule: &Rule,
        _table: TableId,
    ) -> Result<TargetSpec, Problem> {
        let options = "--set-mark, --set-xmark, --and-mark, --or-mark or --xor-mark";
        self.mark.map(TargetSpec::Mark).ok_or_else(|| required(at, "MARK", options))
    }
}
