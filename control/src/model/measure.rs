//! `-m quota`, `nfacct`, `rateest`, `statistic`: matches that own amounts, as written.

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MeasureSpec {}

impl MeasureSpec {
    /// Whether loading it makes the kernel track the family's connections.
    pub fn needs_conntrack(&self) -> bool {
        match *self {}
    }
}
