//! Evidence for auditors: what was changed, by whom and why, what is reachable, what is denied, what
//! is overdue, and whether the history is as it was written.
//!
//! [`examine`] judges what was gathered ([`Gathered`]: from a daemon, or from a history's directory) and reads
//! no clock and no file; `text` and `html` show it. `trend` is how denials are counted over time. What
//! other commands know goes into [`Checks`]. What cannot be known says so.

mod html;
mod policy;
mod svg;
#[cfg(test)]
mod tests;
mod text;
pub mod trend;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::api::protocol::{PendingInfo, Rules};
use crate::diff::PolicyFiles;
use crate::exposure::{Changes, Exposure};
use crate::history::{Record, stamp};
use crate::lint::Date;

pub use html::{page, page_with};
pub use policy::{Denied, Exception, Overdue, RuleRow, Stages, Stale};
pub use text::text;

use trend::Trend;

/// Exceptions that expire within so many days are told.
pub const SOON_DAYS: u64 = 30;
/// Changes that are listed at most; the newest.
const CHANGES: usize = 500;
const DAY_US: u64 = 86_400_000_000;

/// All that is judged.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Where from, in words.
    pub source: String,
    /// Records, the newest first.
    pub records: Vec<Record>,
    /// What is not as it was written.
    pub damage: Vec<String>,
    /// Numbers of open emergencies.
    pub open: Vec<u64>,
    /// What waits for its confirmation.
    pub pending: Option<PendingInfo>,
    /// The policy in force.
    pub policy: Option<PolicyFiles>,
    /// What was in force when the span began.
    pub before: Option<PolicyFiles>,
    /// Rules with their hits, of a running daemon.
    pub rules: Option<Rules>,
    /// Denials over time, of a running daemon.
    pub trend: Option<Trend>,
    /// What others checked.
    pub checks: Vec<Checks>,
    /// What could not be gathered.
    pub missing: Vec<String>,
}

/// What another command has checked: a matrix of flows, say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Checks {
    /// What.
    pub title: String,
    /// When, UTC.
    pub time: String,
    /// How many are as they should be.
    pub passed: u64,
    /// What is not.
    pub failed: Vec<String>,
}

/// When, and how far back.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Microseconds since 1970.
    pub now_us: u64,
    /// How far back.
    pub days: u64,
    /// A rule that was not hit for so many days is stale.
    pub stale_days: u64,
}

/// Something that somebody has to do something about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attention {
    /// `bad` or `warn`.
    pub level: &'static str,
    /// What.
    pub text: String,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its record.
    pub number: u64,
    /// When, UTC.
    pub time: String,
    /// What was done.
    pub action: &'static str,
    /// By whom.
    pub who: String,
    /// Why.
    pub reason: Option<String>,
    /// Who agreed.
    pub approver: Option<String>,
    /// Where that is written.
    pub ticket: Option<String>,
    /// Without the usual ceremony.
    pub emergency: bool,
    /// Whether it is one that nobody has reconciled.
    pub open: bool,
    /// The record that it is about.
    pub about: Option<u64>,
    /// What came of it.
    pub result: String,
    /// The policy from then on.
    pub policy: String,
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct InForce {
    /// Its id.
    pub id: String,
    /// The record that put it in force.
    pub record: u64,
    /// Since when, UTC.
    pub since: String,
    /// Texts, with their sums.
    pub texts: Vec<(String, String)>,
    /// IPv4 rules.
    pub rules_v4: usize,
    /// IPv6 rules.
    pub rules_v6: usize,
}

/// The whole of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Audit {
    /// When it was made, UTC.
    pub made: String,
    /// How far it looks back, UTC.
    pub since: String,
    /// How many days that is.
    pub days: u64,
    /// The version that made it.
    pub version: &'static str,
    /// What it was made from.
    pub source: String,
    /// What is in force.
    pub in_force: Option<InForce>,
    /// What somebody has to do something about.
    pub attention: Vec<Attention>,
    /// Records that were read.
    pub records: usize,
    /// What of the history is not as it was written.
    pub damage: Vec<String>,
    /// What waits for its confirmation.
    pub pending: Option<PendingInfo>,
    /// Changes within the span, and open emergencies of any time; the newest first.
    pub changes: Vec<Change>,
    /// Policies put in force by week: its Monday, and how many.
    pub weeks: Vec<(String, u64)>,
    /// Exceptions that are overdue, expired, about to expire, or have a bad date.
    pub exceptions: Vec<Exception>,
    /// Rules that nothing hit.
    pub stale: Vec<Stale>,
    /// Whether that is known.
    pub hits_known: bool,
    /// Rules that let something in and are nobody's.
    pub unowned: Vec<RuleRow>,
    /// Rules of filter with an owner, and all of them.
    pub owned: (usize, usize),
    /// Evidence that what is denied is denied.
    pub denied: Vec<Denied>,
    /// Denials over time.
    pub trend: Option<Trend>,
    /// What is reachable.
    pub exposure: Vec<Exposure>,
    /// How open that is.
    pub stages: Stages,
    /// What of that is different since the span began, by family.
    pub exposure_changes: BTreeMap<&'static str, Changes>,
    /// What others checked.
    pub checks: Vec<Checks>,
    /// What is not known, and why.
    pub missing: Vec<String>,
}

impl Audit {
    /// Whether the history was tampered with, or the engine contradicts the analysis.
    pub fn is_bad(&self) -> bool {
        self.attention.iter().any(|it| it.level == "bad")
    }
}

/// Judges what was gathered. `told` hears of slow work.
pub fn examine(gathered: Gathered, span: Span, told: &mut dyn FnMut(&str, u64)) -> Audit {
    let since_us = span.now_us.saturating_sub(span.days.saturating_mul(DAY_US));
    let mut audit = Audit {
        made: stamp(span.now_us),
        since: stamp(since_us),
        days: span.days,
        version: env!("CARGO_PKG_VERSION"),
        source: gathered.source,
        records: gathered.records.len(),
        damage: gathered.damage,
        pending: gathered.pending,
        hits_known: gathered.rules.is_some(),
        trend: gathered.trend,
        checks: gathered.checks,
        missing: gathered.missing,
        ..Audit::default()
    };
    history(&mut audit, &gathered.records, &gathered.open, since_us);
    if let Some(policy) = &gathered.policy {
        let before = gathered.before.as_ref();
        policy::policy(&mut audit, policy, before, gathered.rules.as_ref(), span, told);
    } else {
        audit.missing.push("the policy in force: nothing of it was looked at".to_owned());
    }
    audit.attention = attention(&audit);
    audit
}

/// What the records say.
fn history(audit: &mut Audit, records: &[Record], open: &[u64], since_us: u64) {
    let kept = records.iter().filter(|it| it.at_us >= since_us || open.contains(&it.number));
    audit.changes = kept.take(CHANGES).map(|it| change(it, open)).collect();
    let installs = records.iter().filter(|it| it.action.installs());
    if let Some(newest) = installs.clone().next() {
        let texts = newest.policy.texts().map(|it| (it.name.clone(), it.sha256.clone()));
        audit.in_force = Some(InForce {
            id: newest.policy.id.clone(),
            record: newest.number,
            since: newest.time.clone(),
            texts: texts.collect(),
            ..InForce::default()
        });
    }
    let mut weeks: BTreeMap<u64, u64> = BTreeMap::new();
    // 1970 began on a Thursday.
    let monday = |at_us: u64| {
        let day = at_us / DAY_US;
        day - (day + 3) % 7
    };
    let newest = audit_week(records, monday);
    if let Some((first, last)) = newest.map(|last| (monday(since_us), last)) {
        weeks.extend((first..=last).step_by(7).map(|week| (week, 0)));
    }
    for record in installs.filter(|it| it.at_us >= since_us) {
        *weeks.entry(monday(record.at_us)).or_default() += 1;
    }
    let date = |day: u64| Date::of_unix(day * 86_400).to_string();
    audit.weeks = weeks.into_iter().map(|(day, count)| (date(day), count)).collect();
}

fn audit_week(records: &[Record], monday: impl Fn(u64) -> u64) -> Option<u64> {
    records.iter().map(|it| monday(it.at_us)).max()
}

fn change(record: &Record, open: &[u64]) -> Change {
    Change {
        number: record.number,
        time: record.time.clone(),
        action: record.action.name(),
        who: record.who.to_string(),
        reason: record.reason.clone(),
        approver: record.approver.clone(),
        ticket: record.ticket.clone(),
        emergency: record.emergency,
        open: open.contains(&record.number),
        about: record.about,
        result: record.result.clone(),
        policy: record.policy.short().to_owned(),
    }
}

/// What somebody has to do something about.
fn attention(audit: &Audit) -> Vec<Attention> {
    let mut all = Vec::new();
    let mut tell = |level, text: String| all.push(Attention { level, text });
    for damage in &audit.damage {
        tell("bad", format!("the history is not as it was written: {damage}"));
    }
    for family in &audit.exposure {
        let counts = family.summary();
        if counts.refuted > 0 {
            let text = format!(
                "{} of the packets that should arrive by {} did not: please report that",
                counts.refuted, family.family
            );
            tell("bad", text);
        }
        if !family.complete {
            let text = format!("what {} exposes was not followed to its end", family.family);
            tell("warn", text);
        }
    }
    for denied in audit.denied.iter().filter(|it| it.confirmed == Some(false)) {
        tell("bad", format!("a packet that {} should deny was not denied", denied.rule.place));
    }
    for change in audit.changes.iter().filter(|it| it.open) {
        let Change { number, who, time, .. } = change;
        let text = format!(
            "emergency change {number} by {who} at {time} is not reconciled: `portcullis reconcile {number} \
             --reason TEXT`"
        );
        tell("warn", text);
    }
    for exception in &audit.exceptions {
        let (what, place) = (exception.what.words(), &exception.rule.place);
        let owner = exception.rule.owner.as_ref();
        let owner = owner.map_or("nobody's".to_owned(), |owner| format!("owner {owner}"));
        tell("warn", format!("{place}: {what} {} ({owner})", exception.date));
    }
    for checks in audit.checks.iter().filter(|it| !it.failed.is_empty()) {
        tell("warn", format!("{}: {} checks failed", checks.title, checks.failed.len()));
    }
    if let Some(pending) = &audit.pending {
        let PendingInfo { who, until, .. } = pending;
        tell("warn", format!("the change by {who} is undone at {until} unless it is confirmed"));
    }
    all
}
