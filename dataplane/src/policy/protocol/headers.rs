//! Matches on IPv6 extension headers, the mobility header and EUI-64 addresses.

use super::chain::{self, Missing};
use super::{allows, equals, first};
use crate::policy::eval::{Outcome, PacketView};
use crate::policy::matches::{AddressMask, Neg, Range};
use crate::wire::{be16, be32, be128, ipv6, proto};

/// Bytes of an address.
const ADDRESS: usize = 16;

/// A header of that type, or what the match says without one.
fn header(ip: &[u8], kind: u8) -> Result<&[u8], Outcome> {
    chain::find(ip, kind).map_err(|missing| match missing {
        Missing::Absent => Outcome::No,
        Missing::Broken => Outcome::Hotdrop,
    })
}

/// A header of that type whose length field stays within the packet, cut to it.
fn whole_header(ip: &[u8], kind: u8) -> Result<&[u8], Outcome> {
    let bytes = header(ip, kind)?;
    bytes.get(..(usize::from(bytes[1]) + 1) * 8).ok_or(Outcome::Hotdrop)
}

fn either(outcome: Result<Outcome, Outcome>) -> Outcome {
    outcome.unwrap_or_else(|early| early)
}

/// Whether the lower half of the source address is made of the source MAC address.
/// What loopback carries has one too, of zeros.
pub(super) fn eui64(packet: &PacketView<'_>) -> bool {
    let mac = match packet.has_link_header {
        true => [6, 7, 8, 9, 10, 11].map(|at| packet.frame[at]),
        false => [0; 6],
    };
    let [a, b, c, d, e, f] = mac;
    packet.parsed.src as u64 == u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// A set of header types.
pub type ExtensionSet = u8;

/// Bits of an [`ExtensionSet`].
pub mod extension {
    use super::ExtensionSet;

    /// Hop-by-hop options.
    pub const HOP_BY_HOP: ExtensionSet = 0x80;
    /// Destination options.
    pub const DESTINATION: ExtensionSet = 0x40;
    /// Routing.
    pub const ROUTING: ExtensionSet = 0x20;
    /// Fragment.
    pub const FRAGMENT: ExtensionSet = 0x10;
    /// Authentication.
    pub const AH: ExtensionSet = 0x08;
    /// Encapsulating security payload.
    pub const ESP: ExtensionSet = 0x04;
    /// No next header.
    pub const NONE: ExtensionSet = 0x02;
    /// Anything else.
    pub const PROTOCOL: ExtensionSet = 0x01;
}

/// `-m ipv6header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ipv6HeaderMatch {
    /// `--header`: the types.
    pub headers: Neg<ExtensionSet>,
    /// `--soft`: other types may be there as well; with `!` none of these is.
    pub soft: bool,
}

impl Ipv6HeaderMatch {
    pub(super) fn matches(&self, ip: &[u8]) -> bool {
        let Some(found) = headers_of(ip) else { return false };
        let Neg { negated, value } = self.headers;
        match (self.soft, negated) {
            (true, true) => found & value == 0,
            (true, false) => found & value == value,
            (false, _) => (found == value) != negated,
        }
    }
}

/// The types in the chain. Unlike a search it reads on behind a later fragment's
/// header, and does not mind the end of the packet behind a whole header.
fn headers_of(ip: &[u8]) -> Option<ExtensionSet> {
    let mut found = 0;
    let (mut next, mut at) = (ip[6], ipv6::HEADER);
    while at <= ip.len() {
        let [following, length] = match next {
            proto::NONE => return Some(found | extension::NONE),
            _ if next != proto::ESP && !ipv6::is_extension(next) => break,
            _ => ip.get(at..at + 2)?.try_into().ok()?,
        };
        let length = usize::from(length);
        let (bit, size) = match next {
            proto::ESP => return Some(found | extension::ESP),
            proto::HOP_BY_HOP => (extension::HOP_BY_HOP, (length + 1) * 8),
            proto::ROUTING => (extension::ROUTING, (length + 1) * 8),
            proto::DESTINATION => (extension::DESTINATION, (length + 1) * 8),
            proto::FRAGMENT => (extension::FRAGMENT, 8),
            _ => (extension::AH, (length + 2) * 4),
        };
        found |= bit;
        (next, at) = (following, at + size);
    }
    // Where the packet ends before the chain does, these two are not seen.
    let unseen = matches!(next, proto::NONE | proto::ESP);
    Some(if unseen { found } else { found | extension::PROTOCOL })
}

/// `-m rt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RtMatch {
    /// `--rt-type`; no header has one above 255.
    pub kind: Option<Neg<u32>>,
    /// `--rt-segsleft`.
    pub segments_left: Option<Neg<Range<u32>>>,
    /// `--rt-len`: bytes of the header.
    pub length: Option<Neg<u32>>,
    /// `--rt-0-res`: the reserved field is zero.
    pub reserved: bool,
    /// `--rt-0-addrs`; none: not asked.
    pub addresses: Box<[u128]>,
    /// `--rt-0-not-strict`: others may stand between them and behind them.
    pub not_strict: bool,
}

impl RtMatch {
    pub(super) fn evaluate(&self, ip: &[u8]) -> Outcome {
        either(whole_header(ip, proto::ROUTING).map(|header| self.matches(header).into()))
    }

    fn matches(&self, header: &[u8]) -> bool {
        allows(&self.segments_left, u32::from(header[3]))
            && equals(&self.length, header.len() as u32)
            && equals(&self.kind, u32::from(header[2]))
            && !(self.reserved && be32(header, 4) != 0)
            && (self.addresses.is_empty() || self.passes(&header[8..]))
    }

    /// Compares the listed addresses with those of the header.
    fn passes(&self, list: &[u8]) -> bool {
        let mut there = list.chunks_exact(ADDRESS).map(|address| be128(address, 0));
        match self.not_strict {
            true => self.addresses.iter().all(|wanted| there.any(|address| address == *wanted)),
            false => there.eq(self.addresses.iter().copied()),
        }
    }
}

/// `-m hbh` and `-m dst`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OptionsMatch {
    /// True for `dst`.
    pub destination: bool,
    /// `--hbh-len`: bytes of the header.
    pub length: Option<Neg<u32>>,
    /// `--hbh-opts`: the first options, type and length (any, if not given).
    pub options: Box<[(u8, Option<u8>)]>,
}

impl OptionsMatch {
    pub(super) fn evaluate(&self, ip: &[u8]) -> Outcome {
        let kind = if self.destination { proto::DESTINATION } else { proto::HOP_BY_HOP };
        either(whole_header(ip, kind).map(|header| {
            let listed = self.begins(&header[2..]).unwrap_or(false);
            (listed && equals(&self.length, header.len() as u32)).into()
        }))
    }

    /// Compares option by option. The last one listed may reach beyond the header.
    fn begins(&self, mut rest: &[u8]) -> Option<bool> {
        let last = self.options.len().saturating_sub(1);
        for (index, &(kind, length)) in self.options.iter().enumerate() {
            if *rest.first()? != kind {
                return Some(false);
            }
            let size = match kind {
                0 => 1,
                _ => usize::from(*rest.get(1)?) + 2,
            };
            if length.is_some_and(|wanted| usize::from(wanted) + 2 != size) {
                return Some(false);
            }
            rest = match rest.get(size..) {
                None if index < last => return Some(false),
                rest => rest.unwrap_or_default(),
            };
        }
        Some(true)
    }
}

/// `-m frag`. Where connections are tracked fragments are whole before any rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragMatch {
    /// `--fragid`.
    pub id: Option<Neg<Range<u32>>>,
    /// `--fraglen`. The kernel does not look at it.
    pub length: Option<Neg<u32>>,
    /// `--fragres`: both reserved fields are zero.
    pub reserved: bool,
    /// `--fragfirst`: the offset is zero.
    pub first: bool,
    /// `--fragmore` (true) or `--fraglast`.
    pub more: Option<bool>,
}

impl FragMatch {
    pub(super) fn evaluate(&self, ip: &[u8]) -> Outcome {
        either(header(ip, proto::FRAGMENT).and_then(|header| {
            let header = header.get(..8).ok_or(Outcome::Hotdrop)?;
            let word = be16(header, 2);
            let reserved = header[1] != 0 || word & 6 != 0;
            Ok((allows(&self.id, be32(header, 4))
                && !(self.reserved && reserved)
                && !(self.first && word & 0xfff8 != 0)
                && self.more.is_none_or(|more| (word & 1 != 0) == more))
            .into())
        }))
    }
}

/// `-m mh`.
pub(super) fn mobility(kinds: &Option<Neg<Range<u8>>>, packet: &PacketView<'_>) -> Outcome {
    match first(packet) {
        None => Outcome::No,
        Some(header) if header.len() < 6 || header[0] != proto::NONE => Outcome::Hotdrop,
        Some(header) => allows(kinds, header[2]).into(),
    }
}

/// What is asked of one byte of a segment routing header: any of the three, each
/// possibly negated (`true`), with one number for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SrhCompare {
    /// The number.
    pub value: u8,
    /// `-eq`.
    pub equal: Option<bool>,
    /// `-gt`.
    pub greater: Option<bool>,
    /// `-lt`.
    pub less: Option<bool>,
}

impl SrhCompare {
    fn matches(&self, x: u8) -> bool {
        self.equal.is_none_or(|negated| (x == self.value) != negated)
            && self.greater.is_none_or(|negated| (x > self.value) != negated)
            && self.less.is_none_or(|negated| (x < self.value) != negated)
    }
}

/// `-m srh`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SrhMatch {
    /// `--srh-next-hdr`.
    pub next_header: Option<Neg<u8>>,
    /// `--srh-hdr-len-*`: the header's length field, in units of eight bytes.
    pub length: SrhCompare,
    /// `--srh-segs-left-*`.
    pub segments_left: SrhCompare,
    /// `--srh-last-entry-*`.
    pub last_entry: SrhCompare,
    /// `--srh-tag`. The kernel compares it with the header's two bytes as the
    /// machine reads them, so on small-endian machines with the bytes swapped.
    pub tag: Option<Neg<u16>>,
    /// `--srh-psid`: the segment before the active one.
    pub previous: Option<Neg<AddressMask>>,
    /// `--srh-nsid`: the segment behind the active one.
    pub next: Option<Neg<AddressMask>>,
    /// `--srh-lsid`: the last segment.
    pub last: Option<Neg<AddressMask>>,
}

impl SrhMatch {
    const TYPE: u8 = 4;

    /// Whatever cannot be read does not match; nothing is dropped.
    pub(super) fn matches(&self, ip: &[u8]) -> bool {
        self.compare(ip).unwrap_or(false)
    }

    fn compare(&self, ip: &[u8]) -> Option<bool> {
        let header = chain::find(ip, proto::ROUTING).ok()?;
        let &[next, length, kind, left, last, _, high, low, ref list @ ..] = header else {
            return None;
        };
        let size = (usize::from(length) + 1) * 8;
        if header.len() < size || kind != Self::TYPE || left > last {
            return None;
        }
        // Segments are read wherever the packet reaches.
        let segment = |wanted: &Option<Neg<AddressMask>>, index: Option<u8>| match wanted {
            None => true,
            Some(wanted) => index.is_some_and(|index| {
                let at = usize::from(index) * ADDRESS;
                let address = list.get(at..at + ADDRESS);
                address.is_some_and(|found| wanted.apply(wanted.value.contains(be128(found, 0))))
            }),
        };
        Some(
            equals(&self.next_header, next)
                && self.length.matches(length)
                && self.segments_left.matches(left)
                && self.last_entry.matches(last)
                && equals(&self.tag, u16::from_ne_bytes([high, low]))
                && segment(&self.previous, left.checked_add(1).filter(|index| *index <= last))
                && segment(&self.next, left.checked_sub(1))
                && segment(&self.last, Some(0)),
        )
    }
}
