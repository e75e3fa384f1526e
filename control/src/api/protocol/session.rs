//! The session that a change comes from, and what the change does to it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A TCP connection from an operator to this machine, as its service sees it: the four
/// words of `SSH_CONNECTION`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct SessionInfo {
    /// The operator's address.
    pub client: IpAddr,
    /// The operator's port.
    pub client_port: u16,
    /// The address here.
    pub server: IpAddr,
    /// The port here.
    pub server_port: u16,
    /// The interface that a link-local address belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
}

/// What became of the session.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct SessionReport {
    /// In a word.
    pub outcome: SessionOutcome,
    /// In a sentence.
    pub text: String,
}

impl Default for SessionReport {
    fn default() -> Self {
        let text = "no session was named: nothing was guarded".to_owned();
        Self { outcome: SessionOutcome::None, text }
    }
}

/// The same in a word.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum SessionOutcome {
    /// None was named.
    None,
    /// The management list admits it: no rule sees it.
    Management,
    /// It does not come by one of the daemon's ports.
    Elsewhere,
    /// The daemon has no host road: the kernel keeps what is for this machine.
    Kernel,
    /// The change is of the other family alone.
    Unchanged,
    /// It goes on.
    Kept,
    /// It is cut, as was forced.
    Cut,
}
