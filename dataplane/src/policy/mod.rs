//! The compiled policy: chains, rules and hooks as plain immutable data, and
//! the walk over them.
//!
//! Built by the policy compiler in `control`, read by every worker. Nothing in
//! here changes after it is published, except the cells of rules that own
//! dynamic state ([`limit::LimitCell`]), which live outside and are shared.

mod brief;
pub mod constancy;
pub mod eval;
pub mod header;
pub mod hmark;
pub mod limit;
pub mod matches;
pub mod measure;
pub mod meta;
pub mod odd;
pub mod payload;
pub mod place;
pub mod protocol;
pub mod report;
pub mod scene;
pub mod tally;
pub mod target;
pub mod tee;
#[cfg(test)]
pub(crate) mod testing;
pub mod walk;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use classifier::Address;
use classifier::strategy::Strategy;

use crate::conntrack::Extensions;
use crate::packet::Family;

pub(crate) use brief::{Brief, Deed};
pub use matches::Match;
pub use odd::OddIndex;
pub use target::{RejectWith, Target};

/// Netfilter's five hooks, in its numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Hook {
    /// Everything that arrives.
    Prerouting = 0,
    /// What is addressed to this machine.
    Input = 1,
    /// What is routed through.
    Forward = 2,
    /// What this machine sends.
    Output = 3,
    /// Everything that leaves.
    Postrouting = 4,
}

impl Hook {
    /// All hooks in order.
    pub const ALL: [Self; 5] =
        [Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting];
    /// The built-in chain's name.
    pub const fn chain_name(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
        }
    }
}

/// The five tables, in the order they run at one hook (nat's place is by manipulation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum TableId {
    /// Before connection tracking.
    Raw = 0,
    /// Header changes and marks.
    Mangle = 1,
    /// First packet of a connection only.
    Nat = 2,
    /// Verdicts.
    Filter = 3,
    /// Mandatory access control.
    Security = 4,
}

/// Number of tables.
pub const TABLES: usize = 5;

impl TableId {
    /// All tables in order.
    pub const ALL: [Self; TABLES] =
        [Self::Raw, Self::Mangle, Self::Nat, Self::Filter, Self::Security];
    /// The table's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Filter => "filter",
            Self::Security => "security",
        }
    }
}

/// Index of a chain in a [`FamilyPolicy`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChainId(pub u32);

/// Index of a packet/byte counter pair in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CounterId(pub u32);

/// Conntrack-state class bits in a classifier key; exactly one per packet.
/// `--ctstate` sets become [`classifier::ClassSet`]s of these.
pub mod state_class {
    /// Not tracked or not trackable.
    pub const INVALID: u64 = 1;
    /// First packet of a connection (either direction before a reply).
    pub const NEW: u64 = 1 << 1;
    /// Belongs to a connection that has seen both directions.
    pub const ESTABLISHED: u64 = 1 << 2;
    /// An ICMP error about, or a connection expected by, a known connection.
    pub const RELATED: u64 = 1 << 3;
    /// NOTRACK, or a type that is never tracked.
    pub const UNTRACKED: u64 = 1 << 4;
}

/// What a built-in chain does with a packet that reaches its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChainPolicy {
    /// Accept.
    Accept,
    /// Drop.
    Drop,
}

/// One rule, compiled. Base selectors and static matches live in the chain's
/// classifier; what it cannot say exactly is in `residual`.
#[derive(Debug)]
pub struct CompiledRule<A> {
    /// The base selectors and static matches, as indexed (may be wider than the rule).
    pub indexed: classifier::Rule<A>,
    /// Whether `indexed` is wider than `base` (a negated address, protocol or the
    /// like): then `base` is to be evaluated before `residual`.
    pub check_base: bool,
    /// Matches still to evaluate when the classifier has found the rule, in written order.
    pub residual: Box<[Match]>,
    /// What odd packets meet, evaluated exactly as iptables would: `base` first,
    /// then `matches` in written order.
    pub base: BaseMatch<A>,
    /// All matches in written order (for odd packets).
    pub matches: Box<[Match]>,
    /// What to do with a packet that matches.
    pub target: Target,
    /// How it was written, for what reports tell.
    pub written: Written,
    /// The rule's counters.
    pub counter: CounterId,
}

/// How a rule was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Its line in the file, from 1; 0 when there is none.
    pub line: u32,
    /// Whether it has no selector and no match, not even a comment: the kernel takes
    /// such a verdict for the end of its chain in traces.
    pub bare: bool,
}

/// The base selectors of a rule (`-s -d -i -o -p -f`), each possibly negated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseMatch<A> {
    /// Source under a mask; second field: negated.
    pub src: (classifier::Masked<A>, bool),
    /// Destination under a mask; second field: negated.
    pub dst: (classifier::Masked<A>, bool),
    /// Allowed input interfaces (negation already applied; bit 63 = "none or unknown interface").
    pub iif: classifier::ClassSet,
    /// Allowed output interfaces (negation already applied; bit 63 = "none or unknown interface").
    pub oif: classifier::ClassSet,
    /// Protocol, `None` = any; second field: negated.
    pub proto: Option<(u8, bool)>,
    /// `Some(true)`: later fragments only (`-f`); `Some(false)`: `! -f`. IPv4 only.
    pub fragment: Option<bool>,
}

/// Class bit of "no interface here" in `Key::iif` and `Key::oif` (empty name, as
/// in OUTPUT's input interface). `-i +` matches it, `! -i eth0` matches it.
pub const NO_INTERFACE: u64 = 1 << 63;

/// One chain.
#[derive(Debug)]
pub struct Chain<A> {
    /// The table it stands in.
    pub table: TableId,
    /// Name, for traces and logs.
    pub name: Box<str>,
    /// Policy and its counter, for built-in chains.
    pub policy: Option<(ChainPolicy, CounterId)>,
    /// Rules in order.
    pub rules: Box<[CompiledRule<A>]>,
    /// Answers "first rule at or after p" over `rules[..].indexed`. Policies with the same
    /// there may share it.
    pub classifier: Arc<Strategy<A>>,
    /// The same for packets whose layer 4 cannot be read whole, over `rules[..].base`.
    pub odd: Arc<OddIndex<A>>,
    /// Rules that are indexed by TCP flags, in order.
    pub flagged: Box<[u32]>,
    /// The rules in brief.
    pub(crate) briefs: Box<[Brief]>,
    /// Whether nearly every packet ends at the first rule that the classifier finds for
    /// it, or at the policy.
    pub(crate) flat: bool,
}

impl<A: Address> Chain<A> {
    /// A chain of these rules, indexed.
    pub fn new(
        table: TableId,
        name: Box<str>,
        policy: Option<(ChainPolicy, CounterId)>,
        rules: Box<[CompiledRule<A>]>,
    ) -> Self {
        let (classifier, odd) = (Self::classifier_of(&rules), OddIndex::build(&rules));
        Self::with_indexes(table, name, policy, rules, Arc::new(classifier), Arc::new(odd))
    }

    /// A chain of these rules with indexes that were built from such rules.
    pub fn with_indexes(
        table: TableId,
        name: Box<str>,
        policy: Option<(ChainPolicy, CounterId)>,
        rules: Box<[CompiledRule<A>]>,
        classifier: Arc<Strategy<A>>,
        odd: Arc<OddIndex<A>>,
    ) -> Self {
        let flags = |&index: &u32| rules[index as usize].indexed.flags.mask() != 0;
        let flagged = (0..rules.len() as u32).filter(flags).collect();
        let briefs: Box<[Brief]> = rules.iter().map(Brief::of).collect();
        let finals = briefs.iter().filter(|brief| brief.is_final()).count();
        // A few others, as rules that log before all is dropped, may stand among them.
        let flat = (briefs.len() - finals) * 8 <= briefs.len();
        Self { table, name, policy, rules, classifier, odd, flagged, briefs, flat }
    }

    /// The classifier of these rules.
    pub fn classifier_of(rules: &[CompiledRule<A>]) -> Strategy<A> {
        Strategy::build(rules.iter().map(|rule| rule.indexed).collect())
    }
}

/// The policy of one family.
#[derive(Debug)]
pub struct FamilyPolicy<A> {
    /// All chains of all tables.
    pub chains: Box<[Chain<A>]>,
    /// Entry chain by hook and table; `None` where the table is absent, has no
    /// such chain, or the chain is empty with policy ACCEPT and needs no counting.
    pub hooks: [[Option<ChainId>; TABLES]; 5],
    /// Whether any rule needs connection tracking. The kernel tracks (and
    /// defragments) a family only from the first such rule on.
    pub needs_conntrack: bool,
    /// Whether the family has a nat table, perhaps an empty one: then every new
    /// connection's translation is decided, if only to keep its addresses.
    pub nat: bool,
    /// Deepest possible nesting of jumps.
    pub max_depth: u32,
}

/// Both families; the immutable body of a snapshot.
#[derive(Debug)]
pub struct Policy {
    /// IPv4.
    pub v4: FamilyPolicy<u32>,
    /// IPv6.
    pub v6: FamilyPolicy<u128>,
    /// Number of counters that `CounterId`s index, over both families.
    pub counters: u32,
}

impl Policy {
    /// Whether a family is tracked.
    #[inline]
    pub fn needs_conntrack(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4.needs_conntrack,
            Family::V6 => self.v6.needs_conntrack,
        }
    }

    /// Whether any rule takes copies of packets.
    pub fn tees(&self) -> bool {
        self.v4.tees() || self.v6.tees()
    }

    /// What the rules of either family need every new connection to carry.
    pub fn extensions(&self) -> Extensions {
        self.v4.extensions().join(self.v6.extensions())
    }
}

impl<A> FamilyPolicy<A> {
    fn tees(&self) -> bool {
        let mut rules = self.chains.iter().flat_map(|chain| chain.rules.iter());
        rules.any(|rule| matches!(rule.target, Target::Tee(_)))
    }

    fn extensions(&self) -> Extensions {
        let rules = self.chains.iter().flat_map(|chain| chain.rules.iter());
        let matches = rules.flat_map(|rule| rule.matches.iter());
        matches.map(Match::extensions).fold(Extensions::default(), Extensions::join)
    }
}
