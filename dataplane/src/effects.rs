//! What the engine asks of its surroundings while it decides a burst.
//!
//! The engine does no I/O: frames it creates, log records, neighbour requests
//! and trace steps go through this trait. The worker, replay and tests each
//! implement it.

use crate::clock::Nanos;
use crate::packet::{Family, Parsed, PortId};
use crate::policy::target::LogTarget;
use crate::policy::{ChainId, Hook, TableId};
use crate::verdict::DropReason;

/// One LOG hit. Borrowed: implementations copy what they keep.
#[derive(Clone, Copy, Debug)]
pub struct LogRecord<'a> {
    /// When.
    pub now: Nanos,
    /// The rule's options.
    pub target: &'a LogTarget,
    /// The hook it was met at.
    pub hook: Hook,
    /// Input port, if the packet has one.
    pub input: Option<PortId>,
    /// Output port, if it is known at this hook.
    pub output: Option<PortId>,
    /// The frame from its Ethernet header on.
    pub frame: &'a [u8],
    /// Whether the Ethernet header in `frame` is real (not for our own packets).
    pub has_link_header: bool,
    /// Parsed facts about `frame`.
    pub parsed: &'a Parsed,
    /// The packet's mark.
    pub mark: u32,
}

/// One step of a traced walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Family of the policy walked.
    pub family: Family,
    /// Table.
    pub table: TableId,
    /// Hook.
    pub hook: Hook,
    /// Chain.
    pub chain: ChainId,
    /// Rule index in the chain; `None`: the chain's policy.
    pub rule: Option<u32>,
}

/// A packet that loopback will carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the addresses.
    pub family: Family,
    /// TCP or UDP.
    pub proto: u8,
    /// The sender.
    pub src: u128,
    /// Its port.
    pub sport: u16,
    /// The receiver.
    pub dst: u128,
    /// Its port.
    pub dport: u16,
}

/// The engine's surroundings.
pub trait Effects {
    /// Whether [`Effects::step`] wants to be called.
    const TRACE: bool = false;

    /// Sends a frame that the engine made itself, complete with its Ethernet
    /// header. Returns false when there was no room; the engine counts that.
    fn emit(&mut self, port: PortId, frame: &[u8]) -> bool;

    /// Keeps a frame that the engine made itself until its next hop's link-layer
    /// address, already asked for, is known.
    ///
    /// # Errors
    /// Why it cannot be kept; the engine counts that.
    fn hold(
        &mut self,
        port: PortId,
        next_hop: (Family, u128),
        frame: &[u8],
    ) -> Result<(), DropReason>;

    /// A packet of our own that is addressed to this machine, or a datagram for
    /// it that was put together here. `port`: the one it came in by; `None` for
    /// loopback.
    fn deliver(&mut self, port: Option<PortId>, frame: &[u8]);

    /// This machine will answer over loopback what it is now given by it: the answer is
    /// to come back to the engine.
    fn expect_looped(&mut self, _answer: &Answer) {}

    /// A LOG target was hit.
    fn log(&mut self, record: &LogRecord<'_>);

    /// A frame waits for this next hop's link-layer address.
    fn want_neighbour(&mut self, port: PortId, family: Family, next_hop: u128);

    /// A rule matched, or a policy applied. Called only when `TRACE` is true.
    fn step(&mut self, _step: Step) {}

    /// A frame of the burst has reached its end. Called in burst order, and only
    /// when `TRACE` is true.
    fn outcome(&mut self, _outcome: &Outcome) {}
}

/// How a frame of the burst ended, for events and `explain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Index of the frame in the burst.
    pub index: usize,
    /// What tracking said last.
    pub tracking: crate::conntrack::Tracking,
    /// The packet's final mark.
    pub mark: u32,
    /// Final disposition.
    pub disposition: crate::verdict::Disposition,
    /// Whether a REJECT target ended it.
    pub rejected: bool,
}
