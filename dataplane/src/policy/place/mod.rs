//! Matches on where a packet is and whose it is: addrtype, rpfilter, realm, devgroup, physdev, owner, socket, policy.

mod addrtype;
mod devgroup;
mod ipsec;
mod owner;
mod physdev;
mod realm;
mod rpfilter;

pub use addrtype::{AddrTypeMatch, Limit, address_type};
pub use devgroup::DevGroupMatch;
pub use ipsec::{IpsecDirection, IpsecElement, IpsecMatch};
pub use owner::OwnerMatch;
pub use physdev::PhysdevMatch;
pub use realm::RealmMatch;
pub use rpfilter::RpFilterMatch;

use super::eval::{Outcome, PacketView};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PlaceMatch {
    /// `-m addrtype`.
    AddrType(AddrTypeMatch),
    /// `-m rpfilter`.
    RpFilter(RpFilterMatch),
    /// `-m devgroup`.
    DevGroup(DevGroupMatch),
    /// `-m realm`.
    Realm(RealmMatch),
    /// `-m owner`.
    Owner(OwnerMatch),
    /// `-m policy`: holds if it asks for no transformation.
    Ipsec(Box<IpsecMatch>),
    /// `-m physdev`.
    Physdev(Box<PhysdevMatch>),
}

impl PlaceMatch {
    /// What the match says of the packet. A dynamic match changes its state here.
    pub fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        match self {
            Self::AddrType(kind) => kind.matches(packet).into(),
            Self::RpFilter(filter) => filter.matches(packet).into(),
            Self::DevGroup(group) => group.matches(packet).into(),
            Self::Realm(realm) => realm.matches(packet).into(),
            Self::Owner(owner) => owner.evaluate(packet),
            Self::Ipsec(ipsec) => ipsec.none.into(),
            Self::Physdev(ports) => ports.holds_unbridged().into(),
        }
    }

    /// Whether evaluating it may do more than answer: change state, or drop a packet
    /// whose fixed header is whole. Matches behind it must not be moved in front of it.
    pub fn has_effect(&self) -> bool {
        // An owner that cannot be told drops the packet.
        matches!(self, Self::Owner(_))
    }

    /// Whether loading it makes the kernel track the family's connections.
    pub fn needs_conntrack(&self) -> bool {
        false
    }
}
