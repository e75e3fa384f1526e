//! The way out: TTL, MTU, fragmentation, link-layer addresses.

use classifier::Address;

use super::road::{End, Hop, Packet, Road};
use crate::effects::Effects;
use crate::packet::{Family, Mac};
use crate::verdict::{Disposition, DropReason};
use crate::wire::ipv4;

/// The longest fragment that is built, its Ethernet header included. Longer
/// MTUs are fragmented as if they were this.
const FRAGMENT_MAX: usize = 9216;

/// Lowers TTL or hop limit by one.
pub(super) fn decrement_hops(packet: &mut Packet<'_>) {
    let hops = packet.parsed.ttl.saturating_sub(1);
    packet.parsed.ttl = hops;
    let l3 = usize::from(packet.parsed.l3);
    match packet.parsed.family {
        Family::V4 => {
            if let Ok(mut ip) = ipv4::Packet::new_header(&mut packet.frame[l3..]) {
                ip.set_ttl(hops);
            }
        }
        Family::V6 => packet.frame[l3 + 7] = hops,
    }
}

/// Whether an IPv4 packet must not be fragmented.
pub(super) fn dont_fragment(packet: &Packet<'_>) -> bool {
    packet.parsed.family == Family::V4
        && packet.frame[usize::from(packet.parsed.l3) + 6] & (ipv4::DF >> 8) as u8 != 0
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
        let neighbour = network.neighbour(hop.port, family, next_hop);
        address(packet.frame, neighbour.unwrap_or_default(), port.mac);
        let fits = u32::from(packet.parsed.l3_len) <= hop.mtu;
        if !fits && (packet.parsed.family == Family::V6 || dont_fragment(packet)) {
            return Err(End::Drop(DropReason::TooBig));
        }
        if neighbour.is_none() {
            self.effects.want_neighbour(hop.port, family, next_hop);
            return match fits {
                true => Ok(Disposition::AwaitNeighbour { port: hop.port, next_hop }),
                false => Err(End::Drop(DropReason::NeighbourUnresolved)),
            };
        }
        if fits {
            return Ok(Disposition::Transmit(hop.port));
        }
        let mut emit = |fragment: &[u8]| self.effects.emit(hop.port, fragment);
        match fragment(packet, hop.mtu as usize, &mut emit) {
            true => Ok(Disposition::Fragmented),
            false => Err(End::Drop(DropReason::TxRingFull)),
        }
    }
}

/// Cuts an IPv4 packet, itself perhaps a fragment, into pieces of at most
/// `mtu` bytes, each with the packet's Ethernet header. Returns false when
/// `emit` refused one, or when no piece would fit.
fn fragment(packet: &Packet<'_>, mtu: usize, emit: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    let l3 = usize::from(packet.parsed.l3);
    let bytes = packet.parsed.l3_bytes(packet.frame);
    let Ok(ip) = ipv4::Packet::new_header(bytes) else { return false };
    let (header, word) = (ip.header_len(), ip.fragment_word());
    let payload = &bytes[header..];
    let room = mtu.min(FRAGMENT_MAX - l3).saturating_sub(header);
    if room < 8 {
        return false;
    }
    let mut scratch = [0; FRAGMENT_MAX];
    scratch[..l3 + header].copy_from_slice(&packet.frame[..l3 + header]);
    let mut sent = 0;
    while sent < payload.len() {
        let left = payload.len() - sent;
        let len = if left > room { room & !7 } else { left };
        let last = len == left;
        let piece = &mut scratch[..l3 + header + len];
        piece[l3 + header..].copy_from_slice(&payload[sent..sent + len]);
        let Ok(mut ip) = ipv4::Packet::new_header(&mut piece[l3..]) else { return false };
        let offset = (word & ipv4::OFFSET_MASK) + (sent / 8) as u16;
        let more = if last { word & ipv4::MF } else { ipv4::MF };
        ip.set_total_len((header + len) as u16);
        ip.set_fragment_word(offset | more);
        ip.fill_checksum();
        if !emit(piece) {
            return false;
        }
        if word & ipv4::OFFSET_MASK == 0 && sent == 0 {
            blank_uncopied_options(&mut scratch[l3 + ipv4::HEADER..l3 + header]);
        }
        sent += len;
    }
    true
}

/// Overwrites the options that only a first fragment carries with no-operations.
fn blank_uncopied_options(options: &mut [u8]) {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const COPIED: u8 = 0x80;
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        let length = match kind {
            END => return,
            NO_OPERATION => 1,
            _ => usize::from(options.get(at + 1).copied().unwrap_or(0)),
        };
        let Some(option) = options.get_mut(at..at + length).filter(|option| !option.is_empty())
        else {
            return;
        };
        if kind & COPIED == 0 {
            option.fill(NO_OPERATION);
        }
        at += length;
    }
}
