//! The log thread: records from the workers' queues to files, as the kernel would have
//! written them, as JSON, and as captured packets.
//!
//! Nothing here can hold up a worker: a queue that is full loses records, and a file that
//! cannot be written loses lines; both are counted. The files are opened anew when asked
//! (SIGHUP, for log rotation), when they were deleted and, after a failure, every few
//! seconds; they are turned over here, too, if that is configured. What limits kept back
//! is told every few seconds, and who causes the most is known ([`top`]).

mod captures;
mod desk;
mod json;
mod lines;
mod ring;
mod rotate;
mod sink;
#[cfg(test)]
mod tests;
mod top;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use dataplane::clock::{self, Nanos, monotonic};
use dataplane::conntrack::ConnView;
use dataplane::effects::{LogRecord, Report};
use dataplane::logbook::{LogBook, Reporter, Reports};
use dataplane::packet::PortId;
use dataplane::worker::{About, LogRecordEntry as Entry, Outlets};

pub use captures::CaptureSettings;
use captures::Captures;
pub(super) use desk::LogDesk;
use desk::Order;
#[cfg(test)]
use desk::Outlook;
use desk::Tops;
use lines::{Format, kernel_lines, wall_us};
use ring::Way;
pub use rotate::Rotation;
use sink::Sink;
pub(super) use sink::{can_open, open};
pub(super) use top::Heavy;
use top::{Prefix, Sketch};

use crate::log::{self, nflog};

/// Lines are written together up to this many bytes.
const BATCH_BYTES: usize = 64 << 10;
/// Records that are taken from a queue before the other's turn comes.
const TURN: usize = 1024;
/// Pause when the queues are empty.
const PAUSE: Duration = Duration::from_millis(10);
/// How often what was kept back is told.
const SWEEP: Nanos = Nanos::from_secs(5);
/// How often the heaviest are published.
const PUBLISH: Nanos = Nanos::SECOND;
/// How many of the heaviest are told.
const HEAVIEST: usize = 20;

/// How records are limited and where they go, besides the log file itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// Lines a second that a rule may cause after its burst; 0: no limit.
    pub rate: u32,
    /// Lines that a rule may cause at once.
    pub burst: u32,
    /// Records a second that all rules together may cause; 0: no bound.
    pub budget: u32,
    /// Lines a second about traced packets; 0: no limit.
    pub trace_rate: u32,
    /// Packets a second that an NFLOG rule may capture; 0: no limit.
    pub nflog_rate: u32,
    /// Where JSON lines go.
    pub json: Option<PathBuf>,
    /// When the log file and that of JSON lines are turned over.
    pub rotation: Rotation,
    /// Where captured packets go; without it, they become lines.
    pub captures: Option<CaptureSettings>,
    /// How often JSON lines tell of the heaviest, if at all.
    pub top_every: Option<Nanos>,
}

/// Handle of the log thread.
#[derive(Debug)]
pub(super) struct LogThread {
    desk: Arc<LogDesk>,
    thread: JoinHandle<()>,
}

impl LogThread {
    /// Starts writing to `path`, or to standard error without one. `ports` are the
    /// names of the ports by id, `index` gives their interface indices.
    ///
    /// # Errors
    /// When no thread can be made. A file that cannot be opened is no error: lines go
    /// to standard error until it can.
    pub(super) fn start(
        path: Option<&Path>,
        settings: &LogSettings,
        outlets: &Outlets,
        ports: Vec<String>,
    ) -> io::Result<Self> {
        let mut writer = Writer::new(path, settings, ports);
        let (desk, outlets) = (Arc::clone(&writer.desk), outlets.clone());
        writer.tell();
        let (starting, started) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
            yield_to_workers();
            // Who starts it may have given up a moment later what that takes.
            drop(starting);
            writer.run(&outlets);
        })?;
        let _started = started.recv();
        Ok(Self { desk, thread })
    }

    /// What it did and is told.
    pub(super) fn desk(&self) -> &Arc<LogDesk> {
        &self.desk
    }

    /// Writes what is queued and ends, unless the file blocks: then the thread
    /// is left behind after `patience`.
    pub(super) fn finish(self, patience: Nanos) {
        self.desk.stop.store(true, Ordering::Relaxed);
        let deadline = monotonic() + patience;
        while !self.thread.is_finished() && monotonic() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A log book, and what was told of what its rules did not report.
struct Tab {
    book: Arc<LogBook>,
    /// By reporter.
    rules: Vec<TabRule>,
}

/// One rule of a book.
struct TabRule {
    name: Arc<str>,
    told: Missing,
    weighed: u64,
}

/// Records of a rule that were not handed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Missing {
    suppressed: u64,
    lost: u64,
}

impl Missing {
    fn of(book: &LogBook, reporter: usize) -> Self {
        let index = reporter as u32;
        Self { suppressed: book.suppressed(index), lost: book.lost(index) }
    }

    fn all(self) -> u64 {
        self.suppressed + self.lost
    }
}

impl Tab {
    fn new(book: &Arc<LogBook>) -> Self {
        let rule = |reporter: &Reporter| {
            let (table, chain) = book.chain(reporter.family, reporter.chain);
            let name = json::rule_name(reporter.family, table.name(), chain, reporter.number);
            TabRule { name: name.into(), told: Missing::default(), weighed: 0 }
        };
        Self { rules: book.reporters().iter().map(rule).collect(), book: Arc::clone(book) }
    }
}

struct Writer {
    sink: Sink,
    json: Option<Sink>,
    captures: Option<Captures>,
    way: Way,
    desk: Arc<LogDesk>,
    format: Box<Format>,
    ports: Vec<String>,
    indices: Vec<u32>,
    batch: Vec<u8>,
    json_batch: Vec<u8>,
    tabs: Vec<Tab>,
    /// Since the start, and since the last line about them.
    sources: [Sketch<Prefix>; 2],
    rules: [Sketch<Arc<str>>; 2],
    top_every: Option<Nanos>,
    next_top: Nanos,
    next_sweep: Nanos,
    next_publish: Nanos,
}

impl Writer {
    fn new(path: Option<&Path>, settings: &LogSettings, ports: Vec<String>) -> Self {
        let (now, way) = (monotonic(), Way::best());
        let rotation = settings.rotation;
        let json = settings.json.clone();
        let index = |port: &String| interface_index(port);
        let desk = LogDesk::new(way.name());
        Self {
            sink: Sink::new(path.map(Path::to_owned), rotation, now),
            json: json.map(|path| Sink::new(Some(path), rotation, now).without_diversion()),
            captures: settings.captures.clone().map(Captures::new),
            way,
            desk: Arc::new(desk),
            format: kernel_lines(ports.clone()),
            indices: ports.iter().map(index).collect(),
            ports,
            batch: Vec::with_capacity(BATCH_BYTES),
            json_batch: Vec::new(),
            tabs: Vec::new(),
            sources: Default::default(),
            rules: Default::default(),
            top_every: settings.top_every,
            next_top: settings.top_every.map_or(now, |every| now + every),
            next_sweep: now + SWEEP,
            next_publish: now,
        }
    }

    fn run(&mut self, outlets: &Outlets) {
        loop {
            // Read before the queues, so that what was queued before a stop is written.
            let last = self.desk.stop.load(Ordering::Relaxed);
            self.obey();
            let mut more = false;
            for turn in 0.. {
                let Some(entry) = outlets.log.pop() else { break };
                self.take(&entry);
                more = turn == TURN;
                if more {
                    break;
                }
            }
            for turn in 0.. {
                let captures = outlets.captures.as_ref();
                let Some(entry) = captures.and_then(|queue| queue.pop()) else { break };
                self.capture(&entry);
                if turn == TURN {
                    more = true;
                    break;
                }
            }
            self.flush();
            self.sweep(last && !more);
            if more {
                continue;
            }
            if last {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// One record becomes a line.
    fn take<const BYTES: usize>(&mut self, entry: &Entry<BYTES>) {
        self.weigh(entry);
        let record = entry.record();
        if matches!(record.report, Report::Trace(_)) {
            let name = |port: PortId| match port {
                PortId::LOOPBACK => "lo",
                port => self.ports.get(port.index()).map_or("", String::as_str),
            };
            self.desk.trace(log::line(&log::Entry::copy(&record), name));
        }
        (self.format)(&record, &mut self.batch);
        self.batch.push(b'\n');
        self.tell_json(&record, entry.connection.as_ref(), &entry.book);
        if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// One record becomes a captured packet.
    fn capture<const BYTES: usize>(&mut self, entry: &Entry<BYTES>) {
        let Some(captures) = &mut self.captures else { return self.take(entry) };
        let record = entry.record();
        let (now, link) = (monotonic(), captures.link());
        let group = nflog::group(&record).unwrap_or(0);
        let (batch, kept) = captures.batch(group, now, &mut self.way);
        let wall = Nanos(wall_us(&record) * 1000);
        let indices = &self.indices;
        let index = |port: PortId| match port {
            PortId::LOOPBACK => 1,
            port => indices.get(port.index()).copied().unwrap_or(0),
        };
        nflog::write(batch, &record, link, wall, index);
        self.desk.count_captures(kept.written, kept.lost);
        self.weigh(entry);
        self.tell_json(&entry.record(), entry.connection.as_ref(), &entry.book);
    }

    fn tell_json(&mut self, record: &LogRecord<'_>, connection: Option<&ConnView>, book: &LogBook) {
        if self.json.is_none() {
            return;
        }
        let line = json::line(record, connection, book, &self.ports, wall_us(record));
        self.json_batch.extend_from_slice(line.as_bytes());
        self.json_batch.push(b'\n');
        if self.json_batch.len() >= BATCH_BYTES {
            self.flush_json(true);
        }
    }

    /// Counts a record for its source and its rule, with what was kept back since the
    /// rule's last one: for want of better knowledge, that was from the same source.
    fn weigh<const BYTES: usize>(&mut self, entry: &Entry<BYTES>) {
        let parsed = &entry.parsed;
        let (rule, weight) = match entry.about {
            About::Reporter(index) => {
                let tab = self.tab(&entry.book);
                let missing = Missing::of(&tab.book, index as usize).all();
                let rule = &mut tab.rules[index as usize];
                let before = std::mem::replace(&mut rule.weighed, missing);
                (Arc::clone(&rule.name), 1 + missing.saturating_sub(before))
            }
            About::Trace(_) => {
                let (table, chain) = entry.book.chain(parsed.family, entry.chain);
                let name = json::rule_name(parsed.family, table.name(), chain, entry.number);
                (name.into(), 1)
            }
        };
        let source = Prefix::of(parsed.family, parsed.src);
        for sketch in &mut self.sources {
            sketch.add(source, weight);
        }
        for sketch in &mut self.rules {
            sketch.add(Arc::clone(&rule), weight);
        }
    }

    fn tab(&mut self, book: &Arc<LogBook>) -> &mut Tab {
        let found = self.tabs.iter().rposition(|tab| Arc::ptr_eq(&tab.book, book));
        let at = found.unwrap_or_else(|| {
            self.tabs.push(Tab::new(book));
            self.tabs.len() - 1
        });
        &mut self.tabs[at]
    }

    fn obey(&mut self) {
        for book in self.desk.books() {
            self.tab(&book);
        }
        let order = self.desk.order();
        match order {
            None => {}
            Some(Order::Reopen) => {
                let now = monotonic();
                self.sink.reopen(now);
                if let Some(json) = &mut self.json {
                    json.reopen(now);
                }
                if let Some(captures) = &mut self.captures {
                    captures.reopen(now);
                }
            }
            Some(Order::TurnTo(target)) => self.sink.turn_to(target, monotonic()),
        }
    }

    fn flush(&mut self) {
        let now = monotonic();
        if self.batch.is_empty() {
            self.sink.tend(now);
        } else {
            let fate = self.sink.write(&self.batch, now, &mut self.way);
            self.desk.count_lines(fate);
            self.batch.clear();
        }
        self.flush_json(true);
        if let Some(captures) = &mut self.captures {
            let kept = captures.flush(now, &mut self.way);
            self.desk.count_captures(kept.written, kept.lost);
        }
        self.tell();
    }

    /// Writes JSON lines; remarks of our own are not counted.
    fn flush_json(&mut self, counted: bool) {
        let Some(json) = &mut self.json else { return };
        if !self.json_batch.is_empty() {
            let fate = json.write(&self.json_batch, monotonic(), &mut self.way);
            if counted {
                self.desk.count_json(fate);
            }
            self.json_batch.clear();
        }
    }

    /// Tells what limits kept back, and who is the heaviest, when it is time.
    fn sweep(&mut self, last: bool) {
        let now = monotonic();
        if last || now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.tell_suppressed(now);
        }
        if last || now >= self.next_publish {
            self.next_publish = now + PUBLISH;
            let sources = self.sources[0].heaviest(HEAVIEST, Prefix::name);
            let rules = self.rules[0].heaviest(HEAVIEST, |rule| rule.to_string());
            self.desk.publish(Tops { sources, rules });
        }
        if let Some(every) = self.top_every.filter(|_| now >= self.next_top) {
            self.next_top = now + every;
            let sources = self.sources[1].heaviest(HEAVIEST, Prefix::name);
            let rules = self.rules[1].heaviest(HEAVIEST, |rule| rule.to_string());
            self.sources[1].clear();
            self.rules[1].clear();
            if self.json.is_some() && !sources.is_empty() {
                self.flush_json(true);
                let seconds = every.0 / Nanos::SECOND.0;
                let line = json::top(clock::wall_us(), seconds, &sources, &rules);
                self.json_batch.extend_from_slice(line.as_bytes());
                self.json_batch.push(b'\n');
                self.flush_json(false);
            }
        }
    }

    fn tell_suppressed(&mut self, now: Nanos) {
        let mut remarks = Vec::new();
        for tab in &mut self.tabs {
            for (index, reporter) in tab.book.reporters().iter().enumerate() {
                let missing = Missing::of(&tab.book, index);
                let rule = &mut tab.rules[index];
                let before = std::mem::replace(&mut rule.told, missing);
                let prefix = match &reporter.reports {
                    Reports::Log(log) => log.prefix.clone(),
                    Reports::Nflog(nflog) => nflog.prefix.clone(),
                    Reports::Audit(_) => Box::default(),
                };
                for (what, now, then) in [
                    ("suppressed", missing.suppressed, before.suppressed),
                    ("lost", missing.lost, before.lost),
                ] {
                    if now > then {
                        remarks.push((what, Arc::clone(&rule.name), prefix.clone(), now - then));
                    }
                }
            }
        }
        // Whom no worker holds on to any more has said its last.
        self.tabs.retain(|tab| Arc::strong_count(&tab.book) > 1);
        for (what, rule, prefix, records) in remarks {
            let text = format!("{what} {records} lines of rule {rule} \"{prefix}\"");
            let _uncounted = self.sink.write(&lines::remark(&text), now, &mut self.way);
            if self.json.is_some() {
                self.flush_json(true);
                let line = json::missing(clock::wall_us(), what, &rule, &prefix, records);
                self.json_batch.extend_from_slice(line.as_bytes());
                self.json_batch.push(b'\n');
                self.flush_json(false);
            }
        }
    }

    /// Lets others know where lines go.
    fn tell(&self) {
        let json = self.json.as_ref().and_then(Sink::trouble).map(|trouble| trouble.why.clone());
        let captures = self.captures.as_ref().and_then(Captures::trouble);
        self.desk.tell(&self.sink, json, captures);
    }
}

/// Takes a core only where nobody else wants it: a flood of records must not cost the
/// workers theirs.
fn yield_to_workers() {
    const LEAST: i32 = 19;
    // Of this thread alone. Where that is not possible, the budget still bounds it.
    if let Err(error) = rustix::process::setpriority_process(None, LEAST) {
        tracing::info!("the log thread's priority cannot be lowered: {error}");
    }
}

fn interface_index(port: &str) -> u32 {
    let text = std::fs::read_to_string(format!("/sys/class/net/{port}/ifindex"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
