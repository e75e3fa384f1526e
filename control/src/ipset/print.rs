//! Sets as `ipset save` and `ipset list` print them.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use dataplane::clock::Nanos;
use dataplane::packet::Family;
use dataplane::sets::{CreateSpec, Cursor, Element, Entry, Part, Set, SetName, SetType};

use super::icmp;
use crate::iptables::Names;

/// An address as the tool prints it.
fn address(address: u128, family: Family) -> String {
    match family {
        Family::V4 => Ipv4Addr::from(address as u32).to_string(),
        // glibc and `std` differ for `::1.2.3.4`.
        Family::V6 if address >> 32 == 0 && address >> 16 != 0 => {
            format!("::{}", Ipv4Addr::from(address as u32))
        }
        Family::V6 => Ipv6Addr::from(address).to_string(),
    }
}

fn network(ip: u128, cidr: Option<u8>, family: Family) -> String {
    let text = address(ip, family);
    match cidr.filter(|len| *len < super::value::width(family)) {
        Some(len) => format!("{text}/{len}"),
        None => text,
    }
}

/// An element without what it carries.
pub fn element(element: &Element, spec: &CreateSpec, names: &dyn Names) -> String {
    if let Some(set) = element.set {
        return quoted(set.as_str());
    }
    let mut text = String::new();
    let mut addresses = 0;
    for part in spec.kind.parts() {
        let (ip, cidr) = match addresses {
            0 => (element.ip, element.cidr),
            _ => (element.ip2, element.cidr2),
        };
        if *part == Part::Mac && element.mac.is_none() {
            continue;
        }
        if !text.is_empty() {
            text.push(',');
        }
        match part {
            Part::Ip => text += &address(ip, spec.family),
            Part::Net => text += &network(ip, cidr, spec.family),
            Part::Port => port(&mut text, element, spec.kind, names),
            Part::Mac => {
                let bytes = element.mac.unwrap_or_default().map(|byte| format!("{byte:02X}"));
                text += &bytes.join(":");
            }
            Part::Mark => text += &format!("0x{:08x}", element.mark),
            Part::Iface => {
                if let Some(iface) = &element.iface {
                    text += if iface.physdev { "physdev:" } else { "" };
                    text += &quoted(&iface.name);
                }
            }
        }
        addresses += usize::from(matches!(part, Part::Ip | Part::Net));
    }
    text
}

fn port(text: &mut String, element: &Element, kind: SetType, names: &dyn Names) {
    if kind == SetType::BitmapPort {
        *text += &element.port.to_string();
        return;
    }
    match names.protocol_name(element.proto) {
        Some(name) => *text += name,
        None => *text += &element.proto.to_string(),
    }
    text.push(':');
    match element.proto {
        1 | 58 => *text += &icmp::print(element.port, element.proto),
        _ => *text += &element.port.to_string(),
    }
}

/// An element with all that it carries.
pub fn entry(entry: &Entry, spec: &CreateSpec, names: &dyn Names) -> String {
    let mut text = element(&entry.element, spec, names);
    let extras = &entry.extras;
    // Writing to a string cannot fail.
    if let Some(seconds) = extras.timeout_s {
        let _ = write!(text, " timeout {seconds}");
    }
    if extras.nomatch {
        text += " nomatch";
    }
    if entry.element.iface.is_some_and(|iface| iface.wildcard) {
        text += " wildcard";
    }
    if spec.counters {
        let (packets, bytes) = (extras.packets.unwrap_or(0), extras.bytes.unwrap_or(0));
        let _ = write!(text, " packets {packets} bytes {bytes}");
    }
    if let Some(comment) = &extras.comment {
        let _ = write!(text, " comment \"{comment}\"");
    }
    let skb = extras.skb.unwrap_or_default();
    match skb.mark {
        None | Some((0, 0)) => {}
        Some((mark, u32::MAX)) => {
            let _ = write!(text, " skbmark 0x{mark:x}");
        }
        Some((mark, mask)) => {
            let _ = write!(text, " skbmark 0x{mark:x}/0x{mask:x}");
        }
    }
    if let Some(class) = skb.priority.filter(|class| *class != 0) {
        let _ = write!(text, " skbprio {:x}:{:x}", class >> 16, class & 0xffff);
    }
    if let Some(queue) = skb.queue.filter(|queue| *queue != 0) {
        let _ = write!(text, " skbqueue {queue}");
    }
    text
}

/// The options of a set, as they stand in its `create` line and after `Header:`.
pub fn options(spec: &CreateSpec) -> String {
    let kind = spec.kind;
    let mut words: Vec<String> = Vec::new();
    if kind.is_hash() && kind.has_addresses() {
        words.push(match spec.family {
            Family::V4 => "family inet".to_owned(),
            Family::V6 => "family inet6".to_owned(),
        });
    }
    if kind == SetType::HashIpMark {
        words.push(format!("markmask 0x{:08x}", spec.markmask));
    }
    if kind.is_hash() {
        words.push(format!("hashsize {} maxelem {}", spec.hashsize, spec.maxelem));
    }
    if let Some((from, to)) = spec.range {
        words.push(match kind {
            SetType::BitmapPort => format!("range {from}-{to}"),
            _ => format!("range {}-{}", Ipv4Addr::from(from), Ipv4Addr::from(to)),
        });
    }
    if kind == SetType::ListSet {
        words.push(format!("size {}", spec.size));
    }
    let mask = match (spec.netmask, spec.bitmask) {
        (Some(len), _) => Some(format!("netmask {len}")),
        (None, Some(mask)) => Some(format!("bitmask {}", address(mask, spec.family))),
        (None, None) => None,
    };
    let late = matches!(kind, SetType::HashIpPort | SetType::HashNetNet);
    if !late {
        words.extend(mask.clone());
    }
    words.extend(spec.timeout.map(|seconds| format!("timeout {seconds}")));
    let flags = [
        (spec.counters, "counters"),
        (spec.comment, "comment"),
        (spec.forceadd, "forceadd"),
        (spec.skbinfo, "skbinfo"),
    ];
    words.extend(flags.iter().filter(|(set, _)| *set).map(|(_, name)| (*name).to_owned()));
    if kind.is_hash() {
        words.push(format!("bucketsize {}", spec.bucketsize));
        words.extend(spec.initval.map(|value| format!("initval 0x{value:08x}")));
    }
    if late {
        words.extend(mask);
    }
    words.join(" ")
}

/// The `create` line.
pub fn create(name: &SetName, spec: &CreateSpec) -> String {
    format!("create {} {} {}", quoted(name.as_str()), spec.kind.name(), options(spec))
}

/// A name that is read back as one word.
pub(crate) fn quoted(name: &str) -> String {
    if name.contains([' ', '\t']) { format!("\"{name}\"") } else { name.to_owned() }
}

/// `Revision:` of each type, as of the kernels whose options are known here.
pub fn revision(kind: SetType) -> u8 {
    match kind {
        SetType::BitmapIp | SetType::BitmapIpMac | SetType::BitmapPort | SetType::ListSet => 3,
        SetType::HashMac | SetType::HashIpMac => 1,
        SetType::HashIpMark | SetType::HashNetPortNet => 3,
        SetType::HashNetNet => 4,
        SetType::HashIp => 6,
        SetType::HashNet | SetType::HashIpPort => 7,
        SetType::HashNetPort | SetType::HashIpPortNet | SetType::HashNetIface => 8,
        SetType::HashIpPortIp => 6,
    }
}

/// Entries printed at a time.
pub(crate) const PAGE: usize = 4096;

/// A whole set as `ipset save` prints it, piece by piece.
///
/// # Errors
/// Those of `write`.
pub fn save<E>(
    name: &SetName,
    set: &Set,
    names: &dyn Names,
    now: Nanos,
    mut write: impl FnMut(&str) -> Result<(), E>,
) -> Result<(), E> {
    let spec = set.spec();
    write(&(create(name, spec) + "\n"))?;
    let called = quoted(name.as_str());
    // Nothing that a wildcard stands for can be added after it.
    let mut late = Vec::new();
    let mut from = Some(Cursor::default());
    while let Some(at) = from {
        let (entries, next) = set.entries(at, PAGE, now);
        let mut text = String::new();
        for found in entries {
            match found.element.iface {
                Some(iface) if iface.wildcard => late.push((iface.name.len(), found)),
                _ => {
                    let _ = writeln!(text, "add {called} {}", entry(&found, spec, names));
                }
            }
        }
        write(&text)?;
        from = next;
    }
    late.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    late.iter()
        .try_for_each(|(_, found)| write(&format!("add {called} {}\n", entry(found, spec, names))))
}
