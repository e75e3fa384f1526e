//! Puts fragments back together, as the kernel does for connection tracking and
//! for what the local stack receives.
//!
//! [`piece`] reads a fragment, [`table`] keeps those of unfinished datagrams,
//! [`whole`] is the datagram that they make and the sizes in which it leaves again.
//!
//! All memory is taken at the start (and when an operator changes its size): each
//! family has `ipfrag_high_thresh` bytes in chunks of [`CHUNK`], and one buffer serves
//! the datagram that is on its way. Whatever does not fit is refused and counted.
//!
//! Limits: a table belongs to one worker. Receive queues are chosen by addresses
//! alone for fragments, so those of one datagram meet on one worker, unless they
//! arrive on ports whose hashes differ; such a datagram is never completed. A
//! datagram has at most [`table::PIECES_MAX`] fragments, and an IPv6 one is no
//! longer than 65535 bytes with its header.

mod chunks;
pub mod piece;
pub mod table;
pub mod whole;

#[cfg(test)]
mod tests;

use crate::clock::Nanos;
use crate::packet::Family;
use crate::verdict::DropReason;
pub use chunks::CHUNK;
pub use piece::{Piece, User};
pub use table::{Expired, Table};
pub use whole::{Regroup, Whole};

/// What one family's table is told, by the kernel's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `ipfrag_high_thresh`, `nf_conntrack_frag6_high_thresh`: bytes for unfinished datagrams.
    pub high_thresh: usize,
    /// `ipfrag_time`, `nf_conntrack_frag6_timeout`: how long a datagram may stay unfinished.
    pub timeout: Nanos,
    /// `ipfrag_max_dist`: fragments of one source that may pass a datagram by
    /// before it starts anew; zero: any number.
    pub max_dist: u32,
}

impl Settings {
    /// The kernel's defaults.
    pub const fn new(family: Family) -> Self {
        let high_thresh = 4 << 20;
        match family {
            Family::V4 => Self { high_thresh, timeout: Nanos::from_secs(30), max_dist: 64 },
            Family::V6 => Self { high_thresh, timeout: Nanos::from_secs(60), max_dist: 0 },
        }
    }
}

/// What became of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collected {
    /// It is kept.
    Kept,
    /// It completed its datagram, which is in the [`Whole`].
    Complete,
    /// The kernel lets it go on by itself (IPv6 fragments of an odd length). This
    /// many others of its datagram ended with [`DropReason::Fragment`].
    Passed(u32),
    /// It ended, and `others` that were kept with it.
    Refused {
        /// Why.
        reason: DropReason,
        /// Kept fragments that ended for the same reason.
        others: u32,
    },
}

/// Both families' unfinished datagrams and the buffer for a finished one.
#[derive(Debug)]
pub struct Fragments {
    v4: Table,
    v6: Table,
}

impl Default for Fragments {
    fn default() -> Self {
        Self::new(Settings::new(Family::V4), Settings::new(Family::V6))
    }
}

impl Fragments {
    /// Empty tables.
    pub fn new(v4: Settings, v6: Settings) -> Self {
        Self { v4: Table::new(v4), v6: Table::new(v6) }
    }
    /// Takes other settings ([`Table::adopt`]).
    pub fn adopt(&mut self, v4: Settings, v6: Settings) {
        self.v4.adopt(v4);
        self.v6.adopt(v6);
    }
    /// Adds a fragment; a completed datagram is written to `whole`.
    pub fn collect(&mut self, piece: &Piece<'_>, now: Nanos, whole: &mut Whole) -> Collected {
        self.table(piece.family()).add(piece, now, whole)
    }
    /// Ends the oldest datagram whose time is up and shows what was kept of it.
    /// The first fragment, if there is one, is written to `first`.
    pub fn expire(&mut self, now: Nanos, first: &mut Whole) -> Option<Expired> {
        self.v4.expire(now, first).or_else(|| self.v6.expire(now, first))
    }
    /// Whether [`Fragments::expire`] has something to do.
    #[inline]
    pub fn due(&self, now: Nanos) -> bool {
        self.v4.due(now) || self.v6.due(now)
    }
    /// Unfinished datagrams of a family.
    pub fn unfinished(&self, family: Family) -> usize {
        match family {
            Family::V4 => self.v4.len(),
            Family::V6 => self.v6.len(),
        }
    }

    fn table(&mut self, family: Family) -> &mut Table {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}
