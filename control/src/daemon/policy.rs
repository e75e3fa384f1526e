//! From policy texts to a change, with every remark on the way.

use std::path::Path;

use dataplane::clock::{Nanos, monotonic};
use dataplane::conntrack::Conntrack;
use dataplane::fib::Mode;
use dataplane::packet::Family;

use super::sets::read_sources;
use crate::api::protocol::{self, Source};
use crate::apply::{ApplyError, Change};
use crate::aside::aside;
use crate::check;
use crate::diagnostics::{Code, Finding, Severity, has_errors};
use crate::iptables::{self, TableNames, whole_file};
use crate::model::Ruleset;
use crate::selfcheck::SelfCheckError;

/// Texts of one or both families.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    /// IPv4.
    pub v4: Option<Source>,
    /// IPv6.
    pub v6: Option<Source>,
    /// Sets.
    pub sets: Vec<Source>,
}

impl Texts {
    /// Reads the files, all of them or none.
    pub fn read<P: AsRef<Path>>(
        v4: Option<&Path>,
        v6: Option<&Path>,
        sets: &[P],
    ) -> Result<Self, Vec<Finding>> {
        let sets = read_sources(sets.iter().map(AsRef::as_ref));
        match (read(v4, Family::V4), read(v6, Family::V6), sets) {
            (Ok(v4), Ok(v6), Ok(sets)) => Ok(Self { v4, v6, sets }),
            (v4, v6, sets) => {
                let refused = [v4.err(), v6.err(), sets.err()];
                Err(refused.into_iter().flatten().flatten().collect())
            }
        }
    }
    /// The text that a finding speaks of.
    pub fn text_of(&self, file: &str) -> Option<&str> {
        let mut sources = [&self.v4, &self.v6].into_iter().flatten().chain(&self.sets);
        sources.find(|source| source.name == file).map(|source| source.text.as_str())
    }
}

fn read(path: Option<&Path>, family: Family) -> Result<Option<Source>, Vec<Finding>> {
    let Some(path) = path else { return Ok(None) };
    let name = path.display().to_string();
    let fail = |code, message: String| vec![whole_file(&name, code, message)];
    let bytes = iptables::read_file(path)
        .map_err(|error| fail(Code::Unreadable, format!("cannot be read: {error}")))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(Source { name, text })),
        // The parser says where.
        Err(error) => {
            let names = TableNames::well_known();
            let parsed = iptables::parse_bytes(error.as_bytes(), &name, family, &names);
            Err(parsed.err().unwrap_or_else(|| fail(Code::BadEncoding, error.to_string())))
        }
    }
}

/// A parsed change.
#[derive(Debug)]
pub struct Parsed {
    /// The change.
    pub change: Change,
    /// Warnings and notes.
    pub findings: Vec<Finding>,
    /// What parsing took.
    pub took: Nanos,
}

/// Parses both texts; the errors of both are reported together. `conntrack`
/// knows the timeout policies that they may name, and `mode` is that of the ports.
pub fn parse(
    texts: &Texts,
    written_counters: bool,
    conntrack: &Conntrack,
    mode: &Mode,
) -> Result<Parsed, Vec<Finding>> {
    let start = monotonic();
    let names = TableNames::of_host().with_timeout_policies(conntrack.timeout_policies());
    let mut findings = Vec::new();
    let mut family = |source: &Option<Source>, family| -> Option<Ruleset> {
        let source = source.as_ref()?;
        match aside(|| iptables::parse(&source.text, &source.name, family, &names)) {
            Ok(parsed) => {
                findings.extend(check::mode::refusals(&parsed.ruleset, &source.name, mode));
                findings.extend(check::expiry::warnings(&parsed.ruleset, &source.name));
                findings.extend(parsed.findings);
                Some(parsed.ruleset)
            }
            Err(errors) => {
                findings.extend(errors);
                None
            }
        }
    };
    let v4 = family(&texts.v4, Family::V4);
    let v6 = family(&texts.v6, Family::V6);
    if has_errors(&findings) {
        return Err(findings);
    }
    let took = monotonic() - start;
    Ok(Parsed { change: Change { v4, v6, written_counters, sets: None }, findings, took })
}

/// A refusal by the compiler as a finding in the text it speaks of.
pub fn compile_finding(error: &ApplyError, texts: &Texts) -> Option<Finding> {
    let ApplyError::Check(error) = error else { return None };
    let family = match error {
        SelfCheckError::Compile(error) => error.family()?,
        // Our fault, not the policy's.
        SelfCheckError::Differs(_) => return None,
    };
    let source = match family {
        Family::V4 => texts.v4.as_ref()?,
        Family::V6 => texts.v6.as_ref()?,
    };
    Some(check::refusal(error, &source.name))
}

/// Findings as the control socket carries them.
pub fn on_the_wire(findings: &[Finding]) -> Vec<protocol::Finding> {
    findings
        .iter()
        .map(|finding| protocol::Finding {
            severity: match finding.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
                Severity::Note => "note",
            }
            .to_owned(),
            code: finding.code.name(),
            file: finding.file.to_string(),
            line: finding.line,
            column: finding.column,
            message: finding.message.clone(),
            remedy: finding.remedy.clone(),
        })
        .collect()
}
