//! `-m mh`.

use dataplane::policy::matches::{Match, Neg, Range};
use dataplane::policy::protocol::ProtocolMatch;

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, has_protocol, needs_protocol,
    negatable,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] = &[negatable("mh-type", 0)];

/// Names of message types, long and short, in the order of their numbers.
const TYPE_NAMES: [(&str, &str); 8] = [
    ("binding-refresh-request", "brr"),
    ("home-test-init", "hoti"),
    ("careof-test-init", "coti"),
    ("home-test", "hot"),
    ("careof-test", "cot"),
    ("binding-update", "bu"),
    ("binding-acknowledgement", "ba"),
    ("binding-error", "be"),
];

#[derive(Default)]
pub(super) struct Mh {
    kinds: Option<Neg<Range<u8>>>,
}

impl Module for Mh {
    fn name(&self) -> &'static str {
        "mh"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, _id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let end = |text: &str, absent: u8| match text {
            "" => Ok(absent),
            _ => kind(text).ok_or_else(|| {
                let names = TYPE_NAMES.map(|(_, short)| short).join(" ");
                operand
                    .bad(format!("`{text}' is no mobility header type"))
                    .remedy(format!("write a number from 0 to 255 or one of {names}"))
            }),
        };
        let value = match operand.text.split_once(':') {
            Some((low, high)) => Range { low: end(low, 0)?, high: end(high, u8::MAX)? },
            None => {
                let one = kind(operand.text).ok_or(()).or_else(|()| end(operand.text, 0))?;
                Range { low: one, high: one }
            }
        };
        if value.low > value.high {
            return Err(operand.bad(format!("`{}' is reversed", operand.text)));
        }
        let kinds = Neg { negated: operand.negated, value };
        self.kinds = super::unless_all(kinds, operand, context);
        Ok(())
    }
}

/// A name in full, else the first that `text` abbreviates, else a number.
fn kind(text: &str) -> Option<u8> {
    let place = |fits: &dyn Fn(&str) -> bool| {
        TYPE_NAMES.iter().position(|(long, short)| fits(long) || fits(short))
    };
    let named = place(&|name| name.eq_ignore_ascii_case(text))
        .or_else(|| place(&|name| value::abbreviates(text, name)));
    match named {
        Some(place) => Some(place as u8),
        None => value::number8(text),
    }
}

impl MatchModule for Mh {
    fn finish(&self, at: Span, _seen: u32, rule: &Rule) -> Result<MatchBody, Problem> {
        if !has_protocol(rule, 135) {
            return Err(needs_protocol(at, "the mh match", "mh"));
        }
        Ok(MatchBody::Plain(Match::Protocol(ProtocolMatch::Mh(self.kinds))))
    }
}
