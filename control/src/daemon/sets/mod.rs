//! The sets of the daemon: listing and changing them, and what files say of them.
//!
//! Elements change in place, without a new policy. Files are tried out on a [`Stage`]
//! before anything of them is put in force. One control thread changes sets at a time;
//! workers never wait.

pub(super) mod lasting;
mod views;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use dataplane::clock::monotonic;
use dataplane::sets::{Registry, Set, SetError, SetName, SetType};

use crate::api::protocol::{SetChanged, Source};
use crate::api::{Code, Failure};
use crate::diagnostics::{Code as Kind, Finding, has_errors};
use crate::ipset::{self, Outcome, Stage};
use crate::iptables::{TableNames, whole_file};

/// What commands are called in findings.
const COMMAND: &str = "command";

/// The sets, and whose turn it is to change them.
#[derive(Debug)]
pub(super) struct SetDesk {
    registry: Arc<Registry>,
    /// What files said last of each set: a file that says the same again changes nothing.
    said: Mutex<BTreeMap<SetName, u64>>,
    turn: Mutex<()>,
    names: OnceLock<TableNames>,
}

/// Reads files of sets, and those of directories.
///
/// # Errors
/// What cannot be read, as findings.
pub(super) fn read_sources<'p>(
    paths: impl IntoIterator<Item = &'p Path>,
) -> Result<Vec<Source>, Vec<Finding>> {
    let (mut sources, mut findings) = (Vec::new(), Vec::new());
    for path in paths {
        let unreadable = |path: &Path, error: &dyn std::fmt::Display| {
            let message = format!("cannot be read: {error}");
            whole_file(&path.display().to_string(), Kind::Unreadable, message)
        };
        let files = match ipset::files(path) {
            Ok(files) => files,
            Err(error) => {
                findings.push(unreadable(path, &error));
                continue;
            }
        };
        for file in files {
            let name = file.display().to_string();
            match ipset::read_file(&file) {
                Err(error) => findings.push(unreadable(&file, &error)),
                Ok(bytes) => match String::from_utf8(bytes) {
                    Ok(text) => sources.push(Source { name, text }),
                    // The reader says where.
                    Err(error) => {
                        let mut stage = Stage::empty(0, monotonic());
                        let names = TableNames::well_known();
                        let bytes = error.as_bytes();
                        findings.extend(ipset::read(&mut stage, bytes, &name, &names));
                    }
                },
            }
        }
    }
    if findings.is_empty() { Ok(sources) } else { Err(findings) }
}

/// What files say, tried out.
#[derive(Debug)]
pub(super) struct FromFiles {
    stage: Stage<'static>,
    pub(super) findings: Vec<Finding>,
}

impl FromFiles {
    /// Reads them all onto one stage.
    ///
    /// # Errors
    /// All findings, if any of them is an error.
    pub(super) fn read(sources: &[Source]) -> Result<Self, Vec<Finding>> {
        let names = TableNames::of_host();
        let mut stage = Stage::empty(seed(), monotonic());
        let mut findings = Vec::new();
        for Source { name, text } in sources {
            findings.extend(ipset::read(&mut stage, text.as_bytes(), name, &names));
        }
        if has_errors(&findings) { Err(findings) } else { Ok(Self { stage, findings }) }
    }
}

/// Nobody outside should know what hashes depend on.
pub(super) fn seed() -> u64 {
    // The library takes its keys from the system, and does not go on without.
    RandomState::new().hash_one(0)
}

/// The sets as they will be once a policy is in force; until then nobody sees them.
pub(super) struct Tried<'d> {
    desk: &'d SetDesk,
    /// Those in force, but for new names and sets of another type than before.
    overlay: Arc<Registry>,
    /// What has a place of its own there.
    placed: Vec<SetName>,
    /// Sets that take their places once the policy is in force.
    waiting: Vec<(SetName, Arc<Set>)>,
    lists: Vec<(SetName, Arc<Set>)>,
    said: BTreeMap<SetName, u64>,
}

impl Tried<'_> {
    /// What the policy is to be tried with.
    pub(super) fn overlay(&self) -> Arc<Registry> {
        Arc::clone(&self.overlay)
    }

    /// All sets as they will be once the policy is in force, for those who only look.
    ///
    /// # Errors
    /// More sets than are possible.
    pub(super) fn foreseen(&self) -> Result<Registry, SetError> {
        let all = self.overlay.overlay();
        for (name, set) in &self.waiting {
            all.put_over(*name, Arc::clone(set))?;
        }
        for (name, list) in self.lists.iter().filter(|(name, _)| !self.placed.contains(name)) {
            all.put_over(*name, Arc::new(Set::new(*list.spec(), 0)?))?;
            ipset::put_list(&all, *name, list, monotonic())?;
        }
        Ok(all)
    }

    /// The policy is in force: so are the sets.
    pub(super) fn settle(self) -> Result<(), SetError> {
        let (registry, now) = (&self.desk.registry, monotonic());
        registry.take_over(&self.overlay);
        for (name, set) in self.waiting {
            registry.put(name, set)?;
        }
        for (name, list) in &self.lists {
            ipset::put_list(registry, *name, list, now)?;
        }
        // A list that stays refers to the places that its members had.
        for slot in registry.list() {
            let (name, set) = (slot.name(), slot.set());
            let made = self.lists.iter().any(|(list, _)| *list == name);
            let members = ipset::members(&set, now);
            if !made && members.iter().any(|member| self.placed.contains(member)) {
                ipset::put_list(registry, name, &set, now)?;
            }
        }
        self.desk.said().extend(self.said);
        Ok(())
    }
}

impl SetDesk {
    /// Over these sets; `said` is what files said of them.
    pub(super) fn new(registry: Arc<Registry>, said: BTreeMap<SetName, u64>) -> Self {
        Self { registry, said: Mutex::new(said), turn: Mutex::default(), names: OnceLock::new() }
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    fn said(&self) -> MutexGuard<'_, BTreeMap<SetName, u64>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To change sets: one at a time.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What files said of the sets that there are.
    pub(super) fn fingerprints(&self) -> BTreeMap<SetName, u64> {
        self.said().clone()
    }

    /// Names of protocols and services, read once: an element is not worth more.
    fn names(&self) -> &TableNames {
        self.names.get_or_init(TableNames::of_host)
    }

    /// The sets as the files want them, for a policy that is about to be tried; those in
    /// force stay as they are. Those of which the files say what they said before stay as they are, unless `all` are replaced.
    ///
    /// # Errors
    /// More sets than are possible.
    pub(super) fn try_out(&self, files: FromFiles, all: bool) -> Result<Tried<'_>, SetError> {
        let said = files.stage.fingerprints();
        let staged = files.stage.into_registry();
        let mut tried = Tried {
            desk: self,
            overlay: Arc::new(self.registry.overlay()),
            placed: Vec::new(),
            waiting: Vec::new(),
            lists: Vec::new(),
            said: BTreeMap::new(),
        };
        let before = self.fingerprints();
        for slot in staged.list() {
            let (name, set) = (slot.name(), slot.set());
            let live = self.registry.get(&name).map(|slot| slot.set());
            let same = live.as_ref().is_some_and(|live| live.same_kind(set.spec()))
                && before.get(&name) == said.get(&name);
            if same && !all {
                continue;
            }
            tried.said.extend(said.get(&name).map(|fingerprint| (name, *fingerprint)));
            if set.spec().kind == SetType::ListSet {
                if !live.is_some_and(|live| live.same_kind(set.spec())) {
                    let empty = Arc::new(Set::new(*set.spec(), 0)?);
                    tried.overlay.put_over(name, empty)?;
                    tried.placed.push(name);
                }
                tried.lists.push((name, set));
                continue;
            }
            match live {
                Some(live) if live.same_kind(set.spec()) => tried.waiting.push((name, set)),
                _ => {
                    tried.overlay.put_over(name, set)?;
                    tried.placed.push(name);
                }
            }
        }
        // Members first, then the lists that nothing refers to yet.
        for (name, list) in tried.lists.iter().filter(|(name, _)| tried.placed.contains(name)) {
            ipset::put_list(&tried.overlay, *name, list, monotonic())?;
        }
        Ok(tried)
    }

    /// One command.
    pub(super) fn command(&self, line: &str, exist: bool) -> Result<SetChanged, Failure> {
        let _turn = self.turn();
        let outcome = ipset::command(&self.registry, line, exist, self.names(), monotonic());
        match outcome {
            Ok(Outcome { found, findings }) => {
                let findings = super::policy::on_the_wire(&findings);
                Ok(SetChanged { found, findings })
            }
            Err(findings) => Err(refused(&findings, "nothing was changed")),
        }
    }

    /// The commands of a file.
    pub(super) fn restore(&self, file: &Source, exist: bool) -> Result<SetChanged, Failure> {
        let _turn = self.turn();
        let mut stage = Stage::on(&self.registry, seed(), monotonic()).tolerant(exist);
        let findings = ipset::read(&mut stage, file.text.as_bytes(), &file.name, self.names());
        if has_errors(&findings) {
            return Err(refused(&findings, "nothing was changed"));
        }
        stage
            .commit(&self.registry)
            .map_err(|error| Failure::new(Code::Busy, format!("{error}: try again")))?;
        Ok(SetChanged { found: None, findings: super::policy::on_the_wire(&findings) })
    }
}

/// Findings as a refusal.
pub(super) fn refused(findings: &[Finding], rest: &str) -> Failure {
    let mut errors =
        findings.iter().filter(|it| it.severity == crate::diagnostics::Severity::Error);
    let message = match (errors.next(), errors.count()) {
        (Some(only), 0) if &*only.file == COMMAND => only.message.clone(),
        (_, others) => {
            let plural = if others == 0 { "" } else { "s" };
            format!("refused: {} error{plural}; {rest}", others + 1)
        }
    };
    Failure { code: Code::Refused, message, findings: super::policy::on_the_wire(findings) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::{Change, PolicyStore};
    use dataplane::packet::Family;

    fn files(text: &str) -> FromFiles {
        let source = Source { name: "sets".to_owned(), text: text.to_owned() };
        FromFiles::read(&[source]).unwrap()
    }

    /// Which sets there are, what holds them, and how much is in them.
    fn seen(registry: &Registry) -> Vec<(SetName, usize, u32, u32)> {
        let tell = |slot: Arc<dataplane::sets::Slot>| {
            let set = slot.set();
            let at = Arc::as_ptr(&set) as usize;
            (slot.name(), at, set.header().entries, slot.references())
        };
        registry.list().into_iter().map(tell).collect()
    }

    #[test]
    fn what_is_tried_is_not_seen_before_it_is_in_force() {
        let before = files(
            "create a hash:ip\nadd a 192.0.2.1\ncreate l list:set\nadd l a\n\
             create b hash:ip\nadd b 192.0.2.2\n",
        );
        let (desk, _) = lasting::open(None, before).unwrap();
        let change = |text: &str| {
            let names = TableNames::well_known();
            let parsed = crate::iptables::parse(text, "rules", Family::V4, &names).unwrap();
            Change { v4: Some(parsed.ruleset), ..Change::default() }
        };
        let rules = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set --match-set a src -j DROP\n\
             COMMIT\n";
        let sets = Arc::clone(desk.registry());
        let store = PolicyStore::open_with(change(rules), Vec::new(), 1, sets).unwrap();
        let live = seen(desk.registry());
        // Another type, another content, a new set and a new list.
        let next = "create a hash:net\nadd a 198.51.100.0/24\ncreate b hash:ip\n\
             create new hash:ip,port\ncreate all list:set\nadd all new\nadd all a\n";
        let wrong = rules.replace("set a src", "set missing src");
        let right = rules.replace("-A", "-A FORWARD -m set --match-set new src,src\n-A");
        for (rules, accepted) in [(&*wrong, false), (&*right, true)] {
            let tried = desk.try_out(files(next), true).unwrap();
            assert_eq!(seen(desk.registry()), live);
            let change = Change { sets: Some(tried.overlay()), ..change(rules) };
            // A dry run.
            assert_eq!(store.rehearse(change.clone()).is_ok(), accepted);
            if !accepted {
                assert!(store.install(change).is_err());
            }
            drop(tried);
            assert_eq!(seen(desk.registry()), live);
        }
        // What a policy's packets would add has its room once that policy is in force.
        let bytes = |name: &str| {
            let slot = desk.registry().get(&SetName::new(name).unwrap()).unwrap();
            slot.set().header().memory_bytes
        };
        let adding = rules.replace("-j DROP", "-j SET --add-set b src");
        let small = bytes("b");
        store.rehearse(change(&adding)).unwrap();
        let both = adding.replace("COMMIT", "-A FORWARD -m set --match-set none src\nCOMMIT");
        assert!(store.install(change(&both)).is_err());
        assert_eq!(bytes("b"), small);
        store.install(change(&adding)).unwrap();
        assert!(bytes("b") > 65_536 * 16, "{} bytes", bytes("b"));
        let tried = desk.try_out(files(next), true).unwrap();
        let change = Change { sets: Some(tried.overlay()), ..change(&right) };
        store.install(change.clone()).unwrap();
        tried.settle().unwrap();
        let slot = |name: &str| desk.registry().get(&SetName::new(name).unwrap()).unwrap();
        assert_eq!(slot("a").set().spec().kind, SetType::HashNet);
        assert_eq!(slot("b").set().header().entries, 0);
        // A rule and two lists.
        assert_eq!((slot("a").references(), slot("new").references()), (3, 2));
        assert_eq!(ipset::members(&slot("l").set(), monotonic()), [slot("a").name()]);
    }
}
