//! LOG lines as a syslog daemon writes the kernel's.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use dataplane::clock::{self, Nanos, monotonic};
use dataplane::effects::{LogRecord, Report};
use dataplane::packet::PortId;

use crate::log;

/// Bytes of a time without its fraction: `2000-02-29T00:00:00`.
const SECONDS_LEN: usize = 19;

/// Audit records so far.
static AUDITED: AtomicU64 = AtomicU64::new(0);

/// Turns a record into a line without its line end, appended to the buffer.
pub(in crate::daemon) type Format = dyn FnMut(&LogRecord<'_>, &mut Vec<u8>) + Send;

/// Lines as a syslog daemon writes the kernel's: time, host, `kernel:`, and what
/// the kernel says. `ports` are the names of the ports by id.
pub(in crate::daemon) fn kernel_lines(ports: Vec<String>) -> Box<Format> {
    let host = host();
    // The calendar is asked once a second.
    let (mut second, mut date) = (u64::MAX, String::new());
    Box::new(move |record, out| {
        let wall = wall_us(record);
        if second != wall / 1_000_000 {
            second = wall / 1_000_000;
            date = timestamp(wall);
            date.truncate(SECONDS_LEN);
        }
        let name = |port: PortId| match port {
            PortId::LOOPBACK => "lo",
            port => ports.get(port.index()).map_or("", String::as_str),
        };
        let line = match record.report {
            Report::Audit(_) => {
                let number = AUDITED.fetch_add(1, Ordering::Relaxed) + 1;
                log::audit(record, Nanos(wall / 1000 * 1_000_000), number)
            }
            _ => log::line(&log::Entry::copy(record), name),
        };
        let micros = wall % 1_000_000;
        // A vector takes all that is written to it.
        let _ = write!(out, "{date}.{micros:06}+00:00 {host} kernel: {line}");
    })
}

/// When a record was made, in microseconds since 1970.
pub(super) fn wall_us(record: &LogRecord<'_>) -> u64 {
    clock::wall_us().saturating_sub(monotonic().saturating_sub(record.now).0 / 1000)
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A line of our own between them.
pub(super) fn remark(text: &str) -> Vec<u8> {
    format!("{} {} portcullis: {text}\n", timestamp(clock::wall_us()), host()).into_bytes()
}

/// RFC 3339 in UTC from microseconds since 1970, as rsyslog writes it.
pub(super) fn timestamp(unix_us: u64) -> String {
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
