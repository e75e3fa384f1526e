//! Sets of addresses, networks, ports and the like: what `ipset` holds, looked up by
//! every worker while elements come and go.

mod element;
mod error;
mod name;
mod registry;
mod set;
mod spec;

pub use element::{Beside, Element, Entry, Extras, Iface, SkbInfo};
pub use error::SetError;
pub use name::SetName;
pub use registry::{MAX_SETS, Reference, Registry, Slot};
pub use set::{Cursor, Header, Set};
pub use spec::{CreateSpec, Part, SetType};

use crate::policy::eval::{Outcome, PacketView};

/// `-m set --match-set`.
#[derive(Clone, Debug)]
pub enum SetMatch {}

impl SetMatch {
    /// Whether the packet is in the set, as the options ask.
    pub fn evaluate(&self, _packet: &PacketView<'_>) -> Outcome {
        match *self {}
    }

    /// Whether evaluating it may do more than answer: update counters, for one.
    pub fn has_effect(&self) -> bool {
        match *self {}
    }
}

/// `-j SET`: adds to a set, deletes from one, or maps from one; the walk goes on.
#[derive(Clone, Debug)]
pub enum SetTarget {}

impl SetTarget {
    /// Carries it out.
    pub fn apply(&self, _packet: &mut PacketView<'_>) {
        match *self {}
    }
}
