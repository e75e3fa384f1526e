//! Packets the router itself makes: ICMP errors, REJECT answers, TCP resets,
//! and the fragments of packets that are too long for their way out.
//!
//! Pure functions that write an IP packet into the caller's bytes, equal to
//! what the kernel sends, and return its length; `None` means that the kernel
//! sends nothing. The caller adds the Ethernet header, and asks
//! [`limit::Limiter`] first.

pub mod fragment;
pub mod icmp;
pub mod limit;
pub mod reset;

#[cfg(test)]
mod tests;

use crate::packet::{Family, Fragment, Parsed};
use crate::policy::RejectWith;
use crate::wire::{checksum, ipv6, proto};

/// TTL and hop limit of what we make.
pub const TTL: u8 = 64;

/// The packet that an answer is about, as it stands when the answer is made
/// (in FORWARD: with its TTL already lowered).
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The frame.
    pub frame: &'a [u8],
    /// Parsed facts about `frame`.
    pub parsed: &'a Parsed,
    /// Whether routing says that the destination is a broadcast or multicast
    /// address. Addresses that are so by themselves need not be announced here.
    pub group: bool,
    /// Whether tracking has found an IPv4 packet's layer 4 checksum right. Who
    /// sums the packet up again trips over options that were filled in since.
    pub summed: bool,
    /// Whether it is a TCP segment whose checksum the kernel leaves to the device: it holds
    /// the pseudo header's sum until then, and an error quotes that.
    pub half_summed: bool,
    /// IPv4 options that an ICMP error carries back, a multiple of four bytes
    /// ([`crate::wire::options::Options::echo`]). No reset has any.
    pub options: &'a [u8],
}

/// What an ICMP or ICMPv6 error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes after the checksum: MTU, pointer or gateway; else zero.
    pub word: u32,
}

impl Message {
    /// ICMPv6: a field of the header at `pointer` means nothing here.
    pub const fn parameter_problem(pointer: u32) -> Self {
        Self { kind: 4, code: 0, word: pointer }
    }
    /// TTL or hop limit exceeded in transit.
    pub const fn time_exceeded(family: Family) -> Self {
        match family {
            Family::V4 => Self { kind: 11, code: 0, word: 0 },
            Family::V6 => Self { kind: 3, code: 0, word: 0 },
        }
    }
    /// "Fragmentation needed" or "packet too big", with the MTU in bytes that
    /// the packet did not fit. IPv6 never announces less than 1280.
    pub const fn too_big(family: Family, mtu: u32) -> Self {
        match family {
            Family::V4 => Self { kind: 3, code: 4, word: mtu & 0xffff },
            Family::V6 => Self { kind: 2, code: 0, word: if mtu < 1280 { 1280 } else { mtu } },
        }
    }
    /// An IPv4 header whose options cannot be read; `at` points to the trouble.
    pub const fn bad_options(at: u8) -> Self {
        Self { kind: 12, code: 0, word: (at as u32) << 24 }
    }
    /// Parameter problem of IPv6; `pointer` counts bytes of the packet.
    pub const fn problem_v6(code: u8, pointer: u32) -> Self {
        Self { kind: 4, code, word: pointer }
    }
    /// Destination unreachable.
    pub const fn unreachable(family: Family, code: u8) -> Self {
        match family {
            Family::V4 => Self { kind: 3, code, word: 0 },
            Family::V6 => Self { kind: 1, code, word: 0 },
        }
    }
}

/// What the caller chose for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Source address ([`crate::fib::Network::error_source`]); not used by resets.
    pub source: u128,
    /// IPv4 identification of an ICMP error; the kernel's cannot be foretold.
    pub id: u16,
    /// MTU in bytes of the way back.
    pub mtu: u32,
}

/// What REJECT answers. Writes an IP packet into `out` and returns its length.
///
/// No answer to a bad layer 4 checksum, to later fragments, to ICMP errors, to
/// groups, and no reset to a reset or to what is not TCP.
pub fn reject(
    out: &mut [u8],
    about: &About<'_>,
    with: RejectWith,
    origin: &Origin,
) -> Option<usize> {
    let family = about.parsed.family;
    let code = match (with, family) {
        (RejectWith::TcpReset, _) => return reset::tcp(out, about),
        (RejectWith::Icmp(code), Family::V4) | (RejectWith::Icmp6(code), Family::V6) => code,
        _ => return None,
    };
    if !checksum_lets_reject(about) {
        return None;
    }
    icmp::error(out, about, Message::unreachable(family, code), origin)
}

/// REJECT's own view of the layer 4 checksum, which differs from tracking's:
/// protocols it does not know (DCCP among them, since Linux 6.16) are summed whole,
/// and the UDP length is ignored.
fn checksum_lets_reject(about: &About<'_>) -> bool {
    let parsed = about.parsed;
    if matches!(parsed.fragment, Fragment::Later { .. }) {
        return false;
    }
    let message = parsed.l4_bytes(about.frame);
    if parsed.family == Family::V6 && (message.is_empty() || no_upper_header(about)) {
        return false;
    }
    match parsed.proto {
        proto::TCP | proto::UDP | proto::ICMP if about.summed => true,
        proto::UDP if message.len() >= 8 && message[6..8] == [0, 0] => true,
        proto::GRE | proto::AH | proto::ESP | proto::SCTP | proto::UDPLITE => true,
        number if parsed.family == Family::V6 || matches!(number, proto::TCP | proto::UDP) => {
            transport_sums_up(about)
        }
        _ => checksum::finish(checksum::add(header_sum(about), message)) == 0,
    }
}

/// Whether the layer 4 checksum with its pseudo header is right, as REJECT sees
/// it: together with the IPv4 header's, which filled-in options have made wrong.
pub(crate) fn transport_sums_up(about: &About<'_>) -> bool {
    let parsed = about.parsed;
    let message = parsed.l4_bytes(about.frame);
    let length = message.len() as u32;
    let pseudo = checksum::pseudo(parsed.family, parsed.src, parsed.dst, parsed.proto, length);
    checksum::finish(checksum::add(pseudo + header_sum(about), message)) == 0
}

/// The running sum of the IPv4 header as it stands: all ones when right.
fn header_sum(about: &About<'_>) -> u64 {
    let parsed = about.parsed;
    match parsed.family {
        Family::V4 => checksum::add(0, &about.frame[parsed.l3.into()..parsed.l4.into()]),
        Family::V6 => 0,
    }
}

fn no_upper_header(about: &About<'_>) -> bool {
    about.parsed.broken_chain() || about.parsed.proto == proto::NONE
}

/// Whether an IPv4 address is multicast or the limited broadcast.
fn is_group_v4(address: u32) -> bool {
    address >> 28 == 0xe || address == u32::MAX
}

/// Whether an IPv6 address is multicast.
fn is_group_v6(address: u128) -> bool {
    address >> 120 == 0xff
}

/// Writes an IPv6 header and returns the payload's place. `out` is long enough.
pub(crate) fn ipv6_header(out: &mut [u8], next: u8, payload: usize, src: u128, dst: u128) {
    out[..ipv6::HEADER].fill(0);
    out[0] = 0x60;
    out[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
    (out[6], out[7]) = (next, TTL);
    out[8..24].copy_from_slice(&src.to_be_bytes());
    out[24..40].copy_from_slice(&dst.to_be_bytes());
}

/// An IPv4 header.
pub(crate) struct Ipv4Header<'a> {
    pub(crate) options: &'a [u8],
    pub(crate) tos: u8,
    pub(crate) total: usize,
    pub(crate) id: u16,
    pub(crate) fragment_word: u16,
    pub(crate) protocol: u8,
    pub(crate) src: u32,
    pub(crate) dst: u32,
}

impl Ipv4Header<'_> {
    /// Writes the header with its checksum. `out` is long enough.
    pub(crate) fn emit(&self, out: &mut [u8]) {
        let header = &mut out[..20 + self.options.len()];
        (header[0], header[1]) = (0x45 + (self.options.len() / 4) as u8, self.tos);
        header[2..4].copy_from_slice(&(self.total as u16).to_be_bytes());
        header[4..6].copy_from_slice(&self.id.to_be_bytes());
        header[6..8].copy_from_slice(&self.fragment_word.to_be_bytes());
        (header[8], header[9]) = (TTL, self.protocol);
        header[10..12].fill(0);
        header[12..16].copy_from_slice(&self.src.to_be_bytes());
        header[16..20].copy_from_slice(&self.dst.to_be_bytes());
        header[20..].copy_from_slice(self.options);
        let sum = checksum::internet(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}
