//! What `show status` shows.

use dataplane::clock::Nanos;

use super::logwriter::LogDesk;
use crate::api::protocol::{LastSave, LogInfo, RestoredInfo, StateInfo};
use crate::state::{Progress, Restored, Saved};

const fn micros(time: Nanos) -> u64 {
    time.0 / 1000
}

/// The state file as a protocol value.
pub(super) fn state(file: &str, progress: Progress) -> StateInfo {
    StateInfo {
        file: file.to_owned(),
        every_ms: progress.every.0 / Nanos::MILLISECOND.0,
        saves: progress.saves,
        failures: progress.failures,
        error: progress.error,
        last: progress.last.map(last),
        restored: restored(progress.restored),
    }
}

/// Where LOG lines go, as a protocol value.
pub(super) fn log(desk: &LogDesk) -> LogInfo {
    let outlook = desk.outlook();
    LogInfo {
        file: outlook.path.map(|path| path.display().to_string()),
        written: desk.written(),
        diverted: desk.diverted(),
        lost: desk.lost(),
        error: outlook.trouble.map(|trouble| trouble.why),
    }
}

fn last(saved: Saved) -> LastSave {
    LastSave {
        at_ms: saved.at_us / 1000,
        connections: saved.connections,
        limits: saved.limits,
        expectations: saved.expectations,
        bytes: saved.bytes,
        work_us: micros(saved.work),
        took_us: micros(saved.took),
    }
}

fn restored(restored: Restored) -> RestoredInfo {
    let (refused, put_aside) = match restored.refused {
        Some((refusal, aside)) => (Some(refusal.to_string()), Some(aside.display().to_string())),
        None => (None, None),
    };
    RestoredInfo {
        found: restored.found,
        refused,
        put_aside,
        clean: restored.clean,
        age_ms: restored.age.0 / Nanos::MILLISECOND.0,
        connections: restored.connections,
        expired: restored.expired,
        stale: restored.stale,
        lost: restored.no_room + restored.clashed,
        limits: restored.limits,
        amounts: restored.pieces.taken,
        amounts_unclaimed: restored.pieces.unclaimed,
        amounts_refused: restored.pieces.refused,
        expectations: restored.expectations,
        took_us: micros(restored.took),
    }
}
