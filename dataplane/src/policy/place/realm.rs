//! `-m realm`: where a packet comes from and goes to, by the realms of routes.

use crate::policy::eval::PacketView;

/// `-m realm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RealmMatch {
    /// What the masked realms must be: from in the high half, to in the low half.
    pub value: u32,
    /// Which bits count.
    pub mask: u32,
    /// `!`.
    pub invert: bool,
}

impl RealmMatch {
    pub(super) fn matches(&self, packet: &PacketView<'_>) -> bool {
        (packet.realms.0 & self.mask == self.value) != self.invert
    }
}
