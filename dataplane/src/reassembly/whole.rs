//! A finished datagram, and how it leaves again in the sizes it came in.

use arrayvec::ArrayVec;

use super::table::PIECES_MAX;
use crate::frame::FrameBuf;
use crate::packet::{Family, Parsed, PortId};
use crate::wire::{be16, checksum, ethernet, ipv4, ipv6, options, proto, put16, put32};

/// Bytes for the longest datagram and its Ethernet header.
const ROOM: usize = ethernet::HEADER + u16::MAX as usize;
/// Bytes of an IPv6 fragment header.
const FRAGMENT_HEADER: usize = 8;
/// The least MTU of IPv6, in bytes.
const MIN_MTU6: usize = 1280;

/// How a datagram came in pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regroup {
    /// Bytes of data of each fragment, in order.
    pub(super) sizes: ArrayVec<u16, PIECES_MAX>,
    /// The longest fragment in bytes, headers included.
    pub(super) max_size: u32,
    /// Identification.
    pub(super) id: u32,
    /// Whether a router joins the pieces that the TCP header is spread over, to
    /// look for a socket: such a datagram does not keep its sizes.
    pub(super) header_joined: bool,
}

/// The buffer of a datagram that has been put together.
#[derive(Debug)]
pub struct Whole {
    pub(super) buffer: Box<[u8]>,
    pub(super) len: usize,
    pub(super) regroup: Regroup,
    /// The port that its last fragment arrived on.
    pub(super) input: Option<PortId>,
}

impl Default for Whole {
    fn default() -> Self {
        let buffer = vec![0; ROOM].into_boxed_slice();
        Self { buffer, len: 0, regroup: Regroup::default(), input: None }
    }
}

impl Whole {
    /// The frame, with the Ethernet header of the first fragment, and its pieces.
    pub fn parts(&mut self) -> (FrameBuf<'_>, &Regroup) {
        (FrameBuf::new(&mut self.buffer[..], self.len), &self.regroup)
    }
    /// The port that its last fragment arrived on.
    pub fn input(&self) -> Option<PortId> {
        self.input
    }
    /// Appends bytes; false when the datagram gets too long.
    pub(super) fn push(&mut self, bytes: &[u8]) -> bool {
        let Some(room) = self.buffer.get_mut(self.len..self.len + bytes.len()) else {
            return false;
        };
        room.copy_from_slice(bytes);
        self.len += bytes.len();
        true
    }
}

impl Regroup {
    /// The longest fragment in bytes, headers included.
    pub fn longest(&self) -> usize {
        self.max_size as usize
    }

    /// Whether a packet of `length` bytes must be told to be too big for `mtu`,
    /// although it could be cut: its sender sent fragments that do not fit either.
    pub fn too_big(&self, family: Family, dont_fragment: bool, length: u32, mtu: u32) -> bool {
        let stubborn = dont_fragment || family == Family::V6;
        stubborn && length > mtu && self.max_size > mtu
    }

    /// Whether the datagram leaves whole.
    pub fn leaves_whole(&self, family: Family, length: u32, mtu: u32) -> bool {
        family == Family::V6 && length <= mtu && length <= self.max_size
    }

    /// Cuts the datagram into frames again: into the pieces it came in if they
    /// still fit, else into pieces no longer than the longest one was. Hands
    /// each to `emit`, first byte first. The first `joined` bytes of the frame no
    /// longer lie in pieces. `scratch` needs room for one frame.
    ///
    /// Returns the number of frames; zero when `mtu` leaves no room for eight
    /// bytes, or `scratch` is too short.
    pub fn cut(
        &self,
        frame: &[u8],
        joined: usize,
        parsed: &Parsed,
        mtu: u32,
        scratch: &mut [u8],
        mut emit: impl FnMut(&[u8]),
    ) -> usize {
        let l3 = usize::from(parsed.l3);
        let packet = parsed.l3_bytes(frame);
        let most = (self.max_size as usize).min(mtu as usize);
        let (header, extra, most) = match parsed.family {
            Family::V4 => (usize::from(parsed.l4 - parsed.l3), 0, most),
            Family::V6 => {
                (unfragmentable(packet), FRAGMENT_HEADER, most.max(MIN_MTU6).min(mtu as usize))
            }
        };
        let room = most.saturating_sub(header + extra);
        let Some(payload) = packet.get(header..).filter(|_| room >= 8) else { return 0 };
        let joined = joined.saturating_sub(l3 + header);
        let mut pieces = self.pieces(payload.len(), joined).filter(|pieces| pieces.fit(room));
        let (family, id, kept) = (parsed.family, self.id, pieces.is_some());
        let mut cut = Cut { frame, l3, header, family, id, kept, scratch };
        let (mut at, mut count) = (0, 0);
        while at < payload.len() {
            let rest = payload.len() - at;
            let size = match &mut pieces {
                Some(pieces) => pieces.next(),
                None if rest > room => room & !7,
                None => rest,
            };
            let Some(piece) = cut.piece(payload, at, size) else { return count };
            emit(piece);
            at += size;
            count += 1;
        }
        count
    }

    /// The pieces of `payload` bytes of data when the first `joined` lie in one.
    /// Headers that were fragmented along may have become part of the
    /// unfragmentable header: the first piece is what the others leave.
    fn pieces(&self, payload: usize, joined: usize) -> Option<Pieces<'_>> {
        let others = self.sizes.get(1..).unwrap_or_default();
        let sum: usize = others.iter().map(|&size| usize::from(size)).sum();
        let first = payload.checked_sub(sum).filter(|_| !self.header_joined)?;
        let mut pieces = Pieces { first, eaten: joined.saturating_sub(first), others };
        pieces.first += pieces.eaten.min(sum);
        while let Some((&size, rest)) = pieces.others.split_first()
            && pieces.eaten >= usize::from(size)
        {
            pieces.eaten -= usize::from(size);
            pieces.others = rest;
        }
        Some(pieces)
    }
}

/// The pieces in which a datagram came, and what was joined of them.
struct Pieces<'r> {
    /// Bytes of the first piece; zero when it is gone.
    first: usize,
    /// Bytes of the first of the others that the first piece has taken.
    eaten: usize,
    others: &'r [u16],
}

impl Pieces<'_> {
    /// Whether all can leave as they are.
    fn fit(&self, room: usize) -> bool {
        let last = self.others.len().saturating_sub(1);
        let fits = |(index, &size): (usize, &u16)| {
            let size = usize::from(size) - if index == 0 { self.eaten } else { 0 };
            size <= room && (size & 7 == 0 || index == last)
        };
        self.first > 0
            && self.first <= room
            && self.first & 7 == 0
            && self.others.iter().enumerate().all(fits)
    }

    /// Bytes of the next piece.
    fn next(&mut self) -> usize {
        if self.first > 0 {
            return std::mem::take(&mut self.first);
        }
        let Some((&size, rest)) = self.others.split_first() else { return 0 };
        self.others = rest;
        usize::from(size) - std::mem::take(&mut self.eaten)
    }
}

/// A datagram being cut.
struct Cut<'a> {
    frame: &'a [u8],
    l3: usize,
    /// Bytes of the IP header that every piece repeats.
    header: usize,
    family: Family,
    id: u32,
    /// Whether the pieces keep their sizes: then the kernel forgets don't-fragment.
    kept: bool,
    scratch: &'a mut [u8],
}

impl Cut<'_> {
    fn piece(&mut self, payload: &[u8], at: usize, size: usize) -> Option<&[u8]> {
        let more = at + size < payload.len();
        let repeated = self.l3 + self.header;
        let start = match self.family {
            Family::V4 => repeated,
            Family::V6 => repeated + FRAGMENT_HEADER,
        };
        let out = self.scratch.get_mut(..start + size)?;
        out[..repeated].copy_from_slice(&self.frame[..repeated]);
        out[start..].copy_from_slice(&payload[at..at + size]);
        let ip = &mut out[self.l3..];
        match self.family {
            Family::V4 => finish_v4(ip, self.header, at, more, self.kept),
            Family::V6 => finish_v6(ip, self.header, at, more, self.id),
        }
        Some(out)
    }
}

fn finish_v4(ip: &mut [u8], header: usize, at: usize, more: bool, kept: bool) {
    if at > 0 {
        options::blank_uncopied(&mut ip[ipv4::HEADER..header]);
    }
    let dont = if kept { 0 } else { be16(ip, 6) & ipv4::DF };
    let length = ip.len() as u16;
    put16(ip, 2, length);
    put16(ip, 6, dont | if more { ipv4::MF } else { 0 } | (at / 8) as u16);
    put16(ip, 10, 0);
    let sum = checksum::internet(&ip[..header]);
    put16(ip, 10, sum);
}

fn finish_v6(ip: &mut [u8], header: usize, at: usize, more: bool, id: u32) {
    let named_at = last_name(ip, header);
    let length = (ip.len() - ipv6::HEADER) as u16;
    put16(ip, 4, length);
    let next = std::mem::replace(&mut ip[named_at], proto::FRAGMENT);
    (ip[header], ip[header + 1]) = (next, 0);
    put16(ip, header + 2, at as u16 | u16::from(more));
    put32(ip, header + 4, id);
}

/// Bytes of an IPv6 packet that every fragment repeats: up to the last
/// hop-by-hop, routing or leading destination header.
fn unfragmentable(packet: &[u8]) -> usize {
    let (mut next, mut at, mut routed) = (packet[6], ipv6::HEADER, false);
    loop {
        match next {
            proto::HOP_BY_HOP => {}
            proto::ROUTING => routed = true,
            proto::DESTINATION if !routed => {}
            _ => return at,
        }
        let Some(header) = packet.get(at..at + 2) else { return at };
        let end = at + (usize::from(header[1]) + 1) * 8;
        if end > packet.len() {
            return at;
        }
        (next, at) = (header[0], end);
    }
}

/// Offset of the byte that names what follows the first `header` bytes.
fn last_name(ip: &[u8], header: usize) -> usize {
    let (mut named_at, mut at) = (6, ipv6::HEADER);
    while at < header {
        named_at = at;
        at += (usize::from(ip[at + 1]) + 1) * 8;
    }
    named_at
}
