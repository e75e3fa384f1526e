//! `-j HMARK`: a mark computed from where a packet comes from and goes to. The numbers
//! are the kernel's own on a little-endian machine.

use super::eval::PacketView;
use crate::conntrack::CtState;
use crate::nat;
use crate::packet::Family;
use crate::wire::{be16, ipv6, proto};

/// `-j HMARK`. What was not asked for has a mask of zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HmarkTarget {
    /// `ct`: the connection's tuples, not the packet's headers.
    pub connection: bool,
    /// `--hmark-src-prefix` as a mask.
    pub src_mask: u128,
    /// `--hmark-dst-prefix` as a mask.
    pub dst_mask: u128,
    /// `--hmark-sport-mask` in the high half and `--hmark-dport-mask`, or `--hmark-spi-mask`.
    pub port_mask: u32,
    /// `--hmark-sport` in the high half and `--hmark-dport`, or `--hmark-spi`.
    pub port_set: u32,
    /// `--hmark-proto-mask`.
    pub proto_mask: u16,
    /// `--hmark-rnd`.
    pub seed: u32,
    /// `--hmark-mod`.
    pub modulus: u32,
    /// `--hmark-offset`.
    pub offset: u32,
}

/// What is hashed, masked already.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    src: u32,
    dst: u32,
    ports: u32,
    proto: u8,
}

/// Error messages that quote a packet.
const ICMP_ERRORS: [u8; 5] = [3, 4, 5, 11, 12];
/// Highest type of ICMPv6 error messages; 0 is none.
const ICMPV6_LAST_ERROR: u8 = 127;
const ICMP_HEADER: usize = 8;
const IPV4_HEADER: usize = 20;

impl HmarkTarget {
    /// The packet's mark; `None` leaves it.
    pub(super) fn mark(&self, packet: &PacketView<'_>) -> Option<u32> {
        let ends = if self.connection {
            self.of_connection(packet)?
        } else {
            let ip = packet.parsed.l3_bytes(&packet.frame);
            match packet.parsed.family {
                Family::V4 => self.of_v4(ip)?,
                Family::V6 => self.of_v6(ip)?,
            }
        };
        let (low, high) = (ends.src.min(ends.dst), ends.src.max(ends.dst));
        let hash = nat::hash3([low, high, ends.ports], self.seed)
            ^ u32::from(u16::from(ends.proto) & self.proto_mask);
        let scaled = (u64::from(hash) * u64::from(self.modulus)) >> 32;
        Some((scaled as u32).wrapping_add(self.offset))
    }

    fn of_connection(&self, packet: &PacketView<'_>) -> Option<Ends> {
        let Some(conn) = packet.tracking.conn.and_then(|conn| packet.conntrack.view(conn)) else {
            // In the kernel what CT leaves for tracking is a connection, of nobody.
            let template = packet.template.given && packet.tracking.state == CtState::New;
            return template.then(|| Ends { ports: self.ports(0), ..Ends::default() });
        };
        let (there, back) = (&conn.original, &conn.reply);
        let ports = match there.proto {
            proto::ICMP => 0,
            _ => self.ports(u32::from(there.sport) << 16 | u32::from(back.sport)),
        };
        Some(Ends {
            src: folded(there.src & self.src_mask),
            dst: folded(back.src & self.dst_mask),
            ports,
            proto: there.proto,
        })
    }

    fn of_v4(&self, packet: &[u8]) -> Option<Ends> {
        let mut ip = packet;
        let header = |ip: &[u8]| usize::from(ip[0] & 0xf) * 4;
        if ip[9] == proto::ICMP {
            let icmp = ip.get(header(ip)..).filter(|icmp| icmp.len() >= ICMP_HEADER);
            if let Some(icmp) = icmp.filter(|icmp| ICMP_ERRORS.contains(&icmp[0])) {
                ip = icmp.get(ICMP_HEADER..).filter(|ip| ip.len() >= IPV4_HEADER)?;
            }
        }
        let word = |at: usize| u32::from(be16(ip, at)) << 16 | u32::from(be16(ip, at + 2));
        let fragment = be16(ip, 6) & 0x3fff != 0;
        let ports = match fragment {
            true => 0,
            false => self.ports_behind(ip[9], ip.get(header(ip)..).unwrap_or_default()),
        };
        Some(Ends {
            src: word(12) & self.src_mask as u32,
            dst: word(16) & self.dst_mask as u32,
            ports,
            proto: ip[9],
        })
    }

    fn of_v6(&self, packet: &[u8]) -> Option<Ends> {
        let mut ip = packet;
        // The kernel hashes nothing then, and marks the packet still.
        let Some(mut last) = Last::of(ip) else { return Some(Ends::default()) };
        if last.proto == proto::ICMPV6 && !last.fragment {
            let icmp = ip.get(last.at..).filter(|icmp| icmp.len() >= ICMP_HEADER);
            let error = |icmp: &&[u8]| (1..=ICMPV6_LAST_ERROR).contains(&icmp[0]);
            if let Some(icmp) = icmp.filter(error) {
                ip = icmp.get(ICMP_HEADER..).filter(|ip| ip.len() >= ipv6::HEADER)?;
                last = Last::of(ip).filter(|_| ip[0] >> 4 == 6)?;
            }
        }
        let ports = match last.fragment {
            true => 0,
            false => self.ports_behind(last.proto, ip.get(last.at..).unwrap_or_default()),
        };
        let address =
            |at: usize| ip[at..at + 16].iter().fold(0, |all, &b| all << 8 | u128::from(b));
        Some(Ends {
            src: folded(address(8) & self.src_mask),
            dst: folded(address(24) & self.dst_mask),
            ports,
            proto: last.proto,
        })
    }

    /// The ports, or the security parameter index, that the protocol's header begins with.
    fn ports_behind(&self, protocol: u8, header: &[u8]) -> u32 {
        let at = match protocol {
            proto::TCP | proto::UDP | proto::DCCP | proto::ESP | proto::SCTP | proto::UDPLITE => 0,
            proto::AH => 4,
            _ => return 0,
        };
        let Some(bytes) = header.get(at..at + 4) else { return 0 };
        self.ports(u32::from(be16(bytes, 0)) << 16 | u32::from(be16(bytes, 2)))
    }

    /// Both halves as they are hashed, the larger one first.
    fn ports(&self, ports: u32) -> u32 {
        let ports = ports & self.port_mask | self.port_set;
        let (one, other) = (ports >> 16, ports & 0xffff);
        one.max(other) << 16 | one.min(other)
    }
}

/// The words of an address, one over the other.
const fn folded(address: u128) -> u32 {
    (address ^ address >> 32 ^ address >> 64 ^ address >> 96) as u32
}

/// The last header of an IPv6 packet; an authentication header is one.
#[derive(Clone, Copy, Debug)]
struct Last {
    proto: u8,
    /// Its offset from the packet's start. No meaning in a later fragment.
    at: usize,
    /// Whether a fragment header was met.
    fragment: bool,
}

impl Last {
    /// `None`: the chain is cut short.
    fn of(ip: &[u8]) -> Option<Self> {
        let mut last = Self { proto: ip[6], at: ipv6::HEADER, fragment: false };
        while ipv6::is_extension(last.proto) && !matches!(last.proto, proto::NONE | proto::AH) {
            let least = if last.proto == proto::ROUTING { 4 } else { 2 };
            let header = ip.get(last.at..).filter(|header| header.len() >= least)?;
            let mut size = (usize::from(header[1]) + 1) * 8;
            if last.proto == proto::FRAGMENT {
                last.fragment = true;
                size = 8;
                if be16(header.get(..4)?, 2) & 0xfff8 != 0 {
                    let upper = !ipv6::is_extension(header[0]) || header[0] == proto::NONE;
                    return upper.then_some(Self { proto: header[0], ..last });
                }
            }
            last.proto = header[0];
            last.at += size;
        }
        // The kernel looks for the header even where its length is not needed.
        let whole = last.proto != proto::AH || ip.len() >= last.at + 2;
        whole.then_some(last)
    }
}
