//! Values that a topology file writes as text.

use std::net::IpAddr;

use dataplane::fib::Realms;
use dataplane::packet::Mac;
use toml::Spanned;

use super::{Fault, Problem, fault};

pub(super) fn address(text: &Spanned<String>) -> Result<IpAddr, Fault> {
    let parsed = text.get_ref().parse();
    parsed.map_err(|_| fault(text, Problem::Address(text.get_ref().clone())))
}

pub(super) fn group(text: &Spanned<String>) -> Result<IpAddr, Fault> {
    match address(text)? {
        found if found.is_multicast() => Ok(found),
        _ => Err(fault(text, Problem::Group(text.get_ref().clone()))),
    }
}

pub(super) fn prefix(text: &Spanned<String>) -> Result<(IpAddr, u8), Fault> {
    let parse = || {
        let (address, length) = text.get_ref().split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let length: u8 = length.parse().ok()?;
        (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
    };
    parse().ok_or_else(|| fault(text, Problem::Prefix(text.get_ref().clone())))
}

pub(super) fn network(text: &Spanned<String>) -> Result<(IpAddr, u8), Fault> {
    let (address, length) = prefix(text)?;
    let beyond = match address {
        IpAddr::V4(v4) => u32::from(v4).checked_shl(length.into()).unwrap_or(0) != 0,
        IpAddr::V6(v6) => u128::from(v6).checked_shl(length.into()).unwrap_or(0) != 0,
    };
    match beyond {
        true => Err(fault(text, Problem::HostBits(text.get_ref().clone()))),
        false => Ok((address, length)),
    }
}

pub(super) fn mac(text: &Spanned<String>) -> Result<Mac, Fault> {
    let parse = || {
        let mut octets = [0; 6];
        let mut parts = text.get_ref().split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| (1..=2).contains(&part.len()))?;
            // `from_str_radix` takes a sign.
            part.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(())?;
            *octet = u8::from_str_radix(part, 16).ok()?;
        }
        (parts.next().is_none() && octets[0] & 1 == 0 && octets != [0; 6]).then_some(Mac(octets))
    };
    parse().ok_or_else(|| fault(text, Problem::Mac(text.get_ref().clone())))
}

pub(super) fn mtu(mtu: &Spanned<u32>) -> Result<u32, Fault> {
    match *mtu.get_ref() {
        value @ 68..=65535 => Ok(value),
        value => Err(fault(mtu, Problem::Mtu(value))),
    }
}

/// `TO`, or `FROM/TO`.
pub(super) fn realms(text: &Spanned<String>) -> Result<Realms, Fault> {
    let (from, to) = text.get_ref().split_once('/').unwrap_or(("0", text.get_ref()));
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    match (number(from), number(to)) {
        (Some(from), Some(to)) => Ok(Realms(u32::from(from) << 16 | u32::from(to))),
        _ => Err(fault(text, Problem::Realms(text.get_ref().clone()))),
    }
}

pub(super) fn fwmark(text: &Spanned<String>) -> Result<(u32, u32), Fault> {
    let number = |text: &str| match text.strip_prefix("0x") {
        _ if text.contains('+') => None,
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    let parse = || match text.get_ref().split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text.get_ref())?, u32::MAX)),
    };
    parse().ok_or_else(|| fault(text, Problem::Fwmark(text.get_ref().clone())))
}
