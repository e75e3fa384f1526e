//! Expectations: connections that a helper foresees, shared by all workers.
//!
//! A bounded table, hashed under the table's key by where the expected packet
//! goes. The first packet of a new connection asks it; while nothing is expected
//! there, that costs one load. Everything else happens under one short lock,
//! taken only for packets that make, change or meet an expectation.
//!
//! An expectation ends when it has served (unless permanent), when its time is
//! up, and with its master. Masters do not know of theirs: an expectation whose
//! master is gone is passed over, and collected when somebody comes by.

use std::hash::Hasher;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use siphasher::sip::SipHasher13;

use super::ConnId;
use super::tuple::{Direction, Tuple};
use crate::clock::Nanos;
use crate::policy::target::HelperKind;

/// Which bits of an expected packet's source count. Its destination counts whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceMask {
    /// Of the address.
    pub address: u128,
    /// Of the port.
    pub port: u16,
}

/// How an expected connection is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follow {
    /// Direction of the expected connection, seen from its master.
    pub direction: Direction,
    /// Port that the helper's peer really listens on.
    pub port: u16,
    /// Address that the helper's peer really listens on; `None`: the master's, and
    /// the connection comes from where the master's other end is known.
    pub address: Option<u128>,
}

/// A connection to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// What its first packet looks like, under `mask`. The zone is the master's.
    pub tuple: Tuple,
    /// How much of the source is known.
    pub mask: SourceMask,
    /// The connection that announced it.
    pub master: ConnId,
    /// The helper that read the announcement.
    pub by: HelperKind,
    /// Which of the helper's limits it counts towards.
    pub class: u8,
    /// Serves any number of times.
    pub permanent: bool,
    /// Waits for the announcement to be accepted.
    pub inactive: bool,
    /// Helper of the expected connection.
    pub helper: Option<HelperKind>,
    /// How the expected connection is translated; `None`: as the rules say.
    pub follow: Option<Follow>,
}

/// What a helper allows itself in one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Expectations of one master; the oldest goes for a new one.
    pub most: u32,
    /// Life of each.
    pub timeout: Nanos,
    /// Whether an equal one of another master is in the way.
    pub any_master: bool,
}

/// Why a connection cannot be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpectError {
    /// Another one could not be told apart from it.
    #[error("it could not be told from another expectation")]
    Busy,
    /// It is expected already, in another class or by another master.
    #[error("it is expected already")]
    Already,
    /// The table is full.
    #[error("the table of expectations is full")]
    Full,
    /// Its master has no helper any more, or is gone.
    #[error("its master is gone")]
    MasterGone,
}

/// Handle of an expectation. Harmless when that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectId {
    at: u32,
    born: u64,
}

const NOBODY: u32 = u32::MAX;
/// The two chains that a slot is in: by destination, by master.
const BY_TUPLE: usize = 0;
const BY_MASTER: usize = 1;

#[derive(Clone, Debug)]
struct Slot {
    expectation: Option<Expectation>,
    deadline: Nanos,
    /// Rises with every expectation: tells the oldest, and one from its successor.
    born: u64,
    next: [u32; 2],
}

/// The table.
#[derive(Debug)]
pub(super) struct Expectations {
    live: AtomicU32,
    /// Random numbers drawn so far.
    drawn: AtomicU64,
    hash_key: [u8; 16],
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    slots: Box<[Slot]>,
    heads: [Box<[u32]>; 2],
    free: Vec<u32>,
    born: u64,
    hash_key: [u8; 16],
}

/// Whether the source of `tuple` lies under `mask` where `like`'s does, and the rest is equal.
fn covers(like: &Tuple, mask: SourceMask, tuple: &Tuple) -> bool {
    (like.src ^ tuple.src) & mask.address == 0
        && (like.sport ^ tuple.sport) & mask.port == 0
        && (like.dst, like.dport, like.proto) == (tuple.dst, tuple.dport, tuple.proto)
        && (like.family, like.zone) == (tuple.family, tuple.zone)
}

impl Expectation {
    /// Whether a packet with `tuple` may be the expected one.
    pub fn matches(&self, tuple: &Tuple) -> bool {
        covers(&self.tuple, self.mask, tuple)
    }

    fn equals(&self, other: &Self) -> bool {
        self.tuple == other.tuple && self.mask == other.mask
    }

    fn clashes(&self, other: &Self) -> bool {
        let mask = SourceMask {
            address: self.mask.address & other.mask.address,
            port: self.mask.port & other.mask.port,
        };
        covers(&self.tuple, mask, &other.tuple)
    }
}

impl Expectations {
    /// Room for `capacity` of them.
    pub(super) fn new(capacity: usize, hash_key: [u8; 16]) -> Self {
        let slot = Slot { expectation: None, deadline: Nanos(0), born: 0, next: [NOBODY; 2] };
        let heads = || vec![NOBODY; capacity.max(1)].into_boxed_slice();
        let inner = Inner {
            slots: vec![slot; capacity].into_boxed_slice(),
            heads: [heads(), heads()],
            free: (0..capacity as u32).rev().collect(),
            born: 0,
            hash_key,
        };
        let inner = Mutex::new(inner);
        Self { live: AtomicU32::new(0), drawn: AtomicU64::new(0), hash_key, inner }
    }

    /// A number that nobody outside can foresee.
    pub(super) fn random(&self) -> u32 {
        let mut hasher = SipHasher13::new_with_key(&self.hash_key);
        hasher.write_u64(self.drawn.fetch_add(1, Ordering::Relaxed));
        hasher.finish() as u32
    }

    /// Whether nothing is expected at all.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.live.load(Ordering::Relaxed) == 0
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here is left half done by a panic: there is none.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what changed under the lock.
    fn settle(&self, inner: &Inner) {
        self.live.store(inner.live(), Ordering::Relaxed);
    }

    /// The expectation that `tuple`, of a new connection, meets. It has then
    /// served, unless it is permanent. `may`: whether a master is confirmed and alive.
    pub(super) fn take(
        &self,
        tuple: &Tuple,
        now: Nanos,
        may: impl Fn(ConnId) -> bool,
    ) -> Option<Expectation> {
        if self.is_empty() {
            return None;
        }
        let mut inner = self.lock();
        let at = inner.position(tuple, now, |one| !one.inactive && one.matches(tuple))?;
        let found = inner.slots[at as usize].expectation?;
        if !may(found.master) {
            return None;
        }
        if !found.permanent {
            inner.remove(at);
            self.settle(&inner);
        }
        Some(found)
    }

    /// The unexpired expectation that `tuple` meets, in force or not, which stays.
    pub(super) fn peek(&self, tuple: &Tuple, now: Nanos) -> Option<Expectation> {
        if self.is_empty() {
            return None;
        }
        let inner = self.lock();
        let at = inner.position(tuple, now, |one| one.matches(tuple))?;
        inner.slots[at as usize].expectation
    }

    /// Expects `new` from now on. An equal one of the same master is replaced.
    /// `most`: the bound on the whole table. `alive`: whether a master is.
    pub(super) fn insert(
        &self,
        new: &Expectation,
        limits: Limits,
        most: u32,
        now: Nanos,
        alive: impl Fn(ConnId) -> bool,
    ) -> Result<ExpectId, ExpectError> {
        let mut inner = self.lock();
        let added = inner.insert(new, limits, most, now, alive);
        self.settle(&inner);
        added
    }

    /// Ends an expectation, if it is still there.
    pub(super) fn remove(&self, id: ExpectId) -> bool {
        let mut inner = self.lock();
        let there = inner
            .slots
            .get(id.at as usize)
            .is_some_and(|slot| slot.expectation.is_some() && slot.born == id.born);
        if there {
            inner.remove(id.at);
            self.settle(&inner);
        }
        there
    }

    /// Shows every expectation of `master` to `change`, which may change what does
    /// not identify it and gives its new life, or `None` to end it.
    pub(super) fn change(
        &self,
        master: ConnId,
        now: Nanos,
        mut change: impl FnMut(&mut Expectation, Nanos) -> Option<Nanos>,
    ) {
        if self.is_empty() {
            return;
        }
        let mut inner = self.lock();
        let mut at = inner.heads[BY_MASTER][inner.home_of_master(master)];
        while at != NOBODY {
            let slot = &mut inner.slots[at as usize];
            let next = slot.next[BY_MASTER];
            if let Some(one) = slot.expectation.as_mut().filter(|one| one.master == master) {
                match change(one, slot.deadline).filter(|deadline| *deadline > now) {
                    Some(deadline) => slot.deadline = deadline,
                    None => inner.remove(at),
                }
            }
            at = next;
        }
        self.settle(&inner);
    }

    /// Ends what is over: expired, or without a living master.
    pub(super) fn collect(&self, now: Nanos, alive: impl Fn(ConnId) -> bool) -> usize {
        if self.is_empty() {
            return 0;
        }
        let mut inner = self.lock();
        let before = inner.live();
        inner.collect(now, alive);
        self.settle(&inner);
        (before - inner.live()) as usize
    }

    /// Ends all, and returns how many there were.
    pub(super) fn clear(&self) -> usize {
        let mut inner = self.lock();
        let before = inner.live();
        inner.collect(Nanos(0), |_| false);
        self.settle(&inner);
        before as usize
    }

    /// All that live, with their deadlines.
    pub(super) fn all(&self, now: Nanos) -> Vec<(Expectation, Nanos)> {
        let inner = self.lock();
        let living = inner.slots.iter().filter(|slot| slot.deadline > now);
        living.filter_map(|slot| Some((slot.expectation?, slot.deadline))).collect()
    }
}

impl Inner {
    fn live(&self) -> u32 {
        (self.slots.len() - self.free.len()) as u32
    }

    fn scaled(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.heads[BY_TUPLE].len() as u128) >> 64) as usize
    }

    fn home_of_tuple(&self, tuple: &Tuple) -> usize {
        let mut hasher = SipHasher13::new_with_key(&self.hash_key);
        hasher.write_u128(tuple.dst);
        hasher.write_u64(
            u64::from(tuple.dport) << 32
                | u64::from(tuple.zone) << 16
                | u64::from(tuple.proto) << 8
                | tuple.family as u64,
        );
        self.scaled(hasher.finish())
    }

    fn home_of_master(&self, master: ConnId) -> usize {
        let mut hasher = SipHasher13::new_with_key(&self.hash_key);
        hasher.write_u64(master.number());
        self.scaled(hasher.finish())
    }

    fn homes(&self, one: &Expectation) -> [usize; 2] {
        [self.home_of_tuple(&one.tuple), self.home_of_master(one.master)]
    }

    /// The slots of a chain.
    fn chain(&self, which: usize, home: usize) -> impl Iterator<Item = (u32, &Slot)> {
        let slot = |at: u32| (at != NOBODY).then(|| (at, &self.slots[at as usize]));
        std::iter::successors(slot(self.heads[which][home]), move |(_, before)| {
            slot(before.next[which])
        })
    }

    fn position(
        &self,
        tuple: &Tuple,
        now: Nanos,
        wanted: impl Fn(&Expectation) -> bool,
    ) -> Option<u32> {
        self.chain(BY_TUPLE, self.home_of_tuple(tuple))
            .find(|(_, slot)| slot.deadline > now && slot.expectation.as_ref().is_some_and(&wanted))
            .map(|(at, _)| at)
    }

    /// The kernel's order: what is equal goes, what could be confused refuses, the
    /// oldest of its master makes room, and then the table must have some.
    fn insert(
        &mut self,
        new: &Expectation,
        limits: Limits,
        most: u32,
        now: Nanos,
        alive: impl Fn(ConnId) -> bool,
    ) -> Result<ExpectId, ExpectError> {
        let [by_tuple, by_master] = self.homes(new);
        let mut equal = None;
        for (at, slot) in self.chain(BY_TUPLE, by_tuple) {
            let Some(old) = slot.expectation.filter(|old| slot.deadline > now && alive(old.master))
            else {
                continue;
            };
            if old.equals(new) && (limits.any_master || old.master == new.master) {
                if (old.class, old.master) != (new.class, new.master) {
                    return Err(ExpectError::Already);
                }
                equal = Some(at);
                break;
            }
            if old.clashes(new) {
                return Err(ExpectError::Busy);
            }
        }
        if let Some(at) = equal {
            self.remove(at);
        }
        let of_class = |slot: &Slot| {
            let ours = |one: &Expectation| one.master == new.master && one.class == new.class;
            slot.deadline > now && slot.expectation.as_ref().is_some_and(ours)
        };
        let ours = self.chain(BY_MASTER, by_master).filter(|(_, slot)| of_class(slot));
        let (count, oldest) = ours.fold((0, None), |(count, oldest), (at, slot)| {
            let older = oldest.is_none_or(|(born, _)| slot.born < born);
            (count + 1, if older { Some((slot.born, at)) } else { oldest })
        });
        if let Some((_, at)) = oldest.filter(|_| count >= limits.most) {
            self.remove(at);
        }
        if self.live() >= most || self.free.is_empty() {
            self.collect(now, alive);
        }
        if self.live() >= most {
            return Err(ExpectError::Full);
        }
        let at = self.free.pop().ok_or(ExpectError::Full)?;
        self.born += 1;
        self.slots[at as usize] = Slot {
            expectation: Some(*new),
            deadline: now + limits.timeout,
            born: self.born,
            next: [self.heads[BY_TUPLE][by_tuple], self.heads[BY_MASTER][by_master]],
        };
        self.heads[BY_TUPLE][by_tuple] = at;
        self.heads[BY_MASTER][by_master] = at;
        Ok(ExpectId { at, born: self.born })
    }

    fn collect(&mut self, now: Nanos, alive: impl Fn(ConnId) -> bool) {
        for at in 0..self.slots.len() {
            let slot = &self.slots[at];
            let over = |one: &Expectation| slot.deadline <= now || !alive(one.master);
            if slot.expectation.as_ref().is_some_and(over) {
                self.remove(at as u32);
            }
        }
    }

    fn remove(&mut self, at: u32) {
        let Some(one) = self.slots[at as usize].expectation.take() else { return };
        for (which, home) in self.homes(&one).into_iter().enumerate() {
            let after = self.slots[at as usize].next[which];
            if self.heads[which][home] == at {
                self.heads[which][home] = after;
                continue;
            }
            let before = self.chain(which, home).find(|(_, slot)| slot.next[which] == at);
            if let Some(before) = before.map(|(before, _)| before) {
                self.slots[before as usize].next[which] = after;
            }
        }
        self.free.push(at);
    }
}
