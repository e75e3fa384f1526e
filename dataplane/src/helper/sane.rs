//! SANE: a scanner's answer to a request to start names the port of its data.

use super::Visit;
use crate::clock::Nanos;
use crate::conntrack::{Direction, Limits};
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;
use crate::wire::{be16, be32};

/// One scan at a time.
const LIMITS: Limits = Limits { most: 1, timeout: Nanos::from_secs(300), any_master: false };

/// What a request asks for: to start.
const START: u32 = 7;
const SUCCESS: u32 = 0;
/// Of a request: what it asks for, and a handle. Of an answer: how it went, a zero
/// and a port.
const SHORTEST: usize = 8;
/// [`Memory::flags`](crate::conntrack::Memory::flags) while the next answer counts.
const STARTING: u32 = 1;

/// Reads a segment.
pub(super) fn help(visit: Visit<'_, '_>) -> Result<(), DropReason> {
    let Some((_, at)) = visit.stream() else { return Ok(()) };
    let payload = &visit.frame[at..visit.end()];
    let words = payload.first_chunk::<SHORTEST>();
    if visit.direction == Direction::Original {
        // Nothing else is as short as a request to start.
        if let Some(request) = words.filter(|_| payload.len() == SHORTEST) {
            let flags = if be32(request, 0) == START { STARTING } else { 0 };
            visit.conntrack.change_memory(visit.conn.id, |memory| memory.flags = flags);
        }
        return Ok(());
    }
    if visit.conntrack.memory(visit.conn.id).is_none_or(|memory| memory.flags != STARTING) {
        return Ok(());
    }
    visit.conntrack.change_memory(visit.conn.id, |memory| memory.flags = 0);
    let Some(answer) = words else { return Ok(()) };
    if be32(answer, 0) != SUCCESS || be16(answer, 4) != 0 {
        return Ok(());
    }
    // As the client knows the scanner, translated or not: the rules have the say.
    let asked = visit.tuple(Direction::Original);
    let (from, to) = (asked.src, (asked.dst, be16(answer, 6)));
    let new = visit.expectation(HelperKind::Sane, Some(from), to);
    visit.expect(&new, LIMITS).map(drop).map_err(|_| DropReason::Helper)
}
