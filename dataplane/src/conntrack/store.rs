//! The concurrent core: records, index and free list as one table with
//! exact counts, unique tuples and safe reuse.
//!
//! Who may do what: a lookup takes no lock at all. The thread that created a
//! record owns it until it links (confirms) or discards it. Whoever first sets
//! DYING under the record's lock is its one remover, takes both entries out of
//! the index and gives the record back. A record is linked before it is marked
//! CONFIRMED, and only CONFIRMED records are found or killed by others.
//!
//! Bounds: `capacity` live records at most, plus spare ones that keep a
//! freed record unused for a while (the free list is first in, first out).
//! Handles outlive their connection harmlessly: see [`super::record`].

use std::sync::Mutex;

use super::events::{Events, change};
use super::extra::Extras;
use super::flow::Words;
use super::hash::HashKey;
use super::index::{Entry, Index};
use super::keymap::Keymap;
use super::lanes::Live;
use super::memory::Zeroed;
use super::record::{Contents, Locked, Place, Records};
use super::sources::Sources;
use super::status::{CONFIRMED, DYING, SRC_NAT_DONE, STAMPED};
use super::sync::{FreeList, Taken};
use super::tuple::{Direction, Key, Tuple};
use super::upkeep::{Evicted, Prepared};
use super::{ConnId, ConntrackError, Zones};
use crate::clock::Nanos;

/// A connection found by tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) id: ConnId,
    /// The direction whose tuple was asked for.
    pub(super) direction: Direction,
    pub(super) status: u32,
}

/// Why a record was not linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkError {
    /// Another connection holds one of the tuples.
    Clash(Hit),
    /// No free slot in the index.
    NoRoom,
    /// The handle is not an unconfirmed connection.
    NotOurs,
}

/// Records beside the live ones, so that a freed one rests for a while.
const fn spare(capacity: usize) -> usize {
    if cfg!(loom) { 0 } else { capacity / 32 + 1024 }
}

// What lies in stocks is not missed.
#[cfg(not(loom))]
const _: () = assert!(FreeList::STOCKED <= spare(0));

/// Bytes of memory that a table of at most `capacity` connections takes, if all of them
/// are IPv6, translated and have extras. What nothing has used yet takes none.
pub const fn table_bytes(capacity: usize) -> u64 {
    let len = capacity + spare(capacity);
    let records = len * (Records::BYTES + Sources::BYTES_PER_RECORD + Words::BYTES);
    records as u64 + FreeList::bytes(len) + Index::bytes(capacity * 2)
}

/// The table.
pub(super) struct Store {
    /// Only the sweep takes this lock.
    pub(super) prepared: Mutex<Prepared>,
    pub(super) records: Records,
    pub(super) words: Zeroed<Words>,
    pub(super) index: Index,
    sources: Sources,
    free: FreeList,
    live: Live,
    hash_key: HashKey,
    pub(super) events: Events,
    /// Keys of GRE flows, which end with their connections.
    pub(super) keymap: Keymap,
}

impl Store {
    /// A table of at most `capacity` connections.
    pub(super) fn new(capacity: usize, hash_key: [u8; 16]) -> Result<Self, ConntrackError> {
        // Record indices take 31 bits of a slot.
        const MOST: usize = 1 << 28;
        if capacity == 0 || capacity > MOST {
            return Err(ConntrackError::Capacity { asked: capacity, most: MOST });
        }
        let len = capacity + spare(capacity);
        Ok(Self {
            prepared: Mutex::new(Prepared::Index(0)),
            records: Records::new(len),
            words: Zeroed::new(len),
            index: Index::new(capacity * 2),
            sources: Sources::new(len),
            free: FreeList::full(len as u32),
            live: Live::new(capacity),
            hash_key: HashKey::new(hash_key),
            events: Events::new(),
            keymap: Keymap::new(0, hash_key),
        })
    }

    /// The key that tuples are hashed under.
    pub(super) fn hash_key(&self) -> &HashKey {
        &self.hash_key
    }

    /// Connections alive, unconfirmed ones included.
    pub(super) fn live(&self) -> u32 {
        self.live.get()
    }

    /// The same, or up to a hundredth of `limit` more; costs less.
    #[inline]
    pub(super) fn live_at_most(&self, limit: u32) -> u32 {
        self.live.at_most(limit)
    }

    /// Records, alive or not.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Records below this number have been in use at some time; no others.
    #[inline]
    pub(super) fn used(&self) -> usize {
        self.free.used() as usize
    }

    /// The words that the engine keeps with a connection.
    #[inline]
    pub(super) fn words(&self, id: ConnId) -> &Words {
        &self.words[id.index()]
    }

    /// Visits what `hash`'s tag leads to until `visit` returns something.
    #[inline]
    pub(super) fn scan<R>(
        &self,
        hash: u64,
        mut visit: impl FnMut(Entry, Place<'_>) -> Option<R>,
    ) -> Option<R> {
        self.index.scan(hash, |entry| visit(entry, self.records.at(entry.record as usize)))
    }

    #[inline]
    fn record(&self, id: ConnId) -> Place<'_> {
        self.records.at(id.index())
    }

    /// The confirmed, unexpired connection that has `key`. Collects expired ones it meets.
    pub(super) fn find(&self, key: &Key, now: Nanos) -> Option<Hit> {
        self.find_as(key, None, now)
    }

    /// The same among tuples of one direction, if given.
    pub(super) fn find_as(&self, key: &Key, way: Option<Direction>, now: Nanos) -> Option<Hit> {
        self.index.scan(key.hash, |entry| {
            if way.is_some_and(|way| way != entry.direction) {
                return None;
            }
            let record = self.records.at(entry.record as usize);
            let (generation, status) = record.matches(entry.direction, key)?;
            if status & (CONFIRMED | DYING) != CONFIRMED {
                return None;
            }
            let id = ConnId::new(entry.record, generation);
            if record.deadline() <= now.0 && self.expire(id, now) {
                return None;
            }
            Some(Hit { id, direction: entry.direction, status })
        })
    }

    /// Counts a new connection in, evicting others when `limit` is reached.
    /// False: the table is full of connections that must stay.
    pub(super) fn reserve(&self, limit: u32, hash: u64, now: Nanos) -> (bool, Evicted) {
        if self.live.enter(limit) {
            return (true, Evicted::default());
        }
        let evicted = self.evict(hash, now);
        if evicted.early > 0 || self.live.get() <= limit {
            return (true, evicted);
        }
        self.live.withdraw();
        (false, evicted)
    }

    /// Takes back a reservation.
    fn release(&self) {
        self.live.leave();
    }

    /// Starts an unconfirmed connection under a reservation; the caller owns it.
    /// On `None` (no record at hand) the reservation is taken back.
    pub(super) fn create(&self, original: &Key, reply: &Key) -> Option<(ConnId, Locked<'_>)> {
        let Some(Taken { record: index, soon }) = self.free.take() else {
            self.release();
            return None;
        };
        self.records.fetch(soon as usize, original);
        let locked = self.records.at(index as usize).begin_life();
        locked.clear();
        locked.set_mark(0);
        locked.set_deadline(0);
        locked.set_aux(0);
        let id = ConnId::new(index, locked.generation());
        self.set_key(id, &locked, Direction::Original, original);
        self.set_key(id, &locked, Direction::Reply, reply);
        Some((id, locked))
    }

    /// Gives an unconfirmed connection of the caller's a key.
    pub(super) fn set_key(&self, id: ConnId, locked: &Locked<'_>, way: Direction, key: &Key) {
        locked.set_key(way, key);
        self.words(id).keep_hash(way, key.hash);
    }

    /// Enters a connection for writing; `None` when it is dead.
    #[inline]
    pub(super) fn lock(&self, id: ConnId) -> Option<Locked<'_>> {
        self.record(id).lock(id.generation()).filter(|locked| locked.status() & DYING == 0)
    }

    /// Enters a connection for writing what only its own packets read; `None` when
    /// its record was reused.
    pub(super) fn lock_even_dead(&self, id: ConnId) -> Option<Locked<'_>> {
        self.record(id).lock(id.generation())
    }

    /// Makes an unconfirmed connection visible. Its deadline, an interval until
    /// now, becomes absolute.
    pub(super) fn link(&self, id: ConnId, now: Nanos) -> Result<(), LinkError> {
        self.link_from(id, None, now)
    }

    /// The same of one whose source's hash may be known.
    pub(super) fn link_from(
        &self,
        id: ConnId,
        source: Option<u64>,
        now: Nanos,
    ) -> Result<(), LinkError> {
        // Held to the end: until the connection is found, nobody else wants it.
        let locked = self.lock(id).ok_or(LinkError::NotOurs)?;
        if locked.status() & CONFIRMED != 0 {
            return Err(LinkError::NotOurs);
        }
        let keys = self.unconfirmed_keys(id, &locked);
        let _alone = self.index.exclude(keys.map(|key| key.hash));
        let zones = Zones { original: keys[0].zone(), reply: keys[1].zone() };
        for (key, way) in keys.iter().zip([Direction::Original, Direction::Reply]) {
            if let Some(hit) = self.find_as(key, zones.only(way), now) {
                return Err(LinkError::Clash(hit));
            }
        }
        if !self.enter_index(id, &keys) {
            return Err(LinkError::NoRoom);
        }
        self.publish(id, &locked, source, now);
        Ok(())
    }

    /// Makes an unconfirmed connection visible to its answers only: another
    /// connection has its original tuple.
    pub(super) fn link_answers(&self, id: ConnId, now: Nanos) -> Result<(), LinkError> {
        let locked = self.lock(id).ok_or(LinkError::NotOurs)?;
        let keys = self.unconfirmed_keys(id, &locked);
        let _alone = self.index.exclude(keys.map(|key| key.hash));
        let zones = Zones { original: keys[0].zone(), reply: keys[1].zone() };
        if let Some(hit) = self.find_as(&keys[1], zones.only(Direction::Reply), now) {
            return Err(LinkError::Clash(hit));
        }
        let entry = Entry { record: id.index() as u32, direction: Direction::Reply };
        if !self.index.insert(keys[1].hash, entry) {
            return Err(LinkError::NoRoom);
        }
        self.publish(id, &locked, None, now);
        Ok(())
    }

    /// The last step of linking: the record becomes one that others may find and end.
    fn publish(&self, id: ConnId, locked: &Locked<'_>, source: Option<u64>, now: Nanos) {
        debug_assert!(source.is_none_or(|hash| self.source(locked).is_none_or(|own| own == hash)));
        let listed = locked.status() & SRC_NAT_DONE != 0;
        if let Some(hash) = source.filter(|_| listed).or_else(|| self.source(locked)) {
            self.sources.insert(hash, id.index() as u32);
        }
        locked.set_deadline(now.0.saturating_add(locked.deadline()));
        if locked.status() & STAMPED != 0 {
            // What comes back from a state file has kept its own.
            locked.update_extras(|extras| extras.set_start(extras.start_or(now.0)));
        }
        self.words(id).clear();
        locked.release_status(CONFIRMED);
    }

    /// The keys of an unconfirmed connection, hashed before.
    fn unconfirmed_keys(&self, id: ConnId, locked: &Locked<'_>) -> [Key; 2] {
        let words = self.words(id);
        [Direction::Original, Direction::Reply].map(|way| locked.key(way, words.hash(way)))
    }

    fn keys(&self, locked: &Locked<'_>) -> [Key; 2] {
        [Direction::Original, Direction::Reply]
            .map(|direction| locked.tuple(direction).key(&self.hash_key))
    }

    /// Hash of a connection's source, if it belongs into [`Sources`]: that does not
    /// change once it is confirmed.
    fn source(&self, locked: &Locked<'_>) -> Option<u64> {
        let listed = locked.status() & SRC_NAT_DONE != 0;
        listed.then(|| locked.tuple(Direction::Original).source_hash(&self.hash_key))
    }

    fn enter_index(&self, id: ConnId, keys: &[Key; 2]) -> bool {
        let [original, reply] = [Direction::Original, Direction::Reply]
            .map(|direction| Entry { record: id.index() as u32, direction });
        if !self.index.insert(keys[1].hash, reply) {
            return false;
        }
        // A connection to itself has one tuple; the kernel finds it as a reply.
        if keys[0] == keys[1] || self.index.insert(keys[0].hash, original) {
            return true;
        }
        self.index.remove(keys[1].hash, reply);
        false
    }

    /// Ends a connection if `may`, given its status and deadline, agrees. True
    /// for the one caller that ended it.
    pub(super) fn kill_if(&self, id: ConnId, may: impl FnOnce(u32, u64) -> bool) -> bool {
        let Some(locked) = self.lock(id) else { return false };
        let status = locked.status();
        if !may(status, locked.deadline()) {
            return false;
        }
        locked.set_status(status | DYING);
        let found_by =
            (status & CONFIRMED != 0).then(|| (self.keys(&locked), self.source(&locked)));
        let calls = self.calls_of(id, &locked);
        drop(locked);
        if let Some((keys, source)) = found_by {
            if let Some(hash) = source {
                self.sources.remove(hash, id.index() as u32);
            }
            for (key, direction) in keys.iter().zip([Direction::Original, Direction::Reply]) {
                self.index.remove(key.hash, Entry { record: id.index() as u32, direction });
            }
        }
        if status & CONFIRMED != 0 && self.events.wanted() {
            self.tell_end(id);
        }
        // Given back before it is counted out: whoever is counted in finds a record.
        self.free.give(id.index() as u32);
        self.release();
        if let Some((master, flows)) = calls {
            self.end_calls(master, flows);
        }
        true
    }

    fn tell_end(&self, id: ConnId) {
        if let (Some(contents), Some((status, extras))) = (self.contents(id), self.extras(id)) {
            self.events.tell(id, change::DESTROY, &contents, (status, &extras));
        }
    }

    /// Ends a confirmed connection, whatever its deadline.
    pub(super) fn kill(&self, id: ConnId) -> bool {
        self.kill_if(id, |status, _| status & CONFIRMED != 0)
    }

    /// Ends an unconfirmed connection of the caller's.
    pub(super) fn discard(&self, id: ConnId) -> bool {
        self.kill_if(id, |status, _| status & CONFIRMED == 0)
    }

    pub(super) fn expire(&self, id: ConnId, now: Nanos) -> bool {
        self.kill_if(id, |status, deadline| status & CONFIRMED != 0 && deadline <= now.0)
    }

    /// [`Store::find_hashed_source`] of a source whose hash is not known.
    #[cfg(test)]
    pub(super) fn find_source<R>(
        &self,
        source: &Tuple,
        read: impl FnMut(&Tuple) -> Option<R>,
    ) -> Option<R> {
        self.find_hashed_source(source, source.source_hash(&self.hash_key), read)
    }

    /// The hash of a tuple's source, whose list is fetched.
    pub(super) fn fetch_source(&self, source: &Tuple) -> u64 {
        let hash = source.source_hash(&self.hash_key);
        self.sources.fetch(hash);
        hash
    }

    /// What `read` makes of the reply tuple of a live connection with the same
    /// original source as `source`, which has this hash, the newest first.
    pub(super) fn find_hashed_source<R>(
        &self,
        source: &Tuple,
        hash: u64,
        mut read: impl FnMut(&Tuple) -> Option<R>,
    ) -> Option<R> {
        self.sources.find(hash, |at| {
            let record = self.records.at(at as usize);
            let alive = record.status() & DYING == 0;
            let same = alive && record.tuple(Direction::Original).same_source(source);
            same.then(|| record.tuple(Direction::Reply)).and_then(|reply| read(&reply))
        })
    }

    /// The status bits; `None` when the record was reused.
    #[inline]
    pub(super) fn status(&self, id: ConnId) -> Option<u32> {
        self.record(id).peek(id.generation(), Place::status)
    }

    /// The status bits and the mark; `None` when the record was reused.
    #[inline]
    pub(super) fn status_and_mark(&self, id: ConnId) -> Option<(u32, u32)> {
        self.record(id).peek(id.generation(), |record| (record.status(), record.mark()))
    }

    /// The port whose address it took; the outer `None` when the record was reused.
    #[inline]
    pub(super) fn masquerade_port(&self, id: ConnId) -> Option<Option<u8>> {
        self.record(id).peek(id.generation(), Place::masquerade_port)
    }

    /// Status bits and both tuples, which do not change while others see them;
    /// `None` when the record was reused.
    #[inline]
    pub(super) fn tuples(&self, id: ConnId) -> Option<(u32, [Tuple; 2])> {
        self.record(id).peek(id.generation(), |record| {
            let both = [Direction::Original, Direction::Reply].map(|way| record.tuple(way));
            (record.status(), both)
        })
    }

    /// Whether record number `at` holds a confirmed connection just now.
    pub(super) fn is_confirmed_at(&self, at: usize) -> bool {
        self.records.at(at).status() & (CONFIRMED | DYING) == CONFIRMED
    }

    /// A consistent copy of a connection, dead or alive, until its record is reused.
    pub(super) fn contents(&self, id: ConnId) -> Option<Contents> {
        self.record(id).contents(Some(id.generation()))
    }

    /// The same with the extras; `None` unless it is in the table.
    pub(super) fn whole_at(&self, at: usize) -> Option<(ConnId, Contents, Extras)> {
        let record = self.records.at(at);
        if record.status() & (CONFIRMED | DYING) != CONFIRMED {
            return None;
        }
        let (contents, extras) = record.whole()?;
        Some((ConnId::new(at as u32, contents.generation), contents, extras))
    }

    /// A connection's status and extras, dead or alive, until its record is reused.
    pub(super) fn extras(&self, id: ConnId) -> Option<(u32, Extras)> {
        self.record(id).extras(id.generation())
    }

    /// A consistent copy of whatever record number `at` holds.
    pub(super) fn contents_at(&self, at: usize) -> Option<(ConnId, Contents)> {
        let contents = self.records.at(at).contents(None)?;
        Some((ConnId::new(at as u32, contents.generation), contents))
    }

    /// The mark; `None` when the record was reused.
    pub(super) fn mark(&self, id: ConnId) -> Option<u32> {
        self.record(id).peek(id.generation(), Place::mark)
    }

    /// All index entries, for invariant checks in tests.
    #[cfg(test)]
    pub(super) fn entries(&self) -> Vec<Entry> {
        self.index.entries()
    }
}
