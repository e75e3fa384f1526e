//! IPv4 fragmentation on the way out.

use crate::packet::{Family, Parsed};
use crate::wire::{be16, checksum, ipv4, options, put16};

/// Cuts an IPv4 packet that may be fragmented into frames whose IP packets are
/// at most `mtu` bytes long, and hands each to `emit`: first byte first, every
/// one with the Ethernet header of `frame`. `scratch` needs room for one frame.
///
/// Returns the number of frames; zero when the packet is not IPv4, must not be
/// fragmented, `mtu` leaves no room for eight bytes of payload, or `scratch` is too short.
pub fn fragment(
    frame: &[u8],
    parsed: &Parsed,
    mtu: u32,
    scratch: &mut [u8],
    mut emit: impl FnMut(&[u8]),
) -> usize {
    let packet = parsed.l3_bytes(frame);
    let Ok(view) = ipv4::Packet::new_checked(packet) else { return 0 };
    let header = view.header_len();
    let room = (mtu as usize).saturating_sub(header);
    if parsed.family != Family::V4 || view.dont_fragment() || room < 8 {
        return 0;
    }
    let word = view.fragment_word();
    let link = &frame[..usize::from(parsed.l3)];
    let payload = &packet[header..];
    let (mut sent, mut count) = (0, 0);
    while sent < payload.len() || count == 0 {
        let rest = payload.len() - sent;
        let length = if rest > room { room & !7 } else { rest };
        let Some(out) = scratch.get_mut(..link.len() + header + length) else { return count };
        out[..link.len()].copy_from_slice(link);
        let ip = &mut out[link.len()..];
        ip[..header].copy_from_slice(&packet[..header]);
        // What was already cut keeps the options that it came with.
        if count > 0 && word & ipv4::OFFSET_MASK == 0 {
            options::blank_uncopied(&mut ip[ipv4::HEADER..header]);
        }
        ip[header..].copy_from_slice(&payload[sent..sent + length]);
        let last = sent + length == payload.len();
        let more = if last { word & ipv4::MF } else { ipv4::MF };
        let offset = (word & ipv4::OFFSET_MASK) + (sent / 8) as u16;
        put16(ip, 2, (header + length) as u16);
        put16(ip, 6, more | offset & ipv4::OFFSET_MASK);
        put16(ip, 10, 0);
        let sum = checksum::internet(&ip[..header]);
        put16(ip, 10, sum);
        emit(out);
        sent += length;
        count += 1;
    }
    debug_assert!(be16(packet, 6) & ipv4::DF == 0);
    count
}
