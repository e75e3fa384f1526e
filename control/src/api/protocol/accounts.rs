//! What `-m nfacct` counts.

use serde::{Deserialize, Serialize};

/// One account.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct AccountEntry {
    /// `--nfacct-name`.
    pub name: String,
    /// Packets.
    pub packets: u64,
    /// Bytes, from the network header on.
    pub bytes: u64,
}
