//! `-m ecn`.

use dataplane::policy::matches::{Match, Neg};
use dataplane::policy::protocol::{EcnMatch, ProtocolMatch};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, has_protocol, needs_protocol,
    negatable, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const CWR: u8 = 0;
const ECE: u8 = 1;
const ECT: u8 = 2;

const OPTIONS: &[Opt] = &[
    Opt { name: "ecn-tcp-cwr", id: CWR, operand: false, negatable: true, excludes: 0 },
    Opt { name: "ecn-tcp-ece", id: ECE, operand: false, negatable: true, excludes: 0 },
    negatable("ecn-ip-ect", ECT),
];

#[derive(Default)]
pub(super) struct Ecn {
    ecn: EcnMatch,
}

impl Module for Ecn {
    fn name(&self) -> &'static str {
        "ecn"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        match id {
            CWR => self.ecn.cwr = Some(!operand.negated),
            ECE => self.ecn.ece = Some(!operand.negated),
            _ => {
                let ect = value::number(operand.text, 0, 3).ok_or_else(|| {
                    operand.bad(format!("`{}' is no ECN codepoint (0-3)", operand.text))
                })?;
                self.ecn.ect = Some(Neg { negated: operand.negated, value: ect as u8 });
            }
        }
        Ok(())
    }
}

impl MatchModule for Ecn {
    fn finish(&self, at: Span, seen: u32, rule: &Rule) -> Result<MatchBody, Problem> {
        if seen == 0 {
            return Err(required(at, "ecn", "--ecn-tcp-cwr, --ecn-tcp-ece or --ecn-ip-ect"));
        }
        let of_tcp = self.ecn.cwr.is_some() || self.ecn.ece.is_some();
        if of_tcp && !has_protocol(rule, 6) {
            return Err(needs_protocol(at, "a flag of TCP", "tcp"));
        }
        Ok(MatchBody::Plain(Match::Protocol(ProtocolMatch::Ecn(self.ecn))))
    }
}
