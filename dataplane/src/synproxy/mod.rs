//! SYNPROXY: handshakes with clients that cost no memory until the client has
//! shown that it is where it says.
//!
//! A SYN is answered with a cookie ([`cookie`]); what the client offers travels
//! in a timestamp ([`options`]). The ACK that brings both back opens the
//! connection to the server in the client's name; the server's answer ends the
//! handshake on both sides, and from then on one side's sequence numbers and
//! timestamps are moved. Here is what can be said of one packet; the road is in
//! `engine/synproxy`.

pub mod cookie;
pub mod options;
#[cfg(test)]
mod tests;

use crate::packet::{Family, Fragment, Parsed};
use crate::reply::{About, Ipv4Header, ipv6_header, transport_sums_up};
use crate::wire::tcp::{self, flags};
use crate::wire::{checksum, ipv4, ipv6, proto, put16, put32};

pub use cookie::{Cookies, Ends};
pub use options::Options;

/// Longest IP packet that is made here, in bytes.
pub const PACKET_MAX: usize = ipv6::HEADER + tcp::HEADER + options::LENGTH_MAX;

/// What SYNPROXY does with a packet that its rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A client's SYN.
    Open,
    /// What may be the end of a client's handshake.
    Prove,
    /// None of its business: the walk goes on.
    Pass,
    /// It cannot be read: dropped.
    Broken,
}

/// Judges a packet by its flags.
pub fn call(frame: &[u8], parsed: &Parsed) -> Call {
    let about =
        About { frame, parsed, group: false, summed: false, half_summed: false, options: &[] };
    let segment = parsed.l4_bytes(frame);
    if parsed.proto != proto::TCP
        || matches!(parsed.fragment, Fragment::Later { .. })
        || segment.len() < tcp::HEADER
        || !transport_sums_up(&about)
        || Options::read(segment).is_none()
    {
        return Call::Broken;
    }
    match segment[13] & (flags::SYN | flags::ACK | flags::FIN | flags::RST) {
        flags::SYN => Call::Open,
        flags::ACK => Call::Prove,
        _ => Call::Pass,
    }
}

/// A TCP segment without data.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Family.
    pub family: Family,
    /// Source address and port.
    pub from: (u128, u16),
    /// Destination address and port.
    pub to: (u128, u16),
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number, also where the flag is not set.
    pub ack: u32,
    /// [`flags`].
    pub flags: u8,
    /// Window, unscaled.
    pub window: u16,
    /// Options.
    pub options: Options,
}

impl Segment {
    /// Writes it as an IP packet and returns its length.
    pub fn write(&self, out: &mut [u8; PACKET_MAX]) -> usize {
        let mut list = [0; options::LENGTH_MAX];
        let listed = self.options.write(&mut list);
        let length = tcp::HEADER + listed;
        let (src, dst) = (self.from.0, self.to.0);
        let header = match self.family {
            Family::V4 => ipv4::HEADER,
            Family::V6 => ipv6::HEADER,
        };
        let total = header + length;
        match self.family {
            Family::V4 => Ipv4Header {
                options: &[],
                tos: 0,
                total,
                id: 0,
                fragment_word: ipv4::DF,
                protocol: proto::TCP,
                src: src as u32,
                dst: dst as u32,
            }
            .emit(out),
            Family::V6 => ipv6_header(out, proto::TCP, length, src, dst),
        }
        let segment = &mut out[header..total];
        segment[..tcp::HEADER].fill(0);
        put16(segment, 0, self.from.1);
        put16(segment, 2, self.to.1);
        put32(segment, 4, self.seq);
        put32(segment, 8, self.ack);
        (segment[12], segment[13]) = ((length as u8 / 4) << 4, self.flags);
        put16(segment, 14, self.window);
        segment[tcp::HEADER..].copy_from_slice(&list[..listed]);
        let sum = checksum::transport(self.family, src, dst, proto::TCP, segment);
        put16(segment, 16, sum);
        total
    }
}
