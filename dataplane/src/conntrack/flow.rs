//! Looking a connection up before its packet is tracked, and the words that the
//! engine's plans keep with it (`crate::plan`): one for each direction, which the
//! table neither reads nor understands. They begin at zero when others can find the
//! connection; until then the table keeps the hashes of its tuples there.
//!
//! They lie beside the records, four connections to a cache line: records have no
//! room left in the lines that plain connections touch.

use super::protocol::Visit;
use super::status::{CONFIRMED, DYING, SEEN_REPLY};
use super::store::{Hit, Store};
use super::sync::{AtomicU64, Ordering};
use super::template::Terms;
use super::tracker::{Kind, Subject};
use super::tuple::{Direction, Key};
use super::{ConnId, Conntrack, Tracking};
use crate::clock::Nanos;
use crate::packet::Parsed;
use crate::verdict::DropReason;

/// A word for each direction of a connection.
pub(super) struct Words([AtomicU64; 2]);

impl Words {
    /// Bytes that a record's take.
    pub(super) const BYTES: usize = size_of::<Self>();

    pub(super) fn zero() -> Self {
        Self([AtomicU64::new(0), AtomicU64::new(0)])
    }

    /// Only under the record's lock, before others can find the connection.
    pub(super) fn clear(&self) {
        self.0.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Until then they hold the hashes of its tuples. Only for the connection's owner.
    pub(super) fn keep_hash(&self, direction: Direction, hash: u64) {
        self.0[direction.index()].store(hash, Ordering::Relaxed);
    }

    /// The same.
    pub(super) fn hash(&self, direction: Direction) -> u64 {
        self.0[direction.index()].load(Ordering::Relaxed)
    }
}

/// The connection that a packet will be found to belong to, unless that ends before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow(pub(super) Hit);

impl Flow {
    /// The connection.
    pub const fn conn(&self) -> ConnId {
        self.0.id
    }
    /// The packet's direction in it.
    pub const fn direction(&self) -> Direction {
        self.0.direction
    }
    /// Whether its packet will be ESTABLISHED, if nothing is wrong with it.
    pub const fn is_answered(&self) -> bool {
        matches!(self.0.direction, Direction::Reply) || self.0.status & SEEN_REPLY != 0
    }
}

impl Store {
    /// What [`Store::find`] would find, which ends expired connections on its way.
    #[inline]
    fn foresee(&self, key: &Key, now: Nanos) -> Option<Hit> {
        self.scan(key.hash, |entry, record| {
            let (generation, status) = record.matches(entry.direction, key)?;
            let lives = status & (CONFIRMED | DYING) == CONFIRMED && record.deadline() > now.0;
            let id = ConnId::new(entry.record, generation);
            lives.then_some(Hit { id, direction: entry.direction, status })
        })
    }
}

impl Conntrack {
    /// The connection of zone 0 that a packet belongs to. Changes nothing.
    #[inline]
    pub fn flow(&self, subject: &Subject, now: Nanos) -> Option<Flow> {
        match &subject.0 {
            Kind::Flow(key) => self.store.foresee(key, now).map(Flow),
            Kind::Invalid | Kind::Untracked | Kind::About(_) => None,
        }
    }

    /// The word kept with a flow. It is that of the flow's own connection if that is still
    /// alive afterwards.
    #[inline]
    pub fn plan_word(&self, flow: &Flow) -> u64 {
        self.store.words(flow.0.id).0[flow.0.direction.index()].load(Ordering::Relaxed)
    }

    /// Keeps another word. False: the connection's record serves another.
    pub fn set_plan_word(&self, flow: &Flow, word: u64) -> bool {
        let Some(_entry) = self.store.lock_even_dead(flow.0.id) else { return false };
        self.store.words(flow.0.id).0[flow.0.direction.index()].store(word, Ordering::Relaxed);
        true
    }

    /// [`Conntrack::track_subject`] for a packet from a port whose flow was looked up
    /// before, when `terms` name no zone.
    ///
    /// # Errors
    /// As there.
    pub fn track_flow(
        &self,
        flow: &Flow,
        subject: &Subject,
        parsed: &Parsed,
        frame: &[u8],
        terms: &Terms,
        now: Nanos,
    ) -> Result<Tracking, DropReason> {
        match &subject.0 {
            Kind::Flow(key) => {
                let (l4, sums) = (parsed.l4_bytes(frame), self.verifies_checksums());
                // Of a connection that it opens, should the flow end first.
                let direction = Direction::Original;
                let (settings, named) = (&self.settings, &self.named);
                let visit = Visit { parsed, l4, sums, direction, now, settings, named, terms };
                self.walk_flow(key, visit, Some(flow.0))
            }
            Kind::Invalid | Kind::Untracked | Kind::About(_) => {
                self.track_subject(subject, parsed, frame, false, terms, now)
            }
        }
    }

    /// A connection's status bits and mark; `None` once its record serves another.
    #[inline]
    pub fn status_and_mark(&self, id: ConnId) -> Option<(u32, u32)> {
        self.store.status_and_mark(id)
    }
}
