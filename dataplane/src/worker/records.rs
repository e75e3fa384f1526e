//! Records on their way to the log thread: what a LOG, NFLOG or AUDIT hit, or a step of a
//! traced packet, leaves behind. They own their bytes and hold on to the log book that
//! has the rest: prefixes, options, names.

use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::clock::Nanos;
use crate::conntrack::{ConnView, CtState, Tracking};
use crate::effects::{LogRecord, Place, Report, Traced};
use crate::logbook::{Gate, LogBook, Rate};
use crate::packet::{L4Class, Parsed, PortId};
use crate::policy::scene::Owner;
use crate::policy::walk::RuleRef;
use crate::policy::{ChainId, CounterId, Hook, TableId};
use crate::wire::proto;

/// Bytes of a logged frame that are kept: every header that a line can show.
pub const LINE_BYTES: usize = 512;
/// Bytes of a captured frame that are kept at most.
pub const CAPTURE_BYTES: usize = 2048;
/// The longest TCP header, with all options.
const MOST_TCP_HEADER: usize = 60;
/// A UDP header.
const UDP_HEADER: usize = 8;
/// Rules that jumped to the reporting one; outer ones of deeper walks are not told.
pub const CALLERS: usize = 6;

/// How many records may be made.
#[derive(Debug, Default)]
pub struct Rates {
    /// By each LOG and AUDIT rule.
    pub log: Option<Rate>,
    /// By each NFLOG rule.
    pub nflog: Option<Rate>,
    /// By all traced packets together.
    pub trace: Option<Rate>,
    /// By all of them, for lines and for captures each: what making and taking them may
    /// cost in all. What is beyond it is lost, and counted.
    pub budget: Option<Rate>,
    /// Count what `trace` and `budget` allow.
    pub(super) trace_gate: Gate,
    pub(super) line_gate: Gate,
    pub(super) capture_gate: Gate,
}

impl Rates {
    /// By LOG and AUDIT rules, by NFLOG rules, by traced packets; `None` is no limit.
    pub fn new(log: Option<Rate>, nflog: Option<Rate>, trace: Option<Rate>) -> Self {
        Self { log, nflog, trace, ..Self::default() }
    }

    /// With a bound for all of them.
    #[must_use]
    pub fn within(self, budget: Option<Rate>) -> Self {
        Self { budget, ..self }
    }
}

/// Bytes of a frame that its line can show: the headers of TCP and UDP; of what may quote
/// other packets, or is cut short, all that is kept.
pub fn line_bytes(parsed: &Parsed) -> usize {
    let header = match parsed.proto {
        _ if parsed.l4_class == L4Class::Odd => return LINE_BYTES,
        proto::TCP => MOST_TCP_HEADER,
        proto::UDP | proto::UDPLITE => UDP_HEADER,
        _ => return LINE_BYTES,
    };
    (usize::from(parsed.l4) + header).min(LINE_BYTES)
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The reporter with this index in the book.
    Reporter(u32),
    /// A step of a traced packet.
    Trace(Traced),
}

/// One record with up to `BYTES` bytes of its frame.
#[derive(Clone, Debug)]
pub struct Entry<const BYTES: usize> {
    /// The book of the policy that it comes from.
    pub book: Arc<LogBook>,
    /// What it is about.
    pub about: About,
    /// When.
    pub now: Nanos,
    /// The rule's table.
    pub table: TableId,
    /// Its chain.
    pub chain: ChainId,
    /// Its number in the chain, from 1.
    pub number: u32,
    /// Where it counts.
    pub counter: Option<CounterId>,
    /// The rules that jumped there, outermost first; `rule` is where each goes on.
    pub callers: ArrayVec<RuleRef, CALLERS>,
    /// The hook.
    pub hook: Hook,
    /// Input port.
    pub input: Option<PortId>,
    /// Output port.
    pub output: Option<PortId>,
    /// The frame's first bytes.
    pub frame: ArrayVec<u8, BYTES>,
    /// Whether the Ethernet header is real.
    pub has_link_header: bool,
    /// Parsed facts; lengths may reach beyond what is kept of the frame.
    pub parsed: Parsed,
    /// The packet's mark.
    pub mark: u32,
    /// Who sent it.
    pub owner: Option<Owner>,
    /// What tracking said.
    pub state: CtState,
    /// Its connection.
    pub connection: Option<ConnView>,
}

/// A record that becomes a line.
pub type LogEntry = Entry<LINE_BYTES>;
/// A record that becomes a captured packet.
pub type Capture = Entry<CAPTURE_BYTES>;

impl<const BYTES: usize> Entry<BYTES> {
    /// Copies what may be shown; of the frame not more than `limit` bytes.
    pub fn new(record: &LogRecord<'_>, about: About, book: &Arc<LogBook>, limit: usize) -> Self {
        let kept = record.frame.len().min(BYTES).min(limit);
        let mut frame = ArrayVec::new();
        let fits = frame.try_extend_from_slice(&record.frame[..kept]);
        debug_assert!(fits.is_ok());
        let outer = record.callers.len().saturating_sub(CALLERS);
        Self {
            book: Arc::clone(book),
            about,
            now: record.now,
            table: record.place.table,
            chain: record.place.chain,
            number: record.place.number,
            counter: record.place.counter,
            callers: record.callers[outer..].iter().copied().collect(),
            hook: record.hook,
            input: record.input,
            output: record.output,
            frame,
            has_link_header: record.has_link_header,
            parsed: *record.parsed,
            mark: record.mark,
            owner: record.owner,
            state: record.tracking.state,
            connection: record.connection(),
        }
    }

    /// The record. `frame` holds the first bytes only, so lengths in `parsed` may reach
    /// beyond it; its connection is [`Entry::connection`].
    pub fn record(&self) -> LogRecord<'_> {
        let place = Place {
            table: self.table,
            chain: self.chain,
            chain_name: self.chain_name(),
            number: self.number,
            counter: self.counter,
        };
        LogRecord {
            now: self.now,
            report: self.report(),
            place,
            callers: &self.callers,
            hook: self.hook,
            input: self.input,
            output: self.output,
            frame: &self.frame,
            has_link_header: self.has_link_header,
            parsed: &self.parsed,
            mark: self.mark,
            owner: self.owner,
            tracking: Tracking { state: self.state, ..Tracking::NONE },
            conntrack: None,
        }
    }

    /// What it is about, with the rule's options.
    pub fn report(&self) -> Report<'_> {
        match self.about {
            About::Trace(how) => Report::Trace(how),
            About::Reporter(index) => self.book.reporters()[index as usize].reports.report(),
        }
    }

    /// The name of the chain.
    pub fn chain_name(&self) -> &str {
        self.book.chain(self.parsed.family, self.chain).1
    }
}
