//! The log thread: LOG hits from the workers' queue to a file, as the kernel
//! would have written them.
//!
//! Nothing here can hold up a worker: a queue that is full loses hits, and a
//! file that cannot be written (missing, full disk, gone) loses lines; both are
//! counted. The file is opened anew when asked (SIGHUP, for log rotation) and,
//! after a failure, once a second.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use dataplane::clock::{self, Nanos, monotonic};
use dataplane::packet::PortId;
use dataplane::worker::LogEntry;

use crate::log;

/// Lines are written together up to this many bytes.
const BATCH_BYTES: usize = 64 << 10;
/// Pause when the queue is empty.
const PAUSE: Duration = Duration::from_millis(10);
/// How soon a failed file is tried again.
const RETRY: Nanos = Nanos::SECOND;

/// What the log thread did.
#[derive(Debug, Default)]
pub(super) struct LogCounters {
    /// Lines written.
    pub(super) written: AtomicU64,
    /// Lines lost because the file could not be written.
    pub(super) lost: AtomicU64,
}

/// Turns a hit into a line without its line end, appended to the buffer.
pub(super) type Format = dyn Fn(&LogEntry, &mut Vec<u8>) + Send;

/// Lines as a syslog daemon writes the kernel's: time, host, `kernel:`, and what
/// the kernel says. `ports` are the names of the ports by id.
pub(super) fn kernel_lines(ports: Vec<String>) -> Box<Format> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Box::new(move |entry, out| {
        let target = entry.target();
        let record = entry.record(&target);
        let age = monotonic().saturating_sub(record.now);
        let time = timestamp(clock::wall_us().saturating_sub(age.0 / 1000));
        let name = |port: PortId| ports.get(port.index()).map_or("", String::as_str);
        let line = log::line(&log::Entry::copy(&record), name);
        out.extend_from_slice(format!("{time} {host} kernel: {line}").as_bytes());
    })
}

/// RFC 3339 in UTC from microseconds since 1970, as rsyslog writes it.
fn timestamp(unix_us: u64) -> String {
    let (seconds, micros) = (unix_us / 1_000_000, unix_us % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days since 0000-03-01, in eras of 400 years: leap days come last in a year.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}+00:00")
}

/// Handle of the log thread.
#[derive(Debug)]
pub(super) struct LogThread {
    counters: Arc<LogCounters>,
    reopen: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl LogThread {
    /// Starts writing to `path`, or to standard error without one.
    ///
    /// # Errors
    /// When no thread can be made. A file that cannot be opened is no error.
    pub(super) fn start(
        path: Option<&Path>,
        queue: Arc<ArrayQueue<LogEntry>>,
        format: Box<Format>,
    ) -> io::Result<Self> {
        let counters = Arc::new(LogCounters::default());
        let reopen = Arc::new(AtomicBool::new(false));
        let stop = Arc::new(AtomicBool::new(false));
        let mut writer = Writer {
            sink: Sink::new(path),
            counters: Arc::clone(&counters),
            batch: Vec::with_capacity(BATCH_BYTES),
            lines: 0,
        };
        let flags = (Arc::clone(&stop), Arc::clone(&reopen));
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || writer.run(&queue, &*format, &flags.0, &flags.1))?;
        Ok(Self { counters, reopen, stop, thread })
    }

    /// What was written and lost.
    pub(super) fn counters(&self) -> &Arc<LogCounters> {
        &self.counters
    }

    /// Opens the file anew before the next line.
    pub(super) fn reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
    }

    /// Writes what is queued and ends, unless the file blocks: then the thread
    /// is left behind after `patience`.
    pub(super) fn finish(self, patience: Nanos) {
        self.stop.store(true, Ordering::Relaxed);
        let deadline = monotonic() + patience;
        while !self.thread.is_finished() && monotonic() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Where lines go.
enum Sink {
    Stderr,
    File { path: PathBuf, file: Option<File>, retry: Nanos },
}

impl Sink {
    fn new(path: Option<&Path>) -> Self {
        match path {
            None => Self::Stderr,
            Some(path) => {
                let (path, file) = (path.to_owned(), opened(path));
                let retry = monotonic() + RETRY;
                Self::File { path, file, retry }
            }
        }
    }

    fn reopen(&mut self) {
        if let Self::File { path, file, .. } = self {
            *file = opened(path);
        }
    }

    fn write(&mut self, bytes: &[u8], now: Nanos) -> bool {
        match self {
            Self::Stderr => io::stderr().lock().write_all(bytes).is_ok(),
            Self::File { path, file, retry } => {
                if file.is_none() && now >= *retry {
                    *retry = now + RETRY;
                    *file = open(path).ok();
                }
                let Some(open) = file else { return false };
                let Err(error) = open.write_all(bytes) else { return true };
                tracing::error!("log file {}: {error}; lines are lost", path.display());
                *file = None;
                *retry = now + RETRY;
                false
            }
        }
    }
}

/// The file, or a word about why not: later attempts are silent.
fn opened(path: &Path) -> Option<File> {
    open(path)
        .map_err(|error| {
            let path = path.display();
            tracing::error!("log file {path}: {error}; lines are lost until it can be opened");
        })
        .ok()
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // A FIFO without a reader must not block.
    let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(flags).open(path)
}

struct Writer {
    sink: Sink,
    counters: Arc<LogCounters>,
    batch: Vec<u8>,
    lines: u64,
}

impl Writer {
    fn run(
        &mut self,
        queue: &ArrayQueue<LogEntry>,
        format: &Format,
        stop: &AtomicBool,
        reopen: &AtomicBool,
    ) {
        loop {
            // Read before the queue, so that what was queued before a stop is written.
            let last = stop.load(Ordering::Relaxed);
            if reopen.swap(false, Ordering::Relaxed) {
                self.sink.reopen();
            }
            while let Some(entry) = queue.pop() {
                format(&entry, &mut self.batch);
                self.batch.push(b'\n');
                self.lines += 1;
                if self.batch.len() >= BATCH_BYTES {
                    self.flush();
                }
            }
            self.flush();
            if last {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn flush(&mut self) {
        if self.lines == 0 {
            return;
        }
        let written = self.sink.write(&self.batch, monotonic());
        let counter = if written { &self.counters.written } else { &self.counters.lost };
        counter.fetch_add(self.lines, Ordering::Relaxed);
        self.batch.clear();
        self.lines = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataplane::effects::LogRecord;
    use dataplane::policy::Hook;
    use dataplane::policy::target::LogTarget;
    use dataplane::wire::{self, Frame};

    /// One UDP packet of `payload` bytes, logged.
    fn entry(payload: usize) -> LogEntry {
        let ip_len = 28 + payload;
        let mut frame = vec![0u8; 14 + ip_len];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&(ip_len as u16).to_be_bytes());
        frame[22] = 64;
        frame[23] = 17;
        frame[26..34].copy_from_slice(&[198, 18, 1, 2, 198, 18, 2, 2]);
        frame[34..40].copy_from_slice(&[0x9c, 0x40, 0, 53, 0, 0]);
        frame[38..40].copy_from_slice(&((8 + payload) as u16).to_be_bytes());
        let sum: u32 =
            frame[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        let Ok(Frame::Ip(parsed)) = wire::parse(&frame, Default::default()) else {
            panic!("the frame is well-formed");
        };
        let target = LogTarget {
            level: 4,
            prefix: "seen: ".into(),
            tcp_sequence: false,
            tcp_options: false,
            ip_options: false,
            uid: false,
            mac_decode: false,
        };
        LogEntry::new(&LogRecord {
            now: monotonic(),
            target: &target,
            hook: Hook::Forward,
            input: Some(PortId(0)),
            output: Some(PortId(1)),
            frame: &frame,
            has_link_header: true,
            parsed: &parsed,
            mark: 0,
        })
    }

    fn queue(entries: usize) -> Arc<ArrayQueue<LogEntry>> {
        let queue = Arc::new(ArrayQueue::new(entries.max(1)));
        for _ in 0..entries {
            assert!(queue.push(entry(10)).is_ok());
        }
        queue
    }

    fn names() -> Vec<String> {
        vec!["eth0".to_owned(), "eth1".to_owned()]
    }

    #[test]
    fn lines_are_the_kernels_with_time_and_host() {
        let format = kernel_lines(names());
        // Longer than what an entry keeps of a frame, too.
        for payload in [10, 1400] {
            let mut line = Vec::new();
            format(&entry(payload), &mut line);
            let line = String::from_utf8(line).unwrap();
            let (time, said) = line.split_once(" kernel: ").unwrap();
            assert!(time.contains("+00:00 "), "{time}");
            assert!(said.starts_with("seen: IN=eth0 OUT=eth1 MAC="), "{said}");
            let facts = format!(
                "SRC=198.18.1.2 DST=198.18.2.2 LEN={} TOS=0x00 PREC=0x00 TTL=64 ID=0 PROTO=UDP \
                 SPT=40000 DPT=53 LEN={}",
                payload + 28,
                payload + 8
            );
            assert!(said.contains(&facts), "{said}");
        }
    }

    #[test]
    fn timestamps_know_the_calendar() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000+00:00");
        assert_eq!(timestamp(951_782_400_000_001), "2000-02-29T00:00:00.000001+00:00");
        assert_eq!(timestamp(1_709_251_199_999_999), "2024-02-29T23:59:59.999999+00:00");
        assert_eq!(timestamp(4_107_542_400_000_000), "2100-03-01T00:00:00.000000+00:00");
    }

    #[test]
    fn a_file_gets_every_line_and_a_missing_directory_loses_them_counted() {
        let path = std::env::temp_dir().join(format!("portcullis-log-{}", std::process::id()));
        let log = LogThread::start(Some(&path), queue(100), kernel_lines(names())).unwrap();
        let counters = Arc::clone(log.counters());
        log.finish(Nanos::from_secs(10));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text.lines().count(), 100);
        assert_eq!(counters.written.load(Ordering::Relaxed), 100);

        let nowhere = path.join("missing/log");
        let log = LogThread::start(Some(&nowhere), queue(7), kernel_lines(names())).unwrap();
        let counters = Arc::clone(log.counters());
        log.finish(Nanos::from_secs(10));
        assert_eq!(counters.lost.load(Ordering::Relaxed), 7);
    }

    #[test]
    fn a_full_disk_loses_lines_counted() {
        let full = Path::new("/dev/full");
        let log = LogThread::start(Some(full), queue(9), kernel_lines(names())).unwrap();
        let counters = Arc::clone(log.counters());
        log.finish(Nanos::from_secs(10));
        assert_eq!(counters.lost.load(Ordering::Relaxed), 9);
        assert_eq!(counters.written.load(Ordering::Relaxed), 0);
    }
}
