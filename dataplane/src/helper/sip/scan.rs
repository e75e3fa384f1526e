//! Scanning a SIP message: lines, folded or not, words in them, numbers and addresses.
//!
//! A message is one slice, places in it are offsets, and none of them need lie
//! inside it.

use std::net::Ipv6Addr;

pub(super) fn starts(text: &[u8], at: usize, word: &[u8]) -> bool {
    text.get(at..at + word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word))
}

pub(super) const fn ends_line(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

pub(super) const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The number that starts at `at`, and where it ends. It wraps.
pub(super) fn decimal(text: &[u8], at: usize) -> (u64, usize) {
    let digits = text.get(at..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold((0, at), |(number, end): (u64, usize), byte| {
        (number.wrapping_mul(10).wrapping_add(u64::from(byte - b'0')), end + 1)
    })
}

/// The same, but `0x` makes it hexadecimal, and another `0` octal.
pub(super) fn number(text: &[u8], at: usize) -> (u64, usize) {
    let byte = |at: usize| text.get(at).copied().unwrap_or(0);
    let (radix, start) = match (byte(at), byte(at + 1)) {
        (b'0', b'x' | b'X') if byte(at + 2).is_ascii_hexdigit() => (16, at + 2),
        (b'0', _) => (8, at),
        _ => (10, at),
    };
    let digit = |at: usize| char::from(byte(at)).to_digit(radix).filter(|_| at < text.len());
    let (mut value, mut end) = (0_u64, start);
    while let Some(digit) = digit(end) {
        value = value.wrapping_mul(u64::from(radix)).wrapping_add(u64::from(digit));
        end += 1;
    }
    (value, end)
}

/// An IPv4 address, and where it ends: at anything but a digit, a dot or a letter
/// that could be one.
pub(super) fn ipv4(text: &[u8], at: usize) -> Option<(u32, usize)> {
    let (mut address, mut octet, mut octets) = (0_u32, None, 0);
    for end in at..=text.len() {
        let byte = text.get(end).copied().unwrap_or(0);
        if byte.is_ascii_digit() {
            let value = octet.unwrap_or(0) * 10 + u32::from(byte - b'0');
            octet = Some(value).filter(|value| *value <= 255);
            octet?;
            continue;
        }
        if byte.is_ascii_hexdigit() {
            return None;
        }
        address = address << 8 | octet.take()?;
        octets += 1;
        match (byte, octets) {
            (b'.', 1..=3) => {}
            (b'.', _) => return None,
            (_, 4) => return Some((address, end)),
            _ => return None,
        }
    }
    None
}

/// An IPv6 address, and where it ends.
pub(super) fn ipv6(text: &[u8], at: usize) -> Option<(u128, usize)> {
    const LONGEST: usize = 45;
    let rest = text.get(at..)?;
    let part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let len = rest.iter().take(LONGEST + 1).take_while(|byte| part(byte)).count();
    let address: Ipv6Addr = std::str::from_utf8(&rest[..len]).ok()?.parse().ok()?;
    Some((address.into(), at + len))
}

/// Letters from `at` on.
pub(super) fn letters(text: &[u8], at: usize) -> usize {
    text.get(at..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_alphabetic()).count()
}

/// The beginning of the next line that continues no other.
pub(super) fn next_line(text: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at = next_line_even_folded(text, at)?;
        if !is_blank(text[at]) {
            return Some(at);
        }
        at += 1;
    }
}

/// The beginning of the next line.
pub(super) fn next_line_even_folded(text: &[u8], at: usize) -> Option<usize> {
    let end = text.get(at..)?.iter().position(|&byte| ends_line(byte))? + at;
    let mut start = end + 1;
    if text[end] == b'\r' && text.get(start) == Some(&b'\n') {
        start += 1;
    }
    (start < text.len()).then_some(start)
}

/// Behind the line end at `at`, if the next line continues this one.
fn continuation(text: &[u8], at: usize, limit: usize) -> Option<usize> {
    let mut next = at + 1;
    if next < limit && text[at] == b'\r' && text[next] == b'\n' {
        next += 1;
    }
    if next >= limit || !is_blank(text[next]) {
        return None;
    }
    while next < limit && is_blank(text[next]) {
        next += 1;
    }
    Some(next)
}

/// Behind blanks; `None` when the header ends there.
pub(super) fn skip_blanks(text: &[u8], mut at: usize) -> Option<usize> {
    while at < text.len() && is_blank(text[at]) {
        at += 1;
    }
    match text.get(at) {
        Some(&byte) if ends_line(byte) => continuation(text, at, text.len()),
        _ => Some(at),
    }
}

/// Where `word` stands in a header's value, not at its very end.
pub(super) fn search(text: &[u8], from: usize, limit: usize, word: &[u8]) -> Option<usize> {
    let limit = limit.checked_sub(word.len())?;
    let mut at = from;
    while at < limit {
        if ends_line(text[at]) {
            at = continuation(text, at, limit)? + 1;
            continue;
        }
        if starts(text, at, word) {
            return Some(at);
        }
        at += 1;
    }
    None
}
