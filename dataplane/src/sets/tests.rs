//! Sets against an obvious reference.
