//! What the network has lost that translations stand on: an address of a port, or
//! a whole port. MASQUERADE's connections end with it.
//!
//! Notifications tell of each loss, also of one that is soon made good. When
//! notifications were lost themselves, two dumps are compared.

use std::collections::BTreeSet;
use std::net::IpAddr;

use dataplane::packet::PortId;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkFlags;

use super::view::{View, address};

/// One loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss {
    /// The port.
    pub port: PortId,
    /// The address that it lost; `None`: it was taken down, or is gone.
    pub address: Option<IpAddr>,
}

/// Losses not yet reported. Each is kept once, so there are at most as many as
/// ports and addresses that existed.
#[derive(Debug, Default)]
pub(super) struct Losses(BTreeSet<Loss>);

impl Losses {
    /// Takes in one notification, before the view does.
    pub(super) fn follow(&mut self, view: &View, ports: &[String], message: &RouteNetlinkMessage) {
        use RouteNetlinkMessage as M;
        let (index, address) = match message {
            M::DelAddress(message) => match address(message) {
                Some(gone) => (gone.link, Some(gone.address)),
                None => return,
            },
            M::DelLink(message) => (message.header.index, None),
            M::NewLink(message) if !message.header.flags.contains(LinkFlags::Up) => {
                (message.header.index, None)
            }
            _ => return,
        };
        if let Some(port) = port_of(view, ports, index) {
            self.0.insert(Loss { port, address });
        }
    }

    /// Takes in what is missing in a later dump.
    pub(super) fn compare(&mut self, old: &View, new: &View, ports: &[String]) {
        for link in old.links.values() {
            let Some(port) = port_of(old, ports, link.index) else { continue };
            let still = new.links.get(&link.index).is_some_and(|link| link.enabled);
            if link.enabled && !still {
                self.0.insert(Loss { port, address: None });
            }
        }
        let kept: BTreeSet<_> = new.addresses.iter().map(|own| (own.link, own.address)).collect();
        for own in old.addresses.iter().filter(|own| !kept.contains(&(own.link, own.address))) {
            if let Some(port) = port_of(old, ports, own.link) {
                self.0.insert(Loss { port, address: Some(own.address) });
            }
        }
    }

    /// What has been lost since the last call.
    pub(super) fn take(&mut self) -> Vec<Loss> {
        std::mem::take(&mut self.0).into_iter().collect()
    }
}

fn port_of(view: &View, ports: &[String], index: u32) -> Option<PortId> {
    let name = &view.links.get(&index)?.name;
    let at = ports.iter().position(|port| port == name)?;
    Some(PortId(at as u8))
}
