//! The audit as one page that needs nothing else: no script, no font, no picture from anywhere.
//!
//! Everything in it that people wrote (comments, reasons, names, file names) is escaped by the template
//! engine; only plots of ours ([`super::svg`]) are not.

use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, Value, context};
use serde::Serialize;

use super::{Audit, svg};
use crate::exposure::{Difference, RuleRef, Service};

const PAGE: &str = include_str!("page.html");

/// A service on a row.
#[derive(Debug, Serialize)]
struct Row {
    family: &'static str,
    service: String,
    from: String,
    to: String,
    via: Option<String>,
    conditions: Vec<String>,
    untracked: bool,
    rules: Vec<Said>,
    owner: Option<String>,
    about: String,
    proof: &'static str,
    mark: &'static str,
}

/// A rule and where it stands.
#[derive(Debug, Serialize)]
struct Said {
    place: String,
    text: String,
    about: String,
}

fn said<'r>(rules: impl IntoIterator<Item = &'r RuleRef>) -> Vec<Said> {
    let one = |it: &RuleRef| Said { place: it.place(), text: it.text.clone(), about: it.about() };
    rules.into_iter().map(one).collect()
}

fn row(family: &'static str, service: &Service, road: crate::exposure::Road) -> Row {
    let proof = match service.witness.as_ref().map(|it| it.confirmed) {
        Some(Some(true)) => "arrived",
        Some(Some(false)) => "DID NOT ARRIVE",
        _ => "not tried",
    };
    Row {
        family,
        service: service.service_words(),
        from: service.from_words(),
        to: service.to_words(road),
        via: service.via_words(),
        conditions: service.conditions.clone(),
        untracked: service.untracked,
        rules: Vec::new(),
        owner: None,
        about: String::new(),
        proof,
        mark: "",
    }
}

fn reachable(audit: &Audit) -> Vec<Row> {
    let mut rows = Vec::new();
    for exposure in &audit.exposure {
        for one in &exposure.reachable {
            let about = one.rule.iter().chain(&one.nat).find(|it| it.owner.is_some());
            for service in &one.services {
                rows.push(Row {
                    rules: said(one.rule.iter().chain(&one.nat)),
                    owner: one.owner().map(str::to_owned),
                    about: about.map(RuleRef::about).unwrap_or_default(),
                    ..row(exposure.family, service, one.road)
                });
            }
        }
    }
    rows
}

fn differences(audit: &Audit) -> Vec<Row> {
    let mut rows = Vec::new();
    for (family, changes) in &audit.exposure_changes {
        let kinds: [(&'static str, &[Difference]); 3] = [
            ("newly exposed", &changes.newly_exposed),
            ("no longer exposed", &changes.no_longer_exposed),
            ("other rule or owner", &changes.changed),
        ];
        for (mark, all) in kinds {
            for one in all {
                for service in &one.services {
                    let rules = said(one.before.iter().chain(&one.after));
                    rows.push(Row { mark, rules, ..row(family, service, one.road) });
                }
            }
        }
    }
    rows
}

/// The page.
///
/// # Errors
/// The template is wrong.
pub fn page(audit: &Audit) -> Result<String, Error> {
    page_with(audit, PAGE)
}

/// The same with another template.
///
/// # Errors
/// It is wrong.
pub fn page_with(audit: &Audit, template: &str) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_template("page", template)?;
    let plot = Value::from_safe_string;
    let (hours, days) = match &audit.trend {
        Some(trend) => (
            plot(svg::denials("Denied packets by hour, two weeks at most", &trend.hours, true)),
            plot(svg::denials("Denied packets by day", &trend.days, false)),
        ),
        None => (Value::from(()), Value::from(())),
    };
    let denied = audit.trend.as_ref().map(|trend| {
        let of = |it: &super::trend::Bucket| it.denied.by_policy();
        trend.days.iter().map(of).sum::<u64>()
    });
    let rows = reachable(audit);
    let open = audit.changes.iter().filter(|it| it.open).count();
    environment.get_template("page")?.render(context! {
        audit => Value::from(Serde(audit)),
        reachable => Value::from(Serde(&rows)),
        unowned_services => rows.iter().filter(|it| it.owner.is_none()).count(),
        differences => Value::from(Serde(differences(audit))),
        open => open,
        denied => denied,
        weeks => plot(svg::weeks(&audit.weeks)),
        stages => plot(svg::stages(audit.stages)),
        hours => hours,
        days => days,
        exact => audit.exposure.iter().all(|it| it.complete),
        exceptions => audit.exceptions.iter().map(|it| context! {
            rule => Value::from(Serde(&it.rule)), words => it.what.words(), date => it.date.clone(),
        }).collect::<Vec<_>>(),
    })
}
