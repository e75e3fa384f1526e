//! The thread that saves every few seconds.
//!
//! Life cycle: started once the workers run; [`Keeper::finish`] makes it save once
//! more, with all the workers gone, and end. Concurrency: it shares nothing but
//! its progress. Limits: the pause after a pass is at least [`SHARE`] times as long
//! as the work that it was, however large the table.

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dataplane::clock::Nanos;

use super::save::{Saved, Sources, save};
use super::{Place, Restored};

/// A pass is work for at most one part in this many of the time.
const SHARE: u64 = 20;

/// Where and how often.
#[derive(Debug)]
pub struct Saving {
    /// The file.
    pub place: Place,
    /// The pause between two passes.
    pub every: Nanos,
}

/// What has been done.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// What was found at the start.
    pub restored: Restored,
    /// Passes that succeeded.
    pub saves: u64,
    /// Passes that failed.
    pub failures: u64,
    /// The last that succeeded.
    pub last: Option<Saved>,
    /// Why the last one failed, if it did.
    pub error: Option<String>,
    /// The pause between two passes.
    pub every: Nanos,
}

#[derive(Debug, Default)]
struct Orders {
    stop: bool,
    every: Nanos,
    /// `every` is another since the pause began.
    changed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    progress: Mutex<Progress>,
    orders: Mutex<Orders>,
    wake: Condvar,
}

/// Changes how often is saved.
#[derive(Clone, Debug)]
pub struct Pace(Arc<Shared>);

impl Pace {
    /// The pause between two passes from now on.
    pub fn set(&self, every: Nanos) {
        let mut orders = self.0.orders();
        (orders.every, orders.changed) = (every, true);
        drop(orders);
        self.0.wake.notify_all();
    }
}

/// The running thread.
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts it.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(saving: Saving, sources: Sources, restored: Restored) -> io::Result<Self> {
        let every = saving.every;
        let progress = Mutex::new(Progress { restored, ..Progress::default() });
        let orders = Mutex::new(Orders { every, ..Orders::default() });
        let shared = Arc::new(Shared { progress, orders, ..Shared::default() });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("state".to_owned()).spawn(move || {
            Loop { saving, sources, shared: theirs, expected: 0 }.run();
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What has been done so far, for as long as this is kept.
    pub fn sight(&self) -> impl Fn() -> Progress + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let every = shared.orders().every;
            Progress { every, ..shared.progress().clone() }
        }
    }

    /// To change how often.
    pub fn pace(&self) -> Pace {
        Pace(Arc::clone(&self.shared))
    }

    /// Saves once more and ends. To be called when no worker runs any more.
    pub fn finish(mut self) {
        self.shared.orders().stop = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn orders(&self) -> std::sync::MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits as long as it is told, or as the last pass's `work` needs, and says whether to
    /// go on. Another pace begins a new pause.
    fn pause(&self, work: Nanos) -> bool {
        let mut orders = self.orders();
        loop {
            orders.changed = false;
            let time = orders.every.0.max(work.0.saturating_mul(SHARE));
            let time = Duration::from_nanos(time);
            let idle = |orders: &mut Orders| !orders.stop && !orders.changed;
            let waited = self.wake.wait_timeout_while(orders, time, idle);
            orders = waited.unwrap_or_else(PoisonError::into_inner).0;
            if orders.stop || !orders.changed {
                return !orders.stop;
            }
        }
    }
}

struct Loop {
    saving: Saving,
    sources: Sources,
    shared: Arc<Shared>,
    /// Length of the last file: the next will be about as long.
    expected: usize,
}

impl Loop {
    fn run(mut self) {
        let mut work = Nanos(0);
        while self.shared.pause(work) {
            work = self.pass(false);
        }
        self.pass(true);
    }

    /// One pass; returns how much work it was.
    fn pass(&mut self, clean: bool) -> Nanos {
        let outcome = save(&self.saving.place, &self.sources, clean, self.expected);
        let mut progress = self.shared.progress();
        match outcome {
            Ok(saved) => {
                if progress.error.take().is_some() {
                    tracing::info!("the state can be saved again");
                }
                progress.saves += 1;
                progress.last = Some(saved);
                self.expected = saved.bytes as usize;
                saved.work
            }
            Err(error) => {
                let error = error.to_string();
                let path = self.saving.place.path().display();
                // Said once for as long as it stays the same.
                if progress.error.as_ref() != Some(&error) {
                    tracing::error!("the state cannot be saved to {path}: {error}; will try again");
                }
                progress.failures += 1;
                progress.error = Some(error);
                Nanos(0)
            }
        }
    }
}
