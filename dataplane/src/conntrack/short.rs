//! Tracking of plain packets on the short road: where they are in the table, asked for
//! burst by burst, and what a UDP datagram does to a connection that it changes nothing of
//! but the deadline, or a TCP segment to one that merely goes on. Whatever is not quite so is for [`super::tracker`].

use super::config::Setting;
use super::flow::Flow;
use super::index::Entry;
use super::protocol::step;
use super::record::Locked;
use super::status::{
    ACCOUNTED, ASSURED, CONFIRMED, DST_NAT, DYING, FIXED_TIMEOUT, SEEN_REPLY, SRC_NAT,
};
use super::store::Hit;
use super::tcp::segment::Segment;
use super::tcp::{Effect, TcpConn};
use super::tracker::{Kind, Subject};
use super::tuple::{Key, NarrowKey};
use super::{ConnId, Conntrack};
use crate::clock::Nanos;
use crate::prefetch::fetch;
use crate::wire::plain::{Ends, Plain};
use crate::wire::proto;

/// Records below are in the core's own cache anyway.
pub(super) const CACHED: usize = 4096;

/// Status of connections whose packets may all be ESTABLISHED.
const ANSWERED: u32 = CONFIRMED | SEEN_REPLY;

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

/// The timeout that a datagram gives to its connection; `None` if that changes its status,
/// or is not ESTABLISHED by it.
#[inline]
fn lasting(status: u32, stream_from: u64, now: Nanos) -> Option<Setting> {
    let stream = now.0 > stream_from;
    let wanted = if stream { ANSWERED | ASSURED } else { ANSWERED };
    let setting = if stream { Setting::UdpStream } else { Setting::Udp };
    (status & wanted == wanted).then_some(setting)
}

/// The ends that packets have behind translation: those of the other direction's key, the
/// other way round.
#[inline]
fn ends(other: &Key) -> Ends {
    let ports = ((other.head >> 32) as u32).rotate_left(16);
    Ends { src: other.pair as u32, dst: (other.pair >> 32) as u32, ports }
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
        let entry = self.store.lock(flow.0.id)?;
        let status = entry.status();
        let setting = lasting(status, entry.aux(), now)?;
        if !suits(status, entry.mark()) {
            return None;
        }
        let timeout = || self.named.of(&entry, &self.settings).timeout(setting);
        Some(self.touch(&entry, (flow, bytes), now, timeout))
    }

    /// The same for a TCP segment whose checksum holds. What it does to its connection must
    /// be no more than that both sides' numbers go on.
    #[inline]
    pub fn advance(
        &self,
        flow: &Flow,
        l4: &[u8],
        bytes: u16,
        now: Nanos,
        suits: impl FnOnce(u32, u32) -> bool,
    ) -> Option<Option<Ends>> {
        let segment = Segment::parse(l4)?;
        let entry = self.store.lock(flow.0.id)?;
        let status = entry.status();
        if status & ANSWERED != ANSWERED || !suits(status, entry.mark()) {
            return None;
        }
        let mut conn = TcpConn::unpack(&entry.proto());
        let before = conn.state();
        let way = (flow.0.direction, now);
        let effect = step(&mut conn, &segment, &entry, way, (&self.settings, &self.named));
        let Effect::Accept { refresh, assure: false } = effect else { return None };
        if conn.state() != before {
            return None;
        }
        entry.set_proto(&conn.pack());
        Some(self.touch(&entry, (flow, bytes), now, || refresh))
    }

    /// Sets the deadline, and counts. The ends behind translation, if there is one.
    #[inline]
    fn touch(
        &self,
        entry: &Locked<'_>,
        (flow, bytes): (&Flow, u16),
        now: Nanos,
        timeout: impl FnOnce() -> Nanos,
    ) -> Option<Ends> {
        let status = entry.status();
        if status & FIXED_TIMEOUT == 0 {
            entry.set_deadline(now.0.saturating_add(timeout().0));
        }
        if status & ACCOUNTED != 0 {
            entry.account(flow.0.direction, bytes.into());
        }
        if self.store.events.wanted() {
            // There is nothing to tell but the time.
            self.store.events.set_clock(now);
        }
        let translated = status & (SRC_NAT | DST_NAT) != 0;
        translated.then(|| ends(&entry.key(flow.0.direction.opposite(), 0)))
    }

    /// What no listing shows of a connection: its deadline, and its protocol's state.
    #[cfg(test)]
    pub(crate) fn inner(&self, id: ConnId) -> Option<(u64, u64, Vec<u64>)> {
        let contents = self.store.contents(id)?;
        Some((contents.deadline, contents.aux, contents.proto.to_vec()))
    }
}
