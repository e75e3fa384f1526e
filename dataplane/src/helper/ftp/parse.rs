//! The commands and answers that announce a data connection, as leniently read
//! as the kernel reads them: numbers wrap, and the case of letters is ignored.

use std::ops::Range;

use crate::conntrack::Direction;
use crate::packet::Family;

/// How an announcement spells its address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `PORT h1,h2,h3,h4,p1,p2`.
    Port,
    /// `EPRT |1|132.235.1.2|6275|`.
    Eprt,
    /// `227 Entering Passive Mode (h1,h2,h3,h4,p1,p2)`.
    Pasv,
    /// `229 Entering Extended Passive Mode (|||6446|)`.
    Epsv,
}

/// An announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) form: Form,
    /// Where the data connection is to go; the sender itself if not said.
    pub(super) address: u128,
    pub(super) port: u16,
    /// Address and port, in the payload.
    pub(super) range: Range<usize>,
}

/// What a line begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// Of an announcement, and then the payload ends, or makes no sense.
    Partial,
    Command(Command),
}

struct Pattern {
    text: &'static [u8],
    /// What the address follows, if not the text itself.
    skip: Option<u8>,
    form: Form,
}

const COMMANDS: [Pattern; 2] = [
    Pattern { text: b"PORT", skip: Some(b' '), form: Form::Port },
    Pattern { text: b"EPRT", skip: Some(b' '), form: Form::Eprt },
];
const ANSWERS: [Pattern; 2] = [
    Pattern { text: b"227 ", skip: None, form: Form::Pasv },
    Pattern { text: b"229 ", skip: Some(b'('), form: Form::Epsv },
];

/// Looks for an announcement by `sender` at the beginning of `line`.
pub(super) fn find(line: &[u8], direction: Direction, family: Family, sender: u128) -> Found {
    let patterns = match direction {
        Direction::Original => &COMMANDS,
        Direction::Reply => &ANSWERS,
    };
    patterns
        .iter()
        .map(|pattern| pattern.find(line, family, sender))
        .find(|found| *found != Found::Nothing)
        .unwrap_or(Found::Nothing)
}

impl Pattern {
    fn find(&self, line: &[u8], family: Family, sender: u128) -> Found {
        let known = line.len().min(self.text.len());
        if known == 0 || !line[..known].eq_ignore_ascii_case(&self.text[..known]) {
            return Found::Nothing;
        }
        let Some(rest) = line.get(self.text.len()..).filter(|rest| !rest.is_empty()) else {
            return Found::Partial;
        };
        let skipped = match self.skip {
            // What it leads to must not be the last byte there is.
            Some(byte) => rest.iter().position(|&found| found == byte).map(|at| at + 1),
            None => Some(0),
        };
        let Some(start) = skipped.map(|skipped| self.text.len() + skipped) else {
            return Found::Partial;
        };
        let place = Place { family, sender };
        let read = match self.form {
            Form::Port => place.numbers(&line[start..], Some(b'\r')),
            Form::Pasv => place.after_words(&line[start..]),
            Form::Eprt => place.extended(&line[start..]),
            Form::Epsv => place.port_only(&line[start..]),
        };
        read.map_or(Found::Partial, |read| {
            let range = start + read.range.start..start + read.range.end;
            Found::Command(Command {
                form: self.form,
                address: read.address,
                port: read.port,
                range,
            })
        })
    }
}

struct Read {
    address: u128,
    port: u16,
    range: Range<usize>,
}

/// Who speaks.
struct Place {
    family: Family,
    sender: u128,
}

impl Place {
    /// An IPv4 address as the kernel stores it: over the first bytes of the sender's.
    fn with_v4(&self, address: u32) -> u128 {
        match self.family {
            Family::V4 => u128::from(address),
            Family::V6 => u128::from(address) << 96 | self.sender & (u128::MAX >> 32),
        }
    }

    /// `h1,h2,h3,h4,p1,p2` and then `end`, or anything.
    fn numbers(&self, text: &[u8], end: Option<u8>) -> Option<Read> {
        let (numbers, len) = numbers::<6>(text, b',', end)?;
        let port = (numbers[4] << 8 | numbers[5]) as u16;
        Some(Read { address: self.with_v4(joined(&numbers)), port, range: 0..len })
    }

    /// The same behind whatever words, which hold no digit.
    fn after_words(&self, text: &[u8]) -> Option<Read> {
        let at = text.iter().position(u8::is_ascii_digit)?;
        let read = self.numbers(&text[at..], None)?;
        Some(Read { range: at..at + read.range.end, ..read })
    }

    /// `|1|a.b.c.d|port|` or `|2|a:b::c|port|`, with any delimiter.
    fn extended(&self, text: &[u8]) -> Option<Read> {
        let &[delimiter, kind, second, ..] = text else { return None };
        let expected = match self.family {
            Family::V4 => b'1',
            Family::V6 => b'2',
        };
        let rest = text.get(3..).filter(|rest| !rest.is_empty())?;
        if !is_delimiter(delimiter) || second != delimiter || kind != expected {
            return None;
        }
        let (address, len) = match self.family {
            Family::V4 => {
                let (numbers, len) = numbers::<4>(rest, b'.', Some(delimiter))?;
                (self.with_v4(joined(&numbers)), len)
            }
            Family::V6 => ipv6(rest, delimiter)?,
        };
        let (port, end) = port(text, 3 + len + 1, delimiter)?;
        Some(Read { address, port, range: 0..end })
    }

    /// `|||port|`, with any delimiter.
    fn port_only(&self, text: &[u8]) -> Option<Read> {
        let &[delimiter, second, third, _, ..] = text else { return None };
        if !is_delimiter(delimiter) || second != delimiter || third != delimiter {
            return None;
        }
        let (port, end) = port(text, 3, delimiter)?;
        Some(Read { address: self.sender, port, range: 0..end })
    }
}

fn is_delimiter(byte: u8) -> bool {
    matches!(byte, 33..=126) && !byte.is_ascii_digit()
}

/// The first four numbers as an address; what is above a byte runs over.
fn joined(numbers: &[u32]) -> u32 {
    numbers[0] << 24 | numbers[1] << 16 | numbers[2] << 8 | numbers[3]
}

/// `N` numbers with `separator` between them, up to `end` or any other byte, and
/// the length of it all. Numbers may be empty, and wrap.
fn numbers<const N: usize>(
    text: &[u8],
    separator: u8,
    end: Option<u8>,
) -> Option<([u32; N], usize)> {
    let (mut numbers, mut at) = ([0_u32; N], 0);
    for (len, &byte) in text.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                let digit = u32::from(byte - b'0');
                numbers[at] = numbers[at].wrapping_mul(10).wrapping_add(digit);
            }
            _ if byte == separator => {
                at += 1;
                if at == N {
                    return None;
                }
            }
            _ => {
                let ended = end.is_none_or(|end| end == byte) && at == N - 1;
                return (ended && len > 0).then_some((numbers, len));
            }
        }
    }
    None
}

/// A port from `start` up to the delimiter, and where what follows that begins.
fn port(text: &[u8], start: usize, delimiter: u8) -> Option<(u16, usize)> {
    let mut port = 0_u16;
    for (at, &byte) in text.iter().enumerate().skip(start) {
        match byte {
            _ if byte == delimiter => return (port != 0).then_some((port, at + 1)),
            b'0'..=b'9' => port = port.wrapping_mul(10).wrapping_add(u16::from(byte - b'0')),
            _ => return None,
        }
    }
    None
}

/// An IPv6 address up to the delimiter, and its length.
fn ipv6(text: &[u8], delimiter: u8) -> Option<(u128, usize)> {
    /// Longer spellings have needless zeros.
    const LONGEST: usize = 45;
    let end = text.iter().take(LONGEST + 1).position(|&byte| byte == delimiter)?;
    let spelt = std::str::from_utf8(&text[..end]).ok()?;
    let address: std::net::Ipv6Addr = spelt.parse().ok()?;
    Some((address.into(), end))
}
