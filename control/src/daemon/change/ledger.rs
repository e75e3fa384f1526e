//! What the daemon remembers of changes: whose turn it is, what is in force, what waits for
//! its confirmation, and the history.
//!
//! Concurrency: one change at a time, by [`Ledger::begin`]; others are told who holds it. The
//! book is locked for moments, and for as long as the disk takes when something is recorded.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dataplane::clock::{Nanos, wall_us};

use super::Order;
use crate::api::{Code, Failure};
use crate::config::Evidence;
use crate::daemon::policy::Texts;
use crate::history::{
    Action, Draft, History, HistoryError, Keep, Moment, Name, Pending, PolicyRef, Prepared, stamp,
};

/// Where and how long policies are recorded, and what changes need.
#[derive(Clone, Debug)]
pub struct ChangeSettings {
    /// The history's directory.
    pub history: Option<PathBuf>,
    /// How much of it is kept.
    pub keep: Keep,
    /// What must be said of a change.
    pub require: Vec<Evidence>,
    /// What must answer after one.
    pub probes: Vec<SocketAddr>,
}

/// A change that waits for its confirmation, and what comes back without it.
#[derive(Clone, Debug)]
pub(in crate::daemon) struct Waiting {
    pub(super) pending: Pending,
    pub(super) previous: Texts,
    /// Not to be tried again before.
    pub(super) not_before: Nanos,
}

/// What is in force, and what was.
#[derive(Debug)]
pub(in crate::daemon) struct Book {
    pub(super) history: Option<History>,
    /// Why there is none, though there should be.
    pub(super) trouble: Option<String>,
    /// What is in force; an empty family is absent.
    pub(super) texts: Texts,
    pub(super) waiting: Option<Waiting>,
    /// What could not be recorded: an emergency, or that a change was undone.
    pub(super) owed: Vec<Draft>,
    /// Not to be tried again before.
    pub(super) owed_again: Nanos,
}

#[derive(Debug)]
struct Holder {
    who: String,
    action: Action,
    since_us: u64,
}

/// See the head of this file.
#[derive(Debug)]
pub(in crate::daemon) struct Ledger {
    pub(super) settings: ChangeSettings,
    book: Mutex<Book>,
    holder: Mutex<Option<Holder>>,
    /// A thread is at work to undo a change.
    pub(super) undoing: AtomicBool,
    /// Changes that were undone.
    pub(super) undone: AtomicU64,
    /// The kernel's name for this boot.
    pub(super) boot: String,
    /// What of expiring rules has been said.
    pub(super) announced: AtomicU64,
}

/// The right to change the policy.
#[derive(Debug)]
pub(super) struct Turn<'l>(&'l Ledger);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.holder() = None;
    }
}

/// What was written down before a change.
#[derive(Debug)]
pub(super) struct Noted {
    prepared: Option<Prepared>,
    waiting: Option<Waiting>,
    /// What is in force from now on.
    texts: Texts,
    pub(super) policy: PolicyRef,
    draft: Draft,
}

pub(super) fn refused(error: &HistoryError) -> Failure {
    Failure::new(Code::Refused, error.to_string())
}

impl Ledger {
    pub(in crate::daemon) fn new(settings: ChangeSettings, book: Book) -> Self {
        let (book, holder) = (Mutex::new(book), Mutex::new(None));
        let boot = Moment::now().boot;
        Self {
            settings,
            book,
            holder,
            undoing: AtomicBool::new(false),
            undone: AtomicU64::new(0),
            boot,
            announced: AtomicU64::new(0),
        }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn holder(&self) -> MutexGuard<'_, Option<Holder>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the turn.
    ///
    /// # Errors
    /// Somebody else has it.
    pub(super) fn begin(&self, action: Action, who: &str) -> Result<Turn<'_>, Failure> {
        let mut holder = self.holder();
        if let Some(Holder { who, action, since_us }) = &*holder {
            let since = stamp(*since_us);
            let action = action.name();
            let message = format!(
                "another change is in progress: {action} by {who} since {since}; try again when \
                 it is done"
            );
            return Err(Failure::new(Code::Busy, message));
        }
        *holder = Some(Holder { who: who.to_owned(), action, since_us: wall_us() });
        Ok(Turn(self))
    }

    /// Whether a change may be made now, and says what it must.
    ///
    /// # Errors
    /// It may not.
    pub(super) fn admit(&self, order: &Order<'_>) -> Result<(), Failure> {
        let why = &order.terms.why;
        let refuse = |message: String| Err(Failure::new(Code::Refused, message));
        let book = self.book();
        let ends = matches!(order.action, Action::Rollback | Action::Undo);
        if let Some(waiting) = book.waiting.as_ref().filter(|_| !ends && !order.terms.dry_run) {
            let Pending { who, deadline_us, .. } = &waiting.pending;
            let until = stamp(*deadline_us);
            let message = format!(
                "the last change, by {who}, waits for its confirmation until {until}; \
                 `portcullis confirm` keeps it, `portcullis rollback` undoes it"
            );
            return Err(Failure::new(Code::Busy, message));
        }
        if order.terms.emergency && why.reason.is_none() {
            return refuse("an emergency needs a reason: --reason".to_owned());
        }
        let asked = matches!(order.action, Action::Apply | Action::Rollback);
        if asked && !order.terms.emergency && !order.terms.dry_run {
            let said = |what: &Evidence| match what {
                Evidence::Reason => why.reason.is_some(),
                Evidence::Approver => why.approver.is_some(),
                Evidence::Ticket => why.ticket.is_some(),
            };
            if let Some(missing) = self.settings.require.iter().find(|what| !said(what)) {
                let emergency = "in an emergency: --emergency --reason";
                return refuse(format!(
                    "this site wants changes with --{missing} ({emergency}); nothing was changed"
                ));
            }
        }
        if order.terms.confirm_ms.is_some() && book.history.is_none() {
            let why = book.trouble.clone();
            let why = why.unwrap_or_else(|| "name a directory in history.dir (--history)".into());
            return refuse(format!("a change that waits needs a history: {why}"));
        }
        Ok(())
    }

    /// What will be in force when `order` has been carried out.
    pub(super) fn merged(&self, order: &Order<'_>) -> Texts {
        let book = self.book();
        let one = |new: &Option<_>, old: &Option<_>| new.clone().or_else(|| old.clone());
        let mut texts = Texts {
            v4: one(&order.texts.v4, &book.texts.v4),
            v6: one(&order.texts.v6, &book.texts.v6),
            sets: order.texts.sets.clone(),
        };
        for family in [&mut texts.v4, &mut texts.v6] {
            // No rules are no text.
            if family.as_ref().is_some_and(|source| source.text.is_empty()) {
                *family = None;
            }
        }
        if order.action == Action::Apply {
            let named = |name: &str| texts.sets.iter().any(|source| source.name == name);
            let kept: Vec<_> =
                book.texts.sets.iter().filter(|it| !named(&it.name)).cloned().collect();
            texts.sets.splice(0..0, kept);
        } else if order.keep_sets {
            texts.sets.clone_from(&book.texts.sets);
        }
        texts
    }

    /// Writes down what is about to be done.
    ///
    /// # Errors
    /// It cannot be recorded, and nothing allows that.
    pub(super) fn prepare(
        &self,
        order: &Order<'_>,
        generation: u64,
        spite: Option<&str>,
    ) -> Result<Noted, Failure> {
        let texts = self.merged(order);
        let policy = PolicyRef::of(&texts);
        let book = self.book();
        let moment = Moment::now();
        let mut draft = order.draft(moment.wall_us);
        draft.generation = generation;
        let window = order.terms.confirm_ms.map(Nanos::from_millis);
        let waiting = window.map(|window| {
            let (who, previous) = (draft.who.clone(), book.texts.clone());
            let back = PolicyRef::of(&previous);
            let pending = Pending::new(&moment, window, who, policy.clone(), back);
            draft.result =
                format!("in force; undone at {} unless confirmed", stamp(pending.deadline_us));
            Waiting { pending, previous, not_before: Nanos(0) }
        });
        if let Some(spite) = spite {
            draft.result = format!("{}, {spite}", draft.result);
        }
        let lenient = order.terms.emergency || order.action == Action::Undo;
        let unrecorded = |why: &dyn std::fmt::Display| {
            format!(
                "{why}: what cannot be recorded is not put in force; make room or mend that, or in \
                 an emergency use --emergency --reason"
            )
        };
        let prepared = match (&book.history, &book.trouble) {
            (Some(history), _) => match history.prepare(&draft, &texts) {
                Ok(prepared) => Some(prepared),
                Err(error) if error.is_io() && lenient => {
                    tracing::error!("{error}: this change is not recorded");
                    None
                }
                Err(error) if error.is_io() => {
                    return Err(Failure::new(Code::Refused, unrecorded(&error)));
                }
                Err(error) => return Err(refused(&error)),
            },
            (None, Some(trouble)) if !lenient => {
                return Err(Failure::new(Code::Refused, unrecorded(trouble)));
            }
            (None, _) => None,
        };
        if let (Some(waiting), Some(history)) = (&waiting, &book.history) {
            // The previous texts were recorded when they were put in force, or are now.
            let kept = history.keep(&waiting.previous);
            let kept = kept.and_then(|_| history.set_pending(&waiting.pending));
            kept.map_err(|error| Failure::new(Code::Refused, unrecorded(&error)))?;
        }
        Ok(Noted { prepared, waiting, texts, policy, draft })
    }

    /// It was not done after all.
    pub(super) fn forget(&self, noted: &Noted) {
        if let (Some(_), Some(history)) = (&noted.waiting, &self.book().history) {
            let _ = history.clear_pending();
        }
    }

    /// It was done. Returns the number of its record.
    pub(super) fn commit(&self, noted: Noted) -> Option<u64> {
        let mut book = self.book();
        book.texts = noted.texts;
        book.waiting = noted.waiting;
        let waits = book.waiting.is_some();
        let Some(prepared) = noted.prepared else {
            let there_is_one = book.history.is_some();
            book.owed.extend(there_is_one.then_some(noted.draft));
            return None;
        };
        let history = book.history.as_mut()?;
        let number = match history.commit(prepared) {
            Ok(number) => number,
            Err(error) => {
                tracing::error!("{error}: the change is in force, but not recorded");
                return None;
            }
        };
        // Not before: a change that was undone without a record is undone again after a crash.
        if !waits && let Err(error) = history.clear_pending() {
            tracing::error!("{error}");
        }
        Some(number)
    }

    /// Records what could not be recorded when it was done, as soon as that is possible.
    pub(super) fn catch_up(&self, now: Nanos) {
        {
            let mut book = self.book();
            if book.owed.is_empty() || now < book.owed_again {
                return;
            }
            book.owed_again = now + Nanos::SECOND;
        }
        let Ok(_turn) = self.begin(Action::Confirm, "the daemon") else { return };
        let mut book = self.book();
        let (texts, waits) = (book.texts.clone(), book.waiting.is_some());
        while let Some(draft) = book.owed.first().cloned() {
            let Some(history) = book.history.as_mut() else { return };
            if history.note(&draft, &texts).is_err() {
                return;
            }
            if !waits {
                let _ = history.clear_pending();
            }
            book.owed.remove(0);
            tracing::info!("the history has room again: what was owed is recorded");
        }
    }

    /// Records something about what is in force. Returns the number of the record, if there
    /// is a history.
    pub(super) fn note(&self, draft: &Draft) -> Result<Option<u64>, HistoryError> {
        let mut book = self.book();
        let texts = book.texts.clone();
        book.history.as_mut().map(|history| history.note(draft, &texts)).transpose()
    }

    /// The texts of what is called so, with all families: an empty one has an empty text.
    pub(super) fn stored(&self, name: &str) -> Result<Texts, Failure> {
        let book = self.book();
        let Some(history) = &book.history else {
            let why = book.trouble.as_deref().unwrap_or("there is no history (history.dir)");
            return Err(Failure::new(Code::Refused, why));
        };
        let name: Name = name.parse().map_err(|error| refused(&HistoryError::Name(error)))?;
        let record = history.find(&name).map_err(|error| refused(&error.into()))?;
        history.texts(record.number, &record.policy).map_err(|error| refused(&error))
    }
}
