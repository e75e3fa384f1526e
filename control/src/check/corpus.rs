//! Checks a directory of rulesets against what the kernel's tools said of them.
//!
//! The directory holds `MANIFEST.tsv` (a header line, then one line for each
//! file: name, family and the verdicts of both kernel tools among its columns)
//! and for files that the tools load a `.saved` twin with what they print back.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use dataplane::packet::Family;
use thiserror::Error;

use super::live::{self, Live};
use super::{Checked, Sets, rules_bytes, rules_file};
use crate::diagnostics::{Code, Finding, Severity};
use crate::iptables::{Names, print};

/// Why a corpus cannot be checked.
#[derive(Debug, Error)]
pub enum CorpusError {
    /// No readable manifest.
    #[error("MANIFEST.tsv cannot be read: {0}")]
    Manifest(#[from] std::io::Error),
    /// The manifest lacks a column.
    #[error("MANIFEST.tsv has no column `{0}'")]
    Column(&'static str),
}

/// What the printed form was compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoundTrip {
    /// It did not load, or has no twin.
    None,
    /// The same as the twin.
    Same,
    /// First line that differs: ours, then the twin's.
    Differs(String, String),
}

/// One file's outcome.
#[derive(Clone, Debug)]
pub struct Row {
    /// Path in the corpus.
    pub file: String,
    /// Rules, as the manifest counts them.
    pub rules: u64,
    /// First error, if refused.
    pub refused: Option<Finding>,
    /// If refused for matches and targets by name, and all the other rules load: how many
    /// rules are refused.
    pub struck: Option<u64>,
    /// Parsing or printing panicked.
    pub panicked: bool,
    /// What iptables-nft-restore said: `ok` or its error.
    pub kernel_nft: String,
    /// What iptables-legacy-restore said: `ok` or its error.
    pub kernel_legacy: String,
    /// Printed form against the twin.
    pub round_trip: RoundTrip,
    /// What the running kernel did with it, if it was asked.
    pub live: Option<Live>,
    /// Printed form against what the running kernel's tools print.
    pub live_round_trip: RoundTrip,
}

impl Row {
    /// Whether either of the kernel's tools loads it.
    pub fn kernel_loads(&self) -> bool {
        self.kernel_nft == "ok" || self.kernel_legacy == "ok"
    }

    /// What is wrong with us, if anything is.
    pub fn failure(&self) -> Option<&'static str> {
        if self.panicked {
            Some("panic")
        } else if self.refused.is_none() && !self.kernel_loads() {
            Some("loads, but both kernel tools refuse it")
        } else if matches!(self.round_trip, RoundTrip::Differs(..)) {
            Some("prints differently from the kernel")
        } else if self.refused.is_none() && self.live.as_ref().is_some_and(|live| !live.loads()) {
            Some("loads, but this kernel refuses it")
        } else if matches!(self.live_round_trip, RoundTrip::Differs(..)) {
            Some("prints differently from this kernel")
        } else {
            None
        }
    }

    /// The row for programs.
    pub fn summary(&self) -> serde_json::Value {
        serde_json::json!({
            "file": self.file,
            "rules": self.rules,
            "loads": self.refused.is_none() && !self.panicked,
            "refused": self.refused,
            "rules_refused": self.struck,
            "kernel_nft": self.kernel_nft,
            "kernel_legacy": self.kernel_legacy,
            "round_trip": match self.round_trip {
                RoundTrip::None => None,
                RoundTrip::Same => Some(true),
                RoundTrip::Differs(..) => Some(false),
            },
            "live": self.live.as_ref().map(Live::word),
            "failure": self.failure(),
        })
    }

    /// Refused for another reason than a feature that is still to come.
    pub fn refused_for_good(&self) -> bool {
        self.refused.as_ref().is_some_and(|finding| {
            !matches!(finding.code, Code::UnsupportedMatch | Code::UnsupportedTarget)
        })
    }
}

/// Checks every `.rules` file that the manifest names; `results`: what the running kernel
/// did with them.
///
/// # Errors
/// If there is no manifest to go by.
pub fn check(
    directory: &Path,
    results: Option<&Path>,
    names: &dyn Names,
) -> Result<Vec<Row>, CorpusError> {
    let manifest = std::fs::read_to_string(directory.join("MANIFEST.tsv"))?;
    let mut lines = manifest.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let header = lines.next().unwrap_or_default();
    let column = |name: &'static str| {
        header.iter().position(|title| *title == name).ok_or(CorpusError::Column(name))
    };
    let (file, family) = (column("file")?, column("family")?);
    let (nft, legacy) = (column("kernel_nft_test")?, column("kernel_legacy_test")?);
    let rules = column("rules")?;
    let mut rows = Vec::new();
    for line in lines {
        let cell = |index: usize| line.get(index).copied().unwrap_or_default();
        if !cell(file).ends_with(".rules") {
            continue;
        }
        let family = if cell(family) == "v6" { Family::V6 } else { Family::V4 };
        let mut row = Row {
            file: cell(file).to_string(),
            rules: cell(rules).parse().unwrap_or(0),
            refused: None,
            struck: None,
            panicked: false,
            kernel_nft: cell(nft).to_string(),
            kernel_legacy: cell(legacy).to_string(),
            round_trip: RoundTrip::None,
            live: results.and_then(|results| Live::read(results, cell(file))),
            live_round_trip: RoundTrip::None,
        };
        let attempt = AssertUnwindSafe(|| one(&mut row, directory, family, names));
        row.panicked = catch_unwind(attempt).is_err();
        rows.push(row);
    }
    Ok(rows)
}

fn one(row: &mut Row, directory: &Path, family: Family, names: &dyn Names) {
    let path = directory.join(&row.file);
    let Checked { ruleset, findings, .. } = rules_file(&path, family, names, &Sets::assumed());
    row.refused = findings.iter().find(|finding| finding.severity == Severity::Error).cloned();
    if row.refused.is_some() {
        row.struck = strike(&path, findings, family, names);
        return;
    }
    let Some(ruleset) = ruleset else { return };
    let printed = print(&ruleset, names, None);
    let twin = std::fs::read_to_string(directory.join(format!("{}.saved", row.file)));
    if let Ok(twin) = twin {
        row.round_trip = compare(&printed, &twin);
    }
    for saved in row.live.iter().flat_map(|live| &live.saved) {
        if row.live_round_trip != RoundTrip::Same {
            row.live_round_trip = compare(&printed, saved);
        }
    }
}

/// Takes the lines out that are refused for a match or target by name, until the rest
/// loads; how many they were. `None`: something else is wrong.
fn strike(
    path: &Path,
    mut findings: Vec<Finding>,
    family: Family,
    names: &dyn Names,
) -> Option<u64> {
    let bytes = crate::iptables::read_file(path).ok()?;
    let mut lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let mut struck = 0;
    loop {
        let mut errors = findings.iter().filter(|it| it.severity == Severity::Error).peekable();
        if errors.peek().is_none() {
            return Some(struck);
        }
        let lines_of = errors.map(|it| (it.line, it.code)).collect::<BTreeMap<_, _>>();
        for (number, code) in lines_of {
            let named = matches!(code, Code::UnsupportedMatch | Code::UnsupportedTarget);
            let line = lines.get_mut((number as usize).checked_sub(1)?)?;
            if !named || line.is_empty() {
                return None;
            }
            struck += 1;
            *line = b"";
        }
        let rest = lines.join(&b'\n');
        findings = rules_bytes(path, &rest, family, names, &Sets::assumed()).findings;
    }
}

/// Compares table by table: the tools print tables in the order the kernel
/// loaded their modules, which says nothing.
fn compare(ours: &str, twin: &str) -> RoundTrip {
    let (ours, twin) = (tables(ours), tables(twin));
    for (name, theirs) in &twin {
        let mine = ours.get(name).map(Vec::as_slice).unwrap_or_default();
        let longer = mine.len().max(theirs.len());
        for index in 0..longer {
            let line = |lines: &[&str]| lines.get(index).copied().unwrap_or("(end)").to_string();
            if line(mine) != line(theirs) {
                return RoundTrip::Differs(line(mine), line(theirs));
            }
        }
    }
    match ours.keys().find(|name| !twin.contains_key(*name)) {
        Some(extra) => RoundTrip::Differs((*extra).to_string(), "(no such table)".to_string()),
        None => RoundTrip::Same,
    }
}

fn tables(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut current = "";
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('*') {
            current = line;
        }
        found.entry(current).or_default().push(line);
    }
    found
}

/// The table for people, and the sums under it.
pub fn render(rows: &[Row]) -> String {
    let mut out = String::new();
    let mut text = |line: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{line}");
    };
    for row in rows {
        let ours = match &row.refused {
            None => "loads".to_string(),
            Some(finding) => {
                format!("refused {}:{} {}", finding.line, finding.column, finding.message)
            }
        };
        let kernel = match (row.kernel_nft == "ok", row.kernel_legacy == "ok") {
            (true, true) => "both",
            (true, false) => "nft",
            (false, true) => "legacy",
            (false, false) => "neither",
        };
        let round = match &row.round_trip {
            RoundTrip::None => "-",
            RoundTrip::Same => "same",
            RoundTrip::Differs(..) => "DIFFERS",
        };
        let live = row.live.as_ref().map_or("-", Live::word);
        text(format!("{}\t{kernel}\t{live}\t{round}\t{ours}", row.file));
    }
    let count = |wanted: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| wanted(row)).count();
    text(format!(
        "{} files: {} load ({} printed as the kernel prints them, {} without a twin), {} refused \
         ({} for a feature still to come, {} that the kernel's tools refuse too)",
        rows.len(),
        count(&|row| row.refused.is_none()),
        count(&|row| row.round_trip == RoundTrip::Same),
        count(&|row| row.refused.is_none() && row.round_trip == RoundTrip::None),
        count(&|row| row.refused.is_some()),
        count(&|row| row.refused.is_some() && !row.refused_for_good()),
        count(&|row| row.refused.is_some() && !row.kernel_loads()),
    ));
    text(coverage_of(rows, "the kernel's tools load", &Row::kernel_loads));
    live::render(rows).into_iter().for_each(&mut text);
    for row in rows {
        if let Some(failure) = row.failure() {
            text(format!("FAILED {}: {failure}", row.file));
            if let RoundTrip::Differs(ours, theirs) = &row.round_trip {
                text(format!("  ours   {ours}\n  kernel {theirs}"));
            }
        }
    }
    out
}

/// How much of what somebody loads is loaded here.
pub(super) fn coverage_of(rows: &[Row], who: &str, loads: &dyn Fn(&Row) -> bool) -> String {
    let theirs = || rows.iter().filter(|row| loads(row));
    let ours = || theirs().filter(|row| row.refused.is_none() && !row.panicked);
    let share = |part: u64, whole: u64| part as f64 * 100.0 / whole.max(1) as f64;
    let (files, loaded) = (theirs().count() as u64, ours().count() as u64);
    let sum = |rows: &mut dyn Iterator<Item = &Row>| rows.map(|row| row.rules).sum::<u64>();
    let (rules, enforced) = (sum(&mut theirs()), sum(&mut ours()));
    let rest = theirs().filter_map(|row| Some(row.rules.saturating_sub(row.struck?)));
    let each = enforced + rest.sum::<u64>();
    format!(
        "of {files} files ({rules} rules) that {who}: {loaded} files ({:.1}%), {enforced} rules \
         ({:.2}%); {each} rules ({:.2}%) once the rules that are refused by name are taken out",
        share(loaded, files),
        share(enforced, rules),
        share(each, rules),
    )
}
