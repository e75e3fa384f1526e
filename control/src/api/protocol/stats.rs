//! Statistics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Statistics.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Stats {
    /// Milliseconds since the daemon started.
    pub uptime_ms: u64,
    /// Generation of the running policy.
    pub generation: u64,
    /// Policies replaced but still held by a worker.
    pub retired: usize,
    /// Drops over all workers, by reason; zeroes left out.
    pub drops: BTreeMap<String, u64>,
    /// Workers.
    pub workers: Vec<WorkerInfo>,
    /// What the XDP programs counted, by name, over all ports.
    pub xdp: BTreeMap<String, u64>,
    /// Connection tracking.
    pub conntrack: ConntrackStats,
    /// LOG lines written.
    pub log_written: u64,
    /// LOG lines lost: queue full, or the file could not be written.
    pub log_lost: u64,
}

/// One worker.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct WorkerInfo {
    /// Its number; it owns the queue of that number on every port.
    pub worker: usize,
    /// The core it is pinned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<usize>,
    /// Generation of the policy it runs.
    pub generation: u64,
    /// Bursts processed.
    pub bursts: u64,
    /// Policies adopted.
    pub swaps: u64,
    /// ICMP errors and resets sent.
    pub replies: u64,
    /// ICMP errors withheld by rate limits.
    pub replies_limited: u64,
    /// LOG records handed on.
    pub logged: u64,
    /// LOG records lost because the queue was full.
    pub log_lost: u64,
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Frames of its pool that are free.
    #[serde(default)]
    pub frames_free: u64,
    /// Frames in the rings of its ports, or in the kernel.
    #[serde(default)]
    pub frames_lent: u64,
    /// Frames in hand.
    #[serde(default)]
    pub frames_held: u64,
    /// Drops by reason; zeroes left out.
    pub drops: BTreeMap<String, u64>,
    /// What became of plans: packets that `followed` one, walks that `made` one, and walks
    /// that left none, by the reason; zeroes left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plans: BTreeMap<String, u64>,
    /// SYNPROXY's counters, as in `/proc/net/stat/synproxy`; zeroes left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub synproxy: BTreeMap<String, u64>,
}

/// Connection tracking at a glance.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct ConntrackStats {
    /// Connections now.
    pub entries: u64,
    /// Connections at most.
    pub capacity: u64,
    /// Event counters by name.
    pub counters: BTreeMap<String, u64>,
    /// Whether the table is so full that sources have quotas.
    #[serde(default)]
    pub crowded: bool,
    /// Connections refused because their source's quota was used up.
    #[serde(default)]
    pub quota_refused: u64,
    /// Source prefixes that met their quota, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub offenders: Vec<OffenderInfo>,
}

/// A source prefix that filled the table with connections that nobody answered.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct OffenderInfo {
    /// `ADDRESS/LENGTH`.
    pub prefix: String,
    /// Seconds in which it met its quota.
    pub seconds: u64,
    /// How long ago the last one was.
    pub ago_ms: u64,
}

/// A source of connections.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct TalkerInfo {
    /// Its address.
    pub source: std::net::IpAddr,
    /// Its connections.
    pub connections: u64,
    /// Of these, the ones that nobody has answered.
    pub unanswered: u64,
    /// Bytes that they carried, both ways; absent when that is not counted (`acct`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// How many sources are asked for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct TalkersAsked {
    /// So many at most; the daemon tells no more than 256.
    pub limit: u32,
}

/// To `show_talkers`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Talkers {
    /// The ones with the most connections first.
    pub sources: Vec<TalkerInfo>,
    /// Places of the table that were looked at.
    pub looked_at: u64,
    /// Places of the table.
    pub places: u64,
}
