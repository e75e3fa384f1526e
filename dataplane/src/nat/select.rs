//! The choice of a tuple: netfilter's order of attempts.

use std::cell::Cell;

use super::{Luck, Manip, pool};
use crate::clock::Nanos;
use crate::conntrack::{Answer, Conntrack, Face, Tuple, status};
use crate::policy::matches::Range;
use crate::policy::target::NatRange;
use crate::wire::proto;

/// Ports tried from one starting point at most.
const ATTEMPTS: u32 = 128;
/// In the last so many of them a closed connection may be displaced.
const HARDER: u32 = 32;
/// No further round is begun with fewer attempts than this.
const LEAST_ATTEMPTS: u32 = 16;

/// What `current`, the tuple that the connection's packets leave with so far,
/// becomes. The answer may be taken when all attempts failed: confirming the
/// connection then fails. Beside it stands the last reply tuple that was looked for.
pub fn tuple(
    table: &Conntrack,
    face: &Face,
    current: &Tuple,
    range: &NatRange,
    manip: Manip,
    luck: &mut Luck<'_>,
    now: Nanos,
) -> (Tuple, Option<Answer>) {
    let choice = Choice { table, face, range, manip, now, asked: Cell::new(None) };
    (choice.choose(current, luck), choice.asked.get())
}

struct Choice<'a> {
    table: &'a Conntrack,
    face: &'a Face,
    range: &'a NatRange,
    manip: Manip,
    now: Nanos,
    asked: Cell<Option<Answer>>,
}

impl Choice<'_> {
    fn choose(&self, current: &Tuple, luck: &mut Luck<'_>) -> Tuple {
        let scrambled = self.range.random || self.range.random_fully;
        if self.manip == Manip::Source && !scrambled {
            if self.in_range(current) {
                if self.free(current) || self.is_reversed_self(current) {
                    return *current;
                }
            } else {
                self.fetch_likely(current);
                if let Some(mapped) = self.mapped(current)
                    && self.free(&mapped)
                {
                    return mapped;
                }
            }
        }
        let mut tuple = *current;
        if let Some(addresses) = self.range.addresses {
            let zone = self.face.original.zone;
            let address = match addresses.low == addresses.high {
                true => addresses.low,
                false => pool::address(&tuple, addresses, self.range.persistent, self.manip, zone),
            };
            match self.manip {
                Manip::Source => tuple.src = address,
                Manip::Destination => tuple.dst = address,
            }
        }
        if !scrambled {
            let kept = match self.range.ports {
                Some(ports) => {
                    self.range.base_port.is_none()
                        && self.port_in_range(&tuple, self.manip)
                        && (ports.low == ports.high || self.free(&tuple))
                }
                None => self.free(&tuple),
            };
            if kept {
                return tuple;
            }
        }
        self.search(tuple, scrambled, luck)
    }

    /// Whether a tuple's source is one that the range allows.
    fn in_range(&self, tuple: &Tuple) -> bool {
        self.range.addresses.is_none_or(|addresses| addresses.contains(tuple.src))
            && self.port_in_range(tuple, Manip::Source)
    }

    fn port_in_range(&self, tuple: &Tuple, manip: Manip) -> bool {
        let Some(ports) = self.range.ports else { return true };
        match (tuple.proto, manip) {
            (proto::ICMP | proto::ICMPV6, _) => ports.contains(tuple.sport),
            (proto::TCP | proto::UDP | proto::SCTP | proto::GRE, Manip::Source) => {
                ports.contains(tuple.sport)
            }
            (proto::TCP | proto::UDP | proto::SCTP | proto::GRE, Manip::Destination) => {
                ports.contains(tuple.dport)
            }
            _ => true,
        }
    }

    /// The newest mapping in range of the same source, applied to this
    /// destination: a client keeps its external port towards all servers.
    fn mapped(&self, current: &Tuple) -> Option<Tuple> {
        self.table.mapping_of(self.face, |source, sport| {
            let mapped = Tuple { src: source, sport, ..*current };
            self.in_range(&mapped).then_some(mapped)
        })
    }

    fn free(&self, tuple: &Tuple) -> bool {
        tuple.inverted().is_none_or(|reply| !self.is_taken(&reply))
    }

    fn is_taken(&self, reply: &Tuple) -> bool {
        let answer = self.asked.get().filter(|asked| asked.tuple() == *reply);
        let answer = answer.unwrap_or_else(|| self.table.answer(reply, self.face));
        self.asked.set(Some(answer));
        self.table.is_taken(&answer, self.face, self.now)
    }

    /// Most sources are new, and keep their port behind the range's only address: the
    /// table is asked for that while older mappings are looked for.
    fn fetch_likely(&self, current: &Tuple) {
        let only = |range: &Range<u128>| range.low == range.high && self.range.ports.is_none();
        let Some(address) = self.range.addresses.filter(only) else { return };
        let likely = Tuple { src: address.low, ..*current };
        if let Some(reply) = likely.inverted() {
            let answer = self.table.answer(&reply, self.face);
            self.table.fetch_answer(&answer);
            self.asked.set(Some(answer));
        }
    }

    /// Whether what is in the way is the same flow, seen first from its other
    /// end: the clash is then settled when the connection is confirmed.
    fn is_reversed_self(&self, tuple: &Tuple) -> bool {
        tuple.inverted().is_some_and(|reply| {
            let answer = self.table.answer(&reply, self.face);
            self.table.is_reverse(&answer, self.face, self.now)
        })
    }

    fn free_at_last(&self, tuple: &Tuple, attempts_left: u32) -> bool {
        let Some(reply) = tuple.inverted() else { return true };
        match self.face.isn_end {
            Some(end) if attempts_left <= HARDER => {
                self.table.take_from_closed(&reply, self.face, end, self.now)
            }
            _ => !self.is_taken(&reply),
        }
    }

    /// Looks for a free port or identifier.
    fn search(&self, mut tuple: Tuple, scrambled: bool, luck: &mut Luck<'_>) -> Tuple {
        let Some((field, low, count)) = self.ports(&tuple) else { return tuple };
        let place = Place { field, low, count };
        let present = *field.of(&mut tuple);
        let mut offset = match self.range.base_port {
            Some(base) => present.wrapping_sub(base),
            None if scrambled || self.manip == Manip::Source => place.draw(&tuple, luck),
            None => 0,
        };
        let mut attempts = count.min(ATTEMPTS);
        loop {
            for attempt in 0..attempts {
                *field.of(&mut tuple) = place.value(offset);
                if self.free_at_last(&tuple, attempts - attempt) {
                    return tuple;
                }
                offset = offset.wrapping_add(1);
            }
            if attempts >= count || attempts < LEAST_ATTEMPTS {
                return tuple;
            }
            attempts /= 2;
            offset = place.draw(&tuple, luck);
        }
    }

    /// Which field is searched, from where on, and over how many values. `None`:
    /// this protocol's connections are not told apart by anything that could change.
    fn ports(&self, tuple: &Tuple) -> Option<(Field, u32, u32)> {
        let given = self.range.ports.map(|ports| {
            let (low, high) = (ports.low.min(ports.high), ports.low.max(ports.high));
            (u32::from(low), u32::from(high - low) + 1)
        });
        match tuple.proto {
            proto::ICMP | proto::ICMPV6 => {
                let (low, count) = given.unwrap_or((0, 1 << 16));
                Some((Field::Source, low, count))
            }
            proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => {
                let field = match self.manip {
                    Manip::Source => Field::Source,
                    Manip::Destination => Field::Destination,
                };
                let class = || match (self.manip, tuple.sport) {
                    (Manip::Destination, _) => None,
                    (_, ..512) => Some((1, 511)),
                    (_, ..1024) => Some((600, 424)),
                    _ => Some((1024, 64512)),
                };
                given.or_else(class).map(|(low, count)| (field, low, count))
            }
            // GRE keys change only for connections that PPTP has announced.
            proto::GRE if self.face.status & status::EXPECTED != 0 => {
                let field = match self.manip {
                    Manip::Source => Field::Source,
                    Manip::Destination => Field::Destination,
                };
                let (low, count) = given.unwrap_or((1, 65535));
                Some((field, low, count))
            }
            _ => None,
        }
    }
}

/// Draws from one starting point for one whose answers come home.
const DRAWS: usize = 16;

/// What the search goes over: a field, and so many values from `low` on.
struct Place {
    field: Field,
    low: u32,
    count: u32,
}

impl Place {
    /// Cannot overflow: `low + count` is at most 65536.
    fn value(&self, offset: u16) -> u16 {
        (self.low + u32::from(offset) % self.count) as u16
    }

    /// Where to begin: anywhere, but rather where answers come to this worker.
    fn draw(&self, tuple: &Tuple, luck: &mut Luck<'_>) -> u16 {
        let mut offset = luck.random.half();
        let Some(home) = luck.home else { return offset };
        for _ in 1..DRAWS {
            let mut candidate = *tuple;
            *self.field.of(&mut candidate) = self.value(offset);
            if !candidate.inverted().is_some_and(|answer| home.is_foreign(&answer)) {
                break;
            }
            offset = luck.random.half();
        }
        offset
    }
}

/// A tuple's field that the search changes.
#[derive(Clone, Copy)]
enum Field {
    Source,
    Destination,
}

impl Field {
    fn of(self, tuple: &mut Tuple) -> &mut u16 {
        match self {
            Self::Source => &mut tuple.sport,
            Self::Destination => &mut tuple.dport,
        }
    }
}
