//! HMARK: the mark that a packet's ends give, byte for byte as the kernel lays them out.

use dataplane::conntrack::CtState;
use dataplane::packet::Family;

use super::Subject;
use super::measure::jhash;
use crate::model::HmarkSpec;

/// Addresses in network order, IPv4 alone in its four bytes; what follows them.
struct Ends {
    addresses: [Vec<u8>; 2],
    protocol: u8,
    /// Both ports or the index, if the protocol has them.
    ports: Option<[u8; 4]>,
}

pub(super) fn apply(spec: &HmarkSpec, subject: &mut Subject<'_>) {
    let ends = if spec.connection { connection(subject) } else { headers(&subject.packet.bytes()) };
    let Some(ends) = ends else { return };
    let mask = |mask: Option<u128>| mask.unwrap_or(0).to_be_bytes();
    let one = word(&ends.addresses[0], mask(spec.src_mask));
    let other = word(&ends.addresses[1], mask(spec.dst_mask));
    let mut words = if one <= other { vec![one, other] } else { vec![other, one] };
    words.push(ends.ports.map_or(0, |ports| ports_word(spec, ports)));
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let protocol = u32::from(ends.protocol) & u32::from(spec.proto_mask.unwrap_or(0));
    let hash = u64::from(jhash(&bytes, spec.seed) ^ protocol);
    let share = hash * u64::from(spec.modulus) / (1 << 32);
    subject.mark = (share + u64::from(spec.offset.unwrap_or(0))) as u32;
}

/// Four bytes: those of the masked address, laid over each other.
fn word(address: &[u8], mask: [u8; 16]) -> u32 {
    let mut sum = [0; 4];
    for (at, byte) in address.iter().enumerate() {
        sum[at % 4] ^= byte & mask[16 - address.len() + at];
    }
    u32::from_be_bytes(sum)
}

fn ports_word(spec: &HmarkSpec, ports: [u8; 4]) -> u32 {
    let pair = |index: Option<u32>, one: Option<u16>, other: Option<u16>| match index {
        Some(index) => index.to_be_bytes(),
        None => {
            let [a, b] = one.unwrap_or(0).to_be_bytes();
            let [c, d] = other.unwrap_or(0).to_be_bytes();
            [a, b, c, d]
        }
    };
    let mask = pair(spec.spi_mask, spec.sport_mask, spec.dport_mask);
    let set = pair(spec.spi, spec.sport, spec.dport);
    let [a, b, c, d] = std::array::from_fn(|at| ports[at] & mask[at] | set[at]);
    let (one, other) = ([a, b], [c, d]);
    let [high, low] = if other > one { [other, one] } else { [one, other] };
    u32::from_be_bytes([high[0], high[1], low[0], low[1]])
}

fn connection(subject: &Subject<'_>) -> Option<Ends> {
    let Some(conn) = &subject.tracked.connection else {
        subject.template.as_ref().filter(|_| subject.tracked.state == CtState::New)?;
        return Some(Ends { addresses: [vec![], vec![]], protocol: 0, ports: Some([0; 4]) });
    };
    let bytes = |address: u128| match conn.original.family {
        Family::V4 => (address as u32).to_be_bytes().to_vec(),
        Family::V6 => address.to_be_bytes().to_vec(),
    };
    let ([a, b], [c, d]) = (conn.original.sport.to_be_bytes(), conn.reply.sport.to_be_bytes());
    Some(Ends {
        addresses: [bytes(conn.original.src), bytes(conn.reply.src)],
        protocol: conn.original.proto,
        ports: (conn.original.proto != 1).then_some([a, b, c, d]),
    })
}

fn headers(ip: &[u8]) -> Option<Ends> {
    if ip[0] >> 4 == 4 { v4(ip) } else { v6(ip) }
}

fn v4(ip: &[u8]) -> Option<Ends> {
    let length = usize::from(ip[0] % 16) * 4;
    if ip[9] == 1 && ip.len() >= length + 8 && [3, 4, 5, 11, 12].contains(&ip[length]) {
        let quoted = &ip[length + 8..];
        return (quoted.len() >= 20).then(|| v4_ends(quoted));
    }
    Some(v4_ends(ip))
}

fn v4_ends(ip: &[u8]) -> Ends {
    let whole = ip[6] & 0x3f == 0 && ip[7] == 0;
    let behind = usize::from(ip[0] % 16) * 4;
    Ends {
        addresses: [ip[12..16].to_vec(), ip[16..20].to_vec()],
        protocol: ip[9],
        ports: if whole { ports(ip, behind, ip[9]) } else { None },
    }
}

fn v6(ip: &[u8]) -> Option<Ends> {
    let Some((protocol, at, fragment)) = last_header(ip) else {
        return Some(Ends { addresses: [vec![], vec![]], protocol: 0, ports: None });
    };
    let ends = |ip: &[u8], protocol, at, fragment: bool| Ends {
        addresses: [ip[8..24].to_vec(), ip[24..40].to_vec()],
        protocol,
        ports: if fragment { None } else { ports(ip, at, protocol) },
    };
    let error = protocol == 58 && !fragment && ip.len() >= at + 8 && (1..128).contains(&ip[at]);
    if !error {
        return Some(ends(ip, protocol, at, fragment));
    }
    let quoted = &ip[at + 8..];
    if quoted.len() < 40 || quoted[0] >> 4 != 6 {
        return None;
    }
    let (protocol, at, fragment) = last_header(quoted)?;
    Some(ends(quoted, protocol, at, fragment))
}

fn ports(ip: &[u8], at: usize, protocol: u8) -> Option<[u8; 4]> {
    let at = match protocol {
        6 | 17 | 33 | 50 | 132 | 136 => at,
        51 => at + 4,
        _ => return None,
    };
    ip.get(at..at + 4)?.try_into().ok()
}

/// Protocol, place and whether it is a fragment's, of the header that the kernel takes for
/// the last: an authentication header, or one that is no extension header.
fn last_header(ip: &[u8]) -> Option<(u8, usize, bool)> {
    let (mut kind, mut at, mut fragment) = (ip[6], 40, false);
    while [0, 43, 44, 51, 60].contains(&kind) {
        let next = *ip.get(at)?;
        let units = usize::from(*ip.get(at + 1)?);
        match kind {
            51 => return Some((51, at, fragment)),
            44 => {
                fragment = true;
                let place = [*ip.get(at + 2)?, *ip.get(at + 3)?];
                if u16::from_be_bytes(place) > 7 {
                    let extension = [0, 43, 44, 51, 60].contains(&next);
                    return (!extension).then_some((next, at, true));
                }
                at += 8;
            }
            43 if ip.len() < at + 4 => return None,
            _ => at += (units + 1) * 8,
        }
        kind = next;
    }
    Some((kind, at, fragment))
}
