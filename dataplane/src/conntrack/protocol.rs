//! What one packet does to its connection's entry, for every protocol.

use super::config::{Setting, Settings};
use super::extra::SeqShift;
use super::icmp;
use super::record::Locked;
use super::sctp::{SctpConn, Step};
use super::status::{ACCOUNTED, ASSURED, CONFIRMED, FIXED_TIMEOUT, SEEN_REPLY, SEQ_ADJUST};
use super::tcp::segment::Segment;
use super::tcp::{Context, Effect, TcpConn};
use super::template::Terms;
use super::timeouts::Named;
use super::tuple::Direction;
use super::verify;
use crate::clock::Nanos;
use crate::packet::{Family, Parsed};
use crate::wire::proto;

/// One packet, and the entry it met.
pub(super) struct Visit<'v> {
    pub(super) parsed: &'v Parsed,
    pub(super) l4: &'v [u8],
    /// Whether to verify checksums.
    pub(super) sums: bool,
    pub(super) direction: Direction,
    pub(super) now: Nanos,
    /// Knobs, and timeouts where no named policy holds.
    pub(super) settings: &'v Settings,
    /// Timeout policies by name.
    pub(super) named: &'v Named,
    pub(super) terms: &'v Terms,
}

/// One segment, and the connection that a locked entry has, or is to have: nothing is stored.
#[inline]
pub(super) fn step(
    conn: &mut TcpConn,
    segment: &Segment<'_>,
    entry: &Locked<'_>,
    (direction, now): (Direction, Nanos),
    (settings, named): (&Settings, &Named),
) -> Effect {
    let status = entry.status();
    let shifts = match status & SEQ_ADJUST {
        0 => [SeqShift::default(); 2],
        _ => {
            let extras = entry.extras();
            [Direction::Original, Direction::Reply].map(|way| extras.shift(way))
        }
    };
    let left = Nanos(entry.deadline()).saturating_sub(now);
    let relearning = entry.aux() > now.0;
    let timeouts = named.of(entry, settings);
    let context = Context { direction, status, left, relearning, shifts, settings, timeouts };
    conn.step(segment, &context)
}

impl Visit<'_> {
    /// Applies the packet to its locked entry.
    pub(super) fn apply(&self, entry: &Locked<'_>) -> Effect {
        if !verify::holds(self.parsed, self.l4, self.sums) {
            return Effect::Unsound;
        }
        // Tracking may know what is behind a header that is too short for rules.
        let protocol = match self.parsed.broken_chain() {
            true => entry.tuple(Direction::Original).proto,
            false => self.parsed.proto,
        };
        let effect = match (protocol, self.parsed.family) {
            (proto::TCP, _) => self.tcp(entry),
            (proto::UDP, _) => self.udp(entry),
            (proto::UDPLITE, _) => self.replied(entry, Setting::Udp, Setting::UdpStream),
            (proto::GRE, _) => self.gre(entry),
            (proto::ICMP, Family::V4) => self.icmp(entry, Setting::Icmp),
            (proto::ICMPV6, Family::V6) => self.icmp(entry, Setting::Icmpv6),
            (proto::ICMP | proto::ICMPV6, _) => Effect::Invalid(None),
            (proto::SCTP, _) => self.sctp(entry),
            _ => self.refresh(entry, Setting::Generic),
        };
        self.settle(entry, effect);
        let counts = matches!(effect, Effect::Accept { .. } | Effect::Kill);
        if counts && entry.status() & ACCOUNTED != 0 {
            entry.account(self.direction, u64::from(self.parsed.l3_len));
        }
        effect
    }

    /// The timeouts that hold for an entry.
    fn timeouts(&self, entry: &Locked<'_>) -> &Settings {
        self.named.of(entry, self.settings)
    }

    /// Stores a new deadline (an interval while unconfirmed) and ASSURED.
    fn settle(&self, entry: &Locked<'_>, effect: Effect) {
        match effect {
            Effect::Accept { refresh, assure } => {
                let status = entry.status();
                let base = if status & CONFIRMED != 0 { self.now.0 } else { 0 };
                if status & FIXED_TIMEOUT == 0 {
                    entry.set_deadline(base.saturating_add(refresh.0));
                }
                if assure {
                    entry.add_status(ASSURED);
                }
            }
            Effect::Invalid(Some(lowered)) if entry.status() & FIXED_TIMEOUT == 0 => {
                entry.set_deadline(self.now.0.saturating_add(lowered.0));
            }
            Effect::Unsound | Effect::Invalid(_) | Effect::Pass | Effect::Kill | Effect::Reopen => {
            }
        }
    }

    fn refresh(&self, entry: &Locked<'_>, setting: Setting) -> Effect {
        Effect::Accept { refresh: self.timeouts(entry).timeout(setting), assure: false }
    }

    fn tcp(&self, entry: &Locked<'_>) -> Effect {
        let Some(segment) = Segment::parse(self.l4) else { return Effect::Invalid(None) };
        let status = entry.status();
        let mut conn = if status & CONFIRMED == 0 {
            match TcpConn::open(&segment, self.settings) {
                Some(conn) => conn,
                None => return Effect::Invalid(None),
            }
        } else {
            TcpConn::unpack(&entry.proto())
        };
        let Self { direction, now, settings, named, .. } = *self;
        let effect = step(&mut conn, &segment, entry, (direction, now), (settings, named));
        entry.set_proto(&conn.pack());
        effect
    }

    fn sctp(&self, entry: &Locked<'_>) -> Effect {
        let confirmed = entry.status() & CONFIRMED != 0;
        let conn = match confirmed {
            true => Some(SctpConn::unpack(&entry.proto())),
            false => SctpConn::open(self.l4),
        };
        let Some(mut conn) = conn else { return Effect::Invalid(None) };
        let step = conn.step(self.l4, self.direction, confirmed);
        entry.set_proto(&conn.pack());
        if conn.opened() {
            entry.add_status(ASSURED);
        }
        match step {
            Step::Refresh => self.refresh(entry, conn.state().timeout()),
            Step::Pass => Effect::Pass,
            Step::Invalid => Effect::Invalid(None),
        }
    }

    /// A stream is what still talks both ways more than two seconds after its first packet.
    fn udp(&self, entry: &Locked<'_>) -> Effect {
        const PROBATION: Nanos = Nanos::from_secs(2);
        let status = entry.status();
        if status & CONFIRMED == 0 {
            entry.set_aux((self.now + PROBATION).0);
        }
        if status & SEEN_REPLY != 0 && self.now.0 > entry.aux() {
            let refresh = self.timeouts(entry).timeout(Setting::UdpStream);
            return Effect::Accept { refresh, assure: true };
        }
        self.refresh(entry, Setting::Udp)
    }

    fn replied(&self, entry: &Locked<'_>, before: Setting, after: Setting) -> Effect {
        if entry.status() & SEEN_REPLY == 0 {
            return self.refresh(entry, before);
        }
        Effect::Accept { refresh: self.timeouts(entry).timeout(after), assure: true }
    }

    /// GRE keeps the timeouts of its first packet: a helper may set its own.
    fn gre(&self, entry: &Locked<'_>) -> Effect {
        if entry.status() & CONFIRMED == 0 {
            let timeouts = self.timeouts(entry);
            let unreplied = timeouts.get(Setting::Gre);
            entry.set_aux(unreplied << 32 | timeouts.get(Setting::GreStream));
        }
        let (unreplied, stream) = (entry.aux() >> 32, entry.aux() & 0xffff_ffff);
        let replied = entry.status() & SEEN_REPLY != 0;
        let seconds = if replied { stream } else { unreplied };
        Effect::Accept { refresh: Nanos::from_secs(seconds), assure: replied }
    }

    /// Only queries open; an answer that nobody asked for is invalid.
    fn icmp(&self, entry: &Locked<'_>, timeout: Setting) -> Effect {
        let opened_by = entry.tuple(Direction::Original);
        if !icmp::may_open(opened_by.proto, opened_by.icmp_type()) {
            return Effect::Invalid(None);
        }
        self.refresh(entry, timeout)
    }
}
