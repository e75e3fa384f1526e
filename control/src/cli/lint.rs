//! `portcullis lint`: rules that load, but cannot be meant as they stand.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::clock::{Nanos, monotonic, wall_us};
use dataplane::packet::Family;
use dataplane::sets::Registry;

use super::{Exit, Output};
use crate::check::{self, Sets};
use crate::config::{self, Settings};
use crate::diagnostics::{Finding, Severity, render_all};
use crate::ipset::{self, Stage};
use crate::iptables::{self, TableNames};
use crate::lint::{
    Bounds, Date, Hits, Input, LINTS, Level, Levels, lint, mark_map, named, register,
};
use crate::model::Ruleset;

const EXAMPLES: &str = "Examples:
  portcullis lint --rules rules.v4
  portcullis lint --rules rules.v4 --rules6 rules.v6 --sets sets.save --json
  portcullis lint --rules rules.v4 --deny accept-any --allow redundant
  portcullis lint --rules rules.v4 --marks --modules
  iptables-save -c > counted && portcullis lint --rules rules.v4 --hits counted
  portcullis lint --rules rules.v4 --rules6 rules.v6 --hits counted --hits6 counted6
  portcullis lint --explain contradicted
  portcullis lint --codes

Levels of a site stand in the table [lint] of portcullis.toml: CODE = \"deny\", \"warn\", \"note\" or
\"allow\". Exits 0 when nothing is found that is denied, 1 when something is, or a file does not load.";

/// Slow work says how far it is after this long, and so often.
const PATIENCE: Nanos = Nanos::from_secs(1);

/// What to look at.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// An iptables-save file; may be given more than once.
    #[arg(long, value_name = "FILE")]
    pub rules: Vec<PathBuf>,
    /// An ip6tables-save file; may be given more than once.
    #[arg(long, value_name = "FILE")]
    pub rules6: Vec<PathBuf>,
    /// Sets that the rules name: an `ipset save` file, or a directory of them. Sets that
    /// are in none are taken for empty ones.
    #[arg(long, alias = "ipset", value_name = "FILE")]
    pub sets: Vec<PathBuf>,
    /// How often rules are met: what `iptables-save -c` prints. Says which rules may move up.
    /// With --rules6 alone: what `ip6tables-save -c` prints.
    #[arg(long, value_name = "FILE")]
    pub hits: Option<PathBuf>,
    /// The same for --rules6: what `ip6tables-save -c` prints.
    #[arg(long, value_name = "FILE", requires = "rules6")]
    pub hits6: Option<PathBuf>,
    /// The day that dates in comments are compared with, as YYYY-MM-DD. Today, if not given.
    #[arg(long, value_name = "DATE")]
    pub today: Option<String>,
    /// Levels of findings.
    #[command(flatten)]
    pub levels: LevelArgs,
    /// Print which rules set and ask for which bits of marks.
    #[arg(long)]
    pub marks: bool,
    /// Print the register of match modules and targets in use.
    #[arg(long)]
    pub modules: bool,
    /// Say what a finding's code means, and look at nothing.
    #[arg(long, value_name = "CODE")]
    pub explain: Option<String>,
    /// List all codes with their levels, and look at nothing.
    #[arg(long)]
    pub codes: bool,
}

/// Levels of findings.
#[derive(Debug, Default, clap::Args)]
pub struct LevelArgs {
    /// The configuration file with the site's levels. Unset: /etc/portcullis/portcullis.toml, if
    /// it is there.
    #[arg(long = "lint-config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Fail when there is such a finding; may be given more than once.
    #[arg(long, value_name = "CODE")]
    pub deny: Vec<String>,
    /// Show such findings as warnings.
    #[arg(long, value_name = "CODE")]
    pub warn: Vec<String>,
    /// Do not show such findings.
    #[arg(long, value_name = "CODE")]
    pub allow: Vec<String>,
}

impl LevelArgs {
    /// Those of the site, then those of the command line.
    ///
    /// # Errors
    /// What is wrong was said.
    pub fn levels(&self, output: &Output) -> Result<Levels, Exit> {
        let default = PathBuf::from(config::DEFAULT_FILE);
        let file = self.config.clone().or_else(|| default.exists().then_some(default));
        let mut levels = match &file {
            None => Levels::default(),
            Some(file) => site(file, output)?,
        };
        let given =
            [(&self.warn, Level::Warn), (&self.allow, Level::Allow), (&self.deny, Level::Deny)];
        for (codes, level) in given {
            for code in codes {
                if !levels.set(code, level) {
                    let option = format!("--{}", level.name());
                    output.error(unknown_code(&option, code));
                    return Err(Exit::Usage);
                }
            }
        }
        Ok(levels)
    }
}

fn unknown_code(option: &str, code: &str) -> String {
    let near = config::nearest_code(code).map(|it| format!("; did you mean {it}?"));
    let near = near.unwrap_or_default();
    format!("{option}: lint has no code {code:?}{near} (`portcullis lint --codes' lists them)")
}

/// The levels that a configuration file says.
fn site(file: &Path, output: &Output) -> Result<Levels, Exit> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => {
            output.error(format_args!("{}: cannot be read: {error}", file.display()));
            return Err(Exit::Refused);
        }
    };
    match config::read(&text, file) {
        Ok(layer) => Ok(Settings::of(&config::Layer::default(), &layer).lint.value.levels()),
        Err(findings) => {
            findings.iter().for_each(|finding| output.finding(finding, Some(&text)));
            Err(Exit::Refused)
        }
    }
}

/// Runs the command.
pub fn run(args: &Args, output: &Output) -> Exit {
    if let Some(name) = &args.explain {
        return explain(name, output);
    }
    let levels = match args.levels.levels(output) {
        Ok(levels) => levels,
        Err(exit) => return exit,
    };
    if args.codes {
        return codes(&levels, output);
    }
    if args.rules.is_empty() && args.rules6.is_empty() {
        output.error("lint: no file given; try --rules FILE or --rules6 FILE");
        return Exit::Usage;
    }
    let Ok(today) = day(args.today.as_deref()) else {
        output.error("--today: write the day as YYYY-MM-DD");
        return Exit::Usage;
    };
    let names = TableNames::well_known();
    let sets = match read_sets(&args.sets, &names, output) {
        Ok(sets) => sets,
        Err(exit) => return exit,
    };
    let mut refused = false;
    for (paths, family) in [(&args.rules, Family::V4), (&args.rules6, Family::V6)] {
        let alone = args.rules.is_empty();
        let file = match family {
            Family::V4 => args.hits.as_ref().filter(|_| !alone),
            Family::V6 => args.hits6.as_ref().or(args.hits.as_ref().filter(|_| alone)),
        };
        let hits = match file.map(|file| counted(file, family, &names, output)) {
            Some(Err(exit)) => return exit,
            hits => hits.and_then(Result::ok),
        };
        let job = Job { args, levels: &levels, today, hits: hits.as_ref(), sets: &sets };
        for path in paths {
            refused |= !one(path, family, &names, &job, output);
        }
    }
    if refused { Exit::Refused } else { Exit::Ok }
}

/// The day that is given, or today.
fn day(given: Option<&str>) -> Result<Date, ()> {
    match given {
        Some(text) => Date::parse(text).ok_or(()),
        None => Ok(Date::of_unix(wall_us() / 1_000_000)),
    }
}

/// Hits of a family.
fn counted(file: &Path, family: Family, names: &TableNames, output: &Output) -> Result<Hits, Exit> {
    let bytes = match iptables::read_file(file) {
        Ok(bytes) => bytes,
        Err(error) => {
            output.error(format_args!("{}: cannot be read: {error}", file.display()));
            return Err(Exit::Refused);
        }
    };
    let source = String::from_utf8_lossy(&bytes);
    match iptables::parse_bytes(&bytes, &file.to_string_lossy(), family, names) {
        Ok(parsed) => Ok(Hits::of(&parsed.ruleset).unwrap_or_else(|| {
            let file = file.display();
            output.warning(format_args!("{file}: no counters; write it with iptables-save -c"));
            Hits::default()
        })),
        Err(findings) => {
            findings.iter().for_each(|finding| output.finding(finding, Some(&source)));
            Err(Exit::Refused)
        }
    }
}

fn read_sets(paths: &[PathBuf], names: &TableNames, output: &Output) -> Result<Sets, Exit> {
    let mut stage = Stage::empty(0, Nanos(0));
    for path in paths {
        let files = match ipset::files(path) {
            Ok(files) => files,
            Err(error) => {
                output.error(format_args!("{}: cannot be read: {error}", path.display()));
                return Err(Exit::Refused);
            }
        };
        for file in files {
            let checked = check::sets_file(&file, &mut stage, names);
            if !checked.loads() {
                output.line(render_all(&checked.findings, checked.source.as_deref()));
                return Err(Exit::Refused);
            }
        }
    }
    Ok(Sets { registry: stage.into_registry().into(), assume: true })
}

struct Job<'j> {
    args: &'j Args,
    levels: &'j Levels,
    today: Date,
    hits: Option<&'j Hits>,
    sets: &'j Sets,
}

/// Looks at one file. False: it is refused, or something in it is denied.
fn one(path: &Path, family: Family, names: &TableNames, job: &Job<'_>, output: &Output) -> bool {
    let checked = check::rules_file(path, family, names, job.sets);
    let source = checked.source.as_deref();
    let file = path.to_string_lossy();
    let Some(ruleset) = &checked.ruleset else {
        match output.json() {
            true => checked.findings.iter().for_each(|finding| output.object(finding)),
            false => output.line(render_all(&checked.findings, source)),
        }
        return false;
    };
    let sets = &job.sets.registry;
    let bounds = Bounds::default();
    let input =
        Input { rules: ruleset, file: &file, sets, today: Some(job.today), hits: job.hits, bounds };
    let looked = Looked::at(&input, &file, Severity::Note, output);
    // What reading says of cost and of matches that never hold is told here too.
    let known = |finding: &&Finding| named(&finding.code.name()).is_some();
    let more = checked.findings.iter().filter(known).cloned();
    let fine = looked.tell(more.collect(), job.levels, source, output);
    if job.args.marks {
        marks(ruleset, output);
    }
    if job.args.modules {
        modules(ruleset, output);
    }
    fine
}

/// What lint found in one file.
pub(super) struct Looked<'f> {
    file: &'f str,
    rules: usize,
    least: Severity,
    report: crate::lint::Report,
}

impl<'f> Looked<'f> {
    /// Looks, and says how far it is where that takes long. What is less than `least` is not told.
    fn at(input: &Input<'_>, file: &'f str, least: Severity, output: &Output) -> Self {
        let total = input.rules.rule_count();
        let mut next = monotonic().0 + PATIENCE.0;
        let mut told = |done: usize| {
            if done.is_multiple_of(64) && monotonic().0 >= next {
                next = monotonic().0 + PATIENCE.0;
                output.complaint(format_args!("{file}: {done} of {total} rules are looked at"));
            }
        };
        Self { file, rules: total, least, report: lint(input, &mut told) }
    }

    /// Looks for warnings, for somebody who asked for something else.
    pub(super) fn quickly(
        rules: &Ruleset,
        file: &'f str,
        sets: &Arc<Registry>,
        output: &Output,
    ) -> Self {
        let today = Some(Date::of_unix(wall_us() / 1_000_000));
        let bounds = Bounds::QUICK;
        let input = Input { rules, file, sets, today, hits: None, bounds };
        Self::at(&input, file, Severity::Warning, output)
    }

    /// Says it. False: something is denied.
    pub(super) fn tell(
        self,
        more: Vec<Finding>,
        levels: &Levels,
        source: Option<&str>,
        output: &Output,
    ) -> bool {
        let Self { file, rules, least, report } = self;
        let mut findings = report.findings;
        findings.extend(more);
        findings.sort_by_key(|finding| (finding.line, finding.column));
        let mut findings = levels.applied(findings);
        findings.retain(|finding| finding.severity >= least);
        let count = |severity| findings.iter().filter(|it| it.severity == severity).count();
        let [denied, warnings, notes] =
            [Severity::Error, Severity::Warning, Severity::Note].map(count);
        let undecided = report.undecided;
        if output.json() {
            findings.iter().for_each(|finding| output.object(finding));
            output.object(&serde_json::json!({
                "file": file, "lint": {"rules": rules, "denied": denied, "warnings": warnings,
                "notes": notes, "undecided": undecided},
            }));
            return denied == 0;
        }
        if !findings.is_empty() {
            output.line(render_all(&findings, source));
            output.line("");
        }
        let unsaid = match undecided {
            0 => String::new(),
            count => format!(", {count} questions too entangled to decide"),
        };
        output.line(format_args!(
            "{file}: lint: {rules} rules, {denied} denied, {warnings} warnings, {notes} notes{unsaid}"
        ));
        denied == 0
    }
}

fn marks(rules: &Ruleset, output: &Output) {
    let map = mark_map(rules);
    if output.json() {
        return output.object(&serde_json::json!({"marks": map}));
    }
    if map.is_empty() {
        output.line("marks: none");
    }
    for one in map {
        let whose = match one.mark {
            crate::lint::Owner::Packet => "mark",
            crate::lint::Owner::Connection => "connmark",
        };
        let does = match (one.sets, one.asks) {
            (0, asks) => format!("asks for {:#x}/{asks:#x}", one.value),
            (sets, _) => format!("sets {sets:#x}"),
        };
        output.line(format_args!("{whose:8} line {:5} {does}", one.line));
    }
}

fn modules(rules: &Ruleset, output: &Output) {
    let all = register(rules);
    if output.json() {
        return output.object(&serde_json::json!({"modules": all}));
    }
    for one in all {
        let (kind, name) = (one.kind, &one.name);
        output.line(format_args!(
            "{kind:6} {name:16} {:6} rules, first line {}",
            one.rules, one.line
        ));
    }
}

fn codes(levels: &Levels, output: &Output) -> Exit {
    for lint in LINTS {
        let (code, level) = (lint.code.name(), levels.of(lint.code).name());
        match output.json() {
            true => output.object(&serde_json::json!({
                "code": code, "level": level, "cause": lint.cause, "example": lint.example,
                "remedy": lint.remedy,
            })),
            false => output.line(format_args!("{code:26} {level:5}  {}", lint.cause)),
        }
    }
    Exit::Ok
}

fn explain(name: &str, output: &Output) -> Exit {
    let Some(lint) = named(name) else {
        output.error(unknown_code("--explain", name));
        return Exit::Usage;
    };
    match output.json() {
        true => output.object(&serde_json::json!({
            "code": lint.code, "level": lint.level.name(), "cause": lint.cause,
            "example": lint.example, "remedy": lint.remedy,
        })),
        false => output.raw(&lint.explained()),
    }
    Exit::Ok
}
