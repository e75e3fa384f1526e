//! Which rules are in force, which tables there are, and what was counted.

use std::sync::Arc;

use dataplane::clock::monotonic;
use dataplane::fib::Network;
use dataplane::packet::{Family, Mac, PortId};
use dataplane::port::afxdp::BpfError;
use dataplane::port::afxdp::blocklist::{
    BYTES_OF_ROOM, BlockRule, Blocked, Meaning, RULES, Remains, bytes_of,
};
use dataplane::sets::{Cursor, Element, Follower, Set, SetType};
use dataplane::snapshot::Snapshot;

use super::{Maps, has_nets, prefix};
use crate::api::protocol::{BlockRuleInfo, BlocklistInfo, FamilyName};
use crate::compile::blocklist::{Candidate, survey};

/// Elements that are pushed, or buried, before others get their turn.
const PIECE: usize = 1024;

/// A set's copy in the maps.
#[derive(Debug)]
struct Table {
    number: u32,
    set: Arc<Set>,
    /// What is still to be copied.
    rest: Option<Cursor>,
    /// Elements that found no room.
    refused: u64,
    /// Whether an exception was ever among them.
    exceptions: bool,
}

impl Table {
    /// Whether it has all of its set.
    fn is_whole(&self) -> bool {
        self.rest.is_none() && self.refused == 0
    }
    /// Whether what it holds is in its set: an exception that is missing makes it too wide.
    fn may_serve(&self) -> bool {
        self.rest.is_none() && (self.refused == 0 || !self.exceptions)
    }
}

/// A rule that drops what is in a set.
#[derive(Debug)]
struct Placed {
    rule: Candidate,
    /// Its place in the maps, if it is proven and there is one.
    at: Option<usize>,
    /// The table by which it is in force.
    table: Option<u32>,
    /// Whether it was ever in force under this policy: then it may have counted.
    counts: bool,
    /// Why it is not in force.
    why: Option<String>,
    /// What it dropped under this policy.
    dropped: Blocked,
}

/// The state of all that.
#[derive(Debug)]
pub(super) struct State {
    maps: Box<dyn Maps>,
    policy: Option<Arc<Snapshot>>,
    rules: Vec<Placed>,
    tables: Vec<Table>,
    /// Of the last table.
    number: u32,
    /// What the maps had counted when it was last looked at, by family, place and port.
    seen: [[Vec<Blocked>; RULES]; 2],
    ports: Vec<Blocked>,
    macs: Vec<Option<Mac>>,
    work: bool,
    /// Whether tables have gone that are in the maps still, and their keys.
    dead: bool,
    remains: Option<Remains>,
    /// Why nothing is pushed any more.
    broken: Option<String>,
}

/// Why a set cannot be pushed, if it cannot.
pub(super) fn unsuitable(set: &Set) -> Option<&'static str> {
    let spec = set.spec();
    match spec.kind {
        SetType::HashIp | SetType::HashNet => {}
        _ => return Some("only sets of type hash:ip and hash:net are pushed"),
    }
    if spec.netmask.is_some() || spec.bitmask.is_some() {
        return Some("its set has a mask");
    }
    if spec.timeout.is_some() {
        return Some("elements of its set expire");
    }
    if spec.counters {
        return Some("elements of its set count");
    }
    if spec.forceadd {
        return Some("elements of its set make room for others (forceadd)");
    }
    set.is_changed_by_packets().then_some("packets change its set")
}

fn is(table: &Table, set: &Set) -> bool {
    std::ptr::eq(Arc::as_ptr(&table.set), set)
}

fn index(family: Family) -> usize {
    usize::from(family == Family::V6)
}

fn add(to: &mut Blocked, more: Blocked) {
    to.packets += more.packets;
    to.bytes += more.bytes;
    to.frame_bytes += more.frame_bytes;
}

impl State {
    pub(super) fn new(maps: Box<dyn Maps>, ports: usize) -> Self {
        let none = || vec![Blocked::default(); ports];
        Self {
            maps,
            policy: None,
            rules: Vec::new(),
            tables: Vec::new(),
            number: 0,
            seen: [0, 1].map(|_| [0; RULES].map(|_| none())),
            ports: none(),
            macs: vec![None; ports],
            work: false,
            dead: false,
            remains: None,
            broken: None,
        }
    }

    pub(super) fn has_work(&self) -> bool {
        let can = self.policy.is_some() && self.broken.is_none();
        can && (self.work || self.dead || self.remains.is_some())
    }

    /// A map has refused what it cannot refuse, as far as is known.
    fn check(&mut self, result: Result<(), BpfError>) -> bool {
        let Err(error) = result else { return true };
        if self.broken.is_none() {
            tracing::error!("the blocklist: {error}; the engine drops from now on");
            self.broken = Some(error.to_string());
            // Without the ports' addresses nobody is blocked.
            for port in 0..self.macs.len() {
                self.macs[port] = None;
                let _ = self.maps.set_mac(PortId(port as u8), None);
            }
            self.withdraw_all();
        }
        false
    }

    /// Takes a rule away.
    fn withdraw(&mut self, which: usize) {
        let Placed { rule, at: Some(at), table: table @ Some(_), .. } = &mut self.rules[which]
        else {
            return;
        };
        *table = None;
        let (family, at) = (rule.family, *at);
        let done = self.maps.set_rule(family, at, None);
        self.work = true;
        self.check(done);
    }

    fn withdraw_all(&mut self) {
        (0..self.rules.len()).rev().for_each(|which| self.withdraw(which));
    }

    /// Takes away the rules of a table, if `own`, and all that follow one of them.
    fn withdraw_by(&mut self, number: u32, own: bool) {
        for family in [Family::V4, Family::V6] {
            let of_family = |it: &Placed| it.rule.family == family;
            let by = |it: &Placed| of_family(it) && it.table == Some(number);
            let Some(first) = self.rules.iter().position(by) else { continue };
            let from = if own { first } else { first + 1 };
            for which in (from..self.rules.len()).rev() {
                if of_family(&self.rules[which]) {
                    self.withdraw(which);
                }
            }
        }
    }

    /// Another policy is about to be in force: this one's rules go, and all is counted.
    pub(super) fn leave(&mut self) {
        self.withdraw_all();
        if self.rules.iter().any(|it| it.counts)
            && let Err(error) = self.maps.quiesce()
        {
            tracing::error!("the blocklist: {error}: some packets may have been counted nowhere");
        }
        self.fold();
        self.rules.clear();
        self.policy = None;
    }

    /// A policy is in force.
    pub(super) fn enter(&mut self, snapshot: Arc<Snapshot>) {
        let mut places = [0; 2];
        self.rules.clear();
        for rule in survey(&snapshot.policy, self.ports.len()) {
            let next: &mut usize = &mut places[index(rule.family)];
            let (mut at, mut why) = (None, None);
            match rule.proven {
                Ok(_) if *next < RULES => {
                    at = Some(*next);
                    *next += 1;
                }
                Ok(_) => why = Some(format!("{RULES} rules are before it, which is the most")),
                Err(hindrance) => why = Some(hindrance.to_string()),
            }
            let dropped = Blocked::default();
            self.rules.push(Placed { rule, at, table: None, counts: false, why, dropped });
        }
        self.policy = Some(snapshot);
        self.work = true;
    }

    /// Counts what was dropped and not counted yet.
    pub(super) fn fold(&mut self) {
        let Some(policy) = &self.policy else { return };
        for placed in self.rules.iter_mut().filter(|it| it.counts) {
            let (family, Some(at)) = (placed.rule.family, placed.at) else { continue };
            for (port, seen) in self.seen[index(family)][at].iter_mut().enumerate() {
                let Ok(now) = self.maps.count(family, at, PortId(port as u8)) else { continue };
                let new = Blocked {
                    packets: now.packets.wrapping_sub(seen.packets),
                    bytes: now.bytes.wrapping_sub(seen.bytes),
                    frame_bytes: now.frame_bytes.wrapping_sub(seen.frame_bytes),
                };
                *seen = now;
                policy.elsewhere().add(placed.rule.counter, new.packets, new.bytes);
                add(&mut placed.dropped, new);
                add(&mut self.ports[port], new);
            }
        }
    }

    pub(super) fn on_port(&self, port: PortId) -> Blocked {
        self.ports.get(port.index()).copied().unwrap_or_default()
    }

    /// Puts an element into a table; whether the rules that use it may go on.
    fn put(&mut self, which: usize, element: &Element, nomatch: bool) -> bool {
        let table = &mut self.tables[which];
        table.exceptions |= nomatch;
        let meaning = if nomatch { Meaning::Excepted } else { Meaning::Listed };
        match self.maps.put(table.number, prefix(&table.set, element), meaning) {
            Ok(()) => true,
            Err(BpfError::Full(_)) => {
                table.refused += 1;
                true
            }
            Err(error) => self.check(Err(error)),
        }
    }

    pub(super) fn added(&mut self, set: &Set, element: &Element, nomatch: bool) {
        let Some(which) = self.tables.iter().position(|it| is(it, set)) else { return };
        if !self.put(which, element, nomatch) {
            return;
        }
        let table = &self.tables[which];
        let (number, whole, may_serve) = (table.number, table.is_whole(), table.may_serve());
        if !whole {
            self.withdraw_by(number, !may_serve);
        }
    }

    pub(super) fn removed(&mut self, set: &Set, element: &Element) {
        let Some(table) = self.tables.iter().find(|it| is(it, set)) else { return };
        let removed = self.maps.remove(table.number, prefix(set, element));
        self.check(removed.map(drop));
    }

    pub(super) fn cleared(&mut self, set: &Set) {
        // Another set may be in its place, that could not be pushed before.
        self.work = true;
        let Some(which) = self.tables.iter().position(|it| is(it, set)) else { return };
        self.withdraw_by(self.tables[which].number, true);
        self.tables.swap_remove(which);
        (self.dead, self.remains) = (true, None);
    }

    pub(super) fn forget_macs(&mut self, network: &Network) {
        for (port, mac) in self.macs.iter_mut().enumerate() {
            let next = network.ports().get(port).map(|info| info.mac);
            if mac.is_some() && *mac != next {
                *mac = None;
                if let Err(error) = self.maps.set_mac(PortId(port as u8), None) {
                    tracing::error!("the blocklist: {error}");
                }
            }
        }
    }

    pub(super) fn set_macs(&mut self, network: &Network) {
        for (port, info) in network.ports().iter().enumerate().take(self.macs.len()) {
            let mac = Some(info.mac).filter(|mac| *mac != Mac::default());
            if self.broken.is_none() && self.macs[port] != mac {
                self.macs[port] = mac;
                let done = self.maps.set_mac(PortId(port as u8), mac);
                self.check(done);
            }
        }
    }

    /// Does a piece of the work that there is. Whether there is more.
    pub(super) fn step(&mut self, follower: &Arc<dyn Follower>) -> bool {
        if !self.has_work() {
            return false;
        }
        // What is gone makes room for what comes.
        if std::mem::take(&mut self.dead) {
            let alive: Vec<u32> = self.tables.iter().map(|table| table.number).collect();
            match self.maps.remains(&|number| alive.contains(&number)) {
                Ok(remains) => self.remains = Some(remains),
                Err(error) => tracing::warn!("the blocklist: {error}; old entries stay"),
            }
        }
        if let Some(mut remains) = self.remains.take() {
            match self.maps.bury(&mut remains, PIECE) {
                Ok(true) => self.remains = Some(remains),
                Ok(false) => self.retry(),
                Err(error) => tracing::warn!("the blocklist: {error}; old entries stay"),
            }
        } else if self.work {
            self.work = self.place(follower);
            if !self.work {
                self.drop_unused();
            }
        }
        self.has_work()
    }

    /// There is room again for what found none.
    fn retry(&mut self) {
        for table in self.tables.iter_mut().filter(|table| table.refused > 0) {
            (table.rest, table.refused) = (Some(Cursor::default()), 0);
            self.work = true;
        }
    }

    /// Tables of a policy that is gone, or of sets that are not pushed any more.
    fn drop_unused(&mut self) {
        let placed = self.rules.iter().filter(|it| it.at.is_some());
        let sets: Vec<_> = placed.map(|it| it.rule.slot.set()).collect();
        let before = self.tables.len();
        self.tables.retain(|table| sets.iter().any(|set| Arc::ptr_eq(set, &table.set)));
        self.dead |= self.tables.len() < before;
    }

    /// Puts the next rule in force, or a piece of its set into its table. Whether there may
    /// be more.
    fn place(&mut self, follower: &Arc<dyn Follower>) -> bool {
        // Ports on which a rule before is not carried out, or not wholly.
        let mut closed = [0_u64; 2];
        for which in 0..self.rules.len() {
            let Placed { rule, at: Some(at), .. } = &self.rules[which] else { continue };
            let (family, at) = (rule.family, *at);
            let (Ok(ports), slot) = (rule.proven, Arc::clone(&rule.slot)) else { continue };
            let closed = &mut closed[index(family)];
            let set = slot.set();
            set.follow(follower);
            // It may have been swapped before it was followed.
            if !Arc::ptr_eq(&slot.set(), &set) {
                return true;
            }
            let hindrance = match unsuitable(&set) {
                Some(why) => Some(why),
                None if ports & *closed != 0 => Some("a rule before it is not, or not all, pushed"),
                None => None,
            };
            if let Some(why) = hindrance {
                self.rules[which].why = Some(why.to_owned());
                self.withdraw(which);
                *closed |= ports;
                continue;
            }
            let table = self.table(&set);
            if self.tables[table].rest.is_some() {
                self.rules[which].why = Some("its set is being pushed".to_owned());
                self.fill(table);
                return true;
            }
            let (number, whole) = (self.tables[table].number, self.tables[table].is_whole());
            if !self.tables[table].may_serve() {
                let why = "not all of its set has room, and there are exceptions in it";
                self.rules[which].why = Some(why.to_owned());
                self.withdraw(which);
                *closed |= ports;
                continue;
            }
            if !whole {
                *closed |= ports;
            }
            if self.rules[which].table == Some(number) {
                continue;
            }
            let nets = has_nets(&set);
            return self.put_in_force(which, at, BlockRule { table: number, nets, ports });
        }
        false
    }

    /// Whether there may be more to do.
    fn put_in_force(&mut self, which: usize, at: usize, to: BlockRule) -> bool {
        // Whatever was at this place, or is off before it, no packet is at it any more.
        if let Err(error) = self.maps.quiesce() {
            self.rules[which].why = Some(format!("the kernel does not tell who is done: {error}"));
            return false;
        }
        let family = self.rules[which].rule.family;
        let done = self.maps.set_rule(family, at, Some(to));
        let placed = &mut self.rules[which];
        (placed.table, placed.counts, placed.why) = (Some(to.table), true, None);
        self.check(done)
    }

    /// The set's table, perhaps a new one.
    fn table(&mut self, set: &Arc<Set>) -> usize {
        if let Some(known) = self.tables.iter().position(|table| Arc::ptr_eq(&table.set, set)) {
            return known;
        }
        self.number += 1;
        self.tables.push(Table {
            number: self.number,
            set: Arc::clone(set),
            rest: Some(Cursor::default()),
            refused: 0,
            exceptions: false,
        });
        self.tables.len() - 1
    }

    /// Copies a piece of a set into its table.
    fn fill(&mut self, which: usize) {
        let table = &mut self.tables[which];
        let Some(from) = table.rest else { return };
        let set = Arc::clone(&table.set);
        let (entries, next) = set.entries(from, PIECE, monotonic());
        table.rest = next;
        for entry in entries {
            if !self.put(which, &entry.element, entry.extras.nomatch) {
                return;
            }
        }
    }

    pub(super) fn info(&self) -> BlocklistInfo {
        let size = self.maps.size();
        let room: u64 = size.hosts.iter().map(|hosts| u64::from(*hosts) * BYTES_OF_ROOM).sum();
        let held = self.tables.iter().map(|table| {
            let count = u64::from(table.set.header().entries).saturating_sub(table.refused);
            let (hosts, nets) = if has_nets(&table.set) { (0, count) } else { (count, 0) };
            bytes_of(table.set.spec().family, hosts, nets)
        });
        BlocklistInfo {
            off: self.broken.clone(),
            room: size.hosts.into(),
            memory_bytes: room + held.sum::<u64>(),
            rules: self.rules.iter().map(|placed| self.told(placed)).collect(),
        }
    }

    fn told(&self, placed: &Placed) -> BlockRuleInfo {
        let Placed { rule, table, why, dropped, .. } = placed;
        let table = self.tables.iter().find(|it| Some(it.number) == *table);
        let held = |it: &Table| u64::from(it.set.header().entries).saturating_sub(it.refused);
        let refused = table.map_or(0, |table| table.refused);
        let lacks = || format!("{refused} elements have no room in the program");
        BlockRuleInfo {
            family: match rule.family {
                Family::V4 => FamilyName::V4,
                Family::V6 => FamilyName::V6,
            },
            table: rule.table.name().to_owned(),
            chain: rule.chain.to_string(),
            number: rule.number,
            set: rule.slot.name().to_string(),
            pushed: table.is_some(),
            elements: rule.slot.load().header().entries.into(),
            held: table.map_or(0, held),
            why: why.clone().or_else(|| (refused > 0).then(lacks)),
            packets: dropped.packets,
            bytes: dropped.bytes,
        }
    }
}
