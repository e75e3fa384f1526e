//! Matches on time, chance and amounts: time, statistic, quota, nfacct, rateest, cluster, cpu.

use super::eval::{Outcome, PacketView};

/// One of them.
#[derive(Clone, Debug)]
pub enum MeasureMatch {}

impl MeasureMatch {
    /// What the match says of the packet. A dynamic match changes its state here.
    pub fn evaluate(&self, _packet: &PacketView<'_>) -> Outcome {
        match *self {}
    }

    /// Whether evaluating it may do more than answer: change state, or drop a packet
    /// whose fixed header is whole. Matches behind it must not be moved in front of it.
    pub fn has_effect(&self) -> bool {
        match *self {}
    }

    /// Whether loading it makes the kernel track the family's connections.
    pub fn needs_conntrack(&self) -> bool {
        match *self {}
    }
}
