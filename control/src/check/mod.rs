//! `portcullis check` as a library: do these files load, and if not, why and where?

pub mod corpus;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::packet::{Family, MAX_PORTS};

use crate::compile::{self, DynamicState};
use crate::diagnostics::{Code, Finding, Severity, has_errors};
use crate::iptables::{self, Names, whole_file};
use crate::model::{MetaSpec, Ruleset, Span, TargetSpec};
use crate::selfcheck::{self, Budget, SelfCheckError};

/// What to check.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// iptables-save files.
    pub rules: Vec<PathBuf>,
    /// ip6tables-save files.
    pub rules6: Vec<PathBuf>,
    /// ipset save files.
    pub ipset: Vec<PathBuf>,
}

/// What became of one file.
#[derive(Debug)]
pub struct Checked {
    /// The file.
    pub path: PathBuf,
    /// Its text, if it could be read.
    pub source: Option<String>,
    /// What it says, if it loads.
    pub ruleset: Option<Ruleset>,
    /// Everything found, in file order.
    pub findings: Vec<Finding>,
}

impl Checked {
    /// Whether the file loads.
    pub fn loads(&self) -> bool {
        !has_errors(&self.findings)
    }
}

/// Checks every file of the request, in order.
pub fn run(request: &Request, names: &dyn Names) -> Vec<Checked> {
    let families = [(&request.rules, Family::V4), (&request.rules6, Family::V6)];
    let mut checked = Vec::new();
    for (paths, family) in families {
        checked.extend(paths.iter().map(|path| rules_file(path, family, names)));
    }
    checked.extend(request.ipset.iter().map(|path| {
        let message = "ipset files are not supported yet";
        let finding = whole_file(&path.to_string_lossy(), Code::UnsupportedFile, message);
        Checked { path: path.clone(), source: None, ruleset: None, findings: vec![finding] }
    }));
    checked
}

/// Reads and checks one rules file.
pub fn rules_file(path: &Path, family: Family, names: &dyn Names) -> Checked {
    let name = path.to_string_lossy();
    let mut checked =
        Checked { path: path.to_path_buf(), source: None, ruleset: None, findings: Vec::new() };
    let bytes = match iptables::read_file(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let message = format!("cannot be read: {error}");
            checked.findings.push(whole_file(&name, Code::Unreadable, message));
            return checked;
        }
    };
    match iptables::parse_bytes(&bytes, &name, family, names) {
        Ok(parsed) => {
            checked.findings = parsed.findings;
            match compiles(&parsed.ruleset, &name) {
                Some(finding) => checked.findings.push(finding),
                None => checked.ruleset = Some(parsed.ruleset),
            }
        }
        Err(findings) => checked.findings = findings,
    }
    checked.source = Some(String::from_utf8_lossy(&bytes).into_owned());
    checked
}

/// Compiles a ruleset by itself, with the interfaces it names as ports, and
/// checks the outcome against the interpreter. Gives what stands in the way.
pub fn compiles(ruleset: &Ruleset, file: &str) -> Option<Finding> {
    let rules = ruleset.tables.iter().flat_map(|table| &table.chains).flat_map(|c| &c.rules);
    let mut ports = BTreeSet::new();
    for rule in rules {
        let named = [&rule.input, &rule.output].into_iter().flatten();
        ports.extend(named.map(|(interface, _)| interface.name.as_str()));
        if let TargetSpec::Meta(MetaSpec::Tee { output: Some(output), .. }) = &rule.target {
            ports.insert(output);
        }
    }
    let ports = ports.into_iter().filter(|name| !name.is_empty()).take(MAX_PORTS);
    let mut ports: Vec<String> = ports.map(str::to_owned).collect();
    if ports.is_empty() {
        // The packets of the self-check have to come in somewhere.
        ports.push("port0".to_owned());
    }
    let (v4, v6) = (Ruleset::empty(Family::V4), Ruleset::empty(Family::V6));
    let (v4, v6) = match ruleset.family {
        Family::V4 => (ruleset, &v6),
        Family::V6 => (&v4, ruleset),
    };
    let input = compile::Input { v4, v6, ports: &ports, limits: compile::Limits::default() };
    let checked = selfcheck::compile_checked(input, &DynamicState::default(), Budget::default());
    checked.err().map(|error| refusal(&error, file))
}

/// What the compiler or its self-check says against a policy, as a finding in
/// the file that it speaks of.
pub fn refusal(error: &SelfCheckError, file: &str) -> Finding {
    let whole = Span { line: 1, column: 1, len: 1 };
    let (code, span) = match error {
        SelfCheckError::Compile(error) => (Code::CannotCompile, error.span().unwrap_or(whole)),
        SelfCheckError::Differs(difference) => (Code::SelfCheck, difference.span),
    };
    Finding::new(Severity::Error, code, &Arc::from(file), span, error.to_string())
}
