//! Numbers, addresses and ports as ipset reads them.

use std::net::Ipv6Addr;

use dataplane::packet::Family;

use crate::iptables::Names;

/// A number in C notation (decimal, 0x hex, 0 octal), not above `max`.
pub(super) fn number(text: &str, max: u64) -> Option<u64> {
    let digits = text.trim_start_matches([' ', '\t']);
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        None => (digits, 10),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| char::from(byte).is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok().filter(|value| *value <= max)
}

/// The longest prefix of a family.
pub(super) const fn width(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// What an address without its usual four decimal numbers was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spelling {
    /// As one would write it.
    Usual,
    /// `10.1`, `010.0.0.1`: what `inet_aton` makes of it.
    Short,
}

/// A numeric address in the common form; brackets around it are allowed.
pub(super) fn address(text: &str, family: Family) -> Option<(u128, Spelling)> {
    let text = bare(text);
    match family {
        Family::V4 => match text.parse::<std::net::Ipv4Addr>() {
            Ok(address) => Some((u128::from(u32::from(address)), Spelling::Usual)),
            Err(_) => aton(text).map(|address| (u128::from(address), Spelling::Short)),
        },
        Family::V6 => text.parse::<Ipv6Addr>().ok().map(|it| (u128::from(it), Spelling::Usual)),
    }
}

/// Without brackets around it.
pub(super) fn bare(text: &str) -> &str {
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text)
}

/// Whether it is an address of that family at all.
pub(super) fn is_address(text: &str, family: Family) -> bool {
    address(text, family).is_some()
}

/// Decimal and octal parts, the last of which fills what is left.
fn aton(text: &str) -> Option<u32> {
    let mut parts = [0u64; 4];
    let mut count = 0;
    for part in text.split('.') {
        let hex = part.starts_with("0x") || part.starts_with("0X");
        let plain = part.bytes().all(|byte| byte.is_ascii_digit());
        if count == 4 || hex || !plain {
            return None;
        }
        parts[count] = number(part, u64::from(u32::MAX))?;
        count += 1;
    }
    let (last, front) = parts[..count].split_last()?;
    let left = 4 - front.len() as u32;
    if *last >= 1 << (8 * left) || front.iter().any(|part| *part > 0xff) {
        return None;
    }
    let high = front.iter().enumerate().map(|(index, part)| part << (24 - 8 * index));
    Some((high.sum::<u64>() | last) as u32)
}

/// An address under its prefix.
pub(super) fn masked(address: u128, len: u8, family: Family) -> u128 {
    let host = u32::from(width(family) - len);
    if host >= 128 { 0 } else { address >> host << host }
}

/// The name that stands for a protocol when a port's service is looked up.
fn service_protocol(proto: u8) -> &'static str {
    match proto {
        17 => "udp",
        132 => "sctp",
        136 => "udplite",
        _ => "tcp",
    }
}

/// A port by number, or by the name of a service of the protocol, which may stand in
/// brackets.
pub(super) fn port(text: &str, proto: u8, names: &dyn Names) -> Option<u16> {
    if let Some(port) = number(text, 0xffff) {
        return Some(port as u16);
    }
    let name = bare(text);
    let bracketed = name.len() != text.len();
    if bracketed && number(name, u64::MAX).is_some() {
        return None;
    }
    names.service_port(name, Some(service_protocol(proto)))
}

/// A protocol by number or name.
pub(super) fn protocol(text: &str, names: &dyn Names) -> Option<u8> {
    match number(text, 255) {
        Some(number) => Some(number as u8),
        None if text.eq_ignore_ascii_case("icmpv6") => Some(58),
        None => names.protocol_number(text),
    }
}
