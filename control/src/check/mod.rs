//! `portcullis check` as a library: do these files load, and if not, why and where?

pub mod corpus;
pub mod cost;
pub mod expiry;
pub mod live;
pub mod mode;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::packet::{Family, MAX_PORTS};
use dataplane::sets::{CreateSpec, Registry, SetType};

use crate::compile::{self, Compiled, DynamicState};
use crate::diagnostics::{Code, Finding, Severity, has_errors};
use crate::ipset::{self, Stage};
use crate::iptables::{self, Names, whole_file};
use crate::model::sets::{NeededSet, needed};
use crate::model::{MetaSpec, Ruleset, Span, TargetSpec};
use crate::selfcheck::{self, Budget, SelfCheckError};
use cost::ChainCost;

/// What to check.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// iptables-save files.
    pub rules: Vec<PathBuf>,
    /// ip6tables-save files.
    pub rules6: Vec<PathBuf>,
    /// ipset save files, or directories of them.
    pub sets: Vec<PathBuf>,
    /// Makes empty sets of what rules name and no file declares.
    pub assume_sets: bool,
}

/// What became of one file.
#[derive(Debug)]
pub struct Checked {
    /// The file.
    pub path: PathBuf,
    /// Its text, if it could be read.
    pub source: Option<String>,
    /// What it says, if it is a file of rules and loads.
    pub ruleset: Option<Ruleset>,
    /// Sets made so far, if it is a file of sets and loads.
    pub sets: Option<usize>,
    /// What lookups in its long chains cost, if it is a file of rules and loads.
    pub costs: Vec<ChainCost>,
    /// What was compared with the rules' plain meaning, if it is one and loads.
    pub compared: Option<selfcheck::Report>,
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
    run_with_sets(request, names).0
}

/// The same; also gives the sets that rules were judged by.
pub fn run_with_sets(request: &Request, names: &dyn Names) -> (Vec<Checked>, Arc<Registry>) {
    let mut checked = Vec::new();
    let mut stage = Stage::empty(0, Nanos(0));
    for path in &request.sets {
        match ipset::files(path) {
            Ok(files) => checked.extend(files.iter().map(|it| sets_file(it, &mut stage, names))),
            Err(error) => checked.push(unreadable(path, &error)),
        }
    }
    // Rules are judged all the same, by what could be read.
    let sets = Sets { registry: Arc::new(stage.into_registry()), assume: request.assume_sets };
    let families = [(&request.rules, Family::V4), (&request.rules6, Family::V6)];
    for (paths, family) in families {
        checked.extend(paths.iter().map(|path| rules_file(path, family, names, &sets)));
    }
    (checked, sets.registry)
}

/// The sets that rules may name.
#[derive(Debug, Default)]
pub struct Sets {
    /// Those that files declare.
    pub registry: Arc<Registry>,
    /// Whether the others are taken for empty ones.
    pub assume: bool,
}

impl Sets {
    /// Empty ones, whatever the rules name.
    pub fn assumed() -> Self {
        Self { assume: true, ..Self::default() }
    }

    /// Makes what a ruleset names and nobody has declared, and says so.
    pub(crate) fn complete(&self, ruleset: &Ruleset, file: &str) -> Vec<Finding> {
        let file = Arc::from(file);
        let mut findings = Vec::new();
        for NeededSet { set, span } in needed(ruleset) {
            if self.registry.get(&set.name).is_some() {
                continue;
            }
            let kind = match set.sides.len() {
                1 => SetType::HashNet,
                2 => SetType::HashIpPort,
                _ => SetType::HashIpPortIp,
            };
            let spec = CreateSpec { family: ruleset.family, ..CreateSpec::new(kind) };
            if self.registry.create(set.name, spec, false).is_ok() {
                let (name, kind) = (set.name, kind.name());
                let message = format!("set {name} is in no file: taken for an empty {kind}");
                let finding = Finding::new(Severity::Note, Code::MissingSet, &file, span, message);
                findings
                    .push(finding.with_remedy("declare it in a file, and name that with --sets"));
            }
        }
        findings
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Checked {
    let message = format!("cannot be read: {error}");
    let finding = whole_file(&path.to_string_lossy(), Code::Unreadable, message);
    Checked {
        path: path.to_owned(),
        source: None,
        ruleset: None,
        sets: None,
        costs: Vec::new(),
        compared: None,
        findings: vec![finding],
    }
}

/// Reads and checks one file of sets, after those that were read before.
pub fn sets_file(path: &Path, stage: &mut Stage<'_>, names: &dyn Names) -> Checked {
    let bytes = match ipset::read_file(path) {
        Ok(bytes) => bytes,
        Err(error) => return unreadable(path, &error),
    };
    let findings = ipset::read(stage, &bytes, &path.to_string_lossy(), names);
    let sets = (!has_errors(&findings)).then(|| stage.registry().list().len());
    let source = Some(String::from_utf8_lossy(&bytes).into_owned());
    let costs = Vec::new();
    let path = path.to_owned();
    Checked { path, source, ruleset: None, sets, costs, compared: None, findings }
}

/// Reads and checks one rules file.
pub fn rules_file(path: &Path, family: Family, names: &dyn Names, sets: &Sets) -> Checked {
    match iptables::read_file(path) {
        Ok(bytes) => rules_bytes(path, &bytes, family, names, sets),
        Err(error) => unreadable(path, &error),
    }
}

/// The same of what a file at `path` holds or would hold.
fn rules_bytes(
    path: &Path,
    bytes: &[u8],
    family: Family,
    names: &dyn Names,
    sets: &Sets,
) -> Checked {
    let name = path.to_string_lossy();
    let mut checked = Checked {
        path: path.to_path_buf(),
        source: None,
        ruleset: None,
        sets: None,
        costs: Vec::new(),
        compared: None,
        findings: Vec::new(),
    };
    match iptables::parse_bytes(bytes, &name, family, names) {
        Ok(parsed) => {
            checked.findings = parsed.findings;
            if sets.assume {
                checked.findings.extend(sets.complete(&parsed.ruleset, &name));
            }
            match compiled(&parsed.ruleset, &name, &sets.registry) {
                Err(finding) => checked.findings.push(finding),
                Ok((policy, report)) => {
                    checked.compared = Some(report);
                    checked.costs = cost::of(&parsed.ruleset, &policy, &name);
                    checked.findings.extend(checked.costs.iter().filter_map(ChainCost::warning));
                    checked.ruleset = Some(parsed.ruleset);
                }
            }
        }
        Err(findings) => checked.findings = findings,
    }
    checked.source = Some(String::from_utf8_lossy(bytes).into_owned());
    checked
}

/// The interfaces that rules name, as far as there is room for ports.
pub fn named_ports(ruleset: &Ruleset) -> Vec<String> {
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
    ports.map(str::to_owned).collect()
}

/// Compiles a ruleset by itself, with the interfaces it names as ports, and
/// checks the outcome against the interpreter. Gives what stands in the way.
pub fn compiles(ruleset: &Ruleset, file: &str, sets: &Arc<Registry>) -> Option<Finding> {
    compiled(ruleset, file, sets).err()
}

fn compiled(
    ruleset: &Ruleset,
    file: &str,
    sets: &Arc<Registry>,
) -> Result<(Compiled, selfcheck::Report), Finding> {
    let mut ports = named_ports(ruleset);
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
    let state = DynamicState::with_sets(Arc::clone(sets));
    let checked = selfcheck::compile_checked(input, &state, Budget::default());
    checked.map_err(|error| refusal(&error, file))
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
