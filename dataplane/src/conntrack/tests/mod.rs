//! Tests of tracking on simulated time.

mod api;
mod behaviours;
mod expectations;
mod extensions;
mod flow;
#[cfg(loom)]
mod loom;
mod saved;
mod sources;
mod table;
#[cfg(not(loom))]
mod workers;

use super::{Config, Conntrack, CtState, Direction, Extensions, Row, Template, Tracking};
use crate::clock::Nanos;
use crate::packet::Parsed;
use crate::policy::target::{CtTarget, ZoneId, ZoneScope};
use crate::verdict::DropReason;
use crate::wire::build::{ETH_DST, Packet};
use crate::wire::{Frame, parse};

/// The inside and the outside host of most tests.
pub(super) const A: &str = "198.51.100.1";
pub(super) const B: &str = "203.0.113.9";

/// A table, a clock, and packets through both.
pub(super) struct Lab {
    pub(super) ct: Conntrack,
    pub(super) now: Nanos,
}

pub(super) fn parsed(frame: &[u8]) -> Parsed {
    match parse(frame, ETH_DST) {
        Ok(Frame::Ip(parsed)) => parsed,
        other => panic!("not an IP packet: {other:?}"),
    }
}

impl Lab {
    pub(super) fn new(settings: &[(&str, u64)]) -> Self {
        let mut config = Config::new([7; 16]);
        config.set("max", 1024).unwrap();
        for &(name, value) in settings {
            config.set(name, value).unwrap();
        }
        Self { ct: Conntrack::new(config).unwrap(), now: Nanos::from_secs(1000) }
    }

    /// Tracks a forwarded packet up to its verdict.
    pub(super) fn track(&self, packet: &Packet) -> Result<Tracking, DropReason> {
        let frame = packet.build();
        self.ct.track(&parsed(&frame), &frame, false, self.now)
    }

    /// A packet that the policy accepts.
    pub(super) fn pass(&self, packet: &Packet) -> Result<Tracking, DropReason> {
        let mut tracking = self.track(packet)?;
        self.ct.confirm(&mut tracking, self.now)?;
        Ok(tracking)
    }

    /// The state of a packet that the policy accepts in a zone.
    pub(super) fn state_with(&self, packet: &Packet, scope: ZoneScope, zone: u16) -> CtState {
        self.pass_with(packet, scope, zone).unwrap().state
    }

    /// The same, for packets that may not get so far.
    pub(super) fn pass_with(
        &self,
        packet: &Packet,
        scope: ZoneScope,
        zone: u16,
    ) -> Result<Tracking, DropReason> {
        let target = CtTarget { zone: Some((scope, ZoneId::Fixed(zone))), ..CtTarget::default() };
        let terms = Template::of(&target, None).terms(0, Extensions::default());
        let frame = packet.build();
        let parsed = parsed(&frame);
        let subject = self.ct.subject(&parsed, &frame, terms.zones.original);
        let tracked = self.ct.track_subject(&subject, &parsed, &frame, false, &terms, self.now);
        let mut tracking = tracked?;
        self.ct.confirm(&mut tracking, self.now)?;
        Ok(tracking)
    }

    /// The state of a packet that the policy accepts.
    pub(super) fn state(&self, packet: &Packet) -> CtState {
        self.pass(packet).unwrap().state
    }

    /// A packet that the policy drops.
    pub(super) fn denied(&self, packet: &Packet) -> CtState {
        let tracking = self.track(packet).unwrap();
        self.ct.discard(tracking);
        tracking.state
    }

    pub(super) fn wait(&mut self, seconds: u64) {
        self.wait_ms(seconds * 1000);
    }

    pub(super) fn wait_ms(&mut self, milliseconds: u64) {
        self.now = self.now + Nanos::from_millis(milliseconds);
    }

    /// The only row.
    pub(super) fn row(&self) -> Row {
        let rows: Vec<Row> = self.ct.rows(self.now).collect();
        assert_eq!(rows.len(), 1, "rows: {rows:?}");
        rows[0]
    }

    /// Timeout, TCP state (or `-`), and the flags of the only row.
    pub(super) fn entry(&self) -> String {
        let row = self.row();
        let state = row.view.tcp.map_or("-", |state| state.name());
        let text = row.to_string();
        let flags: Vec<&str> = text.split(' ').filter(|word| word.starts_with('[')).collect();
        format!("{} {} {}", row.timeout_s, state, flags.join("")).trim_end().to_owned()
    }
}

#[test]
fn a_reply_goes_the_other_way() {
    let lab = Lab::new(&[]);
    let first = lab.pass(&Packet::udp(A, 1, B, 2)).unwrap();
    let reply = lab.pass(&Packet::udp(B, 2, A, 1)).unwrap();
    assert_eq!((first.state, first.direction), (CtState::New, Direction::Original));
    assert_eq!((reply.state, reply.direction), (CtState::Established, Direction::Reply));
    assert_eq!(first.conn, reply.conn);
}

/// Of a routing header, rules need four bytes and tracking two; what it needs of the
/// protocol behind it is not there.
#[test]
fn behind_a_routing_header_that_is_cut_short_there_may_be_a_connection() {
    use crate::wire::proto;
    const A6: &str = "2001:db8::1";
    const B6: &str = "2001:db8::9";
    let state = |rest: &[u8]| {
        let lab = Lab::new(&[]);
        lab.state(&Packet::raw(A6, B6, proto::ROUTING, rest))
    };
    for generic in [proto::DCCP, proto::ESP, proto::GRE, 103] {
        assert_eq!(state(&[generic, 0]), CtState::New, "{generic}");
        assert_eq!(state(&[generic, 0, 0]), CtState::New, "{generic}");
        assert_eq!(state(&[generic]), CtState::Invalid, "{generic}");
    }
    for known in [proto::TCP, proto::UDP, proto::SCTP, proto::ICMPV6, proto::NONE] {
        assert_eq!(state(&[known, 0, 0]), CtState::Invalid, "{known}");
    }
    // Nothing says what is behind another header.
    assert_eq!(state(&[proto::DESTINATION, 0, 0]), CtState::Invalid);
}
