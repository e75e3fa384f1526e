//! Layer 4 lengths and checksums, as tracking checks them before it believes a packet.

use super::proto;
use super::tuple::be16;
use crate::packet::{Family, Parsed};

/// Whether the lengths and, if `sums` are wanted, the checksum of a packet hold.
/// TCP's lengths and flags are left to its segment parser.
pub(super) fn holds(parsed: &Parsed, l4: &[u8], sums: bool) -> bool {
    match (parsed.proto, parsed.family) {
        (proto::TCP, _) => !sums || transport_sum(parsed, l4) == 0,
        (proto::UDP, _) => {
            let Some(header) = l4.first_chunk::<8>() else { return false };
            let (length, sum) = (usize::from(be16(header, 4)), be16(header, 6));
            (8..=l4.len()).contains(&length)
                && (sum == 0 || !sums || transport_sum(parsed, l4) == 0)
        }
        (proto::UDPLITE, _) => {
            let Some(header) = l4.first_chunk::<8>() else { return false };
            let coverage = match usize::from(be16(header, 4)) {
                0 => l4.len(),
                coverage => coverage,
            };
            (8..=l4.len()).contains(&coverage)
                && be16(header, 6) != 0
                && (!sums || covered_sum(parsed, &l4[..coverage], l4.len()) == 0)
        }
        (proto::ICMP, Family::V4) => !sums || fold(sum(0, l4)) == 0,
        (proto::ICMPV6, Family::V6) => !sums || transport_sum(parsed, l4) == 0,
        _ => true,
    }
}

fn transport_sum(parsed: &Parsed, l4: &[u8]) -> u16 {
    covered_sum(parsed, l4, l4.len())
}

/// Checksum over `covered` under a pseudo header that states `length`.
fn covered_sum(parsed: &Parsed, covered: &[u8], length: usize) -> u16 {
    let fixed = u64::from(parsed.proto) + length as u64;
    let pseudo = match parsed.family {
        Family::V4 => fixed + u64::from(parsed.src as u32) + u64::from(parsed.dst as u32),
        Family::V6 => sum(sum(fixed, &parsed.src.to_be_bytes()), &parsed.dst.to_be_bytes()),
    };
    fold(sum(pseudo, covered))
}

fn sum(start: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let whole = words
        .by_ref()
        .fold(start, |sum, w| sum + u64::from(u32::from_be_bytes([w[0], w[1], w[2], w[3]])));
    let mut tail = [0; 4];
    tail[..words.remainder().len()].copy_from_slice(words.remainder());
    whole + u64::from(u32::from_be_bytes(tail))
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
