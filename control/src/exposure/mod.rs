//! What is reachable: which services, from where, through which rule, and whose rule that is.
//!
//! [`expose`] follows the first packets of all connections from outside through every table of
//! a policy, with [`crate::region`]: a SYN of TCP, a datagram, a request of ICMP, a packet of another protocol, whole
//! and NEW (or untracked, where rules say so). What comes out at the end of INPUT is reachable on this
//! machine, what comes out of FORWARD through it, at the destination that a translation
//! gives it. For headers, interfaces and states this is exact; a match without a field (a set, a limit, a mark)
//! is a condition that is named. [`compare`] does the same for two policies and
//! says what is newly exposed, what no longer is, and what is through another rule or of another owner.
//!
//! Which addresses are this machine's own is routing's business: unless they are given, all destinations are
//! followed on both roads. Not looked at: connections that helpers expect, answers, what this machine opens itself.
//! Work is bounded; what was not finished is named. Each row has a witness: a packet that the
//! engine has been given.

mod compare;
mod flow;
mod render;
mod report;
mod roads;
#[cfg(test)]
mod tests;
mod witness;

use std::collections::BTreeSet;
use std::sync::Arc;

use classifier::Address;
use dataplane::packet::Family;
use dataplane::policy::{FamilyPolicy, Hook};
use serde::Serialize;

use crate::compile::{self, CompileError, DynamicState};
use crate::diff::Policy;
use crate::iptables::{TableNames, rule_text};
use crate::model::{MatchBody, Rule, Ruleset};
use crate::region::{Atoms, Effort, Ranges, Side, Space, Ways, ports, space, written};

pub use compare::{Changes, Compared, Difference};
pub use render::{changes_text, text};
pub use report::{Denial, Exposure, Reachable, RuleRef, Service, Summary, Via, Witness};

/// Where connections lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Road {
    /// To this machine.
    Input,
    /// Through it.
    Forward,
}

impl Road {
    /// Its hook.
    pub fn hook(self) -> Hook {
        match self {
            Self::Input => Hook::Input,
            Self::Forward => Hook::Forward,
        }
    }
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Pairs of regions compared.
    pub effort: u64,
    /// Flows behind one table.
    pub flows: usize,
    /// Rules that witnesses may cost: each is given to an engine that has all of them.
    pub walked: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { effort: 200_000_000, flows: 20_000, walked: 400_000 }
    }
}

/// Beside the policy itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Given<'g> {
    /// The addresses of this machine, where they are known.
    pub local: Option<&'g Ranges>,
    /// How much is done.
    pub bounds: Bounds,
}

/// What a policy of one family lets in. `told` hears how much of the effort is spent, in percent.
///
/// # Errors
/// A policy that does not compile.
pub fn expose(
    policy: Policy<'_>,
    given: Given<'_>,
    told: &mut dyn FnMut(u64),
) -> Result<Exposure, CompileError> {
    let Some(ports) = ports([policy.rules]) else {
        return Ok(Exposure::nothing(policy.rules.family));
    };
    let compiled = compiled(policy, &ports)?;
    let reader = Reader::new(policy.rules.family, &ports, given);
    Ok(match policy.rules.family {
        Family::V4 => reader.one(policy, &compiled.policy.v4, told),
        Family::V6 => reader.one(policy, &compiled.policy.v6, told),
    })
}

/// What two policies of one family let in, and the difference. `changed_sets` are sets that are not
/// the same in both.
///
/// # Errors
/// A policy that does not compile.
pub fn compare(
    policies: [Policy<'_>; 2],
    changed_sets: &BTreeSet<String>,
    given: Given<'_>,
    told: &mut dyn FnMut(u64),
) -> Result<Compared, CompileError> {
    let family = policies[0].rules.family;
    let Some(ports) = ports(policies.map(|it| it.rules)) else {
        let [old, new] = [0, 1].map(|_| Exposure::nothing(family));
        return Ok(Compared { old, new, changes: Changes::unfinished() });
    };
    let (one, two) = (compiled(policies[0], &ports)?, compiled(policies[1], &ports)?);
    let reader = Reader::new(family, &ports, given);
    Ok(match family {
        Family::V4 => reader.two(policies, [&one.policy.v4, &two.policy.v4], changed_sets, told),
        Family::V6 => reader.two(policies, [&one.policy.v6, &two.policy.v6], changed_sets, told),
    })
}

fn compiled(policy: Policy<'_>, ports: &[String]) -> Result<compile::Compiled, CompileError> {
    let (none_v4, none_v6) = (Ruleset::empty(Family::V4), Ruleset::empty(Family::V6));
    let (v4, v6) = match policy.rules.family {
        Family::V4 => (policy.rules, &none_v6),
        Family::V6 => (&none_v4, policy.rules),
    };
    let input = compile::Input { v4, v6, ports, limits: compile::Limits::default() };
    compile::compile(input, &DynamicState::with_sets(Arc::clone(policy.sets)))
}

/// Follows packets through policies that speak of the same ports.
struct Reader<'g> {
    space: Space,
    ports: &'g [String],
    given: Given<'g>,
    atoms: Atoms,
    ways: Ways,
    effort: Effort,
}

/// One policy, followed.
struct Followed<'p> {
    policy: Policy<'p>,
    texts: Vec<Vec<String>>,
    found: roads::Found,
}

impl<'g> Reader<'g> {
    fn new(family: Family, ports: &'g [String], given: Given<'g>) -> Self {
        let effort = Effort(given.bounds.effort);
        let (atoms, ways) = (Atoms::default(), Ways::default());
        Self { space: space(family, ports.len()), ports, given, atoms, ways, effort }
    }

    fn one<A: Address>(
        mut self,
        policy: Policy<'_>,
        compiled: &FamilyPolicy<A>,
        told: &mut dyn FnMut(u64),
    ) -> Exposure {
        let followed = self.follow(policy, compiled, &|_| None, told);
        self.report(&followed)
    }

    fn two<A: Address>(
        mut self,
        policies: [Policy<'_>; 2],
        compiled: [&FamilyPolicy<A>; 2],
        changed_sets: &BTreeSet<String>,
        told: &mut dyn FnMut(u64),
    ) -> Compared {
        let changed = |body: &MatchBody| matches!(body, MatchBody::Set(set) if changed_sets.contains(set.set.name.as_str()));
        let apart = |rule: &Rule, side: u32| {
            rule.matches.iter().any(|it| changed(&it.body)).then_some(side)
        };
        let [old, new] = [0, 1].map(|at| {
            self.follow(policies[at], compiled[at], &|rule| apart(rule, at as u32), told)
        });
        let changes = compare::changes([&old, &new], &mut self);
        Compared { old: self.report(&old), new: self.report(&new), changes }
    }

    fn follow<'p, A: Address>(
        &mut self,
        policy: Policy<'p>,
        compiled: &FamilyPolicy<A>,
        apart: &dyn Fn(&Rule) -> Option<u32>,
        told: &mut dyn FnMut(u64),
    ) -> Followed<'p> {
        let names = TableNames::well_known();
        let text = |rule: &Rule| rule_text(rule, policy.rules.family, &names);
        let chains = written(policy.rules).map(|(_, chain)| chain);
        let texts: Vec<Vec<String>> =
            chains.map(|chain| chain.rules.iter().map(text).collect()).collect();
        let side = Side::read(compiled, policy.rules, &texts, &self.space, &mut self.atoms, apart);
        let search = roads::Search {
            space: &self.space,
            ports: self.ports,
            side: &side,
            rules: policy.rules,
            local: self.given.local,
            bounds: self.given.bounds,
            atoms: &mut self.atoms,
            ways: &mut self.ways,
            effort: &mut self.effort,
            told,
            found: roads::Found::default(),
        };
        Followed { policy, found: search.run(), texts }
    }
}
