//! Amanda: the backup client's answer names the ports on which the server will
//! fetch what it asked for.

use std::fmt::Write;

use arrayvec::ArrayString;

use super::Visit;
use super::rewrite::{self, Cut};
use crate::clock::Nanos;
use crate::conntrack::{Direction, Follow, Limits};
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;
use crate::wire::proto;

const LIMITS: Limits = Limits { most: 4, timeout: Nanos::from_secs(180), any_master: false };
/// `master_timeout`: clients think long before they answer.
const PATIENCE: Nanos = Nanos::from_secs(300);

const HEADER: usize = 8;
const CONNECT: &[u8] = b"CONNECT ";
const STREAMS: [&[u8]; 4] = [b"DATA ", b"MESG ", b"INDEX ", b"STATE "];
/// Of a port.
const DIGITS: usize = 5;

/// Reads a datagram: of the side that was asked.
pub(super) fn help(mut visit: Visit<'_, '_>) -> Result<(), DropReason> {
    if visit.direction == Direction::Original || visit.parsed.proto != proto::UDP {
        return Ok(());
    }
    visit.conntrack.refresh(visit.conn.id, PATIENCE, visit.now);
    let payload = usize::from(visit.parsed.l4) + HEADER;
    let end = visit.end();
    let Some(start) = find(&visit, CONNECT, payload, end) else { return Ok(()) };
    let start = start + CONNECT.len();
    let Some(stop) = find(&visit, b"\n", start, end) else { return Ok(()) };
    let mut outcome = Ok(());
    for stream in STREAMS {
        let Some(at) = find(&visit, stream, start, stop) else { continue };
        let at = at + stream.len();
        let digits = &visit.frame[at..stop.min(visit.end()).min(at + DIGITS)];
        let Some((port, len)) = number(digits) else { break };
        let announced = announce(&mut visit, Cut { at, len }, port);
        // The kernel goes on behind a stream that failed; where it translates, it
        // forgets about that when the next one does not.
        outcome = if visit.is_translated() { announced } else { outcome.and(announced) };
    }
    outcome
}

/// Where `text` stands in the frame, all of it from `from` on and before `to`.
fn find(visit: &Visit<'_, '_>, text: &[u8], from: usize, to: usize) -> Option<usize> {
    let range = visit.frame.get(from..to.min(visit.end()))?;
    range.windows(text.len()).position(|window| window == text).map(|at| from + at)
}

/// The port that digits say, which wraps, and how many digits. Zero is none.
fn number(text: &[u8]) -> Option<(u16, usize)> {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value =
        text[..len].iter().fold(0, |value: u32, digit| value * 10 + u32::from(digit - b'0'));
    let port = value as u16;
    (port != 0).then_some((port, len))
}

fn announce(visit: &mut Visit<'_, '_>, digits: Cut, port: u16) -> Result<(), DropReason> {
    let asked = visit.tuple(Direction::Original);
    let (from, to) = (asked.src, asked.dst);
    let mut new = visit.expectation(HelperKind::Amanda, Some(from), (to, port));
    new.tuple.proto = proto::TCP;
    if !visit.is_translated() {
        return visit.expect(&new, LIMITS).map(drop).map_err(|_| DropReason::Helper);
    }
    new.follow = Some(Follow { direction: Direction::Original, port, address: None });
    let (port, id) = visit.expect_on_free_port(&mut new, LIMITS).ok_or(DropReason::Helper)?;
    let mut text = ArrayString::<DIGITS>::new();
    let written = write!(text, "{port}");
    debug_assert!(written.is_ok(), "five digits");
    rewrite::datagram(visit, digits, text.as_bytes()).inspect_err(|_| {
        visit.conntrack.unexpect(id);
    })
}
