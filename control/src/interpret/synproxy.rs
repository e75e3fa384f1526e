//! Which packets a SYNPROXY rule takes.

use dataplane::packet::Family;

use super::packet::{Packet, Proto};

/// What becomes of a packet that meets the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// It ends here.
    Taken,
    /// The walk goes on.
    Passed,
    /// It is dropped: its TCP header or its checksum is wrong.
    Dropped,
}

pub(super) fn call(packet: &Packet<'_>) -> Call {
    let segment = &packet.layer4[..];
    let header = segment.get(12).map_or(0, |byte| usize::from(byte >> 4) * 4);
    let readable = packet.proto == Proto::Known(6)
        && packet.fragment_offset == 0
        && segment.len() >= 20
        && (20..=segment.len()).contains(&header);
    if !readable || checksum(packet) != 0xffff {
        return Call::Dropped;
    }
    // FIN, SYN, RST, ACK.
    match segment[13] & 0x17 {
        0x02 | 0x10 => Call::Taken,
        _ => Call::Passed,
    }
}

/// The sum over the segment and its pseudo header: all ones when right.
fn checksum(packet: &Packet<'_>) -> u16 {
    let addresses = match packet.family {
        Family::V4 => {
            [(packet.src as u32).to_be_bytes(), (packet.dst as u32).to_be_bytes()].concat()
        }
        Family::V6 => [packet.src.to_be_bytes(), packet.dst.to_be_bytes()].concat(),
    };
    let length = (packet.layer4.len() as u32).to_be_bytes();
    let mut bytes = [&addresses[..], &length, &[0, 6], &packet.layer4].concat();
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + u32::from(pair[1]);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
