//! Packets that were followed on their way.

use serde::{Deserialize, Serialize};

use super::TupleInfo;

/// Which packets to follow, and for how long.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct PacketTrace {
    /// Which, in words ([`crate::trace::filter`]).
    pub filter: String,
    /// So many at most; absent: 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// So many milliseconds at most; absent: 10,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// So many a second at most; absent: 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// With so many bytes of each frame; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snaplen: Option<u32>,
}

/// Packets that were followed since the last answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Traced {
    /// In the order in which they were decided.
    pub packets: Vec<TracedPacket>,
    /// Packets that the filter took, since the beginning.
    pub matched: u64,
    /// Of these, the ones beyond the rate.
    pub limited: u64,
    /// Of these, the ones that were lost because too many waited.
    pub lost: u64,
    /// Nothing more will come.
    pub done: bool,
}

/// A packet on its way.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct TracedPacket {
    /// When its burst was received, in nanoseconds since 1970.
    pub at_ns: u64,
    /// By which worker.
    pub worker: usize,
    /// The port that it came in by; absent: this machine sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// The packet in a few words.
    pub packet: String,
    /// Length of its frame.
    pub length: usize,
    /// Its first bytes in hexadecimal, as it arrived; absent unless asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
    /// What tracking said: a name of `--ctstate`; absent when it was not tracked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Its connection; absent when it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<TracedConnection>,
    /// Rules that matched and policies that applied, in order.
    pub path: Vec<TracedStep>,
    /// Steps that are not told: the path is longer than what is kept of it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_steps: u32,
    /// `accept`, `drop`, `reject`, or `stolen` for fragments that wait for others.
    pub verdict: String,
    /// Why, unless accepted: as `show stats` counts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Index in `path` of what decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<usize>,
    /// What was rewritten, as `dst 203.0.113.1:80 -> 198.18.2.2:8080`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rewritten: Vec<String>,
    /// The port that it leaves on, or `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The next hop whose link-layer address it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<String>,
    /// Its mark at the end.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mark: u32,
    /// Records that rules made of it (LOG, NFLOG, AUDIT, TRACE).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub logged: u32,
    /// The first frame that the firewall made because of it, and where that went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
    /// The path of that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answer_path: Vec<TracedStep>,
}

/// A connection as a followed packet left it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct TracedConnection {
    /// Its number, as `conntrack -L -o id` has it.
    pub id: u64,
    /// `original` or `reply`: the packet's way in it.
    pub direction: String,
    /// As the first packet went.
    pub original: TupleInfo,
    /// As answers come.
    pub reply: TupleInfo,
    /// The protocol's state, if it has states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// A rule that matched, or a policy that applied.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct TracedStep {
    /// Table.
    pub table: String,
    /// The hook at which it was met.
    pub hook: String,
    /// Chain.
    pub chain: String,
    /// The rule's number from 1; absent: the chain's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// Its line in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// What it says; empty when the policy is not in force any more.
    pub text: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
