//! `-m connlimit`: how many connections an address, or a network, has.
//!
//! Life cycle: a rule's own table, kept while the rule stays as it is. Concurrency: parts
//! by the address's hash, each with its lock. As in the kernel, connections are noticed
//! when a packet of theirs meets the rule, and forgotten when the address is asked for
//! again: those that are no longer in the connection table, and TCP's in TIME_WAIT and
//! CLOSE. Packets of an assured connection enter nothing on a list that there is, and one
//! that finds none on it, itself closed, is dropped (seen of Linux 6.18). Limits: [`MOST`] connections a rule, then packets of others are dropped (as by a
//! kernel out of memory). A packet looks at its own address's connections, and within one
//! tick new ones do not look again; it clears away at most [`COLLECTED`] of them and looks
//! after [`AGED`] addresses that were not seen for long.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::PAGE;
use super::shelf::Shelf;
use super::spin::Spin;
use super::ticks;
use crate::clock::Nanos;
use crate::conntrack::{Conntrack, Presence, Tuple, status};
use crate::packet::{Family, Fragment};
use crate::policy::eval::{Outcome, PacketView};

/// Connections that one rule remembers.
pub const MOST: usize = 1 << 18;
/// Parts of a table of many addresses.
const PARTS: usize = 8;
/// A shorter mask may put most connections into one part, so there is one.
const WIDE: u8 = 16;
/// Connections that one look forgets, but for one.
const COLLECTED: usize = 64;
/// Addresses that a new address makes us look after.
const AGED: usize = 4;
/// Connections of such an address that are looked at.
const AGED_DEPTH: usize = 8;
/// Ticks in which a connection may still be on its way into the table.
const YOUNG: u64 = 2;
const NONE: u32 = u32::MAX;

/// `-m connlimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnRule {
    /// The number.
    pub limit: u32,
    /// `--connlimit-above` instead of `--connlimit-upto`.
    pub above: bool,
    /// Length of `--connlimit-mask`.
    pub len: u8,
    /// `--connlimit-daddr`.
    pub destination: bool,
}

/// A connection on a list.
#[derive(Clone, Copy, Debug)]
struct Member {
    tuple: Tuple,
    /// When it was noticed.
    tick: u64,
    /// By whom.
    worker: u32,
    next: u32,
}

/// An address's list, in the order in which connections were noticed.
#[derive(Clone, Copy, Debug)]
struct Host {
    first: u32,
    last: u32,
    count: u32,
    /// When the list was last gone through, and how long it was then.
    looked: (u64, u32),
}

#[derive(Debug)]
struct Part {
    hosts: Shelf<u128, Host>,
    members: Vec<Member>,
    most: usize,
    free: u32,
}

/// Whoever asks.
struct Asker<'a> {
    conntrack: &'a Conntrack,
    tuple: Tuple,
    confirmed: bool,
    assured: bool,
    worker: u32,
    tick: u64,
    now: Nanos,
}

/// A rule's table.
#[derive(Debug)]
pub struct ConnTable {
    hasher: RandomState,
    parts: Box<[Spin<Part>]>,
}

impl ConnTable {
    /// An empty table for masks of that length.
    pub fn new(len: u8) -> Self {
        let hasher = RandomState::new();
        let parts = if len < WIDE { 1 } else { PARTS };
        let part = |_| Spin::new(Part::new(MOST / parts, hasher.clone()));
        Self { parts: (0..parts).map(part).collect(), hasher }
    }

    /// Addresses and connections, some of which may be over.
    pub fn len(&self) -> (usize, usize) {
        let parts = self.parts.iter().map(|part| {
            let (mut sum, mut from) = ((0, 0), 0);
            loop {
                let part = part.lock();
                let Some(page) = part.hosts.page(from, PAGE) else { break sum };
                let counts = page.map(|(_, at)| part.hosts.value(at).count as usize);
                sum = counts.fold(sum, |sum, count| (sum.0 + 1, sum.1 + count));
                from += PAGE;
            }
        });
        parts.fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len().0 == 0
    }

    /// The connections of `address`, the asker's among them; `None`: no room.
    fn count(&self, address: u128, asker: &Asker<'_>) -> Option<u32> {
        let high = (self.hasher.hash_one(address) >> 32) as usize;
        self.parts[high % self.parts.len()].lock().count(address, asker)
    }
}

impl Part {
    fn new(most: usize, hasher: RandomState) -> Self {
        let hosts = Shelf::new(most, hasher);
        Self { hosts, members: Vec::with_capacity(most), most, free: NONE }
    }

    fn count(&mut self, address: u128, asker: &Asker<'_>) -> Option<u32> {
        let Some(at) = self.hosts.find(&address, |_| true) else {
            self.look_after_old(asker);
            let member = self.put(asker)?;
            let host = Host { first: member, last: member, count: 1, looked: (asker.tick, 1) };
            if self.hosts.insert(address, host).is_none() {
                self.release(member);
                return None;
            }
            return Some(1);
        };
        self.hosts.touch(at);
        let Host { count, looked: (tick, length), .. } = *self.hosts.value(at);
        if asker.assured {
            // Not entered any more, and all that is over is forgotten, itself perhaps.
            if tick != asker.tick {
                self.look(at, asker);
                let host = self.hosts.value_mut(at);
                host.looked = (asker.tick, host.count);
            }
            return Some(self.hosts.value(at).count);
        }
        let just_looked = tick == asker.tick && count.saturating_sub(length) < COLLECTED as u32;
        if asker.confirmed || !just_looked {
            if self.look(at, asker) {
                return Some(self.hosts.value(at).count);
            }
            let host = self.hosts.value_mut(at);
            host.looked = (asker.tick, host.count);
        }
        let member = self.put(asker)?;
        let host = self.hosts.value_mut(at);
        match host.last {
            NONE => host.first = member,
            last => self.members[last as usize].next = member,
        }
        (host.last, host.count) = (member, host.count + 1);
        Some(host.count)
    }

    /// Goes through a list, forgets what is over, and says whether the asker is on it.
    fn look(&mut self, at: u32, asker: &Asker<'_>) -> bool {
        let (mut before, mut next) = (NONE, self.hosts.value(at).first);
        let mut collected = 0;
        while next != NONE && collected <= COLLECTED {
            let member = self.members[next as usize];
            let own = member.tuple == asker.tuple && !asker.assured;
            match asker.presence(&member) {
                Some(Presence::Alive | Presence::Closed) | None if own => return true,
                Some(Presence::Alive) | None => (before, next) = (next, member.next),
                Some(Presence::Closed | Presence::Absent) => {
                    self.forget(at, before, next);
                    next = member.next;
                    collected += 1;
                }
            }
        }
        false
    }

    /// Addresses that were not asked for since long give up their room when all their
    /// connections are over; others wait for their next turn. What a packet of theirs
    /// would be told does not change.
    fn look_after_old(&mut self, asker: &Asker<'_>) {
        for _ in 0..AGED {
            let Some(at) = self.hosts.oldest() else { return };
            let host = *self.hosts.value(at);
            if host.looked.0 == asker.tick {
                return;
            }
            if self.is_over(host, asker) {
                while self.hosts.value(at).first != NONE {
                    self.forget(at, NONE, self.hosts.value(at).first);
                }
                self.hosts.remove(at);
            } else {
                self.hosts.touch(at);
            }
        }
    }

    /// Whether a host has few connections, and all of them are over.
    fn is_over(&self, host: Host, asker: &Asker<'_>) -> bool {
        let mut next = host.first;
        for _ in 0..AGED_DEPTH {
            if next == NONE {
                return true;
            }
            let member = &self.members[next as usize];
            match asker.presence(member) {
                Some(Presence::Closed | Presence::Absent) => next = member.next,
                _ => return false,
            }
        }
        false
    }

    fn put(&mut self, asker: &Asker<'_>) -> Option<u32> {
        let (tuple, tick, worker) = (asker.tuple, asker.tick, asker.worker);
        let member = Member { tuple, tick, worker, next: NONE };
        match self.free {
            NONE if self.members.len() < self.most => {
                self.members.push(member);
                Some((self.members.len() - 1) as u32)
            }
            NONE => None,
            free => {
                self.free = self.members[free as usize].next;
                self.members[free as usize] = member;
                Some(free)
            }
        }
    }

    fn release(&mut self, member: u32) {
        self.members[member as usize].next = self.free;
        self.free = member;
    }

    /// Takes `member`, which follows `before`, off the list.
    fn forget(&mut self, at: u32, before: u32, member: u32) {
        let next = self.members[member as usize].next;
        let host = self.hosts.value_mut(at);
        host.count -= 1;
        if host.last == member {
            host.last = before;
        }
        match before {
            NONE => host.first = next,
            before => self.members[before as usize].next = next,
        }
        self.release(member);
    }
}

impl Asker<'_> {
    /// Whether a connection is there; `None`: another worker may be about to enter it.
    fn presence(&self, member: &Member) -> Option<Presence> {
        match self.conntrack.presence(&member.tuple, self.now) {
            Presence::Absent => {
                let settled =
                    member.worker == self.worker || self.tick.wrapping_sub(member.tick) >= YOUNG;
                settled.then_some(Presence::Absent)
            }
            there => Some(there),
        }
    }
}

/// A rule and its table.
#[derive(Clone, Debug)]
pub struct ConnMatch {
    /// The rule.
    pub rule: ConnRule,
    /// The table.
    pub table: Arc<ConnTable>,
}

impl ConnMatch {
    pub(super) fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        let (parsed, conntrack, now) = (&*packet.parsed, packet.conntrack, packet.now);
        let (tuple, found) = match packet.tracking.conn.and_then(|conn| conntrack.view(conn)) {
            Some(view) => (view.original, view.status),
            None if matches!(parsed.fragment, Fragment::Later { .. }) => return Outcome::Hotdrop,
            None => match Tuple::of(parsed, &packet.frame, 0) {
                Some(tuple) => match conntrack.presence(&tuple, now) {
                    Presence::Absent => (tuple, 0),
                    _ => (tuple, status::CONFIRMED),
                },
                None => return Outcome::Hotdrop,
            },
        };
        let address = if self.rule.destination { parsed.dst } else { parsed.src };
        let host = match parsed.family {
            Family::V4 => 32 - u32::from(self.rule.len),
            Family::V6 => 128 - u32::from(self.rule.len),
        };
        let address = address.checked_shr(host).unwrap_or(0);
        let (worker, tick) = (packet.scene.cpu, ticks(now));
        let confirmed = found & status::CONFIRMED != 0;
        let assured = confirmed && found & status::ASSURED != 0;
        let asker = Asker { conntrack, tuple, confirmed, assured, worker, tick, now };
        match self.table.count(address, &asker) {
            // As in the kernel, which takes it for a lack of memory.
            Some(0) | None => Outcome::Hotdrop,
            Some(count) => ((count > self.rule.limit) == self.rule.above).into(),
        }
    }
}

#[cfg(test)]
mod tests;
