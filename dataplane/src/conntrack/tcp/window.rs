//! TCP window tracking: what each side may send, judged from what the other
//! side has acknowledged and offered.

use super::super::config::Setting;
use super::super::tuple::Direction;
use super::segment::{Class, Options, Segment};
use super::{Context, TcpConn, TcpState};
use crate::wire::tcp::flags::{ACK, RST, SYN};

/// A window scale option was in the SYN.
pub(super) const SCALE_OFFERED: u8 = 1;
/// SACK was permitted in the SYN (or is assumed).
pub(super) const SACK_PERMITTED: u8 = 1 << 1;
/// The side that sent the first FIN.
const CLOSED_FIRST: u8 = 1 << 2;
/// Picked up in mid-connection: nothing it sends is out of window.
const LIBERAL: u8 = 1 << 3;
/// It sent data that no ACK has covered.
const UNACKNOWLEDGED: u8 = 1 << 4;
/// `max_ack` means something.
const ACKED: u8 = 1 << 5;

/// An ACK may lag behind the peer's data by at least this much.
const LEAST_ACK_WINDOW: u32 = 66_000;

/// What is known of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Side {
    /// Highest sequence number (end) it has sent.
    pub(super) end: u32,
    /// Highest sequence number (end) that the peer lets it send.
    pub(super) max_end: u32,
    /// Largest window it has offered, scaled; zero: nothing seen of it.
    pub(super) max_win: u32,
    /// Highest acknowledgement it has sent.
    pub(super) max_ack: u32,
    /// Window scale in force.
    pub(super) scale: u8,
    pub(super) flags: u8,
}

/// The outcome of a window check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// In the window: everything is updated.
    Fits,
    /// Passes, and changes nothing else.
    Tolerated,
    /// Out of the window.
    Invalid,
}

const fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

const fn after(a: u32, b: u32) -> bool {
    before(b, a)
}

impl Side {
    /// The opener of a connection, from its SYN.
    pub(super) fn opened_by(segment: &Segment<'_>) -> Self {
        let options = Options::of_syn(segment);
        Self {
            end: segment.end,
            max_end: segment.end,
            max_win: u32::from(segment.win).max(1),
            max_ack: 0,
            scale: options.scale,
            flags: options.side_flags(),
        }
    }

    /// Both sides of a connection whose beginning nobody saw. Scaling is
    /// unknown, so neither side is held to a window.
    pub(super) fn picked_up(segment: &Segment<'_>) -> [Self; 2] {
        let unknown = Self { flags: SACK_PERMITTED | LIBERAL, ..Self::default() };
        let max_win = u32::from(segment.win).max(1);
        let max_end = segment.end.wrapping_add(max_win);
        [Self { end: segment.end, max_end, max_win, ..unknown }, unknown]
    }

    /// From the notes on an ignored SYN.
    pub(super) fn noted(end: u32, win: u16, scale: u8, flags: u8) -> Self {
        Self { end, max_end: end, max_win: u32::from(win).max(1), max_ack: 0, scale, flags }
    }

    /// Nothing is known of this side any more, but that it is not held to a window.
    pub(super) fn forget(&mut self) {
        *self = Self { flags: self.flags & LIBERAL, ..Self::default() };
    }

    /// Where it stands is unknown; what its SYN agreed on still holds.
    pub(super) fn lose_history(&mut self) {
        self.max_win = 0;
        self.max_ack = 0;
        self.flags &= !(ACKED | UNACKNOWLEDGED);
    }

    pub(super) fn has_unacknowledged(&self) -> bool {
        self.flags & UNACKNOWLEDGED != 0
    }
    pub(super) fn closes_first(&mut self) {
        self.flags |= CLOSED_FIRST;
    }
    pub(super) fn closed_first(&self) -> bool {
        self.flags & CLOSED_FIRST != 0
    }
    /// Highest acknowledgement it has sent, if any.
    pub(super) fn acked(&self) -> Option<u32> {
        (self.flags & ACKED != 0).then_some(self.max_ack)
    }

    /// Begins (again) from a SYN of this side.
    fn begin(&mut self, peer: &mut Self, segment: &Segment<'_>, direction: Direction) {
        self.end = segment.end;
        self.max_end = segment.end;
        self.max_win = u32::from(segment.win).max(1);
        // A SYN without any option leaves what an earlier one offered.
        if segment.has_options() {
            let options = Options::of_syn(segment);
            self.scale = options.scale;
            self.flags = self.flags & LIBERAL | options.side_flags();
        }
        let both_scale = self.flags & peer.flags & SCALE_OFFERED != 0;
        if direction == Direction::Reply && !both_scale {
            self.scale = 0;
            peer.scale = 0;
        }
    }

    /// The first packet of a side that is not a SYN: its history is lost.
    fn join_late(&mut self, peer: &mut Self, segment: &Segment<'_>, sack: u32) {
        self.end = segment.end;
        self.max_win = (u32::from(segment.win) << self.scale).max(1);
        self.max_end = segment.end.wrapping_add(self.max_win);
        if peer.max_win == 0 {
            peer.end = sack;
            peer.max_end = sack;
        } else if sack == peer.end.wrapping_add(1) {
            // The answer to a keep-alive, most likely.
            peer.end = sack;
        }
    }

    fn ack_window(&self) -> u32 {
        self.max_win.max(LEAST_ACK_WINDOW)
    }
}

/// A segment's numbers as the checks use them.
#[derive(Clone, Copy)]
struct Numbers {
    seq: u32,
    end: u32,
    ack: u32,
    /// The highest of the ACK and the SACK right edges.
    sack: u32,
}

/// Checks a segment against both windows and, if it fits, updates them.
pub(super) fn check(conn: &mut TcpConn, segment: &Segment<'_>, context: &Context<'_>) -> Fit {
    let direction = context.direction;
    let [original, reply] = &mut conn.sides;
    let (sender, receiver) = match direction {
        Direction::Original => (original, reply),
        Direction::Reply => (reply, original),
    };
    let mut sack = segment.ack;
    if receiver.flags & SACK_PERMITTED != 0 {
        sack = segment.highest_sack();
    }
    // It acknowledges what the receiver's bytes were shifted to.
    let shift = &context.shifts[direction.opposite().index()];
    let shifted = shift.at(segment.ack.wrapping_sub(1)) as u32;
    let [ack, sack] = [segment.ack, sack].map(|number| number.wrapping_sub(shifted));
    let is_syn = segment.has(SYN);
    let opening = matches!(conn.state, TcpState::SynSent | TcpState::SynRecv);
    if sender.max_win == 0 {
        if is_syn {
            sender.begin(receiver, segment, direction);
            if !segment.has(ACK) {
                return Fit::Fits;
            }
        } else {
            sender.join_late(receiver, segment, sack);
        }
    } else if is_syn && opening && after(segment.end, sender.end) {
        // Begun again with a higher number, perhaps with other options.
        sender.begin(receiver, segment, direction);
        if direction == Direction::Reply && !segment.has(ACK) {
            return Fit::Fits;
        }
    }
    let numbers = numbers(conn.state, sender, receiver, segment, (ack, sack));
    if let Some(fit) = judge(sender, receiver, &numbers) {
        let liberal = sender.flags & LIBERAL != 0 || context.settings.is_on(Setting::TcpBeLiberal);
        return if liberal { Fit::Fits } else { fit };
    }
    update(sender, receiver, segment, &numbers);
    if segment.class == Class::Ack {
        conn.note_ack(segment, &numbers, direction);
    }
    Fit::Fits
}

/// Replaces the numbers that a segment does not really carry.
fn numbers(
    state: TcpState,
    sender: &Side,
    receiver: &Side,
    segment: &Segment<'_>,
    (ack, sack): (u32, u32),
) -> Numbers {
    let mut numbers = Numbers { seq: segment.seq, end: segment.end, ack, sack };
    let hollow_reset = segment.has(RST) && segment.ack == 0;
    if !segment.has(ACK) || hollow_reset {
        numbers.ack = receiver.end;
        numbers.sack = receiver.end;
    }
    if segment.has(RST) && segment.seq == 0 && state == TcpState::SynSent {
        // The answer to a SYN.
        numbers.seq = sender.end;
        numbers.end = sender.end;
    }
    numbers
}

/// `None`: inside all four bounds.
fn judge(sender: &mut Side, receiver: &Side, numbers: &Numbers) -> Option<Fit> {
    let &Numbers { seq, end, sack, .. } = numbers;
    let within_receiver = after(end, sender.end.wrapping_sub(receiver.max_win).wrapping_sub(1));
    let ack_is_seen = !after(sack, receiver.end);
    let ack_is_recent = after(sack, receiver.end.wrapping_sub(sender.ack_window()).wrapping_sub(1));
    if after(seq, sender.max_end) {
        let overshoot = end.wrapping_sub(sender.max_end).wrapping_add(1);
        let excusable = receiver.max_win != 0 && within_receiver && ack_is_recent && ack_is_seen;
        if excusable && overshoot <= receiver.max_win {
            // The peer may take it; its ACK must not look like an ACK of unseen data.
            sender.end = end;
            sender.flags |= UNACKNOWLEDGED;
            return Some(Fit::Tolerated);
        }
        return Some(Fit::Invalid);
    }
    if !ack_is_seen {
        return Some(Fit::Invalid);
    }
    let old_data = receiver.max_win != 0 && !within_receiver;
    (old_data || !ack_is_recent).then_some(Fit::Tolerated)
}

fn update(sender: &mut Side, receiver: &mut Side, segment: &Segment<'_>, numbers: &Numbers) {
    let &Numbers { end, ack, sack, .. } = numbers;
    let mut win = u32::from(segment.win);
    if !segment.has(SYN) {
        win <<= sender.scale;
    }
    sender.max_win = sender.max_win.max(win.wrapping_add(sack.wrapping_sub(ack)));
    if after(end, sender.end) {
        sender.end = end;
        sender.flags |= UNACKNOWLEDGED;
    }
    if segment.has(ACK) && sender.acked().is_none_or(|highest| after(ack, highest)) {
        sender.max_ack = ack;
        sender.flags |= ACKED;
    }
    if receiver.max_win != 0 && after(end, sender.max_end) {
        receiver.max_win = receiver.max_win.wrapping_add(end.wrapping_sub(sender.max_end));
    }
    let offered = sack.wrapping_add(win);
    if after(offered, receiver.max_end.wrapping_sub(1)) {
        // A closed window still lets a probe of one byte through.
        receiver.max_end = offered.wrapping_add(u32::from(win == 0));
    }
    if ack == receiver.end {
        receiver.flags &= !UNACKNOWLEDGED;
    }
}

impl TcpConn {
    /// Counts identical ACKs in a row.
    fn note_ack(&mut self, segment: &Segment<'_>, numbers: &Numbers, direction: Direction) {
        let reply = direction == Direction::Reply;
        let last = &mut self.last;
        let same = last.reply == reply
            && last.seq == numbers.seq
            && last.ack == numbers.ack
            && last.end == numbers.end
            && last.win == segment.win;
        if same {
            // Wraps as the kernel's byte does.
            self.retrans = self.retrans.wrapping_add(1);
            return;
        }
        last.reply = reply;
        last.seq = numbers.seq;
        last.ack = numbers.ack;
        last.end = numbers.end;
        last.win = segment.win;
        self.retrans = 0;
    }
}
