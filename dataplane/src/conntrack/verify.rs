//! Layer 4 lengths and checksums, as tracking checks them before it believes a packet.

use crate::packet::{Family, Parsed};
use crate::wire::{be16, checksum, proto};

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
                && (!sums || covered_sum(parsed, l4, coverage) == 0)
        }
        (proto::SCTP, _) => {
            l4.len() >= 12
                && (!sums
                    || checksum::sctp(l4) == u32::from_le_bytes([l4[8], l4[9], l4[10], l4[11]]))
        }
        (proto::ICMP, Family::V4) => !sums || checksum::internet(l4) == 0,
        (proto::ICMPV6, Family::V6) => !sums || transport_sum(parsed, l4) == 0,
        _ => true,
    }
}

/// The checksum over all of layer 4, even where UDP's length says less: what
/// lies beyond it is summed too, as the kernel does.
fn transport_sum(parsed: &Parsed, l4: &[u8]) -> u16 {
    checksum::transport(parsed.family, parsed.src, parsed.dst, parsed.proto, l4)
}

/// UDP-Lite's checksum, which covers only the start of a packet. The kernel
/// sums it under UDP's protocol number, and so finds correct packets wrong; a
/// rule for INVALID sees the same here.
fn covered_sum(parsed: &Parsed, l4: &[u8], coverage: usize) -> u16 {
    let Parsed { family, src, dst, .. } = *parsed;
    let pseudo = checksum::pseudo(family, src, dst, proto::UDP, l4.len() as u32);
    checksum::finish(checksum::add(pseudo, &l4[..coverage]))
}
