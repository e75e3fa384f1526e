//! What a packet's tracking starts from: what `-j CT` asked for, and what every
//! connection gets because some rule needs it.

use super::tuple::Direction;
use crate::policy::target::{CtTarget, HelperKind, ZoneId, ZoneScope};

/// What `-j CT` in the raw table wants of a packet's tracking, before there is
/// any. Zones decide which connection the packet belongs to; the rest is given to
/// a connection that the packet opens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// A rule has spoken (or, for an answer of this machine, the packet that it
    /// answers was exempt): no further CT rule is heard.
    pub given: bool,
    /// The zone, and for which direction's tuples.
    pub zone: Option<(ZoneScope, ZoneId)>,
    /// Helper for a connection that this packet opens.
    pub helper: Option<HelperKind>,
    /// Named timeout policy for a connection that this packet opens.
    pub timeouts: Option<TimeoutsId>,
    /// `--ctevents` bits, if given.
    pub events: Option<u32>,
}

/// Index of a named timeout policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeoutsId(pub u8);

/// Zones of a connection's tuples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Zones {
    /// Of the original direction's tuple.
    pub original: u16,
    /// Of the reply direction's.
    pub reply: u16,
}

impl Zones {
    /// Where no rule chose one.
    pub const DEFAULT: Self = Self { original: 0, reply: 0 };

    /// One direction's.
    pub const fn of(self, direction: Direction) -> u16 {
        match direction {
            Direction::Original => self.original,
            Direction::Reply => self.reply,
        }
    }

    /// Which directions of a connection a tuple met in `direction`'s zone can
    /// stand for: any, unless the zones differ.
    pub(super) fn only(self, direction: Direction) -> Option<Direction> {
        (self.original != self.reply).then_some(direction)
    }
}

/// What each new connection carries because some rule reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// Packets and bytes (`connbytes`).
    pub accounting: bool,
    /// Labels (`connlabel`).
    pub labels: bool,
}

impl Extensions {
    /// What either needs.
    pub const fn join(self, other: Self) -> Self {
        Self { accounting: self.accounting | other.accounting, labels: self.labels | other.labels }
    }
}

/// Everything that tracking a packet starts from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// Where to look for its connection.
    pub zones: Zones,
    /// For a connection that it opens.
    pub(super) template: Template,
    /// For a connection that it opens.
    pub(super) extensions: Extensions,
}

impl Template {
    /// What a rule asks for; `timeouts` is the policy that it names.
    pub fn of(target: &CtTarget, timeouts: Option<TimeoutsId>) -> Self {
        let CtTarget { zone, helper, events, .. } = *target;
        Self { given: true, zone, helper, timeouts, events }
    }

    /// The terms for a packet with this mark.
    pub fn terms(&self, mark: u32, extensions: Extensions) -> Terms {
        let zones = self.zone.map_or(Zones::DEFAULT, |(scope, id)| {
            let id = match id {
                ZoneId::Fixed(id) => id,
                ZoneId::Mark => mark as u16,
            };
            match scope {
                ZoneScope::Both => Zones { original: id, reply: id },
                ZoneScope::Original => Zones { original: id, reply: 0 },
                ZoneScope::Reply => Zones { original: 0, reply: id },
            }
        });
        Terms { zones, template: *self, extensions }
    }
}
