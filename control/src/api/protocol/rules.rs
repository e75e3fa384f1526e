//! The policy with its counters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::FamilyName;

/// The running policy.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Rules {
    /// Its generation.
    pub generation: u64,
    /// The chains asked for.
    pub chains: Vec<ChainInfo>,
}

/// One chain.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ChainInfo {
    /// Family.
    pub family: FamilyName,
    /// Table.
    pub table: String,
    /// Chain.
    pub chain: String,
    /// `ACCEPT` or `DROP`, for built-in chains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Packets that met the policy.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether packets pass this chain today; false for INPUT and OUTPUT.
    pub enforced: bool,
    /// Rules in order.
    pub rules: Vec<RuleInfo>,
}

/// One rule.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct RuleInfo {
    /// Position in its chain, from 1.
    pub number: u32,
    /// Packets that matched.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The rule as `iptables-save` prints it.
    pub text: String,
    /// What it is called in the metrics, for as long as it stays in the policy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Since when it is in force, in this or in earlier policies: seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// When it was hit first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_hit: Option<u64>,
    /// When it was hit last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_hit: Option<u64>,
    /// What its comment says of it: `owner`, `ticket`, `review`, `expires`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub about: BTreeMap<String, String>,
    /// Why no packet can hit it, where that is known: commands work it out, the daemon does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhittable: Option<String>,
}
