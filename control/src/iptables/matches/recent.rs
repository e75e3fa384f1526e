//! `-m recent`.

use dataplane::packet::Family;
use dataplane::policy::tally::recent::{MAX_HITS, MAX_NAME};
use dataplane::policy::tally::{RecentAction, RecentRule};

use crate::diagnostics::Code;
use crate::iptables::address::{full_mask, parse_address, parse_v4};
use crate::iptables::extension::{
    Context, MatchModule, Module, Operand, Opt, Problem, Taken, bit, flag, plain, required,
};
use crate::iptables::value;
use crate::model::{MatchBody, Rule, Span, TallySpec};

const SET: u8 = 0;
const CHECK: u8 = 1;
const UPDATE: u8 = 2;
const SECONDS: u8 = 3;
const HITS: u8 = 4;
const REMOVE: u8 = 5;
const SAME_TTL: u8 = 6;
const NAME: u8 = 7;
const SOURCE: u8 = 8;
const DESTINATION: u8 = 9;
const REAP: u8 = 10;
const MASK: u8 = 11;

const ACTIONS: u32 = bit(SET) | bit(CHECK) | bit(UPDATE) | bit(REMOVE);
/// What only makes sense when something is asked.
const QUESTIONS: u32 = bit(SAME_TTL) | bit(REAP);

const fn action(name: &'static str, id: u8) -> Opt {
    let others = ACTIONS & !bit(id);
    let asks = id == CHECK || id == UPDATE;
    let excludes = if asks { others } else { others | QUESTIONS };
    Opt { name, id, operand: false, negatable: true, excludes }
}

const OPTIONS: &[Opt] = &[
    action("set", SET),
    action("rcheck", CHECK),
    action("update", UPDATE),
    plain("seconds", SECONDS),
    plain("hitcount", HITS),
    action("remove", REMOVE),
    flag("rttl", SAME_TTL).excluding(bit(SET) | bit(REMOVE)),
    plain("name", NAME),
    flag("rsource", SOURCE),
    flag("rdest", DESTINATION),
    flag("reap", REAP).excluding(bit(SET) | bit(REMOVE)),
    plain("mask", MASK),
];

/// The list's name when none is given.
const DEFAULT_NAME: &str = "DEFAULT";

pub(super) struct Recent {
    name: Box<str>,
    action: Option<(RecentAction, bool)>,
    rule: RecentRule,
}

impl Recent {
    pub(super) fn new(family: Family) -> Self {
        let rule = RecentRule {
            action: RecentAction::Set,
            negated: false,
            seconds: 0,
            hits: 0,
            same_ttl: false,
            reap: false,
            destination: false,
            mask: full_mask(family),
        };
        Self { name: DEFAULT_NAME.into(), action: None, rule }
    }
}

impl Module for Recent {
    fn name(&self) -> &'static str {
        "recent"
    }

    fn options(&self) -> &'static [Opt] {
        OPTIONS
    }

    fn set(&mut self, id: u8, operand: &Operand<'_>, context: &mut Context<'_>) -> Taken {
        match id {
            SET => self.action = Some((RecentAction::Set, operand.negated)),
            CHECK => self.action = Some((RecentAction::Check, operand.negated)),
            UPDATE => self.action = Some((RecentAction::Update, operand.negated)),
            REMOVE => self.action = Some((RecentAction::Remove, operand.negated)),
            SECONDS => {
                let bad = || operand.bad(format!("`{}' is no number of seconds", operand.text));
                let seconds =
                    value::number(operand.text, 1, u64::from(u32::MAX)).ok_or_else(bad)?;
                self.rule.seconds = seconds as u32;
            }
            HITS => self.rule.hits = hits(operand)?,
            SAME_TTL => self.rule.same_ttl = true,
            NAME => self.name = list_name(operand)?,
            SOURCE => self.rule.destination = false,
            DESTINATION => self.rule.destination = true,
            REAP => self.rule.reap = true,
            _ => self.rule.mask = mask(operand, context.family)?,
        }
        Ok(())
    }
}

fn hits(operand: &Operand<'_>) -> Result<u32, Problem> {
    let hits = value::number32(operand.text)
        .ok_or_else(|| operand.bad(format!("`{}' is no number of packets", operand.text)))?;
    if hits > MAX_HITS {
        return Err(operand
            .bad(format!("{hits} packets are more than a list keeps apart"))
            .remedy(format!("at most {MAX_HITS}; count more with -m hashlimit")));
    }
    Ok(hits)
}

/// A name that can be one of a file in /proc.
pub(super) fn file_name(
    operand: &Operand<'_>,
    what: &str,
    longest: usize,
) -> Result<Box<str>, Problem> {
    let text = operand.text;
    if text.len() > longest {
        return Err(Problem::new(
            Code::TooLong,
            operand.span,
            format!("the tools keep the first {longest} bytes of the {what}'s name"),
        )
        .remedy("shorten it"));
    }
    if text.is_empty() || text == "." || text == ".." || text.contains('/') {
        return Err(operand
            .bad(format!("`{text}' cannot be a {what}'s name"))
            .remedy("it must do as the name of a file: not empty, no `/', not `.' or `..'"));
    }
    Ok(text.into())
}

fn list_name(operand: &Operand<'_>) -> Result<Box<str>, Problem> {
    file_name(operand, "list", MAX_NAME)
}

fn mask(operand: &Operand<'_>, family: Family) -> Result<u128, Problem> {
    let mask = match family {
        // The tools read a lonely number as the last part of an address.
        Family::V4 => parse_v4(operand.text)
            .map(u128::from)
            .filter(|_| operand.text.matches('.').count() == 3),
        Family::V6 => parse_address(operand.text, family),
    };
    mask.ok_or_else(|| {
        let example = match family {
            Family::V4 => "255.255.255.0",
            Family::V6 => "ffff:ffff:ffff:ffff::",
        };
        operand
            .bad(format!("`{}' is no mask", operand.text))
            .remedy(format!("write it as an address: {example}"))
    })
}

impl MatchModule for Recent {
    fn finish(&self, at: Span, seen: u32, _rule: &Rule) -> Result<MatchBody, Problem> {
        let Some((action, negated)) = self.action else {
            return Err(required(at, "recent", "--set, --rcheck, --update or --remove"));
        };
        let asks = matches!(action, RecentAction::Check | RecentAction::Update);
        if !asks && (self.rule.seconds != 0 || self.rule.hits != 0) {
            return Err(Problem::new(
                Code::ConflictingOptions,
                at,
                "recent: --seconds and --hitcount need --rcheck or --update",
            )
            .remedy("put them into the rule that asks; --set and --remove always happen"));
        }
        if seen & bit(REAP) != 0 && seen & bit(SECONDS) == 0 {
            return Err(required(at, "recent", "--seconds (for --reap)"));
        }
        let rule = RecentRule { action, negated, ..self.rule };
        Ok(MatchBody::Tally(TallySpec::Recent { name: self.name.clone(), rule }))
    }
}
