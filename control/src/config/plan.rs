//! What a reload may change, and what it must leave to a restart.

use std::collections::BTreeMap;

use super::{Effect, KEYS, Settings};

/// A key, or an entry of a key that is a table, with another value than before.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Its path.
    pub key: String,
    /// Before.
    pub old: Option<toml::Value>,
    /// Now.
    pub new: Option<toml::Value>,
    /// Why a key that is live cannot change live this time.
    pub why: Option<String>,
}

/// Settings that follow others.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What changes.
    pub live: Vec<Change>,
    /// What stays until a restart.
    pub restart: Vec<Change>,
    /// What is in force when the first are changed and the others not.
    pub next: Settings,
}

const SETTINGS: &str = "conntrack.settings.";

/// From `old`, which is in force, to `new`, which was read. `hindrance` says why a live
/// key cannot change live this time.
pub fn plan(old: &Settings, new: &Settings, hindrance: impl Fn(&Change) -> Option<String>) -> Plan {
    let mut plan = Plan { live: Vec::new(), restart: Vec::new(), next: new.clone() };
    for key in KEYS.iter().filter(|key| key.differs(old, new)) {
        let mut lines: BTreeMap<String, (Option<toml::Value>, Option<toml::Value>)> =
            BTreeMap::new();
        for line in key.lines(old) {
            lines.entry(line.name).or_default().0 = line.value;
        }
        for line in key.lines(new) {
            lines.entry(line.name).or_default().1 = line.value;
        }
        let changes = lines.into_iter().filter(|(_, (old, new))| old != new);
        for (key_name, (was, now)) in changes {
            let mut change = Change { key: key_name, old: was, new: now, why: None };
            if key.effect == Effect::Live {
                change.why = hindrance(&change);
            }
            match (key.effect, &change.why) {
                (Effect::Live, None) => plan.live.push(change),
                _ => {
                    match change.key.strip_prefix(SETTINGS) {
                        Some(entry) => keep(entry, old, &mut plan.next),
                        None => key.take(&mut plan.next, old),
                    }
                    plan.restart.push(change);
                }
            }
        }
        // Values that are written alike, and are not the same: as for a restart.
        if key.effect == Effect::Restart {
            key.take(&mut plan.next, old);
        }
    }
    plan
}

/// Leaves one setting as it was.
fn keep(name: &str, old: &Settings, next: &mut Settings) {
    let settings = &mut next.settings.value.0;
    match old.settings.value.0.get(name) {
        Some(given) => settings.insert(name.to_owned(), given.clone()),
        None => settings.remove(name),
    };
}
