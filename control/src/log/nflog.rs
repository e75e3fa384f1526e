//! Captured packets (NFLOG): what listeners of the kernel's groups are told of a packet,
//! and pcap files of them.
//!
//! The default form is what `tcpdump -i nflog:GROUP -w` writes: the attributes of the
//! kernel's message, which carry prefix, hook, ports, mark and owner besides the packet.

use dataplane::clock::Nanos;
use dataplane::effects::{LogRecord, Report};
use dataplane::packet::{Family, PortId};
use dataplane::policy::Hook;
use dataplane::wire::{ethernet, ethertype};

/// What a record of a capture begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// The kernel's attributes, then the packet.
    #[default]
    Nflog,
    /// An Ethernet header, zeros where the packet has none.
    Ethernet,
    /// The IP header.
    Raw,
}

impl Link {
    /// pcap's number for it.
    pub const fn number(self) -> u32 {
        match self {
            Self::Nflog => 239,
            Self::Ethernet => 1,
            Self::Raw => 101,
        }
    }
}

/// Attributes of the kernel's message, by its numbers.
mod attribute {
    pub(super) const HEADER: u16 = 1;
    pub(super) const MARK: u16 = 2;
    pub(super) const TIMESTAMP: u16 = 3;
    pub(super) const INPUT: u16 = 4;
    pub(super) const OUTPUT: u16 = 5;
    pub(super) const ADDRESS: u16 = 8;
    pub(super) const PAYLOAD: u16 = 9;
    pub(super) const PREFIX: u16 = 10;
    pub(super) const UID: u16 = 11;
    pub(super) const GID: u16 = 14;
    pub(super) const LINK_TYPE: u16 = 15;
    pub(super) const LINK_HEADER: u16 = 16;
    pub(super) const LINK_LENGTH: u16 = 17;
}

/// Address families and the type of Ethernet devices, by Linux' numbers.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const ARPHRD_ETHER: u16 = 1;
const ARPHRD_LOOPBACK: u16 = 772;

/// Microseconds; the byte order that attributes are in is this machine's, as the file's.
const MAGIC: u32 = 0xa1b2_c3d4;
/// Longest record that readers take.
const SNAPLEN: u32 = 65_535;

/// The head of a pcap file.
pub fn file_header(link: Link) -> [u8; 24] {
    let mut header = [0; 24];
    header[..4].copy_from_slice(&MAGIC.to_ne_bytes());
    header[4..6].copy_from_slice(&2_u16.to_ne_bytes());
    header[6..8].copy_from_slice(&4_u16.to_ne_bytes());
    header[16..20].copy_from_slice(&SNAPLEN.to_ne_bytes());
    header[20..].copy_from_slice(&link.number().to_ne_bytes());
    header
}

/// The group that an NFLOG record goes to.
pub fn group(record: &LogRecord<'_>) -> Option<u16> {
    match record.report {
        Report::Nflog(nflog) => Some(nflog.group),
        _ => None,
    }
}

/// Appends one record of a pcap file, seen at `wall` since 1970. `index` gives interface
/// indices.
pub fn write(
    out: &mut Vec<u8>,
    record: &LogRecord<'_>,
    link: Link,
    wall: Nanos,
    index: impl Fn(PortId) -> u32,
) {
    let (seconds, micros) = (wall.0 / 1_000_000_000, wall.0 / 1000 % 1_000_000);
    out.extend((seconds as u32).to_ne_bytes());
    out.extend((micros as u32).to_ne_bytes());
    let lengths = out.len();
    out.extend([0; 8]);
    let body = out.len();
    let packet = packet(record);
    match link {
        Link::Nflog => message(out, record, wall, index),
        Link::Ethernet => {
            out.extend(link_header(record));
            out.extend(packet);
        }
        Link::Raw => out.extend(packet),
    }
    let kept = (out.len() - body) as u32;
    let missing = u32::from(record.parsed.l3_len).saturating_sub(packet.len() as u32);
    out[lengths..lengths + 4].copy_from_slice(&kept.to_ne_bytes());
    out[lengths + 4..body].copy_from_slice(&(kept + missing).to_ne_bytes());
}

/// The kernel's message about a packet, without its netlink header: family, version,
/// group, attributes.
pub fn message(
    out: &mut Vec<u8>,
    record: &LogRecord<'_>,
    wall: Nanos,
    index: impl Fn(PortId) -> u32,
) {
    use attribute as at;
    let (family, kind) = match record.parsed.family {
        Family::V4 => (AF_INET, ethertype::IPV4),
        Family::V6 => (AF_INET6, ethertype::IPV6),
    };
    out.extend([family, 0]);
    out.extend(group(record).unwrap_or(0).to_be_bytes());
    let [high, low] = kind.to_be_bytes();
    put(out, at::HEADER, &[high, low, record.hook as u8, 0]);
    let mut prefix = record.prefix().to_string().into_bytes();
    prefix.push(0);
    put(out, at::PREFIX, &prefix);
    for (kind, port) in [(at::INPUT, record.input), (at::OUTPUT, record.output)] {
        if let Some(port) = port {
            put(out, kind, &index(port).to_be_bytes());
        }
    }
    if record.mark != 0 {
        put(out, at::MARK, &record.mark.to_be_bytes());
    }
    if let Some(port) = record.input {
        let header = link_header(record);
        let mut address = [0; 12];
        address[1] = 6;
        address[4..10].copy_from_slice(&header[6..12]);
        put(out, at::ADDRESS, &address);
        let device = if port == PortId::LOOPBACK { ARPHRD_LOOPBACK } else { ARPHRD_ETHER };
        put(out, at::LINK_TYPE, &device.to_be_bytes());
        put(out, at::LINK_LENGTH, &(ethernet::HEADER as u16).to_be_bytes());
        put(out, at::LINK_HEADER, &header);
    }
    if record.hook <= Hook::Forward {
        let mut stamp = [0; 16];
        stamp[..8].copy_from_slice(&(wall.0 / 1_000_000_000).to_be_bytes());
        stamp[8..].copy_from_slice(&(wall.0 / 1000 % 1_000_000).to_be_bytes());
        put(out, at::TIMESTAMP, &stamp);
    }
    if let Some(owner) = record.owner {
        put(out, at::UID, &owner.uid.to_be_bytes());
        if let Some(gid) = owner.gid {
            put(out, at::GID, &gid.to_be_bytes());
        }
    }
    let packet = packet(record);
    if !packet.is_empty() {
        put(out, at::PAYLOAD, packet);
    }
}

fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend((value.len() as u16 + 4).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len() + value.len().next_multiple_of(4) - value.len(), 0);
}

/// What is kept of the packet, and asked for.
fn packet<'a>(record: &LogRecord<'a>) -> &'a [u8] {
    let start = record.frame.len().min(record.parsed.l3.into());
    let packet = &record.frame[start..];
    let asked = match record.report {
        Report::Nflog(nflog) => nflog.size.map_or(usize::MAX, |size| size as usize),
        _ => usize::MAX,
    };
    &packet[..packet.len().min(record.parsed.l3_len.into()).min(asked)]
}

/// The Ethernet header, or what loopback has in its place.
fn link_header(record: &LogRecord<'_>) -> [u8; ethernet::HEADER] {
    let real = record.frame.first_chunk().filter(|_| record.has_link_header);
    real.copied().unwrap_or_else(|| {
        let kind = match record.parsed.family {
            Family::V4 => ethertype::IPV4,
            Family::V6 => ethertype::IPV6,
        };
        let mut header = [0; ethernet::HEADER];
        header[12..].copy_from_slice(&kind.to_be_bytes());
        header
    })
}
