//! What tracking reads of a TCP header.

use super::window::{SACK_PERMITTED, SCALE_OFFERED};
use crate::wire::tcp::flags::{ACK, FIN, RST, SYN, URG};
use crate::wire::tcp::{Options as OptionList, TcpOption};
use crate::wire::{be16, be32};

/// A bit for each set of flags that some TCP sends.
const VALID: u64 = {
    let mut bits = 0;
    let sets =
        [SYN, SYN | URG, SYN | ACK, RST, RST | ACK, FIN | ACK, FIN | ACK | URG, ACK, ACK | URG];
    let mut at = 0;
    while at < sets.len() {
        bits |= 1 << sets[at];
        at += 1;
    }
    bits
};

/// A packet's row in the state table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
    #[default]
    None,
}

impl Class {
    fn of(flags: u8) -> Self {
        match flags {
            f if f & RST != 0 => Self::Rst,
            f if f & (SYN | ACK) == SYN | ACK => Self::SynAck,
            f if f & SYN != 0 => Self::Syn,
            f if f & FIN != 0 => Self::Fin,
            f if f & ACK != 0 => Self::Ack,
            _ => Self::None,
        }
    }

    pub(super) fn from_index(index: u8) -> Self {
        match index {
            0 => Self::Syn,
            1 => Self::SynAck,
            2 => Self::Fin,
            3 => Self::Ack,
            4 => Self::Rst,
            _ => Self::None,
        }
    }
}

/// A TCP segment, as far as tracking cares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment<'p> {
    pub(super) class: Class,
    flags: u8,
    pub(super) seq: u32,
    pub(super) ack: u32,
    /// Sequence number after the last byte; SYN and FIN take one each.
    pub(super) end: u32,
    pub(super) win: u16,
    options: &'p [u8],
}

impl<'p> Segment<'p> {
    /// Reads the layer 4 bytes of a packet. `None`: cut short, a header length
    /// below the minimum, or flags that no TCP sends.
    pub(crate) fn parse(l4: &'p [u8]) -> Option<Self> {
        let header = l4.first_chunk::<20>()?;
        let header_len = usize::from(header[12] >> 4) * 4;
        let options = l4.get(20..header_len)?;
        let flags = header[13];
        // PSH, ECE and CWR do not matter.
        let known = flags & (FIN | SYN | RST | ACK | URG);
        if VALID >> known & 1 == 0 {
            return None;
        }
        let seq = be32(header, 4);
        let phantom = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        let length = (l4.len() - header_len) as u32 + phantom;
        Some(Self {
            class: Class::of(flags),
            flags,
            seq,
            ack: be32(header, 8),
            end: seq.wrapping_add(length),
            win: be16(header, 14),
            options,
        })
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn has_options(&self) -> bool {
        !self.options.is_empty()
    }

    /// The highest right edge of the SACK blocks, at least `ack`.
    pub(super) fn highest_sack(&self) -> u32 {
        let mut highest = self.ack;
        // Only the first SACK option counts.
        let blocks = OptionList::new(self.options).find_map(|option| match option {
            TcpOption::Sack(blocks) => Some(blocks),
            _ => None,
        });
        for (_, right) in blocks.iter().flat_map(|blocks| blocks.iter()) {
            if (right.wrapping_sub(highest) as i32) > 0 {
                highest = right;
            }
        }
        highest
    }
}

/// What a SYN offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Window scale, at most 14.
    pub(super) scale: u8,
    scale_offered: bool,
    sack_permitted: bool,
}

impl Options {
    pub(super) fn of_syn(segment: &Segment<'_>) -> Self {
        let mut offer = Self::default();
        for option in OptionList::new(segment.options) {
            match option {
                TcpOption::WindowScale(scale) => {
                    offer.scale = scale.min(14);
                    offer.scale_offered = true;
                }
                TcpOption::SackPermitted => offer.sack_permitted = true,
                _ => {}
            }
        }
        offer
    }

    /// The offers as flags of a [`super::window::Side`].
    pub(super) fn side_flags(&self) -> u8 {
        let scale = if self.scale_offered { SCALE_OFFERED } else { 0 };
        let sack = if self.sack_permitted { SACK_PERMITTED } else { 0 };
        scale | sack
    }
}
