//! The log thread: LOG hits from the workers' queue to a file, as the kernel
//! would have written them.
//!
//! Nothing here can hold up a worker: a queue that is full loses hits, and a
//! file that cannot be written loses lines; both are counted. The file is opened
//! anew when asked (SIGHUP, for log rotation), when it was deleted and, after a
//! failure, every few seconds.

mod lines;
mod sink;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use dataplane::clock::{Nanos, monotonic};
use dataplane::worker::LogEntry;

pub(super) use lines::{Format, kernel_lines};
use sink::Sink;
pub(super) use sink::{Trouble, can_open, open};

/// Lines are written together up to this many bytes.
const BATCH_BYTES: usize = 64 << 10;
/// Pause when the queue is empty.
const PAUSE: Duration = Duration::from_millis(10);

/// What the log thread did and is told; shared with it.
#[derive(Debug, Default)]
pub(super) struct LogDesk {
    written: AtomicU64,
    diverted: AtomicU64,
    lost: AtomicU64,
    now: Mutex<Outlook>,
    order: Mutex<Option<Order>>,
    stop: AtomicBool,
}

/// Where lines go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outlook {
    /// The file; standard error without one.
    pub(super) path: Option<PathBuf>,
    /// Why the file is not written, if it is not.
    pub(super) trouble: Option<Trouble>,
}

#[derive(Debug)]
enum Order {
    Reopen,
    TurnTo(Option<(PathBuf, File)>),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogDesk {
    /// Lines written where they were to go, or at least on standard error.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed) + self.diverted.load(Ordering::Relaxed)
    }
    /// Lines that went to standard error in place of the file.
    pub(super) fn diverted(&self) -> u64 {
        self.diverted.load(Ordering::Relaxed)
    }
    /// Lines lost because the file could not be written.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
    /// Where lines go.
    pub(super) fn outlook(&self) -> Outlook {
        locked(&self.now).clone()
    }
    /// Opens the file anew before the next line.
    pub(super) fn reopen(&self) {
        locked(&self.order).get_or_insert(Order::Reopen);
    }
    /// Writes to another file, which is open, or to standard error.
    pub(super) fn turn_to(&self, target: Option<(PathBuf, File)>) {
        *locked(&self.order) = Some(Order::TurnTo(target));
    }
}

/// Handle of the log thread.
#[derive(Debug)]
pub(super) struct LogThread {
    desk: Arc<LogDesk>,
    thread: JoinHandle<()>,
}

impl LogThread {
    /// Starts writing to `path`, or to standard error without one.
    ///
    /// # Errors
    /// When no thread can be made. A file that cannot be opened is no error: lines go
    /// to standard error until it can.
    pub(super) fn start(
        path: Option<&Path>,
        queue: Arc<ArrayQueue<LogEntry>>,
        format: Box<Format>,
    ) -> io::Result<Self> {
        let desk = Arc::new(LogDesk::default());
        let mut writer = Writer {
            sink: Sink::new(path.map(Path::to_owned), monotonic()),
            desk: Arc::clone(&desk),
            batch: Vec::with_capacity(BATCH_BYTES),
        };
        writer.tell();
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run(&queue, &*format))?;
        Ok(Self { desk, thread })
    }

    /// What it did and is told.
    pub(super) fn desk(&self) -> &Arc<LogDesk> {
        &self.desk
    }

    /// Writes what is queued and ends, unless the file blocks: then the thread
    /// is left behind after `patience`.
    pub(super) fn finish(self, patience: Nanos) {
        self.desk.stop.store(true, Ordering::Relaxed);
        let deadline = monotonic() + patience;
        while !self.thread.is_finished() && monotonic() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Writer {
    sink: Sink,
    desk: Arc<LogDesk>,
    batch: Vec<u8>,
}

impl Writer {
    fn run(&mut self, queue: &ArrayQueue<LogEntry>, format: &Format) {
        loop {
            // Read before the queue, so that what was queued before a stop is written.
            let last = self.desk.stop.load(Ordering::Relaxed);
            self.obey();
            while let Some(entry) = queue.pop() {
                format(&entry, &mut self.batch);
                self.batch.push(b'\n');
                if self.batch.len() >= BATCH_BYTES {
                    self.flush();
                }
            }
            self.flush();
            if last {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn obey(&mut self) {
        let order = locked(&self.desk.order).take();
        match order {
            None => {}
            Some(Order::Reopen) => self.sink.reopen(monotonic()),
            Some(Order::TurnTo(target)) => self.sink.turn_to(target),
        }
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            self.sink.tend(monotonic());
        } else {
            let fate = self.sink.write(&self.batch, monotonic());
            self.desk.written.fetch_add(fate.written, Ordering::Relaxed);
            self.desk.diverted.fetch_add(fate.diverted, Ordering::Relaxed);
            self.desk.lost.fetch_add(fate.lost, Ordering::Relaxed);
            self.batch.clear();
        }
        self.tell();
    }

    /// Lets others know where lines go.
    fn tell(&self) {
        let mut told = locked(&self.desk.now);
        if told.path.as_deref() != self.sink.path() || told.trouble.as_ref() != self.sink.trouble()
        {
            *told = Outlook {
                path: self.sink.path().map(Path::to_owned),
                trouble: self.sink.trouble().cloned(),
            };
        }
    }
}
