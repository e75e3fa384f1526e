//! `-m set` and `-j SET` as written: sets by name.

/// `-m set --match-set`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SetSpec {}

/// `-j SET`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SetTargetSpec {}
