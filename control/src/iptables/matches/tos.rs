//! `-m tos` and `-m dscp`.

use dataplane::policy::matches::{Match, Neg};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, negatable, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const TOS_OPTIONS: &[Opt] = &[negatable("tos", 0)];
const DSCP_OPTIONS: &[Opt] =
    &[negatable("dscp", 0).excluding(0b10), negatable("dscp-class", 1).excluding(0b01)];

/// Symbolic TOS values; they imply [`SYMBOL_MASK`].
const TOS_NAMES: &[(&str, u8)] = &[
    ("Minimize-Delay", 0x10),
    ("Maximize-Throughput", 0x08),
    ("Maximize-Reliability", 0x04),
    ("Minimize-Cost", 0x02),
    ("Normal-Service", 0x00),
];
const SYMBOL_MASK: u8 = 0x3f;

const DSCP_CLASSES: &[(&str, u8)] = &[
    ("CS0", 0x00),
    ("CS1", 0x08),
    ("CS2", 0x10),
    ("CS3", 0x18),
    ("CS4", 0x20),
    ("CS5", 0x28),
    ("CS6", 0x30),
    ("CS7", 0x38),
    ("BE", 0x00),
    ("AF11", 0x0a),
    ("AF12", 0x0c),
    ("AF13", 0x0e),
    ("AF21", 0x12),
    ("AF22", 0x14),
    ("AF23", 0x16),
    ("AF31", 0x1a),
    ("AF32", 0x1c),
    ("AF33", 0x1e),
    ("AF41", 0x22),
    ("AF42", 0x24),
    ("AF43", 0x26),
    ("EF", 0x2e),
];

#[derive(Default)]
pub(super) struct Tos {
    tos: Option<Neg<(u8, u8)>>,
}

impl Module for Tos {
    fn name(&self) -> &'static str {
        "tos"
    }

    fn options(&self) -> &'static [Opt] {
        TOS_OPTIONS
    }

    fn set(&mut self, _id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        self.tos = Some(Neg { negated: operand.negated, value: tos_value(operand)? });
        Ok(())
    }
}

/// Value and mask of a TOS byte, or a name for both.
pub(crate) fn tos_value(operand: &Operand<'_>) -> Result<(u8, u8), Problem> {
    let text = operand.text;
    let symbol = TOS_NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    let value = match (symbol, text.split_once('/')) {
        (Some((_, value)), _) => Some((*value, SYMBOL_MASK)),
        (None, Some((value, mask))) => value::number8(value).zip(value::number8(mask)),
        (None, None) => value::number8(text).map(|value| (value, 0xff)),
    };
    value.ok_or_else(|| {
        operand
            .bad(format!("`{text}' is no TOS value"))
            .remedy("write VALUE or VALUE/MASK (0-255), or a name such as Minimize-Delay")
    })
}

impl MatchModule for Tos {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let tos = self.tos.ok_or_else(|| required(at, "tos", "--tos"))?;
        Ok(MatchBody::Plain(Match::Tos(tos)))
    }
}

#[derive(Default)]
pub(super) struct Dscp {
    dscp: Option<Neg<u8>>,
}

impl Module for Dscp {
    fn name(&self) -> &'static str {
        "dscp"
    }

    fn options(&self) -> &'static [Opt] {
        DSCP_OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let value = dscp_value(id == 1, "--dscp", operand)?;
        self.dscp = Some(Neg { negated: operand.negated, value });
        Ok(())
    }
}

/// A DSCP by number, or by the name of its class. `option` is the one that
/// takes numbers.
pub(crate) fn dscp_value(class: bool, option: &str, operand: &Operand<'_>) -> Result<u8, Problem> {
    let text = operand.text;
    let value = if class {
        let class = DSCP_CLASSES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        class.map(|(_, value)| *value)
    } else {
        value::number(text, 0, 63).map(|value| value as u8)
    };
    value.ok_or_else(|| {
        let remedy =
            format!("write {option} 0-63, or {option}-class with one of BE EF CS0-CS7 AF11-AF43");
        operand.bad(format!("`{text}' is no DSCP value")).remedy(remedy)
    })
}

impl MatchModule for Dscp {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let dscp = self.dscp.ok_or_else(|| required(at, "dscp", "--dscp or --dscp-class"))?;
        Ok(MatchBody::Plain(Match::Dscp(dscp)))
    }
}
