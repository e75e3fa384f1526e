//! A port made of two bounded queues in memory, for tests and benchmarks.
//!
//! Frames move as tokens, so nothing is copied unless the test asks for bytes.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use super::{Burst, Description, Frame, LinkState, Pool, Port, PortError, PortStatistics};
use crate::clock::Nanos;

/// A port whose wire is the test itself.
#[derive(Debug)]
pub struct MemoryPort {
    arriving: VecDeque<Frame>,
    sent: VecDeque<Frame>,
    capacity: usize,
    link: LinkState,
    statistics: PortStatistics,
}

impl MemoryPort {
    /// A port that holds at most `capacity` frames in each direction.
    pub fn new(capacity: usize) -> Self {
        Self {
            arriving: VecDeque::with_capacity(capacity),
            sent: VecDeque::with_capacity(capacity),
            capacity,
            link: LinkState::Up,
            statistics: PortStatistics::default(),
        }
    }
    /// Lets a copy of `bytes` arrive. False when the queue or the pool is full
    /// or the bytes do not fit a chunk.
    pub fn inject(&mut self, pool: &mut Pool, bytes: &[u8]) -> bool {
        if self.arriving.len() == self.capacity {
            return false;
        }
        let Some(frame) = pool.copy_in(bytes) else { return false };
        self.arriving.push_back(frame);
        true
    }
    /// Lets a frame of the worker's pool arrive.
    ///
    /// # Errors
    /// The frame itself when the queue is full.
    pub fn inject_frame(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.arriving.len() == self.capacity {
            return Err(frame);
        }
        self.arriving.push_back(frame);
        Ok(())
    }
    /// The oldest frame sent and not yet collected.
    pub fn collect_frame(&mut self) -> Option<Frame> {
        self.sent.pop_front()
    }
    /// Copies of all frames sent and not yet collected, oldest first.
    pub fn collect(&mut self, pool: &mut Pool) -> Vec<Vec<u8>> {
        let mut out = Vec::with_capacity(self.sent.len());
        while let Some(frame) = self.sent.pop_front() {
            out.push(pool.memory().bytes(&frame).to_vec());
            pool.put(frame);
        }
        out
    }
    /// Takes the link down or up. While it is down nothing is received or sent.
    pub fn set_link(&mut self, link: LinkState) {
        self.link = link;
    }
}

impl Port for MemoryPort {
    fn receive(
        &mut self,
        _pool: &mut Pool,
        _now: Nanos,
        burst: &mut Burst,
    ) -> Result<usize, PortError> {
        if self.link == LinkState::Down {
            return Ok(0);
        }
        let count = self.arriving.len().min(burst.remaining_capacity());
        burst.extend(self.arriving.drain(..count));
        Ok(count)
    }
    fn transmit(&mut self, _pool: &mut Pool, frame: Frame) -> Result<(), Frame> {
        if self.sent.len() == self.capacity || self.link == LinkState::Down {
            self.statistics.tx_full += 1;
            return Err(frame);
        }
        self.sent.push_back(frame);
        Ok(())
    }
    fn flush(&mut self, _pool: &mut Pool, _now: Nanos) -> Result<usize, PortError> {
        Ok(0)
    }
    fn reap(&mut self, _pool: &mut Pool) -> usize {
        0
    }
    fn fill(&mut self, _pool: &mut Pool) -> usize {
        0
    }
    fn check(&mut self) -> Result<LinkState, PortError> {
        Ok(self.link)
    }
    fn statistics(&self) -> PortStatistics {
        self.statistics
    }
    fn description(&self) -> Description {
        Description::Memory
    }
    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
