//! `-m addrtype`: what kind of address the source or destination is to this machine.
//!
//! IPv4 asks table "local" alone, so of the kinds of refusing routes none is ever
//! found. IPv6 compares the address itself and then, for some kinds, the route.

use crate::fib::{Network, RouteKind};
use crate::packet::{Family, PortId};
use crate::policy::eval::PacketView;
use crate::policy::matches::Neg;

/// Kinds of addresses, one bit each, in the kernel's numbering of route types.
pub mod address_type {
    /// `UNSPEC`.
    pub const UNSPEC: u16 = 1;
    /// `UNICAST`.
    pub const UNICAST: u16 = 1 << 1;
    /// `LOCAL`.
    pub const LOCAL: u16 = 1 << 2;
    /// `BROADCAST`.
    pub const BROADCAST: u16 = 1 << 3;
    /// `ANYCAST`.
    pub const ANYCAST: u16 = 1 << 4;
    /// `MULTICAST`.
    pub const MULTICAST: u16 = 1 << 5;
    /// `BLACKHOLE`.
    pub const BLACKHOLE: u16 = 1 << 6;
    /// `UNREACHABLE`.
    pub const UNREACHABLE: u16 = 1 << 7;
    /// `PROHIBIT`.
    pub const PROHIBIT: u16 = 1 << 8;
    /// `THROW`.
    pub const THROW: u16 = 1 << 9;
    /// `NAT`.
    pub const NAT: u16 = 1 << 10;
    /// `XRESOLVE`.
    pub const XRESOLVE: u16 = 1 << 11;
}
use address_type as kind;

/// The device that addresses are looked up on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `--limit-iface-in`.
    Input,
    /// `--limit-iface-out`.
    Output,
}

/// `-m addrtype`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddrTypeMatch {
    /// `--src-type`: set of [`address_type`] bits.
    pub src: Option<Neg<u16>>,
    /// `--dst-type`.
    pub dst: Option<Neg<u16>>,
    /// Whether addresses count only on the packet's own device.
    pub limit: Option<Limit>,
}

impl AddrTypeMatch {
    pub(super) fn matches(&self, packet: &PacketView<'_>) -> bool {
        let device = match self.limit {
            None => None,
            Some(Limit::Input) => packet.input,
            Some(Limit::Output) => packet.output,
        };
        let (parsed, network) = (&*packet.parsed, packet.network);
        let side = |wanted: Option<Neg<u16>>, address| {
            wanted.is_none_or(|wanted| {
                wanted.apply(match parsed.family {
                    Family::V4 => kind_v4(network, address, device) & wanted.value != 0,
                    Family::V6 => is_v6(network, address, device, wanted.value),
                })
            })
        };
        side(self.src, parsed.src) && side(self.dst, parsed.dst)
    }
}

fn kind_v4(network: &Network, address: u128, device: Option<PortId>) -> u16 {
    const EVERYBODY: u32 = u32::MAX;
    match address as u32 {
        0 | EVERYBODY => return kind::BROADCAST,
        group if group >> 28 == 0xe => return kind::MULTICAST,
        _ => {}
    }
    match network.kind_v4(address, device) {
        Some((RouteKind::Local, true)) => kind::ANYCAST,
        Some((RouteKind::Local, false)) => kind::LOCAL,
        Some((RouteKind::Broadcast, _)) => kind::BROADCAST,
        _ => kind::UNICAST,
    }
}

/// Unlike IPv4, every kind that speaks of the address itself must be right, and one
/// of those that speak of its route.
fn is_v6(network: &Network, address: u128, device: Option<PortId>, wanted: u16) -> bool {
    let itself = (wanted & kind::MULTICAST == 0 || address >> 120 == 0xff)
        && (wanted & kind::UNICAST == 0 || Network::is_unicast_v6(address))
        && (wanted & kind::UNSPEC == 0 || address == 0);
    if !itself || wanted & (kind::LOCAL | kind::ANYCAST | kind::UNREACHABLE) == 0 {
        return itself;
    }
    match device {
        // No other kind is asked for on a device: the reader refuses it.
        Some(device) => network.is_own_of_device(address, device),
        None => {
            let found = network.kind_v6(address);
            wanted & kind::LOCAL != 0 && found.local
                || wanted & kind::ANYCAST != 0 && found.anycast
                || wanted & kind::UNREACHABLE != 0 && found.unreachable
        }
    }
}
