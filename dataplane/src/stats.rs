//! Per-worker statistics: written by one thread, read by any, without locks.
//!
//! A cell is an atomic that only its worker writes (plain load, add, store), so
//! a bump costs no locked instruction and a reader never waits.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::packet::MAX_PORTS;
use crate::plan::Unplannable;
use crate::verdict::{DROP_REASONS, DropReason};

/// A counter with a single writer.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds; only the owning worker may call this.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }
    /// Sets; only the owning worker may call this.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
    /// Reads the current value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Packets and bytes.
#[derive(Debug, Default)]
pub struct Pair {
    /// Packets.
    pub packets: Cell,
    /// Bytes (IP length for rules, frame length for ports).
    pub bytes: Cell,
}

impl Pair {
    /// Counts one packet of `bytes`.
    #[inline]
    pub fn bump(&self, bytes: u64) {
        self.packets.add(1);
        self.bytes.add(bytes);
    }
    /// Packets and bytes as they are now.
    pub fn get(&self) -> (u64, u64) {
        (self.packets.get(), self.bytes.get())
    }
}

/// Counters of one port on one worker.
#[derive(Debug, Default)]
pub struct PortStats {
    /// Frames received.
    pub rx: Pair,
    /// Frames queued for transmission.
    pub tx: Pair,
}

/// What a worker is at within a turn: where to look when it does not come round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Between turns, mostly asleep.
    Resting = 0,
    /// Rings, links, timers, frames that wait.
    House = 1,
    /// Taking frames from ports.
    Receiving = 2,
    /// In the engine.
    Deciding = 3,
    /// Handing frames to ports.
    Sending = 4,
}

impl Stage {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Resting => "resting",
            Self::House => "housekeeping",
            Self::Receiving => "receiving",
            Self::Deciding => "deciding",
            Self::Sending => "sending",
        }
    }
}

/// All statistics of one worker. Aligned so that two workers share no cache line.
#[derive(Debug)]
#[repr(align(128))]
pub struct WorkerStats {
    ports: Box<[PortStats]>,
    drops: Box<[Cell]>,
    /// ICMP errors and resets the engine made and handed on, to be sent or to wait.
    pub replies: Cell,
    /// ICMP errors withheld by rate limits.
    pub replies_limited: Cell,
    /// LOG records handed on.
    pub logged: Cell,
    /// LOG records lost before the log thread: over the budget, or no room in a queue.
    pub log_lost: Cell,
    /// Of these, the ones over the budget.
    pub log_over_budget: Cell,
    /// LOG records that a limit kept back.
    pub log_suppressed: Cell,
    /// Bursts processed.
    pub bursts: Cell,
    /// Snapshots adopted.
    pub swaps: Cell,
    /// Generation of the snapshot in use.
    pub generation: Cell,
    /// Frames that INPUT accepted for the local stack.
    pub delivered: Cell,
    /// Fragments that were kept until their datagram was complete.
    pub collected: Cell,
    /// Datagrams put together.
    pub reassembled: Cell,
    /// Turns of the worker's loop: its heartbeat.
    pub turns: Cell,
    /// What it is at, a [`Stage`].
    stage: Cell,
    /// How frames move on the host road ([`crate::port::host::HostWay`] as a number).
    pub host_way: Cell,
    /// SYNPROXY's counters.
    pub synproxy: SynproxyStats,
    /// Where its pool's frames are, as it was a moment ago.
    pub frames: FrameStats,
    /// How often packets followed plans.
    pub plans: PlanStats,
}

/// What became of plans ([`crate::plan`]).
#[derive(Debug, Default)]
pub struct PlanStats {
    /// Packets that followed one.
    pub followed: Cell,
    /// Walks that left one.
    pub made: Cell,
    /// Walks that left none, by [`Unplannable`].
    refused: [Cell; Unplannable::ALL.len()],
}

impl PlanStats {
    /// Counts a walk that left no plan.
    pub fn refuse(&self, why: Unplannable) {
        self.refused[why as usize].add(1);
    }
    /// All counters with their names.
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        let kept = [("followed", self.followed.get()), ("made", self.made.get())];
        kept.into_iter().chain(self.refused()).collect()
    }
    /// Walks that left none, with the reasons' names.
    pub fn refused(&self) -> [(&'static str, u64); Unplannable::ALL.len()] {
        Unplannable::ALL.map(|why| (why.name(), self.refused[why as usize].get()))
    }
}

/// Where the frames of a worker's pool are.
#[derive(Debug, Default)]
pub struct FrameStats {
    /// On the free list.
    pub free: Cell,
    /// In the rings of its ports, or in the kernel.
    pub lent: Cell,
    /// In hand: waiting for a neighbour, mostly.
    pub held: Cell,
}

impl FrameStats {
    /// Sets all three; only the owning worker may call this.
    pub fn set(&self, free: usize, lent: usize, held: usize) {
        self.free.set(free as u64);
        self.lent.set(lent as u64);
        self.held.set(held as u64);
    }
}

/// What SYNPROXY did, under the names of `/proc/net/stat/synproxy`.
#[derive(Debug, Default)]
pub struct SynproxyStats {
    /// SYNs of clients.
    pub syn_received: Cell,
    /// Cookies that came back wrong or too late.
    pub cookie_invalid: Cell,
    /// Cookies that came back right.
    pub cookie_valid: Cell,
    /// Of these, by a client that tried again because its server did not answer.
    pub cookie_retrans: Cell,
    /// Closed connections that were opened again.
    pub conn_reopened: Cell,
}

impl SynproxyStats {
    /// All counters with their names.
    pub fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("syn_received", self.syn_received.get()),
            ("cookie_invalid", self.cookie_invalid.get()),
            ("cookie_valid", self.cookie_valid.get()),
            ("cookie_retrans", self.cookie_retrans.get()),
            ("conn_reopened", self.conn_reopened.get()),
        ]
    }
}

impl Default for WorkerStats {
    fn default() -> Self {
        Self {
            ports: (0..MAX_PORTS).map(|_| PortStats::default()).collect(),
            drops: (0..DROP_REASONS).map(|_| Cell::default()).collect(),
            replies: Cell::default(),
            replies_limited: Cell::default(),
            logged: Cell::default(),
            log_lost: Cell::default(),
            log_over_budget: Cell::default(),
            log_suppressed: Cell::default(),
            bursts: Cell::default(),
            swaps: Cell::default(),
            generation: Cell::default(),
            delivered: Cell::default(),
            collected: Cell::default(),
            reassembled: Cell::default(),
            turns: Cell::default(),
            stage: Cell::default(),
            host_way: Cell::default(),
            synproxy: SynproxyStats::default(),
            frames: FrameStats::default(),
            plans: PlanStats::default(),
        }
    }
}

impl WorkerStats {
    /// Counts a dropped frame.
    #[inline]
    pub fn drop(&self, reason: DropReason) {
        self.drops[reason as usize].add(1);
    }
    /// Says what the worker is at.
    #[inline]
    pub fn enter(&self, stage: Stage) {
        self.stage.set(stage as u64);
    }
    /// What the worker is at.
    pub fn stage(&self) -> Stage {
        match self.stage.get() {
            1 => Stage::House,
            2 => Stage::Receiving,
            3 => Stage::Deciding,
            4 => Stage::Sending,
            _ => Stage::Resting,
        }
    }
    /// Frames dropped for `reason`.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].get()
    }
    /// The counters of one port.
    #[inline]
    pub fn port(&self, port: crate::packet::PortId) -> &PortStats {
        &self.ports[port.index()]
    }
}

/// Rule and policy counters of one snapshot on one worker.
#[derive(Debug)]
#[repr(align(128))]
pub struct RuleCounters(Box<[Pair]>);

impl RuleCounters {
    /// `len` zeroed pairs.
    pub fn new(len: usize) -> Self {
        Self((0..len).map(|_| Pair::default()).collect())
    }
    /// Counts one packet of `bytes` for a rule or policy.
    #[inline]
    pub fn bump(&self, counter: crate::policy::CounterId, bytes: u64) {
        self.0[counter.0 as usize].bump(bytes);
    }
    /// Counts many packets, of so many bytes together.
    pub fn add(&self, counter: crate::policy::CounterId, packets: u64, bytes: u64) {
        let pair = &self.0[counter.0 as usize];
        pair.packets.add(packets);
        pair.bytes.add(bytes);
    }
    /// Packets and bytes of a rule or policy.
    pub fn get(&self, counter: crate::policy::CounterId) -> (u64, u64) {
        self.0[counter.0 as usize].get()
    }
}
