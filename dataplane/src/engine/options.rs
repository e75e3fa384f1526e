//! IPv4 options and IPv6 hop-by-hop options on the road: checked on receipt
//! (IPv6: before any rule; IPv4: after PREROUTING and the routing decision),
//! completed between FORWARD and POSTROUTING, continued in ICMP errors.
//!
//! Between receipt and completion the IPv4 header checksum is not that of the
//! bytes, as in the kernel: only errors that quote the packet show it.

use classifier::Address;

use super::road::{End, Packet, Road};
use super::way::Hop;
use crate::effects::Effects;
use crate::fib::{Query, RouteKind};
use crate::packet::{Family, PortId};
use crate::reply::Message;
use crate::verdict::{Disposition, DropReason};
use crate::wire::options::{self, Malformed, Router};
use crate::wire::{ipv4, ipv6, proto};

/// A received packet's option bytes, zeroes behind them.
pub(super) type Arrived = [u8; options::MAX];

impl Packet<'_> {
    /// The IPv4 header, when it has options.
    fn optioned(&mut self) -> Option<&mut [u8]> {
        let (start, end) = (usize::from(self.parsed.l3), usize::from(self.parsed.l4));
        let optioned = self.parsed.family == Family::V4 && end > start + ipv4::HEADER;
        optioned.then(|| &mut self.frame[start..end])
    }
}

impl<A: Address, E: Effects> Road<'_, A, E> {
    /// Refuses hop-by-hop options that no router may pass.
    pub(super) fn check_hop_by_hop(&self, packet: &Packet<'_>) -> Result<(), End> {
        let ip = packet.parsed.l3_bytes(&packet.frame);
        if packet.parsed.family == Family::V4 || ip[6] != proto::HOP_BY_HOP {
            return Ok(());
        }
        match ipv6::hop_by_hop(ip) {
            Ok(_) => Ok(()),
            Err(ipv6::Refused::Silently) => Err(End::Drop(DropReason::ExtensionHeader)),
            Err(ipv6::Refused::Reported { code, pointer }) => {
                let message = Message::problem_v6(code, pointer.into());
                Err(End::Refused(DropReason::ExtensionHeader, message))
            }
        }
    }

    /// Refuses hop-by-hop options that no bridge can find its way through.
    pub(super) fn check_hop_by_hop_across(&self, packet: &Packet<'_>) -> Result<(), End> {
        let ip = packet.parsed.l3_bytes(&packet.frame);
        let unread = packet.parsed.family == Family::V4 || ip[6] != proto::HOP_BY_HOP;
        match unread || ipv6::hop_by_hop_crosses(ip) {
            true => Ok(()),
            false => Err(End::Drop(DropReason::ExtensionHeader)),
        }
    }

    /// Reads a received packet's IPv4 options and fills in what is due.
    /// Source routes are refused: `accept_source_route` is off. Returns the
    /// options as they arrived.
    pub(super) fn receive_options(
        &self,
        packet: &mut Packet<'_>,
        input: PortId,
    ) -> Result<Option<Arrived>, End> {
        let Some(header) = packet.optioned() else { return Ok(None) };
        let mut arrived = [0; options::MAX];
        arrived[..header.len() - ipv4::HEADER].copy_from_slice(&header[ipv4::HEADER..]);
        self.read_options(packet, input).map_err(|Malformed(at)| {
            End::Refused(DropReason::IpOptions, Message::bad_options(at))
        })?;
        match packet.options.source_routed() {
            true => Err(End::Drop(DropReason::IpOptions)),
            false => Ok(Some(arrived)),
        }
    }

    /// As [`Road::receive_options`], for whoever answers a packet that has
    /// already been sent on.
    pub(super) fn read_options(
        &self,
        packet: &mut Packet<'_>,
        input: PortId,
    ) -> Result<(), Malformed> {
        let network = self.world.network;
        let address = match network.is_local(Family::V4, packet.parsed.dst) {
            true => Some(packet.parsed.dst),
            false => network.address_towards(packet.parsed.src, input),
        };
        let foreign = |address| self.is_foreign(address);
        let router = self.router(address, &foreign);
        let mut options = std::mem::take(&mut packet.options);
        let result = packet.optioned().map_or(Ok(()), |header| options.receive(header, &router));
        packet.options = options;
        result
    }

    /// Completes the IPv4 options of a packet that is sent on.
    pub(super) fn forward_options(&self, packet: &mut Packet<'_>, hop: Hop) {
        if packet.optioned().is_none() {
            return;
        }
        let source = match packet.options.wants_source() {
            true => {
                let query = Query { iif: packet.input, ..packet.query() };
                self.world.network.address_onward(&query, hop.port, hop.next_hop.1)
            }
            false => None,
        };
        let mut options = packet.options;
        if let Some(header) = packet.optioned()
            && options.forward(header, source.unwrap_or(0) as u32)
            && let Ok(mut ip) = ipv4::Packet::new_header(header)
        {
            ip.fill_checksum();
        }
        packet.options = options;
    }

    /// INPUT, which sees the options filled in. The local stack is handed those
    /// that arrived, because it fills them in itself.
    pub(super) fn deliver(
        &mut self,
        packet: &mut Packet<'_>,
        arrived: Option<Arrived>,
    ) -> Result<Disposition, End> {
        let disposition = self.input(packet)?;
        if let (Some(arrived), Some(header)) = (arrived, packet.optioned()) {
            let options = &mut header[ipv4::HEADER..];
            options.copy_from_slice(&arrived[..options.len()]);
        }
        Ok(disposition)
    }

    /// The IPv4 options that an error about this packet carries, when `source`
    /// sends it; `None` when no error may be sent.
    pub(super) fn echo_options(
        &self,
        packet: &Packet<'_>,
        source: u128,
        out: &mut [u8; options::MAX],
    ) -> Option<usize> {
        if packet.parsed.family == Family::V6 {
            return Some(0);
        }
        let header = &packet.frame[packet.parsed.l3.into()..packet.parsed.l4.into()];
        let foreign = |address| self.is_foreign(address);
        packet.options.echo(header, &self.router(Some(source), &foreign), out)
    }

    fn router<'f>(&self, address: Option<u128>, foreign: &'f dyn Fn(u32) -> bool) -> Router<'f> {
        let time = options::time_of_day(self.world.now.0.wrapping_add(self.scratch.utc_offset.0));
        Router { address: address.unwrap_or(0) as u32, time, foreign }
    }

    /// Whether an address is neither this machine's nor a group's.
    fn is_foreign(&self, address: u32) -> bool {
        let dst = address.into();
        let query = Query { family: Family::V4, src: 0, dst, iif: None, mark: 0 };
        let group = address == 0 || address == u32::MAX || address >> 28 == 0xe;
        let kind = self.world.network.route(&query).map(|route| route.kind);
        !group && !matches!(kind, Some(RouteKind::Local | RouteKind::Broadcast))
    }
}
