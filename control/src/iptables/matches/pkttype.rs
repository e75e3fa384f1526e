//! `-m pkttype`.

use dataplane::packet::PktType;
use dataplane::policy::matches::{Match, Neg};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, negatable, required,
};
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] = &[negatable("pkt-type", 0)];

const NAMES: &[(&str, PktType)] = &[
    ("unicast", PktType::Host),
    ("host", PktType::Host),
    ("broadcast", PktType::Broadcast),
    ("bcast", PktType::Broadcast),
    ("multicast", PktType::Multicast),
    ("mcast", PktType::Multicast),
    ("otherhost", PktType::OtherHost),
];

#[derive(Default)]
pub(super) struct PktTypeMatch {
    kind: Option<Neg<PktType>>,
}

impl Module for PktTypeMatch {
    fn name(&self) -> &'static str {
        "pkttype"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(
        &mut self,
        _id: u8,
        operand: &Operand<'_>,
        _context: &mut Context<'_>,
    ) -> Result<(), Problem> {
        let value = NAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(operand.text))
            .map(|(_, kind)| *kind)
            .ok_or_else(|| {
                operand
                    .bad(format!("`{}' is no packet type", operand.text))
                    .remedy("the types are unicast broadcast multicast otherhost")
            })?;
        self.kind = Some(Neg { negated: operand.negated, value });
        Ok(())
    }
}

impl MatchModule for PktTypeMatch {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let kind = self.kind.ok_or_else(|| required(at, "pkttype", "--pkt-type"))?;
        Ok(MatchBody::Plain(Match::PktType(kind)))
    }
}
