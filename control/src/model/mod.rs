//! The policy as the operator wrote it, valid by construction.
//!
//! Text positions stay attached, so that every later stage (lint, compile,
//! explain) can name the line and column it speaks of. Jumps refer to chains
//! that exist; loops were refused; every number is in range.

use dataplane::packet::Family;
use dataplane::policy::matches::{AddressMask, Match, Neg};
use dataplane::policy::report::ReportTarget;
use dataplane::policy::target::{
    ConnmarkTarget, CtTarget, HeaderTarget, LogTarget, MarkTarget, NatTarget, RejectWith,
    SynproxyTarget,
};
use dataplane::policy::{ChainPolicy, TableId};

pub mod annotations;
pub mod expiry;
pub mod hmark;
pub mod measure;
pub mod meta;
pub mod sets;
pub mod tally;

pub use hmark::HmarkSpec;
pub use measure::MeasureSpec;
pub use meta::MetaSpec;
pub use sets::{SetSpec, SetTargetSpec};
pub use tally::TallySpec;

/// Where something stands in a source text. Lines and columns count from 1;
/// columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    /// Line.
    pub line: u32,
    /// First column.
    pub column: u32,
    /// Length in characters, at least 1.
    pub len: u32,
}

/// Packets and bytes as written in `[p:b]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// One file's policy: the tables of one family, in the order of first mention.
#[derive(Clone, Debug)]
pub struct Ruleset {
    /// Family.
    pub family: Family,
    /// Tables that the file mentions.
    pub tables: Vec<Table>,
}

impl Ruleset {
    /// No tables: everything is accepted.
    pub fn empty(family: Family) -> Self {
        Self { family, tables: Vec::new() }
    }

    /// Rules over all tables and chains.
    pub fn rule_count(&self) -> usize {
        self.tables.iter().flat_map(|table| &table.chains).map(|chain| chain.rules.len()).sum()
    }
}

/// One table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Which.
    pub id: TableId,
    /// Built-in chains in hook order, then user chains in the order the kernel's tools print them.
    pub chains: Vec<Chain>,
}

impl Table {
    /// The chain of that name.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == name)
    }
}

/// One chain.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Name, unique in its table.
    pub name: String,
    /// Policy and its counters, for built-in chains.
    pub policy: Option<(ChainPolicy, Counters)>,
    /// Rules in order, address lists already expanded.
    pub rules: Vec<Rule>,
    /// Where it was declared (or first mentioned).
    pub span: Span,
}

/// An interface name as `-i` and `-o` take it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Interface {
    /// The name without a trailing `+`.
    pub name: String,
    /// Whether it ended in `+`: `name` is then a prefix (possibly empty).
    pub prefix: bool,
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `[p:b]`, if written.
    pub counters: Option<Counters>,
    /// `-s`.
    pub src: Option<Neg<AddressMask>>,
    /// `-d`.
    pub dst: Option<Neg<AddressMask>>,
    /// `-i`; negation second.
    pub input: Option<(Interface, bool)>,
    /// `-o`; negation second.
    pub output: Option<(Interface, bool)>,
    /// `-p`; `None` for `all`.
    pub proto: Option<Neg<u8>>,
    /// `-f` (`Some(true)`) or `! -f` (`Some(false)`).
    pub fragment: Option<bool>,
    /// Match extensions in the order they were loaded, which is the order of evaluation.
    pub matches: Vec<MatchSpec>,
    /// `-j` or `-g`.
    pub target: TargetSpec,
    /// Where the target stands.
    pub target_span: Span,
    /// The whole rule.
    pub span: Span,
}

impl Rule {
    /// Whether it was written without any selector and match, not even a comment.
    pub fn is_bare(&self) -> bool {
        let anywhere = |end: &Option<Neg<AddressMask>>| {
            end.is_none_or(|end| !end.negated && end.value.mask == 0)
        };
        anywhere(&self.src)
            && anywhere(&self.dst)
            && self.input.is_none()
            && self.output.is_none()
            && self.proto.is_none()
            && self.fragment.is_none()
            && self.matches.is_empty()
    }
}

/// A match with its position.
#[derive(Clone, Debug)]
pub struct MatchSpec {
    /// What it compares.
    pub body: MatchBody,
    /// Where it stands.
    pub span: Span,
}

/// A match as written. `Match` values are shared with the data plane; the others
/// carry what only text needs.
#[derive(Clone, Debug)]
pub enum MatchBody {
    /// A static match under its own module name.
    Plain(Match),
    /// `-m state --state`: printed under that name, means `conntrack --ctstate`.
    State(Match),
    /// `-m comment --comment`.
    Comment(String),
    /// `-m limit`: `--limit` average and `--limit-burst`.
    Limit(LimitSpec),
    /// `-m quota` and others that own amounts, or share them by name.
    Measure(MeasureSpec),
    /// `-m hashlimit`, `-m recent`, `-m connlimit`.
    Tally(TallySpec),
    /// `-m set`.
    Set(SetSpec),
    /// A match module loaded without options that compares nothing (`-m tcp` alone
    /// is `Plain(Tcp)`; this is for `-m udplite` and the like).
    Empty(String),
}

impl MatchBody {
    /// Whether it comes with state that outlives the policy.
    pub fn owns_state(&self) -> bool {
        matches!(self, Self::Limit(_) | Self::Measure(_) | Self::Tally(_) | Self::Set(_))
    }

    /// Whether loading it makes the kernel track the family's connections.
    pub fn needs_conntrack(&self) -> bool {
        match self {
            Self::Plain(body) | Self::State(body) => body.needs_conntrack(),
            Self::Measure(spec) => spec.needs_conntrack(),
            Self::Tally(spec) => spec.needs_conntrack(),
            Self::Comment(_) | Self::Limit(_) | Self::Set(_) | Self::Empty(_) => false,
        }
    }
}

/// `-m limit` as the kernel stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitSpec {
    /// Average interval between packets, in units of 1/10000 s, as iptables computes it from `N/unit`.
    pub avg: u32,
    /// `--limit-burst`.
    pub burst: u32,
}

/// A target as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TargetSpec {
    /// None: the rule only counts.
    None,
    /// ACCEPT.
    Accept,
    /// DROP.
    Drop,
    /// RETURN.
    Return,
    /// `-j CHAIN`.
    Jump(String),
    /// `-g CHAIN`.
    Goto(String),
    /// REJECT.
    Reject(RejectWith),
    /// LOG.
    Log(LogTarget),
    /// MARK.
    Mark(MarkTarget),
    /// CONNMARK.
    Connmark(ConnmarkTarget),
    /// TTL, HL, TOS, DSCP, ECN, TCPMSS.
    Header(HeaderTarget),
    /// CT, NOTRACK.
    Ct(CtTarget),
    /// SNAT, DNAT, MASQUERADE, REDIRECT, NETMAP.
    Nat(NatTarget),
    /// SYNPROXY.
    Synproxy(SynproxyTarget),
    /// NFLOG, AUDIT, TRACE.
    Report(ReportTarget),
    /// CLASSIFY and its kin.
    Meta(MetaSpec),
    /// SET.
    Set(SetTargetSpec),
}
