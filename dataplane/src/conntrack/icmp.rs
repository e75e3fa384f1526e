//! ICMP and ICMPv6: which messages are tracked by themselves, which speak of
//! another connection, and of which.

use super::keymap::Keymap;
use super::tuple::Tuple;
use crate::packet::{Family, Fragment, Parsed};
use crate::wire::{be16, ipv6, proto};

/// What an ICMP message is to tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// Malformed, of an unknown type, or about something that cannot be known.
    Invalid,
    /// Housekeeping of the link: neighbour discovery, group membership.
    Untracked,
    /// To be looked up by its own tuple.
    Flow,
    /// An error or a redirect: the tuple is the one that the sender of the
    /// quoted packet waits for an answer on.
    About(Tuple),
}

/// Sorts a message of the family's own ICMP.
pub(super) fn classify(parsed: &Parsed, l4: &[u8], zone: u16, keymap: &Keymap) -> Message {
    let Some(header) = l4.first_chunk::<8>() else { return Message::Invalid };
    let (kind, code) = (header[0], header[1]);
    match parsed.family {
        Family::V4 => classify_v4(kind, &l4[8..], zone, keymap),
        Family::V6 => classify_v6(parsed, kind, code, l4, zone),
    }
}

fn classify_v4(kind: u8, quoted: &[u8], zone: u16, keymap: &Keymap) -> Message {
    const LAST_KNOWN: u8 = 18;
    match kind {
        // Unreachable, source quench, redirect, time exceeded, parameter problem.
        3 | 4 | 5 | 11 | 12 => about(quoted_v4(quoted, zone, keymap)),
        0..=LAST_KNOWN => Message::Flow,
        _ => Message::Invalid,
    }
}

fn classify_v6(parsed: &Parsed, kind: u8, code: u8, l4: &[u8], zone: u16) -> Message {
    const REDIRECT: u8 = 137;
    match kind {
        // MLD, router and neighbour discovery, MLDv2, multicast router discovery.
        130..=136 | 143 | 151 | 152 => Message::Untracked,
        REDIRECT if parsed.ttl == 255 && code == 0 && is_link_local(parsed.src) => {
            match redirected(l4) {
                Some(quoted) => about(quoted_v6(quoted, zone)),
                None => Message::Flow,
            }
        }
        0..128 => about(quoted_v6(&l4[8..], zone)),
        _ => Message::Flow,
    }
}

const fn is_link_local(address: u128) -> bool {
    address >> 118 == 0xfe80 >> 6
}

/// The quoted packet of an ICMPv6 redirect, if its first option is the
/// redirected header: the kernel looks no further.
fn redirected(l4: &[u8]) -> Option<&[u8]> {
    const REDIRECTED_HEADER: u8 = 4;
    // Type, code, checksum, reserved, target, destination.
    let option = l4.get(40..)?;
    match option {
        [REDIRECTED_HEADER, 1..=255, ..] => option.get(8..),
        _ => None,
    }
}

/// A message about the flow of the quoted packet.
fn about(tuple: Option<Tuple>) -> Message {
    tuple.and_then(|tuple| tuple.inverted()).map_or(Message::Invalid, Message::About)
}

/// The tuple of an IP packet cut short. (PPTP is IPv4's alone.)
fn quoted_v4(quoted: &[u8], zone: u16, keymap: &Keymap) -> Option<Tuple> {
    let header = quoted.first_chunk::<20>()?;
    if be16(header, 6) & 0x1fff != 0 {
        return None;
    }
    let l4 = quoted.get(usize::from(header[0] & 0xf) * 4..)?;
    let address = |at: usize| {
        u128::from(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    let tuple = Tuple::from_l4(Family::V4, header[9], (address(12), address(16)), l4, zone)?;
    Some(tuple.with_sender(l4, keymap))
}

fn quoted_v6(quoted: &[u8], zone: u16) -> Option<Tuple> {
    let header = quoted.first_chunk::<40>()?;
    let address = |at: usize| u128::from_be_bytes(std::array::from_fn(|byte| header[at + byte]));
    let payload = &quoted[40..];
    let upper = ipv6::upper(header[6], payload).ok()?;
    if matches!(upper.fragment, Fragment::Later { .. }) {
        return None;
    }
    let addresses = (address(8), address(24));
    Tuple::from_l4(Family::V6, upper.proto, addresses, &payload[upper.offset..], zone)
}

/// Whether a query may start a connection.
pub(super) const fn may_open(protocol: u8, kind: u8) -> bool {
    match protocol {
        proto::ICMP => matches!(kind, 8 | 13 | 15 | 17),
        _ => matches!(kind, 128 | 139),
    }
}
