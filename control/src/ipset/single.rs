//! One command on sets in force.

use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::sets::{Registry, SetError, SetName};

use super::command::{self, Author, Context, Options, Verb};
use super::extras::Act;
use super::fault::Fault;
use super::stage::{Done, Stage};
use super::{lexer, reader};
use crate::diagnostics::{Code, Finding, Severity};
use crate::iptables::Names;

/// What came of a command.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// To `test`: whether it is there.
    pub found: Option<bool>,
    /// Warnings.
    pub findings: Vec<Finding>,
}

/// Carries out one line at once, all of it or nothing.
///
/// # Errors
/// What is wrong with it, in a file called `command`.
pub fn command(
    registry: &Registry,
    line: &str,
    exist: bool,
    names: &dyn Names,
    now: Nanos,
) -> Result<Outcome, Vec<Finding>> {
    let file: Arc<str> = Arc::from("command");
    let mut warnings = Vec::new();
    let outcome = perform(registry, line, exist, names, now, &mut warnings);
    let mut findings: Vec<_> = warnings
        .into_iter()
        .map(|fault| fault.finding(Severity::Warning, &file, line, 1))
        .collect();
    match outcome {
        Ok(done) => {
            let found = match done {
                Done::Tested(found) => Some(found),
                Done::Ok | Done::Nothing => None,
            };
            Ok(Outcome { found, findings })
        }
        Err(fault) => {
            findings.push(fault.finding(Severity::Error, &file, line, 1));
            Err(findings)
        }
    }
}

fn perform(
    registry: &Registry,
    line: &str,
    exist: bool,
    names: &dyn Names,
    now: Nanos,
    warnings: &mut Vec<Fault>,
) -> Result<Done, Fault> {
    if line.len() > lexer::MAX_LINE_BYTES || line.contains(['\n', '\0']) {
        return Err(Fault::new(Code::TooLong, 0, line.len(), "this is no line"));
    }
    let mut words = Vec::new();
    lexer::split(line, &mut words)?;
    let exist = Options::take(&mut words)?.exist || exist;
    if words.is_empty() {
        return Err(Fault::new(Code::BadCommand, 0, line.len(), "there is no command"));
    }
    let lookup = |name: &SetName| registry.get(name).map(|slot| *slot.load().spec());
    let verb = command::read(
        &words,
        Context { names, lookup: &lookup, author: Author::Operator },
        warnings,
    )?;
    if !reader::changes(&verb) && !matches!(verb, Verb::Element { .. }) {
        return Err(words[0].fault(Code::BadCommand, "this changes nothing"));
    }
    let done = on(registry, &verb, exist, line, now);
    done.map_err(|error| reader::refused(&verb, &error, &words))
}

fn on(
    registry: &Registry,
    verb: &Verb,
    exist: bool,
    line: &str,
    now: Nanos,
) -> Result<Done, SetError> {
    match verb {
        Verb::Create { name, spec } => registry.create(*name, *spec, exist)?,
        Verb::Element { act, written, .. } if *act != Act::Test && written.is_many() => {
            // All or none of them: tried out beside the sets.
            let mut stage = Stage::on(registry, 0, now);
            stage.run(verb, exist, line)?;
            stage.commit(registry)?;
        }
        Verb::Element { act, name, written, extras } => {
            let (slot, element) = (registry.find(name)?, written.first());
            match act {
                Act::Add => registry.add(&slot, &element, extras, exist, now)?,
                Act::Del => registry.del(&slot, &element, exist, now)?,
                Act::Test => {
                    let found = registry.test(&slot, &element, extras.nomatch, now)?;
                    return Ok(Done::Tested(found));
                }
            }
        }
        Verb::Flush(Some(name)) => registry.find(name)?.set().flush(),
        Verb::Flush(None) => registry.list().iter().for_each(|slot| slot.set().flush()),
        Verb::Destroy(Some(name)) => match registry.destroy(name) {
            Err(SetError::NoSuchSet(_)) if exist => {}
            other => other?,
        },
        Verb::Destroy(None) => registry.destroy_all()?,
        Verb::Rename(from, to) => registry.rename(from, *to)?,
        Verb::Swap(one, other) => registry.swap(one, other)?,
        Verb::List(_) | Verb::Save(_) | Verb::Restore | Verb::Quit => return Ok(Done::Nothing),
    }
    Ok(Done::Ok)
}
