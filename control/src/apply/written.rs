//! Counters as files write them.

use super::Running;
use crate::model::{Counters, Ruleset};

/// The counters written in the files; zero where none are.
pub(super) fn written_counters(running: &Running) -> Vec<(u64, u64)> {
    let mut base = vec![(0, 0); running.identities.len()];
    for rules in [&running.v4, &running.v6] {
        let entries = running.counters.chains().iter().filter(|entry| entry.family == rules.family);
        let chains = rules.tables.iter().flat_map(|table| &table.chains);
        for (chain, entry) in chains.zip(entries) {
            for (index, rule) in chain.rules.iter().enumerate() {
                let written = rule.counters.unwrap_or_default();
                base[entry.first.0 as usize + index] = (written.packets, written.bytes);
            }
            if let (Some((_, written)), Some(id)) = (chain.policy, entry.policy) {
                base[id.0 as usize] = (written.packets, written.bytes);
            }
        }
    }
    base
}

pub(super) fn strip_counters(rules: &mut Ruleset) {
    for chain in rules.tables.iter_mut().flat_map(|table| &mut table.chains) {
        if let Some((_, counters)) = &mut chain.policy {
            *counters = Counters::default();
        }
        for rule in &mut chain.rules {
            rule.counters = None;
        }
    }
}
