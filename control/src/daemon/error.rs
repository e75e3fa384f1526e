//! Why the daemon did not start, or ended.

use std::io;

use dataplane::conntrack::{ConfigError, ConntrackError};
use dataplane::fib::NetworkError;
use dataplane::port::afxdp::AfxdpError;
use thiserror::Error;

use super::failure::FailureError;
use super::policy::Texts;
use super::preflight::PreflightError;
use super::sandbox::SandboxError;
use crate::api::ServerError;
use crate::apply::ApplyError;
use crate::diagnostics::Finding;
use crate::net::NetError;
use crate::state::StateError;

/// Why the daemon did not start, or ended.
#[derive(Debug, Error)]
pub enum DaemonError {
    /// The policy files were refused.
    #[error("the policy is refused")]
    Policy {
        /// Why and where.
        findings: Vec<Finding>,
        /// The texts they speak of.
        texts: Box<Texts>,
    },
    /// The policy does not get through the compiler.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A connection tracking setting is wrong.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// The connection table cannot be made.
    #[error(transparent)]
    Conntrack(#[from] ConntrackError),
    /// The machine, its privileges or its ports do not allow it.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] ServerError),
    /// The kernel's network configuration cannot be read or honoured.
    #[error(transparent)]
    Net(#[from] NetError),
    /// It contradicts itself.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The ports cannot be opened.
    #[error(transparent)]
    Ports(#[from] AfxdpError),
    /// State cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// Links cannot be kept for the time without a daemon.
    #[error(transparent)]
    Failure(#[from] FailureError),
    /// Privileges cannot be given up.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The endpoint for metrics cannot be had.
    #[error(transparent)]
    Metrics(#[from] crate::metrics::EndpointError),
    /// A thread or signal handler could not be made.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A worker's thread ended by itself.
    #[error("worker {0} has fallen: what holds without a daemon holds from now on")]
    WorkerFell(usize),
    /// A worker does not stop.
    #[error("a worker is stuck and does not stop: this process ends without it")]
    NeverStopped,
    /// A worker has not turned for so long that there is no more hope.
    #[error("worker {worker} has been stuck for {still_ms} ms: this process gives up")]
    WorkerStuck {
        /// Which.
        worker: usize,
        /// For how long.
        still_ms: u64,
    },
}

pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> DaemonError {
    move |source| DaemonError::System { what, source }
}
