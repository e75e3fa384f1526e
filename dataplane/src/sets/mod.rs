//! Sets of addresses, networks, ports and the like: what `ipset` holds, looked up by
//! every worker while elements come and go.
//!
//! A [`Registry`] has every set by name; rules hold a [`Slot`]. Life cycle: control
//! threads make, fill, swap and destroy sets; policies refer to slots as long as they
//! live. Concurrency: lookups go through atomics and never wait; whoever adds or deletes
//! holds one short lock of that set. Limits: `maxelem`, a bitmap's range; what
//! packets may add has its room set aside when a rule with SET is loaded.

mod bitmap;
mod checked;
mod element;
mod error;
mod follow;
mod index;
mod key;
mod lengths;
mod list;
mod lookup;
mod matching;
mod memory;
mod name;
mod probe;
mod registry;
mod retired;
mod set;
mod slab;
mod spec;
mod store;
#[cfg(test)]
mod tests;

pub use element::{Beside, Element, Entry, Extras, Iface, SkbInfo};
pub use error::SetError;
pub use follow::Follower;
pub use matching::{Bound, MapSet, SetMatch, SetTarget};
pub use name::SetName;
pub use probe::{PortNames, Sides};
pub use registry::{MAX_SETS, Reference, Registry, Slot};
pub use set::{Cursor, Header, Set};
pub use slab::CountTest;
pub use spec::{CreateSpec, Part, SetType};
