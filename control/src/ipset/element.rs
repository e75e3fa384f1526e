//! Elements as they are written: an address, a range, a prefix, ports, and what one
//! such word stands for.

use dataplane::packet::Family;
use dataplane::sets::{CreateSpec, Element, Iface, Part, SetName, SetType};

use super::command::Author;
use super::create::port_protocol;
use super::fault::Fault;
use super::icmp;
use super::lexer::Word;
use super::value::{self, Spelling, number};
use super::written::{Run, Written};
use crate::diagnostics::Code;
use crate::iptables::Names;

/// Elements that one word may stand for.
const MAX_EXPANSION: u64 = 1 << 24;
/// Longest interface name.
const MAX_IFACE: usize = 15;

/// `LOW[-HIGH]`, where a name with a dash stands in brackets.
pub(super) fn split_ports(text: &str) -> Option<(&str, Option<&str>)> {
    let dash = if text.starts_with('[') {
        let close = text.find(']')?;
        (close + 1 < text.len()).then_some(close + 1)
    } else {
        text.find('-')
    };
    match dash {
        None => Some((text, None)),
        Some(at) if text.as_bytes()[at] == b'-' => Some((&text[..at], Some(&text[at + 1..]))),
        Some(_) => None,
    }
}

/// Reads the elements of one set.
pub(super) struct Reader<'r> {
    pub(super) spec: &'r CreateSpec,
    pub(super) names: &'r dyn Names,
    pub(super) author: Author,
    pub(super) warnings: &'r mut Vec<Fault>,
}

/// A part of a word, with where it begins.
#[derive(Clone, Copy)]
struct Piece<'p> {
    word: &'p Word<'p>,
    text: &'p str,
    at: usize,
}

impl Piece<'_> {
    fn fault(&self, code: Code, message: impl Into<String>) -> Fault {
        let (start, end) = self.word.part(self.at, self.text.len().max(1));
        Fault::new(code, start, end, message)
    }
}

impl Reader<'_> {
    /// The word after the set's name.
    pub(super) fn read(&mut self, word: &Word<'_>) -> Result<Written, Fault> {
        let kind = self.spec.kind;
        if kind == SetType::ListSet {
            let name = super::set_name(word)?;
            return Ok(Written::of(Element { set: Some(name), ..Element::default() }));
        }
        let parts = kind.parts();
        let mut written = Written::of(Element::default());
        let mut at = 0;
        // An interface's name comes last, and may hold commas.
        let mut pieces = match parts.last() {
            Some(Part::Iface) if self.author == Author::Daemon => {
                word.text.splitn(parts.len(), ',')
            }
            _ => word.text.splitn(usize::MAX, ','),
        };
        for (index, part) in parts.iter().enumerate() {
            let optional = kind == SetType::BitmapIpMac && index == 1;
            let Some(text) = pieces.next() else {
                if optional {
                    break;
                }
                return Err(missing(word, kind, index));
            };
            if text.is_empty() {
                return Err(missing(word, kind, index));
            }
            self.part(*part, index, Piece { word, text, at }, &mut written)?;
            at += text.len() + 1;
        }
        if pieces.next().is_some() {
            let message =
                format!("an element of {} has no more than {} parts", kind.name(), parts.len());
            return Err(word
                .fault(Code::BadValue, message)
                .remedy(format!("write {}", form(kind))));
        }
        let zero = written.first == Run::One && written.template.ip == 0;
        if kind == SetType::HashIpPort && zero && self.author == Author::Operator {
            let message = "the address of all zeros cannot be in this type of set";
            return Err(word.fault(Code::BadElement, message).remedy("leave the line out"));
        }
        if written.count() > MAX_EXPANSION {
            let message = format!("this stands for {} elements", written.count());
            let remedy = "use a hash:net set, which holds networks as such";
            return Err(word.fault(Code::TooMany, message).remedy(remedy));
        }
        Ok(written)
    }

    fn part(
        &mut self,
        part: Part,
        index: usize,
        piece: Piece<'_>,
        written: &mut Written,
    ) -> Result<(), Fault> {
        match part {
            Part::Ip => self.address(index, piece, written),
            Part::Net => self.network(index, piece, written),
            Part::Port if self.spec.kind == SetType::BitmapPort => self.plain_port(piece, written),
            Part::Port => self.port(piece, written),
            Part::Mac => {
                let mac = mac(piece.text).ok_or_else(|| {
                    let message = format!("`{}' is no MAC address", piece.text);
                    piece.fault(Code::BadValue, message).remedy("write 00:53:00:12:34:56")
                })?;
                written.template.mac = Some(mac);
                Ok(())
            }
            Part::Mark => {
                written.template.mark =
                    number(piece.text, u64::from(u32::MAX)).ok_or_else(|| {
                        let message = format!("`{}' is no mark", piece.text);
                        piece.fault(Code::BadValue, message).remedy("write a number, as 0x10")
                    })? as u32;
                Ok(())
            }
            Part::Iface => {
                written.template.iface = Some(iface(piece)?);
                Ok(())
            }
        }
    }

    /// One address, with a warning if it is spelt oddly.
    fn one(&mut self, piece: Piece<'_>) -> Result<u128, Fault> {
        let family = self.spec.family;
        let Some((address, spelling)) = value::address(piece.text, family) else {
            return Err(no_address(piece, family));
        };
        if spelling == Spelling::Short {
            let meant = std::net::Ipv4Addr::from(address as u32);
            let message = format!("`{}' is taken for {meant}", piece.text);
            let fault = piece.fault(Code::BadValue, message);
            self.warnings.push(fault.remedy("write all four numbers, without leading zeros"));
        }
        Ok(address)
    }

    /// Both ends of a range. Short spellings are refused here: `10.0.0.1-5` is not what it
    /// looks like.
    fn ends(&self, piece: Piece<'_>, dash: usize) -> Result<(u32, u32), Fault> {
        let end = |from: usize, text| {
            let piece = Piece { word: piece.word, text, at: piece.at + from };
            match value::address(text, Family::V4) {
                Some((address, Spelling::Usual)) => Ok(address as u32),
                _ => Err(no_address(piece, Family::V4)),
            }
        };
        let (from, to) = (&piece.text[..dash], &piece.text[dash + 1..]);
        let (from, to) = (end(0, from)?, end(dash + 1, to)?);
        Ok((from.min(to), from.max(to)))
    }

    /// The length of a prefix.
    fn length(&self, piece: Piece<'_>, slash: usize) -> Result<u8, Fault> {
        let width = value::width(self.spec.family);
        let text = &piece.text[slash + 1..];
        number(text, u64::from(width)).map(|len| len as u8).ok_or_else(|| {
            let piece = Piece { word: piece.word, text, at: piece.at + slash + 1 };
            let message = format!("`{text}' is no prefix length");
            piece.fault(Code::BadValue, message).remedy(format!("write a number up to {width}"))
        })
    }

    /// Where a range begins, if it is one.
    fn dash(text: &str) -> Option<usize> {
        text.find('-').filter(|at| *at > 0)
    }

    /// A part that holds single addresses.
    fn address(
        &mut self,
        index: usize,
        piece: Piece<'_>,
        written: &mut Written,
    ) -> Result<(), Fault> {
        let (kind, family) = (self.spec.kind, self.spec.family);
        let single = index > 0 || matches!(kind, SetType::BitmapIpMac | SetType::HashIpMac);
        let slash = piece.text.find('/');
        let range = match (slash, Self::dash(piece.text)) {
            (Some(slash), _) => {
                let len = self.length(piece, slash)?;
                let text = &piece.text[..slash];
                let address = self.one(Piece { text, ..piece })?;
                // The tool cannot say this of a second address.
                if len == value::width(family) && index == 0 {
                    place(written, index, address);
                    return Ok(());
                }
                if len == 0 && !single {
                    let message = "every address there is cannot be listed one by one";
                    return Err(piece
                        .fault(Code::BadValue, message)
                        .remedy("write 0.0.0.0/1 and 128.0.0.0/1 in a hash:net set"));
                }
                let low = value::masked(address, len, family) as u32;
                (low, low | u32::MAX.checked_shr(u32::from(len)).unwrap_or(0))
            }
            (None, Some(dash)) if family == Family::V4 => self.ends(piece, dash)?,
            (None, _) => {
                let address = self.one(piece)?;
                place(written, index, address);
                return Ok(());
            }
        };
        if single || family == Family::V6 {
            let message = format!("`{}' is more than one address", piece.text);
            return Err(piece.fault(Code::BadValue, message).remedy("write one address"));
        }
        let step = self.step(piece)?;
        // The kernel begins at the network in a hash, and where it is told to in a bitmap.
        let early = if kind == SetType::BitmapIp { 0 } else { u64::from(range.0) % step };
        let from = range.0 - early as u32;
        written.first = Run::Step { from, to: range.1, step };
        Ok(())
    }

    /// How far apart the elements of a range are.
    fn step(&self, piece: Piece<'_>) -> Result<u64, Fault> {
        let steps = matches!(self.spec.kind, SetType::HashIp | SetType::BitmapIp);
        match (self.spec.netmask, self.spec.bitmask) {
            (Some(len), None) if steps => Ok(1 << (32 - u32::from(len))),
            (None, None) => Ok(1),
            _ => {
                let message = "a range in a set whose addresses are masked";
                Err(piece
                    .fault(Code::BadValue, message)
                    .remedy("add the addresses one by one: ipset would not mask those of a range"))
            }
        }
    }

    /// A part that holds networks.
    fn network(
        &mut self,
        index: usize,
        piece: Piece<'_>,
        written: &mut Written,
    ) -> Result<(), Fault> {
        let family = self.spec.family;
        if let Some(slash) = piece.text.find('/') {
            let len = self.length(piece, slash)?;
            let address = self.one(Piece { text: &piece.text[..slash], ..piece })?;
            let network = value::masked(address, len, family);
            let len = Some(len).filter(|len| *len < value::width(family));
            if index == 0 {
                (written.template.ip, written.template.cidr) = (network, len);
            } else {
                (written.template.ip2, written.template.cidr2) = (network, len);
            }
            return Ok(());
        }
        match Self::dash(piece.text) {
            Some(dash) if family == Family::V4 => {
                let (from, to) = self.ends(piece, dash)?;
                if (from, to) == (0, u32::MAX) {
                    let message = "this range is the whole address space";
                    return Err(piece
                        .fault(Code::BadValue, message)
                        .remedy("write 0.0.0.0/1 and 128.0.0.0/1"));
                }
                let run = Run::Split { from, to };
                if index == 0 {
                    written.first = run
                } else {
                    written.second = run
                }
                Ok(())
            }
            _ => {
                let address = self.one(piece)?;
                place(written, index, address);
                Ok(())
            }
        }
    }

    /// A port of `bitmap:port`: the protocol only helps to find a service.
    fn plain_port(&self, piece: Piece<'_>, written: &mut Written) -> Result<(), Fault> {
        let Some((proto, text)) = port_protocol(piece.text, self.names) else {
            let message = format!("`{}' names no port of TCP or UDP", piece.text);
            return Err(piece.fault(Code::BadValue, message).remedy("write the port's number"));
        };
        written.ports = self.range_of_ports(piece, text, proto)?;
        written.template.port = written.ports.0;
        Ok(())
    }

    fn port(&self, piece: Piece<'_>, written: &mut Written) -> Result<(), Fault> {
        let (proto, text) = match piece.text.split_once(':') {
            None => (6, piece.text),
            Some((name, text)) => {
                let proto = value::protocol(name, self.names).ok_or_else(|| {
                    let message = format!("`{name}' is no protocol");
                    Piece { text: name, ..piece }
                        .fault(Code::BadValue, message)
                        .remedy("write it as in /etc/protocols, or its number")
                })?;
                (proto, text)
            }
        };
        let at = piece.at + piece.text.len() - text.len();
        let piece = Piece { text, at, ..piece };
        written.template.proto = proto;
        match (proto, self.spec.family) {
            (6 | 17 | 132 | 136, _) => {
                written.ports = self.range_of_ports(piece, text, proto)?;
                written.template.port = written.ports.0;
            }
            (1, Family::V4) | (58, Family::V6) => {
                written.template.port = icmp::parse(text, proto).ok_or_else(|| {
                    let message = format!("`{text}' is no ICMP type");
                    piece
                        .fault(Code::BadValue, message)
                        .remedy("write TYPE/CODE, as 8/0, or a name, as echo-request")
                })?;
            }
            // Packets of one family may claim the ICMP of the other.
            (1 | 58, _) if self.author == Author::Daemon => {
                let bad = || piece.fault(Code::BadValue, format!("`{text}' is no ICMP type"));
                written.template.port = icmp::parse(text, proto).ok_or_else(bad)?;
            }
            (1 | 58, _) => {
                let message = "this ICMP belongs to the other family";
                let right = if proto == 1 { "icmpv6" } else { "icmp" };
                return Err(piece.fault(Code::BadValue, message).remedy(format!("write {right}:")));
            }
            (0, _) => {
                return Err(piece.fault(Code::BadValue, "protocol 0 stands for none"));
            }
            _ if text != "0" => {
                let message = "this protocol has no ports";
                return Err(piece.fault(Code::BadValue, message).remedy("write 0 as its port"));
            }
            _ => {}
        }
        Ok(())
    }

    fn range_of_ports(&self, piece: Piece<'_>, text: &str, proto: u8) -> Result<(u16, u16), Fault> {
        let bad = |text: &str| {
            let message = format!("`{text}' is no port");
            piece.fault(Code::BadValue, message).remedy(
                "write a number up to 65535, a range FROM-TO, or a service; \
                 a service with a dash in its name stands in brackets, as [ftp-data]",
            )
        };
        let (low, high) = split_ports(text).ok_or_else(|| bad(text))?;
        let read = |text| value::port(text, proto, self.names).ok_or_else(|| bad(text));
        let low = read(low)?;
        let high = high.map_or(Ok(low), read)?;
        Ok((low.min(high), low.max(high)))
    }
}

fn place(written: &mut Written, index: usize, address: u128) {
    if index == 0 {
        written.template.ip = address;
    } else {
        written.template.ip2 = address;
    }
}

fn no_address(piece: Piece<'_>, family: Family) -> Fault {
    let (this, other, example) = match family {
        Family::V4 => ("IPv4", Family::V6, "192.0.2.1"),
        Family::V6 => ("IPv6", Family::V4, "2001:db8::1"),
    };
    let message = format!("`{}' is no {this} address", piece.text);
    if value::is_address(piece.text, other) {
        let remedy = "the set was created for the other family (family inet or inet6)";
        return piece.fault(Code::BadValue, message).remedy(remedy);
    }
    let named = piece.text.starts_with(|c: char| c.is_ascii_alphabetic())
        && piece.text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if named {
        let remedy = "names are not resolved: write the address";
        return piece.fault(Code::HostName, message).remedy(remedy);
    }
    piece.fault(Code::BadValue, message).remedy(format!("write it as {example}"))
}

/// How an element is written.
fn form(kind: SetType) -> String {
    let parts = kind.parts().iter().map(|part| match part {
        Part::Ip => "IP",
        Part::Net => "IP/LENGTH",
        Part::Port if kind == SetType::BitmapPort => "PORT",
        Part::Port => "PROTO:PORT",
        Part::Mac => "MAC",
        Part::Iface => "INTERFACE",
        Part::Mark => "MARK",
    });
    parts.collect::<Vec<_>>().join(",")
}

fn missing(word: &Word<'_>, kind: SetType, index: usize) -> Fault {
    let message = format!("part {} of the element is missing", index + 1);
    word.fault(Code::BadValue, message).remedy(format!(
        "an element of {} is written {}",
        kind.name(),
        form(kind)
    ))
}

/// Six numbers of at most two hexadecimal digits.
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut digits = text.split(':');
    for byte in &mut mac {
        let text = digits.next()?;
        let hex = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        *byte = hex.then(|| u8::from_str_radix(text, 16).ok()).flatten()?;
    }
    digits.next().is_none().then_some(mac)
}

fn iface(piece: Piece<'_>) -> Result<Iface, Fault> {
    let (name, physdev) = match piece.text.strip_prefix("physdev:") {
        Some(name) => (name, true),
        None => (piece.text, false),
    };
    let held = arrayvec::ArrayString::from(name).ok().filter(|_| !name.is_empty());
    let name = held.ok_or_else(|| {
        let message = format!("`{name}' is no interface name");
        piece.fault(Code::BadValue, message).remedy(format!("a name has 1 to {MAX_IFACE} bytes"))
    })?;
    Ok(Iface { name, physdev, wildcard: false })
}

/// The set of a `list:set` that is named by `before` or `after`.
pub(super) fn beside(word: &Word<'_>) -> Result<SetName, Fault> {
    super::set_name(word)
}
