//! What leaves a worker other than frames: log records, neighbour requests and
//! port events, through bounded lock-free queues; and the [`Effects`] that the
//! pipeline sees.

use std::sync::Arc;

use arrayvec::ArrayVec;
use crossbeam_queue::ArrayQueue;

use super::records::{self, About, CAPTURE_BYTES, Capture, Entry, LogEntry, Rates};
use super::waiting::WaitingRoom;
use crate::clock::Nanos;
use crate::effects::{Answer, Effects, LogRecord, Report};
use crate::logbook::{Gate, LogBook};
use crate::packet::{Family, PortId};
use crate::policy::scene::Sender;
use crate::port::host::HostQueue;
use crate::port::pool::{FreeList, copy_in};
use crate::port::{Frame, Memory, PortError};
use crate::stats::WorkerStats;
use crate::verdict::DropReason;

/// Frames that the pipeline can make in one turn at most: datagrams that a
/// burst completes leave with fragments that came long before.
pub(super) const EMITTED_MAX: usize = 1024;
/// How long a next hop is not asked for again.
const ASK_AGAIN: Nanos = Nanos::SECOND;

/// A next hop whose link-layer address is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourRequest {
    /// The port it is on.
    pub port: PortId,
    /// Its family.
    pub family: Family,
    /// Its address (IPv4 in the low 32 bits).
    pub next_hop: u128,
}

/// What happened to a port.
#[derive(Debug)]
pub enum PortEvent {
    /// Its link went down; frames for it are dropped.
    LinkDown,
    /// Its link is up again.
    LinkUp,
    /// It is out of service until it is opened anew.
    Failed(PortError),
}

/// A port event with its place.
#[derive(Debug)]
pub struct WorkerEvent {
    /// The worker that noticed.
    pub worker: usize,
    /// The port.
    pub port: PortId,
    /// What happened.
    pub event: PortEvent,
}

/// The queues that all workers write and the control side reads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outlets {
    /// Records that become lines. When full, records are lost and counted.
    pub log: Arc<ArrayQueue<LogEntry>>,
    /// Packets to capture, the same way. Without it they become lines.
    pub captures: Option<Arc<ArrayQueue<Capture>>>,
    /// How many records there may be.
    pub rates: Arc<Rates>,
    /// Next hops to resolve. When full, the request comes again with the next frame.
    pub neighbours: Arc<ArrayQueue<NeighbourRequest>>,
    /// Port events. When full, the oldest goes.
    pub events: Arc<ArrayQueue<WorkerEvent>>,
}

impl Outlets {
    /// Queues with room for `log` records (about 1 KiB each) and for
    /// `requests` neighbour requests and as many events. No limits, no captures.
    pub fn new(log: usize, requests: usize) -> Self {
        Self {
            log: Arc::new(ArrayQueue::new(log.max(1))),
            captures: None,
            rates: Arc::default(),
            neighbours: Arc::new(ArrayQueue::new(requests.max(1))),
            events: Arc::new(ArrayQueue::new(requests.max(1))),
        }
    }
    /// With limits on records.
    pub fn with_rates(self, rates: Rates) -> Self {
        Self { rates: Arc::new(rates), ..self }
    }
    /// With room for so many captured packets (about 2.5 KiB each).
    pub fn with_captures(self, captures: usize) -> Self {
        Self { captures: Some(Arc::new(ArrayQueue::new(captures.max(1)))), ..self }
    }
    pub(super) fn report(&self, worker: usize, port: PortId, event: PortEvent) {
        let _oldest = self.events.force_push(WorkerEvent { worker, port, event });
    }
}

/// Next hops asked for recently, so that a stream of frames asks once a second.
#[derive(Debug, Default)]
pub(super) struct Asked(ArrayVec<(NeighbourRequest, Nanos), 64>);

impl Asked {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
    /// Whether to ask now; remembers that it was done.
    fn admit(&mut self, request: NeighbourRequest, now: Nanos) -> bool {
        let due = |at: Nanos| now.saturating_sub(at) >= ASK_AGAIN;
        if let Some((_, at)) = self.0.iter_mut().find(|(known, _)| *known == request) {
            let again = due(*at);
            if again {
                *at = now;
            }
            return again;
        }
        if self.0.is_full() {
            self.0.retain(|(_, at)| !due(*at));
        }
        // A full memory means many next hops at once: ask without remembering.
        let _full = self.0.try_push((request, now));
        true
    }
    fn forget(&mut self, request: NeighbourRequest) {
        self.0.retain(|(known, _)| *known != request);
    }
}

/// What the pipeline sees of its worker while it decides a burst.
pub(super) struct Surroundings<'w> {
    pub(super) memory: &'w Memory,
    pub(super) free: &'w mut FreeList,
    pub(super) emitted: &'w mut Vec<(PortId, Frame)>,
    pub(super) outlets: &'w Outlets,
    pub(super) asked: &'w mut Asked,
    pub(super) waiting: &'w mut WaitingRoom,
    /// Where deliveries go, if this machine takes any.
    pub(super) host: Option<&'w mut HostQueue>,
    pub(super) stats: &'w WorkerStats,
    pub(super) book: &'w Arc<LogBook>,
    pub(super) worker: usize,
    pub(super) now: Nanos,
}

impl Surroundings<'_> {
    /// What a record is about, if there may be one more.
    fn admit(&self, record: &LogRecord<'_>) -> Option<About> {
        let rates = &*self.outlets.rates;
        let rate = match record.report {
            Report::Trace(how) => {
                let rate = rates.trace.as_ref();
                let admitted = rate.is_none_or(|it| rates.trace_gate.admits(record.now, it));
                return admitted.then_some(About::Trace(how));
            }
            Report::Nflog(_) => rates.nflog.as_ref(),
            Report::Log(_) | Report::Audit(_) => rates.log.as_ref(),
        };
        let reporter = record.place.counter.and_then(|at| self.book.reporter_at(at));
        debug_assert!(reporter.is_some(), "every rule that reports is in the book");
        let reporter = reporter?;
        let admits = |it| self.book.admits(reporter, self.worker, record.now, it);
        rate.is_none_or(admits).then_some(About::Reporter(reporter))
    }

    /// Queues a record; one over the budget or without room costs no copy.
    fn hand_on<const BYTES: usize>(
        &self,
        (queue, gate): (&ArrayQueue<Entry<BYTES>>, &Gate),
        record: &LogRecord<'_>,
        about: About,
        limit: usize,
    ) {
        let budget = self.outlets.rates.budget.as_ref();
        let within = budget.is_none_or(|rate| gate.admits(record.now, rate));
        let handed = within
            && !queue.is_full()
            && queue.push(Entry::new(record, about, self.book, limit)).is_ok();
        if handed {
            return self.stats.logged.add(1);
        }
        self.stats.log_lost.add(1);
        if !within {
            self.stats.log_over_budget.add(1);
        }
        if let About::Reporter(index) = about {
            self.book.lose(index, self.worker);
        }
    }
}

impl Effects for Surroundings<'_> {
    fn emit(&mut self, port: PortId, frame: &[u8]) -> bool {
        if self.emitted.len() == EMITTED_MAX {
            return false;
        }
        let Some(frame) = copy_in(self.memory, self.free, frame) else { return false };
        self.emitted.push((port, frame));
        true
    }
    fn hold(
        &mut self,
        port: PortId,
        next_hop: (Family, u128),
        frame: &[u8],
    ) -> Result<(), DropReason> {
        let frame = copy_in(self.memory, self.free, frame).ok_or(DropReason::NoFrame)?;
        self.waiting.admit(port, next_hop, self.now, frame).map_err(|frame| {
            self.free.put(frame);
            DropReason::NeighbourQueueFull
        })
    }
    fn deliver(&mut self, port: Option<PortId>, frame: &[u8]) {
        match &mut self.host {
            Some(host) => host.deliver_copy(self.memory, self.free, port, frame),
            None => self.stats.delivered.add(1),
        }
    }
    fn sender(&mut self, number: u16) -> Sender {
        self.host.as_mut().map_or(Sender::Untold, |host| host.sender(number))
    }
    fn expect_looped(&mut self, answer: &Answer) {
        if let Some(host) = &self.host {
            host.expect_looped(answer);
        }
    }
    fn log(&mut self, record: &LogRecord<'_>) {
        let Some(about) = self.admit(record) else {
            return self.stats.log_suppressed.add(1);
        };
        let rates = &self.outlets.rates;
        match (record.report, &self.outlets.captures) {
            (Report::Nflog(nflog), Some(captures)) => {
                let size = nflog.size.map_or(CAPTURE_BYTES, |size| size as usize);
                let limit = usize::from(record.parsed.l3).saturating_add(size);
                self.hand_on((captures, &rates.capture_gate), record, about, limit);
            }
            _ => {
                let limit = records::line_bytes(record.parsed);
                self.hand_on((&self.outlets.log, &rates.line_gate), record, about, limit);
            }
        }
    }
    fn want_neighbour(&mut self, port: PortId, family: Family, next_hop: u128) {
        let request = NeighbourRequest { port, family, next_hop };
        if self.asked.admit(request, self.now) && self.outlets.neighbours.push(request).is_err() {
            self.asked.forget(request);
        }
    }
}
