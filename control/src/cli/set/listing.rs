//! Listings: fetched page by page, printed as they come.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use super::Session;
use crate::api::protocol::{SetEntry, SetInfo, SetPage};
use crate::api::{Client, Request, Response};
use crate::cli::Exit;
use crate::cli::client::unexpected;
use crate::ipset::{Form, quoted};

/// Elements asked for at a time.
const PAGE: u32 = 4_096;

impl Session {
    /// `list` and `save`.
    pub(super) fn list(self, form: Form, name: Option<String>) -> Exit {
        let output = self.speaker.output;
        let sets = match self.ask(Request::ShowSets { name }, &[]) {
            Ok(Response::Sets { sets }) => sets,
            Ok(_) => return unexpected(&output),
            Err(exit) => return exit,
        };
        let file = self.parsed.options.file.clone().filter(|file| file != "-");
        let written = match file {
            None => self.write(&sets, form, &mut BufWriter::new(io::stdout().lock())),
            Some(path) => match File::create(&path) {
                Ok(file) => self.write(&sets, form, &mut BufWriter::new(file)),
                Err(error) => {
                    self.speaker.error(format_args!("{path}: {error}"));
                    return Exit::Refused;
                }
            },
        };
        match written {
            Ok(()) => Exit::Ok,
            Err(Stop::Exit(exit)) => exit,
            // A reader that went away is not an error.
            Err(Stop::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Ok,
            Err(Stop::Io(error)) => {
                self.speaker.error(error);
                Exit::Environment
            }
        }
    }

    fn write(&self, sets: &[SetInfo], form: Form, to: &mut impl Write) -> Result<(), Stop> {
        let options = &self.parsed.options;
        if options.names {
            for set in sets {
                match self.parsed.json {
                    true => json(to, &serde_json::json!({"name": set.name}))?,
                    false => writeln!(to, "{}", set.name)?,
                }
            }
            return Ok(to.flush()?);
        }
        let mut client = self.connect().map_err(Stop::Exit)?;
        // Lists come last where they are to be read back: their members are made before.
        let (lists, others): (Vec<_>, Vec<_>) =
            sets.iter().partition(|set| form == Form::Save && set.kind == "list:set");
        for (index, set) in others.into_iter().chain(lists).enumerate() {
            match (self.parsed.json, form) {
                (true, _) => json(to, set)?,
                (false, Form::Plain) => plain(to, set, index > 0, options.terse)?,
                (false, Form::Save) => {
                    let (name, kind) = (quoted(&set.name), &set.kind);
                    writeln!(to, "create {name} {kind} {}", set.header)?;
                }
            }
            if !options.terse {
                self.elements(&mut client, set, form, to)?;
            }
        }
        Ok(to.flush()?)
    }

    fn elements(
        &self,
        client: &mut Client,
        set: &SetInfo,
        form: Form,
        to: &mut impl Write,
    ) -> Result<(), Stop> {
        let mut cursor = Some(0);
        let mut held = Vec::new();
        while let Some(from) = cursor {
            let name = set.name.clone();
            let request = Request::ShowSetEntries { name, cursor: from, limit: PAGE };
            let SetPage { entries, next } = match client.call(request) {
                Ok(Response::SetEntries(page)) => page,
                Ok(_) => return Err(Stop::Exit(unexpected(&self.speaker.output))),
                Err(error) => return Err(Stop::Exit(self.speaker.failed(&error, &[]))),
            };
            cursor = next;
            if self.parsed.options.sorted {
                held.extend(entries);
            } else {
                entries.iter().try_for_each(|entry| self.element(set, entry, form, to))?;
            }
        }
        if set.kind != "list:set" {
            held.sort_by_cached_key(|entry| order(&entry.element));
        }
        held.iter().try_for_each(|entry| self.element(set, entry, form, to))
    }

    fn element(
        &self,
        set: &SetInfo,
        entry: &SetEntry,
        form: Form,
        to: &mut impl Write,
    ) -> Result<(), Stop> {
        match (self.parsed.json, form) {
            (true, _) => {
                let mut value = serde_json::to_value(entry).unwrap_or_default();
                value["set"] = set.name.clone().into();
                json(to, &value)
            }
            (false, Form::Plain) => Ok(writeln!(to, "{}", entry.text)?),
            (false, Form::Save) => Ok(writeln!(to, "add {} {}", quoted(&set.name), entry.text)?),
        }
    }
}

/// Why a listing ends early.
enum Stop {
    Exit(Exit),
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn json(to: &mut impl Write, value: &impl serde::Serialize) -> Result<(), Stop> {
    serde_json::to_writer(&mut *to, value).map_err(io::Error::from)?;
    Ok(to.write_all(b"\n")?)
}

fn plain(to: &mut impl Write, set: &SetInfo, another: bool, terse: bool) -> Result<(), Stop> {
    if another {
        writeln!(to)?;
    }
    let SetInfo { name, kind, revision, header, memory_bytes, references, entries } = set;
    writeln!(to, "Name: {name}\nType: {kind}\nRevision: {revision}\nHeader: {header}")?;
    writeln!(to, "Size in memory: {memory_bytes}\nReferences: {references}")?;
    writeln!(to, "Number of entries: {entries}")?;
    if !terse {
        writeln!(to, "Members:")?;
    }
    Ok(())
}

/// Numbers within an element in their order, not in that of their digits.
pub(super) fn order(element: &str) -> Vec<(u128, String)> {
    let address = |part: &str| {
        let bare = part.split('/').next().unwrap_or_default();
        bare.parse::<std::net::IpAddr>().ok().map(|address| match address {
            std::net::IpAddr::V4(v4) => u128::from(u32::from(v4)),
            std::net::IpAddr::V6(v6) => u128::from(v6),
        })
    };
    let parts = element.split(',').map(|part| {
        let number = part.rsplit(':').next().and_then(|text| text.parse().ok());
        (address(part).or(number).unwrap_or_default(), part.to_owned())
    });
    parts.collect()
}
