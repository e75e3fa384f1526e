//! Sequence numbers of a connection into which something was put: what one side
//! sends, and what the other acknowledges of it, is shifted for the rest of its
//! life. How far is kept with the connection, by direction ([`SeqShift`]).

use crate::conntrack::{ConnId, Conntrack, Direction, SeqShift};
use crate::frame::FrameBuf;
use crate::packet::Parsed;
use crate::verdict::DropReason;
use crate::wire::tcp::flags::ACK;
use crate::wire::{be16, be32, checksum, proto, put16, put32, tcp};

const EOL: u8 = 0;
const NOP: u8 = 1;
const SACK: u8 = 5;
/// Left and right edge.
const BLOCK: usize = 8;

/// Shifts a whole direction of a connection by `offset` from its beginning, as
/// for two handshakes with different initial numbers. Zero changes nothing.
/// False when the connection is gone.
pub fn init(conntrack: &Conntrack, id: ConnId, direction: Direction, offset: i32) -> bool {
    conntrack.shift_all(id, direction, offset)
}

/// Adjusts the numbers of a segment that goes in `direction`.
///
/// # Errors
/// [`DropReason::SequenceAdjust`]: its options cannot be read to the end.
pub fn adjust(
    conntrack: &Conntrack,
    id: ConnId,
    direction: Direction,
    frame: &mut FrameBuf<'_>,
    parsed: &Parsed,
) -> Result<(), DropReason> {
    if parsed.proto != proto::TCP {
        return Ok(());
    }
    let l4 = usize::from(parsed.l4)..usize::from(parsed.l4) + usize::from(parsed.l4_len);
    let (Some(shifts), Ok(segment)) =
        (conntrack.shifts(id), tcp::Packet::new_checked(&frame[l4.clone()]))
    else {
        return Ok(());
    };
    let [ours, theirs] = match direction {
        Direction::Original => shifts,
        Direction::Reply => [shifts[1], shifts[0]],
    };
    let (seq, ack, header) = (segment.seq(), segment.ack(), segment.header_len());
    let has_ack = segment.flags() & ACK != 0;
    frame.join(l4.start + if has_ack { header } else { tcp::HEADER });
    let message = &mut frame[l4];
    replace(message, 4, seq.wrapping_add(ours.at(seq) as u32));
    if !has_ack {
        return Ok(());
    }
    replace(message, 8, unshifted(&theirs, ack));
    sack(message, header, &theirs)
}

/// Puts a number in a segment and keeps the checksum right.
fn replace(message: &mut [u8], at: usize, new: u32) {
    const CHECKSUM: usize = 16;
    let old = be32(message, at);
    put32(message, at, new);
    // Options need not be aligned.
    let summed = |number: u32| if at.is_multiple_of(2) { number } else { number.swap_bytes() };
    let sum = checksum::update32(be16(message, CHECKSUM), summed(old), summed(new));
    put16(message, CHECKSUM, sum);
}

/// What the receiver calls `seq`, as the sender calls it.
fn unshifted(shift: &SeqShift, seq: u32) -> u32 {
    seq.wrapping_sub(shift.at_shifted(seq) as u32)
}

/// Adjusts every SACK block of a segment's options.
fn sack(message: &mut [u8], header: usize, shift: &SeqShift) -> Result<(), DropReason> {
    let mut at = tcp::HEADER;
    while at < header {
        let length = match (message[at], message.get(at + 1)) {
            (EOL, _) => return Ok(()),
            (NOP, _) => {
                at += 1;
                continue;
            }
            (_, Some(&length)) if at + 1 < header => usize::from(length),
            _ => return Err(DropReason::SequenceAdjust),
        };
        if length < 2 || at + length > header {
            return Err(DropReason::SequenceAdjust);
        }
        let data = at + 2..at + length;
        if message[at] == SACK && !data.is_empty() && data.len().is_multiple_of(BLOCK) {
            for edge in data.step_by(4) {
                let old = be32(message, edge);
                replace(message, edge, unshifted(shift, old));
            }
        }
        at += length;
    }
    Ok(())
}
