//! The IPv4 part of a line.

use std::net::Ipv4Addr;

use dataplane::wire::proto;

use super::transport::{Onward, incomplete, tcp, udp};
use super::{Bytes, Entry, Line, be16, be32, ending};

/// The packet at `at`: zero, or inside an ICMP error.
pub(super) fn packet(out: &mut Line, bytes: &Bytes<'_>, at: usize, entry: &Entry) {
    let Some(header) = bytes.get(at, 20) else {
        out.put(format_args!("TRUNCATED"));
        return;
    };
    addresses_and_fields(out, header);
    let length = usize::from(header[0] & 15) * 4;
    if entry.switches.ip_options && length > 20 {
        let Some(options) = bytes.get(at + 20, length - 20) else {
            out.put(format_args!("TRUNCATED"));
            return;
        };
        out.options(options);
    }
    let later = be16(header, 6) & 0x1fff != 0;
    let upper = at + length;
    let onward = match header[9] {
        proto::TCP => tcp(out, bytes, upper, later, entry.switches),
        proto::UDP => udp(out, bytes, upper, later, "UDP"),
        proto::UDPLITE => udp(out, bytes, upper, later, "UDPLITE"),
        proto::ICMP => {
            out.put(format_args!("PROTO=ICMP "));
            if !later {
                icmp(out, bytes, upper, at == 0, entry);
            }
            Onward::Yes
        }
        // The kernel does not even name later fragments of AH.
        proto::AH if later => Onward::Yes,
        proto::AH => security(out, bytes, upper, later, ("AH", 12, 4)),
        proto::ESP => security(out, bytes, upper, later, ("ESP", 8, 0)),
        number => {
            out.put(format_args!("PROTO={number} "));
            Onward::Yes
        }
    };
    if onward == Onward::Yes && at == 0 {
        ending(out, entry);
    }
}

fn addresses_and_fields(out: &mut Line, header: &[u8]) {
    let (src, dst) = (Ipv4Addr::from(be32(header, 12)), Ipv4Addr::from(be32(header, 16)));
    out.put(format_args!("SRC={src} DST={dst} "));
    let (length, tos, id) = (be16(header, 2), header[1], be16(header, 4));
    out.put(format_args!("LEN={length} TOS=0x{:02X} ", tos & 0x1e));
    out.put(format_args!("PREC=0x{:02X} TTL={} ID={id} ", tos & 0xe0, header[8]));
    let word = be16(header, 6);
    for (bit, name) in [(0x8000, "CE"), (0x4000, "DF"), (0x2000, "MF")] {
        if word & bit != 0 {
            out.put(format_args!("{name} "));
        }
    }
    if word & 0x1fff != 0 {
        out.put(format_args!("FRAG:{} ", word & 0x1fff));
    }
}

/// AH or ESP: name, header length, and where the SPI stands.
fn security(
    out: &mut Line,
    bytes: &Bytes<'_>,
    at: usize,
    later: bool,
    (name, length, spi): (&str, usize, usize),
) -> Onward {
    out.put(format_args!("PROTO={name} "));
    match bytes.get(at, length) {
        _ if later => {}
        Some(header) => out.put(format_args!("SPI=0x{:x} ", be32(header, spi))),
        None => incomplete(out, bytes, at),
    }
    Onward::Yes
}

/// Bytes that a type needs before more than type and code is shown.
fn required(kind: u8) -> u32 {
    match kind {
        0 | 8 => 4,
        3 | 4 | 5 | 11 | 12 => 8 + 20,
        13 | 14 => 20,
        17 | 18 => 12,
        _ => 0,
    }
}

fn icmp(out: &mut Line, bytes: &Bytes<'_>, at: usize, outer: bool, entry: &Entry) {
    let Some(header) = bytes.get(at, 8) else { return incomplete(out, bytes, at) };
    let (kind, code) = (header[0], header[1]);
    out.put(format_args!("TYPE={kind} CODE={code} "));
    if bytes.left(at) < required(kind) {
        return incomplete(out, bytes, at);
    }
    match kind {
        0 | 8 => out.put(format_args!("ID={} SEQ={} ", be16(header, 4), be16(header, 6))),
        12 => out.put(format_args!("PARAMETER={} ", header[4])),
        3 | 4 | 5 | 11 => {
            if kind == 5 {
                let gateway = Ipv4Addr::from(be32(header, 4));
                out.put(format_args!("GATEWAY={gateway} "));
            }
            if outer {
                out.put(format_args!("["));
                packet(out, bytes, at + 8, entry);
                out.put(format_args!("] "));
            }
            if (kind, code) == (3, 4) {
                out.put(format_args!("MTU={} ", be16(header, 6)));
            }
        }
        _ => {}
    }
}
