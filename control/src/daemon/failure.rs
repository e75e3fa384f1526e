//! What is configured for the time when the daemon is away or stuck.

use dataplane::clock::Nanos;

/// What happens when the daemon fails.
#[derive(Clone, Debug)]
pub struct Failure {
    /// A worker that has not turned for longer is away: the kernel side does what holds
    /// without a daemon. Zero: nobody watches.
    pub watchdog: Nanos,
}
