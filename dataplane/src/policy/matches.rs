//! Match extensions as plain data: what each one compares, nothing more.
//!
//! The same values serve the model (which adds text positions), `interpret`
//! and the compiled walk. Addresses are in the 128-bit common form.

use std::sync::Arc;

use super::limit::LimitCell;
use super::measure::MeasureMatch;
use super::payload::PayloadMatch;
use super::place::PlaceMatch;
use super::protocol::ProtocolMatch;
use super::tally::TallyMatch;
use crate::conntrack::{Direction, Extensions};
use crate::sets::SetMatch;

/// Something that may be negated with `!`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Neg<T> {
    /// True for `!`.
    pub negated: bool,
    /// The operand.
    pub value: T,
}

impl<T> Neg<T> {
    /// Without `!`.
    pub fn plain(value: T) -> Self {
        Self { negated: false, value }
    }
    /// Applies the negation to the outcome of the comparison.
    #[inline]
    pub fn apply(&self, outcome: bool) -> bool {
        outcome != self.negated
    }
}

/// An inclusive range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range<T> {
    /// Lowest.
    pub low: T,
    /// Highest.
    pub high: T,
}

impl<T: PartialOrd + Copy> Range<T> {
    /// Whether `x` lies in the range.
    #[inline]
    pub fn contains(&self, x: T) -> bool {
        self.low <= x && x <= self.high
    }
}

/// `-m tcp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpMatch {
    /// `--sport`.
    pub sport: Option<Neg<Range<u16>>>,
    /// `--dport`.
    pub dport: Option<Neg<Range<u16>>>,
    /// `--tcp-flags MASK COMP` (also `--syn`): flag byte under a mask.
    pub flags: Option<Neg<(u8, u8)>>,
    /// `--tcp-option KIND`.
    pub option: Option<Neg<u8>>,
}

/// `-m udp` (also the port part of `-m udplite`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UdpMatch {
    /// `--sport`.
    pub sport: Option<Neg<Range<u16>>>,
    /// `--dport`.
    pub dport: Option<Neg<Range<u16>>>,
}

/// `-m icmp` and `-m icmp6`. Type 255 with codes 0-255 is `any` for icmp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IcmpMatch {
    /// True for ICMPv6.
    pub v6: bool,
    /// Type, and the inclusive range of codes.
    pub kind: Neg<(u8, Range<u8>)>,
}

/// Which ports `-m multiport` looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MultiportSide {
    /// `--sports`.
    Source,
    /// `--dports`.
    Destination,
    /// `--ports`: either.
    Either,
}

/// `-m multiport`: at most 15 slots, a range takes two.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MultiportMatch {
    /// Side.
    pub side: MultiportSide,
    /// Singles have `low == high`; in written order.
    pub ports: Neg<Box<[Range<u16>]>>,
}

/// `-m iprange`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IpRangeMatch {
    /// `--src-range`.
    pub src: Option<Neg<Range<u128>>>,
    /// `--dst-range`.
    pub dst: Option<Neg<Range<u128>>>,
}

/// State bits of `--ctstate`: [`super::state_class`] plus two pseudo-states.
pub mod ctstate {
    /// `SNAT`: the source was translated.
    pub const SNAT: u64 = 1 << 8;
    /// `DNAT`: the destination was translated.
    pub const DNAT: u64 = 1 << 9;
}

/// Status bits of `--ctstatus`.
pub mod ctstatus {
    /// `NONE`: no status bit at all.
    pub const NONE: u32 = 0;
    /// `EXPECTED`.
    pub const EXPECTED: u32 = 1;
    /// `SEEN_REPLY`.
    pub const SEEN_REPLY: u32 = 1 << 1;
    /// `ASSURED`.
    pub const ASSURED: u32 = 1 << 2;
    /// `CONFIRMED`.
    pub const CONFIRMED: u32 = 1 << 3;
}

/// An address under a mask, in the common form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressMask {
    /// Address. `-s` and `-d` clear bits outside the mask on load; `-m conntrack`
    /// keeps them, for printing.
    pub address: u128,
    /// Mask.
    pub mask: u128,
}

impl AddressMask {
    /// Whether `address` agrees on every bit of the mask.
    #[inline]
    pub fn contains(&self, address: u128) -> bool {
        (address ^ self.address) & self.mask == 0
    }
}

/// `-m conntrack` and `-m state`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConntrackMatch {
    /// `--ctstate`: set of state bits.
    pub state: Option<Neg<u64>>,
    /// `--ctproto`.
    pub proto: Option<Neg<u8>>,
    /// `--ctorigsrc`.
    pub orig_src: Option<Neg<AddressMask>>,
    /// `--ctorigdst`.
    pub orig_dst: Option<Neg<AddressMask>>,
    /// `--ctreplsrc`.
    pub repl_src: Option<Neg<AddressMask>>,
    /// `--ctrepldst`.
    pub repl_dst: Option<Neg<AddressMask>>,
    /// `--ctorigsrcport`.
    pub orig_sport: Option<Neg<Range<u16>>>,
    /// `--ctorigdstport`.
    pub orig_dport: Option<Neg<Range<u16>>>,
    /// `--ctreplsrcport`.
    pub repl_sport: Option<Neg<Range<u16>>>,
    /// `--ctrepldstport`.
    pub repl_dport: Option<Neg<Range<u16>>>,
    /// `--ctstatus`: set of status bits.
    pub status: Option<Neg<u32>>,
    /// `--ctexpire`, seconds left.
    pub expire_s: Option<Neg<Range<u32>>>,
    /// `--ctdir`: true = ORIGINAL.
    pub direction_original: Option<bool>,
}

/// Comparison of `-m ttl` and `-m hl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HopCompare {
    /// `--ttl-eq`.
    Equal(u8),
    /// `! --ttl-eq`.
    NotEqual(u8),
    /// `--ttl-lt`.
    Less(u8),
    /// `--ttl-gt`.
    Greater(u8),
}

/// What `-m connbytes` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnbytesUnit {
    /// `packets`.
    Packets,
    /// `bytes`, headers of layer 3 included.
    Bytes,
    /// `avgpkt`: bytes by packet, 0 before the first.
    Average,
}

/// `-m connbytes`; never matches a connection that is not accounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnbytesMatch {
    /// `--connbytes`.
    pub range: Neg<Range<u64>>,
    /// `--connbytes-dir`; `None` for `both`, summed.
    pub direction: Option<Direction>,
    /// `--connbytes-mode`.
    pub unit: ConnbytesUnit,
}

/// `-m connlabel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnlabelMatch {
    /// `--label`: the bit, 0-127.
    pub label: Neg<u8>,
    /// `--set`: sets the bit if it is not set, and then it holds.
    pub set: bool,
}

/// One match extension of a rule.
#[derive(Clone, Debug)]
pub enum Match {
    /// `-m tcp`.
    Tcp(TcpMatch),
    /// `-m udp`.
    Udp(UdpMatch),
    /// `-m icmp`, `-m icmp6`.
    Icmp(IcmpMatch),
    /// `-m multiport`.
    Multiport(MultiportMatch),
    /// `-m iprange`.
    IpRange(IpRangeMatch),
    /// `-m conntrack`, `-m state`.
    Conntrack(ConntrackMatch),
    /// `-m mark --mark VALUE/MASK`: matches when `mark & mask == value`.
    Mark(Neg<(u32, u32)>),
    /// `-m connmark --mark VALUE/MASK`; never matches an untracked packet.
    Connmark(Neg<(u32, u32)>),
    /// `-m mac --mac-source`.
    MacSource(Neg<[u8; 6]>),
    /// `-m length`: IP packet length (v4: total length; v6: payload length + 40).
    Length(Neg<Range<u16>>),
    /// `-m ttl`, `-m hl`.
    Hops(HopCompare),
    /// `-m dscp --dscp`.
    Dscp(Neg<u8>),
    /// `-m tos --tos VALUE/MASK`.
    Tos(Neg<(u8, u8)>),
    /// `-m pkttype --pkt-type`.
    PktType(Neg<crate::packet::PktType>),
    /// `-m helper --helper`: the connection was expected by a connection with this
    /// helper; by any, if the name is empty.
    Helper(Neg<Box<str>>),
    /// `-m connbytes`.
    Connbytes(ConnbytesMatch),
    /// `-m connlabel`. Dynamic with `--set`.
    Connlabel(ConnlabelMatch),
    /// `-m limit`. Dynamic: evaluating it spends credit.
    Limit(Arc<LimitCell>),
    /// On another transport's header, or an IPv6 extension header.
    Protocol(ProtocolMatch),
    /// On any byte.
    Payload(Box<PayloadMatch>),
    /// On where the packet is, and whose.
    Place(PlaceMatch),
    /// On time, chance and amounts.
    Measure(MeasureMatch),
    /// By source or destination.
    Tally(TallyMatch),
    /// `-m set`.
    Set(SetMatch),
}

impl Match {
    /// Whether evaluating the match may do more than answer: change state, or drop a
    /// packet whose fixed header is whole (as a cut-off TCP option list does). Later
    /// matches of the rule must not be moved in front of it.
    pub fn has_effect(&self) -> bool {
        match self {
            Self::Limit(_)
            | Self::Connlabel(ConnlabelMatch { set: true, .. })
            | Self::Tcp(TcpMatch { option: Some(_), .. }) => true,
            Self::Protocol(found) => found.has_effect(),
            Self::Payload(found) => found.has_effect(),
            Self::Place(found) => found.has_effect(),
            Self::Measure(found) => found.has_effect(),
            Self::Tally(found) => found.has_effect(),
            Self::Set(found) => found.has_effect(),
            _ => false,
        }
    }

    /// Whether loading it makes the kernel track the family's connections.
    pub fn needs_conntrack(&self) -> bool {
        match self {
            Self::Conntrack(_)
            | Self::Connmark(_)
            | Self::Helper(_)
            | Self::Connbytes(_)
            | Self::Connlabel(_) => true,
            Self::Protocol(found) => found.needs_conntrack(),
            Self::Payload(found) => found.needs_conntrack(),
            Self::Place(found) => found.needs_conntrack(),
            Self::Measure(found) => found.needs_conntrack(),
            Self::Tally(found) => found.needs_conntrack(),
            _ => false,
        }
    }

    /// What it needs every new connection to carry.
    pub fn extensions(&self) -> Extensions {
        Extensions {
            accounting: matches!(self, Self::Connbytes(_)),
            labels: matches!(self, Self::Connlabel(_)),
        }
    }
}
