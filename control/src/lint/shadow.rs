//! One chain's rules against each other.
//!
//! A rule is *unreachable* when rules before it in its chain end the chain for all
//! that it matches, or when nothing that enters the chain matches it. It is *redundant* when packets that reach it
//! would meet the same verdict without it, and nothing else in between.

use dataplane::policy::Target;
use dataplane::policy::target::RejectWith;

use crate::region::{Cover, Effort, Region, cover};

/// Most rules that a finding names.
const NAMED: usize = 8;

/// What a rule does, as far as other rules in its chain are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// It ends the packet's way through the table.
    Verdict(Verdict),
    /// It ends the chain in some other way: RETURN, goto, NAT, SYNPROXY.
    Leave,
    /// The packet goes on behind it, perhaps after a chain or a change.
    GoOn,
}

/// A verdict that two rules can share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    Reject(RejectWith),
}

impl Act {
    pub(super) fn of(target: &Target) -> Self {
        match target {
            Target::Accept => Self::Verdict(Verdict::Accept),
            Target::Drop => Self::Verdict(Verdict::Drop),
            Target::Reject(with) => Self::Verdict(Verdict::Reject(*with)),
            Target::Return | Target::Goto(_) | Target::Nat(_) | Target::Synproxy(_) => Self::Leave,
            _ => Self::GoOn,
        }
    }
}

/// A rule of a chain, read.
#[derive(Debug)]
pub(super) struct ReadRule {
    /// What it matches, of what enters the chain.
    pub(super) matched: Vec<Region>,
    /// What of that never comes to the rules behind it.
    pub(super) ended: Vec<Region>,
    pub(super) act: Act,
    /// Whether it matches something before it is known what enters the chain.
    pub(super) possible: bool,
    /// Whether its matches do more than answer.
    pub(super) effects: bool,
    /// Whether nothing but a limit does.
    pub(super) limited: bool,
    /// Rules of one segment see a packet's fields alike.
    pub(super) segment: u32,
}

/// What is the matter with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Its index in its chain.
    pub rule: u32,
    /// What.
    pub why: Why,
}

/// Why a rule is in doubt. Indices are those of rules of the same chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its own conditions contradict each other.
    Impossible,
    /// Nothing that it matches enters its chain.
    NeverEnters,
    /// These rules, before it, leave nothing for it; `same`: it would do what each of them does.
    Shadowed {
        /// The rules before it, rising; the first few.
        by: Vec<u32>,
        /// Whether their verdicts are its own.
        same: bool,
    },
    /// This rule behind it does the same to all that it matches, and nothing
    /// between them does anything to that.
    Redundant {
        /// The rule behind it; `None`: the chain's policy.
        with: Option<u32>,
    },
    /// The same of a rule with a limit: what the limit holds back meets the same verdict.
    Idle {
        /// The rule behind it; `None`: the chain's policy.
        with: Option<u32>,
    },
}

/// What is the matter with the rules of a chain; and for how many it could not be decided.
/// `effort` is what there is for all of them, `each` for one; `told` hears of each rule that is done.
pub(super) fn doubts(
    rules: &[ReadRule],
    policy: Option<Verdict>,
    each: u64,
    effort: &mut Effort,
    told: &mut dyn FnMut(),
) -> (Vec<Doubt>, u32) {
    let (mut doubts, mut undecided) = (Vec::new(), 0);
    for (index, rule) in rules.iter().enumerate() {
        told();
        let given = each.min(effort.0);
        let mut left = Effort(given);
        let found = match shadowed(rules, index, &mut left) {
            Ok(None) => redundant(rules, index, policy, &mut left),
            other => other,
        };
        effort.0 -= given - left.0;
        let why = found.unwrap_or_else(|OutOfEffort| {
            undecided += 1;
            None
        });
        let why = match rule {
            ReadRule { possible: false, .. } => Some(Why::Impossible),
            ReadRule { matched, .. } if matched.is_empty() => Some(Why::NeverEnters),
            _ => why,
        };
        doubts.extend(why.map(|why| Doubt { rule: index as u32, why }));
    }
    (doubts, undecided)
}

/// It could not be decided.
struct OutOfEffort;

/// Whether rules before it leave nothing for a rule.
fn shadowed(
    rules: &[ReadRule],
    index: usize,
    effort: &mut Effort,
) -> Result<Option<Why>, OutOfEffort> {
    let rule = &rules[index];
    if !effort.spend(index + 1) {
        return Err(OutOfEffort);
    }
    let before = rules[..index].iter();
    let before: Vec<&[Region]> =
        before.map(|it| if it.segment == rule.segment { &it.ended[..] } else { &[] }).collect();
    let mut by = Vec::new();
    for region in &rule.matched {
        match cover(region, &before, effort) {
            Cover::Whole(used) => by.extend(used),
            Cover::Open(_) => return Ok(None),
            Cover::Unknown => return Err(OutOfEffort),
        }
    }
    by.sort_unstable();
    by.dedup();
    let same = by.iter().all(|at| rules[*at].act == rule.act && rule.act != Act::GoOn);
    let by = by.into_iter().take(NAMED).map(|at| at as u32).collect();
    Ok((!rule.matched.is_empty()).then_some(Why::Shadowed { by, same }))
}

/// Whether a rule with a verdict could go: what it matches meets the same verdict behind it.
fn redundant(
    rules: &[ReadRule],
    index: usize,
    policy: Option<Verdict>,
    effort: &mut Effort,
) -> Result<Option<Why>, OutOfEffort> {
    let ReadRule { act: Act::Verdict(verdict), matched, effects, limited, segment, .. } =
        &rules[index]
    else {
        return Ok(None);
    };
    if *effects && !limited {
        return Ok(None);
    }
    let why = |with| Some(if *limited { Why::Idle { with } } else { Why::Redundant { with } });
    for (at, behind) in rules.iter().enumerate().skip(index + 1) {
        if !effort.spend(1) {
            return Err(OutOfEffort);
        }
        let meets = behind.matched.iter().any(|it| matched.iter().any(|one| one.meets(it)));
        if !meets && behind.segment == *segment {
            continue;
        }
        if behind.act != Act::Verdict(*verdict) || behind.segment != *segment || behind.effects {
            return Ok(None);
        }
        let whole = |one: &Region| behind.ended.iter().any(|it| one.within(it));
        if matched.iter().all(whole) {
            return Ok(why(Some(at as u32)));
        }
    }
    Ok(if policy == Some(*verdict) { why(None) } else { None })
}
