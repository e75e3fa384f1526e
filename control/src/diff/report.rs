//! What `diff` found, for people and programs.

use std::fmt::Write;

use serde::Serialize;

use crate::region::{Fate, Region};

/// Most regions that are listed of one change.
pub(super) const SHOWN: usize = 8;

/// All that differs in one family.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// Changes of fate.
    pub changes: Vec<Change>,
    /// Whether that is all there is.
    pub complete: bool,
    /// Tables and hooks for which the effort was not enough.
    pub unfinished: Vec<String>,
    /// What could not be followed.
    pub unknown: Vec<String>,
}

/// A fate in a word, and what goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// On to the next table.
    Accept,
    /// Dropped.
    Drop,
    /// Dropped and answered.
    Reject,
    /// Accepted, and the connection is translated.
    Translate,
    /// Not followed.
    Unknown,
}

/// What one policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Said {
    /// The verdict.
    pub verdict: Verdict,
    /// With what it rejects, or to what it translates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The chain that decides; none where there is no such table.
    pub chain: Option<String>,
    /// The number of the deciding rule in it, from 1; none for its policy.
    pub rule: Option<u32>,
    /// Its line.
    pub line: Option<u32>,
    /// The rule as printed.
    pub text: Option<String>,
    /// What rules on the way do to the packet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
}

/// A packet that shows a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Witness {
    /// Words for `explain`.
    pub packet: Vec<String>,
    /// Whether the interpreter walked it to both fates. If not, it depends on the unknowns.
    pub confirmed: bool,
}

/// Packets whose fate changes, with the same deciders.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// Table.
    pub table: &'static str,
    /// Hook.
    pub hook: &'static str,
    /// In the old policy.
    pub before: Said,
    /// In the new one.
    pub after: Said,
    /// Which packets; the first few regions.
    pub regions: Vec<String>,
    /// How many regions there are.
    pub region_count: usize,
    /// Matches without a field that it hangs on.
    pub unknowns: Vec<String>,
    /// A packet that shows it.
    pub witness: Option<Witness>,
    /// The regions themselves.
    #[serde(skip)]
    pub raw: Vec<Region>,
}

/// A file that differs, as text.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// What is compared.
    pub name: String,
    /// The difference in the unified form; empty when there is none.
    pub text: String,
}

impl Said {
    pub(super) fn of(fate: &Fate) -> Self {
        let (verdict, detail) = match fate {
            Fate::Accept => (Verdict::Accept, None),
            Fate::Drop => (Verdict::Drop, None),
            Fate::Reject(with) => (Verdict::Reject, Some(with.clone())),
            Fate::Translate(to) => (Verdict::Translate, Some(to.clone())),
            Fate::Unknown(why) => (Verdict::Unknown, Some((*why).to_owned())),
        };
        let changes = Vec::new();
        Self { verdict, detail, chain: None, rule: None, line: None, text: None, changes }
    }

    fn words(&self) -> String {
        let mut words = match self.verdict {
            Verdict::Accept => "accepted",
            Verdict::Drop => "dropped",
            Verdict::Reject => "rejected",
            Verdict::Translate => "translated",
            Verdict::Unknown => "not followed",
        }
        .to_owned();
        let by = match (&self.chain, self.line, &self.text) {
            (Some(_), Some(line), Some(text)) => format!(" by line {line}: {text}"),
            (Some(chain), ..) => format!(" by the policy of {chain}"),
            (None, ..) => " as no chain is there".to_owned(),
        };
        words.push_str(&by);
        for change in &self.changes {
            let _ = write!(words, " (after {change})");
        }
        words
    }
}

/// For people.
pub fn render(report: &Report) -> String {
    let mut out = String::new();
    let family = report.family;
    for change in &report.changes {
        let _ = writeln!(out, "{family} {} {}:", change.table, change.hook);
        for region in &change.regions {
            let _ = writeln!(out, "    {region}");
        }
        if change.region_count > change.regions.len() {
            let more = change.region_count - change.regions.len();
            let _ = writeln!(out, "    ... and {more} more regions");
        }
        let _ = writeln!(out, "  - {}", change.before.words());
        let _ = writeln!(out, "  + {}", change.after.words());
        if let Some(witness) = &change.witness {
            let tried = match witness.confirmed {
                true => "walked through both policies",
                false => "not confirmed: it depends on what is not in a header",
            };
            let _ = writeln!(out, "  witness ({tried}): {}", witness.packet.join(" "));
        }
        for unknown in &change.unknowns {
            let _ = writeln!(out, "  depends on: {unknown}");
        }
        out.push('\n');
    }
    for unknown in &report.unknown {
        let _ = writeln!(out, "{family} not followed: {unknown}");
    }
    for place in &report.unfinished {
        let _ = writeln!(out, "{family} not finished, the effort was not enough: {place}");
    }
    let count = report.changes.len();
    let what = match (count, report.complete) {
        (0, true) => "every packet has the same fate (exact)".to_owned(),
        (_, true) => format!("{count} changes of fate; that is all (exact)"),
        (_, false) => format!("{count} changes of fate were found; there may be more"),
    };
    let _ = writeln!(out, "{family}: {what}");
    out
}
