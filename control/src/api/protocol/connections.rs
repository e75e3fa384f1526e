//! The connection table on the wire.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::FamilyName;

/// Which connections to list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ConntrackQuery {
    /// Only this family.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<FamilyName>,
    /// Only this layer 4 protocol number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proto: Option<u8>,
    /// Only connections with this original source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src: Option<IpAddr>,
    /// Only connections with this original destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<IpAddr>,
    /// Only connections with this original destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dport: Option<u16>,
    /// Where to go on: `next` of the previous page, 0 to begin.
    #[serde(default)]
    pub cursor: u64,
    /// At most this many rows; the daemon sends no more than 10,000.
    pub limit: u32,
}

/// A page of the connection table.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ConntrackPage {
    /// Connections now, over all pages and filters.
    pub entries: u64,
    /// Connections at most.
    pub capacity: u64,
    /// The rows.
    pub rows: Vec<ConntrackRow>,
    /// `cursor` of the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// One connection.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ConntrackRow {
    /// Layer 4 protocol number.
    pub proto: u8,
    /// Seconds left.
    pub timeout_s: u64,
    /// Protocol state (`ESTABLISHED`, ...), for protocols that have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The original direction.
    pub original: TupleInfo,
    /// The reply direction.
    pub reply: TupleInfo,
    /// Whether a reply has been seen.
    pub seen_reply: bool,
    /// Whether it is protected from early eviction.
    pub assured: bool,
    /// Connection mark.
    pub mark: u32,
    /// The row as `conntrack -L` prints it.
    pub text: String,
}

/// One direction of a connection.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct TupleInfo {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// Source port, or ICMP identifier.
    pub sport: u16,
    /// Destination port, or ICMP type << 8 | code.
    pub dport: u16,
}
