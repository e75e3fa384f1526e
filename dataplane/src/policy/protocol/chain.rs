//! The search for one header in a chain of IPv6 extension headers.

use crate::wire::{be16, ipv6, proto};

/// Why there is none to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The chain ends, or a later fragment begins, before it.
    Absent,
    /// The chain is cut short before it is found.
    Broken,
}

/// The bytes of the IPv6 packet `ip` from its first header of type `wanted` (an
/// extension header's) on. At least two are there, of a routing or fragment header four.
pub(super) fn find(ip: &[u8], wanted: u8) -> Result<&[u8], Missing> {
    let mut next = ip[6];
    let mut rest = &ip[ipv6::HEADER..];
    while ipv6::is_extension(next) && next != proto::NONE {
        let [following, length, ..] = *rest else { return Err(Missing::Broken) };
        if matches!(next, proto::ROUTING | proto::FRAGMENT) && rest.len() < 4 {
            return Err(Missing::Broken);
        }
        if next == wanted {
            return Ok(rest);
        }
        let size = match next {
            // What follows it is the middle of something.
            proto::FRAGMENT if be16(rest, 2) & 0xfff8 != 0 => break,
            proto::FRAGMENT => 8,
            proto::AH => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        next = following;
        rest = rest.get(size..).unwrap_or_default();
    }
    Err(Missing::Absent)
}
