//! The packet's road: netfilter's hooks and the router between them, stage by
//! stage in the order that the kernel fixes.
//!
//! A stage returns `Err` with the packet's [`End`] to leave the road; what is
//! owed then (an answer to the sender, a connection to forget) is settled in
//! one place, [`Road::travel`].

use classifier::Address;

use super::handed::Handed;
use super::planned::Known;
use super::way::Hop;
use super::{Ended, Scratch, World, egress, helper};
use crate::conntrack::{CtState, SourceHash, Subject, Template, Tracking, Zones};
use crate::effects::Effects;
use crate::fib::{LOOPBACK_MTU, Mode, Query, Realms};
use crate::frame::FrameBuf;
use crate::packet::{Family, Fragment, Parsed, PktType, PortId};
use crate::policy::eval::PacketView;
use crate::policy::scene::{Owner, Scene, Sender};
use crate::policy::walk::{RuleRef, Verdict, Walker};
use crate::policy::{FamilyPolicy, Hook, RejectWith, TableId};
use crate::reassembly::{Regroup, User};
use crate::reply::Message;
use crate::stats::RuleCounters;
use crate::verdict::{Disposition, DropReason};
use crate::wire::options::Options;
use crate::wire::{proto, sctp};

/// One packet in flight.
pub(super) struct Packet<'f> {
    /// The frame from its Ethernet header on.
    pub(super) frame: FrameBuf<'f>,
    /// Parsed facts about `frame`, kept true when it changes.
    pub(super) parsed: Parsed,
    /// The port it arrived on; `None` for this machine's own packets.
    pub(super) input: Option<PortId>,
    /// The port it will leave on, once routed.
    pub(super) output: Option<PortId>,
    /// Its next hop's family and address, once routed.
    pub(super) next_hop: Option<(Family, u128)>,
    /// MTU in bytes of its way out, once routed.
    pub(super) way_mtu: u32,
    /// What its route, and the way back to its source, say of it.
    pub(super) realms: Realms,
    /// The packet's mark.
    pub(super) mark: u32,
    /// For this machine's own packets: what its kernel decided about it.
    pub(super) handed: Option<Handed>,
    /// What it asks of the connection table, if that was worked out before.
    pub(super) subject: Option<Subject>,
    /// What became known of it on the short road.
    pub(super) known: Known,
    /// What tracking said.
    pub(super) tracking: Tracking,
    /// What the raw table wants of its tracking.
    pub(super) template: Template,
    /// What its connection's source is found by, once the nat table was asked.
    pub(super) source: Option<SourceHash>,
    /// Its checksum was found right before its tracking was forgotten.
    pub(super) verified: bool,
    /// SYNPROXY opens a connection to a server with it.
    pub(super) opens_server: bool,
    /// See [`About::half_summed`](crate::reply::About::half_summed).
    pub(super) half_summed: bool,
    /// What its IPv4 options ask for, once received.
    pub(super) options: Options,
    /// Whose it is, where that is known.
    pub(super) owner: Option<Owner>,
    /// Whose socket it came from.
    pub(super) sender: Sender,
    /// What CLASSIFY said.
    pub(super) priority: u32,
    /// Whether TRACE marked it.
    pub(super) traced: bool,
    /// For a datagram that was put together here: how it came.
    pub(super) regroup: Option<&'f Regroup>,
}

impl<'f> Packet<'f> {
    pub(super) fn new(frame: FrameBuf<'f>, parsed: Parsed, input: Option<PortId>) -> Self {
        Self {
            frame,
            parsed,
            input,
            output: None,
            next_hop: None,
            way_mtu: u32::MAX,
            realms: Realms::default(),
            mark: 0,
            handed: None,
            subject: None,
            known: Known::default(),
            tracking: Tracking::NONE,
            template: Template::default(),
            source: None,
            verified: false,
            opens_server: false,
            half_summed: false,
            options: Options::default(),
            owner: None,
            sender: Sender::Nobody,
            priority: 0,
            traced: false,
            regroup: None,
        }
    }

    /// Takes the way that routing gave it; `None`: to this machine itself.
    pub(super) fn leave_by(&mut self, hop: Option<Hop>) {
        self.output = Some(hop.map_or(PortId::LOOPBACK, |hop| hop.port));
        self.next_hop = hop.map(|hop| hop.next_hop);
        self.way_mtu = hop.map_or(LOOPBACK_MTU, |hop| hop.mtu);
        self.realms = hop.map_or(Realms::default(), |hop| hop.realms);
    }

    /// What a table may change that makes OUTPUT ask for the way again.
    fn routed_by(&self) -> (u32, u8, u8, u128, u128) {
        let Parsed { family, tos, ttl, src, dst, .. } = self.parsed;
        (self.mark, tos, if family == Family::V6 { ttl } else { 0 }, src, dst)
    }

    /// What routing is asked for a packet of our own.
    pub(super) fn query(&self) -> Query {
        let Parsed { family, src, dst, .. } = self.parsed;
        Query { family, src, dst, iif: None, mark: self.mark }
    }
}

/// Why a packet left the road before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Silently.
    Drop(DropReason),
    /// By a REJECT rule.
    Reject(RejectWith),
    /// The router cannot forward it and says so.
    Refused(DropReason, Message),
}

impl End {
    fn reason(self) -> DropReason {
        match self {
            Self::Drop(reason) | Self::Refused(reason, _) => reason,
            Self::Reject(_) => DropReason::Reject,
        }
    }
}

/// Everything the stages of one packet's road share.
pub(super) struct Road<'a, A, E> {
    pub(super) world: &'a World<'a>,
    pub(super) policy: &'a FamilyPolicy<A>,
    pub(super) counters: &'a RuleCounters,
    pub(super) scratch: &'a mut Scratch,
    pub(super) effects: &'a mut E,
    /// How many of our own packets are being sent because of one another.
    pub(super) depth: u8,
}

impl<A: Address, E: Effects> Road<'_, A, E> {
    /// Takes the packet from where it entered to where it ends.
    pub(super) fn travel(&mut self, packet: &mut Packet<'_>) -> Ended {
        let result = match (self.world.network.mode(), packet.input) {
            (_, None) => self.first_way(packet).and_then(|hop| self.sent(packet, hop)),
            (Mode::Bridge(_), Some(input)) => self.bridged(packet, input),
            (Mode::Routed | Mode::Host, Some(input)) => self.received(packet, input),
        };
        let disposition = result.unwrap_or_else(|end| self.settle(packet, end));
        Ended { disposition, tracking: packet.tracking, mark: packet.mark }
    }

    /// Pays what is owed for a packet that left the road.
    pub(super) fn settle(&mut self, packet: &mut Packet<'_>, end: End) -> Disposition {
        match end {
            End::Drop(_) => {}
            End::Reject(with) => self.reject(packet, with),
            End::Refused(why, message) => self.complain(packet, why, message),
        }
        self.world.conntrack.discard(packet.tracking);
        Disposition::Drop(end.reason())
    }

    /// From a port: PREROUTING, the routing decision, then INPUT or FORWARD.
    fn received(&mut self, packet: &mut Packet<'_>, input: PortId) -> Result<Disposition, End> {
        if packet.parsed.pkt_type == PktType::OtherHost {
            return Err(End::Drop(DropReason::NotForUs));
        }
        self.check_hop_by_hop(packet)?;
        let onward = |road: &mut Self, whole: &mut Packet<'_>| road.received(whole, input);
        if let Some(ended) = self.gather_tracked(packet, User::Prerouting, onward)? {
            return Ok(ended);
        }
        self.prerouting(packet)?;
        let route = self.route_input(packet, input);
        let arrived = match &route {
            Err(end) if refused_by_address(end) => None,
            _ => self.receive_options(packet, input)?,
        };
        match route? {
            None => self.deliver(packet, arrived),
            Some(hop) => self.forward(packet, hop),
        }
    }

    /// From this machine: OUTPUT, POSTROUTING. `hop` is the first routing decision;
    /// `None` when the packet is addressed to this machine itself.
    pub(super) fn sent(
        &mut self,
        packet: &mut Packet<'_>,
        mut hop: Option<Hop>,
    ) -> Result<Disposition, End> {
        let onward = |road: &mut Self, whole: &mut Packet<'_>| road.sent(whole, hop);
        if let Some(ended) = self.gather_tracked(packet, User::Output, onward)? {
            return Ok(ended);
        }
        packet.leave_by(hop);
        self.hook(packet, Hook::Output, &[TableId::Raw])?;
        if packet.opens_server {
            // No rule exempts it, or puts it elsewhere.
            (packet.tracking, packet.template) = (Tracking::NONE, Template::default());
        }
        self.track(packet)?;
        let routed_by = packet.routed_by();
        self.hook(packet, Hook::Output, &[TableId::Mangle])?;
        if packet.routed_by() != routed_by {
            // The rest of OUTPUT still sees the first decision's port.
            hop = self.route_again(packet, hop)?;
            packet.realms = hop.map_or(Realms::default(), |hop| hop.realms);
        }
        hop = self.translate_own(packet, hop)?;
        packet.realms = hop.map_or(Realms::default(), |hop| hop.realms);
        self.hook(packet, Hook::Output, &[TableId::Filter, TableId::Security])?;
        if self.stays_here(packet, hop) {
            return Err(End::Drop(DropReason::TtlExpired));
        }
        packet.leave_by(hop);
        self.postrouting(packet)?;
        match hop {
            Some(hop) => self.leave(packet, hop),
            None => self.loop_back(packet),
        }
    }

    /// Whether a packet of our own to a group that we listen to ourselves has no hops
    /// left: it does not go beyond this machine. (The kernel sends others of hop count 0.)
    fn stays_here(&self, packet: &Packet<'_>, hop: Option<Hop>) -> bool {
        let Parsed { family, dst, ttl, .. } = packet.parsed;
        let joined = |hop: Hop| self.world.network.has_joined(hop.port, family, dst);
        family == Family::V4 && ttl == 0 && hop.is_some_and(joined)
    }

    /// Back in through the loopback interface, with the connection it left with.
    fn loop_back(&mut self, packet: &mut Packet<'_>) -> Result<Disposition, End> {
        let Parsed { family, src, .. } = packet.parsed;
        if family == Family::V6 && src >> 120 == 0xff {
            // Translation can make a group the source: IPv6 receives no such packet.
            return Err(End::Drop(DropReason::MartianSource));
        }
        (packet.input, packet.output) = (Some(PortId::LOOPBACK), None);
        self.prerouting(packet)?;
        let arrived = self.receive_options(packet, PortId::LOOPBACK)?;
        match self.deliver(packet, arrived)? {
            Disposition::Deliver => Ok(self.hand_back(packet)),
            disposition => Ok(disposition),
        }
    }

    /// raw, tracking, mangle, nat.
    pub(super) fn prerouting(&mut self, packet: &mut Packet<'_>) -> Result<(), End> {
        self.hook(packet, Hook::Prerouting, &[TableId::Raw])?;
        self.track(packet)?;
        self.hook(packet, Hook::Prerouting, &[TableId::Mangle])?;
        self.translate(packet, Hook::Prerouting)
    }

    /// mangle, filter, security, nat, SYNPROXY, helper, confirm.
    pub(super) fn input(&mut self, packet: &mut Packet<'_>) -> Result<Disposition, End> {
        if packet.parsed.family == Family::V4 && packet.parsed.fragment != Fragment::Whole {
            // Here the kernel reassembles what it did not track.
            let onward = |road: &mut Self, whole: &mut Packet<'_>| road.input(whole);
            let ended = self.gather(packet, User::Delivery, onward)?;
            return ended.ok_or(End::Drop(DropReason::Fragment));
        }
        let tables = [TableId::Mangle, TableId::Filter, TableId::Security];
        self.hook(packet, Hook::Input, &tables)?;
        self.translate(packet, Hook::Input)?;
        self.splice(packet)?;
        helper::assist(self.world, packet)?;
        self.confirm(packet)?;
        Ok(Disposition::Deliver)
    }

    /// A router's checks, then FORWARD, POSTROUTING and out.
    fn forward(&mut self, packet: &mut Packet<'_>, hop: Hop) -> Result<Disposition, End> {
        let family = packet.parsed.family;
        if packet.parsed.ttl <= 1 {
            return Err(End::Refused(DropReason::TtlExpired, Message::time_exceeded(family)));
        }
        // An IPv6 router looks at its route's MTU on the way out only.
        let mtu = match family {
            Family::V4 => hop.mtu,
            Family::V6 => self.world.network.port(hop.port).mtu,
        };
        if egress::too_big(packet, mtu) {
            return Err(End::Refused(DropReason::TooBig, Message::too_big(family, mtu)));
        }
        egress::decrement_hops(packet);
        packet.leave_by(Some(hop));
        self.forward_tables(packet)?;
        self.forward_options(packet, hop);
        self.postrouting(packet)?;
        self.leave(packet, hop)
    }

    /// mangle, filter, security.
    pub(super) fn forward_tables(&mut self, packet: &mut Packet<'_>) -> Result<(), End> {
        self.hook(packet, Hook::Forward, &[TableId::Mangle, TableId::Filter, TableId::Security])
    }

    /// mangle, nat, SYNPROXY, helper, confirm.
    pub(super) fn postrouting(&mut self, packet: &mut Packet<'_>) -> Result<(), End> {
        self.hook(packet, Hook::Postrouting, &[TableId::Mangle])?;
        self.translate(packet, Hook::Postrouting)?;
        self.splice(packet)?;
        helper::assist(self.world, packet)?;
        self.confirm(packet)
    }

    /// Tracks the packet, unless its family is not tracked, a rule exempts it or its
    /// connection is known (answers that the router itself makes carry the connection of the
    /// packet that they answer).
    fn track(&mut self, packet: &mut Packet<'_>) -> Result<(), End> {
        let seen = packet.tracking.conn.is_some() || packet.tracking.state == CtState::Untracked;
        if !self.policy.needs_conntrack || seen {
            return Ok(());
        }
        let World { conntrack, now, snapshot, .. } = self.world;
        let terms = packet.template.terms(packet.mark, snapshot.extensions);
        let ours = packet.input.is_none_or(|port| port == PortId::LOOPBACK);
        let Packet { frame, parsed, .. } = packet;
        let Known { flow, tracked, .. } = packet.known;
        let subject = packet.subject.take().filter(|_| terms.zones.original == 0);
        let tracked = match (tracked, flow, subject) {
            // Its plan did not suit after all.
            (Some(tracked), ..) => tracked,
            (None, Some(flow), Some(subject)) if terms.zones == Zones::DEFAULT => {
                conntrack.track_flow(&flow, &subject, parsed, frame, &terms, *now)
            }
            (None, _, subject) => {
                let asked = || conntrack.subject(parsed, frame, terms.zones.original);
                let subject = subject.unwrap_or_else(asked);
                conntrack.track_subject(&subject, parsed, frame, ours, &terms, *now)
            }
        };
        packet.tracking = tracked.map_err(End::Drop)?;
        packet.verified |= packet.tracking.summed;
        if parsed.proto == proto::SCTP && !ours && conntrack.verifies_checksums() {
            // The kernel joins the header to take the checksum out of it.
            frame.join(usize::from(parsed.l4) + sctp::HEADER);
        }
        Ok(())
    }

    /// Makes the packet's connection visible, if this is its first packet.
    fn confirm(&mut self, packet: &mut Packet<'_>) -> Result<(), End> {
        let World { conntrack, now, .. } = self.world;
        conntrack.confirm_from(&mut packet.tracking, packet.source, *now).map_err(End::Drop)
    }

    /// Walks the built-in chains of `tables` at `hook`.
    fn hook(&mut self, packet: &mut Packet<'_>, hook: Hook, tables: &[TableId]) -> Result<(), End> {
        for &table in tables {
            self.table(packet, hook, table)?;
        }
        Ok(())
    }

    /// Walks one built-in chain, if the policy has it. A rule of the nat table that
    /// translates is returned, for its target to be carried out.
    pub(super) fn table(
        &mut self,
        packet: &mut Packet<'_>,
        hook: Hook,
        table: TableId,
    ) -> Result<Option<RuleRef>, End> {
        let Some(entry) = self.policy.hooks[hook as usize][table as usize] else {
            return Ok(None);
        };
        let mut view = PacketView {
            parsed: &mut packet.parsed,
            frame: packet.frame.reborrow(),
            has_link_header: packet.input.is_some_and(|port| port != PortId::LOOPBACK),
            input: packet.input,
            output: packet.output,
            mark: packet.mark,
            tracking: packet.tracking,
            template: packet.template,
            conntrack: self.world.conntrack,
            network: self.world.network,
            way_mtu: packet.way_mtu,
            realms: packet.realms,
            now: self.world.now,
            hook,
            scene: Scene {
                utc_offset: self.scratch.utc_offset,
                minutes_west: self.scratch.minutes_west,
                cpu: self.scratch.cpu,
                dice: &self.scratch.dice,
            },
            owner: packet.owner,
            sender: packet.sender,
            priority: packet.priority,
            traced: packet.traced,
        };
        let mut key = view.key();
        let mut walker = Walker {
            policy: self.policy,
            counters: self.counters,
            stack: &mut self.scratch.stack,
            copies: &mut self.scratch.copies,
            effects: self.effects,
        };
        let recorder = &mut self.scratch.recorder;
        let verdict = match recorder.is_on() {
            false => walker.walk(table, hook, entry, &mut view, &mut key),
            true => walker.walk_watched(table, hook, entry, &mut view, &mut key, recorder),
        };
        (packet.mark, packet.tracking, packet.template) = (view.mark, view.tracking, view.template);
        (packet.priority, packet.traced) = (view.priority, view.traced);
        let (length, joined) = (view.frame.len(), view.frame.joined());
        packet.frame.resume(length, joined);
        if !self.scratch.copies.is_idle() {
            self.send_copies();
        }
        match verdict {
            Verdict::Translate(rule) => Ok(Some(rule)),
            Verdict::Accept => Ok(None),
            Verdict::Synproxy(rule) => Err(self.take_over(packet, rule)),
            Verdict::Drop(reason) => Err(End::Drop(reason)),
            Verdict::Reject(with) => Err(End::Reject(with)),
            Verdict::Refuse(message) => Err(End::Refused(DropReason::Hotdrop, message)),
        }
    }
}

/// Whether routing refuses a packet for its addresses: at once, and silently.
fn refused_by_address(end: &End) -> bool {
    use DropReason::{MartianDestination, MartianSource, NotForwarded};
    matches!(end, End::Drop(MartianSource | MartianDestination | NotForwarded))
}
