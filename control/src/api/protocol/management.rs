//! The management list.

use serde::{Deserialize, Serialize};

/// An entry of the management list.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ManagementEntry {
    /// As it is written in the configuration.
    pub entry: String,
    /// Packets that it let through to this machine.
    pub inbound: u64,
    /// Packets from this machine that it let through; 0 without the host road, as the
    /// kernel sends by itself then.
    pub outbound: u64,
}
