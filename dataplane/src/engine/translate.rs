//! Translation on the road: at its place in each of four hooks the nat table is
//! asked about connections whose translation is not decided yet, and the packet
//! is made to look as its connection's translation says.
//!
//! A connection that is in the table can no longer be given a translation. The
//! table is still asked about its packets while they are NEW and nothing was
//! decided (the nat table came later): rules count them, as the kernel's do.

use classifier::Address;

use super::Scratch;
use super::road::{End, Packet, Road};
use super::way::Hop;
use crate::conntrack::{ConnId, CtState, Direction, Face, status};
use crate::effects::Effects;
use crate::nat::{self, Home, Luck, Manip, errors, resolve, rewrite};
use crate::packet::{Family, Parsed, PortId};
use crate::policy::walk::RuleRef;
use crate::policy::{Hook, TableId, Target};
use crate::verdict::DropReason;
use crate::wire::{be16, be32, be128, proto};

impl<A: Address, E: Effects> Road<'_, A, E> {
    /// nat at one hook.
    pub(super) fn translate(&mut self, packet: &mut Packet<'_>, hook: Hook) -> Result<(), End> {
        const TRANSLATED: u32 = status::SRC_NAT | status::DST_NAT;
        let Some(conn) = packet.tracking.conn else { return Ok(()) };
        let table = self.world.conntrack;
        let Some(bits) = table.status(conn) else { return Ok(()) };
        // What is translated stays so when the table is gone.
        if bits & TRANSLATED == 0 && !self.policy.nat {
            return Ok(());
        }
        let manip = Manip::at(hook);
        let face = match packet.tracking.state {
            CtState::Related if is_icmp(&packet.parsed) => {
                return self.translate_error(packet, conn, manip);
            }
            CtState::New | CtState::Related if bits & manip.done() == 0 && self.policy.nat => {
                self.decide_translation(packet, hook, conn, manip)?
            }
            CtState::Established if bits & TRANSLATED == 0 => return Ok(()),
            _ => {
                self.check_way_out(packet, hook, conn)?;
                table.face(conn)
            }
        };
        let Some(face) = face else { return Ok(()) };
        let direction = packet.tracking.direction;
        if !face.translates(direction, manip) {
            return Ok(());
        }
        let target = face.tuple(direction.opposite()).inverted();
        let target = target.ok_or(End::Drop(DropReason::NatHeader))?;
        match rewrite::rewrite(ip_packet(packet).0, &target, manip) {
            true => refresh(packet),
            false => return Err(End::Drop(DropReason::NatHeader)),
        }
        let Parsed { l4, l4_len, proto, .. } = packet.parsed;
        packet.frame.join(usize::from(l4) + rewrite::reach(proto, l4_len.into()));
        Ok(())
    }

    /// Asks the table; what no rule translates keeps its addresses. Returns the
    /// connection's face afterwards.
    fn decide_translation(
        &mut self,
        packet: &mut Packet<'_>,
        hook: Hook,
        conn: ConnId,
        manip: Manip,
    ) -> Result<Option<Face>, End> {
        let rule = self.table(packet, hook, TableId::Nat)?;
        let wanted = match rule {
            Some(rule) => self.wanted(packet, hook, rule)?,
            None => None,
        };
        let (table, now) = (self.world.conntrack, self.world.now);
        // Answers to what leaves on a port arrive there.
        let out = packet.output.filter(|_| hook == Hook::Postrouting);
        let Scratch { random, spreads, queue, .. } = &mut *self.scratch;
        let spread = out.and_then(|port| spreads.get(port.index())?.as_ref());
        let home = spread.map(|spread| Home { spread, queue: *queue });
        let mut luck = Luck { random, home };
        let Some(mut face) = table.face(conn) else { return Ok(None) };
        // At the first hook of two: by the second it is there.
        packet.source = Some(table.know_source(conn, &mut face, packet.source));
        if let Some(wanted) = wanted {
            if let Some(port) = wanted.masquerade {
                table.set_masquerade(conn, port);
            }
            nat::decide(table, conn, &mut face, &wanted.range, wanted.manip, &mut luck, now);
        }
        nat::decide_null(table, conn, &mut face, manip, &mut luck, now);
        Ok(Some(face))
    }

    /// What a rule of the nat table means here.
    fn wanted(
        &self,
        packet: &Packet<'_>,
        hook: Hook,
        rule: RuleRef,
    ) -> Result<Option<resolve::Wanted>, End> {
        let rule = &self.policy.chains[rule.chain.0 as usize].rules[rule.rule as usize];
        let Target::Nat(target) = &rule.target else { return Ok(None) };
        let place = resolve::Place {
            network: self.world.network,
            hook,
            input: packet.input,
            output: packet.output,
            next_hop: packet.next_hop,
        };
        resolve::wanted(target, &packet.parsed, &place).map_err(End::Drop)
    }

    /// A connection that took one port's address does not go on through another.
    fn check_way_out(&self, packet: &Packet<'_>, hook: Hook, conn: ConnId) -> Result<(), End> {
        if hook != Hook::Postrouting || packet.tracking.direction == Direction::Reply {
            return Ok(());
        }
        let table = self.world.conntrack;
        let taken = table.masquerade(conn);
        if taken.is_none() || taken == packet.output {
            return Ok(());
        }
        table.remove(conn);
        Err(End::Drop(DropReason::NatPortChanged))
    }

    fn translate_error(
        &self,
        packet: &mut Packet<'_>,
        conn: ConnId,
        manip: Manip,
    ) -> Result<(), End> {
        let Some(face) = self.world.conntrack.face(conn) else { return Ok(()) };
        let direction = packet.tracking.direction;
        let received = packet.input.is_some_and(|port| port != PortId::LOOPBACK);
        let summed = received && self.world.conntrack.verifies_checksums();
        let verified = summed || packet.verified;
        let (ip, l4) = ip_packet(packet);
        let changed = errors::translate(ip, l4, &face, direction, manip, verified);
        let changed = changed.map_err(End::Drop)?;
        // One of our own is looked at in OUTPUT, and not again when SNPT has changed it.
        packet.verified = true;
        if changed {
            refresh(packet);
        }
        Ok(())
    }

    /// nat in OUTPUT, and the way that it may have changed. `hop` is the way so far.
    pub(super) fn translate_own(
        &mut self,
        packet: &mut Packet<'_>,
        hop: Option<Hop>,
    ) -> Result<Option<Hop>, End> {
        self.translate(packet, Hook::Output)?;
        let face = packet.tracking.conn.and_then(|conn| self.world.conntrack.face(conn));
        match face {
            Some(face) if redirected(&face, packet.tracking.direction) => {
                self.route_again(packet, hop)
            }
            _ => Ok(hop),
        }
    }
}

/// Whether packets of this direction go elsewhere than they say.
fn redirected(face: &Face, direction: Direction) -> bool {
    face.tuple(direction).dst != face.tuple(direction.opposite()).src
}

fn is_icmp(parsed: &Parsed) -> bool {
    matches!((parsed.family, parsed.proto), (Family::V4, proto::ICMP) | (Family::V6, proto::ICMPV6))
}

/// The IP packet in the frame, and where its layer 4 starts there.
fn ip_packet<'p>(packet: &'p mut Packet<'_>) -> (&'p mut [u8], usize) {
    let Parsed { l3, l3_len, l4, .. } = packet.parsed;
    let (l3, length) = (usize::from(l3), usize::from(l3_len));
    (&mut packet.frame[l3..l3 + length], usize::from(l4) - l3)
}

/// Reads again what may have changed.
fn refresh(packet: &mut Packet<'_>) {
    let (ip, l4) = ip_packet(packet);
    let addresses = match ip[0] >> 4 {
        4 => [12, 16].map(|at| u128::from(be32(ip, at))),
        _ => [8, 24].map(|at| be128(ip, at)),
    };
    let ports = (ip.len() >= l4 + 4).then(|| (be16(ip, l4), be16(ip, l4 + 2)));
    let parsed = &mut packet.parsed;
    [parsed.src, parsed.dst] = addresses;
    let has_ports = matches!(
        parsed.proto,
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP
    );
    if let (true, Some((sport, dport))) = (has_ports, ports) {
        (parsed.sport, parsed.dport) = (sport, dport);
    }
}
