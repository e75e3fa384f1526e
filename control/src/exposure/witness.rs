//! Packets that show what is reachable and what is not: made from flows, given to the engine.

use dataplane::conntrack::Config;
use dataplane::packet::Family;
use dataplane::policy::{NO_INTERFACE, state_class};
use dataplane::wire::proto;

use super::flow::Flow;
use super::report::{RuleRef, Teller, Witness};
use super::{Bounds, Road};
use crate::diff::Policy;
use crate::explain::{self, Description, Explanation};
use crate::iptables::TableNames;
use crate::model::Ruleset;
use crate::region::{Point, Ranges, Region, liked, point_words};
use crate::replay::{PathStep, Verdict};

/// Walks packets until that is enough.
pub(super) struct Walker<'p> {
    policy: Policy<'p>,
    none: Ruleset,
    names: TableNames,
    left: usize,
}

impl<'p> Walker<'p> {
    pub(super) fn new(policy: Policy<'p>, bounds: Bounds) -> Self {
        let other = match policy.rules.family {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        let (none, names) = (Ruleset::empty(other), TableNames::well_known());
        Self { policy, none, names, left: bounds.walked }
    }

    /// A packet that should arrive by a rule of filter.
    pub(super) fn arrives(
        &mut self,
        teller: &Teller<'_, '_>,
        flow: &Flow,
        road: Road,
        rule: Option<&RuleRef>,
    ) -> Option<Witness> {
        let judge = |found: &Explanation| {
            let here = found.event.out.iter().any(|it| it == "host");
            found.event.verdict == Verdict::Accept
                && here == (road == Road::Input)
                && rule.is_none_or(|rule| passes(found, rule))
        };
        self.walk(teller, flow, road, &judge)
    }

    /// A packet that should end at a rule.
    pub(super) fn ends(
        &mut self,
        teller: &Teller<'_, '_>,
        flow: &Flow,
        road: Road,
        rule: &RuleRef,
    ) -> Option<Witness> {
        let judge = |found: &Explanation| {
            matches!(found.event.verdict, Verdict::Drop | Verdict::Reject)
                && found.event.path.last().is_some_and(|last| is(last, rule))
        };
        self.walk(teller, flow, road, &judge)
    }

    fn walk(
        &mut self,
        teller: &Teller<'_, '_>,
        flow: &Flow,
        road: Road,
        judge: &dyn Fn(&Explanation) -> bool,
    ) -> Option<Witness> {
        let family = self.policy.rules.family;
        let region = before(flow);
        let mut point = liked(&region, region.pick(0)?, family, 0);
        if road == Road::Input {
            point.classes[1] = NO_INTERFACE;
        }
        let packet = words(teller, &region, &point);
        let unsure = match (&flow.via, road) {
            _ if !region.atoms.is_empty() => Some("it depends on what is not in a header"),
            (Some(_), Road::Input) if flow.region.dst != all(family) => {
                Some("its new destination is not known to be this machine")
            }
            _ => None,
        };
        if let Some(why) = unsure {
            return Some(unwalked(packet, why));
        }
        let rules = self.policy.rules.rule_count().max(1);
        if self.left < rules {
            return Some(unwalked(packet, "enough were"));
        }
        self.left -= rules;
        let (v4, v6) = match family {
            Family::V4 => (self.policy.rules, &self.none),
            Family::V6 => (&self.none, self.policy.rules),
        };
        let conntrack = Config::new([0; 16]);
        let found = Description::parse(&packet).map_err(|error| error.to_string());
        let found = found.and_then(|packet| {
            let sets = self.policy.sets;
            explain::explain(v4, v6, sets, None, conntrack, &packet, &self.names)
                .map_err(|error| error.to_string())
        });
        Some(match found {
            Ok(found) => Witness {
                packet,
                confirmed: Some(judge(&found)),
                result: told(&found),
                log: found.log,
            },
            Err(error) => unwalked(packet, &error),
        })
    }
}

fn unwalked(packet: Vec<String>, why: &str) -> Witness {
    let result = format!("not walked: {why}");
    Witness { packet, confirmed: None, result, log: Vec::new() }
}

/// Whether a packet matched a rule.
fn passes(found: &Explanation, rule: &RuleRef) -> bool {
    found.event.path.iter().any(|step| is(step, rule))
}

fn is(step: &PathStep, rule: &RuleRef) -> bool {
    step.table == rule.table && step.chain == rule.chain && step.rule == rule.rule
}

fn told(found: &Explanation) -> String {
    let event = &found.event;
    let verdict = format!("{:?}", event.verdict).to_lowercase();
    let by = event.path.last().map(|step| match step.rule {
        Some(rule) => format!(" by {} {} rule {rule}", step.table, step.chain),
        None => format!(" by the policy of {} {}", step.table, step.chain),
    });
    verdict + &by.unwrap_or_default()
}

/// A flow as it comes in.
fn before(flow: &Flow) -> Region {
    let mut region = flow.region.clone();
    if let Some(via) = &flow.via {
        (region.dst, region.dport) = (via.dst.clone(), via.dport.clone());
    }
    region
}

fn all(family: Family) -> Ranges {
    Ranges::all(if family == Family::V4 { 32 } else { 128 })
}

fn words(teller: &Teller<'_, '_>, region: &Region, point: &Point) -> Vec<String> {
    let speaker = teller.speaker(region);
    let mut words = point_words(&speaker, point);
    // Packets that are not tracked have no state that could be brought about, nor have some protocols.
    let tracked = point.classes[2] == state_class::NEW && point.proto != proto::ICMPV6;
    if !tracked {
        words.retain(|it| !it.starts_with("state="));
    }
    words
}
