//! The IPv6 part of a line.

use dataplane::wire::proto;

use super::transport::{Onward, incomplete, tcp, udp};
use super::{Bytes, Entry, Line, be16, be32, ending};

/// The packet at `at`: zero, or inside an ICMPv6 error.
pub(super) fn packet(out: &mut Line, bytes: &Bytes<'_>, at: usize, entry: &Entry) {
    let Some(header) = bytes.get(at, 40) else {
        out.put(format_args!("TRUNCATED"));
        return;
    };
    address(out, "SRC", &header[8..24]);
    address(out, "DST", &header[24..40]);
    let first = be32(header, 0);
    let length = u32::from(be16(header, 4)) + 40;
    out.put(format_args!("LEN={length} TC={} ", first >> 20 & 0xff));
    out.put(format_args!("HOPLIMIT={} FLOWLBL={} ", header[7], first & 0xf_ffff));
    let Some(upper) = extensions(out, bytes, at + 40, header[6], entry) else { return };
    let onward = match upper.proto {
        proto::TCP => tcp(out, bytes, upper.at, upper.later, entry.switches),
        proto::UDP => udp(out, bytes, upper.at, upper.later, "UDP"),
        proto::UDPLITE => udp(out, bytes, upper.at, upper.later, "UDPLITE"),
        proto::ICMPV6 => {
            out.put(format_args!("PROTO=ICMPv6 "));
            match upper.later {
                true => Onward::Yes,
                false => icmp(out, bytes, upper.at, at == 0, entry),
            }
        }
        number => {
            out.put(format_args!("PROTO={number} "));
            Onward::Yes
        }
    };
    if onward == Onward::Yes && at == 0 {
        ending(out, entry);
    }
}

fn address(out: &mut Line, label: &str, address: &[u8]) {
    out.put(format_args!("{label}="));
    for (index, group) in address.chunks_exact(2).enumerate() {
        let colon = if index == 0 { "" } else { ":" };
        out.put(format_args!("{colon}{:02x}{:02x}", group[0], group[1]));
    }
    out.put(format_args!(" "));
}

/// Where the chain of extension headers leads.
struct Upper {
    proto: u8,
    at: usize,
    later: bool,
}

/// Shows the chain; `None` when the line ends in it.
fn extensions(
    out: &mut Line,
    bytes: &Bytes<'_>,
    mut at: usize,
    mut next: u8,
    entry: &Entry,
) -> Option<Upper> {
    let verbose = entry.switches.ip_options;
    let mut later = false;
    loop {
        let extension = matches!(
            next,
            proto::HOP_BY_HOP
                | proto::ROUTING
                | proto::FRAGMENT
                | proto::ESP
                | proto::AH
                | proto::DESTINATION
        );
        if !extension {
            return Some(Upper { proto: next, at, later });
        }
        let Some(start) = bytes.get(at, 2) else {
            out.put(format_args!("TRUNCATED"));
            return None;
        };
        if verbose {
            out.put(format_args!("OPT ( "));
        }
        let length = match next {
            proto::FRAGMENT => {
                later |= fragment(out, bytes, at)?;
                8
            }
            proto::AH => {
                if verbose {
                    security(out, bytes, at, later, ("AH", 12, 4))?;
                }
                (usize::from(start[1]) + 2) * 4
            }
            proto::ESP => {
                if verbose && security(out, bytes, at, later, ("ESP", 8, 0)).is_some() {
                    out.put(format_args!(")"));
                }
                return None;
            }
            _ if later => {
                out.put(format_args!("{}", if verbose { ")" } else { "" }));
                return None;
            }
            _ => (usize::from(start[1]) + 1) * 8,
        };
        if verbose {
            out.put(format_args!(") "));
        }
        (next, at) = (start[0], at + length);
    }
}

/// Shows a fragment header; whether it is a later fragment's.
fn fragment(out: &mut Line, bytes: &Bytes<'_>, at: usize) -> Option<bool> {
    out.put(format_args!("FRAG:"));
    let Some(header) = bytes.get(at, 8) else {
        out.put(format_args!("TRUNCATED "));
        return None;
    };
    let word = be16(header, 2);
    out.put(format_args!("{} ", word & 0xfff8));
    if word & 1 != 0 {
        out.put(format_args!("INCOMPLETE "));
    }
    out.put(format_args!("ID:{:08x} ", be32(header, 4)));
    Some(word & 0xfff8 != 0)
}

/// Shows AH or ESP: name, header length, and where the SPI stands. `None`
/// when the line ends.
fn security(
    out: &mut Line,
    bytes: &Bytes<'_>,
    at: usize,
    later: bool,
    (name, length, spi): (&str, usize, usize),
) -> Option<()> {
    out.put(format_args!("{name} "));
    if later {
        out.put(format_args!(")"));
        return None;
    }
    let Some(header) = bytes.get(at, length) else {
        out.put(format_args!("INCOMPLETE [{} bytes] )", bytes.left(at)));
        return None;
    };
    out.put(format_args!("SPI=0x{:x} ", be32(header, spi)));
    Some(())
}

fn icmp(out: &mut Line, bytes: &Bytes<'_>, at: usize, outer: bool, entry: &Entry) -> Onward {
    let Some(header) = bytes.get(at, 8) else {
        incomplete(out, bytes, at);
        return Onward::No;
    };
    let kind = header[0];
    out.put(format_args!("TYPE={kind} CODE={} ", header[1]));
    match kind {
        128 | 129 => out.put(format_args!("ID={} SEQ={} ", be16(header, 4), be16(header, 6))),
        1..=4 => {
            if kind == 4 {
                out.put(format_args!("POINTER={:08x} ", be32(header, 4)));
            }
            if outer {
                out.put(format_args!("["));
                packet(out, bytes, at + 8, entry);
                out.put(format_args!("] "));
            }
            if kind == 2 {
                out.put(format_args!("MTU={} ", be32(header, 4)));
            }
        }
        _ => {}
    }
    Onward::Yes
}
