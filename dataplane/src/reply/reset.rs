//! TCP resets of REJECT.

use super::{About, Ipv4Header, ipv6_header, is_group_v4, is_group_v6, transport_sums_up};
use crate::packet::{Family, Fragment};
use crate::wire::tcp::flags;
use crate::wire::{be16, be32, checksum, ipv4, ipv6, proto, put16, put32, tcp};

/// Writes the reset that answers a segment into `out` as an IP packet and
/// returns its length. `None` when none may be sent, or `out` is too short: the
/// packet is no TCP, a later fragment, a reset itself, has a wrong checksum, or
/// goes to or comes from a group.
pub fn tcp(out: &mut [u8], about: &About<'_>) -> Option<usize> {
    let parsed = about.parsed;
    let segment = parsed.l4_bytes(about.frame);
    if parsed.proto != proto::TCP
        || matches!(parsed.fragment, Fragment::Later { .. })
        || segment.len() < tcp::HEADER
        || segment[13] & flags::RST != 0
        || about.group
    {
        return None;
    }
    let (src, dst) = (parsed.dst, parsed.src);
    let summed = about.summed && parsed.family == Family::V4;
    if !summed && !transport_sums_up(about) {
        return None;
    }
    let header = match parsed.family {
        Family::V4 => 20,
        Family::V6 => ipv6::HEADER,
    };
    let total = header + tcp::HEADER;
    let out = out.get_mut(..total)?;
    match parsed.family {
        Family::V4 if is_group_v4(src as u32) || is_group_v4(dst as u32) => return None,
        Family::V6 if is_group_v6(src) || is_group_v6(dst) || src == 0 || dst == 0 => return None,
        Family::V4 => Ipv4Header {
            options: &[],
            tos: 0,
            total,
            id: 0,
            fragment_word: ipv4::DF,
            protocol: proto::TCP,
            src: src as u32,
            dst: dst as u32,
        }
        .emit(out),
        Family::V6 => ipv6_header(out, proto::TCP, tcp::HEADER, src, dst),
    }
    let answer = &mut out[header..];
    put_segment(answer, segment);
    let sum = checksum::transport(parsed.family, src, dst, proto::TCP, answer);
    put16(answer, 16, sum);
    Some(total)
}

/// The reset's header, checksum zero: it continues at what the segment
/// acknowledges, or else acknowledges all that the segment occupies.
fn put_segment(answer: &mut [u8], segment: &[u8]) {
    answer.fill(0);
    put16(answer, 0, be16(segment, 2));
    put16(answer, 2, be16(segment, 0));
    answer[12] = 5 << 4;
    let given = segment[13];
    if given & flags::ACK != 0 {
        put32(answer, 4, be32(segment, 8));
        answer[13] = flags::RST;
    } else {
        let header = u32::from(segment[12] >> 4) * 4;
        let occupied = (segment.len() as u32).wrapping_sub(header);
        let phantom = (given & flags::SYN != 0) as u32 + (given & flags::FIN != 0) as u32;
        let ack = be32(segment, 4).wrapping_add(occupied).wrapping_add(phantom);
        put32(answer, 8, ack);
        answer[13] = flags::RST | flags::ACK;
    }
}
