//! What a worker drives: anything that decides bursts.

use std::sync::Arc;

use crate::clock::Nanos;
use crate::effects::Effects;
use crate::engine::Slot;
use crate::logbook::LogBook;
use crate::packet::{Family, Mac, PortId};
use crate::verdict::{Disposition, DropReason};

/// Both ends of a link-layer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkAddresses {
    /// The next hop's address.
    pub destination: Mac,
    /// The port's own address.
    pub source: Mac,
}

/// Decides bursts. The engine with its subscriptions is one, [`CrossConnect`] another.
pub trait Pipeline {
    /// Adopts what was published since the last burst; true when the network
    /// (routes, neighbours) is another one.
    fn refresh(&mut self) -> bool;

    /// The log book of the policy in force, if rules report.
    fn log_book(&self) -> Option<&Arc<LogBook>> {
        None
    }

    /// Decides every frame of the burst.
    fn process(&mut self, burst: &mut [Slot<'_>], now: Nanos, effects: &mut impl Effects);

    /// Decides every frame of a burst that this machine itself sends; without a
    /// machine, there are none.
    fn output(&mut self, burst: &mut [Slot<'_>], _now: Nanos, _effects: &mut impl Effects) {
        for slot in burst {
            slot.disposition = Disposition::Drop(DropReason::NotForUs);
        }
    }

    /// Does what is due by time alone, a few times a second.
    fn tick(&mut self, _now: Nanos, _effects: &mut impl Effects) {}

    /// The link-layer header for a frame to a next hop, once it is known.
    fn link_addresses(&self, port: PortId, family: Family, next_hop: u128)
    -> Option<LinkAddresses>;

    /// A frame that was decided to leave on `port` ends, because its next hop
    /// did not answer. A router tells the sender.
    fn unresolved(
        &mut self,
        port: PortId,
        frame: &mut [u8],
        now: Nanos,
        effects: &mut impl Effects,
    );
}

/// Joins ports in pairs without looking at a frame: the floor that benchmarks
/// compare the engine with, and what tests of the ports run.
#[derive(Clone, Debug)]
pub struct CrossConnect {
    /// Where frames of each port go; by port index.
    outputs: Vec<Option<PortId>>,
}

impl CrossConnect {
    /// Joins each pair; frames of other ports are dropped.
    pub fn new(pairs: &[(PortId, PortId)]) -> Self {
        let ports = pairs.iter().map(|(a, b)| a.index().max(b.index()) + 1).max();
        let mut outputs = vec![None; ports.unwrap_or(0)];
        for (a, b) in pairs {
            outputs[a.index()] = Some(*b);
            outputs[b.index()] = Some(*a);
        }
        Self { outputs }
    }
}

impl Pipeline for CrossConnect {
    fn refresh(&mut self) -> bool {
        false
    }
    fn process(&mut self, burst: &mut [Slot<'_>], _now: Nanos, _effects: &mut impl Effects) {
        for slot in burst {
            slot.disposition = match self.outputs.get(slot.port.index()) {
                Some(Some(output)) => Disposition::Transmit(*output),
                _ => Disposition::Drop(DropReason::NotForUs),
            };
        }
    }
    fn link_addresses(
        &self,
        _port: PortId,
        _family: Family,
        _next_hop: u128,
    ) -> Option<LinkAddresses> {
        None
    }
    fn unresolved(
        &mut self,
        _port: PortId,
        _frame: &mut [u8],
        _now: Nanos,
        _effects: &mut impl Effects,
    ) {
    }
}
