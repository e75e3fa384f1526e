//! What was in force, when, by whom and why: policies by their content, and a chain of records.
//!
//! `record` is what is said of a change, `chain` how records hang together and what damage
//! looks like, `store` the files, `name` how people call what is stored (`@1`, `@3fa9c1`,
//! `@r17`), `pending` the confirmation that a change waits for.
//!
//! Life cycle of a record: [`History::prepare`] puts the texts and a draft on disk, before the
//! policy is exchanged; [`History::commit`] makes it part of the chain by a rename. So a policy
//! that cannot be recorded is known before it is in force. Limits: records by number and age,
//! texts by what records refer to, fields by [`FIELD_MAX`].
//!
//! Sums find accidents and careless hands. Whoever may write the directory and takes the trouble
//! to compute all sums anew is not found out: copy `head.json` to another machine for that.

mod chain;
mod name;
pub mod pending;
mod record;
mod store;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

use thiserror::Error;

pub use chain::Damage;
pub use name::{Name, NameError};
pub use pending::{Moment, Pending};
pub use record::{Action, Draft, PolicyRef, Record, TextRef, Who};
pub use store::{History, Keep, Prepared};

/// Longest text of a reason, an approver or a ticket, in bytes.
pub const FIELD_MAX: usize = 1024;

/// Why something cannot be recorded or found.
#[derive(Debug, Error)]
pub enum HistoryError {
    /// A file operation failed.
    #[error("history {path}: cannot {call}: {source}")]
    Io {
        /// The file or directory.
        path: String,
        /// What was tried.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// What is asked for is not what was stored.
    #[error("the history is damaged: {0}; `portcullis history --verify` tells all of it")]
    Damaged(Damage),
    /// Nothing is called that.
    #[error("{0}")]
    Name(#[from] NameError),
    /// A reason, approver or ticket that cannot be stored.
    #[error("{field} must be one line of at most {FIELD_MAX} bytes")]
    Field {
        /// Which.
        field: &'static str,
    },
}

impl HistoryError {
    /// Whether it is about the place and not about what was asked.
    pub fn is_io(&self) -> bool {
        matches!(self, Self::Io { .. })
    }
}

fn failed(path: &Path, call: &'static str) -> impl FnOnce(io::Error) -> HistoryError {
    let path = path.display().to_string();
    move |source| HistoryError::Io { path, call, source }
}

/// A time for people: UTC, to the second.
pub fn stamp(wall_us: u64) -> String {
    let seconds = i64::try_from(wall_us / 1_000_000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |at| at.to_string())
}
