//! Matches on the headers of other transports (SCTP, DCCP, AH, ESP, IPComp, TCP's options and ECN) and on IPv6 extension headers.
//!
//! What each says of a header that is cut short is the kernel's module's own
//! answer: most drop the packet, a few do not match.

mod chain;
mod headers;
mod ipsec;
mod transport;

#[cfg(test)]
mod tests;

pub use headers::{
    ExtensionSet, FragMatch, Ipv6HeaderMatch, OptionsMatch, RtMatch, SrhCompare, SrhMatch,
    extension,
};
pub use ipsec::{AhMatch, IpcompMatch};
pub use transport::{ChunkFlags, ChunkScope, DccpMatch, EcnMatch, SctpChunks, SctpMatch};

use super::eval::{Outcome, PacketView};
use super::matches::{Neg, Range};
use crate::packet::{Family, Fragment};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolMatch {
    /// `-m sctp`.
    Sctp(Box<SctpMatch>),
    /// `-m dccp`.
    Dccp(DccpMatch),
    /// `-m ah`: for IPv4 the protocol's header, for IPv6 one of the chain.
    Ah(AhMatch),
    /// `-m esp --espspi`.
    Esp(Option<Neg<Range<u32>>>),
    /// `-m ipcomp`.
    Ipcomp(IpcompMatch),
    /// `-m tcpmss --mss`; a segment without the option has none, and matches `!`.
    TcpMss(Neg<Range<u16>>),
    /// `-m ecn`.
    Ecn(EcnMatch),
    /// `-m eui64`: the source address is made of the source MAC address.
    Eui64,
    /// `-m ipv6header`.
    Ipv6Header(Ipv6HeaderMatch),
    /// `-m rt`.
    Rt(Box<RtMatch>),
    /// `-m hbh`, `-m dst`.
    Options(OptionsMatch),
    /// `-m frag`.
    Frag(FragMatch),
    /// `-m mh --mh-type`.
    Mh(Option<Neg<Range<u8>>>),
    /// `-m srh`.
    Srh(Box<SrhMatch>),
}

impl ProtocolMatch {
    /// What the match says of the packet.
    pub fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        match self {
            Self::Sctp(sctp) => sctp.evaluate(packet),
            Self::Dccp(dccp) => dccp.evaluate(packet),
            Self::Ah(ah) => ah.evaluate(packet),
            Self::Esp(spi) => ipsec::esp(spi, packet),
            Self::Ipcomp(ipcomp) => ipcomp.evaluate(packet),
            Self::TcpMss(mss) => transport::tcp_mss(mss, packet),
            Self::Ecn(ecn) => ecn.matches(packet).into(),
            Self::Eui64 => headers::eui64(packet).into(),
            Self::Ipv6Header(wanted) => wanted.matches(ip(packet)).into(),
            Self::Rt(rt) => rt.evaluate(ip(packet)),
            Self::Options(options) => options.evaluate(ip(packet)),
            Self::Frag(frag) => frag.evaluate(ip(packet)),
            Self::Mh(kinds) => headers::mobility(kinds, packet),
            Self::Srh(srh) => srh.matches(ip(packet)).into(),
        }
    }

    /// Whether evaluating it may do more than answer: drop a packet whose fixed header
    /// is whole. Matches behind it must not be moved in front of it.
    pub fn has_effect(&self) -> bool {
        match self {
            Self::Sctp(sctp) => sctp.chunks.is_some(),
            Self::Dccp(dccp) => dccp.option.is_some(),
            Self::Ecn(_) | Self::Eui64 | Self::Ipv6Header(_) | Self::Srh(_) => false,
            Self::Ah(_)
            | Self::Esp(_)
            | Self::Ipcomp(_)
            | Self::TcpMss(_)
            | Self::Rt(_)
            | Self::Options(_)
            | Self::Frag(_)
            | Self::Mh(_) => true,
        }
    }

    /// Whether loading it makes the kernel track the family's connections.
    pub fn needs_conntrack(&self) -> bool {
        false
    }
}

fn ip<'p>(packet: &'p PacketView<'_>) -> &'p [u8] {
    packet.parsed.l3_bytes(&packet.frame)
}

/// The transport header of a packet that is no later fragment.
fn first<'p>(packet: &'p PacketView<'_>) -> Option<&'p [u8]> {
    match packet.parsed.fragment {
        Fragment::Later { .. } => None,
        Fragment::Whole | Fragment::First => Some(packet.l4()),
    }
}

/// Where modules that ignore fragmentation find "the transport header": of later
/// IPv6 fragments the kernel does not know the place, and takes the IP header itself.
fn wherever<'p>(packet: &'p PacketView<'_>) -> &'p [u8] {
    match (packet.parsed.family, packet.parsed.fragment) {
        (Family::V6, Fragment::Later { .. }) => ip(packet),
        _ => packet.l4(),
    }
}

/// Whether a possibly absent range allows `x`.
fn allows<T: PartialOrd + Copy>(range: &Option<Neg<Range<T>>>, x: T) -> bool {
    range.as_ref().is_none_or(|range| range.apply(range.value.contains(x)))
}

/// Whether a possibly absent number is `x`.
fn equals<T: PartialEq>(wanted: &Option<Neg<T>>, x: T) -> bool {
    wanted.as_ref().is_none_or(|wanted| wanted.apply(wanted.value == x))
}
