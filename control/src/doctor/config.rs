//! What is configured: ports that fit the mode, a network that can be honoured, a
//! user that exists, policy files that load, each by the check that `run` makes.

use std::path::{Path, PathBuf};

use dataplane::fib::Network;
use dataplane::packet::Family;

use super::{Code, Command, Finding, Wanted};
use crate::check::{self, Sets};
use crate::daemon::preflight::{self, PreflightError};
use crate::daemon::sandbox::numbers_of;
use crate::diagnostics;
use crate::iptables::TableNames;
use crate::net::Mirror;

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Why the ports do not fit the mode.
    pub(super) mode: Option<String>,
    /// What of the kernel's routing is simplified, or why it cannot be honoured at all.
    pub(super) network: Option<Result<Vec<String>, String>>,
    /// Why the daemon cannot become its user.
    pub(super) user: Option<String>,
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
    let user = wanted.user.as_deref().and_then(|user| numbers_of(user).err());
    Seen {
        mode: mode(wanted).err().map(|error| error.to_string()),
        network: (!wanted.ports.is_empty()).then(|| network(wanted)),
        user: user.map(|error| error.to_string()),
        files: rules.into_iter().chain(rules6).collect(),
    }
}

fn mode(wanted: &Wanted) -> Result<(), PreflightError> {
    if wanted.ports.is_empty() {
        return Ok(());
    }
    preflight::mode(&wanted.mode, wanted.ports.len())?;
    let twice = wanted.ports.iter().enumerate().find(|(at, it)| wanted.ports[..*at].contains(it));
    twice.map_or(Ok(()), |(_, name)| Err(PreflightError::Duplicate(name.clone())))
}

/// The mirror that the daemon would make.
fn network(wanted: &Wanted) -> Result<Vec<String>, String> {
    let mirror = Mirror::open(wanted.mode.clone(), wanted.ports.clone());
    let update = mirror.and_then(|mirror| mirror.current()).map_err(|error| error.to_string())?;
    Network::build(&update.topology).map_err(|error| error.to_string())?;
    Ok(update.notes.iter().map(ToString::to_string).collect())
}

fn look(path: &Path, family: Family, option: &'static str) -> File {
    let checked = check::rules_file(path, family, &TableNames::of_host(), &Sets::assumed());
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
pub(super) fn judge(wanted: &Wanted, seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(seen.mode.as_ref().map(|why| Finding::error(Code::ModeFits, "", why.as_str())));
    match &seen.network {
        Some(Ok(notes)) => {
            findings.push(Finding::ok(Code::Network, "", "routes and rules can be honoured"));
            let notes = notes.iter().map(|note| Finding::note(Code::Network, "", note.as_str()));
            findings.extend(notes);
        }
        Some(Err(why)) => findings.push(Finding::error(Code::Network, "", why.as_str())),
        None => {}
    }
    findings.extend(seen.user.as_ref().map(|why| Finding::error(Code::User, "", why.as_str())));
    if wanted.host_road && !wanted.management && !wanted.ports.is_empty() {
        let found = "no prefix may always reach this machine";
        let advice = "--management \"198.51.100.0/24 tcp 22\", with your own prefix";
        findings.push(Finding::note(Code::Management, "", found).advise(advice));
    }
    findings.extend(seen.files.iter().map(file));
    findings
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
