//! Numbers, ports and masks as the kernel's tools read them.

use dataplane::policy::matches::Range;

use super::names::Names;

/// A number in C notation (decimal, 0x hex, 0 octal; blanks and `+` in front
/// allowed, `-` not), between `min` and `max`.
pub(crate) fn number(text: &str, min: u64, max: u64) -> Option<u64> {
    // As nearly all are written: decimal, and far from any overflow.
    if let [b'1'..=b'9', rest @ ..] = text.as_bytes()
        && rest.len() < 18
        && rest.iter().all(u8::is_ascii_digit)
    {
        let value = text.bytes().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'));
        return (min..=max).contains(&value).then_some(value);
    }
    let digits = text.trim_start_matches([' ', '\t']);
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None if digits.len() > 1 && digits.starts_with('0') => (&digits[1..], 8),
        None => (digits, 10),
    };
    if digits.is_empty() || !digits.bytes().all(|b| (b as char).is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok().filter(|value| (min..=max).contains(value))
}

/// An 8-bit number.
pub(crate) fn number8(text: &str) -> Option<u8> {
    number(text, 0, 0xff).map(|value| value as u8)
}

/// A 32-bit number.
pub(crate) fn number32(text: &str) -> Option<u32> {
    number(text, 0, 0xffff_ffff).map(|value| value as u32)
}

/// `VALUE` or `VALUE/MASK`, the mask all ones if absent.
pub(crate) fn value_mask32(text: &str) -> Option<(u32, u32)> {
    match text.split_once('/') {
        None => Some((number32(text)?, u32::MAX)),
        Some((value, mask)) => Some((number32(value)?, number32(mask)?)),
    }
}

/// `LOW:HIGH` with either end optional, or one number for both.
pub(crate) fn range(text: &str, max: u64) -> Option<(u64, u64)> {
    match text.split_once(':') {
        None => number(text, 0, max).map(|value| (value, value)),
        Some((low, high)) => {
            let low = if low.is_empty() { Some(0) } else { number(low, 0, max) }?;
            let high = if high.is_empty() { Some(max) } else { number(high, 0, max) }?;
            Some((low, high))
        }
    }
}

/// A port by number or service name; `protocol` restricts the name's protocol.
pub(crate) fn port(text: &str, protocol: Option<&str>, names: &dyn Names) -> Option<u16> {
    number(text, 0, 0xffff).map(|value| value as u16).or_else(|| names.service_port(text, protocol))
}

/// `LOW:HIGH` of ports with either end optional, or one port for both. The
/// error is the part that is no port.
pub(crate) fn port_range<'t>(
    text: &'t str,
    protocol: Option<&str>,
    names: &dyn Names,
) -> Result<Range<u16>, &'t str> {
    let one = |part: &'t str| port(part, protocol, names).ok_or(part);
    let Some((low, high)) = text.split_once(':') else {
        let value = one(text)?;
        return Ok(Range { low: value, high: value });
    };
    Ok(Range {
        low: if low.is_empty() { 0 } else { one(low)? },
        high: if high.is_empty() { u16::MAX } else { one(high)? },
    })
}

/// Whether `name` begins with `text`, ignoring ASCII case; how the tools
/// abbreviate symbolic operands.
pub(crate) fn abbreviates(text: &str, name: &str) -> bool {
    name.len() >= text.len()
        && name.is_char_boundary(text.len())
        && name[..text.len()].eq_ignore_ascii_case(text)
}
