//! The short road: a packet of an established connection is tracked in full, and then
//! follows the plan that an earlier packet's walk has left ([`crate::plan`]). Whatever
//! does not fit is decided on the long road, which may leave a plan for the next one.

use super::road::Packet;
use super::{Ended, Engine, Slot, World, egress};
use crate::conntrack::{CtState, Direction, Flow, Spot, Subject, Template, Tracking};
use crate::effects::Effects;
use crate::fib::Mode;
use crate::nat::{Manip, rewrite};
use crate::packet::{Parsed, PortId};
use crate::plan::{Found, Guard, NEEDY, Plan, Unplannable, is_plain, is_typical};
use crate::verdict::{Disposition, DropReason};
use crate::wire::plain::{Ends, Plain};
use crate::wire::{ethernet, proto};

/// Translations in the order in which the road makes them.
const MANIPS: [Manip; 2] = [Manip::Destination, Manip::Source];

/// What is known of a packet that takes the long road.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    /// Its connection, if that was looked up.
    pub(super) flow: Option<Flow>,
    /// What tracking has said, if it was asked.
    pub(super) tracked: Option<Result<Tracking, DropReason>>,
    /// Whether its walk may leave a plan.
    pub(super) record: bool,
}

/// How a packet ended that followed a plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Followed {
    /// By which port; `None`: it could not be translated.
    output: Option<PortId>,
    flow: Flow,
    mark: u32,
}

impl Followed {
    #[inline]
    pub(super) fn disposition(&self) -> Disposition {
        self.output.map_or(Disposition::Drop(DropReason::NatHeader), Disposition::Transmit)
    }
    pub(super) fn ended(&self) -> Ended {
        let tracking = Tracking {
            state: CtState::Established,
            direction: self.flow.direction(),
            conn: Some(self.flow.conn()),
            ..Tracking::NONE
        };
        Ended { disposition: self.disposition(), tracking, mark: self.mark }
    }
}

impl Engine {
    /// Gets ready for a burst; false: nothing of it can follow a plan.
    pub(super) fn ready_plans(&mut self, world: &World<'_>) -> bool {
        let on = self.switches.plans && *world.network.mode() == Mode::Routed;
        if on {
            self.scratch.plans.adopt(world.snapshot.serial, world.network.serial());
        }
        on
    }

    /// Ends a burst: what followed plans is counted.
    #[inline]
    pub(super) fn settle_plans(&mut self, world: &World<'_>) {
        let counters = world.snapshot.counters(world.worker);
        let followed = self.scratch.plans.settle(counters);
        if followed > 0 {
            world.stats.plans.followed.add(followed);
        }
    }

    /// Takes a packet from a port along its connection's plan, if it has one that fits.
    ///
    /// # Errors
    /// It has not; what became known of the packet.
    pub(super) fn follow<E: Effects>(
        &mut self,
        world: &World<'_>,
        slot: &mut Slot<'_>,
        parsed: &Parsed,
        subject: &Subject,
        effects: &mut E,
    ) -> Result<Ended, Known> {
        if !is_plain(parsed) {
            return Err(Known::default());
        }
        let flow = world.conntrack.flow(subject, world.now);
        let Some(flow) = flow else { return Err(Known::default()) };
        let followed = self.follow_tracked(world, slot, (parsed, subject, &flow), effects);
        followed.map(|followed| followed.ended())
    }

    /// The same for a plain packet that was read as such.
    ///
    /// # Errors
    /// As [`Engine::follow`].
    #[inline]
    pub(super) fn follow_plain<E: Effects>(
        &mut self,
        world: &World<'_>,
        slot: &mut Slot<'_>,
        (plain, spot): (&Plain, &Spot),
        effects: &mut E,
    ) -> Result<Followed, Known> {
        let World { conntrack, now, .. } = *world;
        let Some(flow) = conntrack.flow_at(spot, now) else { return Err(Known::default()) };
        let Plain { l3_len, tcp_flags, tos, .. } = *plain;
        let record = is_typical(tcp_flags) && flow.is_answered();
        let known = Known { flow: Some(flow), tracked: None, record };
        let plan = match self.scratch.plans.find(conntrack.plan_word(&flow)) {
            Found::Plan(plan) if plan.admits(slot.port, l3_len, tcp_flags, tos) => plan,
            Found::Plan(_) | Found::Stale => return Err(known),
            Found::None => return Err(Known { record: false, ..known }),
        };
        let suits = |status, mark| plan.suits(status, mark);
        let (frame, sums) = (slot.frame(), conntrack.verifies_checksums());
        let tracked = if plain.proto == proto::UDP {
            let sound = plain.datagram_holds(frame, sums);
            sound.then(|| conntrack.renew(&flow, l3_len, now, suits)).flatten()
        } else {
            let sound = !sums || plain.sum_holds(frame);
            sound.then(|| conntrack.advance(&flow, plain.l4(frame), l3_len, now, suits)).flatten()
        };
        let ends = match tracked {
            Some(ends) => ends,
            None if plain.proto == proto::UDP => return Err(known),
            None => {
                let (parsed, subject) = (plain.parsed(), spot.subject());
                return self.follow_tracked(world, slot, (&parsed, &subject, &flow), effects);
            }
        };
        slot.len = plain.frame_len();
        let frame = slot.frame_mut();
        match ends {
            None => plain.forward(frame, &plan.macs),
            Some(ends) => {
                let ends = chosen(plan.rewrites, &plain.ends(), &ends);
                plain.forward_as(frame, &plan.macs, &ends);
            }
        }
        let followed = Followed { output: Some(plan.output), flow, mark: plan.mark };
        let path = plan.path;
        self.count(path, l3_len, effects);
        Ok(followed)
    }

    /// Tracks a packet of a flow in full, and takes it along the flow's plan.
    fn follow_tracked<E: Effects>(
        &mut self,
        world: &World<'_>,
        slot: &mut Slot<'_>,
        (parsed, subject, flow): (&Parsed, &Subject, &Flow),
        effects: &mut E,
    ) -> Result<Followed, Known> {
        let World { conntrack, now, snapshot, .. } = *world;
        let Parsed { l3_len, tcp_flags, tos, .. } = *parsed;
        let record = is_typical(tcp_flags) && flow.is_answered();
        let known = Known { flow: Some(*flow), tracked: None, record };
        let plan = match self.scratch.plans.find(conntrack.plan_word(flow)) {
            Found::Plan(plan) if plan.admits(slot.port, l3_len, tcp_flags, tos) => plan,
            Found::Plan(_) | Found::Stale => return Err(known),
            Found::None => return Err(Known { record: false, ..known }),
        };
        // The plan's own walk of raw has asked for nothing else.
        let terms = Template::default().terms(0, snapshot.extensions);
        let tracked = conntrack.track_flow(flow, subject, parsed, slot.frame(), &terms, now);
        let known = Known { tracked: Some(tracked), ..known };
        let Ok(tracking) = tracked else { return Err(known) };
        let suits = is_established(&tracking, flow)
            && conntrack
                .status_and_mark(flow.conn())
                .is_some_and(|(status, mark)| plan.suits(status, mark));
        if !suits {
            return Err(known);
        }
        slot.len = usize::from(parsed.l3) + usize::from(l3_len);
        let carried = carry_out(world, plan, flow, parsed, slot.frame_mut());
        let output = carried.then_some(plan.output);
        let followed = Followed { output, flow: *flow, mark: plan.mark };
        let path = plan.path;
        self.count(path, l3_len, effects);
        Ok(followed)
    }

    /// Counts a packet that followed a plan with this path.
    #[inline]
    fn count<E: Effects>(&mut self, path: u16, bytes: u16, effects: &mut E) {
        self.scratch.plans.count(path, bytes);
        if E::TRACE {
            let counted = self.scratch.plans.counted(path);
            counted.iter().for_each(|counted| effects.step(counted.step));
        }
    }

    /// Leaves a plan for the packets behind one whose walk was watched and whose frame
    /// had `length` bytes.
    pub(super) fn conclude(
        &mut self,
        world: &World<'_>,
        flow: &Flow,
        packet: &Packet<'_>,
        length: usize,
        disposition: Disposition,
    ) {
        self.scratch.recorder.stop();
        if !is_established(&packet.tracking, flow) {
            return;
        }
        match self.draft(world, flow, packet, length, disposition) {
            Draft::Plan(plan) => {
                let plans = &mut self.scratch.plans;
                let word = plans.intern(plan, self.scratch.recorder.path());
                let stats = &world.stats.plans;
                match word {
                    Some(_) => stats.made.add(1),
                    None => stats.refuse(Unplannable::Full),
                }
                world.conntrack.set_plan_word(flow, word.unwrap_or(plans.no_word()));
            }
            Draft::Never(why) => {
                world.stats.plans.refuse(why);
                world.conntrack.set_plan_word(flow, self.scratch.plans.no_word());
            }
            Draft::NotNow(Some(why)) => world.stats.plans.refuse(why),
            Draft::NotNow(None) => {}
        }
    }

    fn draft(
        &self,
        world: &World<'_>,
        flow: &Flow,
        packet: &Packet<'_>,
        length: usize,
        disposition: Disposition,
    ) -> Draft {
        let recorder = &self.scratch.recorder;
        let output = match disposition {
            Disposition::Transmit(port) => port,
            // As long as the policy and the network are these.
            Disposition::Deliver | Disposition::AwaitNeighbour { .. } => {
                return Draft::Never(Unplannable::End);
            }
            _ => return Draft::NotNow(None),
        };
        let Some(state) = world.conntrack.status_and_mark(flow.conn()) else {
            return Draft::NotNow(None);
        };
        let (status, mark) = state;
        if status & NEEDY != 0 {
            return Draft::Never(Unplannable::Connection);
        }
        if recorder.conn_mark().is_some_and(|before| before != mark) {
            return Draft::NotNow(Some(Unplannable::Mark));
        }
        match recorder.refused() {
            Some(why) if why.may_pass() => return Draft::NotNow(Some(why)),
            Some(why) => return Draft::Never(why),
            None => {}
        }
        let (Some(&macs), Some(input)) = (packet.frame.first_chunk::<12>(), packet.input) else {
            return Draft::NotNow(None);
        };
        // What adds or takes bytes varies, says the policy's table.
        debug_assert_eq!(packet.frame.len(), length, "a constant walk has changed the length");
        let longest = packet.way_mtu.min(world.network.port(output).mtu);
        let Parsed { tcp_flags, .. } = packet.parsed;
        let original = flow.direction() == Direction::Original;
        let translated = |manip: Manip| {
            let manip = if original { manip } else { manip.opposite() };
            status & manip.bit() != 0
        };
        Draft::Plan(Plan {
            input,
            output,
            macs,
            longest: longest.min(u16::MAX.into()) as u16,
            flags: Guard::of(tcp_flags, recorder.flags()),
            tos: Guard::of(packet.parsed.tos, recorder.tos()),
            status,
            conn_mark: Guard::of(mark, recorder.conn_mark().map_or(0, |_| u32::MAX)),
            mark: packet.mark,
            rewrites: MANIPS.map(translated),
            path: 0,
        })
    }
}

/// What a watched walk leaves.
enum Draft {
    Plan(Plan),
    /// Nothing, and no use in trying again in this epoch.
    Never(Unplannable),
    /// Nothing; the next packet may.
    NotNow(Option<Unplannable>),
}

/// Whether the packet belongs to the connection that was foreseen, as plans want it.
#[inline]
fn is_established(tracking: &Tracking, flow: &Flow) -> bool {
    let established = tracking.state == CtState::Established
        && tracking.conn == Some(flow.conn())
        && !tracking.unconfirmed;
    debug_assert!(!established || tracking.direction == flow.direction());
    established
}

/// The ends that a packet has behind those of two translations that are made.
#[inline]
fn chosen([destination, source]: [bool; 2], own: &Ends, translated: &Ends) -> Ends {
    let (to, from) = if destination { (translated, 0xffff) } else { (own, 0) };
    let (by, mask) = if source { (translated, from | 0xffff_0000) } else { (own, from) };
    let ports = translated.ports & mask | own.ports & !mask;
    Ends { src: by.src, dst: to.dst, ports }
}

/// Does to the frame what the road does, in its order. False: it cannot be translated.
#[inline]
fn carry_out(
    world: &World<'_>,
    plan: &Plan,
    flow: &Flow,
    parsed: &Parsed,
    frame: &mut [u8],
) -> bool {
    let [destination, source] = plan.rewrites;
    let target = match destination || source {
        true => {
            let face = world.conntrack.face(flow.conn());
            face.and_then(|face| face.tuple(flow.direction().opposite()).inverted())
        }
        false => None,
    };
    let translate = |frame: &mut [u8], manip| match &target {
        Some(target) => rewrite::rewrite(&mut frame[ethernet::HEADER..], target, manip),
        None => false,
    };
    if destination && !translate(frame, Manip::Destination) {
        return false;
    }
    egress::set_hops(&mut frame[ethernet::HEADER..], parsed.family, parsed.ttl - 1);
    if source && !translate(frame, Manip::Source) {
        return false;
    }
    frame[..plan.macs.len()].copy_from_slice(&plan.macs);
    true
}
