//! Where expectations are kept: slots in two chains each, found without a lock.
//!
//! Lookups walk a chain through atomics alone and never wait. Whoever adds, changes
//! or ends expectations holds one short lock, the [`Writer`]; only serving a packet
//! ends one without it, by one compare-and-swap.
//!
//! A slot's `state` is the number of its expectation and a phase. Its words, homes
//! and links change only while the phase says WRITING, which begins after it was
//! taken out of its chains. A dead slot keeps its links until then, so that a walk
//! which stands on it goes on; a walk that meets another number, another home or
//! WRITING was led astray and starts again, which only others' progress can cause.

use super::ConnId;
use super::expect::{ExpectId, Expectation, Follow, SourceMask};
use super::sync::{AtomicU32, AtomicU64, Ordering, fence, relax};
use super::tuple::{Direction, Tuple};
use crate::clock::Nanos;
use crate::packet::Family;
use crate::policy::target::HelperKind;

const NOBODY: u32 = u32::MAX;
/// The two chains that a slot is in: by destination, by master.
pub(super) const BY_TUPLE: usize = 0;
pub(super) const BY_MASTER: usize = 1;

/// Phases, in a state's two low bits.
const DEAD: u64 = 0;
const WRITING: u64 = 1;
const LIVE: u64 = 2;
/// Alive, and waits for its announcement to be accepted.
const INACTIVE: u64 = 3;

const fn phase(state: u64) -> u64 {
    state & 3
}

const fn alive(state: u64) -> bool {
    phase(state) >= LIVE
}

const fn with_phase(state: u64, phase: u64) -> u64 {
    state & !3 | phase
}

const WORDS: usize = 11;

struct Slot {
    state: AtomicU64,
    deadline: AtomicU64,
    words: [AtomicU64; WORDS],
    homes: [AtomicU32; 2],
    next: [AtomicU32; 2],
    /// Only under the lock: whether it is in its chains, and else the next free slot.
    linked: AtomicU32,
    next_free: AtomicU32,
}

/// An expectation that was found, as it was at one instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    at: u32,
    state: u64,
    pub(super) deadline: Nanos,
    pub(super) expectation: Expectation,
}

impl Found {
    /// Rises with every expectation: tells the oldest, and one from its successor.
    pub(super) const fn born(&self) -> u64 {
        self.state >> 2
    }
    pub(super) const fn id(&self) -> ExpectId {
        ExpectId::new(self.at, self.born())
    }
}

/// All slots.
pub(super) struct Slots {
    slots: Box<[Slot]>,
    heads: [Box<[AtomicU32]>; 2],
    /// Expectations alive.
    live: AtomicU32,
    lock: AtomicU32,
    /// Only under the lock: slots in chains, alive or not; the first free one; the
    /// last number given out.
    used: AtomicU32,
    free: AtomicU32,
    born: AtomicU64,
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").field("live", &self.live()).finish_non_exhaustive()
    }
}

impl Slot {
    fn new(next_free: u32) -> Self {
        Self {
            state: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            words: std::array::from_fn(|_| AtomicU64::new(0)),
            homes: std::array::from_fn(|_| AtomicU32::new(0)),
            next: std::array::from_fn(|_| AtomicU32::new(NOBODY)),
            linked: AtomicU32::new(0),
            next_free: AtomicU32::new(next_free),
        }
    }

    /// What the slot is said to hold in `state`: for the lock's holder, or to be checked.
    fn held(&self, at: u32, state: u64) -> Option<Found> {
        if !alive(state) {
            return None;
        }
        let words = std::array::from_fn(|word| self.words[word].load(Ordering::Relaxed));
        let deadline = Nanos(self.deadline.load(Ordering::Relaxed));
        let mut expectation = unpack(&words);
        expectation.inactive = phase(state) == INACTIVE;
        Some(Found { at, state, deadline, expectation })
    }

    /// What a walk along the chain `which` from `home` finds here, and where it goes
    /// on; the outer `None` when it does not belong here (any more).
    fn pass(&self, at: u32, which: usize, home: usize) -> Option<(Option<Found>, u32)> {
        let state = self.state.load(Ordering::Acquire);
        if phase(state) == WRITING {
            return None;
        }
        let found = self.held(at, state);
        let here = self.homes[which].load(Ordering::Relaxed) as usize;
        let next = self.next[which].load(Ordering::Acquire);
        fence(Ordering::Acquire);
        let same = self.state.load(Ordering::Relaxed) == state;
        (same && here == home).then_some((found, next))
    }

    fn swap(&self, from: u64, to: u64) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

impl Slots {
    /// Room for `capacity` of them, in as many chains of each kind.
    pub(super) fn new(capacity: usize) -> Self {
        let after = |at: usize| if at + 1 < capacity { at as u32 + 1 } else { NOBODY };
        let heads = || (0..capacity.max(1)).map(|_| AtomicU32::new(NOBODY)).collect();
        Self {
            slots: (0..capacity).map(|at| Slot::new(after(at))).collect(),
            heads: [heads(), heads()],
            live: AtomicU32::new(0),
            lock: AtomicU32::new(0),
            used: AtomicU32::new(0),
            free: AtomicU32::new(if capacity == 0 { NOBODY } else { 0 }),
            born: AtomicU64::new(0),
        }
    }

    /// Expectations alive.
    #[inline]
    pub(super) fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }

    /// Places for them.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Chains of each kind.
    pub(super) fn chains(&self) -> usize {
        self.heads[BY_TUPLE].len()
    }

    /// The first in a chain, newest first, that is `wanted`. Takes no lock.
    pub(super) fn find(
        &self,
        which: usize,
        home: usize,
        wanted: impl Fn(&Found) -> bool,
    ) -> Option<Found> {
        'again: loop {
            let mut at = self.heads[which][home].load(Ordering::Acquire);
            while let Some(slot) = self.slots.get(at as usize) {
                let Some((found, next)) = slot.pass(at, which, home) else { continue 'again };
                if let Some(found) = found.filter(&wanted) {
                    return Some(found);
                }
                at = next;
            }
            return None;
        }
    }

    /// Ends what was found, for the one packet that it was expected for. False: it
    /// has ended or changed since. Takes no lock; if somebody has it, the slot is
    /// left to a later [`Writer::collect`].
    pub(super) fn serve(&self, found: &Found) -> bool {
        let slot = &self.slots[found.at as usize];
        let dead = with_phase(found.state, DEAD);
        if !slot.swap(found.state, dead) {
            return false;
        }
        self.live.fetch_sub(1, Ordering::Relaxed);
        if let Some(writer) = self.try_write() {
            writer.bury(found.at, dead);
        }
        true
    }

    fn try_write(&self) -> Option<Writer<'_>> {
        let taken = self.lock.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed);
        // Not `then_some`: a Writer that is made in vain would open the lock.
        taken.is_ok().then(|| Writer(self))
    }

    /// The right to add, change and end expectations.
    pub(super) fn write(&self) -> Writer<'_> {
        let mut attempt = 0;
        loop {
            if let Some(writer) = self.try_write() {
                return writer;
            }
            relax(attempt);
            attempt += 1;
        }
    }
}

/// The lock, held.
pub(super) struct Writer<'s>(&'s Slots);

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.0.lock.store(0, Ordering::Release);
    }
}

impl Writer<'_> {
    fn slot(&self, at: u32) -> &Slot {
        &self.0.slots[at as usize]
    }

    fn present(&self, at: u32) -> Option<Found> {
        let slot = self.0.slots.get(at as usize)?;
        slot.held(at, slot.state.load(Ordering::Acquire))
    }

    /// The living of a chain, newest first. The one just seen may be ended.
    pub(super) fn chain(&self, which: usize, home: usize) -> impl Iterator<Item = Found> {
        let mut at = self.0.heads[which][home].load(Ordering::Relaxed);
        std::iter::from_fn(move || {
            loop {
                let slot = self.0.slots.get(at as usize)?;
                let here = std::mem::replace(&mut at, slot.next[which].load(Ordering::Relaxed));
                if let Some(found) = self.present(here) {
                    return Some(found);
                }
            }
        })
    }

    /// Adds one in front of its chains; `None` without a free slot.
    pub(super) fn add(
        &self,
        new: &Expectation,
        deadline: Nanos,
        homes: [usize; 2],
    ) -> Option<ExpectId> {
        let Slots { free, born, heads, used, live, .. } = self.0;
        let at = free.load(Ordering::Relaxed);
        let slot = self.0.slots.get(at as usize)?;
        free.store(slot.next_free.load(Ordering::Relaxed), Ordering::Relaxed);
        let number = born.load(Ordering::Relaxed) + 1;
        born.store(number, Ordering::Relaxed);
        slot.state.store(number << 2 | WRITING, Ordering::Release);
        // Who sees one of the writes that follow sees WRITING, too.
        fence(Ordering::Release);
        for (cell, word) in slot.words.iter().zip(pack(new)) {
            cell.store(word, Ordering::Relaxed);
        }
        slot.deadline.store(deadline.0, Ordering::Relaxed);
        for (which, home) in homes.into_iter().enumerate() {
            let first = heads[which][home].load(Ordering::Relaxed);
            slot.homes[which].store(home as u32, Ordering::Relaxed);
            slot.next[which].store(first, Ordering::Relaxed);
        }
        slot.linked.store(1, Ordering::Relaxed);
        used.fetch_add(1, Ordering::Relaxed);
        // Counted before anybody can serve it.
        live.fetch_add(1, Ordering::Relaxed);
        let phase = if new.inactive { INACTIVE } else { LIVE };
        slot.state.store(number << 2 | phase, Ordering::Release);
        for (which, home) in homes.into_iter().enumerate() {
            heads[which][home].store(at, Ordering::Release);
        }
        Some(ExpectId::new(at, number))
    }

    /// Gives one another deadline, and puts it in force or out of it.
    pub(super) fn renew(&self, found: &Found, deadline: Nanos, inactive: bool) {
        let slot = self.slot(found.at);
        slot.deadline.store(deadline.0, Ordering::Relaxed);
        let phase = if inactive { INACTIVE } else { LIVE };
        // Fails when it has just served.
        slot.swap(found.state, with_phase(found.state, phase));
    }

    /// Ends one, if it still lives.
    pub(super) fn end(&self, id: ExpectId) -> bool {
        let Some(found) = self.present(id.at()).filter(|found| found.id() == id) else {
            return false;
        };
        let dead = with_phase(found.state, DEAD);
        let ended = self.slot(found.at).swap(found.state, dead);
        if ended {
            self.0.live.fetch_sub(1, Ordering::Relaxed);
        }
        self.bury(found.at, dead);
        ended
    }

    /// Ends those in slot numbers `from..to` that are `over`, and clears away what
    /// has served. Returns how many it ended.
    pub(super) fn collect(&self, from: usize, to: usize, over: impl Fn(&Found) -> bool) -> usize {
        let mut ended = 0;
        for at in from as u32..to.min(self.0.len()) as u32 {
            match self.present(at) {
                Some(found) => ended += usize::from(over(&found) && self.end(found.id())),
                None => self.bury(at, self.slot(at).state.load(Ordering::Acquire)),
            }
        }
        ended
    }

    /// Takes a slot that died in `state` out of its chains.
    fn bury(&self, at: u32, state: u64) {
        let slot = self.slot(at);
        let same = slot.state.load(Ordering::Acquire) == state && phase(state) == DEAD;
        if !same || slot.linked.load(Ordering::Relaxed) == 0 {
            return;
        }
        slot.linked.store(0, Ordering::Relaxed);
        for which in [BY_TUPLE, BY_MASTER] {
            let home = slot.homes[which].load(Ordering::Relaxed) as usize;
            let after = slot.next[which].load(Ordering::Relaxed);
            let mut link = &self.0.heads[which][home];
            while let Some(before) = self.0.slots.get(link.load(Ordering::Relaxed) as usize) {
                if std::ptr::eq(before, slot) {
                    link.store(after, Ordering::Release);
                    break;
                }
                link = &before.next[which];
            }
        }
        self.0.used.fetch_sub(1, Ordering::Relaxed);
        slot.next_free.store(self.0.free.load(Ordering::Relaxed), Ordering::Relaxed);
        self.0.free.store(at, Ordering::Relaxed);
    }

    /// Slots that are not free.
    pub(super) fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed) as usize
    }
}

const PERMANENT: u64 = 1 << 56;
const FOLLOWS: u64 = 1 << 57;
const FOLLOWS_REPLY: u64 = 1 << 58;
const HAS_ADDRESS: u64 = 1 << 59;
const IS_V6: u64 = 1 << 56;

/// An expectation, but for `inactive`, in words.
fn pack(one: &Expectation) -> [u64; WORDS] {
    let Expectation { tuple, mask, follow, .. } = one;
    let half = |bits: u128| [bits as u64, (bits >> 64) as u64];
    let [src, dst, mask_bits] = [tuple.src, tuple.dst, mask.address].map(half);
    let to = half(follow.and_then(|follow| follow.address).unwrap_or(0));
    let place = u64::from(tuple.sport)
        | u64::from(tuple.dport) << 16
        | u64::from(tuple.zone) << 32
        | u64::from(tuple.proto) << 48
        | if tuple.family == Family::V6 { IS_V6 } else { 0 };
    let flags = [
        (one.permanent, PERMANENT),
        (follow.is_some(), FOLLOWS),
        (follow.is_some_and(|follow| follow.direction == Direction::Reply), FOLLOWS_REPLY),
        (follow.is_some_and(|follow| follow.address.is_some()), HAS_ADDRESS),
    ];
    let rest = u64::from(mask.port)
        | u64::from(follow.map_or(0, |follow| follow.port)) << 16
        | (one.by as u64) << 32
        | u64::from(one.class) << 40
        | one.helper.map_or(0, |helper| helper as u64) << 48
        | flags.iter().filter(|(set, _)| *set).fold(0, |bits, (_, bit)| bits | bit);
    let master = one.master.number();
    let [src, dst, mask, to] = [src, dst, mask_bits, to];
    [src[0], src[1], dst[0], dst[1], mask[0], mask[1], to[0], to[1], master, place, rest]
}

/// The reverse. Words that were changed meanwhile give something that is thrown away.
fn unpack(words: &[u64; WORDS]) -> Expectation {
    let whole = |at: usize| u128::from(words[at]) | u128::from(words[at + 1]) << 64;
    let (place, rest) = (words[9], words[10]);
    let helper = |bits: u64| HelperKind::ALL.into_iter().find(|kind| *kind as u64 == bits & 0xff);
    let follow = Follow {
        direction: if rest & FOLLOWS_REPLY != 0 { Direction::Reply } else { Direction::Original },
        port: (rest >> 16) as u16,
        address: (rest & HAS_ADDRESS != 0).then(|| whole(6)),
    };
    Expectation {
        tuple: Tuple {
            src: whole(0),
            dst: whole(2),
            sport: place as u16,
            dport: (place >> 16) as u16,
            zone: (place >> 32) as u16,
            proto: (place >> 48) as u8,
            family: if place & IS_V6 != 0 { Family::V6 } else { Family::V4 },
        },
        mask: SourceMask { address: whole(4), port: rest as u16 },
        master: ConnId(words[8]),
        by: helper(rest >> 32).unwrap_or(HelperKind::Ftp),
        class: (rest >> 40) as u8,
        permanent: rest & PERMANENT != 0,
        inactive: false,
        helper: helper(rest >> 48),
        follow: (rest & FOLLOWS != 0).then_some(follow),
    }
}
