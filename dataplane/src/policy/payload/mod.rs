//! Matches on any byte of a packet, from its network header on: string, u32, bpf.

pub mod bpf;
pub mod string;
pub mod u32;

use super::eval::{Outcome, PacketView};

pub use bpf::BpfMatch;
pub use string::StringMatch;
pub use u32::U32Match;

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PayloadMatch {
    /// `-m string`.
    String(StringMatch),
    /// `-m u32`.
    U32(U32Match),
    /// `-m bpf --bytecode`.
    Bpf(BpfMatch),
}

impl PayloadMatch {
    /// What the match says of the packet.
    pub fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        match self {
            Self::String(found) => found.matches(packet.parsed.l3_bytes(&packet.frame)).into(),
            Self::U32(found) => found.matches(packet.parsed.l3_bytes(&packet.frame)).into(),
            Self::Bpf(found) => found.matches(packet).into(),
        }
    }

    /// Whether evaluating it may do more than answer: change state, or drop a packet
    /// whose fixed header is whole. Matches behind it must not be moved in front of it.
    pub fn has_effect(&self) -> bool {
        // A program may throw dice: whoever is asked less often throws otherwise.
        matches!(self, Self::Bpf(found) if found.throws_dice())
    }

    /// Whether loading it makes the kernel track the family's connections.
    pub fn needs_conntrack(&self) -> bool {
        false
    }
}
