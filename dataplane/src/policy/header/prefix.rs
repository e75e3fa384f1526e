//! SNPT and DNPT: stateless translation of IPv6 prefixes that leaves every checksum as
//! it was (RFC 6296, as Linux does it).

use super::super::eval::PacketView;
use crate::wire::{ipv6, proto};

/// ICMPv6 types that the kernel counts as errors here.
const ERRORS: std::ops::RangeInclusive<u8> = 1..=4;
/// Bytes of an ICMPv6 header.
const ICMP_HEADER: usize = 8;
/// Longest prefix that can be translated.
pub const PREFIX_MAX: u8 = 64;
/// Minus zero, which no translated word may have.
const MANGLED_ZERO: u16 = 0xffff;

/// `-j SNPT`, `-j DNPT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PrefixTarget {
    /// SNPT: the source address; else the destination.
    pub source: bool,
    /// `--src-pfx`: bits and length, at most [`PREFIX_MAX`].
    pub from: (u128, u8),
    /// `--dst-pfx`.
    pub to: (u128, u8),
}

impl PrefixTarget {
    /// The name that `-j` takes.
    pub const fn name(&self) -> &'static str {
        if self.source { "SNPT" } else { "DNPT" }
    }

    /// The address with the other prefix; `None` where no word is free to make up for the
    /// difference. Whether it begins with `from` is not looked at.
    pub fn translated(&self, address: u128) -> Option<u128> {
        let length = self.from.1.max(self.to.1);
        let mask = u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
        let moved = address & mask | self.to.0 & !mask;
        let word = match length {
            0..=48 => 3,
            _ => (4..8).find(|&index| word(moved, index) != MANGLED_ZERO)?,
        };
        let sum = add(self::word(moved, word), self.adjustment());
        let sum = if sum == MANGLED_ZERO { 0 } else { sum };
        let shift = 112 - 16 * word;
        Some(moved & !(0xffff << shift) | u128::from(sum) << shift)
    }

    /// What the translation takes from the sum of all words.
    fn adjustment(&self) -> u16 {
        add(sum(self.from.0), !sum(self.to.0))
    }
}

fn word(address: u128, index: u32) -> u16 {
    (address >> (112 - 16 * index)) as u16
}

fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

fn sum(address: u128) -> u16 {
    (0..8).map(|index| word(address, index)).fold(0, add)
}

/// Translates the address, and in an ICMPv6 error the other address of the packet that it
/// quotes. False: it cannot be, and the sender is to be told.
pub(super) fn translate(packet: &mut PacketView<'_>, target: &PrefixTarget) -> bool {
    let parsed = &mut *packet.parsed;
    let side = if target.source { &mut parsed.src } else { &mut parsed.dst };
    let Some(address) = target.translated(*side) else { return false };
    *side = address;
    let l3 = usize::from(parsed.l3);
    let end = l3 + usize::from(parsed.l3_len);
    let packet = &mut packet.frame[l3..end];
    let own = offset(target.source);
    packet[own..own + 16].copy_from_slice(&address.to_be_bytes());
    // Only a message right behind the header is seen, and only if it quotes a whole header.
    let quoted = ipv6::HEADER + ICMP_HEADER;
    let tells_error = packet.len() >= quoted + ipv6::HEADER
        && packet[6] == proto::ICMPV6
        && ERRORS.contains(&packet[ipv6::HEADER]);
    if !tells_error {
        return true;
    }
    let other = quoted + offset(!target.source);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&packet[other..other + 16]);
    let address = u128::from_be_bytes(bytes);
    let mask = !u128::MAX.checked_shr(u32::from(target.from.1)).unwrap_or(0);
    if address & mask == target.from.0
        && let Some(address) = target.translated(address)
    {
        packet[other..other + 16].copy_from_slice(&address.to_be_bytes());
    }
    true
}

/// Where in an IPv6 header its source, or else its destination, stands.
pub(super) const fn offset(source: bool) -> usize {
    if source { 8 } else { 24 }
}
