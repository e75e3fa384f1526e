//! `-m ah`, `-m esp` and `-m ipcomp`.

use dataplane::packet::Family;
use dataplane::policy::matches::{Match, Neg, Range};
use dataplane::policy::protocol::{AhMatch, IpcompMatch, ProtocolMatch};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, flag, has_protocol, needs_protocol,
    negatable,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

/// An index or a range of them, reversed if so written.
fn index_range(operand: &Operand<'_>, context: &mut Context<'_>) -> Result<Range<u32>, Problem> {
    let (low, high) = value::range(operand.text, u64::from(u32::MAX)).ok_or_else(|| {
        operand.bad(format!("`{}' is no index or LOW:HIGH (0-4294967295)", operand.text))
    })?;
    let range = Range { low: low as u32, high: high as u32 };
    super::warn_reversed(&range, operand, context);
    Ok(range)
}

const SPI: u8 = 0;
const LENGTH: u8 = 1;
const RESERVED: u8 = 2;

const AH_V4: &[Opt] = &[negatable("ahspi", SPI)];
const AH_V6: &[Opt] =
    &[negatable("ahspi", SPI), negatable("ahlen", LENGTH), flag("ahres", RESERVED)];

/// For IPv4 a transport protocol, for IPv6 an extension header.
pub(super) struct Ah {
    v6: bool,
    ah: AhMatch,
}

impl Ah {
    pub(super) fn new(family: Family) -> Self {
        Self { v6: family == Family::V6, ah: AhMatch::default() }
    }
}

impl Module for Ah {
    fn name(&self) -> &'static str {
        "ah"
    }

    fn options(&self) -> &'static [Opt] {
        if self.v6 { AH_V6 } else { AH_V4 }
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let negated = operand.negated;
        match id {
            SPI => {
                let value = index_range(operand, context)?;
                self.ah.spi = super::unless_all(Neg { negated, value }, operand, context);
            }
            LENGTH => {
                let value = super::header_length(operand)?;
                self.ah.length = Some(Neg { negated, value });
                if value == 0 {
                    super::warn_unread(operand, context, "--ahlen 0");
                }
            }
            _ => self.ah.reserved = true,
        }
        Ok(())
    }
}

impl MatchModule for Ah {
    fn finish(&self, at: Span, _seen: u32, rule: &Rule) -> Result<MatchBody, Problem> {
        if !self.v6 && !has_protocol(rule, 51) {
            return Err(needs_protocol(at, "the ah match", "ah"));
        }
        let length = self.ah.length.filter(|length| length.negated || length.value != 0);
        let ah = AhMatch { length, ..self.ah };
        Ok(MatchBody::Plain(Match::Protocol(ProtocolMatch::Ah(ah))))
    }
}

const ESP: &[Opt] = &[negatable("espspi", SPI)];

#[derive(Default)]
pub(super) struct Esp {
    spi: Option<Neg<Range<u32>>>,
}

impl Module for Esp {
    fn name(&self) -> &'static str {
        "esp"
    }

    fn options(&self) -> &'static [Opt] {
        ESP
    }

    fn set(&mut self, _id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let spi = Neg { negated: operand.negated, value: index_range(operand, context)? };
        self.spi = super::unless_all(spi, operand, context);
        Ok(())
    }
}

impl MatchModule for Esp {
    fn finish(&self, at: Span, _seen: u32, rule: &Rule) -> Result<MatchBody, Problem> {
        if !has_protocol(rule, 50) {
            return Err(needs_protocol(at, "the esp match", "esp"));
        }
        Ok(MatchBody::Plain(Match::Protocol(ProtocolMatch::Esp(self.spi))))
    }
}

const IPCOMP: &[Opt] = &[negatable("ipcompspi", SPI), flag("compres", RESERVED)];

/// Without `--ipcompspi` the index must be 0.
pub(super) struct Ipcomp {
    ipcomp: IpcompMatch,
}

impl Default for Ipcomp {
    fn default() -> Self {
        let cpi = Neg::plain(Range { low: 0, high: 0 });
        Self { ipcomp: IpcompMatch { cpi, reserved: false } }
    }
}

impl Module for Ipcomp {
    fn name(&self) -> &'static str {
        "ipcomp"
    }

    fn options(&self) -> &'static [Opt] {
        IPCOMP
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        if id == RESERVED {
            self.ipcomp.reserved = true;
            super::warn_unread(operand, context, "--compres");
            return Ok(());
        }
        let value = index_range(operand, context)?;
        self.ipcomp.cpi = Neg { negated: operand.negated, value };
        Ok(())
    }
}

impl MatchModule for Ipcomp {
    fn finish(&self, at: Span, _seen: u32, rule: &Rule) -> Result<MatchBody, Problem> {
        if !has_protocol(rule, 108) {
            return Err(needs_protocol(at, "the ipcomp match", "ipcomp"));
        }
        Ok(MatchBody::Plain(Match::Protocol(ProtocolMatch::Ipcomp(self.ipcomp))))
    }
}
