//! What NAT asks of the table, and tells it.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::status::{CONFIRMED, DST_NAT, DYING, FIXED_TIMEOUT, SRC_NAT};
use super::tcp::{TcpConn, TcpState};
use super::template::Zones;
use super::tuple::{Direction, Key, Tuple};
use super::{ConnId, Conntrack, Subject};
use crate::clock::Nanos;
use crate::nat::Manip;
use crate::packet::{Family, PortId};
use crate::wire::proto;

/// What a connection looks like to NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Face {
    /// As the first packet went.
    pub original: Tuple,
    /// As its answers come.
    pub reply: Tuple,
    /// [`super::status`] bits.
    pub status: u32,
    /// Where the sequence numbers of a TCP connection that begins with a SYN
    /// stand; `None` once that is answered.
    pub isn_end: Option<u32>,
    /// Hash of `reply`, while the connection is not confirmed.
    reply_hash: Option<u64>,
    /// Hash of the original source, if that is known.
    source: Option<u64>,
}

/// What a connection's original source is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceHash {
    conn: ConnId,
    hash: u64,
}

impl SourceHash {
    /// If it is this connection's.
    pub(super) fn of(self, conn: ConnId) -> Option<u64> {
        (self.conn == conn).then_some(self.hash)
    }
}

/// A reply tuple, ready to be looked for and to be given to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer(Key);

impl Answer {
    /// The tuple.
    pub fn tuple(&self) -> Tuple {
        self.0.tuple()
    }
}

impl Face {
    /// One direction's tuple.
    pub const fn tuple(&self, direction: Direction) -> &Tuple {
        match direction {
            Direction::Original => &self.original,
            Direction::Reply => &self.reply,
        }
    }

    /// Whether packets of this direction are changed by `manip`: a translated
    /// source is the destination of what comes back.
    pub const fn translates(&self, direction: Direction, manip: Manip) -> bool {
        let manip = match direction {
            Direction::Original => manip,
            Direction::Reply => manip.opposite(),
        };
        self.status & manip.bit() != 0
    }
}

impl Conntrack {
    /// A seed for worker number `worker`'s random choices, from the table's own key.
    pub fn seed(&self, worker: usize) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.store.hash_key().drawn);
        hasher.write_u64(worker as u64);
        hasher.finish()
    }

    /// A connection's status bits; `None` once its record serves another.
    #[inline]
    pub fn status(&self, id: ConnId) -> Option<u32> {
        self.store.status(id)
    }

    /// Whether a packet belongs to a translated connection of zone 0.
    pub fn is_translated(&self, subject: &Subject, now: Nanos) -> bool {
        let id = subject.key().and_then(|key| self.store.find(key, now)).map(|hit| hit.id);
        let status = id.and_then(|id| self.status(id));
        status.is_some_and(|bits| bits & (SRC_NAT | DST_NAT) != 0)
    }

    /// A connection as NAT sees it; `None` once its record serves another.
    pub fn face(&self, id: ConnId) -> Option<Face> {
        let (status, [original, reply]) = self.store.tuples(id)?;
        let fresh = original.proto == proto::TCP && status & CONFIRMED == 0;
        let opening = match fresh {
            true => self.store.contents(id).map(|contents| TcpConn::unpack(&contents.proto)),
            false => None,
        };
        let opening = opening.filter(|tcp| tcp.state() == TcpState::SynSent);
        let isn_end = opening.map(|tcp| tcp.sent_by_opener());
        let hash = || self.store.words(id).hash(Direction::Reply);
        let reply_hash = (status & CONFIRMED == 0).then(hash);
        Some(Face { original, reply, status, isn_end, reply_hash, source: None })
    }

    /// `reply` as the reply tuple of a connection that has, or had, the face `face`.
    pub fn answer(&self, reply: &Tuple, face: &Face) -> Answer {
        let known = face.reply_hash.filter(|_| *reply == face.reply);
        Answer(match known {
            Some(hash) => reply.hashed_key(hash),
            None => reply.key(self.store.hash_key()),
        })
    }

    /// Makes the source of `face` known, unless it is; memory is asked for where
    /// connections of the same source are found.
    pub fn know_source(
        &self,
        conn: ConnId,
        face: &mut Face,
        known: Option<SourceHash>,
    ) -> SourceHash {
        let known = known.and_then(|known| known.of(conn));
        let hash = known.unwrap_or_else(|| self.store.fetch_source(&face.original));
        face.source = Some(hash);
        SourceHash { conn, hash }
    }

    /// Asks memory for where `answer` is looked for.
    pub fn fetch_answer(&self, answer: &Answer) {
        self.store.fetch_both(answer.0.hash);
    }

    /// Gives an unconfirmed connection another reply tuple, and status bits that
    /// NAT owns; `face` follows. False when it is confirmed already, or gone.
    pub fn bind(&self, id: ConnId, reply: Option<&Answer>, bits: u32, face: &mut Face) -> bool {
        let Some(entry) = self.store.lock(id) else { return false };
        if entry.status() & CONFIRMED != 0 {
            return false;
        }
        if let Some(Answer(key)) = reply {
            self.store.set_key(id, &entry, Direction::Reply, key);
            (face.reply, face.reply_hash) = (key.tuple(), Some(key.hash));
        }
        entry.add_status(bits);
        face.status |= bits;
        true
    }

    /// [`Conntrack::bind`] for tests that have a tuple.
    #[cfg(test)]
    pub(crate) fn bind_tuple(&self, id: ConnId, reply: Option<&Tuple>, bits: u32) -> bool {
        let Some(mut face) = self.face(id) else { return false };
        let answer = reply.map(|reply| self.answer(reply, &face));
        self.bind(id, answer.as_ref(), bits, &mut face)
    }

    /// The port whose address a connection took by MASQUERADE.
    pub fn masquerade(&self, id: ConnId) -> Option<PortId> {
        self.store.masquerade_port(id)?.map(PortId)
    }

    /// Remembers whose address an unconfirmed connection takes by MASQUERADE.
    pub fn set_masquerade(&self, id: ConnId, port: PortId) {
        let entry = self.store.lock(id);
        if let Some(entry) = entry.filter(|entry| entry.status() & CONFIRMED == 0) {
            entry.update_extras(|extras| extras.set_masquerade_port(Some(port.0)));
        }
    }

    /// Whether `reply`, as the reply tuple of the unconfirmed connection `face`,
    /// is another's. A connection with the same original tuple does not count:
    /// both are the same flow, and confirming one settles it.
    pub fn is_taken(&self, reply: &Answer, face: &Face, now: Nanos) -> bool {
        self.holder(reply, face, now)
            .and_then(|id| self.face(id))
            .is_some_and(|holder| holder.original != face.original)
    }

    /// Whether `reply` is held by the same flow, seen first from its other end and
    /// not translated.
    pub fn is_reverse(&self, reply: &Answer, face: &Face, now: Nanos) -> bool {
        self.holder(reply, face, now).and_then(|id| self.face(id)).is_some_and(|holder| {
            holder.status & (SRC_NAT | DST_NAT) == 0
                && holder.original == face.reply
                && holder.reply == face.original
        })
    }

    /// Who holds `reply`: looked for in the zone of replies alone, where the kernel
    /// looks; one whose original tuple it is, in another zone of originals, is not
    /// met there.
    fn holder(&self, Answer(key): &Answer, face: &Face, now: Nanos) -> Option<ConnId> {
        let zones = Zones { original: face.original.zone, reply: key.zone() };
        self.store.find_as(key, zones.only(Direction::Reply), now).map(|hit| hit.id)
    }

    /// Whether `reply` is free, if need be by ending a closed connection with
    /// translated source that holds it: a new one whose sequence numbers, at
    /// `isn_end`, have gone beyond the old one's cannot be mistaken for it.
    /// Here the kernel looks in both zones of `face`, the new one.
    pub fn take_from_closed(&self, reply: &Tuple, face: &Face, isn_end: u32, now: Nanos) -> bool {
        let zones = Zones { original: face.original.zone, reply: reply.zone };
        let there = Tuple { zone: zones.original, ..*reply };
        let key = there.key(self.store.hash_key());
        let Some(hit) = self.seek(&key, zones, now) else { return true };
        let Some(contents) = self.store.contents(hit.id) else { return true };
        if hit.direction == Direction::Original || contents.original.proto != proto::TCP {
            return false;
        }
        let tcp = TcpConn::unpack(&contents.proto);
        let closed = tcp.state() >= TcpState::TimeWait
            && contents.status & (FIXED_TIMEOUT | DYING) == 0
            && contents.status & SRC_NAT != 0;
        let advanced = (isn_end.wrapping_sub(tcp.sent_by_opener()) as i32) > 0;
        closed && advanced && self.store.kill(hit.id)
    }

    /// The external source that a connection of the same source as `face` has which
    /// `accept` accepts, the newest first.
    pub fn mapping_of<R>(&self, face: &Face, accept: impl Fn(u128, u16) -> Option<R>) -> Option<R> {
        let hash = || face.original.source_hash(self.store.hash_key());
        let hash = face.source.unwrap_or_else(hash);
        self.store.find_hashed_source(&face.original, hash, |reply| {
            let icmp = matches!(reply.proto, proto::ICMP | proto::ICMPV6);
            accept(reply.dst, if icmp { reply.sport } else { reply.dport })
        })
    }

    /// Ends connections that took the address of `port` by MASQUERADE, when the
    /// port has gone down, or only those with `address` when it has lost that.
    /// Looks at the `budget` records from `from` on; returns where to go on.
    pub fn forget_masqueraded(
        &self,
        port: PortId,
        address: Option<(Family, u128)>,
        from: usize,
        budget: usize,
    ) -> Option<usize> {
        let end = from.saturating_add(budget).min(self.store.len());
        for at in from..end {
            if !self.store.is_confirmed_at(at) {
                continue;
            }
            let Some((id, contents)) = self.store.contents_at(at) else { continue };
            let reply = &contents.reply;
            let same = address.is_none_or(|lost| lost == (reply.family, reply.dst));
            if same && self.masquerade(id) == Some(port) {
                self.store.kill(id);
            }
        }
        (end < self.store.len()).then_some(end)
    }
}
