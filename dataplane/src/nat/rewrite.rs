//! Changes one address and one port of an IP packet, and every checksum that
//! covers them, incrementally (RFC 1624, equation 3). Nothing else is touched:
//! not the TTL, not the identification, not the fragment word.

use super::Manip;
use crate::conntrack::Tuple;
use crate::packet::{Family, Fragment};
use crate::wire::{be16, be32, be128, checksum, ipv4, ipv6, proto, put16, put32};

/// Gives the IP packet `ip` (from its header to its end) the source or the
/// destination of `target`. The packet may be one that an ICMP error quotes, cut
/// short; checksums that are not there are not changed. False: too short for its
/// protocol; it is then half changed and must be dropped.
pub fn rewrite(ip: &mut [u8], target: &Tuple, manip: Manip) -> bool {
    match target.family {
        Family::V4 => rewrite_v4(ip, target, manip),
        Family::V6 => rewrite_v6(ip, target, manip),
    }
}

/// Bytes of a layer 4 header that the kernel wants in one piece to rewrite it, when
/// `available` are there.
pub fn reach(protocol: u8, available: usize) -> usize {
    let header = match protocol {
        proto::TCP => 20,
        proto::SCTP | proto::DCCP => 12,
        _ => 8,
    };
    if available < header { 8 } else { header }
}

fn rewrite_v4(ip: &mut [u8], target: &Tuple, manip: Manip) -> bool {
    if ip.len() < ipv4::HEADER {
        return false;
    }
    let (at, new) = match manip {
        Manip::Source => (12, target.src),
        Manip::Destination => (16, target.dst),
    };
    let old = be32(ip, at);
    let address = Address { family: Family::V4, old: u128::from(old), new };
    let l4 = usize::from(ip[0] & 15) * 4;
    if !rewrite_l4(ip, l4, target, manip, &address) {
        return false;
    }
    let sum = checksum::update32(be16(ip, 10), old, new as u32);
    put16(ip, 10, sum);
    put32(ip, at, new as u32);
    true
}

fn rewrite_v6(ip: &mut [u8], target: &Tuple, manip: Manip) -> bool {
    if ip.len() < ipv6::HEADER {
        return false;
    }
    let (at, new) = match manip {
        Manip::Source => (8, target.src),
        Manip::Destination => (24, target.dst),
    };
    let address = Address { family: Family::V6, old: be128(ip, at), new };
    let upper = ipv6::upper(ip[6], &ip[ipv6::HEADER..]);
    if let Ok(upper) = upper
        && !matches!(upper.fragment, Fragment::Later { .. })
        && !rewrite_l4(ip, ipv6::HEADER + upper.offset, target, manip, &address)
    {
        return false;
    }
    ip[at..at + 16].copy_from_slice(&new.to_be_bytes());
    true
}

/// An address that changes, for the pseudo header.
struct Address {
    family: Family,
    old: u128,
    new: u128,
}

impl Address {
    fn update(&self, check: u16) -> u16 {
        match self.family {
            Family::V4 => checksum::update32(check, self.old as u32, self.new as u32),
            Family::V6 => checksum::update128(check, self.old, self.new),
        }
    }
}

fn rewrite_l4(ip: &mut [u8], l4: usize, target: &Tuple, manip: Manip, address: &Address) -> bool {
    /// What the kernel wants to be there of every protocol that it changes.
    const LEAST: usize = 8;
    let known = matches!(
        target.proto,
        proto::TCP
            | proto::UDP
            | proto::UDPLITE
            | proto::SCTP
            | proto::ICMP
            | proto::ICMPV6
            | proto::GRE
    );
    let Some(l4) = ip.get_mut(l4..).filter(|l4| l4.len() >= LEAST) else { return !known };
    let port = match manip {
        Manip::Source => Port { at: 0, new: target.sport },
        Manip::Destination => Port { at: 2, new: target.dport },
    };
    match target.proto {
        proto::TCP => tcp(l4, &port, address),
        proto::UDP if be16(l4, 6) == 0 => put16(l4, port.at, port.new),
        proto::UDP | proto::UDPLITE => udp(l4, &port, address),
        proto::SCTP => sctp(l4, &port),
        proto::ICMP => icmp(l4, target.sport),
        proto::ICMPV6 => icmpv6(l4, target.sport, address),
        proto::GRE => return manip == Manip::Source || gre(l4, target.dport),
        _ => {}
    }
    true
}

/// A port that changes.
struct Port {
    at: usize,
    new: u16,
}

impl Port {
    /// Writes the port; `check` after that and the address.
    fn put(&self, l4: &mut [u8], check: u16, address: &Address) -> u16 {
        let old = be16(l4, self.at);
        put16(l4, self.at, self.new);
        checksum::update16(address.update(check), old, self.new)
    }
}

fn tcp(l4: &mut [u8], port: &Port, address: &Address) {
    const CHECK: usize = 16;
    if l4.len() < 20 {
        return put16(l4, port.at, port.new);
    }
    let sum = port.put(l4, be16(l4, CHECK), address);
    put16(l4, CHECK, sum);
}

fn udp(l4: &mut [u8], port: &Port, address: &Address) {
    const CHECK: usize = 6;
    let sum = port.put(l4, be16(l4, CHECK), address);
    put16(l4, CHECK, if sum == 0 { 0xffff } else { sum });
}

fn sctp(l4: &mut [u8], port: &Port) {
    put16(l4, port.at, port.new);
    if l4.len() >= 12 {
        let crc = checksum::sctp(l4);
        l4[8..12].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Queries and their answers have an identifier; errors have none.
fn icmp(l4: &mut [u8], id: u16) {
    if matches!(l4[0], 0 | 8 | 13..=18) {
        let sum = checksum::update16(be16(l4, 2), be16(l4, 4), id);
        put16(l4, 2, sum);
        put16(l4, 4, id);
    }
}

fn icmpv6(l4: &mut [u8], id: u16, address: &Address) {
    let mut sum = address.update(be16(l4, 2));
    if matches!(l4[0], 128 | 129) {
        sum = checksum::update16(sum, be16(l4, 4), id);
        put16(l4, 4, id);
    }
    put16(l4, 2, sum);
}

/// Only enhanced GRE has a key, which belongs to the destination.
fn gre(l4: &mut [u8], key: u16) -> bool {
    match l4[1] & 7 {
        0 => true,
        1 => {
            put16(l4, 6, key);
            true
        }
        _ => false,
    }
}
