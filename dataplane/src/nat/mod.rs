//! Network address translation: which tuple a connection gets, and what that
//! does to its packets.
//!
//! A translation is decided once, by the first packet of a connection, and kept
//! in its reply tuple: packets are made to look like the inverse of the other
//! direction's tuple. `resolve` turns a target into a range, `select` (with
//! `pool`) picks a tuple from a range, `rewrite` changes a packet, `errors` the
//! packets that ICMP errors quote; `affinity` knows to which worker answers come. The engine drives it (`engine/translate.rs`).
//!
//! Who decides is netfilter, packet for packet; only where the kernel draws at
//! random do the choices differ.

pub mod affinity;
pub mod errors;
pub mod random;
pub mod resolve;
pub mod rewrite;
pub mod select;

mod pool;

use crate::clock::Nanos;
use crate::conntrack::{ConnId, Conntrack, Face, status};
use crate::policy::Hook;
use crate::policy::matches::Range;
use crate::policy::target::NatRange;

pub use affinity::{Home, Spread};
pub(crate) use pool::{hash, hash3};
pub use random::{Luck, Random};

/// The two translations that a connection has, each perhaps to nothing new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Manip {
    /// Of the source: POSTROUTING, INPUT.
    Source,
    /// Of the destination: PREROUTING, OUTPUT.
    Destination,
}

impl Manip {
    /// The translation that is decided and carried out at a hook.
    pub const fn at(hook: Hook) -> Self {
        match hook {
            Hook::Postrouting | Hook::Input => Self::Source,
            Hook::Prerouting | Hook::Output | Hook::Forward => Self::Destination,
        }
    }
    /// The other one.
    pub const fn opposite(self) -> Self {
        match self {
            Self::Source => Self::Destination,
            Self::Destination => Self::Source,
        }
    }
    /// The status bit of a connection that is translated so.
    pub const fn bit(self) -> u32 {
        match self {
            Self::Source => status::SRC_NAT,
            Self::Destination => status::DST_NAT,
        }
    }
    /// The status bit of a connection for which this is decided.
    pub const fn done(self) -> u32 {
        match self {
            Self::Source => status::SRC_NAT_DONE,
            Self::Destination => status::DST_NAT_DONE,
        }
    }
}

/// Decides one translation of a connection that is not in the table yet: chooses
/// a tuple from `range` and gives it to the connection. Does nothing when it is
/// decided already, or too late. Helpers call this for what they expect.
pub fn setup(
    table: &Conntrack,
    conn: ConnId,
    range: &NatRange,
    manip: Manip,
    random: &mut Random,
    now: Nanos,
) {
    let mut luck = Luck { random, home: None };
    if let Some(mut face) = table.face(conn) {
        decide(table, conn, &mut face, range, manip, &mut luck, now);
    }
}

/// The same for the connection with this face, which is changed with it, and with a
/// preference for ports whose answers come to this worker.
pub fn decide(
    table: &Conntrack,
    conn: ConnId,
    face: &mut Face,
    range: &NatRange,
    manip: Manip,
    luck: &mut Luck<'_>,
    now: Nanos,
) {
    if face.status & (status::CONFIRMED | manip.done()) != 0 {
        return;
    }
    let Some(current) = face.reply.inverted() else { return };
    let (chosen, asked) = select::tuple(table, face, &current, range, manip, luck, now);
    if chosen == current {
        table.bind(conn, None, manip.done(), face);
    } else if let Some(reply) = chosen.inverted() {
        let asked = asked.filter(|asked| asked.tuple() == reply);
        let reply = asked.unwrap_or_else(|| table.answer(&reply, face));
        table.bind(conn, Some(&reply), manip.bit() | manip.done(), face);
    }
}

/// Decides that a connection keeps its address; its port may still have to give
/// way to another connection's.
pub fn decide_null(
    table: &Conntrack,
    conn: ConnId,
    face: &mut Face,
    manip: Manip,
    luck: &mut Luck<'_>,
    now: Nanos,
) {
    if face.status & (status::CONFIRMED | manip.done()) != 0 {
        return;
    }
    let own = match manip {
        Manip::Source => face.reply.dst,
        Manip::Destination => face.reply.src,
    };
    decide(table, conn, face, &only(own), manip, luck, now);
}

/// The range of one address and any port.
pub fn only(address: u128) -> NatRange {
    let addresses = Some(Range { low: address, high: address });
    NatRange { addresses, ..NatRange::default() }
}
