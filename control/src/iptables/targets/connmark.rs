//! `-j CONNMARK`.

use dataplane::policy::TableId;
use dataplane::policy::target::ConnmarkTarget;

use super::mark::operation;
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, bit, flag, plain, required,
};
use crate::iptables::value;
use crate::model::{Rule, Span, TargetSpec};

const SAVE: u8 = 5;
const RESTORE: u8 = 6;
const MASK: u8 = 7;
const CTMASK: u8 = 8;
const NFMASK: u8 = 9;
/// The ids that say what to do; exactly one must be given.
const OPERATIONS: u32 = 0b111_1111;

const fn operation_option(name: &'static str, id: u8) -> Opt {
    plain(name, id).excluding(OPERATIONS & !bit(id))
}

const OPTIONS: &[Opt] = &[
    operation_option("set-xmark", 0),
    operation_option("set-mark", 1),
    operation_option("and-mark", 2),
    operation_option("or-mark", 3),
    operation_option("xor-mark", 4),
    flag("save-mark", SAVE).excluding(OPERATIONS & !bit(SAVE)),
    flag("restore-mark", RESTORE).excluding(OPERATIONS & !bit(RESTORE)),
    plain("mask", MASK).excluding(bit(CTMASK) | bit(NFMASK)),
    plain("ctmask", CTMASK).excluding(bit(MASK)),
    plain("nfmask", NFMASK).excluding(bit(MASK)),
];

pub(super) struct Connmark {
    /// `Some` for the set family.
    toggle: Option<u32>,
    ctmask: u32,
    nfmask: u32,
}

impl Default for Connmark {
    fn default() -> Self {
        Self { toggle: None, ctmask: u32::MAX, nfmask: u32::MAX }
    }
}

impl Module for Connmark {
    fn name(&self) -> &'static str {
        "CONNMARK"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let mask = || {
            value::number32(operand.text)
                .ok_or_else(|| operand.bad(format!("`{}' is no 32-bit number", operand.text)))
        };
        match id {
            SAVE | RESTORE => {}
            MASK => {
                self.ctmask = mask()?;
                self.nfmask = self.ctmask;
            }
            CTMASK => self.ctmask = mask()?,
            NFMASK => self.nfmask = mask()?,
            _ => {
                // A mask after the operation replaces its mask, one before it is lost.
                let (clear, toggle) = operation(id, operand)?;
                self.ctmask = clear;
                self.toggle = Some(toggle);
            }
        }
        Ok(())
    }
}

impl TargetModule for Connmark {
    fn finish(
        &self,
        at: Span,
        seen: u32,
        _rule: &Rule,
        _table: TableId,
    ) -> Result<TargetSpec, Problem> {
        let (nfmask, ctmask) = (self.nfmask, self.ctmask);
        Ok(TargetSpec::Connmark(match self.toggle {
            Some(toggle) => ConnmarkTarget::Set { clear: ctmask, toggle },
            None if seen & bit(SAVE) != 0 => ConnmarkTarget::Save { nfmask, ctmask },
            None if seen & bit(RESTORE) != 0 => ConnmarkTarget::Restore { nfmask, ctmask },
            None => {
                return Err(required(
                    at,
                    "CONNMARK",
                    "--set-mark, --set-xmark, --and-mark, --or-mark, --xor-mark, \
                     --save-mark or --restore-mark",
                ));
            }
        }))
    }
}
