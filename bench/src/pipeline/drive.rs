//! Bursts through an engine: the frames, the buffers that they arrive in, and passes
//! over them, with the engine and without.

use std::hint::black_box;

use dataplane::clock::Nanos;
use dataplane::engine::{BURST, Engine, Slot, Switches, World};
use dataplane::packet::PortId;
use dataplane::verdict::Disposition;

use super::frames::PORTS;
use super::world::{Bed, Counted, Time};
use crate::clock::Stopwatch;

/// Room before a frame, as AF_XDP leaves it.
const HEADROOM: usize = 256;

/// Frames in the order in which they arrive. Of each only the head is kept, and restored
/// before each time: the rest is zeros, which nobody writes.
#[derive(Debug, Default)]
pub(super) struct Trace {
    heads: Vec<u8>,
    /// Length and index of the port.
    frames: Vec<(u16, u8)>,
    head: usize,
}

impl Trace {
    /// With heads of 64 or 128 bytes.
    pub(super) fn new(wide: bool) -> Self {
        Self { head: if wide { 128 } else { 64 }, ..Self::default() }
    }
    /// How many frames.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }
    /// Adds a frame that arrives on the port with this index.
    pub(super) fn push(&mut self, frame: &[u8], port: usize) {
        let at = self.heads.len();
        self.heads.resize(at + self.head, 0);
        let present = frame.len().min(self.head);
        self.heads[at..at + present].copy_from_slice(&frame[..present]);
        self.frames.push((frame.len() as u16, port as u8));
    }
}

/// One worker: its engine, and the buffers that its frames arrive in.
pub(super) struct Lane<'b> {
    bed: &'b Bed,
    worker: usize,
    engine: Engine,
    effects: Counted,
    buffers: Vec<u8>,
    stride: usize,
    next: usize,
}

/// What one pass took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    pub(super) ns: u64,
    pub(super) packets: usize,
    /// Frames that were not sent to the other port.
    pub(super) astray: usize,
}

impl<'b> Lane<'b> {
    /// With so many buffers of `stride` bytes.
    pub(super) fn new(bed: &'b Bed, worker: usize, buffers: usize, stride: usize) -> Self {
        let mut engine = Engine::new();
        engine.set_seed(bed.conntrack.seed(worker));
        Self {
            bed,
            worker,
            engine,
            effects: Counted::default(),
            buffers: vec![0; buffers.max(BURST).next_multiple_of(BURST) * stride],
            stride,
            next: 0,
        }
    }

    /// Whether packets may follow plans.
    pub(super) fn with_plans(mut self, plans: bool) -> Self {
        self.engine.set_switches(Switches::all(plans));
        self
    }

    fn world(&self, now: Nanos) -> World<'b> {
        let Bed { network, snapshot, conntrack, .. } = self.bed;
        let stats = &self.bed.stats[self.worker];
        World { snapshot, worker: self.worker, network, conntrack, stats, now }
    }

    /// One frame, alone: what became of it, and its bytes.
    pub(super) fn one(&mut self, frame: &[u8], port: usize, now: Nanos) -> (Disposition, Vec<u8>) {
        let mut buf = vec![0; HEADROOM + frame.len() + HEADROOM];
        buf[HEADROOM..HEADROOM + frame.len()].copy_from_slice(frame);
        let mut burst = [slot(&mut buf, frame.len(), PORTS[port])];
        let world = self.world(now);
        self.engine.process(&world, &mut burst, &mut self.effects);
        (burst[0].disposition, burst[0].frame().to_vec())
    }

    /// Packets that the engine sent or delivered itself: none, if all is well.
    pub(super) fn own_packets(&self) -> u64 {
        self.effects.sent
    }

    /// A pass over `packets` frames of the trace, from its beginning, again and again.
    pub(super) fn pass(
        &mut self,
        trace: &Trace,
        packets: usize,
        time: &mut Clock,
        work: bool,
    ) -> Took {
        let watch = Stopwatch::start();
        let astray = match (trace.head, work) {
            (64, true) => measured_work::<64>(self, trace, packets, time),
            (64, false) => measured_copy::<64>(self, trace, packets, time),
            (_, true) => measured_work::<128>(self, trace, packets, time),
            (_, false) => measured_copy::<128>(self, trace, packets, time),
        };
        Took { ns: watch.elapsed_ns(), packets, astray }
    }

    /// The same pass, which callgrind does not count.
    pub(super) fn warm(&mut self, trace: &Trace, packets: usize, time: &mut Clock) -> usize {
        match trace.head {
            64 => turns::<64, true>(self, trace, packets, time),
            _ => turns::<128, true>(self, trace, packets, time),
        }
    }
}

/// The time of the bursts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) time: Time,
    /// Nanoseconds from one packet to the next.
    pub(super) gap: u64,
}

/// What callgrind counts: with the engine.
#[inline(never)]
fn measured_work<const HEAD: usize>(
    lane: &mut Lane<'_>,
    trace: &Trace,
    packets: usize,
    time: &mut Clock,
) -> usize {
    turns::<HEAD, true>(lane, trace, packets, time)
}

/// What callgrind counts: all but the engine.
#[inline(never)]
fn measured_copy<const HEAD: usize>(
    lane: &mut Lane<'_>,
    trace: &Trace,
    packets: usize,
    time: &mut Clock,
) -> usize {
    turns::<HEAD, false>(lane, trace, packets, time)
}

#[inline(always)]
fn turns<const HEAD: usize, const WORK: bool>(
    lane: &mut Lane<'_>,
    trace: &Trace,
    packets: usize,
    clock: &mut Clock,
) -> usize {
    let (mut astray, mut left) = (0, packets);
    while left > 0 {
        let heads = trace.heads.as_chunks::<HEAD>().0.chunks(BURST);
        for (heads, frames) in heads.zip(trace.frames.chunks(BURST)) {
            let frames = &frames[..frames.len().min(left)];
            let now = clock.time.pass(clock.gap * frames.len() as u64);
            astray += burst::<HEAD, WORK>(lane, heads, frames, now);
            left -= frames.len();
            if left == 0 {
                break;
            }
        }
    }
    astray
}

#[inline(always)]
fn burst<const HEAD: usize, const WORK: bool>(
    lane: &mut Lane<'_>,
    heads: &[[u8; HEAD]],
    frames: &[(u16, u8)],
    now: Nanos,
) -> usize {
    let world = lane.world(now);
    let all = lane.buffers.len() / lane.stride;
    let first = lane.next * lane.stride;
    lane.next = if lane.next + 2 * BURST > all { 0 } else { lane.next + BURST };
    let buffers = lane.buffers[first..].chunks_exact_mut(lane.stride);
    let arriving = buffers.zip(heads.iter().zip(frames));
    let mut slots: Vec<Slot<'_>> = Vec::with_capacity(BURST);
    slots.extend(arriving.map(|(buf, (head, &(len, port)))| {
        buf[HEADROOM..HEADROOM + HEAD].copy_from_slice(head);
        slot(buf, usize::from(len), PORTS[usize::from(port & 1)])
    }));
    if WORK {
        lane.engine.process(&world, &mut slots, &mut lane.effects);
    } else {
        black_box(&mut slots);
    }
    let sent =
        |slot: &&Slot<'_>| slot.disposition == Disposition::Transmit(PortId(slot.port.0 ^ 1));
    slots.len() - slots.iter().filter(sent).count()
}

#[inline(always)]
fn slot(buf: &mut [u8], len: usize, port: PortId) -> Slot<'_> {
    Slot { buf, start: HEADROOM, len, port, disposition: Disposition::Deliver }
}
