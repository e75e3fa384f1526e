//! What is to be sent to one webhook: bounded, in order, tried again later and later. Time is an
//! argument.

use std::collections::VecDeque;

use dataplane::clock::Nanos;

use super::Notice;

/// After the first failure; doubled each time.
const FIRST_PAUSE: Nanos = Nanos::SECOND;
/// At most.
const LONGEST_PAUSE: Nanos = Nanos::from_secs(300);

/// What became of notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken by the webhook.
    pub sent: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Given up: tried too often, or pushed out of a full queue.
    pub lost: u64,
}

/// A notice that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// What is told.
    pub notice: Notice,
    /// How often it was tried.
    pub tried: u32,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Outbox {
    letters: VecDeque<Letter>,
    room: usize,
    attempts: u32,
    /// Nothing is tried before: a webhook that fails is left alone for a while.
    not_before: Nanos,
    counts: Counts,
}

impl Outbox {
    /// Empty.
    pub fn new(room: usize, attempts: u32) -> Self {
        let (letters, counts) = (VecDeque::new(), Counts::default());
        Self { letters, room, attempts, not_before: Nanos(0), counts }
    }

    /// Takes a notice. One that resolves what still waits goes with it, untold: it was never
    /// known. From a full queue the oldest goes.
    pub fn push(&mut self, notice: Notice) {
        let same = |letter: &Letter| {
            let waiting = &letter.notice;
            waiting.firing && waiting.kind == notice.kind && waiting.key == notice.key
        };
        if !notice.firing
            && let Some(at) = self.letters.iter().position(|it| it.tried == 0 && same(it))
        {
            self.letters.remove(at);
            return;
        }
        if self.letters.len() >= self.room {
            self.letters.pop_front();
            self.counts.lost += 1;
        }
        self.letters.push_back(Letter { notice, tried: 0 });
    }

    /// What is to be tried now.
    pub fn due(&self, now: Nanos) -> Option<&Notice> {
        let first = self.letters.front().filter(|_| now >= self.not_before)?;
        Some(&first.notice)
    }

    /// The first one was taken.
    pub fn taken(&mut self) {
        if self.letters.pop_front().is_some() {
            self.counts.sent += 1;
        }
        self.not_before = Nanos(0);
    }

    /// It was not; whether it is given up.
    pub fn refused(&mut self, now: Nanos) -> bool {
        let Some(first) = self.letters.front_mut() else { return false };
        first.tried += 1;
        self.counts.failed += 1;
        let doubled = FIRST_PAUSE.0 << (first.tried - 1).min(20);
        self.not_before = now + Nanos(doubled.min(LONGEST_PAUSE.0));
        let given_up = first.tried >= self.attempts;
        if given_up {
            self.letters.pop_front();
            self.counts.lost += 1;
        }
        given_up
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.letters.len()
    }

    /// What became of the others.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}
