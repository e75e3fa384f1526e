//! Traffic over AF_XDP: frames that carry a sequence number and a time, who sends them,
//! and what the sink makes of them.

pub(crate) mod cli;
mod frames;
mod station;
mod tally;

pub(crate) use frames::{SERVICE, Size, Traffic};
pub(crate) use station::{Load, Sent, Station};
