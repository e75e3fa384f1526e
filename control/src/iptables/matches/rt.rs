//! `-m rt`.

use dataplane::packet::Family;
use dataplane::policy::matches::{Match, Neg, Range};
use dataplane::policy::protocol::{ProtocolMatch, RtMatch};

use crate::diagnostics::Code;
use crate::iptables::address;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, flag, negatable, plain,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const TYPE: u8 = 0;
const SEGMENTS: u8 = 1;
const LENGTH: u8 = 2;
const RESERVED: u8 = 3;
const ADDRESSES: u8 = 4;
const NOT_STRICT: u8 = 5;

const OPTIONS: &[Opt] = &[
    negatable("rt-type", TYPE),
    negatable("rt-segsleft", SEGMENTS),
    negatable("rt-len", LENGTH),
    flag("rt-0-res", RESERVED),
    plain("rt-0-addrs", ADDRESSES),
    flag("rt-0-not-strict", NOT_STRICT),
];

/// Addresses that a list may have.
const MAX_ADDRESSES: usize = 16;

#[derive(Default)]
pub(super) struct Rt {
    rt: RtMatch,
}

impl Module for Rt {
    fn name(&self) -> &'static str {
        "rt"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let negated = operand.negated;
        match id {
            TYPE => {
                let value = value::number32(operand.text)
                    .ok_or_else(|| operand.bad(format!("`{}' is no number", operand.text)))?;
                if value > 255 && !negated {
                    let message = format!("no routing header has type {value}: they end at 255");
                    context.warnings.push(Problem::new(Code::NeverMatches, operand.span, message));
                }
                self.rt.kind = Some(Neg { negated, value });
            }
            SEGMENTS => {
                let (low, high) =
                    value::range(operand.text, u64::from(u32::MAX)).ok_or_else(|| {
                        operand.bad(format!("`{}' is no number or LOW:HIGH", operand.text))
                    })?;
                let value = Range { low: low as u32, high: high as u32 };
                super::warn_reversed(&value, operand, context);
                let segments = Neg { negated, value };
                self.rt.segments_left = super::unless_all(segments, operand, context);
            }
            LENGTH => {
                self.rt.length = Some(Neg { negated, value: super::header_length(operand)? });
            }
            RESERVED => {
                self.needs_type_0(operand, "--rt-0-res")?;
                self.rt.reserved = true;
            }
            ADDRESSES => {
                self.needs_type_0(operand, "--rt-0-addrs")?;
                self.rt.addresses = addresses(operand)?;
            }
            _ if self.rt.addresses.is_empty() => {
                return Err(Problem::new(
                    Code::MissingOption,
                    operand.span,
                    "--rt-0-not-strict goes with a list of addresses",
                )
                .remedy("write `--rt-type 0 --rt-0-addrs LIST' before it"));
            }
            _ => self.rt.not_strict = true,
        }
        Ok(())
    }
}

impl Rt {
    /// The tools insist on the order, too.
    fn needs_type_0(&self, operand: &Operand<'_>, option: &str) -> Result<(), Problem> {
        match self.rt.kind {
            Some(Neg { negated: false, value: 0 }) => Ok(()),
            _ => Err(Problem::new(
                Code::MissingOption,
                operand.span,
                format!("{option} is about routing headers of type 0"),
            )
            .remedy("write `--rt-type 0' before it")),
        }
    }
}

fn addresses(operand: &Operand<'_>) -> Result<Box<[u128]>, Problem> {
    let mut list = Vec::new();
    for word in operand.text.split(',') {
        let address = address::parse_address(word, Family::V6)
            .ok_or_else(|| operand.bad(format!("`{word}' is no IPv6 address")))?;
        list.push(address);
    }
    if list.len() > MAX_ADDRESSES {
        return Err(operand.bad(format!("more than {MAX_ADDRESSES} addresses")));
    }
    Ok(list.into())
}

impl MatchModule for Rt {
    fn finish(&self, _at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let rt = ProtocolMatch::Rt(Box::new(self.rt.clone()));
        Ok(MatchBody::Plain(Match::Protocol(rt)))
    }
}
