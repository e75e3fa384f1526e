//! The running daemon: whether it answers, what is really in force, and what it
//! has lost.

use std::io;
use std::path::Path;

use dataplane::fib::Mode;
use dataplane::packet::PortId;

use super::{Code, Command, Finding, Wanted};
use crate::api::protocol::{PortStatus, Ports, Rules, Stats, Status};
use crate::api::{Client, ClientError, Request, Response};

/// What was seen.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    /// Nobody listens.
    Absent {
        /// There is a socket, left by a process that is gone.
        stale: bool,
    },
    /// It is there but this process may not ask it, or it does not answer.
    Silent(String),
    /// Its answers.
    Running(Box<Running>),
}

/// What the daemon says of itself.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) status: Status,
    pub(super) ports: Ports,
    pub(super) stats: Stats,
    /// INPUT and OUTPUT, and what they hold.
    pub(super) rules: Rules,
}

impl Seen {
    /// The daemon, if it answers.
    pub(super) fn running(&self) -> Option<&Running> {
        match self {
            Self::Running(running) => Some(running),
            _ => None,
        }
    }
    /// Its process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.running().map(|running| running.status.version.pid)
    }
}

impl Running {
    /// What it says of one port.
    pub(super) fn port(&self, name: &str) -> Option<&PortStatus> {
        self.ports.ports.iter().find(|port| port.name == name)
    }

    /// Puts in what is really in force where nothing was asked for.
    pub(super) fn complete(&self, wanted: &mut Wanted) {
        if wanted.ports.is_empty() {
            wanted.ports = self.ports.ports.iter().map(|port| port.name.clone()).collect();
            wanted.mode = match self.ports.mode.as_str() {
                "bridge" => Mode::Bridge(vec![(PortId(0), PortId(1))]),
                "host" => Mode::Host,
                _ => Mode::Routed,
            };
            wanted.host_road &= self.ports.mode != "bridge";
        }
        wanted.conntrack_max = self.stats.conntrack.capacity as usize;
    }
}

/// Asks.
pub(super) fn observe(wanted: &Wanted) -> Seen {
    match ask(&wanted.socket) {
        Ok(Some(running)) => Seen::Running(Box::new(running)),
        Ok(None) => Seen::Silent("its answer does not belong to the request".to_owned()),
        Err(ClientError::Connect { source, .. }) => match source.kind() {
            io::ErrorKind::NotFound => Seen::Absent { stale: false },
            io::ErrorKind::ConnectionRefused => Seen::Absent { stale: true },
            _ => Seen::Silent(source.to_string()),
        },
        Err(error) => Seen::Silent(error.to_string()),
    }
}

/// `None` for an answer to another question.
fn ask(socket: &Path) -> Result<Option<Running>, ClientError> {
    let mut client = Client::connect(socket)?;
    let Response::Status(status) = client.call(Request::ShowStatus {})? else { return Ok(None) };
    let Response::Ports(ports) = client.call(Request::ShowPorts {})? else { return Ok(None) };
    let Response::Stats(stats) = client.call(Request::ShowStats {})? else { return Ok(None) };
    let rules = Request::ShowRules { family: None, table: None, chain: None };
    let Response::Rules(rules) = client.call(rules)? else { return Ok(None) };
    Ok(Some(Running { status, ports, stats, rules }))
}

/// What it means.
pub(super) fn judge(wanted: &Wanted, seen: &Seen) -> Vec<Finding> {
    let socket = wanted.socket.to_string_lossy();
    let running = match seen {
        Seen::Running(running) => running,
        Seen::Absent { stale } => {
            let left = if *stale { ", although its socket is left" } else { "" };
            let found = format!("no daemon runs on this control socket{left}");
            return vec![Finding::note(Code::DaemonAbsent, socket, found)];
        }
        Seen::Silent(why) => {
            let found = format!("the daemon cannot be asked: {why}");
            return vec![
                Finding::warning(Code::DaemonSocket, socket, found)
                    .advise("root, its user and its --socket-group may ask it"),
            ];
        }
    };
    let mut findings = vec![version(running)];
    findings.extend(ports(wanted, running));
    findings.extend(host_road(wanted, running));
    findings.extend(
        running.ports.notes.iter().map(|note| Finding::note(Code::DaemonNote, "", note.as_str())),
    );
    findings.extend(losses(running));
    findings.push(log(running));
    findings.extend(state(running));
    findings.push(conntrack(running));
    findings.extend(stuck(running));
    findings.extend(open(running));
    findings
}

fn version(running: &Running) -> Finding {
    let ours = env!("CARGO_PKG_VERSION");
    let theirs = &running.status.version.portcullis;
    let pid = running.status.version.pid;
    if theirs == ours {
        return Finding::ok(
            Code::DaemonVersion,
            "",
            format!("portcullis {theirs} runs, pid {pid}"),
        );
    }
    Finding::note(Code::DaemonVersion, "", format!("the daemon is {theirs}, and this is {ours}"))
}

fn ports(wanted: &Wanted, running: &Running) -> Option<Finding> {
    let missing = wanted.ports.iter().filter(|name| running.port(name).is_none());
    let missing: Vec<&str> = missing.map(String::as_str).collect();
    (!missing.is_empty()).then(|| {
        let found = format!("the running daemon does not have {}", missing.join(", "));
        Finding::note(Code::DaemonPorts, "", found)
    })
}

fn host_road(wanted: &Wanted, running: &Running) -> Option<Finding> {
    let unenforced = running.rules.chains.iter().find(|chain| !chain.enforced)?;
    let count = unenforced.rules.len();
    wanted.host_road.then(|| {
        let found = format!("{} and its {count} rule(s) are not enforced", unenforced.chain);
        Finding::warning(Code::HostRoad, "", found)
            .advise("every port must have native XDP: see xdp-mode")
    })
}

/// Losses that say that something is too slow or too small.
fn losses(running: &Running) -> Vec<Finding> {
    const OF_SOCKETS: [(&str, &str); 3] = [
        ("rx_ring_full", "the worker is too slow: more queues and workers, or less on its core"),
        ("fill_ring_empty", "the pool is too small for the ports"),
        ("rx_dropped", "frames longer than a chunk: see mtu, lro and gro-hw"),
    ];
    const OF_WORKERS: [(&str, &str); 2] = [
        ("tx_ring_full", "the output port is slower than what is sent to it"),
        ("no_frame", "the pool is too small for the ports"),
    ];
    let mut findings = Vec::new();
    let mut add = |subject: &str, name: &str, count: u64, advice: &str| {
        if count > 0 {
            let found = format!("{name}: {count} since the daemon started");
            findings.push(Finding::warning(Code::Losses, subject, found).advise(advice));
        }
    };
    for port in &running.ports.ports {
        for (name, advice) in OF_SOCKETS {
            let counts = port.queues.iter().filter_map(|queue| queue.counters.get(name));
            add(&port.name, name, counts.sum(), advice);
        }
    }
    for (name, advice) in OF_WORKERS {
        add("", name, running.stats.drops.get(name).copied().unwrap_or(0), advice);
    }
    if findings.is_empty() {
        findings.push(Finding::ok(Code::Losses, "", "no frame was lost beside the engine"));
    }
    findings
}

fn log(running: &Running) -> Finding {
    match running.stats.log_lost {
        0 => Finding::ok(Code::LogLost, "", "no LOG line was lost"),
        lost => Finding::warning(Code::LogLost, "", format!("{lost} LOG lines were lost"))
            .advise("limit LOG rules (-m limit), and see that the log's disk is not full"),
    }
}

fn state(running: &Running) -> Option<Finding> {
    let state = running.status.state.as_ref()?;
    Some(match &state.error {
        Some(error) => {
            let found = format!("the last save failed: {error}");
            Finding::error(Code::StateSave, state.file.as_str(), found)
                .advise("make room, or mend the directory's permissions")
        }
        None => Finding::ok(Code::StateSave, state.file.as_str(), "connections are saved"),
    })
}

fn conntrack(running: &Running) -> Finding {
    let table = &running.stats.conntrack;
    let (entries, capacity) = (table.entries, table.capacity);
    let found = format!("{entries} of {capacity} connections");
    let most = table.counters.get("drop").copied().unwrap_or(0) + table.quota_refused;
    if table.crowded || entries * 8 >= capacity * 7 {
        return Finding::warning(Code::ConntrackFull, "", format!("{found}: nearly full"))
            .mend(Command::new("portcullis show stats"))
            .advise("a higher --conntrack-max; `show stats` names who fills it");
    }
    if most > 0 {
        let found = format!("{found} now, and {most} were refused since the start");
        return Finding::note(Code::ConntrackFull, "", found);
    }
    Finding::ok(Code::ConntrackFull, "", found)
}

/// A worker that runs an older policy than the daemon, although others hold none back.
fn stuck(running: &Running) -> Option<Finding> {
    let stats = &running.stats;
    let behind = stats.workers.iter().find(|it| it.generation < stats.generation)?;
    let (worker, generation) = (behind.worker, behind.generation);
    let found = format!(
        "worker {worker} still runs policy {generation}, and {} is in force",
        stats.generation
    );
    Some(
        Finding::error(Code::WorkerStuck, format!("worker {worker}"), found)
            .advise("restart the daemon, and report it with `portcullis --json show stats`"),
    )
}

fn open(running: &Running) -> Option<Finding> {
    let chains = &running.rules.chains;
    let drops = |policy: &Option<String>| policy.as_deref() == Some("DROP");
    let empty = chains.iter().all(|chain| chain.rules.is_empty() && !drops(&chain.policy));
    empty.then(|| {
        Finding::note(Code::PolicyOpen, "", "no rule is in force")
            .mend(Command::new("portcullis apply --rules FILE"))
    })
}
