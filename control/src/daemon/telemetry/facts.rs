//! Gathers what a page of metrics says.

use dataplane::clock::{Nanos, wall_us};
use dataplane::packet::Family;
use dataplane::policy::CounterId;

use crate::daemon::service::Service;
use crate::daemon::{records, views};
use crate::metrics::{Facts, Named, RuleRow};

const FAMILIES: [(Family, &str); 2] = [(Family::V4, "ipv4"), (Family::V6, "ipv6")];

/// The policy's counters.
#[derive(Debug, Default)]
struct Counted {
    rows: Vec<RuleRow>,
    /// Family, table, chain and first row of each chain.
    chains: Vec<(&'static str, &'static str, String, usize)>,
    policies: Vec<Named>,
    rules: [u64; 2],
}

impl Counted {
    fn place(&self, row: usize) -> Named {
        let after = self.chains.partition_point(|chain| chain.3 <= row);
        let (family, table, chain, _) = &self.chains[after - 1];
        Named {
            family: (*family).to_owned(),
            table: (*table).to_owned(),
            chain: chain.clone(),
            rule: Some(self.rows[row].key.to_string()),
            count: self.rows[row].count,
        }
    }
}

impl Service {
    fn counted(&self) -> Counted {
        self.store().read(|view| {
            let mut counted = Counted::default();
            let keys = view.keys();
            for entry in view.counters().chains() {
                let family = FAMILIES.iter().position(|(it, _)| *it == entry.family).unwrap_or(0);
                let (name, table) = (FAMILIES[family].1, entry.table.name());
                counted.chains.push((name, table, entry.chain.clone(), counted.rows.len()));
                counted.rules[family] += u64::from(entry.rules);
                let ids = (0..entry.rules as usize).filter_map(|index| entry.rule(index));
                let row =
                    |id: CounterId| RuleRow { key: keys[id.0 as usize], count: view.count(id) };
                counted.rows.extend(ids.map(row));
                counted.policies.extend(entry.policy.map(|id| Named {
                    family: name.to_owned(),
                    table: table.to_owned(),
                    chain: entry.chain.clone(),
                    rule: None,
                    count: view.count(id),
                }));
            }
            counted
        })
    }

    /// Everything that a page says.
    pub(super) fn facts(&self) -> Facts {
        let counted = self.counted();
        let selected = self.telemetry().book().see(&counted.rows);
        let version = self.version();
        let counters = |port| self.program().counters(port);
        let now_s = wall_us() as f64 / 1e6;
        let saves = self.progress().map(|it| {
            let last = it.last.map(|saved| saved.at_us as f64 / 1e6);
            (it.saves, it.failures, last)
        });
        let stuck = self.workers().iter().enumerate();
        Facts {
            started_s: self.telemetry().started_s,
            versions: (version.portcullis, version.kernel),
            stats: self.stats(),
            ports: views::ports(&self.network(), self.workers(), self.board(), counters).ports,
            log: records::report(self.workers(), self.log(), self.logging()),
            worker_cpu_s: self.workers().iter().map(|it| it.cpu().map(seconds)).collect(),
            stuck: stuck.filter(|(_, it)| it.still_since().is_some()).map(|(at, _)| at).collect(),
            rules: counted.rules,
            named: selected.named.iter().map(|row| counted.place(*row)).collect(),
            other: selected.other,
            policies: counted.policies,
            expiry_s: self.store().next_expiry().map(|at| at as f64 - now_s),
            saves,
            changes: self.change_counts(),
            requests: self.telemetry().requests(),
            alerts: self.telemetry().alerts(),
            pressure: self.telemetry().valve.get().map_or_else(Vec::new, |it| it.states()),
            matrix_failing: self.matrix_failing(),
        }
    }
}

fn seconds(time: Nanos) -> f64 {
    time.0 as f64 / 1e9
}
