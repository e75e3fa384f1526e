//! The TCP options that SYNPROXY reads, writes and hides in a timestamp.

use crate::clock::Nanos;
use crate::policy::target::SynproxyTarget;
use crate::wire::tcp::{HEADER, Options as OptionList, TcpOption};
use crate::wire::{be16, be32, checksum, put16, put32};

/// Longest list that is written here, in bytes.
pub const LENGTH_MAX: usize = 20;
/// Largest window scale.
const SCALE_MAX: u8 = 14;
/// In the lower six bits of our timestamps: no window scale was offered.
const NO_SCALE: u32 = 0xf;
const SACK_BIT: u32 = 1 << 4;
const ECN_BIT: u32 = 1 << 5;
const HIDDEN: u32 = 0x3f;

const NOP: u8 = 1;
const MSS: u8 = 2;
const SCALE: u8 = 3;
const SACK: u8 = 4;
const TIMESTAMPS: u8 = 8;
const TIMESTAMPS_LEN: usize = 10;

/// What one side says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Largest segment in bytes.
    pub mss: Option<u16>,
    /// Window scale, at most 14.
    pub scale: Option<u8>,
    /// SACK permitted.
    pub sack: bool,
    /// Value and echo.
    pub timestamps: Option<(u32, u32)>,
    /// Explicit congestion notification; flags, not an option.
    pub ecn: bool,
}

impl Options {
    /// Reads a segment; `None` when its header is not there in whole.
    pub fn read(segment: &[u8]) -> Option<Self> {
        let header = usize::from(segment.get(12)? >> 4) * 4;
        let list = segment.get(HEADER..header)?;
        let mut options = Self::default();
        for option in OptionList::new(list) {
            match option {
                TcpOption::MaxSegment(mss) => options.mss = Some(mss),
                TcpOption::WindowScale(scale) => options.scale = Some(scale.min(SCALE_MAX)),
                TcpOption::SackPermitted => options.sack = true,
                TcpOption::Timestamps(value, echo) => options.timestamps = Some((value, echo)),
                TcpOption::NoOperation | TcpOption::Sack(_) | TcpOption::Other(..) => {}
            }
        }
        Some(options)
    }

    /// What we answer to a client's SYN: what it offers and the rule allows. All but
    /// the segment size can only be remembered in a timestamp.
    pub fn answer(self, target: &SynproxyTarget, now: Nanos) -> Self {
        let mss = self.mss.and(target.mss);
        let Some((value, _)) = self.timestamps.filter(|_| target.timestamp) else {
            return Self { mss, ..Self::default() };
        };
        let scale = self.scale.filter(|_| target.wscale.is_some());
        let (sack, ecn) = (self.sack && target.sack_perm, self.ecn && target.ecn);
        let hidden = scale.map_or(NO_SCALE, u32::from)
            | if sack { SACK_BIT } else { 0 }
            | if ecn { ECN_BIT } else { 0 };
        let stamp = (now.0 / 1_000_000) as u32 & !HIDDEN | hidden;
        let scale = scale.and(target.wscale);
        Self { mss, scale, sack, timestamps: Some((stamp, value)), ecn }
    }

    /// What the client offered, from the ACK that brings `mss` and our timestamp back.
    pub fn recalled(self, mss: u16) -> Self {
        let mut options = Self { mss: Some(mss), ..self };
        if let Some((_, echo)) = self.timestamps {
            let scale = echo & NO_SCALE;
            if scale != NO_SCALE {
                options.scale = Some(scale as u8);
            }
            options.sack |= echo & SACK_BIT != 0;
            options.ecn = echo & ECN_BIT != 0;
        }
        options
    }

    /// Only the timestamps, swapped for the way back.
    pub fn stamps_back(self) -> Self {
        let timestamps = self.timestamps.map(|(value, echo)| (echo, value));
        Self { timestamps, ..Self::default() }
    }

    /// Only the timestamps.
    pub fn stamps(self) -> Self {
        Self { timestamps: self.timestamps, ..Self::default() }
    }

    /// Writes the list and returns its length, a multiple of four.
    pub fn write(&self, out: &mut [u8; LENGTH_MAX]) -> usize {
        let mut at = 0;
        let mut word = |bytes: [u8; 4]| {
            out[at..at + 4].copy_from_slice(&bytes);
            at += 4;
        };
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            word([MSS, 4, high, low]);
        }
        if let Some((value, echo)) = self.timestamps {
            let [first, second] = if self.sack { [SACK, 2] } else { [NOP, NOP] };
            word([first, second, TIMESTAMPS, TIMESTAMPS_LEN as u8]);
            word(value.to_be_bytes());
            word(echo.to_be_bytes());
        } else if self.sack {
            word([NOP, NOP, SACK, 2]);
        }
        if let Some(scale) = self.scale {
            word([NOP, SCALE, 3, scale]);
        }
        at
    }
}

/// Moves one number of a segment's timestamps by `offset`: the server's clock is
/// not the one that the client saw in our answer. From the server its value is
/// lowered, towards it the echo is raised.
pub fn move_stamps(segment: &mut [u8], from_server: bool, offset: u32) {
    let header = usize::from(segment.get(12).map_or(0, |byte| byte >> 4)) * 4;
    if offset == 0 || header < HEADER || header > segment.len() {
        return;
    }
    let mut at = HEADER;
    while at < header {
        let length = match segment[at] {
            0 => return,
            NOP => 1,
            _ if at + 1 == header => return,
            _ => usize::from(segment[at + 1]),
        };
        if length == 0 || at + length > header || length == 1 && segment[at] != NOP {
            return;
        }
        if segment[at] == TIMESTAMPS && length == TIMESTAMPS_LEN {
            let (place, moved): (usize, fn(u32, u32) -> u32) = match from_server {
                true => (at + 2, u32::wrapping_sub),
                false => (at + 6, u32::wrapping_add),
            };
            let old = be32(segment, place);
            let new = moved(old, offset);
            put32(segment, place, new);
            let summed =
                |number: u32| if place.is_multiple_of(2) { number } else { number.swap_bytes() };
            let sum = checksum::update32(be16(segment, 16), summed(old), summed(new));
            return put16(segment, 16, sum);
        }
        at += length;
    }
}
