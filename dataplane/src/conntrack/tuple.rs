//! The tuple: what identifies one direction of a connection, how it is read
//! from a packet, and its keyed hash.

use super::hash::{HashKey, sip13};
use super::keymap::Keymap;
use crate::packet::{Family, L4Class, Parsed};
use crate::wire::plain::Plain;
use crate::wire::{be16, ipv6, proto};

/// Where an IPv6 header says what follows it.
const NEXT_HEADER: usize = 6;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// As the first packet went.
    Original,
    /// Back.
    Reply,
}

impl Direction {
    /// The other way.
    pub const fn opposite(self) -> Self {
        match self {
            Self::Original => Self::Reply,
            Self::Reply => Self::Original,
        }
    }
    /// 0 or 1.
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

/// One direction of a connection, before any hashing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address (IPv4 in the low 32 bits).
    pub src: u128,
    /// Destination address (IPv4 in the low 32 bits).
    pub dst: u128,
    /// Source port, or ICMP identifier.
    pub sport: u16,
    /// Destination port, or ICMP type << 8 | code.
    pub dport: u16,
    /// Layer 4 protocol.
    pub proto: u8,
    /// Network family.
    pub family: Family,
    /// Conntrack zone.
    pub zone: u16,
}

impl Tuple {
    /// The tuple of a packet, as tracking reads it. `None`: not trackable.
    pub fn of(parsed: &Parsed, frame: &[u8], zone: u16) -> Option<Self> {
        Self::read(parsed, parsed.l4_bytes(frame), zone, None)
    }

    /// The same of a packet with this layer 4, where GRE flows were announced in `keymap`.
    pub(super) fn read(
        parsed: &Parsed,
        l4: &[u8],
        zone: u16,
        keymap: Option<&Keymap>,
    ) -> Option<Self> {
        if parsed.l4_class == L4Class::LaterFragment {
            return None;
        }
        let addresses = (parsed.src, parsed.dst);
        let tuple = Self::from_l4(parsed.family, parsed.proto, addresses, l4, zone)?;
        Some(keymap.map_or(tuple, |keymap| tuple.with_sender(l4, keymap)))
    }

    /// The tuple of an IPv6 packet whose headers end in a routing header too short for
    /// rules, but not for tracking: no byte of what is behind it is there.
    pub(super) fn behind_cut_header(parsed: &Parsed, frame: &[u8], zone: u16) -> Option<Self> {
        let packet = frame.get(usize::from(parsed.l3)..).filter(|_| parsed.broken_chain())?;
        let (header, rest) = packet.split_at_checked(ipv6::HEADER)?;
        let payload = rest.get(..usize::from(parsed.l3_len) - ipv6::HEADER)?;
        let protocol = ipv6::tracked(header[NEXT_HEADER], payload)?;
        Self::from_l4(parsed.family, protocol, (parsed.src, parsed.dst), &[], zone)
    }

    /// The same with its sender's key, if it is of enhanced GRE and that is known.
    pub(super) fn with_sender(self, l4: &[u8], keymap: &Keymap) -> Self {
        let named = self.proto == proto::GRE && l4.len() >= 8 && is_enhanced(l4);
        if named { Self { sport: keymap.sender(&self), ..self } } else { self }
    }

    /// The tuple that `l4`, the start of a layer 4 header, completes. Four
    /// bytes of ports suffice, so that quoted packets can be read.
    pub(super) fn from_l4(
        family: Family,
        protocol: u8,
        (src, dst): (u128, u128),
        l4: &[u8],
        zone: u16,
    ) -> Option<Self> {
        let (sport, dport) = match protocol {
            proto::ICMP | proto::ICMPV6 => {
                let header = l4.first_chunk::<8>()?;
                (be16(header, 4), u16::from(header[0]) << 8 | u16::from(header[1]))
            }
            proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => {
                let ports = l4.first_chunk::<4>()?;
                (be16(ports, 0), be16(ports, 2))
            }
            proto::GRE => gre_keys(l4)?,
            // No upper layer, or a broken header chain.
            proto::NONE | proto::HOP_BY_HOP if family == Family::V6 => return None,
            _ => (0, 0),
        };
        Some(Self { src, dst, sport, dport, proto: protocol, family, zone })
    }

    /// The tuple of the answer. `None` for ICMP types that have no answer.
    pub fn inverted(&self) -> Option<Self> {
        let (sport, dport) = match self.proto {
            proto::ICMP => (self.sport, invert_icmp(self.dport, icmp_pair)?),
            proto::ICMPV6 => (self.sport, invert_icmp(self.dport, icmpv6_pair)?),
            _ => (self.dport, self.sport),
        };
        Some(Self { src: self.dst, dst: self.src, sport, dport, ..*self })
    }

    /// ICMP type, for ICMP tuples.
    pub(super) const fn icmp_type(&self) -> u8 {
        (self.dport >> 8) as u8
    }

    /// The keyed hash of what tells the tuple's source apart.
    pub(super) fn source_hash(&self, hash_key: &HashKey) -> u64 {
        let head = u64::from(self.sport) << 48
            | u64::from(self.zone) << 16
            | u64::from(self.proto) << 8
            | u64::from(self.family == Family::V6);
        sip13(&hash_key.drawn, [head, (self.src >> 64) as u64, self.src as u64])
    }

    /// Whether two tuples have the same source.
    pub(super) fn same_source(&self, other: &Self) -> bool {
        let source = |tuple: &Self| (tuple.src, tuple.sport, tuple.proto, tuple.family, tuple.zone);
        source(self) == source(other)
    }

    /// The tuple under the table's hash key, in its storage form.
    #[inline]
    pub(super) fn key(&self, hash_key: &HashKey) -> Key {
        Key::new(self.head(), self.src, self.dst, hash_key)
    }

    /// The same, when its hash is known.
    pub(super) fn hashed_key(&self, hash: u64) -> Key {
        let (head, src, dst) = (self.head(), self.src, self.dst);
        if Key::is_wide(head) {
            let wide = [src >> 64, src, dst >> 64, dst].map(|half| half as u64);
            return Key { head, pair: 0, wide, hash };
        }
        Key { head, pair: (src as u64) << 32 | dst as u64 & 0xffff_ffff, wide: [0; 4], hash }
    }

    /// [`Key::head`].
    fn head(&self) -> u64 {
        u64::from(self.sport) << 48
            | u64::from(self.dport) << 32
            | u64::from(self.zone) << 16
            | u64::from(self.proto) << 8
            | u64::from(self.family == Family::V6)
    }
}

/// A tuple in storage form, with its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// Ports, zone, protocol, family.
    pub(super) head: u64,
    /// Both IPv4 addresses; zero for IPv6.
    pub(super) pair: u64,
    /// Both IPv6 addresses; unused for IPv4.
    pub(super) wide: [u64; 4],
    /// Keyed hash of the rest.
    pub(super) hash: u64,
}

impl Key {
    /// Of a head and addresses.
    #[inline]
    fn new(head: u64, src: u128, dst: u128, hash_key: &HashKey) -> Self {
        if !Self::is_wide(head) {
            let pair = (src as u64) << 32 | dst as u64 & 0xffff_ffff;
            return NarrowKey::new(head, pair, hash_key).wide();
        }
        let [a, b, c, d] = [src >> 64, src, dst >> 64, dst].map(|half| half as u64);
        let hash = hash_key.wide(head, [a, b, c, d]);
        Self { head, pair: 0, wide: [a, b, c, d], hash }
    }

    /// The key of a packet's [`Tuple`], for what most packets are: TCP and UDP with a
    /// whole header.
    #[inline]
    pub(super) fn of_common(
        parsed: &Parsed,
        l4: &[u8],
        zone: u16,
        hash_key: &HashKey,
    ) -> Option<Self> {
        let common = matches!(parsed.proto, proto::TCP | proto::UDP);
        if !common || parsed.l4_class != L4Class::Whole {
            return None;
        }
        let ports = u32::from_be_bytes(*l4.first_chunk()?);
        let head = u64::from(ports) << 32
            | u64::from(zone) << 16
            | u64::from(parsed.proto) << 8
            | u64::from(parsed.family == Family::V6);
        Some(Self::new(head, parsed.src, parsed.dst, hash_key))
    }

    /// The key of the answer, in `zone`. `None` for ICMP types that have no answer.
    pub(super) fn answered(&self, zone: u16, hash_key: &HashKey) -> Option<Self> {
        if matches!(self.proto(), proto::ICMP | proto::ICMPV6) {
            let inverted = self.tuple().inverted()?;
            return Some(Tuple { zone, ..inverted }.key(hash_key));
        }
        let ports = ((self.head >> 32) as u32).rotate_left(16);
        let head = u64::from(ports) << 32 | u64::from(zone) << 16 | self.head & 0xffff;
        let (pair, [a, b, c, d]) = (self.pair.rotate_left(32), self.wide);
        let hash = match Self::is_wide(head) {
            true => hash_key.wide(head, [c, d, a, b]),
            false => hash_key.narrow(head, pair),
        };
        Some(Self { head, pair, wide: [c, d, a, b], hash })
    }

    /// Whether `wide` counts.
    pub(super) const fn is_wide(head: u64) -> bool {
        head & 1 != 0
    }

    /// The tuple's zone.
    pub(super) const fn zone(&self) -> u16 {
        (self.head >> 16) as u16
    }

    /// The tuple's protocol.
    pub(super) const fn proto(&self) -> u8 {
        (self.head >> 8) as u8
    }

    /// Whether packets of the tuple read its connection's protocol state.
    pub(super) const fn has_state(&self) -> bool {
        matches!(self.proto(), proto::TCP | proto::SCTP)
    }

    /// The tuple.
    pub(super) fn tuple(&self) -> Tuple {
        Self::unpack(self.head, self.pair, self.wide)
    }

    /// Back to the tuple.
    pub(super) fn unpack(head: u64, pair: u64, wide: [u64; 4]) -> Tuple {
        let (family, src, dst) = if Self::is_wide(head) {
            let join = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
            (Family::V6, join(wide[0], wide[1]), join(wide[2], wide[3]))
        } else {
            (Family::V4, u128::from(pair >> 32), u128::from(pair as u32))
        };
        Tuple {
            src,
            dst,
            sport: (head >> 48) as u16,
            dport: (head >> 32) as u16,
            proto: (head >> 8) as u8,
            family,
            zone: (head >> 16) as u16,
        }
    }
}

/// The [`Key`] of a tuple of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NarrowKey {
    pub(super) head: u64,
    pub(super) pair: u64,
    pub(super) hash: u64,
}

impl NarrowKey {
    #[inline]
    fn new(head: u64, pair: u64, hash_key: &HashKey) -> Self {
        Self { head, pair, hash: hash_key.narrow(head, pair) }
    }

    /// Of a plain packet, in zone 0.
    #[inline]
    pub(super) fn of(plain: &Plain, hash_key: &HashKey) -> Self {
        let head = u64::from(plain.ports) << 32 | u64::from(plain.proto) << 8;
        let pair = u64::from(plain.src) << 32 | u64::from(plain.dst);
        Self::new(head, pair, hash_key)
    }

    /// In the form of both families.
    pub(super) const fn wide(self) -> Key {
        Key { head: self.head, pair: self.pair, wide: [0; 4], hash: self.hash }
    }
}

/// Only enhanced (PPTP) GRE carries a key that tells flows apart; all other
/// versions are told apart by addresses alone.
fn gre_keys(l4: &[u8]) -> Option<(u16, u16)> {
    let Some(header) = l4.first_chunk::<4>() else { return Some((0, 0)) };
    if !is_enhanced(header) {
        return Some((0, 0));
    }
    let Some(header) = l4.first_chunk::<8>() else { return Some((0, 0)) };
    const PPP: u16 = 0x880b;
    (be16(header, 2) == PPP).then(|| (0, be16(header, 6)))
}

fn is_enhanced(gre: &[u8]) -> bool {
    gre[1] & 7 == 1
}

fn invert_icmp(type_and_code: u16, pair: fn(u8) -> Option<u8>) -> Option<u16> {
    let [kind, code] = type_and_code.to_be_bytes();
    Some(u16::from_be_bytes([pair(kind)?, code]))
}

/// ICMP types that come in pairs: echo, timestamp, information, address mask.
const fn icmp_pair(kind: u8) -> Option<u8> {
    Some(match kind {
        0 => 8,
        8 => 0,
        13 => 14,
        14 => 13,
        15 => 16,
        16 => 15,
        17 => 18,
        18 => 17,
        _ => return None,
    })
}

/// ICMPv6 types that come in pairs: echo, node information.
const fn icmpv6_pair(kind: u8) -> Option<u8> {
    Some(match kind {
        128 => 129,
        129 => 128,
        139 => 140,
        140 => 139,
        _ => return None,
    })
}
