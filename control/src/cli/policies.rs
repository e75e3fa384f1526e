//! Policies as commands name them: a file, a directory, a name of the history, or what is live.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::packet::Family;

use super::client::{ask, unexpected};
use super::stored::Place;
use super::{Exit, Output, Socket};
use crate::api::protocol::{FamilyName, Source};
use crate::api::{Request, Response};
use crate::diff::{FileError, PolicyFiles};
use crate::history::{History, Name};
use crate::ipset::{self, Stage};
use crate::iptables::{self, TableNames};
use crate::model::{Ruleset, expiry};
use crate::replay::files;

/// What is in force, by this name.
pub const LIVE: &str = "live";

/// Why there is no policy to look at.
#[derive(Debug)]
pub enum Unreadable {
    /// Its files.
    Files(FileError),
    /// The history, or a text of it.
    History(String),
}

impl Unreadable {
    /// In a line.
    pub fn words(&self) -> String {
        match self {
            Self::Files(error) => error.to_string(),
            Self::History(error) => error.clone(),
        }
    }

    /// Says so.
    pub fn tell(self, output: &Output) -> Exit {
        match self {
            Self::Files(FileError::Job(error)) => super::replay::refuse(&error, output),
            Self::Files(error) => {
                output.error(error);
                Exit::Usage
            }
            Self::History(error) => {
                output.error(error);
                Exit::Refused
            }
        }
    }
}

/// Reads a file, a directory, or a policy of the history, which may be of one family.
///
/// # Errors
/// It cannot be read, or is refused.
pub fn read(
    path: &Path,
    sets: &[PathBuf],
    place: &Place,
    names: &TableNames,
) -> Result<PolicyFiles, Unreadable> {
    match path.to_str().filter(|text| text.starts_with('@')) {
        None => PolicyFiles::read(path, sets, names).map_err(Unreadable::Files),
        Some(name) => stored(name, sets, place, names),
    }
}

fn stored(
    name: &str,
    sets: &[PathBuf],
    place: &Place,
    names: &TableNames,
) -> Result<PolicyFiles, Unreadable> {
    let find = || -> Result<_, crate::history::HistoryError> {
        let history = History::read(&place.history)?;
        let record = history.find(&name.parse::<Name>()?)?;
        let file = |text: &Option<crate::history::TextRef>| {
            text.as_ref().map(|text| history.file_of(record.number, text)).transpose()
        };
        let mut all = Vec::new();
        for text in &record.policy.sets {
            all.push(history.file_of(record.number, text)?);
        }
        Ok((file(&record.policy.v4)?, file(&record.policy.v6)?, all))
    };
    let (v4, v6, stored) = find().map_err(|error| Unreadable::History(error.to_string()))?;
    let job = |error| Unreadable::Files(FileError::Job(error));
    let mut stage = Stage::empty(0, Nanos(0)).tolerant(true);
    for file in stored {
        let text = ipset::read_file(&file);
        let text =
            text.map_err(|error| Unreadable::History(format!("{}: {error}", file.display())))?;
        // What was taken once; sets may have been made anew in between.
        let _ = ipset::read(&mut stage, &text, &file.to_string_lossy(), names);
    }
    files::read_sets_into(&mut stage, sets, names).map_err(job)?;
    let rules = |file: Option<PathBuf>, family| files::read_rules(file.as_deref(), family, names);
    let (v4, v6) = (rules(v4, Family::V4).map_err(job)?, rules(v6, Family::V6).map_err(job)?);
    Ok(PolicyFiles::of(v4, v6, Arc::new(stage.into_registry())))
}

/// What the daemon has in force: as it was applied, or else as it prints it.
///
/// # Errors
/// What is wrong was said.
pub fn live(socket: &Socket, names: &TableNames, output: &Output) -> Result<PolicyFiles, Exit> {
    let (v4, v6, sets) = match ask_quietly(socket, "@0") {
        Some(texts) => texts,
        None => {
            let text = |family| -> Result<Source, Exit> {
                let request = Request::SaveRules { family, counters: false };
                match ask(socket, request, output)? {
                    Response::Saved { text, .. } => Ok(Source { name: LIVE.to_owned(), text }),
                    _ => Err(unexpected(output)),
                }
            };
            (Some(text(FamilyName::V4)?), Some(text(FamilyName::V6)?), Vec::new())
        }
    };
    assembled((v4, v6, sets), names).map_err(|error| {
        output.error(error);
        Exit::Refused
    })
}

/// A policy of the daemon's history; none if it is not there, or is refused now.
pub fn stored_by_daemon(socket: &Socket, name: &str, names: &TableNames) -> Option<PolicyFiles> {
    assembled(ask_quietly(socket, name)?, names).ok()
}

fn assembled((v4, v6, sets): Texts, names: &TableNames) -> Result<PolicyFiles, String> {
    let rules = |source: Option<Source>, family| match source {
        Some(source) => parsed(&source, family, names),
        None => Ok(Ruleset::empty(family)),
    };
    let mut stage = Stage::empty(0, Nanos(0)).tolerant(true);
    for source in &sets {
        // As for stored ones.
        let _ = ipset::read(&mut stage, source.text.as_bytes(), &source.name, names);
    }
    let registry = Arc::new(stage.into_registry());
    Ok(PolicyFiles::of(rules(v4, Family::V4)?, rules(v6, Family::V6)?, registry))
}

type Texts = (Option<Source>, Option<Source>, Vec<Source>);

/// A policy of the daemon's history, if it has one.
fn ask_quietly(socket: &Socket, name: &str) -> Option<Texts> {
    let request = Request::ShowStored { name: name.to_owned() };
    match super::client::try_ask(socket, request) {
        Ok(Response::Stored(stored)) => Some((stored.rules, stored.rules6, stored.sets)),
        _ => None,
    }
}

fn parsed(source: &Source, family: Family, names: &TableNames) -> Result<Ruleset, String> {
    let found = iptables::parse_bytes(source.text.as_bytes(), &source.name, family, names);
    match found {
        Ok(parsed) => Ok(parsed.ruleset),
        Err(findings) => {
            let first = findings.first().map(|it| it.message.clone()).unwrap_or_default();
            Err(format!("{}: {first}", source.name))
        }
    }
}

/// The rules that are in force now: without those that have expired.
pub fn in_force(files: PolicyFiles, now_s: u64) -> PolicyFiles {
    let now = |rules: Ruleset| expiry::in_force(&rules, now_s).unwrap_or(rules);
    PolicyFiles { v4: now(files.v4), v6: now(files.v6), sets: files.sets }
}
