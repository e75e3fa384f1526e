//! Targets that change what is known of a packet, not the packet, and let the walk go
//! on: CLASSIFY, HMARK, IDLETIMER, RATEEST; and TEE, which sends a copy.

use super::eval::PacketView;
use crate::effects::Effects;

/// One of them.
#[derive(Clone, Debug)]
pub enum MetaTarget {}

impl MetaTarget {
    /// The name that `-j` takes.
    pub const fn name(&self) -> &'static str {
        match *self {}
    }

    /// Carries it out.
    pub fn apply<E: Effects>(&self, _packet: &mut PacketView<'_>, _effects: &mut E) {
        match *self {}
    }
}
