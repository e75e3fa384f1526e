//! Multicast, broadcast and link-local: what is said to a link and not to a host.

use std::net::IpAddr;

use super::PortInfo;
use super::network::{Network, Query, address_bits, family_of, is_link_local, span};
use crate::packet::{Family, Mac, PortId};

/// 255.255.255.255.
const EVERYBODY: u128 = 0xffff_ffff;

impl Network {
    /// Whether this machine listens to a multicast group on `port`.
    pub fn has_joined(&self, port: PortId, family: Family, group: u128) -> bool {
        self.groups.binary_search(&(port, family, group)).is_ok()
    }

    /// The way of a packet of our own to a group, to everybody or to a link-local
    /// address: out of the port that has its source address. `None`: tables decide.
    pub fn group_way(&self, query: &Query) -> Option<(PortId, (Family, u128))> {
        let Query { family, src, dst, .. } = *query;
        let said_to_link = match family {
            Family::V4 => dst >> 28 == 0xe || dst == EVERYBODY,
            Family::V6 => dst >> 120 == 0xff || is_link_local(family, dst),
        };
        if !said_to_link {
            return None;
        }
        Some((self.port_with(family, src)?, (family, dst)))
    }

    /// The port that has this address.
    pub fn port_with(&self, family: Family, address: u128) -> Option<PortId> {
        let has = |port: &PortInfo| {
            let mut own = port.addresses.iter().map(|(own, _)| own);
            own.any(|own| (family_of(own), address_bits(*own)) == (family, address))
        };
        let at = self.ports().iter().position(has)?;
        Some(PortId(at as u8))
    }

    /// The port whose network has the broadcast address `dst`, and the next hop there.
    pub fn broadcast_way(&self, dst: u128) -> Option<(PortId, (Family, u128))> {
        let ends = |&(address, len): &(IpAddr, u8)| {
            address.is_ipv4() && len < 31 && span((address, len)).last == dst
        };
        let at = self.ports().iter().position(|port| port.addresses.iter().any(ends))?;
        Some((PortId(at as u8), (Family::V4, EVERYBODY)))
    }
}

/// The link-layer address that stands for a group, or for everybody.
pub(super) fn group_mac(family: Family, address: u128) -> Option<Mac> {
    let [.., a, b, c, d] = address.to_be_bytes();
    match family {
        Family::V4 if address == EVERYBODY => Some(Mac([0xff; 6])),
        Family::V4 if a >> 4 == 0xe => Some(Mac([0x01, 0, 0x5e, b & 0x7f, c, d])),
        Family::V6 if address >> 120 == 0xff => Some(Mac([0x33, 0x33, a, b, c, d])),
        _ => None,
    }
}
