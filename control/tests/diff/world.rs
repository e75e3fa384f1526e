//! The small pools that rules and packets draw from, so that they meet.

use std::net::IpAddr;

use super::rng::Rng;
use crate::lab::{self, address, host_mac};

/// Ports that rules name and packets use, with their neighbours.
pub const PORT_POOL: [u16; 8] = [22, 53, 79, 80, 81, 443, 1024, 65535];

/// Somebody who sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Address.
    pub address: IpAddr,
    /// Port of the router that it is behind.
    pub port: usize,
    /// Link-layer source of its frames.
    pub mac: [u8; 6],
}

/// Everybody reachable.
pub fn hosts(v6: bool) -> Vec<Host> {
    let mut all = Vec::new();
    for port in 0..lab::PORTS {
        for host in [10, 11] {
            all.push(Host { address: address(v6, port, host), port, mac: host_mac(port, host) });
        }
    }
    for last in [5, 6] {
        let remote: IpAddr = if v6 {
            [0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, last].into()
        } else {
            [203, 0, 113, last as u8].into()
        };
        all.push(Host { address: remote, port: 2, mac: host_mac(2, 254) });
    }
    all
}

/// An address that no route leads to.
pub fn nowhere(v6: bool) -> IpAddr {
    if v6 { [0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 7].into() } else { [198, 51, 100, 7].into() }
}

/// An address in one of the networks with special routes ([`lab::SPECIAL`]): those in
/// the first say nothing to a sender, those in the last (IPv6 only) are on a link.
pub fn special(v6: bool, kind: usize, last: u8) -> IpAddr {
    if v6 {
        [0x2001, 0xdb8, 0xc0 + kind as u16, 0, 0, 0, 0, last.into()].into()
    } else {
        [192, 0, 2, 64 * kind as u8 + last].into()
    }
}

/// The router's own address on a port.
pub fn router(v6: bool, port: usize) -> IpAddr {
    address(v6, port, 1)
}

/// An address with a mask, as rules write it.
pub fn masked_address(rng: &mut Rng, v6: bool) -> String {
    let all = hosts(v6);
    let base = match rng.below(12) {
        0 => nowhere(v6),
        1 | 2 => router(v6, rng.below(lab::PORTS)),
        _ => all[rng.below(all.len())].address,
    };
    let mask = if v6 {
        rng.pick(&[
            "",
            "",
            "/128",
            "/127",
            "/124",
            "/64",
            "/48",
            "/33",
            "/0",
            "/ffff:ffff::ffff",
            "/ffff:ffff:0:0:ffff::",
        ])
    } else {
        rng.pick(&[
            "",
            "",
            "/32",
            "/31",
            "/30",
            "/24",
            "/23",
            "/16",
            "/8",
            "/0",
            "/255.255.0.255",
            "/255.0.0.1",
        ])
    };
    format!("{base}{mask}")
}

/// A range of addresses around a host.
pub fn address_range(rng: &mut Rng, v6: bool) -> String {
    let all = hosts(v6);
    let host = all[rng.below(all.len())].address;
    let step = |address: IpAddr, by: i128| -> IpAddr {
        match address {
            IpAddr::V4(v4) => IpAddr::V4(
                (i64::from(v4.to_bits()) + by as i64)
                    .clamp(0, 0xffff_ffff)
                    .try_into()
                    .map(u32::into)
                    .unwrap_or(v4),
            ),
            IpAddr::V6(v6) => IpAddr::V6(v6.to_bits().wrapping_add_signed(by).into()),
        }
    };
    let (below, above) = (rng.below(3) as i128, rng.below(3) as i128);
    let shift = rng.pick(&[0, 0, 0, 1, -1]);
    format!("{}-{}", step(host, shift - below), step(host, shift + above))
}

/// A port or a range of ports, with the given separator.
pub fn port_range(rng: &mut Rng, separator: char) -> String {
    let one = rng.pick(&PORT_POOL);
    let (low, high) = match rng.below(8) {
        0 => (one, one.saturating_add(rng.below(3) as u16)),
        1 => (one.saturating_sub(rng.below(20) as u16), one),
        2 => (1024, 65_535),
        3 => (0, 1023),
        _ => (one, one),
    };
    // multiport refuses a range of one.
    if low == high { low.to_string() } else { format!("{low}{separator}{high}") }
}
