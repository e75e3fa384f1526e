//! The files of a history: `records/N.json`, `objects/SHA256`, `head.json`, `pending.json`.
//!
//! Every file is written beside its place, put on disk, and then renamed. A record is in force
//! with its rename; `head.json` follows, and a record that is one ahead of it is taken in when
//! the history is opened again.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use dataplane::clock::Nanos;

use super::chain::{Head, links, read_record};
use super::record::{PolicyRef, Record, TextRef, sum_of};
use super::{Damage, Draft, HistoryError, Name, NameError, Pending, failed};
use crate::api::protocol::Source;
use crate::daemon::policy::Texts;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Records at most.
    pub records: usize,
    /// How long.
    pub age: Nanos,
}

/// A history on disk. One process writes it: the daemon that has its state file.
#[derive(Debug)]
pub struct History {
    directory: PathBuf,
    keep: Keep,
    head: Head,
    records: Vec<Record>,
    damage: Vec<Damage>,
}

/// A record that is on disk, but not yet part of the chain.
#[derive(Debug)]
pub struct Prepared {
    record: Record,
    draft: PathBuf,
    committed: bool,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_file(&self.draft);
        }
    }
}

impl History {
    /// Opens the history in `directory`, which is made if it is not there. Damage is kept and
    /// told; it hinders nobody from going on.
    ///
    /// # Errors
    /// The directory cannot be made, read or written.
    pub fn open(directory: &Path, keep: Keep) -> Result<Self, HistoryError> {
        for place in [directory.to_owned(), directory.join("records"), directory.join("objects")] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&place)
                .map_err(failed(&place, "make the directory"))?;
        }
        let mut history = Self::read(directory)?;
        history.keep = keep;
        Ok(history)
    }

    /// Reads the history in `directory`, and changes nothing.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn read(directory: &Path) -> Result<Self, HistoryError> {
        let mut damage = Vec::new();
        let numbers = numbers(&directory.join("records"))?;
        let path = directory.join("head.json");
        let head = match fs::read(&path) {
            Ok(bytes) => Head::read(&bytes).map_err(|found| damage.push(found)).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The very first record may have had no time for a head.
                if numbers.iter().any(|number| *number > 1) {
                    damage.push(Damage::Head("missing"));
                }
                (!numbers.iter().any(|number| *number > 1)).then(Head::empty)
            }
            Err(error) => return Err(failed(&path, "read")(error)),
        };
        let (first, last) = (numbers.first().copied(), numbers.last().copied());
        let trusted = head.is_some();
        let mut head = head.unwrap_or_else(|| Head {
            first: first.unwrap_or(1),
            last: last.unwrap_or(0),
            ..Head::empty()
        });
        let mut records = Vec::new();
        for number in head.first..=head.last {
            match fs::read(record_path(directory, number)) {
                Ok(bytes) => match read_record(&bytes, number) {
                    Ok(record) => records.push(record),
                    Err(found) => damage.push(found),
                },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    damage.push(Damage::Missing(number));
                }
                Err(error) => {
                    return Err(failed(&record_path(directory, number), "read")(error));
                }
            }
        }
        if trusted {
            damage.extend(links(&head, &records));
            // One whose head was not written any more.
            let next = head.last + 1;
            if let Ok(bytes) = fs::read(record_path(directory, next)) {
                match read_record(&bytes, next) {
                    Ok(record) if record.previous == head.last_sum => {
                        (head.last, head.last_sum) = (next, record.sum.clone());
                        head = head.sealed();
                        records.push(record);
                    }
                    Ok(_) => damage.push(Damage::Unchained(next)),
                    Err(found) => damage.push(found),
                }
            }
        } else if let (Some(oldest), Some(newest)) = (records.first(), records.last()) {
            (head.first_previous, head.last_sum) = (oldest.previous.clone(), newest.sum.clone());
            damage.extend(links(&head, &records));
        }
        let keep = Keep { records: usize::MAX, age: Nanos(u64::MAX) };
        Ok(Self { directory: directory.to_owned(), keep, head, records, damage })
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// All records that are kept and readable, the oldest first.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// What was found wrong when it was opened.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Reads everything again and says all that is wrong.
    ///
    /// # Errors
    /// As [`History::read`].
    pub fn verify(&self) -> Result<Vec<Damage>, HistoryError> {
        let found = Self::read(&self.directory)?;
        let mut damage = found.damage.clone();
        // What this process has seen: a chain that was cut, or exchanged as a whole.
        if (found.head.last, &found.head.last_sum) != (self.head.last, &self.head.last_sum)
            && found.head.last <= self.head.last
        {
            damage.push(Damage::End { found: found.head.last, wanted: self.head.last });
        }
        let mut seen = BTreeSet::new();
        for record in &found.records {
            for text in record.policy.texts().filter(|text| seen.insert(text.sha256.clone())) {
                match self.text(record.number, text) {
                    Ok(_) => {}
                    Err(HistoryError::Damaged(found)) => damage.push(found),
                    Err(error) => return Err(error),
                }
            }
        }
        damage.dedup();
        Ok(damage)
    }

    /// Puts the texts and a draft of the record on disk.
    ///
    /// # Errors
    /// There is no room, or a field is too long. Nothing was recorded then.
    pub fn prepare(&self, draft: &Draft, texts: &Texts) -> Result<Prepared, HistoryError> {
        draft.check()?;
        let policy = self.keep(texts)?;
        let record = Record::seal(draft, policy, self.head.last + 1, &self.head.last_sum);
        let path = beside(&record_path(&self.directory, record.number));
        write_synced(&path, &record.bytes())?;
        Ok(Prepared { record, draft: path, committed: false })
    }

    /// Puts texts on disk, until the next record that does not refer to them.
    ///
    /// # Errors
    /// There is no room.
    pub fn keep(&self, texts: &Texts) -> Result<PolicyRef, HistoryError> {
        let policy = PolicyRef::of(texts);
        let sources = texts.v4.iter().chain(&texts.v6).chain(&texts.sets);
        for (source, text) in sources.zip(policy.texts()) {
            let path = self.object(&text.sha256);
            // One that is there and was changed is written anew.
            let there = fs::read(&path).is_ok_and(|bytes| sum_of(&bytes) == text.sha256);
            if !there {
                write_whole(&path, source.text.as_bytes())?;
            }
        }
        Ok(policy)
    }

    /// Makes a record part of the chain.
    ///
    /// # Errors
    /// The file cannot be renamed: it was not recorded.
    pub fn commit(&mut self, mut prepared: Prepared) -> Result<u64, HistoryError> {
        let record = prepared.record.clone();
        let path = record_path(&self.directory, record.number);
        fs::rename(&prepared.draft, &path).map_err(failed(&path, "rename"))?;
        prepared.committed = true;
        sync_directory(&path);
        let number = record.number;
        (self.head.last, self.head.last_sum) = (number, record.sum.clone());
        let now_us = record.at_us;
        self.records.push(record);
        self.prune(now_us);
        self.head = self.head.clone().sealed();
        // Without it the record is taken in at the next start.
        write_whole(&self.directory.join("head.json"), &self.head.bytes())?;
        self.sweep();
        Ok(number)
    }

    /// Records without texts of their own: what is in force stays.
    ///
    /// # Errors
    /// As [`History::prepare`].
    pub fn note(&mut self, draft: &Draft, texts: &Texts) -> Result<u64, HistoryError> {
        let prepared = self.prepare(draft, texts)?;
        self.commit(prepared)
    }

    /// Moves the beginning of the chain behind what is too old. Emergencies that nobody has
    /// reconciled stay, as far as there is room.
    fn prune(&mut self, now_us: u64) {
        let oldest_us = now_us.saturating_sub(self.keep.age.0 / 1_000);
        let open: BTreeSet<u64> = self.open_emergencies().map(|record| record.number).collect();
        let count = self.records.len();
        let gone = |(at, record): &(usize, &Record)| {
            let left = count - at;
            let old = record.at_us < oldest_us || left > self.keep.records;
            // The policy in force and the one before it are never too old.
            left > 2
                && old
                && (!open.contains(&record.number) || left > self.keep.records.saturating_mul(2))
        };
        let number = self.records.iter().enumerate().take_while(gone).count();
        if let Some(last) = number.checked_sub(1).and_then(|at| self.records.get(at)) {
            (self.head.first, self.head.first_previous) = (last.number + 1, last.sum.clone());
            self.records.drain(..number);
        }
    }

    /// Removes files that nothing refers to any more.
    fn sweep(&self) {
        let records = self.directory.join("records");
        for number in numbers(&records).unwrap_or_default() {
            if number < self.head.first {
                let _ = fs::remove_file(record_path(&self.directory, number));
            }
        }
        let pending = self.pending();
        let policies = self.records.iter().map(|record| &record.policy);
        let waiting = pending.iter().flat_map(|it| [&it.policy, &it.previous]);
        let used: BTreeSet<&str> = policies
            .chain(waiting)
            .flat_map(PolicyRef::texts)
            .map(|text| text.sha256.as_str())
            .collect();
        // What a damaged record refers to is not known: nothing is removed then.
        if !self.damage.is_empty() {
            return;
        }
        let Ok(objects) = fs::read_dir(self.directory.join("objects")) else { return };
        for object in objects.flatten() {
            if object.file_name().to_str().is_none_or(|name| !used.contains(name)) {
                let _ = fs::remove_file(object.path());
            }
        }
    }

    /// Emergencies that nobody has reconciled.
    pub fn open_emergencies(&self) -> impl Iterator<Item = &Record> {
        let closed = |number: u64| {
            let closing = |it: &Record| it.action == super::Action::Reconcile;
            self.records.iter().any(|it| closing(it) && it.about == Some(number))
        };
        self.records.iter().filter(move |record| record.emergency && !closed(record.number))
    }

    /// Policies in force one after the other, the newest first: `@0`, `@1`, ...
    pub fn in_turn(&self) -> Vec<&Record> {
        let mut turns: Vec<&Record> = Vec::new();
        for record in self.records.iter().filter(|record| record.action.installs()) {
            if turns.last().is_none_or(|last| last.policy.id != record.policy.id) {
                turns.push(record);
            }
        }
        turns.reverse();
        turns
    }

    /// The record that put in force what is called so.
    ///
    /// # Errors
    /// Nothing is, or several are.
    pub fn find(&self, name: &Name) -> Result<&Record, NameError> {
        let unknown = || NameError::Unknown(name.to_string());
        match name {
            Name::Back(back) => {
                let turns = self.in_turn();
                let have = turns.len();
                match turns.get(*back) {
                    Some(record) => Ok(record),
                    None if have == 0 => Err(NameError::Empty),
                    None => Err(NameError::TooFar { have }),
                }
            }
            Name::Record(number) => {
                self.records.iter().find(|it| it.number == *number).ok_or_else(unknown)
            }
            Name::Policy(id) => {
                let mut found = self.records.iter().rev().filter(|it| it.policy.id.starts_with(id));
                let first = found.next().ok_or_else(unknown)?;
                match found.all(|other| other.policy.id == first.policy.id) {
                    true => Ok(first),
                    false => Err(NameError::Ambiguous(name.to_string())),
                }
            }
        }
    }

    /// The texts of a record, each checked against its sum.
    ///
    /// # Errors
    /// One is gone or was changed.
    pub fn texts(&self, number: u64, policy: &PolicyRef) -> Result<Texts, HistoryError> {
        let text = |it: &TextRef| self.text(number, it);
        Ok(Texts {
            v4: policy.v4.as_ref().map(text).transpose()?,
            v6: policy.v6.as_ref().map(text).transpose()?,
            sets: policy.sets.iter().map(text).collect::<Result<_, _>>()?,
        })
    }

    fn text(&self, number: u64, text: &TextRef) -> Result<Source, HistoryError> {
        let path = self.object(&text.sha256);
        let (name, sha256) = (text.name.clone(), text.sha256.clone());
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(HistoryError::Damaged(Damage::NoText { number, name, sha256 }));
            }
            Err(error) => return Err(failed(&path, "read")(error)),
        };
        let whole = sum_of(&bytes) == text.sha256;
        match String::from_utf8(bytes) {
            Ok(text) if whole => Ok(Source { name, text }),
            _ => Err(HistoryError::Damaged(Damage::Text { number, name, sha256 })),
        }
    }

    /// The file that a text is stored in, after a look at it.
    ///
    /// # Errors
    /// It is gone or was changed.
    pub fn file_of(&self, number: u64, text: &TextRef) -> Result<PathBuf, HistoryError> {
        self.text(number, text).map(|_| self.object(&text.sha256))
    }

    /// A name for one object; a sum that is none leads nowhere.
    fn object(&self, sha256: &str) -> PathBuf {
        let hex = sha256.len() == 64 && sha256.bytes().all(|it| it.is_ascii_hexdigit());
        self.directory.join("objects").join(if hex { sha256 } else { "not-a-sum" })
    }

    /// What waits for its confirmation. One that was tampered with is none.
    pub fn pending(&self) -> Option<Pending> {
        Pending::read(&fs::read(self.directory.join("pending.json")).ok()?)
    }

    /// Writes down what waits for its confirmation.
    ///
    /// # Errors
    /// It is not on disk.
    pub fn set_pending(&self, pending: &Pending) -> Result<(), HistoryError> {
        write_whole(&self.directory.join("pending.json"), &pending.bytes())
    }

    /// Nothing waits any more.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn clear_pending(&self) -> Result<(), HistoryError> {
        let path = self.directory.join("pending.json");
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(&path, "remove")(error)),
            Ok(()) => {
                sync_directory(&path);
                Ok(())
            }
        }
    }
}

fn record_path(directory: &Path, number: u64) -> PathBuf {
    directory.join("records").join(format!("{number:010}.json"))
}

/// The numbers of all record files, in order.
fn numbers(records: &Path) -> Result<Vec<u64>, HistoryError> {
    let entries = match fs::read_dir(records) {
        Ok(entries) => entries,
        Err(error) => return Err(failed(records, "read")(error)),
    };
    let number = |entry: fs::DirEntry| {
        entry.file_name().to_str()?.strip_suffix(".json")?.parse::<u64>().ok()
    };
    let mut numbers: Vec<u64> = entries.flatten().filter_map(number).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

/// Writes a file that is on disk when this returns, or not there.
fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), HistoryError> {
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| {
        let _ = fs::remove_file(path);
        failed(path, "write")(error)
    })
}

/// The same for a file that takes the place of another.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), HistoryError> {
    let draft = beside(path);
    write_synced(&draft, bytes)?;
    fs::rename(&draft, path).map_err(|error| {
        let _ = fs::remove_file(&draft);
        failed(path, "rename")(error)
    })?;
    sync_directory(path);
    Ok(())
}

/// A rename is only sure when its directory is on disk.
fn sync_directory(path: &Path) {
    if let Some(directory) = path.parent()
        && let Ok(directory) = File::open(directory)
    {
        let _ = directory.sync_all();
    }
}
