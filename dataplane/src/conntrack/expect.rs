//! Expectations: connections that a helper foresees, shared by all workers.
//!
//! A bounded table ([`Slots`]), hashed under the table's key by where the expected
//! packet goes. The first packet of a new connection asks it; while nothing is
//! expected at all, that costs one load, and it never waits. Only packets that make
//! or change expectations take the table's short lock.
//!
//! An expectation ends when it has served (unless permanent), when its time is
//! up, and with its master. Masters do not know of theirs: an expectation whose
//! master is gone is passed over, and collected when somebody comes by.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::ConnId;
use super::slots::{BY_MASTER, BY_TUPLE, Found, Slots, Writer};
use super::sync::{AtomicU64, Ordering};
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

/// Slots that are looked at under one holding of the lock.
const BATCH: usize = 64;
/// Between two searches of a full table when the first was in vain.
const PATIENCE: Nanos = Nanos::from_millis(4);

/// The table.
#[derive(Debug)]
pub(super) struct Expectations {
    slots: Slots,
    /// Random numbers drawn so far.
    drawn: AtomicU64,
    /// When a full table was last searched in vain.
    in_vain: AtomicU64,
    hash_key: [u8; 16],
}

impl ExpectId {
    pub(super) const fn new(at: u32, born: u64) -> Self {
        Self { at, born }
    }
    pub(super) const fn at(self) -> u32 {
        self.at
    }
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
        let [drawn, in_vain] = [0, 0].map(AtomicU64::new);
        Self { slots: Slots::new(capacity), drawn, in_vain, hash_key }
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
        self.slots.live() == 0
    }

    /// The expectation that `tuple`, of a new connection, meets. It has then
    /// served, unless it is permanent. `may`: whether a master is confirmed and
    /// alive. Takes no lock.
    pub(super) fn take(
        &self,
        tuple: &Tuple,
        now: Nanos,
        may: impl Fn(ConnId) -> bool,
    ) -> Option<Expectation> {
        // Each further turn follows the end or change of the one found before.
        loop {
            let found = self.find(tuple, now, |one| !one.inactive && one.matches(tuple))?;
            if !may(found.expectation.master) {
                return None;
            }
            if found.expectation.permanent || self.slots.serve(&found) {
                return Some(found.expectation);
            }
        }
    }

    /// The unexpired expectation that `tuple` meets, in force or not, which stays.
    /// Takes no lock.
    pub(super) fn peek(&self, tuple: &Tuple, now: Nanos) -> Option<Expectation> {
        Some(self.find(tuple, now, |one| one.matches(tuple))?.expectation)
    }

    /// The newest expectation of `master` that is `wanted`. Takes no lock.
    pub(super) fn of_master(
        &self,
        master: ConnId,
        now: Nanos,
        wanted: impl Fn(&Expectation) -> bool,
    ) -> Option<Expectation> {
        if self.is_empty() {
            return None;
        }
        let wanted = |found: &Found| {
            let one = &found.expectation;
            found.deadline > now && one.master == master && wanted(one)
        };
        let found = self.slots.find(BY_MASTER, self.home_of_master(master), wanted)?;
        Some(found.expectation)
    }

    fn find(
        &self,
        tuple: &Tuple,
        now: Nanos,
        wanted: impl Fn(&Expectation) -> bool,
    ) -> Option<Found> {
        if self.is_empty() {
            return None;
        }
        let wanted = |found: &Found| found.deadline > now && wanted(&found.expectation);
        self.slots.find(BY_TUPLE, self.home_of_tuple(tuple), wanted)
    }

    /// Expects `new` from now on. An equal one of the same master is replaced.
    /// `most`: the bound on the whole table. `alive`: whether a master is.
    ///
    /// The kernel's order: what is equal goes, what could be confused refuses, the
    /// oldest of its master makes room, and then the table must have some.
    pub(super) fn insert(
        &self,
        new: &Expectation,
        limits: Limits,
        most: u32,
        now: Nanos,
        alive: impl Fn(ConnId) -> bool,
    ) -> Result<ExpectId, ExpectError> {
        let homes = [self.home_of_tuple(&new.tuple), self.home_of_master(new.master)];
        let writer = self.slots.write();
        let mut equal = None;
        for found in writer.chain(BY_TUPLE, homes[BY_TUPLE]) {
            let old = found.expectation;
            if found.deadline <= now || !alive(old.master) {
                continue;
            }
            if old.equals(new) && (limits.any_master || old.master == new.master) {
                if (old.class, old.master) != (new.class, new.master) {
                    return Err(ExpectError::Already);
                }
                equal = Some(found.id());
                break;
            }
            if old.clashes(new) {
                return Err(ExpectError::Busy);
            }
        }
        if let Some(id) = equal {
            writer.end(id);
        }
        let ours = |found: &Found| {
            let one = &found.expectation;
            found.deadline > now && one.master == new.master && one.class == new.class
        };
        let ours = writer.chain(BY_MASTER, homes[BY_MASTER]).filter(ours);
        let (count, oldest) = ours.fold((0, None::<Found>), |(count, oldest), found| {
            let older = oldest.is_none_or(|oldest| found.born() < oldest.born());
            (count + 1, if older { Some(found) } else { oldest })
        });
        if let Some(oldest) = oldest.filter(|_| count >= limits.most) {
            writer.end(oldest.id());
        }
        self.make_room(&writer, most, now, alive);
        if self.slots.live() >= most {
            return Err(ExpectError::Full);
        }
        writer.add(new, now + limits.timeout, homes).ok_or(ExpectError::Full)
    }

    /// Searches a full table for what is over, but not again at once when that was in
    /// vain: whoever fills the table does not get to hold the lock as well.
    fn make_room(
        &self,
        writer: &Writer<'_>,
        most: u32,
        now: Nanos,
        alive: impl Fn(ConnId) -> bool,
    ) {
        let full = self.slots.live() >= most || writer.used() == self.slots.len();
        let in_vain = self.in_vain.load(Ordering::Relaxed);
        if !full || (in_vain != 0 && now.0.saturating_sub(in_vain) < PATIENCE.0) {
            return;
        }
        let before = writer.used();
        writer.collect(0, self.slots.len(), |found| is_over(found, now, &alive));
        let in_vain = if writer.used() == before { now.0 } else { 0 };
        self.in_vain.store(in_vain, Ordering::Relaxed);
    }

    /// Ends an expectation, if it is still there.
    pub(super) fn remove(&self, id: ExpectId) -> bool {
        self.slots.write().end(id)
    }

    /// Shows every expectation of `master` to `change`, which may put it in force or
    /// out of it, and gives it its new life, or `None` to end it.
    pub(super) fn change(
        &self,
        master: ConnId,
        now: Nanos,
        mut change: impl FnMut(&mut Expectation, Nanos) -> Option<Nanos>,
    ) {
        if self.is_empty() {
            return;
        }
        let writer = self.slots.write();
        for found in writer.chain(BY_MASTER, self.home_of_master(master)) {
            let mut one = found.expectation;
            if one.master != master {
                continue;
            }
            match change(&mut one, found.deadline).filter(|deadline| *deadline > now) {
                Some(deadline) => writer.renew(&found, deadline, one.inactive),
                None => {
                    writer.end(found.id());
                }
            }
        }
    }

    /// Ends what is over: expired, or without a living master.
    pub(super) fn collect(&self, now: Nanos, alive: impl Fn(ConnId) -> bool) -> usize {
        self.collect_if(|found| is_over(found, now, &alive))
    }

    /// Ends all, and returns how many there were.
    pub(super) fn clear(&self) -> usize {
        self.collect_if(|_| true)
    }

    fn collect_if(&self, over: impl Fn(&Found) -> bool) -> usize {
        if self.slots.write().used() == 0 {
            return 0;
        }
        let starts = (0..self.slots.len()).step_by(BATCH);
        starts.map(|from| self.slots.write().collect(from, from + BATCH, &over)).sum()
    }

    /// All that live, with their deadlines.
    pub(super) fn all(&self, now: Nanos) -> Vec<(Expectation, Nanos)> {
        let listed = |home| {
            let writer = self.slots.write();
            writer.chain(BY_TUPLE, home).collect::<Vec<_>>()
        };
        (0..self.slots.chains())
            .flat_map(listed)
            .filter(|found| found.deadline > now)
            .map(|found| (found.expectation, found.deadline))
            .collect()
    }

    /// Ends the expectation that `tuple` would meet, if any.
    pub(super) fn remove_met(&self, tuple: &Tuple, now: Nanos) -> bool {
        let found = self.find(tuple, now, |one| one.matches(tuple));
        found.is_some_and(|found| self.remove(found.id()))
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    fn scaled(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.slots.chains() as u128) >> 64) as usize
    }

    pub(super) fn home_of_tuple(&self, tuple: &Tuple) -> usize {
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

    pub(super) fn home_of_master(&self, master: ConnId) -> usize {
        let mut hasher = SipHasher13::new_with_key(&self.hash_key);
        hasher.write_u64(master.number());
        self.scaled(hasher.finish())
    }
}

fn is_over(found: &Found, now: Nanos, alive: impl Fn(ConnId) -> bool) -> bool {
    found.deadline <= now || !alive(found.expectation.master)
}
