//! How often rules were met, from the counters of an `iptables-save -c` file.

use std::collections::HashMap;

use dataplane::policy::TableId;

use crate::iptables::{TableNames, rule_text};
use crate::model::{Chain, Ruleset};
use crate::region::written;

/// Packets by table and chain, and by what a rule says; of rules that say the same, in order.
#[derive(Clone, Debug, Default)]
pub struct Hits(HashMap<(TableId, String), HashMap<String, Vec<u64>>>);

impl Hits {
    /// Those that a file was written with. `None`: it was written without.
    pub fn of(rules: &Ruleset) -> Option<Self> {
        let names = TableNames::well_known();
        let mut all = Self::default();
        let mut counted = false;
        for (table, chain) in written(rules) {
            let of_chain = all.0.entry((table, chain.name.clone())).or_default();
            for rule in &chain.rules {
                counted |= rule.counters.is_some();
                let packets = rule.counters.map_or(0, |it| it.packets);
                let text = rule_text(rule, rules.family, &names);
                of_chain.entry(text).or_default().push(packets);
            }
        }
        counted.then_some(all)
    }

    /// Of each rule of a chain; 0 for those that the counters do not know.
    pub(super) fn chain(&self, table: TableId, chain: &Chain, rules: &Ruleset) -> Vec<u64> {
        let names = TableNames::well_known();
        let Some(known) = self.0.get(&(table, chain.name.clone())) else {
            return vec![0; chain.rules.len()];
        };
        let mut seen: HashMap<String, usize> = HashMap::new();
        let hits = chain.rules.iter().map(|rule| {
            let text = rule_text(rule, rules.family, &names);
            let nth = seen.entry(text.clone()).or_default();
            *nth += 1;
            known.get(&text).and_then(|all| all.get(*nth - 1)).copied().unwrap_or(0)
        });
        hits.collect()
    }
}
