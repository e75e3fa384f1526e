//! Policy files: whether they load, by the same check as `portcullis check`.

use std::path::{Path, PathBuf};

use dataplane::packet::Family;

use super::{Code, Command, Finding, Wanted};
use crate::check;
use crate::diagnostics;
use crate::iptables::TableNames;

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) files: Vec<File>,
}

/// What became of one file.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) option: &'static str,
    pub(super) errors: usize,
    pub(super) warnings: usize,
    /// The first error.
    pub(super) first: Option<String>,
}

/// Looks.
pub(super) fn observe(wanted: &Wanted) -> Seen {
    let rules = wanted.rules.as_deref().map(|path| look(path, Family::V4, "--rules"));
    let rules6 = wanted.rules6.as_deref().map(|path| look(path, Family::V6, "--rules6"));
    Seen { files: rules.into_iter().chain(rules6).collect() }
}

fn look(path: &Path, family: Family, option: &'static str) -> File {
    let checked = check::rules_file(path, family, &TableNames::of_host());
    let of = |severity| checked.findings.iter().filter(move |it| it.severity == severity);
    let first = of(diagnostics::Severity::Error).next();
    File {
        path: path.to_path_buf(),
        option,
        errors: of(diagnostics::Severity::Error).count(),
        warnings: of(diagnostics::Severity::Warning).count(),
        first: first.map(|finding| match finding.line {
            0 => finding.message.clone(),
            line => format!("line {line}: {}", finding.message),
        }),
    }
}

/// What it means.
pub(super) fn judge(seen: &Seen) -> Vec<Finding> {
    seen.files.iter().map(file).collect()
}

fn file(file: &File) -> Finding {
    let path = file.path.to_string_lossy();
    let look = Command::new("portcullis check").arg(file.option).arg(path.clone());
    match file {
        File { first: Some(first), errors, .. } => {
            let found = format!("is refused: {errors} error(s), the first: {first}");
            Finding::error(Code::Rules, path, found).mend(look)
        }
        File { warnings: 0, .. } => Finding::ok(Code::Rules, path, "loads"),
        File { warnings, .. } => {
            Finding::note(Code::Rules, path, format!("loads, with {warnings} warning(s)"))
                .mend(look)
        }
    }
}
