//! ICMP errors about translated connections: the packet that they quote is
//! translated back, and the error itself is made to come from, or go to, whom
//! the receiver knows.

use super::Manip;
use super::rewrite::rewrite;
use crate::conntrack::{Direction, Face, Tuple, status};
use crate::packet::Family;
use crate::verdict::DropReason;
use crate::wire::{checksum, ipv4, ipv6, proto, put16};

/// Bytes of the ICMP header in front of the quoted packet.
const HEADER: usize = 8;
/// A redirect of IPv4.
const REDIRECT: u8 = 5;
/// A redirect of IPv6.
const REDIRECT6: u8 = 137;

/// Translates the ICMP error `ip` (an IP packet with its ICMP header at `l4`)
/// about a connection, as far as `manip` is concerned. `direction` is the error's
/// own. `verified`: its checksum was found right when it came, whatever rules have done
/// to it since. True: its outer address has changed.
///
/// # Errors
/// [`DropReason::NatRedirect`] for a redirect about a translated connection, or
/// one whose translation is not decided; [`DropReason::NatHeader`] for an error
/// that is cut short or damaged.
pub fn translate(
    ip: &mut [u8],
    l4: usize,
    face: &Face,
    direction: Direction,
    manip: Manip,
    verified: bool,
) -> Result<bool, DropReason> {
    let family = face.original.family;
    let least = match family {
        Family::V4 => HEADER + ipv4::HEADER,
        Family::V6 => HEADER + ipv6::HEADER,
    };
    if ip.len() < l4 + least || !verified && sum(family, ip, l4) != 0 {
        return Err(DropReason::NatHeader);
    }
    let redirect = match family {
        Family::V4 => ip[l4] == REDIRECT,
        Family::V6 => ip[l4] == REDIRECT6,
    };
    const DONE: u32 = status::SRC_NAT_DONE | status::DST_NAT_DONE;
    const TRANSLATED: u32 = status::SRC_NAT | status::DST_NAT;
    if redirect && (face.status & DONE != DONE || face.status & TRANSLATED != 0) {
        return Err(DropReason::NatRedirect);
    }
    if !face.translates(direction, manip) {
        return Ok(false);
    }
    // The quoted packet went the other way: there its source is our destination.
    let there = face.tuple(direction.opposite());
    if !rewrite(&mut ip[l4 + HEADER..], there, manip.opposite()) {
        return Err(DropReason::NatHeader);
    }
    put16(ip, l4 + 2, 0);
    let fresh = sum(family, ip, l4);
    put16(ip, l4 + 2, fresh);
    let target = there.inverted().ok_or(DropReason::NatHeader)?;
    let own = match family {
        Family::V4 => proto::ICMP,
        Family::V6 => proto::ICMPV6,
    };
    match rewrite(ip, &Tuple { proto: own, ..target }, manip) {
        true => Ok(true),
        false => Err(DropReason::NatHeader),
    }
}

/// The checksum over the ICMP message as it stands; zero when it holds its own.
fn sum(family: Family, ip: &[u8], l4: usize) -> u16 {
    let message = &ip[l4..];
    match family {
        Family::V4 => checksum::internet(message),
        Family::V6 => {
            let address = |at: usize| crate::wire::be128(ip, at);
            checksum::transport(family, address(8), address(24), proto::ICMPV6, message)
        }
    }
}
