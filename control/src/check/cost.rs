//! What lookups in a policy's long chains cost at most, and which rules make them dear.

use std::fmt;
use std::sync::Arc;

use classifier::Address;
use classifier::strategy::{Culprit, Explanation, Reason, SCAN_LIMIT};
use dataplane::clock::Nanos;
use dataplane::packet::Family;
use dataplane::policy::{Chain, FamilyPolicy};
use serde::Serialize;

use crate::compile::Compiled;
use crate::diagnostics::{Code, Finding, Severity};
use crate::model::{Ruleset, Span};

/// What a lookup in one chain costs, whatever the packet.
#[derive(Clone, Debug, Serialize)]
pub struct ChainCost {
    /// The file, as the caller named it.
    #[serde(skip)]
    pub file: Arc<str>,
    /// Table.
    pub table: &'static str,
    /// Chain.
    pub chain: String,
    /// Rules in it.
    pub rules: usize,
    /// The structure and the reason for it.
    pub structure: Structure,
    /// Most hash tables that a packet whose layer 4 can be read makes a search probe.
    pub max_probes: usize,
    /// Most rules that such a search compares.
    pub max_compared: usize,
    /// Of these, rules that are scanned one by one.
    pub scanned: usize,
    /// Most probes of one search for any other packet (a cut header, say).
    pub max_probes_odd: usize,
    /// And most rules that it compares.
    pub max_compared_odd: usize,
    /// Whether the rules' masks differ too much for hash tables.
    pub exploded: bool,
    /// Bytes held for lookups.
    pub bytes: usize,
    /// What building took.
    pub build_us: u64,
    /// Rules behind the worst case, dearest first; not all.
    pub worst: Vec<DearRule>,
}

/// The structure that answers lookups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Structure {
    /// A scan: the chain is short.
    ShortScan,
    /// A scan: the rules have nothing in common to hash by.
    Scan,
    /// Hash tables.
    HashTables,
}

/// A rule that makes lookups dear.
#[derive(Clone, Debug, Serialize)]
pub struct DearRule {
    /// Its line in the file.
    pub line: u32,
    /// And its column.
    pub column: u32,
    /// How.
    pub why: String,
    #[serde(skip)]
    span: Span,
}

/// The costs of every chain of a family's policy that is longer than what is scanned anyway.
pub(super) fn of(ruleset: &Ruleset, compiled: &Compiled, file: &str) -> Vec<ChainCost> {
    match ruleset.family {
        Family::V4 => of_family(ruleset, &compiled.policy.v4, &compiled.built[0], file),
        Family::V6 => of_family(ruleset, &compiled.policy.v6, &compiled.built[1], file),
    }
}

fn of_family<A: Address>(
    ruleset: &Ruleset,
    policy: &FamilyPolicy<A>,
    built: &[Nanos],
    file: &str,
) -> Vec<ChainCost> {
    let file = Arc::from(file);
    let written = ruleset.tables.iter().flat_map(|table| &table.chains);
    let chains = policy.chains.iter().zip(written).zip(built);
    chains
        .filter(|((chain, _), _)| chain.rules.len() > SCAN_LIMIT)
        .map(|((chain, written), took)| {
            let span = |culprit: &Culprit| written.rules.get(culprit.rule as usize).map(|r| r.span);
            of_chain(chain, span, *took, &file)
        })
        .collect()
}

fn of_chain<A: Address>(
    chain: &Chain<A>,
    span: impl Fn(&Culprit) -> Option<Span>,
    took: Nanos,
    file: &Arc<str>,
) -> ChainCost {
    let plain = chain.classifier.explain();
    let odd = chain.odd.explain();
    let dear = plain.worst.iter().filter_map(|culprit| {
        let span = span(culprit)?;
        let why = culprit.why.to_string();
        Some(DearRule { line: span.line, column: span.column, why, span })
    });
    ChainCost {
        file: Arc::clone(file),
        table: chain.table.name(),
        chain: chain.name.to_string(),
        rules: chain.rules.len(),
        structure: structure(&plain),
        max_probes: plain.max_probes,
        max_compared: plain.max_compared,
        scanned: plain.scanned,
        max_probes_odd: odd.max_probes * chain.odd.most_searches(),
        max_compared_odd: odd.max_compared * chain.odd.most_searches(),
        exploded: plain.exploded,
        bytes: plain.bytes + odd.bytes,
        build_us: took.0 / 1_000,
        worst: dear.collect(),
    }
}

fn structure(explained: &Explanation) -> Structure {
    match explained.reason {
        Reason::Short => Structure::ShortScan,
        Reason::Unhashable => Structure::Scan,
        Reason::Hashes => Structure::HashTables,
    }
}

impl ChainCost {
    /// The warning that this chain deserves: a packet may be compared with many rules.
    pub(super) fn warning(&self) -> Option<Finding> {
        let scan = self.structure == Structure::Scan;
        if !self.exploded && !scan {
            return None;
        }
        let dearest = self.worst.first()?;
        let why = match scan {
            true => "no hash table suits its rules",
            false => "its rules' masks differ too much for hash tables",
        };
        let message = format!(
            "a packet may be compared with {} of the {} rules of chain {}: {why}",
            self.max_compared, self.rules, self.chain
        );
        let remedy = "use masks of few lengths, a set in place of many networks, or user chains \
                      that a common selector leads to";
        let severity = Severity::Warning;
        Some(
            Finding::new(severity, Code::SlowChain, &self.file, dearest.span, message)
                .with_remedy(remedy),
        )
    }
}

impl fmt::Display for ChainCost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, chain, rules, max_probes, max_compared, .. } = self;
        let structure = match self.structure {
            Structure::ShortScan => "scanned, as it is short",
            Structure::Scan => "scanned, as nothing suits to hash by",
            Structure::HashTables => "hash tables",
        };
        write!(
            f,
            "{table} {chain}: {rules} rules in {structure}; a packet costs at most {max_probes} \
             probes and {max_compared} comparisons a search ({} and {} if its header is cut), {} \
             rules are scanned; {} KiB, built in {:.1} ms",
            self.max_probes_odd,
            self.max_compared_odd,
            self.scanned,
            self.bytes.div_ceil(1024),
            self.build_us as f64 / 1e3,
        )?;
        for DearRule { line, column, why, .. } in &self.worst {
            write!(f, "\n  {}:{line}:{column} {why}", self.file)?;
        }
        Ok(())
    }
}
