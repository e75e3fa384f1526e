//! The configuration in force, and what became of a reload.

use serde::{Deserialize, Serialize};

use super::{Applied, Finding, SessionInfo, Terms};
use crate::config::Effect;

/// The configuration in force.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ConfigInfo {
    /// The file it was read from, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Every key, in the order of the reference.
    pub entries: Vec<ConfigEntry>,
    /// What the file says since the last reload and only a restart brings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<ConfigChange>,
    /// The same as a configuration file, with a remark on every key.
    pub text: String,
}

/// One key, or one entry of a key that is a table.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ConfigEntry {
    /// Its path.
    pub key: String,
    /// Its value; absent when it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
    /// `default`, `FILE:LINE`, or the flag.
    pub origin: String,
    /// When a change holds.
    pub effect: Effect,
}

/// A key whose value is another now.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ConfigChange {
    /// Its path.
    pub key: String,
    /// What is or was in force; absent when nothing was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<serde_json::Value>,
    /// What the file or the command line says; absent when nothing is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<serde_json::Value>,
    /// Why it cannot change live, where the key could otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Read the files again.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Reload {
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// The session that this comes from: a policy that would cut it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionInfo>,
    /// Cut it, if that is what the policy does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// How the policy is to be changed.
    #[serde(default, skip_serializing_if = "super::changes::is_default")]
    pub terms: Terms,
}

/// The files were read again.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Reloaded {
    /// Whether nothing was changed, only asked.
    pub dry_run: bool,
    /// The configuration file, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What changed.
    pub changed: Vec<ConfigChange>,
    /// What did not, because only a restart brings it.
    pub restart: Vec<ConfigChange>,
    /// The policy as it was read again; absent without policy files, or when only asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Applied>,
    /// Remarks that did not prevent it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}
