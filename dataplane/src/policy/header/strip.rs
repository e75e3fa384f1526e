//! TCPOPTSTRIP: options of a TCP header become no-operations.

use super::super::eval::PacketView;
use crate::packet::Fragment;
use crate::verdict::DropReason;
use crate::wire::{be16, checksum, put16, tcp};

/// The option kind that does nothing.
const NO_OPERATION: u8 = 1;

/// A set of TCP option kinds, one a bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct OptionKinds([u64; 4]);

impl OptionKinds {
    /// Puts one in.
    pub fn insert(&mut self, kind: u8) {
        self.0[usize::from(kind / 64)] |= 1 << (kind % 64);
    }

    /// Whether it is in.
    pub fn contains(&self, kind: u8) -> bool {
        self.0[usize::from(kind / 64)] >> (kind % 64) & 1 != 0
    }

    /// All that are in, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u8> + '_ {
        (0..=u8::MAX).filter(|&kind| self.contains(kind))
    }
}

/// Overwrites the options of these kinds.
///
/// # Errors
/// [`DropReason::Hotdrop`] for a header that is cut short.
pub(super) fn strip(packet: &mut PacketView<'_>, kinds: &OptionKinds) -> Result<(), DropReason> {
    if matches!(packet.parsed.fragment, Fragment::Later { .. }) {
        return Ok(());
    }
    packet.frame.join_all();
    let start = usize::from(packet.parsed.l4);
    let length = usize::from(packet.parsed.l4_len);
    let segment = &mut packet.frame[start..start + length];
    let header = segment.get(12).map_or(0, |&byte| usize::from(byte >> 4) * 4);
    if length < tcp::HEADER || length < header {
        return Err(DropReason::Hotdrop);
    }
    let mut at = tcp::HEADER;
    while at + 1 < header {
        let option = match (segment[at], segment[at + 1]) {
            (0 | NO_OPERATION, _) | (_, 0) => 1,
            (_, length) => usize::from(length),
        };
        if at + option > header {
            break;
        }
        if kinds.contains(segment[at]) {
            blank(segment, at, option);
        }
        at += option;
    }
    Ok(())
}

/// Makes `length` bytes no-operations and keeps the checksum as right as it was.
fn blank(segment: &mut [u8], at: usize, length: usize) {
    for byte in at..at + length {
        let word = byte & !1;
        let old = be16(segment, word);
        segment[byte] = NO_OPERATION;
        let sum = checksum::update16(be16(segment, 16), old, be16(segment, word));
        put16(segment, 16, sum);
    }
}
