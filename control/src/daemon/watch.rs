//! Events of the connection table for one client. The queue is the table's, bounded,
//! and never holds up a worker; what did not fit is told as a number.

use std::sync::Arc;

use dataplane::clock::{monotonic, utc_offset};
use dataplane::conntrack::{Conntrack, EventKind, Watch};

use crate::api::protocol::{ConntrackWatch, EventInfo, EventKindName};
use crate::api::{Code, Failure, Feed, Response};
use crate::conntrack::Rows;

/// Events in one answer at most.
const BATCH: usize = 1024;

/// One client's events.
pub(super) struct Events {
    conntrack: Arc<Conntrack>,
    ports: Vec<String>,
    watch: Watch,
    wanted: ConntrackWatch,
    told_lost: u64,
}

impl Events {
    pub(super) fn begin(
        conntrack: &Arc<Conntrack>,
        ports: &[String],
        wanted: ConntrackWatch,
    ) -> Result<Self, Failure> {
        let watch = conntrack.watch();
        let watch = watch.map_err(|error| Failure::new(Code::Busy, error.to_string()))?;
        let (conntrack, ports) = (Arc::clone(conntrack), ports.to_vec());
        Ok(Self { conntrack, ports, watch, wanted, told_lost: 0 })
    }

    fn answer(&self, events: Vec<EventInfo>) -> Response {
        Response::Events { events, lost: self.watch.lost() }
    }
}

impl Feed for Events {
    fn next(&mut self) -> Option<Response> {
        let mut events = Vec::new();
        let utc_offset = utc_offset();
        // As many as waited at the beginning, so that an answer is given at last.
        for _ in 0..BATCH {
            let Some(event) = self.watch.take() else { break };
            let kind = match event.kind {
                EventKind::New => EventKindName::New,
                EventKind::Update => EventKindName::Update,
                EventKind::Destroy => EventKindName::Destroy,
            };
            if !self.wanted.kinds.is_empty() && !self.wanted.kinds.contains(&kind) {
                continue;
            }
            let rows =
                Rows { table: &self.conntrack, ports: &self.ports, now: monotonic(), utc_offset };
            let Some(connection) = rows.filtered(&self.wanted.filter, &event.row) else { continue };
            let at_us = (event.at + utc_offset).0 / 1000;
            events.push(EventInfo { kind, at_us, changes: event.changes, connection });
        }
        let lost = self.watch.lost();
        let news = !events.is_empty() || lost != self.told_lost;
        self.told_lost = lost;
        news.then(|| self.answer(events))
    }

    fn idle(&self) -> Response {
        self.answer(Vec::new())
    }
}
