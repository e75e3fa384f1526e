//! Compares a compiled policy with `interpret` before it may be published.
//!
//! For the rules of every chain, boundary packets (corners, and one step beyond
//! each edge) take the compiled walk and the interpreter's; verdict, matched
//! path and marks must agree. A difference is a fault of the compiler, and a
//! hard error: the policy is not published.
//!
//! Limits: a [`Budget`] bounds packets and rule comparisons. When it does not
//! suffice for every rule, evenly spaced ones are taken. The walk spends from
//! `limit` buckets, so the policy handed in must not be the one in service.

mod probe_elements;
mod probes;
#[cfg(test)]
mod sets_tests;
#[cfg(test)]
mod tests;
pub(crate) mod walks;

use std::sync::Arc;
use std::thread;

use classifier::Address;
use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, Conntrack, CtState, Tracking};
use dataplane::packet::{Family, Mac};
use dataplane::policy::{FamilyPolicy, Hook, TableId};
use dataplane::sets::Registry;
use dataplane::wire::{self, Frame};

use crate::compile::{self, CompileError, Compiled, DynamicState};
use crate::interpret::{Interpreter, Tracked};
use crate::model::{Chain, Ruleset, Span, Table};
use walks::{CompiledSide, Probe, Walked};

/// How much work a self-check may do, for each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Packets at most.
    pub packets: usize,
    /// Rules that the interpreter looks at, over all packets, at most. A
    /// million take some twenty milliseconds.
    pub visits: usize,
}

impl Budget {
    /// For a policy that somebody waits for: a quarter of what `portcullis check` spends.
    /// Short policies are compared in whole all the same.
    pub const SWAP: Self = Self { packets: 20_000, visits: 1_000_000 };
}

impl Default for Budget {
    fn default() -> Self {
        Self { packets: 20_000, visits: 4_000_000 }
    }
}

/// What a self-check did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// Packets walked.
    pub packets: usize,
    /// Rules looked at by the interpreter.
    pub visits: usize,
    /// Rules from which packets were made.
    pub rules: usize,
    /// Rules in all.
    pub rules_total: usize,
}

/// Why a policy must not be published.
#[derive(Debug, thiserror::Error)]
pub enum SelfCheckError {
    /// It does not compile.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The compiled walk and the interpreter disagree.
    #[error(transparent)]
    Differs(#[from] Box<Difference>),
}

/// A packet on which the compiled walk and the interpreter disagree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "self-check: {family:?} table {} at {}, a packet at the edge of the rule in line {}: compiled \
     {compiled}, interpreted {interpreted} (a fault of the policy compiler: report it with the rule)",
    table.name(),
    hook.chain_name(),
    span.line
)]
pub struct Difference {
    /// Family.
    pub family: Family,
    /// Table.
    pub table: TableId,
    /// Hook.
    pub hook: Hook,
    /// The rule whose edges the packet probes.
    pub span: Span,
    /// The packet.
    pub frame: Vec<u8>,
    /// Verdict, path and marks of the compiled walk.
    pub compiled: String,
    /// Verdict, path and marks of the interpreter.
    pub interpreted: String,
}

/// Compiles and checks. What comes back shares no bucket with what was checked.
pub fn compile_checked(
    input: compile::Input<'_>,
    previous: &DynamicState,
    budget: Budget,
) -> Result<(Compiled, Report), SelfCheckError> {
    let compiled = compile::compile(input, previous)?;
    let report = check_before_service(input, &compiled, budget)?;
    Ok((compiled, report))
}

/// Checks what is about to enter service. When it owns buckets, which may be in
/// service already, a twin with buckets of its own is checked in its place, over sets that
/// hold what probes are, and with the very indexes that enter service.
pub fn check_before_service(
    input: compile::Input<'_>,
    compiled: &Compiled,
    budget: Budget,
) -> Result<Report, SelfCheckError> {
    if compiled.dynamic.is_empty() {
        return Ok(check(input, compiled, budget)?);
    }
    let twin = compiled.dynamic.twin();
    probe_elements::fill(twin.sets(), input.ports);
    let sets = Arc::clone(twin.sets());
    let twin = compile::compile_over(input, &twin, sets, Some(&compiled.policy))?;
    twin.dynamic.expect_packets();
    Ok(check(input, &twin, budget)?)
}

/// Checks a policy that is not in service.
pub fn check(
    input: compile::Input<'_>,
    compiled: &Compiled,
    budget: Budget,
) -> Result<Report, Box<Difference>> {
    let mut report = Report::default();
    family(input.v4, &compiled.policy.v4, (input, compiled), budget, &mut report)?;
    // The interpreters do not share what the families share.
    compiled.dynamic.clear_shared();
    family(input.v6, &compiled.policy.v6, (input, compiled), budget, &mut report)?;
    Ok(report)
}

/// One family, on several cores where no packet leaves anything behind for the next.
fn family<A: Address>(
    rules: &Ruleset,
    policy: &FamilyPolicy<A>,
    (input, compiled): (compile::Input<'_>, &Compiled),
    budget: Budget,
    report: &mut Report,
) -> Result<(), Box<Difference>> {
    let of = match compiled.dynamic.is_empty() {
        true => compile::threads(rules.rule_count()),
        false => 1,
    };
    let check = |number| {
        let (counters, sets) = (compiled.policy.counters, compiled.dynamic.sets());
        let part = Part { number, of };
        FamilyCheck::new(rules, policy, input.ports, counters, sets).run(budget, part)
    };
    let parts: Vec<_> = thread::scope(|scope| {
        let spawn = |number| {
            let thread = thread::Builder::new().name("selfcheck".to_owned());
            // Without a second thread the first does it all.
            (number, thread.spawn_scoped(scope, move || check(number)).ok())
        };
        let others: Vec<_> = (1..of).map(spawn).collect();
        let first = check(0);
        let joined = others.into_iter().map(|(number, thread)| match thread.map(|it| it.join()) {
            None => check(number),
            Some(checked) => checked.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        });
        std::iter::once(first).chain(joined).collect()
    });
    report.rules_total +=
        parts.first().and_then(|part| part.as_ref().ok()).map_or(0, |it| it.rules_total);
    for part in parts {
        let Report { packets, visits, rules, rules_total: _ } = part?;
        report.packets += packets;
        report.visits += visits;
        report.rules += rules;
    }
    Ok(())
}

/// Which of the packets: of so many parts the one of this number.
#[derive(Clone, Copy, Debug)]
struct Part {
    number: usize,
    of: usize,
}

/// When the packets come.
const NOW: Nanos = Nanos::from_secs(1);

struct FamilyCheck<'a, A> {
    rules: &'a Ruleset,
    policy: &'a FamilyPolicy<A>,
    ports: &'a [String],
    interpreter: Interpreter<'a>,
    compiled: CompiledSide,
    conntrack: Conntrack,
    /// Packets so far.
    turn: u64,
}

/// Where a chain is entered from, and what packets must look like to get there.
struct Approach<'m> {
    table: &'m Table,
    hook: Hook,
    chain: &'m Chain,
    fields: probes::Fields,
}

impl<'a, A: Address> FamilyCheck<'a, A> {
    fn new(
        rules: &'a Ruleset,
        policy: &'a FamilyPolicy<A>,
        ports: &'a [String],
        counters: u32,
        sets: &Registry,
    ) -> Self {
        let mut config = Config::new([0; 16]);
        config.set("max", 1).expect("a table of one is possible");
        Self {
            rules,
            policy,
            ports,
            interpreter: Interpreter::new(rules).with_sets(sets, NOW),
            compiled: CompiledSide::new(counters),
            conntrack: Conntrack::new(config).expect("a table of one is possible"),
            turn: 0,
        }
    }

    fn approaches(&self) -> Vec<Approach<'a>> {
        let mut found = Vec::new();
        for table in &self.rules.tables {
            for hook in Hook::ALL {
                let Some(entry) = table.chain(hook.chain_name()) else { continue };
                for (chain, fields) in probes::approaches(table, entry, self.ports) {
                    found.push(Approach { table, hook, chain, fields });
                }
            }
        }
        found
    }

    fn run(mut self, whole: Budget, part: Part) -> Result<Report, Box<Difference>> {
        let approaches = self.approaches();
        let total: usize = approaches.iter().map(|approach| approach.chain.rules.len()).sum();
        let mut report = Report { rules_total: total, ..Report::default() };
        let budget = Budget { packets: whole.packets / part.of, visits: whole.visits / part.of };
        // Every packet comes at a moment of its own.
        self.turn = (part.number * whole.packets) as u64;
        // A chain's end counts like a rule.
        let total = total + approaches.len();
        // About sixteen packets a rule, each of which meets half of the rules.
        let affordable = (whole.visits / (8 * total.max(1))).min(whole.packets / 16).max(1);
        let stride = total.div_ceil(affordable).max(1);
        let own = |position: usize| {
            position.is_multiple_of(stride) && (position / stride) % part.of == part.number
        };
        let (mut packets, mut visits, mut position) = (0, 0, 0);
        for approach in &approaches {
            position += 1;
            if own(position) && packets < budget.packets && visits < budget.visits {
                packets += 1;
                visits += self.probe(approach, Span::default(), approach.fields)?;
            }
            for rule in &approach.chain.rules {
                position += 1;
                if !own(position) {
                    continue;
                }
                report.rules += 1;
                let family = self.rules.family;
                for fields in probes::of_rule(rule, approach.fields, self.ports, family) {
                    if packets >= budget.packets || visits >= budget.visits {
                        break;
                    }
                    packets += 1;
                    visits += self.probe(approach, rule.span, fields)?;
                }
            }
        }
        report.packets += packets;
        report.visits += visits;
        Ok(report)
    }

    /// One packet through both; returns how many rules the interpreter looked at.
    fn probe(
        &mut self,
        approach: &Approach<'_>,
        span: Span,
        fields: probes::Fields,
    ) -> Result<usize, Box<Difference>> {
        let frame = fields.frame(self.rules.family);
        let Ok(Frame::Ip(parsed)) = wire::parse(&frame, Mac::default()) else { return Ok(0) };
        let at = (approach.table.id, approach.hook);
        let (input, output) = probes::interfaces(&fields, approach.hook, self.ports);
        let raw = at.0 == TableId::Raw;
        let state = fields.state.filter(|_| !raw).unwrap_or(CtState::Invalid);
        let tracking = Tracking { state, ..Tracking::NONE };
        self.turn += 1;
        let probe = Probe {
            frame: &frame,
            parsed: &parsed,
            input,
            output,
            mark: fields.mark.unwrap_or(0),
            tracking,
            now: NOW,
            // Another moment for each packet, over all that a date can say.
            utc_offset: Nanos::from_secs(self.turn.wrapping_mul(0x9e37_79b9) & 0x7fff_ffff),
        };
        let tracked = Tracked { state, ..Tracked::NONE };
        let Some(compiled) = self.compiled.walk(self.policy, at, &probe, &self.conntrack) else {
            return Ok(0);
        };
        let interpreted = walks::interpreted(
            &mut self.interpreter,
            at,
            &probe,
            self.ports,
            (tracked, &self.conntrack),
        );
        let Some((interpreted, visits)) = interpreted else { return Ok(0) };
        if compiled == interpreted {
            return Ok(visits);
        }
        let text = |walked: &Walked<'_>| format!("{walked:?}");
        Err(Box::new(Difference {
            family: self.rules.family,
            table: at.0,
            hook: at.1,
            span,
            compiled: text(&compiled),
            interpreted: text(&interpreted),
            frame,
        }))
    }
}
