//! The walk: one table's chain at one hook, rule by rule through the classifier.
//!
//! The classifier skips rules whose static part cannot match; every rule it
//! finds is judged by its remaining matches in written order, counted, and
//! acted on, and the walk goes on behind it unless the target ends it. Packets
//! whose layer 4 cannot be read whole meet every rule whose base selectors they
//! satisfy, with every match, because a match may drop them outright.

use classifier::{Address, Classifier, Key};

use super::eval::{Outcome, PacketView};
use super::header::{self, Failure};
use super::report::ReportTarget;
use super::target::{ConnmarkTarget, CtTarget, HeaderTarget, RejectWith, Target};
use super::tee::Copies;
use super::{
    Chain, ChainId, ChainPolicy, CompiledRule, CounterId, Deed, FamilyPolicy, Hook, TableId,
};
use crate::conntrack::{CtState, Template, Tracking};
use crate::effects::{Effects, LogRecord, Place, Report, Step, Traced};
use crate::packet::L4Class;
use crate::plan::{Unwatched, Watch};
use crate::reply::Message;
use crate::stats::RuleCounters;
use crate::synproxy::{self, Call};
use crate::verdict::DropReason;

/// How one table's walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the next table or stage.
    Accept,
    /// The packet ends here.
    Drop(DropReason),
    /// The packet ends here and its sender is told.
    Reject(RejectWith),
    /// A target cannot be carried out; the sender is told why.
    Refuse(Message),
    /// A rule of the nat table translates the packet's connection.
    Translate(RuleRef),
    /// A SYNPROXY rule takes the packet.
    Synproxy(RuleRef),
}

/// A rule of a policy: one whose target the engine carries out, or one to go on at
/// when a called chain ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleRef {
    /// Its chain.
    pub chain: ChainId,
    /// Its index there.
    pub rule: u32,
}

/// The return stack: one per worker, sized when a snapshot is adopted, reused by every walk.
#[derive(Debug, Default)]
pub struct ReturnStack(Vec<RuleRef>);

impl ReturnStack {
    /// Makes room for `depth` nested jumps. Allocates only when a policy is
    /// deeper than any before it.
    pub fn fit(&mut self, depth: u32) {
        self.0.clear();
        self.0.reserve(depth as usize);
    }
}

/// What a walk needs besides the packet; built once per packet.
#[derive(Debug)]
pub struct Walker<'a, A, E> {
    /// The policy of the packet's family.
    pub policy: &'a FamilyPolicy<A>,
    /// The worker's counters of the same snapshot.
    pub counters: &'a RuleCounters,
    /// The return stack; its contents are scratch.
    pub stack: &'a mut ReturnStack,
    /// What TEE takes goes here.
    pub copies: &'a mut Copies,
    /// LOG hits and trace steps go here.
    pub effects: &'a mut E,
}

impl<A: Address, E: Effects> Walker<'_, A, E> {
    /// Walks `entry`, the built-in chain of `table` at `hook`. `key` is the
    /// packet's key at this hook. MARK and CONNMARK take effect on the packet
    /// and its connection, CT on the packet and the key.
    pub fn walk(
        &mut self,
        table: TableId,
        hook: Hook,
        entry: ChainId,
        packet: &mut PacketView<'_>,
        key: &mut Key<A>,
    ) -> Verdict {
        self.walk_watched(table, hook, entry, packet, key, &mut Unwatched)
    }

    /// The same, and `watch` is told what is asked and counted on the way.
    pub fn walk_watched<W: Watch>(
        &mut self,
        table: TableId,
        hook: Hook,
        entry: ChainId,
        packet: &mut PacketView<'_>,
        key: &mut Key<A>,
        watch: &mut W,
    ) -> Verdict {
        let policy = self.policy;
        let odd = packet.parsed.l4_class == L4Class::Odd;
        let mut chain_id = entry;
        let mut from = 0;
        self.stack.0.clear();
        loop {
            let chain = &policy.chains[chain_id.0 as usize];
            let next = next_rule(chain, key, from, packet, odd);
            watch.searched(chain, key, from, next);
            let Some(index) = next else {
                if chain_id != entry {
                    self.tell_return(table, chain_id, packet);
                }
                match self.stack.0.pop() {
                    Some(caller) => (chain_id, from) = (caller.chain, caller.rule),
                    None => return self.apply_policy(table, hook, entry, packet, watch),
                }
                continue;
            };
            from = index + 1;
            let (rule, brief) = (&chain.rules[index as usize], chain.briefs[index as usize]);
            let outcome = match brief.sure && !odd {
                true => Outcome::Yes,
                false => rule_outcome(rule, packet, key, odd, watch),
            };
            match outcome {
                Outcome::Yes | Outcome::YesHotdrop => {}
                Outcome::No => continue,
                Outcome::Hotdrop => return Verdict::Drop(DropReason::Hotdrop),
            }
            let at = RuleRef { chain: chain_id, rule: index };
            self.count(brief.counter, rule, (table, hook, at), packet, watch);
            self.tell_rule(table, at, entry, packet);
            if outcome == Outcome::YesHotdrop {
                return self.last_act(&rule.target, (table, at), packet);
            }
            match brief.deed {
                Deed::Count => {}
                Deed::Accept => return Verdict::Accept,
                Deed::Drop => return Verdict::Drop(DropReason::Rule),
                Deed::Return => match self.stack.0.pop() {
                    Some(caller) => (chain_id, from) = (caller.chain, caller.rule),
                    None => return self.apply_policy(table, hook, entry, packet, watch),
                },
                Deed::Jump(callee) => {
                    debug_assert!(self.stack.0.len() < policy.max_depth as usize);
                    self.stack.0.push(RuleRef { chain: chain_id, rule: from });
                    (chain_id, from) = (callee, 0);
                }
                Deed::Goto(callee) => (chain_id, from) = (callee, 0),
                Deed::Other => {
                    if let Some(verdict) = self.carry_out(&rule.target, (table, at), packet, key) {
                        return verdict;
                    }
                }
            }
        }
    }

    /// The targets that are more than a word. `None`: the walk goes on.
    fn carry_out(
        &mut self,
        target: &Target,
        (table, at): (TableId, RuleRef),
        packet: &mut PacketView<'_>,
        key: &mut Key<A>,
    ) -> Option<Verdict> {
        match target {
            Target::Reject(with) => return Some(Verdict::Reject(*with)),
            Target::Nat(_) => return Some(Verdict::Translate(at)),
            Target::Synproxy(_) => match synproxy::call(&packet.frame, packet.parsed) {
                Call::Open | Call::Prove => return Some(Verdict::Synproxy(at)),
                Call::Pass => {}
                Call::Broken => return Some(Verdict::Drop(DropReason::Hotdrop)),
            },
            Target::Ct(target) => {
                ct(target, packet);
                key.state = packet.tracking.state.bit();
            }
            _ => {
                if let Err(failure) = self.act(target, (table, at), packet) {
                    return Some(failure.into());
                }
                // SNPT and DNPT change addresses.
                if let Target::Header(HeaderTarget::Prefix(_)) = target {
                    key.src = A::from_u128(packet.parsed.src);
                    key.dst = A::from_u128(packet.parsed.dst);
                }
            }
        }
        None
    }

    /// A rule matched: it counts the packet, and is about to act.
    #[inline]
    fn count(
        &mut self,
        counter: CounterId,
        rule: &CompiledRule<A>,
        (table, hook, at): (TableId, Hook, RuleRef),
        packet: &PacketView<'_>,
        watch: &mut impl Watch,
    ) {
        self.counters.bump(counter, u64::from(packet.parsed.l3_len));
        watch.counted(counter, || {
            let family = packet.parsed.family;
            Step { family, table, hook, chain: at.chain, rule: Some(at.rule) }
        });
        watch.acts(&rule.target, packet);
        self.trace(table, hook, at.chain, Some(at.rule), packet);
    }

    /// The targets that change something and let the walk go on, unless they
    /// cannot read what they are to change.
    fn act(
        &mut self,
        target: &Target,
        (table, at): (TableId, RuleRef),
        packet: &mut PacketView<'_>,
    ) -> Result<(), Failure> {
        match target {
            Target::Log(target) => self.report(Report::Log(target), table, at, packet),
            Target::Mark(mark) => packet.mark = (packet.mark & !mark.clear) ^ mark.toggle,
            Target::Connmark(target) => connmark(*target, packet),
            Target::Header(target) => header::change(*target, packet)?,
            Target::Report(ReportTarget::Nflog(target)) => {
                self.report(Report::Nflog(target), table, at, packet);
            }
            Target::Report(ReportTarget::Audit(kind)) => {
                self.report(Report::Audit(*kind), table, at, packet);
            }
            Target::Report(ReportTarget::Trace) => packet.traced = true,
            Target::Tee(target) => self.copies.take(target, packet),
            Target::Meta(target) => target.apply(packet),
            Target::Set(target) => target.apply(packet),
            _ => unreachable!("only non-terminal targets are acted on"),
        }
        Ok(())
    }

    /// A rule reports the packet.
    fn report(&mut self, report: Report<'_>, table: TableId, at: RuleRef, packet: &PacketView<'_>) {
        let chain = &self.policy.chains[at.chain.0 as usize];
        let place = Place {
            table,
            chain: at.chain,
            chain_name: &chain.name,
            number: at.rule + 1,
            counter: Some(chain.rules[at.rule as usize].counter),
        };
        self.effects.log(&record(report, place, &self.stack.0, packet));
    }

    /// A rule matched.
    #[inline]
    fn tell_rule(&mut self, table: TableId, at: RuleRef, entry: ChainId, packet: &PacketView<'_>) {
        if packet.traced {
            let chain = &self.policy.chains[at.chain.0 as usize];
            let how = as_told(&chain.rules[at.rule as usize], at.chain == entry);
            self.tell(Met { table, chain: at.chain, rule: Some(at.rule), how }, chain, packet);
        }
    }

    /// A called chain ended.
    fn tell_return(&mut self, table: TableId, id: ChainId, packet: &PacketView<'_>) {
        if packet.traced {
            let chain = &self.policy.chains[id.0 as usize];
            self.tell(Met::end(table, id, Traced::Return), chain, packet);
        }
    }

    /// A traced packet met something.
    fn tell(&mut self, met: Met, chain: &Chain<A>, packet: &PacketView<'_>) {
        let index = met.rule.map_or(chain.rules.len(), |index| index as usize);
        let rule = chain.rules.get(index).map(|rule| rule.counter);
        let place = Place {
            table: met.table,
            chain: met.chain,
            chain_name: &chain.name,
            number: index as u32 + 1,
            counter: rule.or(chain.policy.map(|(_, counter)| counter)),
        };
        self.effects.log(&record(Report::Trace(met.how), place, &self.stack.0, packet));
    }

    /// What the target of the last rule does to a packet that is dropped anyway.
    fn last_act(
        &mut self,
        target: &Target,
        place: (TableId, RuleRef),
        packet: &mut PacketView<'_>,
    ) -> Verdict {
        match target {
            Target::Reject(with) => return Verdict::Reject(*with),
            Target::Count
            | Target::Accept
            | Target::Drop
            | Target::Return
            | Target::Jump(_)
            | Target::Goto(_)
            | Target::Nat(_)
            | Target::Synproxy(_)
            | Target::Ct(_) => {}
            _ => {
                if let Err(Failure::Tell(message)) = self.act(target, place, packet) {
                    return Verdict::Refuse(message);
                }
            }
        }
        Verdict::Drop(DropReason::Hotdrop)
    }

    /// A built-in chain was walked to its end.
    fn apply_policy(
        &mut self,
        table: TableId,
        hook: Hook,
        entry: ChainId,
        packet: &PacketView<'_>,
        watch: &mut impl Watch,
    ) -> Verdict {
        let Some((verdict, counter)) = self.policy.chains[entry.0 as usize].policy else {
            debug_assert!(false, "hooks enter built-in chains only");
            return Verdict::Accept;
        };
        self.counters.bump(counter, u64::from(packet.parsed.l3_len));
        watch.counted(counter, || {
            let family = packet.parsed.family;
            Step { family, table, hook, chain: entry, rule: None }
        });
        self.trace(table, hook, entry, None, packet);
        if packet.traced {
            let chain = &self.policy.chains[entry.0 as usize];
            self.tell(Met::end(table, entry, Traced::Policy), chain, packet);
        }
        match verdict {
            ChainPolicy::Accept => Verdict::Accept,
            ChainPolicy::Drop => Verdict::Drop(DropReason::ChainPolicy),
        }
    }

    fn trace(
        &mut self,
        table: TableId,
        hook: Hook,
        chain: ChainId,
        rule: Option<u32>,
        packet: &PacketView<'_>,
    ) {
        if E::TRACE {
            let family = packet.parsed.family;
            self.effects.step(Step { family, table, hook, chain, rule });
        }
    }
}

impl From<Failure> for Verdict {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Drop(reason) => Self::Drop(reason),
            Failure::Tell(message) => Self::Refuse(message),
        }
    }
}

/// What a traced packet met.
#[derive(Clone, Copy)]
struct Met {
    table: TableId,
    chain: ChainId,
    /// `None`: the chain's end.
    rule: Option<u32>,
    how: Traced,
}

impl Met {
    fn end(table: TableId, chain: ChainId, how: Traced) -> Self {
        Self { table, chain, rule: None, how }
    }
}

/// What the kernel takes a rule for when it tells of it.
fn as_told<A>(rule: &CompiledRule<A>, built_in: bool) -> Traced {
    match rule.target {
        Target::Accept | Target::Drop | Target::Return if rule.written.bare => {
            if built_in {
                Traced::Policy
            } else {
                Traced::Return
            }
        }
        _ => Traced::Rule,
    }
}

fn record<'a>(
    report: Report<'a>,
    place: Place<'a>,
    callers: &'a [RuleRef],
    packet: &'a PacketView<'_>,
) -> LogRecord<'a> {
    LogRecord {
        now: packet.now,
        report,
        place,
        callers,
        hook: packet.hook,
        input: packet.input,
        output: packet.output,
        frame: &packet.frame,
        has_link_header: packet.has_link_header,
        parsed: packet.parsed,
        mark: packet.mark,
        owner: packet.owner,
        tracking: packet.tracking,
        conntrack: Some(packet.conntrack),
    }
}

#[inline]
fn next_rule<A: Address>(
    chain: &Chain<A>,
    key: &Key<A>,
    from: u32,
    packet: &PacketView<'_>,
    odd: bool,
) -> Option<u32> {
    match odd {
        true => chain.odd.first_at_or_after(key, from, packet.parsed.broken_chain()),
        false => chain.classifier.first_at_or_after(key, from),
    }
}

/// Evaluates what the classifier has not decided, in written order.
fn rule_outcome<A: Address>(
    rule: &CompiledRule<A>,
    packet: &PacketView<'_>,
    key: &Key<A>,
    odd: bool,
    watch: &mut impl Watch,
) -> Outcome {
    if odd || rule.check_base {
        match rule.base.evaluate(key, packet.parsed) {
            Outcome::Yes => {}
            other => return other,
        }
    }
    let matches = if odd { &rule.matches } else { &rule.residual };
    let mut sofar = Outcome::Yes;
    for one in matches {
        watch.asks(one, packet);
        match one.evaluate(packet) {
            Outcome::Yes => {}
            Outcome::YesHotdrop => sofar = Outcome::YesHotdrop,
            _ if sofar == Outcome::YesHotdrop => return Outcome::Hotdrop,
            other => return other,
        }
    }
    sofar
}

fn connmark(target: ConnmarkTarget, packet: &mut PacketView<'_>) {
    let (Some(conn), table) = (packet.tracking.conn, packet.conntrack) else { return };
    let old = table.mark(conn);
    match target {
        ConnmarkTarget::Set { clear, toggle } => {
            table.set_mark(conn, (old & !clear) ^ toggle);
        }
        ConnmarkTarget::Save { nfmask, ctmask } => {
            table.set_mark(conn, (old & !ctmask) ^ (packet.mark & nfmask));
        }
        ConnmarkTarget::Restore { nfmask, ctmask } => {
            packet.mark = (packet.mark & !nfmask) ^ (old & ctmask);
        }
    }
}

/// CT and NOTRACK. The first to speak is heard, before tracking; until then later
/// rules see UNTRACKED, or NEW for the template (in the kernel it is a connection).
fn ct(target: &CtTarget, packet: &mut PacketView<'_>) {
    let tracking = &mut packet.tracking;
    if packet.template.given || tracking.conn.is_some() || tracking.state == CtState::Untracked {
        return;
    }
    if target.notrack {
        *tracking = Tracking::UNTRACKED;
        return;
    }
    let timeouts = target.timeout.as_ref().and_then(|name| packet.conntrack.timeouts_named(name));
    packet.template = Template::of(target, timeouts);
    tracking.state = CtState::New;
}
