//! Which rule and which policy counts in which counter.

use dataplane::packet::Family;
use dataplane::policy::{CounterId, TableId};

use crate::model;

/// The counters of one chain: one for each rule, then one for the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainCounters {
    /// Family of the chain.
    pub family: Family,
    /// Its table.
    pub table: TableId,
    /// Its name.
    pub chain: String,
    /// Counter of the first rule; the others follow without gaps.
    pub first: CounterId,
    /// Number of rules.
    pub rules: u32,
    /// Counter of the policy, for built-in chains.
    pub policy: Option<CounterId>,
}

impl ChainCounters {
    /// The counter of the rule at `index`.
    pub fn rule(&self, index: usize) -> Option<CounterId> {
        (index < self.rules as usize).then(|| CounterId(self.first.0 + index as u32))
    }
}

/// All chains, in the order of the files: IPv4 first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterMap {
    chains: Vec<ChainCounters>,
    len: u32,
}

impl CounterMap {
    /// Every chain.
    pub fn chains(&self) -> &[ChainCounters] {
        &self.chains
    }
    /// Number of counters.
    pub fn len(&self) -> u32 {
        self.len
    }
    /// Whether there is no counter at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The counters of one chain.
    pub fn chain(&self, family: Family, table: TableId, name: &str) -> Option<&ChainCounters> {
        self.chains
            .iter()
            .find(|chain| chain.family == family && chain.table == table && chain.chain == name)
    }

    pub(super) fn add(
        &mut self,
        family: Family,
        table: TableId,
        chain: &model::Chain,
    ) -> ChainCounters {
        let first = CounterId(self.len);
        let rules = chain.rules.len() as u32;
        let policy = chain.policy.map(|_| CounterId(self.len + rules));
        self.len += rules + u32::from(policy.is_some());
        let entry =
            ChainCounters { family, table, chain: chain.name.clone(), first, rules, policy };
        self.chains.push(entry.clone());
        entry
    }

    /// The rules with their counters as they now are: what was written in the
    /// file plus what `count` says was added since.
    pub fn apply(&self, rules: &mut model::Ruleset, count: impl Fn(CounterId) -> (u64, u64)) {
        let family = rules.family;
        let mut entries = self.chains.iter().filter(|entry| entry.family == family);
        let chains = rules.tables.iter_mut().flat_map(|table| &mut table.chains);
        for (chain, entry) in chains.zip(&mut entries) {
            debug_assert_eq!(chain.name, entry.chain, "the map belongs to this ruleset");
            for (index, rule) in chain.rules.iter_mut().enumerate() {
                let counter = CounterId(entry.first.0 + index as u32);
                rule.counters = Some(sum(rule.counters.unwrap_or_default(), count(counter)));
            }
            if let (Some((_, written)), Some(counter)) = (&mut chain.policy, entry.policy) {
                *written = sum(*written, count(counter));
            }
        }
    }
}

fn sum(written: model::Counters, added: (u64, u64)) -> model::Counters {
    model::Counters {
        packets: written.packets.wrapping_add(added.0),
        bytes: written.bytes.wrapping_add(added.1),
    }
}
