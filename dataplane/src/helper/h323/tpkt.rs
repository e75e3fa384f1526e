//! TPKT (RFC 1006): messages in a TCP stream, each behind its length. A message is
//! read if a segment has all of it; some senders put the header into a segment of
//! its own, which counts for the next.

use super::Message;

const HEADER: usize = 4;
const VERSION: [u8; 2] = [3, 0];

/// Bytes of a segment's payload.
pub(super) type Span = (usize, usize);

/// The next message behind `last` in a payload that starts at `at` in the frame.
pub(super) fn next(message: &Message<'_, '_, '_>, at: usize, last: Option<Span>) -> Option<Span> {
    let payload = message.visit.frame.get(at..message.visit.end()).unwrap_or_default();
    let found = match last {
        None => first(message, payload),
        Some((_, end)) => {
            let rest = payload.get(end..).unwrap_or_default();
            let whole = rest.len() > HEADER && rest[..2] == VERSION;
            if whole { whole_message(rest, end) } else { Found::Nothing }
        }
    };
    match found {
        Found::Whole(span) => {
            message.await_bytes(0);
            Some(span)
        }
        Found::Header(count) => {
            message.await_bytes(count);
            None
        }
        Found::Nothing => {
            message.await_bytes(0);
            None
        }
        Found::Other => None,
    }
}

enum Found {
    Whole(Span),
    /// A header, which says that so many bytes follow.
    Header(u16),
    /// Nothing, or a part.
    Nothing,
    /// Nothing of ours.
    Other,
}

fn first(message: &Message<'_, '_, '_>, payload: &[u8]) -> Found {
    if payload.is_empty() {
        return Found::Nothing;
    }
    if payload.len() >= HEADER && payload[..2] == VERSION {
        return whole_message(payload, 0);
    }
    match usize::from(message.awaited()) {
        0 => Found::Other,
        count if count <= payload.len() => Found::Whole((0, count)),
        _ => Found::Nothing,
    }
}

fn whole_message(rest: &[u8], at: usize) -> Found {
    let length = u16::from_be_bytes([rest[2], rest[3]]);
    let Some(body) = length.checked_sub(HEADER as u16) else { return Found::Nothing };
    if usize::from(length) <= rest.len() {
        return Found::Whole((at + HEADER, at + usize::from(length)));
    }
    if rest.len() == HEADER { Found::Header(body) } else { Found::Nothing }
}
