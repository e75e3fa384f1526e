//! State that lasts: connections, with what is translated, `limit` buckets and what rules
//! share by name go to a file, and from there into the next process.
//!
//! `format` is the bytes, `mapped` the file under them, `save` and `restore` the two
//! ways, [`Keeper`] the thread that saves every few seconds. Times in the file
//! relate to the moment of saving; what passed until it is read, by the wall
//! clock, is taken off. A file that is not exactly what was written is refused
//! whole, and put aside for whoever wants to know why.
//!
//! State with a name (lists of `recent`, tables of `hashlimit`, ...) is kept as opaque
//! pieces, see [`crate::compile::pieces`]: who owns a kind adds it to
//! `DynamicState::export_pieces` and `import_pieces`.

mod expected;
mod format;
mod keeper;
mod mapped;
mod restore;
mod save;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

pub use format::Refusal;
pub use keeper::{Keeper, Pace, Progress, Saving};
pub use restore::{Restored, restore};
pub use save::{Saved, Sources, save};

/// Why state cannot be kept.
#[derive(Debug, Error)]
pub enum StateError {
    /// A file operation failed.
    #[error("state file {path}: cannot {call}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What was tried.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Two daemons would overwrite each other's state.
    #[error("state file {path} is in use by another daemon; give this one its own with --state")]
    Taken {
        /// The file.
        path: String,
    },
}

fn failed(path: &Path, call: &'static str) -> impl FnOnce(io::Error) -> StateError {
    let path = path.display().to_string();
    move |source| StateError::Io { path, call, source }
}

/// The place of a state file, ours until dropped.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    _lock: File,
}

impl Place {
    /// Takes the place, and makes its directory if there is none.
    ///
    /// # Errors
    /// Another daemon has it, or the directory cannot be written.
    pub fn take(path: &Path) -> Result<Self, StateError> {
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(failed(path, "create its directory"))?;
        }
        let mut lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(mapped::beside(path, ".lock"))
            .map_err(failed(path, "open its lock file"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(StateError::Taken { path: path.display().to_string() });
        }
        let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        match written {
            // The lock is what counts. Who has it is told where there is room for that.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            written => written.map_err(failed(path, "write its lock file"))?,
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The state file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
