//! What the router itself sends: ICMP errors and resets, on their own road
//! through OUTPUT and POSTROUTING.
//!
//! An answer carries the connection of the packet that it answers, RELATED and
//! the other way, as the kernel attaches it. Answers to answers are possible
//! (a rule in OUTPUT that rejects a reset) and bounded: no ICMP error and no
//! reset is ever answered by its own kind, and [`DEPTH_MAX`] stops the rest.

use classifier::Address;

use super::World;
use super::road::{Packet, Road};
use super::way::Hop;
use crate::conntrack::{CtState, status};
use crate::effects::Effects;
use crate::fib::{LOOPBACK_MTU, Mode, Query, RouteKind, is_link_local};
use crate::frame::FrameBuf;
use crate::packet::{Family, Parsed, PktType, PortId};
use crate::policy::RejectWith;
use crate::policy::scene::Sender;
use crate::reply::{self, About, Message, Origin};
use crate::verdict::{Disposition, DropReason};
use crate::wire::{ethernet, ethertype, options, parse, proto};

/// Answers that may hang on one packet of the burst.
const DEPTH_MAX: u8 = 2;
/// Longest frame that is made here: an IPv6 error and its Ethernet header.
const FRAME_MAX: usize = ethernet::HEADER + 1280;
/// ICMP code.
const HOST_UNREACHABLE: u8 = 1;
/// ICMPv6 code.
const ADDRESS_UNREACHABLE: u8 = 3;

/// A frame under construction: the Ethernet header is written on the way out.
type Frame = [u8; FRAME_MAX];

/// The way back to a packet's source.
struct Way {
    source: u128,
    /// `None`: to this machine itself.
    hop: Option<Hop>,
    mtu: u32,
    /// Prefix length of the route: wider ones may hear more.
    prefix_len: u8,
}

impl<A: Address, E: Effects> Road<'_, A, E> {
    /// Answers a packet that a REJECT rule refused.
    pub(super) fn reject(&mut self, packet: &mut Packet<'_>, with: RejectWith) {
        if let (Mode::Bridge(_), Some(port)) = (self.world.network.mode(), packet.input) {
            return self.reject_across(packet, with, port);
        }
        let Some(way) = self.way_back(packet) else { return };
        let mut frame = [0; FRAME_MAX];
        let room = &mut frame[ethernet::HEADER..];
        let origin = self.origin(&way);
        let valid = [CtState::New, CtState::Established, CtState::Related];
        // Forwarding makes the kernel forget what a reset would look at.
        let kept = with != RejectWith::TcpReset || packet.output.is_none();
        let summed = kept && (packet.verified || valid.contains(&packet.tracking.state));
        let mut options = [0; options::MAX];
        let echo = match with {
            RejectWith::TcpReset => Some(0),
            _ => self.echo_options(packet, way.source, &mut options),
        };
        let Some(echo) = echo else { return };
        let about = About { options: &options[..echo], summed, ..self.about(packet) };
        let Some(length) = reply::reject(room, &about, with, &origin) else { return };
        let family = packet.parsed.family;
        match with {
            RejectWith::TcpReset => {
                // Routed by its own source, which need not be ours.
                let Parsed { src, dst, .. } = packet.parsed;
                let query = Query { src: dst, dst: src, iif: packet.input, mark: 0, family };
                let Ok(hop) = self.route_output(&query) else { return };
                self.close(packet);
                self.send(packet, &mut frame, length, hop);
            }
            RejectWith::Icmp(code) | RejectWith::Icmp6(code) => {
                let message = Message::unreachable(family, code);
                if self.may_say(packet, message, &way, DropReason::Reject) {
                    self.send(packet, &mut frame, length, way.hop);
                }
            }
        }
    }

    /// Tells the sender why the router cannot forward its packet.
    pub(super) fn complain(&mut self, packet: &mut Packet<'_>, why: DropReason, message: Message) {
        if !reply::icmp::may_answer(&self.about(packet), message) {
            return;
        }
        let Some(way) = self.way_back(packet) else { return };
        if !self.may_say(packet, message, &way, why) {
            return;
        }
        let mut options = [0; options::MAX];
        let Some(echo) = self.echo_options(packet, way.source, &mut options) else { return };
        let mut frame = [0; FRAME_MAX];
        let room = &mut frame[ethernet::HEADER..];
        let origin = self.origin(&way);
        let about = About { options: &options[..echo], ..self.about(packet) };
        let length = reply::icmp::error(room, &about, message, &origin);
        if let Some(length) = length {
            self.send(packet, &mut frame, length, way.hop);
        }
    }

    /// Tells the sender of a packet that its next hop does not answer.
    pub(super) fn next_hop_silent(&mut self, packet: &mut Packet<'_>) {
        let family = packet.parsed.family;
        // The kernel reads the options of the packet that it sent on once more.
        let port = packet.output.unwrap_or(PortId::LOOPBACK);
        if self.read_options(packet, port).is_err() {
            return;
        }
        let code = match family {
            Family::V4 => HOST_UNREACHABLE,
            Family::V6 => ADDRESS_UNREACHABLE,
        };
        let message = Message::unreachable(family, code);
        self.complain(packet, DropReason::NeighbourUnresolved, message);
    }

    fn about<'p>(&self, packet: &'p Packet<'_>) -> About<'p> {
        let network = self.world.network;
        let query = Query { iif: packet.input, ..packet.query() };
        let group = network.route(&query).is_some_and(|route| route.kind == RouteKind::Broadcast);
        let Packet { frame, parsed, half_summed, .. } = packet;
        About { frame, parsed, group, summed: false, half_summed: *half_summed, options: &[] }
    }

    fn origin(&mut self, way: &Way) -> Origin {
        let id = &mut self.scratch.identification;
        *id = id.wrapping_add(1);
        Origin { source: way.source, id: *id, mtu: way.mtu }
    }

    /// How an ICMP error gets back to the packet's source, and whose it is: the
    /// destination's, if that is ours.
    fn way_back(&self, packet: &Packet<'_>) -> Option<Way> {
        let network = self.world.network;
        let Parsed { family, src, dst, .. } = packet.parsed;
        let wire = packet.input.filter(|&port| port != PortId::LOOPBACK);
        let near = match wire {
            None if is_link_local(family, src) => self.link_of(packet),
            _ => wire.or(packet.output).unwrap_or(PortId::LOOPBACK),
        };
        // From the wire only a translated IPv4 packet has an address of ours: others are
        // martian. IPv6 has no martians.
        let ours = family == Family::V6 || wire.is_none() || self.is_translated(packet);
        if ours && network.is_own(family, src, near) {
            let full = if family == Family::V4 { 32 } else { 128 };
            let source = if network.is_own(family, dst, near) { dst } else { src };
            return Some(Way { source, hop: None, mtu: LOOPBACK_MTU, prefix_len: full });
        }
        let (source, port, route) =
            network.error_source(family, src, dst, (near, wire.is_some()))?;
        let hop = Hop::by(network, &route, port, route.next_hop(family, src));
        Some(Way { source, hop: Some(hop), mtu: hop.mtu, prefix_len: route.prefix_len })
    }

    /// The port that a packet of our own belongs to where addresses mean one link: the
    /// one with its destination, if that is ours (as OUTPUT may have changed it), or the
    /// one that it leaves on.
    fn link_of(&self, packet: &Packet<'_>) -> PortId {
        let network = self.world.network;
        let Parsed { family, dst, .. } = packet.parsed;
        let port = match network.is_local(family, dst) {
            true => network.port_with(family, dst),
            false => packet.output,
        };
        port.unwrap_or(PortId::LOOPBACK)
    }

    fn is_translated(&self, packet: &Packet<'_>) -> bool {
        let bits = packet.tracking.conn.and_then(|conn| self.world.conntrack.status(conn));
        bits.is_some_and(|bits| bits & status::SRC_NAT != 0)
    }

    /// Whether rate limits let this error out.
    fn may_say(&mut self, packet: &Packet<'_>, said: Message, way: &Way, why: DropReason) -> bool {
        let (family, to, now) = (packet.parsed.family, packet.parsed.src, self.world.now);
        let by_route = matches!(why, DropReason::NoRoute | DropReason::RouteRefused);
        let allowed = if by_route && family == Family::V4 {
            self.scratch.limiter.allow_route_error(now, said, to)
        } else {
            self.scratch.limiter.allow(now, family, said, to, way.prefix_len)
        };
        if !allowed {
            self.world.stats.replies_limited.add(1);
        }
        allowed
    }

    /// A reset on a connection's behalf closes it, once it is in the table.
    fn close(&self, packet: &Packet<'_>) {
        if let (Some(conn), false) = (packet.tracking.conn, packet.tracking.unconfirmed) {
            self.world.conntrack.set_closing(conn, self.world.now);
        }
    }

    /// Sends an answer of `length` bytes on its own road.
    fn send(&mut self, original: &Packet<'_>, frame: &mut Frame, length: usize, hop: Option<Hop>) {
        if self.depth == DEPTH_MAX {
            return;
        }
        let Some(mut answer) = answer_packet(original, frame, length) else { return };
        if original.tracking.conn.is_some() {
            let World { conntrack, now, .. } = self.world;
            let tracking =
                conntrack.attach(&original.tracking, &answer.parsed, &answer.frame, *now);
            let Ok(tracking) = tracking else { return };
            answer.tracking = tracking;
        } else if original.tracking.state == CtState::Untracked {
            // The kernel's mark on such an answer keeps CT from speaking again.
            answer.template.given = true;
        }
        self.send_own(&mut answer, hop);
    }

    /// Sends a packet of ours on its own road.
    pub(super) fn send_own(&mut self, own: &mut Packet<'_>, hop: Option<Hop>) {
        if self.depth == DEPTH_MAX {
            return;
        }
        self.depth += 1;
        let disposition = match self.sent(own, hop) {
            Ok(disposition) => disposition,
            Err(end) => self.settle(own, end),
        };
        self.depth -= 1;
        self.dispatch(own, disposition);
    }

    /// Carries out the disposition of a packet of our own.
    fn dispatch(&mut self, answer: &Packet<'_>, disposition: Disposition) {
        let stats = self.world.stats;
        match disposition {
            Disposition::Transmit(port) if self.effects.emit(port, &answer.frame) => {
                stats.replies.add(1);
            }
            Disposition::Transmit(_) => stats.drop(DropReason::NoFrame),
            Disposition::Deliver => self.effects.deliver(None, &answer.frame),
            Disposition::Fragmented | Disposition::Delivered => stats.replies.add(1),
            Disposition::Collected => {}
            Disposition::AwaitNeighbour { port, next_hop } => {
                match self.effects.hold(port, next_hop, &answer.frame) {
                    Ok(()) => stats.replies.add(1),
                    Err(reason) => stats.drop(reason),
                }
            }
            Disposition::Drop(reason) => stats.drop(reason),
        }
    }

    /// Answers across a bridge, which has no addresses: in the name of the
    /// destination, straight back, as nftables' bridge family rejects.
    fn reject_across(&mut self, packet: &mut Packet<'_>, with: RejectWith, port: PortId) {
        let mtu = self.world.network.port(port).mtu;
        let origin = Origin { source: packet.parsed.dst, id: 0, mtu };
        let mut frame = [0; FRAME_MAX];
        let room = &mut frame[ethernet::HEADER..];
        let Some(length) = reply::reject(room, &self.about(packet), with, &origin) else { return };
        if with == RejectWith::TcpReset {
            self.close(packet);
        }
        frame[..6].copy_from_slice(&packet.frame[6..12]);
        frame[6..12].copy_from_slice(&packet.frame[..6]);
        frame[12..ethernet::HEADER].copy_from_slice(&packet.frame[12..ethernet::HEADER]);
        let sent = self.effects.emit(port, &frame[..ethernet::HEADER + length]);
        match sent {
            true => self.world.stats.replies.add(1),
            false => self.world.stats.drop(DropReason::NoFrame),
        }
    }
}

/// A finished answer as a packet of this machine.
fn answer_packet<'f>(
    original: &Packet<'_>,
    frame: &'f mut Frame,
    length: usize,
) -> Option<Packet<'f>> {
    let frame = &mut frame[..ethernet::HEADER + length];
    let kind = match original.parsed.family {
        Family::V4 => ethertype::IPV4,
        Family::V6 => ethertype::IPV6,
    };
    frame[12..ethernet::HEADER].copy_from_slice(&kind.to_be_bytes());
    let parsed = match original.parsed.family {
        Family::V4 => parse::parse_ipv4(frame, ethernet::HEADER, PktType::Host),
        // It may come from `::1`, to which OUTPUT redirects.
        Family::V6 => parse::parse_any_ipv6(frame, ethernet::HEADER, PktType::Host),
    };
    let parsed = parsed.ok()?;
    let half_summed = parsed.family == Family::V4 && parsed.proto == proto::TCP;
    let mut answer = Packet::new(FrameBuf::exact(frame), parsed, None);
    answer.half_summed = half_summed;
    // The kernel has sockets for ICMP; its REJECT sends resets without one.
    if matches!(parsed.proto, proto::ICMP | proto::ICMPV6) {
        answer.sender = Sender::Kernel;
    }
    Some(answer)
}
