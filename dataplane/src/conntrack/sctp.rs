//! SCTP tracking: chunks move the association's state, verification tags say
//! whether a packet belongs to it. The behaviour is netfilter's
//! (`tests/conntrack_kernel.rs` compares them).
//!
//! A packet may carry several chunks. They act one after the other, and what the
//! first ones did stays done when a later one makes the packet INVALID.

use super::config::Setting;
use super::record::PROTO_WORDS;
use super::tuple::Direction;
use crate::wire::{be16, be32};

/// Where an association stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SctpState {
    /// Before the first chunk.
    #[default]
    None,
    /// INIT seen, or aborted.
    Closed,
    /// INIT ACK seen.
    CookieWait,
    /// COOKIE ECHO seen.
    CookieEchoed,
    /// COOKIE ACK seen.
    Established,
    /// SHUTDOWN from the opener.
    ShutdownSent,
    /// SHUTDOWN from the other side.
    ShutdownRecd,
    /// SHUTDOWN ACK seen.
    ShutdownAckSent,
    /// Known from a HEARTBEAT alone.
    HeartbeatSent,
}

impl SctpState {
    const ALL: [Self; 9] = [
        Self::None,
        Self::Closed,
        Self::CookieWait,
        Self::CookieEchoed,
        Self::Established,
        Self::ShutdownSent,
        Self::ShutdownRecd,
        Self::ShutdownAckSent,
        Self::HeartbeatSent,
    ];

    /// The name that `conntrack -L` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Closed => "CLOSED",
            Self::CookieWait => "COOKIE_WAIT",
            Self::CookieEchoed => "COOKIE_ECHOED",
            Self::Established => "ESTABLISHED",
            Self::ShutdownSent => "SHUTDOWN_SENT",
            Self::ShutdownRecd => "SHUTDOWN_RECD",
            Self::ShutdownAckSent => "SHUTDOWN_ACK_SENT",
            Self::HeartbeatSent => "HEARTBEAT_SENT",
        }
    }

    /// Whether the association is on its way out, and may be dropped early even when ASSURED.
    pub(super) const fn is_closing(self) -> bool {
        matches!(self, Self::ShutdownSent | Self::ShutdownRecd | Self::ShutdownAckSent)
    }

    /// The setting that holds the state's timeout.
    pub(super) const fn timeout(self) -> Setting {
        match self {
            Self::None | Self::Closed => Setting::SctpClosed,
            Self::CookieWait => Setting::SctpCookieWait,
            Self::CookieEchoed => Setting::SctpCookieEchoed,
            Self::Established => Setting::SctpEstablished,
            Self::ShutdownSent => Setting::SctpShutdownSent,
            Self::ShutdownRecd => Setting::SctpShutdownRecd,
            Self::ShutdownAckSent => Setting::SctpShutdownAckSent,
            Self::HeartbeatSent => Setting::SctpHeartbeatSent,
        }
    }
}

/// Chunk types.
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const INIT: u8 = 1;
    pub(super) const INIT_ACK: u8 = 2;
    pub(super) const HEARTBEAT: u8 = 4;
    pub(super) const HEARTBEAT_ACK: u8 = 5;
    pub(super) const ABORT: u8 = 6;
    pub(super) const SHUTDOWN: u8 = 7;
    pub(super) const SHUTDOWN_ACK: u8 = 8;
    pub(super) const ERROR: u8 = 9;
    pub(super) const COOKIE_ECHO: u8 = 10;
    pub(super) const COOKIE_ACK: u8 = 11;
    pub(super) const SHUTDOWN_COMPLETE: u8 = 14;
}

/// Next state by direction, chunk and present state; `None`: INVALID.
#[rustfmt::skip]
const TABLE: [[[Option<SctpState>; 9]; 11]; 2] = {
    use SctpState::{
        Closed, CookieEchoed, CookieWait, Established, HeartbeatSent, ShutdownAckSent,
        ShutdownRecd, ShutdownSent,
    };
    const IV: Option<SctpState> = None;
    const CL: Option<SctpState> = Some(Closed);
    const CW: Option<SctpState> = Some(CookieWait);
    const CE: Option<SctpState> = Some(CookieEchoed);
    const ES: Option<SctpState> = Some(Established);
    const SS: Option<SctpState> = Some(ShutdownSent);
    const SR: Option<SctpState> = Some(ShutdownRecd);
    const SA: Option<SctpState> = Some(ShutdownAckSent);
    const HS: Option<SctpState> = Some(HeartbeatSent);
    [
        // NO  CL  CW  CE  ES  SS  SR  SA  HS
        [
            [CL, CL, CW, CE, ES, CL, CL, SA, CW], // init
            [CL, CL, CW, CE, ES, SS, SR, SA, CL], // init ack
            [CL, CL, CL, CL, CL, CL, CL, CL, CL], // abort
            [CL, CL, CW, CE, SS, SS, SR, SA, CL], // shutdown
            [SA, CL, CW, CE, ES, SA, SA, SA, SA], // shutdown ack
            [CL, CL, CW, CE, ES, SS, SR, SA, CL], // error
            [CL, CL, CE, CE, ES, SS, SR, SA, CL], // cookie echo
            [CL, CL, CW, ES, ES, SS, SR, SA, CL], // cookie ack
            [CL, CL, CW, CE, ES, SS, SR, CL, CL], // shutdown complete
            [HS, CL, CW, CE, ES, SS, SR, SA, HS], // heartbeat
            [CL, CL, CW, CE, ES, SS, SR, SA, HS], // heartbeat ack
        ],
        [
            [IV, CL, CW, CE, ES, SS, SR, SA, IV], // init
            [IV, CW, CW, CE, ES, SS, SR, SA, IV], // init ack
            [IV, CL, CL, CL, CL, CL, CL, CL, IV], // abort
            [IV, CL, CW, CE, SR, SS, SR, SA, IV], // shutdown
            [IV, CL, CW, CE, ES, SA, SA, SA, IV], // shutdown ack
            [IV, CL, CW, CL, ES, SS, SR, SA, IV], // error
            [IV, CL, CE, CE, ES, SS, SR, SA, IV], // cookie echo
            [IV, CL, CW, ES, ES, SS, SR, SA, IV], // cookie ack
            [IV, CL, CW, CE, ES, SS, SR, CL, IV], // shutdown complete
            [IV, CL, CW, CE, ES, SS, SR, SA, HS], // heartbeat
            [IV, CL, CW, CE, ES, SS, SR, SA, ES], // heartbeat ack
        ],
    ]
};

/// The state after a chunk; `None`: INVALID. Chunks without a row change nothing.
fn after(direction: Direction, state: SctpState, chunk: u8) -> Option<SctpState> {
    let row = match chunk {
        kind::INIT => 0,
        kind::INIT_ACK => 1,
        kind::ABORT => 2,
        kind::SHUTDOWN => 3,
        kind::SHUTDOWN_ACK => 4,
        kind::ERROR => 5,
        kind::COOKIE_ECHO => 6,
        kind::COOKIE_ACK => 7,
        kind::SHUTDOWN_COMPLETE => 8,
        kind::HEARTBEAT => 9,
        kind::HEARTBEAT_ACK => 10,
        _ => return Some(state),
    };
    TABLE[direction.index()][row][state as usize]
}

/// A chunk as tracking reads it: no more than its header has to be there.
#[derive(Clone, Copy)]
struct Chunk<'p> {
    kind: u8,
    flags: u8,
    length: usize,
    /// Everything from the chunk's start to the packet's end.
    rest: &'p [u8],
}

impl Chunk<'_> {
    /// The tag that an INIT or INIT ACK announces, if the packet is long enough for the chunk.
    fn init_tag(&self) -> Option<u32> {
        const INIT_HEADER: usize = 4 + 16;
        (self.rest.len() >= INIT_HEADER).then(|| be32(self.rest, 4))
    }
    /// The T bit: the tag is the one that the receiver's peer expects.
    const fn reflects(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// The chunks of a packet, by their lengths alone.
fn chunks(l4: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    const COMMON: usize = 12;
    let mut at = COMMON;
    std::iter::from_fn(move || {
        let rest = l4.get(at..)?;
        let header = rest.first_chunk::<4>()?;
        let length = usize::from(be16(header, 2));
        // A zero length ends the packet: `kinds` has refused it.
        at = if length == 0 { l4.len() } else { at + length.next_multiple_of(4) };
        Some(Chunk { kind: header[0], flags: header[1], length, rest })
    })
}

/// The chunk types of a packet as bits. `None`: chunks that may not stand
/// together, one without a length, or none at all.
fn kinds(l4: &[u8]) -> Option<u64> {
    let (mut seen, mut alone) = (0, false);
    for (nth, chunk) in chunks(l4).enumerate() {
        alone |= matches!(chunk.kind, kind::INIT | kind::INIT_ACK | kind::SHUTDOWN_COMPLETE);
        let first = alone || matches!(chunk.kind, kind::COOKIE_ECHO | kind::COOKIE_ACK);
        if (first && nth != 0) || chunk.length == 0 {
            return None;
        }
        seen |= 1u64.checked_shl(u32::from(chunk.kind)).unwrap_or(1 << 63);
    }
    (seen != 0).then_some(seen)
}

const fn any(kinds: u64, of: &[u8]) -> bool {
    let mut at = 0;
    while at < of.len() {
        if kinds >> of[at] & 1 != 0 {
            return true;
        }
        at += 1;
    }
    false
}

/// What a packet does to its association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Passes; the state's timeout begins anew.
    Refresh,
    /// Passes; the deadline stays.
    Pass,
    /// INVALID.
    Invalid,
}

/// State of one association.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SctpConn {
    state: SctpState,
    /// By direction: the tag that its packets carry; zero: not known.
    tags: [u32; 2],
    /// By direction: it sent an INIT that no COOKIE ACK has concluded.
    init: [bool; 2],
    /// The way of a heartbeat with an unknown tag, until it is answered.
    probed: Option<Direction>,
    /// A chunk of the packet in hand opened it, whatever a later one did. Not stored.
    opened: bool,
}

impl SctpConn {
    /// Before the first packet, which may not be an answer to something.
    pub(super) fn open(l4: &[u8]) -> Option<Self> {
        let kinds = kinds(l4)?;
        if any(kinds, &[kind::ABORT, kind::SHUTDOWN_COMPLETE, kind::COOKIE_ACK]) {
            return None;
        }
        let mut conn = Self::default();
        for chunk in chunks(l4) {
            match after(Direction::Original, SctpState::None, chunk.kind) {
                None | Some(SctpState::None) => return None,
                Some(_) => {}
            }
            match chunk.kind {
                kind::INIT => (conn.tags[1], conn.init[0]) = (chunk.init_tag()?, true),
                kind::HEARTBEAT => conn.tags[0] = be32(l4, 4),
                // A SHUTDOWN COMPLETE is to come back.
                kind::SHUTDOWN_ACK => conn.tags[1] = be32(l4, 4),
                _ => {}
            }
        }
        Some(conn)
    }

    /// Where the association stands.
    pub(super) fn state(&self) -> SctpState {
        self.state
    }

    /// Whether a chunk of the last packet opened the association.
    pub(super) fn opened(&self) -> bool {
        self.opened
    }

    /// One packet; `l4` holds a whole common header. `confirmed`: not the first.
    pub(super) fn step(&mut self, l4: &[u8], direction: Direction, confirmed: bool) -> Step {
        let Some(kinds) = kinds(l4) else { return Step::Invalid };
        const LOOKED_AT_ONE_BY_ONE: [u8; 7] = [
            kind::INIT,
            kind::SHUTDOWN_COMPLETE,
            kind::COOKIE_ECHO,
            kind::ABORT,
            kind::SHUTDOWN_ACK,
            kind::HEARTBEAT,
            kind::HEARTBEAT_ACK,
        ];
        let packet = Headed { tag: be32(l4, 4), direction, kinds, confirmed };
        if !any(kinds, &LOOKED_AT_ONE_BY_ONE) && packet.tag != self.tags[direction.index()] {
            return Step::Invalid;
        }
        let mut pass = false;
        for chunk in chunks(l4) {
            let Some(verdict) = self.chunk(&chunk, &packet, pass) else { return Step::Invalid };
            pass |= verdict == Step::Pass;
        }
        if pass { Step::Pass } else { Step::Refresh }
    }

    /// One chunk; `None`: INVALID.
    fn chunk(&mut self, chunk: &Chunk<'_>, packet: &Headed, ignoring: bool) -> Option<Step> {
        let (me, peer) = (packet.direction.index(), packet.direction.opposite().index());
        let fits = |tag| (packet.tag == tag).then_some(());
        match chunk.kind {
            kind::INIT => fits(0)?,
            kind::ABORT | kind::SHUTDOWN_COMPLETE => {
                fits(self.tags[if chunk.reflects() { peer } else { me }])?;
            }
            kind::COOKIE_ECHO => fits(self.tags[me])?,
            kind::COOKIE_ACK => self.init = [false; 2],
            kind::HEARTBEAT | kind::HEARTBEAT_ACK
                if self.heartbeat(chunk.kind, packet, ignoring)? == Step::Pass =>
            {
                return Some(Step::Pass);
            }
            _ => {}
        }
        let old = self.state;
        let new = after(packet.direction, old, chunk.kind)?;
        let mut step = Step::Refresh;
        match chunk.kind {
            kind::INIT => {
                let announced = chunk.init_tag()?;
                // One that says what is known already is stale, or spoofed.
                if self.tags[peer] != announced {
                    if self.init == [true; 2] {
                        self.init[peer] = false;
                    }
                    self.init[me] = true;
                    self.tags[peer] = announced;
                }
                // An INIT sent again does not keep the entry alive.
                if packet.confirmed && (old, new) == (SctpState::Closed, SctpState::Closed) {
                    step = Step::Pass;
                }
            }
            kind::INIT_ACK => {
                let announced = chunk.init_tag()?;
                let known = self.tags[peer];
                let unasked = !self.init[peer] && known != 0;
                if (unasked || self.init == [true; 2]) && known != announced {
                    return None;
                }
                self.tags[peer] = announced;
            }
            _ => {}
        }
        self.opened |= new != old && new == SctpState::Established;
        self.state = new;
        Some(step)
    }

    /// Heartbeats may show a tag that nobody announced: the association moved to
    /// this path. A probe with another tag passes, and its answer is believed.
    fn heartbeat(&mut self, kind: u8, packet: &Headed, ignoring: bool) -> Option<Step> {
        let (me, peer) = (packet.direction.index(), packet.direction.opposite().index());
        if self.tags[me] == 0 {
            self.tags[me] = packet.tag;
        } else if packet.tag == self.tags[me] {
            self.probed = None;
        } else if any(packet.kinds, &[kind::DATA]) || ignoring {
            return None;
        } else if kind == kind::HEARTBEAT {
            self.probed = Some(packet.direction);
            return Some(Step::Pass);
        } else {
            self.probed.filter(|&way| way != packet.direction)?;
            self.probed = None;
            (self.tags[me], self.tags[peer]) = (packet.tag, 0);
        }
        Some(Step::Refresh)
    }

    /// For storage in a record. The state has TCP's place.
    pub(super) fn pack(&self) -> [u64; PROTO_WORDS] {
        let probed = self.probed.map_or(0, |way| 1 + way.index() as u64);
        let init = u64::from(self.init[0]) | u64::from(self.init[1]) << 1;
        let mut words = [0; PROTO_WORDS];
        words[0] = (self.state as u64) << 32 | init << 8 | probed;
        words[1] = u64::from(self.tags[1]) << 32 | u64::from(self.tags[0]);
        words
    }

    /// From storage.
    pub(super) fn unpack(words: &[u64; PROTO_WORDS]) -> Self {
        let state = (words[0] >> 32) as u8;
        Self {
            state: SctpState::ALL.get(usize::from(state)).copied().unwrap_or_default(),
            tags: [words[1] as u32, (words[1] >> 32) as u32],
            init: [words[0] >> 8 & 1 != 0, words[0] >> 9 & 1 != 0],
            probed: match words[0] as u8 {
                0 => None,
                1 => Some(Direction::Original),
                _ => Some(Direction::Reply),
            },
            opened: false,
        }
    }
}

/// What holds for all chunks of a packet.
struct Headed {
    tag: u32,
    direction: Direction,
    /// Bit per chunk type.
    kinds: u64,
    confirmed: bool,
}
