//! `-m limit`: a token bucket with the kernel's credit granularity.

/// One bucket, shared by all workers and kept across policy swaps.
#[derive(Debug)]
pub struct LimitCell {}
