//! Sets as the oracle sees them: plain lists, searched from end to end.

mod asked;

use std::collections::HashMap;

use dataplane::clock::Nanos;
use dataplane::packet::Family;
use dataplane::sets::{
    CountTest, CreateSpec, Cursor, Element, Registry, SetName, SetType, Sides, SkbInfo,
};

use super::Subject;
use super::matching::{Actual, At, Compared};
use crate::model::sets::NamedSet;
use crate::model::{SetSpec, SetTargetSpec};
use asked::{asked, network, same, width};

/// Every set.
#[derive(Clone, Debug, Default)]
pub(super) struct Sets {
    known: HashMap<SetName, Known>,
}

#[derive(Clone, Debug)]
struct Known {
    spec: CreateSpec,
    entries: Vec<Entry>,
}

/// An element, or a member of a list.
#[derive(Clone, Debug)]
struct Entry {
    element: Element,
    nomatch: bool,
    /// When it expires, if ever.
    deadline: Option<Nanos>,
    /// Of an address without its link-layer address: seconds from when it is known.
    waiting_s: Option<u32>,
    packets: u64,
    bytes: u64,
    skb: SkbInfo,
}

/// How one set is asked.
#[derive(Clone, Copy)]
struct Question {
    sides: Sides,
    return_nomatch: bool,
    update: bool,
    update_members: bool,
    packets: Option<CountTest>,
    bytes: Option<CountTest>,
}

/// Entries that are copied from a set at a time.
const CHUNK: usize = 4096;

impl Sets {
    /// What the sets hold now.
    pub(super) fn of(registry: &Registry, now: Nanos) -> Self {
        let mut known = HashMap::new();
        for slot in registry.list() {
            let set = slot.set();
            let spec = *set.spec();
            let (mut entries, mut at) = (Vec::new(), Some(Cursor::default()));
            while let Some(from) = at {
                let (some, next) = set.entries(from, CHUNK, now);
                at = next;
                entries.extend(some.into_iter().map(|entry| {
                    let (element, extras) = (entry.element, entry.extras);
                    let waits = spec.kind == SetType::BitmapIpMac && element.mac.is_none();
                    let left = extras.timeout_s.filter(|left| *left > 0 && !waits);
                    Entry {
                        element,
                        nomatch: extras.nomatch,
                        deadline: left.map(|left| now + Nanos::from_secs(left.into())),
                        waiting_s: extras.timeout_s.filter(|_| waits),
                        packets: extras.packets.unwrap_or_default(),
                        bytes: extras.bytes.unwrap_or_default(),
                        skb: extras.skb.unwrap_or_default(),
                    }
                }));
            }
            known.insert(slot.name(), Known { spec, entries });
        }
        Self { known }
    }

    #[cfg(test)]
    pub(super) fn listed(&self, now: Nanos) -> Vec<String> {
        use dataplane::sets::{Entry as Listed, Extras};
        let mut all = Vec::new();
        for (name, known) in &self.known {
            let spec = known.spec;
            for entry in known.entries.iter().filter(|entry| !entry.is_over(now)) {
                let left = match (entry.deadline, entry.waiting_s) {
                    (Some(deadline), _) => ((deadline - now).as_secs() as u32).max(1),
                    (None, waiting) => waiting.unwrap_or(0),
                };
                let skb =
                    SkbInfo { mark: entry.skb.mark.filter(|mark| *mark != (0, 0)), ..entry.skb };
                let extras = Extras {
                    timeout_s: spec.timeout.map(|_| left),
                    packets: spec.counters.then_some(entry.packets),
                    bytes: spec.counters.then_some(entry.bytes),
                    skb: spec.skbinfo.then_some(skb),
                    nomatch: entry.nomatch,
                    comment: None,
                };
                let listed = Listed { element: entry.element, extras };
                all.push(format!("{name} {listed:?}"));
            }
        }
        all.sort();
        all
    }

    pub(super) fn compare(
        &mut self,
        at: At,
        wanted: &SetSpec,
        subject: &mut Subject<'_>,
    ) -> Compared {
        let question = Question {
            sides: wanted.set.sides,
            return_nomatch: wanted.return_nomatch,
            update: !wanted.keep_counters,
            update_members: !wanted.keep_subcounters,
            packets: wanted.packets,
            bytes: wanted.bytes,
        };
        let found = self.ask(wanted.set.name, question, subject, &mut None);
        at.need(found != wanted.negated, "--match-set", Actual::Absent)
    }

    pub(super) fn apply(&mut self, target: &SetTargetSpec, subject: &mut Subject<'_>) {
        if let Some(set) = target.add {
            // The kernel keeps at most this many seconds.
            let timeout_s = target.timeout_s.map(|seconds| seconds.min(2_147_483));
            self.add(set, &SetTargetSpec { timeout_s, ..target.clone() }, subject);
        }
        if let Some(set) = target.del {
            self.del(set, subject);
        }
        let Some(map) = target.map else { return };
        let question = Question {
            sides: map.set.sides,
            return_nomatch: false,
            update: true,
            update_members: true,
            packets: None,
            bytes: None,
        };
        let mut skb = None;
        if self.ask(map.set.name, question, subject, &mut skb) {
            let skb = skb.unwrap_or_default();
            let (mark, mask) = skb.mark.unwrap_or_default();
            if map.mark {
                subject.mark = (subject.mark & !mask) ^ mark;
            }
            if map.priority {
                subject.priority = skb.priority.unwrap_or_default();
            }
        }
    }

    /// The set, if packets of the family can be in it and enough sides are named.
    fn usable(&mut self, name: SetName, sides: Sides, family: Family) -> Option<&mut Known> {
        let known = self.known.get_mut(&name)?;
        let of_family = !known.spec.kind.has_addresses() || known.spec.family == family;
        (of_family && sides.len() >= known.spec.kind.parts().len()).then_some(known)
    }

    fn ask(
        &mut self,
        name: SetName,
        question: Question,
        subject: &Subject<'_>,
        skb: &mut Option<SkbInfo>,
    ) -> bool {
        let Some(known) = self.usable(name, question.sides, subject.packet.family) else {
            return false;
        };
        if known.spec.kind != SetType::ListSet {
            return known.ask(question, subject, skb);
        }
        let members: Vec<_> = known.entries.iter().map(|entry| entry.element.set).collect();
        for (at, member) in members.into_iter().enumerate() {
            let Some(member) = member else { continue };
            let update = question.update && question.update_members;
            let inner = Question { update, packets: None, bytes: None, ..question };
            if self.ask(member, inner, subject, skb) {
                let Some(known) = self.known.get_mut(&name) else { return false };
                let spec = known.spec;
                if known.entries[at].holds(&spec, question, subject, skb) {
                    return true;
                }
            }
        }
        false
    }

    /// The members of a list that still stand in it; for another set, itself.
    fn leaves(&mut self, set: NamedSet, subject: &Subject<'_>) -> Vec<SetName> {
        let Some(known) = self.usable(set.name, set.sides, subject.packet.family) else {
            return Vec::new();
        };
        match known.spec.kind {
            SetType::ListSet => {
                let current = known.entries.iter().filter(|entry| !entry.is_over(subject.now));
                current.filter_map(|entry| entry.element.set).collect()
            }
            _ => vec![set.name],
        }
    }

    fn add(&mut self, set: NamedSet, target: &SetTargetSpec, subject: &Subject<'_>) {
        for name in self.leaves(set, subject) {
            let known = self.usable(name, set.sides, subject.packet.family);
            if known.is_some_and(|known| known.add(set.sides, target, subject)) {
                return;
            }
        }
    }

    fn del(&mut self, set: NamedSet, subject: &Subject<'_>) {
        for name in self.leaves(set, subject) {
            let known = self.usable(name, set.sides, subject.packet.family);
            if known.is_some_and(|known| known.del(set.sides, subject)) {
                return;
            }
        }
    }
}

fn counts(test: Option<CountTest>, count: u64) -> bool {
    match test {
        None => true,
        Some(CountTest::Equal(value)) => count == value,
        Some(CountTest::NotEqual(value)) => count != value,
        Some(CountTest::Less(value)) => count < value,
        Some(CountTest::Greater(value)) => count > value,
    }
}

impl Entry {
    fn is_over(&self, now: Nanos) -> bool {
        self.deadline.is_some_and(|deadline| deadline < now)
    }

    /// What is left to be asked once the element is the packet's.
    fn holds(
        &mut self,
        spec: &CreateSpec,
        question: Question,
        subject: &Subject<'_>,
        skb: &mut Option<SkbInfo>,
    ) -> bool {
        if self.is_over(subject.now) {
            return false;
        }
        if spec.counters {
            if question.update {
                self.packets = self.packets.wrapping_add(1);
                self.bytes = self.bytes.wrapping_add(u64::from(subject.packet.length));
            }
            if !counts(question.packets, self.packets) || !counts(question.bytes, self.bytes) {
                return false;
            }
        }
        if spec.skbinfo {
            *skb = Some(self.skb);
        }
        true
    }
}

impl Known {
    fn ask(
        &mut self,
        question: Question,
        subject: &Subject<'_>,
        skb: &mut Option<SkbInfo>,
    ) -> bool {
        let (spec, family) = (self.spec, self.spec.family);
        let Some(asked) = asked(&spec, question.sides, subject) else { return false };
        if spec.kind == SetType::HashIp && asked.ip == 0 {
            return false;
        }
        // The more specific networks first, the first network before the second.
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        let lengths = |at: usize| (self.entries[at].element.cidr, self.entries[at].element.cidr2);
        order.sort_by_key(|at| std::cmp::Reverse(lengths(*at)));
        let mut blocked = None;
        for at in order {
            let entry = &mut self.entries[at];
            let there = entry.element;
            if spec.kind == SetType::HashNetIface {
                let covers =
                    there.cidr.is_some_and(|cidr| network(asked.ip, cidr, family) == there.ip);
                let bridge = there.iface.is_some_and(|iface| iface.physdev);
                // The kernel asks network by network whether any other interface was there.
                if blocked.is_some_and(|length| there.cidr != length) {
                    break;
                }
                if covers && !bridge {
                    blocked = Some(there.cidr);
                }
            }
            if !same(&spec, &there, &asked) {
                continue;
            }
            let fills = spec.kind == SetType::BitmapIpMac && there.mac.is_none();
            if fills {
                entry.fill(&spec, asked.mac, subject);
                return true;
            }
            if entry.holds(&spec, question, subject, skb) {
                let nomatch = entry.nomatch;
                return nomatch == (question.return_nomatch && spec.kind.networks() > 0);
            }
            // One of this interface that does not hold: wider networks are asked again.
            blocked = None;
        }
        false
    }

    /// What a packet adds or deletes: under the longest prefixes that are there.
    fn meant(&self, sides: Sides, subject: &Subject<'_>) -> Option<Element> {
        let (kind, family) = (self.spec.kind, self.spec.family);
        let mut meant = asked(&self.spec, sides, subject)?;
        if kind == SetType::HashIp && meant.ip == 0 {
            return None;
        }
        let longest = width(family) as u8;
        let first = self.entries.iter().filter_map(|entry| entry.element.cidr).max();
        let second = self.entries.iter().filter_map(|entry| entry.element.cidr2).max();
        use dataplane::sets::Part::Net;
        if kind.parts().first() == Some(&Net) {
            meant.cidr = Some(first.unwrap_or(longest));
            meant.ip = network(meant.ip, first.unwrap_or(longest), family);
        }
        if kind.parts().len() > 1 && kind.parts().last() == Some(&Net) {
            meant.cidr2 = Some(second.unwrap_or(longest));
            meant.ip2 = network(meant.ip2, second.unwrap_or(longest), family);
        }
        Some(meant)
    }

    fn position(&self, meant: &Element) -> Option<usize> {
        self.entries.iter().position(|entry| {
            let there = &entry.element;
            (there.cidr, there.cidr2) == (meant.cidr, meant.cidr2)
                && (there.ip, there.ip2) == (meant.ip, meant.ip2)
                && same(&self.spec, there, meant)
        })
    }

    fn add(&mut self, sides: Sides, target: &SetTargetSpec, subject: &Subject<'_>) -> bool {
        let now = subject.now;
        let Some(meant) = self.meant(sides, subject) else { return false };
        let spec = self.spec;
        if spec.kind == SetType::BitmapIpMac {
            return self.add_mac(meant, target, subject);
        }
        let seconds = target.timeout_s.or(spec.timeout).filter(|_| spec.timeout.is_some());
        let deadline = seconds.filter(|s| *s > 0).map(|s| now + Nanos::from_secs(s.into()));
        let entry = Entry {
            element: meant,
            nomatch: false,
            deadline,
            waiting_s: None,
            packets: 1,
            bytes: u64::from(subject.packet.length),
            skb: SkbInfo::default(),
        };
        if let Some(at) = self.position(&meant) {
            if !target.exist && !self.entries[at].is_over(now) {
                return false;
            }
            let element = self.entries[at].element;
            self.entries[at] = Entry { element, ..entry };
            return true;
        }
        if spec.kind.is_hash() && self.entries.len() >= spec.maxelem as usize {
            self.entries.retain(|entry| !entry.is_over(now));
            if self.entries.len() >= spec.maxelem as usize {
                return false;
            }
        }
        if spec.kind == SetType::HashNetIface {
            let net = |entry: &&Entry| {
                let there = entry.element;
                (there.ip, there.cidr) == (meant.ip, meant.cidr)
                    && there.iface.is_some_and(|iface| !iface.physdev)
            };
            if self.entries.iter().filter(net).count() >= 64 {
                return false;
            }
        }
        self.entries.push(entry);
        true
    }

    fn add_mac(&mut self, meant: Element, target: &SetTargetSpec, subject: &Subject<'_>) -> bool {
        let (spec, now) = (self.spec, subject.now);
        let Some(at) = self.entries.iter().position(|entry| entry.element.ip == meant.ip) else {
            let seconds = target.timeout_s.or(spec.timeout).filter(|s| *s > 0);
            self.entries.push(Entry {
                element: meant,
                nomatch: false,
                deadline: seconds
                    .filter(|_| spec.timeout.is_some())
                    .map(|s| now + Nanos::from_secs(s.into())),
                waiting_s: None,
                packets: 1,
                bytes: u64::from(subject.packet.length),
                skb: SkbInfo::default(),
            });
            return true;
        };
        let entry = &mut self.entries[at];
        if entry.element.mac.is_none() {
            let said = target.timeout_s.filter(|seconds| Some(*seconds) != spec.timeout);
            entry.waiting_s = said.or(entry.waiting_s);
            entry.fill(&spec, meant.mac, subject);
            return true;
        }
        if !target.exist && !entry.is_over(now) {
            return false;
        }
        if target.exist {
            entry.element.mac = meant.mac;
        }
        entry.waiting_s = target.timeout_s.or(spec.timeout);
        let mac = entry.element.mac;
        entry.fill(&spec, mac, subject);
        true
    }

    fn del(&mut self, sides: Sides, subject: &Subject<'_>) -> bool {
        let Some(meant) = self.meant(sides, subject) else { return false };
        let by_address = self.spec.kind == SetType::BitmapIpMac;
        let at = match by_address {
            true => self.entries.iter().position(|entry| entry.element.ip == meant.ip),
            false => self.position(&meant),
        };
        let Some(at) = at else { return false };
        let over = self.entries[at].is_over(subject.now);
        if !over || !self.spec.kind.is_hash() {
            // A hash leaves what expired to its sweep, and its prefix length counts till then.
            self.entries.remove(at);
        }
        !over
    }
}

impl Entry {
    /// A packet tells the link-layer address; its time begins.
    fn fill(&mut self, spec: &CreateSpec, mac: Option<[u8; 6]>, subject: &Subject<'_>) {
        self.element.mac = mac;
        let seconds = self.waiting_s.take().filter(|s| *s > 0 && spec.timeout.is_some());
        self.deadline = seconds.map(|s| subject.now + Nanos::from_secs(s.into()));
        self.packets = 1;
        self.bytes = u64::from(subject.packet.length);
        self.skb = SkbInfo::default();
    }
}
