//! Reading SIP: the request line, headers with their URIs and parameters, and the
//! session description behind them. As lenient, and as strict, as the kernel.
//!
//! A message is one slice; places in it are offsets. Nothing is read twice more
//! often than a message has headers of the kind asked for.

use super::scan::{
    decimal, ends_line, ipv4, ipv6, letters, next_line, next_line_even_folded, number, search,
    skip_blanks, starts,
};
use crate::packet::Family;
use crate::wire::proto;

/// SIP's own port, for URIs without one.
const PORT: u16 = 5060;
/// Longest name in front of an address, in bytes. Without a limit, as the kernel
/// is, one line of many URIs takes time by its length squared.
const LONGEST_USER: usize = 255;

/// What the connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) family: Family,
    pub(super) proto: u8,
}

/// Headers that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    CSeq,
    From,
    To,
    Contact,
    ViaUdp,
    ViaTcp,
    Expires,
    ContentLength,
}

/// Lines of a session description that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Version,
    Owner,
    Connection,
    Media,
}

/// Bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: usize,
    pub(super) len: usize,
}

impl Span {
    pub(super) const fn end(self) -> usize {
        self.at + self.len
    }
}

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// The thing itself, but not in a form that we read. Its value starts here.
    Unreadable(usize),
    Value(Span),
}

/// Address and port of a URI or a Via.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Uri {
    /// As they are written.
    pub(super) span: Span,
    pub(super) address: u128,
    pub(super) port: u16,
    /// What follows the URI.
    pub(super) end: usize,
}

/// What a value looks like.
#[derive(Clone, Copy)]
enum Shape {
    Digits,
    /// `user@address:port`, of which the address and port count.
    UserAddress,
    Address,
    /// An address in a session description: without brackets and port.
    Bare,
    /// `audio 4000`.
    Media,
}

struct Spelling {
    name: &'static [u8],
    compact: Option<u8>,
    search: Option<&'static [u8]>,
    shape: Shape,
}

impl Header {
    const fn spelling(self) -> Spelling {
        let (name, compact, search, shape): (&[u8], _, Option<&[u8]>, _) = match self {
            Self::CSeq => (b"CSeq", None, None, Shape::Digits),
            Self::From => (b"From", Some(b'f'), Some(b"sip:"), Shape::UserAddress),
            Self::To => (b"To", Some(b't'), Some(b"sip:"), Shape::UserAddress),
            Self::Contact => (b"Contact", Some(b'm'), Some(b"sip:"), Shape::UserAddress),
            Self::ViaUdp => (b"Via", Some(b'v'), Some(b"UDP "), Shape::Address),
            Self::ViaTcp => (b"Via", Some(b'v'), Some(b"TCP "), Shape::Address),
            Self::Expires => (b"Expires", None, None, Shape::Digits),
            Self::ContentLength => (b"Content-Length", Some(b'l'), None, Shape::Digits),
        };
        Spelling { name, compact, search, shape }
    }
}

impl Line {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Version => b"v=",
            Self::Owner => b"o=",
            Self::Connection => b"c=",
            Self::Media => b"m=",
        }
    }
}

impl Dialect {
    /// An address, and where it ends. `brackets`: IPv6 must be in some.
    fn address(self, text: &[u8], at: usize, brackets: bool) -> Option<(u128, usize)> {
        if self.family == Family::V4 {
            return ipv4(text, at).map(|(address, end)| (address.into(), end));
        }
        let open = text.get(at) == Some(&b'[');
        if brackets && !open {
            return None;
        }
        let (address, end) = ipv6(text, at + usize::from(open))?;
        match (text.get(end) == Some(&b']'), brackets) {
            (false, true) => None,
            (close, _) => Some((address, end + usize::from(close))),
        }
    }

    /// An address in a session description.
    pub(super) fn bare_address(self, text: &[u8], at: usize) -> Option<(u128, usize)> {
        match self.family {
            Family::V4 => ipv4(text, at).map(|(address, end)| (address.into(), end)),
            Family::V6 => ipv6(text, at),
        }
    }

    /// How far behind `at` a value of this shape starts, and its length; zero
    /// when there is none.
    fn measure(self, shape: Shape, text: &[u8], at: usize) -> Span {
        let length = |end: Option<usize>| end.map_or(0, |end| end - at);
        match shape {
            Shape::Digits => Span { at, len: decimal(text, at).1 - at },
            Shape::Bare => Span { at, len: length(self.bare_address(text, at).map(|it| it.1)) },
            Shape::Address => Span { at, len: length(self.address_and_port(text, at)) },
            Shape::UserAddress => {
                let user = text[at.min(text.len())..].iter().take(LONGEST_USER);
                let user = user.take_while(|&&byte| byte != b'@' && !ends_line(byte)).count();
                match text.get(at + user) {
                    Some(b'@') => self.measure(Shape::Address, text, at + user + 1),
                    _ => self.measure(Shape::Address, text, at),
                }
            }
            Shape::Media => {
                let kind = letters(text, at);
                match text.get(at + kind) {
                    Some(b' ') => Span { at, len: decimal(text, at + kind + 1).1 - at },
                    _ => Span { at, len: 0 },
                }
            }
        }
    }

    fn address_and_port(self, text: &[u8], at: usize) -> Option<usize> {
        let (_, end) = self.address(text, at, true)?;
        Some(if text.get(end) == Some(&b':') { decimal(text, end + 1).1 } else { end })
    }

    /// Address and port of the URI at `span`.
    fn uri(self, text: &[u8], span: Span) -> Option<Uri> {
        let (address, end) = self.address(text, span.at, true)?;
        if text.get(end) != Some(&b':') {
            return Some(Uri { span, address, port: PORT, end });
        }
        let (port, end) = decimal(text, end + 1);
        let port = u16::try_from(port).ok().filter(|port| *port >= 1024)?;
        Some(Uri { span, address, port, end })
    }

    /// The address that a request is addressed to.
    pub(super) fn request(self, text: &[u8]) -> Option<Uri> {
        let method = letters(text, 0);
        if method == 0 || method + 1 >= text.len() {
            return None;
        }
        const SCHEME: &[u8] = b"sip:";
        let mut at = method + 1;
        while at + SCHEME.len() < text.len() {
            if ends_line(text[at]) {
                return None;
            }
            if starts(text, at, SCHEME) {
                at += SCHEME.len();
                break;
            }
            at += 1;
        }
        let span = self.measure(Shape::UserAddress, text, at);
        if span.len == 0 {
            return None;
        }
        let uri = self.uri(text, span)?;
        Some(Uri { span: Span { at: span.at, len: uri.end - span.at }, ..uri })
    }

    /// The first header of its kind from `from` on.
    pub(super) fn header(self, text: &[u8], from: usize, header: Header) -> Found {
        let spelling = header.spelling();
        let mut at = from;
        while let Some(start) = next_line(text, at) {
            at = start;
            let Some(name) = spelling.name_at(text, at) else {
                at += 1;
                continue;
            };
            let colon = skip_blanks(text, at + name);
            let Some(colon) = colon.filter(|&at| text.get(at) == Some(&b':')) else { break };
            if colon + 1 >= text.len() {
                break;
            }
            let Some(value) = skip_blanks(text, colon + 1) else { break };
            return self.value(&spelling, text, value);
        }
        Found::Nothing
    }

    fn value(self, spelling: &Spelling, text: &[u8], value: usize) -> Found {
        let start = match spelling.search {
            Some(word) => search(text, value, text.len(), word).map(|at| at + word.len()),
            None => Some(value),
        };
        let Some(start) = start else { return Found::Unreadable(value) };
        match self.measure(spelling.shape, text, start) {
            Span { len: 0, .. } => Found::Unreadable(value),
            span => Found::Value(span),
        }
    }

    /// The next value of a header that lists several.
    fn next_value(self, text: &[u8], from: usize, header: Header) -> Found {
        let spelling = header.spelling();
        let Some(word) = spelling.search else { return Found::Nothing };
        let next = search(text, from, text.len(), b",")
            .and_then(|comma| search(text, comma, text.len(), word));
        let Some(start) = next.map(|at| at + word.len()) else { return Found::Nothing };
        match self.measure(spelling.shape, text, start) {
            Span { len: 0, .. } => Found::Unreadable(start),
            span => Found::Value(span),
        }
    }

    /// The next readable value of a header from `from` on: of the same line, if
    /// `listing`, or of another.
    fn walk(
        self,
        text: &[u8],
        mut from: usize,
        header: Header,
        listing: &mut bool,
    ) -> Option<Span> {
        while *listing {
            match self.next_value(text, from, header) {
                Found::Value(span) => return Some(span),
                Found::Unreadable(at) => from = at,
                Found::Nothing => *listing = false,
            }
        }
        loop {
            match self.header(text, from, header) {
                Found::Value(span) => {
                    *listing = true;
                    return Some(span);
                }
                Found::Unreadable(at) => from = at,
                Found::Nothing => return None,
            }
        }
    }

    /// The next URI of a header. One with a port that no URI should name is as good as none.
    pub(super) fn header_uri(
        self,
        text: &[u8],
        from: usize,
        header: Header,
        listing: &mut bool,
    ) -> Option<Uri> {
        let span = self.walk(text, from, header, listing)?;
        self.uri(text, span)
    }

    /// The first URI of a header.
    pub(super) fn first_uri(self, text: &[u8], header: Header) -> Option<Uri> {
        self.header_uri(text, 0, header, &mut false)
    }

    /// The transport that a URI asks for; `None`: not this connection's.
    pub(super) fn transport(self, text: &[u8], from: usize) -> Option<u8> {
        let limit = search(text, from, text.len(), b",").unwrap_or(text.len());
        const NAME: &[u8] = b"transport=";
        let Some(at) = search(text, from, limit, NAME).map(|at| at + NAME.len()) else {
            return Some(self.proto);
        };
        let asked = match () {
            () if starts(text, at, b"TCP") => proto::TCP,
            () if starts(text, at, b"UDP") => proto::UDP,
            () => return None,
        };
        (asked == self.proto).then_some(asked)
    }

    /// An address in a parameter, such as `received=`.
    pub(super) fn address_param(
        self,
        text: &[u8],
        from: usize,
        name: &[u8],
        brackets: bool,
    ) -> Option<(Span, u128)> {
        let at = param(text, from, name)?;
        let (address, end) = self.address(text, at, brackets)?;
        Some((Span { at, len: end - at }, address))
    }

    /// A line of a session description from `from` on, but not beyond the first
    /// line of the kind `term`.
    pub(super) fn line(self, text: &[u8], from: usize, line: Line, term: Option<Line>) -> Found {
        let shape = match line {
            Line::Version => Shape::Digits,
            Line::Owner | Line::Connection => Shape::Bare,
            Line::Media => Shape::Media,
        };
        let mut at = from;
        while let Some(start) = next_line_even_folded(text, at) {
            at = start;
            if term.is_some_and(|term| starts(text, at, term.name())) {
                break;
            }
            if !starts(text, at, line.name()) {
                at += 1;
                continue;
            }
            let value = at + line.name().len();
            let start = match line {
                Line::Version | Line::Media => Some(value),
                Line::Owner | Line::Connection => self.network(text, value),
            };
            let span = start.map(|start| self.measure(shape, text, start));
            return match span {
                Some(span) if span.len > 0 => Found::Value(span),
                _ => Found::Unreadable(value),
            };
        }
        Found::Nothing
    }

    /// Behind the words that say which network an address is of.
    fn network(self, text: &[u8], from: usize) -> Option<usize> {
        let words: &[u8] = match self.family {
            Family::V4 => b"IN IP4 ",
            Family::V6 => b"IN IP6 ",
        };
        let line = text[from..].iter().take_while(|&&byte| !ends_line(byte)).count();
        let found = text[from..from + line].windows(words.len()).position(|part| part == words)?;
        // The last byte there is cannot start an address.
        Some(from + found + words.len()).filter(|&at| at < text.len())
    }
}

impl Spelling {
    /// Length of the header's name at the beginning of a line. A compact name is
    /// not the beginning of a longer one.
    fn name_at(&self, text: &[u8], at: usize) -> Option<usize> {
        if starts(text, at, self.name) {
            return Some(self.name.len());
        }
        let compact = self.compact?;
        let next = text.get(at + 1)?;
        (text[at].eq_ignore_ascii_case(&compact) && !next.is_ascii_alphabetic()).then_some(1)
    }
}

/// Where the value of a parameter starts.
fn param(text: &[u8], from: usize, name: &[u8]) -> Option<usize> {
    let limit = search(text, from, text.len(), b",").unwrap_or(text.len());
    search(text, from, limit, name).map(|at| at + name.len())
}

/// A number in a parameter, such as `expires=`.
pub(super) fn number_param(text: &[u8], from: usize, name: &[u8]) -> Option<(Span, u64)> {
    let at = param(text, from, name)?;
    let (value, end) = number(text, at);
    (end > at).then_some((Span { at, len: end - at }, value))
}
