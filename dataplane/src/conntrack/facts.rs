//! What a listing says of a connection beyond its row.

use super::status::STAMPED;
use super::{ConnId, Conntrack};
use crate::clock::Nanos;
use crate::packet::PortId;

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The port whose address a MASQUERADE took.
    pub masquerade: Option<PortId>,
    /// The connection that it was expected from.
    pub master: Option<ConnId>,
    /// When it was confirmed; `None` when that is not kept.
    pub start: Option<Nanos>,
}

impl Conntrack {
    /// Where a connection comes from; `None` once its record serves another.
    pub fn facts(&self, id: ConnId) -> Option<Facts> {
        let (status, extras) = self.store.extras(id)?;
        Some(Facts {
            masquerade: extras.masquerade_port().map(PortId),
            master: extras.master(),
            start: (status & STAMPED != 0).then(|| Nanos(extras.start())),
        })
    }
}
