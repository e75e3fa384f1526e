//! `-j REJECT`.

use dataplane::packet::Family;
use dataplane::policy::TableId;
use dataplane::policy::target::RejectWith;

use super::wrong_table;
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, has_protocol, needs_protocol,
    plain,
};
use crate::iptables::value;
use crate::model::{Rule, Span, TargetSpec};

const OPTIONS: &[Opt] = &[plain("reject-with", 0)];

/// A name, its alias, and what it means. The tools take the first that the
/// operand abbreviates.
type Name = (&'static str, &'static str, RejectWith);

/// Answers of IPv4 rulesets, in the tools' order.
pub(crate) const NAMES_V4: &[Name] = &[
    ("icmp-net-unreachable", "net-unreach", RejectWith::Icmp(0)),
    ("icmp-host-unreachable", "host-unreach", RejectWith::Icmp(1)),
    ("icmp-proto-unreachable", "proto-unreach", RejectWith::Icmp(2)),
    ("icmp-port-unreachable", "port-unreach", RejectWith::Icmp(3)),
    ("icmp-net-prohibited", "net-prohib", RejectWith::Icmp(9)),
    ("icmp-host-prohibited", "host-prohib", RejectWith::Icmp(10)),
    ("tcp-reset", "tcp-rst", RejectWith::TcpReset),
    ("icmp-admin-prohibited", "admin-prohib", RejectWith::Icmp(13)),
];

/// Answers of IPv6 rulesets, in the tools' order.
pub(crate) const NAMES_V6: &[Name] = &[
    ("icmp6-no-route", "no-route", RejectWith::Icmp6(0)),
    ("icmp6-adm-prohibited", "adm-prohibited", RejectWith::Icmp6(1)),
    ("icmp6-addr-unreachable", "addr-unreach", RejectWith::Icmp6(3)),
    ("icmp6-port-unreachable", "port-unreach", RejectWith::Icmp6(4)),
    ("tcp-reset", "tcp-reset", RejectWith::TcpReset),
    ("icmp6-policy-fail", "policy-fail", RejectWith::Icmp6(5)),
    ("icmp6-reject-route", "reject-route", RejectWith::Icmp6(6)),
];

#[derive(Default)]
pub(super) struct Reject {
    family: Option<Family>,
    with: Option<RejectWith>,
}

impl Module for Reject {
    fn name(&self) -> &'static str {
        "REJECT"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn loaded(&mut self, family: Family) {
        self.family = Some(family);
    }

    fn set(&mut self, _id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let names = match context.family {
            Family::V4 => NAMES_V4,
            Family::V6 => NAMES_V6,
        };
        let text = operand.text;
        let found = names.iter().find(|(name, alias, _)| {
            value::abbreviates(text, name) || value::abbreviates(text, alias)
        });
        let found = found.ok_or_else(|| {
            let known: Vec<&str> = names.iter().map(|(name, _, _)| *name).collect();
            operand
                .bad(format!("unknown reject type `{text}'"))
                .remedy(format!("the types are {}", known.join(" ")))
        })?;
        self.with = Some(found.2);
        Ok(())
    }
}

impl TargetModule for Reject {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        rule: &Rule,
        table: TableId,
    ) -> Result<TargetSpec, Problem> {
        if table != TableId::Filter {
            return Err(wrong_table(at, "REJECT", "filter", table));
        }
        let default = match self.family {
            Some(Family::V6) => RejectWith::Icmp6(4),
            _ => RejectWith::Icmp(3),
        };
        let with = self.with.unwrap_or(default);
        if with == RejectWith::TcpReset && !has_protocol(rule, 6) {
            return Err(needs_protocol(at, "--reject-with tcp-reset", "tcp"));
        }
        Ok(TargetSpec::Reject(with))
    }
}
