//! The survey as findings in the operator's file: where, what, and what to do.

use std::sync::Arc;

use classifier::Address;
use dataplane::packet::Family;
use dataplane::policy::{ChainId, FamilyPolicy, TableId};
use dataplane::sets::Registry;

use super::chains::{Bounds, Survey, survey};
use super::comments::{self, Date};
use super::hits::Hits;
use super::order::Move;
use super::shadow::{Doubt, Why};
use super::{habits, marks, roads};
use crate::compile::{self, DynamicState};
use crate::diagnostics::{Code, Finding, Severity};
use crate::model::{Chain, Ruleset, TargetSpec};
use crate::region::{ports, space, written};

/// What was found in one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In file order.
    pub findings: Vec<Finding>,
    /// Rules for which it could not be decided within the bounds.
    pub undecided: u32,
}

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Input<'i> {
    /// Rules that load.
    pub rules: &'i Ruleset,
    /// Their file, as the caller names it.
    pub file: &'i str,
    /// The sets that they name.
    pub sets: &'i Arc<Registry>,
    /// The day that dates in comments are compared with.
    pub today: Option<Date>,
    /// How often rules were met.
    pub hits: Option<&'i Hits>,
    /// How much is done.
    pub bounds: Bounds,
}

/// Looks at the rules of a file; `told` hears how many are done. Gives nothing but what their text
/// says for a file that does not compile.
pub fn lint(input: &Input<'_>, told: &mut dyn FnMut(usize)) -> Report {
    let rules = input.rules;
    let file: Arc<str> = Arc::from(input.file);
    let mut report = Report::default();
    report.findings.extend(habits::findings(rules, &file));
    report.findings.extend(marks::findings(rules, &file));
    report.findings.extend(comments::findings(rules, &file, input.today));
    let undecided = rules.rule_count() as u32;
    let packets = ports([rules]).and_then(|ports| packets(input, &file, &ports, told));
    let packets = packets.unwrap_or(Report { undecided, ..Report::default() });
    report.findings.extend(packets.findings);
    report.undecided = packets.undecided;
    report.findings.sort_by_key(|finding| (finding.line, finding.column));
    report
}

/// What packets have to do with.
fn packets(
    input: &Input<'_>,
    file: &Arc<str>,
    ports: &[String],
    told: &mut dyn FnMut(usize),
) -> Option<Report> {
    let rules = input.rules;
    let (none_v4, none_v6) = (Ruleset::empty(Family::V4), Ruleset::empty(Family::V6));
    let (v4, v6) = match rules.family {
        Family::V4 => (rules, &none_v6),
        Family::V6 => (&none_v4, rules),
    };
    let given = compile::Input { v4, v6, ports, limits: compile::Limits::default() };
    let state = DynamicState::with_sets(Arc::clone(input.sets));
    let compiled = compile::compile(given, &state).ok()?;
    Some(match rules.family {
        Family::V4 => of_family(input, &compiled.policy.v4, file, ports.len(), told),
        Family::V6 => of_family(input, &compiled.policy.v6, file, ports.len(), told),
    })
}

fn of_family<A: Address>(
    input: &Input<'_>,
    policy: &FamilyPolicy<A>,
    file: &Arc<str>,
    ports: usize,
    told: &mut dyn FnMut(usize),
) -> Report {
    let rules = input.rules;
    let chains: Vec<(TableId, &Chain)> = written(rules).collect();
    let hits = |id: ChainId| match input.hits {
        Some(hits) => hits.chain(chains[id.0 as usize].0, chains[id.0 as usize].1, rules),
        None => Vec::new(),
    };
    let survey = survey(rules.family, policy, ports, input.bounds, &hits, told);
    let mut report = put(&survey, file, |id| chains.get(id.0 as usize).map(|it| it.1));
    let space = space(rules.family, ports);
    let (findings, undecided) = roads::findings(policy, rules, &space, file);
    report.findings.extend(findings);
    report.undecided += undecided;
    report
}

fn put<'m>(
    survey: &Survey,
    file: &Arc<str>,
    chain: impl Fn(ChainId) -> Option<&'m Chain>,
) -> Report {
    let doubts = survey.doubts.iter();
    let rules = doubts.filter_map(|(id, doubt)| rule(file, chain(*id)?, doubt));
    let chains = survey.unused.iter().filter_map(|id| {
        let chain = chain(*id)?;
        let message = format!("no rule leads to chain {}", chain.name);
        let finding = Finding::new(Severity::Warning, Code::UnusedChain, file, chain.span, message);
        Some(finding.with_remedy("jump to it, or delete it with its rules"))
    });
    let moves = survey.moves.iter().filter_map(|(id, it)| moved(file, chain(*id)?, *it));
    let findings: Vec<Finding> = rules.chain(chains).chain(moves).collect();
    Report { findings, undecided: survey.undecided }
}

fn moved(
    file: &Arc<str>,
    chain: &Chain,
    Move { rule, before, hits, saved }: Move,
) -> Option<Finding> {
    let span = |at: u32| chain.rules.get(at as usize).map(|rule| rule.span);
    let before = span(before)?.line;
    let message = format!(
        "{hits} packets met this rule behind others that fewer met; it may stand before line \
         {before}, which saves {saved} comparisons and changes no verdict (proven)"
    );
    let finding = Finding::new(Severity::Note, Code::RuleOrder, file, span(rule)?, message);
    Some(finding.with_remedy(format!("move it up, before the rule in line {before}")))
}

fn rule(file: &Arc<str>, chain: &Chain, doubt: &Doubt) -> Option<Finding> {
    let lines = |rules: &[u32]| {
        let lines = rules.iter().filter_map(|at| chain.rules.get(*at as usize));
        let lines: Vec<String> = lines.map(|rule| rule.span.line.to_string()).collect();
        match &lines[..] {
            [line] => format!("the rule in line {line}"),
            _ => format!("the rules in lines {}", lines.join(", ")),
        }
    };
    let rule = chain.rules.get(doubt.rule as usize)?;
    let (severity, code, message, remedy) = match &doubt.why {
        Why::Impossible => (
            Severity::Warning,
            Code::NeverMatches,
            "the conditions of this rule contradict each other: no packet has them all".to_owned(),
            "correct it, or delete it",
        ),
        Why::NeverEnters => (
            Severity::Warning,
            Code::Unreachable,
            format!("nothing that this rule matches comes into chain {}", chain.name),
            "correct it or the rules that lead to its chain, or delete it",
        ),
        Why::Shadowed { by, same: true } => (
            Severity::Warning,
            Code::Unreachable,
            format!("{} before it leaves nothing for this rule, and does the same", lines(by)),
            "delete it",
        ),
        Why::Shadowed { by, same: false } => (
            Severity::Warning,
            Code::Contradicted,
            format!("{} before it leaves nothing for this rule", lines(by)),
            "move it up if it is meant, or delete it",
        ),
        Why::Redundant { with: Some(with) } => (
            Severity::Note,
            Code::Redundant,
            format!("without this rule, {} does the same to all that it matches", lines(&[*with])),
            "delete it, unless it is there to count",
        ),
        Why::Redundant { with: None } => (
            Severity::Note,
            Code::Redundant,
            format!("without this rule, the policy of {} does the same", chain.name),
            "delete it, unless it is there to count",
        ),
        Why::Idle { with } => {
            let message = match with {
                Some(with) => {
                    format!("{} does the same to what the limit holds back", lines(&[*with]))
                }
                None => format!("the policy of {} does the same without a limit", chain.name),
            };
            let remedy = "put the opposite for the rest right behind it, or delete it";
            (Severity::Warning, Code::LimitNeverFires, message, remedy)
        }
    };
    let span = match (&doubt.why, &rule.target) {
        (Why::Redundant { .. }, target) if !matches!(target, TargetSpec::None) => rule.target_span,
        _ => rule.span,
    };
    Some(Finding::new(severity, code, file, span, message).with_remedy(remedy))
}
