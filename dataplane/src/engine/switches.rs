//! What of the engine may be turned off, so that tests see whether it is only speed.

/// Roads beside the plain one, each of which no packet and no counter can tell from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Switches {
    /// Packets of established connections follow plans ([`crate::plan`]), and plain packets
    /// that meet neither rules nor tracking go straight to their next hop.
    pub plans: bool,
    /// Packets of families without tracking go straight past one chain of rules.
    pub straight: bool,
}

impl Switches {
    /// All on, or all off.
    pub const fn all(on: bool) -> Self {
        Self { plans: on, straight: on }
    }
}

impl Default for Switches {
    fn default() -> Self {
        Self::all(true)
    }
}
