//! One worker's plans, and how it counts by path.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::ops::Range;

use arrayvec::ArrayVec;

use super::recorder::Counted;
use super::{Plan, Serial};
use crate::engine::BURST;
use crate::stats::RuleCounters;

/// Plans of one epoch at most: connections share them.
const PLANS_MAX: usize = 16_384;
/// Paths at most.
const PATHS_MAX: usize = 4096;
/// Counters of all paths together at most.
const COUNTERS_MAX: usize = 32_768;

/// Bits of a word that name a plan; the epoch is above them.
const NUMBER_BITS: u32 = 16;
/// In the place of a plan's number: there is none, and no use in trying.
const NONE: u64 = (1 << NUMBER_BITS) - 1;

const _: () = assert!((PLANS_MAX as u64) < NONE && PATHS_MAX < u16::MAX as usize);

/// What a connection's word means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'p> {
    /// This plan.
    Plan(&'p Plan),
    /// That walks of this epoch leave none.
    None,
    /// Nothing: it is of another epoch, or of another worker.
    Stale,
}

/// What has been counted of a path in this burst.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    packets: u32,
    bytes: u32,
}

#[derive(Debug)]
struct Path {
    counters: Range<u32>,
    pending: Pending,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Plans {
    /// Serials of the snapshot and the network that its plans were made against.
    against: Option<(Serial, Serial)>,
    /// Zero: none yet.
    epoch: u64,
    plans: Vec<Plan>,
    numbers: HashMap<Plan, u16>,
    paths: Vec<Path>,
    /// Paths by the hash of their counters.
    hashes: HashMap<u64, u16>,
    counters: Vec<Counted>,
    /// Paths with something pending.
    touched: ArrayVec<u16, BURST>,
}

impl Plans {
    /// Makes room for as many as there may be. Allocates once.
    fn fit(&mut self) {
        self.plans.reserve(PLANS_MAX);
        self.numbers.reserve(PLANS_MAX);
        self.paths.reserve(PATHS_MAX);
        self.hashes.reserve(PATHS_MAX);
        self.counters.reserve(COUNTERS_MAX);
    }

    /// Goes on against a snapshot and a network: all plans end when either is another.
    #[inline]
    pub fn adopt(&mut self, snapshot: Serial, network: Serial) {
        if self.against != Some((snapshot, network)) {
            self.against = Some((snapshot, network));
            self.renew();
        }
    }

    #[cold]
    fn renew(&mut self) {
        debug_assert!(self.touched.is_empty(), "what was counted belongs to the old snapshot");
        if self.epoch == 0 {
            self.fit();
        }
        self.epoch = Serial::default().0;
        self.plans.clear();
        self.numbers.clear();
        self.paths.clear();
        self.hashes.clear();
        self.counters.clear();
    }

    /// What a word means.
    #[inline]
    pub fn find(&self, word: u64) -> Found<'_> {
        if word >> NUMBER_BITS != self.epoch {
            return Found::Stale;
        }
        match self.plans.get((word & NONE) as usize) {
            Some(plan) => Found::Plan(plan),
            None => Found::None,
        }
    }

    /// The word that says: no plan.
    pub fn no_word(&self) -> u64 {
        self.epoch << NUMBER_BITS | NONE
    }

    /// The word for a plan with this path; `None`: there is no room for it.
    pub fn intern(&mut self, plan: Plan, path: &[Counted]) -> Option<u64> {
        let plan = Plan { path: self.path(path)?, ..plan };
        let number = match self.numbers.get(&plan) {
            Some(&number) => number,
            None if self.plans.len() == PLANS_MAX => return None,
            None => {
                let number = self.plans.len() as u16;
                self.plans.push(plan);
                self.numbers.insert(plan, number);
                number
            }
        };
        Some(self.epoch << NUMBER_BITS | u64::from(number))
    }

    fn path(&mut self, path: &[Counted]) -> Option<u16> {
        let hash = self.hashes.hasher().hash_one(path);
        if let Some(&known) = self.hashes.get(&hash) {
            // Two of one hash: the second has bad luck.
            return (self.counted(known) == path).then_some(known);
        }
        let start = self.counters.len();
        if self.paths.len() == PATHS_MAX || start + path.len() > COUNTERS_MAX {
            return None;
        }
        let number = self.paths.len() as u16;
        self.counters.extend_from_slice(path);
        let counters = start as u32..self.counters.len() as u32;
        self.paths.push(Path { counters, pending: Pending::default() });
        self.hashes.insert(hash, number);
        Some(number)
    }

    /// The counters of a path.
    pub fn counted(&self, path: u16) -> &[Counted] {
        let Range { start, end } = self.paths[usize::from(path)].counters;
        &self.counters[start as usize..end as usize]
    }

    /// Counts a packet of the burst, of `bytes`, by a path.
    #[inline]
    pub fn count(&mut self, path: u16, bytes: u16) {
        let pending = &mut self.paths[usize::from(path)].pending;
        if pending.packets == 0 {
            // There is room: a burst is settled before it has more packets than that.
            self.touched.push(path);
        }
        pending.packets += 1;
        pending.bytes += u32::from(bytes);
    }

    /// Adds what was counted in the burst to every counter of each path; how many
    /// packets that were.
    #[inline]
    pub fn settle(&mut self, counters: &RuleCounters) -> u64 {
        let mut all = 0;
        for path in self.touched.drain(..) {
            let path = &mut self.paths[usize::from(path)];
            let Pending { packets, bytes } = std::mem::take(&mut path.pending);
            all += u64::from(packets);
            let Range { start, end } = path.counters;
            for counted in &self.counters[start as usize..end as usize] {
                counters.add(counted.counter, packets.into(), bytes.into());
            }
        }
        all
    }
}
