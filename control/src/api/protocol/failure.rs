//! Why a request failed.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Finding;

/// Why a request failed.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Error)]
#[error("{message}")]
pub struct Failure {
    /// The kind.
    pub code: Code,
    /// For people.
    pub message: String,
    /// What is wrong with the policy texts, for `refused`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

impl Failure {
    /// Without findings.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), findings: Vec::new() }
    }
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Not JSON, or not a request.
    BadRequest,
    /// A version that this daemon does not speak.
    UnsupportedVersion,
    /// The peer may not speak to this daemon.
    Forbidden,
    /// The content was refused; nothing changed.
    Refused,
    /// Another change is in progress, or too many connections are open.
    Busy,
    /// A fault of the daemon.
    Internal,
}
