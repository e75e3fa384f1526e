//! The file that LOG lines go to, which may be missing, full, deleted, or without a reader.
//!
//! A file that cannot be opened is made up for by standard error, so that nothing is lost
//! that can be told. A file that is open and cannot be written loses lines, counted. Both
//! are said once, tried again every [`RETRY`], and when it works again the file itself
//! says how many lines it is missing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dataplane::clock::Nanos;

use super::lines::remark;
use super::ring::Way;
use super::rotate::Rotation;

/// How soon a failed file is tried again.
pub(super) const RETRY: Nanos = Nanos::from_secs(2);

/// What became of some lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// In the file, or on standard error where that was wanted.
    pub(super) written: u64,
    /// On standard error in place of the file.
    pub(super) diverted: u64,
    /// Nowhere.
    pub(super) lost: u64,
}

/// Why the file is not written, and what that has cost since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) struct Trouble {
    /// Why.
    pub(in crate::daemon) why: String,
    /// Whether lines go to standard error meanwhile.
    pub(in crate::daemon) diverts: bool,
    /// Lines lost meanwhile.
    pub(in crate::daemon) lost: u64,
    /// Lines on standard error meanwhile.
    pub(in crate::daemon) diverted: u64,
}

/// Where lines go.
#[derive(Debug)]
pub(super) struct Sink {
    path: Option<PathBuf>,
    file: Option<File>,
    rotation: Rotation,
    /// Bytes in the file, and since when it is written.
    length: u64,
    begun: Nanos,
    /// Whether standard error makes up for a file that cannot be opened.
    diverts: bool,
    trouble: Option<Trouble>,
    /// The file ends in the middle of a line.
    torn: bool,
    retry: Nanos,
}

impl Sink {
    /// Into this file, or on standard error without one.
    pub(super) fn new(path: Option<PathBuf>, rotation: Rotation, now: Nanos) -> Self {
        let mut sink = Self {
            path,
            file: None,
            rotation,
            length: 0,
            begun: now,
            diverts: true,
            trouble: None,
            torn: false,
            retry: now,
        };
        sink.tend(now);
        sink
    }

    /// Loses what has no file instead of writing it on standard error.
    pub(super) fn without_diversion(self) -> Self {
        Self { diverts: false, ..self }
    }

    /// Into another file, which is open.
    pub(super) fn turn_to(&mut self, target: Option<(PathBuf, File)>, now: Nanos) {
        let (path, file) = target.unzip();
        self.length = file.as_ref().map_or(0, length_of);
        (self.path, self.file, self.begun) = (path, file, now);
        (self.trouble, self.torn) = (None, false);
    }

    /// Opens the file anew, as after a rotation.
    pub(super) fn reopen(&mut self, now: Nanos) {
        self.file = None;
        self.retry = now;
        self.tend(now);
    }

    /// Where lines are to go.
    pub(super) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Why the file is not written, if it is not.
    pub(super) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// Opens what can be opened again. Cheap when nothing is wrong.
    pub(super) fn tend(&mut self, now: Nanos) {
        let Some(path) = self.path.clone() else { return };
        if self.file.as_ref().is_some_and(is_deleted) {
            self.file = None;
            self.torn = false;
            self.retry = now;
        }
        if self.file.is_some() || now < self.retry {
            return;
        }
        self.retry = now + RETRY;
        match open(&path) {
            Ok(file) => {
                self.length = length_of(&file);
                self.begun = now;
                self.torn &= self.length > 0;
                self.file = Some(file);
                self.recover();
            }
            Err(error) => self.fail(format!("cannot be opened: {error}"), self.diverts),
        }
    }

    /// The file is open again: whether it can be written shows with the first line.
    fn recover(&mut self) {
        let (Some(trouble), Some(file)) = (&self.trouble, &mut self.file) else { return };
        let (lost, diverted) = (trouble.lost, trouble.diverted);
        let gap = match (lost, diverted) {
            (0, 0) => String::new(),
            (lost, 0) => format!("{lost} lines lost"),
            (0, diverted) => format!("{diverted} lines are on standard error"),
            (lost, diverted) => {
                format!("{lost} lines lost, {diverted} lines are on standard error")
            }
        };
        if !gap.is_empty() {
            let mut line = remark(&gap);
            if self.torn {
                line.insert(0, b'\n');
            }
            self.length += line.len() as u64;
            if let Err((_, error)) = Way::Plain.write_whole(file, &line) {
                self.file = None;
                return self.fail(format!("cannot be written: {error}"), false);
            }
            self.torn = false;
        }
        let path = self.path.as_deref().unwrap_or(Path::new("")).display();
        match gap.is_empty() {
            true => tracing::warn!("log file {path} can be written again"),
            false => tracing::warn!("log file {path} can be written again: {gap}"),
        }
        self.trouble = None;
    }

    /// Says why, once for as long as it stays the same.
    fn fail(&mut self, why: String, diverts: bool) {
        let path = self.path.as_deref().unwrap_or(Path::new("")).display();
        if self.trouble.as_ref().map(|trouble| &trouble.why) != Some(&why) {
            let meanwhile = match diverts {
                true => "LOG lines go to standard error",
                false => "LOG lines are lost",
            };
            tracing::error!("log file {path} {why}; {meanwhile} until it can");
        }
        let before = self.trouble.take();
        let (lost, diverted) = before.map_or((0, 0), |it| (it.lost, it.diverted));
        self.trouble = Some(Trouble { why, diverts, lost, diverted });
    }

    /// Turns the file over when it is due. One that cannot be moved is written on.
    fn rotate(&mut self, more: usize, now: Nanos) {
        let (Some(path), Some(file)) = (&self.path, &self.file) else { return };
        let age = now.saturating_sub(self.begun);
        let plain = file.metadata().is_ok_and(|meta| meta.is_file());
        if !plain || self.torn || !self.rotation.is_due(self.length, more as u64, age) {
            return;
        }
        match self.rotation.turn(path) {
            Ok(()) => self.reopen(now),
            Err(error) => {
                tracing::error!("log file {} cannot be turned over: {error}", path.display());
                // Not at every line.
                (self.length, self.begun) = (0, now);
            }
        }
    }

    /// Writes whole lines.
    pub(super) fn write(&mut self, batch: &[u8], now: Nanos, way: &mut Way) -> Fate {
        self.tend(now);
        self.rotate(batch.len(), now);
        let lines = count(batch);
        if self.path.is_none() {
            return match io::stderr().lock().write_all(batch) {
                Ok(()) => Fate { written: lines, ..Fate::default() },
                Err(_) => Fate { lost: lines, ..Fate::default() },
            };
        }
        let Some(file) = &mut self.file else { return self.without_file(batch) };
        let Err((written, error)) = way.write_whole(file, batch) else {
            self.length += batch.len() as u64;
            return Fate { written: lines, ..Fate::default() };
        };
        let done = &batch[..written];
        self.torn = done.last().is_some_and(|last| *last != b'\n');
        self.file = None;
        self.retry = now + RETRY;
        self.fail(format!("cannot be written: {error}"), false);
        let fate = Fate { written: count(done), diverted: 0, lost: lines - count(done) };
        self.remember(fate);
        fate
    }

    fn without_file(&mut self, batch: &[u8]) -> Fate {
        let lines = count(batch);
        let diverts = self.diverts && self.trouble.as_ref().is_some_and(|it| it.diverts);
        let fate = match diverts && io::stderr().lock().write_all(batch).is_ok() {
            true => Fate { diverted: lines, ..Fate::default() },
            false => Fate { lost: lines, ..Fate::default() },
        };
        self.remember(fate);
        fate
    }

    fn remember(&mut self, fate: Fate) {
        if let Some(trouble) = &mut self.trouble {
            trouble.lost += fate.lost;
            trouble.diverted += fate.diverted;
        }
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Whether nobody can find the file any more.
pub(super) fn is_deleted(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.nlink() == 0)
}

fn length_of(file: &File) -> u64 {
    file.metadata().map_or(0, |meta| meta.len())
}

/// Whether [`open`] would succeed, without making the file.
///
/// # Errors
/// As there.
pub(in crate::daemon) fn can_open(path: &Path) -> io::Result<()> {
    use rustix::fs::{Access, access};
    if path.try_exists()? {
        return open(path).map(drop);
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    access(directory.unwrap_or(Path::new(".")), Access::WRITE_OK | Access::EXEC_OK)?;
    Ok(())
}

/// Opens a log file for appending.
///
/// # Errors
/// As the system says; a FIFO without a reader is one.
pub(in crate::daemon) fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // A FIFO must not block, neither now nor when its reader is slow.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)
}
