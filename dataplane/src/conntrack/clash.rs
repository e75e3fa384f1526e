//! Confirmation, and what happens when two packets open one connection, or two
//! connections want one tuple.
//!
//! It takes two workers, or a range of ports that is used up. A protocol without
//! a handshake to lose goes on: in the winner's connection, if both say the same;
//! else beside it, for a second, so that the answers find their way back.

use super::room::Count;
use super::status::{FIXED_TIMEOUT, NAT_CLASH, SEEN_REPLY};
use super::store::LinkError;
use super::tuple::Direction;
use super::{ConnId, Conntrack, CtState, SourceHash, Tracking};
use crate::clock::Nanos;
use crate::verdict::DropReason;
use crate::wire::proto;

/// How long a connection that was made beside another lives.
const BESIDE: Nanos = Nanos::from_secs(1);

impl Conntrack {
    /// Makes a new connection visible: its first packet is about to leave. Does
    /// nothing for other packets.
    ///
    /// # Errors
    /// Another packet's connection holds a tuple of this one
    /// ([`DropReason::ConntrackClash`]), or the index has no slot for it
    /// ([`DropReason::ConntrackFull`]). The connection is gone, the packet must
    /// be dropped.
    pub fn confirm(&self, tracking: &mut Tracking, now: Nanos) -> Result<(), DropReason> {
        self.confirm_from(tracking, None, now)
    }

    /// The same for a connection whose source may be known.
    ///
    /// # Errors
    /// As [`Conntrack::confirm`].
    pub fn confirm_from(
        &self,
        tracking: &mut Tracking,
        source: Option<SourceHash>,
        now: Nanos,
    ) -> Result<(), DropReason> {
        let Some(id) = tracking.conn.filter(|_| tracking.unconfirmed) else { return Ok(()) };
        tracking.unconfirmed = false;
        let reason = match self.store.link_from(id, source.and_then(|source| source.of(id)), now) {
            Ok(()) => {
                self.count(Count::Insert, 1);
                self.tell_new(id, now);
                return Ok(());
            }
            Err(LinkError::Clash(winner)) if self.resolve(id, winner.id, tracking, now) => {
                self.count(Count::ClashResolved, 1);
                return Ok(());
            }
            Err(LinkError::Clash(_) | LinkError::NotOurs) => DropReason::ConntrackClash,
            Err(LinkError::NoRoom) => {
                self.count(Count::NoRoom, 1);
                DropReason::ConntrackFull
            }
        };
        self.store.discard(id);
        tracking.conn = None;
        self.count(Count::InsertFailed, 1);
        self.count(Count::Drop, 1);
        Err(reason)
    }

    /// Lets the loser's packet go on after all, if that can be.
    fn resolve(&self, loser: ConnId, winner: ConnId, tracking: &mut Tracking, now: Nanos) -> bool {
        if self.merge(loser, winner, tracking) {
            return true;
        }
        let Some(entry) = self.store.lock(loser) else { return false };
        let protocol = entry.tuple(Direction::Original).proto;
        if !matches!(protocol, proto::UDP | proto::UDPLITE | proto::GRE) {
            return false;
        }
        entry.set_deadline(BESIDE.0);
        entry.add_status(FIXED_TIMEOUT | NAT_CLASH);
        drop(entry);
        match self.store.link_answers(loser, now) {
            Ok(()) => true,
            Err(LinkError::Clash(holder)) => self.merge(loser, holder.id, tracking),
            Err(LinkError::NoRoom | LinkError::NotOurs) => false,
        }
    }

    /// Makes the loser's packet one of the winner's connection, when both say the
    /// same, perhaps from opposite ends, and the protocol has no handshake to lose.
    fn merge(&self, loser: ConnId, winner: ConnId, tracking: &mut Tracking) -> bool {
        let (Some(lost), Some(won)) = (self.store.contents(loser), self.store.contents(winner))
        else {
            return false;
        };
        if !matches!(won.original.proto, proto::UDP | proto::UDPLITE | proto::GRE) {
            return false;
        }
        let same = won.original == lost.original && won.reply == lost.reply;
        let reversed = won.original == lost.reply && won.reply == lost.original;
        if !same && !reversed {
            return false;
        }
        if reversed && !same {
            tracking.direction = Direction::Reply;
            tracking.state = CtState::Established;
            if let Some(entry) = self.store.lock(winner) {
                entry.add_status(SEEN_REPLY);
            }
        }
        self.store.discard(loser);
        tracking.conn = Some(winner);
        true
    }

    /// Forgets an unconfirmed connection: its first packet was dropped. Does
    /// nothing for other packets.
    pub fn discard(&self, tracking: Tracking) {
        if let Some(id) = tracking.conn.filter(|_| tracking.unconfirmed) {
            self.store.discard(id);
        }
    }
}
