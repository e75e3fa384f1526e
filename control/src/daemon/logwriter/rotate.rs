//! Rotation: a file that is large or old enough becomes `FILE.1`, the older ones move up,
//! and the oldest goes.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use dataplane::clock::Nanos;

/// When a file is turned over, and how many are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Before a file is longer than so many bytes.
    pub bytes: Option<u64>,
    /// When a file is so old.
    pub age: Option<Nanos>,
    /// How many files are kept besides the one that is written.
    pub keep: u32,
}

impl Rotation {
    /// Whether a file of `length` bytes, begun `age` ago, is due before `more` are written.
    pub(super) fn is_due(&self, length: u64, more: u64, age: Nanos) -> bool {
        length > 0
            && (self.bytes.is_some_and(|most| length + more > most)
                || self.age.is_some_and(|oldest| age >= oldest))
    }

    /// Moves the files.
    ///
    /// # Errors
    /// When the newest cannot be moved. Older ones that cannot are overwritten.
    pub(super) fn turn(&self, path: &Path) -> io::Result<()> {
        for number in (1..self.keep).rev() {
            let moved = std::fs::rename(numbered(path, number), numbered(path, number + 1));
            if let Err(error) = moved
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("rotating {}: {error}", path.display());
            }
        }
        match self.keep {
            0 => std::fs::remove_file(path),
            _ => std::fs::rename(path, numbered(path, 1)),
        }
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}
