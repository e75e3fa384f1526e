//! Frames cut short.

use dataplane::packet::Family;

/// Leaves `cut` bytes of what follows the fixed IP header, lengths consistent.
pub(super) fn shorten(mut frame: Vec<u8>, family: Family, cut: Option<usize>) -> Vec<u8> {
    let Some(cut) = cut else { return frame };
    let header = if family == Family::V4 { 34 } else { 54 };
    frame.truncate(header + cut);
    let kept = frame.len() - header;
    match family {
        Family::V4 => {
            frame[16..18].copy_from_slice(&(kept as u16 + 20).to_be_bytes());
            frame[24..26].copy_from_slice(&[0, 0]);
            let sum = dataplane::wire::checksum::internet(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        Family::V6 => frame[18..20].copy_from_slice(&(kept as u16).to_be_bytes()),
    }
    frame
}
