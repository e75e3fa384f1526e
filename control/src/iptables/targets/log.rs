//! `-j LOG`.

use dataplane::policy::TableId;
use dataplane::policy::target::LogTarget;

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, flag, plain,
};
use crate::iptables::value;
use crate::model::{Rule, Span, TargetSpec};

const OPTIONS: &[Opt] = &[
    plain("log-level", 0),
    plain("log-prefix", 1),
    flag("log-tcp-sequence", 2),
    flag("log-tcp-options", 3),
    flag("log-ip-options", 4),
    flag("log-uid", 5),
    flag("log-macdecode", 6),
];

/// Longest prefix that the kernel keeps.
const MAX_PREFIX: usize = 29;
/// `warning`.
const DEFAULT_LEVEL: u8 = 4;

const LEVELS: &[(&str, u8)] = &[
    ("alert", 1),
    ("crit", 2),
    ("debug", 7),
    ("emerg", 0),
    ("error", 3),
    ("info", 6),
    ("notice", 5),
    ("panic", 0),
    ("warning", 4),
];

pub(super) struct Log {
    log: LogTarget,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            log: LogTarget {
                level: DEFAULT_LEVEL,
                prefix: "".into(),
                tcp_sequence: false,
                tcp_options: false,
                ip_options: false,
                uid: false,
                mac_decode: false,
            },
        }
    }
}

impl Module for Log {
    fn name(&self) -> &'static str {
        "LOG"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        match id {
            0 => self.log.level = level(operand)?,
            1 => self.log.prefix = prefix(operand, context)?,
            2 => self.log.tcp_sequence = true,
            3 => self.log.tcp_options = true,
            4 => self.log.ip_options = true,
            5 => self.log.uid = true,
            _ => self.log.mac_decode = true,
        }
        Ok(())
    }
}

fn level(operand: &Operand<'_>) -> Result<u8, Problem> {
    let named = LEVELS.iter().find(|(name, _)| *name == operand.text).map(|(_, level)| *level);
    let number = || value::number(operand.text, 0, 7).map(|level| level as u8);
    named.or_else(number).ok_or_else(|| {
        operand
            .bad(format!("`{}' is no log level", operand.text))
            .remedy("write 0-7 or one of emerg alert crit error warning notice info debug")
    })
}

fn prefix(operand: &Operand<'_>, context: &mut Context<'_>) -> Result<Box<str>, Problem> {
    if operand.text.is_empty() {
        return Err(operand.bad("the log prefix is empty").remedy("leave --log-prefix out"));
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

impl TargetModule for Log {
    fn finish(
        &self,
        _at: Span,
        _seen: u32,
        _rule: &Rule,
        _table: TableId,
    ) -> Result<TargetSpec, Problem> {
        Ok(TargetSpec::Log(self.log.clone()))
    }
}
