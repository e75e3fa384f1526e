//! `-m set` and `-j SET`: packets against sets.

use std::sync::Arc;

use super::bitmap::Found;
use super::element::{Element, Extras};
use super::lookup::{self, Answer};
use super::probe::{self, PortNames, Sides};
use super::registry::Slot;
use super::set::{Body, Set};
use super::slab::{Ask, CountTest, Mapped};
use super::spec::CreateSpec;
use crate::packet::Family;
use crate::policy::eval::{Outcome, PacketView};

/// `-m set --match-set`.
#[derive(Clone, Debug)]
pub struct SetMatch {
    /// In which set.
    pub slot: Arc<Slot>,
    /// Which sides of the packet.
    pub sides: Sides,
    /// `! --match-set`.
    pub negated: bool,
    /// `--return-nomatch`: what lies in an exception is meant.
    pub return_nomatch: bool,
    /// Not `! --update-counters`.
    pub update_counters: bool,
    /// Not `! --update-subcounters`.
    pub update_subcounters: bool,
    /// `--packets-eq` and its kin.
    pub packets: Option<CountTest>,
    /// `--bytes-eq` and its kin.
    pub bytes: Option<CountTest>,
    /// Names of interfaces.
    pub names: Arc<PortNames>,
}

/// A set that SET changes or asks.
#[derive(Clone, Debug)]
pub struct Bound {
    /// Which set.
    pub slot: Arc<Slot>,
    /// Which sides of the packet.
    pub sides: Sides,
}

/// `--map-set`.
#[derive(Clone, Debug)]
pub struct MapSet {
    /// From which set.
    pub bound: Bound,
    /// `--map-mark`.
    pub mark: bool,
    /// `--map-prio`.
    pub priority: bool,
}

/// `-j SET`: adds, deletes, maps, in this order; the walk goes on.
#[derive(Clone, Debug)]
pub struct SetTarget {
    /// `--add-set`.
    pub add: Option<Bound>,
    /// `--exist`.
    pub exist: bool,
    /// `--timeout`, in seconds.
    pub timeout_s: Option<u32>,
    /// `--del-set`.
    pub del: Option<Bound>,
    /// `--map-set`.
    pub map: Option<MapSet>,
    /// Names of interfaces.
    pub names: Arc<PortNames>,
}

impl SetMatch {
    /// Whether the packet is in the set, as the options ask.
    pub fn evaluate(&self, packet: &PacketView<'_>) -> Outcome {
        let question = Question {
            sides: self.sides,
            names: &self.names,
            return_nomatch: self.return_nomatch,
            update_members: self.update_subcounters,
            ask: Ask {
                now: packet.now,
                bytes: u64::from(packet.parsed.l3_len),
                update: self.update_counters,
                packets: self.packets,
                octets: self.bytes,
            },
        };
        let found = question.put_to(&self.slot, packet, &mut Mapped::default());
        (found != self.negated).into()
    }

    /// Always: a set may count what it is asked, or be swapped for one that does.
    pub fn has_effect(&self) -> bool {
        true
    }
}

impl SetTarget {
    /// Carries it out.
    pub fn apply(&self, packet: &mut PacketView<'_>) {
        if let Some(bound) = &self.add {
            self.add(bound, packet);
        }
        if let Some(bound) = &self.del {
            self.del(bound, packet);
        }
        if let Some(map) = &self.map {
            self.map(map, packet);
        }
    }

    /// What an element may have of it: rules may say more.
    pub(super) fn held_timeout_s(&self) -> Option<u32> {
        self.timeout_s.map(|seconds| seconds.min(CreateSpec::MAX_TIMEOUT_S))
    }

    fn extras(&self, packet: &PacketView<'_>) -> Extras {
        Extras {
            timeout_s: self.held_timeout_s(),
            packets: Some(1),
            bytes: Some(u64::from(packet.parsed.l3_len)),
            ..Extras::default()
        }
    }

    fn add(&self, bound: &Bound, packet: &PacketView<'_>) -> bool {
        self.change(bound, packet, &|set, element| {
            let hashed = matches!(set.body, Body::Hash(_));
            if hashed && lookup::is_null(set.spec().kind, element) {
                return false;
            }
            set.put(element, &self.extras(packet), self.exist, false, packet.now).is_ok()
        })
    }

    fn del(&self, bound: &Bound, packet: &PacketView<'_>) -> bool {
        self.change(bound, packet, &|set, element| set.take(element, packet.now).is_ok())
    }

    /// Changes the packet's element in the set; whether that could be done. Of a list,
    /// in the first member that it can be done in.
    fn change(
        &self,
        bound: &Bound,
        packet: &PacketView<'_>,
        change: &impl Fn(&Set, &Element) -> bool,
    ) -> bool {
        let set = bound.slot.load();
        if !applies(&set, bound.sides, packet) {
            return false;
        }
        if let Body::List(list) = &set.body {
            let members = list.members();
            let current = members.iter().filter(|member| !member.is_over(packet.now));
            let bounds =
                current.map(|member| Bound { slot: Arc::clone(member.slot()), sides: bound.sides });
            return { bounds }.any(|bound| self.change(&bound, packet, change));
        }
        let element = probe::element(set.spec().kind, bound.sides, &self.names, packet);
        let Some(mut element) = element else { return false };
        if let Body::Hash(store) = &set.body {
            element = lookup::as_added(set.spec(), store, &element);
        }
        change(&set, &element)
    }

    fn map(&self, map: &MapSet, packet: &mut PacketView<'_>) {
        let question = Question {
            sides: map.bound.sides,
            names: &self.names,
            return_nomatch: false,
            update_members: true,
            ask: Ask {
                now: packet.now,
                bytes: u64::from(packet.parsed.l3_len),
                update: true,
                packets: None,
                octets: None,
            },
        };
        let mut mapped = Mapped::default();
        if !question.put_to(&map.bound.slot, packet, &mut mapped) {
            return;
        }
        if map.mark {
            packet.mark = (packet.mark & !mapped.mask) ^ mapped.mark;
        }
        if map.priority {
            packet.priority = mapped.priority;
        }
    }
}

/// Whether the set is of the packet's family and has as many parts as sides were named.
fn applies(set: &Set, sides: Sides, packet: &PacketView<'_>) -> bool {
    let kind = set.spec().kind;
    let family = packet.parsed.family;
    let of_family = match kind.has_addresses() {
        true => set.spec().family == family,
        false => true,
    };
    debug_assert!(kind.is_hash() || set.spec().family == Family::V4);
    of_family && sides.len() >= kind.parts().len()
}

/// What a packet asks of a set, and of the members of a list.
#[derive(Clone, Copy)]
struct Question<'a> {
    sides: Sides,
    names: &'a PortNames,
    return_nomatch: bool,
    /// Whether the members of a list count.
    update_members: bool,
    ask: Ask,
}

impl Question<'_> {
    fn put_to(&self, slot: &Slot, packet: &PacketView<'_>, mapped: &mut Mapped) -> bool {
        let set = slot.load();
        if !applies(&set, self.sides, packet) {
            return false;
        }
        if let Body::List(list) = &set.body {
            let update = self.ask.update && self.update_members;
            let ask = Ask { update, packets: None, octets: None, ..self.ask };
            let inner = Question { ask, ..*self };
            return list.members().iter().any(|member| {
                inner.put_to(member.slot(), packet, mapped)
                    && member.row().is_some_and(|row| row.answers(&self.ask, mapped))
            });
        }
        let element = probe::element(set.spec().kind, self.sides, self.names, packet);
        let Some(element) = element else { return false };
        match &set.body {
            Body::Hash(store) => {
                let answer = lookup::test(set.spec(), store, &element, &self.ask, mapped);
                let wanted = match self.return_nomatch && set.spec().kind.networks() > 0 {
                    true => Answer::Exception,
                    false => Answer::Yes,
                };
                answer == wanted
            }
            Body::Bitmap(bitmap) => match bitmap.test(&element, &self.ask, mapped) {
                Ok(Found::Yes) => true,
                Ok(Found::Unfilled) => {
                    // The first packet says which link-layer address the element has.
                    let extras = Extras {
                        packets: Some(1),
                        bytes: Some(self.ask.bytes),
                        ..Extras::default()
                    };
                    let _ = set.put(&element, &extras, false, false, self.ask.now);
                    true
                }
                Ok(Found::No) | Err(_) => false,
            },
            Body::List(_) => false,
        }
    }
}
