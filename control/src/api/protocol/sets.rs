//! Sets on the wire.

use serde::{Deserialize, Serialize};

use super::{FamilyName, Finding};

/// A set without its elements.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct SetInfo {
    /// Name.
    pub name: String,
    /// Type, as `hash:net`.
    pub kind: String,
    /// Revision of the type that `ipset list` tells.
    pub revision: u8,
    /// Its options, as in a `create` line.
    pub header: String,
    /// Bytes.
    pub memory_bytes: u64,
    /// Rules and lists that refer to it.
    pub references: u32,
    /// Elements that have not expired.
    pub entries: u64,
}

/// An element.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct SetEntry {
    /// The whole of it, as `ipset list` prints it.
    pub text: String,
    /// Without what it carries.
    pub element: String,
    /// Seconds left; 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    /// Packets that matched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Their bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// An exception: what lies in it is not in the set.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nomatch: bool,
    /// Comment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A page of a set.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct SetPage {
    /// The elements.
    pub entries: Vec<SetEntry>,
    /// `cursor` of the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A command was carried out.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct SetChanged {
    /// To `test`: whether the element is in the set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<bool>,
    /// Remarks that did not prevent it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

/// What refers to a set.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum SetUse {
    /// A rule.
    Rule {
        /// Family.
        family: FamilyName,
        /// Table.
        table: String,
        /// Chain.
        chain: String,
        /// Position in its chain, from 1.
        number: u32,
        /// Its line in the policy's text.
        line: u32,
        /// As `iptables-save` prints it.
        text: String,
    },
    /// A list of sets.
    List {
        /// Its name.
        name: String,
    },
}
