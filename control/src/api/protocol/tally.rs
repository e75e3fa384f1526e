//! What limits are in force, and the lists and tables behind them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::FamilyName;

/// A list of `-m recent`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct RecentList {
    /// Its name.
    pub name: String,
    /// Addresses that fit.
    pub most: u32,
    /// Times that are kept for each.
    pub times: u32,
    /// The present moment, in ticks of 4 ms, as the times are.
    pub now: u64,
    /// The one that was not seen longest first.
    pub addresses: Vec<RecentAddress>,
}

/// An address of a list.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct RecentAddress {
    /// The address.
    pub address: IpAddr,
    /// TTL of its last packet; 0 when entered by hand.
    pub ttl: u8,
    /// Milliseconds since it was seen.
    pub age_ms: u64,
    /// When it was seen, in ticks.
    pub times: Vec<u64>,
    /// The line of `/proc/net/xt_recent`.
    pub line: String,
}

/// What to do with a list.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum RecentChange {
    /// Enter or refresh an address.
    Add(IpAddr),
    /// Take an address off.
    Remove(IpAddr),
    /// Forget all.
    Flush,
}

/// A limit in force.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct LimitInfo {
    /// `limit`, `hashlimit`, `recent`, `connlimit`, `quota` or `idletimer`.
    pub kind: String,
    /// The rules' family; lists of `recent` and idle timers belong to both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<FamilyName>,
    /// The name of what rules share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The first rule that uses it: table, chain, number.
    pub rule: String,
    /// Rules that use it.
    pub rules: u64,
    /// Packets spent, entries, addresses, connections, bytes, seconds without a packet.
    pub used: u64,
    /// How many of these there can be.
    pub most: u64,
    /// Seconds until an idle timer runs out; 0: it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_s: Option<u64>,
}

/// An entry of a table of `-m hashlimit`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct HashRow {
    /// Seconds until it may be cleared away.
    pub expires_s: u64,
    /// Source address, if told apart.
    pub src: IpAddr,
    /// Source port, if told apart.
    pub sport: u16,
    /// Destination address, if told apart.
    pub dst: IpAddr,
    /// Destination port, if told apart.
    pub dport: u16,
    /// Credit left.
    pub credit: u64,
    /// Most credit.
    pub cap: u64,
    /// What a packet, or 16 bytes, cost.
    pub cost: u64,
}

/// A table of `-m hashlimit`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct HashInfo {
    /// Its family.
    pub family: FamilyName,
    /// Its name.
    pub name: String,
    /// Entries there are.
    pub entries: u64,
    /// The first of them, at most 10000.
    pub rows: Vec<HashRow>,
}
