//! Where an ordinary IPv4 packet goes on to, in one step: [`Network::input`] and the next
//! hop's link-layer address together. Whatever is special is left to these.

use super::RouteKind;
use super::network::{Network, Query};
use crate::packet::{Family, PortId};

/// The way of a packet that is simply sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Onward {
    /// The output port, which is up.
    pub port: PortId,
    /// Longest IP packet in bytes that leaves in one piece.
    pub mtu: u32,
    /// Addresses of the Ethernet header: the next hop's, and the port's.
    pub macs: [u8; 12],
}

impl Network {
    /// The way of an IPv4 packet between these addresses that was addressed to a port.
    /// `None`: there is more to say of it, or it goes nowhere.
    #[inline]
    pub fn onward_v4(&self, src: u32, dst: u32) -> Option<Onward> {
        let special = self.checks_sources_v4() || self.is_local(Family::V4, src.into());
        if !is_ordinary(src) || !is_ordinary(dst) || special {
            return None;
        }
        let (family, src, dst) = (Family::V4, src.into(), dst.into());
        let found = self.v4.find(&Query { family, src, dst, iif: None, mark: 0 })?;
        let RouteKind::Unicast(port) = found.kept.kind else { return None };
        let (family, next_hop) = found.kept.next_hop(family, dst);
        let (out, neighbour) = (self.port(port), self.neighbour(port, family, next_hop)?);
        let mut macs = [0; 12];
        macs[..6].copy_from_slice(&neighbour.0);
        macs[6..].copy_from_slice(&out.mac.0);
        out.up.then(|| Onward { port, mtu: self.mtu(found.kept, port), macs })
    }
}

/// Neither of the networks 0 and 127, nor multicast or beyond.
#[inline]
fn is_ordinary(address: u32) -> bool {
    let network = address >> 24;
    (1..224).contains(&network) && network != 127
}
