//! `-m multiport`.

use dataplane::policy::matches::{Match, MultiportMatch, MultiportSide, Neg, Range};

use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, negatable, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

/// Slots in the kernel's match; a range takes two.
const SLOTS: usize = 15;

const OPTIONS: &[Opt] = &[
    negatable("source-ports", 0).excluding(0b110),
    negatable("sports", 0).excluding(0b110),
    negatable("destination-ports", 1).excluding(0b101),
    negatable("dports", 1).excluding(0b101),
    negatable("ports", 2).excluding(0b011),
];

/// Protocols with ports, by number and the name services are listed under.
const PROTOCOLS: &[(u8, &str)] =
    &[(6, "tcp"), (17, "udp"), (136, "udplite"), (132, "sctp"), (33, "dccp")];

#[derive(Default)]
pub(super) struct Multiport {
    found: Option<MultiportMatch>,
}

impl Module for Multiport {
    fn name(&self) -> &'static str {
        "multiport"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        // The tools look at the protocol when they read the ports, not later.
        let protocol = protocol(context.proto, operand.span)?;
        let mut ports = Vec::new();
        let mut slots = 0;
        for part in operand.text.split(',') {
            let one = |text: &str| {
                value::port(text, Some(protocol), context.names)
                    .ok_or_else(|| super::bad_port(operand, text))
            };
            let range = match part.split_once(':') {
                None => one(part).map(|port| Range { low: port, high: port })?,
                Some((low, high)) => Range { low: one(low)?, high: one(high)? },
            };
            if part.contains(':') && range.low >= range.high {
                return Err(operand
                    .bad(format!("port range `{part}' is not ascending"))
                    .remedy("write LOW:HIGH with LOW below HIGH, or a single port"));
            }
            slots += if part.contains(':') { 2 } else { 1 };
            if slots > SLOTS {
                return Err(operand
                    .bad(format!("more than {SLOTS} ports (a range counts two)"))
                    .remedy("split the rule"));
            }
            ports.push(range);
        }
        let side = match id {
            0 => MultiportSide::Source,
            1 => MultiportSide::Destination,
            _ => MultiportSide::Either,
        };
        let ports = Neg { negated: operand.negated, value: ports.into_boxed_slice() };
        self.found = Some(MultiportMatch { side, ports });
        Ok(())
    }
}

fn protocol(proto: Option<(u8, bool)>, span: Span) -> Result<&'static str, Problem> {
    let found = proto.filter(|(_, negated)| !negated).and_then(|(number, _)| {
        PROTOCOLS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
    });
    found.ok_or_else(|| {
        Problem::new(
            Code::NeedsProtocol,
            span,
            "multiport needs `-p tcp', `-p udp', `-p udplite', `-p sctp' or `-p dccp' before it",
        )
        .remedy("write the protocol before the ports")
    })
}

impl MatchModule for Multiport {
    fn finish(&self, at: Span, _seen: u32, rule: &Rule) -> Result<MatchBody, Problem> {
        let found = self
            .found
            .as_ref()
            .ok_or_else(|| required(at, "multiport", "--sports, --dports or --ports"))?;
        protocol(rule.proto.map(|proto| (proto.value, proto.negated)), at)?;
        Ok(MatchBody::Plain(Match::Multiport(found.clone())))
    }
}
