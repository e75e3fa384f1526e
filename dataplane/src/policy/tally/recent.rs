//! `-m recent`: lists of addresses with the times at which they were last seen.
//!
//! Life cycle: a list is made with the first policy that names it and lives as long as
//! one does; both families share it. Concurrency: one lock a list, as the order in which
//! addresses are forgotten is the list's. Limits: as many addresses as the list was made
//! for, then the one that was not seen longest gives way; a power of two of times each.

use std::hash::RandomState;
use std::net::IpAddr;
use std::sync::Arc;

use super::PAGE;
use super::shelf::Shelf;
use super::spin::Spin;
use super::{HZ, ticks};
use crate::clock::Nanos;
use crate::packet::Family;
use crate::policy::Hook;
use crate::policy::eval::{Outcome, PacketView};
use crate::policy::scene::Sender;

/// Addresses in one list (`ip_list_tot`).
pub const DEFAULT_ENTRIES: u32 = 100;
/// Times that are kept by default.
const DEFAULT_TIMES: u32 = 32;
/// Highest `--hitcount` that every kernel's list can hold.
pub const MAX_HITS: u32 = 32_768;
/// Longest name in bytes.
pub const MAX_NAME: usize = 199;

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecentAction {
    /// `--set`: enters or refreshes the address.
    Set,
    /// `--rcheck`: asks.
    Check,
    /// `--update`: asks, and refreshes when the rule matches.
    Update,
    /// `--remove`: takes the address off.
    Remove,
}

/// `-m recent` but for the list's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RecentRule {
    /// What it does.
    pub action: RecentAction,
    /// `!`.
    pub negated: bool,
    /// `--seconds`; 0 for any time.
    pub seconds: u32,
    /// `--hitcount`; 0 for one.
    pub hits: u32,
    /// `--rttl`: only if the packet's TTL is that of the last one.
    pub same_ttl: bool,
    /// `--reap`: forgets the oldest address when it was last seen before `seconds`.
    pub reap: bool,
    /// `--rdest`.
    pub destination: bool,
    /// `--mask`; the first rule that names a list decides for all.
    pub mask: u128,
}

/// A mask of one family as the kernel keeps it, for both: IPv4's is the first word.
pub fn wide_mask(mask: u128, family: Family) -> u128 {
    match family {
        Family::V4 => mask << 96 | u128::MAX >> 32,
        Family::V6 => mask,
    }
}

impl RecentRule {
    /// How many times an address of its list must have room for.
    pub fn times(&self) -> u32 {
        match self.hits {
            0 => DEFAULT_TIMES,
            hits => hits.next_power_of_two(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Address {
    family: Family,
    bits: u128,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Of the last packet; 0 when unknown.
    ttl: u8,
    /// Where the last time stands, plus one.
    index: u32,
    /// Times in use.
    count: u32,
}

/// One address of a list, outside of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its family.
    pub family: Family,
    /// The address, in the common form.
    pub address: u128,
    /// TTL of its last packet; 0 when it was entered by hand.
    pub ttl: u8,
    /// Where the last time stands in `times`, plus one.
    pub index: u32,
    /// When it was seen, in ticks.
    pub times: Vec<u64>,
}

impl Seen {
    /// The last time.
    pub fn last(&self) -> u64 {
        self.times.get(self.index.wrapping_sub(1) as usize).copied().unwrap_or_default()
    }
}

/// A list.
#[derive(Debug)]
pub struct RecentTable {
    /// See [`wide_mask`].
    mask: u128,
    entries: u32,
    times: u32,
    list: Spin<List>,
}

#[derive(Debug)]
struct List {
    shelf: Shelf<Address, Entry>,
    /// `times` for each place of the shelf.
    stamps: Vec<u64>,
    times: u32,
}

impl RecentTable {
    /// An empty list for so many addresses (at least one) with so many times each (a power
    /// of two), of which only the bits in the [`wide_mask`] are told apart.
    pub fn new(entries: u32, times: u32, mask: u128) -> Self {
        debug_assert!(times.is_power_of_two());
        let entries = entries.max(1);
        let shelf = Shelf::new(entries as usize, RandomState::new());
        let stamps = vec![0; entries as usize * times as usize];
        Self { mask, entries, times, list: Spin::new(List { shelf, stamps, times }) }
    }

    /// Its mask.
    pub fn mask(&self) -> u128 {
        self.mask
    }

    /// How many addresses fit.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// How many times are kept for each.
    pub fn times(&self) -> u32 {
        self.times
    }

    /// How many addresses there are.
    pub fn len(&self) -> usize {
        self.list.lock().shelf.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a rule says of an address seen at `tick` with `ttl`, and does about it.
    pub fn ask(&self, rule: &RecentRule, family: Family, bits: u128, ttl: u8, tick: u64) -> bool {
        let mask = match family {
            Family::V4 => self.mask >> 96,
            Family::V6 => self.mask,
        };
        let address = Address { family, bits: bits & mask };
        let list = &mut *self.list.lock();
        let wanted = if rule.same_ttl { ttl } else { 0 };
        let Some(at) = list.find(&address, wanted) else {
            if rule.action == RecentAction::Set {
                list.enter(address, ttl, tick);
            }
            return (rule.action == RecentAction::Set) != rule.negated;
        };
        let matched = match rule.action {
            RecentAction::Set => true,
            RecentAction::Remove => {
                list.shelf.remove(at);
                return !rule.negated;
            }
            RecentAction::Check | RecentAction::Update => list.often_enough(at, rule, tick),
        } != rule.negated;
        let refreshed = match rule.action {
            RecentAction::Set => true,
            RecentAction::Update => matched,
            _ => false,
        };
        if rule.reap {
            list.reap(since(rule, tick), refreshed.then_some(at));
        }
        if refreshed {
            list.refresh(at, tick);
            list.shelf.value_mut(at).ttl = ttl;
        }
        matched
    }

    /// Enters an address by hand, or refreshes it.
    pub fn add(&self, family: Family, bits: u128, now: Nanos) {
        let list = &mut *self.list.lock();
        let address = Address { family, bits };
        match list.find(&address, 0) {
            Some(at) => list.refresh(at, ticks(now)),
            None => list.enter(address, 0, ticks(now)),
        }
    }

    /// Takes an address off; whether it was there.
    pub fn remove(&self, family: Family, bits: u128) -> bool {
        let list = &mut *self.list.lock();
        let found = list.find(&Address { family, bits }, 0);
        found.inspect(|&at| list.shelf.remove(at)).is_some()
    }

    /// Forgets every address.
    pub fn flush(&self) {
        self.list.lock().shelf.clear();
    }

    /// All addresses, the one that was not seen longest first.
    pub fn list(&self) -> Vec<Seen> {
        let (mut found, mut from) = (Vec::new(), 0);
        loop {
            found.reserve(PAGE);
            let list = self.list.lock();
            let Some(page) = list.shelf.page(from, PAGE) else { break };
            found.extend(page.map(|(turn, at)| (turn, list.seen(at))));
            from += PAGE;
        }
        // Whoever was seen again meanwhile may be there as of before.
        found.sort_by_key(|(turn, _)| *turn);
        found.into_iter().map(|(_, seen)| seen).collect()
    }

    /// Puts addresses from elsewhere behind those that are there, as far as they fit
    /// (times as well: the last ones). Returns how many.
    pub fn restore(&self, seen: &[Seen]) -> usize {
        let list = &mut *self.list.lock();
        let mut restored = 0;
        for one in seen {
            let address = Address { family: one.family, bits: one.address };
            let kept = one.times.len();
            if kept == 0 || one.index == 0 || one.index as usize > kept {
                continue;
            }
            let entry = Entry { ttl: one.ttl, index: 0, count: 0 };
            let Some(at) = list.shelf.insert(address, entry) else { break };
            // From the oldest to the last, which stands before `index`.
            let in_order = (0..kept).map(|step| one.times[(one.index as usize + step) % kept]);
            let skipped = kept.saturating_sub(list.times as usize);
            in_order.skip(skipped).for_each(|time| list.stamp(at, time));
            restored += 1;
        }
        restored
    }
}

/// The tick before which times do not count. The kernel's product has 32 bits.
fn since(rule: &RecentRule, tick: u64) -> u64 {
    tick.wrapping_sub(u64::from(rule.seconds.wrapping_mul(HZ as u32)))
}

/// Whether `a` lies after `b`, on a clock that wraps.
fn after(a: u64, b: u64) -> bool {
    (b.wrapping_sub(a) as i64) < 0
}

impl List {
    /// The first entry of an address, of that TTL where both know theirs.
    fn find(&self, address: &Address, ttl: u8) -> Option<u32> {
        self.shelf.find(address, |entry| ttl == entry.ttl || ttl == 0 || entry.ttl == 0)
    }

    fn enter(&mut self, address: Address, ttl: u8, tick: u64) {
        let entry = Entry { ttl, index: 0, count: 0 };
        let placed = self.shelf.insert(address, entry).or_else(|| {
            self.shelf.oldest().inspect(|&oldest| self.shelf.remove(oldest));
            self.shelf.insert(address, entry)
        });
        if let Some(at) = placed {
            self.stamp(at, tick);
        }
    }

    fn refresh(&mut self, at: u32, tick: u64) {
        self.stamp(at, tick);
        self.shelf.touch(at);
    }

    fn stamp(&mut self, at: u32, tick: u64) {
        let times = self.times;
        let entry = self.shelf.value_mut(at);
        entry.index &= times - 1;
        self.stamps[at as usize * times as usize + entry.index as usize] = tick;
        entry.index += 1;
        entry.count = entry.count.max(entry.index);
    }

    fn stamps(&self, at: u32) -> &[u64] {
        let first = at as usize * self.times as usize;
        &self.stamps[first..first + self.shelf.value(at).count as usize]
    }

    /// Whether the address was seen as often, as lately as the rule asks.
    fn often_enough(&self, at: u32, rule: &RecentRule, tick: u64) -> bool {
        let since = since(rule, tick);
        let counts = |stamp: &&u64| rule.seconds == 0 || !after(since, **stamp);
        let wanted = rule.hits.max(1) as usize;
        self.stamps(at).iter().filter(counts).take(wanted).count() == wanted
    }

    /// Forgets the oldest address if it was last seen before `since`, unless it is `kept`.
    fn reap(&mut self, since: u64, kept: Option<u32>) {
        let Some(oldest) = self.shelf.oldest() else { return };
        let last = self.stamps(oldest)[self.shelf.value(oldest).index as usize - 1];
        if kept != Some(oldest) && after(since, last) {
            self.shelf.remove(oldest);
        }
    }

    fn seen(&self, at: u32) -> Seen {
        let Address { family, bits } = self.shelf.key(at);
        let Entry { ttl, index, .. } = *self.shelf.value(at);
        Seen { family, address: bits, ttl, index, times: self.stamps(at).to_vec() }
    }
}

impl std::fmt::Display for Seen {
    /// As in `/proc/net/xt_recent`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.family {
            Family::V4 => write!(f, "src={}", IpAddr::from((self.address as u32).to_be_bytes()))?,
            Family::V6 => {
                let groups = self.address.to_be_bytes();
                let groups = groups.chunks(2).map(|two| format!("{:02x}{:02x}", two[0], two[1]));
                write!(f, "src={}", groups.collect::<Vec<_>>().join(":"))?;
            }
        }
        let (ttl, last, index) = (self.ttl, self.last(), self.index);
        write!(f, " ttl: {ttl} last_seen: {last} oldest_pkt: {index}")?;
        let times = self.times.iter().map(|time| format!(" {time}"));
        f.write_str(&times.collect::<Vec<_>>().join(","))
    }
}

/// A rule and its list.
#[derive(Clone, Debug)]
pub struct RecentMatch {
    /// The rule.
    pub rule: RecentRule,
    /// The list.
    pub table: Arc<RecentTable>,
}

impl RecentMatch {
    pub(super) fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        let parsed = &*packet.parsed;
        let bits = if self.rule.destination { parsed.dst } else { parsed.src };
        // The TTL before it was forwarded, which netfilter takes for one more wherever a
        // packet on its way out has no socket.
        let forwarded = match packet.hook {
            Hook::Forward => true,
            Hook::Output | Hook::Postrouting => packet.sender == Sender::Nobody,
            _ => false,
        };
        let ttl = parsed.ttl.wrapping_add(u8::from(forwarded));
        let tick = ticks(packet.now);
        self.table.ask(&self.rule, parsed.family, bits, ttl, tick).into()
    }

    pub(super) fn has_effect(&self) -> bool {
        self.rule.action != RecentAction::Check || self.rule.reap
    }
}
