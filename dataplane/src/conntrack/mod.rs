//! Connection tracking: which connection does this packet belong to, in which
//! state, and what does that do to the connection?
//!
//! [`Conntrack`] is shared by all workers. Lookups never wait; a connection is
//! invisible until its first packet is confirmed.
//!
//! From the bottom up: `sync` (atomics, exchangeable for loom's), `memory` (pages and
//! prefetches), `hash` (of tuples), `free` (free records), `record` (one
//! connection), `index` (buckets), `sources` (connections by original source),
//! `store` (the concurrent core: all together, with the life-cycle), `upkeep` (what keeps it fit), `tuple`,
//! `icmp`, `verify`, `tcp`, `sctp`, `protocol` (what a packet does to an entry),
//! `tracker` (the packet's road through it all), `flow` (a look ahead of it, and what plans keep), `short` (both for plain packets), `room` and `quota` (what happens when
//! it gets full, and who is to blame), `nat` (what translation asks and decides), `expect` (connections to come, kept in `slots`),
//! `assist` (what helpers do), `calls` and `keymap` (PPTP's GRE connections and their keys), `view` (what others see of it), `events` (what they
//! are told), `saved` (connections outside the table), `template` and `timeouts`
//! (what CT rules ask for), `config` and `knobs` (the kernel's sysctls).

mod assist;
mod calls;
mod clash;
mod config;
mod events;
mod expect;
mod extra;
mod facts;
mod flow;
mod free;
mod hash;
mod icmp;
mod index;
mod keymap;
mod knobs;
mod lanes;
mod memory;
mod nat;
mod protocol;
mod proxied;
mod quota;
mod record;
mod room;
mod saved;
mod sctp;
mod short;
mod slots;
mod sources;
#[cfg(not(loom))]
mod stock;
mod store;
mod sync;
mod tcp;
mod template;
#[cfg(test)]
mod tests;
mod timeouts;
mod tracker;
pub mod tuple;
mod upkeep;
mod verify;
mod view;

pub use assist::ExpectRow;
pub(crate) use calls::Calls;
pub use config::{Config, ConfigError, ConntrackError, setting_name};
pub use events::{Event, EventKind, TooManyListeners, Watch, change};
pub use expect::{ExpectError, ExpectId, Expectation, Follow, Limits, SourceMask};
pub(crate) use extra::Memory;
pub use extra::{Account, SeqShift};
pub use facts::Facts;
pub use flow::Flow;
pub use nat::{Answer, Face, SourceHash};
pub(crate) use proxied::{Numbers, Proxied};
pub use quota::{Offender, Prefix, Pressure};
pub use room::Counters;
pub use saved::{ImportError, Saved};
pub use sctp::SctpState;
pub use short::Spot;
pub use store::table_bytes;
pub use tcp::TcpState;
pub use template::{Extensions, Template, Terms, TimeoutsId, Zones};
pub use tracker::{Conntrack, Subject};
pub use tuple::{Direction, Tuple};
pub use view::{ConnView, Details, Presence, Row};

/// Status bits of a connection, in the kernel's numbering.
pub mod status {
    /// Foreseen by a helper.
    pub const EXPECTED: u32 = 1;
    /// Packets went both ways.
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// Not to be evicted when the table is full.
    pub const ASSURED: u32 = 1 << 2;
    /// In the table.
    pub const CONFIRMED: u32 = 1 << 3;
    /// The source is translated.
    pub const SRC_NAT: u32 = 1 << 4;
    /// The destination is translated.
    pub const DST_NAT: u32 = 1 << 5;
    /// The connection's sequence numbers are shifted ([`Extra`]'s adjustments).
    pub const SEQ_ADJUST: u32 = 1 << 6;
    /// Source translation is decided (perhaps to do nothing).
    pub const SRC_NAT_DONE: u32 = 1 << 7;
    /// Destination translation is decided (perhaps to do nothing).
    pub const DST_NAT_DONE: u32 = 1 << 8;
    /// Deleted; seen only by the packet that deleted it.
    pub const DYING: u32 = 1 << 9;
    /// Its timeout is never refreshed.
    pub const FIXED_TIMEOUT: u32 = 1 << 10;
    /// Made beside another of the same original tuple: only its answers find it.
    pub const NAT_CLASH: u32 = 1 << 12;
    /// A helper was given to it, or none on purpose, by a rule.
    pub const HELPER: u32 = 1 << 13;
    /// Ours, not the kernel's: its packets and bytes are counted.
    pub const ACCOUNTED: u32 = 1 << 24;
    /// Ours: it has room for labels.
    pub const LABELLED: u32 = 1 << 25;
    /// Ours: `--ctevents` says which of its events are told.
    pub const EVENTS_CHOSEN: u32 = 1 << 26;
    /// Ours: a named timeout policy holds instead of the table's timeouts.
    pub const OWN_TIMEOUTS: u32 = 1 << 27;
    /// Ours: SYNPROXY opened it.
    pub const PROXIED: u32 = 1 << 29;
    /// Ours: the time of its confirmation is kept.
    pub const STAMPED: u32 = 1 << 28;
}

/// Handle of a connection. It stays harmless when the connection ends: its
/// record can be read until it is used again, and never changed or mistaken
/// for its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(u64);

impl ConnId {
    const fn new(index: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | index as u64)
    }
    const fn index(self) -> usize {
        self.0 as u32 as usize
    }
    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
    /// A number that no other connection of this table has had (`ctid`).
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// `--ctstate` of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CtState {
    /// Not trackable, or contradicts its connection.
    Invalid,
    /// Starts a connection, or continues one that has seen no reply.
    New,
    /// Belongs to a connection that has seen both directions.
    Established,
    /// An ICMP error about a connection.
    Related,
    /// Exempt from tracking.
    Untracked,
}

impl CtState {
    /// The class bit in a classifier key ([`crate::policy::state_class`]).
    pub const fn bit(self) -> u64 {
        use crate::policy::state_class as class;
        match self {
            Self::Invalid => class::INVALID,
            Self::New => class::NEW,
            Self::Established => class::ESTABLISHED,
            Self::Related => class::RELATED,
            Self::Untracked => class::UNTRACKED,
        }
    }
    /// The name that `--ctstate` uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "INVALID",
            Self::New => "NEW",
            Self::Established => "ESTABLISHED",
            Self::Related => "RELATED",
            Self::Untracked => "UNTRACKED",
        }
    }
}

/// What tracking says of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracking {
    /// State for the rules.
    pub state: CtState,
    /// Direction of the packet in its connection (of the quoted packet's
    /// opposite, for ICMP errors, as the kernel has it).
    pub direction: Direction,
    /// The connection; `None` for INVALID and UNTRACKED.
    pub conn: Option<ConnId>,
    /// True when this packet created `conn` and it is not yet in the table:
    /// the owner must `confirm` or `discard` it.
    pub unconfirmed: bool,
    /// True when the packet is INVALID for another reason than its checksum, which was
    /// looked at and found right.
    pub summed: bool,
}

impl Tracking {
    /// No connection: what rules see before tracking, or with tracking off.
    pub const NONE: Self = Self {
        state: CtState::Invalid,
        direction: Direction::Original,
        conn: None,
        unconfirmed: false,
        summed: false,
    };
    /// Exempt from tracking.
    pub const UNTRACKED: Self = Self { state: CtState::Untracked, ..Self::NONE };
}
