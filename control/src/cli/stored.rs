//! Policies of the history as files: `--rules @1` instead of a path.

use std::path::{Path, PathBuf};

use dataplane::packet::Family;

use crate::config::DEFAULT_HISTORY;
use crate::history::{History, HistoryError, Name};

/// Where the history is.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// The history that names like @1 are looked for in.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_HISTORY)]
    pub history: PathBuf,
}

impl Place {
    /// The file to read: `path`, or what is stored under that name.
    ///
    /// # Errors
    /// It names nothing, or what is damaged.
    pub fn file(&self, path: PathBuf, family: Family) -> Result<PathBuf, String> {
        match path.to_str().filter(|text| text.starts_with('@')) {
            Some(name) => stored(&self.history, name, family),
            None => Ok(path),
        }
    }

    /// What is stored under a name for a family, if that has a policy there.
    ///
    /// # Errors
    /// It names nothing, or what is damaged.
    pub fn policy(&self, name: &str, family: Family) -> Result<Option<PathBuf>, String> {
        find(&self.history, name, family).map_err(|error| error.to_string())
    }

    /// As [`Place::file`], for many.
    ///
    /// # Errors
    /// As [`Place::file`].
    pub fn files(&self, paths: Vec<PathBuf>, family: Family) -> Result<Vec<PathBuf>, String> {
        paths.into_iter().map(|path| self.file(path, family)).collect()
    }
}

fn find(directory: &Path, name: &str, family: Family) -> Result<Option<PathBuf>, HistoryError> {
    let history = History::read(directory)?;
    let record = history.find(&name.parse::<Name>()?)?;
    let text = match family {
        Family::V4 => &record.policy.v4,
        Family::V6 => &record.policy.v6,
    };
    text.as_ref().map(|text| history.file_of(record.number, text)).transpose()
}

fn stored(directory: &Path, name: &str, family: Family) -> Result<PathBuf, String> {
    let words = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    match find(directory, name, family) {
        Ok(Some(path)) => Ok(path),
        Ok(None) => Err(format!("{name} has no {words} policy")),
        Err(error) => Err(error.to_string()),
    }
}
