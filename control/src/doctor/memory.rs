//! Memory: what frames and the connection table take, against what there is.

use dataplane::conntrack::table_bytes;

use super::kernel::{frame_bytes, number};
use super::{Code, Command, Finding, Sight, Unseen, Wanted};

/// What was seen, in bytes.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) total: Sight<u64>,
    pub(super) available: Sight<u64>,
    /// Huge pages of 2 MiB that nobody has.
    pub(super) huge_free: Sight<u64>,
    /// Huge pages of 2 MiB in all.
    pub(super) huge_total: Sight<u64>,
    /// Whether the kernel makes huge pages by itself: `always`, `madvise` or `never`.
    pub(super) transparent: Sight<String>,
}

const TRANSPARENT: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

const HUGE_PAGE: u64 = 2 << 20;

/// Looks.
pub(super) fn observe() -> Seen {
    let path = "/proc/meminfo";
    let text = std::fs::read_to_string(path).map_err(|error| Unseen::of(path, &error));
    let line = |name: &str| -> Sight<u64> {
        let text = text.as_ref().map_err(Unseen::clone)?;
        field(text, name).ok_or_else(|| Unseen::Absent(format!("{name} in {path}")))
    };
    let huge = |name| number(&format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}"));
    Seen {
        total: line("MemTotal:"),
        available: line("MemAvailable:"),
        huge_free: huge("free_hugepages"),
        huge_total: huge("nr_hugepages"),
        transparent: std::fs::read_to_string(TRANSPARENT)
            .map_err(|error| Unseen::of(TRANSPARENT, &error))
            .map(|text| chosen(&text).to_owned()),
    }
}

/// Bytes in a line as `MemTotal:  24105 kB`.
pub(super) fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}

/// The chosen one of `always [madvise] never`.
pub(super) fn chosen(text: &str) -> &str {
    let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or("", |(word, _)| word)
}

/// The most connections whose table takes at most `bytes`.
fn most_connections(bytes: u64) -> u64 {
    let each = (table_bytes(1 << 20) - table_bytes(0)) >> 20;
    bytes.saturating_sub(table_bytes(0)) / each.max(1)
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// What it means. A daemon that runs has taken its memory already.
pub(super) fn judge(wanted: &Wanted, workers: usize, seen: &Seen, running: bool) -> Vec<Finding> {
    let (total, available) = match (&seen.total, &seen.available) {
        (Ok(total), Ok(available)) => (*total, *available),
        (Err(why), _) | (_, Err(why)) => return vec![Finding::unseen(Code::MemoryFrames, "", why)],
    };
    let frames = frame_bytes(wanted, workers);
    let table = table_bytes(wanted.conntrack_max);
    let mut findings = vec![
        room(Code::MemoryFrames, "frames", frames, available, running),
        table_room(wanted, table, available, running),
        size(wanted, table, total),
    ];
    findings.push(huge_pages(seen, frames, running));
    findings.push(transparent(seen, table));
    findings
}

fn room(code: Code, what: &str, needed: u64, available: u64, running: bool) -> Finding {
    let takes = format!("{what} take {} MiB", mib(needed));
    if running {
        return Finding::ok(code, "", takes);
    }
    let found = format!("{takes}, and {} MiB are available", mib(available));
    match needed {
        needed if needed > available => Finding::error(code, "", found),
        needed if needed > available / 2 => Finding::warning(code, "", found),
        _ => Finding::ok(code, "", found),
    }
}

fn table_room(wanted: &Wanted, table: u64, available: u64, running: bool) -> Finding {
    let what = format!("{} connections", wanted.conntrack_max);
    let finding = room(Code::MemoryConntrack, &what, table, available, running);
    match finding.severity {
        super::Severity::Ok => finding,
        _ => {
            let fitting = most_connections(available / 2);
            finding.advise(format!("start with --conntrack-max {fitting} or less"))
        }
    }
}

/// Whether `max` fits the machine: a quarter of its memory is a generous table.
fn size(wanted: &Wanted, table: u64, total: u64) -> Finding {
    /// Below this even a small office fills it.
    const LEAST: usize = 16_384;
    let max = wanted.conntrack_max;
    let each = table / max.max(1) as u64;
    // In steps that are easy to say.
    let fitting = (most_connections(total / 4) / 65_536 * 65_536).clamp(65_536, 1 << 28);
    let found = format!("{max} connections at most, {each} bytes each");
    if max < LEAST {
        return Finding::note(Code::ConntrackSize, "", found)
            .advise(format!("up to {fitting} fit this machine: --conntrack-max {fitting}"));
    }
    if table > total / 2 {
        return Finding::warning(
            Code::ConntrackSize,
            "",
            format!("{found}: over half of all memory"),
        )
        .advise(format!("--conntrack-max {fitting}"));
    }
    Finding::ok(Code::ConntrackSize, "", format!("{found}; up to {fitting} fit this machine"))
}

fn huge_pages(seen: &Seen, frames: u64, running: bool) -> Finding {
    let needed = frames.div_ceil(HUGE_PAGE);
    let (free, total) = match (&seen.huge_free, &seen.huge_total) {
        (Ok(free), Ok(total)) => (*free, *total),
        (Err(why), _) | (_, Err(why)) => return Finding::unseen(Code::HugePages, "", why),
    };
    // A daemon that runs holds some, or was started without.
    let enough = if running { total >= needed } else { free >= needed };
    if enough {
        return Finding::ok(
            Code::HugePages,
            "",
            format!("{total} huge pages, {free} of them free"),
        );
    }
    let found = format!("frames fill {needed} huge pages of 2 MiB, and {free} are free of {total}");
    let pages = format!("vm.nr_hugepages={}", total.saturating_sub(free) + needed);
    let when = if running { "then restart the daemon" } else { "before the daemon starts" };
    Finding::note(Code::HugePages, "", found)
        .mend(Command::new("sysctl -w").arg(pages))
        .advise(when)
}

/// The connection table has no huge pages of its own: only the kernel can give it some.
fn transparent(seen: &Seen, table: u64) -> Finding {
    /// A smaller table misses little.
    const LARGE: u64 = 256 << 20;
    match &seen.transparent {
        Ok(mode) if mode != "always" && table > LARGE => {
            let found = format!("transparent huge pages: {mode}; the table has {} MiB", mib(table));
            Finding::note(Code::TransparentPages, "", found)
                .mend(Command::new("sh -c").arg(format!("echo always > {TRANSPARENT}")))
        }
        Ok(mode) => {
            Finding::ok(Code::TransparentPages, "", format!("transparent huge pages: {mode}"))
        }
        Err(why) => Finding::unseen(Code::TransparentPages, "", why),
    }
}
