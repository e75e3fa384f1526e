//! The matrix of flows: what is known of the live policy.

use serde::{Deserialize, Serialize};

use super::Source;

/// A matrix to be run against the policy in force.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RunMatrix {
    /// This one; absent: the configured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<Source>,
    /// Tell of the flows that are as expected, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
}

/// Answer to `show_matrix`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct MatrixInfo {
    /// `matrix.file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// `matrix.interval`; 0: it is not run by itself.
    pub interval_s: u64,
    /// How it was when it was last run by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<MatrixRun>,
}

/// One run against the policy in force.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct MatrixRun {
    /// When, in UTC.
    pub at: String,
    /// Which policy.
    pub generation: u64,
    /// What it took.
    pub took_ms: u64,
    /// Flows as expected.
    pub passed: u64,
    /// The others.
    pub failed: u64,
    /// These, with the first that is wrong of each; so many at most.
    pub failures: Vec<String>,
    /// Why it could not be run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
