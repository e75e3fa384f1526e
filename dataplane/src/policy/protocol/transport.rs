//! `-m sctp`, `-m dccp`, `-m tcpmss` and `-m ecn`.

use super::{allows, equals, first, wherever};
use crate::policy::eval::{Outcome, PacketView};
use crate::policy::matches::{Neg, Range};
use crate::wire::be16;

/// `-m sctp`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SctpMatch {
    /// `--sport`.
    pub sport: Option<Neg<Range<u16>>>,
    /// `--dport`.
    pub dport: Option<Neg<Range<u16>>>,
    /// `--chunk-types`.
    pub chunks: Option<Neg<SctpChunks>>,
}

/// What a comparison says that met something it cannot read: the kernel applies `!`
/// to that failure, too.
fn unread(negated: bool) -> Outcome {
    if negated { Outcome::YesHotdrop } else { Outcome::Hotdrop }
}

/// How many of the chunks must be among the types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChunkScope {
    /// `any`: one chunk is.
    Any,
    /// `all`: every type is there.
    All,
    /// `only`: every chunk is.
    Only,
}

/// The operands of `--chunk-types`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SctpChunks {
    /// How many.
    pub scope: ChunkScope,
    /// Types, one a bit.
    pub types: [u64; 4],
    /// What is asked of the flags of some of them; at most four.
    pub flags: Box<[ChunkFlags]>,
}

/// What is asked of the flags of one type's chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkFlags {
    /// Chunk type.
    pub kind: u8,
    /// Flags looked at.
    pub mask: u8,
    /// Those of them that are set.
    pub set: u8,
}

impl SctpMatch {
    const HEADER: usize = 12;

    pub(super) fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        let Some(l4) = first(packet) else { return Outcome::No };
        if l4.len() < Self::HEADER {
            return Outcome::Hotdrop;
        }
        if !allows(&self.sport, be16(l4, 0)) || !allows(&self.dport, be16(l4, 2)) {
            return Outcome::No;
        }
        match &self.chunks {
            None => Outcome::Yes,
            Some(chunks) => match chunks.value.matches(&l4[Self::HEADER..]) {
                None => unread(chunks.negated),
                Some(outcome) => chunks.apply(outcome).into(),
            },
        }
    }
}

impl SctpChunks {
    /// Whether the type is named.
    pub fn names(&self, kind: u8) -> bool {
        self.types[usize::from(kind >> 6)] >> (kind & 63) & 1 != 0
    }

    /// Whether a chunk is one of those named.
    fn wants(&self, kind: u8, flags: u8) -> bool {
        let asked = self.flags.iter().find(|asked| asked.kind == kind);
        self.names(kind) && asked.is_none_or(|asked| flags & asked.mask == asked.set)
    }

    /// Reads the chunks as far as needed; `None` where one is cut short or has no length.
    fn matches(&self, mut rest: &[u8]) -> Option<bool> {
        let mut left = self.types;
        loop {
            let [kind, flags, high, low, ..] = *rest else { return None };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length == 0 {
                return None;
            }
            let wanted = self.wants(kind, flags);
            match self.scope {
                ChunkScope::Any if wanted => return Some(true),
                ChunkScope::Only if !wanted => return Some(false),
                ChunkScope::All if wanted => left[usize::from(kind >> 6)] &= !(1 << (kind & 63)),
                ChunkScope::Any | ChunkScope::Only | ChunkScope::All => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
        }
        Some(match self.scope {
            ChunkScope::Any => false,
            ChunkScope::All => left == [0; 4],
            ChunkScope::Only => true,
        })
    }
}

/// `-m dccp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DccpMatch {
    /// `--sport`.
    pub sport: Option<Neg<Range<u16>>>,
    /// `--dport`.
    pub dport: Option<Neg<Range<u16>>>,
    /// `--dccp-types`: packet types, one a bit; the tenth stands for all above nine.
    pub types: Option<Neg<u16>>,
    /// `--dccp-option`: an option of this kind is there.
    pub option: Option<Neg<u8>>,
}

impl DccpMatch {
    const HEADER: usize = 12;

    pub(super) fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        let Some(l4) = first(packet) else { return Outcome::No };
        if l4.len() < Self::HEADER {
            return Outcome::Hotdrop;
        }
        let kind = l4[8] >> 1 & 15;
        if !allows(&self.sport, be16(l4, 0))
            || !allows(&self.dport, be16(l4, 2))
            || !self.types.is_none_or(|types| types.apply(types.value >> kind.min(10) & 1 != 0))
        {
            return Outcome::No;
        }
        let Some(option) = self.option else { return Outcome::Yes };
        match Self::has_option(l4, kind, option.value) {
            None => unread(option.negated),
            Some(found) => option.apply(found).into(),
        }
    }

    /// `None` where the header is shorter than its type asks, or cut short.
    fn has_option(l4: &[u8], kind: u8, wanted: u8) -> Option<bool> {
        let extended = if l4[8] & 1 != 0 { 4 } else { 0 };
        let of_type = match kind {
            0 => 4,
            2 => 0,
            3..=6 | 8 | 9 => 8,
            _ => 12,
        };
        let start = Self::HEADER + extended + of_type;
        let options = l4.get(start..).unwrap_or_default();
        let size = (usize::from(l4[4]) * 4).checked_sub(start)?;
        let options = if size == 0 { &[] } else { options.get(..size)? };
        Some(find_option(options, |at| options[at] == wanted).is_some())
    }
}

/// Where the first option is that `is` says yes to. One-byte kinds are 0 and 1; a
/// zero length counts as one.
fn find_option(options: &[u8], is: impl Fn(usize) -> bool) -> Option<usize> {
    let mut at = 0;
    while let Some(&kind) = options.get(at) {
        if is(at) {
            return Some(at);
        }
        let length = if kind < 2 { 1 } else { options.get(at + 1).map_or(1, |&len| len.max(1)) };
        at += usize::from(length);
    }
    None
}

/// `-m tcpmss`. It does not ask whether the packet is a fragment.
pub(super) fn tcp_mss(mss: &Neg<Range<u16>>, packet: &PacketView<'_>) -> Outcome {
    const HEADER: usize = 20;
    let l4 = wherever(packet);
    let Some(&words) = l4.get(12).filter(|_| l4.len() >= HEADER) else { return Outcome::Hotdrop };
    let Some(options) = l4.get(HEADER..usize::from(words >> 4) * 4) else {
        return Outcome::Hotdrop;
    };
    let is_mss = |at: usize| options.get(at..at + 4).is_some_and(|option| option[..2] == [2, 4]);
    let told = find_option(options, is_mss).map(|at| be16(options, at + 2));
    mss.apply(told.is_some_and(|told| mss.value.contains(told))).into()
}

/// `-m ecn`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EcnMatch {
    /// `--ecn-tcp-ece`: the flag as wanted.
    pub ece: Option<bool>,
    /// `--ecn-tcp-cwr`: the flag as wanted.
    pub cwr: Option<bool>,
    /// `--ecn-ip-ect`: the two bits behind the DSCP.
    pub ect: Option<Neg<u8>>,
}

impl EcnMatch {
    /// Fragments are not told apart here either.
    pub(super) fn matches(&self, packet: &PacketView<'_>) -> bool {
        const ECE: u8 = 0x40;
        const CWR: u8 = 0x80;
        if !equals(&self.ect, packet.parsed.tos & 3) {
            return false;
        }
        if self.ece.is_none() && self.cwr.is_none() {
            return true;
        }
        let l4 = wherever(packet);
        let Some(&flags) = l4.get(13).filter(|_| l4.len() >= 20) else { return false };
        self.ece.is_none_or(|wanted| (flags & ECE != 0) == wanted)
            && self.cwr.is_none_or(|wanted| (flags & CWR != 0) == wanted)
    }
}
