//! Tracking of plain packets on the short road: where they are in the table, asked for
//! burst by burst, and what a UDP datagram does to a connection that it changes nothing of
//! but the deadline. Whatever is not quite so is for [`super::tracker`].

use super::config::Setting;
use super::flow::Flow;
use super::index::Entry;
use super::status::{
    ACCOUNTED, ASSURED, CONFIRMED, DST_NAT, DYING, FIXED_TIMEOUT, SEEN_REPLY, SRC_NAT,
};
use super::store::Hit;
use super::tracker::{Kind, Subject};
use super::tuple::NarrowKey;
use super::{ConnId, Conntrack};
use crate::clock::Nanos;
use crate::prefetch::fetch;
use crate::wire::plain::{Ends, Plain};
use crate::wire::proto;

/// Records below are in the core's own cache anyway.
pub(super) const CACHED: usize = 4096;

/// Where the table may have a plain packet's flow.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    key: NarrowKey,
    /// What the index has under the key's tag, as far as was looked.
    entry: Option<Entry>,
}

impl Spot {
    /// What the packet asks of the table.
    pub fn subject(&self) -> Subject {
        Subject(Kind::Flow(self.key.wide()))
    }
}

impl Conntrack {
    /// Where a packet of zone 0 is looked for; memory is asked for it.
    #[inline]
    pub fn spot(&self, plain: &Plain) -> Spot {
        let key = NarrowKey::of(plain, self.store.hash_key());
        self.store.index.fetch(key.hash);
        Spot { key, entry: None }
    }

    /// Looks into the index for a burst's spots, which were asked for before, and asks
    /// memory for the records that are named there and what plans keep with them.
    #[inline]
    pub fn look_ahead<'p>(&self, spots: impl Iterator<Item = &'p mut Spot>) {
        let distant = cfg!(test) || self.store.used() > CACHED;
        for spot in spots {
            spot.entry = self.store.index.foresee(spot.key.hash);
            match spot.entry {
                Some(entry) if distant => self.fetch_all(entry, &spot.key),
                Some(_) => {}
                None => self.store.index.fetch_second(spot.key.hash),
            }
        }
    }

    /// The same for those that are not in their first buckets.
    #[inline]
    pub fn look_further<'p>(&self, spots: impl Iterator<Item = &'p mut Spot>) {
        for spot in spots.filter(|spot| spot.entry.is_none()) {
            spot.entry = self.store.index.foresee_second(spot.key.hash);
            if let Some(entry) = spot.entry {
                self.fetch_all(entry, &spot.key);
            }
        }
    }

    #[inline]
    fn fetch_all(&self, entry: Entry, key: &NarrowKey) {
        let at = entry.record as usize;
        self.store.records.fetch_narrow(at, (key.head >> 8) as u8 == proto::TCP);
        self.store.words.get(at).into_iter().for_each(fetch);
    }

    /// [`Conntrack::flow`] for a plain packet.
    #[inline]
    pub fn flow_at(&self, spot: &Spot, now: Nanos) -> Option<Flow> {
        self.foreseen(spot, now).or_else(|| self.flow(&spot.subject(), now))
    }

    #[inline]
    fn foreseen(&self, spot: &Spot, now: Nanos) -> Option<Flow> {
        let entry = spot.entry?;
        let record = self.store.records.at(entry.record as usize);
        let key = (spot.key.head, spot.key.pair);
        let (generation, status) = record.matches_narrow(entry.direction, key, || true)?;
        let lives = status & (CONFIRMED | DYING) == CONFIRMED && record.deadline() > now.0;
        let id = ConnId::new(entry.record, generation);
        lives.then_some(Flow(Hit { id, direction: entry.direction, status }))
    }

    /// Tracks a UDP datagram of `bytes`, whose length and checksum hold, if that changes
    /// nothing of its connection's status and makes it ESTABLISHED, and if its status and
    /// mark are such as `suits`. `None`: nothing was done. For translated connections: the
    /// ends that the datagram is to have.
    #[inline]
    pub fn renew(
        &self,
        flow: &Flow,
        bytes: u16,
        now: Nanos,
        suits: impl FnOnce(u32, u32) -> bool,
    ) -> Option<Option<Ends>> {
        const ANSWERED: u32 = CONFIRMED | SEEN_REPLY;
        let entry = self.store.lock(flow.0.id)?;
        let status = entry.status();
        let stream = now.0 > entry.aux();
        let lasting = if stream { ANSWERED | ASSURED } else { ANSWERED };
        if status & lasting != lasting || !suits(status, entry.mark()) {
            return None;
        }
        let translated = status & (SRC_NAT | DST_NAT) != 0;
        let ends = translated.then(|| entry.ends(flow.0.direction));
        if status & FIXED_TIMEOUT == 0 {
            let setting = if stream { Setting::UdpStream } else { Setting::Udp };
            let timeout = self.named.of(&entry, &self.settings).timeout(setting);
            entry.set_deadline(now.0.saturating_add(timeout.0));
        }
        if status & ACCOUNTED != 0 {
            entry.account(flow.0.direction, bytes.into());
        }
        drop(entry);
        if self.store.events.wanted() {
            // There is nothing to tell but the time.
            self.store.events.set_clock(now);
        }
        Some(ends)
    }
}
