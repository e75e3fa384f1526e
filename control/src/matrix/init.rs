//! A first matrix for a policy that has none: for each rule that decides something a flow that it
//! decides, and one nearby that goes another way.
//!
//! Where flows lie is read off the rules ([`crate::region`]); what becomes of them says the
//! engine. What is written has been run and passes; the same policy gives the same text.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use classifier::Address;
use dataplane::clock::Nanos;
use dataplane::packet::Family;
use dataplane::policy::{FamilyPolicy, Hook, TableId, state_class};

use super::expect::Expectation;
use super::file::{Flow, Matrix, Step, read};
use super::load::Loaded;
use super::report::{FlowResult, StepResult};
use super::run::RunError;
use crate::compile::{self, DynamicState};
use crate::explain::Description;
use crate::iptables::{TableNames, rule_text};
use crate::model::annotations::annotations;
use crate::model::{MatchBody, Rule, Ruleset};
use crate::region::{
    Atoms, Decider, Effort, Side, Speaker, Ways, at_table, liked, point_words, ports, real, space,
    written,
};
use crate::replay::ReplayError;

/// Rules that flows are looked for at most.
const MOST_RULES: usize = 2_000;
/// Packets that are tried for a rule.
const TRIES: usize = 8;
/// Pairs of regions that are compared at most.
const EFFORT: u64 = 50_000_000;
const HOOKS: [Hook; 3] = [Hook::Input, Hook::Forward, Hook::Output];

/// Words that describe a packet, by key.
pub(super) type Words = Vec<(String, String)>;

/// What a flow is about.
struct Candidate<'r> {
    rules: &'r Ruleset,
    chain: String,
    /// From 1; 0 for the chain's policy.
    number: u32,
    rule: Option<&'r Rule>,
    tries: Vec<Words>,
}

/// A flow and what became of it.
struct Found {
    words: Words,
    result: StepResult,
}

/// Proposes a matrix for a policy.
///
/// # Errors
/// The policy cannot be run.
pub fn propose(policy: &Loaded, at: Nanos) -> Result<String, RunError> {
    let mut text = String::from(
        "# Proposed by `portcullis matrix init`: what this policy does now. Read each flow, and ask its owner\n\
         # whether that is what it should do; give it a name, an owner and a purpose.\n",
    );
    for rules in [&policy.v4, &policy.v6] {
        for candidate in candidates(policy, rules)? {
            let Some(found) = decided(policy, &candidate, at)? else { continue };
            let near = near_miss(policy, &candidate, &found, at)?;
            text.push_str(&flow(&candidate, &found, None));
            if let Some(near) = near {
                text.push_str(&flow(&candidate, &near, Some(&found)));
            }
        }
    }
    only_passing(policy, text, at)
}

fn name_of(family: Family) -> &'static str {
    if family == Family::V4 { "ipv4" } else { "ipv6" }
}

fn candidates<'r>(policy: &Loaded, rules: &'r Ruleset) -> Result<Vec<Candidate<'r>>, RunError> {
    let Some(ports) = ports([rules]) else { return Ok(Vec::new()) };
    if rules.rule_count() == 0 || rules.rule_count() > MOST_RULES {
        return Ok(Vec::new());
    }
    let none = Ruleset::empty(match rules.family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    });
    let (v4, v6) = match rules.family {
        Family::V4 => (rules, &none),
        Family::V6 => (&none, rules),
    };
    let input = compile::Input { v4, v6, ports: &ports, limits: compile::Limits::default() };
    let compiled = compile::compile(input, &DynamicState::with_sets(Arc::clone(&policy.sets)));
    let compiled = compiled.map_err(|it| RunError::Replay(ReplayError::Policy(it.into())))?;
    Ok(match rules.family {
        Family::V4 => of_family(policy, rules, &compiled.policy.v4, &ports),
        Family::V6 => of_family(policy, rules, &compiled.policy.v6, &ports),
    })
}

/// Packets that the filter table's rules and policies decide, as far as their fields tell.
fn of_family<'r, A: Address>(
    policy: &Loaded,
    rules: &'r Ruleset,
    compiled: &FamilyPolicy<A>,
    ports: &[String],
) -> Vec<Candidate<'r>> {
    let space = space(rules.family, ports.len());
    let names = TableNames::well_known();
    let text = |rule: &Rule| rule_text(rule, rules.family, &names);
    let chains: Vec<_> = written(rules).collect();
    let texts: Vec<Vec<String>> =
        chains.iter().map(|(_, chain)| chain.rules.iter().map(text).collect()).collect();
    let (mut atoms, mut ways) = (Atoms::default(), Ways::default());
    let side = Side::read(compiled, rules, &texts, &space, &mut atoms, &|_| None);
    let mut effort = Effort(EFFORT);
    let mut found: Vec<(Decider, Candidate<'r>)> = Vec::new();
    for hook in HOOKS {
        let given = at_table(TableId::Filter, hook, &space);
        let speaker = Speaker { space: &space, ports, given: &given };
        for region in real(&space).iter().filter_map(|it| it.and(&given)) {
            let place = (TableId::Filter, hook);
            let Some(leaves) = ways.follow(&side, place, region, &mut atoms, &mut effort) else {
                continue;
            };
            for leaf in leaves {
                let Some(decider) = leaf.decider else { continue };
                let (_, chain) = &chains[decider.chain.0 as usize];
                let rule = decider.rule.and_then(|at| chain.rules.get(at as usize));
                let at = match found.iter().position(|(known, _)| *known == decider) {
                    Some(at) => at,
                    None => {
                        let number = decider.rule.map_or(0, |at| at + 1);
                        let chain = chain.name.clone();
                        let tries = Vec::new();
                        found.push((decider, Candidate { rules, chain, number, rule, tries }));
                        found.len() - 1
                    }
                };
                let tries = &mut found[at].1.tries;
                for nth in 0..2 {
                    let Some(point) = leaf.region.pick(nth) else { continue };
                    let mut point = liked(&leaf.region, point, rules.family, nth);
                    // What needs nothing brought about comes first.
                    if leaf.region.classes[2] & state_class::NEW != 0 {
                        point.classes[2] = state_class::NEW;
                    }
                    let words = words(&point_words(&speaker, &point), ports);
                    let Some(words) = words.map(|it| with_members(it, rule, policy, rules.family))
                    else {
                        continue;
                    };
                    if tries.len() < TRIES && !tries.contains(&words) {
                        tries.push(words);
                    }
                }
            }
        }
    }
    found.sort_by_key(|(decider, _)| (decider.chain.0, decider.rule.is_none(), decider.rule));
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

/// The words of a packet that a matrix can have: with ports that have names, and `given` where
/// it is not NEW. `None`: it is no such packet.
fn words(said: &[String], ports: &[String]) -> Option<Words> {
    let mut words = Vec::new();
    for word in said {
        let (key, value) = word.split_once('=')?;
        match (key, value) {
            ("in" | "out", "lo") => return None,
            ("in" | "out", name) if name.contains('*') => {
                let plain = if name == "*" { "other0".to_owned() } else { name.replace('*', "0") };
                if ports.contains(&plain) {
                    return None;
                }
                words.push((key.to_owned(), plain));
            }
            ("state", "NEW") => {}
            ("state", "UNTRACKED") => return None,
            ("state", state) => words.push(("given".to_owned(), state.to_owned())),
            _ => words.push((key.to_owned(), value.to_owned())),
        }
    }
    Some(words)
}

/// With members of the sets that a rule asks for.
fn with_members(mut words: Words, rule: Option<&Rule>, policy: &Loaded, family: Family) -> Words {
    let asked = rule.into_iter().flat_map(|rule| &rule.matches).filter_map(|it| match &it.body {
        MatchBody::Set(set) if !set.negated => Some(set),
        _ => None,
    });
    let shown = rule.map(|rule| rule_text(rule, family, &TableNames::well_known()));
    for set in asked {
        let name = set.set.name.as_str();
        let Some(text) = &shown else { continue };
        let after = text.split(&format!("--match-set {name} ")).nth(1);
        let Some(direction) = after.and_then(|it| it.split_whitespace().next()) else { continue };
        let Some(member) = member(policy, name) else { continue };
        let is_port = member.chars().all(|c| c.is_ascii_digit());
        let key = match (direction, is_port) {
            ("src", false) => "src",
            ("dst", false) => "dst",
            ("src", true) => "sport",
            ("dst", true) => "dport",
            _ => continue,
        };
        for (known, value) in &mut words {
            if known == key {
                value.clone_from(&member);
            }
        }
    }
    words
}

/// The lowest member of a set, if it is an address, a network or a port.
fn member(policy: &Loaded, name: &str) -> Option<String> {
    let slot = policy.sets.list().into_iter().find(|slot| slot.name().as_str() == name)?;
    let mut text = String::new();
    let mut write = |piece: &str| {
        text.push_str(piece);
        Ok::<(), std::convert::Infallible>(())
    };
    let names = TableNames::well_known();
    let Ok(()) = crate::ipset::print::save(&slot.name(), &slot.set(), &names, Nanos(0), &mut write);
    let members = text.lines().filter_map(|line| line.strip_prefix("add ")?.split(' ').nth(1));
    let lowest = members.filter(|it| !it.contains([',', '-'])).min()?;
    match lowest.split_once('/') {
        None => Some(lowest.to_owned()),
        Some((address, _)) => Some(match address.parse().ok()? {
            std::net::IpAddr::V4(it) => std::net::Ipv4Addr::from_bits(it.to_bits() | 1).to_string(),
            std::net::IpAddr::V6(it) => std::net::Ipv6Addr::from_bits(it.to_bits() | 1).to_string(),
        }),
    }
}

/// What becomes of packets, one flow each; `None` for those that are none.
pub(super) fn run(
    policy: &Loaded,
    all: &[Words],
    at: Nanos,
) -> Result<Vec<Option<FlowResult>>, RunError> {
    let mut flows = Vec::new();
    let mut places = Vec::new();
    for words in all {
        let said: Vec<String> = words
            .iter()
            .map(|(key, value)| {
                let key = if key == "given" { "state" } else { key };
                format!("{key}={value}")
            })
            .collect();
        let Ok(first) = Description::parse(&said) else {
            places.push(false);
            continue;
        };
        places.push(true);
        let step = Step::first(Expectation::accepted(), 1);
        let name = String::new();
        let (role, owner, purpose) = (None, None, None);
        flows.push(Flow { name, role, owner, purpose, line: 1, first, steps: vec![step] });
    }
    let matrix = Matrix { file: "".into(), topology: None, flows };
    let report = policy.run(&matrix, None, at, &mut |_, _| {})?;
    let mut results = report.flows.into_iter();
    Ok(places.into_iter().map(|is| if is { results.next() } else { None }).collect())
}

fn is_by(candidate: &Candidate<'_>, step: &StepResult) -> bool {
    let place = match candidate.number {
        0 => format!("filter {} policy ", candidate.chain),
        number => format!("filter {} rule {number} ", candidate.chain),
    };
    let brought = step.state.is_some() || step.verdict != "accept";
    brought && step.by.as_ref().is_some_and(|by| by.starts_with(&place))
}

/// The first packet that the rule really decides.
fn decided(policy: &Loaded, it: &Candidate<'_>, at: Nanos) -> Result<Option<Found>, RunError> {
    let results = run(policy, &it.tries, at)?;
    for (words, result) in it.tries.iter().zip(results) {
        let step = result.and_then(|result| result.steps.into_iter().next());
        if let Some(step) = step.filter(|step| is_by(it, step)) {
            return Ok(Some(Found { words: words.clone(), result: step }));
        }
    }
    Ok(None)
}

/// A packet that differs in one thing, and goes another way.
fn near_miss(
    policy: &Loaded,
    candidate: &Candidate<'_>,
    found: &Found,
    at: Nanos,
) -> Result<Option<Found>, RunError> {
    let mut others = Vec::new();
    for key in ["dport", "src", "type", "proto", "dst"] {
        let Some(place) = found.words.iter().position(|(known, _)| known == key) else { continue };
        for other in neighbours(key, &found.words[place].1) {
            let mut words = found.words.clone();
            words[place].1 = other;
            others.push(words);
        }
    }
    let results = run(policy, &others, at)?;
    for (words, result) in others.into_iter().zip(results) {
        let step = result.and_then(|result| result.steps.into_iter().next());
        let other = |step: &StepResult| {
            step.verdict != found.result.verdict && !is_by(candidate, step) && step.by.is_some()
        };
        if let Some(result) = step.filter(other) {
            return Ok(Some(Found { words, result }));
        }
    }
    Ok(None)
}

fn neighbours(key: &str, value: &str) -> Vec<String> {
    match key {
        "dport" | "type" => {
            let number: u16 = value.parse().unwrap_or(0);
            let near = [number.checked_add(1), number.checked_sub(1)];
            near.into_iter().flatten().map(|it| it.to_string()).collect()
        }
        "proto" if value == "tcp" => vec!["udp".to_owned()],
        "proto" if value == "udp" => vec!["tcp".to_owned()],
        "proto" => Vec::new(),
        _ if value.contains(':') => vec!["2001:db8:ffff::77".to_owned()],
        _ => vec!["192.0.2.77".to_owned()],
    }
}

/// Text as TOML has it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// One flow as text.
fn flow(candidate: &Candidate<'_>, found: &Found, near: Option<&Found>) -> String {
    let mut out = String::from("\n[[flow]]\n");
    let place = match candidate.number {
        0 => format!("{} policy", candidate.chain),
        number => format!("{} {number}", candidate.chain),
    };
    let what = if near.is_some() { ", a near miss" } else { "" };
    let name = format!("{} {place}{what}", name_of(candidate.rules.family));
    let about = candidate.rule.map(annotations).unwrap_or_default();
    let mut line = |key: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{key} = {value}");
    };
    line("name", quoted(&name));
    if near.is_none()
        && let Some(owner) = about.get("owner")
    {
        line("owner", quoted(owner));
    }
    let comment = candidate.rule.and_then(|rule| {
        rule.matches.iter().find_map(|it| match &it.body {
            MatchBody::Comment(text) => Some(text.as_str()),
            _ => None,
        })
    });
    let said = comment.map(|comment| {
        let words = comment.split_whitespace().filter(|word| !word.contains('='));
        words.collect::<Vec<_>>().join(" ")
    });
    if let Some(said) = said.filter(|said| !said.is_empty() && near.is_none()) {
        line("purpose", quoted(&said));
    }
    for (key, value) in &found.words {
        let number = value.parse::<u16>().ok().filter(|_| key.ends_with("port"));
        line(key, number.map_or_else(|| quoted(value), |number| number.to_string()));
    }
    line("expect", quoted(&found.result.verdict));
    if near.is_none() {
        line("by", quoted(&format!("filter {}", candidate.chain)));
        line("log", if found.result.log.is_empty() { "false" } else { "true" }.to_owned());
    }
    if let Some(nat) = found.result.nat.as_deref().and_then(nat) {
        line("nat", nat);
    }
    out
}

/// `source 192.0.2.1 port 40000, destination ...` as a matrix has it.
pub(super) fn nat(said: &str) -> Option<String> {
    let mut words = Vec::new();
    for part in said.split(", ") {
        let mut it = part.split(' ');
        let (side, address, port) = (it.next()?, it.next()?, it.nth(1)?);
        match side {
            // The port that translation chooses is as good as another.
            "source" => words.push(format!("src = \"{address}\", sport = \"0-65535\"")),
            _ => words.push(format!("dst = \"{address}\", dport = {port}")),
        }
    }
    Some(format!("{{ {} }}", words.join(", ")))
}

/// The flows that pass: what is proposed is never wrong about the policy that it is for.
pub(super) fn only_passing(policy: &Loaded, text: String, at: Nanos) -> Result<String, RunError> {
    let Ok(matrix) = read(&text, std::path::Path::new("proposed")) else { return Ok(text) };
    let report = policy.run(&matrix, None, at, &mut |_, _| {})?;
    let wrong: BTreeSet<u32> = report.failures().map(|flow| flow.line).collect();
    let mut pieces = text.split("\n[[flow]]\n");
    let mut kept = pieces.next().unwrap_or_default().to_owned();
    for (piece, flow) in pieces.zip(&report.flows) {
        if !wrong.contains(&flow.line) {
            kept.push_str("\n[[flow]]\n");
            kept.push_str(piece);
        }
    }
    Ok(kept)
}
