//! `-m dccp`.

use dataplane::policy::matches::{Match, Neg, Range};
use dataplane::policy::protocol::{DccpMatch, ProtocolMatch};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, has_protocol, needs_protocol,
    negatable,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const SPORT: u8 = 0;
const DPORT: u8 = 1;
const TYPES: u8 = 2;
const OPTION: u8 = 3;

const OPTIONS: &[Opt] = &[
    negatable("source-port", SPORT),
    negatable("sport", SPORT),
    negatable("destination-port", DPORT),
    negatable("dport", DPORT),
    negatable("dccp-types", TYPES),
    negatable("dccp-option", OPTION),
];

/// Names of packet types, in the order of their numbers.
pub(crate) const TYPE_NAMES: [&str; 11] = [
    "REQUEST", "RESPONSE", "DATA", "ACK", "DATAACK", "CLOSEREQ", "CLOSE", "RESET", "SYNC",
    "SYNCACK", "INVALID",
];

#[derive(Default)]
pub(super) struct Dccp {
    dccp: DccpMatch,
}

impl Module for Dccp {
    fn name(&self) -> &'static str {
        "dccp"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let negated = operand.negated;
        match id {
            SPORT => self.dccp.sport = Some(Neg { negated, value: ports(operand, context)? }),
            DPORT => self.dccp.dport = Some(Neg { negated, value: ports(operand, context)? }),
            TYPES => self.dccp.types = Some(Neg { negated, value: types(operand)? }),
            _ => {
                let kind = value::number(operand.text, 1, 255).ok_or_else(|| {
                    operand.bad(format!("`{}' is no DCCP option kind (1-255)", operand.text))
                })?;
                self.dccp.option = Some(Neg { negated, value: kind as u8 });
            }
        }
        Ok(())
    }
}

/// Names of services of any protocol are taken, and reversed ranges.
fn ports(operand: &Operand<'_>, context: &mut Context<'_>) -> Result<Range<u16>, Problem> {
    let value = value::port_range(operand.text, None, context.names)
        .map_err(|part| super::bad_port(operand, part))?;
    super::warn_reversed(&value, operand, context);
    Ok(value)
}

fn types(operand: &Operand<'_>) -> Result<u16, Problem> {
    let mut set = 0;
    for word in operand.text.split(',').filter(|word| !word.is_empty()) {
        let found = TYPE_NAMES.iter().position(|name| word.eq_ignore_ascii_case(name));
        let Some(number) = found else {
            return Err(operand
                .bad(format!("`{word}' is no DCCP packet type"))
                .remedy(format!("the types are {}", TYPE_NAMES.join(" "))));
        };
        set |= 1 << number;
    }
    match set {
        0 => Err(operand.bad("--dccp-types names no packet type")),
        set => Ok(set),
    }
}

impl MatchModule for Dccp {
    fn finish(&self, at: Span, _seen: u32, rule: &Rule) -> Result<MatchBody, Problem> {
        if !has_protocol(rule, 33) {
            return Err(needs_protocol(at, "the dccp match", "dccp"));
        }
        Ok(MatchBody::Plain(Match::Protocol(ProtocolMatch::Dccp(self.dccp))))
    }
}
