//! `portcullis show status` as text.

use crate::api::protocol::{FailureInfo, LogInfo, Status, StuckInfo};

/// The daemon, what holds when it fails, and what of its state lasts.
pub(super) fn render(status: &Status) -> String {
    let version = &status.version;
    let mut text = format!(
        "portcullis {} (pid {}) on Linux {}, up {} s\npolicy generation {}, {} connections, \
         host road {}\n",
        version.portcullis,
        version.pid,
        version.kernel,
        version.uptime_ms / 1000,
        version.generation,
        status.connections,
        status.host_road
    );
    text += &render_failure(&status.failure);
    text += &render_log(&status.log);
    let Some(state) = &status.state else { return text + "state: not kept\n" };
    let every = state.every_ms / 1000;
    text += &format!("state: {} every {every} s, {} saves", state.file, state.saves);
    if let Some(last) = &state.last {
        let (work, took) = (last.work_us / 1000, last.took_us / 1000);
        text += &format!(
            ", the last with {} connections and {} limits in {} bytes ({work} ms of work in {took} ms)",
            last.connections, last.limits, last.bytes
        );
    }
    text.push('\n');
    if let Some(error) = &state.error {
        text += &format!("state: {} saves failed, the last because: {error}\n", state.failures);
    }
    let back = &state.restored;
    text += &match (&back.refused, back.found) {
        (Some(why), _) => {
            let aside = back.put_aside.as_deref().unwrap_or("?");
            format!("restored: nothing; the file was refused: {why}; it is now {aside}\n")
        }
        (None, false) => "restored: nothing; there was no file\n".to_owned(),
        (None, true) => format!(
            "restored: {} connections, {} limits and {} amounts of rules, saved {} s before{}; {} had expired, {} were stale, {} lost\n",
            back.connections,
            back.limits,
            back.amounts,
            back.age_ms / 1000,
            if back.clean { "" } else { " (the daemon before was killed)" },
            back.expired,
            back.stale,
            back.lost
        ),
    };
    text
}

/// What holds while the daemon is away.
pub(super) fn render_failure(failure: &FailureInfo) -> String {
    let FailureInfo { on_failure, watchdog_ms, pin_dir, ports, stuck } = failure;
    let mut text = format!("on failure: {on_failure}");
    let kept = failure.kept_ports();
    if !kept.is_empty() {
        let adopted = ports.iter().filter(|pin| pin.adopted).count();
        text += &format!(
            "; {} stay closed by links in {pin_dir}, {adopted} of them from a daemon before",
            kept.join(" ")
        );
    }
    text += &match watchdog_ms {
        0 => "; nobody watches workers\n".to_owned(),
        limit => format!("; a worker is away after {limit} ms\n"),
    };
    for StuckInfo { worker, still_ms, stage, .. } in stuck {
        text += &format!("worker {worker} stands still for {still_ms} ms, {stage}\n");
    }
    text
}

fn render_log(log: &LogInfo) -> String {
    let LogInfo { file, written, diverted, lost, error } = log;
    let place = file.as_deref().unwrap_or("standard error");
    let mut text = format!("log: {place}, {written} lines written, {lost} lost\n");
    if let Some(error) = error {
        text += &format!("log: the file {error}; {diverted} lines went to standard error\n");
    }
    text
}
