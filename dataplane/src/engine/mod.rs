//! The burst engine: the packet's road, driven identically by AF_XDP, pcap,
//! memory and fault-injecting ports.
//!
//! It does no I/O, reads no clock, and allocates nothing per packet. The road
//! itself is one readable sequence of stages in [`road`]; [`bridge`] is the
//! shorter road of a transparent pair, [`collect`] puts fragments together,
//! [`translate`] carries out NAT, [`helper`] is where connection helpers stand,
//! [`egress`] is the way out, [`handed`] what the kernel says of this machine's own
//! packets, and [`originate`] what the router itself sends. [`lane`] is where bursts of plain
//! packets begin, [`planned`] a short road for packets of established connections,
//! [`straight`] one for families without tracking.
//!
//! Limits: packets are decided one after the other in burst order, so that a
//! connection's second packet sees what its first one did.

mod bridge;
mod collect;
mod egress;
mod handed;
mod helper;
mod lane;
mod options;
mod originate;
mod planned;
mod road;
mod straight;
mod switches;
mod synproxy;
mod tee;
mod translate;
mod way;

#[cfg(test)]
mod tests;

use arrayvec::ArrayVec;
use classifier::Address;

use crate::clock::Nanos;
use crate::conntrack::{Conntrack, Subject, Tracking};
use crate::effects::Effects;
use crate::fib::{Mode, Network};
use crate::frame::FrameBuf;
use crate::nat::{Random, Spread};
use crate::packet::{Family, Mac, PktType, PortId};
use crate::plan::{Plans, Recorder};
use crate::policy::FamilyPolicy;
use crate::policy::scene::Dice;
use crate::policy::tee::Copies;
use crate::policy::walk::ReturnStack;
use crate::reassembly::{Fragments, Whole};
use crate::reply::limit::{Limiter, Settings};
use crate::snapshot::Snapshot;
use crate::stats::WorkerStats;
use crate::verdict::{Disposition, DropReason};
use crate::wire::{self, Frame, ethernet};
use handed::Handed;
use planned::Known;
use road::{Packet, Road};
pub use switches::Switches;

/// Frames in one burst at most.
pub const BURST: usize = 64;

/// One frame on its way through the engine: bytes in somebody else's buffer.
#[derive(Debug)]
pub struct Slot<'f> {
    /// The whole buffer, headroom and tailroom included.
    pub buf: &'f mut [u8],
    /// Where the Ethernet header starts in `buf`. The engine may move it.
    pub start: usize,
    /// Frame length in bytes, Ethernet header included. The engine may change it.
    pub len: usize,
    /// The port it arrived on. For this machine's own frames: the port that the
    /// kernel has sent it out on, or [`PortId::LOOPBACK`] when nobody has routed it.
    pub port: PortId,
    /// What the engine decided.
    pub disposition: Disposition,
}

impl Slot<'_> {
    /// The frame from its Ethernet header on.
    pub fn frame(&self) -> &[u8] {
        &self.buf[self.start..self.start + self.len]
    }
    /// The frame, writable.
    pub fn frame_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start..self.start + self.len]
    }
}

/// What a burst is decided against: one snapshot, one network, one instant.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// Policy and counters.
    pub snapshot: &'a Snapshot,
    /// Which of the snapshot's counter blocks is this worker's.
    pub worker: usize,
    /// Ports, routes and neighbours.
    pub network: &'a Network,
    /// The connection table.
    pub conntrack: &'a Conntrack,
    /// Counts the engine's own packets. Frames of the burst are counted by
    /// whoever drives the engine, by their dispositions.
    pub stats: &'a WorkerStats,
    /// The time of the burst.
    pub now: Nanos,
}

/// One worker's engine: scratch space that outlives a burst.
#[derive(Debug)]
pub struct Engine {
    scratch: Scratch,
    switches: Switches,
}

/// What one worker keeps between packets.
#[derive(Debug)]
struct Scratch {
    stack: ReturnStack,
    limiter: Limiter,
    /// IPv4 identification of our last ICMP error.
    identification: u16,
    /// What to add to the burst's time for the time since a midnight UTC.
    utc_offset: Nanos,
    /// The kernel's time zone, in minutes west of Greenwich.
    minutes_west: i32,
    /// Where NAT's free choices come from.
    random: Random,
    /// What TEE has copied, and is to be sent when the walk is over.
    copies: Copies,
    /// Where the rules' chances come from.
    dice: Dice,
    /// The core that this worker is pinned to, or its number.
    cpu: u32,
    /// How ports spread what they receive, where that is known, and this worker's queue.
    spreads: Box<[Option<Spread>]>,
    queue: u32,
    /// Unfinished datagrams.
    fragments: Fragments,
    /// Which settings they were told ([`Conntrack::revision`]).
    revision: u64,
    /// A finished one; taken while it is on its road.
    whole: Option<Box<Whole>>,
    /// What packets of established connections follow.
    plans: Plans,
    /// What the walk under way has looked at, if it may leave a plan.
    recorder: Recorder,
}

/// Destinations whose ICMP errors are limited one by one.
const LIMITED_DESTINATIONS: usize = 4096;

/// Where the frames of a burst come from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// A port.
    Wire,
    /// This machine.
    Host,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// An engine that limits ICMP errors as the kernel does by default.
    pub fn new() -> Self {
        Self::with_limits(Settings::default())
    }

    /// An engine with other limits on ICMP errors. They hold per worker.
    pub fn with_limits(settings: Settings) -> Self {
        let limiter = Limiter::new(settings, LIMITED_DESTINATIONS);
        Self {
            scratch: Scratch {
                stack: ReturnStack::default(),
                limiter,
                identification: 0,
                utc_offset: Nanos(0),
                minutes_west: 0,
                random: Random::new(0),
                copies: Copies::default(),
                dice: Dice::new(0),
                cpu: 0,
                spreads: Box::default(),
                queue: 0,
                fragments: Fragments::default(),
                revision: 0,
                whole: Some(Box::default()),
                plans: Plans::default(),
                recorder: Recorder::default(),
            },
            switches: Switches::default(),
        }
    }

    /// Turns roads on and off. All are on unless set.
    pub fn set_switches(&mut self, switches: Switches) {
        self.switches = switches;
    }

    /// Sets what to add to [`World::now`] for the time since 1970 (or any other
    /// midnight UTC), which IPv4's timestamp option shows
    /// and `-m time` goes by. Zero unless set.
    pub fn set_utc_offset(&mut self, offset: Nanos) {
        self.scratch.utc_offset = offset;
    }

    /// Sets the kernel's time zone, in minutes west of Greenwich, which
    /// `-m time --kerneltz` goes by. Zero unless set.
    pub fn set_minutes_west(&mut self, minutes: i32) {
        self.scratch.minutes_west = minutes;
    }

    /// Sets the core that this worker runs on, which `-m cpu` asks for. Zero unless set.
    pub fn set_cpu(&mut self, cpu: u32) {
        self.scratch.cpu = cpu;
    }

    /// Seeds the choices that NAT (ports) and rules make at random. Zero unless set.
    pub fn set_seed(&mut self, seed: u64) {
        self.scratch.random = Random::new(seed);
        self.scratch.dice = Dice::new(!seed);
    }

    /// Lets NAT prefer random ports whose answers arrive on `queue`, which this
    /// engine's worker reads: `spreads` says by port how cards choose queues.
    pub fn set_spreads(&mut self, spreads: Box<[Option<Spread>]>, queue: u32) {
        (self.scratch.spreads, self.scratch.queue) = (spreads, queue);
    }

    /// Decides every frame of a burst that arrived on ports: sets each slot's
    /// disposition, and its bytes where they change.
    pub fn process<E: Effects>(
        &mut self,
        world: &World<'_>,
        burst: &mut [Slot<'_>],
        effects: &mut E,
    ) {
        self.decide(world, burst, Origin::Wire, effects);
    }

    /// The same on the full road, whatever the switches say: what is told of it is all that
    /// it meets, and nobody can tell the packets from others.
    pub fn process_in_full<E: Effects>(
        &mut self,
        world: &World<'_>,
        burst: &mut [Slot<'_>],
        effects: &mut E,
    ) {
        let switches = std::mem::replace(&mut self.switches, Switches::all(false));
        self.decide(world, burst, Origin::Wire, effects);
        self.switches = switches;
    }

    /// Decides frames that this machine itself sends (OUTPUT). Those that a kernel has
    /// routed keep its decision: [`Slot::port`] says where to, and the Ethernet header
    /// has the next hop's address and, in place of the source, what the tcx program of
    /// the host road says of the packet. Of others the header is ignored.
    pub fn output<E: Effects>(
        &mut self,
        world: &World<'_>,
        burst: &mut [Slot<'_>],
        effects: &mut E,
    ) {
        self.decide(world, burst, Origin::Host, effects);
    }

    /// Tells the sender of `frame`, which was to leave on `port`, that its next
    /// hop does not answer.
    pub fn unresolved<E: Effects>(
        &mut self,
        world: &World<'_>,
        port: PortId,
        frame: &mut [u8],
        effects: &mut E,
    ) {
        let Ok(Frame::Ip(mut parsed)) = wire::parse(frame, Mac::default()) else { return };
        self.fit(world);
        parsed.pkt_type = PktType::Host;
        let mut packet = Packet::new(FrameBuf::exact(frame), parsed, None);
        packet.output = Some(port);
        let policy = &world.snapshot.policy;
        match parsed.family {
            Family::V4 => self.road(world, &policy.v4, effects).next_hop_silent(&mut packet),
            Family::V6 => self.road(world, &policy.v6, effects).next_hop_silent(&mut packet),
        }
    }

    /// Makes the scratch space as large as the policy and the settings need.
    fn fit(&mut self, world: &World<'_>) {
        let policy = &world.snapshot.policy;
        self.scratch.stack.fit(policy.v4.max_depth.max(policy.v6.max_depth));
        self.scratch.copies.fit(world.snapshot.tees);
        let revision = world.conntrack.revision();
        if revision != self.scratch.revision {
            self.scratch.revision = revision;
            let [v4, v6] = [Family::V4, Family::V6].map(|f| world.conntrack.fragment_settings(f));
            self.scratch.fragments.adopt(v4, v6);
        }
    }

    fn decide<E: Effects>(
        &mut self,
        world: &World<'_>,
        burst: &mut [Slot<'_>],
        origin: Origin,
        effects: &mut E,
    ) {
        self.fit(world);
        self.expire(world, effects);
        let plans = origin == Origin::Wire && self.ready_plans(world);
        let mut lanes = self.lanes(world, plans);
        for chunk in burst.chunks_mut(BURST) {
            if origin == Origin::Wire && !matches!(world.network.mode(), Mode::Bridge(_)) {
                chunk.iter_mut().for_each(untag);
            }
            match lanes.open {
                true => self.decide_burst(world, chunk, lanes, effects),
                false => self.decide_frames(world, chunk, (origin, plans, lanes.first), effects),
            }
            lanes.first += chunk.len();
            self.settle_plans(world);
        }
    }

    /// Decides one burst without the short lane; `first` is its first frame's index.
    fn decide_frames<E: Effects>(
        &mut self,
        world: &World<'_>,
        chunk: &mut [Slot<'_>],
        (origin, plans, first): (Origin, bool, usize),
        effects: &mut E,
    ) {
        let straight = (origin == Origin::Wire).then(|| self.ready_straight(world));
        let frames: ArrayVec<_, BURST> =
            chunk.iter().map(|slot| parse(world, slot, origin)).collect();
        let ways = straight.map_or_else(ArrayVec::new, |it| it.plan(world, chunk, &frames));
        let subjects: ArrayVec<_, BURST> =
            chunk.iter().zip(&frames).map(|(slot, frame)| subject(world, slot, frame)).collect();
        world.conntrack.prefetch_records(subjects.iter().flatten(), plans);
        let arrived = frames.iter().zip(&subjects);
        for (offset, (slot, (frame, subject))) in chunk.iter_mut().zip(arrived).enumerate() {
            let way = ways.get(offset).and_then(Option::as_ref);
            let shortened = match (frame, way, straight, subject) {
                (Ok(Frame::Ip(parsed)), Some(way), Some(straight), _) => {
                    Ok(straight.cross(world, slot, parsed, way, effects))
                }
                (Ok(Frame::Ip(parsed)), _, _, Some(subject)) if plans => {
                    self.follow(world, slot, parsed, subject, effects)
                }
                _ => Err(Known::default()),
            };
            let ended = shortened.unwrap_or_else(|known| {
                self.decide_one(world, slot, (frame, subject), known, origin, effects)
            });
            slot.disposition = ended.disposition;
            lane::tell(effects, first + offset, || ended);
        }
    }

    fn decide_one<E: Effects>(
        &mut self,
        world: &World<'_>,
        slot: &mut Slot<'_>,
        (frame, subject): (&Result<Frame, DropReason>, &Option<Subject>),
        known: Known,
        origin: Origin,
        effects: &mut E,
    ) -> Ended {
        let parsed = match *frame {
            Ok(Frame::Ip(parsed)) => parsed,
            Ok(_) if origin == Origin::Wire => {
                return bridge::cross(world.network, slot.port, slot.len);
            }
            Ok(_) => return Ended::early(Disposition::Drop(DropReason::UnknownEtherType)),
            Err(reason) => return Ended::early(Disposition::Drop(reason)),
        };
        let handed = Handed::read(slot);
        let translated = |subject| world.conntrack.is_translated(subject, world.now);
        if origin == Origin::Host
            && handed.is_some_and(|handed| handed.is_looped())
            && !subject.as_ref().is_some_and(translated)
        {
            return Ended::early(Disposition::Deliver);
        }
        // What follows the packet in its frame is padding and goes no further.
        slot.len = usize::from(parsed.l3) + usize::from(parsed.l3_len);
        let length = slot.len;
        let input = (origin == Origin::Wire).then_some(slot.port);
        let buf = &mut slot.buf[slot.start..];
        let mut packet = Packet::new(FrameBuf::new(buf, length), parsed, input);
        (packet.subject, packet.known) = (*subject, known);
        if let (Origin::Host, Some(handed)) = (origin, handed) {
            (packet.handed, packet.mark) = (Some(handed), handed.mark);
            packet.sender = effects.sender(handed.owner);
            packet.owner = packet.sender.owner();
        }
        if known.record {
            self.scratch.recorder.start();
        }
        let policy = &world.snapshot.policy;
        let ended = match parsed.family {
            Family::V4 => self.road(world, &policy.v4, effects).travel(&mut packet),
            Family::V6 => self.road(world, &policy.v6, effects).travel(&mut packet),
        };
        if let (true, Some(flow)) = (known.record, known.flow) {
            self.conclude(world, &flow, &packet, length, ended.disposition);
        }
        slot.len = packet.frame.len();
        ended
    }

    fn road<'a, A: Address, E: Effects>(
        &'a mut self,
        world: &'a World<'a>,
        policy: &'a FamilyPolicy<A>,
        effects: &'a mut E,
    ) -> Road<'a, A, E> {
        let counters = world.snapshot.counters(world.worker);
        Road { world, policy, counters, scratch: &mut self.scratch, effects, depth: 0 }
    }
}

/// How one frame's road ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    disposition: Disposition,
    tracking: Tracking,
    mark: u32,
}

impl Ended {
    /// Before any rule saw the frame.
    fn early(disposition: Disposition) -> Self {
        Self { disposition, tracking: Tracking::NONE, mark: 0 }
    }
}

/// What the frame will ask of the connection table, which is told to fetch it:
/// by the time that its burst's records are asked for, its bucket has arrived.
#[inline]
fn subject(
    world: &World<'_>,
    slot: &Slot<'_>,
    frame: &Result<Frame, DropReason>,
) -> Option<Subject> {
    let Ok(Frame::Ip(parsed)) = frame else { return None };
    if !world.snapshot.policy.needs_conntrack(parsed.family) {
        return None;
    }
    let subject = world.conntrack.subject(parsed, slot.frame(), 0);
    world.conntrack.prefetch(&subject);
    Some(subject)
}

/// Takes off tags with VLAN id 0. They are a mere priority: the kernel routes
/// what is behind them as if they were not there.
#[inline]
fn untag(slot: &mut Slot<'_>) {
    const ADDRESSES: usize = 12;
    let Some(&[.., high, low]) = slot.frame().first_chunk::<{ ethernet::HEADER }>() else { return };
    if !ethernet::is_tag(u16::from_be_bytes([high, low])) {
        return;
    }
    for _ in 0..ethernet::MAX_TAGS {
        let Ok(header) = ethernet::Packet::new_checked(slot.frame()) else { return };
        if header.tags().next().is_none_or(|tag| tag.vid() != 0) {
            return;
        }
        slot.buf.copy_within(slot.start..slot.start + ADDRESSES, slot.start + ethernet::TAG);
        slot.start += ethernet::TAG;
        slot.len -= ethernet::TAG;
    }
}

/// Parses one frame as its origin demands.
fn parse(world: &World<'_>, slot: &Slot<'_>, origin: Origin) -> Result<Frame, DropReason> {
    let mac = match origin {
        Origin::Wire => world.network.port(slot.port).mac,
        Origin::Host => Mac::default(),
    };
    let looped = origin == Origin::Host && Handed::read(slot).is_some_and(|it| it.is_looped());
    let mut frame = match looped {
        true => wire::parse_looped(slot.frame())?,
        false => wire::parse(slot.frame(), mac)?,
    };
    if let (Origin::Host, Frame::Ip(parsed)) = (origin, &mut frame) {
        parsed.pkt_type = PktType::Host;
    }
    Ok(frame)
}
