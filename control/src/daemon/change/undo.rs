//! How changes end: somebody confirms them, rolls them back, or nobody does anything.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dataplane::clock::{Nanos, monotonic, wall_us};

use super::{Order, who};
use crate::api::protocol::{Applied, Confirm, Reconcile, Rollback, Source, Terms, Why};
use crate::api::{Code, Failure, Peer, Response};
use crate::daemon::policy::Texts;
use crate::daemon::service::Service;
use crate::history::{Action, Draft, Moment, PolicyRef};

/// What could not be undone is tried again after this.
const AGAIN: Nanos = Nanos::from_millis(500);

/// The texts as an order that leaves nothing as it is: an empty family has an empty text.
fn whole(texts: &Texts) -> Texts {
    let empty = |source: &Option<Source>| {
        let none = || Source { name: "(empty)".to_owned(), text: String::new() };
        Some(source.clone().unwrap_or_else(none))
    };
    Texts { v4: empty(&texts.v4), v6: empty(&texts.v6), sets: texts.sets.clone() }
}

impl Service {
    /// Puts texts in force that were in force before. Sets of which they say what was said
    /// last stay as they are.
    pub(super) fn restore(&self, mut order: Order<'_>, texts: &Texts) -> Result<Applied, Failure> {
        let mut wanted = whole(texts);
        let sets = |texts: &Texts| PolicyRef::of(texts).sets;
        if sets(texts) == sets(&self.ledger().book().texts) {
            wanted.sets.clear();
            order.keep_sets = true;
        }
        self.change_in_turn(&Order { texts: &wanted, ..order })
    }

    /// Undoes a change, in its turn.
    pub(super) fn put_back(
        &self,
        texts: &Texts,
        peer: Peer,
        about: Option<u64>,
        trouble: &str,
    ) -> Result<Applied, Failure> {
        let why = Why { reason: Some(trouble.to_owned()), ..Why::default() };
        let terms = Terms { why, ..Terms::default() };
        let result = Some(format!("undone: {trouble}"));
        let order = Order { about, result, ..Order::of(Action::Undo, texts, terms, peer) };
        let undone = self.restore(order, texts)?;
        self.ledger().undone.fetch_add(1, Ordering::Relaxed);
        Ok(undone)
    }

    /// Undoes the change that waits, if its time has come. For the housekeeping thread.
    pub(in crate::daemon) fn tend(self: &Arc<Self>) {
        self.ledger().catch_up(monotonic());
        let due = {
            let mut book = self.ledger().book();
            let Some(waiting) = &mut book.waiting else { return };
            let now = monotonic();
            let moment = Moment {
                wall_us: wall_us(),
                monotonic: now,
                // The boot that it was made in, or the wall clock alone decides.
                boot: self.ledger().boot.clone(),
            };
            let due = now >= waiting.not_before && waiting.pending.left(&moment) == Nanos(0);
            if due {
                waiting.not_before = now + AGAIN;
            }
            due
        };
        if !due || self.ledger().undoing.swap(true, Ordering::AcqRel) {
            return;
        }
        let service = Arc::clone(self);
        let run = move || {
            service.undo_unconfirmed();
            service.ledger().undoing.store(false, Ordering::Release);
        };
        if let Err(error) = std::thread::Builder::new().name("undo".to_owned()).spawn(run) {
            tracing::error!("the change cannot be undone yet: {error}");
            self.ledger().undoing.store(false, Ordering::Release);
        }
    }

    fn undo_unconfirmed(&self) {
        // Somebody confirms it, or rolls it back: then there is nothing to do any more.
        let Ok(turn) = self.ledger().begin(Action::Undo, "the daemon") else { return };
        let waiting = self.ledger().book().waiting.clone();
        let Some(waiting) = waiting else { return };
        let trouble = "nobody confirmed the change in time";
        match self.put_back(&waiting.previous, Peer::default(), None, trouble) {
            Ok(applied) => {
                let generation = applied.generation;
                tracing::warn!("{trouble}: the policy before it is back, generation {generation}");
            }
            Err(failure) => {
                tracing::error!("{trouble}, and it cannot be undone yet: {}", failure.message);
            }
        }
        drop(turn);
    }

    /// What waits stays.
    pub(in crate::daemon) fn confirm(
        &self,
        confirm: Confirm,
        peer: Peer,
    ) -> Result<Response, Failure> {
        let by = who(peer, &confirm.why);
        let _turn = self.ledger().begin(Action::Confirm, &by.to_string())?;
        {
            let mut book = self.ledger().book();
            let nothing = "no change waits for its confirmation: it was undone, or never waited; \
                           `portcullis history` tells";
            if book.waiting.is_none() {
                return Err(Failure::new(Code::Refused, nothing));
            }
            if let Some(history) = &book.history {
                history.clear_pending().map_err(|error| {
                    let message = format!("{error}: the change is not confirmed");
                    Failure::new(Code::Refused, message)
                })?;
            }
            book.waiting = None;
        }
        let mut draft = Draft::new(Action::Confirm, by, wall_us());
        (draft.reason, draft.approver) = (confirm.why.reason, confirm.why.approver);
        (draft.ticket, draft.generation) = (confirm.why.ticket, self.store().generation());
        draft.result = "confirmed".to_owned();
        let record = self.ledger().note(&draft).unwrap_or_else(|error| {
            tracing::error!("{error}: the confirmation holds, but is not recorded");
            None
        });
        tracing::info!("confirmed by {}", draft.who);
        Ok(Response::Confirmed { record })
    }

    /// Back to what was.
    pub(in crate::daemon) fn rollback(
        &self,
        rollback: Rollback,
        peer: Peer,
    ) -> Result<Response, Failure> {
        let Rollback { to, session, force, terms } = rollback;
        let by = who(peer, &terms.why).to_string();
        let _turn = self.ledger().begin(Action::Rollback, &by)?;
        let waiting = self.ledger().book().waiting.clone();
        let texts = match (&to, waiting) {
            (None, Some(waiting)) => waiting.previous,
            (to, _) => self.ledger().stored(to.as_deref().unwrap_or("@1"))?,
        };
        let order = Order::of(Action::Rollback, &texts, terms, peer);
        let order = Order { session, force, ..order };
        self.ledger().admit(&order)?;
        self.restore(order, &texts).map(Response::Applied)
    }

    /// An emergency was looked at.
    pub(in crate::daemon) fn reconcile(
        &self,
        reconcile: Reconcile,
        peer: Peer,
    ) -> Result<Response, Failure> {
        let by = who(peer, &reconcile.why);
        let _turn = self.ledger().begin(Action::Reconcile, &by.to_string())?;
        let number = reconcile.record;
        let refuse = |message: String| Err(Failure::new(Code::Refused, message));
        if reconcile.why.reason.is_none() {
            return refuse("say what was found: --reason".to_owned());
        }
        let open: Option<Vec<u64>> = {
            let book = self.ledger().book();
            let history = book.history.as_ref();
            history.map(|history| history.open_emergencies().map(|it| it.number).collect())
        };
        if !open.as_ref().is_some_and(|open| open.contains(&number)) {
            let open: Vec<String> =
                open.unwrap_or_default().iter().map(ToString::to_string).collect();
            let open = if open.is_empty() { "none".to_owned() } else { open.join(", ") };
            return refuse(format!("record {number} is no open emergency (open: {open})"));
        }
        let mut draft = Draft::new(Action::Reconcile, by, wall_us());
        (draft.reason, draft.approver) = (reconcile.why.reason, reconcile.why.approver);
        (draft.ticket, draft.about) = (reconcile.why.ticket, Some(number));
        draft.generation = self.store().generation();
        draft.result = format!("record {number} is reconciled");
        let noted = self.ledger().note(&draft);
        let noted = noted.map_err(|error| super::ledger::refused(&error))?;
        Ok(Response::Reconciled { record: noted.unwrap_or_default() })
    }
}
