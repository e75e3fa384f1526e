//! IRC: direct connections between clients (DCC), which the one that offers a
//! file or a chat announces through the server.

use std::fmt::Write;
use std::ops::Range;

use arrayvec::ArrayString;

use super::Visit;
use super::rewrite::{self, Cut};
use crate::clock::Nanos;
use crate::conntrack::{Direction, Follow, Limits};
use crate::packet::Family;
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;

/// `max_dcc_channels` and `dcc_timeout`.
const LIMITS: Limits = Limits { most: 8, timeout: Nanos::from_secs(300), any_master: false };

/// Payload beyond this is not read.
const LONGEST: usize = 4095;
const OFFERS: [&[u8]; 5] = [b"SEND ", b"CHAT ", b"MOVE ", b"TSEND ", b"SCHAT "];

/// Where an offer leads.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Offer {
    address: u32,
    port: u16,
    /// Both, in the payload.
    range: Range<usize>,
}

/// Reads a segment: of a client, to the server.
pub(super) fn help(mut visit: Visit<'_, '_>) -> Result<(), DropReason> {
    let Some((_, at)) = visit.stream() else { return Ok(()) };
    if visit.direction == Direction::Reply || visit.parsed.family != Family::V4 {
        return Ok(());
    }
    let end = visit.end().min(at + LONGEST);
    let own = [visit.conn.original.src as u32, visit.conn.reply.dst as u32];
    let acceptable = |offer: &Offer| own.contains(&offer.address) && offer.port != 0;
    match find(&visit.frame[at..end], acceptable) {
        Some(offer) => announce(&mut visit, at, &offer),
        None => Ok(()),
    }
}

fn announce(visit: &mut Visit<'_, '_>, at: usize, offer: &Offer) -> Result<(), DropReason> {
    let to = visit.conn.reply.dst;
    let mut new = visit.expectation(HelperKind::Irc, None, (to, offer.port));
    if !visit.is_translated() {
        return visit.expect(&new, LIMITS).map(drop).map_err(|_| DropReason::Helper);
    }
    new.follow = Some(Follow { direction: Direction::Reply, port: offer.port, address: None });
    let (port, id) = visit.expect_on_free_port(&mut new, LIMITS).ok_or(DropReason::Helper)?;
    let mut text = ArrayString::<24>::new();
    let written = write!(text, "{} {port}", to as u32);
    debug_assert!(written.is_ok(), "sixteen digits and a blank");
    let cut = Cut { at: at + offer.range.start, len: offer.range.len() };
    rewrite::tcp(visit, cut, text.as_bytes()).inspect_err(|_| {
        visit.conntrack.unexpect(id);
    })
}

/// The offer at the beginning of a message's text, if it is acceptable.
fn find(payload: &[u8], acceptable: impl Fn(&Offer) -> bool) -> Option<Offer> {
    // "PRIVMSG x ", and the shortest offer with what leads to it.
    const MESSAGE: usize = 10;
    const SHORTEST: usize = 26;
    const TEXT: &[u8] = b" :";
    const MARK: &[u8] = b"\x01DCC ";
    let mut at = 0;
    while at + MESSAGE < payload.len() && matches!(payload[at], b' ' | b'\r' | b'\n') {
        at += 1;
    }
    if at + MESSAGE < payload.len() {
        const VERB: &[u8] = b"PRIVMSG ";
        if !payload[at..at + VERB.len()].eq_ignore_ascii_case(VERB) {
            return None;
        }
        at += VERB.len();
    }
    while at + SHORTEST < payload.len() && !payload[at..].starts_with(TEXT) {
        at += 1;
    }
    if at + SHORTEST >= payload.len() || !payload[at + TEXT.len()..].starts_with(MARK) {
        return None;
    }
    at += TEXT.len() + MARK.len();
    for offer in OFFERS {
        if !payload[at..].starts_with(offer) {
            continue;
        }
        at += offer.len();
        if let Some(found) = read(payload, at).filter(&acceptable) {
            return Some(found);
        }
    }
    None
}

/// `file address port`, from `at` on.
fn read(payload: &[u8], at: usize) -> Option<Offer> {
    // An address, a port, and the end of the message.
    const SHORTEST: usize = 12;
    let limit = payload.len().checked_sub(SHORTEST)?;
    let blank = payload[at..].iter().position(|&byte| byte == b' ')? + at;
    if blank > limit {
        return None;
    }
    let start = blank + 1;
    if !payload[start..].contains(&b'\n') {
        return None;
    }
    let mut end = start;
    let address = number(payload, &mut end);
    while payload.get(end) == Some(&b' ') {
        end += 1;
    }
    let port = number(payload, &mut end);
    Some(Offer { address: address as u32, port: port as u16, range: start..end })
}

/// A decimal number, which wraps; none reads as zero.
fn number(text: &[u8], at: &mut usize) -> u64 {
    let mut number = 0_u64;
    while let Some(digit) = text.get(*at).filter(|byte| byte.is_ascii_digit()) {
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
        *at += 1;
    }
    number
}
