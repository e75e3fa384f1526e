//! From readings of the daemon to notices.

use std::collections::BTreeMap;

use dataplane::clock::Nanos;

use super::level::{Bounds, Level, Rate};
use super::{EventKind, Notice};
use crate::history::stamp;

/// What of its level a value must fall below for an alert to end.
const LEAVE: f64 = 0.9;
/// Rules that are told as expiring at once at most.
const EXPIRING_MOST: usize = 100;

/// When things are too high.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Packets dropped a second.
    pub drop_rate: f64,
    /// Percent of the connection table.
    pub conntrack_warning: f64,
    /// The same.
    pub conntrack_critical: f64,
    /// For how long, before it is told; and for how long not, before it is over.
    pub hold: Nanos,
    /// How long beforehand the end of a rule is told.
    pub expiring_s: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            drop_rate: 1000.0,
            conntrack_warning: 80.0,
            conntrack_critical: 95.0,
            hold: Nanos::from_secs(10),
            expiring_s: 3 * 86_400,
        }
    }
}

/// A rule that expires.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expiring {
    /// Its id.
    pub key: String,
    /// Where it stands, and whose it is.
    pub what: String,
    /// When, in seconds since 1970.
    pub at_s: u64,
}

/// The daemon at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// When.
    pub now: Nanos,
    /// The same in microseconds since 1970.
    pub wall_us: u64,
    /// Packets dropped, ever.
    pub dropped: u64,
    /// Connections now, and at most.
    pub connections: (u64, u64),
    /// Connections that began, ever.
    pub begun: u64,
    /// Records lost, ever.
    pub log_lost: u64,
    /// Changes undone, ever.
    pub undone: u64,
    /// CPU time of the workers.
    pub cpu: Vec<Nanos>,
    /// Rules that expire.
    pub expiring: Vec<Expiring>,
    /// Pressure profiles in force, and why.
    pub pressure: Vec<(String, String)>,
    /// Flows of the matrix that the live policy does not treat as written.
    pub matrix_failing: u64,
}

impl Reading {
    /// Percent of the connection table.
    pub fn occupancy(&self) -> f64 {
        let (now, most) = self.connections;
        if most == 0 { 0.0 } else { now as f64 * 100.0 / most as f64 }
    }
}

/// What one webhook has been told.
#[derive(Debug)]
pub struct Watch {
    events: Vec<EventKind>,
    thresholds: Thresholds,
    drops: Rate,
    losses: Rate,
    levels: BTreeMap<EventKind, Level>,
    undone: Option<u64>,
    /// What has been told and is not over, beside the levels, with its summary.
    told: BTreeMap<(EventKind, String), String>,
}

impl Watch {
    /// Nothing has been told.
    pub fn new(events: &[EventKind], thresholds: Thresholds) -> Self {
        Self {
            events: events.to_vec(),
            thresholds,
            drops: Rate::default(),
            losses: Rate::default(),
            levels: BTreeMap::new(),
            undone: None,
            told: BTreeMap::new(),
        }
    }

    /// Takes in a reading; what there is to tell.
    pub fn see(&mut self, reading: &Reading) -> Vec<Notice> {
        let mut notices = Vec::new();
        let limits = self.thresholds;
        if let Some(rate) = self.drops.see(reading.dropped, reading.now) {
            let say = |value: f64| format!("{value:.0} packets dropped a second");
            let bounds = bounds(limits.drop_rate, limits.hold);
            self.level(EventKind::DropRate, rate, &bounds, reading, say, &mut notices);
        }
        let full = reading.occupancy();
        let (connections, most) = reading.connections;
        let say = |value: f64| {
            format!("the connection table is {value:.0} % full: {connections} of {most}")
        };
        for (kind, percent) in [
            (EventKind::ConntrackWarning, limits.conntrack_warning),
            (EventKind::ConntrackCritical, limits.conntrack_critical),
        ] {
            self.level(kind, full, &bounds(percent, limits.hold), reading, say, &mut notices);
        }
        if let Some(rate) = self.losses.see(reading.log_lost, reading.now) {
            // The first loss is told at once.
            let bounds = Bounds {
                enter: f64::MIN_POSITIVE,
                leave: f64::MIN_POSITIVE,
                hold_in: Nanos(0),
                hold_out: limits.hold,
            };
            let say = |value: f64| format!("{value:.0} records of the log lost a second");
            self.level(EventKind::LogLoss, rate, &bounds, reading, say, &mut notices);
        }
        self.undone(reading, &mut notices);
        self.lists(reading, &mut notices);
        notices.retain(|notice| self.events.contains(&notice.kind));
        notices
    }

    fn level(
        &mut self,
        kind: EventKind,
        value: f64,
        bounds: &Bounds,
        reading: &Reading,
        say: impl Fn(f64) -> String,
        notices: &mut Vec<Notice>,
    ) {
        let level = self.levels.entry(kind).or_default();
        let Some(firing) = level.see(value, bounds, reading.now) else { return };
        notices.push(Notice {
            kind,
            key: String::new(),
            firing,
            summary: say(value),
            value,
            threshold: if bounds.enter > f64::MIN_POSITIVE { bounds.enter } else { 0.0 },
            at_us: reading.wall_us,
        });
    }

    /// Changes that were undone: each is told, and none is ever over.
    fn undone(&mut self, reading: &Reading, notices: &mut Vec<Notice>) {
        let before = self.undone.replace(reading.undone).unwrap_or(reading.undone);
        if reading.undone <= before {
            return;
        }
        notices.push(Notice {
            kind: EventKind::Rollback,
            key: reading.undone.to_string(),
            firing: true,
            summary: "a change of the policy was undone: `portcullis history` tells why".to_owned(),
            value: (reading.undone - before) as f64,
            threshold: 0.0,
            at_us: reading.wall_us,
        });
    }

    /// What is there or is not.
    fn lists(&mut self, reading: &Reading, notices: &mut Vec<Notice>) {
        let now_s = reading.wall_us / 1_000_000;
        let until = now_s.saturating_add(self.thresholds.expiring_s);
        let soon = reading.expiring.iter().filter(|it| it.at_s <= until).take(EXPIRING_MOST);
        let mut now: BTreeMap<(EventKind, String), (String, f64)> = soon
            .map(|it| {
                let at = stamp(it.at_s.saturating_mul(1_000_000));
                let left = it.at_s.saturating_sub(now_s) as f64;
                let summary = format!("{} expires at {at}", it.what);
                ((EventKind::ExceptionExpiring, it.key.clone()), (summary, left))
            })
            .collect();
        now.extend(reading.pressure.iter().map(|(name, why)| {
            let summary = format!("pressure profile {name} is in force: {why}");
            ((EventKind::Pressure, name.clone()), (summary, 1.0))
        }));
        if reading.matrix_failing > 0 {
            let failing = reading.matrix_failing;
            let summary = format!("{failing} flows of the matrix fail against the live policy");
            let key = (EventKind::MatrixFailure, String::new());
            now.insert(key, (summary, failing as f64));
        }
        let over: Vec<_> = self.told.keys().filter(|key| !now.contains_key(key)).cloned().collect();
        for key in over {
            let summary = self.told.remove(&key).unwrap_or_default();
            notices.push(self.listed(&key, false, summary, 0.0, reading));
        }
        for (key, (summary, value)) in now {
            if !self.told.contains_key(&key) {
                notices.push(self.listed(&key, true, summary.clone(), value, reading));
                self.told.insert(key, summary);
            }
        }
    }

    fn listed(
        &self,
        key: &(EventKind, String),
        firing: bool,
        summary: String,
        value: f64,
        reading: &Reading,
    ) -> Notice {
        let threshold = match key.0 {
            EventKind::ExceptionExpiring => self.thresholds.expiring_s as f64,
            _ => 0.0,
        };
        let (kind, key) = key.clone();
        Notice { kind, key, firing, summary, value, threshold, at_us: reading.wall_us }
    }
}

fn bounds(enter: f64, hold: Nanos) -> Bounds {
    Bounds { enter, leave: enter * LEAVE, hold_in: hold, hold_out: hold }
}
