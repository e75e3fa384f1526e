//! `portcullis check`: do these policy files load, and if not, why and where?

use std::path::{Path, PathBuf};

use dataplane::packet::Family;

use super::lint::{LevelArgs, Looked};
use super::stored::Place;
use super::timeouts::CtTimeouts;
use super::{Exit, Output};
use crate::check::{self, Checked, corpus};
use crate::diagnostics::{Severity, render_all};
use crate::iptables::TableNames;
use crate::model::Ruleset;

const EXAMPLES: &str = "Examples:
  portcullis check --rules rules.v4
  portcullis check --rules rules.v4 --rules6 rules.v6 --json
  portcullis check --rules rules.v4 --sets sets.save
  portcullis check --rules rules.v4 --assume-sets
  portcullis check --rules @1
  portcullis check --rules rules.v4 --ct-timeout patient=tcp,established=864000

What loads is looked at by `lint' too (warnings only, and no more than a few seconds of it): what it
says does not change the exit code. Exits 0 when everything loads, 1 when anything is refused.";

/// What to check.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// An iptables-save file; may be given more than once.
    #[arg(long, value_name = "FILE")]
    pub rules: Vec<PathBuf>,
    /// An ip6tables-save file; may be given more than once.
    #[arg(long, value_name = "FILE")]
    pub rules6: Vec<PathBuf>,
    /// Sets that the rules name: an `ipset save` file, or a directory of them; may be given
    /// more than once.
    #[arg(long, alias = "ipset", value_name = "FILE")]
    pub sets: Vec<PathBuf>,
    /// Take sets that rules name and no file declares for empty ones.
    #[arg(long)]
    pub assume_sets: bool,
    /// Do not look for rules that cannot be meant as they stand.
    #[arg(long)]
    pub no_lint: bool,
    /// Levels of what lint finds.
    #[command(flatten)]
    pub levels: LevelArgs,
    /// Named timeouts.
    #[command(flatten)]
    pub timeouts: CtTimeouts,
    /// Where the history is.
    #[command(flatten)]
    pub place: Place,
    /// Check a directory of rulesets against its MANIFEST.tsv.
    #[arg(long, value_name = "DIR", hide = true)]
    pub corpus: Option<PathBuf>,
    /// With --corpus: a directory of what the running kernel did with the files.
    #[arg(long, value_name = "DIR", hide = true, requires = "corpus")]
    pub live: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: Args, output: &Output) -> Exit {
    let names = match args.timeouts.names() {
        Ok(names) => names,
        Err(error) => {
            output.error(format_args!("--ct-timeout: {error}"));
            return Exit::Usage;
        }
    };
    if let Some(directory) = &args.corpus {
        return run_corpus(directory, args.live.as_deref(), &names, output);
    }
    let files = args.place.files(args.rules, Family::V4);
    let files = files.and_then(|v4| Ok((v4, args.place.files(args.rules6, Family::V6)?)));
    let (rules, rules6) = match files {
        Ok(files) => files,
        Err(error) => {
            output.error(error);
            return Exit::Refused;
        }
    };
    let sets = args.sets;
    let request = check::Request { rules, rules6, sets, assume_sets: args.assume_sets };
    if request.rules.is_empty() && request.rules6.is_empty() && request.sets.is_empty() {
        output.error("check: no file given; try --rules FILE, --rules6 FILE or --sets FILE");
        return Exit::Usage;
    }
    let levels = match args.no_lint {
        true => None,
        false => match args.levels.levels(output) {
            Ok(levels) => Some(levels),
            Err(exit) => return exit,
        },
    };
    let (checked, registry) = check::run_with_sets(&request, &names);
    for file in &checked {
        report(file, output);
        if let (Some(levels), Some(ruleset)) = (&levels, &file.ruleset) {
            let name = file.path.to_string_lossy();
            let looked = Looked::quickly(ruleset, &name, &registry, output);
            looked.tell(Vec::new(), levels, file.source.as_deref(), output);
        }
    }
    if checked.iter().all(Checked::loads) { Exit::Ok } else { Exit::Refused }
}

/// Findings go to standard output: they are the result.
fn report(file: &Checked, output: &Output) {
    if output.json() {
        file.findings.iter().for_each(|finding| output.object(finding));
        output.object(&serde_json::json!({
            "file": file.path.to_string_lossy(),
            "loads": file.loads(),
            "rules": file.ruleset.as_ref().map(count_rules),
            "sets": file.sets,
            "chains": file.costs,
            "compared": file.compared,
        }));
        return;
    }
    if !file.findings.is_empty() {
        output.line(render_all(&file.findings, file.source.as_deref()));
        output.line("");
    }
    let count =
        |wanted: Severity| file.findings.iter().filter(|one| one.severity == wanted).count();
    let path = file.path.display();
    match (&file.ruleset, file.sets) {
        (_, Some(sets)) => {
            let warnings = count(Severity::Warning);
            output.line(format!("{path}: loads: {sets} sets so far, {warnings} warnings"));
        }
        (Some(ruleset), None) => {
            let rules = count_rules(ruleset);
            let (tables, warnings) = (ruleset.tables.len(), count(Severity::Warning));
            output.line(format!(
                "{path}: loads: {rules} rules in {tables} tables, {warnings} warnings"
            ));
            if let Some(done) = file.compared {
                output.line(format!(
                    "compared with its plain meaning: {} packets at the edges of {} of {} rules \
                     on the way from a hook",
                    done.packets, done.rules, done.rules_total
                ));
            }
            file.costs.iter().for_each(|cost| output.line(cost));
        }
        (None, None) => {
            let errors = count(Severity::Error);
            let plural = if errors == 1 { "" } else { "s" };
            output.line(format!("{path}: refused: {errors} error{plural}"));
        }
    }
}

fn count_rules(ruleset: &Ruleset) -> usize {
    let chains = ruleset.tables.iter().flat_map(|table| &table.chains);
    chains.map(|chain| chain.rules.len()).sum()
}

fn run_corpus(directory: &Path, live: Option<&Path>, names: &TableNames, output: &Output) -> Exit {
    let rows = match corpus::check(directory, live, names) {
        Ok(rows) => rows,
        Err(error) => {
            output.error(format!("{}: {error}", directory.display()));
            return Exit::Usage;
        }
    };
    if output.json() {
        rows.iter().for_each(|row| output.object(&row.summary()));
    } else {
        output.raw(&corpus::render(&rows));
    }
    if rows.iter().all(|row| row.failure().is_none()) { Exit::Ok } else { Exit::Refused }
}
