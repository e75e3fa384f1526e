//! The stage behind source translation, where connection helpers look at packets
//! and change them.

use super::World;
use super::road::{End, Packet};
use crate::helper;
use crate::packet::PortId;

/// Takes a packet past its connection's helper, and adjusts its sequence numbers.
pub(super) fn assist(world: &World<'_>, packet: &mut Packet<'_>) -> Result<(), End> {
    if packet.tracking.conn.is_none() || packet.input == Some(PortId::LOOPBACK) {
        return Ok(());
    }
    let own = packet.output.filter(|port| packet.input.is_none() && *port != PortId::LOOPBACK);
    let own = own.map(|port| helper::Own { addresses: &world.network.port(port).addresses });
    let Packet { frame, parsed, tracking, .. } = packet;
    helper::assist(world.conntrack, tracking, frame, parsed, own, world.now).map_err(End::Drop)
}
