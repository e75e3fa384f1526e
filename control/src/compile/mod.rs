//! Compiles the model into the policy that the data plane walks.
//!
//! `Ruleset` (both families) and the port names go in; a
//! [`dataplane::policy::Policy`], the map from rules to counters and the
//! dynamic state go out. Everything is bounded by [`Limits`]; an error names the
//! rule by its place in the text. The result is not yet trusted: `selfcheck`
//! compares it with `interpret` before it may be published.

pub mod blocklist;
mod chains;
mod counters;
mod dynamic;
mod indexed;
mod indexes;
mod measure;
mod meta;
pub mod pieces;
mod sets;
mod tally;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use classifier::Address;
use dataplane::clock::Nanos;
use dataplane::packet::{Family, MAX_PORTS};
use dataplane::policy::limit::LimitOverflow;
use dataplane::policy::{
    ChainId, CompiledRule, CounterId, FamilyPolicy, Match, Policy, TABLES, TableId, Target, Written,
};

use dataplane::sets::{Registry, SetName};

use crate::model::{self, MatchBody, Ruleset, Span, TargetSpec};

pub use counters::{ChainCounters, CounterMap};
#[cfg(test)]
pub(crate) use dynamic::write_words;
pub use dynamic::{DynamicState, SavedLimit};
use indexes::Draft;
pub(crate) use indexes::threads;
pub use pieces::{Imported, Piece};

/// Upper bounds on what one policy may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rules of one family over all tables.
    pub rules: usize,
    /// Chains of one family over all tables.
    pub chains: usize,
    /// Nested jumps on one walk. The data plane's return stack is this deep.
    pub depth: u32,
    /// Jumps on one walk in the worst case, gotos included.
    pub jumps: u64,
    /// Match extensions of one rule.
    pub matches: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rules: 1 << 20, chains: 1 << 17, depth: MAX_DEPTH, jumps: 1 << 20, matches: 64 }
    }
}

/// Jumps may nest this deep: real policies stay below ten.
pub const MAX_DEPTH: u32 = 512;

/// Why a model does not compile. Spans refer to the family's own file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// More rules than [`Limits::rules`].
    #[error("{family:?}: more than {limit} rules")]
    TooManyRules {
        /// Whose rules.
        family: Family,
        /// The bound.
        limit: usize,
        /// The first rule beyond it.
        span: Span,
    },
    /// More chains than [`Limits::chains`].
    #[error("{family:?}: more than {limit} chains")]
    TooManyChains {
        /// Whose chains.
        family: Family,
        /// The bound.
        limit: usize,
        /// The first chain beyond it.
        span: Span,
    },
    /// A rule with more match extensions than [`Limits::matches`].
    #[error("{family:?}: a rule has more than {limit} matches")]
    TooManyMatches {
        /// Whose rule.
        family: Family,
        /// The bound.
        limit: usize,
        /// The rule.
        span: Span,
    },
    /// Jumps nest deeper than [`Limits::depth`].
    #[error(
        "{family:?}: jumps nest {depth} deep below chain {chain}, at most {limit} are supported"
    )]
    TooDeep {
        /// Whose chain.
        family: Family,
        /// Where the deepest nesting starts.
        chain: String,
        /// How deep it is.
        depth: u32,
        /// The bound.
        limit: u32,
        /// The chain's declaration.
        span: Span,
    },
    /// A packet may take more jumps than [`Limits::jumps`] in a chain and below.
    #[error("{family:?}: a packet may take more than {limit} jumps in and below chain {chain}")]
    TooManyJumps {
        /// Whose chain.
        family: Family,
        /// The chain.
        chain: String,
        /// The bound.
        limit: u64,
        /// The chain's declaration.
        span: Span,
    },
    /// A chain reaches itself.
    #[error("{family:?}: chain {chain} in table {table} reaches itself")]
    Loop {
        /// Whose chain.
        family: Family,
        /// Its table.
        table: &'static str,
        /// Its name.
        chain: String,
        /// Its declaration.
        span: Span,
    },
    /// A jump to a chain that the table does not have.
    #[error("{family:?}: no chain {chain} in table {table}")]
    NoSuchChain {
        /// Whose rule.
        family: Family,
        /// Its table.
        table: &'static str,
        /// The missing chain.
        chain: String,
        /// The target's place.
        span: Span,
    },
    /// State that a rule owns or shares cannot be made.
    #[error("{family:?}: {source}")]
    State {
        /// Whose rule.
        family: Family,
        /// Why.
        source: StateError,
        /// The rule.
        span: Span,
    },
    /// More ports than a classifier key has bits for.
    #[error("{0} ports, at most {MAX_PORTS} are supported")]
    TooManyPorts(usize),
}

/// Why the state that a rule owns or shares cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A rate and burst that the kernel's credit arithmetic cannot hold.
    #[error(transparent)]
    Limit(#[from] LimitOverflow),
    /// A set that is not there.
    #[error("there is no set called {0}: create it before the rules that name it")]
    NoSuchSet(SetName),
    /// A set of the other family's addresses.
    #[error("set {0} is of {1:?} addresses, which these rules have none of")]
    SetFamily(SetName, Family),
    /// A copy is to leave by an interface that is not ours.
    #[error("TEE --oif {0}: this is none of the ports")]
    NoPort(String),
    /// `-m rateest` names what no RATEEST makes.
    #[error("no rule with -j RATEEST makes an estimator `{0}'")]
    NoEstimator(String),
    /// Two RATEEST rules make one estimator differently.
    #[error("estimator `{0}' is made twice, with other times")]
    Estimator(String),
    /// Rules of both families that share a list under different masks.
    #[error(
        "recent: the list {name} has one mask in IPv4 and another in IPv6, and the kernel applies \
         one to both; give one of them another --name"
    )]
    RecentMasks {
        /// The list's name.
        name: Box<str>,
    },
    /// Rules that share a table and count different things.
    #[error(
        "hashlimit: rules that share the table {name} must all count packets, or all bytes, and all \
         with or all without --hashlimit-rate-match; give this rule another --hashlimit-name"
    )]
    HashUnits {
        /// The table's name.
        name: Box<str>,
    },
}

impl CompileError {
    /// Where in the family's file, if it is about one place.
    pub fn span(&self) -> Option<Span> {
        match self {
            Self::TooManyRules { span, .. }
            | Self::TooManyChains { span, .. }
            | Self::TooManyMatches { span, .. }
            | Self::TooDeep { span, .. }
            | Self::TooManyJumps { span, .. }
            | Self::Loop { span, .. }
            | Self::NoSuchChain { span, .. }
            | Self::State { span, .. } => Some(*span),
            Self::TooManyPorts(_) => None,
        }
    }
    /// Whose file it speaks of, where it speaks of one.
    pub fn family(&self) -> Option<Family> {
        match self {
            Self::TooManyRules { family, .. }
            | Self::TooManyChains { family, .. }
            | Self::TooManyMatches { family, .. }
            | Self::TooDeep { family, .. }
            | Self::TooManyJumps { family, .. }
            | Self::Loop { family, .. }
            | Self::NoSuchChain { family, .. }
            | Self::State { family, .. } => Some(*family),
            Self::TooManyPorts(_) => None,
        }
    }
}

/// What the compiler takes.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The IPv4 rules.
    pub v4: &'a Ruleset,
    /// The IPv6 rules.
    pub v6: &'a Ruleset,
    /// Interface names; the index is the [`dataplane::packet::PortId`].
    pub ports: &'a [String],
    /// Bounds.
    pub limits: Limits,
}

/// What the compiler yields.
#[derive(Debug)]
pub struct Compiled {
    /// The policy.
    pub policy: Policy,
    /// Which rule counts where.
    pub counters: CounterMap,
    /// The cells that the policy's rules share; pass it to the next compilation.
    pub dynamic: DynamicState,
    /// What indexing each chain took: IPv4's chains, IPv6's. Nothing, where the index of
    /// another policy could be shared.
    pub built: [Vec<Nanos>; 2],
}

/// Compiles both families. Cells in `previous` whose rule is still there are kept.
pub fn compile(input: Input<'_>, previous: &DynamicState) -> Result<Compiled, CompileError> {
    let compiled = compile_over(input, previous, Arc::clone(previous.sets()), None)?;
    compiled.dynamic.expect_packets();
    Ok(compiled)
}

/// The same, over other sets than those of `previous`, and without room in them for what
/// packets will add ([`DynamicState::expect_packets`]). Chains that are indexed like those of
/// the same name in `known` share the index.
pub fn compile_over(
    input: Input<'_>,
    previous: &DynamicState,
    sets: Arc<Registry>,
    known: Option<&Policy>,
) -> Result<Compiled, CompileError> {
    if input.ports.len() > MAX_PORTS {
        return Err(CompileError::TooManyPorts(input.ports.len()));
    }
    let mut state = State {
        ports: input.ports,
        limits: input.limits,
        counters: CounterMap::default(),
        previous,
        dynamic: DynamicState::with_sets(sets),
        built: Default::default(),
    };
    state.dynamic.sets.name_ports(input.ports);
    for rules in [input.v4, input.v6] {
        state.declare(rules)?;
    }
    [input.v4, input.v6].into_iter().for_each(|rules| state.dynamic.tallies.survey(rules));
    let v4 = state.family(input.v4, known.map(|known| &known.v4))?;
    let v6 = state.family(input.v6, known.map(|known| &known.v6))?;
    let State { counters, dynamic, built, .. } = state;
    let policy = Policy { v4, v6, counters: counters.len() };
    Ok(Compiled { policy, counters, dynamic, built })
}

struct State<'a> {
    ports: &'a [String],
    limits: Limits,
    counters: CounterMap,
    previous: &'a DynamicState,
    dynamic: DynamicState,
    built: [Vec<Nanos>; 2],
}

impl State<'_> {
    /// Makes what rules of either family may name before, or without, the rule that makes it.
    fn declare(&mut self, rules: &Ruleset) -> Result<(), CompileError> {
        let chains = rules.tables.iter().flat_map(|table| &table.chains);
        for rule in chains.flat_map(|chain| &chain.rules) {
            let made = self.dynamic.measures.declare(&rule.target, &self.previous.measures);
            made.map_err(|source| refused(rules.family, source, rule))?;
        }
        Ok(())
    }

    fn family<A: Address>(
        &mut self,
        rules: &Ruleset,
        known: Option<&FamilyPolicy<A>>,
    ) -> Result<FamilyPolicy<A>, CompileError> {
        let family = rules.family;
        let ids = chains::number(rules, &self.limits)?;
        let max_depth = chains::check_depth(rules, &ids, &self.limits)?;
        let mut drafts = Vec::with_capacity(ids.len());
        let mut hooks = [[None; TABLES]; 5];
        let mut needs_conntrack = false;
        for (at, table) in rules.tables.iter().enumerate() {
            for chain in &table.chains {
                let id = ids.get(at, &chain.name);
                if let (Some(hook), Some(id)) = (chains::hook_of(chain), id) {
                    hooks[hook as usize][table.id as usize] = Some(id);
                }
                needs_conntrack |= chain.rules.iter().any(needs_tracking);
                drafts.push(self.chain::<A>(family, table.id, chain, |name| ids.get(at, name))?);
            }
        }
        let nat = rules.tables.iter().any(|table| table.id == TableId::Nat);
        let known = known.map_or(&[][..], |known| &known.chains);
        let (chains, built) = indexes::add(drafts, known);
        self.built[usize::from(family == Family::V6)] = built;
        Ok(FamilyPolicy { chains, hooks, needs_conntrack, nat, max_depth })
    }

    fn chain<A: Address>(
        &mut self,
        family: Family,
        table: TableId,
        chain: &model::Chain,
        find: impl Fn(&str) -> Option<ChainId>,
    ) -> Result<Draft<A>, CompileError> {
        let ids = self.counters.add(family, table, chain);
        let mut rules = Vec::with_capacity(chain.rules.len());
        for (index, rule) in chain.rules.iter().enumerate() {
            let missing = |name: &str| CompileError::NoSuchChain {
                family,
                table: table.name(),
                chain: name.to_owned(),
                span: rule.target_span,
            };
            let target = match &rule.target {
                TargetSpec::Meta(spec) => {
                    let made = self.dynamic.metas.resolve(
                        spec,
                        self.ports,
                        &self.dynamic.measures,
                        &self.previous.metas,
                    );
                    made.map_err(|source| refused(family, source, rule))?
                }
                TargetSpec::Set(spec) => {
                    let made = self.dynamic.sets.target(spec, family);
                    Target::Set(made.map_err(|source| refused(family, source, rule))?)
                }
                spec => target(spec, |name| find(name).ok_or_else(|| missing(name)))?,
            };
            let matches = self.matches(family, table, &chain.name, rule)?;
            let counter = CounterId(ids.first.0 + index as u32);
            rules.push(self.rule(rule, family, matches, target, counter));
        }
        let policy = chain.policy.zip(ids.policy).map(|((policy, _), counter)| (policy, counter));
        Ok(Draft { table, name: chain.name.as_str().into(), policy, rules: rules.into() })
    }

    fn rule<A: Address>(
        &self,
        rule: &model::Rule,
        family: Family,
        matches: Vec<Match>,
        target: Target,
        counter: CounterId,
    ) -> CompiledRule<A> {
        let base = indexed::base(rule, self.ports);
        let parts = indexed::split(family, &base, &matches);
        CompiledRule {
            indexed: parts.indexed,
            check_base: parts.check_base,
            residual: parts.residual.into(),
            base,
            matches: matches.into(),
            target,
            written: Written { line: rule.span.line, bare: rule.is_bare() },
            counter,
        }
    }

    fn matches(
        &mut self,
        family: Family,
        table: TableId,
        chain: &str,
        rule: &model::Rule,
    ) -> Result<Vec<Match>, CompileError> {
        if rule.matches.len() > self.limits.matches {
            let limit = self.limits.matches;
            return Err(CompileError::TooManyMatches { family, limit, span: rule.span });
        }
        let owned = rule.matches.iter().any(|spec| spec.body.owns_state());
        let mut cells = match owned {
            false => Vec::new(),
            true => self
                .dynamic
                .adopt(self.previous, family, table, chain, rule)
                .map_err(|source| refused(family, source, rule))?,
        }
        .into_iter();
        // Most rules have one or two: room for more would be most of the policy.
        let mut matches = Vec::with_capacity(rule.matches.len());
        matches.extend(rule.matches.iter().filter_map(|spec| match &spec.body {
            MatchBody::Plain(body) | MatchBody::State(body) => Some(body.clone()),
            MatchBody::Limit(_)
            | MatchBody::Measure(_)
            | MatchBody::Tally(_)
            | MatchBody::Set(_) => cells.next(),
            MatchBody::Comment(_) | MatchBody::Empty(_) => None,
        }));
        Ok(matches)
    }
}

fn refused(family: Family, source: StateError, rule: &model::Rule) -> CompileError {
    CompileError::State { family, source, span: rule.span }
}

fn target(
    spec: &TargetSpec,
    find: impl Fn(&str) -> Result<ChainId, CompileError>,
) -> Result<Target, CompileError> {
    Ok(match spec {
        TargetSpec::None => Target::Count,
        TargetSpec::Accept => Target::Accept,
        TargetSpec::Drop => Target::Drop,
        TargetSpec::Return => Target::Return,
        TargetSpec::Jump(name) => Target::Jump(find(name)?),
        TargetSpec::Goto(name) => Target::Goto(find(name)?),
        TargetSpec::Reject(with) => Target::Reject(*with),
        TargetSpec::Log(log) => Target::Log(log.clone()),
        TargetSpec::Mark(mark) => Target::Mark(*mark),
        TargetSpec::Connmark(mark) => Target::Connmark(*mark),
        TargetSpec::Header(header) => Target::Header(*header),
        TargetSpec::Ct(ct) => Target::Ct(ct.clone()),
        TargetSpec::Nat(nat) => Target::Nat(*nat),
        TargetSpec::Synproxy(synproxy) => Target::Synproxy(*synproxy),
        TargetSpec::Report(report) => Target::Report(report.clone()),
        TargetSpec::Meta(_) | TargetSpec::Set(_) => unreachable!("made with their state"),
    })
}

/// Whether loading the rule makes the kernel track this family. It does so for
/// matches and targets that take a conntrack reference, in whatever chain they
/// stand, reachable or not; an existing nat table alone does not, nor does NOTRACK.
fn needs_tracking(rule: &model::Rule) -> bool {
    let by_match = rule.matches.iter().any(|spec| spec.body.needs_conntrack());
    let by_target = match &rule.target {
        TargetSpec::Connmark(_) | TargetSpec::Nat(_) | TargetSpec::Synproxy(_) => true,
        TargetSpec::Ct(ct) => !ct.notrack,
        _ => false,
    };
    by_match || by_target
}
