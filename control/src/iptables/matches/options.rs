//! `-m hbh` and `-m dst`.

use dataplane::policy::matches::{Match, Neg};
use dataplane::policy::protocol::{OptionsMatch, ProtocolMatch};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, negatable, plain,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const LENGTH: u8 = 0;
const LIST: u8 = 1;

const HOP_BY_HOP: &[Opt] = &[negatable("hbh-len", LENGTH), plain("hbh-opts", LIST)];
const DESTINATION: &[Opt] = &[negatable("dst-len", LENGTH), plain("dst-opts", LIST)];

/// Options that a list may have.
const MAX_OPTIONS: usize = 16;

pub(super) struct Options {
    options: OptionsMatch,
}

impl Options {
    pub(super) fn new(destination: bool) -> Self {
        Self { options: OptionsMatch { destination, length: None, options: Box::default() } }
    }
}

impl Module for Options {
    fn name(&self) -> &'static str {
        if self.options.destination { "dst" } else { "hbh" }
    }

    fn options(&self) -> &'static [Opt] {
        if self.options.destination { DESTINATION } else { HOP_BY_HOP }
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        if id == LENGTH {
            let value = super::header_length(operand)?;
            self.options.length = Some(Neg { negated: operand.negated, value });
            return Ok(());
        }
        let list = operand.text.split(',').map(|word| {
            option(word).ok_or_else(|| {
                operand
                    .bad(format!("`{word}' is no option"))
                    .remedy("write TYPE or TYPE:LENGTH, numbers from 0 to 255; 0 has no length")
            })
        });
        self.options.options = list.collect::<Result<_, _>>()?;
        if self.options.options.len() > MAX_OPTIONS {
            return Err(operand.bad(format!("more than {MAX_OPTIONS} options")));
        }
        Ok(())
    }
}

/// `TYPE` or `TYPE:LENGTH`; a length of 255 stands for any.
fn option(word: &str) -> Option<(u8, Option<u8>)> {
    match word.split_once(':') {
        None => Some((value::number8(word)?, None)),
        Some((kind, length)) => {
            let (kind, length) = (value::number8(kind)?, value::number8(length)?);
            (kind != 0).then_some((kind, Some(length).filter(|length| *length != u8::MAX)))
        }
    }
}

impl MatchModule for Options {
    fn finish(&self, _at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let options = ProtocolMatch::Options(self.options.clone());
        Ok(MatchBody::Plain(Match::Protocol(options)))
    }
}
