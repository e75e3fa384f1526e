//! Files of packets that NFLOG captured: one for each group, or one for all.
//!
//! A file that cannot be written loses its packets, counted, and is tried again; a record
//! is in a file whole or not at all.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use dataplane::clock::Nanos;

use super::ring::Way;
use super::rotate::Rotation;
use super::sink::RETRY;
use crate::log::nflog::{self, Link};

/// Bytes of a capture file's head.
const HEAD: u64 = 24;
/// Groups that have a file of their own; others share one.
const FILES_MAX: usize = 64;
/// Packets are written together up to this many bytes.
const BATCH_BYTES: usize = 256 << 10;

/// How packets are captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureSettings {
    /// The directory.
    pub directory: PathBuf,
    /// Whether each group has a file of its own.
    pub split: bool,
    /// What a record begins with.
    pub link: Link,
    /// When files are turned over.
    pub rotation: Rotation,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) written: u64,
    pub(super) lost: u64,
}

/// The files.
#[derive(Debug)]
pub(super) struct Captures {
    settings: CaptureSettings,
    files: BTreeMap<Option<u16>, CaptureFile>,
}

#[derive(Debug)]
struct CaptureFile {
    path: PathBuf,
    file: Option<File>,
    length: u64,
    begun: Nanos,
    retry: Nanos,
    /// Said already.
    trouble: Option<String>,
    batch: Vec<u8>,
    packets: u64,
}

impl Captures {
    pub(super) fn new(settings: CaptureSettings) -> Self {
        Self { settings, files: BTreeMap::new() }
    }

    /// Where files are, and how records begin.
    pub(super) fn link(&self) -> Link {
        self.settings.link
    }

    /// The batch that a packet of this group goes to. What is full is written first.
    pub(super) fn batch(&mut self, group: u16, now: Nanos, way: &mut Way) -> (&mut Vec<u8>, Kept) {
        let own = self.settings.split
            && (self.files.contains_key(&Some(group)) || self.files.len() < FILES_MAX);
        let key = own.then_some(group);
        let directory = &self.settings.directory;
        let file = self.files.entry(key).or_insert_with(|| {
            let name = key.map_or("nflog.pcap".to_owned(), |group| format!("nflog-{group}.pcap"));
            CaptureFile::new(directory.join(name), now)
        });
        let kept = match file.batch.len() >= BATCH_BYTES {
            true => file.flush(&self.settings, now, way),
            false => Kept::default(),
        };
        file.packets += 1;
        (&mut file.batch, kept)
    }

    /// Writes what is left of all batches.
    pub(super) fn flush(&mut self, now: Nanos, way: &mut Way) -> Kept {
        let mut all = Kept::default();
        for file in self.files.values_mut().filter(|file| file.packets > 0) {
            let kept = file.flush(&self.settings, now, way);
            all.written += kept.written;
            all.lost += kept.lost;
        }
        all
    }

    /// Opens every file anew, as after a rotation from outside.
    pub(super) fn reopen(&mut self, now: Nanos) {
        for file in self.files.values_mut() {
            (file.file, file.retry) = (None, now);
        }
    }

    /// Why files are not written, if one is not.
    pub(super) fn trouble(&self) -> Option<String> {
        self.files.values().find_map(|file| file.trouble.clone())
    }
}

impl CaptureFile {
    fn new(path: PathBuf, now: Nanos) -> Self {
        Self {
            path,
            file: None,
            length: 0,
            begun: now,
            retry: now,
            trouble: None,
            batch: Vec::new(),
            packets: 0,
        }
    }

    fn flush(&mut self, settings: &CaptureSettings, now: Nanos, way: &mut Way) -> Kept {
        let packets = std::mem::take(&mut self.packets);
        let batch = std::mem::take(&mut self.batch);
        let outcome = self.append(&batch, settings, now, way);
        self.batch = batch;
        self.batch.clear();
        match outcome {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    tracing::warn!("{} can be written again", self.path.display());
                }
                Kept { written: packets, lost: 0 }
            }
            Err(error) => {
                let why = format!("{} cannot be written: {error}", self.path.display());
                if self.trouble.as_ref() != Some(&why) {
                    tracing::error!("capture file {why}; captured packets are lost until it can");
                    self.trouble = Some(why);
                }
                Kept { written: 0, lost: packets }
            }
        }
    }

    fn append(
        &mut self,
        batch: &[u8],
        settings: &CaptureSettings,
        now: Nanos,
        way: &mut Way,
    ) -> io::Result<()> {
        let age = now.saturating_sub(self.begun);
        let full =
            self.length > HEAD && settings.rotation.is_due(self.length, batch.len() as u64, age);
        if full || self.file.as_ref().is_some_and(super::sink::is_deleted) {
            self.file = None;
            self.retry = now;
        }
        if full {
            settings.rotation.turn(&self.path)?;
        }
        if self.file.is_none() {
            if now < self.retry {
                return Err(io::Error::other("it failed a moment ago"));
            }
            self.retry = now + RETRY;
            self.open(settings, now)?;
        }
        let Some(file) = &mut self.file else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err((_, error)) = way.write_whole(file, batch) {
            // Half a record would make the rest unreadable.
            let cut = file.set_len(self.length);
            self.file = None;
            self.retry = now + RETRY;
            cut?;
            return Err(error);
        }
        self.length += batch.len() as u64;
        Ok(())
    }

    /// Goes on with the file that is there, if it is one of ours; else turns it over.
    fn open(&mut self, settings: &CaptureSettings, now: Nanos) -> io::Result<()> {
        let head = nflog::file_header(settings.link);
        if let Some(found) = head_of(&self.path)?
            && found != head
        {
            Rotation { keep: settings.rotation.keep.max(1), ..settings.rotation }
                .turn(&self.path)?;
        }
        let mut options = OpenOptions::new();
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut file = options.append(true).create(true).mode(0o640).open(&self.path)?;
        self.length = file.metadata()?.len();
        if self.length == 0 {
            use std::io::Write as _;
            file.write_all(&head)?;
            self.length = HEAD;
        }
        (self.file, self.begun) = (Some(file), now);
        Ok(())
    }
}

/// The head of a file that has one; nothing for one that is missing or empty.
fn head_of(path: &Path) -> io::Result<Option<[u8; HEAD as usize]>> {
    use std::io::Read as _;
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() == 0 {
        return Ok(None);
    }
    let mut head = [0; HEAD as usize];
    match file.read_exact(&mut head) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(Some(head)),
    }
}
