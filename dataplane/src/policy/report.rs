//! Targets that report a packet and let the walk go on: NFLOG, AUDIT, TRACE.

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReportTarget {}

impl ReportTarget {
    /// The name that `-j` takes.
    pub const fn name(&self) -> &'static str {
        match *self {}
    }
}
