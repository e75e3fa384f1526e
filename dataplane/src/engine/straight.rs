//! The straight road: a packet that a router merely sends on, of a family of which no
//! connection is tracked and whose only rules on the way through stand in one chain of
//! FORWARD. A burst's routes are found first, then one question to the classifier decides
//! all its packets; at its turn each is counted, changed and sent.
//!
//! What was found out before that is a mere plan: whatever is less plain than this has
//! changed nothing, and takes the long road from its beginning.

use arrayvec::ArrayVec;
use classifier::{Address, Key, NONE};

use super::{BURST, Ended, Engine, Slot, World, egress};
use crate::conntrack::CtState;
use crate::effects::{Effects, Step};
use crate::fib::{InputRoute, Mode, Network, Query};
use crate::packet::{Family, L4Class, Mac, Parsed, PktType, PortId};
use crate::policy::{
    Chain, ChainId, ChainPolicy, CounterId, Deed, FamilyPolicy, Hook, TableId, eval,
};
use crate::verdict::{Disposition, DropReason};
use crate::wire::{Frame, ipv4, proto};

/// Which families' packets may go straight through in one burst, and past which chain.
#[derive(Clone, Copy)]
pub(super) struct Straight<'w> {
    v4: Option<Passage<'w, u32>>,
    v6: Option<Passage<'w, u128>>,
}

/// The one chain on a family's way through, if there is one.
type Passage<'w, A> = Option<Gate<'w, A>>;

#[derive(Clone, Copy)]
struct Gate<'w, A> {
    table: TableId,
    id: ChainId,
    chain: &'w Chain<A>,
}

/// Where a packet will leave, and what it meets before.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    output: PortId,
    neighbour: Mac,
    met: Option<Met>,
}

/// The end of a packet's walk through a chain.
#[derive(Clone, Copy)]
struct Met {
    /// The rule; `None`: the chain's policy.
    rule: Option<u32>,
    counter: CounterId,
    dropped: Option<DropReason>,
}

/// One for each frame of a burst; none at all when nothing may go straight.
pub(super) type Plans = ArrayVec<Option<Plan>, BURST>;

impl Engine {
    /// What may go straight through in this burst.
    pub(super) fn ready_straight<'w>(&self, world: &World<'w>) -> Straight<'w> {
        let policy = &world.snapshot.policy;
        match self.switches.straight && *world.network.mode() == Mode::Routed {
            true => Straight { v4: passage(&policy.v4), v6: passage(&policy.v6) },
            false => Straight { v4: None, v6: None },
        }
    }
}

/// `None`: more than one chain, or tracking, asks for packets on their way through.
fn passage<A>(policy: &FamilyPolicy<A>) -> Option<Passage<'_, A>> {
    let at = |hook: Hook| &policy.hooks[hook as usize];
    let elsewhere = at(Hook::Prerouting).iter().chain(at(Hook::Postrouting));
    if policy.needs_conntrack || elsewhere.flatten().next().is_some() {
        return None;
    }
    let forward = TableId::ALL.iter().zip(at(Hook::Forward));
    let mut gates = forward.filter_map(|(&table, &id)| Some((table, id?)));
    let Some((table, id)) = gates.next() else { return Some(None) };
    let chain = &policy.chains[id.0 as usize];
    (gates.next().is_none() && chain.flat).then_some(Some(Gate { table, id, chain }))
}

impl Straight<'_> {
    /// Finds out what becomes of a burst's packets. Changes nothing.
    #[inline]
    pub(super) fn plan<E>(
        &self,
        world: &World<'_>,
        slots: &[Slot<'_>],
        frames: &[Result<Frame, E>],
    ) -> Plans {
        let mut plans = Plans::new();
        if self.v4.is_none() && self.v6.is_none() {
            return plans;
        }
        plans.extend(slots.iter().map(|_| None));
        if let Some(passage) = &self.v4 {
            ask(passage, Family::V4, world.network, (slots, frames), &mut plans);
        }
        if let Some(passage) = &self.v6 {
            ask(passage, Family::V6, world.network, (slots, frames), &mut plans);
        }
        plans
    }

    /// Takes a packet to its end, as planned.
    #[inline]
    pub(super) fn cross<E: Effects>(
        &self,
        world: &World<'_>,
        slot: &mut Slot<'_>,
        parsed: &Parsed,
        plan: &Plan,
        effects: &mut E,
    ) -> Ended {
        let Parsed { family, l3, l3_len, ttl, .. } = *parsed;
        slot.len = usize::from(l3) + usize::from(l3_len);
        let frame = &mut slot.buf[slot.start..][..slot.len];
        egress::set_hops(&mut frame[usize::from(l3)..], family, ttl - 1);
        if let Some(met) = plan.met {
            let counters = world.snapshot.counters(world.worker);
            counters.bump(met.counter, u64::from(l3_len));
            if E::TRACE {
                effects.step(self.step(family, met.rule));
            }
            if let Some(reason) = met.dropped {
                return Ended::early(Disposition::Drop(reason));
            }
        }
        egress::address(frame, plan.neighbour, world.network.port(plan.output).mac);
        Ended::early(Disposition::Transmit(plan.output))
    }

    fn step(&self, family: Family, rule: Option<u32>) -> Step {
        let place = match family {
            Family::V4 => self.v4.flatten().map(|gate| (gate.table, gate.id)),
            Family::V6 => self.v6.flatten().map(|gate| (gate.table, gate.id)),
        };
        let (table, chain) = place.unwrap_or((TableId::Filter, ChainId(0)));
        Step { family, table, hook: Hook::Forward, chain, rule }
    }
}

/// Plans for all packets of one family.
fn ask<A: Address, E>(
    passage: &Passage<'_, A>,
    family: Family,
    network: &Network,
    (slots, frames): (&[Slot<'_>], &[Result<Frame, E>]),
    plans: &mut Plans,
) {
    let mut keys: ArrayVec<Key<A>, BURST> = ArrayVec::new();
    let mut asked: ArrayVec<u8, BURST> = ArrayVec::new();
    for (at, (slot, frame)) in slots.iter().zip(frames).enumerate() {
        let Ok(Frame::Ip(parsed)) = frame else { continue };
        if parsed.family != family {
            continue;
        }
        let Some(plan) = onward(network, slot, parsed) else { continue };
        plans[at] = Some(plan);
        if passage.is_some() {
            let (input, output) = (Some(slot.port), Some(plan.output));
            keys.push(eval::key(parsed, input, output, CtState::Invalid));
            asked.push(at as u8);
        }
    }
    let Some(gate) = passage else { return };
    let mut firsts = [NONE; BURST];
    gate.chain.classifier.first_batch(&keys, &mut firsts);
    for (&at, &first) in asked.iter().zip(&firsts) {
        let plan = &mut plans[usize::from(at)];
        *plan = plan.and_then(|plan| Some(Plan { met: Some(gate.met(first)?), ..plan }));
    }
}

impl<A> Gate<'_, A> {
    /// What ends the walk of a packet for which the classifier has found this rule first;
    /// `None`: it is not over there.
    #[inline]
    fn met(&self, first: u32) -> Option<Met> {
        if first == NONE {
            let (policy, counter) = self.chain.policy?;
            let dropped = (policy == ChainPolicy::Drop).then_some(DropReason::ChainPolicy);
            return Some(Met { rule: None, counter, dropped });
        }
        let brief = &self.chain.briefs[first as usize];
        let dropped = (brief.deed == Deed::Drop).then_some(DropReason::Rule);
        brief.is_final().then_some(Met { rule: Some(first), counter: brief.counter, dropped })
    }
}

/// The way of a packet that a router has nothing to say about.
#[inline]
fn onward(network: &Network, slot: &Slot<'_>, parsed: &Parsed) -> Option<Plan> {
    let Parsed { family, l3, l4, l3_len, src, dst, ttl, pkt_type, .. } = *parsed;
    let optioned = match family {
        Family::V4 => usize::from(l4 - l3) > ipv4::HEADER,
        Family::V6 => slot.frame()[usize::from(l3) + 6] == proto::HOP_BY_HOP,
    };
    // Odd packets are asked everything by every rule.
    let odd = parsed.l4_class == L4Class::Odd;
    if optioned || odd || ttl <= 1 || pkt_type != PktType::Host {
        return None;
    }
    let query = Query { family, src, dst, iif: Some(slot.port), mark: 0 };
    let way = network.input(slot.port, &query, pkt_type, parsed.proto);
    let InputRoute::Forward { port: output, next_hop: (family_on, next_hop), mtu, .. } = way else {
        return None;
    };
    let port = network.port(output);
    if !port.up || u32::from(l3_len) > mtu.min(port.mtu) {
        return None;
    }
    let neighbour = network.neighbour(output, family_on, next_hop)?;
    Some(Plan { output, neighbour, met: None })
}
