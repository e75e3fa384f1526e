//! Habits of sound policies: what is accepted without a word, and what is logged without a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dataplane::policy::matches::{ConntrackMatch, Match, ctstate};
use dataplane::policy::measure::MeasureMatch;
use dataplane::policy::report::ReportTarget;
use dataplane::policy::target::NatTarget;
use dataplane::policy::{ChainPolicy, Hook, TableId, state_class};

use crate::diagnostics::{Code, Finding, Severity};
use crate::model::{Chain, MatchBody, MeasureSpec, Rule, Ruleset, Table, TallySpec, TargetSpec};

/// All of them.
pub(super) fn findings(rules: &Ruleset, file: &Arc<str>) -> Vec<Finding> {
    let mut found = Vec::new();
    let filter = rules.tables.iter().find(|table| table.id == TableId::Filter);
    if let Some(filter) = filter {
        for hook in [Hook::Input, Hook::Forward, Hook::Output] {
            let Some(chain) = filter.chain(hook.chain_name()) else { continue };
            if hook != Hook::Output {
                found.extend(accepting(chain, file));
                found.extend(accept_any(filter, chain, file));
            }
            found.extend(established(filter, chain, file));
        }
    }
    for table in &rules.tables {
        found.extend(logs(table, file));
    }
    found.extend(translated(rules, file));
    found
}

fn warning(
    code: Code,
    file: &Arc<str>,
    span: crate::model::Span,
    message: String,
    remedy: &str,
) -> Finding {
    Finding::new(Severity::Warning, code, file, span, message).with_remedy(remedy)
}

/// Chains that packets come to from one, with it.
pub(super) fn reached<'m>(table: &'m Table, from: &'m Chain) -> Vec<&'m Chain> {
    let by_name: BTreeMap<&str, &Chain> =
        table.chains.iter().map(|chain| (chain.name.as_str(), chain)).collect();
    let mut seen = BTreeSet::from([from.name.as_str()]);
    let (mut found, mut at) = (vec![from], 0);
    while let Some(chain) = found.get(at).copied() {
        for rule in &chain.rules {
            if let TargetSpec::Jump(to) | TargetSpec::Goto(to) = &rule.target
                && let Some(next) = by_name.get(to.as_str())
                && seen.insert(to)
            {
                found.push(next);
            }
        }
        at += 1;
    }
    found
}

/// Whether a rule matches everything; comments do not count.
fn bare(rule: &Rule) -> bool {
    let says_nothing =
        |body: &MatchBody| matches!(body, MatchBody::Comment(_) | MatchBody::Empty(_));
    unselective(rule) && rule.matches.iter().all(|it| says_nothing(&it.body))
}

/// Whether only its match extensions choose.
fn unselective(rule: &Rule) -> bool {
    Rule { matches: Vec::new(), ..rule.clone() }.is_bare()
}

fn states(body: &MatchBody) -> Option<u64> {
    match body {
        MatchBody::Plain(Match::Conntrack(it)) | MatchBody::State(Match::Conntrack(it)) => {
            let set = it.state?;
            Some(if set.negated { !set.value } else { set.value })
        }
        _ => None,
    }
}

/// The states that a rule asks for, if it asks.
fn asked(rule: &Rule) -> Option<u64> {
    let sets = rule.matches.iter().filter_map(|it| states(&it.body));
    sets.reduce(|one, two| one & two)
}

fn drops_at_end(chain: &Chain) -> bool {
    let last = chain.rules.last();
    let ends = |rule: &&Rule| {
        bare(rule) && matches!(rule.target, TargetSpec::Drop | TargetSpec::Reject(_))
    };
    last.is_some_and(|rule| ends(&rule)) || chain.policy.is_some_and(|it| it.0 == ChainPolicy::Drop)
}

fn accepting(chain: &Chain, file: &Arc<str>) -> Option<Finding> {
    if drops_at_end(chain) {
        return None;
    }
    // A last jump without conditions has the last word.
    let goes_on = |rule: &Rule| {
        bare(rule) && matches!(rule.target, TargetSpec::Goto(_) | TargetSpec::Jump(_))
    };
    if chain.rules.last().is_some_and(goes_on) {
        return None;
    }
    let message = format!("{} accepts what no rule takes", chain.name);
    let remedy = "set its policy to DROP, after a rule for every service that is meant";
    Some(warning(Code::PolicyAccept, file, chain.span, message, remedy))
}

fn accept_any(table: &Table, entry: &Chain, file: &Arc<str>) -> Vec<Finding> {
    // Chains that everything comes to.
    let mut chains = vec![entry];
    let mut at = 0;
    while let Some(chain) = chains.get(at).copied() {
        for rule in chain.rules.iter().filter(|rule| bare(rule)) {
            if let TargetSpec::Jump(to) | TargetSpec::Goto(to) = &rule.target
                && let Some(next) = table.chain(to)
                && !chains.iter().any(|it| it.name == next.name)
            {
                chains.push(next);
            }
        }
        at += 1;
    }
    let any = |rule: &&Rule| {
        let new = |body: &MatchBody| match body {
            MatchBody::Comment(_) | MatchBody::Empty(_) => true,
            body => {
                states(body).is_some_and(|set| set & state_class::NEW != 0) && only_states(body)
            }
        };
        rule.target == TargetSpec::Accept
            && unselective(rule)
            && rule.matches.iter().all(|it| new(&it.body))
    };
    let rules = chains.iter().flat_map(|chain| &chain.rules).filter(any);
    let told = rules.map(|rule| {
        let message = format!("everything new that comes to {} is accepted here", entry.name);
        let remedy = "say what is accepted: interface, addresses, service";
        warning(Code::AcceptAny, file, rule.target_span, message, remedy)
    });
    told.collect()
}

fn only_states(body: &MatchBody) -> bool {
    match body {
        MatchBody::Plain(Match::Conntrack(it)) | MatchBody::State(Match::Conntrack(it)) => {
            *it == ConntrackMatch { state: it.state, ..ConntrackMatch::default() }
        }
        _ => false,
    }
}

fn established(table: &Table, entry: &Chain, file: &Arc<str>) -> Option<Finding> {
    if !drops_at_end(entry) {
        return None;
    }
    let chains = reached(table, entry);
    let rules = || chains.iter().flat_map(|chain| &chain.rules);
    let accepts = |rule: &Rule| matches!(rule.target, TargetSpec::Accept | TargetSpec::Jump(_));
    let has = |rule: &Rule, state| asked(rule).is_some_and(|set| set & state != 0);
    if rules().any(|rule| has(rule, state_class::ESTABLISHED)) {
        return None;
    }
    let new = rules().find(|rule| accepts(rule) && has(rule, state_class::NEW))?;
    let message = format!("{} accepts NEW here, and no rule accepts ESTABLISHED", entry.name);
    let remedy = "put `-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT' at the chain's head";
    Some(warning(Code::MissingEstablished, file, new.span, message, remedy))
}

/// Whether a match bounds how often its rule matches.
fn bounds(body: &MatchBody) -> bool {
    match body {
        MatchBody::Limit(_) => true,
        MatchBody::Tally(tally) => !matches!(tally, TallySpec::Conn { .. }),
        MatchBody::Measure(measure) => {
            matches!(measure, MeasureSpec::Nth { .. } | MeasureSpec::Quota { .. })
        }
        MatchBody::Plain(Match::Measure(measure)) => matches!(measure, MeasureMatch::Random { .. }),
        _ => false,
    }
}

fn logs(table: &Table, file: &Arc<str>) -> Vec<Finding> {
    let bounded = |rule: &Rule| rule.matches.iter().any(|it| bounds(&it.body));
    // Chains that only bounded rules lead to.
    let mut open: BTreeSet<&str> = BTreeSet::new();
    for chain in table.chains.iter().filter(|chain| chain.policy.is_some()) {
        let mut todo = vec![chain];
        while let Some(chain) = todo.pop() {
            if !open.insert(&chain.name) {
                continue;
            }
            for rule in chain.rules.iter().filter(|rule| !bounded(rule)) {
                if let TargetSpec::Jump(to) | TargetSpec::Goto(to) = &rule.target {
                    todo.extend(table.chain(to));
                }
            }
        }
    }
    let logs = |rule: &&Rule| {
        matches!(rule.target, TargetSpec::Log(_) | TargetSpec::Report(ReportTarget::Nflog(_)))
            && !bounded(rule)
    };
    let chains = table.chains.iter().filter(|chain| open.contains(chain.name.as_str()));
    let told = chains.flat_map(|chain| &chain.rules).filter(logs).map(|rule| {
        let message = "whoever sends what this rule matches fills the log".to_owned();
        let remedy = "add -m limit --limit 5/min, or -m hashlimit by source";
        warning(Code::LogWithoutLimit, file, rule.target_span, message, remedy)
    });
    told.collect()
}

/// Rules for translated destinations, where nothing translates them.
fn translated(rules: &Ruleset, file: &Arc<str>) -> Vec<Finding> {
    let translates = |rule: &Rule| {
        matches!(
            rule.target,
            TargetSpec::Nat(NatTarget::Dnat(_) | NatTarget::Redirect(_) | NatTarget::Netmap(_))
        )
    };
    if super::places(rules).any(|place| translates(place.rule)) {
        return Vec::new();
    }
    let wants = |rule: &Rule| asked(rule).is_some_and(|set| set == ctstate::DNAT);
    let places = super::places(rules).filter(|place| wants(place.rule));
    let told = places.map(|place| {
        let message = "no rule of this file translates destinations".to_owned();
        let remedy = "add the DNAT, or delete this rule";
        warning(Code::ForwardWithoutDnat, file, place.rule.span, message, remedy)
    });
    told.collect()
}
