//! `--fix`: runs the commands of findings that are marked safe, each once, and
//! says what came of each.

use std::collections::BTreeSet;

use super::{Command, Finding};

/// What came of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was only to be shown.
    Shown,
    /// It succeeded.
    Done,
    /// It was not found, or failed with what it said.
    Failed(String),
}

/// The commands that may be run for these findings, in their order, each once.
pub fn plan(findings: &[Finding]) -> Vec<Command> {
    let mut known = BTreeSet::new();
    let safe = findings.iter().filter(|finding| finding.safe);
    safe.filter_map(|finding| finding.command.clone())
        .filter(|command| known.insert(command.clone()))
        .collect()
}

/// Runs a command, without a shell.
pub fn run(command: &Command) -> Outcome {
    let Some((program, arguments)) = command.words().split_first() else {
        return Outcome::Failed("there is no command".to_owned());
    };
    match std::process::Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Outcome::Done,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().next().unwrap_or("it failed and said nothing");
            Outcome::Failed(said.to_owned())
        }
        Err(error) => Outcome::Failed(format!("{program}: {error}")),
    }
}
