//! Which packets a tap takes: any of a few lists of terms, all of whose terms hold. The
//! control side has the words for it.

use super::headers::{Headers, Ip};
use crate::packet::{Family, PortId};
use crate::wire::ethertype;

/// Terms of a filter at most.
pub const TERMS_MAX: usize = 32;

/// Whose address or port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The sender's.
    Source,
    /// The receiver's.
    Destination,
    /// Either's.
    Either,
}

/// What a term asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Nothing: everything is it.
    Any,
    /// IPv4 or IPv6.
    Family(Family),
    /// ARP.
    Arp,
    /// A protocol above IP.
    Proto(u8),
    /// An address within a network.
    Net {
        /// Whose.
        side: Side,
        /// Family.
        family: Family,
        /// The network's address (IPv4 in the low 32 bits).
        address: u128,
        /// Its mask, in the same bits.
        mask: u128,
    },
    /// A port of TCP, UDP, UDP-Lite, SCTP or DCCP.
    Ports {
        /// Whose.
        side: Side,
        /// The lowest.
        low: u16,
        /// The highest.
        high: u16,
    },
    /// It came in by this port.
    Input(PortId),
    /// This machine sends it.
    Own,
}

/// One question to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Whether the answer is to be no.
    pub negated: bool,
    /// The question.
    pub what: What,
}

impl Term {
    fn holds(&self, headers: &Headers, input: Option<PortId>) -> bool {
        let ip = headers.ip.as_ref();
        let answer = match self.what {
            What::Any => true,
            What::Family(Family::V4) => headers.kind == ethertype::IPV4,
            What::Family(Family::V6) => headers.kind == ethertype::IPV6,
            What::Arp => headers.kind == ethertype::ARP,
            What::Proto(proto) => ip.is_some_and(|ip| ip.proto == proto),
            What::Net { side, family, address, mask } => ip.is_some_and(|ip| {
                let within = |bits: u128| bits & mask == address & mask;
                ip.family == family && of_side(side, ip.src, ip.dst, within)
            }),
            What::Ports { side, low, high } => ip.is_some_and(|ip: &Ip| {
                let within = |port: u16| (low..=high).contains(&port);
                ip.ports.is_some_and(|(sport, dport)| of_side(side, sport, dport, within))
            }),
            What::Input(port) => input == Some(port),
            What::Own => input.is_none(),
        };
        answer != self.negated
    }
}

fn of_side<T>(side: Side, source: T, destination: T, within: impl Fn(T) -> bool) -> bool {
    match side {
        Side::Source => within(source),
        Side::Destination => within(destination),
        Side::Either => within(source) || within(destination),
    }
}

/// Alternatives of terms; without any it takes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Box<[Box<[Term]>]>);

impl Filter {
    /// What any of these lists takes, all of whose terms hold.
    pub fn new(alternatives: Vec<Vec<Term>>) -> Self {
        Self(alternatives.into_iter().map(Into::into).collect())
    }

    /// Whether a frame is taken; `input` is `None` for one that this machine sends.
    pub fn matches(&self, frame: &[u8], input: Option<PortId>) -> bool {
        let headers = Headers::read(frame);
        self.0.iter().any(|terms| terms.iter().all(|term| term.holds(&headers, input)))
    }
}
