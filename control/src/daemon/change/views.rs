//! What the control socket asks of changes, and what of them is shown.

use std::sync::atomic::Ordering;

use dataplane::clock::{Nanos, wall_us};

use super::ledger::{Waiting, refused};
use crate::api::protocol::{HistoryInfo, PendingInfo, StoredPolicy};
use crate::api::{Code, Failure, Peer, Request, Response};
use crate::daemon::service::Service;
use crate::history::{HistoryError, Moment, Name, stamp};
use crate::objects;

/// Records in one answer at most.
const RECORDS: usize = 10_000;

fn pending(waiting: &Waiting) -> PendingInfo {
    let pending = &waiting.pending;
    PendingInfo {
        who: pending.who.clone(),
        policy: pending.policy.id.clone(),
        previous: pending.previous.id.clone(),
        until: stamp(pending.deadline_us),
        left_ms: pending.left(&Moment::now()).0 / Nanos::MILLISECOND.0,
    }
}

impl Service {
    /// What is asked of changes.
    pub(in crate::daemon) fn on_changes(
        &self,
        request: Request,
        peer: Peer,
    ) -> Result<Response, Failure> {
        match request {
            Request::Apply(apply) => self.apply(apply, peer),
            Request::Rollback(rollback) => self.rollback(rollback, peer),
            Request::Confirm(confirm) => self.confirm(confirm, peer),
            Request::Reconcile(reconcile) => self.reconcile(reconcile, peer),
            Request::Reload(reload) => Ok(Response::Reloaded(self.reload(reload, peer)?)),
            Request::ShowHistory { last, verify } => self.history(last, verify),
            Request::ShowStored { name } => self.stored(&name),
            _ => Err(Failure::new(Code::BadRequest, "this is not about changes")),
        }
    }

    /// What `show_history` tells.
    fn history(&self, last: Option<u64>, verify: bool) -> Result<Response, Failure> {
        let book = self.ledger().book();
        let Some(history) = &book.history else {
            let why = book.trouble.as_deref().unwrap_or("there is no history (history.dir)");
            return Err(Failure::new(Code::Refused, why));
        };
        let damage = match verify {
            true => history.verify().map_err(|error| refused(&error))?,
            false => history.damage().to_vec(),
        };
        let last = last.map_or(RECORDS, |last| RECORDS.min(last as usize));
        Ok(Response::History(HistoryInfo {
            directory: history.directory().display().to_string(),
            records: history.records().iter().rev().take(last).cloned().collect(),
            damage: damage.iter().map(ToString::to_string).collect(),
            open: history.open_emergencies().map(|record| record.number).collect(),
            pending: book.waiting.as_ref().map(pending),
        }))
    }

    /// What `show_stored` tells.
    fn stored(&self, name: &str) -> Result<Response, Failure> {
        let texts = self.ledger().stored(name)?;
        let book = self.ledger().book();
        let name: Name = name.parse().map_err(|error| refused(&HistoryError::Name(error)))?;
        let found = book.history.as_ref().and_then(|history| history.find(&name).ok());
        let Some(record) = found.cloned() else {
            return Err(Failure::new(Code::Refused, "it is gone meanwhile"));
        };
        let (rules, rules6, sets) = (texts.v4, texts.v6, texts.sets);
        Ok(Response::Stored(Box::new(StoredPolicy { record, rules, rules6, sets })))
    }

    /// Changes undone since the start, waiting now, and emergencies that are open.
    pub(in crate::daemon) fn change_counts(&self) -> [u64; 3] {
        let undone = self.ledger().undone.load(Ordering::Relaxed);
        let book = self.ledger().book();
        let open = book.history.as_ref().map_or(0, |history| history.open_emergencies().count());
        [undone, u64::from(book.waiting.is_some()), open as u64]
    }

    /// Refuses commands that would change a set which an object's file is responsible for: such
    /// a set is changed with the policy, checked and recorded, or not at all.
    pub(in crate::daemon) fn spare_objects(&self, commands: &str) -> Result<(), Failure> {
        let sets: Vec<String> = {
            let book = self.ledger().book();
            let names = book.texts.sets.iter().filter_map(|source| objects::name_of(&source.name));
            names.flat_map(|name| [name.to_owned(), format!("{name}6")]).collect()
        };
        if sets.is_empty() {
            return Ok(());
        }
        const HARMLESS: [&str; 12] = [
            "test", "-T", "--test", "list", "-L", "--list", "save", "-S", "--save", "help",
            "version", "COMMIT",
        ];
        for line in commands.lines() {
            let mut words = line.split_whitespace();
            let Some(verb) = words.next().filter(|verb| !HARMLESS.contains(verb)) else { continue };
            // Emptying or destroying everything means objects, too.
            let mut named = words.take(2).peekable();
            let everything = named.peek().is_none() && !verb.starts_with('#');
            let set = named.find(|name| sets.iter().any(|set| set == name));
            if everything || set.is_some() {
                let set = set.unwrap_or(&sets[0]);
                let message = format!(
                    "{set} is of an object: change its file, then `portcullis apply --sets FILE` or \
                     `portcullis reload`; nothing was changed"
                );
                return Err(Failure::new(Code::Refused, message));
            }
        }
        Ok(())
    }

    /// What there is to nag about.
    pub(in crate::daemon) fn nags(&self) -> Vec<String> {
        let mut nags = self.expiring_soon(wall_us() / 1_000_000);
        nags.extend(self.matrix_nag());
        let book = self.ledger().book();
        nags.extend(book.trouble.iter().cloned());
        if let Some(waiting) = &book.waiting {
            let until = stamp(waiting.pending.deadline_us);
            let who = &waiting.pending.who;
            nags.push(format!("the change by {who} is undone at {until} unless confirmed"));
        }
        nags.extend(book.owed.iter().map(|draft| {
            format!("the {} by {} is not recorded yet", draft.action.name(), draft.who)
        }));
        let Some(history) = &book.history else { return nags };
        nags.extend(history.open_emergencies().map(|record| {
            let (number, who, time) = (record.number, &record.who, &record.time);
            format!("emergency change {number} by {who} at {time} is not reconciled")
        }));
        if !history.damage().is_empty() {
            nags.push("the history is damaged: `portcullis history --verify`".to_owned());
        }
        nags
    }
}
