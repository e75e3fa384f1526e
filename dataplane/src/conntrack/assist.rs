//! What helpers do with connections: expect others, remember the stream, shift
//! its sequence numbers.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::config::Setting;
use super::expect::{ExpectError, ExpectId, Expectation, Limits};
use super::extra::{Memory, SeqShift};
use super::record::Locked;
use super::status::{CONFIRMED, DYING, EXPECTED, FIXED_TIMEOUT, HELPER, SEQ_ADJUST};
use super::tuple::{Direction, Tuple};
use super::{ConnId, ConnView, Conntrack};
use crate::clock::Nanos;
use crate::nat::{self, Manip};
use crate::packet::Family;
use crate::policy::matches::Range;
use crate::policy::target::{HelperKind, NatRange};
use crate::wire::proto;

impl Conntrack {
    /// Gives a connection a helper, or takes it away. False when it is gone.
    pub fn set_helper(&self, id: ConnId, helper: Option<HelperKind>) -> bool {
        let Some(entry) = self.store.lock(id) else { return false };
        entry.add_status(HELPER);
        entry.update_extras(|extras| extras.set_helper(helper));
        true
    }

    /// The connection that this one was expected from. It may be over.
    pub fn master(&self, id: ConnId) -> Option<ConnId> {
        self.store.extras(id)?.1.master()
    }

    /// Whether expectations of this connection hold: it lives and is confirmed.
    fn is_master(&self, id: ConnId, now: Nanos) -> bool {
        self.store.contents(id).is_some_and(|contents| {
            contents.status & (CONFIRMED | DYING) == CONFIRMED && contents.deadline > now.0
        })
    }

    /// Whether this connection lives, confirmed or not.
    fn lives(&self, id: ConnId, now: Nanos) -> bool {
        self.store.contents(id).is_some_and(|contents| {
            let confirmed = contents.status & CONFIRMED != 0;
            contents.status & DYING == 0 && (!confirmed || contents.deadline > now.0)
        })
    }

    /// Expects a connection from now on.
    ///
    /// # Errors
    /// It cannot be told from another expectation, or there is no room.
    pub fn expect(
        &self,
        new: &Expectation,
        limits: Limits,
        now: Nanos,
    ) -> Result<ExpectId, ExpectError> {
        if !self.lives(new.master, now) {
            return Err(ExpectError::MasterGone);
        }
        let most = self.settings.get(Setting::ExpectMax) as u32;
        self.expectations.insert(new, limits, most, now, |master| self.lives(master, now))
    }

    /// Ends an expectation. False when it is over already.
    pub fn unexpect(&self, id: ExpectId) -> bool {
        self.expectations.remove(id)
    }

    /// What a new connection with `tuple` meets, if anything. It then has served.
    pub(super) fn met(&self, tuple: &Tuple, now: Nanos) -> Option<Expectation> {
        self.expectations.take(tuple, now, |master| self.is_master(master, now))
    }

    /// Makes a new connection its master's.
    pub(super) fn adopt(&self, entry: &Locked<'_>, expected: &Expectation) {
        entry.set_mark(self.mark(expected.master));
        entry.update_extras(|extras| {
            extras.set_master(Some(expected.master));
            extras.set_master_helper(Some(expected.by));
            extras.set_helper(expected.helper);
        });
        // What a rule says about helpers is for connections that nobody expected.
        let helper = expected.helper.map_or(0, |_| HELPER);
        entry.set_status(entry.status() & !HELPER | EXPECTED | helper);
    }

    /// Translates a connection that was expected under translation: what goes to
    /// the place that the master's helper announced really goes to its peer.
    pub(super) fn follow(&self, id: ConnId, expected: &Expectation, now: Nanos) {
        let Some(follow) = expected.follow else { return };
        let Some(master) = self.view(expected.master) else { return };
        let [there, back] = match follow.direction {
            Direction::Original => [master.original, master.reply],
            Direction::Reply => [master.reply, master.original],
        };
        let mut random = nat::Random::new(self.random().into());
        let mut setup =
            |range: &NatRange, manip| nat::setup(self, id, range, manip, &mut random, now);
        let at = |address: u128, port: u16| {
            let ports = Some(Range { low: port, high: port });
            NatRange { ports, ..nat::only(address) }
        };
        let Some(address) = follow.address else {
            // As the master: from where its peer is known, to the master's own end.
            // The key that changes is the client's, whichever end of the flow that is.
            let keyed = expected.by == HelperKind::Pptp;
            if keyed && follow.direction == Direction::Original {
                setup(&at(back.dst, follow.port), Manip::Source);
                setup(&nat::only(back.src), Manip::Destination);
            } else {
                setup(&nat::only(back.dst), Manip::Source);
                setup(&at(back.src, follow.port), Manip::Destination);
            }
            return;
        };
        if expected.by == HelperKind::Q931 {
            // A forwarded call comes from where it came from, or, to who is behind us,
            // from where that one reaches us.
            let Some(child) = self.view(id) else { return };
            let from = match follow.direction {
                Direction::Original => child.reply.src,
                Direction::Reply => child.original.src,
            };
            setup(&nat::only(from), Manip::Source);
            setup(&at(address, follow.port), Manip::Destination);
            return;
        }
        setup(&at(address, follow.port), Manip::Destination);
        let Some(child) = self.view(id) else { return };
        // A stream between two ends behind us comes from where its sender's own
        // streams are expected.
        let paired = (expected.class != 0).then(|| self.paired(expected, &child.original, now));
        if let Some((address, port)) = paired.flatten() {
            setup(&at(address, port), Manip::Source);
        } else if child.original.src == there.src {
            setup(&nat::only(back.dst), Manip::Source);
        }
    }

    /// Where the master expects streams for the sender of `child`.
    fn paired(&self, expected: &Expectation, child: &Tuple, now: Nanos) -> Option<(u128, u16)> {
        let found = self.expectations.of_master(expected.master, now, |one| {
            let saved = one.follow.and_then(|follow| Some((follow.address?, follow.port)));
            let same = (one.tuple.family, one.tuple.proto) == (child.family, child.proto);
            same && saved == Some((child.src, child.sport))
        })?;
        Some((found.tuple.dst, found.tuple.dport))
    }

    /// Shows every expectation of `master` to `change`, the newest first, which gives
    /// each its deadline, or ends it. Of the rest it may change `inactive` only.
    pub(crate) fn change_expected(
        &self,
        master: ConnId,
        now: Nanos,
        change: impl FnMut(&mut Expectation, Nanos) -> Option<Nanos>,
    ) {
        self.expectations.change(master, now, change);
    }

    /// The expectation that `tuple` would meet; it has not served then.
    pub(crate) fn expected(&self, tuple: &Tuple, now: Nanos) -> Option<Expectation> {
        self.expectations.peek(tuple, now)
    }

    /// Collects expectations that are over, and returns how many.
    pub fn sweep_expectations(&self, now: Nanos) -> usize {
        self.store.keymap.collect(|master| self.lives(master, now));
        self.expectations.collect(now, |master| self.lives(master, now))
    }

    /// Ends all expectations, and returns how many there were.
    pub fn flush_expectations(&self) -> usize {
        self.expectations.clear()
    }

    /// Every expectation that holds. Allocates: for listings.
    pub fn expectations(&self, now: Nanos) -> Vec<ExpectRow> {
        let row = |(expectation, deadline): (Expectation, Nanos)| {
            let master = self.view(expectation.master)?;
            let timeout_s = deadline.saturating_sub(now).as_secs();
            self.is_master(expectation.master, now).then_some(ExpectRow {
                expectation,
                master,
                timeout_s,
            })
        };
        self.expectations.all(now).into_iter().filter_map(row).collect()
    }

    /// A random number, which only the table's key foretells.
    pub(crate) fn random(&self) -> u32 {
        self.expectations.random()
    }

    /// What a helper remembers of a connection.
    pub(crate) fn memory(&self, id: ConnId) -> Option<Memory> {
        Some(self.store.extras(id)?.1.memory())
    }

    /// Changes what a helper remembers of a connection.
    pub(crate) fn change_memory(&self, id: ConnId, change: impl FnOnce(&mut Memory)) {
        let Some(entry) = self.store.lock(id) else { return };
        entry.update_extras(|extras| {
            let mut memory = extras.memory();
            change(&mut memory);
            extras.set_memory(&memory);
        });
    }

    /// How both directions' sequence numbers are shifted.
    pub fn shifts(&self, id: ConnId) -> Option<[SeqShift; 2]> {
        let (_, extras) = self.store.extras(id)?;
        Some([Direction::Original, Direction::Reply].map(|way| extras.shift(way)))
    }

    /// Shifts what follows the segment at `seq` by `by` more. False when the
    /// connection is gone.
    pub(crate) fn shift(&self, id: ConnId, direction: Direction, seq: u32, by: i32) -> bool {
        self.change_shift(id, direction, |shift| shift.grow(seq, by))
    }

    /// Shifts all of a direction by `offset`. False when the connection is gone.
    pub(crate) fn shift_all(&self, id: ConnId, direction: Direction, offset: i32) -> bool {
        if offset == 0 {
            return true;
        }
        self.change_shift(id, direction, |shift| {
            (shift.before, shift.after) = (offset, offset);
        })
    }

    fn change_shift(
        &self,
        id: ConnId,
        direction: Direction,
        change: impl FnOnce(&mut SeqShift),
    ) -> bool {
        let Some(entry) = self.store.lock_even_dead(id) else { return false };
        entry.add_status(SEQ_ADJUST);
        entry.update_extras(|extras| {
            let mut shift = extras.shift(direction);
            change(&mut shift);
            extras.set_shift(direction, shift);
        });
        true
    }

    /// Lets a connection live for `timeout` from now on, unless its timeout is fixed.
    pub(crate) fn refresh(&self, id: ConnId, timeout: Nanos, now: Nanos) {
        let Some(entry) = self.store.lock(id) else { return };
        if entry.status() & FIXED_TIMEOUT != 0 {
            return;
        }
        let base = if entry.status() & CONFIRMED != 0 { now.0 } else { 0 };
        entry.set_deadline(base.saturating_add(timeout.0));
    }
}

/// A line of the listing of expectations; prints as `conntrack -L expect` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpectRow {
    /// What is expected.
    pub expectation: Expectation,
    /// By whom.
    pub master: ConnView,
    /// Whole seconds left.
    pub timeout_s: u64,
}

/// An address of a family.
struct Shown(Family, u128);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Family::V4 => Ipv4Addr::from(self.1 as u32).fmt(f),
            Family::V6 => Ipv6Addr::from(self.1).fmt(f),
        }
    }
}

impl fmt::Display for ExpectRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Expectation { tuple, mask, by, class, .. } = &self.expectation;
        let address = |bits: u128| Shown(tuple.family, bits);
        let ports = |proto: u8, (sport, dport): (u16, u16)| match proto {
            proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => {
                Some(format!("sport={sport} dport={dport} "))
            }
            proto::GRE => Some(format!("srckey=0x{sport:x} dstkey=0x{dport:x} ")),
            _ => None,
        };
        let shown = |proto, pair| ports(proto, pair).unwrap_or_default();
        write!(f, "{} proto={} ", self.timeout_s, tuple.proto)?;
        write!(f, "src={} dst={} ", address(tuple.src), address(tuple.dst))?;
        f.write_str(&shown(tuple.proto, (tuple.sport, tuple.dport)))?;
        write!(f, "mask-src={} mask-dst={} ", address(mask.address), address(u128::MAX))?;
        f.write_str(&shown(tuple.proto, (mask.port, u16::MAX)))?;
        let master = &self.master.original;
        write!(f, "master-src={} master-dst={} ", address(master.src), address(master.dst))?;
        f.write_str(&shown(master.proto, (master.sport, master.dport)))?;
        for (set, name) in
            [(self.expectation.permanent, "PERMANENT"), (self.expectation.inactive, "INACTIVE")]
        {
            if set {
                write!(f, "{name} ")?;
            }
        }
        write!(f, "class={class} helper={}", by.name())
    }
}
