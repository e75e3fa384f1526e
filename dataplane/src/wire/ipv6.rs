//! IPv6 headers and the walk along extension headers.

use super::{Error, be16, be32, be128, proto, put16, put32};
use crate::packet::Fragment;

/// Bytes of the fixed header.
pub const HEADER: usize = 40;

/// An IPv6 packet; bytes beyond its payload length are padding.
#[derive(Clone, Copy, Debug)]
pub struct Packet<B>(B);

impl<B: AsRef<[u8]>> Packet<B> {
    /// Checks version and payload length.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Version`], [`Error::Length`].
    #[inline]
    pub fn new_checked(bytes: B) -> Result<Self, Error> {
        let packet = Self::new_header(bytes)?;
        if HEADER + packet.payload_len() > packet.0.as_ref().len() {
            return Err(Error::Length);
        }
        Ok(packet)
    }
    /// As [`Packet::new_checked`], for a header whose packet may be cut short,
    /// as in the quotation of an ICMPv6 error.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::Version`].
    #[inline]
    pub fn new_header(bytes: B) -> Result<Self, Error> {
        let packet = bytes.as_ref();
        if packet.len() < HEADER {
            return Err(Error::Truncated);
        }
        if packet[0] >> 4 != 6 {
            return Err(Error::Version);
        }
        Ok(Self(bytes))
    }
    /// Traffic class.
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (be16(self.0.as_ref(), 0) >> 4) as u8
    }
    /// Flow label, 20 bits.
    pub fn flow_label(&self) -> u32 {
        be32(self.0.as_ref(), 0) & 0xf_ffff
    }
    /// The payload length field, in bytes.
    #[inline]
    pub fn payload_len(&self) -> usize {
        usize::from(be16(self.0.as_ref(), 4))
    }
    /// The first next-header value.
    #[inline]
    pub fn next_header(&self) -> u8 {
        self.0.as_ref()[6]
    }
    /// Hop limit.
    #[inline]
    pub fn hop_limit(&self) -> u8 {
        self.0.as_ref()[7]
    }
    /// Source address.
    #[inline]
    pub fn src(&self) -> u128 {
        be128(self.0.as_ref(), 8)
    }
    /// Destination address.
    #[inline]
    pub fn dst(&self) -> u128 {
        be128(self.0.as_ref(), 24)
    }
    /// Payload bytes that are present, extension headers included, padding excluded.
    pub fn payload(&self) -> &[u8] {
        let bytes = self.0.as_ref();
        &bytes[HEADER..(HEADER + self.payload_len()).min(bytes.len())]
    }
}

impl<B: AsRef<[u8]> + AsMut<[u8]>> Packet<B> {
    /// Sets the payload length.
    pub fn set_payload_len(&mut self, bytes: u16) {
        put16(self.0.as_mut(), 4, bytes);
    }
    /// Sets the hop limit.
    #[inline]
    pub fn set_hop_limit(&mut self, hops: u8) {
        self.0.as_mut()[7] = hops;
    }
    /// Sets the traffic class.
    pub fn set_traffic_class(&mut self, class: u8) {
        let word = be32(self.0.as_ref(), 0) & 0xf00f_ffff | u32::from(class) << 20;
        put32(self.0.as_mut(), 0, word);
    }
    /// Sets the source address. Layer 4 checksums cover it.
    pub fn set_src(&mut self, address: u128) {
        self.0.as_mut()[8..24].copy_from_slice(&address.to_be_bytes());
    }
    /// Sets the destination address. Layer 4 checksums cover it.
    pub fn set_dst(&mut self, address: u128) {
        self.0.as_mut()[24..40].copy_from_slice(&address.to_be_bytes());
    }
}

/// Whether a next-header value names an extension header to look behind.
#[inline]
pub const fn is_extension(next: u8) -> bool {
    matches!(
        next,
        proto::HOP_BY_HOP
            | proto::ROUTING
            | proto::FRAGMENT
            | proto::AH
            | proto::NONE
            | proto::DESTINATION
    )
}

/// Where the chain of extension headers leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// The upper-layer protocol, as `ip6tables -p` sees it; 59 (no next header) stays.
    pub proto: u8,
    /// Its offset in `payload`. For a later fragment: where the fragment's data starts.
    pub offset: usize,
    /// Position, when a fragment header is in the chain.
    pub fragment: Fragment,
    /// Offset of the fragment header in `payload`, when there is one.
    pub fragment_header: Option<usize>,
}

/// Follows the chain from `next` through `payload` (what follows the fixed header).
///
/// # Errors
/// [`Error::Option`] when a header is cut short, or a later fragment's next
/// header is itself an extension header: `-p` rules then drop the packet outright.
#[inline]
pub fn upper(next: u8, payload: &[u8]) -> Result<Upper, Error> {
    let mut upper =
        Upper { proto: next, offset: 0, fragment: Fragment::Whole, fragment_header: None };
    while is_extension(upper.proto) && upper.proto != proto::NONE {
        let header = payload.get(upper.offset..).filter(|h| h.len() >= 2).ok_or(Error::Option)?;
        let length = match upper.proto {
            proto::FRAGMENT => {
                let word = header.get(2..4).map(|word| be16(word, 0)).ok_or(Error::Option)?;
                upper.fragment_header = Some(upper.offset);
                upper.fragment = match (word & 0xfff8, word & 1 != 0) {
                    (0, false) => Fragment::Whole,
                    (0, true) => Fragment::First,
                    (offset, more) => Fragment::Later { offset, more },
                };
                8
            }
            proto::AH => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        upper.proto = header[0];
        upper.offset += length;
        if let Fragment::Later { .. } = upper.fragment {
            return match is_extension(upper.proto) && upper.proto != proto::NONE {
                true => Err(Error::Option),
                false => Ok(Upper { offset: upper.offset.min(payload.len()), ..upper }),
            };
        }
    }
    // A chain may end exactly at, or claim to end beyond, the packet: then no layer 4 byte is present.
    Ok(Upper { offset: upper.offset.min(payload.len()), ..upper })
}

/// What a hop-by-hop options header asks of a router.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HopByHop {
    /// A router alert option's value.
    pub router_alert: Option<u16>,
}

/// Options in one hop-by-hop header that a host accepts (`max_hbh_opts_number`).
pub const MAX_HOP_OPTIONS: usize = 8;

/// Checks a hop-by-hop options header at the start of `payload`, as every
/// router must before anything else sees the packet.
///
/// # Errors
/// [`Error::Option`] when it is cut short, has a malformed or jumbo option, an
/// unknown option whose type asks for a drop, padding that is not zero, or too many options.
pub fn hop_by_hop(payload: &[u8]) -> Result<HopByHop, Error> {
    if payload.len() < 8 {
        return Err(Error::Option);
    }
    let length = (usize::from(payload[1]) + 1) * 8;
    let options = payload.get(2..length).ok_or(Error::Option)?;
    let (mut found, mut at, mut count, mut padding) = (HopByHop::default(), 0, 0, 0);
    while at < options.len() {
        if options[at] == 0 {
            (at, padding) = (at + 1, padding + 1);
            if padding > 7 {
                return Err(Error::Option);
            }
            continue;
        }
        let size = 2 + usize::from(*options.get(at + 1).ok_or(Error::Option)?);
        let option = options.get(at..at + size).ok_or(Error::Option)?;
        match option[0] {
            1 => {
                padding += size;
                if padding > 7 || option[2..].iter().any(|&byte| byte != 0) {
                    return Err(Error::Option);
                }
            }
            kind => {
                (count, padding) = (count + 1, 0);
                if count > MAX_HOP_OPTIONS {
                    return Err(Error::Option);
                }
                match kind {
                    5 if size == 4 => found.router_alert = Some(be16(option, 2)),
                    // Router alert of another size; jumbo payload, which no frame of ours can
                    // carry; and unknown options whose two top bits do not say "skip".
                    5 | 0xc2 => return Err(Error::Option),
                    kind if kind >> 6 != 0 => return Err(Error::Option),
                    _ => {}
                }
            }
        }
        at += size;
    }
    Ok(found)
}
