//! `-m ah`, `-m esp` and `-m ipcomp`.

use super::chain::{self, Missing};
use super::{allows, equals, first, ip};
use crate::packet::Family;
use crate::policy::eval::{Outcome, PacketView};
use crate::policy::matches::{Neg, Range};
use crate::wire::{be16, be32, proto};

/// `-m ah`. Length and reserved field are of IPv6 only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AhMatch {
    /// `--ahspi`.
    pub spi: Option<Neg<Range<u32>>>,
    /// `--ahlen`: the header's length in bytes; zero compares nothing, negated or not.
    pub length: Option<Neg<u32>>,
    /// `--ahres`: the reserved field is zero.
    pub reserved: bool,
}

impl AhMatch {
    /// Up to the sequence number.
    const HEADER: usize = 12;

    pub(super) fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        let header = match packet.parsed.family {
            Family::V4 => match first(packet) {
                Some(header) => header,
                None => return Outcome::No,
            },
            Family::V6 => match chain::find(ip(packet), proto::AH) {
                Ok(header) => header,
                Err(Missing::Absent) => return Outcome::No,
                Err(Missing::Broken) => return Outcome::Hotdrop,
            },
        };
        if header.len() < Self::HEADER {
            return Outcome::Hotdrop;
        }
        let length = (u32::from(header[1]) + 2) * 4;
        if packet.parsed.family == Family::V6 && header.len() < length as usize {
            return Outcome::Hotdrop;
        }
        let wanted = self.length.filter(|wanted| wanted.value != 0);
        (allows(&self.spi, be32(header, 4))
            && equals(&wanted, length)
            && !(self.reserved && be16(header, 2) != 0))
            .into()
    }
}

/// `-m esp`.
pub(super) fn esp(spi: &Option<Neg<Range<u32>>>, packet: &PacketView<'_>) -> Outcome {
    match first(packet) {
        None => Outcome::No,
        Some(header) if header.len() < 8 => Outcome::Hotdrop,
        Some(header) => allows(spi, be32(header, 0)).into(),
    }
}

/// `-m ipcomp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpcompMatch {
    /// `--ipcompspi`: the compression parameter index; 0 when it is not given.
    pub cpi: Neg<Range<u32>>,
    /// `--compres`. The kernel does not look at it.
    pub reserved: bool,
}

impl IpcompMatch {
    pub(super) fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        match first(packet) {
            None => Outcome::No,
            Some(header) if header.len() < 4 => Outcome::Hotdrop,
            Some(header) => {
                self.cpi.apply(self.cpi.value.contains(u32::from(be16(header, 2)))).into()
            }
        }
    }
}
