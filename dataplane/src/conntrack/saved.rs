//! Connections outside their table: taken out whole for the state file, and put
//! back into the table of a later process.
//!
//! Times are relative while a connection is outside, because every process counts
//! its own. Tuples are hashed anew: the key differs from boot to boot. What the
//! ends did in the meantime is unknown, so a TCP connection comes back without
//! its windows and learns them from the next packets.

use super::extra::{Extras, WORDS as EXTRA_WORDS};
use super::record::PROTO_WORDS;
use super::status::{CONFIRMED, DYING, OWN_TIMEOUTS};
use super::store::{LinkError, Store};
use super::tcp::{TcpConn, TcpState};
use super::tuple::Tuple;
use super::{ConnId, Conntrack, TimeoutsId};
use crate::clock::Nanos;
use crate::packet::Family;
use crate::wire::proto;

/// What is restored may learn its windows anew for this long: until even
/// retransmissions that backed off during the absence have come.
const RELEARN: Nanos = Nanos::from_secs(120);

/// A confirmed connection outside its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Its [`ConnId::number`] in the table that it was taken from.
    pub number: u64,
    /// The number of its master there.
    pub master: Option<u64>,
    /// Time until it expires.
    pub left: Nanos,
    /// Time since it was confirmed, if that is kept.
    pub age: Option<Nanos>,
    /// [`super::status`] bits.
    pub status: u32,
    /// The connection's mark.
    pub mark: u32,
    /// As the first packet went.
    pub original: Tuple,
    /// As its answers come.
    pub reply: Tuple,
    /// Protocol state and what else the table knows, for [`Conntrack::import`] alone.
    pub words: [u64; Self::WORDS],
}

impl Saved {
    /// Length of [`Saved::words`].
    pub const WORDS: usize = 1 + PROTO_WORDS + EXTRA_WORDS;
    /// What [`Saved::words`] mean. To be raised whenever a word is given another meaning.
    pub const LAYOUT: u32 = 1;

    /// The port whose address a MASQUERADE took.
    pub fn masquerade_port(&self) -> Option<u8> {
        self.extras().masquerade_port()
    }

    /// Gives that port its present number.
    pub fn set_masquerade_port(&mut self, port: Option<u8>) {
        let mut extras = self.extras();
        extras.set_masquerade_port(port);
        self.words[1 + PROTO_WORDS..].copy_from_slice(&extras.0);
    }

    /// Its named timeout policy.
    pub fn timeouts(&self) -> Option<TimeoutsId> {
        self.extras().timeouts().map(TimeoutsId)
    }

    /// Gives that policy its present index; without one, the table's timeouts hold.
    pub fn set_timeouts(&mut self, policy: Option<TimeoutsId>) {
        let mut extras = self.extras();
        extras.set_timeouts(policy.map(|policy| policy.0));
        self.words[1 + PROTO_WORDS..].copy_from_slice(&extras.0);
        if policy.is_none() {
            self.status &= !OWN_TIMEOUTS;
        }
    }

    /// Whether it is a TCP connection of which only the SYN was seen.
    pub fn is_half_open(&self) -> bool {
        self.original.proto == proto::TCP
            && matches!(
                TcpConn::unpack(&self.protocol()).state(),
                TcpState::SynSent | TcpState::SynSent2 | TcpState::None
            )
    }

    fn extras(&self) -> Extras {
        let mut extras = Extras::default();
        extras.0.copy_from_slice(&self.words[1 + PROTO_WORDS..]);
        extras
    }

    fn protocol(&self) -> [u64; PROTO_WORDS] {
        std::array::from_fn(|at| self.words[1 + at])
    }

    /// Whether the tuples can be those of one connection.
    fn is_sound(&self) -> bool {
        let fits = |tuple: &Tuple| match tuple.family {
            Family::V4 => (tuple.src | tuple.dst) >> 32 == 0,
            Family::V6 => true,
        };
        fits(&self.original)
            && fits(&self.reply)
            && self.original.family == self.reply.family
            && self.original.proto == self.reply.proto
    }
}

/// Why a connection was not put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// Its time ran out.
    #[error("it has expired")]
    Expired,
    /// The table is full.
    #[error("the table is full")]
    Full,
    /// Another connection has one of its tuples.
    #[error("another connection has its tuple")]
    Clash,
    /// Its tuples contradict each other.
    #[error("its tuples contradict each other")]
    Unsound,
}

impl Conntrack {
    /// The connection in place `at`, as it is now; `None` if there is none, or an
    /// unconfirmed or expired one.
    pub fn export(&self, at: usize, now: Nanos) -> Option<Saved> {
        let (id, contents, mut extras) = self.store.whole_at(at)?;
        if contents.status & (CONFIRMED | DYING) != CONFIRMED || contents.deadline <= now.0 {
            return None;
        }
        let master = extras.master().map(ConnId::number);
        let started = extras.start();
        extras.set_master(None);
        extras.set_start(0);
        let mut words = [0; Saved::WORDS];
        words[0] = match contents.original.proto {
            // The start of the stream.
            proto::UDP => contents.aux.saturating_sub(now.0),
            proto::TCP => 0,
            _ => contents.aux,
        };
        words[1..=PROTO_WORDS].copy_from_slice(&contents.proto);
        words[1 + PROTO_WORDS..].copy_from_slice(&extras.0);
        Some(Saved {
            number: id.number(),
            master,
            left: Nanos(contents.deadline - now.0),
            age: (started != 0).then(|| now.saturating_sub(Nanos(started))),
            status: contents.status,
            mark: contents.mark,
            original: contents.original,
            reply: contents.reply,
            words,
        })
    }

    /// Puts a connection into the table, `elapsed` after it was taken out of
    /// another. Nothing is evicted for it. Its master is for the caller to
    /// [`Conntrack::set_master`], once that has its new name.
    ///
    /// # Errors
    /// [`ImportError`]; the table is as before.
    pub fn import(&self, saved: &Saved, elapsed: Nanos, now: Nanos) -> Result<ConnId, ImportError> {
        if !saved.is_sound() {
            return Err(ImportError::Unsound);
        }
        let left = saved.left.saturating_sub(elapsed);
        if left == Nanos(0) {
            return Err(ImportError::Expired);
        }
        let capacity = self.capacity();
        if self.len() as u64 >= capacity {
            return Err(ImportError::Full);
        }
        let store = &self.store;
        let keys = [&saved.original, &saved.reply].map(|tuple| tuple.key(store.hash_key()));
        let (reserved, _) = store.reserve(capacity as u32, keys[0].hash, now);
        let created = if reserved { store.create(&keys[0], &keys[1]) } else { None };
        let Some((id, entry)) = created else { return Err(ImportError::Full) };
        entry.set_status(saved.status & !(CONFIRMED | DYING));
        entry.set_mark(saved.mark);
        // An interval until it is linked.
        entry.set_deadline(left.0);
        let mut extras = saved.extras();
        extras.set_master(None);
        if let Some(age) = saved.age {
            // Zero means that it is not kept.
            extras.set_start(now.saturating_sub(age).saturating_sub(elapsed).0.max(1));
        }
        entry.store_extras(&extras);
        let mut protocol = saved.protocol();
        entry.set_aux(match saved.original.proto {
            proto::UDP => (now + Nanos(saved.words[0]).saturating_sub(elapsed)).0,
            proto::TCP => {
                let mut conn = TcpConn::unpack(&protocol);
                conn.lose_history();
                protocol = conn.pack();
                (now + RELEARN).0
            }
            _ => saved.words[0],
        });
        entry.set_proto(&protocol);
        drop(entry);
        link(store, id, now)?;
        self.name_again(id);
        Ok(id)
    }

    /// Names the connection that `id` was expected from. False when `id` is gone.
    pub fn set_master(&self, id: ConnId, master: ConnId) -> bool {
        let Some(entry) = self.store.lock(id) else { return false };
        entry.update_extras(|extras| extras.set_master(Some(master)));
        true
    }
}

fn link(store: &Store, id: ConnId, now: Nanos) -> Result<(), ImportError> {
    let outcome = store.link(id, now).map_err(|error| match error {
        LinkError::Clash(_) | LinkError::NotOurs => ImportError::Clash,
        LinkError::NoRoom => ImportError::Full,
    });
    if outcome.is_err() {
        store.discard(id);
    }
    outcome
}
