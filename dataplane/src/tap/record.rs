//! What a tap keeps of one packet, and how it is gathered while the engine decides.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::headers::Headers;
use crate::clock::Nanos;
use crate::conntrack::{ConnView, Conntrack, Tracking};
use crate::effects::{Answer, Effects, LogRecord, Outcome, Step};
use crate::logbook::LogBook;
use crate::packet::{Family, PortId};
use crate::policy::scene::Sender;
use crate::verdict::{Disposition, DropReason};

/// Bytes of a frame that are kept at most.
pub const FRAME_BYTES: usize = 2048;
/// Steps of a path that are kept; later ones are counted.
pub const STEPS_MAX: usize = 64;

/// One packet that a tap took. It owns its bytes, and holds on to the log book that has the
/// names of the chains.
#[derive(Clone, Debug)]
pub struct Record {
    /// When its burst was received.
    pub now: Nanos,
    /// By which worker.
    pub worker: usize,
    /// The port it came in by; `None`: this machine sent it.
    pub input: Option<PortId>,
    /// Its length as it arrived, Ethernet header included.
    pub length: usize,
    /// Its first bytes as it arrived.
    pub frame: ArrayVec<u8, FRAME_BYTES>,
    /// What it said of itself as it arrived.
    pub before: Headers,
    /// And when it was decided.
    pub after: Headers,
    /// Its length then.
    pub length_after: usize,
    /// Rules that matched and policies that applied, those of answers to it behind its own.
    pub steps: ArrayVec<Step, STEPS_MAX>,
    /// Steps beyond those.
    pub more_steps: u32,
    /// How it ended.
    pub disposition: Disposition,
    /// What tracking said last.
    pub tracking: Tracking,
    /// Its connection then.
    pub connection: Option<ConnView>,
    /// Its mark then.
    pub mark: u32,
    /// Frames that the engine made because of it: answers, fragments, copies.
    pub emitted: u32,
    /// The first of them, and where it left.
    pub answer: Option<(PortId, Headers)>,
    /// Records that rules made of it (LOG, NFLOG, AUDIT, TRACE).
    pub logged: u32,
    /// The policy's names.
    pub book: Arc<LogBook>,
}

impl Record {
    /// Of a frame that is about to be decided; `limit` of its bytes are kept at most.
    pub(crate) fn begin(
        frame: &[u8],
        input: Option<PortId>,
        (now, worker): (Nanos, usize),
        limit: usize,
        book: &Arc<LogBook>,
    ) -> Self {
        let kept = frame.len().min(limit).min(FRAME_BYTES);
        let mut bytes = ArrayVec::new();
        let fits = bytes.try_extend_from_slice(&frame[..kept]);
        debug_assert!(fits.is_ok());
        let before = Headers::read(frame);
        Self {
            now,
            worker,
            input,
            length: frame.len(),
            frame: bytes,
            before,
            after: before,
            length_after: frame.len(),
            steps: ArrayVec::new(),
            more_steps: 0,
            disposition: Disposition::Drop(DropReason::UnknownEtherType),
            tracking: Tracking::NONE,
            connection: None,
            mark: 0,
            emitted: 0,
            answer: None,
            logged: 0,
            book: Arc::clone(book),
        }
    }

    /// With what the engine left of the frame.
    pub(crate) fn end(&mut self, frame: &[u8], disposition: Disposition, conntrack: &Conntrack) {
        self.after = Headers::read(frame);
        self.length_after = frame.len();
        self.disposition = disposition;
        self.connection = self.tracking.conn.and_then(|conn| conntrack.view(conn));
    }
}

/// The surroundings of a packet that is taken: as ever, and what it meets is noted.
pub(crate) struct Tracer<'a, E> {
    pub(crate) effects: &'a mut E,
    pub(crate) record: &'a mut Record,
}

impl<E: Effects> Effects for Tracer<'_, E> {
    const TRACE: bool = true;

    fn emit(&mut self, port: PortId, frame: &[u8]) -> bool {
        self.record.emitted += 1;
        if self.record.answer.is_none() {
            self.record.answer = Some((port, Headers::read(frame)));
        }
        self.effects.emit(port, frame)
    }
    fn hold(
        &mut self,
        port: PortId,
        next_hop: (Family, u128),
        frame: &[u8],
    ) -> Result<(), DropReason> {
        self.record.emitted += 1;
        self.effects.hold(port, next_hop, frame)
    }
    fn deliver(&mut self, port: Option<PortId>, frame: &[u8]) {
        self.effects.deliver(port, frame);
    }
    fn expect_looped(&mut self, answer: &Answer) {
        self.effects.expect_looped(answer);
    }
    fn sender(&mut self, number: u16) -> Sender {
        self.effects.sender(number)
    }
    fn log(&mut self, record: &LogRecord<'_>) {
        self.record.logged += 1;
        self.effects.log(record);
    }
    fn want_neighbour(&mut self, port: PortId, family: Family, next_hop: u128) {
        self.effects.want_neighbour(port, family, next_hop);
    }
    fn step(&mut self, step: Step) {
        if E::TRACE {
            self.effects.step(step);
        }
        if self.record.steps.try_push(step).is_err() {
            self.record.more_steps += 1;
        }
    }
    fn outcome(&mut self, outcome: &Outcome) {
        self.record.tracking = outcome.tracking;
        self.record.mark = outcome.mark;
        if E::TRACE {
            self.effects.outcome(outcome);
        }
    }
}
