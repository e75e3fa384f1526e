//! What was found, in words: who reaches what through which rule.

use std::collections::BTreeSet;

use dataplane::packet::{Family, PortId};
use dataplane::policy::{NO_INTERFACE, TableId};
use dataplane::wire::proto;
use serde::Serialize;

use super::flow::Flow;
use super::{Followed, Reader, Road, witness};
use crate::model::annotations::annotations;
use crate::region::{Decider, Fate, Ranges, Region, Speaker, written};

/// Most words of one list.
const WORDS: usize = 256;

/// Who lets something through, or does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleRef {
    /// Table.
    pub table: &'static str,
    /// Chain.
    pub chain: String,
    /// Number in the chain, from 1; none for the chain's policy.
    pub rule: Option<u32>,
    /// Line in the file.
    pub line: Option<u32>,
    /// As printed; the policy: as `:FORWARD ACCEPT`.
    pub text: String,
    /// `owner=` of its comment.
    pub owner: Option<String>,
    /// `ticket=`.
    pub ticket: Option<String>,
    /// `review=`.
    pub review: Option<String>,
    /// `expires=`.
    pub expires: Option<String>,
}

/// What a destination was before it was translated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Via {
    /// Addresses; empty: all.
    pub destinations: Vec<String>,
    /// Ports; empty: all.
    pub ports: Vec<String>,
}

/// A service that is reachable. Lists that are empty mean everything there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Interfaces that connections come in by.
    pub interfaces: Vec<String>,
    /// Addresses that they come from.
    pub sources: Vec<String>,
    /// Ports that they come from.
    pub source_ports: Vec<String>,
    /// Interfaces that they leave by.
    pub out: Vec<String>,
    /// Where they arrive, behind translations.
    pub destinations: Vec<String>,
    /// Protocols.
    pub protocols: Vec<String>,
    /// Ports that they arrive at; of ICMP: types.
    pub ports: Vec<String>,
    /// What they came for, if that was translated.
    pub via: Option<Via>,
    /// Whether they are not tracked.
    pub untracked: bool,
    /// What else must hold: `if -m set ...`, `unless ...`.
    pub conditions: Vec<String>,
    /// A packet that shows it.
    pub witness: Option<Witness>,
}

/// A packet that was given to the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Witness {
    /// Words for `explain`.
    pub packet: Vec<String>,
    /// Whether it arrived (of denials: whether it did not), by the same rule. `None`: it was not walked, because it depends on
    /// what is not in a header, or because that was enough.
    pub confirmed: Option<bool>,
    /// What came of it.
    pub result: String,
    /// Lines that were logged of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// What one rule lets through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reachable {
    /// Where to.
    pub road: Road,
    /// The rule of filter that accepts; none where nothing is there.
    pub rule: Option<RuleRef>,
    /// The rule that translates.
    pub nat: Option<RuleRef>,
    /// What, from where.
    pub services: Vec<Service>,
    /// The flows themselves.
    #[serde(skip)]
    pub(super) raw: Vec<Flow>,
}

impl Reachable {
    /// Whose it is: of the rule that accepts, or else of the one that translates.
    pub fn owner(&self) -> Option<&str> {
        let of = |rule: &'_ Option<RuleRef>| rule.as_ref().and_then(|it| it.owner.clone());
        match (&self.rule, of(&self.rule)) {
            (Some(rule), Some(_)) => rule.owner.as_deref(),
            _ => self.nat.as_ref().and_then(|it| it.owner.as_deref()),
        }
    }
}

/// What one rule denies, with a packet that shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// Where to; of PREROUTING: on any road.
    pub road: Road,
    /// Who denies.
    pub rule: RuleRef,
    /// `drop`, or `reject`.
    pub verdict: &'static str,
    /// Some of what is denied.
    pub services: Vec<Service>,
}

/// What a policy of one family lets in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exposure {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// By rule.
    pub reachable: Vec<Reachable>,
    /// Who denies.
    pub denials: Vec<Denial>,
    /// Whether that is all there is.
    pub complete: bool,
    /// Tables and hooks for which the effort was not enough.
    pub unfinished: Vec<String>,
    /// What could not be followed.
    pub unknown: Vec<String>,
}

/// Counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Services, row by row.
    pub services: usize,
    /// Of them, those whose rule has no owner.
    pub unowned: usize,
    /// Witnesses that arrived.
    pub confirmed: usize,
    /// Witnesses that did not.
    pub refuted: usize,
    /// Services whose witness was not walked.
    pub unwalked: usize,
}

impl Exposure {
    /// Nothing was looked at.
    pub(super) fn nothing(family: Family) -> Self {
        let unfinished = vec!["all: more interfaces are named than can be told apart".to_owned()];
        Self { family: family_name(family), unfinished, ..Self::default() }
    }

    /// Counts.
    pub fn summary(&self) -> Summary {
        let mut counts = Summary::default();
        for one in &self.reachable {
            counts.services += one.services.len();
            if one.owner().is_none() {
                counts.unowned += one.services.len();
            }
            for service in &one.services {
                match service.witness.as_ref().and_then(|it| it.confirmed) {
                    Some(true) => counts.confirmed += 1,
                    Some(false) => counts.refuted += 1,
                    None => counts.unwalked += 1,
                }
            }
        }
        counts
    }
}

fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// Puts flows of one policy into words.
pub(super) struct Teller<'t, 'g> {
    pub(super) reader: &'t Reader<'g>,
    pub(super) followed: &'t Followed<'t>,
}

impl<'g> Reader<'g> {
    /// A followed policy in words.
    pub(super) fn report(&self, followed: &Followed<'_>) -> Exposure {
        let teller = Teller { reader: self, followed };
        let found = &followed.found;
        let mut walker = witness::Walker::new(followed.policy, self.given.bounds);
        let mut reachable = Vec::new();
        for ((road, by), flows) in &found.through {
            let rule = by.filter.map(|it| teller.rule(TableId::Filter, it));
            let nat = by.nat.map(|it| teller.rule(TableId::Nat, it));
            let mut services = Vec::new();
            for flow in flows {
                let mut service = teller.service(flow, *road);
                let expected = rule.as_ref();
                service.witness = walker.arrives(&teller, flow, *road, expected);
                services.push(service);
            }
            reachable.push(Reachable { road: *road, rule, nat, services, raw: flows.clone() });
        }
        let mut denials = Vec::new();
        for ((road, table, decider), (fate, flows)) in &found.denied {
            let rule = teller.rule(*table, *decider);
            let verdict = if matches!(fate, Fate::Reject(_)) { "reject" } else { "drop" };
            let mut services = Vec::new();
            let mut walked = false;
            for flow in flows {
                let mut service = teller.service(flow, *road);
                if !walked {
                    service.witness = walker.ends(&teller, flow, *road, &rule);
                    walked = service.witness.as_ref().is_some_and(|it| it.confirmed.is_some());
                }
                services.push(service);
            }
            // What was walked is what is shown.
            services.sort_by_key(|it| it.witness.as_ref().is_none_or(|it| it.confirmed.is_none()));
            denials.push(Denial { road: *road, rule, verdict, services });
        }
        Exposure {
            family: family_name(self.space.family),
            reachable,
            denials,
            complete: found.unfinished.is_empty() && found.unknown.is_empty(),
            unfinished: found.unfinished.clone(),
            unknown: found.unknown.clone(),
        }
    }
}

fn cut(mut words: Vec<String>) -> Vec<String> {
    let count = words.len();
    if count > WORDS {
        words.truncate(WORDS);
        words.push(format!("... ({count} in all)"));
    }
    words
}

fn spans(set: &Ranges, all: &Ranges) -> Vec<String> {
    if set == all {
        return Vec::new();
    }
    let span = |(low, high): &(u128, u128)| match low == high {
        true => low.to_string(),
        false => format!("{low}-{high}"),
    };
    cut(set.ranges().iter().map(span).collect())
}

impl Teller<'_, '_> {
    /// Who decides.
    pub(super) fn rule(&self, table: TableId, decider: Decider) -> RuleRef {
        let at = decider.chain.0 as usize;
        let Some((_, chain)) = written(self.followed.policy.rules).nth(at) else {
            return RuleRef { table: table.name(), ..RuleRef::default() };
        };
        let bare = RuleRef { table: table.name(), chain: chain.name.clone(), ..RuleRef::default() };
        let Some((index, rule)) =
            decider.rule.and_then(|it| Some((it, chain.rules.get(it as usize)?)))
        else {
            let policy = chain.policy.map_or("-", |(policy, _)| policy_name(policy));
            return RuleRef { text: format!(":{} {policy}", chain.name), ..bare };
        };
        let mut about = annotations(rule);
        let text = &self.followed.texts[at][index as usize];
        RuleRef {
            rule: Some(index + 1),
            line: Some(rule.span.line),
            text: format!("-A {}{text}", chain.name),
            owner: about.remove("owner"),
            ticket: about.remove("ticket"),
            review: about.remove("review"),
            expires: about.remove("expires"),
            ..bare
        }
    }

    pub(super) fn speaker<'s>(&'s self, given: &'s Region) -> Speaker<'s> {
        Speaker { space: &self.reader.space, ports: self.reader.ports, given }
    }

    /// A flow in words.
    pub(super) fn service(&self, flow: &Flow, road: Road) -> Service {
        let Flow { region, via } = flow;
        let given = Region::all(&self.reader.space);
        let speaker = self.speaker(&given);
        let bits = |set: u64| set & !NO_INTERFACE & !PortId::LOOPBACK.bit();
        let interfaces = |at: usize| speaker.names(region.classes[at], bits(given.classes[at]));
        let icmp = [proto::ICMP, proto::ICMPV6].iter().any(|it| region.proto.contains(*it));
        let (all, none) = (Ranges::all(16), Ranges::of(0, 0));
        let ports = |set: &Ranges| if *set == none { Vec::new() } else { spans(set, &all) };
        let atoms: BTreeSet<String> = region
            .atoms
            .iter()
            .map(|(atom, holds)| {
                let when = if *holds { "if" } else { "unless" };
                format!("{when} {}", self.reader.atoms.words(*atom))
            })
            .collect();
        Service {
            interfaces: cut(interfaces(0)),
            sources: cut(speaker.addresses(&region.src)),
            source_ports: if icmp { Vec::new() } else { ports(&region.sport) },
            out: if road == Road::Forward { cut(interfaces(1)) } else { Vec::new() },
            destinations: cut(speaker.addresses(&region.dst)),
            protocols: speaker.protocols(region.proto),
            ports: if icmp { spans(&region.sport, &all) } else { ports(&region.dport) },
            via: via.as_ref().map(|via| super::Via {
                destinations: cut(speaker.addresses(&via.dst)),
                ports: ports(&via.dport),
            }),
            untracked: region.classes[2] == dataplane::policy::state_class::UNTRACKED,
            conditions: atoms.into_iter().collect(),
            witness: None,
        }
    }
}

fn policy_name(policy: dataplane::policy::ChainPolicy) -> &'static str {
    match policy {
        dataplane::policy::ChainPolicy::Accept => "ACCEPT",
        dataplane::policy::ChainPolicy::Drop => "DROP",
    }
}
