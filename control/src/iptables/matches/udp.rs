//! `-m udp`.

use dataplane::policy::matches::{Match, Neg, UdpMatch};

use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, has_protocol, needs_protocol,
    negatable,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const SPORT: u8 = 0;

const OPTIONS: &[Opt] = &[
    negatable("source-port", SPORT),
    negatable("sport", SPORT),
    negatable("destination-port", 1),
    negatable("dport", 1),
];

#[derive(Default)]
pub(super) struct Udp {
    udp: UdpMatch,
}

impl Module for Udp {
    fn name(&self) -> &'static str {
        "udp"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let value = value::port_range(operand.text, None, context.names)
            .map_err(|part| super::bad_port(operand, part))?;
        super::warn_reversed(&value, operand, context);
        let ports = super::unless_all_ports(Neg { negated: operand.negated, value });
        if id == SPORT {
            self.udp.sport = ports;
        } else {
            self.udp.dport = ports;
        }
        Ok(())
    }
}

impl MatchModule for Udp {
    fn finish(&self, at: Span, _seen: u32, rule: &Rule) -> Result<MatchBody, Problem> {
        if !has_protocol(rule, 17) {
            return Err(needs_protocol(at, "the udp match", "udp"));
        }
        Ok(MatchBody::Plain(Match::Udp(self.udp)))
    }
}
