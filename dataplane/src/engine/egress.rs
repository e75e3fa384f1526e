//! The way out: TTL, MTU, fragmentation, link-layer addresses.

use classifier::Address;

use super::road::{End, Packet, Road};
use super::way::Hop;
use crate::effects::Effects;
use crate::packet::{Family, Mac};
use crate::reply::Message;
use crate::reply::fragment::fragment;
use crate::verdict::{Disposition, DropReason};
use crate::wire::ipv4;

/// Longest frame that a fragment can be.
const FRAME_MAX: usize = 9216;

/// Lowers TTL or hop limit by one.
pub(super) fn decrement_hops(packet: &mut Packet<'_>) {
    let hops = packet.parsed.ttl.saturating_sub(1);
    packet.parsed.ttl = hops;
    let l3 = usize::from(packet.parsed.l3);
    set_hops(&mut packet.frame[l3..], packet.parsed.family, hops);
}

/// Sets TTL or hop limit of an IP packet.
#[inline]
pub(super) fn set_hops(ip: &mut [u8], family: Family, hops: u8) {
    match family {
        Family::V4 => {
            if let Ok(mut ip) = ipv4::Packet::new_header(ip) {
                ip.set_ttl(hops);
            }
        }
        Family::V6 => ip[7] = hops,
    }
}

/// Whether an IPv4 packet must not be fragmented.
pub(super) fn dont_fragment(packet: &Packet<'_>) -> bool {
    packet.parsed.family == Family::V4
        && packet.frame[usize::from(packet.parsed.l3) + 6] & (ipv4::DF >> 8) as u8 != 0
}

/// Whether a packet cannot leave through `mtu`, and its sender must be told. A
/// datagram that came in fragments may be cut again unless they were too long.
pub(super) fn too_big(packet: &Packet<'_>, mtu: u32) -> bool {
    let (family, length) = (packet.parsed.family, u32::from(packet.parsed.l3_len));
    let whole = dont_fragment(packet);
    match packet.regroup {
        Some(regroup) => regroup.too_big(family, whole, length, mtu),
        None => length > mtu && (family == Family::V6 || whole),
    }
}

/// Writes both addresses of the Ethernet header.
pub(super) fn address(frame: &mut [u8], to: Mac, from: Mac) {
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.0);
}

impl<A: Address, E: Effects> Road<'_, A, E> {
    /// Sends the packet to its next hop.
    pub(super) fn leave(&mut self, packet: &mut Packet<'_>, hop: Hop) -> Result<Disposition, End> {
        let network = self.world.network;
        let port = network.port(hop.port);
        if !port.up {
            return Err(End::Drop(DropReason::PortDown));
        }
        let (family, next_hop) = hop.next_hop;
        let known = || network.neighbour(hop.port, family, next_hop);
        let neighbour = hop.mac.or_else(known);
        // What the kernel sent fits its way: it knows of exceptions that we do not.
        let hop = Hop { mtu: if hop.mac.is_some() { port.mtu } else { hop.mtu }, ..hop };
        address(&mut packet.frame, neighbour.unwrap_or_default(), port.mac);
        if too_big(packet, hop.mtu) {
            // A forwarded IPv4 packet gets here when a helper has made it longer, one of
            // our own when OUTPUT has given it another way: its socket is told.
            let message = Message::too_big(family, hop.mtu);
            return Err(End::Refused(DropReason::TooBig, message));
        }
        let length = u32::from(packet.parsed.l3_len);
        let fits = match packet.regroup {
            Some(regroup) => regroup.leaves_whole(family, length, hop.mtu),
            None => length <= hop.mtu,
        };
        if neighbour.is_none() {
            self.effects.want_neighbour(hop.port, family, next_hop);
        }
        match (fits, neighbour) {
            (false, _) => self.leave_in_pieces(packet, hop, neighbour.is_some()),
            (true, Some(_)) => Ok(Disposition::Transmit(hop.port)),
            (true, None) => {
                Ok(Disposition::AwaitNeighbour { port: hop.port, next_hop: hop.next_hop })
            }
        }
    }

    /// Sends the packet as fragments, which wait where it would have waited.
    fn leave_in_pieces(
        &mut self,
        packet: &Packet<'_>,
        hop: Hop,
        resolved: bool,
    ) -> Result<Disposition, End> {
        self.cut(packet, hop.mtu, |road, piece| match resolved {
            true => road.effects.emit(hop.port, piece).then_some(()).ok_or(DropReason::NoFrame),
            false => road.effects.hold(hop.port, hop.next_hop, piece),
        })
    }

    /// Hands the packet to `send` in fragments.
    pub(super) fn cut(
        &mut self,
        packet: &Packet<'_>,
        mtu: u32,
        mut send: impl FnMut(&mut Self, &[u8]) -> Result<(), DropReason>,
    ) -> Result<Disposition, End> {
        let (mut scratch, mut refused) = ([0; FRAME_MAX], None);
        let emit = |piece: &[u8]| refused = refused.or(send(self, piece).err());
        let (frame, parsed) = (&packet.frame[..], &packet.parsed);
        let joined = packet.frame.joined();
        let pieces = match packet.regroup {
            Some(regroup) => regroup.cut(frame, joined, parsed, mtu, &mut scratch, emit),
            None => fragment(frame, parsed, mtu, &mut scratch, emit),
        };
        match (pieces, refused) {
            (0, _) => Err(End::Drop(DropReason::TooBig)),
            (_, Some(reason)) => Err(End::Drop(reason)),
            (_, None) => Ok(Disposition::Fragmented),
        }
    }
}
