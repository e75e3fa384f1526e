//! What makes a rule the same rule after a reload: its family, table and chain,
//! and what it says. Its line, its number and its written counters do not matter.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};

use dataplane::policy::CounterId;

use crate::compile::{CounterMap, write_words};
use crate::model::{Chain, Ruleset};

/// A rule or a policy, hashed. A clash of two of a million rules has a
/// probability of one in 36 million, and would mix up two counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity(u64);

impl Identity {
    /// As it is saved.
    pub(super) fn number(self) -> u64 {
        self.0
    }

    /// As it was saved.
    pub(super) fn of_number(number: u64) -> Self {
        Self(number)
    }
}

/// Tells builds apart whose identities are not each other's: the library does not promise that
/// its hash stays the same.
pub(super) fn probe() -> String {
    use fmt::Write;
    format!("{:016x}", hash("probe ", |words| words.write_str("1")).0)
}

/// Hashes what is written to it.
struct Words(DefaultHasher);

impl fmt::Write for Words {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// The identity of every counter, by its id.
pub(super) fn of(v4: &Ruleset, v6: &Ruleset, counters: &CounterMap) -> Vec<Identity> {
    let mut identities = vec![Identity(0); counters.len() as usize];
    for rules in [v4, v6] {
        let entries = counters.chains().iter().filter(|entry| entry.family == rules.family);
        let chains = rules
            .tables
            .iter()
            .flat_map(|table| table.chains.iter().map(move |chain| (table.id, chain)));
        for ((table, chain), entry) in chains.zip(entries) {
            let place = format!("{:?} {} {} ", rules.family, table.name(), chain.name);
            for (index, rule) in chain.rules.iter().enumerate() {
                let identity = hash(&place, |words| write_words(rule, words));
                identities[entry.first.0 as usize + index] = identity;
            }
            if let Some(id) = entry.policy {
                identities[id.0 as usize] = policy(&place, chain);
            }
        }
    }
    identities
}

fn policy(place: &str, chain: &Chain) -> Identity {
    use fmt::Write;
    hash(place, |words| match chain.policy {
        Some((policy, _)) => write!(words, "policy {policy:?}"),
        None => Ok(()),
    })
}

fn hash(place: &str, write: impl FnOnce(&mut Words) -> fmt::Result) -> Identity {
    let mut words = Words(DefaultHasher::new());
    words.0.write(place.as_bytes());
    let written = write(&mut words);
    debug_assert!(written.is_ok(), "hashing cannot fail");
    Identity(words.0.finish())
}

/// For each new counter, the old one with the same identity. Of several
/// identical rules the first continues the first, and so on.
pub(super) fn continued(old: &[Identity], new: &[Identity]) -> Vec<Option<CounterId>> {
    // The first of several is found, and each leads to the next.
    let mut first: HashMap<Identity, Option<u32>> = HashMap::with_capacity(old.len());
    let mut next = vec![None; old.len()];
    for (id, identity) in old.iter().enumerate().rev() {
        next[id] = first.insert(*identity, Some(id as u32)).flatten();
    }
    let take = |identity: &Identity| {
        let first = first.get_mut(identity)?;
        let id = (*first)?;
        *first = next[id as usize];
        Some(CounterId(id))
    };
    new.iter().map(take).collect()
}
