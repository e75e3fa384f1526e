//! The queues of records, what `show log` shows of them, and what `trace` is told.

use dataplane::logbook::Rate;
use dataplane::worker::{Outlets, Rates};

use super::fleet::WorkerSight;
use super::logwriter::{Heavy, LogDesk, LogSettings};
use crate::api::Response;
use crate::api::protocol::{HeavyInfo, LogReport, OutletInfo};

/// LOG hits that may wait for the log thread.
const LOG_QUEUE: usize = 4096;
/// Packets that may wait to be captured.
const CAPTURE_QUEUE: usize = 2048;
/// Neighbour requests and port events that may wait.
const REQUEST_QUEUE: usize = 1024;
/// Lines about traced packets that are sent at once.
const TRACES: u64 = 512;

fn heavy(heavy: Heavy) -> HeavyInfo {
    HeavyInfo { name: heavy.name, records: heavy.records, error: heavy.error }
}

/// What became of records. What was done is read before what there was to do, so that the
/// difference is never negative.
pub(super) fn report(workers: &[WorkerSight], desk: &LogDesk, settings: &LogSettings) -> LogReport {
    let (outlook, tops) = (desk.outlook(), desk.tops());
    let ((captured, captures_lost), (json_written, json_lost)) = (desk.captures(), desk.json());
    let (lines_written, lines_lost) = (desk.written(), desk.lost());
    let (mut queued, mut unqueued, mut over_budget, mut suppressed) = (0, 0, 0, 0);
    for worker in workers {
        queued += worker.stats.logged.get();
        over_budget += worker.stats.log_over_budget.get();
        unqueued += worker.stats.log_lost.get();
        suppressed += worker.stats.log_suppressed.get();
    }
    let (written, lost) = (lines_written + captured, lines_lost + captures_lost);
    LogReport {
        emitted: queued + unqueued + suppressed,
        written,
        suppressed,
        dropped: unqueued + lost,
        waiting: queued.saturating_sub(written + lost),
        over_budget,
        queue_full: unqueued.saturating_sub(over_budget),
        lines: OutletInfo {
            place: outlook.path.map(|path| path.display().to_string()),
            written: lines_written,
            lost: lines_lost,
            error: outlook.trouble.map(|trouble| trouble.why),
        },
        json: settings.json.as_ref().map(|path| OutletInfo {
            place: Some(path.display().to_string()),
            written: json_written,
            lost: json_lost,
            error: outlook.json,
        }),
        captures: settings.captures.as_ref().map(|captures| OutletInfo {
            place: Some(captures.directory.display().to_string()),
            written: captured,
            lost: captures_lost,
            error: outlook.captures,
        }),
        writer: desk.way().to_owned(),
        rate: settings.rate,
        burst: settings.burst,
        budget: settings.budget,
        sources: tops.sources.into_iter().map(heavy).collect(),
        rules: tops.rules.into_iter().map(heavy).collect(),
    }
}

/// Lines about traced packets from number `from` on.
pub(super) fn traces(desk: &LogDesk, from: Option<u64>, limit: Option<u64>) -> Response {
    let limit = limit.map_or(TRACES, |limit| limit.min(TRACES));
    let found = desk.traces(from, limit as usize);
    Response::Traces { lines: found.lines, next: found.next, missed: found.missed }
}

/// The queues of the workers.
pub(super) fn outlets(logging: &LogSettings) -> Outlets {
    let rates = Rates::new(
        Rate::new(logging.rate, logging.burst),
        Rate::new(logging.nflog_rate, logging.nflog_rate),
        Rate::new(logging.trace_rate, logging.trace_rate),
    );
    // More at once would find no room.
    let budget = Rate::new(logging.budget, logging.budget.min(LOG_QUEUE as u32));
    let outlets = Outlets::new(LOG_QUEUE, REQUEST_QUEUE).with_rates(rates.within(budget));
    match logging.captures {
        Some(_) => outlets.with_captures(CAPTURE_QUEUE),
        None => outlets,
    }
}
