//! `-j NFLOG`, `-j AUDIT`, `-j TRACE`.

use dataplane::policy::TableId;
use dataplane::policy::report::{AuditKind, NflogTarget, ReportTarget};

use super::wrong_table;
use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, bit, plain, required,
};
use crate::iptables::value;
use crate::model::{Rule, Span, TargetSpec};

const GROUP: u8 = 0;
const PREFIX: u8 = 1;
const RANGE: u8 = 2;
const SIZE: u8 = 3;
const THRESHOLD: u8 = 4;

const NFLOG: &[Opt] = &[
    plain("nflog-group", GROUP),
    plain("nflog-prefix", PREFIX),
    plain("nflog-range", RANGE).excluding(bit(SIZE)),
    plain("nflog-size", SIZE).excluding(bit(RANGE)),
    plain("nflog-threshold", THRESHOLD),
];

/// Longest prefix that the kernel keeps.
const MAX_PREFIX: usize = 63;

#[derive(Default)]
pub(super) struct Nflog {
    found: NflogTarget,
}

impl Module for Nflog {
    fn name(&self) -> &'static str {
        "NFLOG"
    }

    fn options(&self) -> &'static [Opt] {
        NFLOG
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let number = |max: u32| {
            let read = value::number(operand.text, 0, max.into());
            read.map(|number| number as u32).ok_or_else(|| {
                operand
                    .bad(format!("`{}' is out of range", operand.text))
                    .remedy(format!("write a number from 0 to {max}"))
            })
        };
        match id {
            GROUP => self.found.group = number(0xffff)? as u16,
            PREFIX => self.found.prefix = prefix(operand, context)?,
            SIZE => self.found.size = Some(number(u32::MAX)?),
            THRESHOLD => self.found.threshold = number(0xffff)? as u16,
            _ => {
                self.found.range = number(u32::MAX)?;
                context.warnings.push(
                    Problem::new(
                        Code::NoEffect,
                        operand.span,
                        "--nflog-range has no effect, here as in the kernel",
                    )
                    .remedy("write --nflog-size to limit what is kept of each packet"),
                );
            }
        }
        Ok(())
    }
}

fn prefix(operand: &Operand<'_>, context: &mut Context<'_>) -> Result<Box<str>, Problem> {
    if operand.text.is_empty() {
        return Err(operand.bad("the prefix is empty").remedy("leave --nflog-prefix out"));
    }
    let kept = &operand.text[..operand.text.floor_char_boundary(MAX_PREFIX)];
    if kept.len() < operand.text.len() {
        context.warnings.push(Problem::new(
            Code::TooLong,
            operand.span,
            format!("only the first {MAX_PREFIX} bytes of the prefix are kept: `{kept}'"),
        ));
    }
    Ok(kept.into())
}

impl TargetModule for Nflog {
    fn finish(
        &self,
        _at: Span,
        _seen: u32,
        _rule: &Rule,
        _table: TableId,
    ) -> Result<TargetSpec, Problem> {
        Ok(TargetSpec::Report(ReportTarget::Nflog(self.found.clone())))
    }
}

const AUDIT: &[Opt] = &[plain("type", 0)];

#[derive(Default)]
pub(super) struct Audit {
    kind: Option<AuditKind>,
}

impl Module for Audit {
    fn name(&self) -> &'static str {
        "AUDIT"
    }

    fn options(&self) -> &'static [Opt] {
        AUDIT
    }

    fn set(&mut self, _id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let named = |kind: &AuditKind| operand.text.eq_ignore_ascii_case(kind.name());
        self.kind = AuditKind::ALL.into_iter().find(named);
        self.kind.map(|_| ()).ok_or_else(|| {
            operand
                .bad(format!("`{}' is no type of audit record", operand.text))
                .remedy("write accept, drop or reject")
        })
    }
}

impl TargetModule for Audit {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        _rule: &Rule,
        _table: TableId,
    ) -> Result<TargetSpec, Problem> {
        let kind = self.kind.ok_or_else(|| required(at, "AUDIT", "--type"))?;
        Ok(TargetSpec::Report(ReportTarget::Audit(kind)))
    }
}

pub(super) struct Trace;

impl Module for Trace {
    fn name(&self) -> &'static str {
        "TRACE"
    }

    fn options(&self) -> &'static [Opt] {
        &[]
    }

    fn set(&mut self, _: u8, _: &Operand<'_>, _: &mut Context<'_>) -> Result<(), Problem> {
        Ok(())
    }
}

impl TargetModule for Trace {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        _rule: &Rule,
        table: TableId,
    ) -> Result<TargetSpec, Problem> {
        match table {
            TableId::Raw => Ok(TargetSpec::Report(ReportTarget::Trace)),
            _ => Err(wrong_table(at, "TRACE", "raw", table)),
        }
    }
}
