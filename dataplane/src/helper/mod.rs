//! Connection helpers: they read what two ends agree on inside a connection,
//! foresee the connection that follows from it, and, under NAT, rewrite what was
//! agreed so that it still holds on the other side.
//!
//! A rule gives a connection its helper (`-j CT --helper`); nothing does so by
//! itself. A packet passes its connection's helper last of all, after source
//! translation: [`assist`]. Then its sequence numbers are adjusted ([`seqadj`]),
//! and then its connection is confirmed.
//!
//! Whatever a helper reads comes from strangers: every read is bounded, nothing
//! here panics, and the work is linear in the packet's length.

mod amanda;
mod broadcast;
mod ftp;
mod h323;
mod irc;
mod pptp;
mod rewrite;
mod sane;
pub mod seqadj;
mod sip;
mod snmp;
#[cfg(test)]
mod tests;
mod tftp;

use std::net::IpAddr;

use crate::clock::Nanos;
use crate::conntrack::{
    ConnView, Conntrack, CtState, Direction, ExpectError, ExpectId, Expectation, Limits,
    SourceMask, Tracking, Tuple, status,
};
use crate::frame::FrameBuf;
use crate::packet::{Family, Fragment, Parsed};
use crate::policy::target::HelperKind;
use crate::verdict::DropReason;
use crate::wire::{proto, tcp};

/// Whether packets to both addresses leave by one way: one port, and one next hop.
pub type SameWay<'w> = dyn Fn(Family, [u128; 2]) -> bool + 'w;

/// A packet beside its connection.
struct Visit<'a, 'f> {
    conntrack: &'a Conntrack,
    now: Nanos,
    conn: ConnView,
    direction: Direction,
    state: CtState,
    frame: &'a mut FrameBuf<'f>,
    parsed: &'a mut Parsed,
    own: Option<Own<'a>>,
    same_way: &'a SameWay<'a>,
}

/// The way out of a packet that this machine itself sends.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Addresses of the port that it leaves by, and the lengths of their prefixes.
    pub addresses: &'a [(IpAddr, u8)],
}

/// Shows a packet to its connection's helper, if it has one, and adjusts its
/// sequence numbers, if that connection's are shifted. Packets of other
/// connections pay for one look at its status. `own`: for what this machine sends;
/// `same_way`: for calls that are forwarded.
///
/// # Errors
/// The packet must be dropped: a helper could not follow it
/// ([`DropReason::Helper`]), a rewritten packet does not fit
/// ([`DropReason::NoRoom`]), or its options hide what must be adjusted
/// ([`DropReason::SequenceAdjust`]).
pub fn assist(
    conntrack: &Conntrack,
    tracking: &Tracking,
    frame: &mut FrameBuf<'_>,
    parsed: &mut Parsed,
    own: Option<Own<'_>>,
    now: Nanos,
    same_way: &SameWay<'_>,
) -> Result<(), DropReason> {
    let Some(id) = tracking.conn else { return Ok(()) };
    let before = conntrack.status(id).unwrap_or(0);
    if before & (status::HELPER | status::SEQ_ADJUST) == 0 {
        return Ok(());
    }
    let answer_of_ours =
        tracking.state == CtState::Related && tracking.direction == Direction::Reply;
    if answer_of_ours || matches!(parsed.fragment, Fragment::Later { .. }) {
        return Ok(());
    }
    let Some(conn) = conntrack.view(id).filter(|conn| conn.original.proto == parsed.proto) else {
        return Ok(());
    };
    if before & status::HELPER != 0
        && let Some(kind) = conntrack.helper(id)
    {
        let Tracking { direction, state, .. } = *tracking;
        let mut visit =
            Visit { conntrack, now, conn, direction, state, frame, parsed, own, same_way };
        match kind {
            HelperKind::Ftp => ftp::help(visit),
            HelperKind::Tftp => tftp::help(visit),
            HelperKind::Irc => irc::help(visit),
            HelperKind::Sip => sip::help(visit),
            HelperKind::Amanda => amanda::help(visit),
            HelperKind::Sane => sane::help(visit),
            HelperKind::NetbiosNs => {
                broadcast::names(&visit);
                Ok(())
            }
            HelperKind::Snmp => {
                broadcast::snmp(&visit);
                snmp::translate(&mut visit)
            }
            HelperKind::SnmpTrap => snmp::translate(&mut visit),
            HelperKind::Pptp => pptp::help(visit),
            HelperKind::Ras => h323::ras(visit),
            HelperKind::Q931 => h323::q931(visit),
            HelperKind::H245 => h323::h245(visit),
        }?;
    }
    // What a helper shifts in this packet begins behind it.
    if before & status::SEQ_ADJUST != 0 {
        seqadj::adjust(conntrack, id, tracking.direction, frame, parsed)?;
    }
    Ok(())
}

impl Visit<'_, '_> {
    /// A connection's tuple in a direction.
    fn tuple(&self, direction: Direction) -> &Tuple {
        match direction {
            Direction::Original => &self.conn.original,
            Direction::Reply => &self.conn.reply,
        }
    }

    /// Whether the connection is translated.
    fn is_translated(&self) -> bool {
        self.conn.status & (status::SRC_NAT | status::DST_NAT) != 0
    }

    /// The sequence number and the place in the frame of a segment's payload;
    /// `None` without any, and until packets went both ways.
    fn stream(&self) -> Option<(u32, usize)> {
        if self.state != CtState::Established || self.parsed.proto != proto::TCP {
            return None;
        }
        let segment = tcp::Packet::new_checked(self.parsed.l4_bytes(self.frame)).ok()?;
        let at = usize::from(self.parsed.l4) + segment.header_len();
        (!segment.payload().is_empty()).then_some((segment.seq(), at))
    }

    /// The end of the packet in the frame.
    fn end(&self) -> usize {
        usize::from(self.parsed.l4) + usize::from(self.parsed.l4_len)
    }

    /// A connection that goes to `to`, expected by this one's helper. `from`: where
    /// it comes from, any address if not said; its source port is anybody's guess.
    fn expectation(&self, by: HelperKind, from: Option<u128>, to: (u128, u16)) -> Expectation {
        let address = if from.is_some() { u128::MAX } else { 0 };
        let tuple = Tuple {
            src: from.unwrap_or(0),
            dst: to.0,
            sport: 0,
            dport: to.1,
            ..self.conn.original
        };
        Expectation {
            tuple,
            mask: SourceMask { address, port: 0 },
            master: self.conn.id,
            by,
            class: 0,
            permanent: false,
            inactive: false,
            helper: None,
            follow: None,
        }
    }

    fn expect(&self, new: &Expectation, limits: Limits) -> Result<ExpectId, ExpectError> {
        self.conntrack.expect(new, limits, self.now)
    }

    /// Expects `new` on the port that the peer listens on, or another that nobody
    /// else is expected on. The port; `None`: all taken.
    fn expect_on_free_port(
        &self,
        new: &mut Expectation,
        limits: Limits,
    ) -> Option<(u16, ExpectId)> {
        const ATTEMPTS: u32 = 128;
        let least = new.tuple.dport;
        let range = u32::from(u16::MAX - least);
        let mut port = least;
        for _ in 0..=range.min(ATTEMPTS) {
            new.tuple.dport = port;
            match self.expect(new, limits) {
                // The kernel takes a zero for a failure, though it is expected now.
                Ok(id) => return (port != 0).then_some((port, id)),
                Err(ExpectError::Busy) if range > 0 => {}
                Err(_) => return None,
            }
            port = least + (self.conntrack.random() % range) as u16;
        }
        None
    }
}
