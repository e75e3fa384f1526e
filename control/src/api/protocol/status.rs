//! How the daemon is, and what of its state lasts.

use serde::{Deserialize, Serialize};

use super::VersionInfo;

/// The daemon at a glance.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Status {
    /// The daemon and its machine.
    pub version: VersionInfo,
    /// Connections now.
    pub connections: u64,
    /// How this machine's own packets come and go: `io-uring`, `plain` or `off`.
    pub host_road: String,
    /// What holds while it is away.
    #[serde(default)]
    pub failure: FailureInfo,
    /// The state file; absent when nothing is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<StateInfo>,
    /// Where LOG lines go.
    #[serde(default)]
    pub log: LogInfo,
    /// What of changes wants to be looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
}

/// Where LOG lines go.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct LogInfo {
    /// The file; absent when they go to standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Lines written since the start, `diverted` ones among them.
    pub written: u64,
    /// Lines that went to standard error because the file could not be opened.
    pub diverted: u64,
    /// Lines lost because the file could not be written.
    pub lost: u64,
    /// Why the file is not written now, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What holds while the daemon is away.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct FailureInfo {
    /// `open` (the kernel carries on) or `closed` (dropped).
    pub on_failure: String,
    /// A worker that has not turned for so many milliseconds is away; 0: nobody watches.
    pub watchdog_ms: u64,
    /// Where links are kept when closed.
    pub pin_dir: String,
    /// The ports.
    pub ports: Vec<PinInfo>,
    /// Workers that do not turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stuck: Vec<StuckInfo>,
}

/// A worker that does not turn.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct StuckInfo {
    /// Its number.
    pub worker: usize,
    /// The core it is pinned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<usize>,
    /// For how long.
    pub still_ms: u64,
    /// What it was at: `resting`, `housekeeping`, `receiving`, `deciding` or `sending`.
    pub stage: String,
}

impl FailureInfo {
    /// The ports whose programs stay when the daemon ends.
    pub fn kept_ports(&self) -> Vec<String> {
        let kept = self.ports.iter().filter(|pin| pin.pinned);
        kept.map(|pin| pin.port.clone()).collect()
    }
}

/// One port's link.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct PinInfo {
    /// Interface name.
    pub port: String,
    /// Whether its program stays when the daemon ends.
    pub pinned: bool,
    /// Whether an earlier daemon had attached it, so that it never was without.
    pub adopted: bool,
}

/// The state file.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct StateInfo {
    /// Where it is.
    pub file: String,
    /// Milliseconds between two saves, at least.
    pub every_ms: u64,
    /// Saves that succeeded since the start.
    pub saves: u64,
    /// Saves that failed.
    pub failures: u64,
    /// Why the last save failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The last save that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<LastSave>,
    /// What the file held when the daemon started.
    pub restored: RestoredInfo,
}

/// One save.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct LastSave {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// Connections in it.
    pub connections: u64,
    /// `limit` buckets in it.
    pub limits: u64,
    /// Expectations in it.
    pub expectations: u64,
    /// Its length.
    pub bytes: u64,
    /// Microseconds of work.
    pub work_us: u64,
    /// Microseconds from beginning to end, resting and the disk included.
    pub took_us: u64,
}

/// What was brought back.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct RestoredInfo {
    /// Whether there was a file.
    pub found: bool,
    /// Why the file was refused, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Where a refused file lies now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub put_aside: Option<String>,
    /// Whether the daemon before had stopped in good order.
    pub clean: bool,
    /// Milliseconds since the file was saved.
    pub age_ms: u64,
    /// Connections that go on.
    pub connections: u64,
    /// Connections whose time ran out meanwhile.
    pub expired: u64,
    /// Connections that could not be taken up: half open when the daemon before was
    /// killed, or masqueraded as an address that is gone.
    pub stale: u64,
    /// Connections that the table had no room for, or that clash.
    pub lost: u64,
    /// `limit` buckets of rules that still stand.
    pub limits: u64,
    /// Lists of `recent`, tables of `hashlimit`, quotas, turns of `nth`, accounts,
    /// estimators and idle timers that go on.
    #[serde(default)]
    pub amounts: u64,
    /// Those that no rule asks for any more.
    #[serde(default)]
    pub amounts_unclaimed: u64,
    /// Those that could not be read; the rules begin anew.
    #[serde(default)]
    pub amounts_refused: u64,
    /// Expectations that still hold.
    pub expectations: u64,
    /// Microseconds that it took.
    pub took_us: u64,
}
