//! Plans: what the walk of one packet said, for the next ones of its connection.
//!
//! A confirmed connection's packet that was forwarded leaves a [`Plan`]: by which port
//! and with which link-layer addresses it left, with which mark, whether addresses were
//! rewritten, and which rules counted it. The next packets of the same connection and
//! direction are tracked in full, as ever, and then follow the plan instead of walking
//! the rules again.
//!
//! **Why that is exact.** A walk is a function of the policy, the network, the packet and
//! its connection. Policy and network are those of one epoch ([`Plans::adopt`]): every
//! other ends all plans. Of connection and packet, what both packets have in common is
//! constant; whatever else a match that was asked, a target that acted or a classifier
//! that searched may have looked at has either become a guard ([`Plan::admits`],
//! [`Plan::suits`]) or made the walk one without a plan ([`Unplannable`]): see
//! [`Recorder`], which watches the walk, and [`crate::policy::constancy`], which says of
//! every match and target what it looks at. What the road does between walks (routing,
//! translation, the way out) looks at nothing but that, the status bits of the
//! connection, which are compared whole, and the TTL and length, which are guarded.
//!
//! **Counters** are exact whenever a burst is over: a path (the counters of one walk, in
//! order) is counted as such within the burst, and then added to each of its counters.
//! No reader has to know of paths.
//!
//! Plans are plain data and belong to one worker. A connection's word names one by epoch
//! and number; epochs are never used again, by no engine of the process.

mod recorder;
mod table;

use std::sync::atomic::{AtomicU64, Ordering};

pub use recorder::{Counted, Recorder, Unwatched, Watch};
pub use table::{Found, Plans};

use crate::conntrack::status;
use crate::packet::{Family, Fragment, L4Class, Parsed, PktType, PortId};
use crate::wire::{ethernet, ipv4, ipv6, proto, tcp};

/// Why a walk has left no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Unplannable {
    /// A match looks at what differs from packet to packet.
    Match = 0,
    /// A target must see every packet.
    Target = 1,
    /// The connection's mark has changed on the way.
    Mark = 2,
    /// The connection has a helper, shifted sequence numbers, or SYNPROXY in between.
    Connection = 3,
    /// The packet was not simply sent on.
    End = 4,
    /// It met more counters than a path holds.
    Length = 5,
    /// There is no room for one more plan or path in this epoch.
    Full = 6,
}

impl Unplannable {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::Match,
        Self::Target,
        Self::Mark,
        Self::Connection,
        Self::End,
        Self::Length,
        Self::Full,
    ];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Target => "target",
            Self::Mark => "mark",
            Self::Connection => "connection",
            Self::End => "end",
            Self::Length => "length",
            Self::Full => "full",
        }
    }

    /// Whether the connection's next packet may well do better.
    pub const fn may_pass(self) -> bool {
        matches!(self, Self::Mark)
    }
}

/// A value under a mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Guard<T> {
    /// Which bits count.
    pub mask: T,
    /// What they are.
    pub value: T,
}

impl<T: Copy + Eq + std::ops::BitAnd<Output = T>> Guard<T> {
    /// The bits of `x` under `mask`.
    pub fn of(x: T, mask: T) -> Self {
        Self { mask, value: x & mask }
    }
    /// Whether `x` has the same bits.
    #[inline]
    pub fn holds(&self, x: T) -> bool {
        x & self.mask == self.value
    }
}

/// What becomes of a connection's packets of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// The port they come in by.
    pub input: PortId,
    /// The port they leave by.
    pub output: PortId,
    /// Both addresses of the Ethernet header that they leave with.
    pub macs: [u8; 12],
    /// Longest IP packet in bytes for which it holds.
    pub longest: u16,
    /// TCP flags that rules looked at.
    pub flags: Guard<u8>,
    /// Bits of the TOS byte that rules looked at.
    pub tos: Guard<u8>,
    /// Status bits of the connection.
    pub status: u32,
    /// The connection's mark, if a rule looked at it.
    pub conn_mark: Guard<u32>,
    /// The packet's mark at the end.
    pub mark: u32,
    /// Whether the destination is translated, and then the source.
    pub rewrites: [bool; 2],
    /// What counts it.
    pub path: u16,
}

impl Plan {
    /// Whether it holds for a packet that is one of those which plans are for, as far as
    /// that shows before tracking.
    #[inline]
    pub fn admits(&self, input: PortId, l3_len: u16, tcp_flags: u8, tos: u8) -> bool {
        self.input == input
            && l3_len <= self.longest
            && self.flags.holds(tcp_flags)
            && self.tos.holds(tos)
    }

    /// Whether it holds for a connection with this status and mark.
    #[inline]
    pub fn suits(&self, status: u32, mark: u32) -> bool {
        self.status == status && self.conn_mark.holds(mark)
    }
}

/// Status bits of connections whose packets need more than a plan does.
pub const NEEDY: u32 = status::HELPER | status::SEQ_ADJUST | status::PROXIED | status::DYING;

/// Whether plans are for packets like this one, which came in by a port: whole TCP
/// segments and UDP datagrams addressed to it, with a hop to spare and nothing between
/// the headers.
#[inline]
pub fn is_plain(parsed: &Parsed) -> bool {
    let header = match parsed.family {
        Family::V4 => ipv4::HEADER,
        Family::V6 => ipv6::HEADER,
    };
    matches!(parsed.proto, proto::TCP | proto::UDP)
        && parsed.l4_class == L4Class::Whole
        && parsed.fragment == Fragment::Whole
        && parsed.pkt_type == PktType::Host
        && parsed.ttl > 1
        && usize::from(parsed.l3) == ethernet::HEADER
        && usize::from(parsed.l4) == ethernet::HEADER + header
}

/// Whether a packet's way says much about the next ones': those that open and close a
/// connection often meet rules of their own.
#[inline]
pub fn is_typical(tcp_flags: u8) -> bool {
    tcp_flags & (tcp::flags::SYN | tcp::flags::FIN | tcp::flags::RST) == 0
}

/// A number that nothing else in the process has had: of what plans are made against, and
/// of their epochs. Every default is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial(u64);

impl Default for Serial {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
