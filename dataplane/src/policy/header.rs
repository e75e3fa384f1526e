//! The targets that change a packet's header: TTL, HL, TOS, DSCP, ECN, TCPMSS,
//! TCPOPTSTRIP, CHECKSUM, SNPT, DNPT.
//!
//! Checksums are updated, never computed afresh: a packet that came in broken
//! leaves broken. `Parsed` is kept true.

pub mod prefix;
pub mod strip;
#[cfg(test)]
mod tests;

use super::eval::PacketView;
use super::target::{EcnTarget, HeaderTarget, HopChange, TcpMss};
use crate::fib::{LOOPBACK_MTU, Query, RouteKind};
use crate::packet::{Family, Fragment, Parsed};
use crate::reply::Message;
use crate::verdict::DropReason;
use crate::wire::tcp::{self, flags};
use crate::wire::{be16, checksum, ipv4, ipv6, proto, put16};

/// The two bits of the TOS byte that are not the DSCP.
const ECN_MASK: u8 = 3;
/// Bytes of the option that says the largest segment.
const MSS_OPTION: usize = 4;
/// Its kind.
const MSS_KIND: u8 = 2;
/// Longest TCP header in bytes.
const TCP_HEADER_MAX: usize = 60;
/// What a host assumes that is told no largest segment, in bytes.
const MSS_DEFAULT_V4: u16 = 536;
/// The same for IPv6.
const MSS_DEFAULT_V6: u16 = 1220;

/// Why a packet ends at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Silently.
    Drop(DropReason),
    /// Its sender is told.
    Tell(Message),
}

impl From<DropReason> for Failure {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

/// Carries the target out.
///
/// # Errors
/// [`DropReason::Hotdrop`] for a header that a target cannot read, as the kernel drops
/// it; a parameter problem for an address that has no translation.
pub fn change(target: HeaderTarget, packet: &mut PacketView<'_>) -> Result<(), Failure> {
    match target {
        HeaderTarget::Hops(change) => set_hops(packet, change.applied(packet.parsed.ttl)),
        HeaderTarget::Tos { clear, toggle } => {
            set_tos(packet, (packet.parsed.tos & !clear) ^ toggle);
        }
        HeaderTarget::Dscp(dscp) => set_tos(packet, packet.parsed.tos & ECN_MASK | dscp << 2),
        HeaderTarget::Ecn(ecn) => change_ecn(packet, ecn)?,
        HeaderTarget::TcpMss(mss) => change_mss(packet, mss)?,
        HeaderTarget::StripOptions(kinds) => strip::strip(packet, &kinds)?,
        // What is left to hardware in the kernel is whole here.
        HeaderTarget::FillChecksum => {}
        HeaderTarget::Prefix(prefix) => {
            if !prefix::translate(packet, &prefix) {
                let pointer = prefix::offset(prefix.source);
                return Err(Failure::Tell(Message::parameter_problem(pointer as u32)));
            }
        }
    }
    Ok(())
}

impl HopChange {
    /// TTL or hop limit afterwards.
    pub fn applied(self, hops: u8) -> u8 {
        match self {
            Self::Set(value) => value,
            Self::Increment(by) => hops.saturating_add(by),
            Self::Decrement(by) => hops.saturating_sub(by),
        }
    }
}

fn set_hops(packet: &mut PacketView<'_>, hops: u8) {
    if hops == packet.parsed.ttl {
        return;
    }
    packet.parsed.ttl = hops;
    let l3 = usize::from(packet.parsed.l3);
    match packet.parsed.family {
        Family::V4 => {
            if let Ok(mut ip) = ipv4::Packet::new_header(&mut packet.frame[l3..]) {
                ip.set_ttl(hops);
            }
        }
        Family::V6 => {
            if let Ok(mut ip) = ipv6::Packet::new_header(&mut packet.frame[l3..]) {
                ip.set_hop_limit(hops);
            }
        }
    }
}

fn set_tos(packet: &mut PacketView<'_>, tos: u8) {
    if tos == packet.parsed.tos {
        return;
    }
    packet.parsed.tos = tos;
    let l3 = usize::from(packet.parsed.l3);
    match packet.parsed.family {
        Family::V4 => {
            if let Ok(mut ip) = ipv4::Packet::new_header(&mut packet.frame[l3..]) {
                ip.set_tos(tos);
            }
        }
        Family::V6 => {
            if let Ok(mut ip) = ipv6::Packet::new_header(&mut packet.frame[l3..]) {
                ip.set_traffic_class(tos);
            }
        }
    }
}

/// The kernel takes what follows the IP header for a TCP header, in a later
/// fragment too.
fn change_ecn(packet: &mut PacketView<'_>, target: EcnTarget) -> Result<(), DropReason> {
    if let Some(ect) = target.ect {
        set_tos(packet, packet.parsed.tos & !ECN_MASK | ect & ECN_MASK);
    }
    if target.ece.is_none() && target.cwr.is_none() || packet.parsed.proto != proto::TCP {
        return Ok(());
    }
    let Parsed { l4, l4_len, .. } = *packet.parsed;
    if usize::from(l4_len) < tcp::HEADER {
        return Err(DropReason::Hotdrop);
    }
    let segment = &mut packet.frame[usize::from(l4)..];
    let (old, before) = (be16(segment, 12), segment[13]);
    for (wanted, flag) in [(target.ece, flags::ECE), (target.cwr, flags::CWR)] {
        match wanted {
            Some(true) => segment[13] |= flag,
            Some(false) => segment[13] &= !flag,
            None => {}
        }
    }
    if segment[13] == before {
        return Ok(());
    }
    let sum = checksum::update16(be16(segment, 16), old, be16(segment, 12));
    put16(segment, 16, sum);
    packet.frame.join(usize::from(l4) + tcp::HEADER);
    if !matches!(packet.parsed.fragment, Fragment::Later { .. }) {
        packet.parsed.tcp_flags = packet.frame[usize::from(l4) + 13];
    }
    Ok(())
}

/// Lowers the largest segment that a SYN tells, or tells one where it does not
/// and nothing follows its header.
fn change_mss(packet: &mut PacketView<'_>, target: TcpMss) -> Result<(), DropReason> {
    if matches!(packet.parsed.fragment, Fragment::Later { .. }) {
        return Ok(());
    }
    packet.frame.join_all();
    let at = usize::from(packet.parsed.l4);
    let segment = packet.parsed.l4_bytes(&packet.frame);
    let header = segment.get(12).map_or(0, |&byte| usize::from(byte >> 4) * 4);
    if header < tcp::HEADER || header > segment.len() {
        return Err(DropReason::Hotdrop);
    }
    let (found, data) = (find_mss(&segment[..header]), segment.len() > header);
    let mss = match target {
        TcpMss::Set(mss) => mss,
        TcpMss::ClampToPmtu => clamp(packet)?,
    };
    let Some(option) = found else {
        return if data || header >= TCP_HEADER_MAX { Ok(()) } else { add_mss(packet, mss) };
    };
    let segment = &mut packet.frame[at..];
    let old = be16(segment, option + 2);
    if old > mss {
        put16(segment, option + 2, mss);
        // As the kernel does it, also for an option at an odd offset, where it is wrong.
        let sum = checksum::update16(be16(segment, 16), old, mss);
        put16(segment, 16, sum);
    }
    Ok(())
}

/// Where the option begins in a TCP header, read as leniently as the kernel does:
/// a length of zero counts as one, other options' lengths are believed.
fn find_mss(header: &[u8]) -> Option<usize> {
    let mut at = tcp::HEADER;
    while at + MSS_OPTION <= header.len() {
        let (kind, length) = (header[at], header[at + 1]);
        if kind == MSS_KIND && usize::from(length) == MSS_OPTION {
            return Some(at);
        }
        at += if kind <= 1 { 1 } else { usize::from(length.max(1)) };
    }
    None
}

/// The largest segment that fits the packet's way in both directions.
fn clamp(packet: &PacketView<'_>) -> Result<u16, DropReason> {
    let Parsed { family, src, .. } = *packet.parsed;
    let (headers, longest) = match family {
        Family::V4 => (40, u32::from(u16::MAX)),
        Family::V6 => (60, u32::MAX),
    };
    let back = Query { family, src: 0, dst: src, iif: None, mark: 0 };
    let network = packet.network;
    let back = network.route(&back).and_then(|route| match route.kind {
        RouteKind::Unicast(port) => Some(network.mtu(&route, port)),
        RouteKind::Local => Some(LOOPBACK_MTU),
        _ => route.mtu,
    });
    let mtu = packet.way_mtu.min(back.unwrap_or(u32::MAX)).min(longest);
    match mtu.checked_sub(headers) {
        None | Some(0) => Err(DropReason::Hotdrop),
        Some(mss) => Ok(mss as u16),
    }
}

/// Puts the option in front of the others.
fn add_mss(packet: &mut PacketView<'_>, mss: u16) -> Result<(), DropReason> {
    let Parsed { l3, l3_len, l4, l4_len, family, .. } = *packet.parsed;
    let mss = mss.min(match family {
        Family::V4 => MSS_DEFAULT_V4,
        Family::V6 => MSS_DEFAULT_V6,
    });
    let [high, low] = mss.to_be_bytes();
    let option = [MSS_KIND, MSS_OPTION as u8, high, low];
    let grown = l3_len.checked_add(MSS_OPTION as u16).ok_or(DropReason::Hotdrop)?;
    if !packet.frame.replace(usize::from(l4) + tcp::HEADER, 0, &option) {
        return Err(DropReason::Hotdrop);
    }
    let new_len = l4_len + MSS_OPTION as u16;
    (packet.parsed.l3_len, packet.parsed.l4_len) = (grown, new_len);
    let segment = &mut packet.frame[usize::from(l4)..];
    let (offset, sum) = (be16(segment, 12), be16(segment, 16));
    segment[12] += 1 << 4;
    let sum = checksum::update16(sum, l4_len, new_len);
    let sum = checksum::update32(sum, 0, u32::from_be_bytes(option));
    let sum = checksum::update16(sum, offset, be16(segment, 12));
    put16(segment, 16, sum);
    let header = &mut packet.frame[usize::from(l3)..];
    match family {
        Family::V4 => {
            let sum = checksum::update16(be16(header, 10), l3_len, grown);
            put16(header, 2, grown);
            put16(header, 10, sum);
        }
        Family::V6 => put16(header, 4, be16(header, 4).wrapping_add(MSS_OPTION as u16)),
    }
    Ok(())
}
