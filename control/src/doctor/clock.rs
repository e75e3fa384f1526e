//! Time: how dear it is to read, and whether it is right.

use dataplane::clock;

use super::sys::{self, Discipline};
use super::{Code, Command, Finding, Sight, Unseen};

const DIRECTORY: &str = "/sys/devices/system/clocksource/clocksource0";
/// 2026-01-01: no build is older.
const BUILT: u64 = 1_767_225_600;
/// Kept right this well, nobody notices.
const ERROR_MAX_US: u64 = 1_000_000;

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) source: Sight<String>,
    pub(super) sources: Vec<String>,
    /// Seconds since 1970.
    pub(super) wall: u64,
    pub(super) discipline: Sight<Discipline>,
}

/// Looks.
pub(super) fn observe() -> Seen {
    let file = |name| {
        let path = format!("{DIRECTORY}/{name}");
        std::fs::read_to_string(&path)
            .map(|text| text.trim().to_owned())
            .map_err(|error| Unseen::of(path, &error))
    };
    let sources = file("available_clocksource").unwrap_or_default();
    Seen {
        source: file("current_clocksource"),
        sources: sources.split_whitespace().map(str::to_owned).collect(),
        wall: clock::wall_us() / 1_000_000,
        discipline: sys::clock_discipline().map_err(|error| Unseen::of("adjtimex", &error)),
    }
}

/// What it means.
pub(super) fn judge(seen: &Seen) -> Vec<Finding> {
    vec![source(seen), wall(seen), discipline(seen)]
}

/// Whether the kernel reads this source without a system call of the reader's.
fn is_cheap(source: &str) -> bool {
    ["tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "riscv_clocksource"]
        .contains(&source)
}

fn source(seen: &Seen) -> Finding {
    let source = match &seen.source {
        Ok(source) => source,
        Err(why) => return Finding::unseen(Code::ClockSource, "", why),
    };
    if is_cheap(source) {
        return Finding::ok(Code::ClockSource, "", format!("clock source {source}"));
    }
    let finding = Finding::warning(Code::ClockSource, "", format!("clock source {source} is slow"));
    match seen.sources.iter().find(|source| is_cheap(source)) {
        Some(better) => {
            let line = format!("echo {better} > {DIRECTORY}/current_clocksource");
            finding.mend(Command::new("sh -c").arg(line))
        }
        None => finding.advise("dmesg | grep -i tsc says why the kernel distrusts the TSC"),
    }
}

fn wall(seen: &Seen) -> Finding {
    if seen.wall < BUILT {
        let found = format!("the clock says {} seconds since 1970, which is long past", seen.wall);
        return Finding::error(Code::ClockWall, "", found).advise("set the clock");
    }
    Finding::ok(Code::ClockWall, "", "the clock says a time after this program was made")
}

fn discipline(seen: &Seen) -> Finding {
    match &seen.discipline {
        Ok(Discipline { synchronised: true, error_us }) if *error_us < ERROR_MAX_US => {
            let found = format!("the clock is synchronised to {} ms", error_us.div_ceil(1000));
            Finding::ok(Code::ClockSync, "", found)
        }
        Ok(Discipline { synchronised: true, error_us }) => {
            let found = format!("the clock may be wrong by {} ms", error_us / 1000);
            Finding::note(Code::ClockSync, "", found).advise("run chronyd or systemd-timesyncd")
        }
        Ok(_) => Finding::note(Code::ClockSync, "", "nothing synchronises the clock")
            .advise("run chronyd or systemd-timesyncd"),
        Err(why) => Finding::unseen(Code::ClockSync, "", why),
    }
}
