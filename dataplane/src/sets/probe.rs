//! What a packet is as an element of a set.

use arrayvec::ArrayString;

use super::element::{Element, Iface};
use super::spec::{Part, SetType};
use crate::packet::{Family, Fragment, PortId};
use crate::policy::eval::PacketView;

/// ICMP, TCP, UDP, ICMPv6, SCTP, UDP-Lite.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const NO_NEXT: u8 = 59;
const SCTP: u8 = 132;
const UDPLITE: u8 = 136;

/// `src,dst,...`: which side of a packet each part of an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sides {
    count: u8,
    /// One bit a part: source.
    sources: u8,
}

impl Sides {
    /// Most sides that can be named.
    pub const MAX: usize = 6;

    /// One for each part, true for `src`; `None` for no side, or more than six.
    pub fn new(sides: &[bool]) -> Option<Self> {
        if sides.is_empty() || sides.len() > Self::MAX {
            return None;
        }
        let bits = sides.iter().enumerate().map(|(at, source)| u8::from(*source) << at);
        Some(Self { count: sides.len() as u8, sources: bits.sum() })
    }

    /// How many.
    pub fn len(self) -> usize {
        usize::from(self.count)
    }

    /// Never.
    pub fn is_empty(self) -> bool {
        self.count == 0
    }

    /// Whether the part at `at` is the source's.
    pub fn is_source(self, at: usize) -> bool {
        self.sources >> at & 1 != 0
    }
}

/// Names of interfaces, by port.
pub type PortNames = [ArrayString<15>];

/// The packet as an element; `None` if it has not all the parts.
#[inline]
pub(super) fn element(
    kind: SetType,
    sides: Sides,
    names: &PortNames,
    packet: &PacketView<'_>,
) -> Option<Element> {
    let parsed = &*packet.parsed;
    let mut element = Element::default();
    let mut second = false;
    for (at, part) in kind.parts().iter().enumerate() {
        let source = sides.is_source(at);
        match part {
            Part::Ip | Part::Net => {
                let ip = if source { parsed.src } else { parsed.dst };
                match second {
                    false => element.ip = ip,
                    true => element.ip2 = ip,
                }
                second = true;
            }
            Part::Port => {
                (element.proto, element.port) = port(packet, source)?;
                let plain = matches!(element.proto, TCP | UDP);
                if kind == SetType::BitmapPort && !plain {
                    return None;
                }
            }
            Part::Mac => element.mac = Some(mac(kind, packet, source)?),
            Part::Mark => element.mark = packet.mark,
            Part::Iface => {
                let port = if source { packet.input } else { packet.output }?;
                let name = match port {
                    PortId::LOOPBACK => ArrayString::from("lo").ok()?,
                    port => *names.get(port.index())?,
                };
                element.iface = Some(Iface { name, physdev: false, wildcard: false });
            }
        }
    }
    Some(element)
}

fn mac(kind: SetType, packet: &PacketView<'_>, source: bool) -> Option<[u8; 6]> {
    if !packet.has_link_header {
        return None;
    }
    let at = if source { 6 } else { 0 };
    let mac: [u8; 6] = packet.frame[at..at + 6].try_into().ok()?;
    (mac != [0; 6] || kind == SetType::BitmapIpMac).then_some(mac)
}

/// Protocol and port; `None` where the header that has it is not there.
fn port(packet: &PacketView<'_>, source: bool) -> Option<(u8, u16)> {
    let parsed = &*packet.parsed;
    let proto = parsed.proto;
    let v6 = parsed.family == Family::V6;
    if proto == 0 || (v6 && proto == NO_NEXT) {
        return None;
    }
    let needed = match proto {
        TCP => 20,
        SCTP => 12,
        UDP | UDPLITE | ICMP | ICMPV6 => 8,
        _ => 0,
    };
    if matches!(parsed.fragment, Fragment::Later { .. }) {
        let has_ports = needed != 0 && proto != ICMPV6;
        return (!v6 && !has_ports).then_some((proto, 0));
    }
    let l4 = parsed.l4_bytes(&packet.frame);
    if l4.len() < needed {
        return None;
    }
    let at = match proto {
        ICMP | ICMPV6 => 0,
        _ if source => 0,
        _ => 2,
    };
    let port = if needed == 0 { 0 } else { u16::from_be_bytes([l4[at], l4[at + 1]]) };
    Some((proto, port))
}
