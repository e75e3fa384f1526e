//! Connection tracking: which connection does this packet belong to, in which
//! state, and what does that do to the connection?
//!
//! [`Conntrack`] is shared by all workers. Lookups never wait; a connection is
//! invisible until its first packet is confirmed.

pub mod tuple;

pub use tuple::{Direction, Tuple};

/// Handle of a connection record in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u32);

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
}

impl Tracking {
    /// No connection: what rules see before tracking, or with tracking off.
    pub const NONE: Self = Self {
        state: CtState::Invalid,
        direction: Direction::Original,
        conn: None,
        unconfirmed: false,
    };
    /// Exempt from tracking.
    pub const UNTRACKED: Self = Self { state: CtState::Untracked, ..Self::NONE };
}
