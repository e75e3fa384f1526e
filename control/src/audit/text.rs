//! The audit for a terminal.

use std::fmt::Write;

use super::trend::Bucket;
use super::{Audit, Change};
use crate::exposure;

/// Lines of a list that are shown.
const SHOWN: usize = 40;

fn title(out: &mut String, text: &str) {
    let _ = writeln!(out, "\n{text}\n{}", "-".repeat(text.len()));
}

fn list<T>(out: &mut String, all: &[T], none: &str, line: impl Fn(&T) -> String) {
    for one in all.iter().take(SHOWN) {
        let _ = writeln!(out, "  {}", line(one));
    }
    if all.is_empty() {
        let _ = writeln!(out, "  {none}");
    }
    if all.len() > SHOWN {
        let _ = writeln!(out, "  ... and {} more (--json has all)", all.len() - SHOWN);
    }
}

fn change(it: &Change) -> String {
    let Change { number, time, action, who, policy, .. } = it;
    let mut line = format!("{number:>4}  {time}  {action:<9} {policy}  {who}");
    let said = [("", &it.reason), ("approved by ", &it.approver), ("", &it.ticket)];
    for (before, said) in said {
        line.extend(said.as_ref().map(|said| format!(", {before}{said}")));
    }
    match (it.emergency, it.open) {
        (_, true) => line += ", EMERGENCY, NOT RECONCILED",
        (true, _) => line += ", EMERGENCY",
        _ => {}
    }
    if it.result != "in force" {
        let _ = write!(line, " ({})", it.result);
    }
    line
}

fn owner(owner: &Option<String>) -> &str {
    owner.as_deref().unwrap_or("no owner")
}

/// Days, as bars of characters.
fn days(out: &mut String, rows: &[Bucket]) {
    let newest = &rows[rows.len().saturating_sub(14)..];
    let top = newest.iter().map(|it| it.denied.by_policy()).max().unwrap_or(0).max(1);
    for Bucket { from_s, denied } in newest {
        let date = crate::lint::Date::of_unix(*from_s);
        let count = denied.by_policy();
        let bar = "#".repeat((u128::from(count) * 40 / u128::from(top)) as usize);
        let _ =
            writeln!(out, "  {date}  {count:>12} by the policy, {:>10} other  {bar}", denied.other);
    }
}

/// What is denied, and how often.
fn denials(out: &mut String, audit: &Audit) {
    title(out, "Evidence of denials");
    list(out, &audit.denied, "no rule and no policy denies", |it| {
        let said = match it.confirmed {
            Some(true) => "denied",
            Some(false) => "NOT DENIED",
            None => "not tried",
        };
        let log = if it.log.is_empty() { "not logged".to_owned() } else { it.log.join(" | ") };
        format!(
            "{said} by {} {}: {}\n      {}: {log}",
            it.rule.family, it.rule.place, it.packet, it.result
        )
    });
    if let Some(trend) = &audit.trend {
        title(out, "Denials by day");
        days(out, &trend.days);
    }
}

/// Whose rules there are, until when, and whether anybody needs them.
fn ownership(out: &mut String, audit: &Audit) {
    title(out, "Exceptions");
    list(out, &audit.exceptions, "none overdue, none expiring", |it| {
        let (rule, what) = (&it.rule, it.what.words());
        format!(
            "{} {}: {what} {} ({}): {}",
            rule.family,
            rule.place,
            it.date,
            owner(&rule.owner),
            rule.text
        )
    });
    title(out, "Rules that let something in and are nobody's");
    list(out, &audit.unowned, "none", |it| format!("{} {}: {}", it.family, it.place, it.text));
    title(out, "Stale rules");
    let none = if audit.hits_known { "none" } else { "not known without a running daemon" };
    list(out, &audit.stale, none, |it| {
        let last = it.last_hit.as_deref().unwrap_or("never");
        let why =
            it.unhittable.as_ref().map_or_else(String::new, |why| format!(", cannot be: {why}"));
        format!(
            "{} {}: last hit {last}{why} ({}): {}",
            it.rule.family,
            it.rule.place,
            owner(&it.rule.owner),
            it.rule.text
        )
    });
}

/// All of it.
pub fn text(audit: &Audit) -> String {
    let mut out = String::new();
    let Audit { made, version, source, since, days: span, .. } = audit;
    let _ = writeln!(out, "portcullis {version}: audit of {made}, from {source}");
    let _ = writeln!(out, "looking back {span} days, to {since}");
    if let Some(it) = &audit.in_force {
        let (id, record, since) = (&it.id, it.record, &it.since);
        let _ = writeln!(out, "policy {id} (record {record}) since {since}");
        let _ = writeln!(out, "{} IPv4 rules, {} IPv6 rules", it.rules_v4, it.rules_v6);
    }
    title(&mut out, "Needs attention");
    list(&mut out, &audit.attention, "nothing", |it| match it.level {
        "bad" => format!("BAD  {}", it.text),
        _ => format!("     {}", it.text),
    });
    title(&mut out, "Changes");
    list(&mut out, &audit.changes, "none in that time", change);
    title(&mut out, "Integrity of the history");
    let records = audit.records;
    list(
        &mut out,
        &audit.damage,
        &format!("{records} records, as they were written"),
        Clone::clone,
    );
    title(&mut out, "What is reachable");
    for one in &audit.exposure {
        out.push_str(&exposure::text(one));
    }
    for (family, changes) in &audit.exposure_changes {
        title(&mut out, &format!("What is reachable ({family}): changes since {since}"));
        out.push_str(&exposure::changes_text(family, changes));
    }
    denials(&mut out, audit);
    ownership(&mut out, audit);
    for checks in &audit.checks {
        title(&mut out, &checks.title);
        let none = format!("{} passed, none failed ({})", checks.passed, checks.time);
        list(&mut out, &checks.failed, &none, Clone::clone);
    }
    if !audit.missing.is_empty() {
        title(&mut out, "Not known");
        list(&mut out, &audit.missing, "", Clone::clone);
    }
    out
}
