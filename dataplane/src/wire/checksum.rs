//! Checksums: the Internet checksum, pseudo headers, incremental updates
//! (RFC 1624, equation 3) and SCTP's CRC32c.

use super::{be16, be32, proto, put16};
use crate::packet::{Family, Parsed};

/// Adds `bytes` as big-endian words to a running sum. All parts but the last
/// must have an even length.
#[inline]
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    // The sum of words in the other order is the sum with its bytes in the other order
    // (RFC 1071), and it is zero for zeros only either way.
    sum + u64::from(u16::from_be(fold(native(bytes))))
}

/// Adds `bytes` as words in this machine's order.
#[inline]
fn native(bytes: &[u8]) -> u64 {
    let word = |bytes: [u8; 4]| u64::from(u32::from_ne_bytes(bytes));
    let (blocks, rest) = bytes.as_chunks::<16>();
    let mut lanes = [0_u64; 4];
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, &bytes) in lanes.iter_mut().zip(words) {
            *lane += word(bytes);
        }
    }
    let (words, tail) = rest.as_chunks::<4>();
    let sum = lanes.iter().sum::<u64>() + words.iter().map(|&bytes| word(bytes)).sum::<u64>();
    match *tail {
        [a] => sum + word([a, 0, 0, 0]),
        [a, b] => sum + word([a, b, 0, 0]),
        [a, b, c] => sum + word([a, b, c, 0]),
        _ => sum,
    }
}

/// Folds a running sum to 16 bits and complements it.
#[inline]
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

#[inline]
fn fold(sum: u64) -> u16 {
    let halve = |sum: u64| (sum & 0xffff_ffff) + (sum >> 32);
    let quarter = |sum: u64| (sum & 0xffff) + (sum >> 16);
    quarter(quarter(halve(halve(sum)))) as u16
}

/// Whether an IPv4 header without options holds its own correct checksum.
#[inline]
pub fn plain_header_ok(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    let sum: u64 = words.iter().map(|&word| u64::from(u32::from_ne_bytes(word))).sum();
    folds_to_ones(sum)
}

/// Whether [`fold`] gives all ones: folding keeps the rest of a division by them, and gives
/// zero for zero alone.
#[inline]
fn folds_to_ones(sum: u64) -> bool {
    sum != 0 && sum.is_multiple_of(u16::MAX.into())
}

/// Whether `bytes` and the word `rest`, which is not zero, hold their own correct checksum.
#[inline]
pub fn holds(bytes: &[u8], rest: u16) -> bool {
    folds_to_ones(native(bytes) + u64::from(rest.to_be()))
}

/// The Internet checksum of `bytes`; zero when they hold their own correct checksum.
#[inline]
pub fn internet(bytes: &[u8]) -> u16 {
    finish(add(0, bytes))
}

/// The running sum of a pseudo header. Addresses as in [`Parsed`].
#[inline]
pub fn pseudo(family: Family, src: u128, dst: u128, protocol: u8, length: u32) -> u64 {
    let fixed = u64::from(protocol) + u64::from(length);
    match family {
        Family::V4 => fixed + u64::from(src as u32) + u64::from(dst as u32),
        Family::V6 => add(add(fixed, &src.to_be_bytes()), &dst.to_be_bytes()),
    }
}

/// The checksum of an upper-layer message under its pseudo header, over the
/// bytes as they are: zero when they hold their own correct checksum.
#[inline]
pub fn transport(family: Family, src: u128, dst: u128, protocol: u8, message: &[u8]) -> u16 {
    finish(add(pseudo(family, src, dst, protocol, message.len() as u32), message))
}

/// `check` after words it covers changed, each of which adds its old value's complement and
/// its new value to `change` (RFC 1624, equation 3).
#[inline]
pub fn update(check: u16, change: u64) -> u16 {
    finish(u64::from(!check) + change)
}

/// `check` after one of the words it covers changed (RFC 1624, equation 3).
#[inline]
pub fn update16(check: u16, old: u16, new: u16) -> u16 {
    finish(u64::from(!check) + u64::from(!old) + u64::from(new))
}

/// `check` after two adjacent words it covers changed.
#[inline]
pub fn update32(check: u16, old: u32, new: u32) -> u16 {
    finish(u64::from(!check) + u64::from(!old) + u64::from(new))
}

/// `check` after an IPv6 address it covers changed.
#[inline]
pub fn update128(check: u16, old: u128, new: u128) -> u16 {
    finish(add(add(u64::from(!check), &(!old).to_be_bytes()), &new.to_be_bytes()))
}

/// A UDP checksum field after `update`: zero (none) stays, a result of zero is sent as all ones.
#[inline]
pub fn udp(field: u16, update: impl FnOnce(u16) -> u16) -> u16 {
    match field {
        0 => 0,
        field => match update(field) {
            0 => 0xffff,
            sum => sum,
        },
    }
}

/// The CRC32c of an SCTP packet, with its checksum field (bytes 8-12) taken as zero.
/// The result is the field's value read little-endian, as SCTP sends it.
pub fn sctp(packet: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&packet[..8]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &packet[12..])
}

/// Whether the layer 4 checksum of a whole packet verifies. Protocols without
/// one, and layer 4 headers that are not there in whole, verify: others refuse those.
pub fn transport_ok(frame: &[u8], parsed: &Parsed) -> bool {
    let message = parsed.l4_bytes(frame);
    let over = |message: &[u8]| {
        transport(parsed.family, parsed.src, parsed.dst, parsed.proto, message) == 0
    };
    match (parsed.family, parsed.proto) {
        (_, proto::TCP) if message.len() >= 20 => over(message),
        (family, proto::UDP) if message.len() >= 8 => {
            udp_ok(family, message, parsed.src, parsed.dst)
        }
        (_, proto::UDPLITE) if message.len() >= 8 => udplite_ok(message, parsed),
        (Family::V4, proto::ICMP) if message.len() >= 4 => internet(message) == 0,
        (Family::V6, proto::ICMPV6) if message.len() >= 4 => over(message),
        (_, proto::SCTP) if message.len() >= 12 => sctp(message) == be32(message, 8).swap_bytes(),
        _ => true,
    }
}

fn udp_ok(family: Family, message: &[u8], src: u128, dst: u128) -> bool {
    let (length, field) = (usize::from(be16(message, 4)), be16(message, 6));
    if field == 0 {
        return family == Family::V4;
    }
    let length = if length == 0 && family == Family::V6 { message.len() } else { length };
    (8..=message.len()).contains(&length)
        && transport(family, src, dst, proto::UDP, &message[..length]) == 0
}

fn udplite_ok(message: &[u8], parsed: &Parsed) -> bool {
    let coverage = match usize::from(be16(message, 4)) {
        0 => message.len(),
        coverage => coverage,
    };
    if !(8..=message.len()).contains(&coverage) || be16(message, 6) == 0 {
        return false;
    }
    let length = message.len() as u32;
    let start = pseudo(parsed.family, parsed.src, parsed.dst, proto::UDPLITE, length);
    finish(add(start, &message[..coverage])) == 0
}

/// Computes the checksum of the upper-layer message of a packet afresh and stores it.
/// Does nothing for protocols without one, and for messages shorter than their header.
pub fn fill_transport(family: Family, src: u128, dst: u128, protocol: u8, message: &mut [u8]) {
    let at = match protocol {
        proto::TCP if message.len() >= 20 => 16,
        proto::UDP | proto::UDPLITE if message.len() >= 8 => 6,
        proto::ICMP if family == Family::V4 && message.len() >= 4 => 2,
        proto::ICMPV6 if family == Family::V6 && message.len() >= 4 => 2,
        proto::SCTP if message.len() >= 12 => {
            let crc = sctp(message);
            message[8..12].copy_from_slice(&crc.to_le_bytes());
            return;
        }
        _ => return,
    };
    put16(message, at, 0);
    let sum = match protocol {
        proto::ICMP => internet(message),
        _ => transport(family, src, dst, protocol, message),
    };
    let udp = matches!(protocol, proto::UDP | proto::UDPLITE);
    put16(message, at, if udp && sum == 0 { 0xffff } else { sum });
}
