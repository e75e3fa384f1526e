//! State files in memory: one that is being written beside the one in force, and
//! the one in force when it is read.
//!
//! The room of a file is allocated before it is written through the mapping, so
//! that a full disk is an error and never a signal. What is written becomes the
//! file in force by one rename, after it is safely on disk: whatever happens in
//! between, there is the old file or the new one, whole.

#![allow(unsafe_code, reason = "maps files; the kernel cannot say that nobody else changes them")]

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use memmap2::{Mmap, MmapMut};
use rustix::fs::{FallocateFlags, fallocate};

/// A file grows by at least this much.
const STEP: usize = 1 << 20;

/// A name beside `path`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// A file that takes the place of another once it is complete.
#[derive(Debug)]
pub(super) struct Draft {
    file: File,
    map: MmapMut,
    used: usize,
    draft: PathBuf,
    path: PathBuf,
    kept: bool,
}

impl Draft {
    /// Begins a file that is to become `path`, with room for `expected` bytes.
    pub(super) fn begin(path: &Path, expected: usize) -> io::Result<Self> {
        let draft = beside(path, ".new");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        let room = expected.max(STEP);
        let map = reserve(&file, 0, room).and_then(|()| map(&file)).inspect_err(|_| {
            let _ = std::fs::remove_file(&draft);
        })?;
        Ok(Self { file, map, used: 0, draft, path: path.to_owned(), kept: false })
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.used
    }

    /// Adds bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let end = self.used + bytes.len();
        if end > self.map.len() {
            let old = self.map.len();
            let room = (old + old / 2).max(end).next_multiple_of(STEP);
            reserve(&self.file, old, room)?;
            self.map = map(&self.file)?;
        }
        self.map[self.used..end].copy_from_slice(bytes);
        self.used = end;
        Ok(())
    }

    /// Replaces bytes that were added before.
    pub(super) fn replace(&mut self, at: usize, bytes: &[u8]) {
        self.map[..self.used][at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Puts it in force. Returns when it is on disk.
    pub(super) fn publish(mut self) -> io::Result<()> {
        self.map.flush()?;
        // Nothing touches the mapping from here on.
        self.file.set_len(self.used as u64)?;
        self.file.sync_all()?;
        std::fs::rename(&self.draft, &self.path)?;
        self.kept = true;
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            let _ = std::fs::remove_file(&self.draft);
        }
    }
}

/// Allocates `from..to` of the file for good.
fn reserve(file: &File, from: usize, to: usize) -> io::Result<()> {
    use rustix::io::Errno;
    match fallocate(file, FallocateFlags::empty(), from as u64, (to - from) as u64) {
        Ok(()) => Ok(()),
        // A file system that cannot allocate can be written to.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = vec![0; STEP];
            let mut at = from;
            while at < to {
                let length = STEP.min(to - at);
                file.write_all_at(&zeros[..length], at as u64)?;
                at += length;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn map(file: &File) -> io::Result<MmapMut> {
    // SAFETY: the file is ours alone: mode 0600, under a lock that other daemons
    // respect, and shortened only when the last byte has been written.
    unsafe { MmapMut::map_mut(file) }
}

/// The whole file at `path`, `None` when there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<Mmap>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // SAFETY: a state file is replaced, never changed in place, and the lock keeps
    // other daemons away while we read.
    unsafe { Mmap::map(&file) }.map(Some)
}
