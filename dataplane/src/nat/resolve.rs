//! What a target of the nat table means for one packet.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Manip, only};
use crate::fib::Network;
use crate::packet::{Family, Parsed, PortId};
use crate::policy::Hook;
use crate::policy::matches::AddressMask;
use crate::policy::target::{NatRange, NatTarget};
use crate::verdict::DropReason;

/// Where a packet is when a rule translates its connection.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Ports and their addresses.
    pub network: &'a Network,
    /// The hook.
    pub hook: Hook,
    /// The port it arrived on.
    pub input: Option<PortId>,
    /// The port it leaves on.
    pub output: Option<PortId>,
    /// The next hop's family and address, once routed.
    pub next_hop: Option<(Family, u128)>,
}

/// A translation to set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What to choose from.
    pub range: NatRange,
    /// Which translation.
    pub manip: Manip,
    /// The port whose address it takes: the connection ends with that.
    pub masquerade: Option<PortId>,
}

impl Wanted {
    const fn new(range: NatRange, manip: Manip) -> Self {
        Self { range, manip, masquerade: None }
    }
}

/// The translation that `target` asks for; `None` when it passes the packet by.
///
/// # Errors
/// [`DropReason::NatNoAddress`]: the port has no address to take.
pub fn wanted(
    target: &NatTarget,
    parsed: &Parsed,
    place: &Place<'_>,
) -> Result<Option<Wanted>, DropReason> {
    let manip = Manip::at(place.hook);
    Ok(Some(match target {
        NatTarget::Snat(range) => Wanted::new(*range, Manip::Source),
        NatTarget::Dnat(range) => Wanted::new(*range, Manip::Destination),
        NatTarget::Netmap(network) => Wanted::new(only(mapped(network, parsed, manip)), manip),
        NatTarget::Redirect(range) => {
            let address = redirected(parsed, place).ok_or(DropReason::NatNoAddress)?;
            let range = NatRange { addresses: only(address).addresses, ..*range };
            Wanted::new(range, Manip::Destination)
        }
        // Who has no address yet asks for one.
        NatTarget::Masquerade(_) if parsed.family == Family::V4 && parsed.src == 0 => {
            return Ok(None);
        }
        NatTarget::Masquerade(range) => {
            let address = masquerade(parsed, place).ok_or(DropReason::NatNoAddress)?;
            let range = NatRange { addresses: only(address).addresses, base_port: None, ..*range };
            Wanted { masquerade: place.output, ..Wanted::new(range, Manip::Source) }
        }
    }))
}

/// NETMAP: the network's bits, and the host's.
fn mapped(network: &AddressMask, parsed: &Parsed, manip: Manip) -> u128 {
    let own = match manip {
        Manip::Source => parsed.src,
        Manip::Destination => parsed.dst,
    };
    network.address & network.mask | own & !network.mask
}

/// MASQUERADE: the address by which the next hop knows the output port (IPv4), or
/// the one that a packet of our own to the destination would have (IPv6).
fn masquerade(parsed: &Parsed, place: &Place<'_>) -> Option<u128> {
    let near = match (parsed.family, place.next_hop) {
        (Family::V4, Some((Family::V4, gateway))) => gateway,
        _ => parsed.dst,
    };
    place.network.source_address(place.output?, parsed.family, near)
}

/// REDIRECT: this machine itself, by the port the packet came in on.
fn redirected(parsed: &Parsed, place: &Place<'_>) -> Option<u128> {
    if place.hook == Hook::Output {
        return Some(match parsed.family {
            Family::V4 => u128::from(Ipv4Addr::LOCALHOST.to_bits()),
            Family::V6 => Ipv6Addr::LOCALHOST.to_bits(),
        });
    }
    place.network.redirect_address(place.input?, parsed.family, parsed.dst)
}
