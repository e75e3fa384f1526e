//! What the sets would be: commands are tried out here, and put in force together.
//!
//! A stage stands on the sets in force, or on nothing. It makes new sets beside them, and
//! copies one of theirs only when something about its elements is to change, so that
//! filling a new set and swapping it in costs nothing but the new set.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::sets::{
    CreateSpec, Cursor, Element, Extras, Registry, Set, SetError, SetName, SetType, Slot,
};

use super::command::Verb;
use super::extras::Act;

/// Entries copied at a time.
const COPY: usize = 4096;

/// Where the content of a staged set comes from.
#[derive(Clone, Debug)]
enum Origin {
    /// Made here.
    Fresh,
    /// In force; copied once its elements are touched.
    Live { set: Arc<Set>, copied: bool },
}

/// A change to elements of a set in force.
#[derive(Clone, Debug)]
struct Change {
    act: Act,
    element: Element,
    extras: Extras,
    exist: bool,
}

#[derive(Clone, Debug)]
struct Held {
    origin: Origin,
    changes: Vec<Change>,
    fingerprint: u64,
}

impl Held {
    fn fresh() -> Self {
        Self { origin: Origin::Fresh, changes: Vec::new(), fingerprint: FINGERPRINT }
    }
}

/// What a fingerprint begins with (FNV-1a).
const FINGERPRINT: u64 = 0xcbf2_9ce4_8422_2325;

fn mixed(fingerprint: u64, text: &str) -> u64 {
    let bytes = text.bytes().chain([b'\n']);
    bytes.fold(fingerprint, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Sets as commands would leave them.
#[derive(Debug)]
pub struct Stage<'b> {
    base: Option<&'b Registry>,
    /// References to sets in force that no list makes: those of rules.
    ruled: BTreeMap<SetName, u32>,
    staged: Registry,
    held: BTreeMap<SetName, Held>,
    /// Sets in force that were looked at: what is missing in `held` is gone or renamed.
    seen: BTreeMap<SetName, Arc<Slot>>,
    now: Nanos,
    /// As `ipset -exist`.
    tolerant: bool,
    /// What passed since the file was written: comes off the timeouts in it.
    age_s: u32,
}

/// What a command came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// It was done.
    Ok,
    /// `test`: whether it is there.
    Tested(bool),
    /// Nothing of it concerns the sets.
    Nothing,
}

impl<'b> Stage<'b> {
    /// On nothing: for files that say all there is.
    pub fn empty(seed: u64, now: Nanos) -> Stage<'static> {
        Stage::over(None, seed, now)
    }

    /// On the sets in force.
    pub fn on(base: &'b Registry, seed: u64, now: Nanos) -> Self {
        Self::over(Some(base), seed, now)
    }

    fn over(base: Option<&'b Registry>, seed: u64, now: Nanos) -> Self {
        let mut ruled = BTreeMap::new();
        for slot in base.map(Registry::list).unwrap_or_default() {
            ruled.insert(slot.name(), slot.references());
        }
        for slot in base.map(Registry::list).unwrap_or_default() {
            for member in members(&slot.set(), now) {
                let count: &mut u32 = ruled.entry(member).or_default();
                *count = count.saturating_sub(1);
            }
        }
        let staged = Registry::new(seed);
        Self {
            base,
            ruled,
            staged,
            held: BTreeMap::new(),
            seen: BTreeMap::new(),
            now,
            tolerant: false,
            age_s: 0,
        }
    }

    /// Whether every command is as with `-exist`.
    #[must_use]
    pub fn tolerant(self, tolerant: bool) -> Self {
        Self { tolerant, ..self }
    }

    /// For a file that was written so long ago: what has expired since is left out.
    #[must_use]
    pub fn aged(self, age_s: u32) -> Self {
        Self { age_s, ..self }
    }

    /// The sets that there are.
    pub fn registry(&self) -> &Registry {
        &self.staged
    }

    /// Gives them away.
    pub fn into_registry(self) -> Registry {
        self.staged
    }

    /// What the lines about each set come to: equal for equal files.
    pub fn fingerprints(&self) -> BTreeMap<SetName, u64> {
        self.held.iter().map(|(name, held)| (*name, held.fingerprint)).collect()
    }

    /// Looks at a set in force, if that is what the name stands for.
    fn import(&mut self, name: &SetName) {
        if self.held.contains_key(name) || self.seen.contains_key(name) {
            return;
        }
        let Some(slot) = self.base.and_then(|base| base.get(name)) else { return };
        let set = slot.set();
        self.seen.insert(*name, slot);
        // The spec was possible once, so it is now.
        if self.staged.create(*name, *set.spec(), false).is_ok() {
            let list = set.spec().kind == SetType::ListSet;
            let origin = Origin::Live { set, copied: false };
            let held = Held { origin, changes: Vec::new(), fingerprint: FINGERPRINT };
            self.held.insert(*name, held);
            if list {
                // What it refers to cannot be destroyed.
                let _ = self.copy(name);
            }
        }
    }

    fn import_all(&mut self) {
        for slot in self.base.map(Registry::list).unwrap_or_default() {
            self.import(&slot.name());
        }
    }

    fn import_lists(&mut self) {
        for slot in self.base.map(Registry::list).unwrap_or_default() {
            if slot.load().spec().kind == SetType::ListSet {
                self.import(&slot.name());
            }
        }
    }

    /// What a set was created as.
    pub(crate) fn spec(&mut self, name: &SetName) -> Option<CreateSpec> {
        self.import(name);
        self.staged.get(name).map(|slot| *slot.load().spec())
    }

    /// Copies the elements of a set in force, if that has not been done.
    fn copy(&mut self, name: &SetName) -> Result<(), SetError> {
        let Some(Held { origin: Origin::Live { set, copied }, .. }) = self.held.get_mut(name)
        else {
            return Ok(());
        };
        if std::mem::replace(copied, true) {
            return Ok(());
        }
        let set = Arc::clone(set);
        let mut from = Cursor::default();
        loop {
            let (entries, next) = set.entries(from, COPY, self.now);
            for entry in entries {
                if let Some(member) = &entry.element.set {
                    self.import(member);
                }
                let slot = self.staged.find(name)?;
                self.staged.add(&slot, &entry.element, &entry.extras, true, self.now)?;
            }
            match next {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
    }

    /// Tries a command out. `line` is how it was written, for the fingerprint.
    pub(crate) fn run(&mut self, verb: &Verb, exist: bool, line: &str) -> Result<Done, SetError> {
        let exist = exist || self.tolerant;
        match verb {
            Verb::Create { name, spec } => self.create(*name, *spec, exist, line)?,
            Verb::Element { act, name, written, extras } => {
                return self.element(*act, name, written, extras, exist, line);
            }
            Verb::Flush(name) => self.flush(name.as_ref(), line)?,
            Verb::Destroy(Some(name)) => match self.destroy(name) {
                Err(SetError::NoSuchSet(_)) if exist => {}
                other => other?,
            },
            Verb::Destroy(None) => self.destroy_all()?,
            Verb::Rename(from, to) => self.rename(from, *to)?,
            Verb::Swap(one, other) => self.swap(one, other)?,
            Verb::List(_) | Verb::Save(_) | Verb::Restore | Verb::Quit => return Ok(Done::Nothing),
        }
        Ok(Done::Ok)
    }

    fn create(
        &mut self,
        name: SetName,
        spec: CreateSpec,
        exist: bool,
        line: &str,
    ) -> Result<(), SetError> {
        self.import(&name);
        self.staged.create(name, spec, exist)?;
        let held = self.held.entry(name).or_insert_with(Held::fresh);
        held.fingerprint = mixed(held.fingerprint, line);
        Ok(())
    }

    fn element(
        &mut self,
        act: Act,
        name: &SetName,
        written: &super::written::Written,
        extras: &Extras,
        exist: bool,
        line: &str,
    ) -> Result<Done, SetError> {
        self.import(name);
        if let Some(member) = written.first().set {
            self.import(&member);
        }
        self.copy(name)?;
        let slot = self.staged.find(name)?;
        if act == Act::Test {
            let found = self.staged.test(&slot, &written.first(), extras.nomatch, self.now)?;
            return Ok(Done::Tested(found));
        }
        let Some(held) = self.held.get_mut(name) else { return Err(SetError::NoSuchSet(*name)) };
        held.fingerprint = mixed(held.fingerprint, line);
        let (staged, now) = (&self.staged, self.now);
        let live = matches!(held.origin, Origin::Live { .. });
        let mut extras = extras.clone();
        match extras.timeout_s {
            Some(left) if left > 0 && left <= self.age_s => return Ok(Done::Ok),
            Some(left) if left > 0 => extras.timeout_s = Some(left - self.age_s),
            _ => {}
        }
        let extras = &extras;
        written.each(|element| {
            match act {
                Act::Del => staged.del(&slot, element, exist, now)?,
                _ => staged.add(&slot, element, extras, exist, now)?,
            }
            if live {
                let (element, extras) = (*element, extras.clone());
                held.changes.push(Change { act, element, extras, exist });
            }
            Ok(())
        })?;
        Ok(Done::Ok)
    }

    fn flush(&mut self, name: Option<&SetName>, line: &str) -> Result<(), SetError> {
        let names = match name {
            Some(name) => {
                self.import(name);
                vec![*name]
            }
            None => {
                self.import_all();
                self.held.keys().copied().collect()
            }
        };
        for name in names {
            self.staged.find(&name)?.set().flush();
            if let Some(held) = self.held.get_mut(&name) {
                let fingerprint = mixed(held.fingerprint, line);
                // What was in it does not matter any more: another set takes its place.
                *held = Held { fingerprint, ..Held::fresh() };
            }
        }
        Ok(())
    }

    fn in_use(&mut self, name: &SetName) -> Result<(), SetError> {
        self.import_lists();
        self.import(name);
        match self.ruled.get(name) {
            Some(count) if *count > 0 && self.seen.contains_key(name) => {
                Err(SetError::InUse(*name))
            }
            _ => Ok(()),
        }
    }

    fn destroy(&mut self, name: &SetName) -> Result<(), SetError> {
        self.in_use(name)?;
        self.staged.destroy(name)?;
        self.held.remove(name);
        Ok(())
    }

    fn destroy_all(&mut self) -> Result<(), SetError> {
        self.import_all();
        let used = self.ruled.iter().find(|(_, count)| **count > 0);
        if let Some((name, _)) = used {
            return Err(SetError::InUse(*name));
        }
        self.staged.destroy_all()?;
        self.held.clear();
        Ok(())
    }

    fn rename(&mut self, from: &SetName, to: SetName) -> Result<(), SetError> {
        self.in_use(from)?;
        self.import(&to);
        self.staged.rename(from, to)?;
        if let Some(held) = self.held.remove(from) {
            self.held.insert(to, held);
        }
        Ok(())
    }

    fn swap(&mut self, one: &SetName, other: &SetName) -> Result<(), SetError> {
        self.import(one);
        self.import(other);
        self.staged.swap(one, other)?;
        if let (Some(first), Some(second)) = (self.held.remove(one), self.held.remove(other)) {
            self.held.insert(*one, second);
            self.held.insert(*other, first);
        }
        Ok(())
    }

    /// Puts everything in force in `live`, which is what this stands on. Packets may have
    /// changed elements in the meantime; what is wanted holds all the same.
    ///
    /// # Errors
    /// A set that has come into use, or is full, meanwhile; the rest is in force.
    pub fn commit(self, live: &Registry) -> Result<(), SetError> {
        let gone = self.seen.keys().filter(|name| !self.held.contains_key(*name));
        let gone: Vec<SetName> = gone.copied().collect();
        let is_list = |name: &SetName| {
            self.staged.get(name).is_some_and(|slot| slot.load().spec().kind == SetType::ListSet)
        };
        let (lists, others): (Vec<_>, Vec<_>) =
            self.held.iter().partition(|(name, _)| is_list(name));
        let mut failed = Ok(());
        for (name, held) in others {
            match &held.origin {
                Origin::Fresh => live.put(*name, self.staged.find(name)?.set())?,
                Origin::Live { set, .. } => {
                    for change in &held.changes {
                        let done = match change.act {
                            Act::Del => set.del(&change.element, self.now),
                            _ => {
                                let Change { element, extras, exist, .. } = change;
                                set.add(element, extras, *exist, self.now)
                            }
                        };
                        match done {
                            Ok(()) | Err(SetError::Exists | SetError::NotThere) => {}
                            Err(error) => failed = failed.and(Err(error)),
                        }
                    }
                    let there = live.get(name).map(|slot| slot.set());
                    if !there.is_some_and(|there| Arc::ptr_eq(&there, set)) {
                        live.put(*name, Arc::clone(set))?;
                    }
                }
            }
        }
        for (name, held) in lists {
            match &held.origin {
                // Its members are in force already.
                Origin::Live { set, .. } if held.changes.is_empty() => {
                    let there = live.get(name).map(|slot| slot.set());
                    if !there.is_some_and(|there| Arc::ptr_eq(&there, set)) {
                        live.put(*name, Arc::clone(set))?;
                    }
                }
                _ => self.put_list(live, name)?,
            }
        }
        let list = |name: &&SetName| {
            live.get(name).is_some_and(|slot| slot.load().spec().kind == SetType::ListSet)
        };
        gone.iter().filter(list).try_for_each(|name| live.destroy(name))?;
        gone.iter().filter(|name| !list(name)).try_for_each(|name| match live.destroy(name) {
            Err(SetError::NoSuchSet(_)) => Ok(()),
            other => other,
        })?;
        failed
    }

    /// A list refers to places in its own registry, and so is made again.
    fn put_list(&self, live: &Registry, name: &SetName) -> Result<(), SetError> {
        let staged = self.staged.find(name)?.set();
        put_list(live, *name, &staged, self.now)
    }
}

/// Makes a list of the same members in another registry.
pub(crate) fn put_list(
    live: &Registry,
    name: SetName,
    list: &Set,
    now: Nanos,
) -> Result<(), SetError> {
    // Beside the sets in force: nothing is seen, and nothing left behind, before it is whole.
    let aside = live.overlay();
    aside.put_over(name, Arc::new(Set::new(*list.spec(), 0)?))?;
    let slot = aside.find(&name)?;
    let mut from = Some(Cursor::default());
    while let Some(at) = from {
        let (entries, next) = list.entries(at, COPY, now);
        for entry in entries {
            aside.add(&slot, &entry.element, &entry.extras, true, now)?;
        }
        from = next;
    }
    live.put(name, slot.set())
}

/// The members of a list.
pub(crate) fn members(set: &Set, now: Nanos) -> Vec<SetName> {
    let mut found = Vec::new();
    if set.spec().kind != SetType::ListSet {
        return found;
    }
    let mut from = Some(Cursor::default());
    while let Some(at) = from {
        let (entries, next) = set.entries(at, COPY, now);
        found.extend(entries.iter().filter_map(|entry| entry.element.set));
        from = next;
    }
    found
}
