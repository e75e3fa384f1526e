//! What leaves a worker other than frames: log records, neighbour requests and
//! port events, through bounded lock-free queues; and the [`Effects`] that the
//! pipeline sees.

use std::sync::Arc;

use arrayvec::{ArrayString, ArrayVec};
use crossbeam_queue::ArrayQueue;

use super::waiting::WaitingRoom;
use crate::clock::Nanos;
use crate::effects::{Answer, Effects, LogRecord};
use crate::packet::{Family, Parsed, PortId};
use crate::policy::Hook;
use crate::policy::target::LogTarget;
use crate::port::host::HostQueue;
use crate::port::pool::{FreeList, copy_in};
use crate::port::{Frame, Memory, PortError};
use crate::stats::WorkerStats;
use crate::verdict::DropReason;

/// Frames that the pipeline can make in one turn at most: datagrams that a
/// burst completes leave with fragments that came long before.
pub(super) const EMITTED_MAX: usize = 1024;
/// Bytes of a logged frame that are kept: every header that a line can show.
const LOGGED_BYTES: usize = 512;
/// How long a next hop is not asked for again.
const ASK_AGAIN: Nanos = Nanos::SECOND;

/// A LOG hit on its way to the log thread. Owns its bytes.
#[derive(Clone, Debug)]
pub struct LogEntry {
    now: Nanos,
    prefix: ArrayString<30>,
    /// The target's options without the prefix: cloning that one costs nothing.
    options: LogTarget,
    hook: Hook,
    input: Option<PortId>,
    output: Option<PortId>,
    frame: ArrayVec<u8, LOGGED_BYTES>,
    has_link_header: bool,
    parsed: Parsed,
    mark: u32,
}

impl LogEntry {
    /// Copies what a log line may show.
    pub fn new(record: &LogRecord<'_>) -> Self {
        let target = record.target;
        let mut prefix = ArrayString::new();
        for letter in target.prefix.chars() {
            if prefix.try_push(letter).is_err() {
                break;
            }
        }
        let options = LogTarget {
            level: target.level,
            prefix: Box::default(),
            tcp_sequence: target.tcp_sequence,
            tcp_options: target.tcp_options,
            ip_options: target.ip_options,
            uid: target.uid,
            mac_decode: target.mac_decode,
        };
        let kept = record.frame.len().min(LOGGED_BYTES);
        Self {
            now: record.now,
            prefix,
            options,
            hook: record.hook,
            input: record.input,
            output: record.output,
            frame: record.frame[..kept].iter().copied().collect(),
            has_link_header: record.has_link_header,
            parsed: *record.parsed,
            mark: record.mark,
        }
    }
    /// The rule's options. Allocates: for the log thread.
    pub fn target(&self) -> LogTarget {
        LogTarget { prefix: self.prefix.as_str().into(), ..self.options.clone() }
    }
    /// The record, with its `target`. `frame` holds the first bytes only, so
    /// lengths in `parsed` may reach beyond it.
    pub fn record<'a>(&'a self, target: &'a LogTarget) -> LogRecord<'a> {
        LogRecord {
            now: self.now,
            target,
            hook: self.hook,
            input: self.input,
            output: self.output,
            frame: &self.frame,
            has_link_header: self.has_link_header,
            parsed: &self.parsed,
            mark: self.mark,
        }
    }
}

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
    /// LOG hits. When full, hits are lost and counted.
    pub log: Arc<ArrayQueue<LogEntry>>,
    /// Next hops to resolve. When full, the request comes again with the next frame.
    pub neighbours: Arc<ArrayQueue<NeighbourRequest>>,
    /// Port events. When full, the oldest goes.
    pub events: Arc<ArrayQueue<WorkerEvent>>,
}

impl Outlets {
    /// Queues with room for `log` LOG hits (about 700 bytes each) and for
    /// `requests` neighbour requests and as many events.
    pub fn new(log: usize, requests: usize) -> Self {
        Self {
            log: Arc::new(ArrayQueue::new(log.max(1))),
            neighbours: Arc::new(ArrayQueue::new(requests.max(1))),
            events: Arc::new(ArrayQueue::new(requests.max(1))),
        }
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
    pub(super) now: Nanos,
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
    fn expect_looped(&mut self, answer: &Answer) {
        if let Some(host) = &self.host {
            host.expect_looped(answer);
        }
    }
    fn log(&mut self, record: &LogRecord<'_>) {
        match self.outlets.log.push(LogEntry::new(record)) {
            Ok(()) => self.stats.logged.add(1),
            Err(_) => self.stats.log_lost.add(1),
        }
    }
    fn want_neighbour(&mut self, port: PortId, family: Family, next_hop: u128) {
        let request = NeighbourRequest { port, family, next_hop };
        if self.asked.admit(request, self.now) && self.outlets.neighbours.push(request).is_err() {
            self.asked.forget(request);
        }
    }
}
