//! Matches that count by source or destination: recent, hashlimit, connlimit.
//!
//! Their tables are of fixed size, made by the policy compiler and shared by every
//! snapshot that names them. A table, or a part of one, has a lock ([`spin`]) that only
//! packets take whose rule asks the table; under it a lookup, a few words, nothing that
//! grows. Memory is asked for when a table is made and touched as it fills. Hashes are
//! keyed by the process, so that nobody outside can make two addresses collide.

pub mod connlimit;
pub mod hashlimit;
pub mod rate;
pub mod recent;
mod shelf;
mod spin;

use super::eval::{Outcome, PacketView};
use crate::clock::Nanos;

pub use connlimit::{ConnMatch, ConnRule, ConnTable};
pub use hashlimit::{HashMatch, HashSettings, HashTable, KeyParts};
pub use rate::{Rate, Unit};
pub use recent::{RecentAction, RecentMatch, RecentRule, RecentTable};

/// Ticks per second of the kernel whose arithmetic this follows.
pub const HZ: u64 = 250;
/// Nanoseconds in one tick.
pub const TICK_NS: u64 = 1_000_000_000 / HZ;

/// Entries that a listing copies under one lock.
const PAGE: usize = 256;

/// The kernel's `jiffies` at a time.
pub fn ticks(now: Nanos) -> u64 {
    now.0 / TICK_NS
}

/// One of them.
#[derive(Clone, Debug)]
pub enum TallyMatch {
    /// `-m recent`.
    Recent(RecentMatch),
    /// `-m hashlimit`.
    Hash(HashMatch),
    /// `-m connlimit`.
    Conn(ConnMatch),
}

impl TallyMatch {
    /// What the match says of the packet. A dynamic match changes its state here.
    pub fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        match self {
            Self::Recent(recent) => recent.evaluate(packet),
            Self::Hash(hash) => hash.evaluate(packet),
            Self::Conn(conn) => conn.evaluate(packet),
        }
    }

    /// Whether evaluating it may do more than answer: change state, or drop a packet
    /// whose fixed header is whole. Matches behind it must not be moved in front of it.
    pub fn has_effect(&self) -> bool {
        match self {
            Self::Recent(recent) => recent.has_effect(),
            Self::Hash(_) | Self::Conn(_) => true,
        }
    }

    /// Whether loading it makes the kernel track the family's connections.
    pub fn needs_conntrack(&self) -> bool {
        match self {
            Self::Recent(_) | Self::Hash(_) => false,
            Self::Conn(_) => true,
        }
    }
}
