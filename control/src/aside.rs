//! Long work beside the packets: on a thread that a worker never has to wait for long.
//!
//! Reading, compiling and checking a long policy takes tens of milliseconds. Where workers
//! have no cores of their own, the scheduler parts the time by weight: this thread, and those
//! that it begins, have a tenth of a worker's.

use std::sync::{Mutex, PoisonError};
use std::thread;

/// Steps of priority below a worker's.
const BELOW_WORKERS: i32 = 10;

/// Does the work on a thread of lower priority, and waits for it. Where there can be no such
/// thread, it is done here.
pub(crate) fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let work = Mutex::new(Some(work));
    let take = || work.lock().unwrap_or_else(PoisonError::into_inner).take();
    thread::scope(|scope| {
        let begun = thread::Builder::new().name("aside".to_owned()).spawn_scoped(scope, || {
            step_back();
            take().map(|work| work())
        });
        let done = match begun {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => take().map(|work| work()),
        };
        done.expect("the work is taken once")
    })
}

/// Lowers the priority of this thread alone.
fn step_back() {
    if let Err(error) = rustix::process::setpriority_process(None, BELOW_WORKERS) {
        tracing::debug!("the priority of long work cannot be lowered: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::aside;

    #[test]
    fn work_is_done_at_a_lower_priority_and_the_caller_keeps_its_own() {
        let mine = || rustix::process::getpriority_process(None).unwrap();
        let before = mine();
        assert!(aside(mine) >= before.max(super::BELOW_WORKERS), "of a thread of its own");
        assert_eq!(mine(), before);
    }
}
