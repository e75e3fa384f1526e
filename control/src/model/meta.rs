//! CLASSIFY, HMARK, IDLETIMER, RATEEST, TEE as written.

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MetaSpec {}
