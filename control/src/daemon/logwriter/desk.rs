//! What the log thread did and is told; shared with it.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use dataplane::logbook::LogBook;

use super::locked;
use super::sink::{Fate, Sink, Trouble};
use super::top::Heavy;

/// Lines about traced packets that are kept for those who watch.
const TRACES: usize = 4096;

/// The log thread's counters, orders and news.
#[derive(Debug, Default)]
pub(in crate::daemon) struct LogDesk {
    /// How bytes get into files.
    way: &'static str,
    written: AtomicU64,
    diverted: AtomicU64,
    lost: AtomicU64,
    captured: AtomicU64,
    captures_lost: AtomicU64,
    json_written: AtomicU64,
    json_lost: AtomicU64,
    now: Mutex<Outlook>,
    tops: Mutex<Tops>,
    traces: Mutex<TraceRing>,
    order: Mutex<Option<Order>>,
    /// Books of policies that came into force.
    books: Mutex<Vec<Arc<LogBook>>>,
    pub(super) stop: AtomicBool,
}

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Outlook {
    /// The file; standard error without one.
    pub(in crate::daemon) path: Option<PathBuf>,
    /// Why the file is not written, if it is not.
    pub(in crate::daemon) trouble: Option<Trouble>,
    /// Why JSON lines are not written.
    pub(in crate::daemon) json: Option<String>,
    /// Why captured packets are not written.
    pub(in crate::daemon) captures: Option<String>,
}

/// Who causes the most records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Tops {
    /// By source.
    pub(in crate::daemon) sources: Vec<Heavy>,
    /// By rule.
    pub(in crate::daemon) rules: Vec<Heavy>,
}

/// The latest lines about traced packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::daemon) struct TraceRing {
    lines: VecDeque<String>,
    /// The number of the next line.
    next: u64,
}

/// Some lines about traced packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Traces {
    /// In order.
    pub(in crate::daemon) lines: Vec<String>,
    /// Where the next one will be.
    pub(in crate::daemon) next: u64,
    /// Lines that were gone before anybody asked.
    pub(in crate::daemon) missed: u64,
}

impl TraceRing {
    fn push(&mut self, line: String) {
        if self.lines.len() == TRACES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        self.next += 1;
    }

    /// At most `limit` lines from number `from` on; without one, from now on.
    fn since(&self, from: Option<u64>, limit: usize) -> Traces {
        let first = self.next - self.lines.len() as u64;
        let wanted = from.unwrap_or(self.next).min(self.next);
        let start = wanted.max(first);
        let skip = (start - first) as usize;
        let lines: Vec<String> = self.lines.iter().skip(skip).take(limit).cloned().collect();
        Traces { next: start + lines.len() as u64, missed: start - wanted, lines }
    }
}

/// What the thread is told to do.
#[derive(Debug)]
pub(super) enum Order {
    Reopen,
    TurnTo(Option<(PathBuf, File)>),
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl LogDesk {
    pub(super) fn new(way: &'static str) -> Self {
        Self { way, ..Self::default() }
    }

    /// Lines written where they were to go, or at least on standard error.
    pub(in crate::daemon) fn written(&self) -> u64 {
        read(&self.written) + read(&self.diverted)
    }
    /// Lines that went to standard error in place of the file.
    pub(in crate::daemon) fn diverted(&self) -> u64 {
        read(&self.diverted)
    }
    /// Lines lost because the file could not be written.
    pub(in crate::daemon) fn lost(&self) -> u64 {
        read(&self.lost)
    }
    /// Captured packets that are in files, and that could not be written.
    pub(in crate::daemon) fn captures(&self) -> (u64, u64) {
        (read(&self.captured), read(&self.captures_lost))
    }
    /// JSON lines that are in their file, and that could not be written.
    pub(in crate::daemon) fn json(&self) -> (u64, u64) {
        (read(&self.json_written), read(&self.json_lost))
    }
    /// How bytes get into files.
    pub(in crate::daemon) fn way(&self) -> &'static str {
        self.way
    }
    /// Where lines go.
    pub(in crate::daemon) fn outlook(&self) -> Outlook {
        locked(&self.now).clone()
    }
    /// Who causes the most records, as of a second ago.
    pub(in crate::daemon) fn tops(&self) -> Tops {
        locked(&self.tops).clone()
    }
    /// Lines about traced packets from number `from` on; without one, from now on.
    pub(in crate::daemon) fn traces(&self, from: Option<u64>, limit: usize) -> Traces {
        locked(&self.traces).since(from, limit)
    }
    /// Opens the files anew before the next line.
    pub(in crate::daemon) fn reopen(&self) {
        locked(&self.order).get_or_insert(Order::Reopen);
    }
    /// Writes to another file, which is open, or to standard error.
    pub(in crate::daemon) fn turn_to(&self, target: Option<(PathBuf, File)>) {
        *locked(&self.order) = Some(Order::TurnTo(target));
    }

    /// A policy came into force: what its rules do not report is told from now on, also
    /// of rules that no record ever comes from.
    pub(in crate::daemon) fn open_book(&self, book: Arc<LogBook>) {
        locked(&self.books).push(book);
    }

    pub(super) fn books(&self) -> Vec<Arc<LogBook>> {
        std::mem::take(&mut locked(&self.books))
    }
    pub(super) fn order(&self) -> Option<Order> {
        locked(&self.order).take()
    }
    pub(super) fn count_lines(&self, fate: Fate) {
        self.written.fetch_add(fate.written, Ordering::Relaxed);
        self.diverted.fetch_add(fate.diverted, Ordering::Relaxed);
        self.lost.fetch_add(fate.lost, Ordering::Relaxed);
    }
    pub(super) fn count_captures(&self, written: u64, lost: u64) {
        self.captured.fetch_add(written, Ordering::Relaxed);
        self.captures_lost.fetch_add(lost, Ordering::Relaxed);
    }
    pub(super) fn count_json(&self, fate: Fate) {
        self.json_written.fetch_add(fate.written, Ordering::Relaxed);
        self.json_lost.fetch_add(fate.lost, Ordering::Relaxed);
    }
    pub(super) fn trace(&self, line: String) {
        locked(&self.traces).push(line);
    }
    pub(super) fn publish(&self, tops: Tops) {
        *locked(&self.tops) = tops;
    }
    pub(super) fn tell(&self, sink: &Sink, json: Option<String>, captures: Option<String>) {
        let mut told = locked(&self.now);
        let same = told.path.as_deref() == sink.path()
            && told.trouble.as_ref() == sink.trouble()
            && told.json == json
            && told.captures == captures;
        if !same {
            let (path, trouble) = (sink.path().map(ToOwned::to_owned), sink.trouble().cloned());
            *told = Outlook { path, trouble, json, captures };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_watches_gets_every_line_or_hears_how_many_are_missing() {
        let desk = LogDesk::default();
        desk.trace("before".to_owned());
        let start = desk.traces(None, 100);
        assert_eq!((start.lines.len(), start.next, start.missed), (0, 1, 0));
        for number in 0..3 {
            desk.trace(number.to_string());
        }
        let two = desk.traces(Some(start.next), 2);
        assert_eq!((two.lines, two.next, two.missed), (vec!["0".into(), "1".into()], 3, 0));
        for number in 0..TRACES {
            desk.trace(number.to_string());
        }
        let late = desk.traces(Some(3), 1);
        assert_eq!((late.lines, late.next, late.missed), (vec!["0".into()], 5, 1));
    }
}
