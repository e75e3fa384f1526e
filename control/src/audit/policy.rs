//! What an audit says of the policy in force: exposure, exceptions, owners, use, denials.

use std::collections::BTreeSet;

use dataplane::packet::Family;
use dataplane::policy::TableId;
use serde::Serialize;

use super::{Audit, SOON_DAYS, Span};
use crate::api::protocol::{FamilyName, RuleInfo, Rules};
use crate::diff::{Policy, PolicyFiles, changed_sets};
use crate::exposure::{self, Exposure, Given, RuleRef};
use crate::history::stamp;
use crate::iptables::{TableNames, rule_text};
use crate::lint::Date;
use crate::model::annotations::annotations;
use crate::model::{Rule, Ruleset, TargetSpec, expiry};
use crate::region::written;

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleRow {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// Table, chain and number.
    pub place: String,
    /// As printed.
    pub text: String,
    /// `owner=`.
    pub owner: Option<String>,
    /// `ticket=`.
    pub ticket: Option<String>,
}

/// What is the matter with an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overdue {
    /// Its date is none.
    BadDate,
    /// Its time is over.
    Expired,
    /// Its review is overdue.
    Review,
    /// It expires soon.
    Expiring,
}

impl Overdue {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::BadDate => "cannot be read as a date:",
            Self::Expired => "expired on",
            Self::Review => "was to be reviewed by",
            Self::Expiring => "expires on",
        }
    }
}

/// A rule with a date that calls for somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Exception {
    /// Which.
    pub rule: RuleRow,
    /// What.
    pub what: Overdue,
    /// The date, as written.
    pub date: String,
}

/// A rule that nothing hit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stale {
    /// Which.
    pub rule: RuleRow,
    /// Its last hit, UTC.
    pub last_hit: Option<String>,
    /// Since when it is in force, UTC.
    pub since: Option<String>,
    /// Why nothing can hit it, where that is known.
    pub unhittable: Option<String>,
}

/// Evidence of a denial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Denied {
    /// Who denies.
    pub rule: RuleRow,
    /// `drop` or `reject`.
    pub verdict: &'static str,
    /// The packet, in words.
    pub packet: String,
    /// Whether the engine denied it by that rule; none: it was not walked.
    pub confirmed: Option<bool>,
    /// What came of it.
    pub result: String,
    /// The lines that were logged.
    pub log: Vec<String>,
}

/// How open the reachable services are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stages {
    /// From any address.
    pub anyone: usize,
    /// From named networks.
    pub networks: usize,
    /// Under a condition: a set, a limit, a mark.
    pub conditional: usize,
}

const SIDES: [(Family, &str); 2] = [(Family::V4, "ipv4"), (Family::V6, "ipv6")];

fn side(files: &PolicyFiles, family: Family) -> Policy<'_> {
    match family {
        Family::V4 => Policy { rules: &files.v4, sets: &files.sets },
        Family::V6 => Policy { rules: &files.v6, sets: &files.sets },
    }
}

/// Everything about the policy.
pub(super) fn policy(
    audit: &mut Audit,
    files: &PolicyFiles,
    before: Option<&PolicyFiles>,
    rules: Option<&Rules>,
    span: Span,
    told: &mut dyn FnMut(&str, u64),
) {
    let now_s = span.now_us / 1_000_000;
    if let Some(in_force) = &mut audit.in_force {
        (in_force.rules_v4, in_force.rules_v6) = (files.v4.rule_count(), files.v6.rule_count());
    }
    for (family, name) in SIDES {
        let ruleset = side(files, family).rules;
        comments(audit, ruleset, name, now_s);
        exposed(audit, files, before, family, now_s, told);
    }
    if let Some(rules) = rules {
        audit.stale = stale(rules, now_s.saturating_sub(span.stale_days * 86_400));
    }
    audit.exceptions.sort_by(|one, two| (one.what, &one.date).cmp(&(two.what, &two.date)));
}

fn row(family: &'static str, rule: &RuleRef) -> RuleRow {
    RuleRow {
        family,
        place: rule.place(),
        text: rule.text.clone(),
        owner: rule.owner.clone(),
        ticket: rule.ticket.clone(),
    }
}

/// Dates and owners in comments.
fn comments(audit: &mut Audit, ruleset: &Ruleset, family: &'static str, now_s: u64) {
    let names = TableNames::well_known();
    for (table, chain) in written(ruleset) {
        for (at, rule) in chain.rules.iter().enumerate() {
            let about = annotations(rule);
            let lets = matches!(rule.target, TargetSpec::Accept | TargetSpec::Nat(_));
            if table == TableId::Filter || matches!(rule.target, TargetSpec::Nat(_)) {
                audit.owned.1 += usize::from(lets);
                audit.owned.0 += usize::from(lets && about.contains_key("owner"));
            }
            let dated = ["review", "expires"].map(|key| Some((key, about.get(key)?.clone())));
            for (key, date) in dated.into_iter().flatten() {
                if let Some(what) = overdue(rule, key, &date, now_s) {
                    let text = rule_text(rule, ruleset.family, &names);
                    let rule = RuleRow {
                        family,
                        place: format!(
                            "{} {} rule {}, line {}",
                            table.name(),
                            chain.name,
                            at + 1,
                            rule.span.line
                        ),
                        text: format!("-A {}{text}", chain.name),
                        owner: about.get("owner").cloned(),
                        ticket: about.get("ticket").cloned(),
                    };
                    audit.exceptions.push(Exception { rule, what, date });
                }
            }
        }
    }
}

fn overdue(rule: &Rule, key: &str, date: &str, now_s: u64) -> Option<Overdue> {
    if key == "review" {
        let Some(day) = Date::parse(date) else { return Some(Overdue::BadDate) };
        return (day < Date::of_unix(now_s)).then_some(Overdue::Review);
    }
    match expiry::expires(rule)? {
        Err(_) => Some(Overdue::BadDate),
        Ok(at_s) if at_s <= now_s => Some(Overdue::Expired),
        Ok(at_s) => (at_s <= now_s + SOON_DAYS * 86_400).then_some(Overdue::Expiring),
    }
}

/// What is reachable, what is different, who denies.
fn exposed(
    audit: &mut Audit,
    files: &PolicyFiles,
    before: Option<&PolicyFiles>,
    family: Family,
    now_s: u64,
    told: &mut dyn FnMut(&str, u64),
) {
    let name = SIDES.into_iter().find(|it| it.0 == family).map_or("", |it| it.1);
    let in_force = |files: &PolicyFiles| {
        let rules = side(files, family).rules;
        expiry::in_force(rules, now_s).unwrap_or_else(|| rules.clone())
    };
    let new_rules = in_force(files);
    let new = Policy { rules: &new_rules, sets: &files.sets };
    if new_rules.tables.is_empty() {
        audit.missing.push(format!("{name}: there is no policy, so that nothing is denied"));
        return;
    }
    let mut told = |percent: u64| told(name, percent);
    let found = match before {
        None => exposure::expose(new, Given::default(), &mut told).map(|it| (it, None)),
        Some(old) => {
            let old_rules = in_force(old);
            let sets = changed_sets(&old.sets, &files.sets, &TableNames::well_known());
            let old = Policy { rules: &old_rules, sets: &old.sets };
            exposure::compare([old, new], &sets, Given::default(), &mut told)
                .map(|it| (it.new, Some(it.changes)))
        }
    };
    match found {
        Ok((exposure, changes)) => {
            judged(audit, &exposure, name);
            if let Some(changes) = changes {
                audit.exposure_changes.insert(name, changes);
            }
            audit.exposure.push(exposure);
        }
        Err(error) => audit.missing.push(format!("{name}: what is reachable: {error}")),
    }
}

fn judged(audit: &mut Audit, exposure: &Exposure, family: &'static str) {
    let mut seen = BTreeSet::new();
    for reachable in &exposure.reachable {
        for service in &reachable.services {
            let stages = &mut audit.stages;
            match (service.conditions.is_empty(), service.sources.is_empty()) {
                (false, _) => stages.conditional += 1,
                (true, true) => stages.anyone += 1,
                (true, false) => stages.networks += 1,
            }
        }
        let Some(rule) = reachable.rule.as_ref().filter(|_| reachable.owner().is_none()) else {
            continue;
        };
        let row = row(family, rule);
        if seen.insert(row.place.clone()) {
            audit.unowned.push(row);
        }
    }
    for denial in &exposure.denials {
        let Some(service) = denial.services.first() else { continue };
        let Some(witness) = &service.witness else { continue };
        audit.denied.push(Denied {
            rule: row(family, &denial.rule),
            verdict: denial.verdict,
            packet: witness.packet.join(" "),
            confirmed: witness.confirmed,
            result: witness.result.clone(),
            log: witness.log.clone(),
        });
    }
}

/// Rules that were there before `before_s` and not hit since.
fn stale(rules: &Rules, before_s: u64) -> Vec<Stale> {
    let unused = |rule: &RuleInfo| rule.last_hit.or(rule.since).is_some_and(|it| it <= before_s);
    let mut found = Vec::new();
    for chain in rules.chains.iter().filter(|chain| chain.enforced) {
        let family = match chain.family {
            FamilyName::V4 => "ipv4",
            FamilyName::V6 => "ipv6",
        };
        for rule in chain.rules.iter().filter(|rule| unused(rule)) {
            let time = |it: Option<u64>| it.map(|it| stamp(it * 1_000_000));
            found.push(Stale {
                rule: RuleRow {
                    family,
                    place: format!("{} {} rule {}", chain.table, chain.chain, rule.number),
                    text: rule.text.clone(),
                    owner: rule.about.get("owner").cloned(),
                    ticket: rule.about.get("ticket").cloned(),
                },
                last_hit: time(rule.last_hit),
                since: time(rule.since),
                unhittable: rule.unhittable.clone(),
            });
        }
    }
    found
}
