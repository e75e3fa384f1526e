//! Walks the model rule by rule, exactly as iptables does, slowly and obviously.
//!
//! This is the oracle for the compiled policy, and the kernel is its oracle. It
//! shares no evaluation code with the data plane: it reads the frame itself,
//! compares for itself and keeps its own `limit` buckets.
//!
//! An [`Interpreter`] walks one table at one hook at a time; [`ORDER`] says
//! which tables stand at which hook, in netfilter's order.

mod buckets;
#[cfg(test)]
pub(crate) mod generate;
mod header;
mod hmark;
mod matching;
mod measure;
mod meta;
pub mod packet;
mod payload;
mod place;
mod protocol;
mod sets;
mod synproxy;
mod tally;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use dataplane::clock::Nanos;
use dataplane::conntrack::{Conntrack, CtState, Tuple};
use dataplane::fib::{Network, Realms};
use dataplane::policy::scene::{Dice, Owner};
use dataplane::policy::target::{
    ConnmarkTarget, CtTarget, HelperKind, MarkTarget, NatTarget, RejectWith, SynproxyTarget,
};
use dataplane::policy::{ChainPolicy, Hook, TableId};
use dataplane::sets::Registry;

use crate::model::{self, Chain, MatchBody, Ruleset, Table, TargetSpec};
use buckets::Buckets;
use matching::At;
pub use matching::{Actual, Mismatch, Selector};
use measure::Measures;
pub use packet::{Packet, Proto};
use sets::Sets;
use synproxy::Call;
use tally::Tallies;

/// Tables by hook, in the order of their priorities; connection tracking stands
/// between raw and mangle. The nat table sees only packets that start a connection.
pub const ORDER: [(Hook, &[TableId]); 5] = {
    use TableId::{Filter, Mangle, Nat, Raw, Security};
    [
        (Hook::Prerouting, &[Raw, Mangle, Nat]),
        (Hook::Input, &[Mangle, Filter, Security, Nat]),
        (Hook::Forward, &[Mangle, Filter, Security]),
        (Hook::Output, &[Raw, Mangle, Nat, Filter, Security]),
        (Hook::Postrouting, &[Mangle, Nat]),
    ]
};

/// The tables that stand at `hook`, in order.
pub fn tables_at(hook: Hook) -> &'static [TableId] {
    ORDER[hook as usize].1
}

/// What connection tracking says of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// `--ctstate`.
    pub state: CtState,
    /// Whether the packet goes in the original direction.
    pub original: bool,
    /// Its connection; `None` for INVALID and UNTRACKED.
    pub connection: Option<Connection>,
}

impl Tracked {
    /// Before tracking, or with tracking off.
    pub const NONE: Self = Self { state: CtState::Invalid, original: true, connection: None };
}

/// The facts of one connection that rules can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Tuple of the first packet.
    pub original: Tuple,
    /// Tuple that replies carry.
    pub reply: Tuple,
    /// `--ctstatus` bits ([`dataplane::policy::matches::ctstatus`]).
    pub status: u32,
    /// Seconds until it expires.
    pub expires_s: u32,
    /// Its mark.
    pub mark: u32,
    /// Whether its source is translated.
    pub source_translated: bool,
    /// Whether its destination is translated.
    pub destination_translated: bool,
    /// Packets and bytes, originals first, if it is accounted.
    pub counted: Option<[(u64, u64); 2]>,
    /// Its labels, one a bit, if it can have any.
    pub labels: Option<u128>,
    /// The helper of the connection that expected it.
    pub master_helper: Option<HelperKind>,
    /// The source of the connection that expected it.
    pub master_source: Option<u128>,
}

/// One packet on its way, as the rules see it.
#[derive(Clone, Debug)]
pub struct Subject<'f> {
    /// The headers.
    pub packet: Packet<'f>,
    /// Input interface, empty when there is none.
    pub input: &'f str,
    /// Output interface, empty when there is none (yet).
    pub output: &'f str,
    /// Whether there is a real Ethernet header.
    pub has_link_header: bool,
    /// Smallest MTU in bytes of its way there and back, once it is routed.
    pub path_mtu: u32,
    /// The realms that it comes from and goes to.
    pub realms: Realms,
    /// The packet's mark.
    pub mark: u32,
    /// Tracking.
    pub tracked: Tracked,
    /// What CT asked for, before tracking.
    pub template: Option<CtTarget>,
    /// When it arrived.
    pub now: Nanos,
    /// What to add to that for the time since 1970.
    pub utc_offset: Nanos,
    /// The kernel's time zone: minutes west of Greenwich.
    pub minutes_west: i32,
    /// Where its chances come from.
    pub dice: Dice,
    /// At which hook; the walk sets it.
    pub hook: Hook,
    /// The core that it is handled on.
    pub cpu: u32,
    /// Who sends it, where that is known.
    pub owner: Option<Owner>,
    /// What CLASSIFY said.
    pub priority: u32,
    /// Ports, routes and neighbours.
    pub network: Option<&'f Network>,
    /// Connections there are.
    pub conntrack: Option<&'f Conntrack>,
}

/// Why a packet was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// A DROP rule.
    Rule,
    /// A chain's policy.
    Policy,
    /// A match met a malformed header.
    Hotdrop,
}

/// How a table's walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the next table.
    Accept,
    /// Dropped.
    Drop(DropCause),
    /// Dropped and answered.
    Reject(RejectWith),
    /// On to the next table, with a translation to be set up for the connection.
    Translate(NatTarget),
    /// Handed to the SYN proxy.
    Synproxy(SynproxyTarget),
}

/// What became of one rule, or of a chain's policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It matched and was counted; for a policy: it applied.
    Matched,
    /// It did not match.
    Failed(Mismatch),
}

/// One step of the walk.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'m> {
    /// Table.
    pub table: TableId,
    /// Chain.
    pub chain: &'m Chain,
    /// Index of the rule; `None` for the policy.
    pub rule: Option<usize>,
    /// Result.
    pub outcome: Outcome,
}

/// A family's rules with the buckets that walking them fills.
#[derive(Clone, Debug)]
pub struct Interpreter<'m> {
    rules: &'m Ruleset,
    chains: HashMap<(TableId, &'m str), &'m Chain>,
    buckets: Buckets,
    measures: Measures,
    tallies: Tallies,
    sets: Sets,
}

impl<'m> Interpreter<'m> {
    /// Starts with full buckets.
    pub fn new(rules: &'m Ruleset) -> Self {
        let chains = rules.tables.iter().flat_map(|table| {
            table.chains.iter().map(|chain| ((table.id, chain.name.as_str()), chain))
        });
        Self {
            rules,
            chains: chains.collect(),
            buckets: Buckets::default(),
            measures: Measures::default(),
            tallies: Tallies::of(rules),
            sets: Sets::default(),
        }
    }

    /// The same, over sets as they are now.
    #[must_use]
    pub fn with_sets(mut self, registry: &Registry, now: Nanos) -> Self {
        self.sets = Sets::of(registry, now);
        self
    }

    /// What the sets hold, each entry as its data says it, in order.
    #[cfg(test)]
    pub(crate) fn listed_sets(&self, now: Nanos) -> Vec<String> {
        self.sets.listed(now)
    }

    /// Walks every table at `hook` but raw, which stands before tracking, and
    /// nat unless `starts_connection`. Stops at the first that does not accept.
    pub fn hook(
        &mut self,
        hook: Hook,
        starts_connection: bool,
        subject: &mut Subject<'_>,
        visit: &mut dyn FnMut(Visit<'m>),
    ) -> Verdict {
        for &table in tables_at(hook) {
            let skipped = table == TableId::Raw || (table == TableId::Nat && !starts_connection);
            if skipped {
                continue;
            }
            match self.table(table, hook, subject, visit) {
                Verdict::Accept | Verdict::Translate(_) => {}
                end => return end,
            }
        }
        Verdict::Accept
    }

    /// Walks one table's built-in chain. A table that is not there accepts.
    pub fn table(
        &mut self,
        table: TableId,
        hook: Hook,
        subject: &mut Subject<'_>,
        visit: &mut dyn FnMut(Visit<'m>),
    ) -> Verdict {
        let rules = self.rules;
        let Some(table) = rules.tables.iter().find(|candidate| candidate.id == table) else {
            return Verdict::Accept;
        };
        subject.hook = hook;
        match table.chain(hook.chain_name()) {
            Some(chain) => self.walk(table, chain, subject, visit),
            None => Verdict::Accept,
        }
    }

    fn called(&self, table: TableId, name: &'m str) -> &'m Chain {
        self.chains.get(&(table, name)).expect("the model has every chain that is jumped to")
    }

    fn walk(
        &mut self,
        table: &'m Table,
        entry: &'m Chain,
        subject: &mut Subject<'_>,
        visit: &mut dyn FnMut(Visit<'m>),
    ) -> Verdict {
        let mut callers: Vec<(&'m Chain, usize)> = Vec::new();
        let (mut chain, mut index) = (entry, 0);
        loop {
            let Some(rule) = chain.rules.get(index) else {
                match callers.pop() {
                    Some(caller) => (chain, index) = caller,
                    None => return policy(table, entry, visit),
                }
                continue;
            };
            let compared = self.matches(table, chain, index, rule, subject);
            let doomed = compared.is_err_and(|mismatch| mismatch.actual == Actual::Inverted);
            let outcome = match compared {
                Err(mismatch) if !doomed => Outcome::Failed(mismatch),
                _ => Outcome::Matched,
            };
            visit(Visit { table: table.id, chain, rule: Some(index), outcome });
            if doomed {
                return self.last_act(&rule.target, subject);
            }
            index += 1;
            if let Outcome::Failed(mismatch) = outcome {
                if mismatch.hotdrop {
                    return Verdict::Drop(DropCause::Hotdrop);
                }
                continue;
            }
            match &rule.target {
                TargetSpec::Accept => return Verdict::Accept,
                TargetSpec::Drop => return Verdict::Drop(DropCause::Rule),
                TargetSpec::Reject(with) => return Verdict::Reject(*with),
                TargetSpec::Return => match callers.pop() {
                    Some(caller) => (chain, index) = caller,
                    None => return policy(table, entry, visit),
                },
                TargetSpec::Jump(name) => {
                    callers.push((chain, index));
                    (chain, index) = (self.called(table.id, name), 0);
                }
                TargetSpec::Goto(name) => (chain, index) = (self.called(table.id, name), 0),
                TargetSpec::Mark(target) => subject.mark = marked(subject.mark, target),
                TargetSpec::Connmark(target) => connmark(subject, target),
                TargetSpec::Nat(nat) => return Verdict::Translate(*nat),
                TargetSpec::Synproxy(proxy) => match synproxy::call(&subject.packet) {
                    Call::Taken => return Verdict::Synproxy(*proxy),
                    Call::Passed => {}
                    Call::Dropped => return Verdict::Drop(DropCause::Hotdrop),
                },
                TargetSpec::Header(target) => {
                    if !header::change(&mut subject.packet, *target, subject.path_mtu) {
                        return Verdict::Drop(DropCause::Hotdrop);
                    }
                }
                TargetSpec::Ct(target) => ct(subject, target),
                TargetSpec::Meta(target) => {
                    self.measures.observe(target, subject);
                    meta::apply(target, subject);
                }
                TargetSpec::Set(target) => self.sets.apply(target, subject),
                TargetSpec::None | TargetSpec::Log(_) | TargetSpec::Report(_) => {}
            }
        }
    }

    fn matches(
        &mut self,
        table: &Table,
        chain: &Chain,
        index: usize,
        rule: &model::Rule,
        subject: &mut Subject<'_>,
    ) -> Result<(), Mismatch> {
        matching::base(rule, subject)?;
        let mut inverted = Ok(());
        for (at, spec) in rule.matches.iter().enumerate() {
            match self.one_match((table.id, chain, index, at), &spec.body, subject) {
                Ok(()) => {}
                Err(mismatch) if mismatch.actual == Actual::Inverted => inverted = Err(mismatch),
                Err(mismatch) => {
                    let hotdrop = mismatch.hotdrop || inverted.is_err();
                    return Err(Mismatch { hotdrop, ..mismatch });
                }
            }
        }
        inverted
    }

    fn one_match(
        &mut self,
        (table, chain, index, at): (TableId, &Chain, usize, usize),
        body: &MatchBody,
        subject: &mut Subject<'_>,
    ) -> Result<(), Mismatch> {
        let selector = Selector::Match(at);
        // Only what keeps a state of its own needs a name for it.
        let place = || (table, chain.name.clone(), index, at);
        match body {
            MatchBody::Plain(body) | MatchBody::State(body) => {
                matching::extension(at, body, subject)
            }
            MatchBody::Limit(limit) => match self.buckets.spend(place(), *limit, subject.now) {
                true => Ok(()),
                false => At(selector).fail("--limit", Actual::Absent),
            },
            MatchBody::Measure(wanted) => {
                self.measures.compare(At(selector), place(), wanted, subject)
            }
            MatchBody::Tally(wanted) => {
                self.tallies.compare(At(selector), place(), wanted, subject)
            }
            MatchBody::Set(wanted) => self.sets.compare(At(selector), wanted, subject),
            MatchBody::Comment(_) | MatchBody::Empty(_) => Ok(()),
        }
    }

    /// What the target of the last rule does with a packet that is dropped anyway.
    fn last_act(&mut self, target: &TargetSpec, subject: &mut Subject<'_>) -> Verdict {
        match target {
            TargetSpec::Reject(with) => return Verdict::Reject(*with),
            TargetSpec::Mark(target) => subject.mark = marked(subject.mark, target),
            TargetSpec::Connmark(target) => connmark(subject, target),
            TargetSpec::Meta(target) => {
                self.measures.observe(target, subject);
                meta::apply(target, subject);
            }
            TargetSpec::Set(target) => self.sets.apply(target, subject),
            _ => {}
        }
        Verdict::Drop(DropCause::Hotdrop)
    }
}

/// The end of a built-in chain, or a RETURN in it.
fn policy<'m>(table: &Table, entry: &'m Chain, visit: &mut dyn FnMut(Visit<'m>)) -> Verdict {
    visit(Visit { table: table.id, chain: entry, rule: None, outcome: Outcome::Matched });
    match entry.policy {
        Some((ChainPolicy::Drop, _)) => Verdict::Drop(DropCause::Policy),
        Some((ChainPolicy::Accept, _)) | None => Verdict::Accept,
    }
}

fn marked(mark: u32, target: &MarkTarget) -> u32 {
    (mark & !target.clear) ^ target.toggle
}

/// The first CT or NOTRACK that matches before tracking is the one that counts.
fn ct(subject: &mut Subject<'_>, target: &CtTarget) {
    let tracked = &mut subject.tracked;
    let spoken = subject.template.is_some() || tracked.state == CtState::Untracked;
    if spoken || tracked.connection.is_some() {
        return;
    }
    if target.notrack {
        tracked.state = CtState::Untracked;
    } else {
        tracked.state = CtState::New;
        subject.template = Some(target.clone());
    }
}

fn connmark(subject: &mut Subject<'_>, target: &ConnmarkTarget) {
    let Some(conn) = &mut subject.tracked.connection else { return };
    match *target {
        ConnmarkTarget::Set { clear, toggle } => conn.mark = (conn.mark & !clear) ^ toggle,
        ConnmarkTarget::Save { nfmask, ctmask } => {
            conn.mark = (conn.mark & !ctmask) ^ (subject.mark & nfmask);
        }
        ConnmarkTarget::Restore { nfmask, ctmask } => {
            subject.mark = (subject.mark & !nfmask) ^ (conn.mark & ctmask);
        }
    }
}
