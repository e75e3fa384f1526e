//! Is all well after a change? If not, the old policy comes back.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use dataplane::clock::{Nanos, monotonic};

use super::Order;
use crate::api::protocol::Applied;
use crate::api::{Code, Failure};
use crate::daemon::policy::Texts;
use crate::daemon::service::Service;

/// How long a service may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a worker may take to turn.
const TURN_TIMEOUT: Nanos = Nanos::from_secs(1);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(1);

impl Service {
    /// Looks, and undoes the change if something is wrong.
    ///
    /// # Errors
    /// What was wrong.
    pub(super) fn stay_healthy(
        &self,
        order: &Order<'_>,
        before: &Texts,
        applied: &Applied,
    ) -> Result<(), Failure> {
        let Err(trouble) = self.look(applied) else { return Ok(()) };
        let undone = self.put_back(before, order.peer, applied.record, &trouble);
        let outcome = match undone {
            Ok(undone) => format!("the old policy is back, generation {}", undone.generation),
            Err(failure) => format!("it could not be undone: {}", failure.message),
        };
        Err(Failure::new(Code::Refused, format!("{trouble} after the change: {outcome}")))
    }

    fn look(&self, applied: &Applied) -> Result<(), String> {
        if !applied.adopted {
            return Err("a worker does not take up the new policy".to_owned());
        }
        let turns = |worker: &crate::daemon::fleet::WorkerSight| worker.stats.turns.get();
        let before: Vec<u64> = self.workers().iter().map(turns).collect();
        let start = monotonic();
        while self.workers().iter().zip(&before).any(|(worker, turn)| turns(worker) == *turn) {
            if monotonic() - start > TURN_TIMEOUT {
                return Err("a worker does not turn".to_owned());
            }
            std::thread::sleep(POLL);
        }
        let probes = &self.ledger().settings.probes;
        let answers = |probe: &SocketAddr| TcpStream::connect_timeout(probe, PROBE_TIMEOUT);
        for probe in probes {
            if let Err(error) = answers(probe) {
                return Err(format!("{probe} (change.probes) does not answer: {error}"));
            }
        }
        Ok(())
    }
}
