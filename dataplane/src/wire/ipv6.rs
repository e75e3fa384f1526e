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
    chain(next, payload, 4)
}

/// The protocol behind a chain as connection tracking reads it, which looks at the first
/// two bytes of a routing header only.
pub fn tracked(next: u8, payload: &[u8]) -> Option<u8> {
    chain(next, payload, 2).ok().map(|upper| upper.proto)
}

/// Follows a chain in which a routing header must have so many bytes.
fn chain(next: u8, payload: &[u8], routing: usize) -> Result<Upper, Error> {
    let mut upper =
        Upper { proto: next, offset: 0, fragment: Fragment::Whole, fragment_header: None };
    while is_extension(upper.proto) && upper.proto != proto::NONE {
        let least = if upper.proto == proto::ROUTING { routing } else { 2 };
        let header = payload.get(upper.offset..).filter(|h| h.len() >= least);
        let header = header.ok_or(Error::Option)?;
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

/// Why every router must refuse a hop-by-hop options header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Without a word.
    Silently,
    /// With a parameter problem of this code.
    Reported {
        /// 0: erroneous field; 2: unknown option.
        code: u8,
        /// Offset of the trouble in the packet, in bytes.
        pointer: u16,
    },
}

/// Options in one hop-by-hop header that a host accepts (`max_hbh_opts_number`).
pub const MAX_HOP_OPTIONS: usize = 8;

/// Bytes of padding in a row that a host accepts.
const MAX_PADDING: usize = 7;

/// Checks the hop-by-hop options header that follows the fixed header of
/// `packet`, as every router must before anything else sees the packet.
///
/// # Errors
/// [`Refused`]: it is cut short, has a malformed or jumbo option (no frame of
/// ours can carry a jumbogram), an unknown option whose type asks for a drop,
/// padding that is too long or not zero, or too many options.
pub fn hop_by_hop(packet: &[u8]) -> Result<HopByHop, Refused> {
    let header = packet.get(HEADER..).filter(|h| h.len() >= 8).ok_or(Refused::Silently)?;
    let end = HEADER + (usize::from(header[1]) + 1) * 8;
    let header = packet.get(..end).ok_or(Refused::Silently)?;
    let (mut found, mut at, mut count, mut padding) = (HopByHop::default(), HEADER + 2, 0, 0);
    while at < end {
        if header[at] == 0 {
            (at, padding) = (at + 1, padding + 1);
            if padding > MAX_PADDING {
                return Err(Refused::Silently);
            }
            continue;
        }
        let size = 2 + usize::from(*header.get(at + 1).ok_or(Refused::Silently)?);
        let option = header.get(at..at + size).ok_or(Refused::Silently)?;
        if option[0] == 1 {
            padding += size;
            if padding > MAX_PADDING || option[2..].iter().any(|&byte| byte != 0) {
                return Err(Refused::Silently);
            }
        } else {
            (count, padding) = (count + 1, 0);
            if count > MAX_HOP_OPTIONS {
                return Err(Refused::Silently);
            }
            hop_option(packet, option, at as u16, &mut found)?;
        }
        at += size;
    }
    Ok(found)
}

/// One option at offset `at` of the packet.
fn hop_option(packet: &[u8], option: &[u8], at: u16, found: &mut HopByHop) -> Result<(), Refused> {
    const ROUTER_ALERT: u8 = 5;
    const CALIPSO: u8 = 7;
    const IOAM: u8 = 0x31;
    const JUMBO: u8 = 0xc2;
    match option[0] {
        ROUTER_ALERT if option.len() == 4 => found.router_alert = Some(be16(option, 2)),
        JUMBO if option.len() == 6 && at & 3 == 2 => {
            let small = be32(option, 2) <= u32::from(u16::MAX);
            let sized = packet[4..6] != [0, 0];
            return Err(match (small, sized) {
                (true, _) => Refused::Reported { code: 0, pointer: at + 2 },
                (false, true) => Refused::Reported { code: 0, pointer: at },
                (false, false) => Refused::Silently,
            });
        }
        // Labels need a domain of interpretation, which nobody has configured.
        ROUTER_ALERT | JUMBO | CALIPSO => return Err(Refused::Silently),
        IOAM if at & 3 != 0 => return Err(Refused::Silently),
        kind => match kind >> 6 {
            0 => {}
            3 if packet[24] == 0xff => return Err(Refused::Silently),
            1 => return Err(Refused::Silently),
            _ => return Err(Refused::Reported { code: 2, pointer: at }),
        },
    }
    Ok(())
}

/// Whether the options of the hop-by-hop options header that follows the fixed
/// header of `packet` lie inside it, and none is a jumbo option: all that a
/// bridge asks.
pub fn hop_by_hop_crosses(packet: &[u8]) -> bool {
    let Some(&words) = packet.get(HEADER + 1) else { return false };
    let end = HEADER + (usize::from(words) + 1) * 8;
    let Some(header) = packet.get(..end) else { return false };
    let mut at = HEADER + 2;
    while at < end {
        at += match (header[at], header.get(at + 1)) {
            (0, _) => 1,
            (0xc2, _) | (_, None) => return false,
            (_, Some(&length)) => 2 + usize::from(length),
        };
    }
    at == end
}
