//! Two policies from files or directories, and how their texts differ.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::packet::Family;
use dataplane::sets::Registry;
use similar::TextDiff;
use thiserror::Error;

use super::report::Table;
use crate::check::Sets;
use crate::ipset;
use crate::iptables::{Names, print};
use crate::model::Ruleset;
use crate::replay::files::{JobError, read_rules, read_sets};

/// Lines around a change.
const CONTEXT: usize = 2;

/// Why a policy cannot be read.
#[derive(Debug, Error)]
pub enum FileError {
    /// A file cannot be read, or is refused.
    #[error(transparent)]
    Job(#[from] JobError),
    /// A directory without a policy.
    #[error("{0}: no rules.v4, rules.v6 or *.rules in it; name the files")]
    Nothing(PathBuf),
}

/// A policy as its files say it.
#[derive(Debug)]
pub struct PolicyFiles {
    /// IPv4.
    pub v4: Ruleset,
    /// IPv6.
    pub v6: Ruleset,
    /// The sets.
    pub sets: Arc<Registry>,
}

impl PolicyFiles {
    /// Reads a directory (`rules.v4`, `rules.v6`, `sets/`), or one file of rules: of IPv6 if its
    /// name ends in `v6` or `6`. `more` are further files of sets. Sets that are in no file are
    /// taken for empty ones.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read(path: &Path, more: &[PathBuf], names: &dyn Names) -> Result<Self, FileError> {
        let (mut v4, mut v6, mut sets) = (None, None, more.to_vec());
        if path.is_dir() {
            let there = |name: &str| Some(path.join(name)).filter(|it| it.exists());
            (v4, v6) = (there("rules.v4"), there("rules.v6"));
            sets.extend(there("sets"));
            if v4.is_none() && v6.is_none() {
                return Err(FileError::Nothing(path.to_owned()));
            }
        } else {
            let stem = path.file_name().unwrap_or_default().to_string_lossy();
            let six = ["v6", "6", "v6.rules", "6.rules", "v6.save"];
            match six.iter().any(|end| stem.ends_with(end)) {
                true => v6 = Some(path.to_owned()),
                false => v4 = Some(path.to_owned()),
            }
        }
        Self::read_files(v4.as_deref(), v6.as_deref(), &sets, names)
    }

    /// Reads these files of rules and sets.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read_files(
        v4: Option<&Path>,
        v6: Option<&Path>,
        sets: &[PathBuf],
        names: &dyn Names,
    ) -> Result<Self, FileError> {
        let v4 = read_rules(v4, Family::V4, names)?;
        let v6 = read_rules(v6, Family::V6, names)?;
        let registry = Arc::new(read_sets(sets, 0, Nanos(0), names)?);
        Ok(Self::of(v4, v6, registry))
    }

    /// Of rules that were read, with empty sets for those that they name and nobody declared.
    pub fn of(v4: Ruleset, v6: Ruleset, registry: Arc<Registry>) -> Self {
        let sets = Sets { registry, assume: true };
        for rules in [&v4, &v6] {
            // Notes on what was made up; `check --assume-sets` prints them.
            sets.complete(rules, "");
        }
        Self { v4, v6, sets: sets.registry }
    }
}

/// What every set says, by name.
fn listed(sets: &Registry, names: &dyn Names) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for slot in sets.list() {
        let mut lines = BTreeSet::new();
        let Ok(()) = ipset::print::save(&slot.name(), &slot.set(), names, Nanos(0), |text| {
            lines.extend(text.lines().map(str::to_owned));
            Ok::<(), std::convert::Infallible>(())
        });
        all.insert(slot.name().as_str().to_owned(), lines);
    }
    all
}

/// Sets that are not the same in both.
pub fn changed_sets(old: &Registry, new: &Registry, names: &dyn Names) -> BTreeSet<String> {
    let (old, new) = (listed(old, names), listed(new, names));
    let all: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    all.into_iter().filter(|name| old.get(*name) != new.get(*name)).cloned().collect()
}

/// How the texts differ, in normal form and without counters.
pub fn textual(old: &PolicyFiles, new: &PolicyFiles, names: &dyn Names) -> Vec<Table> {
    let rules = |one: &Ruleset, two: &Ruleset, name: &str| {
        unified(&print(one, names, None), &print(two, names, None), name)
    };
    let sets = |sets: &Registry| {
        let lines = listed(sets, names).into_values().flatten();
        lines.map(|line| line + "\n").collect::<String>()
    };
    let all = [
        rules(&old.v4, &new.v4, "rules.v4"),
        rules(&old.v6, &new.v6, "rules.v6"),
        unified(&sets(&old.sets), &sets(&new.sets), "sets"),
    ];
    all.into_iter().filter(|it| !it.text.is_empty()).collect()
}

fn unified(old: &str, new: &str, name: &str) -> Table {
    let diff = TextDiff::from_lines(old, new);
    let (before, after) = (format!("a/{name}"), format!("b/{name}"));
    let text = match old == new {
        true => String::new(),
        false => diff.unified_diff().context_radius(CONTEXT).header(&before, &after).to_string(),
    };
    Table { name: name.to_owned(), text }
}
