//! The short lane: what is known of a burst's frames before the first of them is decided,
//! worked out stage by stage, so that memory answers for all of them at once; and the
//! shortest of all roads, on which plain packets meet no rule and no tracking.

use arrayvec::ArrayVec;

use super::planned::Known;
use super::{BURST, Ended, Engine, Origin, Slot, World, parse, subject};
use crate::conntrack::{Spot, Subject, Tracking};
use crate::effects::{Effects, Outcome};
use crate::packet::Family;
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
    /// Whether packets may take short roads at all.
    pub(super) short: bool,
    /// Whether IPv4 packets meet neither rules nor tracking.
    pub(super) straight: bool,
    /// Index of the burst's first frame.
    pub(super) first: usize,
}

impl Engine {
    /// Which roads bursts may take. Whoever says no to short roads has every packet take
    /// the long one.
    pub(super) fn lanes(&mut self, world: &World<'_>, origin: Origin) -> Lanes {
        let short = origin == Origin::Wire && self.ready_plans(world);
        let v4 = &world.snapshot.policy.v4;
        let hooked = || v4.hooks.iter().flatten().any(Option::is_some);
        Lanes { short, straight: short && !v4.needs_conntrack && !v4.nat && !hooked(), first: 0 }
    }

    /// Decides one burst, packet after packet.
    pub(super) fn decide_burst<E: Effects>(
        &mut self,
        world: &World<'_>,
        burst: &mut [Slot<'_>],
        (origin, lanes): (Origin, Lanes),
        effects: &mut E,
    ) {
        let mut others = Others::new();
        let arrivals = arrive(world, burst, (origin, lanes.short), &mut others);
        let mut others = others.iter();
        for (offset, (slot, arrival)) in burst.iter_mut().zip(&arrivals).enumerate() {
            let ended = match arrival {
                Arrival::Tracked(plain, spot) => {
                    self.decide_tracked(world, slot, (plain, spot), effects)
                }
                Arrival::Untracked(plain) => {
                    let straight = lanes.straight.then(|| go_straight(world, slot, plain));
                    straight.flatten().unwrap_or_else(|| {
                        let arrived = (&Ok(Frame::Ip(plain.parsed())), &None);
                        self.decide_one(world, slot, arrived, Known::default(), origin, effects)
                    })
                }
                Arrival::Other => match others.next() {
                    Some((frame, subject)) => {
                        self.decide_other(world, slot, (frame, subject), (origin, lanes), effects)
                    }
                    None => continue,
                },
            };
            slot.disposition = ended.disposition;
            if E::TRACE {
                effects.outcome(&Outcome {
                    index: lanes.first + offset,
                    tracking: ended.tracking,
                    mark: ended.mark,
                    disposition: ended.disposition,
                    rejected: ended.disposition == Disposition::Drop(DropReason::Reject),
                });
            }
        }
    }

    #[inline]
    fn decide_tracked<E: Effects>(
        &mut self,
        world: &World<'_>,
        slot: &mut Slot<'_>,
        (plain, spot): (&Plain, &Spot),
        effects: &mut E,
    ) -> Ended {
        let known = match self.follow_plain(world, slot, (plain, spot), effects) {
            Ok(ended) => return ended,
            Err(known) => known,
        };
        let arrived = (&Ok(Frame::Ip(plain.parsed())), &Some(spot.subject()));
        self.decide_one(world, slot, arrived, known, Origin::Wire, effects)
    }

    fn decide_other<E: Effects>(
        &mut self,
        world: &World<'_>,
        slot: &mut Slot<'_>,
        (frame, subject): (&Result<Frame, DropReason>, &Option<Subject>),
        (origin, lanes): (Origin, Lanes),
        effects: &mut E,
    ) -> Ended {
        let followed = match (lanes.short, frame, subject) {
            (true, Ok(Frame::Ip(parsed)), Some(subject)) => {
                self.follow(world, slot, parsed, subject, effects)
            }
            _ => Err(Known::default()),
        };
        followed.unwrap_or_else(|known| {
            self.decide_one(world, slot, (frame, subject), known, origin, effects)
        })
    }
}

/// Reads all frames, and asks memory for what they will ask of the connection table: first
/// for all buckets, and then, when these have come, for all records.
#[inline]
fn arrive(
    world: &World<'_>,
    burst: &[Slot<'_>],
    (origin, short): (Origin, bool),
    others: &mut Others,
) -> ArrayVec<Arrival, BURST> {
    let World { conntrack, network, .. } = *world;
    let tracked = world.snapshot.policy.needs_conntrack(Family::V4);
    let mut arrivals = ArrayVec::<Arrival, BURST>::new();
    for slot in burst {
        let plain = match short {
            true => plain::read(slot.frame(), network.port(slot.port).mac),
            false => None,
        };
        arrivals.push(match plain {
            Some(plain) if tracked => Arrival::Tracked(plain, conntrack.spot(&plain)),
            Some(plain) => Arrival::Untracked(plain),
            None => {
                let frame = parse(world, slot, origin);
                let subject = subject(world, slot, &frame);
                others.push((frame, subject));
                Arrival::Other
            }
        });
    }
    if !others.is_empty() {
        let subjects = others.iter().filter_map(|(_, subject)| subject.as_ref());
        conntrack.prefetch_records(subjects, short);
    }
    if tracked && short {
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

/// Sends a plain packet that meets neither rules nor tracking to its next hop. `None`:
/// there is more to do with it.
#[inline]
fn go_straight(world: &World<'_>, slot: &mut Slot<'_>, plain: &Plain) -> Option<Ended> {
    let onward = world.network.onward_v4(plain.src, plain.dst)?;
    if u32::from(plain.l3_len) > onward.mtu {
        return None;
    }
    plain.forward(slot.frame_mut(), &onward.macs);
    slot.len = plain.frame_len();
    let disposition = Disposition::Transmit(onward.port);
    Some(Ended { disposition, tracking: Tracking::NONE, mark: 0 })
}
