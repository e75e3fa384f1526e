//! What a packet is as an element, read by the oracle itself.

use dataplane::packet::Family;
use dataplane::sets::{CreateSpec, Element, Iface, Part, SetType, Sides};

use crate::interpret::Subject;
use crate::interpret::packet::Proto;

pub(super) fn width(family: Family) -> u32 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// The first `cidr` bits of an address.
pub(super) fn network(ip: u128, cidr: u8, family: Family) -> u128 {
    match width(family) - u32::from(cidr) {
        128 => 0,
        host => ip >> host << host,
    }
}

/// Whether the packet is the element, or lies in it.
pub(super) fn same(spec: &CreateSpec, there: &Element, asked: &Element) -> bool {
    let inside = |net: u128, cidr: Option<u8>, ip: u128| match cidr {
        Some(cidr) => network(ip, cidr, spec.family) == net,
        None => ip == net,
    };
    let port = (there.proto, there.port) == (asked.proto, asked.port);
    match spec.kind {
        SetType::BitmapPort => there.port == asked.port,
        SetType::BitmapIp => {
            let netmask = spec.netmask.unwrap_or(32);
            network(there.ip, netmask, Family::V4) == network(asked.ip, netmask, Family::V4)
        }
        SetType::BitmapIpMac => {
            there.ip == asked.ip && there.mac.is_none_or(|mac| Some(mac) == asked.mac)
        }
        SetType::HashNetIface => {
            let iface = there.iface.zip(asked.iface).is_some_and(|(there, asked)| {
                let named = match there.wildcard {
                    true => asked.name.starts_with(there.name.as_str()),
                    false => there.name == asked.name,
                };
                named && there.physdev == asked.physdev
            });
            iface && inside(there.ip, there.cidr, asked.ip)
        }
        SetType::ListSet => false,
        _ => {
            inside(there.ip, there.cidr, asked.ip)
                && inside(there.ip2, there.cidr2, asked.ip2)
                && port
                && there.mac == asked.mac
                && there.mark == asked.mark
        }
    }
}

/// The packet's parts, as the set's type names them.
pub(super) fn asked(spec: &CreateSpec, sides: Sides, subject: &Subject<'_>) -> Option<Element> {
    let packet = &subject.packet;
    let mut found = Element::default();
    let mut addresses = Vec::new();
    for (at, part) in spec.kind.parts().iter().enumerate() {
        let source = sides.is_source(at);
        match part {
            Part::Ip | Part::Net => {
                let ip = if source { packet.src } else { packet.dst };
                let kept = match (spec.netmask, spec.bitmask) {
                    _ if spec.kind == SetType::BitmapIp => ip,
                    (Some(netmask), _) => network(ip, netmask, spec.family),
                    (None, Some(mask)) => ip & mask,
                    (None, None) => ip,
                };
                addresses.push(kept);
            }
            Part::Port => (found.proto, found.port) = proto_and_port(spec.kind, source, subject)?,
            Part::Mac => {
                if !subject.has_link_header {
                    return None;
                }
                let mac = if source { packet.source_mac } else { packet.destination_mac };
                if mac == [0; 6] && spec.kind != SetType::BitmapIpMac {
                    return None;
                }
                found.mac = Some(mac);
            }
            Part::Mark => found.mark = subject.mark & spec.markmask,
            Part::Iface => {
                let name = if source { subject.input } else { subject.output };
                if name.is_empty() {
                    return None;
                }
                let name = arrayvec::ArrayString::from(name).ok()?;
                found.iface = Some(Iface { name, physdev: false, wildcard: false });
            }
        }
    }
    if spec.kind == SetType::BitmapPort {
        // Both protocols' ports are one element.
        found.proto = 0;
    }
    let mut addresses = addresses.into_iter();
    found.ip = addresses.next().unwrap_or_default();
    found.ip2 = addresses.next().unwrap_or_default();
    let first = spec.range.map_or(0, |(low, high)| low.min(high));
    let last = spec.range.map_or(u32::MAX, |(low, high)| low.max(high));
    let (first, last) = match spec.netmask {
        Some(netmask) if spec.kind == SetType::BitmapIp => {
            let size = 1u64 << (32 - netmask);
            let low = u64::from(first) / size * size;
            (low as u32, (u64::from(last) / size * size + size - 1) as u32)
        }
        _ => (first, last),
    };
    let value = if spec.kind == SetType::BitmapPort { found.port.into() } else { found.ip };
    let inside = (u128::from(first)..=u128::from(last)).contains(&value);
    (spec.kind.is_hash() || inside).then_some(found)
}

fn proto_and_port(kind: SetType, source: bool, subject: &Subject<'_>) -> Option<(u8, u16)> {
    let packet = &subject.packet;
    let Proto::Known(proto) = packet.proto else { return None };
    let v4 = packet.family == Family::V4;
    if (v4 && proto == 0) || (!v4 && proto == 59) {
        return None;
    }
    if kind == SetType::BitmapPort && proto != 6 && proto != 17 {
        return None;
    }
    if packet.fragment_offset > 0 {
        let known = [1, 6, 17, 132, 136].contains(&proto);
        return (v4 && !known).then_some((proto, 0));
    }
    let header = match proto {
        6 => 20,
        132 => 12,
        1 | 17 | 58 | 136 => 8,
        _ => return Some((proto, 0)),
    };
    if packet.layer4.len() < header {
        return None;
    }
    let (sport, dport) = packet.ports()?;
    // An ICMP type and code stand where a source port would.
    let first = source || proto == 1 || proto == 58;
    Some((proto, if first { sport } else { dport }))
}
