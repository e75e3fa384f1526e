//! TCP tracking: the state table and what surrounds it.
//!
//! Pure: one packet and one connection's state in, the new state and a verdict
//! out. [`window`] checks sequence numbers, [`segment`] reads the header. The
//! behaviour is netfilter's (`docs/architecture.md` names the oracle tests).

pub(super) mod segment;
mod table;
mod window;

use super::config::{Setting, Settings};
use super::extra::SeqShift;
use super::record::PROTO_WORDS;
use super::status::{ASSURED, PROXIED, SEEN_REPLY};
use super::tuple::Direction;
use crate::clock::Nanos;
use crate::wire::tcp::flags;
use segment::{Class, Options, Segment};
pub use table::TcpState;
use table::{Move, TABLE};
use window::{Fit, Side};

/// The last in-window packet, to recognise retransmissions; or the last
/// ignored one, to recognise its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Last {
    reply: bool,
    class: Class,
    seq: u32,
    ack: u32,
    end: u32,
    /// As sent, unscaled.
    win: u16,
    scale: u8,
    flags: u8,
}

/// An ignored SYN arrived in LAST_ACK: the next ACK back may be a challenge.
const EXPECT_CHALLENGE: u8 = 1 << 6;
/// Both sides sent a SYN.
const SIMULTANEOUS_OPEN: u8 = 1 << 7;

/// State of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TcpConn {
    state: TcpState,
    sides: [Side; 2],
    last: Last,
    /// Identical ACKs in a row.
    retrans: u8,
}

/// What a packet does to its connection's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Passes; the entry lives for `refresh` from now on.
    Accept {
        /// New timeout.
        refresh: Nanos,
        /// The entry becomes ASSURED.
        assure: bool,
    },
    /// Passes; the deadline stays.
    Pass,
    /// Passes, and the entry is deleted.
    Kill,
    /// INVALID: its lengths or its checksum do not hold.
    Unsound,
    /// INVALID; the deadline may be lowered to this much from now.
    Invalid(Option<Nanos>),
    /// The entry is deleted and the packet starts afresh.
    Reopen,
}

/// What a packet meets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Context<'s> {
    /// Way of the packet.
    pub(super) direction: Direction,
    /// Status bits before it.
    pub(super) status: u32,
    /// Time left before the entry expires.
    pub(super) left: Nanos,
    /// Whether what does not fit may be because we were absent.
    pub(super) relearning: bool,
    /// How each direction's numbers are shifted behind us.
    pub(super) shifts: [SeqShift; 2],
    /// Knobs in force.
    pub(super) settings: &'s Settings,
    /// Timeouts in force, the table's or a named policy's.
    pub(super) timeouts: &'s Settings,
}

impl Context<'_> {
    fn timeout(&self, setting: Setting) -> Nanos {
        self.timeouts.timeout(setting)
    }
}

impl TcpConn {
    /// The state that `segment` starts a connection in; `None`: it cannot.
    pub(super) fn open(segment: &Segment<'_>, settings: &Settings) -> Option<Self> {
        let fresh = Self {
            state: TcpState::None,
            sides: [Side::default(); 2],
            last: Last::default(),
            retrans: 0,
        };
        let sides = match TABLE[0][segment.class as usize][TcpState::None as usize] {
            Move::To(TcpState::SynSent) => [Side::opened_by(segment), Side::default()],
            Move::To(_) if settings.is_on(Setting::TcpLoose) => Side::picked_up(segment),
            _ => return None,
        };
        Some(Self { sides, ..fresh })
    }

    /// Where the connection stands.
    pub(super) fn state(&self) -> TcpState {
        self.state
    }

    /// The largest window that the opener said.
    pub(super) fn opener_window(&self) -> u32 {
        self.sides[0].max_win
    }

    /// Where the sequence numbers of the side that opened it stand.
    pub(super) fn sent_by_opener(&self) -> u32 {
        self.sides[0].end
    }

    /// We were absent, and both sides may have gone on: their next packets say
    /// where they are.
    pub(super) fn lose_history(&mut self) {
        self.sides.iter_mut().for_each(Side::lose_history);
        self.retrans = 0;
    }

    /// A reset was sent on this connection's behalf.
    pub(super) fn force_close(&mut self) {
        self.state = TcpState::Close;
    }

    /// One packet.
    pub(super) fn step(&mut self, segment: &Segment<'_>, context: &Context<'_>) -> Effect {
        let direction = context.direction;
        let row = TABLE[direction.index()][segment.class as usize];
        let old = self.state;
        let mut new = match row[old as usize] {
            Move::Invalid if self.is_impatient(segment, context) => return Effect::Pass,
            Move::Invalid => return Effect::Invalid(None),
            Move::Ignore if self.resynchronise(segment, direction) => TcpState::SynRecv,
            Move::Ignore => return self.ignore(segment, direction),
            Move::To(TcpState::SynSent) if old >= TcpState::TimeWait => {
                if self.may_reopen(direction) {
                    return Effect::Reopen;
                }
                return self.ignore(segment, direction);
            }
            Move::To(new) => new,
        };
        let mut checked = false;
        match new {
            TcpState::TimeWait if self.is_challenge(segment, direction) => {
                self.last.flags &= !EXPECT_CHALLENGE;
                return Effect::Pass;
            }
            TcpState::SynSent2 => self.last.flags |= SIMULTANEOUS_OPEN,
            TcpState::SynRecv => {
                let both = self.last.flags & SIMULTANEOUS_OPEN != 0;
                if direction == Direction::Reply && segment.class == Class::Ack && both {
                    new = TcpState::Established;
                }
            }
            TcpState::Close if segment.class == Class::Rst => match self.reset(segment, context) {
                Reset::Invalid => return Effect::Invalid(None),
                Reset::CheckWindow => {}
                Reset::Inexact => new = old,
                Reset::InexactUnchecked => (new, checked) = (old, true),
                Reset::Unchecked => checked = true,
            },
            _ => {}
        }
        if !checked {
            let mut fit = window::check(self, segment, context);
            if fit == Fit::Invalid && context.relearning && segment.class != Class::Rst {
                self.lose_history();
                fit = window::check(self, segment, context);
            }
            match fit {
                Fit::Fits => {}
                Fit::Tolerated => return Effect::Pass,
                Fit::Invalid => return Effect::Invalid(self.after_invalid(segment, context)),
            }
        }
        self.settle(segment, context, old, new)
    }

    /// A client that SYNPROXY let in, while its server has not answered yet: it asks
    /// whether we are still there.
    fn is_impatient(&self, segment: &Segment<'_>, context: &Context<'_>) -> bool {
        context.status & PROXIED != 0
            && self.state == TcpState::SynSent
            && segment.class == Class::Ack
            && context.direction == Direction::Original
            && !self.last.reply
            && self.sides[0].end.wrapping_sub(1) == segment.seq
    }

    /// Takes an in-window packet's state and chooses the timeout.
    fn settle(
        &mut self,
        segment: &Segment<'_>,
        context: &Context<'_>,
        old: TcpState,
        new: TcpState,
    ) -> Effect {
        self.last.class = segment.class;
        self.last.reply = context.direction == Direction::Reply;
        self.state = new;
        if old != new && new == TcpState::FinWait {
            self.sides[context.direction.index()].closes_first();
        }
        let refresh = self.timeout(segment, context);
        if context.status & SEEN_REPLY == 0 {
            // Judged before the reply that this packet may be is counted.
            if segment.has(flags::RST) {
                return Effect::Kill;
            }
            if segment.class == Class::Syn && old == TcpState::SynSent {
                return Effect::Pass;
            }
            if new == TcpState::Established {
                let longest = context.timeout(Setting::TcpUnacknowledged);
                return Effect::Accept { refresh: refresh.min(longest), assure: false };
            }
            return Effect::Accept { refresh, assure: false };
        }
        let assure = context.status & ASSURED == 0
            && matches!(old, TcpState::SynRecv | TcpState::Established)
            && new == TcpState::Established;
        Effect::Accept { refresh, assure }
    }

    fn timeout(&self, segment: &Segment<'_>, context: &Context<'_>) -> Nanos {
        let full = context.timeout(self.state.timeout());
        let lowered = if u64::from(self.retrans) >= context.settings.get(Setting::TcpMaxRetrans)
            && full > context.timeout(Setting::TcpRetransTimeout)
        {
            Setting::TcpRetransTimeout
        } else if segment.class == Class::Rst {
            return context.timeout(Setting::TcpClose);
        } else if self.sides.iter().any(Side::has_unacknowledged)
            && full > context.timeout(Setting::TcpUnacknowledged)
        {
            Setting::TcpUnacknowledged
        } else if self.last.win == 0 && full > context.timeout(Setting::TcpRetransTimeout) {
            Setting::TcpRetransTimeout
        } else {
            return full;
        };
        context.timeout(lowered)
    }

    /// A SYN in TIME_WAIT or CLOSE: whether the old connection is really over.
    fn may_reopen(&self, direction: Direction) -> bool {
        let same_way = self.last.reply == (direction == Direction::Reply);
        self.sides.iter().any(Side::closed_first) || same_way && self.last.class == Class::Rst
    }

    /// A SYN-ACK that acknowledges a SYN which we ignored: both ends agree and
    /// we do not, so we take over what we noted of that SYN.
    fn resynchronise(&mut self, segment: &Segment<'_>, direction: Direction) -> bool {
        let last = &mut self.last;
        if segment.class != Class::SynAck
            || last.class != Class::Syn
            || last.reply == (direction == Direction::Reply)
            || segment.ack != last.end
        {
            return false;
        }
        last.flags &= !EXPECT_CHALLENGE;
        let opener = direction.opposite().index();
        self.sides[opener] = Side::noted(last.end, last.win, last.scale, last.flags);
        self.sides[direction.index()].forget();
        true
    }

    /// Lets a packet pass that may tell us the ends are ahead of us; notes it.
    fn ignore(&mut self, segment: &Segment<'_>, direction: Direction) -> Effect {
        let last = &mut self.last;
        last.class = segment.class;
        last.reply = direction == Direction::Reply;
        last.seq = segment.seq;
        last.end = segment.end;
        last.win = segment.win;
        if segment.class == Class::Syn && direction == Direction::Original {
            let options = Options::of_syn(segment);
            last.scale = options.scale;
            last.flags = options.side_flags();
            if self.state == TcpState::LastAck {
                last.flags |= EXPECT_CHALLENGE;
            }
        }
        let answers_syn = self.state == TcpState::SynSent && segment.class == Class::Ack;
        if answers_syn && direction == Direction::Reply {
            last.ack = segment.ack;
        }
        Effect::Pass
    }

    fn is_challenge(&self, segment: &Segment<'_>, direction: Direction) -> bool {
        self.state == TcpState::LastAck
            && segment.class == Class::Ack
            && self.last.reply != (direction == Direction::Reply)
            && self.last.class == Class::Syn
            && self.last.flags & EXPECT_CHALLENGE != 0
    }

    /// Judges an RST against what the peer has acknowledged.
    fn reset(&self, segment: &Segment<'_>, context: &Context<'_>) -> Reset {
        if self.state.is_closing() {
            // The ends may have begun anew with the same ports; what we know is stale.
            return Reset::Unchecked;
        }
        let direction = context.direction;
        let last = &self.last;
        let same_way = last.reply == (direction == Direction::Reply);
        let established = self.state == TcpState::Established && context.status & ASSURED != 0;
        let peer = &self.sides[direction.opposite().index()];
        if context.relearning && peer.acked().is_none() {
            // Nothing is known to judge it by. The end that it goes to knows.
            return Reset::InexactUnchecked;
        }
        let mut judged = Reset::CheckWindow;
        if let Some(acked) = peer.acked()
            && last.class != Class::Syn
        {
            let below = (segment.seq.wrapping_sub(acked) as i32) < 0;
            if segment.seq == 0 && !established {
                return Reset::CheckWindow;
            }
            if below && !context.settings.is_on(Setting::TcpIgnoreInvalidRst) {
                return Reset::Invalid;
            }
            let contiguous = last.class == Class::Ack && same_way && segment.seq == last.end;
            if !established || segment.seq == acked || contiguous {
                return Reset::CheckWindow;
            }
            judged = Reset::Inexact;
        }
        let answers_syn = context.status & SEEN_REPLY != 0 && last.class == Class::Syn && !same_way;
        let answers_ack = context.status & ASSURED == 0 && last.class == Class::Ack;
        let answers_noted = (answers_syn || answers_ack) && segment.ack == last.end;
        let answers_challenge = self.state == TcpState::SynSent
            && last.class == Class::Ack
            && last.reply
            && segment.seq == last.ack;
        if answers_noted || answers_challenge {
            return match judged {
                Reset::Inexact => Reset::InexactUnchecked,
                _ => Reset::Unchecked,
            };
        }
        judged
    }

    /// After an out-of-window FIN or RST of an ASSURED connection: a second one
    /// from the other side shows that we have lost track, so the entry should not linger.
    fn after_invalid(&mut self, segment: &Segment<'_>, context: &Context<'_>) -> Option<Nanos> {
        if context.status & ASSURED == 0 || !matches!(segment.class, Class::Rst | Class::Fin) {
            return None;
        }
        let reply = context.direction == Direction::Reply;
        if self.last.reply == reply || !matches!(self.last.class, Class::Rst | Class::Fin) {
            self.last.class = segment.class;
            self.last.reply = reply;
            return None;
        }
        let lowered = context.timeout(Setting::TcpUnacknowledged);
        (context.left >= Nanos::from_secs(120) && context.left > lowered).then_some(lowered)
    }

    /// For storage in a record.
    pub(super) fn pack(&self) -> [u64; PROTO_WORDS] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let [a, b] = &self.sides;
        let last = &self.last;
        let bytes = [
            a.scale,
            a.flags,
            b.scale,
            b.flags,
            self.state as u8,
            u8::from(last.reply) << 7 | last.class as u8,
            self.retrans,
            last.scale,
        ];
        [
            u64::from_le_bytes(bytes),
            pair(a.end, a.max_end),
            pair(a.max_win, a.max_ack),
            pair(b.end, b.max_end),
            pair(b.max_win, b.max_ack),
            pair(last.seq, last.ack),
            pair(last.end, u32::from(last.win) | u32::from(last.flags) << 16),
            0,
        ]
    }

    /// From storage.
    pub(super) fn unpack(words: &[u64; PROTO_WORDS]) -> Self {
        let [scale_a, flags_a, scale_b, flags_b, state, way, retrans, last_scale] =
            words[0].to_le_bytes();
        let low = |word: usize| words[word] as u32;
        let high = |word: usize| (words[word] >> 32) as u32;
        let side = |at: usize, scale, flags| Side {
            end: low(at),
            max_end: high(at),
            max_win: low(at + 1),
            max_ack: high(at + 1),
            scale,
            flags,
        };
        Self {
            state: TcpState::ALL.get(usize::from(state)).copied().unwrap_or(TcpState::None),
            sides: [side(1, scale_a, flags_a), side(3, scale_b, flags_b)],
            last: Last {
                reply: way >> 7 != 0,
                class: Class::from_index(way & 0x7f),
                seq: low(5),
                ack: high(5),
                end: low(6),
                win: high(6) as u16,
                scale: last_scale,
                flags: (high(6) >> 16) as u8,
            },
            retrans,
        }
    }
}

/// How an RST stands to the connection.
enum Reset {
    /// Below what the peer has acknowledged.
    Invalid,
    /// Closes it, if the window agrees.
    CheckWindow,
    /// Closes it without a window check.
    Unchecked,
    /// Not exactly where the peer expects it: passes, the state stays.
    Inexact,
    /// The same, without a window check.
    InexactUnchecked,
}
