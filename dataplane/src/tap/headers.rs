//! Addresses and ports of a frame, as far as they can be read: for filters and for showing
//! what was rewritten. It looks at frames that nothing has checked.

use crate::packet::Family;
use crate::wire::{ethertype, proto};

/// Ethernet without its type.
const ADDRESSES: usize = 12;
/// Tags that are looked behind.
const TAGS: usize = 2;
/// IPv6 extension headers that are looked behind.
const EXTENSIONS: usize = 8;

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// The EtherType, behind tags.
    pub kind: u16,
    /// The outer tag's VLAN.
    pub vlan: Option<u16>,
    /// The IP header, if there is one.
    pub ip: Option<Ip>,
}

/// What an IP header, and what follows it, says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Family.
    pub family: Family,
    /// Source (IPv4 in the low 32 bits).
    pub src: u128,
    /// Destination.
    pub dst: u128,
    /// Protocol, behind extension headers.
    pub proto: u8,
    /// Hops left.
    pub ttl: u8,
    /// TOS byte or traffic class.
    pub tos: u8,
    /// A fragment that does not begin its datagram.
    pub later: bool,
    /// Source and destination port, of protocols that have such.
    pub ports: Option<(u16, u16)>,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
    /// TCP flags.
    pub flags: Option<u8>,
}

impl Headers {
    /// Reads what is there.
    pub fn read(frame: &[u8]) -> Self {
        let mut headers = Self::default();
        let mut at = ADDRESSES;
        for _ in 0..=TAGS {
            let Some(kind) = word(frame, at) else { return headers };
            headers.kind = kind;
            at += 2;
            if kind != ethertype::VLAN && kind != ethertype::QINQ {
                break;
            }
            if headers.vlan.is_none() {
                headers.vlan = word(frame, at).map(|tag| tag & 0xfff);
            }
            at += 2;
        }
        let packet = frame.get(at..).unwrap_or_default();
        headers.ip = match headers.kind {
            ethertype::IPV4 => ipv4(packet),
            ethertype::IPV6 => ipv6(packet),
            _ => None,
        };
        headers
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn ipv4(packet: &[u8]) -> Option<Ip> {
    let header = packet.first_chunk::<20>()?;
    if header[0] >> 4 != 4 {
        return None;
    }
    let address = |at: usize| {
        let bytes = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u128::from(u32::from_be_bytes(bytes))
    };
    let ip = Ip {
        family: Family::V4,
        src: address(12),
        dst: address(16),
        proto: header[9],
        ttl: header[8],
        tos: header[1],
        later: u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0,
        ports: None,
        icmp: None,
        flags: None,
    };
    Some(behind(ip, packet.get(usize::from(header[0] & 15) * 4..).unwrap_or_default()))
}

fn ipv6(packet: &[u8]) -> Option<Ip> {
    let header = packet.first_chunk::<40>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let address = |at: usize| header[at..].first_chunk::<16>().map(|it| u128::from_be_bytes(*it));
    let mut ip = Ip {
        family: Family::V6,
        src: address(8)?,
        dst: address(24)?,
        proto: header[6],
        ttl: header[7],
        tos: header[0] << 4 | header[1] >> 4,
        later: false,
        ports: None,
        icmp: None,
        flags: None,
    };
    let mut rest = &packet[40..];
    for _ in 0..EXTENSIONS {
        let length = match ip.proto {
            proto::HOP_BY_HOP | proto::ROUTING | proto::DESTINATION => {
                (usize::from(*rest.get(1).unwrap_or(&0)) + 1) * 8
            }
            proto::AH => (usize::from(*rest.get(1).unwrap_or(&0)) + 2) * 4,
            proto::FRAGMENT => {
                ip.later |= word(rest, 2).is_some_and(|offset| offset & 0xfff8 != 0);
                8
            }
            _ => break,
        };
        let Some(&next) = rest.first() else { return Some(ip) };
        ip.proto = next;
        rest = rest.get(length..).unwrap_or_default();
        if ip.later {
            break;
        }
    }
    Some(behind(ip, rest))
}

/// With what layer 4 says.
fn behind(mut ip: Ip, layer4: &[u8]) -> Ip {
    if ip.later {
        return ip;
    }
    let pair = || Some((word(layer4, 0)?, word(layer4, 2)?));
    match ip.proto {
        proto::TCP => {
            ip.ports = pair();
            ip.flags = layer4.get(13).copied();
        }
        proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP => ip.ports = pair(),
        proto::ICMP | proto::ICMPV6 => {
            ip.icmp = layer4.first().zip(layer4.get(1)).map(|(kind, code)| (*kind, *code));
        }
        _ => {}
    }
    ip
}
