//! A replay from its beginning again, perhaps over another network: everything that packets
//! have left behind is gone, and nothing that the policy needs is made twice.

use std::sync::Arc;

use dataplane::clock::Nanos;
use dataplane::conntrack::{Config, Conntrack, ConntrackError};
use dataplane::engine::Engine;
use dataplane::fib::Network;
use dataplane::sets::Registry;
use dataplane::snapshot::Snapshot;
use dataplane::stats::WorkerStats;

use super::{Replay, ReplayError};
use crate::compile::{self, CompileError, DynamicState, Limits};
use crate::selfcheck::SelfCheckError;

impl Replay {
    /// Begins again at `at`, which may lie before now. `network` has the same ports, by the
    /// same numbers, as the one before.
    ///
    /// # Errors
    /// None that making it did not have.
    pub(crate) fn begin_again(
        &mut self,
        network: Arc<Network>,
        conntrack: Config,
        at: Nanos,
    ) -> Result<(), ConntrackError> {
        debug_assert!(
            network.ports().iter().map(|port| &port.name).eq(&self.ports),
            "the policy is compiled for these ports"
        );
        self.network = network;
        self.conntrack = Conntrack::new(conntrack)?;
        self.engine = Engine::new();
        self.engine.set_seed(self.conntrack.seed(0));
        self.stats = WorkerStats::default();
        (self.fed, self.now) = (0, at);
        Ok(())
    }

    /// Limits, lists and amounts that rules own begin again, over these sets. The policy was
    /// checked when the replay was made.
    ///
    /// # Errors
    /// None that making it did not have.
    pub(crate) fn renew(&mut self, sets: Arc<Registry>) -> Result<(), ReplayError> {
        let fresh = DynamicState::with_sets(Arc::clone(&sets));
        let input = compile::Input {
            v4: &self.v4,
            v6: &self.v6,
            ports: &self.ports,
            limits: Limits::default(),
        };
        let known = Some(&self.snapshot.policy);
        let compiled = compile::compile_over(input, &fresh, Arc::clone(&sets), known);
        let refused = |error: CompileError| ReplayError::Policy(SelfCheckError::Compile(error));
        let compiled = compiled.map_err(refused)?;
        compiled.dynamic.expect_packets();
        let generation = self.snapshot.generation + 1;
        self.snapshot = Snapshot::new(generation, compiled.policy, 1);
        (self.counters, self.sets) = (compiled.counters, sets);
        Ok(())
    }
}
