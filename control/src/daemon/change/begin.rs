//! What a start finds: the history, a change that still waits for its confirmation, or one that
//! was undone and whose files would bring it back.

use dataplane::clock::{Nanos, wall_us};

use super::ledger::{Book, ChangeSettings, Waiting};
use crate::daemon::policy::Texts;
use crate::history::{Action, Draft, History, Moment, Pending, PolicyRef, Who};

/// What the daemon is to begin with.
#[derive(Debug)]
pub(in crate::daemon) struct Beginning {
    /// The policy.
    pub(in crate::daemon) texts: Texts,
    /// What is known of changes; its texts are those.
    pub(in crate::daemon) book: Book,
    /// Why it is not what the files say.
    pub(in crate::daemon) notes: Vec<String>,
    /// What was done about a change that waited.
    undone: bool,
}

/// Opens the history and decides what is in force at first: `texts`, what the files say, unless
/// a change still waits or was undone. Nothing here keeps a firewall from starting.
pub(in crate::daemon) fn begin(settings: &ChangeSettings, texts: Texts, now: &Moment) -> Beginning {
    let mut beginning = Beginning {
        texts,
        book: Book {
            history: None,
            trouble: None,
            texts: Texts::default(),
            waiting: None,
            owed: Vec::new(),
            owed_again: Nanos(0),
        },
        notes: Vec::new(),
        undone: false,
    };
    if let Some(directory) = &settings.history {
        match History::open(directory, settings.keep) {
            Ok(history) => beginning.look(history, now),
            Err(error) => {
                beginning.notes.push(format!("{error}: no change will be possible"));
                beginning.book.trouble = Some(error.to_string());
            }
        }
    }
    beginning.book.texts = beginning.texts.clone();
    beginning
}

impl Beginning {
    fn look(&mut self, history: History, now: &Moment) {
        for damage in history.damage() {
            self.notes.push(format!("the history is damaged: {damage}"));
        }
        match history.pending() {
            Some(pending) => self.resume(&history, pending, now),
            None => self.stay_undone(&history),
        }
        self.book.history = Some(history);
    }

    /// Goes on waiting, or brings back what was before.
    fn resume(&mut self, history: &History, pending: Pending, now: &Moment) {
        let number = history.records().last().map_or(0, |record| record.number);
        let left = pending.left(now);
        let previous = history.texts(number, &pending.previous);
        let waiting = history.texts(number, &pending.policy);
        let previous = match previous {
            Ok(previous) => previous,
            Err(error) => {
                return self.notes.push(format!(
                    "a change waits for its confirmation, but what was before it is lost: {error}"
                ));
            }
        };
        match waiting {
            Ok(texts) if left > Nanos(0) => {
                let seconds = left.as_secs();
                self.texts = texts;
                self.notes.push(format!(
                    "the change by {} still waits: it is undone in {seconds} s unless confirmed",
                    pending.who
                ));
                self.book.waiting = Some(Waiting { pending, previous, not_before: Nanos(0) });
            }
            _ => {
                self.texts = previous;
                self.undone = true;
                self.notes.push(format!(
                    "nobody confirmed the change by {} in time: the policy before it is in force",
                    pending.who
                ));
            }
        }
    }

    /// Files whose policy was undone do not bring it back.
    fn stay_undone(&mut self, history: &History) {
        let turns = history.in_turn();
        let [back, undone, ..] = turns.as_slice() else { return };
        let files = PolicyRef::of(&self.texts).id;
        if back.action != Action::Undo || files != undone.policy.id {
            return;
        }
        match history.texts(back.number, &back.policy) {
            Ok(texts) => {
                self.texts = texts;
                self.notes.push(format!(
                    "the policy files say what was undone at {}: the policy before it stays in \
                     force; `portcullis apply` them, or mend them",
                    back.time
                ));
            }
            Err(error) => self.notes.push(error.to_string()),
        }
    }
}

impl Beginning {
    /// Records what the daemon has begun with, if it is another than before.
    pub(in crate::daemon) fn record(mut self, generation: u64) -> (Book, Vec<String>) {
        let Some(history) = &mut self.book.history else { return (self.book, self.notes) };
        let id = PolicyRef::of(&self.texts).id;
        let same = history.in_turn().first().is_some_and(|record| record.policy.id == id);
        let action = if self.undone { Action::Undo } else { Action::Start };
        if !same || self.undone {
            let mut draft = Draft::new(action, Who::default(), wall_us());
            draft.generation = generation;
            if self.undone {
                draft.result = "undone: nobody confirmed the change in time".to_owned();
            }
            // What is not on record as undone is undone again at the next start.
            let noted = history.note(&draft, &self.texts);
            let noted = noted.and_then(|_| match self.undone {
                true => history.clear_pending(),
                false => Ok(()),
            });
            if let Err(error) = noted {
                self.notes.push(format!("{error}: the start is not recorded"));
            }
        }
        (self.book, self.notes)
    }
}
