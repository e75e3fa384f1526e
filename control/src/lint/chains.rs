//! All chains of a compiled policy, each with what may enter it.

use classifier::Address;
use dataplane::packet::Family;
use dataplane::policy::tally::TallyMatch;
use dataplane::policy::target::HeaderTarget;
use dataplane::policy::{
    Chain, ChainId, ChainPolicy, CompiledRule, FamilyPolicy, Hook, Match, Target,
};

use super::order::{Move, moves};
use super::shadow::{Act, Doubt, ReadRule, Verdict, doubts};
use crate::region::{Atoms, Effort, Reading, Region, Space, at_hook, space};

/// Most regions that are kept of what enters a chain; more are taken for everything.
const ENTRIES: usize = 64;

/// How much is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Pairs of regions compared for one rule's covers.
    pub effort_per_rule: u64,
    /// And for all rules of a file: 10,000 rules that hardly meet take a hundred million.
    pub effort: u64,
}

impl Bounds {
    /// For somebody who asked for something else: a second or so.
    pub const QUICK: Self = Self { effort_per_rule: 250_000, effort: 15_000_000 };
}

impl Default for Bounds {
    fn default() -> Self {
        Self { effort_per_rule: 2_000_000, effort: 400_000_000 }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// By chain, rising; within a chain by rule.
    pub doubts: Vec<(ChainId, Doubt)>,
    /// Chains with rules that nothing leads to, rising.
    pub unused: Vec<ChainId>,
    /// Rules that may move up, by chain.
    pub moves: Vec<(ChainId, Move)>,
    /// Rules for which it could not be decided within the bounds.
    pub undecided: u32,
}

/// Looks at every rule of a family's policy; `told` hears how many are done. `hits` says how
/// often each rule of a chain was met, where that is known.
pub fn survey<A: Address>(
    family: Family,
    policy: &FamilyPolicy<A>,
    ports: usize,
    bounds: Bounds,
    hits: &dyn Fn(ChainId) -> Vec<u64>,
    told: &mut dyn FnMut(usize),
) -> Survey {
    let mut effort = Effort(bounds.effort);
    let mut done = 0;
    let space = space(family, ports);
    let mut found = Survey::default();
    let order = callers_first(policy);
    let rewrites = rewrites(policy, &order);
    let chains = policy.chains.iter();
    let absorbed: Vec<Vec<Region>> =
        chains.map(|chain| absorbed(chain, &space, &rewrites)).collect();
    let called = Called { absorbed, rewrites };
    let mut entries = entries(policy, &space);
    for id in order {
        let chain = &policy.chains[id.0 as usize];
        let Some(entering) = std::mem::take(&mut entries[id.0 as usize]) else {
            if !chain.rules.is_empty() {
                found.unused.push(id);
            }
            continue;
        };
        let rules = read(chain, &entering, &space, &called);
        for (rule, read) in chain.rules.iter().zip(&rules) {
            if let Target::Jump(to) | Target::Goto(to) = rule.target {
                enter(&mut entries[to.0 as usize], &read.matched, &space);
            }
        }
        let end = chain.policy.map(|(verdict, _)| match verdict {
            ChainPolicy::Accept => Verdict::Accept,
            ChainPolicy::Drop => Verdict::Drop,
        });
        let mut one = || {
            done += 1;
            told(done);
        };
        let (doubts, undecided) =
            doubts(&rules, end, bounds.effort_per_rule, &mut effort, &mut one);
        let hits = hits(id);
        if hits.len() == rules.len() {
            let moves = moves(&rules, &hits, &mut effort);
            found.moves.extend(moves.into_iter().map(|it| (id, it)));
        }
        found.doubts.extend(doubts.into_iter().map(|doubt| (id, doubt)));
        found.undecided += undecided;
    }
    found.doubts.sort_by_key(|(chain, doubt)| (*chain, doubt.rule));
    found.unused.sort_unstable();
    found
}

type Entering = Option<Vec<Region>>;

/// What enters each chain from hooks.
fn entries<A: Address>(policy: &FamilyPolicy<A>, space: &Space) -> Vec<Entering> {
    let mut entries: Vec<Entering> = policy.chains.iter().map(|_| None).collect();
    for hook in Hook::ALL {
        for id in policy.hooks[hook as usize].iter().flatten() {
            enter(&mut entries[id.0 as usize], &[at_hook(hook, space)], space);
        }
    }
    entries
}

/// Adds to what enters a chain.
fn enter(entering: &mut Entering, more: &[Region], space: &Space) {
    let entering = entering.get_or_insert_default();
    for region in more {
        // Atoms are of the chain that asked them: marks may have changed since.
        let region = Region { atoms: Vec::new(), ..region.clone() };
        if !entering.iter().any(|known| region.within(known)) {
            entering.retain(|known| !known.within(&region));
            entering.push(region);
        }
    }
    if entering.len() > ENTRIES {
        *entering = vec![Region::all(space)];
    }
}

/// Chains in an order in which callers come before the chains that they call. There are
/// no loops: the parser refuses them.
fn callers_first<A: Address>(policy: &FamilyPolicy<A>) -> Vec<ChainId> {
    let mut callers = vec![0_u32; policy.chains.len()];
    let called = |chain: &Chain<A>| -> Vec<ChainId> {
        let targets = chain.rules.iter().map(|rule| &rule.target);
        targets
            .filter_map(|target| match target {
                Target::Jump(to) | Target::Goto(to) => Some(*to),
                _ => None,
            })
            .collect()
    };
    for to in policy.chains.iter().flat_map(called) {
        callers[to.0 as usize] += 1;
    }
    let mut ready: Vec<ChainId> = (0..policy.chains.len() as u32)
        .rev()
        .map(ChainId)
        .filter(|id| callers[id.0 as usize] == 0)
        .collect();
    let mut order = Vec::new();
    while let Some(id) = ready.pop() {
        order.push(id);
        for to in called(&policy.chains[id.0 as usize]) {
            callers[to.0 as usize] -= 1;
            if callers[to.0 as usize] == 0 {
                ready.push(to);
            }
        }
    }
    order
}

/// Whether a target may change what later matches ask about.
fn changes(target: &Target) -> bool {
    !matches!(
        target,
        Target::Count
            | Target::Accept
            | Target::Drop
            | Target::Reject(_)
            | Target::Return
            | Target::Goto(_)
            | Target::Log(_)
            | Target::Nat(_)
    )
}

/// What is known of chains that are called.
struct Called {
    /// What each never gives back.
    absorbed: Vec<Vec<Region>>,
    /// Which may give packets back with other fields.
    rewrites: Vec<bool>,
}

impl Called {
    fn rewrites(&self, target: &Target) -> bool {
        rewritten(target, &self.rewrites)
    }
}

/// Whether packets go on behind a rule with other fields: addresses, or a state.
fn rewritten(target: &Target, chains: &[bool]) -> bool {
    match target {
        Target::Header(HeaderTarget::Prefix(_)) | Target::Ct(_) => true,
        Target::Jump(to) => chains[to.0 as usize],
        _ => false,
    }
}

/// Chains from which packets may come back with other fields.
fn rewrites<A: Address>(policy: &FamilyPolicy<A>, callers_first: &[ChainId]) -> Vec<bool> {
    let mut rewrites = vec![false; policy.chains.len()];
    for id in callers_first.iter().rev() {
        let rules = &policy.chains[id.0 as usize].rules;
        let gone_to = |target: &Target| match target {
            Target::Goto(to) => rewrites[to.0 as usize],
            target => rewritten(target, &rewrites),
        };
        rewrites[id.0 as usize] = rules.iter().any(|rule| gone_to(&rule.target));
    }
    rewrites
}

/// What a called chain never gives back, as far as that needs no knowledge of atoms.
fn absorbed<A: Address>(chain: &Chain<A>, space: &Space, rewrites: &[bool]) -> Vec<Region> {
    let mut atoms = Atoms::default();
    let mut reading = Reading::new(space, &mut atoms);
    let mut absorbed: Vec<Region> = Vec::new();
    if chain.policy.is_some() {
        return absorbed;
    }
    for rule in &chain.rules {
        let matched = reading.rule(rule);
        match Act::of(&rule.target) {
            Act::Verdict(_) => {
                absorbed.extend(matched.into_iter().filter(|it| it.atoms.is_empty()))
            }
            Act::Leave => break,
            Act::GoOn => {}
        }
        if absorbed.len() > ENTRIES || rewritten(&rule.target, rewrites) {
            break;
        }
    }
    absorbed
}

/// Reads the rules of a chain for what enters it.
fn read<A: Address>(
    chain: &Chain<A>,
    entering: &[Region],
    space: &Space,
    called: &Called,
) -> Vec<ReadRule> {
    let mut atoms = Atoms::default();
    let mut reading = Reading::new(space, &mut atoms);
    let (mut entering, mut segment) = (entering.to_vec(), 0);
    let one = |rule: &CompiledRule<A>| {
        let alone = reading.rule(rule);
        let matched = both(&alone, &entering);
        let act = Act::of(&rule.target);
        let ended = match (act, &rule.target) {
            (_, Target::Synproxy(_)) => Vec::new(),
            (Act::Verdict(_) | Act::Leave, _) => matched.clone(),
            (Act::GoOn, Target::Jump(to)) => both(&matched, &called.absorbed[to.0 as usize]),
            (Act::GoOn, _) => Vec::new(),
        };
        let effects = rule.matches.iter().any(Match::has_effect);
        let limited = effects && rule.matches.iter().all(only_limits);
        let possible = !alone.is_empty();
        let read = ReadRule { matched, ended, act, possible, effects, limited, segment };
        if changes(&rule.target) {
            reading.changed();
        }
        if called.rewrites(&rule.target) {
            entering = vec![Region::all(space)];
            segment += 1;
        }
        read
    };
    chain.rules.iter().map(one).collect()
}

/// Whether a match that does more than answer is a limit.
fn only_limits(body: &Match) -> bool {
    let limit = matches!(body, Match::Limit(_) | Match::Tally(TallyMatch::Hash(_)));
    limit || !body.has_effect()
}

fn both(one: &[Region], two: &[Region]) -> Vec<Region> {
    one.iter().flat_map(|it| two.iter().filter_map(|other| it.and(other))).collect()
}
