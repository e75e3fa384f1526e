//! Other bytes in a packet's payload, with everything that depends on their
//! number: lengths, checksums, and the sequence numbers that follow.

use super::Visit;
use crate::frame::FrameBuf;
use crate::packet::{Family, Parsed};
use crate::verdict::DropReason;
use crate::wire::{be32, checksum, ipv4, proto, put16};

/// Bytes of a frame that are to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Where they start.
    pub(super) at: usize,
    /// How many they are.
    pub(super) len: usize,
}

const IPV6_HEADER: u16 = 40;

/// Replaces bytes of a TCP payload. What follows in the stream is shifted.
///
/// # Errors
/// As [`payload`].
pub(super) fn tcp(visit: &mut Visit<'_, '_>, cut: Cut, with: &[u8]) -> Result<(), DropReason> {
    payload(visit.frame, visit.parsed, cut, with)?;
    let by = with.len() as i32 - cut.len as i32;
    let l4 = visit.parsed.l4_bytes(visit.frame);
    if by != 0 && l4.len() >= 8 {
        visit.conntrack.shift(visit.conn.id, visit.direction, be32(l4, 4), by);
    }
    Ok(())
}

/// Replaces bytes of a datagram's payload.
///
/// # Errors
/// As [`payload`].
pub(super) fn datagram(visit: &mut Visit<'_, '_>, cut: Cut, with: &[u8]) -> Result<(), DropReason> {
    payload(visit.frame, visit.parsed, cut, with)
}

/// Replaces bytes of a packet's payload, whatever its protocol.
///
/// # Errors
/// As [`exchange`].
fn payload(
    frame: &mut FrameBuf<'_>,
    parsed: &mut Parsed,
    cut: Cut,
    with: &[u8],
) -> Result<(), DropReason> {
    exchange(frame, parsed, cut, with)?;
    settle(frame, parsed);
    Ok(())
}

/// Replaces bytes of a packet's payload; when all is done, [`settle`] is owed.
///
/// # Errors
/// [`DropReason::NoRoom`]: it would be longer than the buffer, or than a packet can be.
pub(super) fn exchange(
    frame: &mut FrameBuf<'_>,
    parsed: &mut Parsed,
    cut: Cut,
    with: &[u8],
) -> Result<(), DropReason> {
    let length = |old: u16| {
        let new = usize::from(old).checked_sub(cut.len)?.checked_add(with.len())?;
        u16::try_from(new).ok()
    };
    let (Some(l3_len), Some(l4_len)) = (length(parsed.l3_len), length(parsed.l4_len)) else {
        return Err(DropReason::NoRoom);
    };
    frame.join_all();
    if !frame.replace(cut.at, cut.len, with) {
        return Err(DropReason::NoRoom);
    }
    (parsed.l3_len, parsed.l4_len) = (l3_len, l4_len);
    Ok(())
}

/// Writes lengths and checksums of a packet whose payload has changed.
pub(super) fn settle(frame: &mut FrameBuf<'_>, parsed: &Parsed) {
    let Parsed { family, src, dst, proto: protocol, l3, l3_len, l4, l4_len, .. } = *parsed;
    let (l3, l4) = (usize::from(l3), usize::from(l4));
    match family {
        Family::V4 => {
            if let Ok(mut ip) = ipv4::Packet::new_header(&mut frame[l3..]) {
                ip.set_total_len(l3_len);
                ip.fill_checksum();
            }
        }
        Family::V6 => put16(&mut frame[l3..], 4, l3_len.saturating_sub(IPV6_HEADER)),
    }
    let message = &mut frame[l4..l4 + usize::from(l4_len)];
    if protocol == proto::UDP && message.len() >= 8 {
        put16(message, 4, l4_len);
        if message[6..8] == [0, 0] {
            // Sent without a checksum, and so it stays.
            return;
        }
    }
    checksum::fill_transport(family, src, dst, protocol, message);
}
