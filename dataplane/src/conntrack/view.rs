//! What others see of a connection: rules, NAT, and the listing.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::events::change;
use super::extra::{Account, Extras};
use super::record::Contents;
use super::sctp::{SctpConn, SctpState};
use super::status::{
    ACCOUNTED, ASSURED, CONFIRMED, DYING, LABELLED, NAT_CLASH, SEEN_REPLY, STAMPED,
};
use super::tcp::{TcpConn, TcpState};
use super::tuple::{Direction, Tuple};
use super::{ConnId, Conntrack, Zones};
use crate::clock::Nanos;
use crate::packet::Family;
use crate::policy::target::HelperKind;
use crate::wire::proto;

/// A connection at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnView {
    /// The connection.
    pub id: ConnId,
    /// As the first packet went.
    pub original: Tuple,
    /// As its answers come.
    pub reply: Tuple,
    /// [`super::status`] bits.
    pub status: u32,
    /// The connection's mark.
    pub mark: u32,
    /// When it expires; `None` until it is confirmed.
    pub deadline: Option<Nanos>,
    /// TCP's state.
    pub tcp: Option<TcpState>,
    /// SCTP's state.
    pub sctp: Option<SctpState>,
}

impl ConnView {
    pub(super) fn new(id: ConnId, contents: &Contents) -> Self {
        let tcp = contents.original.proto == proto::TCP;
        let sctp = contents.original.proto == proto::SCTP;
        let confirmed = contents.status & CONFIRMED != 0;
        Self {
            id,
            original: contents.original,
            reply: contents.reply,
            status: contents.status,
            mark: contents.mark,
            deadline: confirmed.then_some(Nanos(contents.deadline)),
            tcp: tcp.then(|| TcpConn::unpack(&contents.proto).state()),
            sctp: sctp.then(|| SctpConn::unpack(&contents.proto).state()),
        }
    }

    /// The state's name, for protocols that have states.
    pub fn state_name(&self) -> Option<&'static str> {
        self.tcp.map(TcpState::name).or_else(|| self.sctp.map(SctpState::name))
    }

    /// Time left, zero for an unconfirmed connection (`--ctexpire`).
    pub fn expires_in(&self, now: Nanos) -> Nanos {
        self.deadline.map_or(Nanos(0), |deadline| deadline.saturating_sub(now))
    }
}

/// What there is of a tuple in the connection table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No confirmed connection.
    Absent,
    /// One of TCP's in TIME_WAIT or CLOSE.
    Closed,
    /// Another.
    Alive,
}

impl Conntrack {
    /// What a tuple, of either direction, is in the table.
    pub fn presence(&self, tuple: &Tuple, now: Nanos) -> Presence {
        let hit = self.store.find(&tuple.key(self.store.hash_key()), now);
        let view = hit.and_then(|hit| self.view(hit.id));
        match view {
            None => Presence::Absent,
            Some(view) if matches!(view.tcp, Some(TcpState::TimeWait | TcpState::Close)) => {
                Presence::Closed
            }
            Some(_) => Presence::Alive,
        }
    }

    /// A connection's present face. One that just ended can still be seen by the
    /// packet that ended it; `None` once its record serves another connection.
    pub fn view(&self, id: ConnId) -> Option<ConnView> {
        self.store.contents(id).map(|contents| ConnView::new(id, &contents))
    }

    /// A connection's mark; zero when it is gone.
    pub fn mark(&self, id: ConnId) -> u32 {
        self.store.mark(id).unwrap_or(0)
    }

    /// Sets a connection's mark, also while the packet that ended it is still on
    /// its way. False once its record serves another connection.
    pub fn set_mark(&self, id: ConnId, mark: u32) -> bool {
        let Some(entry) = self.store.lock_even_dead(id) else { return false };
        let changes = entry.mark() != mark;
        entry.set_mark(mark);
        drop(entry);
        if changes {
            self.tell(id, change::MARK);
        }
        true
    }

    /// What went each way, by [`Direction`]. `None`: the connection is gone, or is
    /// not accounted because `acct` was off when it began.
    pub fn accounting(&self, id: ConnId) -> Option<[Account; 2]> {
        let (status, extras) = self.store.extras(id)?;
        let both = [Direction::Original, Direction::Reply].map(|way| extras.accounted(way));
        (status & ACCOUNTED != 0).then_some(both)
    }

    /// A connection's labels, one a bit. `None`: it is gone, or began when no rule used labels.
    pub fn labels(&self, id: ConnId) -> Option<u128> {
        let (status, extras) = self.store.extras(id)?;
        (status & LABELLED != 0).then(|| extras.labels())
    }

    /// Sets label `bit` (0-127) of a connection, also while the packet that ended it
    /// is still on its way. False when it can have none.
    pub fn set_label(&self, id: ConnId, bit: u8) -> bool {
        let Some(entry) = self.store.lock_even_dead(id) else { return false };
        if entry.status() & LABELLED == 0 || bit > 127 {
            return false;
        }
        let mut changes = false;
        entry.update_extras(|extras| {
            let labels = extras.labels();
            changes = labels >> bit & 1 == 0;
            extras.set_labels(labels | 1 << bit);
        });
        drop(entry);
        if changes {
            self.tell(id, change::LABEL);
        }
        true
    }

    /// A connection's helper.
    pub fn helper(&self, id: ConnId) -> Option<HelperKind> {
        self.store.extras(id)?.1.helper()
    }

    /// The helper of the connection that this one was expected from (`-m helper`).
    pub fn master_helper(&self, id: ConnId) -> Option<HelperKind> {
        self.store.extras(id)?.1.master_helper()
    }

    /// What a connection has beyond the common. Nothing, once its record is reused.
    fn details(&self, view: &ConnView, now: Nanos) -> Details {
        let extras = self.store.extras(view.id);
        extras.map_or_else(Details::default, |(status, extras)| Details::new(status, &extras, now))
    }

    /// Every confirmed, unexpired connection. Each row is consistent in itself;
    /// the listing as a whole is not one instant.
    pub fn rows(&self, now: Nanos) -> impl Iterator<Item = Row> + '_ {
        self.rows_from(0, now).map(|(_, row)| row)
    }

    /// The rows from place `from` on, each with its place: for paging.
    pub fn rows_from(&self, from: usize, now: Nanos) -> impl Iterator<Item = (usize, Row)> + '_ {
        self.rows_at(from..self.store.len(), now)
    }

    /// The rows at some places, however many the table has.
    pub fn rows_in(&self, places: Range<usize>, now: Nanos) -> impl Iterator<Item = Row> + '_ {
        let end = places.end.min(self.store.len());
        self.rows_at(places.start..end, now).map(|(_, row)| row)
    }

    fn rows_at(&self, places: Range<usize>, now: Nanos) -> impl Iterator<Item = (usize, Row)> + '_ {
        places.filter_map(move |at| {
            let (id, contents) = self.store.contents_at(at)?;
            let visible = contents.status & (CONFIRMED | DYING | NAT_CLASH) == CONFIRMED;
            let shown = visible && contents.deadline > now.0;
            let view = ConnView::new(id, &contents);
            let row = || Row {
                timeout_s: view.expires_in(now).as_secs(),
                details: self.details(&view, now),
                view,
            };
            shown.then(|| (at, row()))
        })
    }
}

/// What only some connections have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Details {
    /// What went each way, by [`Direction`], if that is counted.
    pub accounting: Option<[Account; 2]>,
    /// Whole seconds since it was confirmed, if that is kept.
    pub age_s: Option<u64>,
    /// Its labels, if it can have any.
    pub labels: Option<u128>,
    /// Its helper.
    pub helper: Option<HelperKind>,
}

impl Details {
    pub(super) fn new(status: u32, extras: &Extras, now: Nanos) -> Self {
        let both = || [Direction::Original, Direction::Reply].map(|way| extras.accounted(way));
        let age = || now.saturating_sub(Nanos(extras.start())).as_secs();
        Self {
            accounting: (status & ACCOUNTED != 0).then(both),
            age_s: (status & STAMPED != 0).then(age),
            labels: (status & LABELLED != 0).then(|| extras.labels()),
            helper: extras.helper(),
        }
    }
}

/// A line of the listing; prints as `conntrack -L` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The connection.
    pub view: ConnView,
    /// Whole seconds left.
    pub timeout_s: u64,
    /// What only some connections have.
    pub details: Details,
}

impl Row {
    /// The protocol's name as `conntrack -L` prints it.
    pub fn protocol_name(&self) -> &'static str {
        match self.view.original.proto {
            proto::ICMP => "icmp",
            proto::TCP => "tcp",
            proto::UDP => "udp",
            proto::GRE => "gre",
            proto::ICMPV6 => "icmpv6",
            proto::SCTP => "sctp",
            proto::UDPLITE => "udplite",
            _ => "unknown",
        }
    }
}

impl Row {
    fn write_account(&self, f: &mut fmt::Formatter<'_>, way: Direction) -> fmt::Result {
        match self.details.accounting {
            Some(both) => {
                let Account { packets, bytes } = both[way.index()];
                write!(f, "packets={packets} bytes={bytes} ")
            }
            None => Ok(()),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = &self.view;
        write!(f, "{:<8} {} {} ", self.protocol_name(), view.original.proto, self.timeout_s)?;
        if let Some(state) = view.state_name() {
            write!(f, "{state} ")?;
        }
        let (original, reply) = (&view.original, &view.reply);
        let zones = Zones { original: original.zone, reply: reply.zone };
        write_tuple(f, original)?;
        if zones.original != 0 && zones.original != zones.reply {
            write!(f, "zone-orig={} ", zones.original)?;
        }
        self.write_account(f, Direction::Original)?;
        if view.status & SEEN_REPLY == 0 {
            f.write_str("[UNREPLIED] ")?;
        }
        write_tuple(f, reply)?;
        if zones.reply != 0 && zones.original != zones.reply {
            write!(f, "zone-reply={} ", zones.reply)?;
        }
        self.write_account(f, Direction::Reply)?;
        if view.status & ASSURED != 0 {
            f.write_str("[ASSURED] ")?;
        }
        write!(f, "mark={} ", view.mark)?;
        if zones.original != 0 && zones.original == zones.reply {
            write!(f, "zone={} ", zones.original)?;
        }
        if let Some(age) = self.details.age_s {
            write!(f, "delta-time={age} ")?;
        }
        if let Some(helper) = self.details.helper {
            write!(f, "helper={} ", helper.name())?;
        }
        f.write_str("use=1")
    }
}

fn write_tuple(f: &mut fmt::Formatter<'_>, tuple: &Tuple) -> fmt::Result {
    match tuple.family {
        Family::V4 => {
            let [src, dst] = [tuple.src, tuple.dst].map(|bits| Ipv4Addr::from(bits as u32));
            write!(f, "src={src} dst={dst} ")?;
        }
        Family::V6 => {
            let [src, dst] = [tuple.src, tuple.dst].map(Ipv6Addr::from);
            write!(f, "src={src} dst={dst} ")?;
        }
    }
    let (sport, dport) = (tuple.sport, tuple.dport);
    match tuple.proto {
        proto::ICMP | proto::ICMPV6 => {
            let [kind, code] = dport.to_be_bytes();
            write!(f, "type={kind} code={code} id={sport} ")
        }
        proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP => {
            write!(f, "sport={sport} dport={dport} ")
        }
        proto::GRE => write!(f, "srckey=0x{sport:x} dstkey=0x{dport:x} "),
        _ => Ok(()),
    }
}
