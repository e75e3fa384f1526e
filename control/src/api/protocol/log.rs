//! What became of records.

use serde::{Deserialize, Serialize};

/// What became of the records of LOG, NFLOG, AUDIT and TRACE:
/// `emitted = written + suppressed + dropped + waiting`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct LogReport {
    /// Hits of rules that report, and steps of traced packets.
    pub emitted: u64,
    /// In the files, or on standard error.
    pub written: u64,
    /// Kept back by the limits.
    pub suppressed: u64,
    /// Lost: `over_budget`, `queue_full` and what files could not take.
    pub dropped: u64,
    /// On their way to the files.
    pub waiting: u64,
    /// Of the dropped: more than all rules together may cause.
    #[serde(default)]
    pub over_budget: u64,
    /// Of the dropped: no room in a queue.
    pub queue_full: u64,
    /// Lines, by kernel's form.
    pub lines: OutletInfo,
    /// JSON lines; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<OutletInfo>,
    /// Captured packets; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub captures: Option<OutletInfo>,
    /// How bytes get into files: `io_uring` or `write`.
    pub writer: String,
    /// Lines a second that a rule may cause; 0: no limit.
    pub rate: u32,
    /// And at once.
    pub burst: u32,
    /// Records a second that all rules together may cause; 0: no bound.
    #[serde(default)]
    pub budget: u32,
    /// The networks whose packets cause the most records, the heaviest first.
    pub sources: Vec<HeavyInfo>,
    /// The rules that cause the most.
    pub rules: Vec<HeavyInfo>,
}

/// One kind of file.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct OutletInfo {
    /// The file, or the directory; absent for standard error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Written there.
    pub written: u64,
    /// Lost because it could not be written.
    pub lost: u64,
    /// Why it is not written now, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Who causes many records.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct HeavyInfo {
    /// A network, or a rule as `v4 filter:FORWARD:3`.
    pub name: String,
    /// Its records at most, those that were kept back among them: these are counted for
    /// the source of the rule's next record.
    pub records: u64,
    /// By how much that may be too high.
    pub error: u64,
}
