//! [`Conntrack`]: a packet's road through connection tracking.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::config::{Config, ConntrackError, Setting, Settings};
use super::events::Before;
use super::expect::Expectations;
use super::icmp::{self, Message};
use super::keymap::Keymap;
use super::lanes::Tally;
use super::memory::Line;
use super::protocol::Visit;
use super::quota::Quotas;
use super::record::Locked;
use super::room::Count;
use super::short::CACHED;
use super::status::{
    ACCOUNTED, CONFIRMED, EVENTS_CHOSEN, EXPECTED, HELPER, LABELLED, OWN_TIMEOUTS, SEEN_REPLY,
    STAMPED,
};
use super::store::{Hit, Store};
use super::tcp::{Effect, TcpConn};
use super::template::{Template, Terms, Zones};
use super::timeouts::Named;
use super::tuple::{Direction, Key, Tuple};
use super::upkeep::Evicted;
use super::{ConnId, CtState, Tracking, verify};
use crate::clock::Nanos;
use crate::packet::{Family, L4Class, Parsed};
use crate::policy::target::HelperKind;
use crate::synproxy::Cookies;
use crate::verdict::DropReason;
use crate::wire::proto;

/// The connection table, shared by all workers.
///
/// Every method takes `&self`. [`Conntrack::track`] gives a packet its state
/// and, for the first packet of a connection, an unconfirmed entry that the
/// caller must [`Conntrack::confirm`] or [`Conntrack::discard`].
pub struct Conntrack {
    pub(super) store: Store,
    pub(super) cookies: Cookies,
    pub(super) settings: Settings,
    pub(super) named: Named,
    pub(super) expectations: Expectations,
    pub(super) quotas: Quotas,
    pub(super) capacity: u64,
    pub(super) expect_capacity: u64,
    pub(super) cursor: Line<AtomicU32>,
    /// A connection was refused for want of room: the sweep makes some.
    pub(super) pressed: AtomicBool,
    pub(super) counts: Tally,
}

/// What a packet asks the table, worked out before the table is touched, so
/// that a burst can compute all and prefetch before it looks anything up.
#[derive(Clone, Copy, Debug)]
pub struct Subject(pub(super) Kind);

impl Subject {
    /// Where the connection table has its flow; `None` for errors and what has none.
    pub(super) fn key(&self) -> Option<&Key> {
        match &self.0 {
            Kind::Flow(key) => Some(key),
            Kind::Invalid | Kind::Untracked | Kind::About(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Invalid,
    Untracked,
    Flow(Key),
    /// An ICMP error: the tuple that the quoted packet's answer would have.
    About(Key),
}

impl std::fmt::Debug for Conntrack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conntrack").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Conntrack {
    /// A table sized for `config`'s `max`, all memory taken now.
    ///
    /// # Errors
    /// `max` is beyond what a table can hold.
    pub fn new(config: Config) -> Result<Self, ConntrackError> {
        let capacity = config.max_entries();
        let mut store = Store::new(capacity, config.hash_key())?;
        store.keymap = Keymap::new(config.max_expected(), config.hash_key());
        let table = Self {
            store,
            cookies: Cookies::new(&config.hash_key()),
            settings: Settings::new(&config),
            named: Named::new(&config),
            quotas: Quotas::new(config.hash_key()),
            expectations: Expectations::new(config.max_expected(), config.hash_key()),
            expect_capacity: config.max_expected() as u64,
            capacity: capacity as u64,
            cursor: Line(AtomicU32::new(0)),
            pressed: AtomicBool::new(false),
            counts: Tally::new(),
        };
        table.store.events.enable(table.settings.get(Setting::Events) != 0);
        Ok(table)
    }

    /// What `parsed` asks of the table.
    #[inline]
    pub fn subject(&self, parsed: &Parsed, frame: &[u8], zone: u16) -> Subject {
        match Key::of_common(parsed, parsed.l4_bytes(frame), zone, self.store.hash_key()) {
            Some(key) => Subject(Kind::Flow(key)),
            None => self.uncommon_subject(parsed, frame, zone),
        }
    }

    fn uncommon_subject(&self, parsed: &Parsed, frame: &[u8], zone: u16) -> Subject {
        let l4 = parsed.l4_bytes(frame);
        let key = |tuple: &Tuple| tuple.key(self.store.hash_key());
        if parsed.l4_class != L4Class::LaterFragment && speaks_icmp(parsed) {
            match icmp::classify(parsed, l4, zone, &self.store.keymap) {
                Message::Invalid => return Subject(Kind::Invalid),
                Message::Untracked => return Subject(Kind::Untracked),
                Message::About(tuple) => return Subject(Kind::About(key(&tuple))),
                Message::Flow => {}
            }
        }
        let tuple = Tuple::read(parsed, l4, zone, Some(&self.store.keymap));
        match tuple.or_else(|| Tuple::behind_cut_header(parsed, frame, zone)) {
            Some(tuple) => Subject(Kind::Flow(key(&tuple))),
            None => Subject(Kind::Invalid),
        }
    }

    /// Asks memory for the bucket that looking `subject` up will read first.
    #[inline]
    pub fn prefetch(&self, subject: &Subject) {
        if let Kind::Flow(key) | Kind::About(key) = &subject.0 {
            self.store.fetch(key.hash);
        }
    }

    /// Asks memory for the records that looking a burst's subjects up will find, whose
    /// buckets were asked for before ([`Conntrack::prefetch`]), and for what plans keep
    /// with them, if those are in use.
    #[inline]
    pub fn prefetch_records<'s>(
        &self,
        subjects: impl IntoIterator<Item = &'s Subject>,
        plans: bool,
    ) {
        if !cfg!(test) && self.store.used() <= CACHED {
            return;
        }
        for subject in subjects {
            if let Kind::Flow(key) | Kind::About(key) = &subject.0 {
                self.store.fetch_record(key, plans);
            }
        }
    }

    /// State and connection of a packet. `local_output`: the machine itself
    /// sends it (checksums are not verified there).
    ///
    /// # Errors
    /// [`DropReason::ConntrackFull`]: a new connection, and no room for it.
    pub fn track(
        &self,
        parsed: &Parsed,
        frame: &[u8],
        local_output: bool,
        now: Nanos,
    ) -> Result<Tracking, DropReason> {
        let subject = self.subject(parsed, frame, 0);
        self.track_subject(&subject, parsed, frame, local_output, &Terms::default(), now)
    }

    /// [`Conntrack::track`], with the subject worked out before for the original
    /// zone of `terms`.
    ///
    /// # Errors
    /// As [`Conntrack::track`].
    pub fn track_subject(
        &self,
        subject: &Subject,
        parsed: &Parsed,
        frame: &[u8],
        local_output: bool,
        terms: &Terms,
        now: Nanos,
    ) -> Result<Tracking, DropReason> {
        let l4 = parsed.l4_bytes(frame);
        // Whose GRE packets are whose may have been said since.
        let subject = match &subject.0 {
            Kind::Flow(key) | Kind::About(key) if key.proto() == proto::GRE => {
                &self.subject(parsed, frame, key.zone())
            }
            _ => subject,
        };
        let sums = !local_output && self.settings.is_on(Setting::Checksum);
        match &subject.0 {
            Kind::Invalid => Ok(self.invalid()),
            Kind::Untracked if verify::holds(parsed, l4, sums) => Ok(Tracking::UNTRACKED),
            Kind::About(key) if verify::holds(parsed, l4, sums) => {
                Ok(self.related(parsed, key, terms.zones, now))
            }
            Kind::Untracked | Kind::About(_) => Ok(self.icmp_error()),
            Kind::Flow(key) => {
                let direction = Direction::Original;
                let settings = &self.settings;
                let named = &self.named;
                let visit = Visit { parsed, l4, sums, direction, now, settings, named, terms };
                self.walk_flow(key, visit, None)
            }
        }
    }

    fn invalid(&self) -> Tracking {
        self.count(Count::Invalid, 1);
        Tracking::NONE
    }

    /// `summed`: its checksum was looked at.
    fn invalid_but_sound(&self, summed: bool) -> Tracking {
        Tracking { summed, ..self.invalid() }
    }

    fn icmp_error(&self) -> Tracking {
        self.count(Count::IcmpError, 1);
        self.invalid()
    }

    /// An ICMP error about `key`'s connection, which must be going where
    /// that connection's packets go. It neither refreshes nor ends anything.
    fn related(&self, parsed: &Parsed, key: &Key, zones: Zones, now: Nanos) -> Tracking {
        if parsed.dst != key.tuple().dst {
            return self.icmp_error();
        }
        match self.seek(key, zones, now) {
            Some(hit) => Tracking {
                state: CtState::Related,
                direction: hit.direction,
                conn: Some(hit.id),
                unconfirmed: false,
                summed: false,
            },
            None => self.icmp_error(),
        }
    }

    /// The connection that `key`, in the original zone, belongs to; where the
    /// zones differ, a connection's answers are looked for in the other.
    #[inline]
    pub(super) fn seek(&self, key: &Key, zones: Zones, now: Nanos) -> Option<Hit> {
        if zones.original == zones.reply {
            return self.store.find(key, now);
        }
        self.store.find_as(key, Some(Direction::Original), now).or_else(|| {
            let tuple = Tuple { zone: zones.reply, ..key.tuple() };
            let key = tuple.key(self.store.hash_key());
            self.store.find_as(&key, Some(Direction::Reply), now)
        })
    }

    /// `first`: what [`Conntrack::seek`] would find, if it was asked before.
    pub(super) fn walk_flow(
        &self,
        key: &Key,
        visit: Visit<'_>,
        mut first: Option<Hit>,
    ) -> Result<Tracking, DropReason> {
        let sums = visit.sums;
        // Each further turn follows the death of the entry found before.
        loop {
            let found = || self.seek(key, visit.terms.zones, visit.now);
            let Some(hit) = first.take().or_else(found) else {
                return self.open(key, visit);
            };
            let Some(entry) = self.store.lock(hit.id) else { continue };
            let before = Before { status: entry.status(), state: entry.state() };
            let visit = Visit { direction: hit.direction, ..visit };
            let effect = visit.apply(&entry);
            let passes = !matches!(effect, Effect::Unsound | Effect::Invalid(_) | Effect::Reopen);
            if passes && hit.direction == Direction::Reply && before.status & SEEN_REPLY == 0 {
                entry.add_status(SEEN_REPLY);
                self.answered(&entry);
            }
            drop(entry);
            if self.store.events.wanted() {
                self.tell_changes(hit.id, &before, visit.now);
            }
            let before = before.status;
            match effect {
                Effect::Unsound => return Ok(self.invalid()),
                Effect::Invalid(_) => return Ok(self.invalid_but_sound(sums)),
                Effect::Reopen => {
                    self.store.kill(hit.id);
                    continue;
                }
                Effect::Kill => {
                    self.store.kill(hit.id);
                }
                Effect::Accept { .. } | Effect::Pass => {}
            }
            let state = match hit.direction {
                Direction::Reply => CtState::Established,
                Direction::Original if before & SEEN_REPLY != 0 => CtState::Established,
                Direction::Original if before & EXPECTED != 0 => CtState::Related,
                Direction::Original => CtState::New,
            };
            let (direction, conn) = (hit.direction, Some(hit.id));
            return Ok(Tracking { state, direction, conn, unconfirmed: false, summed: false });
        }
    }

    /// The first packet of a connection. Room is made before the packet is
    /// judged, as the kernel does it.
    fn open(&self, key: &Key, visit: Visit<'_>) -> Result<Tracking, DropReason> {
        let tuple = &key.tuple();
        let reply = key.answered(visit.terms.zones.reply, self.store.hash_key());
        let Some(reply) = reply else { return Ok(self.invalid()) };
        self.store.fetch_both(reply.hash);
        let limit = self.settings.get(Setting::Max) as u32;
        let crowded = self.quotas.update(self.store.live_at_most(limit).into(), limit.into());
        if crowded && !self.quotas.admit(tuple.family, tuple.src, limit.into(), visit.now) {
            self.count(Count::Drop, 1);
            return Err(DropReason::ConntrackQuota);
        }
        let (reserved, Evicted { early, .. }) = self.store.reserve(limit, key.hash, visit.now);
        if early > 0 {
            self.count(Count::EarlyDrop, u64::from(early));
        }
        let expected = if reserved { self.met(tuple, visit.now) } else { None };
        let created = if reserved { self.store.create(key, &reply) } else { None };
        let Some((id, entry)) = created else {
            self.pressed.store(true, Ordering::Relaxed);
            self.count(Count::Drop, 1);
            return Err(DropReason::ConntrackFull);
        };
        self.furnish(&entry, visit.terms);
        if let Some(expected) = &expected {
            self.adopt(&entry, expected);
        }
        let effect = visit.apply(&entry);
        drop(entry);
        if !matches!(effect, Effect::Accept { .. } | Effect::Pass) {
            self.store.discard(id);
            let sound = effect != Effect::Unsound;
            return Ok(self.invalid_but_sound(sound && visit.sums));
        }
        if let Some(expected) = &expected {
            if expected.by == HelperKind::Pptp {
                self.call_met(expected, visit.now);
            }
            self.follow(id, expected, visit.now);
        }
        Ok(Tracking {
            state: if expected.is_some() { CtState::Related } else { CtState::New },
            direction: Direction::Original,
            conn: Some(id),
            unconfirmed: true,
            summed: false,
        })
    }

    /// Gives a new connection what it is to carry.
    fn furnish(&self, entry: &Locked<'_>, terms: &Terms) {
        let Terms { template, extensions, .. } = terms;
        let mut status = 0;
        if extensions.accounting || self.settings.is_on(Setting::Acct) {
            status |= ACCOUNTED;
        }
        if extensions.labels {
            status |= LABELLED;
        }
        if self.settings.is_on(Setting::Timestamp) {
            status |= STAMPED;
        }
        let Template { helper, timeouts, events, .. } = *template;
        if helper.is_some() || timeouts.is_some() || events.is_some() {
            status |= helper.map_or(0, |_| HELPER)
                | timeouts.map_or(0, |_| OWN_TIMEOUTS)
                | events.map_or(0, |_| EVENTS_CHOSEN);
            entry.update_extras(|extras| {
                extras.set_helper(helper);
                extras.set_timeouts(timeouts.map(|id| id.0));
                extras.set_events(events.unwrap_or(0));
            });
        }
        if status != 0 {
            entry.add_status(status);
        }
    }

    /// Tracking of a packet that this router makes in answer to `original`
    /// (an ICMP error, a TCP reset): RELATED to the same connection, the other
    /// way. When the original has no connection, the answer is tracked by itself.
    /// The answer to an answer (an error about a reset) goes the original's way again
    /// and confirms its connection, if it leaves, as the kernel has it.
    ///
    /// # Errors
    /// As [`Conntrack::track`].
    pub fn attach(
        &self,
        original: &Tracking,
        parsed: &Parsed,
        frame: &[u8],
        now: Nanos,
    ) -> Result<Tracking, DropReason> {
        match original.conn {
            Some(conn) => {
                let direction = original.direction.opposite();
                let onward = direction == Direction::Original;
                let unconfirmed = onward && !self.is_confirmed(conn);
                let state = CtState::Related;
                Ok(Tracking { state, direction, conn: Some(conn), unconfirmed, summed: false })
            }
            None => self.track(parsed, frame, true, now),
        }
    }

    /// A TCP reset was sent on this connection's behalf (REJECT): it is closed.
    pub fn set_closing(&self, id: ConnId, now: Nanos) {
        let Some(entry) = self.store.lock(id) else { return };
        if entry.tuple(Direction::Original).proto != proto::TCP {
            return;
        }
        let mut conn = TcpConn::unpack(&entry.proto());
        conn.force_close();
        let timeouts = self.named.of(&entry, &self.settings);
        entry.set_proto(&conn.pack());
        entry.set_deadline(now.0.saturating_add(timeouts.timeout(Setting::TcpClose).0));
    }

    /// Ends a confirmed connection (`conntrack -D`). True if it was there.
    pub fn remove(&self, id: ConnId) -> bool {
        self.store.kill(id)
    }

    /// Whether `id` is in the table.
    pub fn is_confirmed(&self, id: ConnId) -> bool {
        self.view(id).is_some_and(|view| view.status & CONFIRMED != 0)
    }
}

/// Whether a packet speaks its own family's ICMP.
fn speaks_icmp(parsed: &Parsed) -> bool {
    matches!((parsed.family, parsed.proto), (Family::V4, proto::ICMP) | (Family::V6, proto::ICMPV6))
}
