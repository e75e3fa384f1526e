//! Packets of this machine that its kernel has already sent on their way: the
//! first routing decision was the kernel's and stays, because only the kernel
//! knows the socket (bound to a device, a group's interface, a marked one).
//!
//! Such a frame tells where it goes by the TAP that it came through
//! ([`Slot::port`]) and by its Ethernet header: the destination is the next
//! hop's, and in place of the source, which is the port's anyway, the tcx
//! program (`dataplane/bpf/host.h`) has written what else must not be lost.

use classifier::Address;

use super::Slot;
use super::road::{End, Hop, Packet, Road};
use crate::effects::Effects;
use crate::fib::RouteKind;
use crate::packet::{Mac, PortId};

/// Bit of the first byte: the socket is bound to the device.
const BOUND: u8 = 1;

/// What the kernel decided about a packet of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handed {
    /// The port it sent it out on.
    port: PortId,
    /// The next hop's link-layer address.
    next_hop: Mac,
    /// The packet's mark.
    pub(super) mark: u32,
    /// Its socket is bound to the device: no table may route it elsewhere.
    bound: bool,
}

impl Handed {
    /// Reads it off a frame; `None` when no kernel has routed it, as in a replay.
    pub(super) fn read(slot: &Slot<'_>) -> Option<Self> {
        if slot.port == PortId::LOOPBACK {
            return None;
        }
        let [a, b, c, d, e, f, flags, _, mark @ ..] = *slot.frame().first_chunk::<12>()?;
        Some(Self {
            port: slot.port,
            next_hop: Mac([a, b, c, d, e, f]),
            mark: u32::from_ne_bytes(mark),
            bound: flags & BOUND != 0,
        })
    }
}

impl<A: Address, E: Effects> Road<'_, A, E> {
    /// The first routing decision about a packet of our own: the kernel's where it
    /// has made one.
    pub(super) fn first_way(&self, packet: &mut Packet<'_>) -> Result<Option<Hop>, End> {
        let Some(handed) = packet.handed else { return self.route_output(&packet.query()) };
        let network = self.world.network;
        let query = packet.query();
        let ours = |kind| kind == RouteKind::Unicast(handed.port);
        let route = network.route(&query).filter(|route| ours(route.kind));
        let port_mtu = network.port(handed.port).mtu;
        Ok(Some(Hop {
            port: handed.port,
            next_hop: route
                .map_or((query.family, query.dst), |route| route.next_hop(query.family, query.dst)),
            mtu: route.map_or(port_mtu, |route| network.mtu(&route, handed.port)),
            mac: Some(handed.next_hop),
        }))
    }

    /// Routes a packet of our own again, because OUTPUT changed what routing depends
    /// on. A bound socket's stays on its device.
    pub(super) fn route_again(
        &self,
        packet: &Packet<'_>,
        first: Option<Hop>,
    ) -> Result<Option<Hop>, End> {
        let again = self.route_output(&packet.query());
        let bound = packet.handed.filter(|handed| handed.bound);
        match (bound, again) {
            (Some(handed), Ok(Some(hop))) if hop.port != handed.port => Ok(first),
            (Some(_), Err(_)) => Ok(first),
            (_, again) => again,
        }
    }
}
