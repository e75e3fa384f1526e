//! Chain numbering, hooks, and the depth of jumps.

use std::collections::HashMap;

use dataplane::policy::{ChainId, Hook};

use super::{CompileError, Limits};
use crate::model::{Chain, Ruleset, TargetSpec};

/// Chain ids by table (its index in the ruleset) and name.
pub(super) struct ChainIds<'m> {
    tables: Vec<HashMap<&'m str, ChainId>>,
    len: usize,
}

impl ChainIds<'_> {
    pub(super) fn get(&self, table: usize, name: &str) -> Option<ChainId> {
        self.tables.get(table)?.get(name).copied()
    }
    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// Numbers every chain in file order, reachable or not, and checks the totals.
pub(super) fn number<'m>(
    rules: &'m Ruleset,
    limits: &Limits,
) -> Result<ChainIds<'m>, CompileError> {
    let family = rules.family;
    let mut ids = ChainIds { tables: Vec::new(), len: 0 };
    let mut total = 0;
    for table in &rules.tables {
        let mut names = HashMap::with_capacity(table.chains.len());
        for chain in &table.chains {
            if ids.len == limits.chains {
                let limit = limits.chains;
                return Err(CompileError::TooManyChains { family, limit, span: chain.span });
            }
            let room = limits.rules - total;
            if let Some(rule) = chain.rules.get(room) {
                let limit = limits.rules;
                return Err(CompileError::TooManyRules { family, limit, span: rule.span });
            }
            total += chain.rules.len();
            names.insert(chain.name.as_str(), ChainId(ids.len as u32));
            ids.len += 1;
        }
        ids.tables.push(names);
    }
    Ok(ids)
}

/// The hook of a built-in chain.
pub(super) fn hook_of(chain: &Chain) -> Option<Hook> {
    chain.policy?;
    Hook::ALL.into_iter().find(|hook| hook.chain_name() == chain.name)
}

/// The deepest nesting of jumps; refuses loops and what exceeds the limits. A
/// goto leaves no return address behind, so it adds no depth of its own. Chains
/// that call each other twice double the way with every step: how many jumps a
/// packet may take in the worst case is bounded too, as nf_tables does.
///
/// Chains are settled from the leaves up (a chain once all that it reaches are),
/// without recursion: the text decides how long a chain of jumps is.
pub(super) fn check_depth(
    rules: &Ruleset,
    ids: &ChainIds<'_>,
    limits: &Limits,
) -> Result<u32, CompileError> {
    let graph = Graph::new(rules, ids)?;
    let mut waiting_for: Vec<usize> = graph.reaches.iter().map(Vec::len).collect();
    let mut depth = vec![0_u32; ids.len()];
    let mut jumps = vec![0_u64; ids.len()];
    let mut settled: Vec<usize> = (0..ids.len()).filter(|&at| waiting_for[at] == 0).collect();
    let mut next = 0;
    while let Some(&at) = settled.get(next) {
        next += 1;
        for &(caller, cost) in &graph.reached_by[at] {
            depth[caller] = depth[caller].max(depth[at] + cost);
            jumps[caller] = jumps[caller].saturating_add(jumps[at]).saturating_add(1);
            waiting_for[caller] -= 1;
            if waiting_for[caller] == 0 {
                settled.push(caller);
            }
        }
    }
    if let Some(at) = waiting_for.iter().position(|&left| left > 0) {
        let (table, chain) = graph.chains[at];
        let (chain, span) = (chain.name.clone(), chain.span);
        return Err(CompileError::Loop { family: rules.family, table, chain, span });
    }
    if let Some(at) = jumps.iter().position(|&jumps| jumps > limits.jumps) {
        let chain = graph.chains[at].1;
        return Err(CompileError::TooManyJumps {
            family: rules.family,
            chain: chain.name.clone(),
            limit: limits.jumps,
            span: chain.span,
        });
    }
    let deepest = depth.iter().copied().max().unwrap_or(0);
    match depth.iter().position(|&depth| depth > limits.depth) {
        None => Ok(deepest),
        Some(at) => {
            let chain = graph.chains[at].1;
            Err(CompileError::TooDeep {
                family: rules.family,
                chain: chain.name.clone(),
                depth: depth[at],
                limit: limits.depth,
                span: chain.span,
            })
        }
    }
}

/// Jumps and gotos, one edge per rule; indices are [`ChainId`]s.
struct Graph<'m> {
    chains: Vec<(&'static str, &'m Chain)>,
    reaches: Vec<Vec<usize>>,
    /// Caller, and 1 for a jump, 0 for a goto.
    reached_by: Vec<Vec<(usize, u32)>>,
}

impl<'m> Graph<'m> {
    fn new(rules: &'m Ruleset, ids: &ChainIds<'_>) -> Result<Self, CompileError> {
        let count = ids.len();
        let mut graph = Self {
            chains: Vec::with_capacity(count),
            reaches: vec![Vec::new(); count],
            reached_by: vec![Vec::new(); count],
        };
        for (at, table) in rules.tables.iter().enumerate() {
            for chain in &table.chains {
                let caller = graph.chains.len();
                graph.chains.push((table.id.name(), chain));
                for rule in &chain.rules {
                    let (name, cost) = match &rule.target {
                        TargetSpec::Jump(name) => (name, 1),
                        TargetSpec::Goto(name) => (name, 0),
                        _ => continue,
                    };
                    let called = ids.get(at, name).ok_or_else(|| CompileError::NoSuchChain {
                        family: rules.family,
                        table: table.id.name(),
                        chain: name.clone(),
                        span: rule.target_span,
                    })?;
                    let called = called.0 as usize;
                    graph.reaches[caller].push(called);
                    graph.reached_by[called].push((caller, cost));
                }
            }
        }
        Ok(graph)
    }
}
