//! One fragment as reassembly sees it.

use crate::packet::{Family, Fragment, Parsed, PortId};
use crate::verdict::DropReason;
use crate::wire::{be16, be32, ethernet, ipv4, ipv6, proto};

/// Who collects: fragments of different users never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum User {
    /// Before PREROUTING of a tracked family.
    Prerouting,
    /// The same on a bridge.
    Bridge,
    /// Before OUTPUT of a tracked family.
    Output,
    /// Before INPUT of a family that is not tracked.
    Delivery,
}

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub(super) family: Family,
    src: u128,
    dst: u128,
    id: u32,
    /// IPv4 only.
    proto: u8,
    user: User,
    /// IPv6 groups and link-local destinations: the port they came in on.
    port: Option<PortId>,
}

impl Key {
    /// The sender.
    pub(super) fn source(&self) -> u128 {
        self.src
    }
    /// Identification.
    pub(super) fn id(&self) -> u32 {
        self.id
    }
    /// Whether a datagram of these pieces has its TCP header in more than the first,
    /// and is being routed: the kernel's early look for a socket joins those pieces.
    pub(super) fn joins_header(&self, sizes: &[u16], len: u32) -> bool {
        const TCP_HEADER: u16 = 20;
        self.user == User::Prerouting
            && self.proto == proto::TCP
            && len >= u32::from(TCP_HEADER)
            && sizes.first().is_some_and(|&size| size < TCP_HEADER)
    }
    /// Who collected it.
    pub(super) fn user(&self) -> User {
        self.user
    }
}

/// A fragment. Its bytes stay in their frame.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'f> {
    pub(super) key: Key,
    /// The frame up to the end of the IP packet; the Ethernet header is 14 bytes long.
    pub(super) frame: &'f [u8],
    /// Offset in `frame` of the fragment's data.
    pub(super) data: usize,
    /// Offset in `frame` of the byte that names the fragment header (IPv6).
    pub(super) named_at: usize,
    /// Where in the datagram the data belongs.
    pub(super) offset: u16,
    pub(super) more: bool,
    pub(super) dont_fragment: bool,
    pub(super) ecn: u8,
    /// The port it arrived on.
    pub(super) input: Option<PortId>,
}

impl<'f> Piece<'f> {
    /// The fragment that a packet is; `None` when there is nothing to collect.
    ///
    /// # Errors
    /// [`DropReason::Fragment`] when a fragment header is cut short.
    #[inline]
    pub fn read(
        parsed: &Parsed,
        frame: &'f [u8],
        user: User,
        input: Option<PortId>,
    ) -> Result<Option<Self>, DropReason> {
        let l3 = usize::from(parsed.l3);
        match parsed.family {
            Family::V4 if parsed.fragment == Fragment::Whole => Ok(None),
            Family::V6 if !ipv6::is_extension(frame[l3 + 6]) => Ok(None),
            _ if l3 != ethernet::HEADER => Ok(None),
            Family::V4 => Ok(Self::read_v4(parsed, frame, user, input)),
            Family::V6 => Self::read_v6(parsed, frame, user, input),
        }
    }

    /// The datagram's family.
    pub fn family(&self) -> Family {
        self.key.family
    }

    fn read_v4(
        parsed: &Parsed,
        frame: &'f [u8],
        user: User,
        input: Option<PortId>,
    ) -> Option<Self> {
        let l3 = usize::from(parsed.l3);
        let ip = ipv4::Packet::new_checked(&frame[l3..]).ok()?;
        let word = ip.fragment_word();
        let Parsed { family, src, dst, proto, .. } = *parsed;
        Some(Self {
            key: Key { family, src, dst, id: ip.id().into(), proto, user, port: None },
            data: l3 + ip.header_len(),
            named_at: 0,
            offset: (word & ipv4::OFFSET_MASK) * 8,
            more: word & ipv4::MF != 0,
            dont_fragment: word & ipv4::DF != 0,
            ecn: 1 << (ip.tos() & 3),
            frame: &frame[..l3 + ip.total_len()],
            input,
        })
    }

    fn read_v6(
        parsed: &Parsed,
        frame: &'f [u8],
        user: User,
        input: Option<PortId>,
    ) -> Result<Option<Self>, DropReason> {
        let l3 = usize::from(parsed.l3);
        let frame = &frame[..l3 + usize::from(parsed.l3_len)];
        let Some((named_at, at)) = fragment_header(&frame[l3..]) else { return Ok(None) };
        // A payload length of zero: as long as the frame, never collected.
        if be16(frame, l3 + 4) == 0 {
            return Ok(None);
        }
        let header = frame.get(l3 + at..l3 + at + 8).ok_or(DropReason::Fragment)?;
        if be16(header, 2) & 0xfff8 == 0 && headers_cut(&frame[l3..], header[0], at + 8) {
            return Ok(None);
        }
        let Parsed { family, src, dst, tos, .. } = *parsed;
        let near = dst >> 120 == 0xff || dst >> 118 == 0x3fa;
        let port = input.filter(|_| near);
        Ok(Some(Self {
            key: Key { family, src, dst, id: be32(header, 4), proto: 0, user, port },
            data: l3 + at + 8,
            named_at: l3 + named_at,
            offset: be16(header, 2) & 0xfff8,
            more: header[3] & 1 != 0,
            dont_fragment: false,
            ecn: 1 << (tos & 3),
            frame,
            input,
        }))
    }
}

/// Whether a first fragment ends before its transport header does (RFC 8200,
/// section 4.5): the kernel never collects such a one, it goes on by itself.
fn headers_cut(packet: &[u8], mut kind: u8, mut at: usize) -> bool {
    while ipv6::is_extension(kind) {
        if kind == proto::NONE {
            return false;
        }
        let Some(header) = packet.get(at..at + 2) else { return false };
        at += match kind {
            proto::AH => (usize::from(header[1]) + 2) * 4,
            proto::FRAGMENT => 8,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        kind = header[0];
    }
    let needed = match kind {
        proto::TCP => 20,
        proto::UDP | proto::ICMPV6 => 8,
        _ => 1,
    };
    at + needed > packet.len()
}

/// Where the fragment header of an IPv6 packet is, and which byte names it.
fn fragment_header(packet: &[u8]) -> Option<(usize, usize)> {
    let (mut named_at, mut at) = (6, ipv6::HEADER);
    while packet[named_at] != proto::FRAGMENT {
        let kind = packet[named_at];
        if !ipv6::is_extension(kind) || kind == proto::NONE {
            return None;
        }
        let header = packet.get(at..at + 2)?;
        named_at = at;
        at += match kind {
            proto::AH => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
    }
    (at <= packet.len()).then_some((named_at, at))
}

/// The congestion mark of a datagram whose fragments carried those in `seen` (one
/// bit each); `None` when such a mixture ends the datagram.
pub(super) fn congestion(seen: u8) -> Option<u8> {
    const NOT_CAPABLE: u8 = 1;
    const EXPERIENCED: u8 = 1 << 3;
    match seen {
        NOT_CAPABLE => Some(0),
        seen if seen & NOT_CAPABLE != 0 => None,
        EXPERIENCED => Some(0),
        seen if seen & EXPERIENCED != 0 => Some(3),
        _ => Some(0),
    }
}
