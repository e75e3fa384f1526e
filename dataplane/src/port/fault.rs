//! Any port behind a bad wire: seeded loss, duplication, reordering, corruption,
//! truncation and delay, in both directions, in simulated time.
//!
//! The same seed, the same frames and the same times give the same faults.
//! Held frames are tokens of the worker's pool; their number is bounded.

use std::os::fd::BorrowedFd;

use super::afxdp::{BoundSocket, Closed};
use super::{Burst, Description, Frame, LinkState, Pool, Port, PortError, PortStatistics};
use crate::clock::Nanos;

/// A probability in parts per million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMillion(pub u32);

/// What goes wrong on one direction of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Frames that vanish.
    pub loss: PerMillion,
    /// Frames that arrive twice.
    pub duplication: PerMillion,
    /// Frames that are overtaken by the next one to four.
    pub reordering: PerMillion,
    /// Frames with one bit flipped.
    pub corruption: PerMillion,
    /// Frames cut at a random length.
    pub truncation: PerMillion,
    /// Frames that come late, by up to `max_delay`.
    pub delay: PerMillion,
    /// The longest delay.
    pub max_delay: Nanos,
}

/// What was done to the frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Frames lost on purpose.
    pub lost: u64,
    /// Second copies made.
    pub duplicated: u64,
    /// Frames held back behind later ones.
    pub reordered: u64,
    /// Frames with a bit flipped.
    pub corrupted: u64,
    /// Frames cut short.
    pub truncated: u64,
    /// Frames delayed.
    pub delayed: u64,
}

/// Frames that one direction holds back at most.
pub const HELD_MAX: usize = 256;

/// When a held frame may go on.
#[derive(Debug)]
enum Until {
    /// This many more frames have passed.
    Passed(u32),
    /// This time.
    Time(Nanos),
}

/// One direction.
#[derive(Debug)]
struct Lane {
    faults: Faults,
    counts: FaultCounts,
    random: SplitMix,
    held: Vec<(Until, Frame)>,
    /// Frames due, in order; drained by the owner.
    due: Vec<Frame>,
}

/// A port behind faults.
#[derive(Debug)]
pub struct FaultPort<P> {
    inner: P,
    receive: Lane,
    transmit: Lane,
    scratch: Burst,
    now: Nanos,
    /// Frames that the port behind did not take.
    tx_lost: u64,
}

impl<P: Port> FaultPort<P> {
    /// Puts `inner` behind faults in each direction.
    pub fn new(inner: P, seed: u64, receive: Faults, transmit: Faults) -> Self {
        Self {
            inner,
            receive: Lane::new(receive, seed),
            transmit: Lane::new(transmit, seed ^ 0x9e37_79b9_7f4a_7c15),
            scratch: Burst::new(),
            now: Nanos::default(),
            tx_lost: 0,
        }
    }
    /// The port behind.
    pub fn inner_mut(&mut self) -> &mut P {
        &mut self.inner
    }
    /// What was done to received and to transmitted frames.
    pub fn counts(&self) -> (FaultCounts, FaultCounts) {
        (self.receive.counts, self.transmit.counts)
    }
    /// Frames held back, both directions.
    pub fn held(&self) -> usize {
        [&self.receive, &self.transmit].iter().map(|lane| lane.held.len() + lane.due.len()).sum()
    }
}

impl Lane {
    fn new(faults: Faults, seed: u64) -> Self {
        Self {
            faults,
            counts: FaultCounts::default(),
            random: SplitMix(seed),
            held: Vec::with_capacity(HELD_MAX),
            due: Vec::with_capacity(2 * HELD_MAX),
        }
    }

    /// Lets one frame onto the wire: to `due`, to `held`, or nowhere.
    fn pass(&mut self, pool: &mut Pool, now: Nanos, mut frame: Frame) {
        if self.random.hits(self.faults.loss) {
            self.counts.lost += 1;
            pool.put(frame);
            return;
        }
        if self.random.hits(self.faults.corruption) && frame.len() > 0 {
            let bit = self.random.below(frame.len() as u64 * 8) as usize;
            pool.memory().bytes_mut(&mut frame)[bit / 8] ^= 1 << (bit % 8);
            self.counts.corrupted += 1;
        }
        if self.random.hits(self.faults.truncation) && frame.len() > 0 {
            let len = self.random.below(frame.len() as u64) as usize;
            frame.set_extent(frame.start(), len);
            self.counts.truncated += 1;
        }
        if self.random.hits(self.faults.duplication)
            && let Some(copy) = duplicate(pool, &frame)
        {
            self.counts.duplicated += 1;
            self.due.push(copy);
        }
        let room = self.held.len() < HELD_MAX;
        if self.random.hits(self.faults.delay) && room {
            let late = Nanos(self.random.below(self.faults.max_delay.0 + 1));
            self.counts.delayed += 1;
            self.held.push((Until::Time(now + late), frame));
        } else if self.random.hits(self.faults.reordering) && room {
            let behind = 1 + self.random.below(4) as u32;
            self.counts.reordered += 1;
            self.held.push((Until::Passed(behind), frame));
        } else {
            self.due.push(frame);
            self.overtake();
        }
    }

    /// One frame has passed those that are held back by count.
    fn overtake(&mut self) {
        let mut index = 0;
        while index < self.held.len() {
            let ready = match &mut self.held[index].0 {
                Until::Passed(left) => {
                    *left -= 1;
                    *left == 0
                }
                Until::Time(_) => false,
            };
            if ready {
                let (_, frame) = self.held.remove(index);
                self.due.push(frame);
            } else {
                index += 1;
            }
        }
    }

    /// Lets frames go whose time has come. When the wire is otherwise `idle`,
    /// frames that wait to be overtaken go too: nothing may come to overtake them.
    fn release(&mut self, now: Nanos, idle: bool) {
        let mut index = 0;
        while index < self.held.len() {
            let ready = match self.held[index].0 {
                Until::Passed(_) => idle,
                Until::Time(at) => at <= now,
            };
            if ready {
                let (_, frame) = self.held.remove(index);
                self.due.push(frame);
            } else {
                index += 1;
            }
        }
    }
}

fn duplicate(pool: &mut Pool, frame: &Frame) -> Option<Frame> {
    let (memory, free) = pool.split();
    super::pool::copy_in(memory, free, memory.bytes(frame))
}

impl<P: Port> Port for FaultPort<P> {
    fn receive(
        &mut self,
        pool: &mut Pool,
        now: Nanos,
        burst: &mut Burst,
    ) -> Result<usize, PortError> {
        let before = burst.len();
        self.now = now;
        // New frames only when the last ones were all handed on: `due` stays bounded.
        if self.receive.due.is_empty() {
            self.inner.receive(pool, now, &mut self.scratch)?;
            let idle = self.scratch.is_empty();
            self.receive.release(now, idle);
            for frame in self.scratch.drain(..) {
                self.receive.pass(pool, now, frame);
            }
        }
        let count = self.receive.due.len().min(burst.remaining_capacity());
        burst.extend(self.receive.due.drain(..count));
        Ok(burst.len() - before)
    }

    fn transmit(&mut self, pool: &mut Pool, frame: Frame) -> Result<(), Frame> {
        if self.transmit.due.len() >= HELD_MAX {
            return Err(frame);
        }
        // The clock is not known here: delays count from the last turn's time.
        self.transmit.pass(pool, self.now, frame);
        Ok(())
    }

    fn flush(&mut self, pool: &mut Pool, now: Nanos) -> Result<usize, PortError> {
        let idle = self.transmit.due.is_empty();
        self.transmit.release(now, idle);
        let mut lost = 0;
        for frame in self.transmit.due.drain(..) {
            if let Err(frame) = self.inner.transmit(pool, frame) {
                lost += 1;
                pool.put(frame);
            }
        }
        self.tx_lost += lost as u64;
        Ok(lost + self.inner.flush(pool, now)?)
    }

    fn reap(&mut self, pool: &mut Pool) -> usize {
        self.inner.reap(pool)
    }
    fn fill(&mut self, pool: &mut Pool) -> usize {
        self.inner.fill(pool)
    }
    fn check(&mut self) -> Result<LinkState, PortError> {
        self.inner.check()
    }
    fn detach(&mut self) -> Option<Box<BoundSocket>> {
        self.inner.detach()
    }
    fn recover(&mut self, pool: &mut Pool, closed: &Closed) -> usize {
        self.inner.recover(pool, closed)
    }
    fn attach(&mut self, socket: Box<BoundSocket>) -> Result<(), Box<BoundSocket>> {
        self.inner.attach(socket)
    }
    fn statistics(&self) -> PortStatistics {
        let inner = self.inner.statistics();
        PortStatistics { tx_lost: inner.tx_lost + self.tx_lost, ..inner }
    }
    fn description(&self) -> Description {
        Description::Fault(Box::new(self.inner.description()))
    }
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.inner.pollable()
    }
}

/// SplitMix64: small, seeded, and good enough to break a wire with.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
    /// A number below `bound`, which is above zero.
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
    fn hits(&mut self, chance: PerMillion) -> bool {
        self.below(1_000_000) < u64::from(chance.0)
    }
}
