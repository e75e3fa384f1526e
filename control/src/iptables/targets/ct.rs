//! `-j CT` and `-j NOTRACK`.

use dataplane::packet::Family;
use dataplane::policy::TableId;
use dataplane::policy::target::{CtTarget, HelperKind, ZoneId, ZoneScope};

use super::wrong_table;
use crate::diagnostics::Code;
use crate::iptables::extension::{
    Context, Module, Operand, Opt, Problem, Taken, TargetModule, bit, flag, has_protocol,
    needs_protocol, plain,
};
use crate::iptables::value;
use crate::model::{Rule, Span, TargetSpec};

const HELPER: u8 = 1;
const TIMEOUT: u8 = 2;
const EVENTS: u8 = 3;
const EXPECT_EVENTS: u8 = 4;
const ZONES: u32 = bit(5) | bit(6) | bit(7);

/// Of several zone options the tools keep the last number, for all directions named.
const fn zone(name: &'static str, id: u8) -> Opt {
    plain(name, id).excluding(ZONES & !bit(id))
}

/// `--notrack` leaves nothing that a helper or a timeout could be given to.
const OPTIONS: &[Opt] = &[
    flag("notrack", 0).excluding(bit(HELPER) | bit(TIMEOUT)),
    plain("helper", HELPER).excluding(bit(0)),
    plain("timeout", TIMEOUT).excluding(bit(0)),
    plain("ctevents", EVENTS),
    plain("expevents", EXPECT_EVENTS),
    zone("zone", 5),
    zone("zone-orig", 6),
    zone("zone-reply", 7),
];

/// Names of `--ctevents`; the place is the bit.
pub(crate) const EVENT_NAMES: [&str; 10] = [
    "new",
    "related",
    "destroy",
    "reply",
    "assured",
    "protoinfo",
    "helper",
    "mark",
    "natseqinfo",
    "secmark",
];
/// Names of `--expevents`.
pub(crate) const EXPECT_EVENT_NAMES: [&str; 1] = ["new"];

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The kernel's helpers: name, protocols, whether for IPv6 too, and ours; `None` is
/// refused by name.
const HELPERS: &[(&str, &[u8], bool, Option<HelperKind>)] = &[
    ("ftp", &[TCP], true, Some(HelperKind::Ftp)),
    ("tftp", &[UDP], true, Some(HelperKind::Tftp)),
    ("irc", &[TCP], false, Some(HelperKind::Irc)),
    ("sip", &[TCP, UDP], true, Some(HelperKind::Sip)),
    ("RAS", &[UDP], true, Some(HelperKind::Ras)),
    ("Q.931", &[TCP], true, Some(HelperKind::Q931)),
    ("H.245", &[UDP], true, None),
    ("pptp", &[TCP], false, Some(HelperKind::Pptp)),
    ("amanda", &[UDP], true, Some(HelperKind::Amanda)),
    ("netbios-ns", &[UDP], false, Some(HelperKind::NetbiosNs)),
    ("sane", &[TCP], true, Some(HelperKind::Sane)),
    ("snmp", &[UDP], false, Some(HelperKind::Snmp)),
    ("snmp_trap", &[UDP], false, Some(HelperKind::SnmpTrap)),
];

/// CT, or NOTRACK, which has no options.
#[derive(Default)]
pub(super) struct Ct {
    found: CtTarget,
    helper: Option<(String, Span)>,
    /// Protocol of the named timeout policy.
    timeout: Option<(u8, Span)>,
    family: Option<Family>,
}

impl Ct {
    pub(super) fn notrack() -> Self {
        let found = CtTarget { alias: true, notrack: true, ..CtTarget::default() };
        Self { found, ..Self::default() }
    }

    fn find_helper(&self, name: &str, at: Span, rule: &Rule) -> Result<HelperKind, Problem> {
        let problem = |code, message: String| Problem::new(code, at, message);
        let Some((_, protocols, v6, ours)) = HELPERS.iter().find(|known| known.0 == name) else {
            let built = HELPERS.iter().filter(|known| known.3.is_some());
            let names: Vec<&str> = built.map(|known| known.0).collect();
            return Err(problem(Code::BadValue, format!("there is no helper `{name}'"))
                .remedy(format!("the helpers are {}", names.join(" "))));
        };
        let Some(kind) = ours else {
            return Err(problem(
                Code::UnsupportedTarget,
                format!("the helper `{name}' is not supported"),
            )
            .remedy("leave the rule out and allow the connections it would expect by rules"));
        };
        if self.family == Some(Family::V6) && !v6 {
            return Err(problem(Code::BadValue, format!("the helper `{name}' is for IPv4 only"))
                .remedy("leave the rule out of the IPv6 file"));
        }
        if !protocols.iter().any(|protocol| has_protocol(rule, *protocol)) {
            let wanted = if protocols[0] == TCP { "tcp" } else { "udp" };
            return Err(needs_protocol(at, &format!("the helper `{name}'"), wanted));
        }
        Ok(*kind)
    }
}

fn events(operand: &Operand<'_>, known: &[&str]) -> Result<u32, Problem> {
    operand.text.split(',').try_fold(0, |set, word| {
        let found = known.iter().position(|name| *name == word).ok_or_else(|| {
            operand
                .bad(format!("`{word}' is no event"))
                .remedy(format!("the events are {}", known.join(" ")))
        })?;
        Ok(set | 1 << found)
    })
}

/// A zone; none for zone 0, which is where everything is.
fn zone_id(operand: &Operand<'_>) -> Result<Option<ZoneId>, Problem> {
    if operand.text.eq_ignore_ascii_case("mark") {
        return Ok(Some(ZoneId::Mark));
    }
    let id = value::number(operand.text, 0, 0xffff).ok_or_else(|| {
        operand
            .bad(format!("`{}' is no zone", operand.text))
            .remedy("write a number from 0 to 65535, or `mark'")
    })?;
    Ok((id != 0).then_some(ZoneId::Fixed(id as u16)))
}

impl Module for Ct {
    fn name(&self) -> &'static str {
        self.found.name()
    }

    fn options(&self) -> &'static [Opt] {
        if self.found.alias { &[] } else { OPTIONS }
    }

    fn loaded(&mut self, family: Family) {
        self.family = Some(family);
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let name = operand.text;
        match id {
            0 => self.found.notrack = true,
            // The tools take an empty name for none.
            HELPER if name.is_empty() => {}
            HELPER => self.helper = Some((name.to_string(), operand.span)),
            TIMEOUT if name.is_empty() => {}
            TIMEOUT => {
                let protocol = context.names.timeout_policy(name).ok_or_else(|| {
                    operand.bad(format!("there is no timeout policy `{name}'")).remedy(
                        "define it with --ct-timeout (or [conntrack.timeout] of a topology)",
                    )
                })?;
                self.timeout = Some((protocol, operand.span));
                self.found.timeout = Some(name.into());
            }
            EVENTS => self.found.events = Some(events(operand, &EVENT_NAMES)?),
            EXPECT_EVENTS => {
                self.found.expect_events = Some(events(operand, &EXPECT_EVENT_NAMES)?);
            }
            _ => {
                let scope = [ZoneScope::Both, ZoneScope::Original, ZoneScope::Reply];
                let scope = scope[usize::from(id - 5)];
                self.found.zone = zone_id(operand)?.map(|zone| (scope, zone));
            }
        }
        Ok(())
    }
}

impl TargetModule for Ct {
    fn finish(
        &self,
        at: Span,
        _seen: u32,
        rule: &Rule,
        table: TableId,
    ) -> Result<TargetSpec, Problem> {
        if table != TableId::Raw {
            return Err(wrong_table(at, self.name(), "raw", table));
        }
        let mut found = self.found.clone();
        if let Some((name, at)) = &self.helper {
            found.helper = Some(self.find_helper(name, *at, rule)?);
        }
        if let Some((protocol, at)) = self.timeout
            && !has_protocol(rule, protocol)
        {
            let message = "the timeout policy is for another protocol than the rule";
            return Err(Problem::new(Code::NeedsProtocol, at, message)
                .remedy(format!("add `-p {protocol}' to the rule")));
        }
        Ok(TargetSpec::Ct(found))
    }
}
