//! Addresses, masks and interface names of the base selectors.

use std::net::Ipv6Addr;

use dataplane::packet::Family;
use dataplane::policy::matches::AddressMask;

use super::extension::Problem;
use super::value;
use crate::diagnostics::Code;
use crate::model::{Interface, Span};

/// Most addresses in one `-s` or `-d` list.
const MAX_LIST: usize = 1_000;
/// Longest interface name.
const MAX_INTERFACE: usize = 15;

/// All mask bits of a family in the common form.
pub(crate) fn full_mask(family: Family) -> u128 {
    match family {
        Family::V4 => u128::from(u32::MAX),
        Family::V6 => u128::MAX,
    }
}

/// Width of an address in bits.
pub(crate) fn width(family: Family) -> u32 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// The mask of a prefix length, at most the family's width.
pub(crate) fn prefix_mask(family: Family, len: u32) -> u128 {
    let width = width(family);
    if len == 0 { 0 } else { (full_mask(family) >> (width - len)) << (width - len) }
}

/// Four decimal bytes as everybody writes them; nothing is said of other text.
fn plain_v4(text: &str) -> Option<u32> {
    let (mut address, mut parts) = (0, 0);
    for part in text.as_bytes().split(|byte| *byte == b'.') {
        let digits = matches!(part, [b'0'] | [b'1'..=b'9', ..]) && part.len() <= 3;
        if !digits || !part.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let value = part.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
        if value > 255 {
            return None;
        }
        (address, parts) = (address << 8 | value, parts + 1);
        if parts > 4 {
            return None;
        }
    }
    (parts == 4).then_some(address)
}

/// `1.2.3.4`, with the tools' shorthand: missing bytes at the end are zero,
/// bytes may be hexadecimal or octal. Then what `inet_aton` takes.
pub(crate) fn parse_v4(text: &str) -> Option<u32> {
    if let Some(address) = plain_v4(text) {
        return Some(address);
    }
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 4 {
        return None;
    }
    let bytes: Option<Vec<u8>> = parts.iter().map(|part| value::number8(part)).collect();
    match bytes {
        Some(bytes) => {
            let mut address = [0; 4];
            address[..bytes.len()].copy_from_slice(&bytes);
            Some(u32::from_be_bytes(address))
        }
        None => parse_aton(text),
    }
}

/// What `inet_aton` takes: the last part fills all bytes that are left.
pub(crate) fn parse_aton(text: &str) -> Option<u32> {
    let parts: Vec<&str> = text.split('.').collect();
    if parts.len() > 4 {
        return None;
    }
    let (last, front) = parts.split_last()?;
    let left = 4 - front.len() as u32;
    let mut address = value::number(last, 0, (1 << (8 * left)) - 1)? as u32;
    for (index, part) in front.iter().enumerate() {
        address |= u32::from(value::number8(part)?) << (24 - 8 * index);
    }
    Some(address)
}

/// A numeric address of the family in the common form.
pub(crate) fn parse_address(text: &str, family: Family) -> Option<u128> {
    match family {
        Family::V4 => parse_v4(text).map(u128::from),
        Family::V6 => text.parse::<Ipv6Addr>().ok().map(u128::from),
    }
}

fn parse_mask(text: &str, family: Family) -> Option<u128> {
    let numeric = match family {
        Family::V4 if text.bytes().filter(|byte| *byte == b'.').count() == 3 => {
            parse_v4(text).map(u128::from)
        }
        Family::V4 => None,
        Family::V6 if text.contains(':') => text.parse::<Ipv6Addr>().ok().map(u128::from),
        Family::V6 => None,
    };
    numeric.or_else(|| {
        let len = value::number(text, 0, u64::from(width(family)))?;
        Some(prefix_mask(family, len as u32))
    })
}

/// `ADDRESS[/MASK]`: the mask may be a length or dotted, also non-contiguous.
/// Bits outside the mask are cleared.
pub(crate) fn parse_masked(text: &str, family: Family, span: Span) -> Result<AddressMask, Problem> {
    let (host, mask) = split_masked(text, family, span)?;
    if mask == 0 {
        // With a null mask the tools never look at the address.
        return Ok(AddressMask { address: 0, mask });
    }
    let address = parse_address(host, family).ok_or_else(|| bad_address(host, family, span))?;
    Ok(AddressMask { address: address & mask, mask })
}

/// The same with all bits kept, as `-m conntrack` keeps them.
pub(crate) fn parse_unmasked(
    text: &str,
    family: Family,
    span: Span,
) -> Result<AddressMask, Problem> {
    let (host, mask) = split_masked(text, family, span)?;
    let address = parse_address(host, family).ok_or_else(|| bad_address(host, family, span))?;
    Ok(AddressMask { address, mask })
}

fn split_masked(text: &str, family: Family, span: Span) -> Result<(&str, u128), Problem> {
    let (host, mask) = match text.rsplit_once('/') {
        None => (text, full_mask(family)),
        Some((host, mask)) => {
            (host, parse_mask(mask, family).ok_or_else(|| bad_mask(mask, family, span))?)
        }
    };
    Ok((host, mask))
}

fn bad_mask(mask: &str, family: Family, span: Span) -> Problem {
    let remedy = match family {
        Family::V4 => "write a length from 0 to 32 or a dotted mask",
        Family::V6 => "write a length from 0 to 128 or a mask in address form",
    };
    Problem::new(Code::BadValue, span, format!("`{mask}' is no mask")).remedy(remedy)
}

fn bad_address(host: &str, family: Family, span: Span) -> Problem {
    let other = match family {
        Family::V4 => host.parse::<Ipv6Addr>().is_ok(),
        Family::V6 => host.contains('.') && parse_v4(host).is_some(),
    };
    if other {
        let (this, that) = match family {
            Family::V4 => ("IPv4", "IPv6"),
            Family::V6 => ("IPv6", "IPv4"),
        };
        return Problem::new(
            Code::BadValue,
            span,
            format!("`{host}' is an {that} address in an {this} ruleset"),
        )
        .remedy(format!("move the rule to the {that} file"));
    }
    let name = !host.is_empty()
        && host.chars().any(|c| c.is_ascii_alphabetic())
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if name {
        return Problem::new(
            Code::HostName,
            span,
            format!("`{host}' is a host name; names are not resolved when rules load"),
        )
        .remedy("write the address that the name stands for");
    }
    Problem::new(Code::BadValue, span, format!("`{host}' is no address"))
}

/// The addresses of one option.
pub(crate) enum Addresses {
    /// As nearly always.
    One(AddressMask),
    /// Those of a list.
    Several(Vec<AddressMask>),
}

impl Addresses {
    pub(crate) fn first(&self) -> Option<AddressMask> {
        match self {
            Self::One(one) => Some(*one),
            Self::Several(list) => list.first().copied(),
        }
    }
    /// All of them, if there are several; else none.
    pub(crate) fn into_several(self) -> Vec<AddressMask> {
        match self {
            Self::One(_) => Vec::new(),
            Self::Several(list) => list,
        }
    }
}

/// A comma-separated list of `ADDRESS[/MASK]`; blanks after a comma are skipped.
pub(crate) fn parse_list(text: &str, family: Family, span: Span) -> Result<Addresses, Problem> {
    if !text.contains(',') {
        return parse_masked(text.trim_start(), family, span).map(Addresses::One);
    }
    if text.split(',').count() > MAX_LIST {
        return Err(Problem::new(
            Code::TooLong,
            span,
            format!("more than {MAX_LIST} addresses in one list"),
        ));
    }
    let parts = text.split(',').map(|part| parse_masked(part.trim_start(), family, span));
    parts.collect::<Result<_, _>>().map(Addresses::Several)
}

/// An interface name; a `+` at the end makes it a prefix.
pub(crate) fn parse_interface(text: &str, span: Span) -> Result<Interface, Problem> {
    if text.is_empty() {
        return Err(Problem::new(Code::BadValue, span, "the interface name is empty"));
    }
    if text.len() > MAX_INTERFACE {
        return Err(Problem::new(
            Code::BadValue,
            span,
            format!("interface name `{text}' is longer than {MAX_INTERFACE} characters"),
        ));
    }
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"') {
        // No such interface can exist, and iptables-save prints what it cannot read.
        let message = format!("no interface can be named `{text}'");
        return Err(Problem::new(Code::BadValue, span, message));
    }
    let (name, prefix) = match text.strip_suffix('+') {
        Some(name) => (name, true),
        None => (text, false),
    };
    Ok(Interface { name: name.to_string(), prefix })
}

/// An address as the tools print it. glibc and `std` differ for `::1.2.3.4`.
pub(crate) fn format_address(address: u128, family: Family) -> String {
    match family {
        Family::V4 => std::net::Ipv4Addr::from(address as u32).to_string(),
        Family::V6 if address >> 32 == 0 && address >> 16 != 0 => {
            format!("::{}", std::net::Ipv4Addr::from(address as u32))
        }
        Family::V6 => Ipv6Addr::from(address).to_string(),
    }
}

/// `/LEN` for a prefix mask, `/MASK` for another.
pub(crate) fn format_mask(mask: u128, family: Family) -> String {
    let len = mask.count_ones();
    if mask == prefix_mask(family, len) {
        format!("/{len}")
    } else {
        format!("/{}", format_address(mask, family))
    }
}
