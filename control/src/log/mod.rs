//! Records of LOG, NFLOG, AUDIT and TRACE: what is kept of one, and the line that the
//! kernel would print; [`nflog`] is the form of captured packets.
//!
//! [`Entry::copy`] takes what the line needs out of a worker's record, without
//! allocating; [`line()`] formats it later, off the hot path.

mod ipv4;
mod ipv6;
pub mod nflog;
mod transport;

#[cfg(test)]
mod tests;

use std::fmt::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use arrayvec::{ArrayString, ArrayVec};
use dataplane::clock::Nanos;
use dataplane::effects::{LogRecord, Report};
use dataplane::packet::{Family, PortId};
use dataplane::policy::Hook;
use dataplane::policy::scene::Owner;
use dataplane::policy::target::LogTarget;

/// Bytes of the IP packet that an entry keeps: every header that a line can
/// show, and those of the packet that an ICMP error quotes. Chains of IPv6
/// extension headers that are longer show as cut short.
pub const KEPT: usize = 448;

/// Longest line in bytes; the kernel cuts longer ones there.
pub const LINE: usize = 1016;

/// Longest prefix: `TRACE: `, a table, a chain, `policy` and a number.
const PREFIX: usize = 96;

/// The kernel's level of lines that no rule gives one: warning.
const LEVEL: u8 = 4;

/// Type of audit records about packets.
const AUDIT_PACKET: u32 = 1324;

/// Bytes of an Ethernet header.
const LINK: usize = 14;

/// `-j LOG` switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// `--log-tcp-sequence`.
    pub tcp_sequence: bool,
    /// `--log-tcp-options`.
    pub tcp_options: bool,
    /// `--log-ip-options`.
    pub ip_options: bool,
    /// `--log-uid`: shows for packets whose sender is known.
    pub uid: bool,
    /// `--log-macdecode`.
    pub mac_decode: bool,
}

impl Switches {
    fn of(log: &LogTarget) -> Self {
        Self {
            tcp_sequence: log.tcp_sequence,
            tcp_options: log.tcp_options,
            ip_options: log.ip_options,
            uid: log.uid,
            mac_decode: log.mac_decode,
        }
    }
    /// What the kernel shows of a traced packet.
    const TRACE: Self = Self {
        tcp_sequence: true,
        tcp_options: true,
        ip_options: true,
        uid: true,
        mac_decode: false,
    };
}

/// One hit, owned; a plain value of fixed size.
#[derive(Clone, Debug)]
pub struct Entry {
    /// When.
    pub now: Nanos,
    /// syslog level, 0-7.
    pub level: u8,
    /// The rule's prefix.
    pub prefix: ArrayString<PREFIX>,
    /// What the rule asks to show.
    pub switches: Switches,
    /// The hook it was met at.
    pub hook: Hook,
    /// Input port.
    pub input: Option<PortId>,
    /// Output port.
    pub output: Option<PortId>,
    /// Network-layer family.
    pub family: Family,
    /// The packet's mark.
    pub mark: u32,
    /// Who sent it.
    pub owner: Option<Owner>,
    /// Length of the IP packet in bytes; more than is kept, perhaps.
    pub length: u16,
    /// The Ethernet header, when it is real.
    pub link: Option<[u8; LINK]>,
    /// The start of the IP packet.
    pub packet: ArrayVec<u8, KEPT>,
}

impl Entry {
    /// Keeps what the line will show. Does not allocate.
    pub fn copy(record: &LogRecord<'_>) -> Self {
        // A worker's record may hold the first bytes of the frame only.
        let start = record.frame.len().min(record.parsed.l3.into());
        let end = record.frame.len().min(start + usize::from(record.parsed.l3_len));
        let packet = &record.frame[start..end];
        let mut kept = ArrayVec::new();
        let fits = kept.try_extend_from_slice(&packet[..packet.len().min(KEPT)]);
        debug_assert!(fits.is_ok());
        let mut prefix = ArrayString::new();
        // A prefix is short enough; one that were not would be cut.
        let _ = write!(prefix, "{}", record.prefix());
        let (level, switches) = match record.report {
            Report::Log(log) => (log.level, Switches::of(log)),
            Report::Trace(_) => (LEVEL, Switches::TRACE),
            Report::Nflog(_) | Report::Audit(_) => (LEVEL, Switches::default()),
        };
        let link = record.frame.first_chunk().filter(|_| record.has_link_header);
        Self {
            now: record.now,
            level,
            prefix,
            switches,
            hook: record.hook,
            input: record.input,
            output: record.output,
            family: record.parsed.family,
            mark: record.mark,
            owner: record.owner,
            length: record.parsed.l3_len,
            link: link.copied(),
            packet: kept,
        }
    }
}

/// The kernel's line about an entry, without level and newline. `name` gives
/// interface names.
pub fn line<'n>(entry: &Entry, name: impl Fn(PortId) -> &'n str) -> String {
    let mut out = Line(String::with_capacity(256));
    let port = |port: Option<PortId>| port.map_or("", &name);
    out.put(format_args!("{}IN={} OUT={} ", entry.prefix, port(entry.input), port(entry.output)));
    if entry.input.is_some() {
        link_header(&mut out, entry);
    }
    let packet = Bytes { kept: &entry.packet, length: entry.length.into() };
    match entry.family {
        Family::V4 => ipv4::packet(&mut out, &packet, 0, entry),
        Family::V6 => ipv6::packet(&mut out, &packet, 0, entry),
    }
    out.0
}

/// An audit record about a packet, as the kernel prints it when no audit daemon listens:
/// with its time since 1970 and its number.
pub fn audit(record: &LogRecord<'_>, wall: Nanos, number: u64) -> String {
    let (seconds, millis) = (wall.0 / 1_000_000_000, wall.0 / 1_000_000 % 1000);
    let facts = audit_facts(record);
    format!("audit: type={AUDIT_PACKET} audit({seconds}.{millis:03}:{number}): {facts}")
}

/// What an audit record says of a packet.
pub fn audit_facts(record: &LogRecord<'_>) -> String {
    let parsed = record.parsed;
    let address = |bits: u128| match parsed.family {
        Family::V4 => Ipv4Addr::from_bits(bits as u32).to_string(),
        Family::V6 => Ipv6Addr::from_bits(bits).to_string(),
    };
    let (src, dst) = (address(parsed.src), address(parsed.dst));
    format!("mark=0x{:x} saddr={src} daddr={dst} proto={}", record.mark, parsed.proto)
}

/// The ends that both families' lines have: the sender and the mark.
fn ending(out: &mut Line, entry: &Entry) {
    if let Some(owner) = entry.owner.filter(|_| entry.switches.uid) {
        out.put(format_args!("UID={} ", owner.uid));
        if let Some(gid) = owner.gid {
            out.put(format_args!("GID={gid} "));
        }
    }
    if entry.mark != 0 {
        out.put(format_args!("MARK=0x{:x} ", entry.mark));
    }
}

fn link_header(out: &mut Line, entry: &Entry) {
    match entry.link {
        None if entry.input == Some(PortId::LOOPBACK) => {
            let kind = if entry.family == Family::V4 { "08:00" } else { "86:dd" };
            out.put(format_args!("MAC={}:{kind} ", Colons(&[0; 12])));
        }
        None => out.put(format_args!("MAC= ")),
        Some(header) if entry.switches.mac_decode => {
            let (dst, src, kind) = (&header[..6], &header[6..12], &header[12..]);
            out.put(format_args!("MACSRC={} MACDST={} ", Colons(src), Colons(dst)));
            out.put(format_args!("MACPROTO={:02x}{:02x} ", kind[0], kind[1]));
        }
        Some(header) => out.put(format_args!("MAC={} ", Colons(&header))),
    }
}

/// A line of bounded length.
struct Line(String);

impl Line {
    fn put(&mut self, text: fmt::Arguments<'_>) {
        if self.0.len() < LINE {
            // A string takes all that is written to it.
            let _ = self.0.write_fmt(text);
            if self.0.len() > LINE {
                let end = (0..=LINE).rev().find(|&at| self.0.is_char_boundary(at));
                self.0.truncate(end.unwrap_or(0));
            }
        }
    }

    /// Bytes as pairs of upper-case digits, in the kernel's parentheses.
    fn options(&mut self, bytes: &[u8]) {
        self.put(format_args!("OPT ("));
        for byte in bytes {
            self.put(format_args!("{byte:02X}"));
        }
        self.put(format_args!(") "));
    }
}

/// The IP packet: the bytes kept of it, and its real length.
struct Bytes<'a> {
    kept: &'a [u8],
    length: usize,
}

impl<'a> Bytes<'a> {
    /// `length` bytes from `at` on, if the packet has them.
    fn get(&self, at: usize, length: usize) -> Option<&'a [u8]> {
        self.kept.get(at..at.checked_add(length)?)
    }
    /// Bytes of the packet from `at` on, as the kernel counts them: modulo 2^32.
    fn left(&self, at: usize) -> u32 {
        (self.length as u32).wrapping_sub(at as u32)
    }
}

/// Bytes of a link-layer header as pairs of digits with colons between them.
struct Colons<'a>(&'a [u8]);

impl fmt::Display for Colons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // At once: a formatted byte each costs more than all the rest of a line.
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble & 15)]);
        let mut text = ArrayString::<{ 3 * LINK }>::new();
        for byte in self.0.iter().take(LINK) {
            if !text.is_empty() {
                text.push(':');
            }
            text.push(digit(byte >> 4));
            text.push(digit(*byte));
        }
        f.write_str(&text)
    }
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from(be16(bytes, at)) << 16 | u32::from(be16(bytes, at + 2))
}
