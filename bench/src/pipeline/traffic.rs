//! Traffic of each scenario: flows are opened through the engine, every frame's way is
//! checked, and what arrives again and again is written down.

use std::collections::HashSet;

use dataplane::packet::Family;
use dataplane::verdict::Disposition;

use super::drive::{Clock, Lane, Trace};
use super::frames::{self, Flow, PORTS, Segment, TCP, flag};
use super::rules::Nat;
use super::{Error, Point};
use crate::sets::Rng;

const CLIENT_ISN: u32 = 1000;
const SERVER_ISN: u32 = 5000;
/// A segment that acknowledges all there is, with its sender's first sequence number.
const fn steady(from_client: bool) -> Segment {
    let (seq, ack) = match from_client {
        true => (CLIENT_ISN, SERVER_ISN),
        false => (SERVER_ISN, CLIENT_ISN),
    };
    Segment { flags: flag::ACK, seq: seq + 1, ack: ack + 1 }
}
const SYN: Segment = Segment { flags: flag::SYN, seq: CLIENT_ISN, ack: 0 };
const SYN_ACK: Segment =
    Segment { flags: flag::SYN | flag::ACK, seq: SERVER_ISN, ack: CLIENT_ISN + 1 };

/// Sends a frame and checks what becomes of it; the ends with which it left.
pub(super) fn cross(
    lane: &mut Lane<'_>,
    frame: &[u8],
    port: usize,
    clock: &mut Clock,
) -> Result<Flow, Error> {
    let now = clock.time.pass(clock.gap);
    let (disposition, sent) = lane.one(frame, port, now);
    if disposition != Disposition::Transmit(PORTS[1 - port]) {
        return Err(format!("{disposition:?}: {:?}", frames::flow(frame)).into());
    }
    let ends = frames::flow(&sent);
    let expected = frames::forwarded(frame, port, &ends);
    if sent != expected {
        return Err(format!("left as {sent:02x?}, not {expected:02x?}").into());
    }
    Ok(ends)
}

/// So many different flows.
pub(super) fn distinct(
    count: usize,
    mut flow: impl FnMut(usize) -> Option<Flow>,
) -> Result<Vec<Flow>, Error> {
    let (mut seen, mut flows) = (HashSet::with_capacity(count), Vec::with_capacity(count));
    for number in 0..count.saturating_mul(20) {
        if flows.len() == count {
            break;
        }
        let flow = flow(number).ok_or("no packet meets these rules")?;
        if seen.insert(flow) && seen.insert(flow.reversed()) {
            flows.push(flow);
        }
    }
    (flows.len() == count).then_some(flows).ok_or("too few different flows".into())
}

/// Opens every flow, checks both directions of its steady traffic and returns both
/// frames: the client's, and the server's answer to whatever the client was made to be.
pub(super) fn open(
    lane: &mut Lane<'_>,
    flow: &Flow,
    point: &Point,
    clock: &mut Clock,
) -> Result<[Vec<u8>; 2], Error> {
    let first = if flow.proto == TCP { SYN } else { steady(true) };
    let len = point.frame_len();
    let opening = frames::frame(flow, first, 0, if flow.proto == TCP { 60 } else { len });
    let ends = cross(lane, &opening, 0, clock)?;
    if !Nat::allows(point.nat, flow, &ends) {
        return Err(format!("{flow:?} was translated to {ends:?}").into());
    }
    let back = |lane: &mut Lane<'_>, frame: &[u8], clock: &mut Clock| {
        let seen = cross(lane, frame, 1, clock)?;
        let right = seen == flow.reversed();
        right.then_some(()).ok_or_else(|| format!("answered as {seen:?}, not {flow:?}"))?;
        Ok::<(), Error>(())
    };
    if flow.proto == TCP {
        back(lane, &frames::frame(&ends.reversed(), SYN_ACK, 1, 60), clock)?;
    }
    let frames = [
        frames::frame(flow, steady(true), 0, len),
        frames::frame(&ends.reversed(), steady(false), 1, len),
    ];
    for _ in 0..2 {
        let again = cross(lane, &frames[0], 0, clock)?;
        if again != ends {
            return Err(format!("{flow:?} left as {ends:?}, then as {again:?}").into());
        }
        back(lane, &frames[1], clock)?;
    }
    Ok(frames)
}

/// A frame that opens a flow.
pub(super) fn opening(flow: &Flow, point: &Point) -> Vec<u8> {
    frames::frame(flow, SYN, 0, point.frame_len())
}

/// A frame without a past.
pub(super) fn lone(flow: &Flow, point: &Point) -> Vec<u8> {
    frames::frame(flow, steady(true), 0, point.frame_len())
}

/// Shuffles, always the same way.
pub(super) fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.below(last + 1));
    }
}

/// A trace of these frames in this order.
pub(super) fn trace(family: Family, frames: &[(Vec<u8>, usize)]) -> Trace {
    let mut trace = Trace::new(family == Family::V6);
    frames.iter().for_each(|(frame, port)| trace.push(frame, *port));
    trace
}
