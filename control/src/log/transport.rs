//! The TCP, UDP and IPsec parts of a line, the same for both families.

use super::{Bytes, Line, Switches, be16, be32};

/// Whether the line goes on after a part. The kernel stops at a header that is cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Onward {
    /// It goes on.
    Yes,
    /// It ends here.
    No,
}

/// `INCOMPLETE [n bytes] `.
pub(super) fn incomplete(out: &mut Line, packet: &Bytes<'_>, at: usize) {
    out.put(format_args!("INCOMPLETE [{} bytes] ", packet.left(at)));
}

/// TCP at `at`; a later fragment shows its name only.
pub(super) fn tcp(
    out: &mut Line,
    packet: &Bytes<'_>,
    at: usize,
    later: bool,
    switches: Switches,
) -> Onward {
    out.put(format_args!("PROTO=TCP "));
    if later {
        return Onward::Yes;
    }
    let Some(header) = packet.get(at, 20) else {
        incomplete(out, packet, at);
        return Onward::No;
    };
    out.put(format_args!("SPT={} DPT={} ", be16(header, 0), be16(header, 2)));
    if switches.tcp_sequence {
        out.put(format_args!("SEQ={} ACK={} ", be32(header, 4), be32(header, 8)));
    }
    out.put(format_args!("WINDOW={} ", be16(header, 14)));
    out.put(format_args!("RES=0x{:02x} ", reserved(header[12])));
    if header[12] & 1 != 0 {
        out.put(format_args!("AE "));
    }
    let flags = ["CWR", "ECE", "URG", "ACK", "PSH", "RST", "SYN", "FIN"];
    for (bit, name) in flags.iter().enumerate() {
        if header[13] & 0x80 >> bit != 0 {
            out.put(format_args!("{name} "));
        }
    }
    out.put(format_args!("URGP={} ", be16(header, 18)));
    let length = usize::from(header[12] >> 4) * 4;
    if switches.tcp_options && length > 20 {
        let Some(options) = packet.get(at + 20, length - 20) else {
            out.put(format_args!("OPT (TRUNCATED)"));
            return Onward::No;
        };
        out.options(options);
    }
    Onward::Yes
}

/// The reserved bits of a header's thirteenth byte, where the kernel shows
/// them. Its lowest bit is no longer reserved: it is the AE flag (accurate ECN).
fn reserved(byte: u8) -> u8 {
    (byte & 0x0e) << 2
}

/// UDP or UDP-Lite at `at`.
pub(super) fn udp(
    out: &mut Line,
    packet: &Bytes<'_>,
    at: usize,
    later: bool,
    name: &str,
) -> Onward {
    out.put(format_args!("PROTO={name} "));
    if later {
        return Onward::Yes;
    }
    let Some(header) = packet.get(at, 8) else {
        incomplete(out, packet, at);
        return Onward::No;
    };
    let (sport, dport, length) = (be16(header, 0), be16(header, 2), be16(header, 4));
    out.put(format_args!("SPT={sport} DPT={dport} LEN={length} "));
    Onward::Yes
}
