//! ICMP and ICMPv6 errors: when they may be sent, and their bytes.

use super::{About, Ipv4Header, Message, Origin, ipv6_header, is_group_v4, is_group_v6};
use crate::packet::{Family, Fragment, Parsed, PktType};
use crate::wire::{checksum, icmp, icmpv6, ipv6, proto, put16, put32, tcp};

/// Longest IPv4 error in bytes, header included.
const MAX_V4: usize = 576;
/// Longest IPv6 error in bytes, header included.
const MAX_V6: usize = 1280;
/// Bytes of the ICMP header.
const HEADER: usize = 8;

/// Writes an error about a packet into `out` as an IP packet and returns its
/// length; `None` when none may be sent, or `out` is too short.
pub fn error(
    out: &mut [u8],
    about: &About<'_>,
    message: Message,
    origin: &Origin,
) -> Option<usize> {
    if !may_answer(about, message) {
        return None;
    }
    match about.parsed.family {
        Family::V4 => error_v4(out, about, message, origin),
        Family::V6 => error_v6(out, about, message, origin),
    }
}

/// Whether an error about this packet may be sent at all.
pub fn may_answer(about: &About<'_>, message: Message) -> bool {
    match about.parsed.family {
        Family::V4 => may_answer_v4(about),
        Family::V6 => may_answer_v6(about, message),
    }
}

fn may_answer_v4(about: &About<'_>) -> bool {
    let parsed = about.parsed;
    let (src, dst) = (parsed.src as u32, parsed.dst as u32);
    if parsed.pkt_type != PktType::Host || about.group || is_group_v4(dst) {
        return false;
    }
    if src == 0 || is_group_v4(src) || matches!(parsed.fragment, Fragment::Later { .. }) {
        return false;
    }
    let quoted_type = parsed.l4_bytes(about.frame).first();
    parsed.proto != proto::ICMP || quoted_type.is_some_and(|&kind| is_query_v4(kind))
}

/// Types that are no errors. Unknown ones count as errors, and so do router
/// advertisements and solicitations (9, 10), which no router passes on.
fn is_query_v4(kind: u8) -> bool {
    matches!(kind, 0 | 8 | 13..=icmp::kind::MAX)
}

fn may_answer_v6(about: &About<'_>, message: Message) -> bool {
    let parsed = about.parsed;
    let group = is_group_v6(parsed.dst) || about.group || parsed.pkt_type != PktType::Host;
    let to_groups_too = message.kind == icmpv6::kind::TOO_BIG || reported_to_groups(about, message);
    if group && !to_groups_too || parsed.src == 0 || is_group_v6(parsed.src) {
        return false;
    }
    if matches!(parsed.fragment, Fragment::Later { .. }) || parsed.proto != proto::ICMPV6 {
        return true;
    }
    match parsed.l4_bytes(about.frame).first() {
        Some(&kind) => !icmpv6::is_error(kind),
        None => parsed.fragment != Fragment::Whole,
    }
}

/// Whether an IPv6 error is about an option of the type that asks for a report
/// also when the packet went to a group.
fn reported_to_groups(about: &About<'_>, message: Message) -> bool {
    let unknown = message.kind == icmpv6::kind::PARAMETER_PROBLEM && message.code == 2;
    let option = about.parsed.l3_bytes(about.frame).get(message.word as usize);
    unknown && option.is_some_and(|kind| kind >> 6 == 2)
}

fn error_v4(out: &mut [u8], about: &About<'_>, message: Message, origin: &Origin) -> Option<usize> {
    let original = about.parsed.l3_bytes(about.frame);
    let top = 20 + about.options.len();
    let room = (origin.mtu as usize).min(MAX_V4).checked_sub(top + HEADER)?;
    if room <= 20 {
        return None;
    }
    let quoted = &original[..original.len().min(room)];
    let total = top + HEADER + quoted.len();
    let out = out.get_mut(..total)?;
    let header = Ipv4Header {
        options: about.options,
        tos: about.parsed.tos & 0x1e | 0xc0,
        total,
        id: origin.id,
        fragment_word: 0,
        protocol: proto::ICMP,
        src: origin.source as u32,
        dst: about.parsed.src as u32,
    };
    header.emit(out);
    let body = &mut out[top..];
    put_message(body, about, message, quoted);
    let sum = checksum::internet(body);
    put16(body, 2, sum);
    Some(total)
}

fn error_v6(out: &mut [u8], about: &About<'_>, message: Message, origin: &Origin) -> Option<usize> {
    let original = about.parsed.l3_bytes(about.frame);
    let quoted = &original[..original.len().min(MAX_V6 - ipv6::HEADER - HEADER)];
    let length = HEADER + quoted.len();
    let out = out.get_mut(..ipv6::HEADER + length)?;
    let (src, dst) = (origin.source, about.parsed.src);
    ipv6_header(out, proto::ICMPV6, length, src, dst);
    let body = &mut out[ipv6::HEADER..];
    put_message(body, about, message, quoted);
    let sum = checksum::transport(Family::V6, src, dst, proto::ICMPV6, body);
    put16(body, 2, sum);
    Some(ipv6::HEADER + length)
}

fn put_message(body: &mut [u8], about: &About<'_>, message: Message, quoted: &[u8]) {
    (body[0], body[1]) = (message.kind, message.code);
    put16(body, 2, 0);
    put32(body, 4, message.word);
    let body = &mut body[HEADER..];
    body.copy_from_slice(quoted);
    let Parsed { family, src, dst, l3, l4, l4_len, .. } = *about.parsed;
    let sum_at = usize::from(l4 - l3) + tcp::CHECKSUM;
    if about.half_summed && sum_at + 2 <= body.len() {
        let sum = checksum::pseudo(family, src, dst, proto::TCP, l4_len.into());
        put16(body, sum_at, !checksum::finish(sum));
    }
}
