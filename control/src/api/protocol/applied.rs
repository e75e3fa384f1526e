//! The daemon's version, and what came of a policy.

use serde::{Deserialize, Serialize};

use super::{Effect, Finding, SessionReport};

/// The daemon and its machine.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct VersionInfo {
    /// Portcullis version.
    pub portcullis: String,
    /// Kernel release.
    pub kernel: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// Generation of the running policy.
    pub generation: u64,
    /// Milliseconds since the daemon started.
    pub uptime_ms: u64,
}

/// A policy is running.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Applied {
    /// Its generation.
    pub generation: u64,
    /// IPv4 rules now in force.
    pub rules_v4: usize,
    /// IPv6 rules now in force.
    pub rules_v6: usize,
    /// Whether every worker runs it. False only when a worker has been busy for seconds.
    pub adopted: bool,
    /// Where the time went.
    pub stages: Stages,
    /// Remarks that did not prevent it.
    pub findings: Vec<Finding>,
    /// What becomes of the session that this came from.
    #[serde(default)]
    pub session: SessionReport,
    /// Id of the policy, by its texts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// The number of its record, if it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<u64>,
    /// It is undone after so many milliseconds, unless it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_ms: Option<u64>,
    /// What it means for the flows that are alive, if that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// Whether nothing was changed, only asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Durations in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Stages {
    /// Text to model.
    pub parse_us: u64,
    /// Model to compiled form.
    pub compile_us: u64,
    /// Boundary packets through both, compared.
    pub selfcheck_us: u64,
    /// The exchange.
    pub publish_us: u64,
    /// Until every worker had adopted it.
    pub adopt_us: u64,
}
