//! Sends what TEE has copied.

use classifier::Address;

use super::road::{Packet, Road};
use super::way::Hop;
use crate::conntrack::Tracking;
use crate::effects::Effects;
use crate::fib::{Query, Realms, RouteKind, is_link_local};
use crate::frame::FrameBuf;
use crate::packet::{Family, Parsed};
use crate::policy::Hook;
use crate::policy::tee::Taken;
use crate::verdict::DropReason;
use crate::wire::{ethernet, ipv4, ipv6};

/// Bit of the fragment word.
const DONT_FRAGMENT: u16 = 1 << 14;

impl<A: Address, E: Effects> Road<'_, A, E> {
    /// Sends every copy on the road of our own packets, untracked, and on none is copied
    /// again.
    pub(super) fn send_copies(&mut self) {
        let mut copies = std::mem::take(&mut self.scratch.copies);
        self.scratch.copies.close(true);
        (0..copies.missed()).for_each(|_| self.world.stats.drop(DropReason::NoFrame));
        for (taken, frame) in copies.drain() {
            self.send_copy(&taken, frame);
        }
        self.scratch.copies = copies;
    }

    fn send_copy(&mut self, taken: &Taken, room: &mut [u8]) {
        let stats = self.world.stats;
        let frame = &mut room[..taken.len];
        let parsed = age(taken, &mut frame[ethernet::HEADER..]);
        let Some(hop) = self.way_to_gateway(taken) else {
            return stats.drop(DropReason::NoRoute);
        };
        let mut copy = Packet::new(FrameBuf::new(room, taken.len), parsed, None);
        (copy.mark, copy.tracking) = (taken.mark, Tracking::UNTRACKED);
        copy.verified = taken.verified;
        self.send_own(&mut copy, Some(hop));
    }

    /// By the gateway's own route, whatever the packet's destination is; only where no
    /// route leads to the gateway by the port that was named, IPv4 looks for the
    /// destination itself on that port.
    fn way_to_gateway(&self, taken: &Taken) -> Option<Hop> {
        let network = self.world.network;
        let Taken { parsed: Parsed { family, dst, .. }, target, .. } = *taken;
        let query = Query { family, src: 0, dst: target.gateway, iif: None, mark: 0 };
        let route = network.listed_route(&query);
        let unicast = route.and_then(|route| match route.kind {
            RouteKind::Unicast(port) => Some((route, port)),
            _ => None,
        });
        let on_link = |port, address| {
            let (mtu, realms) = (network.port(port).mtu, Realms::default());
            // Any port's broadcast address means everybody on this one.
            let everybody = network.broadcast_way(address).filter(|_| family == Family::V4);
            let next_hop = everybody.map_or((family, address), |(_, everybody)| everybody);
            Some(Hop { port, next_hop, mtu, mac: None, realms })
        };
        match (unicast, target.output) {
            (Some((route, port)), wanted) if wanted.is_none_or(|wanted| wanted == port) => {
                let next_hop = route.next_hop(family, target.gateway);
                Some(Hop::by(network, &route, port, next_hop))
            }
            (_, Some(port)) if family == Family::V4 => on_link(port, dst),
            (_, Some(port)) if is_link_local(family, target.gateway) => {
                on_link(port, target.gateway)
            }
            _ => None,
        }
    }
}

/// What the kernel does to the copy's header: not to be fragmented, and one hop older if
/// it was taken on the way in.
fn age(taken: &Taken, packet: &mut [u8]) -> Parsed {
    let older = u8::from(matches!(taken.hook, Hook::Prerouting | Hook::Input));
    let ttl = taken.parsed.ttl.wrapping_sub(older);
    match taken.parsed.family {
        Family::V4 => {
            if let Ok(mut ip) = ipv4::Packet::new_header(packet) {
                ip.set_fragment_word(ip.fragment_word() | DONT_FRAGMENT);
                ip.set_ttl(ttl);
                ip.fill_checksum();
            }
        }
        Family::V6 => {
            if let Ok(mut ip) = ipv6::Packet::new_header(packet) {
                ip.set_hop_limit(ttl);
            }
        }
    }
    Parsed { ttl, ..taken.parsed }
}
