//! `-j ECN` (IPv4).

use dataplane::policy::TableId;
use dataplane::policy::target::{EcnTarget, HeaderTarget};

use super::in_mangle;
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, bit, flag, has_protocol,
    needs_protocol, plain, required,
};
use crate::iptables::value;
use crate::model::{Rule, Span, TargetSpec};

const REMOVE: u8 = 0;
const CWR: u8 = 1;
const ECE: u8 = 2;
const ECT: u8 = 3;

const OPTIONS: &[Opt] = &[
    flag("ecn-tcp-remove", REMOVE).excluding(bit(CWR) | bit(ECE)),
    plain("ecn-tcp-cwr", CWR).excluding(bit(REMOVE)),
    plain("ecn-tcp-ece", ECE).excluding(bit(REMOVE)),
    plain("ecn-ip-ect", ECT),
];

#[derive(Default)]
pub(super) struct Ecn {
    target: EcnTarget,
}

impl Module for Ecn {
    fn name(&self) -> &'static str {
        "ECN"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let number = |max: u64| {
            value::number(operand.text, 0, max).ok_or_else(|| {
                operand.bad(format!("`{}' is no number from 0 to {max}", operand.text))
            })
        };
        match id {
            // What was said of the IP header before is forgotten.
            REMOVE => {
                self.target = EcnTarget { ece: Some(false), cwr: Some(false), ect: None };
            }
            CWR => self.target.cwr = Some(number(1)? == 1),
            ECE => self.target.ece = Some(number(1)? == 1),
            _ => self.target.ect = Some(number(3)? as u8),
        }
        Ok(())
    }
}

impl TargetModule for Ecn {
    fn finish(
        &self,
        at: Span,
        seen: u32,
        rule: &Rule,
        table: TableId,
    ) -> Result<TargetSpec, Problem> {
        in_mangle(at, self.name(), table)?;
        if seen == 0 {
            let options = "--ecn-tcp-remove, --ecn-tcp-cwr, --ecn-tcp-ece or --ecn-ip-ect";
            return Err(required(at, "ECN", options));
        }
        if seen & !bit(ECT) != 0 && !has_protocol(rule, 6) {
            return Err(needs_protocol(at, "ECN on the TCP header", "tcp"));
        }
        Ok(TargetSpec::Header(HeaderTarget::Ecn(self.target)))
    }
}
