//! PPTP: the control connection agrees on calls, whose data then goes by GRE, both
//! ways, told apart by the calls' numbers.
//!
//! As in the kernel, whoever opened the connection is the client (PNS), and there is
//! one call at a time. Under translation a client's call that it makes itself becomes
//! the number of its port outside.

use super::Visit;
use super::rewrite::{self, Cut};
use crate::clock::Nanos;
use crate::conntrack::{Calls, Direction, Follow, Limits, Tuple};
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;
use crate::wire::{be16, be32};

/// Data both ways.
const LIMITS: Limits = Limits { most: 2, timeout: Nanos::from_secs(300), any_master: false };

/// Length, type, cookie; kind of message and two bytes that say nothing.
const HEADER: usize = 12;
const CONTROL: u16 = 1;
const COOKIE: u32 = 0x1a2b_3c4d;

/// How far a session is, in order.
mod session {
    pub(super) const NONE: u8 = 0;
    pub(super) const ERROR: u8 = 1;
    pub(super) const STOPPING: u8 = 2;
    pub(super) const REQUESTED: u8 = 3;
    pub(super) const CONFIRMED: u8 = 4;
}

/// How far a call is: made by the client (OUT) or the server (IN).
mod call {
    pub(super) const NONE: u8 = 0;
    pub(super) const OUT_REQUESTED: u8 = 1;
    pub(super) const OUT_CONFIRMED: u8 = 2;
    pub(super) const IN_REQUESTED: u8 = 3;
    pub(super) const IN_REPLIED: u8 = 4;
    pub(super) const IN_CONFIRMED: u8 = 5;
    pub(super) const CLEARING: u8 = 6;
}

/// Kinds of messages.
mod kind {
    pub(super) const START: u16 = 1;
    pub(super) const START_REPLY: u16 = 2;
    pub(super) const STOP: u16 = 3;
    pub(super) const STOP_REPLY: u16 = 4;
    pub(super) const ECHO: u16 = 5;
    pub(super) const ECHO_REPLY: u16 = 6;
    pub(super) const OUT_CALL: u16 = 7;
    pub(super) const OUT_CALL_REPLY: u16 = 8;
    pub(super) const IN_CALL: u16 = 9;
    pub(super) const IN_CALL_REPLY: u16 = 10;
    pub(super) const IN_CALL_CONNECTED: u16 = 11;
    pub(super) const CLEAR: u16 = 12;
    pub(super) const DISCONNECTED: u16 = 13;
    pub(super) const WAN_ERROR: u16 = 14;
    pub(super) const LINK_INFO: u16 = 15;
}

/// What each kind of message has at least, behind the header.
const LEAST: [usize; 16] = [0, 144, 144, 4, 4, 4, 8, 156, 20, 208, 12, 16, 4, 136, 28, 12];

/// How a request went: in a session, and in a call of either kind.
const FINE: u8 = 1;
const CONNECTED: u8 = 1;
const ACCEPTED: u8 = 1;

/// What a message says.
struct Message<'m> {
    kind: u16,
    body: &'m [u8],
}

/// What follows from a message.
enum Outcome {
    /// It came out of turn, and is left as it is.
    OutOfTurn,
    Fine,
    /// Data will flow.
    Connected,
    Over,
}

impl Message<'_> {
    fn half(&self, at: usize) -> u16 {
        self.body.get(at..at + 2).map_or(0, |bytes| be16(bytes, 0))
    }
    fn byte(&self, at: usize) -> u8 {
        self.body.get(at).copied().unwrap_or(0)
    }
}

/// Reads a segment.
pub(super) fn help(mut visit: Visit<'_, '_>) -> Result<(), DropReason> {
    let Some((_, at)) = visit.stream() else { return Ok(()) };
    let Some(message) = read(&visit.frame[at..visit.end()]) else { return Ok(()) };
    let kind = message.kind;
    let before = visit.conntrack.calls(visit.conn.id);
    let mut calls = before;
    let outcome = match visit.direction {
        Direction::Original => outbound(&message, &mut calls),
        Direction::Reply => inbound(&message, &mut calls),
    };
    if matches!(outcome, Outcome::OutOfTurn) {
        return Ok(());
    }
    let translated = visit.is_translated();
    let mut cut = None;
    if translated && visit.direction == Direction::Original {
        cut = translate_outbound(&visit, kind, &mut calls);
    }
    if matches!(outcome, Outcome::Connected) && translated {
        calls.inside[1] = calls.server;
    }
    if calls != before {
        visit.conntrack.set_calls(visit.conn.id, &calls);
    }
    match outcome {
        Outcome::Connected => expect_data(&visit, &calls),
        Outcome::Over => visit.conntrack.end_calls(visit.conn.id, visit.now),
        Outcome::OutOfTurn | Outcome::Fine => {}
    }
    if translated && visit.direction == Direction::Reply {
        cut = translate_inbound(kind).map(|place| (place, calls.inside[0]));
    }
    let Some((place, id)) = cut else { return Ok(()) };
    let cut = Cut { at: at + HEADER + place, len: 2 };
    if cut.at + cut.len > visit.end() {
        return Err(DropReason::Helper);
    }
    rewrite::tcp(&mut visit, cut, &id.to_be_bytes())
}

/// A control message at the beginning of a payload, if it is whole.
fn read(payload: &[u8]) -> Option<Message<'_>> {
    let (header, body) = payload.split_at_checked(HEADER)?;
    let kind = be16(header, 8);
    let ours = be16(header, 2) == CONTROL && be32(header, 4) == COOKIE;
    let least = LEAST.get(usize::from(kind)).copied().unwrap_or(0);
    (ours && body.len() >= least).then_some(Message { kind, body })
}

/// What the client says.
fn outbound(message: &Message<'_>, calls: &mut Calls) -> Outcome {
    match message.kind {
        kind::START if calls.session == session::NONE => calls.session = session::REQUESTED,
        kind::STOP => calls.session = session::STOPPING,
        kind::OUT_CALL if calls.session == session::CONFIRMED => {
            calls.call = call::OUT_REQUESTED;
            calls.client = message.half(0);
        }
        kind::IN_CALL_REPLY if matches!(calls.call, call::IN_REQUESTED | call::IN_REPLIED) => {
            if calls.server != message.half(2) {
                return Outcome::OutOfTurn;
            }
            if message.byte(4) == ACCEPTED {
                calls.call = call::IN_REPLIED;
                calls.client = message.half(0);
            } else {
                calls.call = call::NONE;
            }
        }
        kind::CLEAR if calls.session == session::CONFIRMED => calls.call = call::CLEARING,
        kind::LINK_INFO | kind::ECHO | kind::ECHO_REPLY => {}
        _ => return Outcome::OutOfTurn,
    }
    Outcome::Fine
}

/// What the server says.
fn inbound(message: &Message<'_>, calls: &mut Calls) -> Outcome {
    let confirmed = calls.session == session::CONFIRMED;
    let ended = |fine: bool, state: u8| if fine { state } else { session::ERROR };
    match message.kind {
        kind::START_REPLY if calls.session >= session::REQUESTED => {
            calls.session = ended(message.byte(2) == FINE, session::CONFIRMED);
        }
        kind::STOP_REPLY if calls.session <= session::STOPPING => {
            calls.session = ended(message.byte(0) == FINE, session::NONE);
        }
        kind::OUT_CALL_REPLY if confirmed => {
            let asked = matches!(calls.call, call::OUT_REQUESTED | call::OUT_CONFIRMED);
            if !asked || calls.client != message.half(2) {
                return Outcome::OutOfTurn;
            }
            if message.byte(4) == CONNECTED {
                calls.call = call::OUT_CONFIRMED;
                calls.server = message.half(0);
                return Outcome::Connected;
            }
            calls.call = call::NONE;
        }
        kind::IN_CALL if confirmed => {
            calls.call = call::IN_REQUESTED;
            calls.server = message.half(0);
        }
        kind::IN_CALL_CONNECTED if confirmed => {
            let replied = matches!(calls.call, call::IN_REPLIED | call::IN_CONFIRMED);
            if !replied || calls.client != message.half(0) {
                return Outcome::OutOfTurn;
            }
            calls.call = call::IN_CONFIRMED;
            return Outcome::Connected;
        }
        kind::DISCONNECTED => {
            calls.call = call::NONE;
            return Outcome::Over;
        }
        kind::WAN_ERROR | kind::LINK_INFO | kind::ECHO | kind::ECHO_REPLY => {}
        _ => return Outcome::OutOfTurn,
    }
    Outcome::Fine
}

/// Which number the server is told instead of the client's, and where.
fn translate_outbound(visit: &Visit<'_, '_>, kind: u16, calls: &mut Calls) -> Option<(usize, u16)> {
    match kind {
        kind::OUT_CALL => {
            calls.inside[0] = calls.client;
            calls.client = visit.tuple(Direction::Reply).dport;
        }
        kind::IN_CALL_REPLY | kind::CLEAR => {}
        _ => return None,
    }
    Some((0, calls.client))
}

/// Where the client is told its own number again.
fn translate_inbound(kind: u16) -> Option<usize> {
    match kind {
        kind::OUT_CALL_REPLY => Some(2),
        kind::IN_CALL_CONNECTED | kind::WAN_ERROR | kind::DISCONNECTED | kind::LINK_INFO => Some(0),
        _ => None,
    }
}

/// Expects data both ways: all of it or none.
fn expect_data(visit: &Visit<'_, '_>, calls: &Calls) {
    let master = visit.conn.id;
    let translated = visit.is_translated();
    let ways = [Direction::Original, Direction::Reply];
    let flows = calls.data(translated, ways.map(|way| visit.tuple(way)));
    // What the client's number becomes on the way to each.
    let saved = [calls.client, calls.inside[0]];
    let mut ids = [None; 2];
    let expected = (0..2).all(|at| {
        let (direction, tuple) = (ways[at], flows[at]);
        let mut new = visit.expectation(HelperKind::Pptp, Some(tuple.src), (tuple.dst, 0));
        new.tuple = Tuple { zone: new.tuple.zone, ..tuple };
        new.mask.port = u16::MAX;
        let follow = Follow { direction, port: saved[at], address: None };
        new.follow = translated.then_some(follow);
        ids[at] = visit.expect(&new, LIMITS).ok();
        ids[at].is_some()
    });
    let name = |at: usize| visit.conntrack.name_flow(master, ways[at], &flows[at]);
    let first = expected && name(0);
    if first && name(1) {
        return;
    }
    if first {
        visit.conntrack.forget_flows(master);
    }
    for id in ids.into_iter().flatten() {
        visit.conntrack.unexpect(id);
    }
}
