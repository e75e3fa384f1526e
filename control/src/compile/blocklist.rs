//! Which rules may be carried out before the engine: source blocklists that come first.
//!
//! A rule is *proven* when every whole, plain packet that a port receives, and whose source
//! is in the rule's set, meets this rule before anything else could accept, count, log,
//! change or remember it, and is dropped there. Then whoever drops it earlier and counts
//! it in the rule's counter changes nothing that anybody can see. That is so when
//!
//! - the rule stands in the built-in chain that sees packets first: PREROUTING of raw; or
//!   of mangle where there is no raw PREROUTING and the family is not tracked (tracking
//!   stands between them, and remembers);
//! - it says DROP, of one set, by the source, and asks for nothing else but `-i`;
//! - what is written before it is proven too, or is about other ports only: such a rule
//!   fails at `-i`, before any match that could have an effect.
//!
//! What is whole and plain, and what a router refuses before any rule, is the program's
//! business (`bpf/block.h`). Which sets may be pushed is a matter of what is in them, and
//! changes while the policy stays (`daemon/blocklist`). Pure: nothing here has an effect.

use std::fmt;
use std::sync::Arc;

use classifier::Address;
use dataplane::packet::{Family, MAX_PORTS, PortId};
use dataplane::policy::{
    Chain, CompiledRule, CounterId, FamilyPolicy, Hook, Match, Policy, TableId, Target,
};
use dataplane::sets::{SetMatch, Slot};

/// Why a rule that drops what is in a set is the engine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// Other chains see packets earlier.
    Place,
    /// Tracking sees packets before mangle.
    Tracked,
    /// A rule before it may do something about the same packets; its number from 1.
    After(u32),
    /// None of the ports is the interface that it asks for.
    NoPort,
    /// It asks for more than the source and the interface.
    Asks,
    /// It asks its set for something else than whether the source is in it.
    Options,
}

impl fmt::Display for Hindrance {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place => out.write_str(
                "other chains see packets before its chain does: it would have to stand in raw \
                 PREROUTING",
            ),
            Self::Tracked => out.write_str(
                "connection tracking sees packets before mangle does: it would have to stand in \
                 raw PREROUTING",
            ),
            Self::After(number) => {
                write!(out, "rule {number}, before it, may do something about the same packets")
            }
            Self::NoPort => out.write_str("its -i is none of the ports"),
            Self::Asks => out.write_str("it asks for more than -i and one set"),
            Self::Options => {
                out.write_str("it asks its set for something else than whether the source is in it")
            }
        }
    }
}

/// A rule that drops what is in a set.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its family.
    pub family: Family,
    /// Its table.
    pub table: TableId,
    /// Its chain.
    pub chain: Box<str>,
    /// Its number there, from 1.
    pub number: u32,
    /// Its counter.
    pub counter: CounterId,
    /// Its set.
    pub slot: Arc<Slot>,
    /// On which ports it is proven, a bit each.
    pub proven: Result<u64, Hindrance>,
}

/// Every rule of a policy over `ports` ports that drops what is in a set, IPv4 first, in the
/// order in which packets meet the proven ones.
pub fn survey(policy: &Policy, ports: usize) -> Vec<Candidate> {
    debug_assert!(ports <= MAX_PORTS);
    let all = (0..ports).map(|at| PortId(at as u8).bit()).sum();
    let mut found = Vec::new();
    family(&policy.v4, Family::V4, all, &mut found);
    family(&policy.v6, Family::V6, all, &mut found);
    found
}

/// The chain that sees packets first, or why there is none that would do.
fn first<A>(policy: &FamilyPolicy<A>) -> Result<usize, Hindrance> {
    let [raw, mangle, ..] = policy.hooks[Hook::Prerouting as usize];
    match (raw, mangle) {
        (Some(raw), _) => Ok(raw.0 as usize),
        (None, Some(_)) if policy.needs_conntrack => Err(Hindrance::Tracked),
        (None, Some(mangle)) => Ok(mangle.0 as usize),
        (None, None) => Err(Hindrance::Place),
    }
}

fn family<A: Address>(
    policy: &FamilyPolicy<A>,
    family: Family,
    ports: u64,
    found: &mut Vec<Candidate>,
) {
    let first = first(policy);
    let mangle = policy.hooks[Hook::Prerouting as usize][TableId::Mangle as usize];
    if let Ok(at) = first {
        in_order(&policy.chains[at], family, ports, found);
    }
    for (at, chain) in policy.chains.iter().enumerate().filter(|(at, _)| first != Ok(*at)) {
        let untracked = mangle.is_some_and(|mangle| mangle.0 as usize == at);
        let why =
            if untracked { first.err().unwrap_or(Hindrance::Place) } else { Hindrance::Place };
        found.extend(
            candidates(chain, family).map(|(_, _, it)| Candidate { proven: Err(why), ..it }),
        );
    }
}

/// The rules of the first chain: each is proven where nothing before it may have acted.
fn in_order<A: Address>(chain: &Chain<A>, family: Family, all: u64, found: &mut Vec<Candidate>) {
    // Ports on which nothing has happened yet, and by which rule that changed first.
    let (mut open, mut closed_by) = (all, None);
    let mut candidates = candidates(chain, family).peekable();
    for (index, rule) in chain.rules.iter().enumerate() {
        let ports = rule.base.iif.0 & all;
        let candidate = candidates.next_if(|(at, _, _)| *at == index);
        let mut proven = None;
        if let Some((_, found_match, mut candidate)) = candidate {
            candidate.proven = match shape(rule, found_match) {
                Err(why) => Err(why),
                Ok(()) if ports == 0 => Err(Hindrance::NoPort),
                Ok(()) if ports & open == 0 => Err(Hindrance::After(closed_by.unwrap_or(0))),
                Ok(()) => Ok(ports & open),
            };
            proven = candidate.proven.ok();
            found.push(candidate);
        }
        if proven.is_none() && ports & open != 0 {
            open &= !ports;
            closed_by = closed_by.or(Some(index as u32 + 1));
        }
    }
}

/// Rules that drop by a set: their index, and the match.
fn candidates<A: Address>(
    chain: &Chain<A>,
    family: Family,
) -> impl Iterator<Item = (usize, &SetMatch, Candidate)> {
    chain.rules.iter().enumerate().filter_map(move |(index, rule)| {
        if !matches!(rule.target, Target::Drop) {
            return None;
        }
        let set = rule.matches.iter().find_map(|one| match one {
            Match::Set(set) => Some(set),
            _ => None,
        })?;
        let candidate = Candidate {
            family,
            table: chain.table,
            chain: chain.name.clone(),
            number: index as u32 + 1,
            counter: rule.counter,
            slot: Arc::clone(&set.slot),
            proven: Err(Hindrance::Place),
        };
        Some((index, set, candidate))
    })
}

/// Whether a rule asks for nothing but its set and a port.
fn shape<A: Address>(rule: &CompiledRule<A>, set: &SetMatch) -> Result<(), Hindrance> {
    let base = &rule.base;
    let anywhere = |(address, negated): (classifier::Masked<A>, bool)| {
        !negated && address.mask() == A::default()
    };
    let asks_nothing = anywhere(base.src)
        && anywhere(base.dst)
        && base.oif.is_any()
        && base.proto.is_none()
        && base.fragment.is_none();
    if !asks_nothing || rule.matches.len() != 1 {
        return Err(Hindrance::Asks);
    }
    let plain = set.sides.is_source(0)
        && !set.negated
        && !set.return_nomatch
        && set.packets.is_none()
        && set.bytes.is_none();
    if plain { Ok(()) } else { Err(Hindrance::Options) }
}

#[cfg(test)]
mod tests;
