//! What the engine asks of its surroundings while it decides a burst.
//!
//! The engine does no I/O: frames it creates, log records, neighbour requests
//! and trace steps go through this trait. The worker, replay and tests each
//! implement it.

use std::fmt;

use crate::clock::Nanos;
use crate::conntrack::{ConnView, Conntrack, Tracking};
use crate::packet::{Family, Parsed, PortId};
use crate::policy::report::{AuditKind, NflogTarget};
use crate::policy::scene::{Owner, Sender};
use crate::policy::target::LogTarget;
use crate::policy::walk::RuleRef;
use crate::policy::{ChainId, CounterId, Hook, TableId};
use crate::verdict::DropReason;

/// What a record is about.
#[derive(Clone, Copy, Debug)]
pub enum Report<'a> {
    /// A LOG target.
    Log(&'a LogTarget),
    /// An NFLOG target.
    Nflog(&'a NflogTarget),
    /// An AUDIT target.
    Audit(AuditKind),
    /// A packet that TRACE marked met this.
    Trace(Traced),
}

/// What a traced packet met, in the kernel's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Traced {
    /// A rule.
    Rule,
    /// The end of a called chain, or a rule there that is as good.
    Return,
    /// The policy of a built-in chain, or a rule there that is as good.
    Policy,
}

impl Traced {
    /// The word in the kernel's line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::Return => "return",
            Self::Policy => "policy",
        }
    }
}

/// The rule that a record comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Its table.
    pub table: TableId,
    /// Its chain.
    pub chain: ChainId,
    /// The chain's name.
    pub chain_name: &'a str,
    /// Its number in the chain, from 1; one more than the last for the chain's end.
    pub number: u32,
    /// Where it counts; `None` for the end of a called chain.
    pub counter: Option<CounterId>,
}

/// One hit of LOG, NFLOG or AUDIT, or one step of a traced packet. Borrowed:
/// implementations copy what they keep.
#[derive(Clone, Copy, Debug)]
pub struct LogRecord<'a> {
    /// When.
    pub now: Nanos,
    /// What it is about.
    pub report: Report<'a>,
    /// Where it was met.
    pub place: Place<'a>,
    /// The rules that jumped there, outermost first. `rule` is where each goes on.
    pub callers: &'a [RuleRef],
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
    /// Who sends it, where that is known.
    pub owner: Option<Owner>,
    /// What tracking said of the packet.
    pub tracking: Tracking,
    /// Where its connection is to be looked up.
    pub conntrack: Option<&'a Conntrack>,
}

impl<'a> LogRecord<'a> {
    /// A record of the first rule of FORWARD in table filter, about a packet of which no
    /// more is known than this.
    pub fn plain(report: Report<'a>, frame: &'a [u8], parsed: &'a Parsed) -> Self {
        let place = Place {
            table: TableId::Filter,
            chain: ChainId(0),
            chain_name: "FORWARD",
            number: 1,
            counter: Some(CounterId(0)),
        };
        Self {
            now: Nanos(0),
            report,
            place,
            callers: &[],
            hook: Hook::Forward,
            input: None,
            output: None,
            frame,
            has_link_header: true,
            parsed,
            mark: 0,
            owner: None,
            tracking: Tracking::NONE,
            conntrack: None,
        }
    }
}

impl LogRecord<'_> {
    /// What the record's line begins with.
    pub fn prefix(&self) -> Prefix<'_> {
        Prefix { report: self.report, place: self.place }
    }
    /// The packet's connection as it is now.
    pub fn connection(&self) -> Option<ConnView> {
        self.conntrack?.view(self.tracking.conn?)
    }
}

/// What a line begins with: the rule's prefix, or where a traced packet is.
#[derive(Clone, Copy, Debug)]
pub struct Prefix<'a> {
    report: Report<'a>,
    place: Place<'a>,
}

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { table, chain_name, number, .. } = self.place;
        match self.report {
            Report::Log(log) => f.write_str(&log.prefix),
            Report::Nflog(nflog) => f.write_str(&nflog.prefix),
            Report::Audit(_) => Ok(()),
            Report::Trace(how) => {
                write!(f, "TRACE: {}:{chain_name}:{}:{number} ", table.name(), how.name())
            }
        }
    }
}

/// One step of a traced walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

    /// Who the owner with this number is; the host road gives the numbers, and 0 to none.
    fn sender(&mut self, number: u16) -> Sender {
        if number == 0 { Sender::Nobody } else { Sender::Untold }
    }

    /// A target that reports was hit, or a traced packet took a step.
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
