//! `-m ttl` (IPv4) and `-m hl` (IPv6).

use dataplane::policy::matches::{HopCompare, Match};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, negatable, plain, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const LESS: u8 = 0;
const GREATER: u8 = 1;
const EQUAL: u8 = 2;

const TTL: &[Opt] = &[
    plain("ttl-lt", LESS).excluding(0b110),
    plain("ttl-gt", GREATER).excluding(0b101),
    negatable("ttl-eq", EQUAL).excluding(0b011),
    negatable("ttl", EQUAL).excluding(0b011),
];
const HL: &[Opt] = &[
    plain("hl-lt", LESS).excluding(0b110),
    plain("hl-gt", GREATER).excluding(0b101),
    negatable("hl-eq", EQUAL).excluding(0b011),
    negatable("hl", EQUAL).excluding(0b011),
];

pub(super) struct Hops {
    v6: bool,
    compare: Option<HopCompare>,
}

impl Hops {
    pub(super) fn new(v6: bool) -> Self {
        Self { v6, compare: None }
    }
}

impl Module for Hops {
    fn name(&self) -> &'static str {
        if self.v6 { "hl" } else { "ttl" }
    }

    fn options(&self) -> &'static [Opt] {
        if self.v6 { HL } else { TTL }
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let hops = value::number8(operand.text)
            .ok_or_else(|| operand.bad(format!("`{}' is no number 0-255", operand.text)))?;
        self.compare = Some(match id {
            LESS => HopCompare::Less(hops),
            GREATER => HopCompare::Greater(hops),
            _ if operand.negated => HopCompare::NotEqual(hops),
            _ => HopCompare::Equal(hops),
        });
        Ok(())
    }
}

impl MatchModule for Hops {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let options =
            if self.v6 { "--hl-eq, --hl-lt or --hl-gt" } else { "--ttl-eq, --ttl-lt or --ttl-gt" };
        let compare = self.compare.ok_or_else(|| required(at, self.name(), options))?;
        Ok(MatchBody::Plain(Match::Hops(compare)))
    }
}
