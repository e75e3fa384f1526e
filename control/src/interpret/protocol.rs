//! Matches on other transports and extension headers.

use std::collections::BTreeSet;

use dataplane::packet::Family;
use dataplane::policy::matches::{AddressMask, Neg, Range};
use dataplane::policy::protocol::{
    AhMatch, ChunkScope, DccpMatch, EcnMatch, FragMatch, Ipv6HeaderMatch, OptionsMatch,
    ProtocolMatch, RtMatch, SctpChunks, SctpMatch, SrhCompare, SrhMatch, extension,
};

use super::Subject;
use super::matching::{Actual, At, Compared};

pub(super) fn compare(at: At, wanted: &ProtocolMatch, subject: &Subject<'_>) -> Compared {
    let ip = &subject.packet.whole[..];
    match wanted {
        ProtocolMatch::Sctp(sctp) => sctp_match(at, sctp, subject),
        ProtocolMatch::Dccp(dccp) => dccp_match(at, dccp, subject),
        ProtocolMatch::Ah(ah) => ah_match(at, ah, subject),
        ProtocolMatch::Esp(spi) => {
            let header = transport(at, subject, 8, "ESP header")?;
            in_range(at, spi, be32(header, 0), "--espspi")
        }
        ProtocolMatch::Ipcomp(ipcomp) => {
            let header = transport(at, subject, 4, "IPComp header")?;
            in_range(at, &Some(ipcomp.cpi), be16(header, 2), "--ipcompspi")
        }
        ProtocolMatch::TcpMss(mss) => tcp_mss(at, *mss, subject),
        ProtocolMatch::Ecn(ecn) => ecn_match(at, ecn, subject),
        ProtocolMatch::Eui64 => eui64(at, subject),
        ProtocolMatch::Ipv6Header(wanted) => ipv6_header(at, *wanted, ip),
        ProtocolMatch::Rt(rt) => rt_match(at, rt, ip),
        ProtocolMatch::Options(options) => options_match(at, options, ip),
        ProtocolMatch::Frag(frag) => frag_match(at, frag, ip),
        ProtocolMatch::Mh(kinds) => {
            let header = transport(at, subject, 6, "mobility header")?;
            if header[0] != 59 {
                return at.hotdrop("something behind the mobility header");
            }
            in_range(at, &kinds.map(widen), u32::from(header[2]), "--mh-type")
        }
        ProtocolMatch::Srh(srh) => srh_match(at, srh, ip),
    }
}

fn be16(bytes: &[u8], at: usize) -> u32 {
    u32::from(bytes[at]) * 256 + u32::from(bytes[at + 1])
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    be16(bytes, at) * 65_536 + be16(bytes, at + 2)
}

fn address(bytes: &[u8], at: usize) -> u128 {
    (0..4).fold(0, |value, word| value << 32 | u128::from(be32(bytes, at + 4 * word)))
}

fn widen<T: Into<u32>>(range: Neg<Range<T>>) -> Neg<Range<u32>> {
    let Neg { negated, value: Range { low, high } } = range;
    Neg { negated, value: Range { low: low.into(), high: high.into() } }
}

fn in_range(at: At, wanted: &Option<Neg<Range<u32>>>, x: u32, option: &'static str) -> Compared {
    at.operand(wanted, |range| range.low <= x && x <= range.high, option, Actual::Number(x))
}

fn equal(at: At, wanted: &Option<Neg<u32>>, x: u32, option: &'static str) -> Compared {
    at.operand(wanted, |value| *value == x, option, Actual::Number(x))
}

/// The transport header of a first fragment, at least so long.
fn transport<'s>(
    at: At,
    subject: &'s Subject<'_>,
    least: usize,
    what: &'static str,
) -> Result<&'s [u8], super::Mismatch> {
    if subject.packet.fragment_offset > 0 {
        at.fail("later fragment", Actual::Absent)?;
    }
    if subject.packet.layer4.len() < least {
        at.hotdrop(what)?;
    }
    Ok(&subject.packet.layer4)
}

fn sctp_match(at: At, sctp: &SctpMatch, subject: &Subject<'_>) -> Compared {
    let header = transport(at, subject, 12, "SCTP header")?;
    in_range(at, &sctp.sport.map(widen), be16(header, 0), "--sport")?;
    in_range(at, &sctp.dport.map(widen), be16(header, 2), "--dport")?;
    let Some(Neg { negated, value }) = &sctp.chunks else { return Ok(()) };
    let Some(holds) = chunk_types(value, header) else {
        return at.unread("SCTP chunks", *negated);
    };
    at.need(holds != *negated, "--chunk-types", Actual::State("other chunks"))
}

/// `None` where a chunk that must be read cannot be.
fn chunk_types(wanted: &SctpChunks, packet: &[u8]) -> Option<bool> {
    let mut met = BTreeSet::new();
    let mut at = 12;
    while at == 12 || at < packet.len() {
        let header = packet.get(at..at + 4)?;
        let (kind, flags, length) = (header[0], header[1], be16(header, 2) as usize);
        if length == 0 {
            return None;
        }
        let asked = wanted.flags.iter().find(|asked| asked.kind == kind);
        let fits = wanted.names(kind) && asked.is_none_or(|a| flags & a.mask == a.set);
        match (wanted.scope, fits) {
            (ChunkScope::Any, true) => return Some(true),
            (ChunkScope::Only, false) => return Some(false),
            (_, true) => {
                met.insert(kind);
            }
            (_, false) => {}
        }
        at += length.div_ceil(4) * 4;
    }
    Some(match wanted.scope {
        ChunkScope::Any => false,
        ChunkScope::Only => true,
        ChunkScope::All => (0..=255).all(|kind| !wanted.names(kind) || met.contains(&kind)),
    })
}

fn dccp_match(at: At, dccp: &DccpMatch, subject: &Subject<'_>) -> Compared {
    let header = transport(at, subject, 12, "DCCP header")?;
    in_range(at, &dccp.sport.map(widen), be16(header, 0), "--sport")?;
    in_range(at, &dccp.dport.map(widen), be16(header, 2), "--dport")?;
    let kind = header[8] / 2 % 16;
    let listed = |types: &u16| types & 1 << kind.min(10) != 0;
    at.operand(&dccp.types, listed, "--dccp-types", Actual::Number(u32::from(kind)))?;
    let Some(wanted) = dccp.option else { return Ok(()) };
    // Request; data; those that acknowledge; response, reset and what is no type.
    let more = match kind {
        0 => 4,
        2 => 0,
        3 | 4 | 5 | 6 | 8 | 9 => 8,
        _ => 12,
    };
    let start = if header[8] % 2 == 1 { 16 } else { 12 } + more;
    let end = usize::from(header[4]) * 4;
    if end < start || end > start && end > header.len() {
        return at.unread("DCCP options", wanted.negated);
    }
    let options = if end == start { &[] } else { &header[start..end] };
    let holds = each_option(options).any(|(kind, _)| kind == wanted.value);
    at.need(holds != wanted.negated, "--dccp-option", Actual::State("other options"))
}

/// Kinds of TCP-like options, each with the bytes from it on.
fn each_option(options: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = options;
    std::iter::from_fn(move || {
        let here = rest;
        let size = match *here {
            [] => return None,
            [0 | 1, ..] | [_] | [_, 0, ..] => 1,
            [_, size, ..] => usize::from(size),
        };
        rest = &here[size.min(here.len())..];
        Some((here[0], here))
    })
}

fn ah_match(at: At, ah: &AhMatch, subject: &Subject<'_>) -> Compared {
    let header = match subject.packet.family {
        Family::V4 => transport(at, subject, 12, "AH")?,
        Family::V6 => extension_header(at, &subject.packet.whole, 51, "-m ah")?,
    };
    let length = u32::from(header.get(1).copied().unwrap_or(0)) * 4 + 8;
    let bounded = subject.packet.family == Family::V6;
    if header.len() < 12 || bounded && header.len() < length as usize {
        return at.hotdrop("AH");
    }
    in_range(at, &ah.spi, be32(header, 4), "--ahspi")?;
    if ah.length.is_some_and(|length| length.value > 0) {
        equal(at, &ah.length, length, "--ahlen")?;
    }
    let reserved = be16(header, 2);
    at.need(!ah.reserved || reserved == 0, "--ahres", Actual::Number(reserved))
}

/// What is taken for a TCP header: in later fragments of IPv4 their data, of IPv6
/// the packet's first header.
fn tcp_of<'s>(subject: &'s Subject<'_>) -> &'s [u8] {
    let packet = &subject.packet;
    match (packet.fragment_offset, packet.family) {
        (0, _) => &packet.layer4,
        (_, Family::V4) => &packet.whole[usize::from(packet.whole[0] % 16) * 4..],
        (_, Family::V6) => &packet.whole,
    }
}

fn tcp_mss(at: At, wanted: Neg<Range<u16>>, subject: &Subject<'_>) -> Compared {
    let tcp = tcp_of(subject);
    if tcp.len() < 20 {
        return at.hotdrop("TCP header");
    }
    let end = usize::from(tcp[12] / 16) * 4;
    if end < 20 || end > tcp.len() {
        return at.hotdrop("TCP options");
    }
    let told = each_option(&tcp[20..end])
        .find(|(_, bytes)| bytes.len() >= 4 && bytes[..2] == [2, 4])
        .map(|(_, bytes)| be16(bytes, 2));
    let Some(told) = told else {
        return at.need(wanted.negated, "--mss", Actual::State("none"));
    };
    in_range(at, &Some(widen(wanted)), told, "--mss")
}

fn ecn_match(at: At, ecn: &EcnMatch, subject: &Subject<'_>) -> Compared {
    let ect = u32::from(subject.packet.tos % 4);
    let wanted = ecn.ect.map(|ect| Neg { negated: ect.negated, value: u32::from(ect.value) });
    equal(at, &wanted, ect, "--ecn-ip-ect")?;
    if ecn.ece.is_none() && ecn.cwr.is_none() {
        return Ok(());
    }
    let tcp = tcp_of(subject);
    if tcp.len() < 20 {
        return at.fail("--ecn-tcp-ece", Actual::State("no TCP header"));
    }
    let flags = Actual::Bits(u32::from(tcp[13]));
    let (cwr, ece) = (tcp[13] >= 0x80, tcp[13] % 0x80 >= 0x40);
    at.need(ecn.ece.is_none_or(|wanted| wanted == ece), "--ecn-tcp-ece", flags)?;
    at.need(ecn.cwr.is_none_or(|wanted| wanted == cwr), "--ecn-tcp-cwr", flags)
}

fn eui64(at: At, subject: &Subject<'_>) -> Compared {
    let packet = &subject.packet;
    let mac = if subject.has_link_header { packet.source_mac } else { [0; 6] };
    let made = [mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]];
    at.need(packet.src.to_be_bytes()[8..] == made, "-m eui64", Actual::Address(packet.src))
}

/// The bytes from the first extension header of that type on.
fn extension_header<'p>(
    at: At,
    ip: &'p [u8],
    kind: u8,
    option: &'static str,
) -> Result<&'p [u8], super::Mismatch> {
    let (mut here, mut place) = (ip[6], 40);
    while [0, 43, 44, 51, 60].contains(&here) {
        let least = if [43, 44].contains(&here) { 4 } else { 2 };
        if place + least > ip.len() {
            at.hotdrop("extension headers")?;
        }
        let header = &ip[place..];
        if here == kind {
            return Ok(header);
        }
        place += match here {
            44 if be16(header, 2) >= 8 => break,
            44 => 8,
            51 => usize::from(header[1]) * 4 + 8,
            _ => usize::from(header[1]) * 8 + 8,
        };
        here = header[0];
    }
    at.fail(option, Actual::State("no such header"))?;
    unreachable!("a failure was returned")
}

/// The same, cut at the end that its length field tells.
fn bounded_header<'p>(
    at: At,
    ip: &'p [u8],
    kind: u8,
    option: &'static str,
) -> Result<&'p [u8], super::Mismatch> {
    let header = extension_header(at, ip, kind, option)?;
    let length = usize::from(header[1]) * 8 + 8;
    if length > header.len() {
        at.hotdrop("length of an extension header")?;
    }
    Ok(&header[..length])
}

fn ipv6_header(at: At, wanted: Ipv6HeaderMatch, ip: &[u8]) -> Compared {
    const OPTION: &str = "--header";
    let Neg { negated, value } = wanted.headers;
    let (mut found, mut here, mut place) = (0, ip[6], 40);
    let ended = loop {
        if here == 59 {
            found |= extension::NONE;
            break true;
        }
        let (bit, unit, least) = match here {
            0 => (extension::HOP_BY_HOP, 8, 8),
            43 => (extension::ROUTING, 8, 8),
            44 => (extension::FRAGMENT, 0, 8),
            50 => (extension::ESP, 0, 0),
            51 => (extension::AH, 4, 8),
            60 => (extension::DESTINATION, 8, 8),
            _ => break false,
        };
        if place + 2 > ip.len() {
            return at.fail(OPTION, Actual::State("a header that is cut off"));
        }
        found |= bit;
        if here == 50 {
            break true;
        }
        here = ip[place];
        place += usize::from(ip[place + 1]) * unit + least;
        if place > ip.len() {
            // Behind the end these two are not met.
            break here == 50 || here == 59;
        }
    };
    if !ended {
        found |= extension::PROTOCOL;
    }
    let holds = match (wanted.soft, negated) {
        (false, _) => (found == value) != negated,
        (true, false) => value & !found == 0,
        (true, true) => value & found == 0,
    };
    at.need(holds, OPTION, Actual::Bits(u32::from(found)))
}

fn rt_match(at: At, rt: &RtMatch, ip: &[u8]) -> Compared {
    let header = bounded_header(at, ip, 43, "-m rt")?;
    in_range(at, &rt.segments_left, u32::from(header[3]), "--rt-segsleft")?;
    equal(at, &rt.length, header.len() as u32, "--rt-len")?;
    equal(at, &rt.kind, u32::from(header[2]), "--rt-type")?;
    let reserved = be32(header, 4);
    at.need(!rt.reserved || reserved == 0, "--rt-0-res", Actual::Number(reserved))?;
    if rt.addresses.is_empty() {
        return Ok(());
    }
    let listed: Vec<u128> =
        (0..(header.len() - 8) / 16).map(|index| address(header, 8 + 16 * index)).collect();
    let holds = if rt.not_strict {
        let mut left = &rt.addresses[..];
        for found in &listed {
            if left.first() == Some(found) {
                left = &left[1..];
            }
        }
        left.is_empty()
    } else {
        listed[..] == rt.addresses[..]
    };
    at.need(holds, "--rt-0-addrs", Actual::State("other addresses"))
}

fn options_match(at: At, wanted: &OptionsMatch, ip: &[u8]) -> Compared {
    let (kind, length, list, module) = match wanted.destination {
        true => (60, "--dst-len", "--dst-opts", "-m dst"),
        false => (0, "--hbh-len", "--hbh-opts", "-m hbh"),
    };
    let header = bounded_header(at, ip, kind, module)?;
    equal(at, &wanted.length, header.len() as u32, length)?;
    let mut place = 2;
    for (kind, size) in &wanted.options {
        if header.get(place) != Some(kind) {
            return at.fail(list, Actual::State("other options"));
        }
        place += 1;
        if *kind > 0 {
            let Some(&found) = header.get(place) else {
                return at.fail(list, Actual::State("an option without a length"));
            };
            if size.is_some_and(|size| size != found) {
                return at.fail(list, Actual::State("an option of another length"));
            }
            place += 1 + usize::from(found);
        }
    }
    Ok(())
}

fn frag_match(at: At, frag: &FragMatch, ip: &[u8]) -> Compared {
    let header = extension_header(at, ip, 44, "-m frag")?;
    if header.len() < 8 {
        return at.hotdrop("fragment header");
    }
    let (offset, low) = (be16(header, 2) / 8 * 8, be16(header, 2) % 8);
    in_range(at, &frag.id, be32(header, 4), "--fragid")?;
    let reserved = u32::from(header[1]) | low & 6;
    at.need(!frag.reserved || reserved == 0, "--fragres", Actual::Number(reserved))?;
    at.need(!frag.first || offset == 0, "--fragfirst", Actual::Number(offset))?;
    let (option, actual) = match frag.more {
        Some(true) => ("--fragmore", "the last fragment"),
        _ => ("--fraglast", "more fragments behind it"),
    };
    let more = low & 1 == 1;
    at.need(frag.more.is_none_or(|wanted| wanted == more), option, Actual::State(actual))
}

fn srh_match(at: At, srh: &SrhMatch, ip: &[u8]) -> Compared {
    let found = extension_header(at, ip, 43, "-m srh");
    let Ok(header) = found.map_err(|_| ()) else {
        return at.fail("-m srh", Actual::State("no such header"));
    };
    if header.len() < 8 || usize::from(header[1]) * 8 + 8 > header.len() {
        return at.fail("-m srh", Actual::State("a header that is cut off"));
    }
    if header[2] != 4 {
        return at.fail("-m srh", Actual::State("another routing header"));
    }
    let (left, last) = (header[3], header[4]);
    if left > last {
        return at.fail("-m srh", Actual::State("more segments left than there are"));
    }
    let next = srh.next_header.map(|neg| Neg { negated: neg.negated, value: u32::from(neg.value) });
    equal(at, &next, u32::from(header[0]), "--srh-next-hdr")?;
    compare_byte(
        at,
        &srh.length,
        header[1],
        ["--srh-hdr-len-eq", "--srh-hdr-len-gt", "--srh-hdr-len-lt"],
    )?;
    compare_byte(
        at,
        &srh.segments_left,
        left,
        ["--srh-segs-left-eq", "--srh-segs-left-gt", "--srh-segs-left-lt"],
    )?;
    compare_byte(
        at,
        &srh.last_entry,
        last,
        ["--srh-last-entry-eq", "--srh-last-entry-gt", "--srh-last-entry-lt"],
    )?;
    let tag = srh.tag.map(|neg| Neg { negated: neg.negated, value: u32::from(neg.value.to_be()) });
    equal(at, &tag, be16(header, 6), "--srh-tag")?;
    let segment = |wanted: &Option<Neg<AddressMask>>, index: i32, option| {
        let Some(Neg { negated, value }) = *wanted else { return Ok(()) };
        let place = 8 + 16 * index.max(0) as usize;
        if !(0..=i32::from(last)).contains(&index) || place + 16 > header.len() {
            return at.fail(option, Actual::State("no such segment"));
        }
        let found = address(header, place);
        let holds = (found ^ value.address) & value.mask == 0;
        at.need(holds != negated, option, Actual::Address(found))
    };
    segment(&srh.previous, i32::from(left) + 1, "--srh-psid")?;
    segment(&srh.next, i32::from(left) - 1, "--srh-nsid")?;
    segment(&srh.last, 0, "--srh-lsid")
}

fn compare_byte(at: At, wanted: &SrhCompare, x: u8, options: [&'static str; 3]) -> Compared {
    let held = [x == wanted.value, x > wanted.value, x < wanted.value];
    let asked = [wanted.equal, wanted.greater, wanted.less];
    for ((holds, negated), option) in held.into_iter().zip(asked).zip(options) {
        if let Some(negated) = negated {
            at.need(holds != negated, option, Actual::Number(u32::from(x)))?;
        }
    }
    Ok(())
}
