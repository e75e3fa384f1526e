//! Rules that expire: said beforehand, and taken out of force at their time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dataplane::packet::Family;

use crate::apply::Change;
use crate::daemon::service::Service;
use crate::history::{Action, stamp};
use crate::model::annotations::annotations;
use crate::model::expiry;

/// How long before its time a rule's end is told in the log.
const LOG_S: u64 = 86_400;
/// How long before it is told by `show status`.
const SHOW_S: u64 = 7 * 86_400;
/// Rules that are named at once at most.
const NAMED: usize = 50;

impl Service {
    /// Says what expires within a day, each once, and ends what has expired. For the
    /// housekeeping thread, every second or so.
    pub(in crate::daemon) fn expire(self: &Arc<Self>, now_s: u64) {
        let Some(next_s) = self.store().next_expiry() else { return };
        let announced = self.ledger().announced.load(Ordering::Relaxed);
        let generation = self.store().generation();
        if next_s <= now_s.saturating_add(LOG_S) && announced != (generation << 32 | next_s >> 8) {
            self.ledger().announced.store(generation << 32 | next_s >> 8, Ordering::Relaxed);
            for line in self.expiring(now_s, LOG_S) {
                tracing::warn!("{line}");
            }
        }
        if next_s > now_s || self.ledger().undoing.swap(true, Ordering::AcqRel) {
            return;
        }
        let service = Arc::clone(self);
        let run = move || {
            service.end_expired();
            service.ledger().undoing.store(false, Ordering::Release);
        };
        if std::thread::Builder::new().name("expire".to_owned()).spawn(run).is_err() {
            self.ledger().undoing.store(false, Ordering::Release);
        }
    }

    fn end_expired(&self) {
        // Whoever changes something now does it as well.
        let Ok(_turn) = self.ledger().begin(Action::Reload, "the daemon (rules expire)") else {
            return;
        };
        match self.store().install(Change::default()) {
            Ok(installed) => {
                self.log().open_book(self.store().log_book());
                let generation = installed.generation;
                tracing::warn!("rules have expired: generation {generation} is without them");
            }
            Err(error) => tracing::error!("rules that have expired are still in force: {error}"),
        }
    }

    /// Rules that have expired or will within `ahead_s`, in words.
    pub(super) fn expiring(&self, now_s: u64, ahead_s: u64) -> Vec<String> {
        let mut lines = Vec::new();
        self.store().read(|view| {
            for (family, name) in [(Family::V4, "IPv4"), (Family::V6, "IPv6")] {
                for table in &view.rules(family).tables {
                    for chain in &table.chains {
                        for (index, rule) in chain.rules.iter().enumerate() {
                            let Some(Ok(time)) = expiry::expires(rule) else { continue };
                            if time > now_s.saturating_add(ahead_s) {
                                continue;
                            }
                            let owner = annotations(rule).remove("owner");
                            let owner =
                                owner.map_or_else(String::new, |it| format!(", owner {it}"));
                            let tense = if time <= now_s { "has expired" } else { "expires" };
                            let (table, chain) = (table.id.name(), &chain.name);
                            let at = stamp(time.saturating_mul(1_000_000));
                            let number = index + 1;
                            lines.push(format!(
                                "{name} {table} {chain} rule {number} {tense} at {at}{owner}"
                            ));
                        }
                    }
                }
            }
        });
        lines.truncate(NAMED);
        lines
    }

    /// The same for `show status`.
    pub(super) fn expiring_soon(&self, now_s: u64) -> Vec<String> {
        self.expiring(now_s, SHOW_S)
    }
}
