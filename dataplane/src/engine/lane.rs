//! The short lane: what is known of a burst's frames before the first of them is decided,
//! worked out stage by stage, so that memory answers for all of them at once; and the
//! shortest of all roads, on which plain packets meet no rule and no tracking.

use arrayvec::ArrayVec;

use super::planned::Known;
use super::{BURST, Ended, Engine, Origin, Slot, World, parse, subject};
use crate::conntrack::{Spot, Subject};
use crate::effects::{Effects, Outcome};
use crate::packet::{Family, PortId};
use crate::verdict::{Disposition, DropReason};
use crate::wire::Frame;
use crate::wire::plain::{self, Plain};

/// What became known of a frame ahead of its turn.
#[derive(Clone, Copy, Debug)]
enum Arrival {
    /// A plain packet of a tracked family.
    Tracked(Plain, Spot),
    /// A plain packet of a family without tracking.
    Untracked(Plain),
    /// Anything else: [`Others`] has what was parsed.
    Other,
}

/// Frames that are not plain, in the burst's order, and what they ask of tracking.
type Others = ArrayVec<(Result<Frame, DropReason>, Option<Subject>), BURST>;

/// What a burst is decided with.
#[derive(Clone, Copy)]
pub(super) struct Lanes {
    /// Whether the burst begins here: plain packets are tracked, or go straight on.
    pub(super) open: bool,
    /// Whether IPv4 packets meet neither rules nor tracking.
    pub(super) straight: bool,
    /// Index of the burst's first frame.
    pub(super) first: usize,
}

impl Engine {
    /// Which roads bursts may take; `plans`: whether packets may follow plans.
    pub(super) fn lanes(&self, world: &World<'_>, plans: bool) -> Lanes {
        let v4 = &world.snapshot.policy.v4;
        let hooked = || v4.hooks.iter().flatten().any(Option::is_some);
        let straight = self.switches.straight && !v4.needs_conntrack && !v4.nat && !hooked();
        Lanes { open: plans && (v4.needs_conntrack || straight), straight, first: 0 }
    }

    /// Decides one burst, packet after packet.
    pub(super) fn decide_burst<E: Effects>(
        &mut self,
        world: &World<'_>,
        burst: &mut [Slot<'_>],
        lanes: Lanes,
        effects: &mut E,
    ) {
        let mut others = Others::new();
        let arrivals = arrive(world, burst, &mut others);
        let mut others = others.iter();
        for (offset, (slot, arrival)) in burst.iter_mut().zip(&arrivals).enumerate() {
            let index = lanes.first + offset;
            let ended = match arrival {
                Arrival::Tracked(plain, spot) => {
                    match self.follow_plain(world, slot, (plain, spot), effects) {
                        Ok(followed) => {
                            slot.disposition = followed.disposition();
                            tell(effects, index, || followed.ended());
                            continue;
                        }
                        Err(known) => {
                            self.decide_tracked(world, slot, (plain, spot, known), effects)
                        }
                    }
                }
                Arrival::Untracked(plain) => {
                    let port = if lanes.straight { go_straight(world, slot, plain) } else { None };
                    if let Some(port) = port {
                        slot.disposition = Disposition::Transmit(port);
                        tell(effects, index, || Ended::early(Disposition::Transmit(port)));
                        continue;
                    }
                    let arrived = (&Ok(Frame::Ip(plain.parsed())), &None);
                    self.decide_one(world, slot, arrived, Known::default(), Origin::Wire, effects)
                }
                Arrival::Other => match others.next() {
                    Some((frame, subject)) => {
                        self.decide_other(world, slot, (frame, subject), effects)
                    }
                    None => continue,
                },
            };
            slot.disposition = ended.disposition;
            tell(effects, index, || ended);
        }
    }

    fn decide_tracked<E: Effects>(
        &mut self,
        world: &World<'_>,
        slot: &mut Slot<'_>,
        (plain, spot, known): (&Plain, &Spot, Known),
        effects: &mut E,
    ) -> Ended {
        let arrived = (&Ok(Frame::Ip(plain.parsed())), &Some(spot.subject()));
        self.decide_one(world, slot, arrived, known, Origin::Wire, effects)
    }

    fn decide_other<E: Effects>(
        &mut self,
        world: &World<'_>,
        slot: &mut Slot<'_>,
        (frame, subject): (&Result<Frame, DropReason>, &Option<Subject>),
        effects: &mut E,
    ) -> Ended {
        let followed = match (frame, subject) {
            (Ok(Frame::Ip(parsed)), Some(subject)) => {
                self.follow(world, slot, parsed, subject, effects)
            }
            _ => Err(Known::default()),
        };
        followed.unwrap_or_else(|known| {
            self.decide_one(world, slot, (frame, subject), known, Origin::Wire, effects)
        })
    }
}

/// Reads all frames, and asks memory for what they will ask of the connection table: first
/// for all buckets, and then, when these have come, for all records.
#[inline]
fn arrive(world: &World<'_>, burst: &[Slot<'_>], others: &mut Others) -> ArrayVec<Arrival, BURST> {
    let World { conntrack, network, .. } = *world;
    let tracked = world.snapshot.policy.needs_conntrack(Family::V4);
    let mut arrivals = ArrayVec::<Arrival, BURST>::new();
    for slot in burst {
        let mac = network.port(slot.port).mac;
        arrivals.push(match plain::read(slot.frame(), mac) {
            Some(plain) if tracked => Arrival::Tracked(plain, conntrack.spot(&plain)),
            Some(plain) => Arrival::Untracked(plain),
            None => {
                let frame = parse(world, slot, Origin::Wire);
                let subject = subject(world, slot, &frame);
                others.push((frame, subject));
                Arrival::Other
            }
        });
    }
    if !others.is_empty() {
        let subjects = others.iter().filter_map(|(_, subject)| subject.as_ref());
        conntrack.prefetch_records(subjects, true);
    }
    if tracked {
        conntrack.look_ahead(arrivals.iter_mut().filter_map(spot));
        conntrack.look_further(arrivals.iter_mut().filter_map(spot));
    }
    arrivals
}

#[inline]
fn spot(arrival: &mut Arrival) -> Option<&mut Spot> {
    match arrival {
        Arrival::Tracked(_, spot) => Some(spot),
        Arrival::Untracked(_) | Arrival::Other => None,
    }
}

/// Tells who watches how a frame has ended.
#[inline]
pub(super) fn tell<E: Effects>(effects: &mut E, index: usize, ended: impl FnOnce() -> Ended) {
    if E::TRACE {
        let Ended { disposition, tracking, mark } = ended();
        let rejected = disposition == Disposition::Drop(DropReason::Reject);
        effects.outcome(&Outcome { index, tracking, mark, disposition, rejected });
    }
}

/// Sends a plain packet that meets neither rules nor tracking to its next hop, by the port
/// that is returned. `None`: there is more to do with it.
#[inline]
fn go_straight(world: &World<'_>, slot: &mut Slot<'_>, plain: &Plain) -> Option<PortId> {
    let onward = world.network.onward_v4(plain.src, plain.dst)?;
    if u32::from(plain.l3_len) > onward.mtu {
        return None;
    }
    plain.forward(slot.frame_mut(), &onward.macs);
    slot.len = plain.frame_len();
    Some(onward.port)
}
