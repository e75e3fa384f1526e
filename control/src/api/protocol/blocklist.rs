//! Source blocklists in the XDP program.

use serde::{Deserialize, Serialize};

use super::FamilyName;

/// What is carried out before the engine, and what is not.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct BlocklistInfo {
    /// Why nothing is, if nothing can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off: Option<String>,
    /// Addresses that there is room for, IPv4 and IPv6.
    pub room: Vec<u32>,
    /// About what the program's maps take, in bytes.
    pub memory_bytes: u64,
    /// Every rule that drops what is in a set.
    pub rules: Vec<BlockRuleInfo>,
}

/// A rule that drops what is in a set.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct BlockRuleInfo {
    /// Its family.
    pub family: FamilyName,
    /// Its table.
    pub table: String,
    /// Its chain.
    pub chain: String,
    /// Its number there, from 1.
    pub number: u32,
    /// Its set.
    pub set: String,
    /// Whether the program drops for it.
    pub pushed: bool,
    /// Elements of the set.
    pub elements: u64,
    /// Those of them that the program has.
    pub held: u64,
    /// Why it is not pushed, or not all of its set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Packets that the program dropped for it under this policy; the rule's counter has
    /// them too.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}
