//! The stage behind source translation, where connection helpers look at packets
//! and change them.

use super::World;
use super::road::{End, Packet};
use crate::fib::{Network, Query, RouteKind};
use crate::helper;
use crate::packet::{Family, PortId};

/// Takes a packet past its connection's helper, and adjusts its sequence numbers.
pub(super) fn assist(world: &World<'_>, packet: &mut Packet<'_>) -> Result<(), End> {
    if packet.tracking.conn.is_none() || packet.input == Some(PortId::LOOPBACK) {
        return Ok(());
    }
    let own = packet.output.filter(|port| packet.input.is_none() && *port != PortId::LOOPBACK);
    let own = own.map(|port| helper::Own { addresses: &world.network.port(port).addresses });
    let Packet { frame, parsed, tracking, .. } = packet;
    let same_way = |family, to: [u128; 2]| {
        let [one, other] = to.map(|dst| way(world.network, family, dst));
        one.is_some() && one == other
    };
    helper::assist(world.conntrack, tracking, frame, parsed, own, world.now, &same_way)
        .map_err(End::Drop)
}

/// The port and the next hop of packets of our own to `dst`; `None`: there is no way. What is
/// for this machine leaves by no port.
fn way(network: &Network, family: Family, dst: u128) -> Option<(Option<PortId>, (Family, u128))> {
    let query = Query { family, src: 0, dst, iif: None, mark: 0 };
    if let Some((port, _)) = network.group_way(&query) {
        return Some((Some(port), (family, dst)));
    }
    let route = network.route(&query)?;
    match route.kind {
        RouteKind::Unicast(port) => Some((Some(port), route.next_hop(family, dst))),
        RouteKind::Local => Some((None, (family, dst))),
        RouteKind::Broadcast => {
            network.broadcast_way(dst).map(|(port, _)| (Some(port), (family, dst)))
        }
        _ => None,
    }
}
