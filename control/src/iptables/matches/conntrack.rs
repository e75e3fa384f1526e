//! `-m conntrack` and `-m state`.

use dataplane::policy::matches::{
    AddressMask, ConntrackMatch, Match, Neg, Range, ctstate, ctstatus,
};
use dataplane::policy::state_class;

use crate::iptables::address;
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, negatable, plain, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span};

const OPTIONS: &[Opt] = &[
    negatable("ctstate", 0),
    negatable("ctproto", 1),
    negatable("ctorigsrc", 2),
    negatable("ctorigdst", 3),
    negatable("ctreplsrc", 4),
    negatable("ctrepldst", 5),
    negatable("ctstatus", 6),
    negatable("ctexpire", 7),
    negatable("ctorigsrcport", 8),
    negatable("ctorigdstport", 9),
    negatable("ctreplsrcport", 10),
    negatable("ctrepldstport", 11),
    plain("ctdir", 12),
];

const STATE_OPTIONS: &[Opt] = &[negatable("state", 0)];

/// State names in printing order. `-m state` knows the first five.
pub(crate) const STATE_NAMES: &[(&str, u64)] = &[
    ("INVALID", state_class::INVALID),
    ("NEW", state_class::NEW),
    ("RELATED", state_class::RELATED),
    ("ESTABLISHED", state_class::ESTABLISHED),
    ("UNTRACKED", state_class::UNTRACKED),
    ("SNAT", ctstate::SNAT),
    ("DNAT", ctstate::DNAT),
];

/// Status names in printing order; `NONE` is the empty set.
pub(crate) const STATUS_NAMES: &[(&str, u32)] = &[
    ("EXPECTED", ctstatus::EXPECTED),
    ("SEEN_REPLY", ctstatus::SEEN_REPLY),
    ("ASSURED", ctstatus::ASSURED),
    ("CONFIRMED", ctstatus::CONFIRMED),
];

#[derive(Default)]
pub(super) struct Conntrack {
    found: ConntrackMatch,
}

impl Module for Conntrack {
    fn name(&self) -> &'static str {
        "conntrack"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        let negated = operand.negated;
        let found = &mut self.found;
        match id {
            0 => found.state = Some(Neg { negated, value: states(operand, STATE_NAMES)? }),
            1 => found.proto = Some(Neg { negated, value: proto(operand, context)? }),
            2 => found.orig_src = Some(Neg { negated, value: masked(operand, context)? }),
            3 => found.orig_dst = Some(Neg { negated, value: masked(operand, context)? }),
            4 => found.repl_src = Some(Neg { negated, value: masked(operand, context)? }),
            5 => found.repl_dst = Some(Neg { negated, value: masked(operand, context)? }),
            6 => found.status = Some(Neg { negated, value: statuses(operand)? }),
            7 => found.expire_s = Some(Neg { negated, value: seconds(operand, context)? }),
            8 => found.orig_sport = Some(Neg { negated, value: ports(operand, context)? }),
            9 => found.orig_dport = Some(Neg { negated, value: ports(operand, context)? }),
            10 => found.repl_sport = Some(Neg { negated, value: ports(operand, context)? }),
            11 => found.repl_dport = Some(Neg { negated, value: ports(operand, context)? }),
            _ => found.direction_original = Some(direction(operand)?),
        }
        Ok(())
    }
}

/// A list of names from `known`, each abbreviable, as a set.
fn states(operand: &Operand<'_>, known: &[(&str, u64)]) -> Result<u64, Problem> {
    let mut set = 0;
    for word in operand.text.split(',') {
        let found = known
            .iter()
            .find(|(name, _)| !word.is_empty() && value::abbreviates(word, name))
            .ok_or_else(|| {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                operand
                    .bad(format!("`{word}' is no connection state"))
                    .remedy(format!("the states are {}", names.join(" ")))
            })?;
        set |= found.1;
    }
    Ok(set)
}

fn statuses(operand: &Operand<'_>) -> Result<u32, Problem> {
    let mut set = ctstatus::NONE;
    for word in operand.text.split(',') {
        let known = STATUS_NAMES.iter().chain(&[("NONE", ctstatus::NONE)]);
        let mut hits = known.filter(|(name, _)| !word.is_empty() && value::abbreviates(word, name));
        let found = hits.next().ok_or_else(|| {
            operand
                .bad(format!("`{word}' is no connection status"))
                .remedy("the statuses are NONE EXPECTED SEEN_REPLY ASSURED CONFIRMED")
        })?;
        set |= found.1;
    }
    Ok(set)
}

fn proto(operand: &Operand<'_>, context: &Context<'_>) -> Result<u8, Problem> {
    let lower = operand.text.to_ascii_lowercase();
    value::number8(&lower)
        .or_else(|| context.names.protocol_number(&lower))
        .ok_or_else(|| operand.bad(format!("`{}' is no protocol", operand.text)))
}

fn masked(operand: &Operand<'_>, context: &Context<'_>) -> Result<AddressMask, Problem> {
    address::parse_unmasked(operand.text, context.family, operand.span)
}

fn ports(operand: &Operand<'_>, context: &mut Context<'_>) -> Result<Range<u16>, Problem> {
    let range = value::port_range(operand.text, None, context.names)
        .map_err(|part| super::bad_port(operand, part))?;
    super::warn_reversed(&range, operand, context);
    Ok(range)
}

fn seconds(operand: &Operand<'_>, context: &mut Context<'_>) -> Result<Range<u32>, Problem> {
    let (low, high) = value::range(operand.text, u64::from(u32::MAX)).ok_or_else(|| {
        operand.bad(format!("`{}' is no number of seconds or LOW:HIGH", operand.text))
    })?;
    let range = Range { low: low as u32, high: high as u32 };
    super::warn_reversed(&range, operand, context);
    Ok(range)
}

fn direction(operand: &Operand<'_>) -> Result<bool, Problem> {
    if operand.text.eq_ignore_ascii_case("ORIGINAL") {
        Ok(true)
    } else if operand.text.eq_ignore_ascii_case("REPLY") {
        Ok(false)
    } else {
        Err(operand
            .bad(format!("`{}' is no direction", operand.text))
            .remedy("write ORIGINAL or REPLY"))
    }
}

impl MatchModule for Conntrack {
    fn finish(&self, at: Span, seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        if seen == 0 {
            return Err(required(at, "conntrack", "at least one --ct option"));
        }
        Ok(MatchBody::Plain(Match::Conntrack(self.found.clone())))
    }
}

#[derive(Default)]
pub(super) struct State {
    state: Option<Neg<u64>>,
}

impl Module for State {
    fn name(&self) -> &'static str {
        "state"
    }

    fn options(&self) -> &'static [Opt] {
        STATE_OPTIONS
    }

    fn set(&mut self, _id: u8, operand: &Operand<'_>, _context: &mut Context<'_>) -> Taken {
        let value = states(operand, &STATE_NAMES[..5])?;
        self.state = Some(Neg { negated: operand.negated, value });
        Ok(())
    }
}

impl MatchModule for State {
    fn finish(&self, at: Span, _seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let state = self.state.ok_or_else(|| required(at, "state", "--state"))?;
        let found = ConntrackMatch { state: Some(state), ..ConntrackMatch::default() };
        Ok(MatchBody::State(Match::Conntrack(found)))
    }
}
